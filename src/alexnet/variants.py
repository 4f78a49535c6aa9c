"""The named networks, each a value, and the switches that make one network out of another."""

from dataclasses import replace
from typing import Any, Literal

from alexnet.errors import ConfigError, did_you_mean, find_named
from alexnet.spec import (
    LRN,
    Conv,
    Dense,
    DropoutSpec,
    PixelFormat,
    Pool,
    Spec,
    WithinChannelLRN,
    pool_name,
)

HALF_LINEAR = ("conv2", "conv4", "conv5")  # biases of 1: the ReLUs see positive inputs (section 5)

# The two-GPU network as the paper prints it. Every difference from AS_RUN is one field.
PAPER = Spec(
    name="paper",
    towers=2,
    image_size=227,  # the paper prints 224, with which its own sizes do not come out (facts 1c)
    convs=(
        # 55, 27
        Conv(name="conv1", out_channels=96, kernel_size=11, stride=4, norm=LRN(), pool=Pool()),
        Conv(
            name="conv2", out_channels=256, kernel_size=5, padding=2, grouped=True, bias=1,
            norm=LRN(), pool=Pool(),
        ),  # 27, 13
        Conv(name="conv3", out_channels=384, kernel_size=3, padding=1),  # 13; sees both towers
        Conv(name="conv4", out_channels=384, kernel_size=3, padding=1, grouped=True, bias=1),
        Conv(
            name="conv5", out_channels=256, kernel_size=3, padding=1, grouped=True, bias=1,
            pool=Pool(),
        ),  # 13, 6
    ),
    dense=(Dense(name="fc6", units=4096), Dense(name="fc7", units=4096)),
)  # fmt: skip

# The network of one GPU. Weights of .03 in conv3-5 are the 2012 source's: with the .01 that the
# paper prints, the signal at the output is an order of magnitude weaker (facts 3c).
SINGLE = replace(PAPER, name="single", towers=1).with_layers("conv3", "conv4", "conv5", std=0.03)

# The network as its source ran it (facts 1a, 1b).
AS_RUN = replace(
    PAPER.with_layers("conv3", "conv4", "conv5", std=0.03)
    .with_layers(
        "conv1", asymmetric_padding=3, norm=LRN(alpha=1e-4), order=("norm", "pool", "activation")
    )
    .with_layers("conv2", norm=LRN(alpha=1e-4), within_channel_lrn=WithinChannelLRN()),
    name="as_run",
    image_size=224,
)

# What the paper's "1 CNN*" adds: a sixth convolution over the last pooling (facts 0, net 146). What
# follows is numbered on.
AS_RUN_SIX = replace(
    AS_RUN,
    name="as_run_six",
    convs=(
        *AS_RUN.convs,
        Conv(name="conv6", out_channels=256, kernel_size=3, padding=1, std=0.03, bias=1),
    ),
    dense=(Dense(name="fc7", units=4096), Dense(name="fc8", units=4096)),
    output_name="fc9",
)
# Towers that meet in the fully-connected layers alone: conv3 sees its own too (facts 0, net 150).
AS_RUN_APART = replace(AS_RUN.with_layers("conv3", grouped=True), name="as_run_apart")

# BVLC's reference networks: k of 1, windows across the groups, BGR (facts 1d, 2, 3d).
_CAFFE_LRN = LRN(alpha=1e-4, k=1, span="layer")
CAFFE = replace(
    PAPER.with_layers("conv1", "conv2", norm=_CAFFE_LRN)
    .with_layers(*HALF_LINEAR, bias=0.1)
    .with_layers("fc6", "fc7", std=0.005, bias=0.1),
    name="caffe",
    dropout=DropoutSpec(form="inverted"),
    pixels=PixelFormat(channel_order="BGR"),
)
CAFFENET = replace(
    CAFFE.with_layers("conv1", "conv2", order=("activation", "pool", "norm")).with_layers(
        *HALF_LINEAR, "fc6", "fc7", bias=1
    ),
    name="caffenet",
)

