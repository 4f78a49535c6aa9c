"""A network as any file lists it, one layer after the other -> a spec, and weights by its names.

The formats differ in how they write their layers down, not in what the layers are. Each reader
makes a list of the layers below. What AlexNet's family has no place for is refused here, for every
kind of file, with the layer, its shape and what was expected.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.bounds import MAX_IMAGE, MAX_LAYERS
from alexnet.config import differences
from alexnet.errors import ConfigError, RunError
from alexnet.spec import (
    DEFAULT_ORDER,
    LRN,
    Conv,
    ConvStage,
    Dense,
    DropoutSpec,
    PixelFormat,
    Pool,
    Spec,
    WithinChannelLRN,
    positions,
)
from alexnet.variants import NETWORKS

USUAL_IMAGES = (227, 224)  # without zeros around conv1's image, and with (facts 1c)
# What may differ from a named network that is still recognised as that one.
IGNORED = ("name", "num_classes", "pixels", "dropout", "output_std", "output_bias")


@dataclass(frozen=True, slots=True)
class Convolution:
    """Filters ``(filters, inputs / groups, side, side)``, a bias a filter, and how they move."""

    name: str
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    stride: int = 1
    padding: tuple[int, int] = (0, 0)  # zeros before (top and left), and after
    groups: int = 1

    def __post_init__(self) -> None:
        _check_sizes(self.name, self.stride, *self.padding)


@dataclass(frozen=True, slots=True)
class FullyConnected:
    """Weights ``(units, inputs)``, the inputs ordered by channel, row and column."""

    name: str
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Activation:
    """A nonlinearity, of each number."""

    name: str
    kind: Literal["relu", "tanh"] = "relu"


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Local response normalisation, across channels, all or each of two halves, or within one."""

    name: str
    norm: LRN | WithinChannelLRN
    parts: int = 1


@dataclass(frozen=True, slots=True)
class Pooling:
    """Pooling; where the last window reaches over the edge, what is outside is not counted."""

    name: str
    kernel_size: int
    stride: int
    kind: Literal["max", "average"] = "max"
    ceil_mode: bool = False
    padding_after: int = 0  # rows and columns added at the end alone

    def __post_init__(self) -> None:
        _check_sizes(self.name, min(self.kernel_size, self.stride), self.padding_after)
        _check_sizes(self.name, max(self.kernel_size, self.stride))


@dataclass(frozen=True, slots=True)
class Drop:
    """Dropout."""

    name: str
    dropout: DropoutSpec = field(default_factory=lambda: DropoutSpec(form="inverted"))


@dataclass(frozen=True, slots=True)
class MeanColour:
    """A mean of 0-255, in the order of the network's channels, and where it is from."""

    values: tuple[float, ...]
    origin: str


@dataclass(frozen=True, slots=True)
class ImportedNetwork:
    """What a reader makes of a file."""

    spec: Spec  # whose pixels say the order of channels, the scale, and what else is known
    weights: dict[str, Tensor]
    found: tuple[str, ...]  # what the file was seen to be, in words
    mean: MeanColour | None = None  # None: the spec has it
    mean_image: NDArray[np.float32] | None = None  # (3, side, side), as `mean`
    classes: tuple[str, ...] | None = None
    resize_to: int | None = None  # side of the images that its crops are cut from, if it says so


Weighted = Convolution | FullyConnected
Following = Activation | Normalisation | Pooling | Drop
ImportedLayer = Weighted | Following


def _check_sizes(name: str, least: int, *others: int) -> None:
    """See that sizes are those of an image: the first at least 1, none below 0."""
    if least < 1 or not 0 <= min(others, default=0) <= max(least, *others, 0) <= MAX_IMAGE:
        raise RunError(
            f"{name!r} has a window, stride or padding of {', '.join(map(str, (least, *others)))}.",
            f"Expected sizes of at least 1, padding of at least 0, and at most {MAX_IMAGE}.",
        )


def make_norm(
    name: str,
    size: int,
    alpha: float,
    beta: float,
    k: float = 1.0,
    *,
    within_channel: bool = False,
    parts: int = 1,
) -> Normalisation:
    """Return a normalisation whose constants make sense; `alpha` is that of the whole window."""
    if not 1 <= size <= 1000 or size % 2 == 0 or not all(map(math.isfinite, (alpha, beta, k))):
        raise RunError(
            f"The norm {name!r} has a window of {size} and constants {alpha}, {beta}, {k}.",
            "Expected an odd window, and finite numbers.",
        )
    kind = WithinChannelLRN if within_channel else LRN
    return Normalisation(name, kind(size=size, alpha=alpha, beta=beta, k=k), parts)


