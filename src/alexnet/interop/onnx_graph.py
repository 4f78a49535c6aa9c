"""An ONNX file as a graph to be followed: its operators, and the arrays that are in it.

The part of ``onnx.proto`` that a network of AlexNet's family needs, by names and numbers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.errors import RunError
from alexnet.interop.caffe import plain
from alexnet.interop.chain import LARGEST_IMAGE
from alexnet.interop.protobuf import Message, Schema, numbers, one

TENSOR: Schema = {
    1: ("dims", "int"), 2: ("data_type", "int"), 4: ("float_data", "floats"),
    7: ("int64_data", "int"), 8: ("name", "text"), 9: ("raw_data", "bytes"),
    13: ("external_data", "bytes"), 14: ("data_location", "int"),
}  # fmt: skip
ATTRIBUTE: Schema = {
    1: ("name", "text"), 2: ("f", "float"), 3: ("i", "int"), 4: ("s", "text"), 5: ("t", TENSOR),
    8: ("ints", "int"),
}  # fmt: skip
NODE: Schema = {
    1: ("input", "text"), 2: ("output", "text"), 3: ("name", "text"), 4: ("op_type", "text"),
    5: ("attribute", ATTRIBUTE), 7: ("domain", "text"),
}  # fmt: skip
DIMENSION: Schema = {1: ("dim_value", "int")}
VALUE: Schema = {
    1: ("name", "text"),
    2: ("type", {1: ("tensor_type", {2: ("shape", {1: ("dim", DIMENSION)})})}),
}  # fmt: skip
GRAPH: Schema = {
    1: ("node", NODE), 2: ("name", "text"), 5: ("initializer", TENSOR), 11: ("input", VALUE),
}  # fmt: skip
MODEL: Schema = {
    1: ("ir_version", "int"), 2: ("producer_name", "text"), 7: ("graph", GRAPH),
    14: ("metadata_props", {1: ("key", "text"), 2: ("value", "text")}),
}  # fmt: skip
TYPES = {1: "<f4", 7: "<i8", 10: "<f2", 11: "<f8"}  # of the data that weights and sizes come in


@dataclass(frozen=True, slots=True)
class Node:
    """An operator, what it takes and makes, and its settings."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: Mapping[str, Message]

    def number(self, name: str, default: float = 0.0) -> float:
        """Return a real setting."""
        return plain(one(self.settings.get(name, {}), "f", default))

    def whole(self, name: str, default: int = 0) -> int:
        """Return a whole setting."""
        return int(one(self.settings.get(name, {}), "i", default))

    def sizes(self, name: str, default: Sequence[int]) -> tuple[int, ...]:
        """Return a setting of several whole numbers."""
        return tuple(self.settings.get(name, {}).get("ints", default))


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph to be followed: who takes what, and the arrays that are in the file."""

    takers: dict[str, list[Node]]
    tensors: dict[str, Message]

    def array(self, node: Node, place: int) -> NDArray[Any]:
        """Return the array that a node takes in one place.

        Raises
        ------
        RunError
            When it is not in the file, or is not what it is declared to be.
        """
        name = node.inputs[place] if place < len(node.inputs) else ""
        if name not in self.tensors:
            raise RunError(
                f"{node.kind} {node.name!r} takes {name!r}, which is no array in the file.",
                "Expected weights as initializers.",
            )
        return array(self.tensors[name])


def opened(model: Message) -> tuple[Graph, int | None, str]:
    """Return a graph, the side of its images if it says so, and the name of its input.

    Raises
    ------
    RunError
        When it has no graph, several inputs, or operators of another library.
    """
    content = one(model, "graph")
    if content is None or not content.get("node"):
        raise RunError("It has no graph.")
    tensors = {one(tensor, "name", ""): tensor for tensor in content.get("initializer", [])}
    takers: dict[str, list[Node]] = {}
    for number, message in enumerate(content["node"]):
        kind = one(message, "op_type", "")
        settings = {one(setting, "name", ""): setting for setting in message.get("attribute", [])}
        node = Node(
            kind,
            one(message, "name", "") or f"number {number}",
            tuple(message.get("input", [])),
            tuple(message.get("output", [])),
            settings,
        )
        if one(message, "domain", "") not in ("", "ai.onnx"):
            raise RunError(f"{kind} {node.name!r} is an operator of {one(message, 'domain')!r}.")
        if kind == "Constant" and "value" in settings and node.outputs:
            tensors[node.outputs[0]] = one(settings["value"], "t", {})
            continue
        for name in set(node.inputs):
            takers.setdefault(name, []).append(node)
    inputs = [value for value in content.get("input", []) if one(value, "name") not in tensors]
    inputs = [value for value in inputs if one(value, "name") in takers]
    if len(inputs) != 1:
        names = [one(value, "name") for value in inputs]
        raise RunError(f"Its graph has the inputs {names}.", "Expected one, for the pixels.")
    shape = one(one(one(inputs[0], "type", {}), "tensor_type", {}), "shape", {}).get("dim", [])
    sides = [one(side, "dim_value", 0) for side in shape]
    square = len(sides) == 4 and sides[1] == 3 and sides[2] == sides[3]
    image = sides[2] if square and 0 < sides[2] <= LARGEST_IMAGE else None
    return Graph(takers, tensors), image, str(one(inputs[0], "name"))


def array(tensor: Message) -> NDArray[Any]:
    """Return a tensor's array, whose numbers must all be in the file.

    Raises
    ------
    RunError
        When they are in another file, of an unknown type, or fewer or more than declared.
    """
    name, kind = one(tensor, "name", ""), one(tensor, "data_type", 0)
    shape = tuple(tensor.get("dims", []))
    if one(tensor, "data_location", 0) or tensor.get("external_data"):
        raise RunError(f"{name!r} lies in another file.", "Write the model as one file.")
    if kind not in TYPES or len(shape) > 8 or min(shape, default=0) < 0:
        raise RunError(f"{name!r} is an array of type {kind}, {shape[:8]}.", "Expected float32.")
    values: NDArray[Any]
    if "raw_data" in tensor:
        values = np.frombuffer(one(tensor, "raw_data"), TYPES[kind])
    elif kind == 7:
        values = np.array(tensor.get("int64_data", []), np.int64)
    else:
        values = numbers(tensor, "float_data")
    if math.prod(shape) != values.size:
        raise RunError(f"{name!r} of {shape} has {values.size:,} numbers in the file.")
    return values.reshape(shape)
