"""Tensors that cross between processes, forward and, as gradients, backward; and their traffic."""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(slots=True)
class Traffic:
    """Bytes that this process has sent, where collectives go round in a ring."""

    sent: float = 0.0


@dataclass(frozen=True, slots=True)
class Group:
    """Processes that hold parts of one thing, and this one's place among them."""

    handle: dist.ProcessGroup | None = None
    rank: int = 0
    size: int = 1
    traffic: Traffic = field(default_factory=Traffic)

    def _count(self, tensor: Tensor, times: float) -> None:
        self.traffic.sent += tensor.numel() * tensor.element_size() * times

    def gathered(self, part: Tensor, dim: int) -> Tensor:
        """Return the parts of all, in their order, joined along a dimension."""
        if self.size == 1:
            return part
        self._count(part, self.size - 1)
        part = part.contiguous()
        parts = [torch.empty_like(part) for _ in range(self.size)]
        dist.all_gather(parts, part, group=self.handle)
        return torch.cat(parts, dim)

    def reduced(self, whole: Tensor, dim: int) -> Tensor:
        """Return this process's part along a dimension of the sum over all."""
        if self.size == 1:
            return whole
        self._count(whole, (self.size - 1) / self.size)
        parts = [part.contiguous() for part in whole.chunk(self.size, dim)]
        out = torch.empty_like(parts[0])
        dist.reduce_scatter(out, parts, group=self.handle)
        return out

    def added(self, tensor: Tensor) -> Tensor:
        """Return the sum over all, the same bits on each."""
        if self.size == 1:
            return tensor
        self._count(tensor, 2 * (self.size - 1) / self.size)
        out = tensor.contiguous().clone()
        dist.all_reduce(out, group=self.handle)
        return out


class _Gather(torch.autograd.Function):
    """Each process sees the parts of all; each part's gradient is summed over who saw it."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, group: Group, dim: int) -> Tensor:
        ctx.group, ctx.dim = group, dim
        return group.gathered(part, dim)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return ctx.group.reduced(grads[0], ctx.dim), None, None


class _Reduce(torch.autograd.Function):
    """Sums over the processes, of which each keeps its own part; backward, all see all parts."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor, group: Group, dim: int) -> Tensor:
        ctx.group, ctx.dim = group, dim
        return group.reduced(whole, dim)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return ctx.group.gathered(grads[0], ctx.dim), None, None


class _Add(torch.autograd.Function):
    """Sums over processes that go on to compute the same from it, and so the same gradient."""

    @staticmethod
    def forward(ctx: Any, addend: Tensor, group: Group) -> Tensor:
        return group.added(addend)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def gather(part: Tensor, group: Group, dim: int) -> Tensor:
    """Join the parts of all processes along a dimension; differentiable."""
    out: Tensor = _Gather.apply(part, group, dim)
    return out


def reduce(whole: Tensor, group: Group, dim: int) -> Tensor:
    """Sum over all processes and keep this one's part along a dimension; differentiable."""
    out: Tensor = _Reduce.apply(whole, group, dim)
    return out


def add(addend: Tensor, group: Group) -> Tensor:
    """Sum over processes that compute the same loss from the sum; differentiable."""
    out: Tensor = _Add.apply(addend, group)
    return out
