"""ImageNet as it is handed around, and readable names for its classes.

ILSVRC as image-net.org gives it out is a tar of tars, a flat tar, and a development kit. They are
read in place. Those of 2010 differ from those of 2012 in their names, in a test split whose labels
were published, and in a tar of images that replace broken ones.
"""

import csv
import importlib.resources
import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Literal

from alexnet.data.archives import (
    Contents,
    is_image,
    list_folder,
    list_nested_tars,
    list_tar,
    read_slice,
)
from alexnet.data.folders import group_by_class, index_classes, label_in_order
from alexnet.data.samples import FileSlice, SampleIndex, Source, stamp_files
from alexnet.errors import DataError, import_extra

ILSVRC_TAR = re.compile(r"ILSVRC(20\d\d)_(?:img|images)_(train|val|test)\.tar")
DEVKIT = re.compile(r"ILSVRC(20\d\d)_devkit.*\.tar(?:\.gz)?")  # Safari unpacks the gzip
PATCH_TAR = "patch_images.tar"  # of 2010
IMAGE_NUMBER = re.compile(r"_(\d{8})$")  # at the end of the name of an image of a flat tar
KAGGLE_VALIDATION = "LOC_val_solution.csv"
KAGGLE_IMAGES = "ILSVRC/Data/CLS-LOC/"
TINY_VALIDATION = "val/val_annotations.txt"
WNID = re.compile(r"n\d{8}")
ClassOrder = Literal["wnid", "devkit"]
Labelled = Iterable[tuple[FileSlice, int]]


@dataclass(frozen=True, slots=True)
class DevKit:
    """What a development kit tells."""

    wnids: dict[int, str]  # by ILSVRC id, from 1: the classes that images have
    truths: dict[str, list[int]]  # by split: the ILSVRC id of each image, in the order of names


def find_ilsvrc_files(root: Path) -> dict[str, Path]:
    """Return the files of ILSVRC in a folder: by split, ``kit``, and ``patches``.

    Empty where the folder has no training images of ILSVRC.
    """
    found: dict[str, Path] = {}
    years = set()
    for file in sorted(root.iterdir()):
        if match := ILSVRC_TAR.fullmatch(file.name):
            found[match[2]] = file
        elif match := DEVKIT.fullmatch(f"{file.name}.tar" if file.is_dir() else file.name):
            found["kit"] = file
        elif file.name == PATCH_TAR:
            found["patches"] = file
        if match:
            years.add(match[1])
    if "train" not in found:
        return {}
    if len(years) > 1:
        raise DataError(
            f"{str(root)!r} has the files of {' and '.join(sorted(years))}.",
            "Put each year into a folder of its own.",
        )
    return found


def list_ilsvrc(root: Path, order: ClassOrder = "wnid") -> Source:
    """List ILSVRC's training and validation images, and the test images where they have labels.

    `root` has ``ILSVRC2012_img_train.tar``, ``ILSVRC2012_img_val.tar`` and
    ``ILSVRC2012_devkit_t12.tar.gz``, or those of 2010. Classes are in the order of their wnids, as
    Caffe and torchvision have them; or, for ``"devkit"``, of their ILSVRC ids, as cuda-convnet has
    them (facts 4).
    """
    files = find_ilsvrc_files(root)
    missing = [name for name in ("train", "val", "kit") if name not in files]
    if missing:
        raise DataError(
            f"{str(root)!r} has {files['train'].name} and not its "
            f"{' and its '.join({'val': 'validation tar', 'kit': 'devkit'}[m] for m in missing)}.",
            "Download it from image-net.org into the same folder.",
        )
    kit = read_devkit(files["kit"], root)
    notes: list[str] = []
    by_class: dict[str, list[FileSlice]] = defaultdict(list)
    for wnid, image in list_nested_tars(files["train"], notes):
        by_class[wnid].append(image)
    ids = {wnid: number for number, wnid in kit.wnids.items()}
    if unknown := sorted(by_class.keys() - ids.keys()):
        raise DataError(
            f"{files['train'].name} has a class {unknown[0]!r} that {files['kit'].name} does not "
            "know.",
            "Take both files of the same year.",
        )
    classes = tuple(sorted(by_class, key=ids.__getitem__ if order == "devkit" else None))
    if len(classes) < len(ids):
        notes.append(f"{files['train'].name} has images of {len(classes)} of {len(ids)} classes.")
    patches = _list_patches(files, notes)
    train = label_in_order(classes, by_class)
    splits = {"train": SampleIndex.of(read_slice, _patch(train, patches))}
    for split in ("val", "test"):
        if split in files and split in kit.truths:
            held_out = _list_flat_tar(files[split], split, kit, classes, notes)
            splits[split] = SampleIndex.of(read_slice, _patch(held_out, patches))
    stamp = stamp_files(files[name] for name in sorted(files))
    return Source(root.resolve().name, classes, splits, tuple(notes), stamp)


