#!/usr/bin/env bash
# ONNX Runtime 1.32.0 (with onnx 1.23.2, Python 3.11, x86-64): whether a Dropout drops depends on
# the optimisation level.
#
# ONNX's Dropout has an input `training_mode`. Where it is true, a part of the values becomes 0, at
# random, and the rest is scaled up. `torch.onnx.export(dynamo=True)` writes it, true, for a
# network in training mode. One would expect what onnx's own evaluator does: values are dropped,
# and optimising changes no result.
#
# Seen: at every level from "basic" on, and so at the default one, ONNX Runtime removes a Dropout
# from the middle of a graph whatever `training_mode` says, even where it is an input of the graph
# that the caller sets to true in the very call. With optimisation off the same file drops; so
# does, at any level, a Dropout that is the last node. No warning. So a file exported by mistake in
# training mode passes a comparison with the network in test mode; uncertainty estimated by dropout
# (Monte Carlo) comes out as zero.
#
# Output, of Relu -> Dropout(ratio 0.5) -> Neg on 4,096 ones (0 and -2: dropped; -1: untouched):
#   training_mode   reader               values
#   initializer     onnx evaluator       [-2.0, 0.0]
#   initializer     ORT_DISABLE_ALL      [-2.0, 0.0]
#   initializer     ORT_ENABLE_BASIC     [-1.0]
#   initializer     ORT_ENABLE_ALL       [-1.0]
#   graph input     onnx evaluator       [-2.0, 0.0]
#   graph input     ORT_DISABLE_ALL      [-2.0, 0.0]
#   graph input     ORT_ENABLE_BASIC     [-1.0]
#   graph input     ORT_ENABLE_ALL       [-1.0]
#   last node       ORT_ENABLE_ALL       [0.0, 2.0]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnx==1.23.2 onnxruntime==1.32.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_ALL")
ONES = np.ones((1, 4096), np.float32)


def build(training_is_input: bool, dropout_is_last: bool) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ONES.shape)]
    initializers = [numpy_helper.from_array(np.array(0.5, np.float32), "ratio")]
    if training_is_input:
        inputs.append(helper.make_tensor_value_info("training", TensorProto.BOOL, []))
    else:
        initializers.append(numpy_helper.from_array(np.array(True), "training"))
    dropped = "y" if dropout_is_last else "dropped"
    nodes = [
        helper.make_node("Relu", ["x"], ["positive"]),
        helper.make_node("Dropout", ["positive", "ratio", "training"], [dropped]),
    ]
    if not dropout_is_last:
        nodes.append(helper.make_node("Neg", ["dropped"], ["y"]))
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ONES.shape)]
    graph = helper.make_graph(nodes, "dropout", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model: onnx.ModelProto, feed: dict, level: str) -> list:
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return values(session.run(None, feed)[0])


def values(y: np.ndarray) -> list:
    return np.unique(y + 0.0).tolist()  # + 0.0 makes -0 a 0


print(f"{'training_mode':<15} {'reader':<20} values")
for name, is_input in (("initializer", False), ("graph input", True)):
    model = build(is_input, dropout_is_last=False)
    feed = {"x": ONES, "training": np.array(True)} if is_input else {"x": ONES}
    results = {"onnx evaluator": values(ReferenceEvaluator(model).run(None, feed)[0])}
    results |= {level: run(model, feed, level) for level in LEVELS}
    for reader, found in results.items():
        print(f"{name:<15} {reader:<20} {found}")
    assert results["onnx evaluator"] == results["ORT_DISABLE_ALL"] == [-2, 0]
    assert results["ORT_ENABLE_BASIC"] == results["ORT_ENABLE_ALL"] == [-1]
last = run(build(False, dropout_is_last=True), {"x": ONES}, "ORT_ENABLE_ALL")
print(f"{'last node':<15} {'ORT_ENABLE_ALL':<20} {last}")
assert last == [0, 2]
PY
