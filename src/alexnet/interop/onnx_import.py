"""ONNX's graphs -> spec and weights: the zoo's bvlcalexnet and caffenet, and this project's own.

A graph is followed from its input to its logits; what each operator computes goes into the list of
layers that every reader makes. Nothing of a file is run, and nothing outside of it is opened.
"""

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from alexnet.errors import RunError
from alexnet.interop.assembly import network_of
from alexnet.interop.caffe import IMAGENET_MEAN, plain
from alexnet.interop.chain import (
    LARGEST_IMAGE,
    Activation,
    Convolution,
    Drop,
    FullyConnected,
    Layer,
    Normalisation,
    Pooling,
    gather,
)
from alexnet.interop.imported import Imported, MeanColour, file_bytes
from alexnet.interop.onnx_graph import MODEL, Graph, Node, opened
from alexnet.interop.protobuf import decode, one
from alexnet.spec import LRN, Dropout, PixelFormat, WithinChannelLRN
from alexnet.variants import CAFFE, TORCHVISION

BEFORE = ("Slice", "Transpose", "Cast", "Mul", "Sub", "Div")  # preprocessing inside of an export
MOST_OPERATORS = 1000  # on the way from the pixels to the logits
FLATTENING = ("Flatten", "Reshape", "Squeeze")
OF_MAPS, OF_ROWS = ("Conv", "LRN", "MaxPool", "AveragePool", "Split"), ("Gemm", "MatMul")


def read_onnx(path: Path) -> Imported:
    """Read a network and its weights.

    Raises
    ------
    RunError
        When the file is damaged, or its graph is no network of AlexNet's family.
    """
    data = file_bytes(path)
    model = decode(data, MODEL)
    graph, image, first = opened(model)
    told = {one(entry, "key"): one(entry, "value", "") for entry in model.get("metadata_props", [])}
    about = json.loads(told["preprocessing"]) if "preprocessing" in told else None
    layers, mean = _followed(graph, first, 2 * len(data), own=about is not None)
    network, weights = network_of(layers, PixelFormat(), image or (about and int(about["crop"])))
    producer = one(model, "producer_name", "") or "an unnamed program"
    found = (f"ONNX graph {one(one(model, 'graph'), 'name', '')!r} of {producer}",)
    if about is not None:
        classes = tuple(map(str, json.loads(told.get("classes", "[]"))))
        return _own(Imported(network, weights, found, classes=classes), about, mean)
    convs = TORCHVISION.convs
    torchvision = [replace(c, out_channels=0) for c in network.convs] == [
        replace(c, out_channels=0) for c in convs
    ]
    like = TORCHVISION if torchvision else CAFFE
    said = f"the file does not say what its pixels are; taken to be those of {like.name}"
    pixels = like.pixels
    colour = None if torchvision else MeanColour(IMAGENET_MEAN, "mean colour of ImageNet")
    return Imported(replace(network, pixels=pixels), weights, (*found, said), mean=colour)


def _followed(
    graph: Graph, current: str, most: int, *, own: bool
) -> tuple[list[Layer], NDArray[np.float32] | None]:
    """Follow a graph from its input to the logits; return its layers, and a mean before them."""
    layers: list[Layer] = []
    mean: NDArray[np.float32] | None = None
    flat = False  # whether the maps have been laid in one row
    for _ in range(MOST_OPERATORS):
        takers = graph.takers.get(current, [])
        if not takers or takers[0].kind == "Softmax":
            return layers, mean
        node = takers[0]
        if own and not layers and node.kind in BEFORE:
            if node.kind == "Sub":
                mean = graph.array(node, 1).astype(np.float32)
            current = node.outputs[0]
        elif node.kind == "Add" and layers and isinstance(layers[-1], FullyConnected):
            bias = _floats(_other(graph, node, current)).reshape(-1)
            layers[-1], current = replace(layers[-1], bias=bias), node.outputs[0]
        elif node.kind in FLATTENING:
            flat, current = True, node.outputs[0]
        else:
            if (flat and node.kind in OF_MAPS) or (not flat and node.kind in OF_ROWS):
                where = "after" if flat else "before"
                raise RunError(f"{node.kind} {node.name!r} comes {where} the maps are flattened.")
            layer, current = _layer(graph, takers, current)
            layers = gather([*layers, layer], most) if layer else layers
    raise RunError(f"Its graph has more than {MOST_OPERATORS} operators in a row.")


