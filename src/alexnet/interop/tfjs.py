"""TensorFlow.js's ``model.json`` with its shards of weights -> spec and weights.

Of a layers model the description is Keras's (`keras`); a graph model is followed from its
placeholder to its logits. Nothing is run, and no shard outside of the folder is opened.
"""

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from alexnet.bounds import MAX_FILE, MAX_LIST, check_shape, parse_json, read_bytes
from alexnet.errors import RunError
from alexnet.interop import layer_ir as ir
from alexnet.interop.keras import read_layers
from alexnet.interop.tensorflow import LayerList, Padding, assemble_layers

MAX_NODES = 10_000  # of a graph
MAX_SHARDS = 4096
PASSED = ("Identity", "StopGradient", "CheckNumerics")
TYPES = {"float32": "<f4", "int32": "<i4", "bool": "|b1"}
QUANTIZED = {"uint8": "|u1", "uint16": "<u2", "float16": "<f2"}


def read_tfjs(path: Path) -> ir.ImportedNetwork:
    """Read a network of TensorFlow.js, in either of its two forms."""
    told = parse_json(read_bytes(path, MAX_LIST))
    manifest = told.get("weightsManifest") if isinstance(told, dict) else None
    if not isinstance(manifest, list) or not isinstance(told.get("modelTopology"), dict):
        raise RunError("It is no model.json of TensorFlow.js.", "Name the one with the topology.")
    topology = told["modelTopology"]
    arrays = read_shards(path.parent, manifest)
    most = 2 * sum(array.nbytes for array in arrays.values())
    if "node" in topology:
        layers = _follow(TFGraph(topology["node"], arrays), most)
        return assemble_layers(layers, (f"graph of TensorFlow.js, {len(topology['node'])} nodes",))
    described = topology.get("model_config", topology)
    described = parse_json(described) if isinstance(described, str) else described
    layers = read_layers(described, _by_name(arrays), most)
    return assemble_layers(layers, ("layers of TensorFlow.js",))


