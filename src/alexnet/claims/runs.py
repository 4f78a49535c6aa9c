"""One run of one arm with one seed, from its newest checkpoint to its result.

It runs in a process of its own, or on another machine, and speaks through the run's folder and
the result that it returns.
"""

import contextlib
import math
import time
from collections import defaultdict, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

import torch

from alexnet.claims.claim import CurvePoint, RunResult
from alexnet.data.loader import evaluation_batches
from alexnet.data.shards import PreparedData, Split, open_prepared
from alexnet.errors import AlexNetError, DivergedError
from alexnet.evaluation import evaluate
from alexnet.network import build
from alexnet.predictor import Predictor, assemble
from alexnet.recipes import Recipe
from alexnet.spec import Spec, layer_number
from alexnet.training.checkpoint import checkpoint_folders
from alexnet.training.fit import fit
from alexnet.training.monitor import Progressed, Stopped, Tested
from alexnet.training.randomness import Order
from alexnet.training.run import Run, RunConfig

TARGET_ERROR = 0.25  # training error at which Figure 1 is read
CONVERGED = 0.02  # within so much of its lowest test error a network has converged
EARLY = frozenset({"epochs_to_25"})  # measures that are known before a training ends


class StoppedError(AlexNetError):
    """A run was asked to stop; it is saved and the same command goes on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunTask:
    """A run to make: what a worker needs of it."""

    key: str
    arms: tuple[str, ...]  # "relu/tanh"
    spec: Spec
    recipe: Recipe  # with the seed
    measures: frozenset[str]  # that are asked for
    data: Path
    images: int  # that it trains on
    folder: Path  # of the run
    expected_epochs: float  # that it takes, fewer than its recipe's where it ends early
    threads: int | None  # of the processor
    machine: str = ""
    versions: dict[str, str] = field(default_factory=dict)  # of the software, with the commit


def execute_task(task: RunTask) -> RunResult:
    """Train and measure, or go on where a run of the same folder stopped.

    A training that diverges is a result too: its network then counts as one that guesses. Raises
    `StoppedError` when a signal asked for it.
    """
    begun = time.monotonic()
    data = open_prepared(task.data)
    several = f"test_error_{task.recipe.test_crops}_views" in task.measures
    crops = task.recipe.test_crops if several else 1
    recipe = replace(task.recipe, threads=task.threads, test_crops=crops)
    run = Run.start(task.folder, configure_run(task, data, recipe), data.statistics)
    order = Order.of(recipe, len(data.train))
    try:
        tested, failed = _train(run, data, order, task.measures), ""
    except DivergedError as error:
        tested, failed = {}, error.what
    lines = run.read_metrics()
    curve = tuple(learning_curve(lines, order))
    measures, censored = measure_log(lines, order, recipe)
    measures |= tested
    if failed:
        counts = data.manifest.class_counts[data.held_out.name]
        measures |= measures_of_chance(1 - max(counts) / sum(counts), task.recipe)
        censored = ("epochs_to_25", "epochs_to_converge")
    elif "gap" in task.measures:
        train_error = _error_on(data.train, run.predictor())
        gap = measures["test_error"] - train_error
        measures |= {"final_train_error": train_error, "gap": gap}
    if any("_active" in name for name in task.measures):
        measures |= measure_units(run, data)
    return RunResult(
        key=task.key,
        arms=task.arms,
        seed=recipe.seed,
        spec=task.spec,
        recipe=task.recipe,
        data={
            "name": data.manifest.name,
            "fingerprint": data.manifest.fingerprint,
            "train": len(data.train),
            "test": len(data.held_out),
            "size": data.manifest.size,
        },
        seconds=round(time.monotonic() - begun, 1),
        machine=task.machine,
        versions={k: v for k, v in task.versions.items() if k in ("alexnet", "torch", "python")},
        commit=task.versions.get("commit", ""),
        curve=curve,
        measures={name: round(value, 6) for name, value in sorted(measures.items())},
        censored=censored,
        failed=failed,
    )


def configure_run(task: RunTask, data: PreparedData, recipe: Recipe) -> RunConfig:
    """Return what stands in the folder of a run of a task."""
    return RunConfig(
        spec=task.spec,
        recipe=recipe,
        classes=data.classes,
        data=str(data.root),
        data_fingerprint=data.manifest.fingerprint,
        data_size=data.manifest.size,
        made_with=task.versions,
    )


def _train(
    run: Run, data: PreparedData, order: Order, measures: frozenset[str]
) -> dict[str, float]:
    """Train to the end, or until what is asked for is known; return the test at the end."""
    recipe = run.config.recipe
    lines_per_epoch = _lines_per_epoch(order, recipe)
    recent: deque[float] | None = None
    events = fit(run, data)
    assert isinstance(events, Generator)
    with contextlib.closing(events):
        for event in events:
            if isinstance(event, Stopped):
                raise StoppedError(f"Stopped after step {event.step:,}; the same goes on.")
            if isinstance(event, Tested):
                crops = "" if recipe.test_crops == 1 else f"_{recipe.test_crops}_views"
                return {f"test_error{crops}": 1 - event.result.top1}
            if isinstance(event, Progressed) and measures <= EARLY:
                number = event.step.number
                if recent is None:  # what was logged before this attempt
                    logged = _train_errors(run.read_metrics())
                    errors = (error for step, error in logged if step < number)
                    recent = deque(errors, maxlen=lines_per_epoch)
                if _has_reached_target(recent):
                    return {}
                if number % recipe.log_every == 0:  # it is logged after this event
                    recent.append(1 - event.step.correct / event.step.images)
    raise AssertionError("a training ends with an event")


def _train_errors(lines: Iterable[dict[str, float]]) -> Iterator[tuple[int, float]]:
    """Yield the steps of a log with their training errors."""
    return ((int(x["step"]), 1 - x["train_top1"]) for x in lines if "train_top1" in x)


def _lines_per_epoch(order: Order, recipe: Recipe) -> int:
    return max(1, round(order.steps_per_epoch / recipe.log_every))


def _has_reached_target(recent: deque[float]) -> bool:
    """Whether the mean training error over an epoch's lines of the log is the target or less."""
    return len(recent) == recent.maxlen and sum(recent) / len(recent) <= TARGET_ERROR


