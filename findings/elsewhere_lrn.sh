#!/usr/bin/env bash
# The table "LRN" of docs/elsewhere.md: what each library makes of size, alpha, beta and k, probed
# from outside. Python 3.11 and Node, x86-64 with AVX2; versions below.
#
# Seen: TensorFlow and TensorFlow.js do not divide alpha by the window, all others do; an even
# window of one ONNX file is what the specification says in tract and tinygrad, another one in MNN,
# a third one in OpenVINO, and refused by ONNX Runtime and OpenCV; OpenCV's reader of Caffe's files
# drops k; types of 16 bits differ by library: on the values of raw pixels the squares overflow in
# float16, which makes TensorFlow's NaN and zeros of tract's and tinygrad's. Core ML's converter, which is
# run alone here, writes operators.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.13.0 onnx==1.23.2 onnxruntime==1.32.0 \
    openvino==2026.4.1 opencv-python-headless==4.14.0.94 tensorflow-cpu==2.21.0 \
    paddlepaddle==3.3.1 ncnn==1.0.20261020 coremltools==9.0 tract==0.23.9 MNN==3.6.1 \
    tinygrad==0.14.0
cd "$folder"
npm install --silent --no-audit --no-fund @tensorflow/tfjs@4.22.0 >/dev/null
cat > lrn.js <<'JS'
// The questions as JSON on the way in, the answers on the way out: tfjs takes NHWC, and a radius.
const tf = require('@tensorflow/tfjs');
const asked = JSON.parse(require('fs').readFileSync(0));
const answers = asked.map(({x, type, radius, alpha, beta, k}) => {
  const nhwc = tf.tensor(x).transpose([0, 2, 3, 1]).cast(type);
  const y = tf.localResponseNormalization(nhwc, radius, k, alpha, beta);
  return y.transpose([0, 3, 1, 2]).arraySync();
});
console.log('ANSWERS' + JSON.stringify(answers));
JS
export DEV=PYTHON  # tinygrad's, for which no compiler is needed
export TF_CPP_MIN_LOG_LEVEL=3 TF_ENABLE_ONEDNN_OPTS=0 GLOG_minloglevel=3 PYTHONWARNINGS=ignore
cat > lrn.py <<'PY'
import io
import json
import subprocess
import sys
from pathlib import Path

import ml_dtypes  # NumPy's bfloat16
import numpy as np

CHANNELS, SIZE, ALPHA, BETA, K = 8, 5, 0.5, 0.75, 2.0
HALVES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def pytorch(x, size, alpha, beta, k):
    import torch

    kind = getattr(torch, str(x.dtype))
    given = torch.from_numpy(x.astype(np.float64)).to(kind)
    return torch.nn.functional.local_response_norm(given, size, alpha, beta, k).double().numpy()