def read_shards(folder: Path, manifest: Sequence[Any]) -> dict[str, NDArray[Any]]:
    """Return the arrays of a manifest by name, out of the files beside it.

    Each group's files, one behind the other, hold the group's arrays; quantised ones become
    float32.
    """
    found: dict[str, NDArray[Any]] = {}
    left = MAX_FILE
    for group in manifest:
        if len(group["paths"]) > MAX_SHARDS:
            raise RunError(f"Its weights lie in {len(group['paths']):,} files.")
        parts = []
        for name in group["paths"]:
            if not isinstance(name, str) or Path(name).name != name or name.startswith("."):
                raise RunError(f"Its weights lie in {str(name)[:80]!r}.", "Put them beside it.")
            parts.append(read_bytes(folder / name, left))
            left -= len(parts[-1])
        data, at = b"".join(parts), 0
        for entry in group["weights"]:
            stored, size = _stored_type(entry), math.prod(entry["shape"][:8])
            count = min(size, (len(data) - at) // stored.itemsize)
            check_shape(str(entry["name"]), entry["shape"], count)
            array = np.frombuffer(data, stored, count, at).reshape(entry["shape"])
            at += array.nbytes
            found[str(entry["name"])] = _dequantize(array, entry.get("quantization"))
        if at != len(data):
            raise RunError(f"Its shards have {len(data):,} bytes; its manifest tells {at:,}.")
    return found


def _stored_type(entry: Mapping[str, Any]) -> np.dtype[Any]:
    quantization = entry.get("quantization")
    told = quantization["dtype"] if quantization else entry["dtype"]
    known = QUANTIZED if quantization else TYPES
    if told not in known:
        raise RunError(
            f"{str(entry['name'])!r} is of type {str(told)[:20]!r}.", "Expected float32."
        )
    return np.dtype(known[told])


def _dequantize(array: NDArray[Any], told: Mapping[str, Any] | None) -> NDArray[Any]:
    if not told:
        return array
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    scale, least = np.float32(told["scale"]), np.float32(told["min"])
    return array.astype(np.float32) * scale + least


def _by_name(arrays: Mapping[str, NDArray[Any]]) -> Callable[[str, str], dict[str, NDArray[Any]]]:
    """Find a layer's arrays: ``conv1/kernel``, whatever stands before or between."""

    def find(name: str, kind: str) -> dict[str, NDArray[Any]]:
        found = {}
        for path, array in arrays.items():
            parts = path.split("/")
            if name in parts[:-1]:
                found[parts[-1].removesuffix(":0")] = array
        return found

    return find


@dataclass(frozen=True, slots=True)
class TFNode:
    """An operator of a graph: what it takes by name, and its settings."""

    name: str
    op: str
    inputs: tuple[str, ...]
    settings: Mapping[str, Any]

    def setting(self, name: str, default: Any = None) -> Any:
        """Return a setting: a number, a text, or a list of numbers."""
        told = self.settings.get(name)
        if not isinstance(told, dict) or not told:
            return default
        kind, value = next(iter(told.items()))
        if kind == "list":
            return [int(one) for one in value.get("i", ())] or [
                base64.b64decode(one).decode() for one in value.get("s", ())
            ]
        if kind == "s":
            return base64.b64decode(value).decode()
        return int(value) if kind == "i" else value

    def square(self, name: str) -> int:
        """Return a size that is the same for rows and columns."""
        told = self.setting(name, [1, 1, 1, 1])
        if len(told) != 4 or told[0] != 1 or told[3] != 1 or told[1] != told[2]:
            raise RunError(f"{self.op} {self.name!r} has {name} of {told}.", "Expected two alike.")
        return int(told[1])


class TFGraph:
    """A graph to be followed: who takes what, and the arrays that are in the file."""

    def __init__(self, nodes: Sequence[Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        if len(nodes) > MAX_NODES:
            raise RunError(f"Its graph has {len(nodes):,} nodes.")
        self.arrays = dict(arrays)
        self.makers: dict[str, TFNode] = {}
        self.takers: dict[str, list[TFNode]] = {}
        for told in nodes:
            inputs = [str(one) for one in told.get("input", ()) if not str(one).startswith("^")]
            inputs = [one.removesuffix(":0") for one in inputs]
            node = TFNode(str(told["name"]), str(told["op"]), tuple(inputs), told.get("attr", {}))
            self.makers[node.name] = node
            if node.op in PASSED and inputs[0] in self.arrays:
                self.arrays[node.name] = self.arrays[inputs[0]]
            elif node.op not in ("Const", "Shape"):
                for name in {*inputs} - self.arrays.keys():
                    self.takers.setdefault(name, []).append(node)

    def array(self, node: TFNode, place: int) -> NDArray[Any]:
        """Return the array that a node takes in one place."""
        name = node.inputs[place] if place < len(node.inputs) else ""
        if name not in self.arrays:
            raise RunError(
                f"{node.op} {node.name!r} takes {name!r}, which is no array in the shards.",
                "Expected a frozen graph.",
            )
        return self.arrays[name]

    def only_taker(self, name: str) -> TFNode | None:
        """Return the one node that takes a value; None at the end."""
        takers = self.takers.get(name, [])
        if len(takers) > 1:
            kinds = ", ".join(node.op for node in takers)
            raise RunError(f"{name!r} is taken by {kinds}.", "AlexNet's layers stand in one row.")
        return takers[0] if takers else None


def _follow(graph: TFGraph, most: int) -> LayerList:
    """Follow a graph from its placeholder to the logits."""
    firsts = [node for node in graph.makers.values() if node.op == "Placeholder"]
    firsts = [node for node in firsts if graph.takers.get(node.name)]
    if len(firsts) != 1:
        raise RunError(
            f"Its graph has {len(firsts)} placeholders.", "Expected one, for the pixels."
        )
    dims = (firsts[0].settings.get("shape") or {}).get("shape", {}).get("dim", [])
    sides = [int(dim.get("size", -1)) for dim in dims]
    square = len(sides) == 4 and sides[1] == sides[2] > 0
    layers, zeros = LayerList(sides[1] if square else None, most), (0, 0)
    current, taken = firsts[0].name, 0
    while (node := graph.only_taker(current)) and node.op != "Softmax":
        taken += 1
        if taken > MAX_NODES:  # a row that ends in itself
            raise RunError("Its graph has no end.")
        if node.op in ("Pad", "PadV2"):
            zeros, current = _read_pads(graph, node), node.name
            continue
        if zeros != (0, 0) and not node.op.endswith("Conv2D"):
            raise RunError(f"{node.op} {node.name!r} comes behind zeros.", "Expected Conv2D there.")
        if node.op == "Split":
            node = _read_halves(graph, node, layers, zeros)
        elif node.op in _READERS:
            _READERS[node.op](graph, node, layers, zeros)
        elif node.op not in PASSED:
            raise RunError(
                f"Its graph has a {node.op[:40]}, {node.name!r}.",
                f"Expected only {', '.join(_READERS)}.",
            )
        current, zeros = node.name, (0, 0)
    return layers


def _padding(node: TFNode, zeros: tuple[int, int] = (0, 0)) -> Padding:
    told = node.setting("padding", "VALID")
    if told == "EXPLICIT":
        pads = node.setting("explicit_paddings", [])
        if len(pads) != 8 or any(pads[:2] + pads[6:]) or pads[2:4] != pads[4:6]:
            raise RunError(f"{node.op} {node.name!r} is padded by {pads}.")
        return pads[2] + zeros[0], pads[3] + zeros[1]
    if told not in ("SAME", "VALID") or (zeros != (0, 0) and told == "SAME"):
        raise RunError(f"{node.op} {node.name!r} is padded by {str(told)[:20]}.")
    return zeros if zeros != (0, 0) else told


def _read_pads(graph: TFGraph, node: TFNode) -> tuple[int, int]:
    pads = graph.array(node, 1).tolist()
    outside = graph.array(node, 2).reshape(-1) if len(node.inputs) > 2 else np.zeros(1)
    if np.shape(pads) != (4, 2) or pads[0] + pads[3] != [0] * 4 or pads[1] != pads[2]:
        raise RunError(f"Pad {node.name!r} is of {pads}.", "Expected rows and columns alike.")
    if outside.any():
        raise RunError(f"Pad {node.name!r} is not of zeros.")
    return int(pads[1][0]), int(pads[1][1])


def _convolution(graph: TFGraph, node: TFNode, layers: LayerList, zeros: tuple[int, int]) -> None:
    kernel = graph.array(node, 1)
    _add_convolution(node, kernel, layers, zeros, layers.count_groups(kernel))
    _fused(graph, node, layers)


def _add_convolution(
    node: TFNode, kernel: NDArray[Any], layers: LayerList, zeros: tuple[int, int], groups: int
) -> None:
    if node.square("dilations") != 1 or node.setting("data_format", "NHWC") != "NHWC":
        raise RunError(f"{node.op} {node.name!r} has holes, or its channels first.")
    layers.add_convolution(
        node.name, kernel, None, node.square("strides"), _padding(node, zeros), groups
    )


def _fused(graph: TFGraph, node: TFNode, layers: LayerList) -> None:
    """Read what an optimiser has put into an operator."""
    for place, op in enumerate(node.setting("fused_ops", []), 2):
        if op == "BiasAdd":
            layers.add_bias(graph.array(node, place))
        else:
            layers.add_activation(node.name, op.lower())


def _read_halves(graph: TFGraph, node: TFNode, layers: LayerList, zeros: tuple[int, int]) -> TFNode:
    """Read a convolution in two groups: the maps are split, each half has one, and both join."""
    axis = int(graph.array(node, 0).reshape(-1)[0])
    halves = [graph.only_taker(name) for name in (node.name, f"{node.name}:1")]
    joined = [graph.only_taker(half.name) if half else None for half in halves]
    first, second = halves
    if not first or not second or not joined[0] or joined[0] != joined[1]:
        raise RunError(f"Split {node.name!r} is not around one convolution in two groups.")
    join = joined[0]
    in_order = join.op == "ConcatV2" and join.inputs[:2] == (first.name, second.name)
    alike = {first.op, second.op} == {"Conv2D"} and all(
        first.setting(name) == second.setting(name) for name in ("strides", "padding", "dilations")
    )
    last = graph.array(join, 2).reshape(-1).tolist() if len(join.inputs) == 3 else []
    if not in_order or not alike or axis not in (3, -1) or last not in ([3], [-1]):
        raise RunError(f"Split {node.name!r} is not around one convolution in two groups.")
    kernel = np.concatenate([graph.array(first, 1), graph.array(second, 1)], 3)
    _add_convolution(first, kernel, layers, zeros, 2)
    return join


def _dense(graph: TFGraph, node: TFNode, layers: LayerList, _: object) -> None:
    kernel = graph.array(node, 1)
    if node.setting("transpose_a", False):
        raise RunError(f"{node.op} {node.name!r} is transposed.")
    layers.add_dense(node.name, kernel.T if node.setting("transpose_b", False) else kernel, None)
    _fused(graph, node, layers)


def _pool(graph: TFGraph, node: TFNode, layers: LayerList, _: object) -> None:
    kind: Literal["max", "average"] = "max" if node.op == "MaxPool" else "average"
    window, stride = node.square("ksize"), node.square("strides")
    layers.add_pool(node.name, window, stride, _padding(node), kind)


def _lrn(graph: TFGraph, node: TFNode, layers: LayerList, _: object) -> None:
    """TensorFlow does not divide alpha by the window, and tells a radius."""
    size = 2 * int(node.setting("depth_radius", 5)) + 1
    alpha, beta, k = (
        ir.round_float32(node.setting(name, default))
        for name, default in (("alpha", 1.0), ("beta", 0.5), ("bias", 1.0))
    )
    layers.add(ir.make_norm(node.name, size, ir.round_float32(alpha * size), beta, k))


def _reshape(graph: TFGraph, node: TFNode, layers: LayerList, _: object) -> None:
    """Lay the maps in a row; a reshape to what was the shape before changes nothing."""
    given = node.inputs[1] if len(node.inputs) > 1 else ""
    maker = graph.makers.get(given)
    if maker is not None and maker.op == "Shape":
        return
    packed = len(maker.inputs) if maker is not None and maker.op == "Pack" else 0
    axes = graph.arrays[given].size if given in graph.arrays else packed
    if node.op == "Reshape" and axes != 2:
        raise RunError(f"Reshape {node.name!r} makes {axes} axes.", "Expected a row of each image.")
    layers.flatten()


def _bias(graph: TFGraph, node: TFNode, layers: LayerList, _: object) -> None:
    layers.add_bias(graph.array(node, 1))


def _activation(graph: TFGraph, node: TFNode, layers: LayerList, _: object) -> None:
    layers.add_activation(node.name, node.op.lower())


_READERS: dict[str, Callable[[TFGraph, TFNode, LayerList, tuple[int, int]], None]] = {
    **dict.fromkeys(("Conv2D", "_FusedConv2D"), _convolution),
    **dict.fromkeys(("MatMul", "_FusedMatMul"), _dense),
    **dict.fromkeys(("BiasAdd", "Add", "AddV2"), _bias),
    **dict.fromkeys(("Relu", "Tanh"), _activation),
    **dict.fromkeys(("MaxPool", "AvgPool"), _pool),
    **dict.fromkeys(("Reshape", "Squeeze"), _reshape),
    "LRN": _lrn,
}
