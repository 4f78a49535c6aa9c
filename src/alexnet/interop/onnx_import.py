"""ONNX's graphs -> spec and weights: the zoo's bvlcalexnet and caffenet, and this project's own.

A graph is followed from its input to its logits; what each operator computes goes into the list of
layers that every reader makes. An own file has its spec in the metadata and its weights under their
names. Nothing of a file is run, and nothing outside of it is opened.
"""

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.bounds import check_message, check_shape, parse_json, read_bytes
from alexnet.config import from_json
from alexnet.errors import RunError, import_extra
from alexnet.interop import layer_ir as ir
from alexnet.interop.caffe import IMAGENET_MEAN
from alexnet.interop.weights import find_shapes
from alexnet.spec import DropoutSpec, PixelFormat, Spec
from alexnet.variants import CAFFE, TORCHVISION

Node = Any  # `onnx.NodeProto`
BEFORE = ("Slice", "Transpose", "Cast", "Mul", "Sub", "Div")  # preprocessing inside of an export
MAX_OPERATORS = 1000  # on the way from the pixels to the logits
FLATTENING = ("Flatten", "Reshape", "Squeeze")
OF_MAPS, OF_ROWS = ("Conv", "LRN", "MaxPool", "AveragePool", "Split"), ("Gemm", "MatMul")
INT8 = 3
# Bytes of a number, by the types that weights and sizes have.
ITEMS = {1: 4, 6: 4, 7: 8, 10: 2, 11: 8, 16: 2}
CONVERTED = {INT8: "int8", 10: "float16", 11: "float64", 16: "bfloat16"}


def read_onnx(path: Path) -> ir.ImportedNetwork:
    """Read a network and its weights."""
    onnx = import_extra("onnx", "import", "Reading ONNX")
    data = read_bytes(path)
    check_message(data, onnx.ModelProto.DESCRIPTOR)
    model = onnx.ModelProto.FromString(data)
    told = {entry.key: entry.value for entry in model.metadata_props}
    about = parse_json(told["preprocessing"]) if "preprocessing" in told else None
    graph = Graph(model.graph)
    start, mean = (graph.first, None) if about is None else _pass_preprocessing(graph)
    if about is not None and "spec" in told:
        network = from_json(Spec, parse_json(told["spec"]))
        weights = _read_named(graph, network, len(data))
    else:
        layers = _follow(graph, start, 2 * len(data))
        image = graph.image or (about and int(about["crop"]))
        network, weights = ir.assemble_network(layers, PixelFormat(), image)
    producer = model.producer_name or "an unnamed program"
    converted = " and ".join(sorted(graph.converted))
    found: tuple[str, ...] = (f"ONNX graph {model.graph.name!r} of {producer}",)
    if converted:
        found = (*found, f"{converted}, made float32")
    if about is not None:
        classes = tuple(map(str, parse_json(told.get("classes", "[]"))))
        return _read_own(ir.ImportedNetwork(network, weights, found, classes=classes), about, mean)
    torchvision, ours = (
        [replace(conv, out_channels=1) for conv in spec.convs] for spec in (TORCHVISION, network)
    )
    like = TORCHVISION if ours == torchvision or producer == "pytorch" else CAFFE
    said = f"the file does not say what its pixels are; taken to be those of {like.name}"
    colour = ir.MeanColour(IMAGENET_MEAN, "mean colour of ImageNet") if like is CAFFE else None
    network = replace(network, pixels=like.pixels)
    return ir.ImportedNetwork(network, weights, (*found, said), mean=colour)