def onnx_file(x, size, alpha, beta, k):
    from onnx import helper

    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    node = helper.make_node("LRN", ["x"], ["y"], size=size, alpha=alpha, beta=beta, bias=k)
    ends = [helper.make_tensor_value_info(name, kind, x.shape) for name in "xy"]
    graph = helper.make_graph([node], "lrn", ends[:1], ends[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return made.SerializeToString()


def onnxruntime(x, *numbers):
    import onnxruntime as ort

    ort.set_default_logger_severity(4)
    session = ort.InferenceSession(onnx_file(x, *numbers), providers=["CPUExecutionProvider"])
    value = ort.OrtValue.ortvalue_from_numpy(x)
    return session.run_with_ort_values(None, {"x": value})[0].numpy()


def openvino(x, *numbers):
    import openvino as ov

    core = ov.Core()
    core.set_property({"ENABLE_MMAP": False})
    model = core.read_model(io.BytesIO(onnx_file(x, *numbers)))
    request = core.compile_model(model, "CPU").create_infer_request()
    half = x.dtype == ml_dtypes.bfloat16  # whose bits its arrays show as float16's
    given = ov.Tensor(ov.Type.bf16 if half else ov.Type(x.dtype), ov.Shape(x.shape))
    given.data[:] = x.view(np.float16) if half else x
    request.infer(given)
    return request.get_output_tensor().data.view(x.dtype)


def tract(x, *numbers):
    import tract

    Path("tract.onnx").write_bytes(onnx_file(x, *numbers))
    model = tract.onnx().load("tract.onnx").into_model().into_runnable()
    return model.run([x])[0].to_numpy()


def tinygrad(x, *numbers):
    from tinygrad import Tensor
    from tinygrad.nn.onnx import OnnxRunner

    if x.dtype == ml_dtypes.bfloat16:
        raise NotAsked("its tensors are made of NumPy's own types")
    Path("tinygrad.onnx").write_bytes(onnx_file(x, *numbers))
    return OnnxRunner("tinygrad.onnx")({"x": Tensor(x)})["y"].numpy()


def mnn(x, *numbers):
    import MNN
    from MNN import expr

    if x.dtype != np.float32:
        raise NotAsked("its expressions are of float32")
    Path("mnn.onnx").write_bytes(onnx_file(x, *numbers))
    words = ["--modelFile", "mnn.onnx", "--MNNModel", "lrn.mnn", "--bizCode", "lrn"]
    program = Path(sys.executable).with_name("mnnconvert")
    subprocess.run([program, "-f", "ONNX", *words], check=True, capture_output=True)
    net = MNN.nn.load_module_from_file("lrn.mnn", ["x"], ["y"])
    given = expr.const(x.copy(), list(x.shape), expr.NCHW)
    y = net.forward(expr.convert(given, expr.NC4HW4))
    return np.array(expr.convert(y, expr.NCHW).read())


def opencv_onnx(x, *numbers):
    import cv2

    net = cv2.dnn.readNetFromONNX(np.frombuffer(onnx_file(x, *numbers), np.uint8))
    net.setInput(x)
    return net.forward()


def opencv_caffe(x, size, alpha, beta, k):
    import cv2

    dims = " ".join(f"dim: {side}" for side in x.shape)
    text = f"""layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }}
layer {{ name: "y" type: "LRN" bottom: "x" top: "y" lrn_param {{
  local_size: {size} alpha: {alpha} beta: {beta} k: {k} }} }}"""
    net = cv2.dnn.readNetFromCaffe(np.frombuffer(text.encode(), np.uint8))
    net.setInput(x)
    return net.forward()


def tensorflow(x, size, alpha, beta, k):
    import keras
    import tensorflow as tf

    assert not [name for name in dir(keras.layers) if "response" in name.lower()]  # Keras has none
    radius = radius_of(size)
    nhwc = tf.constant(np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    y = tf.nn.local_response_normalization(nhwc, radius, k, alpha, beta)
    return y.numpy().transpose(0, 3, 1, 2)


def paddle(x, size, alpha, beta, k):
    import paddle

    given = paddle.to_tensor(x.astype(np.float32)).astype(str(x.dtype))
    y = paddle.nn.functional.local_response_norm(given, size, alpha, beta, k)
    return y.astype("float32").numpy()


def ncnn(x, size, alpha, beta, k):
    import ncnn

    with open("lrn.param", "w") as file:
        file.write("7767517\n2 2\nInput x 0 1 x\n")
        file.write(f"LRN y 1 1 x y 0=0 1={size} 2={alpha} 3={beta} 4={k}\n")
    open("lrn.bin", "wb").close()
    net = ncnn.Net()
    assert net.load_param("lrn.param") == 0 and net.load_model("lrn.bin") == 0
    if x.dtype != np.float32:
        raise NotAsked("its Python arrays are for float32")
    extractor = net.create_extractor()
    given = ncnn.Mat(np.ascontiguousarray(x[0])).clone()  # a view of NumPy's memory is not enough
    extractor.input("x", given)
    return np.array(extractor.extract("y")[1])[None]


def tfjs(x, size, alpha, beta, k):
    kind = str(x.dtype)
    asked = [dict(x=x.tolist(), type=kind, radius=radius_of(size), alpha=alpha, beta=beta, k=k)]
    told = subprocess.run(["node", "lrn.js"], input=json.dumps(asked), text=True, check=True,
                          capture_output=True).stdout
    return np.array(json.loads(told.split("ANSWERS")[1])[0])


class NoWord(ValueError):
    """The call cannot say it."""


class NotAsked(Exception):
    """The library is not asked."""


def radius_of(size):
    if size % 2 == 0:
        raise NoWord("it takes a radius")
    return size // 2


def reference(x, alpha, beta, k, divisor):
    """The quotient by hand in float64, over channels c - 2 to c + 2."""
    x = x.astype(np.float64)
    sums = [(x[:, max(0, c - 2) : c + 3] ** 2).sum(1) for c in range(x.shape[1])]
    return x / (k + alpha / divisor * np.stack(sums, 1)) ** beta


def probe(lrn, size, channel):
    """The channels that one channel's sum is over, what alpha is divided by, and k.

    With beta 1, ones give k + sum / divisor, and twos k + 4 sum / divisor.
    """
    ones = np.ones((1, CHANNELS, 1, 1), np.float32)

    def ask(x):
        return float(x[0, channel, 0, 0] / lrn(x, size, 1.0, 1.0, K)[0, channel, 0, 0])

    once, window = ask(ones), [channel]
    for other in {*range(CHANNELS)} - {channel}:
        x = ones.copy()
        x[0, other] = 3
        if abs(ask(x) - once) > 1e-3:
            window.append(other)
    part = (ask(2 * ones) - once) / 3
    return f"{min(window)}-{max(window)} / {len(window) / part:.3g}", f"{once - part:.3g}"


def ask_half(lrn, kind, k, divisor):
    """The largest error in 16 bits, on numbers of about 10 and of about 300."""
    draws, said = np.random.default_rng(0).standard_normal((1, CHANNELS, 6, 6)), []
    for scale in (10, 300):
        x = (draws * scale).astype(HALVES[kind])
        try:
            y = np.asarray(lrn(x, SIZE, 1e-4, BETA, K), np.float64)
        except NotAsked:
            return "not asked"
        except Exception:
            return "refused"
        want = reference(x, 1e-4, BETA, k, divisor)
        worst = np.abs(y - want).max() / np.abs(want).max()
        said.append("NaN" if np.isnan(worst) else "right" if worst < 2e-2 else "wrong")
    return said[0] if said[0] == said[1] else f"{said[0]}, at 300 {said[1]}"


def describe(lrn):
    (inside, k), (edge, _) = probe(lrn, SIZE, 3), probe(lrn, SIZE, 0)
    divisor, k_seen = float(inside.split("/")[1]), float(k)
    x = np.random.default_rng(1).normal(0, 2, (1, CHANNELS, 5, 5)).astype(np.float32)
    y = lrn(x, SIZE, ALPHA, BETA, K)
    assert np.abs(y - reference(x, ALPHA, BETA, k_seen, divisor)).max() < 1e-6
    try:
        even = probe(lrn, 4, 3)[0]
    except NoWord:
        even = "no word for it"
    except Exception:
        even = "refused"
    return inside, edge, k, even, *(ask_half(lrn, kind, k_seen, divisor) for kind in HALVES)


EXPECTED = {
    "pytorch": ("1-5 / 5", "0-2 / 5", "2", "1-4 / 4", "refused", "refused"),
    "onnxruntime": ("1-5 / 5", "0-2 / 5", "2", "refused", "right", "refused"),
    "openvino": ("1-5 / 5", "0-2 / 5", "2", "2-4 / 4", "right", "right"),
    "tract": ("1-5 / 5", "0-2 / 5", "2", "2-5 / 4", "right, at 300 wrong", "refused"),
    "tinygrad": ("1-5 / 5", "0-2 / 5", "2", "2-5 / 4", "right, at 300 wrong", "not asked"),
    "mnn": ("1-5 / 5", "0-2 / 5", "2", "1-4 / 4", "not asked", "not asked"),
    "opencv_onnx": ("1-5 / 5", "0-2 / 5", "2", "refused", "right", "refused"),
    "opencv_caffe": ("1-5 / 5", "0-2 / 5", "1", "refused", "right", "refused"),
    "tensorflow": ("1-5 / 1", "0-2 / 1", "2", "no word for it", "right, at 300 NaN", "refused"),
    "paddle": ("1-5 / 5", "0-2 / 5", "2", "1-4 / 4", "refused", "refused"),
    "ncnn": ("1-5 / 5", "0-2 / 5", "2", "1-4 / 4", "not asked", "not asked"),
    "tfjs": ("1-5 / 1", "0-2 / 1", "2", "no word for it", "refused", "refused"),
}

name = sys.argv[1]
found = describe(globals()[name])
print(f"{name:13}", *(f"{cell:16}" for cell in found), flush=True)
assert found == EXPECTED[name], f"expected {EXPECTED[name]}"
PY
cat > coreml.py <<'PY'
import coremltools as ct
import torch


class Norm(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.local_response_norm(x, 5)


program = torch.export.export(Norm().eval(), (torch.ones(1, 8, 6, 6),)).run_decompositions({})
made = ct.convert(program, skip_model_load=True)
operations = made._mil_program.functions["main"].operations
found = [one.op_type for one in operations if one.op_type != "const"]
print("coremltools  ", *found)
assert found == (
    "cast mul reshape pad avg_pool squeeze mul add pow real_div cast".split()
)
PY
# A process each: they bring protobuf, OpenMP and oneDNN of their own.
failed=0
for library in pytorch onnxruntime openvino tract tinygrad mnn opencv_onnx opencv_caffe tensorflow \
    paddle ncnn tfjs; do
    "$folder/venv/bin/python" lrn.py "$library" 2>"$library.log" || { tail -n 1 "$library.log"; failed=1; }
done
"$folder/venv/bin/python" coreml.py 2>coreml.log || { tail -n 1 coreml.log; failed=1; }
exit $failed
