"""A list of layers -> a spec, and weights by the paper's names.

What AlexNet's family has no place for is refused here, for every kind of file, with the layer, its
shape and what was expected.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from alexnet.config import differences
from alexnet.errors import ConfigError, RunError
from alexnet.interop.chain import (
    LARGEST_IMAGE,
    Activation,
    Array,
    Convolution,
    Drop,
    FullyConnected,
    Layer,
    Normalisation,
    Pooling,
    Weighted,
)
from alexnet.spec import LRN, Conv, ConvStage, Dense, Dropout, PixelFormat, Pool, Spec, positions
from alexnet.variants import NETWORKS

DEFAULT_ORDER: tuple[ConvStage, ...] = ("activation", "norm", "within_channel_lrn", "pool")
USUAL_IMAGES = (227, 224)  # without zeros around conv1's image, and with (facts 1c)
MOST_LAYERS = 100  # with weights
# What may differ from a named network that is still recognised as that one.
APART = ("name", "num_classes", "pixels", "dropout", "output_std", "output_bias")


@dataclass(frozen=True, slots=True)
class Block:
    """A layer with weights, and what follows it."""

    layer: Weighted
    steps: tuple[Activation | Normalisation | Pooling | Drop, ...]


def network_of(
    layers: Sequence[Layer], pixels: PixelFormat, image: int | None = None
) -> tuple[Spec, dict[str, Tensor]]:
    """Return the spec of a list of layers and its weights, named ``conv1.weight`` ...

    Parameters
    ----------
    layers : sequence of Layer
        First to last, without the softmax.
    pixels : Pixels
        What the network expects of its pixels.
    image : int, optional
        Pixels on a side of its input. Without it, one that the first fully-connected layer fits:
        227 if that does, 224 where conv1 pads its image.

    Raises
    ------
    RunError
        When it is no network of AlexNet's family, with the layer that is not.
    """
    blocks = list(_blocks(layers))
    convs = [block for block in blocks if isinstance(block.layer, Convolution)]
    dense = [block for block in blocks if isinstance(block.layer, FullyConnected)]
    if not convs or not dense or blocks != [*convs, *dense]:
        order = ", ".join(block.layer.name for block in blocks) or "none"
        raise RunError(
            f"Its layers with weights are {order}.",
            "AlexNet has convolutions first, then fully-connected layers.",
        )
    if len(blocks) > MOST_LAYERS:
        raise RunError(f"It has more than {MOST_LAYERS} layers with weights.")
    inputs = _checked_widths(convs, dense)
    usual = USUAL_IMAGES[::-1] if any(_conv(convs[0]).padding) else USUAL_IMAGES
    sides = [image] if image else [*usual, *range(1, LARGEST_IMAGE + 1)]
    flat = dense[0].layer.weight.shape[1]
    maps = convs[-1].layer.weight.shape[0]
    fitting = (side for side in sides if maps * last_side(convs, side) ** 2 == flat)
    side = next(fitting, None)
    if side is None:
        raise RunError(_misfit(convs, dense[0], image))
    spec = _spec(convs, dense, side, inputs, pixels)
    named = [*(conv.name for conv in spec.convs), *(layer.name for layer in spec.dense)]
    weights = {}
    for name, block in zip([*named, spec.output_name], blocks, strict=True):
        weights[f"{name}.weight"] = _tensor(block.layer, block.layer.weight)
        weights[f"{name}.bias"] = _tensor(block.layer, block.layer.bias)
    return recognised(spec), weights


def _blocks(layers: Sequence[Layer]) -> Iterator[Block]:
    """Gather behind every layer with weights what comes before the next one."""
    current: Weighted | None = None
    steps: list[Activation | Normalisation | Pooling | Drop] = []
    for layer in layers:
        if isinstance(layer, Convolution | FullyConnected):
            if current is not None:
                yield Block(current, tuple(steps))
            current, steps = layer, []
        elif current is None:
            raise RunError(
                f"Its first layer is {layer.name!r}.", "AlexNet's first is a convolution."
            )
        else:
            steps.append(layer)
    if current is not None:
        yield Block(current, tuple(steps))


def _checked_widths(convs: Sequence[Block], dense: Sequence[Block]) -> int:
    """See that every layer takes what the one before makes; return the channels of the images."""
    made = 0
    for block in convs:
        layer = block.layer
        assert isinstance(layer, Convolution)
        shape, groups = layer.weight.shape, layer.groups
        if len(shape) != 4 or shape[2] != shape[3] or min(shape) < 1:
            raise RunError(
                f"The convolution {layer.name!r} has weights of {shape}.",
                "Expected (maps, inputs, side, side), square.",
            )
        if groups not in (1, 2):
            raise RunError(f"{layer.name!r} has {groups} groups.", "Expected 1, or 2 for towers.")
        if made and shape[1] * groups != made:
            raise RunError(
                f"{layer.name!r} of {shape} in {groups} groups takes {shape[1] * groups} maps; the "
                f"layer before makes {made}."
            )
        made = shape[0]
    for block, before in zip(dense, [None, *dense], strict=False):
        shape = block.layer.weight.shape
        wanted = before.layer.weight.shape[0] if before else None
        if len(shape) != 2 or min(shape) < 1 or (wanted and shape[1] != wanted):
            raise RunError(
                f"The fully-connected layer {block.layer.name!r} has weights of {shape}.",
                f"Expected (units, {wanted or 'inputs'}).",
            )
    for block in (*convs, *dense):
        if block.layer.bias.shape != block.layer.weight.shape[:1]:
            raise RunError(
                f"{block.layer.name!r} has {block.layer.bias.size} biases of shape "
                f"{block.layer.bias.shape}; expected {block.layer.weight.shape[:1]}."
            )
    first = convs[0].layer
    return int(first.weight.shape[1] * (first.groups if isinstance(first, Convolution) else 1))


def last_side(convs: Sequence[Block], image: int) -> int:
    """Return the side of the last convolution's maps, after what follows it."""
    *_, (_, side) = sides(convs, image)
    return side


