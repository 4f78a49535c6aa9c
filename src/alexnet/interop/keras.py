"""Keras's ``.h5`` and ``.keras`` -> spec and weights; `tfjs` has the same description of layers.

The description is JSON, whose layers are read one by one: no class of it is looked up, and a
``Lambda``, which holds a program, is refused. HDF5 is read by h5py, of arrays that lie in the file
as they are.
"""

import io
import itertools
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from alexnet.bounds import MAX_LAYERS, MAX_LIST, list_stored, parse_json, read_bytes
from alexnet.errors import RunError, import_extra
from alexnet.interop import layer_ir as ir
from alexnet.interop.tensorflow import LayerList, Padding, assemble_layers

CONFIG, WEIGHTS = "config.json", "model.weights.h5"  # in a .keras
HDF5 = b"\x89HDF\r\n\x1a\n"
Arrays = Callable[[str, str], Mapping[str, NDArray[Any]]]  # of a layer, by its name and class
SAVE = "In the program that made it: model.save('network.keras')."


def read_keras(path: Path) -> ir.ImportedNetwork:
    """Read a network that ``model.save`` wrote: Keras 3's ``.keras``, or the older ``.h5``."""
    h5py = import_extra("h5py", "keras", "Reading Keras's files")
    data = read_bytes(path)
    if data.startswith(HDF5):
        with h5py.File(io.BytesIO(data), "r") as file:
            described, group = _find_description(data), _plain(file, "model_weights")
            layers = read_layers(described, _by_layer_name(group, len(data)), 2 * len(data))
    else:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = list_stored(archive, len(data))
            if not {CONFIG, WEIGHTS} <= parts.keys() or parts[CONFIG].file_size > MAX_LIST:
                raise RunError(f"It lacks {CONFIG} or {WEIGHTS}, as Keras 3 writes them.", SAVE)
            described = parse_json(archive.read(CONFIG))
            with h5py.File(io.BytesIO(archive.read(WEIGHTS)), "r") as file:
                layers = read_layers(described, _by_place(file, len(data)), 2 * len(data))
    return assemble_layers(layers, (f"Keras network {_name(described)!r}",))


def _find_description(data: bytes) -> Any:
    """Return the description in a ``.h5``: JSON that lies in its bytes behind a zero.

    It is no attribute to h5py here: of a text whose length is damaged HDF5 takes memory for all of
    that length, up to 4 GB, before it sees that the file has less.
    """
    found = re.search(rb'\0(?=\{"class_name")', data)
    if not found:
        raise RunError("It has weights alone, and does not tell its layers.", SAVE)
    text = data[found.end() : found.end() + MAX_LIST].partition(b"\0")[0]
    return parse_json(text[: text.rfind(b"}") + 1])


def _by_layer_name(group: Any, size: int) -> Arrays:
    """Find a layer's arrays in a ``.h5``: below its name, somewhere called kernel and bias."""

    def find(name: str, kind: str) -> dict[str, NDArray[Any]]:
        import h5py

        inside, found = _plain(group, name), {}
        while isinstance(inside, h5py.Group):  # sequential/conv1/kernel, of any depth
            parts = [*itertools.islice(inside, 3)]
            if len(parts) == 1 and isinstance(_plain(inside, parts[0]), h5py.Group):
                inside = _plain(inside, parts[0])
                continue
            for part in parts:
                found[part.removesuffix(":0")] = _array(_plain(inside, part), part, size)
            break
        return found

    return find


def _by_place(file: Any, size: int) -> Arrays:
    """Find a layer's arrays in a ``.keras``: layers of a class are numbered in their order."""
    counts: dict[str, int] = {}

    def find(name: str, kind: str) -> dict[str, NDArray[Any]]:
        called = kind.lower()
        number = counts[called] = counts.get(called, -1) + 1
        inside = _plain(file, f"layers/{called}{f'_{number}' if number else ''}/vars")
        parts = ("kernel", "bias")[: len(inside)]
        return {part: _array(_plain(inside, str(n)), name, size) for n, part in enumerate(parts)}

    return find


def _plain(group: Any, path: str) -> Any:
    """Return what lies in this file under a path: no link is followed."""
    import h5py

    for part in path.split("/"):
        if not isinstance(group, h5py.Group) or not isinstance(
            group.get(part, getlink=True), h5py.HardLink
        ):
            raise RunError(f"It has no {path!r}, where its layers' weights should be.")
        group = group[part]
    return group


def _array(dataset: Any, name: str, size: int) -> NDArray[Any]:
    """Return an array that lies in the file as it is, as Keras writes them."""
    import h5py

    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind != "f":
        raise RunError(f"{name!r} is no array of floats.")
    if dataset.chunks or dataset.external or dataset.is_virtual or dataset.nbytes > size:
        raise RunError(f"{name!r} is compressed or lies elsewhere.", "Keras writes plain arrays.")
    return np.asarray(dataset[()], np.float32)


