"""The named layers of a network: their shapes, and the pixels that their units can see."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from alexnet.errors import ConfigError, did_you_mean
from alexnet.network import AlexNet
from alexnet.old_names import renamed_layer
from alexnet.predictor import Predictor
from alexnet.spec import Spec, layer_number, pool_name

Shape = tuple[int, ...]
UNNAMED = ("pad", "drop", "flatten")  # layers that move or scale numbers that have a name already


def layer_shapes(spec: Spec) -> dict[str, Shape]:
    """Return every named output of a network, first to last, with its shape for one image.

    ``conv1`` is the sum before the activation, ``relu1`` after it, ``norm1`` and ``pool1`` what
    follows, in the spec's order. ``(channels, side, side)``, or ``(units,)`` where layers are fully
    connected.
    """
    shapes: dict[str, Shape] = {layer.name: layer.shape for layer in spec.layers()}
    with torch.device("meta"):  # names alone: no weight is allocated
        names = [name for name, _ in AlexNet(spec).named_children()]
    named: dict[str, Shape] = {}
    shape = shapes["input"]
    for name in names:
        shape = shapes.get(name, shape)  # activations and norms keep it
        if not name.startswith(UNNAMED):
            named[name] = shape
    return named


def layer_names(spec: Spec) -> tuple[str, ...]:
    """Return the names of a network's outputs, first to last: conv1, relu1, norm1, ... fc8."""
    return tuple(layer_shapes(spec))


def last_hidden(spec: Spec) -> str:
    """Return the layer that Figure 4 compares images in: the last but one, after its activation.

    ``relu7`` in the networks of 2012.
    """
    return layer_names(spec)[-2]


def select_layers(spec: Spec, names: Iterable[str]) -> dict[str, Shape]:
    """Return the named layers with their shapes, first to last.

    Raises `ConfigError` when a name is unknown, with the nearest one, or none is given.
    """
    shapes = layer_shapes(spec)
    wanted = set(map(renamed_layer, names))
    for name in sorted(wanted - shapes.keys()):
        raise ConfigError(
            f"Network {spec.name!r} has no layer {name!r}.", did_you_mean(name, shapes)
        )
    if not wanted:
        raise ConfigError("No layer was named.", f"Known: {', '.join(shapes)}.")
    return {name: shape for name, shape in shapes.items() if name in wanted}


def activations(predictor: Predictor, images: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
    """Return what the named layers put out for the centre crops of images.

    ``(N, resize_to, resize_to, 3)`` uint8 RGB, of `Predictor.load_pixels`, to ``(N, *shape)``
    float32 on the processor, by layer, first to last. The network runs in float32 whatever it was
    trained in. Raises `ConfigError` when a name is unknown.
    """
    return predictor.in_float32.activations(images, select_layers(predictor.spec, layers))


@dataclass(frozen=True, slots=True)
class Window:
    """One layer's window along a side: output i sees inputs from ``i * stride - padding`` on."""

    layer: str
    size: int
    stride: int
    padding: int
    inputs: int  # how many there are; what is outside is padding, and no input


@dataclass(frozen=True, slots=True)
class ReceptiveField:
    """The square of pixels that can change a unit of a layer, the same along both sides."""

    layer: str
    size: int  # pixels on a side, those in the padding counted
    stride: int  # pixels between the squares of neighbouring units
    start: int  # first pixel of the square of unit (0, 0); negative in the padding
    side: int  # units along a side of a channel; 1 where the layer is fully connected
    windows: tuple[Window, ...]  # from the pixels to the layer

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """Return the pixels a unit can see, ``(left, top, right, bottom)``, the last two past it.

        Pixels of the network's input, inside the image. At every layer, windows are cut where its
        outputs end, so that the box is exact at the edges too: padding shows no pixel. Raises
        `ConfigError` when there is no such unit.
        """
        if not (0 <= row < self.side and 0 <= column < self.side):
            raise ConfigError(
                f"{self.layer} has no unit in row {row}, column {column}.",
                f"Its maps are {self.side}x{self.side}, counted from 0.",
            )
        (left, right), (top, bottom) = self._span(column), self._span(row)
        return left, top, right, bottom

    def box_in(self, side: int, row: int, column: int) -> tuple[int, int, int, int]:
        """Return the same in a prepared image of a side, whose centre is the input."""
        margin = (side - self.windows[0].inputs) // 2
        left, top, right, bottom = self.box(row, column)
        return margin + left, margin + top, margin + right, margin + bottom

    def _span(self, unit: int) -> tuple[int, int]:
        first, past = unit, unit + 1
        for window in reversed(self.windows):
            first = max(0, first * window.stride - window.padding)
            past = min(window.inputs, (past - 1) * window.stride - window.padding + window.size)
        return first, past


def receptive_field(spec: Spec, layer: str) -> ReceptiveField:
    """Return the receptive field of the units of a layer.

    Activations and norms across channels see what the layer before them sees; a norm within a
    channel (`WithinChannelLRN`) widens it. A fully-connected unit sees the whole image. Raises
    `ConfigError` when there is no such layer.

    Examples
    --------
    >>> from alexnet.variants import SINGLE
    >>> field = receptive_field(SINGLE, "pool5")
    >>> field.size, field.stride, field.start
    (195, 32, -64)
    >>> field.box(2, 2)
    (0, 0, 195, 195)
    """
    shape = select_layers(spec, [layer])[layer]
    windows = tuple(_windows_until(spec, layer))
    size, stride, start = 1, 1, 0
    for window in windows:
        size += (window.size - 1) * stride
        start -= window.padding * stride
        stride *= window.stride
    return ReceptiveField(layer, size, stride, start, shape[-1] if len(shape) > 1 else 1, windows)


def _windows_until(spec: Spec, layer: str) -> Iterator[Window]:
    """Yield the windows from the pixels up to and with a layer, in the network's order."""
    known: dict[str, tuple[int, int, int]] = {}  # size, stride and padding
    for conv in spec.convs:
        known[conv.name] = conv.kernel_size, conv.stride, conv.padding
        if conv.pool:
            known[pool_name(conv)] = conv.pool.kernel_size, conv.pool.stride, 0
        if norm := conv.within_channel_lrn:
            number = layer_number(conv.name)
            known[f"within_channel_lrn{number}"] = norm.size, 1, norm.size // 2
    side = spec.image_size
    for name, shape in layer_shapes(spec).items():
        if len(shape) == 1:  # fully connected, and so is all that follows
            yield Window(name, side, 1, 0, side)
            return
        if name in known:
            yield Window(name, *known[name], side)
        if name == layer:
            return
        side = shape[-1]