class Graph:
    """A graph to be followed: who takes what, and the arrays that are in the file."""

    def __init__(self, content: Any) -> None:
        if not content.node:
            raise RunError("It has no graph.")
        self.tensors = {tensor.name: tensor for tensor in content.initializer}
        self.takers: dict[str, list[Node]] = {}
        self.makers: dict[str, Node] = {}
        self.converted: set[str] = set()  # types of the arrays that become float32
        for number, node in enumerate(content.node):
            node.name = node.name or f"number {number}"
            if node.domain not in ("", "ai.onnx"):
                raise RunError(f"{node.op_type} {node.name!r} is an operator of {node.domain!r}.")
            constant = _read_constant(node)
            if constant is not None and node.output:
                self.tensors[node.output[0]] = constant
                continue
            if node.op_type == "Identity" and node.input[0] in self.tensors:
                self.tensors[node.output[0]] = self.tensors[node.input[0]]  # of equal arrays one
                continue
            self.makers |= dict.fromkeys(node.output, node)
            for name in {*node.input}:
                self.takers.setdefault(name, []).append(node)
        inputs = [one for one in content.input if one.name not in self.tensors]
        inputs = [one for one in inputs if one.name in self.takers]
        if len(inputs) != 1:
            names = [one.name for one in inputs]
            raise RunError(f"Its graph has the inputs {names}.", "Expected one, for the pixels.")
        sides = [side.dim_value for side in inputs[0].type.tensor_type.shape.dim]
        square = len(sides) == 4 and sides[1] == 3 and sides[2] == sides[3]
        self.image = sides[2] if square and sides[2] else None
        self.first = inputs[0].name

    def array(self, node: Node, place: int) -> NDArray[Any]:
        """Return the array that a node takes in one place, whose numbers must be in the file."""
        name = node.input[place] if place < len(node.input) else ""
        if name not in self.tensors:
            raise RunError(
                f"{node.op_type} {node.name!r} takes {name!r}, which is no array in the file.",
                "Expected weights as initializers.",
            )
        return self.read(name)

    def read(self, name: str, sizes: Mapping[int, int] = ITEMS) -> NDArray[Any]:
        """Return an array of the file, of a type whose numbers take so many bytes."""
        from onnx import numpy_helper

        tensor = self.tensors[name]
        if tensor.data_location or tensor.external_data:  # the library would open that file
            raise RunError(f"{name!r} lies in another file.", "Write the model as one file.")
        if tensor.data_type not in sizes:
            raise RunError(f"{name!r} is an array of type {tensor.data_type}.", "Expected float32.")
        count = len(tensor.raw_data) // sizes[tensor.data_type]
        lists = (tensor.float_data, tensor.int64_data, tensor.double_data, tensor.int32_data)
        check_shape(name, tensor.dims, count or max(map(len, lists)))
        if tensor.data_type in CONVERTED:
            self.converted.add(CONVERTED[tensor.data_type])
        return numpy_helper.to_array(tensor)

    def after(self, name: str) -> list[Node]:
        """Return the nodes that take a value; not those that ask for its shape alone."""
        return [node for node in self.takers.get(name, []) if node.op_type != "Shape"]

    def check_flat(self, node: Node) -> None:
        """See that a reshape makes one row of an image: two numbers, in the file or joined."""
        name = node.input[1] if len(node.input) > 1 else ""
        maker = self.makers.get(name)
        if name in self.tensors:
            axes = self.array(node, 1).size
        elif maker is not None and maker.op_type == "Concat":
            axes = len(maker.input)
        else:
            axes = len(setting(node, "shape", ()))  # PyTorch before 1.0, and Caffe2
        if node.op_type == "Reshape" and axes != 2:
            raise RunError(
                f"Reshape {node.name!r} makes {axes} axes.", "Expected 2: a row of each image."
            )

    def other(self, node: Node, current: str) -> NDArray[Any]:
        """Return the array that a node of two inputs takes besides `current`."""
        return self.array(node, 1 if node.input[0] == current else 0)

    def only_taker(self, name: str, kind: str) -> Node:
        """Return the one node that takes a value, which must be of a kind."""
        takers = self.takers.get(name, [])
        if len(takers) != 1 or takers[0].op_type != kind or not takers[0].output:
            found = ", ".join(node.op_type for node in takers) or "nothing"
            raise RunError(f"{name!r} is taken by {found}.", f"Expected {kind}.")
        return takers[0]


def _read_constant(node: Node) -> Any:
    """Return the array of a Constant, whole or of plain numbers; nothing of another node."""
    from onnx import helper, numpy_helper

    for attribute in node.attribute if node.op_type == "Constant" else ():
        if attribute.name == "value":
            return attribute.t
        if attribute.name in ("value_int", "value_ints", "value_float", "value_floats"):
            dtype = np.int64 if "int" in attribute.name else np.float32
            return numpy_helper.from_array(np.array(helper.get_attribute_value(attribute), dtype))
    return None


def setting(node: Node, name: str, default: Any = None) -> Any:
    """Return one of a node's settings; a real one as a person wrote it."""
    from onnx import helper

    for attribute in node.attribute:
        if attribute.name == name:
            value = helper.get_attribute_value(attribute)
            return ir.round_float32(value) if isinstance(value, float) else value
    return default


def _pass_preprocessing(graph: Graph) -> tuple[str, NDArray[np.float32] | None]:
    """Return what an own file's network takes, and a mean that was taken off before it."""
    current, mean = graph.first, None
    for _ in range(MAX_OPERATORS):
        takers = graph.after(current)
        if not takers or takers[0].op_type not in BEFORE:
            break
        if takers[0].op_type == "Sub":
            mean = graph.array(takers[0], 1).astype(np.float32)
        current = takers[0].output[0]
    return current, mean


