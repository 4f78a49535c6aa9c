"""The sizes at which the claims can be run, each a value: what networks, on how much, how long.

`small` fits into an hour or so on two processor cores. `cifar` is CIFAR-10 at the schedules of
2012, `imagenet` the full network on ImageNet or any prepared photographs: both want a GPU.
"""

from dataclasses import dataclass, replace

from alexnet.claims.claim import Arm
from alexnet.claims.networks import FOUR_LAYERS, LOCAL_11, LOCAL_13, in_small, narrowed
from alexnet.errors import ConfigError, did_you_mean
from alexnet.recipes import AS_RUN as AS_RUN_RECIPE
from alexnet.recipes import PAPER as PAPER_RECIPE
from alexnet.recipes import LayerDecay, Recipe
from alexnet.spec import Spec
from alexnet.variants import AS_RUN, PAPER, without_lrn

STRONGER = ("conv3", "conv4", "conv5")  # weights of .03 there in the source of 2012 (facts 1b)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """A network and how it is trained."""

    spec: Spec
    recipe: Recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """What the claims are run with."""

    name: str
    about: str
    data: str | None  # a source by default; None: the user names one
    size: int  # prepared images, pixels on a side
    raw: bool  # kept as pixels, nothing to decode
    images: tuple[int, int] | None  # training and test images that are taken; None: all
    seeds: int
    plain: Trained  # in which LRN, overlap, augmentation and colour noise are switched
    five: Trained  # of five convolutions: everything else is switched in it
    printed: Spec  # the same with the .01 that the paper prints for every weight
    dropout: Trained  # at a constant rate, or the schedule would say when either arm converges
    four: Trained  # of Figure 1: no regularisation at all
    rates: tuple[float, ...]  # among which each arm of Figure 1 has its own best
    trial_epochs: float | None  # of the runs that choose it; None: to their end
    without: Trained  # the 13 % of the paper's note on LRN, without it
    with_lrn: Trained  # the 11 %, with it and with everything else that changed


def arm_of(name: str, trained: Trained, spec: Spec | None = None, **recipe: object) -> Arm:
    """Return a side of a comparison: a network of the scale, or another, with fields changed."""
    return Arm(name=name, spec=spec or trained.spec, recipe=trained.recipe.with_(**recipe))


def _dropping(recipe: Recipe, *drops: float, **changes: object) -> Recipe:
    return recipe.with_(schedule="milestones", milestones=drops, **changes)


# The paper's rule without a watched split: what is compared is not chosen by the test images.
_SMALL = _dropping(
    PAPER_RECIPE, 0.75, 0.9,
    name="small", epochs=8, batch_size=64, compile=False, log_every=1, checkpoint_every=400,
    validate_every=2,
)  # fmt: skip
_BARE = {"weight_decay": 0.0, "crop": "centre", "mirror": False, "pca_jitter": 0.0}

# cuda-convnet's, of which batches 1 to 4 came alone for two thirds of the time (facts 6).
_LOCAL = PAPER_RECIPE.with_(
    name="local", lr=0.001, bias_lr=2.0, weight_decay=0.0, pca_jitter=0.0, test_crops=9,
)  # fmt: skip


def _decays(output: float) -> tuple[LayerDecay, ...]:
    of_layers = {"local3": 0.004, "local4": 0.004, "fc10": output}
    return tuple(LayerDecay(name=name, decay=decay) for name, decay in of_layers.items())


_LOCAL_13 = _dropping(_LOCAL, 120 / 140, 130 / 140, epochs=140, weight_decays=_decays(0.004))
_LOCAL_11 = _dropping(_LOCAL, 430 / 450, 440 / 450, epochs=450, weight_decays=_decays(0.01))

