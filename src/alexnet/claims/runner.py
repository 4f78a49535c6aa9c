"""Claims -> their runs, made over processes or a cluster, and what they gave.

Two arms of two claims that are the same network, trained the same way, are one run. A finished
run is a line of ``results.jsonl``; one that was begun goes on from its checkpoint. So a command
that was killed, whatever part of it, is run again and ends with the same table.
"""

import contextlib
import fcntl
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alexnet.claims import results as results_file
from alexnet.claims.claim import TUNING_SEED, Arm, Claim, Result
from alexnet.claims.progress import GridProgress, watching
from alexnet.claims.results import key_of
from alexnet.claims.work import Task, perform
from alexnet.data.shards import PreparedData
from alexnet.data.workers import LostWorkerError, run_in_processes, run_on_executor
from alexnet.errors import RunError
from alexnet.files import translate_os_error

AT_ONCE = 256  # runs in work on a cluster
RUNS = "runs"  # folder of the runs, each named by its key


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """With what a grid of runs is made; nothing of it changes a result."""

    data: PreparedData
    whole: PreparedData | None = None  # for claims that want all images, where `data` is a part
    out: Path
    workers: int  # processes
    threads: int | None = 1  # of each; None: PyTorch's choice
    executor: Executor | None = None  # does the work instead of processes, such as a cluster's
    machine: str = ""
    made_with: Mapping[str, str] = field(default_factory=dict)
    said: Callable[[str], None] = lambda text: None
    report: Callable[[GridProgress], None] = lambda progress: None
    every: float = 2.0  # seconds between reports


def run(
    claims: Iterable[Claim], seeds: int, setting: Setting
) -> tuple[tuple[Claim, ...], list[Result]]:
    """Make every run that claims need, and that is not there yet.

    Parameters
    ----------
    claims
        At a scale; their networks get the number of classes of the data.
    seeds
        Of each arm: 0 to ``seeds - 1``.
    setting
        Where and how.

    Returns
    -------
    tuple
        The claims as they were run, each arm with its best rate; and the results of all their runs,
        those that chose a rate too.

    Raises
    ------
    RunError
        When another command is at work in the folder.
    LostWorkerError
        When the same run ends its process again and again.
    """
    claims = with_classes(claims, len(setting.data.classes))
    with locked(setting.out), interruptible():
        choosing = tasks_of(rate_trials(claims), [TUNING_SEED], setting)
        tried = made(choosing, setting)
        claims = tuned(claims, tried)
        compared = tasks_of(arms_of(claims), range(seeds), setting)
        return claims, tried + made(compared, setting)


def with_classes(claims: Iterable[Claim], classes: int) -> tuple[Claim, ...]:
    """Return claims whose networks tell so many classes apart."""

    def changed(arm: Arm) -> Arm:
        return replace(arm, spec=replace(arm.spec, num_classes=classes))

    return tuple(replace(c, first=changed(c.first), second=changed(c.second)) for c in claims)


@dataclass(frozen=True, slots=True)
class Named:
    """An arm of a claim, and what is asked of it."""

    name: str  # "relu/tanh"
    measure: str
    arm: Arm
    whole: bool = False  # on all images


def arms_of(claims: Iterable[Claim]) -> Iterator[Named]:
    """Yield both arms of each claim."""
    for claim in claims:
        for arm in (claim.first, claim.second):
            yield Named(f"{claim.name}/{arm.name}", claim.measure_of(arm), arm, claim.whole)


def rate_trials(claims: Iterable[Claim]) -> Iterator[Named]:
    """Yield each arm that has rates to choose from, at each of them."""
    for one in arms_of(claims):
        for rate in one.arm.rates:
            trial = replace(one.arm, recipe=one.arm.trial(rate))
            yield replace(one, name=f"{one.name} at {rate:g}", arm=trial)


