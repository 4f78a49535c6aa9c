"""What a training keeps an eye on and reports: events, corrupt images, waiting, losses, hangs."""

import contextlib
import faulthandler
import os
import signal
import socket
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from torch.distributed import DistError, Store  # type: ignore[attr-defined]

from alexnet.data.loader import Batch
from alexnet.errors import TrainingError
from alexnet.evaluation import Evaluation
from alexnet.training.distributed import DistributedContext
from alexnet.training.state import History
from alexnet.training.trainer import Step, check_finite

MIN_LOSSES = 20  # below which none can be called unusual
MISSED_BEATS = 3  # after which a process is stopped or dead
HUNG = 1  # exit status


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the user should know."""

    text: str
    own: bool = False  # whether it is this process's, which others know nothing of


@dataclass(frozen=True, slots=True)
class Progressed:
    """An update was made."""

    step: Step
    total: int  # steps planned
    epoch: float  # passes over the training images so far
    images_per_step: int
    images_per_second: float | None  # None: not known at the first step


@dataclass(frozen=True, slots=True)
class Validated:
    """The network was tested on the split that is watched."""

    step: int
    epoch: float
    split: str
    result: Evaluation
    best: float  # top-1 of the best validation so far


@dataclass(frozen=True, slots=True)
class Tested:
    """The training is over and the network was tested with all its crops."""

    split: str
    result: Evaluation


@dataclass(frozen=True, slots=True)
class Stopped:
    """The training was asked to stop; everything up to `step` is saved."""

    step: int
    signal: int  # SIGUSR1 where the time was up

    @property
    def status(self) -> int:
        """The exit status: 130 or 143 as the signal asked, 75 where it is to be started again."""
        return os.EX_TEMPFAIL if self.signal == signal.SIGUSR1 else 128 + self.signal


Event = Notice | Progressed | Validated | Tested | Stopped


class CorruptionTracker:
    """The corrupt training images so far."""

    def __init__(self, max_corrupt: float) -> None:
        self._max = max_corrupt
        self._found: dict[int, str] = {}
        self._reported = 0

    def count(self, batch: Batch) -> None:
        """Take note of a batch's corrupt images; `TrainingError` where there are too many."""
        for one in batch.corrupt:
            self._found.setdefault(one.index, f"{one.name} is damaged: {one.reason}")
        if len(self._found) > self._max:
            raise TrainingError(
                f"{len(self._found)} training images are damaged, more than --set max_corrupt "
                f"allows; the last: {list(self._found.values())[-1]}",
                "alexnet prepare --verify names all damage; prepare the data again.",
            )

    def report(self) -> Iterator[Notice]:
        """Yield what has been found since the last report."""
        for text in list(self._found.values())[self._reported :]:
            self._reported += 1
            yield Notice(
                f"{text} Another image takes its place ({self._reported} so far).", own=True
            )


