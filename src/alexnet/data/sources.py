"""Where labelled images come from: class folders, Parquet in the Hugging Face layout, elpv.

A source lists its images without decoding any; `open_source` finds out what it was given.
"""

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

from alexnet.errors import DataError, MissingExtraError, did_you_mean

SPLITS = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
TEST_SHARE = 0.25  # of a source without a held-out split; elpv's publication held out as much
IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".avif"),
}


@dataclass(frozen=True, slots=True)
class Item:
    """One labelled image, not yet read."""

    path: str  # names it in messages and in the prepared data set
    label: int  # index into the source's classes
    read: Callable[[], bytes] = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Source:
    """Labelled images by split, in a fixed order."""

    name: str
    classes: tuple[str, ...]
    splits: dict[str, tuple[Item, ...]]  # "train" and at least one of "val" and "test"
    notes: tuple[str, ...] = ()  # what was decided on the way, for the user to read
    stamp: str = ""  # of the files' places, sizes and times: changes when their content may have

    def fingerprint(self) -> str:
        """Return a hash of the class names and of every image's name and label."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for split, items in sorted(self.splits.items()):
            digest.update(split.encode())
            for item in items:
                digest.update(f"{item.path}\0{item.label}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def open_source(where: str | Path, seed: int = 0) -> Source:
    """Find the labelled images behind a path or a built-in name.

    Parameters
    ----------
    where : str or Path
        ``elpv``; a folder of class folders, with or without train/val/test above them; or a
        folder of Parquet files in the Hugging Face image layout.
    seed : int
        Of the stratified split that is made where the source holds nothing out.

    Raises
    ------
    DataError
        When there is no such folder, it has no images, or fewer than two classes.
    """
    if str(where) in BUILT_IN and not Path(where).is_dir():
        source = BUILT_IN[str(where)]()
    else:
        source = _open_folder(Path(where))
    if len(source.classes) < 2:
        raise DataError(
            f"{where} has one class only, {source.classes[0]!r}: there is nothing to tell apart.",
            "Put the images of each class into a folder of its own.",
        )
    if "train" not in source.splits:
        raise DataError(f"{where} has no training images.", "Name one of its folders 'train'.")
    if len(source.splits) == 1:
        source = _hold_out(source, seed)
    return source


def _open_folder(root: Path) -> Source:
    if not root.is_dir():
        raise DataError(
            f"There is no folder {str(root)!r}.",
            f"Built-in data: {', '.join(BUILT_IN)}."
            if len(root.parts) > 1
            else did_you_mean(str(root), BUILT_IN),
        )
    try:
        if any(root.glob("*.parquet")) or any(root.glob("data/*.parquet")):
            return parquet_folder(root)
        return class_folders(root)
    except PermissionError as error:
        raise DataError(f"{error.filename} cannot be read.", "Check its permissions.") from None


def class_folders(root: Path) -> Source:
    """List ``root/CLASS/*.jpg``, or ``root/{train,val|validation|valid,test}/CLASS/*.jpg``.

    The classes are those of the training split, in the order of their names. Hidden folders and
    files that are no images by their ending are passed over.
    """
    named = [folder for folder in _folders(root) if folder.name in SPLITS]
    folders = {SPLITS[folder.name]: folder for folder in named}
    if len(folders) < len(named):
        raise DataError(
            f"{str(root)!r} has more than one of val, valid and validation.", "Keep one of them."
        )
    if folders and "train" not in folders:
        raise DataError(
            f"{str(root)!r} has {named[0].name!r} and no 'train'.",
            "Name the training folder 'train'.",
        )
    folders = folders or {"train": root}
    classes = tuple(folder.name for folder in _folders(folders["train"]) if any(_images(folder)))
    if not classes:
        raise DataError(
            f"No images were found in {str(folders['train'])!r}.",
            "It should hold one folder of images for each class.",
        )
    splits = {}
    notes = []
    for split, folder in folders.items():
        found = {name.name: tuple(_images(name)) for name in _folders(folder)}
        for name in sorted(found.keys() - set(classes)):
            if found[name]:
                raise DataError(
                    f"Class {name!r} of {str(folder)!r} has no training image.",
                    f"Add some to {str(folders['train'] / name)!r}, or remove the folder.",
                )
        if missing := sorted(set(classes) - {name for name, files in found.items() if files}):
            notes.append(f"The {split} split has no image of: {', '.join(missing)}.")
        splits[split] = tuple(
            Item(file.relative_to(root).as_posix(), label, file.read_bytes)
            for label, name in enumerate(classes)
            for file in found.get(name, ())
        )
    files = (file for folder in folders.values() for file in sorted(folder.rglob("*")))
    filled = {split: items for split, items in splits.items() if items}
    return Source(root.resolve().name, classes, filled, tuple(notes), stamp(files))


def stamp(files: Iterable[Path]) -> str:
    """Return a hash of where files are, how large, and when they were changed."""
    digest = hashlib.sha256()
    for file in files:
        about = file.stat() if file.exists() else None
        if about and not file.is_dir():
            digest.update(
                f"{file.resolve()}\0{about.st_size} {about.st_mtime_ns}\n".encode(
                    "utf-8", "surrogateescape"
                )
            )
    return digest.hexdigest()


def _folders(root: Path) -> Iterator[Path]:
    return (path for path in sorted(root.iterdir()) if path.is_dir() and path.name[0] != ".")


def _images(folder: Path) -> Iterator[Path]:
    """Yield image files below a class folder, sorted; links to folders are not followed."""
    return (
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "." and path.is_file()
    )


def parquet_folder(root: Path) -> Source:
    """List Parquet files in the Hugging Face layout: ``image: {bytes, path}`` and ``label``.

    The split is the start of the file's name: ``train.parquet``, ``test-00000-of-00001.parquet``.
    Class names come from the schema's metadata where it has them, else from ``classes.txt``
    beside the files, else they are the numbers.
    """
    import json

    import pyarrow.parquet as pq

    files = sorted({*root.glob("*.parquet"), *root.glob("data/*.parquet")})
    splits: dict[str, list[Item]] = {}
    names: list[str] | None = None
    for file in files:
        split = SPLITS.get(file.stem.split("-")[0])
        if split is None:
            continue
        try:
            table = pq.ParquetFile(file)  # type: ignore[no-untyped-call]
            labels = [int(label) for label in table.read(["label"]).column("label").to_pylist()]
            table.schema_arrow.field("image").type.field("bytes")
        except Exception as error:
            raise DataError(
                f"{str(file)!r} is not Parquet with the columns image and label ({error})."
            ) from None
        about = json.loads((table.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
        names = names or about.get("info", {}).get("features", {}).get("label", {}).get("names")
        splits.setdefault(split, []).extend(
            Item(f"{file.stem}/{row}", label, partial(_parquet_image, file, row))
            for row, label in enumerate(labels)
        )
    if not splits:
        raise DataError(
            f"No Parquet file in {str(root)!r} names its split.",
            "They should be called train…, val… or test….",
        )
    given = [item.label for items in splits.values() for item in items]
    highest = max(given, default=0)
    if min(given, default=0) < 0:
        raise DataError(f"{str(root)!r} has images without a label (below 0).", "Leave them out.")
    listed = root / "classes.txt"
    if names is None and listed.is_file():
        names = listed.read_text(encoding="utf-8").splitlines()
    names = names or [str(number) for number in range(highest + 1)]
    if highest >= len(names):
        raise DataError(f"{str(root)!r} has label {highest} but names {len(names)} classes.")
    listed_splits = {split: tuple(items) for split, items in splits.items()}
    return Source(root.resolve().name, tuple(names), listed_splits, stamp=stamp(files))


def _parquet_image(file: Path, row: int) -> bytes:
    """Read one image; row groups are read whole, and the last few are kept."""
    import pyarrow.parquet as pq

    table = _open_parquet(file)
    assert isinstance(table, pq.ParquetFile)
    for group in range(table.num_row_groups):
        rows = table.metadata.row_group(group).num_rows
        if row < rows:
            return _row_group(file, group)[row]
        row -= rows
    raise DataError(f"{str(file)!r} became shorter while it was read.")


@lru_cache(maxsize=4)
def _open_parquet(file: Path) -> object:
    import pyarrow.parquet as pq

    return pq.ParquetFile(file)  # type: ignore[no-untyped-call]


@lru_cache(maxsize=4)
def _row_group(file: Path, group: int) -> Sequence[bytes]:
    import pyarrow.parquet as pq

    table = pq.ParquetFile(file).read_row_group(group, ["image"])  # type: ignore[no-untyped-call]
    return [(image or {}).get("bytes") or b"" for image in table.column("image").to_pylist()]


def elpv() -> Source:
    """List the photographs of solar cells that the package elpv-dataset carries.

    2,624 grey images of 300x300; a cell is ``defective`` where the experts' defect probability
    is over 0.5, else ``functional``. The data's licence is CC BY-NC-SA 4.0.

    Raises
    ------
    MissingExtraError
        When the package is not installed.
    """
    import importlib.resources
    import importlib.util

    if importlib.util.find_spec("elpv_dataset") is None:
        raise MissingExtraError("elpv-dataset", "demo", "The built-in data 'elpv'")
    root = importlib.resources.files("elpv_dataset") / "data"
    items = []
    for line in (root / "labels.csv").read_text().splitlines():
        path, probability, _cell = line.split()
        items.append(Item(path, int(float(probability) > 0.5), (root / path).read_bytes))
    return Source("elpv", ("functional", "defective"), {"train": tuple(items)})


BUILT_IN: dict[str, Callable[[], Source]] = {"elpv": elpv}


def _hold_out(source: Source, seed: int) -> Source:
    """Move a share of every class to a test split; the same images for a seed, always."""
    train: list[Item] = []
    test: list[Item] = []
    for label in range(len(source.classes)):
        items = [item for item in source.splits["train"] if item.label == label]
        chosen = set(
            random.Random(f"{seed}/{label}").sample(
                range(len(items)),
                k=min(len(items) - 1, max(1, round(TEST_SHARE * len(items)))) if items else 0,
            )
        )
        for index, item in enumerate(items):
            (test if index in chosen else train).append(item)
    note = (
        f"The source holds nothing out: {len(test):,} of its {len(train) + len(test):,} images, "
        f"a quarter of each class, are its test split (seed {seed})."
    )
    return Source(
        source.name,
        source.classes,
        {"train": tuple(train), "test": tuple(test)},
        (*source.notes, note),
        source.stamp,
    )
