"""What a benchmark is made of: settings, cases to time, suites of these; limits; rounds in turn.

Each case waits in a process of its own until it is told to run. So each has the memory setting, the
threads and the libraries that its users have, none meets what another left behind, and still all
are measured within the same seconds. Only one runs at a time.
"""

import contextlib
import math
import multiprocessing
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from alexnet.device import Device, keep_freed_memory, use_threads
from alexnet.errors import AlexNetError, MissingExtraError
from alexnet.spec import Spec

MATMUL = "matmul-limit"  # the peer that is the machine's matrix product
COPIED = 64 << 20  # float32 numbers, 256 MB: more than caches hold, but for the largest
ROUND_SECONDS = 0.5  # of calls that make a round; one call at least
SETTLE_SECONDS = 0.1  # after a round, in which thread pools stop spinning: ONNX Runtime's takes up
# to 0.03 a thread
QUEUED = 10  # calls that a GPU is given at once
EXIT_SECONDS = 5.0  # that a process is given to end by itself


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchSettings:
    """What all suites of a report share."""

    spec: Spec
    batch_size: int  # images a call
    device: Device
    dtype: torch.dtype  # of our matrix products
    scratch: Path  # a folder to write to
    images: Path | None = None  # a folder of photographs
    threads: int | None = None  # of the processor; None: PyTorch's choice


@dataclass(frozen=True, slots=True)
class TimedCall:
    """A function to time."""

    call: Callable[[], object]
    amount: float  # what a call comes to, in the unit that its rate is told in: images, GFLOP, GB
    note: str = ""  # what a reader of the report should know of it
    is_latency: bool = False  # whether a GPU is waited for after each call, not after many


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to measure, before it is made: it is sent to the process where it will run."""

    name: str
    make: Callable[[BenchSettings], TimedCall]  # a function of a module, or a partial of one
    keeps_memory: bool = False  # runs with `device.keep_freed_memory`


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """Cases that do the same, the first of them ours."""

    settings: BenchSettings
    unit: str
    cases: tuple[Case, ...]
    gflop: float = 0.0  # of matrix products for 1 of the amount; 0: no `MATMUL` among the peers

    @property
    def lower_is_better(self) -> bool:
        """Whether the unit is one of time."""
        return self.unit == "ms"

    def to_unit(self, times: Iterable[float], amount: float) -> list[float]:
        """Convert seconds of a call to the suite's unit."""
        if self.lower_is_better:
            return [seconds / amount * 1e3 for seconds in times]
        return [amount / seconds for seconds in times]

    def ratio(self, ours: float, theirs: float) -> float:
        """Return how many times theirs ours is; above 1 is better, whatever the unit."""
        return theirs / ours if self.lower_is_better else ours / theirs


class UnsuitableError(AlexNetError):
    """A case that this machine could run, but that no user of it would."""


def require_fast(dtype: torch.dtype, device: Device) -> None:
    """Raise `UnsuitableError` where a device would have to emulate products of a type.

    A product in bfloat16 then takes about a hundred times one in float32 (measured on a processor
    with AVX2 alone), so that a single round would last for minutes.
    """
    if dtype == torch.bfloat16 and not device.has_fast_bfloat16:
        raise UnsuitableError(
            f"The device {device.name} has no fast bfloat16: float32 is many times faster on it."
        )
    if dtype == torch.int8 and not _has_fast_int8(device):
        raise UnsuitableError(f"The device {device.name} has no fast int8.")


def _has_fast_int8(device: Device) -> bool:
    if device.is_cpu:
        return device.has_int8
    a = torch.ones(32, 32, dtype=torch.int8, device=device.torch)
    try:
        torch._int_mm(a, a.t())
    except RuntimeError:
        return False
    return True


