"""Which images a training step sees: a function of the seed and the step alone."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from alexnet.errors import DataError

LastBatch = Literal["run-on", "short", "drop"]


@dataclass(frozen=True, slots=True)
class Part:
    """The share of a batch that one of several processes takes."""

    rank: int = 0
    ranks: int = 1

    def of(self, numbers: NDArray[np.integer]) -> NDArray[np.integer]:
        """Return this process's numbers: neighbours, at most one more than another has."""
        return numbers[slice(*self.range(len(numbers)))]

    def range(self, count: int) -> tuple[int, int]:
        """Return where this process's part of `count` things starts and where it ends."""
        return self.rank * count // self.ranks, (self.rank + 1) * count // self.ranks


@dataclass(frozen=True, slots=True)
class Order:
    """The order of the training images, every one once an epoch, shuffled anew each time.

    Any step can be asked for without the ones before it, and how many processes share a batch
    changes nothing about which images it has.

    Raises
    ------
    DataError
        When there is no whole batch in an epoch of which the rest is dropped.
    """

    images: int
    batch_size: int
    seed: int
    last_batch: LastBatch = "run-on"  # what an epoch does with images that fill no batch:
    # "run-on" fills it with the next epoch's first, "short" takes fewer, as in 2012 (facts 4),
    # "drop" leaves them out

    def __post_init__(self) -> None:
        if self.last_batch == "drop" and self.images < self.batch_size:
            raise DataError(
                f"{self.images:,} images make no batch of {self.batch_size}.",
                "Take a smaller --batch-size, or --set last_batch=short.",
            )

    @property
    def steps_an_epoch(self) -> float:
        """Steps in which every image comes once."""
        steps = self.images / self.batch_size
        return {"run-on": steps, "short": math.ceil(steps), "drop": math.floor(steps)}[
            self.last_batch
        ]

    def steps(self, epochs: float) -> int:
        """Return how many steps `epochs` are; the last one counts whole."""
        return max(1, math.ceil(epochs * self.steps_an_epoch - 1e-9))

    def numbers(self, step: int) -> NDArray[np.integer]:
        """Return which images step `step`, counted from 0, trains on."""
        if self.last_batch == "run-on":
            places = range(step * self.batch_size, (step + 1) * self.batch_size)
            epochs = range(places.start // self.images, (places.stop - 1) // self.images + 1)
            return np.concatenate(
                [
                    shuffled(self.images, self.seed, epoch)[
                        max(0, places.start - epoch * self.images) : places.stop
                        - epoch * self.images
                    ]
                    for epoch in epochs
                ]
            )
        epoch, within = divmod(step, int(self.steps_an_epoch))
        start = within * self.batch_size
        return shuffled(self.images, self.seed, epoch)[start : start + self.batch_size]


@lru_cache(maxsize=2)
def shuffled(images: int, seed: int, epoch: int) -> NDArray[np.integer]:
    """Return the order of an epoch: a permutation of ``range(images)``."""
    # The epoch is part of the key: neighbouring counters of one key give shifted copies of one row.
    key = np.array([seed, epoch], np.uint64)
    kind = np.int32 if images < 1 << 31 else np.int64
    return np.random.Generator(np.random.Philox(key=key)).permutation(np.arange(images, dtype=kind))
