"""The processes of one training: who they are, how they meet, and what they tell each other.

Which they are comes from the environment that torchrun, and `alexnet launch`, give each process.
One process alone is rank 0 of 1, and everything here costs it nothing.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import DistError, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from alexnet.data.loader import Part
from alexnet.device import best_device
from alexnet.errors import LostError

SETTLING = 0.2  # seconds
GRACE = 60.0  # seconds after `timeout` at which PyTorch itself gives up; ours comes first


@dataclass(frozen=True, slots=True)
class DistributedContext:
    """One process among those of its training."""

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0  # among those of its machine
    store: Store | None = None  # what all can write to and read from

    @property
    def first(self) -> bool:
        """Whether this is the one process that writes."""
        return self.rank == 0

    @property
    def part(self) -> Part:
        """What it takes of anything that all divide."""
        return Part(self.rank, self.ranks)

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return best_device(self.local_rank)

    def added(self, numbers: Tensor) -> Tensor:
        """Return a tensor summed over the processes; the same bits on each."""
        if self.ranks > 1:
            dist.all_reduce(numbers)
        return numbers

    def most(self, number: int) -> int:
        """Return the largest of the processes' numbers; no GPU is asked, or waited for."""
        if self.ranks == 1:
            return number
        numbers = torch.tensor([number])
        dist.all_reduce(numbers, dist.ReduceOp.MAX)
        return int(numbers)

    def tell(self, name: str, content: Any) -> None:
        """Let all processes hear something; what JSON can hold."""
        if self.store is not None:
            self.store.set(name, json.dumps(content))

    def heard(self, name: str) -> Any:
        """Return what a process tells under a name, once it does, however long that takes."""
        assert self.store is not None
        while not self.store.check([name]):
            time.sleep(0.1)
        return json.loads(self.store.get(name))


@contextlib.contextmanager
def join_processes(timeout: float) -> Iterator[DistributedContext]:
    """Connect this process to the others; it leaves them when the block ends.

    Parameters
    ----------
    timeout : float
        Seconds that a process waits for the others.

    Raises
    ------
    LostError
        When the others cannot be met, or one of them has gone.
    """
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks == 1:
        yield DistributedContext()
        return
    waiting = timedelta(seconds=timeout + GRACE)
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = best_device(local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        store, rank, ranks = next(rendezvous("env://", timeout=waiting))  # type: ignore[no-untyped-call]
        store.set_timeout(waiting)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=ranks, timeout=waiting)
    except (RuntimeError, ValueError, DistError) as error:
        raise LostError(
            f"The other processes cannot be met at {os.environ.get('MASTER_ADDR')}:"
            f"{os.environ.get('MASTER_PORT')} ({str(error).splitlines()[0]}).",
            "See that the address can be reached from every machine, and start all again.",
        ) from error
    try:
        yield DistributedContext(rank, ranks, local_rank, store)
    except RuntimeError as error:
        if not isinstance(error, DistError) and "gloo" not in str(error):
            raise
        raise LostError(
            f"Another process of the training is gone ({str(error).splitlines()[0][:200]}).",
            "Start all again; the training goes on from its last checkpoint.",
        ) from error
    finally:
        # PyTorch's threads need the interpreter to let go of the last tensors, and taking the
        # group down waits for those threads without letting go of the interpreter.
        time.sleep(SETTLING)
        with contextlib.suppress(RuntimeError):  # the others may be gone already
            dist.destroy_process_group()
