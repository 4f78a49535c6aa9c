"""The sizes at which the claims can be run, each a value: what networks, on how much, how long.

`small` fits into an hour or so on two processor cores, `night` into a night: a quarter of CIFAR-10,
long enough that networks know it by heart. `cifar` is CIFAR-10 at the schedules of 2012, `imagenet`
the full network on ImageNet or any prepared photographs, `imagenette` the one of one tower on some
ten thousand photographs: these want a GPU. The networks that have no name of their own come first:
small, halved, four layers deep.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from alexnet.claims.claim import Arm
from alexnet.errors import find_named
from alexnet.recipes import AS_RUN as AS_RUN_RECIPE
from alexnet.recipes import PAPER as PAPER_RECIPE
from alexnet.recipes import LayerDecay, Recipe
from alexnet.spec import Conv, Dense, Spec
from alexnet.variants import (
    AS_RUN,
    CIFAR_LOCAL,
    CIFAR_QUICK,
    PAPER,
    SINGLE,
    narrow,
    with_dropout,
    without_lrn,
)

# Figure 1's "four-layer convolutional network" is given nowhere; the nearest that 2012 left is
# layers-19pct of cuda-convnet, three convolutions and the output (facts 6).
FOUR_LAYERS = replace(CIFAR_QUICK, name="four_layers", dense=(), output_std=0.01)

# layers-conv-local-13pct: no normalisation, and a narrower local3 than layers-cifar10-11pct
# (facts 6), which is CIFAR_LOCAL with 64 channels there.
LOCAL_11 = CIFAR_LOCAL
LOCAL_13 = replace(without_lrn(CIFAR_LOCAL), name="local_13").with_layers("local3", out_channels=32)


def shrink(spec: Spec, *, width: int = 4, image_size: int = 24) -> Spec:
    """Return a network of five convolutions shrunk for images of 24 to 32 pixels.

    Channels and units are divided by `width`, fully-connected layers by twice that. conv1, 11
    pixels with stride 4, becomes 5 with stride 1; pools count their places with ceil, as
    cuda-convnet did, so that 24 pixels go to 12, 6 and 3 under pools of 3/2 and of 2/2 alike.
    Orders, groups, norms, overlap, biases and dropout are the network's own.

    Narrower layers have fewer inputs to add up. Standard deviations of the weights grow by the
    root of the ratio, so that signals keep the strength that they have in the full network: .01
    against .03, or pixels of 0-255 against 0-1, mean here what they mean there.
    """
    small = narrow(spec, width, 2 * width).with_layers(
        spec.convs[0].name, kernel_size=5, stride=1, padding=2, asymmetric_padding=0
    )
    pools = (c.pool and replace(c.pool, ceil_mode=True) for c in small.convs)
    convs = tuple(replace(c, pool=pool) for c, pool in zip(small.convs, pools, strict=True))
    small = replace(small, name=f"{spec.name}_in_small", image_size=image_size, convs=convs)
    before, after = _fan_in(spec), _fan_in(small)

    def strengthen(layer: str, std: float | None) -> float | None:
        return std and round(std * math.sqrt(before[layer] / after[layer]), 5)

    layers: tuple[Conv | Dense, ...] = (*small.convs, *small.dense)
    for layer in layers:
        small = small.with_layers(layer.name, std=strengthen(layer.name, layer.std))
    return replace(small, output_std=strengthen(spec.output_name, spec.output_std))


def _fan_in(spec: Spec) -> dict[str, int]:
    """Return how many inputs each unit of a layer adds up, by the layer's name."""
    found, channels = {}, spec.in_channels
    for conv in spec.convs:
        found[conv.name] = conv.kernel_size**2 * (channels // spec.groups(conv))
        channels = conv.out_channels
    inputs = math.prod((spec.flat[0], spec.flat[1], spec.flat[1]))
    for name, units in (*((d.name, d.units) for d in spec.dense), (spec.output_name, 0)):
        found[name], inputs = inputs, units
    return found


def halve(spec: Spec) -> Spec:
    """Return one of a network's two columns, as the paper compared it (section 3.2, note 2).

    Half the channels in conv1 to conv4; conv5 and the fully-connected layers keep all theirs, which
    is net 145-half of the 2012 source (facts 0).
    """
    convs = (*narrow(spec, 2).convs[:-1], spec.convs[-1])
    return replace(spec, name=f"{spec.name}_half", towers=1, convs=convs)


def merge_towers(spec: Spec) -> Spec:
    """Return the network without towers, its first weights drawn as they were."""
    return replace(spec, name=f"{spec.name}_one", towers=1)


STRONGER = ("conv3", "conv4", "conv5")  # weights of .03 there in the source of 2012 (facts 1b)


@dataclass(frozen=True, slots=True)
class Setup:
    """A network and how it is trained."""

    spec: Spec
    recipe: Recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """What the claims are run with."""

    name: str
    description: str
    data: str | None  # a source by default; None: the user names one
    image_size: int  # prepared images, pixels on a side
    raw: bool  # kept as pixels, nothing to decode
    num_images: tuple[int, int] | None  # training and test images that are taken; None: all
    seeds: int  # of every claim but those of `more_seeds`
    more_seeds: Mapping[str, int] = field(default_factory=dict)  # by claim, where with `seeds` the
    # interval would be too wide
    plain: Setup  # in which LRN, overlap, augmentation and colour noise are switched
    five: Setup  # of five convolutions: everything else is switched in it
    printed: Spec  # the same with the .01 that the paper prints for every weight
    dropout: Setup  # at a constant rate where `dropout_steps` is none
    dropout_steps: Setup | None = None  # at one, for the passes until an arm converges; None: they
    # are asked of `dropout` where its rate is constant, else not at all
    four: Setup  # of Figure 1: no regularisation at all
    learning_rates: tuple[float, ...]  # among which each arm of Figure 1 has its own best
    tanh_learning_rates: tuple[float, ...] = ()  # among which tanh has; none: the same
    trial_epochs: float | None  # of the runs that choose it; None: to their end
    relu_epochs: float | None  # that ReLU needed there (benchmarks/results); None: unknown
    without_lrn: Setup | None  # the 13 % of the paper's note on LRN, without it
    with_lrn: Setup | None  # the 11 %, with it and with everything else that changed


def make_arm(name: str, setup: Setup, spec: Spec | None = None, **recipe: object) -> Arm:
    """Return a side of a comparison: a network of the scale, or another, with fields changed."""
    return Arm(name=name, spec=spec or setup.spec, recipe=setup.recipe.with_(**recipe))


def _with_milestones(recipe: Recipe, *milestones: float, **changes: object) -> Recipe:
    return recipe.with_(schedule="milestones", milestones=milestones, **changes)


# The paper's rule without a watched split: what is compared is not chosen by the test images.
_SMALL = _with_milestones(
    PAPER_RECIPE, 0.75, 0.9,
    name="small", epochs=8, batch_size=64, log_every=1, checkpoint_every=400,
    validate_every=2,
)  # fmt: skip
_BARE = {"weight_decay": 0.0, "crop": "centre", "mirror": False, "pca_jitter": 0.0}

# cuda-convnet's, of which batches 1 to 4 came alone for two thirds of the time (facts 6).
_LOCAL = PAPER_RECIPE.with_(
    name="local", lr=0.001, bias_lr=2.0, weight_decay=0.0, pca_jitter=0.0, test_crops=9,
    validate_every=5,
)  # fmt: skip


def _weight_decays(output: float) -> tuple[LayerDecay, ...]:
    of_layers = {"local3": 0.004, "local4": 0.004, "fc10": output}
    return tuple(LayerDecay(name=name, decay=decay) for name, decay in of_layers.items())


_LOCAL_13 = _with_milestones(
    _LOCAL, 120 / 140, 130 / 140, epochs=140, weight_decays=_weight_decays(0.004)
)
_LOCAL_11 = _with_milestones(
    _LOCAL, 430 / 450, 440 / 450, epochs=450, weight_decays=_weight_decays(0.01)
)

_PAPER_10 = replace(PAPER, num_classes=10)
_SOURCE_10 = _PAPER_10.with_layers(*STRONGER, std=0.03)
_FIVE = shrink(_SOURCE_10)


def _half_width(spec: Spec) -> Spec:
    return replace(narrow(spec, 2), name=f"{spec.name}_narrow")


_SMALL_LOCAL = _SMALL.with_(
    lr=0.003, bias_lr=2.0, weight_decay=0.0, pca_jitter=0.0, validate_every=3
)
SMALL = Scale(
    name="small",
    description="a part of CIFAR-10, narrow networks, an hour or so on two cores",
    data="cifar10",
    image_size=32,
    raw=True,
    num_images=(8_000, 5_000),
    seeds=3,
    plain=Setup(_FIVE, _SMALL),
    five=Setup(_FIVE, _SMALL),
    printed=shrink(_PAPER_10),
    dropout=Setup(_FIVE, _SMALL.with_(milestones=(), validate_every=1)),
    four=Setup(
        FOUR_LAYERS,
        _SMALL.with_(milestones=(), epochs=25, batch_size=128, validate_every=25, **_BARE),
    ),
    learning_rates=(0.002, 0.004, 0.008, 0.016, 0.032),
    trial_epochs=3,
    relu_epochs=7.5,
    without_lrn=Setup(
        _half_width(LOCAL_13), _SMALL_LOCAL.with_(epochs=3, weight_decays=_weight_decays(0.004))
    ),
    with_lrn=Setup(
        _half_width(LOCAL_11), _SMALL_LOCAL.with_(epochs=9, weight_decays=_weight_decays(0.01))
    ),
)

# What `night` was chosen by, before any run that is reported: docs/claims.md.
#
# Channels of a tower are whole vectors. Without dropout, which would ask for twice the passes, and
# without crops and mirror images, which leave LRN, overlap and colour little to do.
_NIGHT_WIDE = shrink(
    _SOURCE_10.with_layers("conv1", out_channels=128)
    .with_layers("conv3", "conv4", out_channels=256)
)  # fmt: skip
_NIGHT_FIVE = with_dropout(_NIGHT_WIDE, rate=0.0)
# Units enough to learn the images by heart.
_NIGHT_UNITS = _NIGHT_WIDE.with_layers("fc6", "fc7", units=1024)
_NIGHT = _with_milestones(
    PAPER_RECIPE, 0.75, 0.92,
    name="night", epochs=24, batch_size=128, log_every=10,
    checkpoint_every=1000, validate_every=6, precision="fp32",
)  # fmt: skip
_NIGHT_BARE = _NIGHT.with_(crop="centre", mirror=False, pca_jitter=0.0)
_NIGHT_LOCAL = _with_milestones(
    _LOCAL, 0.7, 0.9,
    name="night_local", batch_size=128, log_every=10, checkpoint_every=1000,
    validate_every=12, precision="fp32",
)  # fmt: skip
NIGHT = replace(
    SMALL,
    name="night",
    description="a quarter of CIFAR-10, learned by heart; a night on two cores",
    num_images=(12_500, 10_000),
    seeds=5,
    # By what the pairs of the first seeds differed in: with so many, half of the interval is
    # expected to be at most .8 points. dropout-gap takes the runs of dropout.
    more_seeds={
        "overlap": 8,
        "augment": 7,
        "augment-views": 7,
        "pca": 10,
        "dropout": 14,
        "dropout-gap": 14,
        "towers": 8,
        "towers-full": 8,
        "lrn-alpha": 8,
        "init-pixels": 8,
        "init-both": 8,
        "depth-conv3": 14,
        "depth-conv4": 22,
        "depth-conv5": 22,
    },
    plain=Setup(_NIGHT_FIVE, _NIGHT_BARE),
    five=Setup(_NIGHT_FIVE, _NIGHT.with_(epochs=20, validate_every=10, pca_jitter=0.0)),
    printed=replace(
        shrink(
            _PAPER_10.with_layers("conv1", out_channels=128).with_layers(
                "conv3", "conv4", out_channels=256
            )
        ),
        dropout=_NIGHT_FIVE.dropout,
    ),
    dropout=Setup(_NIGHT_UNITS, _NIGHT_BARE),
    dropout_steps=Setup(_NIGHT_UNITS, _NIGHT_BARE.with_(lr=0.005, milestones=(), validate_every=2)),
    four=Setup(
        replace(FOUR_LAYERS, image_size=24),  # the centre: half the work
        _NIGHT_BARE.with_(
            epochs=64, milestones=(), weight_decay=0.0, log_every=1, validate_every=16
        ),
    ),
    # After 3 passes tanh has its lowest error at .032, and after 40 it stands still there at 34 %.
    learning_rates=(0.002, 0.004),
    tanh_learning_rates=(0.008, 0.016),
    trial_epochs=12,
    relu_epochs=10.5,
    without_lrn=Setup(
        _half_width(LOCAL_13),
        _NIGHT_LOCAL.with_(epochs=12, lr=0.003, weight_decays=_weight_decays(0.004)),
    ),
    with_lrn=Setup(
        _half_width(LOCAL_11),
        _NIGHT_LOCAL.with_(epochs=36, lr=0.003, weight_decays=_weight_decays(0.01)),
    ),
)

# The five-convolution networks have no schedule on CIFAR-10 of 2012: theirs is the paper's in
# proportion, 90 epochs with drops where the 2012 run had them (facts 3b).
_CIFAR_FIVE = _with_milestones(
    PAPER_RECIPE, 25 / 90, 51 / 90, 79 / 90, name="cifar", validate_every=2
)
_WIDE = shrink(_SOURCE_10, width=2)
CIFAR_FULL = replace(
    SMALL,
    name="cifar",
    description="CIFAR-10 whole, at the schedules of 2012; wants a GPU",
    num_images=None,
    seeds=5,
    plain=Setup(LOCAL_11, _LOCAL_11),
    five=Setup(_WIDE, _CIFAR_FIVE),
    printed=shrink(_PAPER_10, width=2),
    dropout=Setup(_WIDE, _CIFAR_FIVE.with_(milestones=())),
    four=Setup(
        FOUR_LAYERS,
        _with_milestones(
            PAPER_RECIPE, name="four", lr=0.001, epochs=150, log_every=1, validate_every=5, **_BARE
        ),
    ),
    learning_rates=(0.001, 0.002, 0.004, 0.008, 0.016),
    trial_epochs=None,
    relu_epochs=None,
    without_lrn=Setup(LOCAL_13, _LOCAL_13),
    with_lrn=Setup(LOCAL_11, _LOCAL_11),
)

_CONSTANT = _with_milestones(AS_RUN_RECIPE, conv1_slow_from=None, conv1_frozen_from=None)
_FULL = Setup(AS_RUN, AS_RUN_RECIPE)
IMAGENET = Scale(
    name="imagenet",
    description="the full network as run in 2012, on the photographs that --data names; wants GPUs",
    data=None,
    image_size=256,
    raw=False,
    num_images=None,
    seeds=3,
    plain=_FULL,
    five=_FULL,
    printed=AS_RUN.with_layers(*STRONGER, std=0.01),
    dropout=Setup(AS_RUN, _CONSTANT),
    four=Setup(with_dropout(AS_RUN, rate=0.0), _CONSTANT.with_(**_BARE)),
    learning_rates=(0.001, 0.003, 0.01, 0.03),
    trial_epochs=None,
    relu_epochs=None,
    without_lrn=Setup(without_lrn(AS_RUN), AS_RUN_RECIPE),  # net 148 (facts 0)
    with_lrn=_FULL,
)

# Ten classes of ImageNet, at full size. Pixels are kept as they are: a GPU takes several runs at
# once, faster than photographs are decoded. How it was chosen: docs/claims.md.
_IMAGENETTE = Setup(
    SINGLE,
    PAPER_RECIPE.with_(
        name="imagenette", epochs=50, schedule="one-cycle", lr_inside_velocity=False,
        checkpoint_every=100_000, validate_every=50,
    ),
)  # fmt: skip
IMAGENETTE = replace(
    IMAGENET,
    name="imagenette",
    description="the full-size network on some ten thousand photographs; wants a GPU",
    data="imagenette",
    raw=True,
    plain=_IMAGENETTE,
    five=replace(_IMAGENETTE, spec=PAPER.with_layers(*STRONGER, std=0.03)),
    printed=PAPER,
    dropout=_IMAGENETTE,
    four=Setup(
        with_dropout(SINGLE, rate=0.0),
        _IMAGENETTE.recipe.with_(schedule="milestones", **_BARE),
    ),
    without_lrn=None,
    with_lrn=None,
)

SCALES = {scale.name: scale for scale in (SMALL, NIGHT, CIFAR_FULL, IMAGENET, IMAGENETTE)}


def find_scale(name: str) -> Scale:
    """Return the named scale; `ConfigError` with the nearest name where there is none."""
    return find_named("scale", SCALES, name)
