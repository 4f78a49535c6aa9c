"""What a benchmark is made of: settings, cases to time, suites of these; the machine's limits."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from alexnet.device import Device
from alexnet.errors import AlexNetError
from alexnet.spec import Spec

MATMUL = "matmul-limit"  # the peer that is the machine's matrix product
COPIED = 64 << 20  # float32 numbers, 256 MB: more than caches hold, but for the largest


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
