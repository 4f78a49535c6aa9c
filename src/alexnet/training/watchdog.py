"""Processes that wait for one that hangs give it up by name, with every stack on the disk.

Each process says every second how far it is, from a thread that works while the training waits.
When none has made progress for `timeout` seconds, each looks which others are behind it, or
silent: those hang. It writes its own stack, names them, ends a silent one
of its own machine, which could not end itself, and leaves; whoever started the processes starts
them again, from the last checkpoint.
"""

import contextlib
import faulthandler
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch.distributed import DistError, Store  # type: ignore[attr-defined]

from alexnet.training.distributed import DistributedContext

MISSED = 3  # words, after which a process is stopped or dead
HUNG = 1  # exit status


@dataclass(frozen=True, slots=True)
class Beat:
    """What a process last said of itself."""

    rank: int
    host: str
    pid: int
    progress: int
    silent: float  # seconds since it said anything, by the listener's clock
    still: float  # seconds since it said anything new of its progress


class Watchdog:
    """Knows how far this process is, tells the others, and acts when nothing goes on."""

    def __init__(self, ranks: DistributedContext, timeout: float, folder: Path) -> None:
        self._ranks, self._timeout, self._folder = ranks, timeout, folder
        self._every = min(1.0, timeout / 6)  # seconds between words
        self._progress, self._since = 0, time.monotonic()
        self._heard: dict[tuple[int, str], tuple[str, float]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def progressed(self) -> None:
        """Say that this process goes on: after a step, a tested batch, a written checkpoint."""
        self._progress += 1
        self._since = time.monotonic()

    def start(self) -> None:
        """Begin to watch; the others know of this process from now on."""
        assert self._ranks.store is not None
        self._tell(self._ranks.store)
        self._thread.start()

    def stop(self) -> None:
        """End the watching; a process that leaves may be silent."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        assert self._ranks.store is not None
        store = self._ranks.store.clone()  # type: ignore[attr-defined]  # the other may be waiting
        while not self._over.wait(self._every):
            try:
                self._tell(store)
                beats = self._listen(store)
            except (RuntimeError, DistError):  # the store has gone: so has the training
                beats = []
            still = [time.monotonic() - self._since, *(beat.still for beat in beats)]
            if min(still) > self._timeout:
                self._give_up(beats)

    def _tell(self, store: Store) -> None:
        text = f"{socket.gethostname()} {os.getpid()} {self._progress} {time.monotonic()}"
        store.set(f"beat/{self._ranks.rank}", text)

    def _listen(self, store: Store) -> list[Beat]:
        """Return what each of the others last said; a text that changes is a sign of life."""
        beats = []
        for rank in range(self._ranks.ranks):
            if rank == self._ranks.rank or not store.check([f"beat/{rank}"]):
                continue
            text = store.get(f"beat/{rank}").decode()
            host, pid, progress, _ = text.split()
            silent, still = self._age(rank, "word", text), self._age(rank, "progress", progress)
            beats.append(Beat(rank, host, int(pid), int(progress), silent, still))
        return beats

    def _age(self, rank: int, kind: str, text: str) -> float:
        """Return how many seconds ago a text of a process became what it is."""
        now = time.monotonic()
        if self._heard.get((rank, kind), ("", 0.0))[0] != text:
            self._heard[rank, kind] = (text, now)
        return now - self._heard[rank, kind][1]

    def _give_up(self, beats: list[Beat]) -> None:
        """Name who hangs, leave this process's stacks behind, and leave."""
        silent = [beat for beat in beats if beat.silent > MISSED * self._every]
        behind = [beat for beat in beats if beat.progress < self._progress and beat not in silent]
        self._write_stacks()
        named = [f"rank {beat.rank} (process {beat.pid} on {beat.host})" for beat in silent]
        named += [f"rank {beat.rank} (behind the others)" for beat in behind]
        sys.stderr.write(
            f"alexnet: rank {self._ranks.rank}: Nothing has gone on for {self._timeout:g} s; "
            f"{', '.join(named) or 'this process'} hangs. Stacks are in "
            f"{str(self._folder / 'stacks')!r}; start again to go on from the last checkpoint.\n"
        )
        sys.stderr.flush()
        for beat in silent:
            if beat.host == socket.gethostname():
                with contextlib.suppress(OSError):
                    os.kill(beat.pid, signal.SIGKILL)
        os._exit(HUNG)

    def _write_stacks(self) -> None:
        with contextlib.suppress(OSError):
            (self._folder / "stacks").mkdir(exist_ok=True)
            with (self._folder / "stacks" / f"rank-{self._ranks.rank}.txt").open("w") as file:
                faulthandler.dump_traceback(file, all_threads=True)


@contextlib.contextmanager
def watched(ranks: DistributedContext, timeout: float, folder: Path) -> Iterator[Watchdog]:
    """Watch over the processes within the block; one that is alone has nobody to wait for."""
    watchdog = Watchdog(ranks, timeout, folder)
    if ranks.ranks == 1:
        yield watchdog
        return
    watchdog.start()
    try:
        yield watchdog
    finally:
        watchdog.stop()
