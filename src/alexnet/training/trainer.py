"""The loop. It knows the update and nothing of files, screens or how many processes there are."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.recipes import Recipe
from alexnet.training.memory import MicroBatch
from alexnet.training.optimizer import Rates, update
from alexnet.training.randomness import seed_dropout, step_seed

NOTHING = -100  # the label of an image that counts for nothing: PyTorch's `ignore_index`


@dataclass(frozen=True, slots=True)
class LocalBatch:
    """What one process has of a training batch."""

    pixels: Tensor  # (N, 3, image, image): what the network sees
    labels: Tensor  # (N,) int64; `NOTHING` where an image only fills a place
    first: int  # place of the first image in the batch of all processes
    batch: int  # images of that batch


@dataclass(frozen=True, slots=True)
class Step:
    """What one update did."""

    number: int  # from 1
    loss: float  # cross-entropy, mean over the batch of all processes, in nats
    correct: int  # images of that batch whose class was ranked first
    images: int  # in that batch
    lr: float  # of the weights
    refused: str = ""  # why the update was not made, if it was not


@dataclass(frozen=True, slots=True)
class Found:
    """What a batch's forward pass found, on its way from the device to the host."""

    totals: Tensor  # (2,) float64: the batch's loss, and how many of its images were right
    arrived: torch.cuda.Event | None  # None where device and host are one

    @classmethod
    def sent(cls, totals: Tensor) -> Self:
        """Start the way; what is queued on the device after it is not waited for."""
        if not totals.is_cuda:
            return cls(totals, None)
        copy = totals.to("cpu", non_blocking=True)  # into pinned memory
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(totals.device))
        return cls(copy, arrived)

    def read(self) -> tuple[float, int]:
        """Return the loss and the number of images, once they are there."""
        if self.arrived:
            self.arrived.synchronize()
        loss, correct = self.totals.tolist()
        return loss, int(correct)


def _alone(totals: Tensor) -> Tensor:
    return totals


@dataclass(frozen=True, slots=True)
class Replica:
    """A network as one process computes it, and how the processes come together."""

    network: nn.Module  # this process's layers
    forward: Callable[[Tensor], Tensor]  # the same, compiled or wrapped: pixels to logits
    apart: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    # within it gradients are not yet added over the processes
    averaged_over: int = 1  # processes by whose number the sum of gradients is divided
    added: Callable[[Tensor], Tensor] = _alone  # a tensor, summed over the processes
    rows: Callable[[Tensor], Tensor] = _alone  # places of a process's images in the batch, to
    # those of the images that its fully-connected layers see


def train(
    replica: Replica,
    optimizer: torch.optim.SGD,
    shares: Iterable[LocalBatch],
    recipe: Recipe,
    rates: Callable[[int], Rates],
    *,
    done: int,
    total: int,
    kind: torch.dtype,
    judge: Callable[[float], str] = lambda loss: "" if math.isfinite(loss) else f"is {loss}",
    micro: MicroBatch | None = None,
) -> Iterator[Step]:
    """Update the network once a batch from step ``done + 1`` to `total`, yielding each update.

    Parameters
    ----------
    replica
        The network.
    optimizer
        Of `optimizer.make_optimizer`.
    shares
        This process's share of each batch, the first for step ``done + 1``.
    recipe
        Momentum, label smoothing and seed.
    rates
        The learning rates of a step; a function of its number.
    done, total
        Steps already taken, and to take in all.
    kind
        Type of the matrix products, float32 or bfloat16; the loss is float32 or better.
    judge
        Says what is wrong with a loss, or nothing; a batch with such a loss changes nothing.
    micro
        How many images of a share are taken at once; gradients are added until all were.
    """
    micro = micro or MicroBatch()
    numbers = range(done + 1, total + 1)  # first in the zip, so that no batch is drawn and lost
    for number, share in zip(numbers, shares, strict=False):
        now, seed = rates(number), step_seed(recipe.seed, number)
        found = within_memory(replica, share, micro, recipe, seed, kind)
        loss, correct = found.read()  # while the device is at the gradients
        if refused := judge(loss):
            optimizer.zero_grad(set_to_none=True)
        else:
            update(optimizer, now, recipe)
        yield Step(number, loss, correct, share.batch, now.weights, refused)


def within_memory(
    replica: Replica,
    share: LocalBatch,
    micro: MicroBatch,
    recipe: Recipe,
    seed: int,
    kind: torch.dtype,
) -> Found:
    """`accumulate`, in smaller pieces after each that did not fit."""
    images = len(share.labels)
    while True:
        try:
            return accumulate(replica, share, micro.of(images), recipe, seed, kind)
        except (RuntimeError, MemoryError) as error:
            failure = error.with_traceback(None)  # its frames hold the memory that is wanted
        replica.network.zero_grad(set_to_none=True)
        micro.halve(images, failure)


def rehearse(
    replica: Replica, share: LocalBatch, micro: MicroBatch, recipe: Recipe, kind: torch.dtype
) -> None:
    """Find out how many images fit without a word to other processes; no gradient stays."""
    alone = replace(replica, added=_alone)
    with replica.apart():
        within_memory(alone, share, micro, recipe, 0, kind)
    replica.network.zero_grad(set_to_none=True)


def accumulate(
    replica: Replica, share: LocalBatch, size: int, recipe: Recipe, seed: int, kind: torch.dtype
) -> Found:
    """Add a share's gradients to the network's, `size` images at a time.

    The loss is a sum over images, divided by those of the whole batch: however a batch is divided
    among processes and pieces, the sum of the gradients is the gradient of its mean loss.

    What the forward passes found is added over the processes and sent to the host before the last
    backward pass is queued: the host judges it and queues the update while a GPU is still at the
    gradients.
    """
    totals = torch.zeros(2, dtype=torch.float64, device=share.pixels.device)
    images = len(share.labels)
    for start in range(0, images, size):
        pixels, labels = share.pixels[start : start + size], share.labels[start : start + size]
        places = torch.arange(start, start + len(labels), device=pixels.device) + share.first
        seed_dropout(replica.network, seed, replica.rows(places))
        more_to_come = start + size < images
        with replica.apart() if more_to_come else contextlib.nullcontext():
            with torch.autocast(pixels.device.type, kind, enabled=kind == torch.bfloat16):
                logits = replica.forward(pixels)
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            loss = F.cross_entropy(
                logits,
                labels,
                reduction="sum",
                ignore_index=NOTHING,
                label_smoothing=recipe.label_smoothing,
            )
            loss = loss / share.batch
            with torch.no_grad():
                correct = (logits.argmax(1) == labels).sum()
                totals += torch.stack([loss.double(), correct.double()])
            if not more_to_come:
                found = Found.sent(replica.added(totals))
            (loss * replica.averaged_over).backward()  # type: ignore[no-untyped-call]
    return found
