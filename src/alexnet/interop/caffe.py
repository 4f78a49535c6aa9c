"""Caffe's ``.caffemodel``, ``.prototxt`` and mean ``.binaryproto`` -> spec and weights.

Everything is decided by the layers in the file: groups, the order of norm and pool, k, strides.
Caffe's networks see BGR of 0-255 less a mean; so does the imported one, its first filters as they
are in the file.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from alexnet import spec
from alexnet.errors import RunError
from alexnet.interop.assembly import network_of
from alexnet.interop.caffe_schema import BLOB, NET, TYPES, WORDS
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
from alexnet.interop.protobuf import FormatError, Message, decode, numbers, one, parse_text
from alexnet.spec import PixelFormat

SOURCES = {"Data", "ImageData", "WindowData", "MemoryData", "HDF5Data", "DummyData", "Input"}
PASSED_OVER = SOURCES | {"Split", "Silence", "Flatten", "Accuracy", "Softmax", "SoftmaxWithLoss"}
TRAIN = 0  # of a rule's phase
# The mean of Caffe's own imagenet_mean.binaryproto over its pixels, BGR: what Caffe's examples
# subtract where they have no mean file.
IMAGENET_MEAN = (104.00698793, 116.66876762, 122.67891434)


@dataclass(frozen=True, slots=True)
class Net:
    """A network as a ``.caffemodel`` or a ``.prototxt`` has it."""

    name: str
    layers: tuple[Message, ...]  # of the newest form
    image: int | None  # side of its input, if it says so
    transform: Message


def read_caffemodel(path: Path, prototxt: Path | None = None) -> Imported:
    """Read a network and its weights.

    Parameters
    ----------
    path : Path
        A ``.caffemodel``.
    prototxt : Path, optional
        A description of the layers that takes the place of the one in the file; the weights go
        to it by the layers' names, as in Caffe.

    Raises
    ------
    RunError
        When a file is damaged, or its network is none of AlexNet's family.
    """
    data = file_bytes(path)
    net = _net(decode(data, NET))
    if prototxt is not None:
        net = _described(net, read_prototxt(prototxt))
    scale = float(one(net.transform, "scale", 1.0))
    colour, said = _mean_colour(net)
    pixels = PixelFormat(channel_order="BGR", scale=scale)
    network, weights = network_of(gather(_layers(net), 2 * len(data)), pixels, net.image)
    where = "says the file" if net.image else "the side that its first fully-connected layer fits"
    return Imported(
        spec=network,
        weights=weights,
        mean=MeanColour(colour, said),
        found=(
            f"Caffe network {net.name!r}, {len(net.layers)} layers",
            f"input of {network.image_size} pixels: {where}",
        ),
    )


def read_prototxt(path: Path) -> Net:
    """Read a network's description in text.

    Raises
    ------
    RunError
        When it is no such text.
    """
    text = file_bytes(path, most=1 << 20).decode("utf-8", "replace")
    try:
        return _net(parse_text(text, NET, WORDS))
    except FormatError as error:
        raise RunError(f"The description {str(path)!r} cannot be read: {error}.") from None


def read_binaryproto(path: Path) -> NDArray[np.float32]:
    """Read a mean image, ``(3, H, W)`` in the order of the file: BGR, 0-255.

    Raises
    ------
    RunError
        When it is none.
    """
    blob = decode(file_bytes(path, most=1 << 28), BLOB)
    values = _blob(blob, path.name)
    mean = values.reshape(values.shape[-3:]) if values.ndim > 3 else values
    if mean.ndim != 3:
        raise RunError(f"It is an array of {values.shape}.", "Expected (1, 3, side, side).")
    return mean


def _net(message: Message) -> Net:
    layers = list(message.get("layer", []))
    for layer in message.get("layers", []):
        if "layer" in layer:
            raise RunError(
                "It is written in Caffe's first form, with layers in layers.",
                "Caffe's upgrade_net_proto_binary makes a newer one of it.",
            )
        kind = one(layer, "type", 0)
        layers.append(layer | {"type": [TYPES.get(kind, f"number {kind}")]})
    if not layers:
        raise RunError("It has no layers.", "Name a .caffemodel.")
    shape = [one(shape, "dim", 0) for shape in message.get("input_shape", [])]
    shape = shape or list(message.get("input_dim", []))[3:4]
    transform: Message = {}
    for layer in layers:
        if one(layer, "type") in SOURCES:
            for inner in one(layer, "input_param", {}).get("shape", []):
                shape = [one(inner, "dim", 0)]
            # the older form kept in data_param what is now in transform_param
            transform = one(layer, "data_param", {}) | one(layer, "transform_param", {}) | transform
    crop = one(transform, "crop_size", 0)
    image = int(shape[0] if shape else crop)
    if not 0 <= image <= LARGEST_IMAGE:
        raise RunError(f"Its images are said to be of {image} pixels.")
    return Net(str(one(message, "name", "")), tuple(layers), image or None, transform)


def _described(net: Net, description: Net) -> Net:
    """Give the layers of a description the weights of a file, by name."""
    blobs = {one(layer, "name"): layer["blobs"] for layer in net.layers if layer.get("blobs")}
    layers = tuple(
        layer | {"blobs": blobs.get(one(layer, "name"), [])} for layer in description.layers
    )
    return replace(
        description,
        name=description.name or net.name,
        layers=layers,
        transform=description.transform or net.transform,
    )


def _mean_colour(net: Net) -> tuple[tuple[float, ...], str]:
    """Return the mean that is subtracted where no mean file is given, BGR."""
    told = numbers(net.transform, "mean_value").tolist()[:3]
    if len(told) in (1, 3):
        return tuple(told * (3 // len(told))), "mean colour of the file"
    file = Path(str(one(net.transform, "mean_file", ""))).name
    asked = f"; the file asks for {file!r}, give it with --mean" if file else ""
    return IMAGENET_MEAN, f"mean colour of ImageNet, as no mean file was given{asked}"


def _layers(net: Net) -> Iterator[Layer]:
    """Yield the layers on the way from the data to the logits, seeing that it is one way."""
    current: str | None = None
    for layer in net.layers:
        kind, name = str(one(layer, "type", "")), str(one(layer, "name", ""))
        if any(one(rule, "phase") == TRAIN for rule in layer.get("include", [])):
            continue
        if kind in PASSED_OVER:
            if kind in ("Split", "Flatten") and one(layer, "bottom") == current:
                current = layer.get("top", [current])[0]
            continue
        if kind not in _READERS:
            raise RunError(
                f"The layer {name!r} is of type {kind!r}.",
                f"Expected only {', '.join(_READERS)}.",
            )
        bottom, top = one(layer, "bottom"), one(layer, "top")
        if current is not None and bottom != current and not _alike(bottom, current):
            raise RunError(
                f"The layer {name!r} takes {bottom!r}, the one before makes {current!r}.",
                "AlexNet's layers stand in one row.",
            )
        current = top
        yield _READERS[kind](layer, name)


def _alike(name: object, current: str) -> bool:
    """Whether a blob is a copy of another that Caffe itself put in for a second reader."""
    return str(name).startswith(f"{current}_") and "_split_" in str(name)


def _convolution(layer: Message, name: str) -> Convolution:
    settings = one(layer, "convolution_param", {})
    weight, bias = _weights(layer, name)
    kernel = _side(settings, "kernel_size", "kernel", name, 0)
    stride, pad = _side(settings, "stride", "stride", name, 1), _side(settings, "pad", "pad", name)
    if one(settings, "dilation", 1) != 1:
        raise RunError(f"{name!r} has a dilation of {one(settings, 'dilation')}.", "Expected 1.")
    maps, groups = one(settings, "num_output", 0), one(settings, "group", 1)
    if weight.ndim != 4 or weight.shape[0] != maps or weight.shape[2:] != (kernel, kernel):
        raise RunError(
            f"{name!r} has weights of {weight.shape}; its settings say {maps} maps of "
            f"{kernel}x{kernel}."
        )
    return Convolution(name, weight, bias, stride, (pad, pad), groups)


def _inner_product(layer: Message, name: str) -> FullyConnected:
    settings = one(layer, "inner_product_param", {})
    if one(settings, "axis", 1) != 1 or one(settings, "transpose", 0):
        raise RunError(
            f"{name!r} multiplies along another axis, or transposed.", "Expected axis 1."
        )
    weight, bias = _weights(layer, name)
    weight = weight.reshape(weight.shape[-2:]) if weight.ndim == 4 else weight
    if weight.ndim != 2 or weight.shape[0] != one(settings, "num_output", 0):
        units = one(settings, "num_output", 0)
        raise RunError(f"{name!r} has weights of {weight.shape}; its settings say {units} units.")
    return FullyConnected(name, weight, bias)


def _pooling(layer: Message, name: str) -> Pooling:
    settings = one(layer, "pooling_param", {})
    kinds: dict[int, Literal["max", "average"]] = {0: "max", 1: "average"}
    kind = kinds.get(one(settings, "pool", 0))
    window = _side(settings, "kernel_size", "kernel", name, 0)
    stride = _side(settings, "stride", "stride", name, 1)
    pad = _side(settings, "pad", "pad", name)
    if kind is None or pad or one(settings, "global_pooling", 0) or min(window, stride) < 1:
        raise RunError(
            f"The pool {name!r} is global, random, padded or of no size.",
            "Expected windows inside the map, their maximum or average.",
        )
    return Pooling(name, window, stride, kind, ceil=not one(settings, "round_mode", 0))


def _lrn(layer: Message, name: str) -> Normalisation:
    settings = one(layer, "lrn_param", {})
    size = one(settings, "local_size", 5)
    alpha = plain(one(settings, "alpha", 1.0))
    beta, k = plain(one(settings, "beta", 0.75)), plain(one(settings, "k", 1.0))
    if not 1 <= size <= 1000 or size % 2 == 0 or not all(map(math.isfinite, (alpha, beta, k))):
        raise RunError(f"The norm {name!r} has a window of {size}.", "Expected an odd one.")
    if one(settings, "norm_region", 0) == 1:
        # Caffe adds 1, whatever k is, within a map
        return Normalisation(name, spec.WithinChannelLRN(size=size, alpha=alpha, beta=beta))
    return Normalisation(name, spec.LRN(size=size, alpha=alpha, beta=beta, k=k))


def _relu(layer: Message, name: str) -> Activation:
    if one(one(layer, "relu_param", {}), "negative_slope", 0.0):
        raise RunError(f"{name!r} is a leaky ReLU.", "Expected a slope of 0 below 0.")
    return Activation(name)


def _dropout(layer: Message, name: str) -> Drop:
    rate = plain(one(one(layer, "dropout_param", {}), "dropout_ratio", 0.5))
    return Drop(name, spec.Dropout(rate=rate, form="inverted"))


_READERS: dict[str, Callable[[Message, str], Layer]] = {
    "Convolution": _convolution,
    "ReLU": _relu,
    "TanH": lambda layer, name: Activation(name, "tanh"),
    "LRN": _lrn,
    "Pooling": _pooling,
    "InnerProduct": _inner_product,
    "Dropout": _dropout,
}


def _weights(layer: Message, name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    blobs = layer.get("blobs", [])
    if not 1 <= len(blobs) <= 2:
        raise RunError(f"{name!r} has {len(blobs)} arrays of weights.", "Expected weights, biases.")
    weight = _blob(blobs[0], name)
    if len(blobs) == 1:
        return weight, np.zeros(one(_settings(layer), "num_output", 0) % (1 << 24), np.float32)
    return weight, _blob(blobs[1], name).reshape(-1)


def _settings(layer: Message) -> Message:
    found: Message = one(layer, "convolution_param") or one(layer, "inner_product_param", {})
    return found


def _blob(blob: Message, name: str) -> NDArray[np.float32]:
    """Return an array in its shape, which must be that of the numbers that are there."""
    values = numbers(blob, "data" if blob.get("data") else "double_data")
    shape = [int(one(blob, side, 0)) for side in ("num", "channels", "height", "width")]
    if "shape" in blob:
        shape = list(one(blob, "shape").get("dim", []))
    if len(shape) > 8 or min(shape, default=0) < 0 or math.prod(shape) != values.size:
        raise RunError(
            f"{name!r} has {values.size:,} numbers; its shape {tuple(shape)[:8]} wants "
            f"{math.prod(shape):,}."
        )
    return values.reshape(shape)


def _side(settings: Message, name: str, short: str, layer: str, default: int = 0) -> int:
    """Return a size that is the same both ways, however Caffe wrote it down."""
    both = settings.get(f"{short}_h", []) + settings.get(f"{short}_w", [])
    found = set(both or settings.get(name, []) or [default])
    if len(found) != 1 or not 0 <= (size := found.pop()) <= LARGEST_IMAGE:
        raise RunError(f"{layer!r} has a {name} that differs by direction, or has no sense.")
    return int(size)


def plain(value: Any) -> float:
    """Return the number that a person wrote, of the float32 that it became: 1e-4, 0.75."""
    return float(f"{float(value):.7g}")
