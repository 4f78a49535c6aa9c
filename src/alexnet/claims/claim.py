"""What a claim of the paper is, as a value: two arms, a measure, and a verdict's rule.

A claim is written down whole before anything of it runs: which arm is said to be better, by how
much, and how much must be seen to say that it holds. Nothing here knows how arms are run
(`runner`), what numbers are made of the results (`statistics`), or how they are shown (`report`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Self

from alexnet.claims.statistics import Measured
from alexnet.config import differences
from alexnet.recipes import Recipe
from alexnet.spec import Spec

# Seed of the runs that choose an arm's learning rate. It is not among those that are compared, so
# that the choice is not made by the results that it is judged by.
TUNING_SEED = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One side of a comparison: a network and how it is trained and measured."""

    name: str  # "ReLU", "without LRN": as a report shows it
    spec: Spec
    recipe: Recipe  # its seed is replaced by each of the experiment's
    measure: str | None = None  # which of a result's measures; None: that of the claim. Two arms
    # that differ in this alone are one run, measured in two ways (one view, ten views)
    rates: tuple[float, ...] = ()  # learning rates of which each arm gets its own best, chosen with
    # `TUNING_SEED`; once it is chosen, `recipe.lr` is the best one
    trial_epochs: float | None = None  # of the runs that choose it; None: as many as of the others

    def trial(self, rate: float) -> Recipe:
        """Return how a run is trained that tries a rate."""
        epochs = self.trial_epochs or self.recipe.epochs
        return self.recipe.with_(lr=rate, seed=TUNING_SEED, epochs=epochs)


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """One sentence of the paper, and the experiment that asks whether it holds.

    The order of the arms is the claim: `first` is said to give the larger measure (the error
    without normalisation, the epochs that tanh needs), as `statistics.compare` takes them. The
    verdict's rule is `statistics.judged` with this claim's `ratio` and `enough`, written down
    before any run.
    """

    name: str  # "dropout-gap": unique
    group: str  # "dropout": claims that are asked for together, by this word
    section: str  # of the paper: "4.2", or "facts 1b" where the source of 2012 says it
    sentence: str  # what is claimed, in our words
    paper: str  # the paper's own number as text, with what it was measured on; or that it has none
    first: Arm
    second: Arm
    switch: str  # what alone differs, in words
    varied: frozenset[str]  # the fields that differ: {"spec.activation"}; see `varied_fields`
    measure: str = "test_error"  # a key of `Result.measures`
    measured: str = "test error"  # the same in words
    share: bool = True  # the measure is a share, 0 to 1, shown as percent; else a number
    ratio: bool = False  # compared as first / second; else as first - second
    paper_effect: float | None = None  # 0.014 for 1.4 points, 6.0 for six times; None: no number
    enough: float | None = None  # the effect from which on it holds in size too; None: any above 0
    whole: bool = False  # on all training images, whatever part of them the scale takes
    confounded: bool = False  # more than the switch differs, as it did in the paper
    note: str = ""  # what confounds it, or how this scale departs from the paper

    def measure_of(self, arm: Arm) -> str:
        """Return which measure counts for one of the claim's arms."""
        return arm.measure or self.measure


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of a check: what the paper or its source states, and what comes out here."""

    what: str
    stated: str
    ours: str
    agrees: bool
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """A claim that is arithmetic: it needs no training and no statistics."""

    name: str
    section: str
    sentence: str
    rows: tuple[Row, ...]

    @property
    def group(self) -> str:
        """The word that it is asked for by: its own name."""
        return self.name

    @property
    def agrees(self) -> bool:
        """Whether every line does."""
        return all(row.agrees for row in self.rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class Epoch:
    """One point of a learning curve."""

    epoch: int
    loss: float  # mean over the epoch's updates, in nats, as it was trained (dropout and all)
    train_error: float  # 0 to 1, mean over the epoch's updates, as it was trained
    test_error: float | None = None  # 0 to 1, one view, at the epoch's end, where it was measured


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """A finished run, with everything needed to repeat it: one line of ``results.jsonl``.

    Measures, shares being 0 to 1: ``test_error`` (one view), ``test_error_10_views`` (or 9, as
    `Recipe.test_crops` says), ``final_train_error`` (one view, dropout off, on the training
    images), ``gap`` (test_error - final_train_error), ``epochs_to_25`` (passes until 25 % training
    error), ``epochs_to_converge`` (passes until the test error is within 2 points of the lowest).
    """

    key: str  # of spec, recipe, seed and data: the same run has the same key
    arms: tuple[str, ...]  # "relu/ReLU": what it was run for
    seed: int
    spec: Spec
    recipe: Recipe  # its seed is `seed`
    data: dict[str, str | int]  # name, fingerprint, train and test images
    seconds: float  # of the attempt that finished it
    machine: str
    versions: dict[str, str]
    commit: str
    curve: tuple[Epoch, ...] = ()
    measures: dict[str, float] = field(default_factory=dict)
    capped: tuple[str, ...] = ()  # measures that the run ended before: the true value is larger
    failed: str = ""  # why training could not go on; the network then counts as one that guesses

    def of(self, arm: Arm) -> bool:
        """Whether this is a run of the arm, with whatever seed that is compared."""
        same = replace(self.recipe, seed=0) == replace(arm.recipe, seed=0)
        return same and self.spec == arm.spec and self.seed != TUNING_SEED

    def with_arms(self, *arms: str) -> Self:
        """Return the result as run for other arms."""
        return replace(self, arms=arms)


def by_seed(arm: Arm, results: Iterable[Result]) -> dict[int, Result]:
    """Return an arm's results by their seeds."""
    return {result.seed: result for result in results if result.of(arm)}


def values_of(claim: Claim, arm: Arm, results: Iterable[Result]) -> dict[int, Measured]:
    """Return what was measured of an arm by seed: what `statistics.compare` takes."""
    name = claim.measure_of(arm)
    return {
        seed: Measured(result.measures[name], capped=name in result.capped)
        for seed, result in by_seed(arm, results).items()
        if name in result.measures
    }


def varied_fields(first: Arm, second: Arm) -> frozenset[str]:
    """Return the fields in which two arms differ, names of layers and of the values left out.

    ``spec.convs.norm`` where the norm of any convolution is there or not, ``spec.convs.norm.k``
    where a constant of it differs, ``spec.convs`` where one network has a convolution that the
    other lacks, ``measure`` where one run is measured in two ways.
    """
    found = {"measure"} if first.measure != second.measure else set()
    old, new = ({conv.name: conv for conv in arm.spec.convs} for arm in (first, second))
    if list(old) != list(new):
        found.add("spec.convs")
    for name in old.keys() & new.keys():
        for part in ("norm", "within_channel_lrn", "pool"):
            if (getattr(old[name], part) is None) != (getattr(new[name], part) is None):
                found.add(f"spec.convs.{part}")
    kinds = ("spec", first.spec, second.spec), ("recipe", first.recipe, second.recipe)
    for kind, before, after in kinds:
        for path in differences(before, after):
            parts = path.split(".")
            of_layer = parts[0] in ("convs", "dense", "weight_decays")
            found.add(".".join((kind, parts[0], *parts[2:]) if of_layer else (kind, *parts)))
    found -= {"spec.name", "recipe.name", "recipe.seed"}
    inside = {path for path in found if any(path.startswith(f"{whole}.") for whole in found)}
    return frozenset(found - inside)
