"""Prepared data set -> uint8 batches, decoded in threads while the device works.

A batch is decoded straight into the memory that goes to the device, in pieces, so that the
interpreter is asked for little: libjpeg-turbo works outside its lock.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data.decode import Pixels
from alexnet.errors import DataError, ImageError

AHEAD = 3  # batches, at least, that are decoded while the device works
PIECE = 32  # images that a thread decodes in a row
MAX_REPLACEMENTS = 999  # images in a row that are tried before their shard is given up


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


ALONE = Part()  # one process, which takes all
Replacements = Callable[[int], Iterable[int]]  # of a damaged image: those to try in its place


class Images(Protocol):
    """Numbered images of one size: a `shards.Split`, or what can be read like one."""

    name: str
    size: int  # pixels on a side

    def __len__(self) -> int: ...

    def pixels(self, index: int, out: Pixels | None = None) -> Pixels:
        """Return an image, ``(size, size, 3)`` uint8 RGB, in `out` if that is given."""

    def label(self, index: int) -> int:
        """Return the class of an image."""

    def where(self, index: int) -> str:
        """Name an image for a message."""


@dataclass(frozen=True, slots=True)
class Replaced:
    """A damaged training image, in whose place another one was taken."""

    number: int  # in its split
    image: str  # its name, shard and place
    reason: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Images as they lie on the disk, and what they are."""

    images: Tensor  # (N, size, size, 3) uint8 RGB: channels last, as decoded
    labels: Tensor  # (N,) int64
    numbers: tuple[int, ...]  # of the images in their split
    replaced: tuple[Replaced, ...] = ()


def train_batches(
    split: Images, indices: Iterable[NDArray[np.integer]], replacements: Replacements
) -> Iterator[Batch]:
    """Yield a batch for the indices of each.

    A damaged image is replaced by the first whole one of its `replacements`, and named in the
    batch.
    """
    return _loaded(split, indices, replacements)


def evaluation_batches(
    split: Images, batch_size: int, part: Part = ALONE, first: int = 0
) -> Iterator[Batch]:
    """Yield every image of a split once, in order from `first`; the last batch may be smaller.

    Of several processes each takes its part: together they have every image once.

    Raises
    ------
    DataError
        At a damaged image, which cannot be replaced here.
    """
    mine = part.of(np.arange(first, len(split)))
    starts = range(0, len(mine), batch_size)
    return _loaded(split, (mine[at : at + batch_size] for at in starts), lambda index: ())


def sample_evenly(split: Images, count: int) -> Tensor:
    """Return up to `count` images, evenly spread over a split: ``(N, size, size, 3)`` uint8.

    A damaged one is replaced by the next whole one.
    """
    numbers = np.linspace(0, len(split) - 1, min(count, len(split))).astype(np.int64)
    return next(_loaded(split, [numbers], partial(next_images, count=len(split)))).images


def next_images(index: int, count: int) -> Iterator[int]:
    """Yield the images that follow one of a split of `count`; after the last comes the first."""
    return ((index + shift) % count for shift in range(1, MAX_REPLACEMENTS + 1))


def _loaded(
    split: Images, batches: Iterable[NDArray[np.integer]], replacements: Replacements
) -> Iterator[Batch]:
    """Decode batches in threads, ahead of the one that is asked for."""
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[_Coming] = deque()
        try:
            for numbers in batches:
                waiting.append(_begin(pool, split, numbers, replacements))
                if len(waiting) > max(AHEAD, 2 * workers * PIECE // max(1, len(numbers))):
                    yield waiting.popleft().batch()
            while waiting:
                yield waiting.popleft().batch()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Coming:
    """A batch that threads are filling."""

    images: Tensor
    labels: Tensor
    numbers: NDArray[np.integer]
    pieces: list[Future[list[Replaced]]]

    def batch(self) -> Batch:
        replaced = [one for piece in self.pieces for one in piece.result()]
        return Batch(self.images, self.labels, tuple(self.numbers.tolist()), tuple(replaced))


def _begin(
    pool: ThreadPoolExecutor,
    split: Images,
    numbers: NDArray[np.integer],
    replacements: Replacements,
) -> _Coming:
    pinned = torch.cuda.is_available()  # so that the copy to the device waits for nobody
    shape = (len(numbers), split.size, split.size, 3)
    images = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
    labels = torch.empty(len(numbers), dtype=torch.int64, pin_memory=pinned)
    pixels, classes = images.numpy(), labels.numpy()  # the same memory

    def fill(start: int) -> list[Replaced]:
        replaced = []
        for at in range(start, min(start + PIECE, len(numbers))):
            classes[at], lost = _filled(split, int(numbers[at]), pixels[at], replacements)
            replaced += lost
        return replaced

    pieces = [pool.submit(fill, start) for start in range(0, len(numbers), PIECE)]
    return _Coming(images, labels, numbers, pieces)


def _filled(
    split: Images, number: int, out: NDArray[np.uint8], replacements: Replacements
) -> tuple[int, list[Replaced]]:
    """Decode an image, or a whole replacement, into `out`; return its label and what was lost."""
    lost: list[Replaced] = []
    for taken in chain([number], replacements(number)):
        try:
            split.pixels(taken, out)
        except ImageError as error:
            lost.append(Replaced(taken, split.where(taken), str(error)))
        else:
            return split.label(taken), lost
    raise DataError(
        f"Of the {split.name} split, {lost[0].image} is damaged: {lost[0].reason}",
        "Prepare the data again; alexnet prepare --verify names all damage.",
    )
