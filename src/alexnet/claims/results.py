"""``results.jsonl``: one line a finished run, added whole, read whatever a kill has left."""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from alexnet.claims.claim import TUNING_SEED, Arm, Claim
from alexnet.claims.verdict import Measurement
from alexnet.config import from_json
from alexnet.errors import AlexNetError
from alexnet.files import translate_os_error
from alexnet.old_names import dict_with_old_names
from alexnet.recipes import Recipe
from alexnet.spec import Spec

FILE = "results.jsonl"


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
    curve: tuple[CurvePoint, ...] = ()
    measures: dict[str, float] = field(default_factory=dict)
    censored: tuple[str, ...] = ()  # measures that the run ended before: the true value is larger
    failed: str = ""  # why training could not go on; the network then counts as one that guesses

    def measurement(self, name: str) -> Measurement:
        """Return a measure, no number where the run has none of it."""
        return Measurement(self.measures.get(name, float("nan")), censored=name in self.censored)


def results_by_seed(arm: Arm, results: Iterable[RunResult]) -> dict[int, RunResult]:
    """Return an arm's results by their seeds, without those that chose its learning rate."""
    recipe = replace(arm.recipe, seed=0)
    return {
        result.seed: result
        for result in results
        if result.seed != TUNING_SEED
        and result.spec == arm.spec
        and replace(result.recipe, seed=0) == recipe
    }


def trial_results(arm: Arm, results: Iterable[RunResult]) -> list[RunResult]:
    """Return the runs that choose an arm's learning rate."""
    recipes = [arm.trial_recipe(lr) for lr in arm.learning_rates]
    return [result for result in results if result.spec == arm.spec and result.recipe in recipes]


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
    recipe = replace(recipe, threads=None)  # changes no result
    values = [from_json(type(value), asdict(value)) for value in (spec, recipe)]  # 1 is 1.0
    what = json.dumps([*map(dict_with_old_names, values), fingerprint], sort_keys=True)
    return hashlib.sha256(what.encode()).hexdigest()[:16]


def append_result(path: Path, result: RunResult) -> None:
    """Add a result's line; it is on the disk when this returns.

    A line that a kill has cut short is ended first, so that it spoils none but itself.

    Raises
    ------
    AlexNetError
        When the disk is full or cannot be written to.
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
    """Return the results of a file, none where there is none; the newest of each key.

    Lines that are cut short are passed over, and so are those of a version whose networks or
    recipes have fields that this one lacks: it cannot repeat them. Keys are made anew, so that a
    run stays the same one when a later version's networks or recipes have more fields.
    """
    if not path.is_file():
        return []
    found: dict[str, RunResult] = {}
    for line in path.read_bytes().splitlines():
        try:
            result = from_json(RunResult, json.loads(line))
        except (ValueError, AlexNetError):
            continue
        key = run_key(result.spec, result.recipe, str(result.data.get("fingerprint")))
        found[key] = replace(result, key=key)
    return list(found.values())