def _read_named(graph: Graph, spec: Spec, most: int) -> dict[str, Tensor]:
    """Read the weights of a file that says what its network is, whatever its operators are.

    Those of fewer bytes lie beside their scales (`portable.insert_stored`).
    """
    shapes, weights = find_shapes(spec), {}
    if sum(map(math.prod, shapes.values())) > most:
        raise RunError("Its layers have more numbers than the file.")
    for name, shape in shapes.items():
        whole, stored, scale = (f"network.{name}{part}" for part in ("", ".stored", ".scale"))
        given = whole if whole in graph.tensors else stored
        if given not in graph.tensors:
            raise RunError(f"It has no {whole!r}, which its network needs.")
        values = graph.read(given, {**ITEMS, INT8: 1}).astype(np.float32)
        if values.shape != shape:
            raise RunError(f"{given!r} is {values.shape}; its network needs {shape}.")
        if given == stored and scale in graph.tensors:
            factors = graph.read(scale)
            if factors.size != shape[0]:
                raise RunError(f"{scale!r} is {factors.shape}; {given!r} is {shape}.")
            values *= factors.reshape(-1, *[1] * (len(shape) - 1))
        if not np.isfinite(values).all():
            raise RunError(f"{whole!r} has numbers that are not finite.")
        weights[name] = torch.from_numpy(values)
    return weights


def _follow(graph: Graph, current: str, most: int) -> list[ir.ImportedLayer]:
    """Follow a graph from what the network takes to the logits; return its layers."""
    layers: list[ir.ImportedLayer] = []
    flat = False  # whether the maps have been laid in one row
    for _ in range(MAX_OPERATORS):
        takers = graph.after(current)
        if not takers or takers[0].op_type == "Softmax":
            return layers
        node, kind = takers[0], takers[0].op_type
        if kind == "Add" and layers and isinstance(layers[-1], ir.FullyConnected):
            bias = graph.other(node, current).astype(np.float32).reshape(-1)
            layers[-1], current = replace(layers[-1], bias=bias), node.output[0]
        elif kind in FLATTENING:
            graph.check_flat(node)
            flat, current = True, node.output[0]
        else:
            if (flat and kind in OF_MAPS) or (not flat and kind in OF_ROWS):
                where = "after" if flat else "before"
                raise RunError(f"{kind} {node.name!r} comes {where} the maps are flattened.")
            layer, current = _read_layer(graph, takers, current)
            layers = ir.gather_layers([*layers, layer], most) if layer else layers
    raise RunError(f"Its graph has more than {MAX_OPERATORS} operators in a row.")


def _read_layer(
    graph: Graph, takers: Sequence[Node], current: str
) -> tuple[ir.ImportedLayer | None, str]:
    """Read the next layer, of one operator or of several; return the name of what it makes."""
    node = takers[0]
    if len(takers) > 1:
        return _within_channel_norm(graph, takers, current)
    if node.op_type in ("Identity", "Cast") or _adds_nothing(graph, node):
        return None, node.output[0]
    if node.op_type == "Split":
        return _halves(graph, node)
    if node.op_type == "Mul":  # by a number below 1: dropout as in 2012, at test (section 4.2)
        kept = _single(graph.other(node, current), node)
        if not 0 < kept < 1:
            raise RunError(f"Mul {node.name!r} multiplies by {kept}.", "Expected dropout's share.")
        dropout = DropoutSpec(rate=ir.round_float32(1 - kept), form="2012")
        return ir.Drop(node.name, dropout), node.output[0]
    if node.op_type not in _READERS:
        raise RunError(
            f"Its graph has a {node.op_type}, {node.name!r}.",
            f"Expected only {', '.join(_READERS)}.",
        )
    return _READERS[node.op_type](graph, node), node.output[0]


def _adds_nothing(graph: Graph, node: Node) -> bool:
    """Whether a node pads by nothing, as PyTorch wrote before an average pool."""
    if node.op_type != "Pad":
        return False
    inside = len(node.input) > 1
    pads = graph.array(node, 1).tolist() if inside else setting(node, "pads", ())
    return not any(pads)