def round_float32(value: Any) -> float:
    """Return the number that a person wrote, of the float32 that it became: 1e-4, 0.75."""
    return float(f"{float(value):.7g}")


def gather_layers(layers: Iterable[ImportedLayer], most: int) -> list[ImportedLayer]:
    """Return layers as a list, unless their numbers take more than `most` bytes.

    A file that names one array many times would grow with every copy that is made of it.
    """
    gathered, held = [], 0
    for layer in layers:
        if isinstance(layer, Convolution | FullyConnected):
            held += layer.weight.nbytes + layer.bias.nbytes
        if held > most:
            raise RunError("Its layers have more numbers than the file.")
        gathered.append(layer)
    return gathered


@dataclass(frozen=True, slots=True)
class Block:
    """A layer with weights, and what follows it."""

    layer: Any  # Convolution or FullyConnected
    steps: tuple[Any, ...]  # of Following


def assemble_network(
    layers: Sequence[ImportedLayer], pixels: PixelFormat, image: int | None = None
) -> tuple[Spec, dict[str, Tensor]]:
    """Return the spec of a list of layers and its weights, named ``conv1.weight`` ...

    The layers are first to last, without the softmax; `image` is the side of the input. Without
    it, one that the first fully-connected layer fits: 227, 224 where conv1 pads its image. Pools of
    one pixel, as exporters make of an adaptive one, are passed over.
    """
    if image is not None and not 1 <= image <= MAX_IMAGE:
        raise RunError(f"Its images are said to be of {image:,} pixels.")
    blocks = list(_group_blocks([layer for layer in layers if not _is_identity(layer)]))
    convs = [b for b in blocks if isinstance(b.layer, Convolution)]
    dense = [b for b in blocks if isinstance(b.layer, FullyConnected)]
    if not convs or not dense or blocks != [*convs, *dense]:
        order = ", ".join(block.layer.name for block in blocks) or "none"
        raise RunError(
            f"Its layers with weights are {order}.",
            "AlexNet has convolutions first, then fully-connected layers.",
        )
    if len(blocks) > MAX_LAYERS:
        raise RunError(f"It has more than {MAX_LAYERS} layers with weights.")
    _check_widths(convs, dense)
    spec = _make_spec(convs, dense, _find_image_size(convs, dense[0].layer, image), pixels)
    named = [*(conv.name for conv in spec.convs), *(layer.name for layer in spec.dense)]
    weights = {}
    for name, block in zip([*named, spec.output_name], blocks, strict=True):
        for part, values in (("weight", block.layer.weight), ("bias", block.layer.bias)):
            if not np.isfinite(values).all():
                raise RunError(f"{block.layer.name!r} has numbers that are not finite.")
            weights[f"{name}.{part}"] = torch.from_numpy(np.array(values, np.float32, order="C"))
    return recognise(spec), weights


def _is_identity(layer: ImportedLayer) -> bool:
    return isinstance(layer, Pooling) and (
        (layer.kernel_size, layer.stride, layer.padding_after) == (1, 1, 0)
    )


def _group_blocks(layers: Sequence[ImportedLayer]) -> Iterator[Block]:
    """Gather behind every layer with weights what comes before the next one."""
    starts = [n for n, one in enumerate(layers) if isinstance(one, Convolution | FullyConnected)]
    if layers and starts[:1] != [0]:
        raise RunError(
            f"Its first layer is {layers[0].name!r}.", "AlexNet's first is a convolution."
        )
    for start, stop in zip(starts, [*starts[1:], len(layers)], strict=True):
        yield Block(layers[start], tuple(layers[start + 1 : stop]))


