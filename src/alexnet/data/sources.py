"""Where labelled images come from: finds out what a path or a built-in name is.

A source lists its images without decoding any.
"""

import importlib.resources
import importlib.util
import random
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from alexnet.data import folders, imagenet, layouts
from alexnet.data.archives import Contents, is_image, list_folder, list_tar, list_zip, read_file
from alexnet.data.downloads import ARCHIVES, DownloadReport, find_archive
from alexnet.data.samples import ALL, FileSlice, SampleIndex, Source, find_split
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

    Raises `DataError` when there is no such data, it has no images, or cannot be trained on.

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
        raise DataError(
            f"{where} has {next(iter(source.splits))!r} images and no 'train'.",
            "Name one of its folders 'train'.",
        )
    return source if len(source.splits) > 1 else _hold_out(source, seed)


def _open_built_in(name: str, report: DownloadReport) -> Source:
    if name == "elpv":
        return open_elpv()
    return replace(_open_file(find_archive(name, report), "wnid"), name=name)


def _open_folder(root: Path, order: imagenet.ClassOrder) -> Source:
    try:
        if imagenet.find_ilsvrc_files(root):
            return imagenet.list_ilsvrc(root, order)
    except PermissionError as error:
        raise DataError(f"{error.filename} cannot be read.", "Check its permissions.") from None
    if order != "wnid":
        raise DataError(f"{str(root)!r} has no devkit to take the order of classes from.")
    if tables := sorted({*root.glob("*.parquet"), *root.glob("data/*.parquet")}):
        return layouts.list_parquet(root, tables)
    tars = sorted(root.glob("*.tar"))
    if any(find_split(tar.stem) for tar in tars):
        return layouts.list_webdataset(root.resolve().name, list(map(list_tar, tars)))
    contents = list_folder(root)
    tables = [Path(root, p.name) for p in contents.files if p.name.endswith(".parquet")]
    if tables and not any(map(is_image, contents.files)):
        return layouts.list_parquet(root, tables)
    return _recognise(contents)


def _open_file(file: Path, order: imagenet.ClassOrder) -> Source:
    if imagenet.ILSVRC_TAR.fullmatch(file.name):
        return _open_folder(file.parent, order)
    if file.suffix == ".csv":
        return folders.list_label_table(
            list_folder(file.parent), FileSlice(file.name, str(file.parent))
        )
    if file.suffix == ".zip":
        return _recognise(list_zip(file))
    if file.suffix not in (".tar", ".tgz", ".gz"):
        raise DataError(
            f"{str(file)!r} is neither a folder nor a tar, tar.gz or zip of images.",
            "Name the folder that it lies in.",
        )
    contents = list_tar(file)
    if any(piece.name.endswith(".cls") for piece in contents.files):
        return layouts.list_webdataset(contents.name, [contents])
    return _recognise(contents)


def _recognise(contents: Contents) -> Source:
    """Find out which layout the files of a folder or archive are in, and list it."""
    if layouts.is_cifar(contents.files):
        return layouts.list_cifar(contents)
    for table, list_source in (
        (imagenet.TINY_VALIDATION, imagenet.list_tiny_imagenet),
        (imagenet.KAGGLE_VALIDATION, imagenet.list_kaggle),
    ):
        for piece in contents.files:
            if f"/{piece.name}".endswith(f"/{table}"):
                return list_source(contents.below(piece.name.removesuffix(table)))
    tables = [p for p in contents.files if PurePosixPath(p.name).name == folders.LABEL_TABLE]
    if tables and not folders.has_class_folders(contents):
        return folders.list_label_table(contents, tables[0])
    if tables:
        contents.notes.append(
            f"Classes are told by folders; to go by {tables[0].name}, name that file itself."
        )
    return folders.list_class_folders(contents)


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
    by_class = np.argsort(everything.labels, kind="stable")
    starts = np.searchsorted(everything.labels, range(1, len(source.classes)), sorter=by_class)
    for label, indices in enumerate(np.split(by_class, starts)):
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