def _list_flat_tar(
    tar: Path, split: str, kit: DevKit, classes: Sequence[str], notes: list[str]
) -> Iterator[tuple[FileSlice, int]]:
    """Yield the labelled images of a tar without folders; the label goes by the name's number."""
    truths = kit.truths[split]
    labels = {wnid: label for label, wnid in enumerate(classes)}
    contents = list_tar(tar)
    notes += contents.notes
    images = sorted(filter(is_image, contents.files), key=lambda image: image.name)
    if len(images) != len(truths):
        notes.append(f"{tar.name} has {len(images):,} images, the ground truth {len(truths):,}.")
    left_out = 0
    for image in images:
        number = IMAGE_NUMBER.search(PurePosixPath(image.name).stem)
        truth = int(number[1]) if number else 0
        wnid = kit.wnids.get(truths[truth - 1]) if 0 < truth <= len(truths) else None
        if wnid in labels:
            yield image, labels[wnid]
        else:
            left_out += 1
    if left_out:
        notes.append(f"{left_out:,} images of {tar.name} are of no class in the training images.")


def _list_patches(files: Mapping[str, Path], notes: list[str]) -> dict[str, FileSlice]:
    """Return the images that replace broken ones, by file name."""
    if "patches" not in files:
        return {}
    contents = list_tar(files["patches"])
    notes += contents.notes
    images = filter(is_image, contents.files)
    found = {PurePosixPath(image.name).name: image for image in images}
    notes.append(f"{len(found):,} images are taken from {PATCH_TAR}.")
    return found


def _patch(images: Labelled, patches: Mapping[str, FileSlice]) -> Iterator[tuple[FileSlice, int]]:
    for image, label in images:
        better = patches.get(PurePosixPath(image.name).name)
        yield replace(better, name=image.name) if better else image, label


def read_devkit(file: Path, beside: Path) -> DevKit:
    """Read a development kit: ``meta.mat`` and the ground truth of the validation images.

    The ground truth of 2010's test images is a file of its own, ``beside`` the tars.
    """
    try:
        contents = list_folder(file) if file.is_dir() else list_tar(file)
        content = {
            name: contents.reader(piece)
            for piece in contents.files
            if (name := PurePosixPath(piece.name).name) == "meta.mat"
            or name.endswith("ground_truth.txt")
        }
    except DataError as error:
        raise DataError(f"{str(file)!r} is damaged ({error.what})", "Download it again.") from None
    content |= {path.name: path.read_bytes() for path in beside.glob("ILSVRC*_ground_truth.txt")}
    truths = {}
    for name, data in content.items():
        for split, word in (("val", "validation"), ("test", "test")):
            if name.endswith(f"_{word}_ground_truth.txt"):
                truths[split] = _parse_truths(data, file)
    if "meta.mat" not in content or "val" not in truths:
        raise DataError(
            f"{str(file)!r} lacks meta.mat or the validation ground truth.", "Download it again."
        )
    return DevKit(_parse_wnids(content["meta.mat"], file), truths)


def _parse_truths(data: bytes, file: Path) -> list[int]:
    try:
        return [int(line) for line in data.split()]
    except ValueError:
        raise DataError(f"The ground truth in {str(file)!r} is not a number a line.") from None


