"""Claims -> their runs: what they will cost, how they are made, and what they gave.

Two arms of two claims that are the same network, trained the same way, are one run. A finished
run is a line of ``results.jsonl``; one that was begun goes on from its checkpoint. So a command
that was killed, whatever part of it, is run again and ends with the same table.
"""

import contextlib
import hashlib
import json
import math
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from alexnet.claims.claim import (
    FILE,
    TUNING_SEED,
    Arm,
    Claim,
    RunResult,
    append_result,
    read_results,
    run_key,
    trial_results,
)
from alexnet.claims.runs import RunTask, configure_run, execute_task
from alexnet.claims.scales import Scale
from alexnet.data.prepare import Options, open_or_prepare
from alexnet.data.samples import SampleIndex, Source
from alexnet.data.shards import PreparedData, open_prepared
from alexnet.data.workers import LostWorkerError, run_in_processes, run_on_executor
from alexnet.errors import ConfigError, DataError, DivergedError, RunError
from alexnet.files import lock, translate_os_error, write_json
from alexnet.recipes import MAX_COUNT
from alexnet.spec import Spec
from alexnet.training.distributed import DistributedContext
from alexnet.training.fit import fit, handle_signals
from alexnet.training.monitor import Progressed
from alexnet.training.randomness import Order
from alexnet.training.run import Run
from alexnet.training.state import restore

AT_ONCE = 256  # runs in work on a cluster
RUNS = "runs"  # folder of the runs, each named by its key
TAIL = 400  # bytes at the end of a log, in which its last line is
# Of these the runs come first: what made the network win.
FEATURES = ("lrn", "overlap", "pca", "augment", "dropout", "dropout-gap", "dropout-steps")
STEPS = 16  # timed, after a first one, or fewer in `PROBE_SECONDS`
PROBE_SECONDS = 20.0
MIN_SEEDS, MAX_SEEDS = 2, 10  # a verdict needs two
MIN_EPOCHS = 2
MIN_SHARE, MAX_SHARE = 10, 99  # percent of the epochs that a budget takes, where it takes a part
SLOW_STEP = 0.5  # seconds
SAVE_SECONDS = 0.05  # a checkpoint of a small network
PLANS_FILE = "plans.json"  # what fitted into which budget


@dataclass(frozen=True, slots=True)
class GridProgress:
    """How far a grid of runs is."""

    finished: int  # runs
    runs: int
    share: float  # of all the work, 0 to 1
    seconds_left: float  # at the speed since this command began; inf before anything is known
    running: tuple[str, ...]  # "relu/tanh, seed 1: epoch 12.3 of 80"


@dataclass(frozen=True, kw_only=True, slots=True)
class GridConfig:
    """With what a grid of runs is made; nothing of it changes a result."""

    data: PreparedData
    whole: PreparedData | None = None  # for claims that want all images, where `data` is a part
    out: Path
    workers: int  # processes
    threads: int | None = 1  # of each; None: PyTorch's choice
    executor: Executor | None = None  # does the work instead of processes, such as a cluster's
    machine: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)  # of the software, with the commit
    say: Callable[[str], None] = lambda text: None
    report: Callable[[GridProgress], None] = lambda progress: None
    report_every: float = 2.0  # seconds


def run_grid(
    claims: Iterable[Claim], config: GridConfig
) -> tuple[tuple[Claim, ...], list[RunResult]]:
    """Make every run that claims need, and that is not there yet.

    The networks get the number of classes of the data. Returns the claims as they were run, each
    arm with its best learning rate; and the results of all their runs, those that chose a rate too.
    Raises `RunError` when another command is at work in the folder; `LostWorkerError` when the same
    run ends its process again and again.
    """
    claims = with_num_classes(claims, len(config.data.classes))
    ran: dict[str, Claim] = {}
    with lock_results(config.out), _stop_workers_on_signal():
        for some in split_by_order(claims):
            tried = _make_runs(make_tasks(iter_trials(some), TUNING_SEED, config), config)
            some = choose_learning_rates(some, tried)
            _make_runs(make_compared_tasks(some, config), config)
            ran |= {claim.name: claim for claim in some}
    claims = tuple(ran[claim.name] for claim in claims)
    return claims, results_of(list_tasks(claims, config), read_results(config.out / FILE))