def _check_widths(convs: Sequence[Block], dense: Sequence[Block]) -> None:
    """See that every layer takes what the one before makes."""
    made = 0
    for conv in (block.layer for block in convs):
        shape, groups = conv.weight.shape, conv.groups
        if len(shape) != 4 or shape[2] != shape[3] or min(shape) < 1:
            raise RunError(
                f"The convolution {conv.name!r} has weights of {shape}.",
                "Expected (channels, inputs, side, side), square.",
            )
        if groups not in (1, 2):
            raise RunError(f"{conv.name!r} has {groups} groups.", "Expected 1, or 2 for towers.")
        if not made and shape[1] * groups != 3:
            raise RunError(f"{conv.name!r} takes {shape[1] * groups} channels.", "Expected 3.")
        if made and shape[1] * groups != made:
            raise RunError(
                f"{conv.name!r} of {shape} in {groups} groups takes {shape[1] * groups} maps; the "
                f"layer before makes {made}."
            )
        made = shape[0]
    inputs: int | None = None
    for layer in (block.layer for block in dense):
        shape = layer.weight.shape
        if len(shape) != 2 or min(shape) < 1 or shape[1] != (inputs or shape[1]):
            raise RunError(
                f"The fully-connected layer {layer.name!r} has weights of {shape}.",
                f"Expected (units, {inputs or 'inputs'}).",
            )
        inputs = shape[0]
    for weighted in (block.layer for block in (*convs, *dense)):
        if weighted.bias.shape != weighted.weight.shape[:1]:
            raise RunError(
                f"{weighted.name!r} has {weighted.bias.size} biases of shape "
                f"{weighted.bias.shape}; expected {weighted.weight.shape[:1]}."
            )


def _find_image_size(convs: Sequence[Block], first: FullyConnected, image: int | None) -> int:
    """Return the side of the images, the given one or one that the first dense layer fits."""
    channels, inputs = convs[-1].layer.weight.shape[0], first.weight.shape[1]
    usual = USUAL_IMAGES[::-1] if any(convs[0].layer.padding) else USUAL_IMAGES
    for side in [image] if image else [*usual, *range(1, MAX_IMAGE + 1)]:
        *_, (_, last) = _map_sides(convs, side)
        if channels * last**2 == inputs:
            return side
    name = convs[-1].layer.name
    took = f"{first.name!r} of {first.weight.shape} takes {inputs} numbers"
    if image is None:
        raise RunError(f"{took}, which no square image gives after {channels} maps of {name!r}.")
    raise RunError(
        f"{took}; with images of {image} pixels {name!r} leaves {channels}x{last}x{last} = "
        f"{channels * last**2}."
    )


def _map_sides(convs: Sequence[Block], side: int) -> Iterator[tuple[int, int]]:
    """Yield the side of each convolution's maps, before and after what follows it."""
    for block in convs:
        conv = block.layer
        side = positions(side + sum(conv.padding), conv.weight.shape[2], conv.stride)
        before = side
        for step in block.steps:
            if isinstance(step, Pooling):
                padded = side + step.padding_after
                side = positions(padded, step.kernel_size, step.stride, ceil=step.ceil_mode)
        yield before, side


def _make_spec(
    convs: Sequence[Block],
    dense: Sequence[Block],
    image: int,
    pixels: PixelFormat,
) -> Spec:
    *hidden, last = dense
    if any(not isinstance(step, Drop) for step in last.steps):
        raise RunError(
            f"{last.layer.name!r}, the last layer, is followed by {last.steps[0].name!r}.",
            "Expected nothing but a softmax.",
        )
    steps = [step for block in (*convs, *dense) for step in block.steps]
    halves = any(isinstance(step, Normalisation) and step.parts == 2 for step in steps)
    towers: Literal[1, 2] = 2 if halves or any(b.layer.groups == 2 for b in convs) else 1
    sides = _map_sides(convs, image)
    drops = [step.dropout for step in steps if isinstance(step, Drop)] or [DropoutSpec(rate=0)]
    before_first = any(isinstance(step, Drop) for step in convs[-1].steps)
    try:
        return Spec(
            name="imported",
            convs=tuple(
                _make_conv(f"conv{number}", block, *ends, towers)
                for number, (block, ends) in enumerate(zip(convs, sides, strict=True), 1)
            ),
            dense=tuple(
                _make_dense(f"fc{number}", block)
                for number, block in enumerate(hidden, len(convs) + 1)
            ),
            image_size=image,
            num_classes=last.layer.weight.shape[0],
            towers=towers,
            activation=_find_activation(steps),
            dropout=replace(drops[0], place="inputs" if before_first else "outputs"),
            pixels=pixels,
            output_name=f"fc{len(convs) + len(dense)}",
        )
    except ConfigError as error:
        raise RunError(f"Its layers make no network: {error}") from None


