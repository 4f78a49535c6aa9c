"""Rounds in turn: each contender waits in a process of its own until it is told to run.

So each has the memory setting, the threads and the libraries that its users have, none meets what
another left behind, and still all are measured within the same seconds. Only one runs at a time.
"""

import contextlib
import multiprocessing
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from alexnet import device as devices
from alexnet.bench.contender import Contender, Setting, Timed, UnsuitableError
from alexnet.errors import AlexNetError, MissingExtraError

ENOUGH = 0.5  # seconds of calls that make a round; one call at least
SETTLED = 0.1  # seconds after a round in which thread pools stop spinning: ONNX Runtime's takes up
# to 0.03 a thread
QUEUED = 10  # calls that a GPU is given at once
PATIENCE = 5.0  # seconds that a process is given to end by itself


@dataclass(frozen=True, slots=True)
class Ready:
    """What a process says once its contenders are made."""

    amounts: dict[str, float]
    notes: dict[str, str]
    missing: dict[str, str]  # contenders that cannot run here, and why


@dataclass(frozen=True, slots=True)
class Failed:
    """What a process says when it cannot go on."""

    what: str
    fix: str


class Child:
    """A process that makes some contenders and runs a round of theirs whenever it is told to.

    Raises
    ------
    AlexNetError
        Here and in `round`, when the process cannot go on.
    """

    def __init__(self, contenders: Sequence[Contender], setting: Setting) -> None:
        context = multiprocessing.get_context("spawn")
        self._names = ", ".join(contender.name for contender in contenders)
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, tuple(contenders), setting))
        self._process.start()
        theirs.close()
        self.ready: Ready = self._answer()

    def round(self) -> dict[str, float]:
        """Return the seconds of a call of each contender, the median of those in this round."""
        with contextlib.suppress(BrokenPipeError):  # `_answer` says why
            self._pipe.send(True)
        return self._answer()

    def _answer(self) -> Any:
        try:
            answer = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            raise AlexNetError(
                f"The process that runs {self._names} has ended (exit status "
                f"{self._process.exitcode}).",
                "What it said stands above; status -9 means that memory ran out: give a smaller "
                "--batch-size.",
            ) from None
        if isinstance(answer, Failed):
            raise AlexNetError(answer.what, answer.fix)
        return answer

    def close(self) -> None:
        """End the process: it goes by itself when nothing more can be asked of it."""
        self._pipe.close()
        self._process.join(PATIENCE)
        self._process.terminate()  # one that is in the middle of a call
        self._process.join()


def serve(pipe: Connection, contenders: Sequence[Contender], setting: Setting) -> None:
    """Make the contenders, then run a round for each message, until the other end is closed."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and closes the pipe
    if any(contender.keeps_memory for contender in contenders):
        devices.keep_freed_memory()
    devices.use_threads(setting.threads)
    try:
        timed, ready = made(contenders, setting)
        pipe.send(ready)
        while pipe.recv():
            took = {name: round_seconds(x, setting.device) for name, x in timed.items()}
            time.sleep(SETTLED)
            pipe.send(took)
    except EOFError:
        return
    except AlexNetError as error:
        pipe.send(Failed(error.what, error.fix))


def end_with_parent() -> None:
    """Wait until the parent process has died, killed or not; then end this one, whatever it does.

    The main thread sees that the pipe is closed only after the call that it is in, which can take
    minutes. PyTorch and the other runtimes let threads run during their calls.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def made(contenders: Iterable[Contender], setting: Setting) -> tuple[dict[str, Timed], Ready]:
    """Make the contenders that can run here and whose packages are installed."""
    timed, missing = {}, {}
    for contender in contenders:
        try:
            timed[contender.name] = contender.make(setting)
        except (MissingExtraError, UnsuitableError) as error:
            missing[contender.name] = str(error)
    amounts = {name: one.amount for name, one in timed.items()}
    notes = {name: one.note for name, one in timed.items() if one.note}
    return timed, Ready(amounts, notes, missing)


def round_seconds(timed: Timed, device: torch.device) -> float:
    """Return the median time of a call among calls.

    The first is not counted: it finds the caches full of another's numbers. A GPU is given several
    calls before it is waited for, as a training or a server gives it work, where no latency is
    asked.
    """
    together = QUEUED if device.type == "cuda" and not timed.awaited else 1
    seconds(timed.call, device, 1)
    times: list[float] = []
    while sum(times) * together < ENOUGH:
        times.append(seconds(timed.call, device, together))
    return statistics.median(times)


def seconds(call: Callable[[], object], device: torch.device, calls: int) -> float:
    """Return how long a call takes, of some one after another, the device's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / calls


@dataclass(frozen=True, slots=True)
class Heat:
    """What some rounds came to, all processes together."""

    times: dict[str, list[float]]  # seconds of a call, a round each
    ready: Ready
    always: tuple[str, ...]  # those of the process that goes on

    def rates(self, name: str) -> list[float]:
        """Return a contender's amount a second, round by round."""
        return [self.ready.amounts[name] / seconds for seconds in self.times[name]]


def heat(
    groups: Iterable[Sequence[Contender]], setting: Setting, always: Child, rounds: int
) -> Heat:
    """Start a process for each group, run rounds of all and of one that goes on after, end them.

    They are started one after another, so that what one tries before it is ready meets nobody.
    """
    with contextlib.ExitStack() as stack:
        running = [always]
        for group in groups:
            running.append(stack.enter_context(contextlib.closing(Child(group, setting))))
        times = interleaved(running, rounds)
    every = [child.ready for child in running]
    ready = Ready(
        {name: amount for one in every for name, amount in one.amounts.items()},
        {name: note for one in every for name, note in one.notes.items()},
        {name: why for one in every[1:] for name, why in one.missing.items()},  # of this work alone
    )
    return Heat(times, ready, tuple(always.ready.amounts))


def interleaved(running: Sequence[Child], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each contender, round by round, all of them in turn in every round.

    One round before the first is not counted: programs are compiled in it.
    """
    times: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        for child in running:
            for name, elapsed in child.round().items():
                times.setdefault(name, [])
                if number:
                    times[name].append(elapsed)
    return times