def _parse_wnids(data: bytes, file: Path) -> dict[int, str]:
    """Return the wnids of the classes without children, which alone have images, by ILSVRC id."""
    scipy_io = import_extra("scipy.io", "imagenet", "The devkit's meta.mat")
    try:
        synsets = scipy_io.loadmat(io.BytesIO(data), squeeze_me=True)["synsets"]
        key = next(name for name in synsets.dtype.names if name.endswith("_ID"))
        found = {
            int(synset[key]): str(synset["WNID"])
            for synset in synsets
            if not int(synset["num_children"])
        }
    except Exception as error:  # SciPy raises many types on broken files
        raise DataError(
            f"meta.mat in {str(file)!r} cannot be read ({type(error).__name__}: {error}).",
            "Download the devkit again.",
        ) from None
    if not found:
        raise DataError(f"meta.mat in {str(file)!r} names no class.", "Download the devkit again.")
    return found


def list_kaggle(contents: Contents) -> Source:
    """List ILSVRC as Kaggle gives it out: images below ``ILSVRC/Data/CLS-LOC``.

    The validation labels are the first word of each prediction in ``LOC_val_solution.csv``; the
    test split has none and is passed over.
    """
    rows = csv.DictReader(io.StringIO(_read_text(KAGGLE_VALIDATION, contents)))
    try:
        wnids = {row["ImageId"]: row["PredictionString"].split()[0] for row in rows}
    except (KeyError, AttributeError, IndexError, csv.Error) as error:
        raise DataError(
            f"{KAGGLE_VALIDATION} of {contents.name!r} is not Kaggle's ({error!r}).",
            "Download it again.",
        ) from None
    return _list_with_wnids(contents, KAGGLE_VALIDATION, wnids)


def list_tiny_imagenet(contents: Contents) -> Source:
    """List Tiny ImageNet: ``train/WNID/images``, and ``val/images`` with its annotations.

    Its test split has no labels and is passed over.
    """
    lines = _read_text(TINY_VALIDATION, contents).splitlines()
    pairs = [line.split("\t")[:2] for line in lines if "\t" in line]
    wnids = {PurePosixPath(file).stem: wnid for file, wnid in pairs}
    return _list_with_wnids(contents, TINY_VALIDATION, wnids)


def _list_with_wnids(contents: Contents, table: str, wnids: Mapping[str, str]) -> Source:
    """List ``train/WNID/…`` and ``val/…``, whose wnids are given by the stems of the files."""
    found = group_by_class(["train", "val"])
    unlabelled = 0
    for image in contents.take_images(used=(table,)):
        parts = image.name.removeprefix(KAGGLE_IMAGES).split("/")
        if parts[0] == "train" and len(parts) > 2:
            found["train"][parts[1]].append(image)
        elif parts[0] == "val":
            wnid = wnids.get(PurePosixPath(parts[-1]).stem)
            unlabelled += wnid is None
            if wnid:
                found["val"][wnid].append(image)
        else:
            contents.passed_over["is of a split without labels"].append(image.name)
    if unlabelled:
        contents.notes.append(f"{unlabelled:,} validation images have no label: left out.")
    return index_classes(contents, found, contents.files)


def _read_text(name: str, contents: Contents) -> str:
    table = next(piece for piece in contents.files if piece.name == name)
    return contents.reader(table).decode("utf-8", "replace")


@lru_cache(maxsize=1)
def load_synsets() -> dict[str, str]:
    """Return the words of ImageNet's 21,842 synsets by wnid: ``n01440764``: tench, Tinca tinca."""
    text = (importlib.resources.files("alexnet.data") / "wordnet.txt").read_text(encoding="utf-8")
    lines = (line.split("\t") for line in text.splitlines() if line[0] != "#")
    return {wnid: words for wnid, words in lines}  # noqa: C416 -- typed


def describe_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Return a name to show for each class, no two the same.

    A wnid becomes the first word of its synset, with the wnid behind it where two of the classes
    would be called the same (ImageNet has two cranes); any other class keeps its name.

    Examples
    --------
    >>> describe_classes(["n01440764", "n02012849", "n03126707", "shirt"])
    ('tench', 'crane (n02012849)', 'crane (n03126707)', 'shirt')
    """
    if not any(WNID.fullmatch(name) for name in classes):
        return tuple(classes)
    synsets = load_synsets()
    first = {name: synsets.get(name, name).split(", ")[0] for name in classes}
    shared = {name for name, times in Counter(first.values()).items() if times > 1}
    return tuple(
        f"{first[name]} ({name})" if first[name] in shared and name in synsets else first[name]
        for name in classes
    )
