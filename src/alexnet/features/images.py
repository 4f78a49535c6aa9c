"""What features are taken of: a split, several, or photographs that belong to no data set."""

import hashlib
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Protocol

import numpy as np

from alexnet.data.decode import Pixels
from alexnet.data.loader import ImageSplit
from alexnet.data.samples import escape
from alexnet.errors import DataError, ImageError
from alexnet.files import sha256
from alexnet.predictor import Predictor


class NamedImages(ImageSplit, Protocol):
    """Images that have names, and are told from all others; a `Split` is one."""

    def path(self, index: int) -> str:
        """Return the name of an image in its source."""

    @property
    def identity(self) -> str:
        """A checksum of all images."""


class Photographs:
    """Files of photographs as a split without labels (-1), prepared as the network's data was."""

    name = "photographs"

    def __init__(self, predictor: Predictor, files: Sequence[Path]) -> None:
        self._predictor, self._files = predictor, files
        self.size = predictor.resize_to

    def __len__(self) -> int:
        return len(self._files)

    def pixels(self, index: int, out: Pixels | None = None) -> Pixels:
        """Return an image, ``(size, size, 3)`` uint8 RGB; `DataError` where there is none."""
        try:
            pixels = self._predictor.load_pixels(self._files[index])
        except ImageError as error:
            raise DataError(error.what, error.fix or "Leave it out.") from None
        if out is None:
            return pixels
        out[:] = pixels
        return out

    def label(self, index: int) -> int:
        """Return -1: what is on a photograph is not known."""
        return -1

    def path(self, index: int) -> str:
        """Return the file as it was named."""
        return escape(str(self._files[index]))

    def describe(self, index: int) -> str:
        """Name an image for a message."""
        return repr(self.path(index))

    @property
    def identity(self) -> str:
        """A checksum of the files' contents, in order."""
        return _checksum(map(sha256, self._files))


class JoinedSplits:
    """Splits one behind the other; an image's name has its split before it."""

    def __init__(self, splits: Sequence[NamedImages]) -> None:
        self.name = "+".join(split.name for split in splits)
        self.size = splits[0].size
        self._splits = splits
        self._ends = list(accumulate(map(len, splits)))

    def __len__(self) -> int:
        return self._ends[-1]

    def _at(self, index: int) -> tuple[NamedImages, int]:
        number = int(np.searchsorted(self._ends, index, side="right"))
        return self._splits[number], index - (self._ends[number - 1] if number else 0)

    def pixels(self, index: int, out: Pixels | None = None) -> Pixels:
        """Return an image, ``(size, size, 3)`` uint8 RGB, in `out` if that is given."""
        split, at = self._at(index)
        return split.pixels(at, out)

    def label(self, index: int) -> int:
        """Return the class of an image."""
        split, at = self._at(index)
        return split.label(at)

    def path(self, index: int) -> str:
        """Return the split and the name of an image: ``train/cat/1.jpg``."""
        split, at = self._at(index)
        return f"{split.name}/{split.path(at)}"

    def describe(self, index: int) -> str:
        """Name an image for a message."""
        split, at = self._at(index)
        return split.describe(at)

    @property
    def identity(self) -> str:
        """A checksum of all images, in order."""
        return _checksum(split.identity for split in self._splits)


def _checksum(sums: Iterable[str]) -> str:
    return hashlib.sha256("".join(sums).encode()).hexdigest()
