#!/usr/bin/env bash
# The table "Groups, flattening, dropout" of docs/elsewhere.md, asked of each library from outside.
# Python 3.11 and Node, x86-64; versions below.
#
# Asked for: the shape of the filters of a 3x3 convolution of 4 channels into 6 in two groups; which
# outputs see the first half of the inputs; whether its gradient can be had on a processor; in which
# order a map of 2 channels of 2x2 is flattened; what dropout of 0.25 leaves of ones in training and
# at test; and the output of an 11x11 convolution at stride 4 with SAME on 224 pixels, with the
# zeros before and after.
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
cat > layers.js <<'JS'
const tf = require('@tensorflow/tfjs');
const attempt = (f) => { try { return f(); } catch (error) { return 'refused'; } };
const image = tf.range(0, 8).reshape([1, 2, 2, 2]).transpose([0, 2, 3, 1]);  // of channels 0-3, 4-7
const ramp = tf.range(0, 224).reshape([1, 224, 1, 1]).mul(tf.ones([1, 1, 224, 1])).add(1);
const ones = tf.ones([11, 11, 1, 1]);
const same = tf.conv2d(ramp.notEqual(0).toFloat(), ones, 4, 'same');
const layer = tf.layers.dropout({rate: 0.25});
const drop = (training) => [...new Set(layer.apply(tf.ones([4096]), {training}).arraySync())].sort();
console.log('ANSWER' + JSON.stringify({
  groups: attempt(() => tf.conv2d(tf.ones([1, 5, 5, 4]), tf.ones([3, 3, 2, 6]), 1, 'valid').shape),
  flat: tf.layers.flatten().apply(image).arraySync()[0],
  train: drop(true), test: drop(false), same: same.shape[1],
  before: 11 - same.arraySync()[0][0][20][0] / 11, after: 11 - same.arraySync()[0][55][20][0] / 11,
}));
JS
cat > layers.py <<'PY'
import io
import json
import subprocess
import sys

import numpy as np

X = np.random.default_rng(0).random((1, 4, 5, 5), np.float32)
W = np.random.default_rng(1).random((6, 2, 3, 3), np.float32)  # as PyTorch has them
IMAGE = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
ONES = np.ones(4096, np.float32)
SEEN = np.ones((1, 1, 224, 224), np.float32)
SUM = np.ones((1, 1, 11, 11), np.float32)
NHWC, NCHW = (0, 2, 3, 1), (0, 3, 1, 2)


def blocks(conv):
    """Say which outputs change with the first half of the inputs; "refused" where none are made."""
    try:
        base, changed = conv(X), X.copy()
        changed[:, :2] += 1
        moved = np.abs(conv(changed) - base).max((0, 2, 3)) > 1e-5
    except Exception:
        return "refused"
    return ",".join(str(number) for number in np.flatnonzero(moved))


def attempt(function):
    try:
        return function()
    except Exception:
        return "refused"


def values(x):
    return "/".join(f"{value:.4g}" for value in np.unique(np.asarray(x, np.float64) + 0.0))


def edges(y):
    """Say the side, and how many of the 11 rows of the first and last window are zeros."""
    y = np.asarray(y).reshape(y.shape[-2:]) if y.shape[-1] > 1 else np.asarray(y)[0, :, :, 0]
    return f"{len(y)}: {11 - y[0, 20] / 11:g}+{11 - y[-1, 20] / 11:g}"


def pytorch():
    import torch
    from torch.nn import functional

    def gradient():
        w = torch.tensor(W, requires_grad=True)
        functional.conv2d(torch.tensor(X), w, groups=2).sum().backward()
        return "yes"

    def conv(x):
        return functional.conv2d(torch.tensor(x), torch.tensor(W), groups=2).numpy()

    return (str(W.shape), blocks(conv), attempt(gradient),
            values(torch.nn.Flatten()(torch.tensor(IMAGE)).numpy()[0, 1]),
            values(functional.dropout(torch.tensor(ONES), 0.25, training=True)),
            values(functional.dropout(torch.tensor(ONES), 0.25, training=False)),
            attempt(lambda: edges(functional.conv2d(torch.tensor(SEEN), torch.tensor(SUM), stride=4, padding="same"))))