_FIVE = in_small(replace(PAPER, num_classes=10).with_layers(*STRONGER, std=0.03))
_SMALL_LOCAL = _SMALL.with_(
    lr=0.003, bias_lr=2.0, weight_decay=0.0, pca_jitter=0.0, validate_every=3
)
SMALL = Scale(
    name="small",
    about="a part of CIFAR-10, narrow networks, an hour or so on two cores",
    data="cifar10",
    size=32,
    raw=True,
    images=(8_000, 5_000),
    seeds=3,
    plain=Trained(spec=_FIVE, recipe=_SMALL),
    five=Trained(spec=_FIVE, recipe=_SMALL),
    printed=in_small(replace(PAPER, num_classes=10)),
    dropout=Trained(spec=_FIVE, recipe=_SMALL.with_(milestones=(), validate_every=1)),
    four=Trained(
        spec=FOUR_LAYERS,
        recipe=_SMALL.with_(milestones=(), epochs=25, batch_size=128, validate_every=25, **_BARE),
    ),
    rates=(0.002, 0.004, 0.008, 0.016, 0.032),
    trial_epochs=3,
    without=Trained(
        spec=narrowed(LOCAL_13, 2),
        recipe=_SMALL_LOCAL.with_(epochs=3, weight_decays=_decays(0.004)),
    ),
    with_lrn=Trained(
        spec=narrowed(LOCAL_11, 2),
        recipe=_SMALL_LOCAL.with_(epochs=9, weight_decays=_decays(0.01)),
    ),
)

# The five-convolution networks have no schedule on CIFAR-10 of 2012: theirs is the paper's in
# proportion, 90 epochs with drops where the 2012 run had them (facts 3b).
_CIFAR_FIVE = _dropping(PAPER_RECIPE, 25 / 90, 51 / 90, 79 / 90, name="cifar", validate_every=2)
_WIDE = in_small(replace(PAPER, num_classes=10).with_layers(*STRONGER, std=0.03), width=2)
CIFAR = replace(
    SMALL,
    name="cifar",
    about="CIFAR-10 whole, at the schedules of 2012; wants a GPU",
    images=None,
    seeds=5,
    plain=Trained(spec=LOCAL_11, recipe=_LOCAL_11.with_(validate_every=5)),
    five=Trained(spec=_WIDE, recipe=_CIFAR_FIVE),
    printed=in_small(replace(PAPER, num_classes=10), width=2),
    dropout=Trained(spec=_WIDE, recipe=_CIFAR_FIVE.with_(milestones=())),
    four=Trained(
        spec=FOUR_LAYERS,
        recipe=_dropping(
            PAPER_RECIPE, name="four", lr=0.001, epochs=150, log_every=1, validate_every=5, **_BARE
        ),
    ),
    rates=(0.001, 0.002, 0.004, 0.008, 0.016),
    trial_epochs=None,
    without=Trained(spec=LOCAL_13, recipe=_LOCAL_13.with_(validate_every=5)),
    with_lrn=Trained(spec=LOCAL_11, recipe=_LOCAL_11.with_(validate_every=5)),
)

_FULL = Trained(spec=AS_RUN, recipe=AS_RUN_RECIPE)
IMAGENET = Scale(
    name="imagenet",
    about="the full network as run in 2012, on the photographs that --data names; wants GPUs",
    data=None,
    size=256,
    raw=False,
    images=None,
    seeds=3,
    plain=_FULL,
    five=_FULL,
    printed=AS_RUN.with_layers(*STRONGER, std=0.01),
    dropout=Trained(spec=AS_RUN, recipe=_dropping(AS_RUN_RECIPE, conv1_slow_from=None,
                                                  conv1_frozen_from=None)),
    four=Trained(
        spec=replace(AS_RUN, dropout=replace(AS_RUN.dropout, rate=0.0)),
        recipe=_dropping(AS_RUN_RECIPE, conv1_slow_from=None, conv1_frozen_from=None, **_BARE),
    ),
    rates=(0.001, 0.003, 0.01, 0.03),
    trial_epochs=None,
    without=Trained(spec=without_lrn(AS_RUN), recipe=AS_RUN_RECIPE),  # net 148 (facts 0)
    with_lrn=_FULL,
)  # fmt: skip

SCALES = {scale.name: scale for scale in (SMALL, CIFAR, IMAGENET)}


def scale_named(name: str) -> Scale:
    """Return the named scale.

    Raises
    ------
    ConfigError
        When there is none, with the nearest name.
    """
    if name not in SCALES:
        raise ConfigError(f"No scale is called {name!r}.", did_you_mean(name, SCALES))
    return SCALES[name]
