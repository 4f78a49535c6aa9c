"""What a claim of the paper is, as a value, and what its runs gave: the lines of ``results.jsonl``.

A claim is written down whole before anything of it runs: which arm is said to be better, by how
much, and how much must be seen to say that it holds. `grid` runs the arms, `verdict` compares what
they gave, `report` shows it. A finished run is one line, added whole, and read whatever a kill has
left of others.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from alexnet.claims.verdict import Measurement
from alexnet.config import differences, from_json
from alexnet.errors import AlexNetError
from alexnet.files import translate_os_error
from alexnet.old_names import dict_with_old_names
from alexnet.recipes import Recipe
from alexnet.spec import Spec

FILE = "results.jsonl"
LINE_BEGINS = b'{"key": "'  # a `RunResult`, as `append_result` writes it
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
    expected_epochs: float | None = None  # after which its runs have what is measured, by earlier
    # ones: for the estimate of their cost alone. None: at their end

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
    seeds: int = 3  # runs of each arm: seeds 0, 1, 2
    all_images: bool = False  # trained on all images, whatever part of them the scale takes
    confounded: bool = False  # more than the switch differs, as it did in the paper
    note: str = ""  # what confounds it, or how this scale departs from the paper

    @property
    def relevant_effect(self) -> float:
        """The smallest effect that would matter: the paper's, else one point, or a quarter more."""
        return self.min_effect or self.paper_effect or (1.25 if self.ratio else 0.01)

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
    """A claim without pairs of runs to compare: arithmetic, or what networks give together."""

    name: str
    section: str
    sentence: str
    rows: tuple[CheckRow, ...]
    is_exact: bool = True  # False: measured once, on networks that other seeds would make anew

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


def list_changes(first: Arm, second: Arm) -> dict[str, tuple[Any, Any]]:
    """Return what differs between two arms: fields by their paths, with both values.

    A part that one arm lacks (the norm of a layer, a layer) is one entry, whose values are the
    part's fields as a dictionary, or ``None``. Names and seeds are left out.
    """
    found: dict[str, tuple[Any, Any]] = {}
    if first.measure != second.measure:
        found["measure"] = first.measure, second.measure
    both = ("spec", first.spec, second.spec), ("recipe", first.recipe, second.recipe)
    for kind, old, new in both:
        parts: dict[str, dict[str, tuple[Any, Any]]] = {}
        for path, values in differences(old, new).items():
            part, _, field = path.rpartition(".")
            if field not in ("name", "seed"):
                parts.setdefault(part, {})[field] = values
        for part, fields in sorted(parts.items()):
            whole = ".".join(filter(None, (kind, part)))
            sides = [{f: v[i] for f, v in fields.items() if v[i] is not None} for i in (0, 1)]
            if part and len(fields) > 1 and not all(sides):
                found[whole] = sides[0] or None, sides[1] or None
            else:
                found |= {f"{whole}.{field}": values for field, values in fields.items()}
    return found


def varied_fields(first: Arm, second: Arm) -> frozenset[str]:
    """Return the fields in which two arms differ, names of layers and of the values left out.

    ``spec.convs.norm`` where the norm of any convolution is there or not, ``spec.convs.norm.k``
    where a constant of it differs, ``spec.convs`` where one network has a convolution that the
    other lacks, ``measure`` where one run is measured in two ways.
    """
    of_layers = r"(spec\.convs|spec\.dense|recipe\.weight_decays)\.[^.]+"
    found = {re.sub(of_layers, r"\1", path) for path in list_changes(first, second)}
    inside = {path for path in found if any(path.startswith(f"{whole}.") for whole in found)}
    return frozenset(found - inside)


@dataclass(frozen=True, kw_only=True, slots=True)
class CurvePoint:
    """One epoch of a learning curve."""

    epoch: int
    loss: float  # mean over the epoch's updates, in nats, as it was trained (dropout and all)
    train_error: float  # 0 to 1, mean over the epoch's updates, as it was trained
    test_error: float | None = None  # 0 to 1, one crop, at the epoch's end, where it was measured


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """A finished run, with everything needed to repeat it: one line of ``results.jsonl``.

    Measures, errors being 0 to 1: ``test_error`` (one crop), ``test_error_10_views`` (or 9, as
    `Recipe.test_crops` says), ``final_train_error`` (one crop, dropout off, on the training
    images), ``gap`` (test_error - final_train_error), ``epochs_to_25`` (passes until 25 % training
    error), ``epochs_to_converge`` (passes until the test error is within 2 points of the lowest),
    ``never_active`` and ``always_active`` (share of the units of the first hidden layer that no
    test image, or every one, activates; ``..._before`` with the initial weights).
    """

    key: str  # of spec, recipe, seed and data: the same run has the same key
    arms: tuple[str, ...]  # "relu/ReLU": what it was run for
    seed: int
    spec: Spec
    recipe: Recipe  # its seed is `seed`
    data: dict[str, str | int]  # name, fingerprint, train and test images
    seconds: float  # of the attempt that finished it; read from several lines, of all of these
    machine: str
    versions: dict[str, str]
    commit: str
    curve: tuple[CurvePoint, ...] = ()
    measures: dict[str, float] = field(default_factory=dict)
    censored: tuple[str, ...] = ()  # measures that the run ended before: the true value is larger
    failed: str = ""  # why training could not go on; the network then counts as one that guesses

    @property
    def last_train_error(self) -> float:
        """The training error of the last epoch, 0 to 1; 1 where the run has no curve."""
        return self.curve[-1].train_error if self.curve else 1.0

    def measurement(self, name: str) -> Measurement:
        """Return a measure, NaN where the run has none of it."""
        return Measurement(self.measures.get(name, float("nan")), censored=name in self.censored)


