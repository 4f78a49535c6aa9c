"""Prepared data set -> uint8 batches, decoded in threads while the device works.

A batch is decoded straight into the memory that goes to the device, in pieces, so that the
interpreter is asked for little: libjpeg-turbo works outside its lock.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data.decode import Pixels
from alexnet.device import Device
from alexnet.errors import DataError, ImageError

AHEAD = 3  # batches, at least, that are decoded while the device works
PIECE = 32  # images that a thread decodes in a row
MAX_REPLACEMENTS = 999  # images in a row that are tried before it is an error


@dataclass(frozen=True, slots=True)
class Part:
    """The share of a batch that one of several processes takes."""

    rank: int = 0
    ranks: int = 1

    def of(self, indices: NDArray[np.integer]) -> NDArray[np.integer]:
        """Return this process's indices: neighbours, at most one more than another has."""
        return indices[slice(*self.range(len(indices)))]

    def range(self, count: int) -> tuple[int, int]:
        """Return where this process's part of `count` things starts and where it ends."""
        return self.rank * count // self.ranks, (self.rank + 1) * count // self.ranks


ALONE = Part()  # one process, which takes all
Replacements = Callable[[int], Iterable[int]]  # of a corrupt image: those to try in its place


class ImageSplit(Protocol):
    """Numbered images of one size: a `shards.Split`, or what can be read like one."""

    name: str
    size: int  # pixels on a side

    def __len__(self) -> int: ...

    def pixels(self, index: int, out: Pixels | None = None) -> Pixels:
        """Return an image, ``(size, size, 3)`` uint8 RGB, in `out` if that is given."""

    def label(self, index: int) -> int:
        """Return the class of an image."""

    def describe(self, index: int) -> str:
        """Name an image for a message."""


@dataclass(frozen=True, slots=True)
class CorruptImage:
    """An image that cannot be decoded, in whose place another one was taken."""

    index: int  # in its split
    name: str  # its path, shard and row
    reason: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Images as they lie on the disk, and what they are."""

    images: Tensor  # (N, size, size, 3) uint8 RGB: channels last, as decoded
    labels: Tensor  # (N,) int64
    indices: tuple[int, ...]  # of the images in their split
    corrupt: tuple[CorruptImage, ...] = ()


def train_batches(
    split: ImageSplit, indices: Iterable[NDArray[np.integer]], replacements: Replacements
) -> Iterator[Batch]:
    """Yield the batch of each array of indices, decoded in threads ahead of the one asked for.

    A corrupt image is replaced by the first whole one of its `replacements`, and named in the
    batch.
    """
    workers = os.cpu_count() or 1
    pinned = Device.best().pins_memory  # so that the host does not wait for the copy to a GPU
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Callable[[], Batch]] = deque()
        try:
            for some in indices:
                waiting.append(_start_batch(pool, split, some, replacements, pinned))
                if len(waiting) > max(AHEAD, 2 * workers * PIECE // max(1, len(some))):
                    yield waiting.popleft()()
            while waiting:
                yield waiting.popleft()()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def evaluation_batches(
    split: ImageSplit, batch_size: int, part: Part = ALONE, first: int = 0
) -> Iterator[Batch]:
    """Yield every image of a split once, in order from `first`; the last batch may be smaller.

    Of several processes each takes its part: together they have every image once. A corrupt image
    cannot be replaced here: it is a DataError.
    """
    mine = part.of(np.arange(first, len(split)))
    starts = range(0, len(mine), batch_size)
    return train_batches(split, (mine[at : at + batch_size] for at in starts), lambda index: ())


def sample_evenly(split: ImageSplit, count: int) -> Tensor:
    """Return up to `count` images, evenly spread over a split: ``(N, size, size, 3)`` uint8.

    A corrupt one is replaced by the next whole one.
    """
    indices = np.linspace(0, len(split) - 1, min(count, len(split))).astype(np.int64)
    return next(train_batches(split, [indices], partial(next_images, count=len(split)))).images


def next_images(index: int, count: int) -> Iterator[int]:
    """Yield the images that follow one of a split of `count`; after the last comes the first."""
    return ((index + shift) % count for shift in range(1, MAX_REPLACEMENTS + 1))


def _start_batch(
    pool: ThreadPoolExecutor,
    split: ImageSplit,
    indices: NDArray[np.integer],
    replacements: Replacements,
    pinned: bool,
) -> Callable[[], Batch]:
    """Have threads fill a batch; return the function that waits for it."""
    shape = (len(indices), split.size, split.size, 3)
    images = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
    labels = torch.empty(len(indices), dtype=torch.int64, pin_memory=pinned)
    pixels, classes = images.numpy(), labels.numpy()  # the same memory

    def fill(start: int) -> list[CorruptImage]:
        corrupt = []
        for at in range(start, min(start + PIECE, len(indices))):
            classes[at], found = _decode(split, int(indices[at]), pixels[at], replacements)
            corrupt += found
        return corrupt

    pieces = [pool.submit(fill, start) for start in range(0, len(indices), PIECE)]

    def finish() -> Batch:
        corrupt = chain.from_iterable(piece.result() for piece in pieces)
        return Batch(images, labels, tuple(indices.tolist()), tuple(corrupt))

    return finish


def _decode(
    split: ImageSplit, index: int, out: Pixels, replacements: Replacements
) -> tuple[int, list[CorruptImage]]:
    """Decode an image, or a whole replacement, into `out`; return its label and the corrupt."""
    corrupt: list[CorruptImage] = []
    for taken in chain([index], replacements(index)):
        try:
            split.pixels(taken, out)
        except ImageError as error:
            corrupt.append(CorruptImage(taken, split.describe(taken), str(error)))
        else:
            return split.label(taken), corrupt
    raise DataError(
        f"Of the {split.name} split, {corrupt[0].name} is damaged: {corrupt[0].reason}",
        "Prepare the data again; alexnet prepare --verify names all damage.",
    )
