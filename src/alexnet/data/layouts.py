"""What the names in a folder or an archive mean: the layouts in which images are handed around.

Class folders, WebDataset, Parquet and CIFAR; ImageNet's own are in `imagenet`. Most functions take
what `archives` lists, whether it lies in a folder, a tar or a zip, and the reader of it.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.bounds import check_parquet, parse_json
from alexnet.data.archives import is_image, read_slice
from alexnet.data.samples import (
    SPLITS,
    FileSlice,
    Reader,
    SampleIndex,
    Source,
    find_split,
    stamp_files,
    stamp_slices,
)
from alexnet.errors import DataError, ImageError
from alexnet.files import atomic_write, cache_folder, sha256
from alexnet.pickles import load_arrays

CLASS_LISTS = ("classes.txt", "classnames.txt")
CIFAR_IMAGE = 3 * 32 * 32  # bytes
CIFAR_BINARY_NAMES = {"batches.meta.txt", "fine_label_names.txt"}
CIFAR_PYTHON_NAMES = {"batches.meta", "meta"}


def list_class_folders(name: str, slices: Iterable[FileSlice], reader: Reader) -> Source:
    """List ``CLASS/*.jpg``, or ``{train,val|validation|valid,test}/CLASS/*.jpg``.

    The classes are those of the training split, in the order of their names. Hidden folders and
    files that are no images by their ending are passed over.
    """
    images = [piece for piece in slices if is_image(piece)]
    named = sorted({piece.name.split("/")[0] for piece in images} & SPLITS.keys())
    if len({SPLITS[top] for top in named}) < len(named):
        raise DataError(
            f"{name!r} has more than one of val, valid and validation.", "Keep one of them."
        )
    found = group_by_class([SPLITS[top] for top in named] or ["train"])
    for piece in images:
        parts = piece.name.split("/")
        if named and parts[0] in SPLITS and len(parts) > 2:
            found[SPLITS[parts[0]]][parts[1]].append(piece)
        elif not named and len(parts) > 1:
            found["train"][parts[0]].append(piece)
    return index_classes(name, found, reader, stamp_slices(images))


Grouped = dict[str, defaultdict[str, list[FileSlice]]]  # by split and class


def group_by_class(splits: Iterable[str]) -> Grouped:
    """Return empty groups of images by split and class, to be filled."""
    return {split: defaultdict(list) for split in splits}


def index_classes(
    name: str, found: Grouped, reader: Reader, stamp: str, notes: Sequence[str] = ()
) -> Source:
    """Return the source of images that are grouped by split and class."""
    of = [found["train"]] if "train" in found else found.values()  # where nothing is trained on
    classes = tuple(sorted({label for by_class in of for label in by_class}))
    if not classes:
        raise DataError(
            f"No images were found in {name!r}.", "It should hold one folder of images a class."
        )
    notes = list(notes)
    splits = {}
    for split, by_class in found.items():
        for extra in sorted(by_class.keys() - set(classes)):
            raise DataError(
                f"Class {extra!r} of the {split} split of {name!r} has no training image.",
                "Add some to the train folder, or remove the class.",
            )
        if not by_class:
            continue
        if missing := [label for label in classes if label not in by_class]:
            notes.append(f"The {split} split has no image of: {', '.join(missing)}.")
        splits[split] = SampleIndex.of(reader, label_in_order(classes, by_class))
    return Source(name, classes, splits, tuple(notes), stamp)


def label_in_order(
    classes: Sequence[str], by_class: Mapping[str, Sequence[FileSlice]]
) -> Iterator[tuple[FileSlice, int]]:
    """Yield images with their labels: class by class, each in the order of the names."""
    for label, name in enumerate(classes):
        for piece in sorted(by_class.get(name, ()), key=lambda piece: piece.name):
            yield piece, label


def list_webdataset(name: str, tars: Mapping[Path, Iterable[FileSlice]]) -> Source:
    """List tars of ``KEY.jpg`` beside ``KEY.cls``, the number of the class as text.

    The split is told by the tar's name (``train-0000.tar``, ``imagenet-val-07.tar``). Class names
    come from ``classes.txt`` or ``classnames.txt`` beside the tars, else they are the numbers.
    """
    found: dict[str, list[tuple[FileSlice, int]]] = defaultdict(list)
    notes = []
    for tar, slices in tars.items():
        split = find_split(tar.stem)
        if split is None:
            raise DataError(
                f"{tar.name!r} does not say which split it is.",
                "Name the tars train-…, val-… or test-….",
            )
        images: dict[str, FileSlice] = {}
        labels: dict[str, FileSlice] = {}
        for piece in slices:
            folder, _, file = piece.name.rpartition("/")
            key, _, ending = file.partition(".")
            if ending == "cls":
                labels[f"{folder}/{key}"] = piece
            elif is_image(piece):
                images[f"{folder}/{key}"] = piece
        if alone := len(images.keys() ^ labels.keys()):
            notes.append(f"{tar.name}: {alone:,} samples lack their image or their label.")
        found[split] += [(images[k], _read_label(labels[k])) for k in images if k in labels]
    rows = {split: pairs for split, pairs in found.items() if pairs}
    beside = next(iter(tars)).parent
    return _index_numbered(name, beside, rows, read_slice, notes, stamp_files(tars))


def _read_label(piece: FileSlice) -> int:
    text = read_slice(piece).decode("utf-8", "replace").strip()
    if not text.isdecimal():
        raise DataError(f"The label {piece.name!r} in {piece.file!r} is {text[:20]!r}, no number.")
    return int(text)


def _index_numbered(
    name: str,
    folder: Path,
    rows: Mapping[str, Sequence[tuple[FileSlice, int]]],
    reader: Reader,
    notes: Sequence[str],
    stamp: str,
    names: Sequence[str] | None = None,
) -> Source:
    """Return the source of numbered classes, named by a list beside the files if not given."""
    highest = max((label for pairs in rows.values() for _, label in pairs), default=0)
    lists = [folder / file for file in CLASS_LISTS if (folder / file).is_file()]
    names = names or (lists[0].read_text(encoding="utf-8").splitlines() if lists else None)
    names = names or [str(number) for number in range(highest + 1)]
    if highest >= len(names):
        raise DataError(f"{str(folder)!r} has label {highest} but names {len(names)} classes.")
    splits = {split: SampleIndex.of(reader, pairs) for split, pairs in rows.items()}
    return Source(name, tuple(names), splits, tuple(notes), stamp)


def find_parquet_files(root: Path) -> list[Path]:
    """Return the Parquet files of a folder, or of its folder ``data``."""
    return sorted({*root.glob("*.parquet"), *root.glob("data/*.parquet")})


def list_parquet(root: Path) -> Source:
    """List Parquet files with the columns ``image: {bytes, path}`` and ``label``.

    The split is told by the file's name: ``train.parquet``, ``test-00000-of-00001.parquet``.
    Class names come from the schema's metadata where it has them, else from ``classes.txt``
    beside the files, else they are the numbers. A split without any label (all below 0), as
    ImageNet's test split, is passed over.
    """
    files = find_parquet_files(root)
    rows: dict[str, list[tuple[FileSlice, int]]] = defaultdict(list)
    names: Sequence[str] | None = None
    for file in files:
        if split := find_split(file.stem):
            labels, given = _read_labels(file)
            names = names or given
            rows[split] += [
                (FileSlice(f"{file.stem}/{row}", str(file), row), label)
                for row, label in enumerate(labels)
            ]
    if not rows:
        raise DataError(
            f"No Parquet file in {str(root)!r} names its split.",
            "They should be called train…, val… or test….",
        )
    notes = []
    for split in list(rows):
        without = sum(label < 0 for _, label in rows[split])
        if without and (split == "train" or without < len(rows[split])):
            raise DataError(
                f"{str(root)!r} has images without a label (below 0).", "Leave them out."
            )
        if without:
            notes.append(f"The {split} split has no labels: passed over.")
            del rows[split]
    name, stamp = root.resolve().name, stamp_files(files)
    return _index_numbered(name, root, rows, read_parquet_row, notes, stamp, names)


def _open_parquet(file: str | Path) -> Any:
    import pyarrow.parquet  # slow to import, and seldom needed

    opened = pyarrow.parquet.ParquetFile(file)  # type: ignore[no-untyped-call]
    check_parquet(opened.metadata)
    return opened


def _read_labels(file: Path) -> tuple[list[int], Sequence[str] | None]:
    """Return the labels of a file and, where its schema has them, the names of the classes."""
    try:
        table = _open_parquet(file)
        labels = [int(label) for label in table.read(["label"]).column("label").to_pylist()]
        table.schema_arrow.field("image").type.field("bytes")
        features = parse_json((table.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
    except Exception as error:  # Arrow raises many types on broken files
        raise DataError(
            f"{str(file)!r} is not Parquet with the columns image and label ({error})."
        ) from None
    return labels, features.get("info", {}).get("features", {}).get("label", {}).get("names")


def read_parquet_row(piece: FileSlice) -> bytes:
    """Read the image in row `offset`; row groups are read whole, and the last few are kept."""
    try:
        row = piece.offset
        for group, rows in enumerate(_count_rows(piece.file)):
            if row < rows:
                return _read_row_group(piece.file, group)[row]
            row -= rows
    except Exception as error:  # Arrow raises many types on broken files
        raise ImageError(f"Its row group cannot be read ({error}).") from None
    raise ImageError("The file became shorter while it was read.")


@lru_cache(maxsize=64)
def _count_rows(file: str) -> tuple[int, ...]:
    """Return the number of rows in each row group."""
    metadata = _open_parquet(file).metadata
    return tuple(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))


@lru_cache(maxsize=4)
def _read_row_group(file: str, group: int) -> Sequence[bytes]:
    table = _open_parquet(file).read_row_group(group, ["image"])
    return [(image or {}).get("bytes") or b"" for image in table.column("image").to_pylist()]


def is_cifar(slices: Iterable[FileSlice]) -> bool:
    """Whether these are the files of CIFAR-10 or CIFAR-100, binary or Python."""
    names = {PurePosixPath(piece.name).name for piece in slices}
    binary = names & CIFAR_BINARY_NAMES and names & {"test_batch.bin", "test.bin"}
    return bool(binary or (names & CIFAR_PYTHON_NAMES and names & {"test_batch", "test"}))


def list_cifar(name: str, slices: Sequence[FileSlice], reader: Reader) -> Source:
    """List the images of CIFAR-10, or of CIFAR-100 by its hundred fine classes."""
    files = {PurePosixPath(piece.name).name: piece for piece in slices}
    binary = files.keys() & CIFAR_BINARY_NAMES
    classes, batches = (_list_cifar_binary if binary else _list_cifar_python)(files, reader)
    found: dict[str, list[tuple[FileSlice, int]]] = defaultdict(list)
    for batch, step, labels in batches:
        split = "test" if batch.name.startswith("test") else "train"
        if labels.size and not 0 <= labels.min() <= labels.max() < len(classes):
            raise DataError(f"{batch.name!r} of {name!r} has labels that name no class.")
        for row, label in enumerate(labels.tolist()):
            start = batch.offset + row * step
            image = FileSlice(f"{batch.name}/{row}", batch.file, start, CIFAR_IMAGE)
            found[split].append((image, label))
    splits = {split: SampleIndex.of(read_planes, rows) for split, rows in sorted(found.items())}
    return Source(name, classes, splits, stamp=stamp_slices(slices))


# Of each file: its first image, the bytes from one image to the next, the labels.
CifarBatches = list[tuple[FileSlice, int, NDArray[np.integer]]]


def _list_cifar_binary(
    files: Mapping[str, FileSlice], reader: Reader
) -> tuple[tuple[str, ...], CifarBatches]:
    names = next(files[name] for name in sorted(CIFAR_BINARY_NAMES) if name in files)
    classes = tuple(reader(names).decode("ascii", "replace").split())
    before = 2 if len(classes) == 100 else 1  # bytes of labels: the coarse one, then the fine one
    record = before + CIFAR_IMAGE
    batches: CifarBatches = []
    for name, piece in sorted(files.items()):
        if not name.endswith(".bin"):
            continue
        data = np.frombuffer(reader(piece), np.uint8)
        if not len(data) or len(data) % record:
            raise DataError(
                f"{name!r} in {piece.file!r} has {len(data):,} bytes, no multiple of {record:,}.",
                "Download it again.",
            )
        labels = data.reshape(-1, record)[:, before - 1].astype(np.int64)
        file = piece.file if piece.length >= 0 else str(Path(piece.file, piece.name))
        first = FileSlice(name.removesuffix(".bin"), file, piece.offset + before)
        batches.append((first, record, labels))
    return classes, batches


def _list_cifar_python(
    files: Mapping[str, FileSlice], reader: Reader
) -> tuple[tuple[str, ...], CifarBatches]:
    """Read the pickles; their pixels are written to the cache once, for workers to read there."""
    names = next(files[name] for name in sorted(CIFAR_PYTHON_NAMES) if name in files)
    about = _read_pickle(names, reader)
    given = about.get(b"label_names") or about.get(b"fine_label_names") or ()
    classes = tuple(name.decode("utf-8", "replace") for name in given)
    batches: CifarBatches = []
    for name, piece in sorted(files.items()):
        if not name.startswith(("data_batch", "test", "train")):
            continue
        content = _read_pickle(piece, reader)
        data = content.get(b"data")
        labels = content.get(b"labels", content.get(b"fine_labels"))
        if (
            not isinstance(data, np.ndarray)
            or data.dtype != np.uint8
            or labels is None
            or data.shape != (len(labels), CIFAR_IMAGE)
        ):
            raise DataError(f"{name!r} in {piece.file!r} holds no images and labels of CIFAR.")
        pixels = data.tobytes()
        key = hashlib.sha256(pixels).hexdigest()
        kept = cache_folder() / "cifar" / f"{name}-{key[:12]}.planes"
        if not kept.is_file() or sha256(kept) != key:
            kept.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(kept) as temporary:
                temporary.write_bytes(pixels)
        batches.append((FileSlice(name, str(kept)), CIFAR_IMAGE, np.array(labels, np.int64)))
    return classes, batches


def _read_pickle(piece: FileSlice, reader: Reader) -> dict[bytes, list[bytes]]:
    try:
        content = load_arrays(reader(piece))
    except DataError as error:
        raise DataError(f"{piece.name!r} in {piece.file!r} is not read: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"{piece.name!r} in {piece.file!r} is no batch of CIFAR.")
    return content


def read_planes(piece: FileSlice) -> bytes:
    """Read ``(3, 32, 32)`` bytes of a file, the planes of an image; return it as a PPM file."""
    planes = np.frombuffer(read_slice(piece), np.uint8).reshape(3, 32, 32)
    return b"P6 32 32 255\n" + planes.transpose(1, 2, 0).tobytes()