def sides(convs: Sequence[Block], image: int) -> Iterator[tuple[int, int]]:
    """Yield the side of each convolution's maps, before and after what follows it."""
    side = image
    for block in convs:
        layer = block.layer
        assert isinstance(layer, Convolution)
        side = positions(side + sum(layer.padding), layer.weight.shape[2], layer.stride)
        before = side
        for step in block.steps:
            if isinstance(step, Pooling):
                side = positions(side + step.after, step.window, step.stride, ceil=step.ceil)
        yield before, side


def _misfit(convs: Sequence[Block], first: Block, image: int | None) -> str:
    flat, maps = first.layer.weight.shape[1], convs[-1].layer.weight.shape[0]
    took = f"{first.layer.name!r} of {first.layer.weight.shape} takes {flat} numbers"
    if image is None:
        return f"{took}, which no square image gives after {maps} maps of {convs[-1].layer.name!r}."
    side = last_side(convs, image)
    return (
        f"{took}; with images of {image} pixels {convs[-1].layer.name!r} leaves {maps}x{side}x"
        f"{side} = {maps * side**2}."
    )


def _spec(
    convs: Sequence[Block], dense: Sequence[Block], image: int, channels: int, pixels: PixelFormat
) -> Spec:
    if channels != 3:
        raise RunError(f"{convs[0].layer.name!r} takes {channels} channels.", "Expected 3.")
    towers: Literal[1, 2] = 2 if any(map(_divided, convs)) else 1
    made = []
    for number, (block, (before, after)) in enumerate(
        zip(convs, sides(convs, image), strict=True), 1
    ):
        made.append(_conv_spec(f"conv{number}", block, before, after, towers))
    hidden = [
        _dense_spec(f"fc{number}", block) for number, block in enumerate(dense[:-1], len(convs) + 1)
    ]
    last = dense[-1]
    if any(not isinstance(step, Drop) for step in last.steps):
        raise RunError(
            f"{last.layer.name!r}, the last layer, is followed by {last.steps[0].name!r}.",
            "Expected nothing but a softmax.",
        )
    try:
        return Spec(
            name="imported",
            convs=tuple(made),
            dense=tuple(hidden),
            image_size=image,
            num_classes=last.layer.weight.shape[0],
            towers=towers,
            activation=_activation([*convs, *dense[:-1]]),
            dropout=_dropout(convs, dense),
            pixels=pixels,
            output_name=f"fc{len(convs) + len(dense)}",
        )
    except ConfigError as error:
        raise RunError(f"Its layers make no network: {error}") from None


def _conv(block: Block) -> Convolution:
    assert isinstance(block.layer, Convolution)
    return block.layer


def _divided(block: Block) -> bool:
    """Whether the maps are in two halves, as they were on two processors."""
    halves = (isinstance(step, Normalisation) and step.parts == 2 for step in block.steps)
    return _conv(block).groups == 2 or any(halves)


