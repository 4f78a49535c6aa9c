"""Prepared data set -> uint8 batches, in an order that is a function of the seed alone.

Training images form one endless row: every image once in a shuffled order, then every image once
in another. Step ``s`` takes places ``s * batch`` to ``(s + 1) * batch - 1`` of it, so that all
batches are full, every image comes once an epoch, and any step can be drawn without the ones
before it.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data.decode import decode_jpeg
from alexnet.data.shards import Split
from alexnet.errors import DataError, ImageError

AHEAD = 3  # batches decoded while the device works


@dataclass(frozen=True, slots=True)
class Batch:
    """Images as they lie on the disk, and what they are."""

    images: Tensor  # (N, size, size, 3) uint8 RGB: channels last, as decoded
    labels: Tensor  # (N,) int64
    numbers: tuple[int, ...]  # of the images in their split


@lru_cache(maxsize=2)
def shuffled(images: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of an epoch: a permutation of ``range(images)``."""
    # The epoch is part of the key: neighbouring counters of one key give shifted copies of one row.
    key = np.array([seed, epoch], np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).permutation(images)


def training_numbers(images: int, batch_size: int, step: int, seed: int) -> tuple[int, ...]:
    """Return which images step `step`, counted from 0, trains on."""
    places = range(step * batch_size, (step + 1) * batch_size)
    return tuple(int(shuffled(images, seed, at // images)[at % images]) for at in places)


def training_batches(split: Split, batch_size: int, seed: int, first_step: int) -> Iterator[Batch]:
    """Yield the training batches from `first_step` on, without end."""
    steps = iter(range(first_step, 2**62))
    return _loaded(split, (training_numbers(len(split), batch_size, step, seed) for step in steps))


def evaluation_batches(split: Split, batch_size: int) -> Iterator[Batch]:
    """Yield every image of a split once, in order; the last batch may be smaller."""
    starts = range(0, len(split), batch_size)
    return _loaded(split, (range(at, min(at + batch_size, len(split))) for at in starts))


def _loaded(split: Split, batches: Iterable[Sequence[int]]) -> Iterator[Batch]:
    """Decode batches in threads, `AHEAD` of the one that is asked for."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        waiting: deque[tuple[Sequence[int], list[Future[NDArray[np.uint8]]]]] = deque()
        try:
            for numbers in batches:
                waiting.append((numbers, [pool.submit(_image, split, n) for n in numbers]))
                if len(waiting) > AHEAD:
                    yield _batch(split, *waiting.popleft())
            while waiting:
                yield _batch(split, *waiting.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _batch(split: Split, numbers: Sequence[int], images: list[Future[NDArray[np.uint8]]]) -> Batch:
    pixels = torch.from_numpy(np.stack([image.result() for image in images]))
    labels = torch.from_numpy(split.labels[list(numbers)].astype(np.int64))
    return Batch(pixels, labels, tuple(numbers))


def _image(split: Split, number: int) -> NDArray[np.uint8]:
    record = split[number]
    try:
        return decode_jpeg(record.image)
    except ImageError as error:
        raise DataError(
            f"Image {record.path!r}, number {number} of the {split.name} split, is damaged: "
            f"{error}",
            "Prepare the data again.",
        ) from None