def _make_conv(name: str, block: Block, before: int, after: int, towers: int) -> Conv:
    conv = block.layer
    stages: list[ConvStage] = []
    norm, within_channel_lrn, pool = None, None, None
    for step in block.steps:
        if isinstance(step, Activation):
            stages.append("activation")
        elif isinstance(step, Pooling):
            stages.append("pool")
            pool = _make_pool(step, before, after)
        elif isinstance(step, Normalisation) and isinstance(step.norm, LRN):
            stages.append("norm")
            across = towers == 2 and step.parts == 1
            norm = replace(step.norm, span="layer" if across else "tower")
        elif isinstance(step, Normalisation) and isinstance(step.norm, WithinChannelLRN):
            stages.append("within_channel_lrn")
            within_channel_lrn = step.norm
    if stages.count("activation") != 1 or len(set(stages)) < len(stages):
        raise RunError(
            f"{conv.name!r} is followed by {', '.join(stages) or 'nothing'}.",
            "Expected one activation, and at most one pool and one normalisation of each kind.",
        )
    start, end = conv.padding
    if end < start:
        raise RunError(
            f"{conv.name!r} has {start} zeros before and {end} after the image.",
            "Expected as many, or more after it.",
        )
    usual = [stage for stage in DEFAULT_ORDER if stage in stages]
    return Conv(
        name=name,
        out_channels=conv.weight.shape[0],
        kernel_size=conv.weight.shape[2],
        stride=conv.stride,
        padding=start,
        asymmetric_padding=end - start,
        grouped=conv.groups == 2,
        norm=norm,
        within_channel_lrn=within_channel_lrn,
        pool=pool,
        order=DEFAULT_ORDER if stages == usual else tuple(stages),
    )


def _make_pool(step: Pooling, before: int, after: int) -> Pool:
    """Return the pool that gives as many windows: by floor where that makes no difference."""
    for ceil in (False, True):
        if positions(before, step.kernel_size, step.stride, ceil=ceil) == after:
            return Pool(
                kernel_size=step.kernel_size, stride=step.stride, kind=step.kind, ceil_mode=ceil
            )
    raise RunError(
        f"The pool {step.name!r} makes {after} windows of {step.kernel_size} at stride "
        f"{step.stride} out of {before} pixels.",
        "Expected only windows that begin inside the map.",
    )


def _make_dense(name: str, block: Block) -> Dense:
    kinds = [type(step) for step in block.steps]
    if kinds.count(Activation) != 1 or set(kinds) - {Activation, Drop}:
        after = ", ".join(step.name for step in block.steps) or "nothing"
        raise RunError(
            f"{block.layer.name!r} is followed by {after}.",
            "Expected one activation, and dropout if any.",
        )
    return Dense(name=name, units=block.layer.weight.shape[0])


def _find_activation(steps: Sequence[Following]) -> Literal["relu", "tanh"]:
    kinds = {step.kind: step.name for step in steps if isinstance(step, Activation)}
    if len(kinds) > 1:
        raise RunError(
            f"{kinds['relu']!r} is a ReLU and {kinds['tanh']!r} a tanh.",
            "Expected one kind for all layers.",
        )
    return next(iter(kinds))


def find_differences(
    known: Spec, spec: Spec, ignored: tuple[str, ...] = IGNORED
) -> dict[str, tuple[Any, Any]]:
    """Return the settings in which a network computes something else than a known one.

    By path, ``conv1.norm.k``, each with the known one's value and the network's. `ignored` are the
    beginnings of paths that do not count.
    """
    return {
        path.removeprefix("convs.").removeprefix("dense."): pair
        for path, pair in differences(known, spec).items()
        if not path.startswith(ignored) and not path.endswith((".std", ".bias"))
    }


def recognise(spec: Spec) -> Spec:
    """Return a spec under the name of the named network that computes the same, if one does.

    From that one come the initial weights, which no file tells, for whoever trains it afresh.
    """
    for known in NETWORKS.values():
        if not find_differences(known, spec):
            dropout = spec.dropout if spec.dropout.rate else known.dropout
            return replace(known, num_classes=spec.num_classes, pixels=spec.pixels, dropout=dropout)
    return spec
