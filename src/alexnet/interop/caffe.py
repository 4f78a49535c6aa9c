"""Caffe's ``.caffemodel``, ``.prototxt`` and mean ``.binaryproto`` -> spec and weights.

Everything is decided by the layers in the file: groups, the order of norm and pool, k, strides.
Caffe's networks see BGR of 0-255 less a mean; so does the imported one, its first filters as they
are in the file.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from alexnet.bounds import MAX_MEAN, MAX_TEXT, check_message, check_shape, read_bytes
from alexnet.errors import MissingExtraError, RunError
from alexnet.interop import layer_ir as ir
from alexnet.spec import DropoutSpec, PixelFormat

Message = Any  # of `google.protobuf`, its class made of caffe.proto
SOURCES = {"data", "imagedata", "windowdata", "memorydata", "hdf5data", "dummydata", "input"}
PASSED_OVER = SOURCES | {
    *("split", "silence", "flatten", "accuracy", "softmax", "softmaxwithloss", "softmaxloss"),
}
# The mean of Caffe's own imagenet_mean.binaryproto over its pixels, BGR: what Caffe's examples
# subtract where they have no mean file.
IMAGENET_MEAN = (104.00698793, 116.66876762, 122.67891434)

_FIELD = re.compile(r"(optional|repeated) (\w+) (\w+) = (\d+)(?: \[default = (\S+)\])?;")


@cache
def _schema() -> dict[str, Any]:
    """Return the classes of the messages in caffe.proto."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ModuleNotFoundError:
        raise MissingExtraError("protobuf", "import", "Reading Caffe's files") from None
    text = resources.files("alexnet.interop").joinpath("caffe.proto").read_text()
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe")
    kinds = descriptor_pb2.FieldDescriptorProto
    for kind, name, body in re.findall(r"(message|enum) (\w+) \{(.*?)\}", text, re.DOTALL):
        made = (file.enum_type if kind == "enum" else file.message_type).add(name=name)
        if kind == "enum":
            for word, number in re.findall(r"(\w+) = (\d+);", body):
                made.value.add(name=word, number=int(number))
            continue
        for label, type_, word, number, default in _FIELD.findall(body):
            field = made.field.add(name=word, number=int(number), default_value=default or None)
            field.label = kinds.Label.Value(f"LABEL_{label.upper()}")
            if type_.islower():
                field.type = kinds.Type.Value(f"TYPE_{type_.upper()}")
            else:
                field.type_name = f".caffe.{type_}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = (message.name for message in file.message_type)
    found = {name: pool.FindMessageTypeByName(f"caffe.{name}") for name in names}
    return {name: message_factory.GetMessageClass(one) for name, one in found.items()}


def _parse(data: bytes, name: str) -> Message:
    kind = _schema()[name]
    check_message(data, kind.DESCRIPTOR)
    return kind.FromString(data)


@dataclass(frozen=True, slots=True)
class Net:
    """A network as a ``.caffemodel`` or a ``.prototxt`` has it."""

    name: str
    layers: tuple[Message, ...]
    image: int | None  # side of its input, if it says so
    transform: dict[str, Any]  # what happens to an image before

    @property
    def blobs(self) -> dict[bytes, Any]:
        """The arrays of weights, by the name of their layer."""
        return {layer.name: layer.blobs for layer in self.layers if layer.blobs}


def read_caffemodel(path: Path, prototxt: Path | None = None) -> ir.ImportedNetwork:
    """Read a network and its weights.

    A `prototxt` describes the layers in place of the file itself; the weights go to it by the
    layers' names, as in Caffe.
    """
    data = read_bytes(path)
    net = _read_net(_parse(data, "NetParameter"))
    blobs = net.blobs
    if prototxt is not None:
        described = read_prototxt(prototxt)
        transform = described.transform or net.transform
        net = replace(described, name=described.name or net.name, transform=transform)
    colour, said = _mean_colour(net)
    pixels = PixelFormat(channel_order="BGR", scale=float(net.transform.get("scale", 1.0)))
    layers = ir.gather_layers(_read_layers(net, blobs), 2 * len(data))
    network, weights = ir.assemble_network(layers, pixels, net.image)
    where = "says the file" if net.image else "the side that its first fully-connected layer fits"
    return ir.ImportedNetwork(
        spec=network,
        weights=weights,
        mean=ir.MeanColour(colour, said),
        found=(
            f"Caffe network {net.name!r}, {len(net.layers)} layers",
            f"input of {network.image_size} pixels: {where}",
        ),
    )