def onnx_run(run):
    """Ask a reader of ONNX; each node alone in a file."""
    from onnx import TensorProto, helper, numpy_helper

    def one(op, x, arrays=(), **told):
        named = [numpy_helper.from_array(array, f"w{n}") for n, array in enumerate(arrays)]
        node = helper.make_node(op, ["x", *(tensor.name for tensor in named)], ["between"], **told)
        last = helper.make_node("Neg", ["between"], ["y"])
        ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape),
                helper.make_tensor_value_info("y", TensorProto.FLOAT, [*"nchw"[: 2 if op == "Flatten" else x.ndim]])]
        graph = helper.make_graph([node, last], "one", ends[:1], ends[1:], named)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        return -run(made.SerializeToString(), x)

    def drop(*arrays):
        return values(one("Dropout", ONES[None], arrays))

    return (str(W.shape), blocks(lambda x: one("Conv", x, (W,), group=2)), "-",
            values(one("Flatten", IMAGE)[0, 1]),
            attempt(lambda: drop(np.array(0.25, np.float32), np.array(True))), attempt(drop),
            attempt(lambda: edges(one("Conv", SEEN, (SUM,), strides=[4, 4], auto_pad="SAME_UPPER"))))


def onnxruntime():
    import onnxruntime as ort

    def run(data, x):
        return ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]

    return onnx_run(run)


def openvino():
    import openvino as ov

    def run(data, x):
        core = ov.Core()
        return core.compile_model(core.read_model(io.BytesIO(data)), "CPU")(x)[0]

    return onnx_run(run)


def opencv():
    import cv2

    def run(data, x):
        net = cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8))
        net.setInput(x)
        return net.forward()

    return onnx_run(run)


def tensorflow():
    import tensorflow as tf

    w = tf.Variable(W.transpose(2, 3, 1, 0))

    def conv(x):
        return tf.nn.conv2d(x.transpose(NHWC), w, 1, "VALID").numpy().transpose(NCHW)

    def gradient():
        with tf.GradientTape() as tape:
            y = tf.reduce_sum(tf.nn.conv2d(X.transpose(NHWC), w, 1, "VALID"))
        return "yes" if tape.gradient(y, w) is not None else "none"

    return (str(tuple(w.shape)), blocks(conv), attempt(gradient),
            values(tf.reshape(tf.constant(IMAGE.transpose(NHWC)), [1, -1]).numpy()[0, 1]),
            values(tf.nn.dropout(ONES, 0.25)), "-",
            edges(tf.nn.conv2d(SEEN.transpose(NHWC), SUM.transpose(2, 3, 1, 0), 4, "SAME").numpy()))


def keras():
    from keras import layers

    made = layers.Conv2D(6, 3, groups=2, use_bias=False)
    made.build((None, 5, 5, 4))
    made.set_weights([W.transpose(2, 3, 1, 0)])

    def conv(x):
        return np.asarray(made(x.transpose(NHWC))).transpose(NCHW)

    def gradient():
        import tensorflow as tf

        with tf.GradientTape() as tape:
            y = tf.reduce_sum(made(X.transpose(NHWC)))
        return "yes" if tape.gradient(y, made.kernel.value) is not None else "none"

    drop, wide = layers.Dropout(0.25), layers.Conv2D(1, 11, 4, "same", use_bias=False)
    wide.build((None, 224, 224, 1))
    wide.set_weights([SUM.transpose(2, 3, 1, 0)])
    return (str(tuple(made.kernel.shape)), blocks(conv), attempt(gradient),
            values(np.asarray(layers.Flatten()(IMAGE.transpose(NHWC)))[0, 1]),
            values(drop(ONES, training=True)), values(drop(ONES, training=False)),
            edges(np.asarray(wide(SEEN.transpose(NHWC)))))


