#!/usr/bin/env bash
# The table "Pools" of docs/elsewhere.md: how many windows each library makes where the last one
# hangs over the edge, and what it counts there. Python 3.11 and Node, x86-64; versions below.
#
# Asked for: maxima of 3x3 at stride 2 on 55 pixels (no overhang) and on 54 (one pixel missing), by
# the default, by ceil and by SAME; of 2x2 at stride 2 with a padding of 1 on 5 pixels, ceil, where
# the last window would begin in the padding; what an explicit padding is worth in a map of -1; and
# what averages over the edge are divided by, in a map of ones.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.13.0 onnx==1.23.2 onnxruntime==1.32.0 \
    openvino==2026.4.1 opencv-python-headless==4.14.0.94 tensorflow-cpu==2.21.0 \
    paddlepaddle==3.3.1 ncnn==1.0.20261020
cd "$folder"
npm install --silent --no-audit --no-fund @tensorflow/tfjs@4.22.0 >/dev/null
export TF_CPP_MIN_LOG_LEVEL=3 TF_ENABLE_ONEDNN_OPTS=0 GLOG_minloglevel=3 PYTHONWARNINGS=ignore
cat > pool.js <<'JS'
const tf = require('@tensorflow/tfjs');
const {x, kind, window, stride, pad, rounding} = JSON.parse(require('fs').readFileSync(0));
const nhwc = tf.tensor(x).transpose([0, 2, 3, 1]);
const pool = kind === 'max' ? tf.maxPool : tf.avgPool;
const y = pool(nhwc, window, stride, pad, rounding);
console.log('ANSWER' + JSON.stringify(y.transpose([0, 3, 1, 2]).arraySync()));
JS
cat > pools.py <<'PY'
import io
import json
import subprocess
import sys

import numpy as np


class NoWord(ValueError):
    """The call cannot say it."""


# Each takes a map (1, 1, side, side), "max" or "average", window, stride, pixels of padding, and
# one of "floor", "ceil" and "same"; None is the library's own default.


def pytorch(x, kind, window, stride, pad, form):
    import torch
    from torch.nn import functional

    if form == "same":
        raise NoWord
    pool = functional.max_pool2d if kind == "max" else functional.avg_pool2d
    return pool(torch.from_numpy(x), window, stride, pad, ceil_mode=form == "ceil").numpy()