def read_layers(described: Any, arrays: Arrays, most: int) -> LayerList:
    """Read the layers of a Sequential or Functional network, which must stand in one row."""
    steps = list(_steps(described))
    if len(steps) > 4 * MAX_LAYERS:
        raise RunError(f"It has {len(steps):,} layers.")
    shapes = (config.get("batch_shape", config.get("batch_input_shape")) for _, config in steps)
    shape = next((one for one in shapes if isinstance(one, list)), [])
    square = len(shape) == 4 and shape[1] == shape[2] and isinstance(shape[1], int)
    layers = LayerList(shape[1] if square else None, most)
    pad = 0  # zeros around the maps, of a layer of its own
    for kind, config in steps:
        name = str(config.get("name", kind))
        if config.get("data_format", "channels_last") != "channels_last":
            raise RunError(f"{name!r} has its channels first.", "Expected channels_last.")
        if kind == "ZeroPadding2D":
            pad = _one(name, config["padding"])
            continue
        if kind not in _READERS:
            raise RunError(
                f"Its layer {name!r} is a {kind[:40]}.", f"Expected only {', '.join(_READERS)}."
            )
        if pad and kind != "Conv2D":
            raise RunError(f"{name!r} comes behind zeros.", "Expected a convolution there.")
        found = arrays(name, kind) if kind in ("Conv2D", "Dense") else {}
        _READERS[kind](layers, name, config | {"zeros": pad, "kind": kind}, found)
        pad = 0
    return layers


def _name(described: Any) -> str:
    config = described.get("config") if isinstance(described, dict) else None
    return str(config.get("name", ""))[:80] if isinstance(config, dict) else ""


def _steps(described: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the class and the settings of each layer, first to last."""
    config = described["config"]
    inside = config if isinstance(config, list) else config["layers"]
    before = ""
    for layer in inside:
        name = layer.get("name", layer["config"].get("name", ""))
        takes = {*_find_names(layer.get("inbound_nodes", []))}
        if takes and takes != {before}:
            raise RunError(
                f"Its layer {name!r} takes {', '.join(sorted(takes))}.", "Expected one row."
            )
        before = name
        yield str(layer["class_name"]), dict(layer["config"])


def _find_names(nodes: Any) -> Iterator[str]:
    """Yield the layers that a layer takes: each is written ``[name, 0, 0]``, in any version."""
    if isinstance(nodes, dict):
        nodes = list(nodes.values())
    if not isinstance(nodes, list):
        return
    if len(nodes) >= 3 and isinstance(nodes[0], str) and isinstance(nodes[1], int):
        yield nodes[0]
        return
    for node in nodes:
        yield from _find_names(node)


def _one(name: str, told: Any) -> int:
    """Return a size that is the same in both directions and, for zeros, on both sides."""
    found = {*np.ravel(told).tolist()}
    if len(found) != 1 or not isinstance(size := found.pop(), int):
        raise RunError(f"{name!r} has sizes of {str(told)[:60]}.", "Expected them alike.")
    return size


def _padding(config: Mapping[str, Any]) -> Padding:
    told = str(config.get("padding", "valid")).upper()
    if told not in ("SAME", "VALID"):
        raise RunError(f"{config.get('name')!r} is padded by {told[:20]!r}.")
    return told  # type: ignore[return-value]


def _conv(layers: LayerList, name: str, config: Any, arrays: Mapping[str, Any]) -> None:
    if _one(name, config.get("dilation_rate", 1)) != 1:
        raise RunError(f"{name!r} has holes in its windows.")
    stride, groups = _one(name, config.get("strides", 1)), int(config.get("groups", 1))
    layers.add_convolution(
        name, *_weights(name, arrays), stride, _padding(config), groups, config["zeros"]
    )
    layers.add_activation(name, config.get("activation"))


def _dense(layers: LayerList, name: str, config: Any, arrays: Mapping[str, Any]) -> None:
    layers.add_dense(name, *_weights(name, arrays))
    layers.add_activation(name, config.get("activation"))


def _weights(
    name: str, arrays: Mapping[str, NDArray[Any]]
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    if "kernel" not in arrays or not {*arrays} <= {"kernel", "bias"}:
        raise RunError(f"{name!r} has the arrays {', '.join(arrays)}.", "Expected kernel, bias.")
    return arrays["kernel"], arrays.get("bias")


def _pool(layers: LayerList, name: str, config: Any, arrays: object) -> None:
    window = _one(name, config["pool_size"])
    stride = _one(name, config.get("strides") or window)
    average = config["kind"] == "AveragePooling2D"
    kind: Literal["max", "average"] = "average" if average else "max"
    layers.add_pool(name, window, stride, _padding(config), kind)


def _relu(layers: LayerList, name: str, config: Any, arrays: object) -> None:
    if any(config.get(one) for one in ("max_value", "negative_slope", "threshold")):
        raise RunError(f"{name!r} is another ReLU.", "Expected a slope of 0 below 0, 1 above.")
    layers.add_activation(name, "relu")


_READERS: dict[str, Callable[[LayerList, str, Any, Any], None]] = {
    "Conv2D": _conv,
    "Dense": _dense,
    "MaxPooling2D": _pool,
    "AveragePooling2D": _pool,
    "ReLU": _relu,
    "Activation": lambda layers, name, config, _: layers.add_activation(name, config["activation"]),
    "Dropout": lambda layers, name, config, _: layers.add_dropout(name, float(config["rate"])),
    "Flatten": lambda layers, name, config, _: layers.flatten(),
    **dict.fromkeys(("InputLayer", "Softmax"), lambda layers, name, config, _: None),
}
