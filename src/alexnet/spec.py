"""What a network is, as pure data: its layers, their sizes, and the arithmetic of the paper.

Nothing here computes with images: a `Spec` counts its own shapes, parameters, neurons and
multiplications without loading any numerical library. `network.build` turns one into a module.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from alexnet.config import require, require_choices, require_whole
from alexnet.errors import ConfigError, did_you_mean

ConvStage = Literal["activation", "norm", "within_channel_lrn", "pool"]
DEFAULT_ORDER: tuple[ConvStage, ...] = ("activation", "norm", "within_channel_lrn", "pool")
MAX_CHANNELS = 1 << 20  # of a layer; also its units, or classes
MAX_LENGTH = 4096  # on a side: of an image, a window, a stride
MAX_PARAMETERS = 10**10  # 40 GB of float32
# What follows a layer is called by the layer's number, so every layer has one of its own.
LAYER_NAME = re.compile(
    r"(?!(?:relu|tanh|norm|pool|drop|pad|within_channel_lrn)\d)[A-Za-z_]+([0-9]+)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LRN:
    """Local response normalisation across maps (section 3.3).

    ``b = a / (k + alpha / size * sum(a**2 over the window)) ** beta``. The coefficient is
    divided by the window size, as in PyTorch, Caffe, ONNX and the 2012 source. The paper prints
    the sum without that division, so its formula read to the letter is ``alpha=5e-4``;
    the 2012 run used ``1e-4`` (facts 2).
    """

    size: int = 5  # n, maps in the window
    alpha: float = 5e-4  # the paper's alpha 1e-4, times n = 5: see above
    beta: float = 0.75
    k: float = 2.0
    span: Literal["tower", "layer"] = "tower"  # the window stays in a tower, or crosses them

    def __post_init__(self) -> None:
        require_whole(self, ["size"], 1, MAX_CHANNELS)
        require(self, ("alpha", "beta", "k"), "a number")
        require_choices(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class WithinChannelLRN:
    """Normalisation over a square of one map; in the 2012 source, not in the paper (facts 1a).

    ``b = a * (k + alpha / size**2 * sum(a**2 over the square)) ** -beta``.
    """

    size: int = 5  # pixels on a side
    alpha: float = 1e-3
    beta: float = 0.75
    k: float = 1.0

    def __post_init__(self) -> None:
        require(self, ["size"], "odd, 1 to 4095", lambda n: n % 2 == 1 and 1 <= n < MAX_LENGTH)
        require(self, ("alpha", "beta", "k"), "a number")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """Pooling; it overlaps where the window is wider than the stride (section 3.4)."""

    kernel_size: int = 3
    stride: int = 2
    kind: Literal["max", "average"] = "max"
    ceil_mode: bool = False  # count the positions with ceil, as cuda-convnet did (facts 1c)

    def __post_init__(self) -> None:
        require_whole(self, ("kernel_size", "stride"), 1, MAX_LENGTH)
        require_choices(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Conv:
    """A convolution and what follows it, in the order given by `order`."""

    name: str  # the paper's: conv1 ... conv5
    out_channels: int  # over both towers
    kernel_size: int
    stride: int = 1
    padding: int = 0
    asymmetric_padding: int = 0  # zeros past the right and bottom edge alone (facts 1c)
    grouped: bool = False  # True: sees the channels of its own tower alone
    locally_connected: bool = False  # True: every position has its own weights (facts 6)
    std: float | None = 0.01  # of the normal initial weights; None: PyTorch's default draw
    bias: float | None = 0.0  # initial; None: PyTorch's default draw
    norm: LRN | None = None
    within_channel_lrn: WithinChannelLRN | None = None
    pool: Pool | None = None
    order: tuple[ConvStage, ...] = DEFAULT_ORDER

    def __post_init__(self) -> None:
        layer_number(self.name)
        require_whole(self, ["out_channels"], 1, MAX_CHANNELS)
        require_whole(self, ("kernel_size", "stride"), 1, MAX_LENGTH)
        require_whole(self, ("padding", "asymmetric_padding"), 0, MAX_LENGTH)
        _check_initial(self, "std", "bias")
        steps: tuple[tuple[ConvStage, object], ...] = (
            ("activation", True),
            ("norm", self.norm),
            ("within_channel_lrn", self.within_channel_lrn),
            ("pool", self.pool),
        )
        for step, present in steps:
            if self.order.count(step) > 1 or (present and step not in self.order):
                raise ConfigError(f"The order of {self.name} should have {step!r} once.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Dense:
    """A hidden fully-connected layer; an activation, and dropout if the spec has it, follow."""

    name: str  # the paper's: fc6, fc7
    units: int
    std: float | None = 0.01
    bias: float | None = 1.0  # section 5: ones keep the ReLUs alive early on

    def __post_init__(self) -> None:
        layer_number(self.name)
        require_whole(self, ["units"], 1, MAX_CHANNELS)
        _check_initial(self, "std", "bias")


@dataclass(frozen=True, kw_only=True, slots=True)
class DropoutSpec:
    """Dropout of the hidden fully-connected layers (section 4.2)."""

    rate: float = 0.5  # share of units set to zero in training; 0 turns it off
    form: Literal["2012", "inverted"] = "2012"  # outputs times 1 - rate at test, or / in training
    place: Literal["outputs", "inputs"] = "outputs"  # torchvision drops the inputs (facts 1d)

    def __post_init__(self) -> None:
        require(self, ["rate"], "at least 0 and below 1", lambda number: 0 <= number < 1)
        require_choices(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelFormat:
    """What the network expects of its pixels: ``(value * scale - mean) / stdev``, per channel."""

    channel_order: Literal["RGB", "BGR"] = "RGB"
    scale: float = 1.0  # applied to 0-255
    mean: Literal["image", "channel"] | tuple[float, float, float] = "image"  # of the training set
    stdev: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        require(self, ("scale", "stdev"), "above 0", lambda number: number > 0)
        require_choices(self)
        if isinstance(self.mean, tuple):
            require(self, ["mean"], "three numbers")


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One line of a network's arithmetic, as `Spec.layers` counts it."""

    name: str
    kind: Literal["input", "conv", "pool", "dense"]
    channels: int  # or units
    size: int  # pixels on a side; 1 for a fully-connected layer
    parameters: int = 0
    macs: int = 0  # multiply-accumulate operations for one image
    arithmetic: str = ""  # how the parameters were counted, written out

    @property
    def shape(self) -> tuple[int, ...]:
        """What comes out for one image: (channels, size, size), or (units,)."""
        return (self.channels,) if self.kind == "dense" else (self.channels, self.size, self.size)

    @property
    def outputs(self) -> int:
        """Numbers that come out: the neurons of the paper where the layer has weights."""
        return self.channels * self.size**2


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    """A network of the AlexNet family.

    A layer without output, or a size that does not divide between the towers, is a `ConfigError`.
    """

    name: str
    convs: tuple[Conv, ...]
    dense: tuple[Dense, ...]
    image_size: int = 227  # pixels on a side; the paper prints 224 (facts 1c)
    in_channels: int = 3
    num_classes: int = 1000  # 0: no last layer; what it would see is the output
    towers: Literal[1, 2] = 1
    activation: Literal["relu", "tanh"] = "relu"
    dropout: DropoutSpec = DropoutSpec()
    pixels: PixelFormat = PixelFormat()
    output_name: str = "fc8"
    output_std: float | None = 0.01
    output_bias: float | None = 0.0

    def __post_init__(self) -> None:
        require_choices(self)
        require_whole(self, ["image_size"], 1, MAX_LENGTH)
        require_whole(self, ["in_channels"], 1, MAX_CHANNELS)
        require_whole(self, ["num_classes"], 0, MAX_CHANNELS)  # 0 leaves the last layer out
        _check_initial(self, "output_std", "output_bias")
        if not self.convs:
            raise ConfigError("A network needs at least one convolution.")
        named: dict[str, str] = {}  # by number
        for name in (*(layer.name for layer in self._weighted()), self.output_name):
            if (number := layer_number(name)) in named:
                raise ConfigError(
                    f"The layers {named[number]!r} and {name!r} have the same number.",
                    "Give each its own: what follows a layer is called by it, as relu6 after fc6.",
                )
            named[number] = name
        channels = self.in_channels
        for conv in self.convs:
            if conv.out_channels % self.towers or channels % self.groups(conv):
                raise ConfigError(
                    f"{conv.name} makes {conv.out_channels} maps of {channels}, which two towers "
                    "cannot share."
                )
            channels = conv.out_channels
        self._check_sizes()
        if self.parameters > MAX_PARAMETERS:
            raise ConfigError(
                f"Network {self.name!r} would have {self.parameters:,} parameters.",
                f"Make it smaller: at most {MAX_PARAMETERS:,} are built.",
            )

    def groups(self, conv: Conv) -> int:
        """Return how many groups the convolution's input maps are split into: 1 or `towers`."""
        return self.towers if conv.grouped else 1

    def layers(self) -> Iterator[Layer]:
        """Yield the input and every layer with an output size of its own, first to last."""
        return self._layers(self.image_size)

    def _layers(self, image: int) -> Iterator[Layer]:
        maps, size = self.in_channels, image
        yield Layer(name="input", kind="input", channels=maps, size=size)
        for conv in self.convs:
            layer = self._conv(conv, maps, size)
            yield layer
            maps, size = layer.channels, layer.size
            if pool := conv.pool:
                size = positions(size, pool.kernel_size, pool.stride, ceil=pool.ceil_mode)
                yield Layer(name=pool_name(conv), kind="pool", channels=maps, size=size)
        inputs, written = maps * size**2, f"({size}x{size}x{maps})"
        ends = [(dense.name, dense.units) for dense in self.dense]
        for name, units in (*ends, (self.output_name, self.num_classes)):
            yield Layer(
                name=name,
                kind="dense",
                channels=units,
                size=1,
                parameters=inputs * units + units,
                macs=inputs * units,
                arithmetic=f"{written}x{units}+{units}",
            )
            inputs, written = units, str(units)

    def _conv(self, conv: Conv, maps: int, size: int) -> Layer:
        sees = maps // self.groups(conv)
        reach = size + 2 * conv.padding + conv.asymmetric_padding
        out = positions(reach, conv.kernel_size, conv.stride)
        window = conv.kernel_size**2 * sees
        copies = 1 if not conv.locally_connected else out**2
        filters = (
            f"({conv.kernel_size}x{conv.kernel_size}x{sees})"
            f"x{conv.out_channels}+{conv.out_channels}"
        )
        return Layer(
            name=conv.name,
            kind="conv",
            channels=conv.out_channels,
            size=out,
            parameters=copies * (window + 1) * conv.out_channels,
            macs=out**2 * window * conv.out_channels,
            arithmetic=filters if not conv.locally_connected else f"({filters})x{out}x{out}",
        )

    def _check_sizes(self) -> None:
        empty = next((layer.name for layer in self.layers() if layer.size < 1), None)
        if empty is None:
            return
        fits = (
            image
            for image in range(self.image_size + 1, 1024)
            if all(layer.size for layer in self._layers(image))
        )
        raise ConfigError(
            f"Network {self.name!r} cannot take {self.image_size}-pixel images: nothing would be "
            f"left for {empty}.",
            f"The smallest it takes is {next(fits, 'above 1024')} pixels.",
        )

    @property
    def parameters(self) -> int:
        """Weights and biases to learn: 60,965,224 for the paper's network (facts 1d)."""
        return sum(layer.parameters for layer in self.layers())

    @property
    def neurons(self) -> int:
        """Outputs of the layers with weights, the input not counted: 659,272 for the paper's."""
        return sum(layer.outputs for layer in self.layers() if layer.kind in ("conv", "dense"))

    @property
    def inputs(self) -> int:
        """Numbers in one image: 154,587 for 227x227x3."""
        return self.in_channels * self.image_size**2

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations for one image, forward."""
        return sum(layer.macs for layer in self.layers())

    @property
    def flat(self) -> tuple[int, int]:
        """Maps and side of what the first fully-connected layer sees: (256, 6) for the paper's."""
        last = [layer for layer in self.layers() if layer.kind in ("conv", "pool")][-1]
        return last.channels, last.size

    def layer(self, name: str) -> Conv | Dense:
        """Return the convolution or hidden layer called `name`; `ConfigError` if there is none."""
        for layer in self._weighted():
            if layer.name == name:
                return layer
        names = [layer.name for layer in self._weighted()]
        raise ConfigError(f"{self.name!r} has no layer {name!r}.", did_you_mean(name, names))

    def frozen(self, *names: str) -> tuple[str, ...]:
        """Return the layers that names and ranges stand for, first to last.

        ``conv1-conv5`` is every layer with weights from conv1 to conv5. A name without a layer, a
        range that ends before it begins, or all layers are a `ConfigError`.
        """
        known = [*(layer.name for layer in self._weighted()), self.output_name]
        chosen: set[str] = set()
        for name in names:
            ends = name.split("-")
            for end in ends:
                if end not in known:
                    raise ConfigError(
                        f"{self.name!r} has no layer {end!r}.", did_you_mean(end, known)
                    )
            first, last = known.index(ends[0]), known.index(ends[-1])
            if len(ends) > 2 or last < first:
                raise ConfigError(f"{name!r} is no range of layers.", "Write it like conv1-conv5.")
            chosen.update(known[first : last + 1])
        if len(chosen) == len(known):
            raise ConfigError("Every layer is frozen: there is nothing to learn.", "Freeze fewer.")
        return tuple(name for name in known if name in chosen)

    def _weighted(self) -> Iterator[Conv | Dense]:
        yield from self.convs
        yield from self.dense

    def with_layers(self, *names: str, **changes: Any) -> Self:
        """Return a copy in which the named layers have some fields changed."""
        for name in names:
            self.layer(name)
        return replace(
            self,
            convs=tuple(replace(c, **changes) if c.name in names else c for c in self.convs),
            dense=tuple(replace(d, **changes) if d.name in names else d for d in self.dense),
        )


def _check_initial(layer: "Conv | Dense | Spec", std: str, bias: str) -> None:
    """See that the draw of a layer's initial weights can be made."""
    require(layer, [std], "at least 0", lambda number: number >= 0)
    require(layer, [bias], "a number")


def layer_number(name: str) -> str:
    """Return the number that a layer's name ends with."""
    if not (found := LAYER_NAME.fullmatch(name)):
        raise ConfigError(
            f"No layer can be called {name!r}.",
            "Write letters and a number of its own, as in conv1 or fc6.",
        )
    return found[1]


def pool_name(conv: Conv) -> str:
    """Return the name of the pooling after a convolution: pool1 after conv1."""
    return conv.name.replace("conv", "pool") if "conv" in conv.name else f"{conv.name}_pool"


def positions(size: int, window: int, stride: int, *, ceil: bool = False) -> int:
    """Return how many windows fit along a side, 0 where not even one does."""
    if size < window:
        return 0
    return 1 + (math.ceil if ceil else math.floor)((size - window) / stride)
