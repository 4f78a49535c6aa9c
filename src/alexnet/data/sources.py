"""Where labelled images come from: finds out what a path or a built-in name is.

A source lists its images without decoding any.
"""

import importlib.resources
import importlib.util
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from alexnet.data import imagenet, layouts
from alexnet.data.archives import (
    decompress_tar,
    list_folder,
    list_tar,
    list_zip,
    read_file,
    read_slice,
    read_zip_member,
    strip_top_folder,
)
from alexnet.data.downloads import ARCHIVES, DownloadReport, find_archive
from alexnet.data.samples import ALL, SPLITS, FileSlice, Reader, SampleIndex, Source, find_split
from alexnet.errors import DataError, MissingExtraError, did_you_mean

HELD_OUT = 0.25  # of a source without a held-out split; elpv's publication held out as much
BUILT_IN = ("elpv", *ARCHIVES)


def open_source(
    where: str | Path,
    seed: int = 0,
    *,
    class_order: imagenet.ClassOrder = "wnid",
    hold_out: bool = True,
    report: DownloadReport = lambda file, done, total: None,
) -> Source:
    """Find the labelled images behind a path or a built-in name.

    Parameters
    ----------
    where : str or Path
        ``elpv``, or a data set that is downloaded: ``cifar10``, ``cifar100``, ``tiny-imagenet``,
        ``imagenette``, ``clothing``. A folder of class folders, with or without train/val/test
        above them; of ILSVRC's tars and devkit; of Parquet files in the Hugging Face layout; of
        WebDataset tars; in Kaggle's, Tiny ImageNet's or CIFAR's layout. Or a tar, tar.gz or zip of
        any of these.
    seed : int
        Of the stratified split that is made where the source holds nothing out.
    class_order : str
        Of ILSVRC alone: ``"wnid"``, or ``"devkit"`` for the order of cuda-convnet.
    hold_out : bool
        False: it is not to be trained on. A source without splits is one split, ``all``; one
        without training images, or of one class, is taken too.
    report : callable
        Called with the progress of a download.

    Raises
    ------
    DataError
        When there is no such data, it has no images, or cannot be trained on.
    """
    path = Path(where)
    if str(where) in BUILT_IN and not path.is_dir():
        source = _open_built_in(str(where), report)
    elif path.is_dir():
        source = _open_folder(path, class_order)
    elif path.is_file():
        source = _open_file(path, class_order)
    else:
        raise DataError(
            f"There is no folder {str(path)!r}.",
            f"Built-in data: {', '.join(BUILT_IN)}."
            if len(path.parts) > 1
            else did_you_mean(str(path), BUILT_IN),
        )
    if not hold_out:
        return _take_all(source)
    if len(source.classes) < 2:
        raise DataError(
            f"{where} has one class only, {source.classes[0]!r}: there is nothing to tell apart.",
            "Put the images of each class into a folder of its own.",
        )
    if "train" not in source.splits:
        raise DataError(f"{where} has no training images.", "Name one of its folders 'train'.")
    return source if len(source.splits) > 1 else _hold_out(source, seed)


def _open_built_in(name: str, report: DownloadReport) -> Source:
    if name == "elpv":
        return open_elpv()
    return replace(_open_file(find_archive(name, report), "wnid"), name=name)


def _open_folder(root: Path, order: imagenet.ClassOrder) -> Source:
    try:
        if imagenet.find_ilsvrc_files(root):
            return imagenet.list_ilsvrc(root, order)
        if order != "wnid":
            raise DataError(f"{str(root)!r} has no devkit to take the order of classes from.")
        if layouts.find_parquet_files(root):
            return layouts.list_parquet(root)
        tars = sorted(root.glob("*.tar"))
        if any(find_split(tar.stem) for tar in tars):
            notes: list[str] = []
            listed = {tar: list(list_tar(tar, notes)) for tar in tars}
            return _add_notes(notes, layouts.list_webdataset(root.resolve().name, listed))
        slices = list(list_folder(root))
    except PermissionError as error:
        raise DataError(f"{error.filename} cannot be read.", "Check its permissions.") from None
    name = root.resolve().name
    if layouts.is_cifar(slices):
        return layouts.list_cifar(name, slices, read_file)
    found = _recognise(name, slices, read_file)
    train = root / "train" if (root / "train").is_dir() else root
    folders = {path.name for path in train.iterdir() if path.is_dir() and path.name[0] != "."}
    if empty := sorted(folders - {*found.classes, *SPLITS, "ILSVRC"}):
        note = f"No class is made of folders without an image: {', '.join(empty)}."
        return replace(found, notes=(*found.notes, note))
    return found