def gather_results(
    claims: Iterable[Claim], known: Sequence[RunResult], config: GridConfig
) -> tuple[tuple[Claim, ...], list[RunResult]]:
    """Return what `run_grid` would, of the runs that are `known`; nothing is trained.

    Arms whose learning rate is not chosen yet have no runs.
    """
    claims = _choose_known_rates(with_num_classes(claims, len(config.data.classes)), known, config)
    return claims, results_of(list_tasks(claims, config), known)


def _choose_known_rates(
    claims: Iterable[Claim], known: Sequence[RunResult], config: GridConfig
) -> tuple[Claim, ...]:
    """Return claims with their best learning rates, where the runs that choose them are there."""

    def choose(claim: Claim) -> Claim:
        trials = make_tasks(iter_trials([claim]), TUNING_SEED, config)
        if unfinished_tasks(trials, known):
            return claim
        return choose_learning_rates([claim], results_of(trials, known))[0]

    return tuple(map(choose, claims))


def split_by_order(claims: Iterable[Claim]) -> tuple[tuple[Claim, ...], tuple[Claim, ...]]:
    """Return the claims that are run first, those on what made the network win, and the others."""
    claims = tuple(claims)
    return (
        tuple(claim for claim in claims if claim.name in FEATURES),
        tuple(claim for claim in claims if claim.name not in FEATURES),
    )


def list_tasks(claims: Iterable[Claim], config: GridConfig) -> list[RunTask]:
    """Return all runs of claims whose rates are chosen, those that chose them first."""
    claims = tuple(claims)
    trials = make_tasks(iter_trials(claims), TUNING_SEED, config)
    return [*trials, *make_compared_tasks(claims, config)]


def make_compared_tasks(claims: Iterable[Claim], config: GridConfig) -> list[RunTask]:
    """Return the runs that claims compare: every claim's first seed, then every one's second."""
    claims = tuple(claims)
    return [
        task
        for seed in range(max((claim.seeds for claim in claims), default=0))
        for task in make_tasks(iter_arms(c for c in claims if c.seeds > seed), seed, config)
    ]


def map_arms(claims: Iterable[Claim], change: Callable[[Claim, Arm], Arm]) -> tuple[Claim, ...]:
    """Return claims with both arms of each changed."""
    return tuple(replace(c, first=change(c, c.first), second=change(c, c.second)) for c in claims)


def with_num_classes(claims: Iterable[Claim], num_classes: int) -> tuple[Claim, ...]:
    """Return claims whose networks tell so many classes apart."""
    return map_arms(
        claims, lambda _, arm: replace(arm, spec=replace(arm.spec, num_classes=num_classes))
    )


@dataclass(frozen=True, slots=True)
class NamedArm:
    """An arm of a claim, and what is asked of it."""

    name: str  # "relu/tanh"
    measure: str
    arm: Arm
    all_images: bool = False


def iter_arms(claims: Iterable[Claim]) -> Iterator[NamedArm]:
    """Yield both arms of each claim."""
    for claim in claims:
        for arm in (claim.first, claim.second):
            name = f"{claim.name}/{arm.name}"
            yield NamedArm(name, claim.measure_of(arm), arm, claim.all_images)


def iter_trials(claims: Iterable[Claim]) -> Iterator[NamedArm]:
    """Yield each arm that has learning rates to choose from, at each of them."""
    for one in iter_arms(claims):
        for lr in one.arm.learning_rates:
            trial = replace(one.arm, recipe=one.arm.trial_recipe(lr), expected_epochs=None)
            yield replace(one, name=f"{one.name} at {lr:g}", arm=trial)


def make_tasks(arms: Iterable[NamedArm], seed: int, config: GridConfig) -> list[RunTask]:
    """Return the runs of some arms with a seed, each once, whoever asks for it."""
    found: dict[str, RunTask] = {}
    for one in arms:
        spec, recipe = one.arm.spec, one.arm.recipe.with_(seed=seed)
        data = config.whole if one.all_images and config.whole else config.data
        key = run_key(spec, recipe, data.manifest.fingerprint)
        known = found.get(key)
        found[key] = RunTask(
            key=key,
            arms=(*(known.arms if known else ()), one.name),
            spec=spec,
            recipe=recipe,
            measures=(known.measures if known else frozenset()) | {one.measure},
            data=data.root.resolve(),
            images=len(data.train),
            folder=(config.out / RUNS / key).resolve(),
            expected_epochs=min(one.arm.expected_epochs or recipe.epochs, recipe.epochs),
            threads=config.threads,
            machine=config.machine,
            versions=dict(config.versions),
        )
    return list(found.values())


