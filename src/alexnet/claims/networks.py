"""The networks of the claims that have no name of their own: small, halved, four layers deep."""

import math
from dataclasses import replace

from alexnet.spec import Conv, Dense, Spec
from alexnet.variants import CIFAR_LOCAL, CIFAR_QUICK, SINGLE, without_lrn

# Figure 1's "four-layer convolutional network" is given nowhere; the nearest that 2012 left is
# layers-19pct of cuda-convnet, three convolutions and the output (facts 6).
FOUR_LAYERS = replace(CIFAR_QUICK, name="four_layers", dense=(), output_std=0.01)

# layers-conv-local-13pct: no normalisation, and a narrower local3 than layers-cifar10-11pct
# (facts 6), which is CIFAR_LOCAL with 64 maps there.
LOCAL_11 = CIFAR_LOCAL
LOCAL_13 = replace(without_lrn(CIFAR_LOCAL), name="local_13").with_layers("local3", out_channels=32)


def in_small(spec: Spec, *, width: int = 4, image: int = 24) -> Spec:
    """Return a network of five convolutions shrunk for images of 24 to 32 pixels.

    Maps and units are divided by `width`, fully-connected layers by twice that. conv1, 11 pixels
    with stride 4, becomes 5 with stride 1; pools count their places with ceil, as cuda-convnet
    did, so that 24 pixels go to 12, 6 and 3 under pools of 3/2 and of 2/2 alike. Orders, groups,
    norms, overlap, biases and dropout are the network's own.

    Narrower layers have fewer inputs to add up. Standard deviations of the weights grow by the
    root of the ratio, so that signals keep the strength that they have in the full network: .01
    against .03, or pixels of 0-255 against 0-1, mean here what they mean there.

    Parameters
    ----------
    spec : Spec
        paper, single, as_run or a variant of them.
    width : int
        What widths are divided by.
    image : int
        Side of what the network sees, in pixels.
    """
    first, *rest = spec.convs
    first = replace(first, kernel_size=5, stride=1, padding=2, asymmetric_padding=0)
    convs = tuple(
        replace(
            c, out_channels=c.out_channels // width, pool=c.pool and replace(c.pool, ceil_mode=True)
        )
        for c in (first, *rest)
    )
    dense = tuple(replace(d, units=d.units // (2 * width)) for d in spec.dense)
    small = replace(spec, name=f"{spec.name}_in_small", image_size=image, convs=convs, dense=dense)
    before, after = _inputs(spec), _inputs(small)
    stronger = {name: math.sqrt(before[name] / after[name]) for name in before}
    layers: tuple[Conv | Dense, ...] = (*convs, *dense)
    for layer in layers:
        small = small.with_layers(layer.name, std=_times(layer, stronger[layer.name]))
    std = spec.output_std
    return replace(small, output_std=std and round(std * stronger[spec.output_name], 5))


def _times(layer: Conv | Dense, factor: float) -> float | None:
    return layer.std and round(layer.std * factor, 5)


def _inputs(spec: Spec) -> dict[str, int]:
    """Return how many inputs each unit of a layer adds up, by the layer's name."""
    found, maps = {}, spec.in_channels
    for conv in spec.convs:
        found[conv.name] = conv.kernel_size**2 * (maps // spec.groups(conv))
        maps = conv.out_channels
    inputs = math.prod((spec.flat[0], spec.flat[1], spec.flat[1]))
    for name, units in (*((d.name, d.units) for d in spec.dense), (spec.output_name, 0)):
        found[name], inputs = inputs, units
    return found


def half(spec: Spec) -> Spec:
    """Return one of a network's two columns, as the paper compared it (section 3.2, note 2).

    Half the maps in conv1 to conv4; conv5 and the fully-connected layers keep all theirs, which
    is net 145-half of the 2012 source (facts 0).
    """
    last = spec.convs[-1]
    convs = tuple(replace(c, out_channels=c.out_channels // 2) for c in spec.convs[:-1])
    return replace(spec, name=f"{spec.name}_half", towers=1, convs=(*convs, last))


def one_tower(spec: Spec) -> Spec:
    """Return the network with every map seen by every next one: `single` where it is `paper`."""
    return replace(spec, name=f"{spec.name}_one", towers=SINGLE.towers)


def narrowed(spec: Spec, by: int) -> Spec:
    """Return a network with a part of its maps and hidden units, and nothing else changed."""
    convs = tuple(replace(c, out_channels=c.out_channels // by) for c in spec.convs)
    dense = tuple(replace(d, units=d.units // by) for d in spec.dense)
    return replace(spec, name=f"{spec.name}_narrow", convs=convs, dense=dense)
