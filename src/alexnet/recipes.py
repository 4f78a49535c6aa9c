"""The named ways to train a network, each a value. Every field can be set on the command line."""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

from alexnet.config import require, require_choices, require_whole
from alexnet.errors import ConfigError, did_you_mean, find_named

MAX_BATCH = 1 << 20  # images a step; the largest batches in print are of 2^16
MAX_THREADS = 1024  # of a process; the OpenMP of PyTorch ends the process at a million
MAX_COUNT = 1 << 53  # of steps, and of what is counted in them


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerDecay:
    """The weight decay of one layer, where it is not that of the others."""

    name: str  # of the layer
    decay: float

    def __post_init__(self) -> None:
        require(self, ["decay"], f"at least 0, for layer {self.name} too", lambda n: n >= 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How a network is trained; values that cannot work are a `ConfigError`.

    Fractions count from 0, the first step, to 1, the last one planned by `epochs`.
    """

    name: str
    epochs: float = 90  # passes over the training images (section 5)
    batch_size: int = 128  # images a step, over all devices (section 5)
    seed: int = 0  # of the initial weights, the order, the crops and the dropout

    # The update rule.
    lr: float = 0.01  # of the weights; the highest rate of the schedule (section 5)
    bias_lr: float = 1.0  # the biases' rate as a multiple of `lr`; 2 in the 2012 source (facts 3b)
    bias_lr_drops: bool = True  # whether the biases' rate follows the schedule
    momentum: float = 0.9  # section 5
    weight_decay: float = 5e-4  # on weights, never on biases (section 5, facts 3a)
    weight_decays: tuple[LayerDecay, ...] = ()  # of layers that have one of their own, as in the
    # CIFAR-10 networks of 2012 (facts 6)
    lr_inside_velocity: bool = True  # v keeps the rate it was built with (section 5, facts 3a)

    freeze: tuple[str, ...] = ()  # layers whose weights stay as they are, and ranges of layers:
    # ("conv1-conv5",)

    # The schedule of the learning rate.
    schedule: Literal["plateau", "milestones", "one-cycle"] = "plateau"
    patience: int = 5  # plateau: validations without a better error; not in the paper, assumed
    max_reductions: int = 3  # plateau: how often the rate is divided by 10 (section 5)
    milestones: tuple[float, ...] = ()  # milestones: fractions at which the rate is divided by 10
    warmup: float = 0.15  # one-cycle: fraction of the run in which the rate rises
    conv1_slow_from: float | None = None  # fraction from which conv1 has the lowest rate
    conv1_frozen_from: float | None = None  # fraction from which conv1 no longer changes

    # The images.
    crop_area: float | None = None  # smallest share of the image a crop covers, at any zoom;
    # None: crops of the network's size from 256x256 (section 4.1)
    crop: Literal["random", "centre"] = "random"  # where crops of the network's size are taken;
    # all from the centre: no augmentation by crops
    mirror: bool = True  # half of the images, left to right (section 4.1)
    pca_jitter: float = 0.1  # standard deviation along each colour axis, in units of the
    # training set's own (section 4.1, facts 4)
    pca_axes: Literal["stdevs", "eigenvalues", "copied"] = "stdevs"  # lengths of the axes: the
    # paper prints eigenvalues, its source used their roots; "copied" are the constants that other
    # implementations copy from each other, whatever the images (facts 4)
    pca_jitter_until: float = 1.0  # fraction at which the colour noise ends
    pca_jitter_divisor: float = 1.0  # noisy images are divided by it; 1.1 in 2012 (facts 4)
    label_smoothing: float = 0.0  # share of the target spread over all classes
    last_batch: Literal["run-on", "short", "drop"] = "run-on"  # what an epoch does with images
    # that fill no batch: goes on into the next epoch, takes fewer, leaves them out
    max_corrupt: float = 0.001  # share of the training images that may turn out damaged and be
    # replaced by others before the training stops

    # What can go wrong.
    on_nan: Literal["stop", "skip"] = "stop"  # at a loss that is no number: end, or leave the
    # batch out; the tenth in a row ends it
    spike: float | None = None  # a loss so many times the median of the last 200 is treated the
    # same; None: no loss is too large

    # The machine.
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 where the device has it
    compile: bool = True  # the fast form of the network, by torch.compile where that gains
    threads: int | None = None  # processor threads; None: all
    max_steps: int | None = None  # stop here, whatever `epochs` says
    checkpoint_every: int = 500  # steps
    log_every: int = 10  # steps
    validate_every: float = 1.0  # epochs
    test_crops: Literal[1, 9, 10] = 10  # of the test at the end (`augment.crop_offsets`)

    def __post_init__(self) -> None:
        require_choices(self)
        require_whole(self, ["batch_size"], 1, MAX_BATCH)
        require_whole(self, ["threads"], 1, MAX_THREADS)
        require_whole(self, ["seed"], 0, 2**32 - 1)
        require_whole(self, ["max_reductions"], 0, MAX_COUNT)
        counts = ("checkpoint_every", "log_every", "max_steps", "patience")
        require_whole(self, counts, 1, MAX_COUNT)
        positive = ("epochs", "lr", "pca_jitter_divisor", "validate_every")
        require(self, positive, "above 0, and a number", lambda number: number > 0)
        require(self, ("weight_decay", "pca_jitter", "bias_lr"), "at least 0", lambda n: n >= 0)
        shares = ("momentum", "label_smoothing", "warmup", "max_corrupt")
        require(self, shares, "at least 0 and below 1", lambda number: 0 <= number < 1)
        moments = ("milestones", "conv1_slow_from", "conv1_frozen_from", "pca_jitter_until")
        require(self, moments, "0 to 1", lambda number: 0 <= number <= 1)
        require(self, ["spike"], "above 1", lambda number: number > 1)
        require(self, ["crop_area"], "above 0 and at most 1", lambda number: 0 < number <= 1)

    def with_(self, **changes: Any) -> Self:
        """Return a copy with some fields changed; a `ConfigError` where there is no such field."""
        known = [field.name for field in fields(self)]
        for name in changes:
            if name not in known:
                raise ConfigError(f"No setting is called {name!r}.", did_you_mean(name, known))
        return replace(self, **changes)


# As the paper prints it. Goes with the network of the same name.
PAPER = Recipe(name="paper")

# As the 2012 source ran it (facts 3b): rates of biases doubled and never dropped, drops after 25,
# 51 and 79 of 90 epochs, conv1 slowed at 67 and frozen at 72, colour noise off at 67; the last
# batch of an epoch short, as the batches of 2012 came (facts 4).
AS_RUN = PAPER.with_(
    name="as_run", bias_lr=2.0, bias_lr_drops=False,
    schedule="milestones", milestones=(25 / 90, 51 / 90, 79 / 90),
    conv1_slow_from=67 / 90, conv1_frozen_from=72 / 90,
    pca_jitter_until=67 / 90, pca_jitter_divisor=1.1, last_batch="short",
)  # fmt: skip

# BVLC's solver: 450,000 steps of 256, a tenth every 100,000, no colour noise (facts 3d).
CAFFE = PAPER.with_(
    name="caffe", batch_size=256, bias_lr=2.0, pca_jitter=0.0,
    schedule="milestones", milestones=(100 / 450, 200 / 450, 300 / 450, 400 / 450),
)  # fmt: skip

# For a few thousand photographs: the default.
FAST = PAPER.with_(
    name="fast", epochs=32, batch_size=64, schedule="one-cycle", lr_inside_velocity=False,
    crop_area=0.5, label_smoothing=0.1, validate_every=4,
)  # fmt: skip

# `fast` in larger batches, which a GPU needs to be busy: twice the paper's batch at twice its rate,
# which matched in 2012 (facts 3b); the rate rises to that over the schedule's warm-up. Linear in
# `fast`'s own batch it would be 0.04. One training was made with it, and cut off before its test
# (benchmarks/results/2026-11-29_imagenette).
FAST_GPU = FAST.with_(name="fast-gpu", batch_size=256, lr=0.02)

# For the CIFAR networks on CIFAR-10, in minutes on a laptop. Their weights start from pixels of
# 0-255, hence the low rate; the decay is that of the convolutions of 2012, for every layer.
CIFAR = PAPER.with_(
    name="cifar", epochs=20, lr=0.003, weight_decay=0.004, schedule="one-cycle",
    lr_inside_velocity=False, pca_jitter=0.0, validate_every=4,
)  # fmt: skip

RECIPES = {recipe.name: recipe for recipe in (FAST, FAST_GPU, PAPER, AS_RUN, CAFFE, CIFAR)}


def recipe_named(name: str) -> Recipe:
    """Return the named recipe; `ConfigError` with the nearest name where there is none."""
    return find_named("recipe", RECIPES, name)
