"""What a claim of the paper is, as a value: two arms, a measure, and a verdict's rule.

A claim is written down whole before anything of it runs: which arm is said to be better, by how
much, and how much must be seen to say that it holds. `grid` runs the arms, `verdict` compares what
they gave, `report` shows it.
"""

from dataclasses import dataclass

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
    # that differ in this alone are one run, measured in two ways (one crop, ten crops)
    learning_rates: tuple[float, ...] = ()  # of which each arm gets its own best, chosen with
    # `TUNING_SEED`; once it is chosen, `recipe.lr` is the best one
    trial_epochs: float | None = None  # of the runs that choose it; None: as many as of the others

    def trial_recipe(self, lr: float) -> Recipe:
        """Return how a run is trained that tries a learning rate."""
        epochs = self.trial_epochs or self.recipe.epochs
        return self.recipe.with_(lr=lr, seed=TUNING_SEED, epochs=epochs)


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """One sentence of the paper, and the experiment that asks whether it holds.

    The order of the arms is the claim: `first` is said to give the larger measure (the error
    without normalisation, the epochs that tanh needs), as `verdict.compare` takes them. The
    verdict's rule is `verdict.decide_verdict` with this claim's `ratio` and `min_effect`.
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
    measure: str = "test_error"  # a key of `RunResult.measures`
    measure_text: str = "test error"  # the same in words
    is_fraction: bool = True  # the measure is 0 to 1, shown as percent; else a number
    ratio: bool = False  # compared as first / second; else as first - second
    paper_effect: float | None = None  # 0.014 for 1.4 points, 6.0 for six times; None: no number
    min_effect: float | None = None  # at which it holds in size too; None: any above 0
    all_images: bool = False  # trained on all images, whatever part of them the scale takes
    confounded: bool = False  # more than the switch differs, as it did in the paper
    note: str = ""  # what confounds it, or how this scale departs from the paper

    @property
    def measure_title(self) -> str:
        """The measure in words, with a capital first and the other letters as they are."""
        return self.measure_text[:1].upper() + self.measure_text[1:]

    def measure_of(self, arm: Arm) -> str:
        """Return which measure counts for one of the claim's arms."""
        return arm.measure or self.measure


@dataclass(frozen=True, slots=True)
class CheckRow:
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
    rows: tuple[CheckRow, ...]

    @property
    def group(self) -> str:
        """The word that it is asked for by: its own name."""
        return self.name

    @property
    def agreeing(self) -> int:
        """How many lines agree."""
        return sum(row.agrees for row in self.rows)

    @property
    def agrees(self) -> bool:
        """Whether every line does."""
        return self.agreeing == len(self.rows)


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
    pairs = ("spec", first.spec, second.spec), ("recipe", first.recipe, second.recipe)
    for kind, before, after in pairs:
        for path in differences(before, after):
            parts = path.split(".")
            of_layer = parts[0] in ("convs", "dense", "weight_decays")
            found.add(".".join((kind, parts[0], *parts[2:]) if of_layer else (kind, *parts)))
    found -= {"spec.name", "recipe.name", "recipe.seed"}
    inside = {path for path in found if any(path.startswith(f"{whole}.") for whole in found)}
    return frozenset(found - inside)