def _conv(graph: Graph, node: Node) -> ir.Convolution:
    weight = graph.array(node, 1).astype(np.float32, copy=False)
    kernel = tuple(setting(node, "kernel_shape", weight.shape[2:]))
    stride = _square(node, "strides", (1, 1))
    if kernel != weight.shape[2:] or {*setting(node, "dilations", (1, 1))} != {1}:
        raise RunError(f"Conv {node.name!r} of {weight.shape} has a kernel of {kernel}, or holes.")
    bias = _bias(graph, node, weight)
    return ir.Convolution(
        node.name, weight, bias, stride, _padding(node), int(setting(node, "group", 1))
    )


def _bias(graph: Graph, node: Node, weight: NDArray[Any]) -> NDArray[np.float32]:
    if len(node.input) > 2:
        return graph.array(node, 2).astype(np.float32).reshape(-1)
    return np.zeros(weight.shape[0], np.float32)


def _padding(node: Node) -> tuple[int, int]:
    """Return the padding before and after, the same in both directions."""
    pads = tuple(map(int, setting(node, "pads", (0, 0, 0, 0))))
    auto = setting(node, "auto_pad", b"NOTSET").decode("utf-8", "replace")
    if auto not in ("NOTSET", "VALID") or len(pads) != 4 or pads[::2] != pads[1::2]:
        raise RunError(
            f"{node.op_type} {node.name!r} is padded by {pads}, {auto}.",
            "Expected the same above and left, and the same below and right.",
        )
    return pads[0], pads[2]


def _square(node: Node, name: str, default: tuple[int, int]) -> int:
    found = tuple(map(int, setting(node, name, default)))
    if len(found) != 2 or found[0] != found[1]:
        raise RunError(
            f"{node.op_type} {node.name!r} has {name} of {found}.", "Expected two alike."
        )
    return found[0]


def _pool(graph: Graph, node: Node) -> ir.Pooling:
    kinds: dict[str, Literal["max", "average"]] = {"MaxPool": "max", "AveragePool": "average"}
    window, stride = _square(node, "kernel_shape", (0, 0)), _square(node, "strides", (1, 1))
    before, after = _padding(node)
    counted = setting(node, "count_include_pad", 0) and (before or after)
    if before or counted or {*setting(node, "dilations", (1, 1))} != {1}:
        raise RunError(
            f"{node.op_type} {node.name!r} is padded by {before} before the map, or has holes.",
            "Expected windows that begin inside the map.",
        )
    ceil = bool(setting(node, "ceil_mode", 0))
    return ir.Pooling(node.name, window, stride, kinds[node.op_type], ceil, after)


