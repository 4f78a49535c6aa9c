"""Claims -> their runs, made over processes or a cluster, and what they gave.

Two arms of two claims that are the same network, trained the same way, are one run. A finished
run is a line of ``results.jsonl``; one that was begun goes on from its checkpoint. So a command
that was killed, whatever part of it, is run again and ends with the same table.
"""

import contextlib
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.claims.claim import TUNING_SEED, Arm, Claim
from alexnet.claims.results import (
    FILE,
    RunResult,
    append_result,
    read_results,
    run_key,
    trial_results,
)
from alexnet.claims.runs import RunTask, execute_task
from alexnet.claims.scales import Scale
from alexnet.data.prepare import Options, open_or_prepare
from alexnet.data.samples import SampleIndex, Source
from alexnet.data.shards import PreparedData
from alexnet.data.workers import LostWorkerError, run_in_processes, run_on_executor
from alexnet.errors import DataError, RunError
from alexnet.files import lock, translate_os_error

AT_ONCE = 256  # runs in work on a cluster
RUNS = "runs"  # folder of the runs, each named by its key
TAIL = 400  # bytes at the end of a log, in which its last line is


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
    claims: Iterable[Claim], seeds: int, config: GridConfig
) -> tuple[tuple[Claim, ...], list[RunResult]]:
    """Make every run that claims need, and that is not there yet.

    The networks get the number of classes of the data, the seeds are 0 to ``seeds - 1``. Returns
    the claims as they were run, each arm with its best learning rate; and the results of all their
    runs, those that chose a rate too.

    Raises
    ------
    RunError
        When another command is at work in the folder.
    LostWorkerError
        When the same run ends its process again and again.
    """
    claims = with_num_classes(claims, len(config.data.classes))
    with lock_results(config.out), _stop_workers_on_signal():
        trials = make_tasks(iter_trials(claims), [TUNING_SEED], config)
        tried = _make_runs(trials, config)
        claims = choose_learning_rates(claims, tried)
        compared = make_tasks(iter_arms(claims), range(seeds), config)
        return claims, tried + _make_runs(compared, config)


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
            trial = replace(one.arm, recipe=one.arm.trial_recipe(lr))
            yield replace(one, name=f"{one.name} at {lr:g}", arm=trial)


def make_tasks(arms: Iterable[NamedArm], seeds: Iterable[int], config: GridConfig) -> list[RunTask]:
    """Return the runs of some arms with some seeds, each once, whoever asks for it."""
    arms = list(arms)
    found: dict[str, RunTask] = {}
    for seed in seeds:
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


def _give_up(task: RunTask) -> RunResult:
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
            last = result.curve[-1].train_error if result.curve else 1.0
            return bool(result.failed), result.measures[name], last

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
            epoch = min(_last_epoch(task.folder / "metrics.jsonl"), epochs)
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


def _last_epoch(metrics: Path) -> float:
    """Return how far the log of a run is, in epochs; 0 where there is none."""
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

    Raises
    ------
    RunError
        When another one is at work there.
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

    if threading.current_thread() is not threading.main_thread():  # no signals there
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def default_workers(threads: int | None) -> int:
    """Return how many runs a machine makes at once: its processors over the threads of a run."""
    return max(1, (os.cpu_count() or 1) // threads) if threads else 1


def open_images(scale: Scale, where: str | Path, **callbacks: Any) -> PreparedData:
    """Open the images that a scale's claims are run on; a source is prepared into the cache.

    A prepared data set is taken whole, whatever the scale's number of images. The callbacks are
    those of `alexnet.data.prepare.open_or_prepare`.

    Raises
    ------
    DataError
        When it is no data, or was prepared at a size that the scale's networks do not take.
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