# 'One weird trick' (2014), which torchvision calls AlexNet (facts 1d).
TORCHVISION = Spec(
    name="torchvision",
    image_size=224,
    convs=(
        Conv(name="conv1", out_channels=64, kernel_size=11, stride=4, padding=2, pool=Pool()),
        Conv(name="conv2", out_channels=192, kernel_size=5, padding=2, pool=Pool()),
        Conv(name="conv3", out_channels=384, kernel_size=3, padding=1),
        Conv(name="conv4", out_channels=256, kernel_size=3, padding=1),
        Conv(name="conv5", out_channels=256, kernel_size=3, padding=1, pool=Pool()),
    ),
    dense=PAPER.dense,
    output_std=None,
    output_bias=None,
    dropout=DropoutSpec(form="inverted", place="inputs"),
    pixels=PixelFormat(scale=1 / 255, mean=(0.485, 0.456, 0.406), stdev=(0.229, 0.224, 0.225)),
).with_layers("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", std=None, bias=None)

# The CIFAR-10 networks of cuda-convnet (facts 6): layers-80sec and layers-cifar10-11pct.
_MAX, _AVERAGE = Pool(ceil_mode=True), Pool(kind="average", ceil_mode=True)
_CIFAR_LRN = LRN(size=9, alpha=1e-3, k=1)
CIFAR_QUICK = Spec(
    name="cifar_quick",
    image_size=32,
    num_classes=10,
    convs=(
        # 32, 16
        Conv(name="conv1", out_channels=32, kernel_size=5, padding=2, std=1e-4, pool=_MAX),
        Conv(name="conv2", out_channels=32, kernel_size=5, padding=2, pool=_AVERAGE),  # 16, 8
        Conv(name="conv3", out_channels=64, kernel_size=5, padding=2, pool=_AVERAGE),  # 8, 4
    ),
    dense=(Dense(name="fc64", units=64, std=0.1, bias=0),),
    output_name="fc10",
    output_std=0.1,
    dropout=DropoutSpec(rate=0),
)
CIFAR_LOCAL = Spec(
    name="cifar_local",
    image_size=24,
    num_classes=10,
    convs=(
        Conv(
            name="conv1", out_channels=64, kernel_size=5, padding=2, std=1e-4, norm=_CIFAR_LRN,
            pool=_MAX, order=("activation", "pool", "norm"),
        ),  # 24, 12
        # 12, 6
        Conv(name="conv2", out_channels=64, kernel_size=5, padding=2, norm=_CIFAR_LRN, pool=_MAX),
        Conv(
            name="local3", out_channels=64, kernel_size=3, padding=1, locally_connected=True,
            std=0.04,
        ),
        Conv(
            name="local4", out_channels=32, kernel_size=3, padding=1, locally_connected=True,
            std=0.04,
        ),
    ),
    dense=(),
    output_name="fc10",
    dropout=DropoutSpec(rate=0),
)  # fmt: skip

NETWORKS = {
    spec.name: spec
    for spec in (
        SINGLE, PAPER, AS_RUN, AS_RUN_SIX, AS_RUN_APART, CAFFE, CAFFENET, TORCHVISION, CIFAR_QUICK,
        CIFAR_LOCAL,
    )
}  # fmt: skip


def network_named(name: str) -> Spec:
    """Return the named network; `ConfigError` with the nearest name where there is none."""
    return find_named("network", NETWORKS, name)