def unfinished_tasks(tasks: Iterable[RunTask], results: Iterable[RunResult]) -> list[RunTask]:
    """Return the tasks whose measures are not all known yet."""
    known = {result.key: result.measures.keys() for result in results}
    return [task for task in tasks if not task.measures <= known.get(task.key, set())]


def _make_runs(tasks: list[RunTask], config: GridConfig) -> list[RunResult]:
    """Make the runs that are not there yet; return the results of all of them."""
    file = config.out / FILE
    left = unfinished_tasks(tasks, read_results(file))
    with _reporting(tasks, left, config) as unfinished:
        for task, result in _execute(left, config):
            append_result(file, result)
            unfinished.pop(task.key, None)
            config.say(describe_result(task, result))
    return results_of(tasks, read_results(file))


def results_of(tasks: Iterable[RunTask], results: Iterable[RunResult]) -> list[RunResult]:
    """Return the results of some tasks, each with the arms that it stands for now."""
    arms = {task.key: task.arms for task in tasks}
    return [replace(one, arms=arms[one.key]) for one in results if one.key in arms]


def _execute(tasks: list[RunTask], config: GridConfig) -> Iterator[tuple[RunTask, RunResult]]:
    if config.executor is not None:
        return run_on_executor(config.executor, execute_task, tasks, AT_ONCE)
    return run_in_processes(execute_task, tasks, config.workers, _give_up, ahead=1)


def _give_up(task: RunTask) -> NoReturn:
    raise LostWorkerError(
        f"The run {task.arms[0]!r} with seed {task.recipe.seed} ended its process again and again.",
        "Memory may have run out: try --workers 1. The same command goes on.",
    )


def describe_result(task: RunTask, result: RunResult) -> str:
    """Say in a line what a run gave."""
    asked = ", ".join(
        f"{name} {'above ' if name in result.censored else ''}{result.measures[name]:.4g}"
        for name in sorted(task.measures)
    )
    end = f" ({result.failed})" if result.failed else ""
    return f"{task.arms[0]}, seed {result.seed}: {asked}, {result.seconds:.0f} s{end}"


def choose_learning_rates(
    claims: Iterable[Claim], results: Iterable[RunResult]
) -> tuple[Claim, ...]:
    """Return claims whose arms have the best of their learning rates: the lowest measure.

    Where no rate reached what is measured, the one with the lowest training error at the end.
    """
    results = list(results)

    def with_best(claim: Claim, arm: Arm) -> Arm:
        if not arm.learning_rates:
            return arm
        name = claim.measure_of(arm)

        def rank(result: RunResult) -> tuple[bool, float, float]:
            return bool(result.failed), result.measures[name], result.last_train_error

        best = min(trial_results(arm, results), key=rank)
        return replace(arm, recipe=arm.recipe.with_(lr=best.recipe.lr))

    return map_arms(claims, with_best)


def estimate_work(task: RunTask) -> float:
    """Return what a run costs: the multiplications of all its images."""
    return task.spec.macs * task.recipe.epochs * task.images


@contextlib.contextmanager
def _reporting(
    tasks: Sequence[RunTask], left: Sequence[RunTask], config: GridConfig
) -> Iterator[dict[str, RunTask]]:
    """Report progress within the block, which takes finished runs out of those it is given."""
    unfinished, over = {task.key: task for task in left}, threading.Event()
    whole, begun = sum(map(estimate_work, tasks)), time.monotonic()

    def measure() -> tuple[float, tuple[str, ...]]:
        """Return how much work is done, and where each begun run is by its log."""
        waiting = list(unfinished.values())
        done, running = whole - sum(map(estimate_work, waiting)), []
        for task in waiting:
            epochs = task.recipe.epochs
            epoch = min(_epochs_done(task), epochs)
            if epoch:
                done += estimate_work(task) * epoch / epochs
                running.append(
                    f"{task.arms[0]}, seed {task.recipe.seed}: epoch {epoch:.1f} of {epochs:g}"
                )
        return done, tuple(running)

    before, _ = measure()

    def report() -> None:
        while not over.wait(config.report_every):
            done, running = measure()
            speed = (done - before) / max(1e-9, time.monotonic() - begun)
            rest = (whole - done) / speed if speed > 0 else float("inf")
            finished = len(tasks) - len(unfinished)
            config.report(GridProgress(finished, len(tasks), done / whole, rest, running))

    thread = threading.Thread(target=report, daemon=True)
    if left:
        thread.start()
    try:
        yield unfinished
    finally:
        over.set()
        if left:
            thread.join()