def _lrn(graph: Graph, node: Node) -> ir.Normalisation:
    constants = (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    alpha, beta, k = (float(setting(node, name, default)) for name, default in constants)
    return ir.make_norm(node.name, int(setting(node, "size", 5)), alpha, beta, k)


def _gemm(graph: Graph, node: Node) -> ir.FullyConnected:
    weight = graph.array(node, 1).astype(np.float32, copy=False)
    factors = {setting(node, "alpha", 1.0), setting(node, "beta", 1.0)}
    if weight.ndim != 2 or setting(node, "transA", 0) or factors != {1.0}:
        raise RunError(f"Gemm {node.name!r} of {weight.shape} is no fully-connected layer.")
    weight = weight if setting(node, "transB", 0) else weight.T
    return ir.FullyConnected(node.name, weight, _bias(graph, node, weight))


def _matmul(graph: Graph, node: Node) -> ir.FullyConnected:
    weight = graph.array(node, 1).astype(np.float32, copy=False).T
    return ir.FullyConnected(node.name, weight, np.zeros(weight.shape[0], np.float32))


def _dropout(graph: Graph, node: Node) -> ir.Drop:
    rate = float(setting(node, "ratio", 0.5))
    if len(node.input) > 1 and node.input[1]:
        rate = _single(graph.array(node, 1), node)
    return ir.Drop(node.name, DropoutSpec(rate=rate, form="inverted"))


_READERS: dict[str, Callable[[Graph, Node], ir.ImportedLayer]] = {
    "Conv": _conv,
    "Relu": lambda graph, node: ir.Activation(node.name),
    "Tanh": lambda graph, node: ir.Activation(node.name, "tanh"),
    "LRN": _lrn,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Dropout": _dropout,
}


def _halves(graph: Graph, node: Node) -> tuple[ir.Normalisation | None, str]:
    """Read a normalisation of each half of the maps: split, normalised twice, joined."""
    if len(node.output) > 2 or setting(node, "axis", 0) != 1:
        raise RunError(f"{node.op_type} {node.name!r} is not around a norm of two halves.")
    if len(node.output) == 1:
        return None, node.output[0]
    norms = [graph.only_taker(name, "LRN") for name in node.output]
    joins = [graph.only_taker(norm.output[0], "Concat") for norm in norms]
    read = [replace(_lrn(graph, norm), name="") for norm in norms]
    sizes = graph.array(node, 1).tolist() if len(node.input) > 1 else setting(node, "split", [1, 1])
    in_order = [*joins[0].input] == [norm.output[0] for norm in norms]
    if joins[0] != joins[1] or not in_order or read[0] != read[1] or len({*sizes}) != 1:
        raise RunError(f"Split {node.name!r} is not around one norm of two equal halves.")
    return replace(read[0], name=norms[0].name, parts=2), joins[0].output[0]


def _within_channel_norm(
    graph: Graph, takers: Sequence[Node], current: str
) -> tuple[ir.Normalisation, str]:
    """Read ``x * (k + alpha * mean of squares) ** -beta``, written out in operators."""
    by_kind = {node.op_type: node for node in takers}
    if len(takers) != 2 or by_kind.keys() != {"Pow", "Mul"}:
        kinds = ", ".join(node.op_type for node in takers)
        raise RunError(f"{current!r} is taken by {kinds}.", "AlexNet's layers stand in one row.")
    row = [by_kind["Pow"]]
    for kind in ("AveragePool", "Mul", "Add", "Pow", "Mul"):
        row.append(graph.only_taker(row[-1].output[0], kind))
    square, pool, scaled, shifted, power, product = row
    size = _square(pool, "kernel_shape", (0, 0))
    if (
        product != by_kind["Mul"]
        or _single(graph.array(square, 1), square) != 2
        or _square(pool, "strides", (1, 1)) != 1
        or _padding(pool) != (size // 2, size // 2)
        or not setting(pool, "count_include_pad", 0)
    ):
        raise RunError(f"{square.name!r} begins something that is no norm within a map.")
    alpha = _single(graph.other(scaled, pool.output[0]), scaled)
    beta = -_single(graph.array(power, 1), power)
    k = _single(graph.other(shifted, scaled.output[0]), shifted)
    norm = ir.make_norm(square.name, size, alpha, beta, k, within_channel=True)
    return norm, product.output[0]


def _single(values: NDArray[Any], node: Node) -> float:
    if values.size != 1 or not math.isfinite(number := ir.round_float32(values.reshape(-1)[0])):
        raise RunError(f"{node.op_type} {node.name!r} takes {values.size} numbers; expected one.")
    return number


def _read_own(
    imported: ir.ImportedNetwork, about: Mapping[str, Any], inside: NDArray[Any] | None
) -> ir.ImportedNetwork:
    """Add what this project's export says about itself: preprocessing, mean image, classes."""
    classes = imported.classes or ()
    scale, channels = float(about["scale"]), about["channels"]
    stdev = tuple(float(value) for value in about["stdev"])
    colour = tuple(float(value) / scale for value in about["mean"]["colour"])
    good = all(map(math.isfinite, (*colour, *stdev, scale))) and scale > 0 and min(stdev) > 0
    if not good or len(stdev) != 3 or len(colour) != 3 or channels not in ("RGB", "BGR"):
        raise RunError("What it says of its preprocessing has no sense.")
    pixels = PixelFormat(channel_order=channels, scale=scale, stdev=(stdev[0], stdev[1], stdev[2]))
    image = _mean_image(about, inside, scale)
    backwards = channels == "BGR"
    return replace(
        imported,
        spec=replace(imported.spec, pixels=pixels),
        mean=ir.MeanColour(colour[::-1] if backwards else colour, "mean colour of the file"),
        resize_to=int(about.get("prepared", 0)),
        mean_image=image[::-1] if image is not None and backwards else image,
        classes=classes if len(classes) == imported.spec.num_classes else None,
    )


def _mean_image(
    about: Mapping[str, Any], inside: NDArray[Any] | None, scale: float
) -> NDArray[np.float32] | None:
    """Return the mean image ``(3, side, side)``, RGB of 0-255: in the metadata or the graph."""
    mean = about["mean"]
    if "float32_base64" in mean:
        raw = base64.b64decode(mean["float32_base64"], validate=True)
        values = np.frombuffer(raw, "<f4").reshape([int(side) for side in mean["shape"]])
        return np.asarray(values[-3:] / scale, np.float32)
    if inside is not None and inside.ndim == 4 and inside.shape[-1] > 1:
        return np.asarray(inside.reshape(inside.shape[1:]) / scale, np.float32)
    return None
