"""Where labelled images come from: finds out what a path or a built-in name is.

A source lists its images without decoding any.
"""

import random
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from alexnet.data import archives, cifar, downloads, ilsvrc, layouts, parquet
from alexnet.data.listing import Place, SampleIndex, read_file, read_slice, read_zipped
from alexnet.data.source import SPLITS, Source, split_named
from alexnet.errors import DataError, MissingExtraError, did_you_mean

TEST_SHARE = 0.25  # of a source without a held-out split; elpv's publication held out as much
BUILT_IN = ("elpv", *downloads.ARCHIVES)


def open_source(
    where: str | Path,
    seed: int = 0,
    *,
    class_order: Literal["wnid", "devkit"] = "wnid",
    report: downloads.Report = lambda file, done, total: None,
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
    report : callable
        Called with the progress of a download.

    Raises
    ------
    DataError
        When there is no such data, it has no images, or fewer than two classes.
    """
    path = Path(where)
    if str(where) in BUILT_IN and not path.is_dir():
        source = _built_in(str(where), report)
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


def _built_in(name: str, report: downloads.Report) -> Source:
    if name == "elpv":
        return elpv()
    found = _open_file(downloads.downloaded(name, report), "wnid")
    return replace(found, name=name)


def _open_folder(root: Path, order: ilsvrc.Order) -> Source:
    try:
        if ilsvrc.ilsvrc_files(root):
            return ilsvrc.ilsvrc(root, order)
        if order != "wnid":
            raise DataError(f"{str(root)!r} has no devkit to take the order of classes from.")
        if parquet.parquet_files(root):
            return parquet.parquet_folder(root)
        if any(split_named(tar.stem) for tar in root.glob("*.tar")):
            return _webdataset(sorted(root.glob("*.tar")))
        name, places = root.resolve().name, list(archives.folder_places(root))
    except PermissionError as error:
        raise DataError(f"{error.filename} cannot be read.", "Check its permissions.") from None
    if cifar.is_cifar(places):
        return cifar.cifar(name, places, read_file)
    found = layouts.recognised(name, places, read_file)
    train = root / "train" if (root / "train").is_dir() else root
    folders = {path.name for path in train.iterdir() if path.is_dir() and path.name[0] != "."}
    if empty := sorted(folders - {*found.classes, *SPLITS, "ILSVRC"}):
        note = f"No class is made of folders without an image: {', '.join(empty)}."
        return replace(found, notes=(*found.notes, note))
    return found


def _open_file(file: Path, order: ilsvrc.Order) -> Source:
    if ilsvrc.IMAGES.fullmatch(file.name):
        return _open_folder(file.parent, order)
    name = file.name.split(".")[0]
    if file.suffix == ".zip":
        places = archives.without_top(archives.zip_places(file))
        return layouts.recognised(name, places, read_zipped)
    if file.suffix not in (".tar", ".tgz", ".gz"):
        raise DataError(
            f"{str(file)!r} is neither a folder nor a tar, tar.gz or zip of images.",
            "Name the folder that it lies in.",
        )
    notes: list[str] = []
    tar = file if file.suffix == ".tar" else archives.uncompressed(file)
    places = list(archives.tar_places(tar, notes))
    if any(place.name.endswith(".cls") for place in places):
        source = layouts.webdataset(name, [(file, places)], read_slice)
    elif cifar.is_cifar(places):
        source = cifar.cifar(name, places, read_slice)
    else:
        source = layouts.recognised(name, archives.without_top(places), read_slice)
    return replace(source, name=name, notes=(*notes, *source.notes))


def _webdataset(tars: list[Path]) -> Source:
    notes: list[str] = []
    listed = [(tar, list(archives.tar_places(tar, notes))) for tar in tars]
    name = tars[0].resolve().parent.name
    found = layouts.webdataset(name, listed, read_slice)
    return replace(found, notes=(*notes, *found.notes))


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
    root = Path(str(importlib.resources.files("elpv_dataset"))) / "data"
    labelled = []
    for line in (root / "labels.csv").read_text().splitlines():
        path, probability, _cell = line.split()
        labelled.append((Place(path, str(root)), int(float(probability) > 0.5)))
    train = SampleIndex.of(read_file, labelled)
    return Source("elpv", ("functional", "defective"), {"train": train})


def _hold_out(source: Source, seed: int) -> Source:
    """Move a share of every class to a test split; the same images for a seed, always."""
    everything = source.splits["train"]
    test = np.zeros(len(everything), bool)
    for label in range(len(source.classes)):
        numbers = np.flatnonzero(everything.labels == label)
        held = min(len(numbers) - 1, max(1, round(TEST_SHARE * len(numbers))))
        chosen = random.Random(f"{seed}/{label}").sample(range(len(numbers)), k=max(0, held))
        test[numbers[chosen]] = True
    splits = {
        "train": everything.take(np.flatnonzero(~test)),
        "test": everything.take(np.flatnonzero(test)),
    }
    note = (
        f"The source holds nothing out: {test.sum():,} of its {len(test):,} images, "
        f"a quarter of each class, are its test split (seed {seed})."
    )
    return replace(source, splits=splits, notes=(*source.notes, note))
