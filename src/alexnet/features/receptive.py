"""Which pixels a unit can see: arithmetic on the spec alone."""

from collections.abc import Iterator
from dataclasses import dataclass

from alexnet.errors import ConfigError
from alexnet.features.outputs import chosen
from alexnet.spec import Spec, pool_name

Box = tuple[int, int, int, int]


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
    side: int  # units along a side of the layer's maps; 1 where it is fully connected
    windows: tuple[Window, ...]  # from the pixels to the layer

    def box(self, row: int, column: int) -> Box:
        """Return the pixels a unit can see, ``(left, top, right, bottom)``, the last two past it.

        Pixels of the network's input, inside the image. At every layer, windows are cut where its
        maps end, so that the box is exact at the edges too: what lies in a padding leads nowhere.

        Raises
        ------
        ConfigError
            When there is no such unit.
        """
        if not (0 <= row < self.side and 0 <= column < self.side):
            raise ConfigError(
                f"{self.layer} has no unit in row {row}, column {column}.",
                f"Its maps are {self.side}x{self.side}, counted from 0.",
            )
        left, right = self._span(column)
        top, bottom = self._span(row)
        return left, top, right, bottom

    def box_in(self, prepared: int, row: int, column: int) -> Box:
        """Return the same in a prepared image of some pixels, whose centre is the input."""
        margin = (prepared - self.windows[0].inputs) // 2
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

    Activations and norms across maps see what the layer before them sees; a norm within a map
    (`WithinChannelLRN`) widens it. A fully-connected unit sees the whole image.

    Parameters
    ----------
    spec : Spec
        Any network.
    layer : str
        A name of `layer_names`.

    Raises
    ------
    ConfigError
        When there is no such layer.

    Examples
    --------
    >>> from alexnet.variants import SINGLE
    >>> field = receptive_field(SINGLE, "pool5")
    >>> field.size, field.stride, field.start
    (195, 32, -64)
    >>> field.box(2, 2)
    (0, 0, 195, 195)
    """
    shape = chosen(spec, [layer])[layer]
    windows = tuple(_until(spec, layer))
    size, stride, start = 1, 1, 0
    for window in windows:
        size += (window.size - 1) * stride
        start -= window.padding * stride
        stride *= window.stride
    return ReceptiveField(layer, size, stride, start, shape[-1] if len(shape) > 1 else 1, windows)


def _until(spec: Spec, layer: str) -> Iterator[Window]:
    """Yield the windows from the pixels up to and with a layer, in the spec's order."""
    sizes = {counted.name: counted.size for counted in spec.layers()}
    side = spec.image_size
    for conv in spec.convs:
        number = "".join(filter(str.isdigit, conv.name))
        yield Window(conv.name, conv.kernel_size, conv.stride, conv.padding, side)
        side = sizes[conv.name]
        if layer == conv.name:
            return
        for step in conv.order:
            name = {
                "activation": f"{spec.activation}{number}",
                "norm": f"norm{number}",
                "within_channel_lrn": f"within_channel_lrn{number}",
                "pool": pool_name(conv),
            }[step]
            if step == "pool" and conv.pool:
                yield Window(name, conv.pool.kernel_size, conv.pool.stride, 0, side)
                side = sizes[name]
            elif step == "within_channel_lrn" and conv.within_channel_lrn:
                width = conv.within_channel_lrn.size
                yield Window(name, width, 1, width // 2, side)
            if layer == name:
                return
    yield Window(spec.dense[0].name if spec.dense else spec.output_name, side, 1, 0, side)