def tasks_of(arms: Iterable[Named], seeds: Iterable[int], setting: Setting) -> list[Task]:
    """Return the runs of some arms with some seeds, each once, whoever asks for it."""
    arms = list(arms)
    found: dict[str, Task] = {}
    for seed in seeds:
        for one in arms:
            spec, recipe = one.arm.spec, one.arm.recipe.with_(seed=seed)
            data = setting.whole if one.whole and setting.whole else setting.data
            key = key_of(spec, recipe, data.manifest.fingerprint)
            known = found.get(key)
            found[key] = Task(
                key=key,
                arms=(*(known.arms if known else ()), one.name),
                spec=spec,
                recipe=recipe,
                measures=(known.measures if known else frozenset()) | {one.measure},
                data=data.root.resolve(),
                images=len(data.splits["train"]),
                folder=(setting.out / RUNS / key).resolve(),
                threads=setting.threads,
                machine=setting.machine,
                made_with=dict(setting.made_with),
            )
    return list(found.values())


def left_of(tasks: Iterable[Task], results: Iterable[Result]) -> list[Task]:
    """Return the tasks whose measures are not all known yet."""
    known = {result.key: result.measures.keys() for result in results}
    return [task for task in tasks if not task.measures <= known.get(task.key, set())]


def made(tasks: list[Task], setting: Setting) -> list[Result]:
    """Make the runs that are not there yet; return the results of all of them."""
    file = setting.out / results_file.FILE
    left = left_of(tasks, results_file.read(file))
    with watching(tasks, left, setting.report, setting.every) as watched:
        for task, result in _performed(left, setting):
            results_file.append(file, result)
            watched.finished(task)
            setting.said(told(task, result))
    names = {task.key: task.arms for task in tasks}
    return results_file.named(results_file.read(file), names)


def _performed(tasks: list[Task], setting: Setting) -> Iterator[tuple[Task, Result]]:
    if setting.executor is not None:
        return run_on_executor(setting.executor, perform, tasks, AT_ONCE)
    return run_in_processes(perform, tasks, setting.workers, _given_up, ahead=1)


def _given_up(task: Task) -> Result:
    raise LostWorkerError(
        f"The run {task.arms[0]!r} with seed {task.recipe.seed} ended its process again and again.",
        "Memory may have run out: try --workers 1. The same command goes on.",
    )


def told(task: Task, result: Result) -> str:
    """Say in a line what a run gave."""
    asked = ", ".join(
        f"{name} {'above ' if name in result.capped else ''}{result.measures[name]:.4g}"
        for name in sorted(task.measures)
    )
    end = f" ({result.failed})" if result.failed else ""
    return f"{task.arms[0]}, seed {result.seed}: {asked}, {result.seconds:.0f} s{end}"


def tuned(claims: Iterable[Claim], results: Iterable[Result]) -> tuple[Claim, ...]:
    """Return claims whose arms have the best of their rates: that with the lowest measure.

    Where no rate reached what is measured, the one with the lowest training error at the end.
    """
    results = list(results)

    def best(claim: Claim, arm: Arm) -> Arm:
        if not arm.rates:
            return arm
        name = claim.measure_of(arm)

        def rank(result: Result) -> tuple[bool, float, float]:
            last = result.curve[-1].train_error if result.curve else 1.0
            bad = bool(result.failed)
            return bad, result.measures[name], last

        lr = min(trials(arm, results), key=rank).recipe.lr
        return replace(arm, recipe=arm.recipe.with_(lr=lr))

    return tuple(replace(c, first=best(c, c.first), second=best(c, c.second)) for c in claims)


def trials(arm: Arm, results: Iterable[Result]) -> list[Result]:
    """Return the runs that choose an arm's rate."""
    wanted = [arm.trial(rate) for rate in arm.rates]
    return [result for result in results if result.spec == arm.spec and result.recipe in wanted]


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other commands out of the folder of results within the block.

    Raises
    ------
    RunError
        When another one is at work there.
    """
    with translate_os_error(out):
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("a")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"Another command runs claims in {str(out)!r}.",
                "Wait for it, or choose another --out.",
            ) from None
        except OSError:  # a file system without locks
            pass
        yield


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
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


def usual_workers(threads: int | None) -> int:
    """Return how many runs a machine makes at once: its processors over the threads of a run."""
    return max(1, (os.cpu_count() or 1) // threads) if threads else 1