def paddle():
    import paddle
    from paddle.nn import functional

    def conv(x):
        return functional.conv2d(paddle.to_tensor(x), paddle.to_tensor(W), groups=2).numpy()

    def gradient():
        w = paddle.to_tensor(W, stop_gradient=False)
        functional.conv2d(paddle.to_tensor(X), w, groups=2).sum().backward()
        return "yes" if w.grad is not None else "none"

    ones = paddle.to_tensor(ONES)
    return (str(W.shape), blocks(conv), attempt(gradient),
            values(paddle.flatten(paddle.to_tensor(IMAGE), 1).numpy()[0, 1]),
            values(functional.dropout(ones, 0.25, training=True).numpy()),
            values(functional.dropout(ones, 0.25, training=False).numpy()),
            edges(functional.conv2d(paddle.to_tensor(SEEN), paddle.to_tensor(SUM), stride=4, padding="SAME").numpy()))


def ncnn():
    import ncnn

    def one(layer, x, weights=None):
        with open("one.param", "w") as file:
            file.write(f"7767517\n2 2\nInput x 0 1 x\n{layer}\n")
        with open("one.bin", "wb") as file:
            if weights is not None:
                file.write(bytes(4) + weights.tobytes())  # 0: plain float32
        net = ncnn.Net()
        assert net.load_param("one.param") == 0 and net.load_model("one.bin") == 0
        extractor = net.create_extractor()
        given = ncnn.Mat(np.ascontiguousarray(x)).clone()  # a view of NumPy's memory is not enough
        extractor.input("x", given)
        return np.array(extractor.extract("y")[1])

    def conv(x):
        told = f"ConvolutionDepthWise y 1 1 x y 0=6 1=3 5=0 6={W.size} 7=2"
        return one(told, x[0], W)[None]

    same = f"Convolution y 1 1 x y 0=1 1=11 3=4 4=-233 5=0 6={SUM.size}"
    return (str(W.shape), blocks(conv), "-", values(one("Flatten y 1 1 x y", IMAGE[0])[1]), "-",
            values(one("Dropout y 1 1 x y 0=0.75", ONES)), edges(one(same, SEEN[0], SUM)[None]))


def tfjs():
    told = subprocess.run(["node", "layers.js"], text=True, check=True, capture_output=True).stdout
    found = json.loads(told.split("ANSWER")[1])
    return ("-", "refused" if found["groups"] == "refused" else str(found["groups"]), "-",
            values(found["flat"][1]), values(found["train"]), values(found["test"]),
            f"{found['same']}: {found['before']:g}+{found['after']:g}")


EXPECTED = {
    "pytorch": ("(6, 2, 3, 3)", "0,1,2", "yes", "1", "0/1.333", "1", "refused"),
    "onnxruntime": ("(6, 2, 3, 3)", "0,1,2", "-", "1", "0/1.333", "1", "56: 3+4"),
    "openvino": ("(6, 2, 3, 3)", "0,1,2", "-", "1", "refused", "1", "56: 3+4"),
    "opencv": ("(6, 2, 3, 3)", "0,1,2", "-", "1", "refused", "1", "56: 3+4"),
    "tensorflow": ("(3, 3, 2, 6)", "0,1,2", "refused", "4", "0/1.333", "-", "56: 3+4"),
    "keras": ("(3, 3, 2, 6)", "0,1,2", "yes", "4", "0/1.333", "1", "56: 3+4"),
    "paddle": ("(6, 2, 3, 3)", "0,1,2", "yes", "1", "0/1.333", "1", "56: 3+4"),
    "ncnn": ("(6, 2, 3, 3)", "0,1,2", "-", "1", "-", "0.75", "56: 3+4"),
    "tfjs": ("-", "refused", "-", "4", "0/1.333", "1", "56: 3+4"),
}

name = sys.argv[1]
found = globals()[name]()
print(f"{name:13}", *(f"{cell:16}" for cell in found), flush=True)
assert found == EXPECTED[name], f"expected {EXPECTED[name]}"
PY
# A process each: they bring protobuf, OpenMP and oneDNN of their own.
failed=0
for library in pytorch onnxruntime openvino opencv tensorflow keras paddle ncnn tfjs; do
    "$folder/venv/bin/python" layers.py "$library" 2>"$library.log" || { tail -n 1 "$library.log"; failed=1; }
done
exit $failed