def _layer(graph: Graph, takers: Sequence[Node], current: str) -> tuple[Layer | None, str]:
    """Read the next layer, of one operator or of several; return the name of what it makes."""
    node = takers[0]
    if len(takers) > 1:
        return _same_map_norm(graph, takers, current)
    if node.kind == "Identity":
        return None, node.outputs[0]
    if node.kind == "Split":
        return _halves(graph, node)
    if node.kind == "Mul":
        return _factor(graph, node, current), node.outputs[0]
    if node.kind not in _READERS:
        raise RunError(
            f"Its graph has a {node.kind}, {node.name!r}.",
            f"Expected only {', '.join(_READERS)}.",
        )
    return _READERS[node.kind](graph, node), node.outputs[0]


def _conv(graph: Graph, node: Node) -> Convolution:
    weight = _floats(graph.array(node, 1))
    kernel = node.sizes("kernel_shape", weight.shape[2:])
    stride = _same(node, "strides", (1, 1))
    if tuple(kernel) != weight.shape[2:] or set(node.sizes("dilations", (1, 1))) != {1}:
        raise RunError(f"Conv {node.name!r} of {weight.shape} has a kernel of {kernel}, or holes.")
    bias = _floats(graph.array(node, 2)) if len(node.inputs) > 2 else _nought(weight)
    return Convolution(node.name, weight, bias, stride, _pads(node), node.whole("group", 1))


def _pads(node: Node) -> tuple[int, int]:
    """Return the padding before and after, the same in both directions."""
    pads = node.sizes("pads", (0, 0, 0, 0))
    auto = str(one(node.settings.get("auto_pad", {}), "s", "NOTSET"))
    if (
        auto not in ("NOTSET", "VALID")
        or len(pads) != 4
        or pads[0] != pads[1]
        or pads[2] != pads[3]
        or not 0 <= min(pads) <= max(pads) <= LARGEST_IMAGE
    ):
        raise RunError(
            f"{node.kind} {node.name!r} is padded by {pads}, {auto}.",
            "Expected the same above and left, and the same below and right.",
        )
    return pads[0], pads[2]


def _same(node: Node, name: str, default: tuple[int, int]) -> int:
    found = node.sizes(name, default)
    if len(found) != 2 or found[0] != found[1] or not 1 <= found[0] <= LARGEST_IMAGE:
        raise RunError(f"{node.kind} {node.name!r} has {name} of {found}.", "Expected two alike.")
    return found[0]


def _pool(graph: Graph, node: Node) -> Pooling:
    kinds: dict[str, Literal["max", "average"]] = {"MaxPool": "max", "AveragePool": "average"}
    window, stride = _same(node, "kernel_shape", (0, 0)), _same(node, "strides", (1, 1))
    before, after = _pads(node)
    counted = node.whole("count_include_pad") and (before or after)
    if before or counted or set(node.sizes("dilations", (1, 1))) != {1}:
        raise RunError(
            f"{node.kind} {node.name!r} is padded by {before} before the map, or has holes.",
            "Expected windows that begin inside the map.",
        )
    ceil = bool(node.whole("ceil_mode"))
    return Pooling(node.name, window, stride, kinds[node.kind], ceil=ceil, after=after)


def _lrn(graph: Graph, node: Node) -> Normalisation:
    size = node.whole("size", 5)
    constants = node.number("alpha", 1e-4), node.number("beta", 0.75), node.number("bias", 1.0)
    if not 1 <= size <= 1000 or size % 2 == 0 or not all(map(math.isfinite, constants)):
        raise RunError(f"LRN {node.name!r} has a window of {size}.", "Expected an odd one.")
    alpha, beta, k = constants
    return Normalisation(node.name, LRN(size=size, alpha=alpha, beta=beta, k=k))


def _gemm(graph: Graph, node: Node) -> FullyConnected:
    weight = _floats(graph.array(node, 1))
    factors = {node.number("alpha", 1.0), node.number("beta", 1.0)}
    if weight.ndim != 2 or node.whole("transA") or factors != {1.0}:
        raise RunError(f"Gemm {node.name!r} of {weight.shape} is no fully-connected layer.")
    weight = weight if node.whole("transB") else weight.T
    bias = _floats(graph.array(node, 2)) if len(node.inputs) > 2 else _nought(weight)
    return FullyConnected(node.name, weight, bias.reshape(-1))


def _matmul(graph: Graph, node: Node) -> FullyConnected:
    weight = _floats(graph.array(node, 1)).T
    return FullyConnected(node.name, weight, _nought(weight))


def _dropout(graph: Graph, node: Node) -> Drop:
    rate = node.number("ratio", 0.5)
    if len(node.inputs) > 1 and node.inputs[1]:
        rate = _single(graph.array(node, 1), node)
    return Drop(node.name, Dropout(rate=rate, form="inverted"))


