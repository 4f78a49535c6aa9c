"""The loop: a batch is run forward and backward, its loss checked, and the weights updated.

It knows nothing of files, consoles or how many processes there are.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.device import Device, HostCopy, is_out_of_memory
from alexnet.errors import TrainingError
from alexnet.recipes import Recipe
from alexnet.training.optimizer import MomentumSGD, Rates, update
from alexnet.training.randomness import seed_dropout, step_seed

IGNORE_INDEX = -100  # the label of an image that only fills a place, as in `cross_entropy`


@dataclass(frozen=True, slots=True)
class LocalBatch:
    """What one process has of a training batch."""

    pixels: Tensor  # (N, 3, size, size): what the network sees
    labels: Tensor  # (N,) int64; `IGNORE_INDEX` where an image only fills a place
    first: int  # place of the first image in the batch of all processes
    batch_size: int  # images of that batch


@dataclass(frozen=True, slots=True)
class Step:
    """What one update did."""

    number: int  # from 1
    loss: float  # cross-entropy, mean over the batch of all processes, in nats
    correct: int  # images of that batch whose class was ranked first
    images: int  # in that batch
    lr: float  # of the weights
    refused: str = ""  # why the update was not made, if it was not


def keep_local(tensor: Tensor) -> Tensor:
    """Return a tensor as it is: what one process alone does where several would meet."""
    return tensor


@dataclass(frozen=True, slots=True)
class Replica:
    """A network as one process computes it, and how the processes come together."""

    network: nn.Module  # this process's layers
    forward: Callable[[Tensor], Tensor]  # the same, compiled or wrapped: pixels to logits
    no_sync: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    # within it gradients are not yet summed over the processes
    averaged_over: int = 1  # processes by whose number DDP divides the sum of the gradients
    all_reduce_sum: Callable[[Tensor], Tensor] = keep_local  # a tensor, summed over the processes
    dropout_rows: Callable[[Tensor], Tensor] = keep_local  # places of a process's images in the
    # batch, to those of the images that its fully-connected layers see


class MicroBatch:
    """How many images go through the network at once; halved each time that memory is short.

    Gradients are added over micro-batches, so the batch of the recipe stays what it is.
    """

    def __init__(self, size: int | None = None) -> None:
        self.size = size  # None: as many as there are
        self.fixed = False  # where other processes would be left waiting by another try
        self._report = ""

    def of(self, images: int) -> int:
        """Return how many of so many images to take at once."""
        return max(1, min(self.size or images, images))

    def halve(self, images: int, error: BaseException) -> None:
        """Take fewer after an error, if that can help; raise `error` if it is of another kind.

        That not even one image fits, or none may be tried again, is a `TrainingError`.
        """
        if not is_out_of_memory(error):
            raise error
        size = self.of(images)
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else "MemoryError"
        if size == 1:
            raise TrainingError(
                f"There is not enough memory for a single image ({reason}).",
                "Take a smaller network, or a machine with more memory.",
            ) from error
        if self.fixed:
            raise TrainingError(
                f"There is not enough memory for {size} images at once ({reason}).",
                f"Start again with --micro-batch {size // 2}; the batch stays the same.",
            ) from error
        self.size = size // 2
        self._report = (
            f"Memory is short: {self.size} images are taken at once, the batch is the same."
        )
        Device.best().release_memory()

    def take_report(self) -> str:
        """Return what there is to report, once."""
        report, self._report = self._report, ""
        return report


def check_finite(loss: float) -> str:
    """Return what is wrong with a loss that is no number, or nothing."""
    return "" if math.isfinite(loss) else f"is {loss}"


def train(
    replica: Replica,
    optimizer: MomentumSGD,
    batches: Iterable[LocalBatch],
    recipe: Recipe,
    rates: Callable[[int], Rates],
    *,
    done: int,
    total: int,
    dtype: torch.dtype,
    check_loss: Callable[[float], str] = check_finite,
    micro: MicroBatch | None = None,
) -> Iterator[Step]:
    """Update the network once a batch from step ``done + 1`` to `total`, yielding each update.

    `batches` are this process's parts, the first for step ``done + 1``, and `rates` the learning
    rates of a step by its number. `dtype`, float32 or bfloat16, is that of the matrix products; the
    loss is float32 or better. `check_loss` says what is wrong with a loss, or nothing; a batch with
    such a loss changes nothing. `micro` is how many images are taken at once; gradients are added
    until all were.
    """
    micro = micro or MicroBatch()
    numbers = range(done + 1, total + 1)  # first in the zip, so that no batch is drawn and lost
    for number, batch in zip(numbers, batches, strict=False):
        now, seed = rates(number), step_seed(recipe.seed, number)
        metrics = compute_gradients(replica, batch, micro, recipe, seed, dtype)
        loss, correct = metrics.wait().tolist()  # while the device is at the gradients
        if refused := check_loss(loss):
            replica.network.zero_grad(set_to_none=True)
        else:
            update(optimizer, now, recipe)
        yield Step(number, loss, int(correct), batch.batch_size, now.weights, refused)


def compute_gradients(
    replica: Replica,
    batch: LocalBatch,
    micro: MicroBatch,
    recipe: Recipe,
    seed: int,
    dtype: torch.dtype,
) -> HostCopy:
    """Run `accumulate`, in smaller pieces after each that did not fit into memory."""
    images = len(batch.labels)
    while True:
        try:
            return accumulate(replica, batch, micro.of(images), recipe, seed, dtype)
        except (RuntimeError, MemoryError) as error:
            failure = error.with_traceback(None)  # its frames hold the memory that is wanted
        replica.network.zero_grad(set_to_none=True)
        micro.halve(images, failure)


def probe_batch_size(
    replica: Replica, batch: LocalBatch, micro: MicroBatch, recipe: Recipe, dtype: torch.dtype
) -> None:
    """Find out how many images fit, without the other processes; no gradient stays."""
    alone = replace(replica, all_reduce_sum=keep_local)
    with replica.no_sync():
        compute_gradients(alone, batch, micro, recipe, 0, dtype)
    replica.network.zero_grad(set_to_none=True)


def accumulate(
    replica: Replica, batch: LocalBatch, size: int, recipe: Recipe, seed: int, dtype: torch.dtype
) -> HostCopy:
    """Add a batch's gradients to the network's, `size` images at a time.

    Returns the loss and the number of images whose class was ranked first, ``(2,)``, of the whole
    batch.

    The loss is a sum over images, divided by those of the whole batch: however a batch is divided
    among processes and micro-batches, the sum of the gradients is the gradient of its mean loss.

    The metrics are summed over the processes and sent to the host before the last backward pass is
    queued: the host checks the loss and queues the update while a GPU is still at the gradients.
    """
    device = Device.of(batch.pixels)
    totals = torch.zeros(2, dtype=device.sum_dtype, device=device.torch)
    images = len(batch.labels)
    for start in range(0, images, size):
        pixels, labels = batch.pixels[start : start + size], batch.labels[start : start + size]
        places = torch.arange(start, start + len(labels), device=device.torch) + batch.first
        seed_dropout(replica.network, seed, replica.dropout_rows(places))
        last = start + size >= images
        with contextlib.nullcontext() if last else replica.no_sync():
            with device.autocast(dtype):
                logits = replica.forward(pixels)
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            loss = F.cross_entropy(
                logits,
                labels,
                reduction="sum",
                ignore_index=IGNORE_INDEX,
                label_smoothing=recipe.label_smoothing,
            )
            loss = loss / batch.batch_size
            with torch.no_grad():
                correct = (logits.argmax(1) == labels).sum()
                totals += torch.stack([loss.to(totals.dtype), correct.to(totals.dtype)])
            if last:
                metrics = device.start_copy_to_host(replica.all_reduce_sum(totals))
            (loss * replica.averaged_over).backward()  # type: ignore[no-untyped-call]
    return metrics