def learning_curve(lines: Sequence[dict[str, float]], order: Order) -> Iterator[CurvePoint]:
    """Yield a run's learning curve: the means over each epoch's updates, and its test."""
    losses: defaultdict[int, list[float]] = defaultdict(list)
    errors: defaultdict[int, list[float]] = defaultdict(list)
    tests = _test_errors(lines)
    for line in lines:
        if "val_top1" not in line and line.get("loss") is not None:
            epoch = int((line["step"] - 1) / order.steps_per_epoch) + 1
            losses[epoch].append(line["loss"])
            errors[epoch].append(1 - line["train_top1"])
    for epoch in sorted(losses):
        yield CurvePoint(
            epoch=epoch,
            loss=round(fmean(losses[epoch]), 5),
            train_error=round(fmean(errors[epoch]), 6),
            test_error=tests.get(epoch),
        )


def _test_errors(lines: Iterable[dict[str, float]]) -> dict[int, float]:
    """Return the errors of a log's tests, by the epoch at whose end they were made."""
    tests = (line for line in lines if "val_top1" in line)
    return {int(line["epoch"] + 1e-3): round(1 - line["val_top1"], 6) for line in tests}


def measure_log(
    lines: Sequence[dict[str, float]], order: Order, recipe: Recipe
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return what can be measured on a run's log, and which of it the run ended before."""
    found: dict[str, float] = {"epochs_to_25": float(recipe.epochs)}
    censored: tuple[str, ...] = ("epochs_to_25",)
    recent: deque[float] = deque(maxlen=_lines_per_epoch(order, recipe))
    for step, error in _train_errors(lines):
        recent.append(error)
        if _has_reached_target(recent):
            found["epochs_to_25"], censored = step / order.steps_per_epoch, ()
            break
    if tests := sorted(_test_errors(lines).items()):
        lowest = min(error for _, error in tests)
        found["test_error"] = tests[-1][1]
        near = (epoch for epoch, error in tests if error <= lowest + CONVERGED)
        found["epochs_to_converge"] = float(next(near))
    return found, censored


def measures_of_chance(error: float, recipe: Recipe) -> dict[str, float]:
    """Return the measures of a network that only guesses: it cannot be trained this way."""
    several = {f"test_error_{recipe.test_crops}_views": error}
    epochs = {"epochs_to_25": recipe.epochs, "epochs_to_converge": recipe.epochs}
    return {"test_error": error, "final_train_error": error, "gap": 0.0, **several, **epochs}


def measure_units(run: Run, data: PreparedData) -> dict[str, float]:
    """Return the shares of first hidden units that no test image, and every one, activates."""
    spec = run.config.spec
    layer = spec.activation + layer_number(spec.dense[0].name)
    trained = run.predictor() if checkpoint_folders(run.checkpoints) else None
    weights = build(spec, run.config.recipe.seed).state_dict()
    initial = assemble(spec, weights, data.statistics, data.classes)
    found: dict[str, float] = {}
    for ending, predictor in (("_before", initial), ("", trained)):
        if predictor is None:  # it diverged before it was saved
            found |= {"never_active": math.nan, "always_active": math.nan}
            continue
        never, always = count_active(predictor, data.held_out, layer)
        found |= {f"never_active{ending}": never, f"always_active{ending}": always}
    return found


def count_active(predictor: Predictor, split: Split, layer: str) -> tuple[float, float]:
    """Return the shares of a layer's units that no image activates, and that every image does."""
    active = [
        predictor.activations(batch.images, [layer])[layer] > 0
        for batch in evaluation_batches(split, batch_size=256)
    ]
    share = torch.cat(active).float().mean(0)  # of the images, by unit
    return float((share == 0).float().mean()), float((share == 1).float().mean())


def _error_on(split: Split, predictor: Predictor) -> float:
    """Return the error on all images of a split, one crop each."""
    batches = evaluation_batches(split, batch_size=64)
    result = evaluate(predictor.probabilities, batches, predictor.classes, crops=1)
    return 1 - result.top1
