#!/usr/bin/env bash
# onnx 1.23.2 (with numpy 2.4.6, ONNX Runtime 1.32.0, Python 3.11): what comes with the format to
# evaluate it, `onnx.reference.ReferenceEvaluator`, is wrong on operators of AlexNet.
#
# It is what an export or a runtime of one's own is held against. One would expect it to be slow and
# right, and LRN, which AlexNet has twice, to be right above all, since the specification's own test
# of it passes.
#
# Seen:
#   LRN      The loop that adds up the squares of neighbouring channels goes over the images of the
#            batch, not over the channels. Of one image channel 0 is right, and all others are
#            divided by bias^beta alone; a batch of as many images as channels is right; one image
#            more than channels is an IndexError. The specification's test: 5 images, 5 channels.
#   Softmax  Up to opset 12 all axes from `axis` on are one distribution; the evaluator takes the
#            rule of opset 13 for every opset: 12 numbers of an image that should add up to 1 add
#            up to 4.
#   MaxPool  With auto_pad SAME_LOWER and a stride of 2, 13 pixels make 7 windows, as onnx's own
#            shape inference says of the very file; the evaluator makes 6. SAME_UPPER is right, and
#            so is AveragePool with either.
# ONNX Runtime does all of them as the specification says.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import numpy as np
import onnxruntime
from onnx import TensorProto, checker, helper, shape_inference
from onnx.reference import ReferenceEvaluator

draws = np.random.default_rng(0)


def make(kind, x, opset=13, **settings):
    node = helper.make_node(kind, ["x"], ["y"], **settings)
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)]
    out = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * x.ndim)]
    graph = helper.make_graph([node], "one", ends, out)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    checker.check_model(made)
    return made


def evaluate(kind, x, **settings):
    return ReferenceEvaluator(make(kind, x, **settings)).run(None, {"x": x})[0]


def run(kind, x, **settings):
    onnxruntime.set_default_logger_severity(4)
    made = make(kind, x, **settings).SerializeToString()
    session = onnxruntime.InferenceSession(made, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def photographs(count):
    return draws.normal(0, 3, (count, 8, 6, 6)).astype(np.float32)


def lrn_as_written(x, size, alpha, beta, bias):
    sums = [(x[:, max(0, c - 2) : c + 3] ** 2).sum(1) for c in range(x.shape[1])]
    return x / (bias + alpha / size * np.stack(sums, 1)) ** beta


def apart(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


numbers = dict(size=5, alpha=0.5, beta=0.75, bias=2.0)
one, eight, nine = (photographs(count) for count in (1, 8, 9))
for x in (one, eight, nine):
    assert apart(run("LRN", x, **numbers), lrn_as_written(x, **numbers)) < 1e-6
found, wanted = evaluate("LRN", one, **numbers), lrn_as_written(one, **numbers)
print(f"LRN of one image: {apart(found, wanted):.1f} of the largest output away")
assert apart(found[:, :1], wanted[:, :1]) < 1e-6
assert apart(found[:, 1:], one[:, 1:] / 2.0**0.75) < 1e-6  # as if nothing were beside it
assert apart(found, wanted) > 1
assert apart(evaluate("LRN", eight, **numbers), lrn_as_written(eight, **numbers)) < 1e-6
try:
    evaluate("LRN", nine, **numbers)
except IndexError as error:
    print("LRN of nine images of eight channels:", error)
else:
    raise AssertionError("nine images were evaluated")

x = draws.normal(0, 1, (2, 3, 4)).astype(np.float32)
for opset, wanted in ((11, 1), (12, 1), (13, 4)):
    settings = dict(axis=1, opset=opset)
    sums = [f("Softmax", x, **settings).sum((1, 2)) for f in (evaluate, run)]
    print(f"Softmax of opset {opset}, sum over an image:", *(f"{s[0]:.3g}" for s in sums))
    assert np.allclose(sums[0], 4) and np.allclose(sums[1], wanted)

x = draws.normal(0, 1, (1, 1, 13, 13)).astype(np.float32)
for kind in ("MaxPool", "AveragePool"):
    for side in ("SAME_LOWER", "SAME_UPPER"):
        settings = dict(kernel_shape=[3, 3], strides=[2, 2], auto_pad=side)
        told = shape_inference.infer_shapes(make(kind, x, **settings)).graph.output[0].type
        told = told.tensor_type.shape.dim[2].dim_value
        found, wanted = (f(kind, x, **settings).shape[2] for f in (evaluate, run))
        print(f"{kind} {side}: inferred {told}, evaluated {found}, ONNX Runtime {wanted}")
        wrong = (kind, side) == ("MaxPool", "SAME_LOWER")
        assert (told, found, wanted) == (7, 6 if wrong else 7, 7)
PY