def list_limit_cases(settings: BenchSettings) -> tuple[Case, ...]:
    """Return what the machine can do at most: matrix products by type, copies, JPEG decoding.

    They are measured like any case, in every round of every suite. Names end in their unit;
    GFLOP/s count a multiplication and an addition as two.
    """
    side = 4096 if settings.device.is_cpu else 8192  # large enough for the full rate
    found = [
        Case(matmul_name(torch.float32), partial(time_matmul, torch.float32, side // 2)),
        Case(matmul_name(torch.bfloat16), partial(time_matmul, torch.bfloat16, side)),
        Case("matmul_int8_gops", partial(time_matmul_int8, side)),
        Case("copy_gb_per_s", time_copy),
    ]
    if settings.images:
        from alexnet.bench.data_suites import time_jpeg_decoding

        found.append(Case("jpeg_256_images_per_s_a_core", time_jpeg_decoding))
    return tuple(found)


def dtype_name(dtype: torch.dtype) -> str:
    """Return a type's name: ``bfloat16``."""
    return str(dtype).removeprefix("torch.")


def matmul_name(dtype: torch.dtype) -> str:
    """Return the limit's name: ``matmul_bfloat16_gflops``."""
    return f"matmul_{dtype_name(dtype)}_gflops"


def time_matmul(dtype: torch.dtype, side: int, settings: BenchSettings) -> TimedCall:
    """Return a product of square matrices; its amount is in GFLOP."""
    require_fast(dtype, settings.device)
    a, b = (torch.randn(side, side, device=settings.device.torch).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return TimedCall(lambda: torch.matmul(a, b, out=out), 2 * side**3 / 1e9)


def time_matmul_int8(side: int, settings: BenchSettings) -> TimedCall:
    """Return a product of matrices of bytes, summed in int32; its amount is in 1e9 operations."""
    require_fast(torch.int8, settings.device)
    device = settings.device.torch
    a, b = (
        torch.randint(-127, 128, (side, side), dtype=torch.int8, device=device) for _ in range(2)
    )
    return TimedCall(lambda: torch._int_mm(a, b.t()), 2 * side**3 / 1e9)


def time_copy(settings: BenchSettings) -> TimedCall:
    """Return a copy from memory to memory; its amount is GB read and written."""
    source = torch.ones(COPIED, device=settings.device.torch)
    target = torch.empty_like(source)
    return TimedCall(lambda: target.copy_(source), 2 * source.nbytes / 1e9)


@dataclass(frozen=True, slots=True)
class Measurements:
    """What is known of some cases: before the first round, all but the times."""

    amounts: dict[str, float] = field(default_factory=dict)  # of the cases that run
    notes: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)  # cases that cannot run here, and why
    times: dict[str, list[float]] = field(default_factory=dict)  # seconds of a call, a round each
    interrupted: bool = False  # by the user, before the last round

    def rates(self, name: str) -> list[float]:
        """Return a case's amount a second, round by round."""
        return [self.amounts[name] / seconds for seconds in self.times[name]]


class CaseProcess:
    """A process that makes some cases and runs a round of them whenever it is told to.

    When it cannot go on, an `AlexNetError` is raised, here and in `run_round`.
    """

    def __init__(self, cases: Sequence[Case], settings: BenchSettings) -> None:
        context = multiprocessing.get_context("spawn")
        self._names = ", ".join(case.name for case in cases)
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=answer_rounds, args=(theirs, tuple(cases), settings))
        self._process.start()
        theirs.close()
        self.made: Measurements = self._receive()

    def run_round(self) -> dict[str, float]:
        """Return the seconds of a call of each case, the median of those in this round."""
        with contextlib.suppress(BrokenPipeError):  # `_receive` says why
            self._pipe.send(True)
        return self._receive()

    def _receive(self) -> Any:
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
        if isinstance(answer, AlexNetError):
            raise answer
        return answer

    def close(self) -> None:
        """End the process: it goes by itself when nothing more can be asked of it."""
        self._pipe.close()
        self._process.join(EXIT_SECONDS)
        self._process.terminate()  # one that is in the middle of a call
        self._process.join()


def answer_rounds(pipe: Connection, cases: Sequence[Case], settings: BenchSettings) -> None:
    """Make the cases, then run a round for each message, until the other end is closed."""
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and closes the pipe
    if any(case.keeps_memory for case in cases):
        keep_freed_memory()
    use_threads(settings.threads)
    try:
        calls, made = make_cases(cases, settings)
        pipe.send(made)
        while pipe.recv():
            times = {name: time_round(call, settings.device) for name, call in calls.items()}
            time.sleep(SETTLE_SECONDS)
            pipe.send(times)
    except EOFError:
        return
    except AlexNetError as error:
        pipe.send(AlexNetError(error.what, error.fix))  # some of its subclasses cannot be pickled


def _exit_with_parent() -> None:
    """Wait until the parent process has died, killed or not; then end this one, whatever it does.

    The main thread sees that the pipe is closed only after the call that it is in, which can take
    minutes. PyTorch and the other runtimes let threads run during their calls.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def make_cases(
    cases: Iterable[Case], settings: BenchSettings
) -> tuple[dict[str, TimedCall], Measurements]:
    """Make the cases that can run here and whose packages are installed."""
    calls, missing = {}, {}
    for case in cases:
        try:
            calls[case.name] = case.make(settings)
        except (MissingExtraError, UnsuitableError) as error:
            missing[case.name] = str(error)
    amounts = {name: call.amount for name, call in calls.items()}
    notes = {name: call.note for name, call in calls.items() if call.note}
    return calls, Measurements(amounts, notes, missing)


def time_round(timed: TimedCall, device: Device) -> float:
    """Return the median time of a call among calls.

    The first is not counted: it finds the caches full of another's numbers. A GPU is given several
    calls before it is waited for, as a training or a server gives it work, where no latency is
    asked.
    """
    together = 1 if device.is_cpu or timed.is_latency else QUEUED
    _time_calls(timed, device, 1)
    times: list[float] = []
    while sum(times) * together < ROUND_SECONDS:
        times.append(_time_calls(timed, device, together))
    return statistics.median(times)


def _time_calls(timed: TimedCall, device: Device, calls: int) -> float:
    """Return how long a call takes, of some one after another, the device's work included."""
    device.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        timed.call()
    device.synchronize()
    return (time.perf_counter() - start) / calls


def run_rounds(
    groups: Iterable[Sequence[Case]],
    settings: BenchSettings,
    limits: CaseProcess,
    rounds: int,
    deadline: float = math.inf,
) -> Measurements:
    """Start a process for each group of cases, run rounds of all and of the limits, end them.

    They are started one after another, so that what one tries before it is ready meets nobody. One
    round before the first is not counted: programs are compiled in it. After `deadline`, on the
    clock of `time.monotonic`, no second round is begun. When it is interrupted, the whole rounds
    that there are count.
    """
    found = Measurements(dict(limits.made.amounts), dict(limits.made.notes))
    with contextlib.ExitStack() as stack:
        processes = [limits]
        for group in groups:
            process = stack.enter_context(contextlib.closing(CaseProcess(group, settings)))
            processes.append(process)
            found.amounts.update(process.made.amounts)
            found.notes.update(process.made.notes)
            found.missing.update(process.made.missing)
        with contextlib.suppress(KeyboardInterrupt):
            for number in range(rounds + 1):
                if number > 1 and time.monotonic() > deadline:
                    break
                times: dict[str, float] = {}
                for process in processes:
                    times |= process.run_round()
                for name, seconds in times.items() if number else ():
                    found.times.setdefault(name, []).append(seconds)
            return found
    if not found.times:
        raise KeyboardInterrupt
    return replace(found, interrupted=True)