def read_prototxt(path: Path) -> Net:
    """Read a network's description in text."""
    message = _schema()["NetParameter"]()
    from google.protobuf import text_format

    text = read_bytes(path, MAX_TEXT).decode("utf-8", "replace")
    try:
        return _read_net(text_format.Parse(text, message, allow_unknown_field=True))
    except text_format.ParseError as error:
        raise RunError(f"The description {str(path)!r} cannot be read: {error}.") from None


def read_binaryproto(path: Path) -> NDArray[np.float32]:
    """Read a mean image, ``(3, H, W)`` in the order of the file: BGR, 0-255."""
    values = _read_blob(_parse(read_bytes(path, MAX_MEAN), "BlobProto"), path.name)
    mean = values.reshape(values.shape[-3:]) if values.ndim > 3 else values
    if mean.ndim != 3:
        raise RunError(f"It is an array of {values.shape}.", "Expected (1, 3, side, side).")
    return mean


def _read_net(message: Message) -> Net:
    if any(layer.HasField("layer") for layer in message.layers):
        raise RunError(
            "It is written in Caffe's first form, with layers in layers.",
            "Caffe's upgrade_net_proto_binary makes a newer one of it.",
        )
    layers = (*message.layer, *message.layers)
    if not layers:
        raise RunError("It has no layers.", "Name a .caffemodel.")
    shapes = [*message.input_shape[:1]]
    transform: dict[str, Any] = {}
    for layer in layers:
        if _kind(layer)[1] in SOURCES:
            shapes = [*layer.input_param.shape[-1:]] if "input_param" in _told(layer) else shapes
            # the older form kept in data_param what is now in transform_param
            transform = _told(layer.data_param) | _told(layer.transform_param) | transform
    sides = [*shapes[0].dim[-1:]] if shapes else message.input_dim[3:4]
    image = int(sides[0] if sides else transform.get("crop_size", 0))
    return Net(_text(message.name), layers, image or None, transform)


def _told(message: Message) -> dict[str, Any]:
    """Return the fields that a message has."""
    return {field.name: value for field, value in message.ListFields()}


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _kind(layer: Message) -> tuple[str, str]:
    """Return a layer's type as the file has it, and as both forms have it: ``innerproduct``."""
    if isinstance(layer.type, bytes):
        name = _text(layer.type)
    else:
        name = (
            type(layer)
            .DESCRIPTOR.fields_by_name["type"]
            .enum_type.values_by_number[layer.type]
            .name
        )
    return name, name.replace("_", "").lower()