def onnx_file(x, kind, window, stride, pad, form):
    from onnx import TensorProto, helper

    told = {"kernel_shape": [window] * 2, "strides": [stride] * 2}
    if form == "same":
        told["auto_pad"] = "SAME_UPPER"
    elif pad:
        told["pads"] = [pad] * 4
    if form == "ceil":
        told["ceil_mode"] = 1
    node = helper.make_node("MaxPool" if kind == "max" else "AveragePool", ["x"], ["y"], **told)
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [*"nchw"])]
    graph = helper.make_graph([node], "pool", ends[:1], ends[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return made.SerializeToString()


def onnxruntime(x, *told):
    import onnxruntime as ort

    session = ort.InferenceSession(onnx_file(x, *told), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def openvino(x, *told):
    import openvino as ov

    core = ov.Core()
    return core.compile_model(core.read_model(io.BytesIO(onnx_file(x, *told))), "CPU")(x)[0]


def opencv_onnx(x, *told):
    import cv2

    net = cv2.dnn.readNetFromONNX(np.frombuffer(onnx_file(x, *told), np.uint8))
    net.setInput(x)
    return net.forward()


def opencv_caffe(x, kind, window, stride, pad, form):
    import cv2

    if form in ("same", "floor"):
        raise NoWord  # its schema is older than Caffe's round_mode
    dims = " ".join(f"dim: {side}" for side in x.shape)
    text = f"""layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }}
layer {{ name: "y" type: "Pooling" bottom: "x" top: "y" pooling_param {{
  pool: {"MAX" if kind == "max" else "AVE"} kernel_size: {window} stride: {stride} pad: {pad} }} }}"""
    net = cv2.dnn.readNetFromCaffe(np.frombuffer(text.encode(), np.uint8))
    net.setInput(x)
    return net.forward()


def tensorflow(x, kind, window, stride, pad, form):
    import tensorflow as tf

    if form == "ceil" or (pad and kind == "average"):
        raise NoWord
    padding = "SAME" if form == "same" else [[0, 0], [pad, pad], [pad, pad], [0, 0]] if pad else "VALID"
    pool = tf.nn.max_pool2d if kind == "max" else tf.nn.avg_pool2d
    return pool(tf.constant(x.transpose(0, 2, 3, 1)), window, stride, padding).numpy().transpose(0, 3, 1, 2)


def keras(x, kind, window, stride, pad, form):
    from keras import layers

    if form == "ceil" or pad:
        raise NoWord
    pool = layers.MaxPooling2D if kind == "max" else layers.AveragePooling2D
    said = {} if form is None else {"padding": "same" if form == "same" else "valid"}
    made = pool(window, stride, data_format="channels_last", **said)
    return np.asarray(made(x.transpose(0, 2, 3, 1))).transpose(0, 3, 1, 2)


def paddle(x, kind, window, stride, pad, form):
    import paddle

    pool = paddle.nn.functional.max_pool2d if kind == "max" else paddle.nn.functional.avg_pool2d
    padding = "SAME" if form == "same" else pad
    return pool(paddle.to_tensor(x), window, stride, padding, ceil_mode=form == "ceil").numpy()


def ncnn(x, kind, window, stride, pad, form):
    import ncnn

    mode = {"ceil": "5=0", "floor": "5=1", "same": "5=2", None: ""}[form]
    text = (f"7767517\n2 2\nInput x 0 1 x\nPooling y 1 1 x y 0={int(kind != 'max')} 1={window} "
            f"2={stride} 3={pad} {mode}\n")
    with open("pool.param", "w") as file:
        file.write(text)
    open("pool.bin", "wb").close()
    net = ncnn.Net()
    assert net.load_param("pool.param") == 0 and net.load_model("pool.bin") == 0
    extractor = net.create_extractor()
    given = ncnn.Mat(np.ascontiguousarray(x[0])).clone()  # a view of NumPy's memory is not enough
    extractor.input("x", given)
    return np.array(extractor.extract("y")[1])[None]


def tfjs(x, kind, window, stride, pad, form):
    if form is None and not pad:
        raise NoWord  # pad must be given
    asked = {"x": x.tolist(), "kind": kind, "window": window, "stride": stride,
             "pad": "same" if form == "same" else pad}
    if form in ("ceil", "floor"):
        asked["rounding"] = form
    told = subprocess.run(["node", "pool.js"], input=json.dumps(asked), text=True, check=True,
                          capture_output=True).stdout
    return np.array(json.loads(told.split("ANSWER")[1]))


def ask(pool, x, *told):
    try:
        return np.asarray(pool(x.astype(np.float32), *told))
    except NoWord:
        return "-"
    except Exception as error:
        return "refused"


def side(y):
    return y if isinstance(y, str) else str(y.shape[-1])


def describe(pool):
    """Sides by default, ceil and SAME on 54 pixels; of the window in the padding; two values."""
    x = -1 - np.random.default_rng(0).random((1, 1, 54, 54))
    default, ceil, same = (ask(pool, x, "max", 3, 2, 0, form) for form in (None, "ceil", "same"))
    for y in (ceil, same):  # the last window's maximum is of what is inside
        assert isinstance(y, str) or np.isclose(y[0, 0, -1, -1], x[0, 0, 52:, 52:].max())
    plain = ask(pool, -1 - np.random.default_rng(0).random((1, 1, 55, 55)), "max", 3, 2, 0, None)
    assert side(plain) in ("27", "-")
    beyond = ask(pool, np.zeros((1, 1, 5, 5)), "max", 2, 2, 1, "ceil")
    padded = ask(pool, -np.ones((1, 1, 6, 6)), "max", 2, 2, 1, "floor")
    padded = padded if isinstance(padded, str) else f"{padded[0, 0, 0, 0]:g}"
    over = ask(pool, np.ones((1, 1, 54, 54)), "average", 3, 2, 0, "ceil")
    over = over if isinstance(over, str) else f"{6 / over[0, 0, -1, 20]:g}"
    around = ask(pool, np.ones((1, 1, 6, 6)), "average", 3, 2, 1, "floor")
    around = around if isinstance(around, str) else f"{4 / around[0, 0, 0, 0]:g}"
    around_same = ask(pool, np.ones((1, 1, 54, 54)), "average", 3, 2, 0, "same")
    around_same = around_same if isinstance(around_same, str) else f"{6 / around_same[0, 0, -1, 20]:g}"
    return side(default), side(ceil), side(same), side(beyond), padded, over, around, around_same


EXPECTED = {
    "pytorch": ("26", "27", "-", "3", "-1", "6", "9", "-"),
    "onnxruntime": ("26", "27", "27", "3", "-1", "6", "4", "6"),
    "openvino": ("26", "27", "27", "4", "-1", "6", "4", "6"),
    "opencv_onnx": ("26", "27", "27", "3", "-1", "6", "4", "6"),
    "opencv_caffe": ("27", "27", "-", "3", "-", "6", "-", "-"),
    "tensorflow": ("26", "-", "27", "-", "-1", "-", "-", "6"),
    "keras": ("26", "-", "27", "-", "-", "-", "-", "6"),
    "paddle": ("26", "27", "27", "4", "-1", "6", "4", "6"),
    "ncnn": ("27", "27", "27", "4", "-1", "6", "4", "9"),
    "tfjs": ("-", "27", "27", "4", "-1", "6", "4", "6"),
}

name = sys.argv[1]
found = describe(globals()[name])
print(f"{name:13}", *(f"{cell:16}" for cell in found), flush=True)
assert found == EXPECTED[name], f"expected {EXPECTED[name]}"
PY
# A process each: they bring protobuf, OpenMP and oneDNN of their own.
failed=0
for library in pytorch onnxruntime openvino opencv_onnx opencv_caffe tensorflow keras paddle ncnn tfjs; do
    "$folder/venv/bin/python" pools.py "$library" 2>"$library.log" || { tail -n 1 "$library.log"; failed=1; }
done
exit $failed
