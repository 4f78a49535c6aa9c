"""How far a grid of runs is, read from the folders of the runs while they are made."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alexnet.claims.work import Task

TAIL = 400  # bytes at the end of a log, in which its last line is


@dataclass(frozen=True, slots=True)
class GridProgress:
    """How far a grid is."""

    finished: int  # runs
    runs: int
    share: float  # of all the work, 0 to 1
    seconds_left: float  # at the speed since this command began; inf before anything is known
    running: tuple[str, ...]  # "relu/tanh, seed 1: epoch 12.3 of 80"


class Grid:
    """The runs of a grid, finished and not."""

    def __init__(self, tasks: Sequence[Task], left: Sequence[Task]) -> None:
        self._tasks = tasks
        self._left = {task.key: task for task in left}
        self._whole = sum(map(work, tasks))
        self._begun = time.monotonic()
        self._before = self._done()[0]

    def finished(self, task: Task) -> None:
        """Take note that a run has its result."""
        self._left.pop(task.key, None)

    def progress(self) -> GridProgress:
        """Return how far all runs together are."""
        done, running = self._done()
        speed = (done - self._before) / max(1e-9, time.monotonic() - self._begun)
        rest = (self._whole - done) / speed if speed > 0 else float("inf")
        finished = len(self._tasks) - len(self._left)
        share = done / self._whole if self._whole else 1.0
        return GridProgress(finished, len(self._tasks), share, rest, running)

    def _done(self) -> tuple[float, tuple[str, ...]]:
        left = list(self._left.values())
        done, running = self._whole - sum(map(work, left)), []
        for task in left:
            epoch = min(last_epoch(task.folder / "metrics.jsonl"), task.recipe.epochs)
            if epoch:
                done += work(task) * epoch / task.recipe.epochs
                running.append(
                    f"{task.arms[0]}, seed {task.recipe.seed}: epoch {epoch:.1f} of "
                    f"{task.recipe.epochs:g}"
                )
        return done, tuple(running)


def work(task: Task) -> float:
    """Return what a run costs: the multiplications of all its images."""
    return task.spec.macs * task.recipe.epochs * task.images


def last_epoch(metrics: Path) -> float:
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
def watching(
    tasks: Sequence[Task],
    left: Sequence[Task],
    report: Callable[[GridProgress], None],
    every: float,
) -> Iterator[Grid]:
    """Report the progress of a grid every so many seconds within the block."""
    grid, over = Grid(tasks, left), threading.Event()

    def tell() -> None:
        while not over.wait(every):
            report(grid.progress())

    thread = threading.Thread(target=tell, daemon=True)
    if left:
        thread.start()
    try:
        yield grid
    finally:
        over.set()
        if left:
            thread.join()