def _epochs_done(task: RunTask) -> float:
    """Return how far the log of a run is, in epochs; 0 where there is none."""
    metrics = task.folder / "metrics.jsonl"
    try:
        with metrics.open("rb") as file:
            file.seek(max(0, metrics.stat().st_size - TAIL))
            lines = file.read().splitlines()
    except OSError:
        return 0.0
    for line in reversed(lines):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return float(json.loads(line)["epoch"])
    return 0.0


@contextlib.contextmanager
def lock_results(out: Path) -> Iterator[None]:
    """Keep other commands out of the folder of results within the block.

    Raises `RunError` when another one is at work there.
    """
    with translate_os_error(out):
        out.mkdir(parents=True, exist_ok=True)
    refusal = RunError(
        f"Another command runs claims in {str(out)!r}.", "Wait for it, or choose another --out."
    )
    with lock(out / ".lock", refusal):
        yield


@contextlib.contextmanager
def _stop_workers_on_signal() -> Iterator[None]:
    """Have workers save and stop when this process is asked to end, then end."""

    def stop(number: int, frame: Any) -> None:
        for process in multiprocessing.active_children():
            process.terminate()
        raise KeyboardInterrupt

    with handle_signals((signal.SIGINT, signal.SIGTERM), stop):
        yield


def default_workers(threads: int | None) -> int:
    """Return how many runs a machine makes at once: its processors over the threads of a run."""
    return max(1, (os.cpu_count() or 1) // threads) if threads else 1


def open_images(scale: Scale, where: str | Path, **callbacks: Any) -> PreparedData:
    """Open the images that a scale's claims are run on; a source is prepared into the cache.

    A prepared data set is taken whole, whatever the scale's number of images. The callbacks are
    those of `alexnet.data.prepare.open_or_prepare`. Raises `DataError` when it is no data, or was
    prepared at a size that the scale's networks do not take.
    """
    data = open_or_prepare(
        where,
        Options(size=scale.image_size, raw=scale.raw),
        choose=lambda source: take_part(source, scale.num_images),
        **callbacks,
    )
    if data.manifest.size != scale.image_size:
        raise DataError(
            f"{str(data.root)!r} was prepared at {data.manifest.size} pixels; the claims at scale "
            f"{scale.name!r} need {scale.image_size}.",
            f"Name the source itself, or prepare it with --size {scale.image_size}.",
        )
    return data


def take_part(source: Source, num_images: tuple[int, int] | None) -> Source:
    """Return a source with so many training and so many test images, evenly over the classes.

    Of each class the first ones are taken, so that the choice is the same wherever it is made; a
    class with fewer gives what it has. There is no validation split: nothing is chosen by it.
    """
    if num_images is None:
        return source
    classes = len(source.classes)

    def take(split: str, count: int) -> SampleIndex:
        index, each = source.splits[split], max(1, count // classes)
        first = [np.flatnonzero(index.labels == label)[:each] for label in range(classes)]
        return index.take(np.sort(np.concatenate(first)))

    held_out = "test" if "test" in source.splits else "val"
    splits = {"train": take("train", num_images[0]), "test": take(held_out, num_images[1])}
    return replace(source, splits=splits)


@dataclass(frozen=True, slots=True)
class Cost:
    """What runs are expected to take."""

    runs: int
    images: float  # trained on, all runs together
    seconds: float  # by the clock, workers at work at once

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.runs + other.runs, self.images + other.images, self.seconds + other.seconds
        )

    def __str__(self) -> str:
        days, hours = self.seconds / 86400, self.seconds / 3600
        took = (
            f"{days:,.1f} days" if days >= 2
            else f"{hours:,.1f} hours" if hours >= 2
            else f"{self.seconds / 60:,.0f} minutes"
        )  # fmt: skip
        return f"{self.runs:,} runs, {self.images:,.0f} images to train on, about {took}"


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a network is trained and tested here, in seconds."""

    start: float  # until the first step is done
    step: float  # of a batch, with all that is done around it
    test: float  # of all test images, one crop

    def scaled(self, by: float) -> "Speed":
        """Return the speed of a network that takes `by` times the multiplications."""
        return Speed(self.start, self.step * by, self.test * by)


def measure_speed(task: RunTask) -> Speed:
    """Train a run's network for some steps and test it on some images.

    Measured in as many processes at once as there will be, it has what they cost each other.
    """
    data = open_prepared(task.data)
    never = {"checkpoint_every": MAX_COUNT, "validate_every": float(MAX_COUNT)}
    recipe = task.recipe.with_(threads=task.threads, **never)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        run = Run.start(Path(folder) / "probe", configure_run(task, data, recipe), data.statistics)
        times: list[float] = []
        events = fit(run, data)
        assert isinstance(events, Generator)
        with contextlib.closing(events), contextlib.suppress(DivergedError):
            for event in events:
                if isinstance(event, Progressed):
                    times.append(time.perf_counter())
                    if len(times) > STEPS or times[-1] - times[0] > PROBE_SECONDS:
                        break
        state, _, _ = restore(run, data, DistributedContext(), "data")
        test = state.estimate_test_seconds(data.held_out, 1)
    steps = np.diff(times)
    return Speed(times[0] - begun, float(np.mean(steps)) if len(steps) else times[0] - begun, test)


def measure_speeds(tasks: Iterable[RunTask], workers: int) -> dict[Spec, Speed]:
    """Return the speed of each network of some runs.

    Of the slow networks of a recipe, half a second a step, one is measured; the speed of the others
    is estimated from their multiplications.
    """
    different = list({task.spec: task for task in tasks}.values())
    first = {task.recipe.name: task for task in reversed(different)}
    found = _measure(first.values(), workers)
    slow = {
        name: (task.spec, found[task.spec])
        for name, task in first.items()
        if found[task.spec].step > SLOW_STEP
    }
    for task in different:
        if task.recipe.name in slow:
            like, speed = slow[task.recipe.name]
            found[task.spec] = speed.scaled(task.spec.macs / like.macs)
    return found | _measure([task for task in different if task.spec not in found], workers)


def _measure(tasks: Iterable[RunTask], workers: int) -> dict[Spec, Speed]:
    if workers == 1:
        return {task.spec: measure_speed(task) for task in tasks}
    done = run_in_processes(measure_speed, tasks, workers, _give_up)
    return {task.spec: speed for task, speed in done}


def plan_grid(
    claims: Iterable[Claim], seconds: float | None, config: GridConfig
) -> tuple[tuple[Claim, ...], tuple[tuple[str, Cost], ...]]:
    """Return the claims as they are to be run, and what is left to do for each, in order.

    A run that two claims share is counted for the one that comes first.

    With a number of seconds, the seeds and epochs that fit into them. What was chosen once is kept
    in the folder of results, so that the same command goes on with the same grid, however fast
    the machine seems to be the next time.
    """
    claims = with_num_classes(claims, len(config.data.classes))

    def tasks_of_a_seed(share: float) -> tuple[list[RunTask], list[RunTask]]:
        some = scale_epochs(claims, share)
        trials = make_tasks(iter_trials(some), TUNING_SEED, config)
        return trials, make_tasks(iter_arms(some), 0, config)

    def cost(tasks: Sequence[RunTask]) -> Cost:
        return estimate_cost(tasks, speeds, config.workers, config.data)

    def estimate(share: float) -> tuple[float, float]:
        trials, one = tasks_of_a_seed(share)
        return cost(trials).seconds, cost(one).seconds

    speeds = measure_speeds(chain(*tasks_of_a_seed(1)), config.workers)
    if seconds is not None:
        plan = recall_budget(claims, seconds, config)
        if plan is None:
            plan = fit_budget(seconds, estimate)
            _keep_plan(config.out, _name_plan(claims, seconds, config), plan)
        claims = apply_budget(claims, *plan)
    known = read_results(config.out / FILE)
    chosen = _choose_known_rates(claims, known, config)
    counted: set[str] = set()
    costs = []
    for claim in chain(*split_by_order(chosen)):
        left = [
            replace(task, expected_epochs=max(0.0, task.expected_epochs - _epochs_done(task)))
            for task in unfinished_tasks(list_tasks([claim], config), known)
            if task.key not in counted
        ]
        counted |= {task.key for task in left}
        costs.append((claim.name, cost(left)))
    return claims, tuple(costs)


def apply_budget(claims: Iterable[Claim], seeds: int, share: float) -> tuple[Claim, ...]:
    """Return claims with so many seeds and such a share of their epochs."""
    return tuple(replace(claim, seeds=seeds) for claim in scale_epochs(claims, share))


def recall_budget(
    claims: Iterable[Claim], seconds: float, config: GridConfig
) -> tuple[int, float] | None:
    """Return the seeds and the share of the epochs that were chosen for these runs and this time.

    None where no command with this budget has begun in the folder.
    """
    claims = with_num_classes(claims, len(config.data.classes))
    found = _read_plans(config.out).get(_name_plan(claims, seconds, config))
    return (int(found[0]), float(found[1])) if found else None


def _name_plan(claims: Iterable[Claim], seconds: float, config: GridConfig) -> str:
    """Return what names a plan: the time, the claims, and which runs they are at full length."""
    claims = tuple(claims)
    keys = " ".join(task.key for task in make_tasks(iter_arms(claims), 0, config))
    runs = hashlib.sha256(keys.encode()).hexdigest()[:16]
    return f"{seconds:g} s: {' '.join(claim.name for claim in claims)}, {runs}"


def _read_plans(out: Path) -> dict[str, Any]:
    file = out / PLANS_FILE
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def _keep_plan(out: Path, name: str, chosen: tuple[int, float]) -> None:
    """Write down what was chosen."""
    plans = _read_plans(out) | {name: chosen}
    with translate_os_error(out):
        out.mkdir(parents=True, exist_ok=True)
    write_json(out / PLANS_FILE, plans)


def estimate_cost(
    tasks: Sequence[RunTask], speeds: Mapping[Spec, Speed], workers: int, data: PreparedData
) -> Cost:
    """Return what runs cost at measured speeds."""
    seconds = 0.0
    for task in tasks:
        speed, recipe = speeds[task.spec], task.recipe
        steps = Order.of(recipe, task.images).steps(task.expected_epochs)
        tests = task.expected_epochs // recipe.validate_every + 1
        if any(name.endswith("views") for name in task.measures):
            tests += recipe.test_crops
        if "gap" in task.measures:
            tests += task.images / len(data.held_out)
        saves = 1 + steps // recipe.checkpoint_every
        seconds += speed.start + steps * speed.step + tests * speed.test + saves * SAVE_SECONDS
    images = sum(task.expected_epochs * task.images for task in tasks)
    return Cost(len(tasks), images, seconds / workers)


def fit_budget(
    seconds: float, estimate: Callable[[float], tuple[float, float]]
) -> tuple[int, float]:
    """Return how many seeds fit into a time, and the share of the epochs where even two do not.

    `estimate` gives, for a share of the epochs, the seconds that the runs take which choose
    learning rates, and those of every arm with one seed. Shares are whole percents. Raises
    `ConfigError` when a tenth of the epochs would still be too long.

    Examples
    --------
    >>> fit_budget(1800, lambda share: (300, 300 * share))
    (5, 1.0)
    >>> fit_budget(450, lambda share: (300, 300 * share))
    (2, 0.25)
    """
    fixed, a_seed = estimate(1.0)
    seeds = int((seconds - fixed) / a_seed) if a_seed else MAX_SEEDS
    if seeds >= MIN_SEEDS:
        return min(seeds, MAX_SEEDS), 1.0

    def needed(percent: int) -> float:
        fixed, a_seed = estimate(percent / 100)
        return fixed + MIN_SEEDS * a_seed

    percents = range(MAX_SHARE, MIN_SHARE - 1, -1)
    place = bisect_left(percents, True, key=lambda percent: needed(percent) <= seconds)
    if place == len(percents):
        raise ConfigError(
            f"A budget of {seconds / 60:,.3g} minutes is too short for these claims.",
            f"Give {math.ceil(needed(MIN_SHARE) / 60):,} minutes or more, or name fewer claims.",
        )
    return MIN_SEEDS, percents[place] / 100


def scale_epochs(claims: Iterable[Claim], factor: float) -> tuple[Claim, ...]:
    """Return claims whose runs take so many times their epochs; schedules keep their proportions.

    A run has 2 epochs at least. Where the last one would not be tested any more, tests come as much
    sooner as it takes. Runs that choose a learning rate keep a length that the scale gives them
    (`trial_epochs`).
    """
    if factor == 1:
        return tuple(claims)

    def scaled(_: Claim, arm: Arm) -> Arm:
        epochs = max(MIN_EPOCHS, round(arm.recipe.epochs * factor))
        every = arm.recipe.validate_every
        if epochs % every:
            every = max(n for n in range(1, max(2, math.ceil(every))) if epochs % n == 0)
        return replace(arm, recipe=arm.recipe.with_(epochs=epochs, validate_every=float(every)))

    return map_arms(claims, scaled)
