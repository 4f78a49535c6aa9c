"""CIFAR-10 and CIFAR-100 as their authors give them out: the binary and the Python archives."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from alexnet.data.listing import Place, Reader, SampleIndex, read_planes
from alexnet.data.source import Source, stamp_of
from alexnet.errors import DataError
from alexnet.files import atomic_write, cache_folder, sha256
from alexnet.pickles import load_arrays

IMAGE = 3 * 32 * 32  # bytes
BINARY_NAMES = {"batches.meta.txt", "fine_label_names.txt"}
PYTHON_NAMES = {"batches.meta", "meta"}


def is_cifar(places: Iterable[Place]) -> bool:
    """Whether places are those of a CIFAR archive."""
    names = {PurePosixPath(place.name).name for place in places}
    binary = names & BINARY_NAMES and names & {"test_batch.bin", "test.bin"}
    return bool(binary or (names & PYTHON_NAMES and names & {"test_batch", "test"}))


def cifar(name: str, places: Sequence[Place], reader: Reader) -> Source:
    """List a CIFAR archive's images; CIFAR-100 by its hundred fine classes.

    Raises
    ------
    DataError
        When a file is damaged or cut short.
    """
    files = {PurePosixPath(place.name).name: place for place in places}
    read = _binary if files.keys() & BINARY_NAMES else _python
    classes, batches = read(files, reader)
    found: dict[str, list[tuple[Place, int]]] = defaultdict(list)
    for batch, first, step, labels in batches:
        split = "test" if batch.name.startswith("test") else "train"
        if labels.size and not 0 <= labels.min() <= labels.max() < len(classes):
            raise DataError(f"{batch.name!r} of {name!r} has labels that name no class.")
        found[split] += [
            (Place(f"{batch.name}/{row}", batch.file, first + row * step, IMAGE), label)
            for row, label in enumerate(labels.tolist())
        ]
    splits = {split: SampleIndex.of(read_planes, rows) for split, rows in sorted(found.items())}
    return Source(name, classes, splits, stamp=stamp_of(places))


Batch = tuple[Place, int, int, NDArray[np.integer]]  # file, first image, bytes between, labels


def _binary(files: dict[str, Place], reader: Reader) -> tuple[tuple[str, ...], list[Batch]]:
    names = next(files[name] for name in sorted(BINARY_NAMES) if name in files)
    classes = tuple(_read(names, reader).decode("ascii", "replace").split())
    before = 2 if len(classes) == 100 else 1  # bytes of labels: the coarse one, then the fine one
    record = before + IMAGE
    batches: list[Batch] = []
    for name, place in sorted(files.items()):
        if not name.endswith(".bin"):
            continue
        data = np.frombuffer(_read(place, reader), np.uint8)
        if not len(data) or len(data) % record:
            raise DataError(
                f"{name!r} in {place.file!r} has {len(data):,} bytes, no multiple of {record:,}.",
                "Download it again.",
            )
        labels = data.reshape(-1, record)[:, before - 1].astype(np.int64)
        flat = place if place.length >= 0 else Place(name, str(Path(place.file, place.name)))
        start = max(0, flat.offset) + before
        batches.append((Place(name.removesuffix(".bin"), flat.file), start, record, labels))
    return classes, batches


def _python(files: dict[str, Place], reader: Reader) -> tuple[tuple[str, ...], list[Batch]]:
    """Read the pickles; their pixels are written to the cache once, for workers to read there."""
    about = next(files[name] for name in sorted(PYTHON_NAMES) if name in files)
    names = _pickle(about, reader)
    given = names.get(b"label_names") or names.get(b"fine_label_names") or ()
    classes = tuple(name.decode("utf-8", "replace") for name in given)
    batches: list[Batch] = []
    for name, place in sorted(files.items()):
        if not name.startswith(("data_batch", "test", "train")):
            continue
        content = _pickle(place, reader)
        data = content.get(b"data")
        labels = content.get(b"labels", content.get(b"fine_labels"))
        if (
            not isinstance(data, np.ndarray)
            or data.dtype != np.uint8
            or labels is None
            or data.shape != (len(labels), IMAGE)
        ):
            raise DataError(f"{name!r} in {place.file!r} holds no images and labels of CIFAR.")
        pixels = data.tobytes()
        key = hashlib.sha256(pixels).hexdigest()
        kept = cache_folder() / "cifar" / f"{name}-{key[:12]}.planes"
        if not kept.is_file() or sha256(kept) != key:
            kept.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(kept) as temporary:
                temporary.write_bytes(pixels)
        batches.append((Place(name, str(kept)), 0, IMAGE, np.array(labels, np.int64)))
    return classes, batches


def _pickle(place: Place, reader: Reader) -> dict[bytes, list[bytes]]:
    try:
        content = load_arrays(_read(place, reader))
    except DataError as error:
        raise DataError(f"{place.name!r} in {place.file!r} is not read: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"{place.name!r} in {place.file!r} is no batch of CIFAR.")
    return content


def _read(place: Place, reader: Reader) -> bytes:
    return reader(place.file, place.name, place.offset, place.length)
