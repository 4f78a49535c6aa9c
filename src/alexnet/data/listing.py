"""Labelled images that are named and not yet read: where each one lies, in columns.

A listing of ImageNet's 14 million images is some arrays, not 14 million objects, and a slice of it
is small enough to be sent to another process or machine.
"""

import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from alexnet.errors import ImageError

LARGEST_FILE = 1 << 28  # bytes of one compressed image, unpacked: no photograph has more
ZIP_HEADER = 30  # bytes before the name of a member

Reader = Callable[[str, str, int, int], bytes]


@dataclass(frozen=True, slots=True)
class Place:
    """A named piece of a file: what a folder, a tar or a zip holds."""

    name: str  # its path in the folder or archive, with '/'
    file: str
    offset: int = 0  # in the file, in bytes (or another unit of the reader)
    length: int = -1  # -1: to the end


@dataclass(frozen=True, slots=True)
class Item:
    """One labelled image, not yet read."""

    path: str  # names it in messages and in the prepared data set
    label: int  # index into the source's classes
    read: Callable[[], bytes] = field(compare=False, repr=False)


class SampleIndex:
    """A sequence of `Item`, held in columns; slices and choices of it are listings too."""

    def __init__(
        self,
        reader: Reader,
        files: tuple[str, ...],
        names: pa.Array,
        labels: NDArray[np.int32],
        places: NDArray[np.int64],
    ) -> None:
        self.reader = reader
        self.files = files
        self.names = names  # binary: names of files need not be text
        self.labels = labels
        self.places = places  # (N, 3): index into `files`, offset, length

    @classmethod
    def of(cls, reader: Reader, labelled: Iterable[tuple[Place, int]]) -> "SampleIndex":
        """Gather labelled places; their order is kept."""
        files: dict[str, int] = {}
        names, labels, places = [], [], []
        for place, label in labelled:
            names.append(os.fsencode(place.name))
            labels.append(label)
            places.append((files.setdefault(place.file, len(files)), place.offset, place.length))
        return cls(
            reader,
            tuple(files),
            pa.array(names, pa.large_binary()),
            np.array(labels, np.int32),
            np.array(places, np.int64).reshape(-1, 3),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Item]:
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> "SampleIndex": ...
    def __getitem__(self, index: int | slice) -> "Item | SampleIndex":
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        name = os.fsdecode(self.names[index].as_py())
        file, offset, length = (int(value) for value in self.places[index])
        read = partial(self.reader, self.files[file], name, offset, length)
        return Item(name, int(self.labels[index]), read)

    def take(self, chosen: NDArray[np.integer[Any]]) -> "SampleIndex":
        """Return the listing of some items, by their numbers, with the files that they need."""
        used, places = np.unique(self.places[chosen, 0], return_inverse=True)
        return SampleIndex(
            self.reader,
            tuple(self.files[index] for index in used),
            self.names.take(pa.array(chosen)),
            self.labels[chosen],
            np.column_stack([places.reshape(-1), self.places[chosen, 1:]]).astype(np.int64),
        )

    def identity(self) -> Iterator[bytes]:
        """Yield what tells this listing from others: every name and label."""
        for name, label in zip(self.names, self.labels.tolist(), strict=True):
            yield name.as_py() + b"\0%d\n" % label


def read_file(file: str, name: str, offset: int, length: int) -> bytes:
    """Read the file `name` of the folder `file`."""
    return Path(file, name).read_bytes()


def read_slice(file: str, name: str, offset: int, length: int) -> bytes:
    """Read `length` bytes of a file, as of an uncompressed member of a tar.

    Raises
    ------
    ImageError
        When the file ends before.
    """
    with Path(file).open("rb", buffering=0) as stream:
        stream.seek(offset)
        data = stream.read(length)
    if len(data) < length:
        raise ImageError(f"The archive {file!r} ends before this image does.")
    return data


def read_zipped(file: str, name: str, offset: int, length: int) -> bytes:
    """Read the member of a zip whose header is at `offset` and which is `length` bytes packed.

    Raises
    ------
    ImageError
        When it cannot be unpacked, or is larger than any image.
    """
    header = read_slice(file, name, offset, ZIP_HEADER)
    method = int.from_bytes(header[8:10], "little")
    skipped = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    data = read_slice(file, name, offset + ZIP_HEADER + skipped, length)
    if method == 0:
        return data
    try:
        if method != 8:
            raise ImageError(f"It is packed by method {method}, which is not read here.")
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        data = unpacker.decompress(data, LARGEST_FILE)
    except zlib.error as error:
        raise ImageError(f"It cannot be unpacked ({error}).") from None
    if unpacker.unconsumed_tail:
        raise ImageError("It unpacks to more bytes than any image has.")
    return data


def read_planes(file: str, name: str, offset: int, length: int) -> bytes:
    """Read ``(3, 32, 32)`` bytes, as CIFAR's binary files hold them; return a PPM image."""
    planes = np.frombuffer(read_slice(file, name, offset, length), np.uint8)
    side = round((length / 3) ** 0.5)
    pixels = planes.reshape(3, side, side).transpose(1, 2, 0)
    return b"P6 %d %d 255\n" % (side, side) + pixels.tobytes()