def narrow(spec: Spec, by: int, units_by: int | None = None) -> Spec:
    """Return the network with channels divided by `by`, hidden units by `units_by` or the same."""
    convs = tuple(replace(c, out_channels=c.out_channels // by) for c in spec.convs)
    dense = tuple(replace(d, units=d.units // (units_by or by)) for d in spec.dense)
    return replace(spec, convs=convs, dense=dense)


def without_lrn(spec: Spec) -> Spec:
    """Return the network with no normalisation at all, as the paper's ablation had it (facts 0)."""
    names = [conv.name for conv in spec.convs]
    return spec.with_layers(*names, norm=None, within_channel_lrn=None)


def with_lrn(spec: Spec, **changes: Any) -> Spec:
    """Return the network with some constants of every LRN changed."""
    convs = tuple(
        replace(conv, norm=replace(conv.norm, **changes)) if conv.norm else conv
        for conv in spec.convs
    )
    return replace(spec, convs=convs)


def with_dropout(spec: Spec, **changes: Any) -> Spec:
    """Return the network with its dropout changed: ``rate=0.0`` is none."""
    return replace(spec, dropout=replace(spec.dropout, **changes))


def without_overlap(spec: Spec) -> Spec:
    """Return the network with 2/2 pooling, padded so that every later layer keeps its size.

    2/2 pooling with ceil leaves 28 of 55 pixels where 3/2 pooling leaves 27. As in net 147 of 2012
    (facts 1a), the convolution that comes before the next pool makes up for it with less padding.
    """
    convs = tuple(
        replace(conv, pool=replace(conv.pool, kernel_size=2, stride=2, ceil_mode=True))
        if conv.pool
        else conv
        for conv in spec.convs
    )
    return _with_pooled_sizes(replace(spec, convs=convs), _pooled_sizes(spec))


def _pooled_sizes(spec: Spec) -> dict[str, int]:
    """Return the side of what each pool gives out, by the name of the convolution before it."""
    sizes = {layer.name: layer.size for layer in spec.layers()}
    return {conv.name: sizes[pool_name(conv)] for conv in spec.convs if conv.pool}


def _with_pooled_sizes(spec: Spec, wanted: dict[str, int]) -> Spec:
    """Take padding from the convolutions of stride 1 whose pools give out more than is wanted."""
    for name, size in wanted.items():
        conv = next(conv for conv in spec.convs if conv.name == name)
        while conv.stride == 1 and conv.padding and _pooled_sizes(spec)[name] > size:
            conv = replace(conv, padding=conv.padding - 1)
            spec = spec.with_layers(name, padding=conv.padding)
    return spec


def without_layer(spec: Spec, name: str) -> Spec:
    """Return the network without one convolution; its pool, if any, goes to the one before.

    That one loses padding where its pool would give out more than the lost layer's did. The first,
    or one that is not there, is a `ConfigError`.
    """
    names = [conv.name for conv in spec.convs]
    if name not in names[1:]:
        raise ConfigError(f"{name!r} cannot be taken out.", did_you_mean(name, names[1:]))
    index = names.index(name)
    before, gone = spec.convs[index - 1], spec.convs[index]
    shorter = replace(spec, convs=(*spec.convs[:index], *spec.convs[index + 1 :]))
    if before.pool or not gone.pool:
        return shorter
    shorter = shorter.with_layers(before.name, pool=gone.pool)
    return _with_pooled_sizes(shorter, {before.name: _pooled_sizes(spec)[name]})


def with_input(spec: Spec, form: Literal["227", "224-overhang", "224-padded"]) -> Spec:
    """Return the network with one of the three answers to '224 or 227?' (facts 1c).

    All three give conv1 an output of 55x55: ``227`` as it is; ``224-overhang``, the 2012 source,
    whose last window hangs 3 pixels over the right and bottom edge; ``224-padded``, 2 pixels on
    every side, as torchvision does it.
    """
    forms = {"227": (227, 0, 0), "224-overhang": (224, 0, 3), "224-padded": (224, 2, 0)}
    if form not in forms:
        raise ConfigError(f"No input form is called {form!r}.", did_you_mean(form, forms))
    image, padding, asymmetric_padding = forms[form]
    changed = replace(spec.convs[0], padding=padding, asymmetric_padding=asymmetric_padding)
    return replace(spec, image_size=image, convs=(changed, *spec.convs[1:]))