def _conv_spec(name: str, block: Block, before: int, after: int, towers: int) -> Conv:
    layer, steps = _conv(block), list(block.steps)
    told: list[ConvStage] = []
    norm, within_channel_lrn, pool = None, None, None
    for step in steps:
        if isinstance(step, Normalisation):
            if isinstance(step.norm, LRN):
                told.append("norm")
                across = towers == 2 and step.parts == 1
                norm = replace(step.norm, span="layer" if across else "tower")
            else:
                told.append("within_channel_lrn")
                within_channel_lrn = step.norm
        elif isinstance(step, Pooling):
            told.append("pool")
            pool = _pool(step, before, after)
        elif isinstance(step, Activation):
            told.append("activation")
    if told.count("activation") != 1 or len(set(told)) < len(told):
        raise RunError(
            f"{layer.name!r} is followed by {', '.join(told) or 'nothing'}.",
            "Expected one activation, and at most one pool and one normalisation of each kind.",
        )
    start, end = layer.padding
    if end < start:
        raise RunError(
            f"{layer.name!r} has {start} zeros before and {end} after the image.",
            "Expected as many, or more after it.",
        )
    usual = tuple(step for step in DEFAULT_ORDER if step in told)
    return Conv(
        name=name,
        out_channels=layer.weight.shape[0],
        kernel_size=layer.weight.shape[2],
        stride=layer.stride,
        padding=start,
        asymmetric_padding=end - start,
        grouped=layer.groups == 2,
        norm=norm,
        within_channel_lrn=within_channel_lrn,
        pool=pool,
        order=DEFAULT_ORDER if tuple(told) == usual else tuple(told),
    )


def _pool(step: Pooling, before: int, after: int) -> Pool:
    """Return the pool that gives as many windows: without `ceil` where that makes no difference."""
    for ceil in (False, True):
        if positions(before, step.window, step.stride, ceil=ceil) == after:
            return Pool(kernel_size=step.window, stride=step.stride, kind=step.kind, ceil_mode=ceil)
    raise RunError(
        f"The pool {step.name!r} makes {after} windows of {step.window} at stride "
        f"{step.stride} out of {before} pixels.",
        "Expected only windows that begin inside the map.",
    )


def _dense_spec(name: str, block: Block) -> Dense:
    kinds = [type(step) for step in block.steps]
    if kinds.count(Activation) != 1 or set(kinds) - {Activation, Drop}:
        after = ", ".join(step.name for step in block.steps) or "nothing"
        raise RunError(
            f"{block.layer.name!r} is followed by {after}.",
            "Expected one activation, and dropout if any.",
        )
    return Dense(name=name, units=block.layer.weight.shape[0])


def _activation(blocks: Sequence[Block]) -> Literal["relu", "tanh"]:
    kinds = {
        step.kind: step.name for block in blocks for step in block.steps
        if isinstance(step, Activation)
    }  # fmt: skip
    if len(kinds) > 1:
        raise RunError(
            f"{kinds['relu']!r} is a ReLU and {kinds['tanh']!r} a tanh.",
            "Expected one kind for all layers.",
        )
    return next(iter(kinds))


def _dropout(convs: Sequence[Block], dense: Sequence[Block]) -> Dropout:
    """Return what is dropped where; only training asks."""
    found = [step for block in (*convs, *dense) for step in block.steps if isinstance(step, Drop)]
    if not found:
        return Dropout(rate=0)
    before_first = any(isinstance(step, Drop) for step in convs[-1].steps)
    return replace(found[0].dropout, place="inputs" if before_first else "outputs")


def _tensor(layer: Weighted, values: Array) -> Tensor:
    if not np.isfinite(values).all():
        raise RunError(f"{layer.name!r} has numbers that are not finite.")
    return torch.from_numpy(np.array(values, np.float32, order="C"))


def recognised(spec: Spec) -> Spec:
    """Return a spec under the name of the named network that computes the same, if one does.

    From that one come the initial weights, which no file tells, for whoever trains it afresh.
    """
    for known in NETWORKS.values():
        apart = [
            path for path in differences(known, spec)
            if not path.startswith(APART) and not path.endswith((".std", ".bias"))
        ]  # fmt: skip
        if not apart:
            dropout = spec.dropout if spec.dropout.rate else known.dropout
            return replace(known, num_classes=spec.num_classes, pixels=spec.pixels, dropout=dropout)
    return spec
