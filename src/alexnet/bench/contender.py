"""What a comparison is made of: the setting, who runs in it, and what a call of theirs comes to."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from alexnet import device as devices
from alexnet.errors import AlexNetError
from alexnet.spec import Spec

MATMUL = "matmul-limit"  # the peer that is the machine's matrix product


class UnsuitableError(AlexNetError):
    """A contender that this machine can run, but no user of it would."""


def require_fast(kind: torch.dtype, device: torch.device) -> None:
    """See that a device multiplies matrices of a type in hardware.

    Without, a product in bfloat16 takes about a hundred times one in float32 (measured on a
    processor with AVX2 alone), so that a single round would last for minutes.

    Raises
    ------
    UnsuitableError
        When it does not.
    """
    if kind == torch.bfloat16 and not devices.has_fast_bfloat16(device):
        raise UnsuitableError(
            f"The device {devices.device_name(device)} has no fast bfloat16: float32 is many times "
            "faster on it."
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What all works of a report share."""

    spec: Spec
    batch_size: int  # images a call
    device: torch.device
    kind: torch.dtype  # ours: of the matrix products
    scratch: Path  # a folder to write to
    images: Path | None = None  # a folder of photographs
    threads: int | None = None  # of the processor; None: PyTorch's choice


@dataclass(frozen=True, slots=True)
class Timed:
    """A function to time."""

    call: Callable[[], object]
    amount: float  # what a call comes to, in the unit that its rate is told in: images, GFLOP, GB
    note: str = ""  # what a reader of the report should know of it
    awaited: bool = False  # whether a GPU is waited for after each call, not after many: a latency


@dataclass(frozen=True, slots=True)
class Contender:
    """One who runs, before it is made: it is sent to the process where it will run."""

    name: str
    make: Callable[[Setting], Timed]  # a function of a module, or a partial of one
    keeps_memory: bool = False  # runs with `devices.keep_freed_memory`


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """Contenders that do the same, the first of them ours."""

    setting: Setting
    unit: str
    contenders: tuple[Contender, ...]
    gflop: float = 0.0  # of matrix products for 1 of the amount; 0: no `MATMUL` among the peers

    @property
    def lower_is_better(self) -> bool:
        """Whether the unit is one of time."""
        return self.unit == "ms"

    def values(self, times: Iterable[float], amount: float) -> list[float]:
        """Return what seconds of a call come to, in the work's unit."""
        if self.lower_is_better:
            return [seconds / amount * 1e3 for seconds in times]
        return [amount / seconds for seconds in times]

    def ahead(self, ours: float, theirs: float) -> float:
        """Return how many times theirs ours is; above 1 is better, whatever the unit."""
        return theirs / ours if self.lower_is_better else ours / theirs
