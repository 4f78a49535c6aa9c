"""The loop. It knows the update and nothing of files, processes or screens."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.errors import TrainingError
from alexnet.recipes import Recipe
from alexnet.training.optimizer import Rates, update


@dataclass(frozen=True, slots=True)
class Step:
    """What one update did."""

    number: int  # from 1
    loss: float  # cross-entropy, mean over the batch, in nats
    correct: int  # images of the batch whose class was ranked first
    images: int  # in the batch
    lr: float  # of the weights


def train(
    network: Callable[[Tensor], Tensor],
    optimizer: torch.optim.SGD,
    batches: Iterable[tuple[Tensor, Tensor]],
    recipe: Recipe,
    rates: Callable[[int], Rates],
    *,
    done: int,
    total: int,
    kind: torch.dtype,
) -> Iterator[Step]:
    """Update the network once a batch from step ``done + 1`` to `total`, yielding each update.

    Parameters
    ----------
    network
        Pixels ``(N, 3, image, image)`` to logits ``(N, classes)``.
    optimizer
        Of `optimizer.make_optimizer`.
    batches
        Pixels and labels ``(N,)``, the first for step ``done + 1``.
    recipe
        Momentum, label smoothing and seed.
    rates
        The learning rates of a step; a function of its number.
    done, total
        Steps already taken, and to take in all.
    kind
        Type of the matrix products, float32 or bfloat16; the loss is float32.

    Raises
    ------
    TrainingError
        When the loss is no number any more; that step changes nothing.
    """
    numbers = range(done + 1, total + 1)  # first in the zip, so that no batch is drawn and lost
    for number, (pixels, labels) in zip(numbers, batches, strict=False):
        torch.manual_seed(step_seed(recipe.seed, number))  # dropout: a function of the step too
        now = rates(number)
        with torch.autocast(pixels.device.type, kind, enabled=kind != torch.float32):
            logits = network(pixels)
        logits = logits.float()
        loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(
                f"The loss is {value} at step {number}, at a learning rate of {now.weights:g}.",
                "Train again into another --out at a lower rate (--lr). Pixels that are not 0-255 "
                "less the mean, and weights too large at the start, do this as well.",
            )
        correct = int((logits.argmax(1) == labels).sum())
        loss.backward()  # type: ignore[no-untyped-call]
        update(optimizer, now, recipe)
        yield Step(number, value, correct, len(labels), now.weights)


def step_seed(seed: int, number: int) -> int:
    """Return the seed of everything random in a step; no state to save or restore."""
    return (seed * 1_000_003 + number) % 2**63
