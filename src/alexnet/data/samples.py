"""Labelled images that are named and not yet read: a `SampleIndex` for each split of a `Source`.

An index of ImageNet's 14 million images is some arrays, not 14 million objects, and a part of it
is small enough to be sent to another process or machine.
"""

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "validation", "valid", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
ALL = "all"  # the split of a source that has none, where nothing is held out of it
USUAL = ("train", "val", "validation", "valid", "test")  # go before others in the same name
SPLIT_WORD = re.compile(rf"(?:^|[^a-z])({'|'.join(SPLITS)})(?:set)?(?=[^a-z]|$)")
SPLIT_NAME = re.compile(rf"({'|'.join(SPLITS)})[ _-]*(?:set|data|images)?[ _-]*\d*")

PassedOver = Mapping[str, Sequence[str]]  # files that are not taken, by the reason


@dataclass(frozen=True, slots=True)
class FileSlice:
    """A named piece of a file: one member of a folder, a tar or a zip."""

    name: str  # its path in the folder or archive, with '/'
    file: str  # the folder or archive
    offset: int = 0  # in bytes; a row's number in a Parquet file
    length: int = -1  # in bytes; -1: to the end; `archives.SPARSE`


Reader = Callable[[FileSlice], bytes]


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image, not yet read."""

    path: str  # names it in messages and in the prepared data set
    label: int  # index into the source's classes
    read: Callable[[], bytes] = field(compare=False, repr=False)


@dataclass(frozen=True, eq=False)
class SampleIndex:
    """A sequence of `Sample`, held in columns."""

    reader: Reader
    files: tuple[str, ...]
    names: "pa.Array"  # large_binary: names of files need not be text
    labels: NDArray[np.int32]  # (N,)
    slices: NDArray[np.int64]  # (N, 3): index into `files`, offset, length

    @classmethod
    def of(cls, reader: Reader, labelled: Iterable[tuple[FileSlice, int]]) -> "SampleIndex":
        """Make an index of labelled slices, in their order."""
        import pyarrow as pa  # slow to import, and a prediction needs none of it

        files: dict[str, int] = {}
        names, labels, slices = [], [], []
        for piece, label in labelled:
            names.append(os.fsencode(piece.name))
            labels.append(label)
            slices.append((files.setdefault(piece.file, len(files)), piece.offset, piece.length))
        return cls(
            reader,
            tuple(files),
            pa.array(names, pa.large_binary()),
            np.array(labels, np.int32),
            np.array(slices, np.int64).reshape(-1, 3),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        name = os.fsdecode(self.names[index].as_py())
        file, offset, length = (int(value) for value in self.slices[index])
        read = partial(self.reader, FileSlice(name, self.files[file], offset, length))
        return Sample(name, int(self.labels[index]), read)

    def take(self, chosen: NDArray[np.integer[Any]]) -> "SampleIndex":
        """Return the index of some samples, by their positions, with the files that they need."""
        used, files = np.unique(self.slices[chosen, 0], return_inverse=True)
        return SampleIndex(
            self.reader,
            tuple(self.files[index] for index in used),
            self.names.take(chosen),
            self.labels[chosen],
            np.column_stack([files.reshape(-1), self.slices[chosen, 1:]]).astype(np.int64),
        )


@dataclass(frozen=True, slots=True)
class Source:
    """Labelled images by split, in a fixed order."""

    name: str
    classes: tuple[str, ...]  # folder names or wnids; `imagenet.describe_classes` shows them
    splits: dict[str, SampleIndex]  # by "train", "val", "test"; "all" where nothing is held out
    notes: tuple[str, ...] = ()  # what was decided on the way, for the user to read
    stamp: str = ""  # hash of the files' paths, sizes and times: changes when their content may
    passed_over: PassedOver = field(default_factory=dict)

    def fingerprint(self) -> str:
        """Return a hash of the class names and of every image's name and label."""
        digest = hashlib.sha256(repr(self.classes).encode("utf-8", "surrogateescape"))
        for split, samples in sorted(self.splits.items()):
            digest.update(split.encode())
            for name, label in zip(samples.names, samples.labels.tolist(), strict=True):
                digest.update(name.as_py() + b"\0%d\n" % label)
        return digest.hexdigest()


def find_split(name: str) -> str | None:
    """Return the split that a name tells of: ``imagenet-train-0001.tar``, ``seg_train``."""
    words = SPLIT_WORD.findall(name.lower())
    return SPLITS[min(words, key=lambda word: word not in USUAL)] if words else None


def tell_split(name: str) -> str | None:
    """Return the split that a folder is called after and nothing else: ``Train``, ``test_set``."""
    found = SPLIT_NAME.fullmatch(name.lower())
    return SPLITS[found[1]] if found else None


def escape(name: str) -> str:
    r"""Return a name of a file as text: bytes that are none are written as ``\udcff``."""
    return name.encode("utf-8", "backslashreplace").decode()


def describe_counts(counts: Mapping[str, int], noun: str = "file") -> str:
    """Return how many there are of each kind: ``ends in .txt: 3 files; hidden: 1 file``."""
    return "; ".join(f"{kind}: {n:,} {noun}{'s' * (n > 1)}" for kind, n in counts.items())


def stamp_files(files: Iterable[Path]) -> str:
    """Return a hash of where files are, how large, and when they were changed."""
    digest = hashlib.sha256()
    lines: dict[Path, bytes] = {}
    folders: dict[Path, Path] = {}
    for file in files:
        if file not in lines:
            lines[file] = _describe_status(file, folders)
        digest.update(lines[file])
    return digest.hexdigest()


def _describe_status(file: Path, folders: dict[Path, Path]) -> bytes:
    """Return the line of a file in a stamp; `folders` keeps what was resolved already."""
    try:
        status = file.lstat()
        if stat.S_ISLNK(status.st_mode):
            file, status = file.resolve(), file.stat()
    except OSError:
        return b""
    if stat.S_ISDIR(status.st_mode):
        return b""
    if file.parent not in folders:
        folders[file.parent] = file.parent.resolve()
    where = folders[file.parent] / file.name
    return os.fsencode(f"{where}\0{status.st_size} {status.st_mtime_ns}\n")