_READERS: dict[str, Callable[[Graph, Node], Layer]] = {
    "Conv": _conv,
    "Relu": lambda graph, node: Activation(node.name),
    "Tanh": lambda graph, node: Activation(node.name, "tanh"),
    "LRN": _lrn,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Dropout": _dropout,
}


def _factor(graph: Graph, node: Node, current: str) -> Drop:
    """Read a multiplication by a number below 1: dropout as in 2012, at test (section 4.2)."""
    kept = _single(_other(graph, node, current), node)
    if not 0 < kept < 1:
        raise RunError(f"Mul {node.name!r} multiplies by {kept}.", "Expected dropout's share.")
    return Drop(node.name, Dropout(rate=plain(1 - kept), form="2012"))


def _halves(graph: Graph, node: Node) -> tuple[Normalisation | None, str]:
    """Read a normalisation of each half of the maps: split, normalised twice, joined."""
    if len(node.outputs) > 2 or node.whole("axis") != 1:
        raise RunError(f"{node.kind} {node.name!r} is not around a norm of two halves.")
    if len(node.outputs) == 1:
        return None, node.outputs[0]
    norms = [_only(graph, name, "LRN") for name in node.outputs]
    joined = {_only(graph, norm.outputs[0], "Concat").outputs[0] for norm in norms}
    order = _only(graph, norms[0].outputs[0], "Concat").inputs
    read = [_lrn(graph, norm) for norm in norms]
    sizes = graph.array(node, 1).tolist() if len(node.inputs) > 1 else node.sizes("split", (1, 1))
    in_order = order == tuple(norm.outputs[0] for norm in norms)
    if len(joined) != 1 or not in_order or read[0].norm != read[1].norm or len(set(sizes)) != 1:
        raise RunError(f"Split {node.name!r} is not around one norm of two equal halves.")
    return replace(read[0], parts=2), joined.pop()


def _same_map_norm(graph: Graph, takers: Sequence[Node], current: str) -> tuple[Normalisation, str]:
    """Read ``x * (k + alpha * mean of squares) ** -beta``, written out in operators."""
    by_kind = {node.kind: node for node in takers}
    if len(takers) != 2 or by_kind.keys() != {"Pow", "Mul"}:
        kinds = ", ".join(node.kind for node in takers)
        raise RunError(f"{current!r} is taken by {kinds}.", "AlexNet's layers stand in one row.")
    square = by_kind["Pow"]
    pool = _only(graph, square.outputs[0], "AveragePool")
    scaled = _only(graph, pool.outputs[0], "Mul")
    shifted = _only(graph, scaled.outputs[0], "Add")
    power = _only(graph, shifted.outputs[0], "Pow")
    product = _only(graph, power.outputs[0], "Mul")
    size = _same(pool, "kernel_shape", (0, 0))
    exponents = _single(graph.array(square, 1), square), _single(graph.array(power, 1), power)
    alpha = _single(_other(graph, scaled, pool.outputs[0]), scaled)
    k = _single(_other(graph, shifted, scaled.outputs[0]), shifted)
    around = (size // 2, size // 2)
    if (
        product != by_kind["Mul"]
        or exponents[0] != 2
        or _same(pool, "strides", (1, 1)) != 1
        or _pads(pool) != around
        or not pool.whole("count_include_pad")
    ):
        raise RunError(f"{square.name!r} begins something that is no norm within a map.")
    norm = WithinChannelLRN(size=size, alpha=alpha, beta=-exponents[1], k=k)
    return Normalisation(square.name, norm), product.outputs[0]


def _only(graph: Graph, name: str, kind: str) -> Node:
    """Return the one node that takes a value, which must be of a kind."""
    takers = graph.takers.get(name, [])
    if len(takers) != 1 or takers[0].kind != kind or not takers[0].outputs:
        found = ", ".join(node.kind for node in takers) or "nothing"
        raise RunError(f"{name!r} is taken by {found}.", f"Expected {kind}.")
    return takers[0]


def _other(graph: Graph, node: Node, current: str) -> NDArray[Any]:
    """Return the array that a node of two inputs takes besides `current`."""
    return graph.array(node, 1 if node.inputs[0] == current else 0)


def _single(values: NDArray[Any], node: Node) -> float:
    if values.size != 1 or not math.isfinite(number := plain(values.reshape(-1)[0])):
        raise RunError(f"{node.kind} {node.name!r} takes {values.size} numbers; expected one.")
    return number


def _nought(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.zeros(weight.shape[0], np.float32)


def _floats(values: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)


def _own(imported: Imported, about: Mapping[str, Any], inside: NDArray[Any] | None) -> Imported:
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
        mean=MeanColour(colour[::-1] if backwards else colour, "mean colour of the file"),
        prepared=int(about.get("prepared", 0)),
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