class DataTimer:
    """How long the training waits for its images."""

    def __init__(self) -> None:
        self._waited, self._begun = 0.0, time.perf_counter()

    def time(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Pass batches on; count the time until each is there, but for the first one's."""
        batch = next(batches)
        self._begun = time.perf_counter()
        while True:
            yield batch
            asked = time.perf_counter()
            batch = next(batches)
            self._waited += time.perf_counter() - asked

    def waiting(self) -> float:
        """Return the waiting's share of the time since the first batch, 0 to 1."""
        return self._waited / (time.perf_counter() - self._begun)


class Stopwatch:
    """Images a second, over the last few steps but the first, in which the network is compiled."""

    def __init__(self) -> None:
        self._laps: deque[float] | None = None
        self.restart()

    def restart(self) -> None:
        """Forget the time since the last lap, which was spent on something else."""
        self._last = time.perf_counter()

    def lap(self, images: int) -> float | None:
        """Count a step of `images`; return the rate, None at the first step."""
        before, self._last = self._last, time.perf_counter()
        if self._laps is None:
            self._laps = deque(maxlen=20)
            return None
        self._laps.append((self._last - before) / images)
        return len(self._laps) / sum(self._laps)


def check_loss(history: History, spike: float | None, loss: float) -> str:
    """Return what is wrong with a loss, or nothing, and remember it.

    With a `spike`, a loss so many times the median of the last ones is wrong.
    """
    if wrong := check_finite(loss):
        return wrong
    if spike and len(history.losses) >= MIN_LOSSES:
        usual = statistics.median(history.losses)
        if loss > spike * usual:
            return f"is {loss:.3g}, more than {spike:g} times its usual {usual:.3g},"
    history.add_loss(loss)
    return ""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a process last said of itself."""

    rank: int
    host: str
    pid: int
    progress: int
    silent: float  # seconds since it said anything, by the listener's clock
    still: float  # seconds since it said anything new of its progress


class Watchdog:
    """Ends processes that wait for one that hangs, by name, with every stack on the disk.

    Each process writes every second how far it is into the store, from a thread that works while
    the training waits. When none has made progress for `timeout` seconds, each looks which others
    are behind it, or silent: those hang. It writes its own stack, names them, ends a silent one of
    its own machine, which could not end itself, and exits; whoever started the processes starts
    them again, from the last checkpoint.
    """

    def __init__(self, context: DistributedContext, timeout: float, folder: Path) -> None:
        self._context, self._timeout, self._folder = context, timeout, folder
        self._every = min(1.0, timeout / 6)  # seconds between heartbeats
        self._progress, self._since = 0, time.monotonic()
        self._heard: dict[tuple[int, str], tuple[str, float]] = {}
        self._over = threading.Event()

    def progressed(self) -> None:
        """Say that this process goes on: after a step, a tested batch, a written checkpoint."""
        self._progress += 1
        self._since = time.monotonic()

    @contextlib.contextmanager
    def watch(self) -> Iterator[Self]:
        """Watch over the processes within the block; one that is alone waits for no other."""
        if self._context.store is None:
            yield self
            return
        self._send(self._context.store)
        thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()  # a process that leaves may be silent
            thread.join()

    def _run(self) -> None:
        assert self._context.store is not None
        store = self._context.store.clone()  # type: ignore[attr-defined]  # the other may be waiting
        while not self._over.wait(self._every):
            try:
                self._send(store)
                beats = self._receive(store)
            except (RuntimeError, DistError):  # the store has gone: so has the training
                beats = []
            still = [time.monotonic() - self._since, *(beat.still for beat in beats)]
            if min(still) > self._timeout:
                self._give_up(beats)

    def _send(self, store: Store) -> None:
        text = f"{socket.gethostname()} {os.getpid()} {self._progress} {time.monotonic()}"
        store.set(f"beat/{self._context.rank}", text)

    def _receive(self, store: Store) -> list[Heartbeat]:
        """Return what each of the others last said; a text that changes is a sign of life."""
        beats = []
        for rank in range(self._context.world_size):
            if rank == self._context.rank or not store.check([f"beat/{rank}"]):
                continue
            text = store.get(f"beat/{rank}").decode()
            host, pid, progress, _ = text.split()
            silent, still = self._age(rank, "text", text), self._age(rank, "progress", progress)
            beats.append(Heartbeat(rank, host, int(pid), int(progress), silent, still))
        return beats

    def _age(self, rank: int, what: str, text: str) -> float:
        """Return how many seconds ago a text of a process became what it is."""
        now = time.monotonic()
        if self._heard.get((rank, what), ("", 0.0))[0] != text:
            self._heard[rank, what] = (text, now)
        return now - self._heard[rank, what][1]

    def _give_up(self, beats: list[Heartbeat]) -> None:
        """Name the processes that hang, write this one's stacks, and exit."""
        silent = [beat for beat in beats if beat.silent > MISSED_BEATS * self._every]
        behind = [beat for beat in beats if beat.progress < self._progress and beat not in silent]
        stacks = self._folder / "stacks"
        with contextlib.suppress(OSError):
            stacks.mkdir(exist_ok=True)
            with (stacks / f"rank-{self._context.rank}.txt").open("w") as file:
                faulthandler.dump_traceback(file, all_threads=True)
        named = [f"rank {beat.rank} (process {beat.pid} on {beat.host})" for beat in silent]
        named += [f"rank {beat.rank} (behind the others)" for beat in behind]
        sys.stderr.write(
            f"alexnet: rank {self._context.rank}: Nothing has gone on for {self._timeout:g} s; "
            f"{', '.join(named) or 'this process'} hangs. Stacks are in "
            f"{str(stacks)!r}; start again to go on from the last checkpoint.\n"
        )
        sys.stderr.flush()
        for beat in silent:
            if beat.host == socket.gethostname():
                with contextlib.suppress(OSError):
                    os.kill(beat.pid, signal.SIGKILL)
        os._exit(HUNG)
