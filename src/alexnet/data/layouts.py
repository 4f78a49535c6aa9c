"""What the names in a folder or an archive mean: the layouts in which images are handed around.

Each takes places, as `archives` lists them, and returns a `Source`; whether they lie in a folder,
a tar or a zip is all the same.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from alexnet.data.archives import is_image
from alexnet.data.listing import Place, Reader, SampleIndex
from alexnet.data.source import SPLITS, Source, split_named, stamp, stamp_of
from alexnet.errors import DataError

TINY_VALIDATION = "val/val_annotations.txt"
KAGGLE_VALIDATION = "LOC_val_solution.csv"
KAGGLE_IMAGES = "ILSVRC/Data/CLS-LOC/"
CLASS_LISTS = ("classes.txt", "classnames.txt")


def recognised(name: str, places: Sequence[Place], reader: Reader) -> Source:
    """Find out which layout places are in, and read it."""
    names = {place.name: place for place in places}
    if TINY_VALIDATION in names:
        return tiny_imagenet(name, places, reader)
    if KAGGLE_VALIDATION in names:
        return kaggle(name, places, reader)
    return class_folders(name, places, reader)


def class_folders(name: str, places: Iterable[Place], reader: Reader) -> Source:
    """List ``CLASS/*.jpg``, or ``{train,val|validation|valid,test}/CLASS/*.jpg``.

    The classes are those of the training split, in the order of their names. Hidden folders and
    files that are no images by their ending are passed over.

    Raises
    ------
    DataError
        When there are no images, or splits and classes that contradict each other.
    """
    images = [place for place in places if is_image(place)]
    named = sorted({place.name.split("/")[0] for place in images} & SPLITS.keys())
    if len({SPLITS[top] for top in named}) < len(named):
        raise DataError(
            f"{name!r} has more than one of val, valid and validation.", "Keep one of them."
        )
    if named and "train" not in named:
        raise DataError(
            f"{name!r} has {named[0]!r} and no 'train'.", "Name the training folder 'train'."
        )
    found: dict[str, dict[str, list[Place]]] = {SPLITS[top]: defaultdict(list) for top in named}
    found = found or {"train": defaultdict(list)}
    for place in images:
        parts = place.name.split("/")
        if named and parts[0] in SPLITS and len(parts) > 2:
            found[SPLITS[parts[0]]][parts[1]].append(place)
        elif not named and len(parts) > 1:
            found["train"][parts[0]].append(place)
    classes = tuple(sorted(found["train"]))
    if not classes:
        raise DataError(
            f"No images were found in {name!r}.", "It should hold one folder of images a class."
        )
    return _by_class(name, classes, found, reader, stamp_of(images))


def _by_class(
    name: str,
    classes: tuple[str, ...],
    found: dict[str, dict[str, list[Place]]],
    reader: Reader,
    stamp: str,
    notes: Sequence[str] = (),
) -> Source:
    """Return the source of places that are sorted by split and class."""
    said = list(notes)
    splits = {}
    for split, by_class in found.items():
        for extra in sorted(by_class.keys() - set(classes)):
            raise DataError(
                f"Class {extra!r} of the {split} split of {name!r} has no training image.",
                "Add some to the train folder, or remove the class.",
            )
        if not by_class:
            continue
        if missing := [label for label in classes if not by_class.get(label)]:
            said.append(f"The {split} split has no image of: {', '.join(missing)}.")
        splits[split] = SampleIndex.of(
            reader,
            (
                (place, label)
                for label, wnid in enumerate(classes)
                for place in sorted(by_class.get(wnid, ()), key=lambda place: place.name)
            ),
        )
    return Source(name, classes, splits, tuple(said), stamp)


def tiny_imagenet(name: str, places: Sequence[Place], reader: Reader) -> Source:
    """List Tiny ImageNet: ``train/WNID/images``, and ``val/images`` with its annotations.

    Its test split has no labels and is passed over.
    """
    annotations = _text(next(p for p in places if p.name == TINY_VALIDATION), reader)
    labels = dict(line.split("\t")[:2] for line in annotations.splitlines() if "\t" in line)
    found: dict[str, dict[str, list[Place]]] = {"train": defaultdict(list)}
    found["val"] = defaultdict(list)
    for place in filter(is_image, places):
        parts = place.name.split("/")
        if parts[0] == "train" and len(parts) > 2:
            found["train"][parts[1]].append(place)
        elif parts[0] == "val" and parts[-1] in labels:
            found["val"][labels[parts[-1]]].append(place)
    classes = tuple(sorted(found["train"]))
    return _by_class(name, classes, found, reader, stamp_of(places))


def kaggle(name: str, places: Sequence[Place], reader: Reader) -> Source:
    """List ILSVRC as Kaggle gives it out: images below ``ILSVRC/Data/CLS-LOC``.

    The validation labels are the first word of each prediction in ``LOC_val_solution.csv``; the
    test split has none and is passed over.
    """
    table = _text(next(p for p in places if p.name == KAGGLE_VALIDATION), reader)
    rows = csv.DictReader(io.StringIO(table))
    labels = {row["ImageId"]: row["PredictionString"].split()[0] for row in rows}
    found: dict[str, dict[str, list[Place]]] = {"train": defaultdict(list)}
    found["val"] = defaultdict(list)
    unlabelled = 0
    for place in filter(is_image, places):
        parts = place.name.removeprefix(KAGGLE_IMAGES).split("/")
        if parts[0] == "train" and len(parts) > 2:
            found["train"][parts[1]].append(place)
        elif parts[0] == "val":
            wnid = labels.get(PurePosixPath(parts[-1]).stem)
            unlabelled += wnid is None
            if wnid:
                found["val"][wnid].append(place)
    notes = [f"{unlabelled:,} validation images have no label: left out."] if unlabelled else []
    classes = tuple(sorted(found["train"]))
    return _by_class(name, classes, found, reader, stamp_of(places), notes)


def webdataset(name: str, shards: Sequence[tuple[Path, Iterable[Place]]], reader: Reader) -> Source:
    """List tars of ``KEY.jpg`` beside ``KEY.cls``, the number of the class as text.

    The split is told by the tar's name (``train-0000.tar``, ``imagenet-val-07.tar``). Class names
    come from ``classes.txt`` or ``classnames.txt`` beside the tars, else they are the numbers.

    Raises
    ------
    DataError
        When a tar names no split, or a label is no number.
    """
    found: dict[str, list[tuple[Place, int]]] = defaultdict(list)
    notes = []
    for tar, places in shards:
        split = split_named(tar.stem)
        if split is None:
            raise DataError(
                f"{tar.name!r} does not say which split it is.",
                "Name the tars train-…, val-… or test-….",
            )
        images: dict[str, Place] = {}
        labels: dict[str, Place] = {}
        for place in places:
            folder, _, file = place.name.rpartition("/")
            key, _, ending = file.partition(".")
            if ending == "cls":
                labels[f"{folder}/{key}"] = place
            elif is_image(place):
                images[f"{folder}/{key}"] = place
        if alone := len(images.keys() ^ labels.keys()):
            notes.append(f"{tar.name}: {alone:,} samples lack their image or their label.")
        found[split] += [(images[k], _number(labels[k], reader)) for k in images if k in labels]
    highest = max((label for pairs in found.values() for _, label in pairs), default=-1)
    classes = class_names(shards[0][0].parent, highest)
    splits = {split: SampleIndex.of(reader, pairs) for split, pairs in found.items() if pairs}
    return Source(name, classes, splits, tuple(notes), stamp(tar for tar, _ in shards))


def class_names(folder: Path, highest: int, given: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the names of numbered classes: those given, a list beside the files, or numbers.

    Raises
    ------
    DataError
        When there are fewer names than classes.
    """
    lists = [folder / name for name in CLASS_LISTS if (folder / name).is_file()]
    names = given or (lists[0].read_text(encoding="utf-8").splitlines() if lists else None)
    names = names or [str(number) for number in range(highest + 1)]
    if highest >= len(names):
        raise DataError(f"{str(folder)!r} has label {highest} but names {len(names)} classes.")
    return tuple(names)


def _number(place: Place, reader: Reader) -> int:
    text = _text(place, reader).strip()
    if not text.isdecimal():
        raise DataError(f"The label {place.name!r} in {place.file!r} is {text[:20]!r}, no number.")
    return int(text)


def _text(place: Place, reader: Reader) -> str:
    data = reader(place.file, place.name, place.offset, place.length)
    return data.decode("utf-8", "replace")