def _open_file(file: Path, order: imagenet.ClassOrder) -> Source:
    if imagenet.ILSVRC_TAR.fullmatch(file.name):
        return _open_folder(file.parent, order)
    name = file.name.split(".")[0]
    if file.suffix == ".zip":
        return _recognise(name, strip_top_folder(list_zip(file)), read_zip_member)
    if file.suffix not in (".tar", ".tgz", ".gz"):
        raise DataError(
            f"{str(file)!r} is neither a folder nor a tar, tar.gz or zip of images.",
            "Name the folder that it lies in.",
        )
    notes: list[str] = []
    tar = file if file.suffix == ".tar" else decompress_tar(file)
    slices = list(list_tar(tar, notes))
    if any(piece.name.endswith(".cls") for piece in slices):
        return _add_notes(notes, layouts.list_webdataset(name, {file: slices}))
    if layouts.is_cifar(slices):
        return _add_notes(notes, layouts.list_cifar(name, slices, read_slice))
    return _add_notes(notes, _recognise(name, strip_top_folder(slices), read_slice))


def _recognise(name: str, slices: Sequence[FileSlice], reader: Reader) -> Source:
    """Find out which layout the files of a folder or archive are in, and list it."""
    names = {piece.name for piece in slices}
    if imagenet.TINY_VALIDATION in names:
        return imagenet.list_tiny_imagenet(name, slices, reader)
    if imagenet.KAGGLE_VALIDATION in names:
        return imagenet.list_kaggle(name, slices, reader)
    return layouts.list_class_folders(name, slices, reader)


def _add_notes(notes: Sequence[str], source: Source) -> Source:
    """Put notes of the archives before those of a source."""
    return replace(source, notes=(*notes, *source.notes))


def open_elpv() -> Source:
    """List the photographs of solar cells that the package elpv-dataset carries.

    2,624 grey images of 300x300; a cell is ``defective`` where the experts' defect probability
    is over 0.5, else ``functional``. The data's licence is CC BY-NC-SA 4.0.
    """
    if importlib.util.find_spec("elpv_dataset") is None:
        raise MissingExtraError("elpv-dataset", "demo", "The built-in data 'elpv'")
    root = Path(str(importlib.resources.files("elpv_dataset"))) / "data"
    labelled = []
    for line in (root / "labels.csv").read_text().splitlines():
        path, probability, _cell = line.split()
        labelled.append((FileSlice(path, str(root)), int(float(probability) > 0.5)))
    train = SampleIndex.of(read_file, labelled)
    return Source("elpv", ("functional", "defective"), {"train": train})


def _take_all(source: Source) -> Source:
    """Make one split of a source that has none, and say that nothing is held out of it."""
    if len(source.splits) > 1:
        return source
    (split, samples), *_ = source.splits.items()
    note = f"The source has no test split: all its {len(samples):,} images are taken."
    splits = {ALL if split == "train" else split: samples}
    return replace(source, splits=splits, notes=(*source.notes, note))


def _hold_out(source: Source, seed: int) -> Source:
    """Move a quarter of every class to a test split; the same images for a seed, always."""
    everything = source.splits["train"]
    test = np.zeros(len(everything), bool)
    for label in range(len(source.classes)):
        indices = np.flatnonzero(everything.labels == label)
        held = min(len(indices) - 1, max(1, round(HELD_OUT * len(indices))))
        chosen = random.Random(f"{seed}/{label}").sample(range(len(indices)), k=max(0, held))
        test[indices[chosen]] = True
    splits = {
        "train": everything.take(np.flatnonzero(~test)),
        "test": everything.take(np.flatnonzero(test)),
    }
    note = (
        f"The source holds nothing out: {test.sum():,} of its {len(test):,} images, "
        f"a quarter of each class, are its test split (seed {seed})."
    )
    return replace(source, splits=splits, notes=(*source.notes, note))