def _mean_colour(net: Net) -> tuple[tuple[float, ...], str]:
    """Return the mean that is subtracted where no mean file is given, BGR."""
    told = [float(value) for value in net.transform.get("mean_value", [])][:3]
    if len(told) in (1, 3):
        return tuple(told * (3 // len(told))), "mean colour of the file"
    file = Path(_text(net.transform.get("mean_file", b""))).name
    asked = f"; the file asks for {file!r}, give it with --mean" if file else ""
    return IMAGENET_MEAN, f"mean colour of ImageNet, as no mean file was given{asked}"


def _read_layers(net: Net, blobs: dict[bytes, Any]) -> Iterator[ir.ImportedLayer]:
    """Yield the layers on the way from the data to the logits, seeing that it is one way."""
    current: bytes | None = None
    for layer in net.layers:
        (said, kind), name = _kind(layer), _text(layer.name)
        if any(rule.HasField("phase") and rule.phase == 0 for rule in layer.include):  # TRAIN
            continue
        bottom, top = [*layer.bottom, None][0], [*layer.top, None][0]
        if kind in PASSED_OVER:
            if kind in ("split", "flatten") and bottom == current:
                current = top or current
            continue
        if kind not in _READERS:
            expected = ", ".join(_READERS)
            raise RunError(f"The layer {name!r} is of type {said!r}.", f"Expected only {expected}.")
        # Caffe itself puts copies in where a blob has two readers
        copied = (
            current is not None
            and bottom
            and bottom.startswith(current + b"_")
            and b"_split_" in bottom
        )
        if current is not None and bottom != current and not copied:
            raise RunError(
                f"The layer {name!r} takes {_text(bottom or b'')!r}, the one before makes "
                f"{_text(current)!r}.",
                "AlexNet's layers stand in one row.",
            )
        current = top
        arrays = [_read_blob(blob, name) for blob in blobs.get(layer.name, [])]
        yield _READERS[kind](layer, name, arrays)


def _convolution(layer: Message, name: str, arrays: list[NDArray[np.float32]]) -> ir.Convolution:
    settings = layer.convolution_param
    weight, bias = _weights(name, arrays)
    kernel = _side(settings, "kernel_size", "kernel", name)
    stride, pad = _side(settings, "stride", "stride", name, 1), _side(settings, "pad", "pad", name)
    if dilations := {*settings.dilation} - {1}:
        raise RunError(f"{name!r} has a dilation of {max(dilations)}.", "Expected 1.")
    channels = settings.num_output
    if weight.ndim != 4 or weight.shape[0] != channels or weight.shape[2:] != (kernel, kernel):
        raise RunError(
            f"{name!r} has weights of {weight.shape}; its settings say {channels} maps of "
            f"{kernel}x{kernel}."
        )
    return ir.Convolution(name, weight, bias, stride, (pad, pad), settings.group)


def _inner_product(
    layer: Message, name: str, arrays: list[NDArray[np.float32]]
) -> ir.FullyConnected:
    settings = layer.inner_product_param
    if settings.axis != 1 or settings.transpose:
        raise RunError(
            f"{name!r} multiplies along another axis, or transposed.", "Expected axis 1."
        )
    arrays = [one.reshape(one.shape[-2:]) if one.ndim == 4 else one for one in arrays]
    weight, bias = _weights(name, arrays)
    if weight.ndim != 2 or weight.shape[0] != settings.num_output:
        units = settings.num_output
        raise RunError(f"{name!r} has weights of {weight.shape}; its settings say {units} units.")
    return ir.FullyConnected(name, weight, bias)


def _pooling(layer: Message, name: str, arrays: object) -> ir.Pooling:
    settings = layer.pooling_param
    kinds: dict[int, Literal["max", "average"]] = {0: "max", 1: "average"}
    kind = kinds.get(settings.pool)
    window = _side(settings, "kernel_size", "kernel", name)
    stride = _side(settings, "stride", "stride", name, 1)
    pad = _side(settings, "pad", "pad", name)
    if kind is None or pad or settings.global_pooling:
        raise RunError(
            f"The pool {name!r} is global, random or padded.",
            "Expected windows inside the map, their maximum or average.",
        )
    return ir.Pooling(name, window, stride, kind, ceil_mode=not settings.round_mode)


def _lrn(layer: Message, name: str, arrays: object) -> ir.Normalisation:
    settings = layer.lrn_param
    alpha, beta, k = map(ir.round_float32, (settings.alpha, settings.beta, settings.k))
    within = settings.norm_region == 1
    # Caffe adds 1, whatever k is, within a channel
    return ir.make_norm(
        name, settings.local_size, alpha, beta, 1.0 if within else k, within_channel=within
    )


def _relu(layer: Message, name: str, arrays: object) -> ir.Activation:
    if layer.relu_param.negative_slope:
        raise RunError(f"{name!r} is a leaky ReLU.", "Expected a slope of 0 below 0.")
    return ir.Activation(name)


def _dropout(layer: Message, name: str, arrays: object) -> ir.Drop:
    rate = ir.round_float32(layer.dropout_param.dropout_ratio)
    return ir.Drop(name, DropoutSpec(rate=rate, form="inverted"))


_READERS: dict[str, Callable[[Message, str, list[NDArray[np.float32]]], ir.ImportedLayer]] = {
    "convolution": _convolution,
    "relu": _relu,
    "tanh": lambda layer, name, arrays: ir.Activation(name, "tanh"),
    "lrn": _lrn,
    "pooling": _pooling,
    "innerproduct": _inner_product,
    "dropout": _dropout,
}


def _weights(name: str, arrays: list[NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a layer's weights and biases, which are zeros where it has none."""
    if not 1 <= len(arrays) <= 2:
        raise RunError(
            f"{name!r} has {len(arrays)} arrays of weights.", "Expected weights, biases."
        )
    weight, *bias = arrays
    return weight, bias[0].reshape(-1) if bias else np.zeros(weight.shape[:1], np.float32)


def _read_blob(blob: Message, name: str) -> NDArray[np.float32]:
    """Return an array in its shape, which must be that of the numbers that are there."""
    values = np.array(blob.data or blob.double_data, np.float32)
    shape = [blob.num, blob.channels, blob.height, blob.width]
    shape = [*blob.shape.dim] if blob.HasField("shape") else shape
    check_shape(name, shape, values.size)
    return values.reshape(shape)


def _side(settings: Message, name: str, short: str, layer: str, default: int = 0) -> int:
    """Return a size that is the same both ways, however Caffe wrote it down."""
    told = _told(settings)
    both = [told[f"{short}_{axis}"] for axis in "hw" if f"{short}_{axis}" in told]
    found = {*np.ravel(both or told.get(name, default)).tolist()}
    if len(found) != 1:
        raise RunError(f"{layer!r} has a {name} that differs by direction, or has no sense.")
    return int(found.pop())
