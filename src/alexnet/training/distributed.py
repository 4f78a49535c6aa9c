"""The processes of one training: how they meet, and the tensors and objects that they exchange.

Which they are comes from the environment that torchrun, and `alexnet launch`, give each process.
One process alone is rank 0 of 1, and everything here costs it nothing.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import DistError, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from alexnet.data.loader import Part
from alexnet.device import Device
from alexnet.errors import LostError

SETTLING = 0.2  # seconds before the process group is taken down
GRACE = 60.0  # seconds after `timeout` at which PyTorch itself gives up; our watchdog comes first


@dataclass(frozen=True, slots=True)
class DistributedContext:
    """One process among those of its training."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # among those of its machine
    store: Store | None = None  # what all can write to and read from

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that writes."""
        return self.rank == 0

    @property
    def part(self) -> Part:
        """What it takes of anything that all divide."""
        return Part(self.rank, self.world_size)

    @property
    def device(self) -> Device:
        """The device of this process."""
        return Device.of_process(self.local_rank)

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """Return a tensor summed over the processes; the same bits on each."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def all_reduce_max(self, number: int) -> int:
        """Return the largest of the processes' numbers, over the processor's own connection."""
        if self.world_size == 1:
            return number
        numbers = torch.tensor([number])
        dist.all_reduce(numbers, dist.ReduceOp.MAX)
        return int(numbers)

    def store_object(self, name: str, content: Any) -> None:
        """Let all processes read something under a name; what JSON can hold."""
        if self.store is not None:
            self.store.set(name, json.dumps(content))

    def wait_for_object(self, name: str) -> Any:
        """Return what a process stores under a name, once it does, however long that takes."""
        assert self.store is not None
        while not self.store.check([name]):
            time.sleep(0.1)
        return json.loads(self.store.get(name))


@contextlib.contextmanager
def join_processes(timeout: float) -> Iterator[DistributedContext]:
    """Give this process's context, connected to the others; it leaves them with the block.

    `timeout` is how many seconds a process waits for the others. That they cannot be met, or that
    one of them has gone, is a `LostError`.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield DistributedContext()
        return
    waiting = timedelta(seconds=timeout + GRACE)
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = Device.of_process(local_rank)
    device.make_current()
    try:
        store, rank, world_size = next(rendezvous("env://", timeout=waiting))  # type: ignore[no-untyped-call]
        store.set_timeout(waiting)
        dist.init_process_group(
            device.collective_backend,
            store=store,
            rank=rank,
            world_size=world_size,
            timeout=waiting,
        )
    except (RuntimeError, ValueError, DistError) as error:
        raise LostError(
            f"The other processes cannot be met at {os.environ.get('MASTER_ADDR')}:"
            f"{os.environ.get('MASTER_PORT')} ({str(error).splitlines()[0]}).",
            "See that the address can be reached from every machine, and start all again.",
        ) from error
    try:
        yield DistributedContext(rank, world_size, local_rank, store)
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


@dataclass(slots=True)
class Group:
    """Processes that hold parts of one thing, and this one's place among them."""

    handle: dist.ProcessGroup | None = None
    rank: int = 0
    size: int = 1
    sent: float = 0.0  # bytes that this process has sent, where collectives go round in a ring

    def _count(self, tensor: Tensor, times: float) -> None:
        self.sent += tensor.numel() * tensor.element_size() * times

    def all_gather(self, part: Tensor, dim: int) -> Tensor:
        """Return the parts of all processes, in their order, joined along a dimension."""
        if self.size == 1:
            return part
        self._count(part, self.size - 1)
        part = part.contiguous()
        parts = [torch.empty_like(part) for _ in range(self.size)]
        dist.all_gather(parts, part, group=self.handle)
        return torch.cat(parts, dim)

    def reduce_scatter(self, whole: Tensor, dim: int) -> Tensor:
        """Return this process's part along a dimension of the sum over all."""
        if self.size == 1:
            return whole
        self._count(whole, (self.size - 1) / self.size)
        parts = [part.contiguous() for part in whole.chunk(self.size, dim)]
        out = torch.empty_like(parts[0])
        dist.reduce_scatter(out, parts, group=self.handle)
        return out

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Return the sum over all, the same bits on each."""
        if self.size == 1:
            return tensor
        self._count(tensor, 2 * (self.size - 1) / self.size)
        out = tensor.contiguous().clone()
        dist.all_reduce(out, group=self.handle)
        return out


Collective = Callable[[Tensor], Tensor]


class _Differentiable(torch.autograd.Function):
    """A collective forward, and another backward.

    Those of `torch.distributed.nn` do not serve: backward, over gloo, they take a rank in a group
    for a rank of all.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, forward: Collective, backward: Collective) -> Tensor:
        ctx.run_backward = backward
        return forward(tensor)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return ctx.run_backward(grads[0]), None, None


def run_collective(tensor: Tensor, forward: Collective, backward: Collective) -> Tensor:
    """Run a collective on a tensor, and another one on its gradient."""
    out: Tensor = _Differentiable.apply(tensor, forward, backward)
    return out
