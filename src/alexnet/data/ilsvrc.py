"""ILSVRC as image-net.org gives it out: a tar of tars, a flat tar, and a development kit.

The files are read in place. Those of 2010 differ from those of 2012 in their names, in a test
split whose labels were published, and in a tar of images that replace broken ones.
"""

import io
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from alexnet.data.archives import is_image, nested_tar_places, tar_places
from alexnet.data.listing import Place, SampleIndex, read_slice
from alexnet.data.source import Source, stamp
from alexnet.errors import DataError, MissingExtraError

IMAGES = re.compile(r"ILSVRC(20\d\d)_(?:img|images)_(train|val|test)\.tar")
KIT = re.compile(r"ILSVRC(20\d\d)_devkit.*\.tar\.gz")
PATCHES = "patch_images.tar"  # of 2010
NUMBER = re.compile(r"_(\d{8})$")  # of an image of a flat tar
Order = Literal["wnid", "devkit"]


@dataclass(frozen=True, slots=True)
class Kit:
    """What a development kit tells."""

    wnids: dict[int, str]  # by ILSVRC id, from 1: the classes that images have
    truths: dict[str, list[int]]  # by split: the ILSVRC id of each image, in the order of names


def ilsvrc_files(root: Path) -> dict[str, Path]:
    """Return the files of ILSVRC in a folder: by split, ``kit``, and ``patches``.

    Empty where the folder has no training images of ILSVRC.

    Raises
    ------
    DataError
        When it has those of more than one year.
    """
    found: dict[str, Path] = {}
    years = set()
    for file in sorted(root.iterdir()):
        if match := IMAGES.fullmatch(file.name):
            found[match[2]] = file
        elif match := KIT.fullmatch(file.name):
            found["kit"] = file
        elif file.name == PATCHES:
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


def ilsvrc(root: Path, order: Order = "wnid") -> Source:
    """List ILSVRC's training and validation images, and the test images where they have labels.

    Parameters
    ----------
    root : Path
        The folder with ``ILSVRC2012_img_train.tar``, ``ILSVRC2012_img_val.tar`` and
        ``ILSVRC2012_devkit_t12.tar.gz``, or those of 2010.
    order : str
        ``"wnid"``: classes in the order of their wnids, as Caffe and torchvision have them;
        ``"devkit"``: of their ILSVRC ids, as cuda-convnet has them (facts 4).

    Raises
    ------
    DataError
        When a file is missing, damaged, or contradicts another.
    """
    files = ilsvrc_files(root)
    missing = [name for name in ("train", "val", "kit") if name not in files]
    if missing:
        raise DataError(
            f"{str(root)!r} has {files['train'].name} and not its "
            f"{' and its '.join({'val': 'validation tar', 'kit': 'devkit'}[m] for m in missing)}.",
            "Download it from image-net.org into the same folder.",
        )
    kit = read_kit(files["kit"], root)
    notes: list[str] = []
    by_class: dict[str, list[Place]] = defaultdict(list)
    for wnid, place in nested_tar_places(files["train"], notes):
        by_class[wnid].append(place)
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
    train = (
        (place, label)
        for label, wnid in enumerate(classes)
        for place in sorted(by_class[wnid], key=lambda place: place.name)
    )
    patches = _patches(files, notes)
    splits = {"train": SampleIndex.of(read_slice, _patched(train, patches))}
    for split in ("val", "test"):
        if split in files and split in kit.truths:
            held = _flat(files[split], split, kit, classes, notes)
            splits[split] = SampleIndex.of(read_slice, _patched(held, patches))
    stamped = stamp(files[name] for name in sorted(files))
    return Source(root.resolve().name, classes, splits, tuple(notes), stamped)


def _flat(
    tar: Path, split: str, kit: Kit, classes: tuple[str, ...], notes: list[str]
) -> Iterator[tuple[Place, int]]:
    """Yield the labelled images of a tar without folders; the label goes by the name's number."""
    truths = kit.truths[split]
    labels = {wnid: label for label, wnid in enumerate(classes)}
    images = sorted(filter(is_image, tar_places(tar, notes)), key=lambda place: place.name)
    if len(images) != len(truths):
        notes.append(f"{tar.name} has {len(images):,} images, the ground truth {len(truths):,}.")
    left_out = 0
    for place in images:
        number = NUMBER.search(PurePosixPath(place.name).stem)
        truth = int(number[1]) if number else 0
        wnid = kit.wnids.get(truths[truth - 1]) if 0 < truth <= len(truths) else None
        if wnid in labels:
            yield place, labels[wnid]
        else:
            left_out += 1
    if left_out:
        notes.append(f"{left_out:,} images of {tar.name} are of no class in the training images.")


def _patches(files: dict[str, Path], notes: list[str]) -> dict[str, Place]:
    """Return the images that replace broken ones, by file name."""
    if "patches" not in files:
        return {}
    found = {
        PurePosixPath(place.name).name: place
        for place in tar_places(files["patches"], notes)
        if is_image(place)
    }
    notes.append(f"{len(found):,} images are taken from {PATCHES}.")
    return found


def _patched(
    places: Iterator[tuple[Place, int]], patches: dict[str, Place]
) -> Iterator[tuple[Place, int]]:
    for place, label in places:
        better = patches.get(PurePosixPath(place.name).name)
        yield (
            (Place(place.name, better.file, better.offset, better.length), label)
            if better
            else (place, label)
        )


def read_kit(file: Path, beside: Path) -> Kit:
    """Read a development kit: ``meta.mat`` and the ground truth of the validation images.

    The ground truth of 2010's test images is a file of its own, ``beside`` the tars.

    Raises
    ------
    DataError
        When it is damaged or lacks a file.
    MissingExtraError
        When SciPy, which reads ``meta.mat``, is not installed.
    """
    content: dict[str, bytes] = {}
    try:
        with tarfile.open(file, "r:gz") as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                if member.isreg() and (name == "meta.mat" or name.endswith("ground_truth.txt")):
                    stream = tar.extractfile(member)
                    content[name] = stream.read() if stream else b""
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{str(file)!r} is damaged ({error}).", "Download it again.") from None
    content |= {path.name: path.read_bytes() for path in beside.glob("ILSVRC*_ground_truth.txt")}
    truths = {}
    for name, data in content.items():
        for split, word in (("val", "validation"), ("test", "test")):
            if name.endswith(f"_{word}_ground_truth.txt"):
                truths[split] = _numbers(data, file)
    if "meta.mat" not in content or "val" not in truths:
        raise DataError(
            f"{str(file)!r} lacks meta.mat or the validation ground truth.", "Download it again."
        )
    return Kit(_wnids(content["meta.mat"], file), truths)


def _numbers(data: bytes, file: Path) -> list[int]:
    try:
        return [int(line) for line in data.split()]
    except ValueError:
        raise DataError(f"The ground truth in {str(file)!r} is not a number a line.") from None


def _wnids(data: bytes, file: Path) -> dict[int, str]:
    """Return the wnids of the classes without children, which alone have images, by ILSVRC id."""
    try:
        from scipy.io import loadmat
    except ImportError:
        raise MissingExtraError("scipy", "imagenet", "The devkit's meta.mat") from None
    try:
        synsets = loadmat(io.BytesIO(data), squeeze_me=True)["synsets"]
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