def results_by_seed(arm: Arm, results: Iterable[RunResult]) -> dict[int, RunResult]:
    """Return an arm's results by their seeds, without those that chose its learning rate."""
    recipe = replace(_as_trained(arm.recipe), seed=0)
    return {
        result.seed: result
        for result in results
        if result.seed != TUNING_SEED
        and result.spec == arm.spec
        and replace(_as_trained(result.recipe), seed=0) == recipe
    }


def _as_trained(recipe: Recipe) -> Recipe:
    """Return a recipe without what changes no result but by the rounding of sums."""
    return replace(recipe, threads=None, compile=False)


def trial_results(arm: Arm, results: Iterable[RunResult]) -> list[RunResult]:
    """Return the runs that choose an arm's learning rate."""
    recipes = [_as_trained(arm.trial_recipe(lr)) for lr in arm.learning_rates]
    return [
        result
        for result in results
        if result.spec == arm.spec and _as_trained(result.recipe) in recipes
    ]


def measurements_by_seed(
    claim: Claim, arm: Arm, results: Iterable[RunResult]
) -> dict[int, Measurement]:
    """Return what was measured of an arm by seed: what `verdict.compare` takes."""
    name = claim.measure_of(arm)
    return {
        seed: result.measurement(name)
        for seed, result in results_by_seed(arm, results).items()
        if name in result.measures
    }


def run_key(spec: Spec, recipe: Recipe, fingerprint: str) -> str:
    """Return what names a run: a hash of its network, its recipe with the seed, and its data.

    Fields are hashed under the names that they had first, so that a run keeps its key, and one
    that was begun its folder.
    """
    values = [from_json(type(value), asdict(value)) for value in (spec, _as_trained(recipe))]
    # through JSON, so that 1 is 1.0
    what = json.dumps([*map(dict_with_old_names, values), fingerprint], sort_keys=True)
    return hashlib.sha256(what.encode()).hexdigest()[:16]


def append_result(path: Path, result: RunResult) -> None:
    """Add a result's line; it is on the disk when this returns.

    A line that a kill has cut short is ended first, so that it spoils none but itself. Raises
    `AlexNetError` when the disk is full or cannot be written to.
    """
    line = json.dumps(asdict(result)).encode() + b"\n"
    with translate_os_error(path), path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else b"\n" + line
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def read_results(path: Path) -> list[RunResult]:
    """Return the results of a file, none where there is none; one of each key, the newest.

    What only an older line of its run has measured stays: a later claim asked for other measures of
    the same run.

    Lines that are cut short are passed over, and so are those of a version whose networks or
    recipes have fields that this one lacks: it cannot repeat them. Keys are made anew, so that a
    run stays the same one when a later version's networks or recipes have more fields.
    """
    if not path.is_file():
        return []
    found: dict[str, RunResult] = {}
    for line in path.read_bytes().splitlines():
        # A line that was cut short ends in the next one where files were put one behind another.
        line = line[max(0, line.rfind(LINE_BEGINS)) :]
        try:
            result = from_json(RunResult, json.loads(line))
        except (ValueError, AlexNetError):
            continue
        key = run_key(result.spec, result.recipe, str(result.data.get("fingerprint")))
        result = replace(result, key=key)
        found[key] = _add_measures(found[key], result) if key in found else result
    return list(found.values())


def _add_measures(older: RunResult, newer: RunResult) -> RunResult:
    """Return the newer of two results of a run, with what the older alone has measured."""
    if older.failed or older == newer:  # measures of a network that guesses, or a line twice
        return newer
    went_on = older.machine == newer.machine  # from a checkpoint, for another measure
    kept = (name for name in older.censored if name not in newer.measures)
    return replace(
        newer,
        measures={**older.measures, **newer.measures},
        censored=tuple(dict.fromkeys((*kept, *newer.censored))),
        seconds=round(newer.seconds + (older.seconds if went_on else 0.0), 1),
    )
