"""The ONNX zoo's networks, from the graphs of the onnx package, and PyTorch's exports."""

import io
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import ModelProto, helper, numpy_helper

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"


def zoo(name: str = "bvlc_alexnet", *, divisor: int = 1, classes: int = 1000) -> ModelProto:
    """Return a graph of the zoo whose weights, constants in the package, are random.

    With a `divisor` every layer is so many times narrower; `classes` counts for narrow ones.
    """
    model = onnx.load(LIGHT / f"light_{name}.onnx")
    graph, draws = model.graph, np.random.default_rng(0)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    kept = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    last = [node for node in kept if node.op_type == "Gemm"][-1].input[1]
    arrays = {}
    for node in graph.node:
        if node.op_type != "ConstantOfShape":
            continue
        shape = [int(side) for side in shapes.pop(node.input[0])]
        ends = [classes if divisor > 1 and node.output[0][:3] == last[:3] else 0, 0]
        for place in range(min(2, len(shape))):
            if shape[place] > 3:
                shape[place] = ends[place] or shape[place] // divisor
        arrays[node.output[0]] = shape
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    for name, shape in arrays.items():
        values = draws.standard_normal(shape, np.float32)
        scale = (2 / np.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.1
        values *= np.float32(scale * (0.05 if name == last else 1))
        graph.initializer.append(numpy_helper.from_array(values, name))
    for name, values in shapes.items():  # of a reshape
        if divisor > 1:
            values = np.array([values[0], -1])
        graph.initializer.append(numpy_helper.from_array(values, name))
    inputs = [value for value in graph.input if value.name == "data_0"]
    del graph.input[:], graph.value_info[:]
    graph.input.extend(inputs)
    del graph.output[0].type.tensor_type.shape.dim[:]
    return model


def exported(network: torch.nn.Module, opset: int = 9) -> bytes:
    """Return what PyTorch's older exporter writes of a network of 224 pixels."""
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pixels = torch.zeros(1, 3, 224, 224)
        torch.onnx.export(network.eval(), (pixels,), out, dynamo=False, opset_version=opset)
    return out.getvalue()


def with_view(data: bytes, how: str) -> ModelProto:
    """Return an export that flattens as PyTorch 0.4 to 1.1 wrote ``x.view(x.size(0), 256 * 36)``.

    The pool of one pixel, which those did not write, is left out. `how` the number of images is
    got: ``"Gather"`` or ``"Slice"``.
    """
    model = onnx.load_from_string(data)
    nodes = list(model.graph.node)
    at = next(place for place, node in enumerate(nodes) if node.op_type == "Flatten")
    start, end = nodes[at - 1].input[0], nodes[at].output[0]
    zero, rest = (
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(value)))
        for name, value in (("zero", 0), ("rest", [-1]))
    )
    number = {
        "Gather": [zero, helper.make_node("Gather", ["size", "zero"], ["one"]),
                   helper.make_node("Unsqueeze", ["one"], ["number"], axes=[0])],
        "Slice": [helper.make_node("Slice", ["size"], ["number"], axes=[0], starts=[0], ends=[1])],
    }[how]  # fmt: skip
    nodes[at - 1 : at + 1] = [
        helper.make_node("Shape", [start], ["size"]), *number, rest,
        helper.make_node("Concat", ["number", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", [start, "shape"], [end]),
    ]  # fmt: skip
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def pool_before_norm(model: ModelProto) -> ModelProto:
    """Turn the zoo's bvlc_alexnet into its caffenet: the pool stands before the norm."""
    nodes = list(model.graph.node)
    for place in [place for place, node in enumerate(nodes) if node.op_type == "LRN"]:
        norm, pool = nodes[place : place + 2]
        start, end = norm.input[0], pool.output[0]
        pool.input[0], pool.output[0] = start, norm.output[0]
        norm.input[0], norm.output[0] = pool.output[0], end
        nodes[place : place + 2] = pool, norm
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def by_onnxruntime(model: ModelProto, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Run a graph by ONNX Runtime; return what every operator makes, by kind in order."""
    told = ModelProto()
    told.CopyFrom(model)
    del told.graph.output[:]
    names = [node.output[0] for node in told.graph.node if node.op_type != "Constant"]
    told.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(told.SerializeToString(), options)
    return dict(zip(names, session.run(names, {"data_0": pixels}), strict=True))
