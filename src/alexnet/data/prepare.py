"""Source -> prepared data set: in parallel, resumable, the same bytes whatever happens.

The source's order is cut into shards of `SHARD_IMAGES`. A shard and its sums are written whole
or not at all; a killed preparation keeps the shards that it has.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from alexnet.data.decode import decode_jpeg, open_image, square, to_jpeg
from alexnet.data.shards import (
    STATISTICS,
    Manifest,
    Record,
    is_prepared,
    open_prepared,
    write_manifest,
    write_shard,
)
from alexnet.data.sources import Item, Source
from alexnet.data.statistics import PixelSums, Statistics
from alexnet.errors import DataError, ImageError
from alexnet.files import explained, free_bytes, sha256, whole_file

SHARD_IMAGES = 1024
CHUNK = 32  # images a task: small enough for a live progress, large enough to be worth a thread
UNFINISHED = "preparing.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How images are prepared."""

    size: int = 256  # pixels on a side, after scaling the shorter side and cropping (section 2)
    quality: int = 95  # of the JPEG, as in cuda-convnet2 (facts 4)
    exif: bool = True  # turn images upright as their EXIF orientation says

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 4096:
            raise DataError(f"The prepared size is {self.size}.", "It must be 8 to 4096 pixels.")
        if not 1 <= self.quality <= 100:
            raise DataError(f"The JPEG quality is {self.quality}.", "It must be 1 to 100.")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a preparation is."""

    done: int  # images
    total: int
    skipped: int


def prepare(
    source: Source,
    root: str | Path,
    options: Options = Options(),
    *,
    workers: int | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Manifest:
    """Make a prepared data set of a source, or finish one that was begun.

    Parameters
    ----------
    source : Source
        Labelled images.
    root : str or Path
        The folder to make. One that holds this very data set, finished, is left as it is.
    options : Options
        Size, quality, orientation.
    workers : int
        Threads that decode and encode; by default one a processor. The result does not depend
        on it.
    report : callable
        Called with a `Progress` every few images.

    Returns
    -------
    Manifest
        What was prepared, with the images that had to be skipped.

    Raises
    ------
    DataError
        When the folder holds something else, a class is left without a training image, or the
        disk is too small.
    """
    if workers is not None and workers < 1:
        raise DataError(f"{workers} workers cannot prepare anything.", "Give 1 or more.")
    root = Path(root)
    identity: dict[str, Any] = {"options": asdict(options), "fingerprint": source.fingerprint()}
    if is_prepared(root):
        manifest = open_prepared(root).manifest
        if {"options": manifest.options, "fingerprint": manifest.fingerprint} != identity:
            raise DataError(
                f"{str(root)!r} holds another prepared data set ({manifest.name}).",
                "Delete it or choose another folder.",
            )
        return manifest
    _claim(root, identity)
    total = sum(map(len, source.splits.values()))
    left = sum(
        len(items)
        for split, number, items in _shards(source)
        if not _notes(_shard(root, split, number)).is_file()
    )
    _check_space(root, left, options)
    done = skipped = 0
    names = []
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for split, number, items in _shards(source):
            path = _shard(root, split, number)
            names.append(path.name)
            if _notes(path).is_file():  # whole, from before this command was stopped
                done += len(items)
                continue
            chunks = [items[i : i + CHUNK] for i in range(0, len(items), CHUNK)]
            results: list[bytes | str] = []
            sums = PixelSums.empty(options.size)
            for encoded, of_chunk in pool.map(partial(_prepared, options=options), chunks):
                results += encoded
                sums += of_chunk
                done += len(encoded)
                skipped += sum(isinstance(result, str) for result in encoded)
                report(Progress(done, total, skipped))
            _write(path, items, results, sums)
    return _finish(root, source, identity, names)


def _claim(root: Path, identity: dict[str, object]) -> None:
    """Mark the folder as being prepared from this source, or see that it was already."""
    mark = root / UNFINISHED
    with explained(root):
        root.mkdir(parents=True, exist_ok=True)
        if mark.is_file():
            if json.loads(mark.read_text(encoding="utf-8")) == identity:
                return
            raise DataError(
                f"{str(root)!r} holds the unfinished preparation of something else.",
                "Delete it or choose another folder.",
            )
        if any(path.name[0] != "." for path in root.iterdir()):
            raise DataError(f"{str(root)!r} is not empty.", "Choose a new folder.")
    with whole_file(mark) as temporary:
        temporary.write_text(json.dumps(identity), encoding="utf-8")


def _check_space(root: Path, images: int, options: Options) -> None:
    typical = 0.65 * options.size**2 * options.quality / 95  # 42 kB at 256 pixels, quality 95
    needed = images * typical
    if needed > free_bytes(root):
        raise DataError(
            f"About {needed / 1e9:,.1f} GB are needed in {str(root)!r}, "
            f"{free_bytes(root) / 1e9:,.1f} GB are free.",
            "Make room, or choose a folder on another disk.",
        )


def _shards(source: Source) -> Iterator[tuple[str, int, tuple[Item, ...]]]:
    for split, items in sorted(source.splits.items()):
        for start in range(0, len(items), SHARD_IMAGES):
            yield split, start // SHARD_IMAGES, items[start : start + SHARD_IMAGES]


def _prepared(items: tuple[Item, ...], options: Options) -> tuple[list[bytes | str], PixelSums]:
    """Return each image's JPEG, or what is wrong with it, and the sums of those that are right."""
    results: list[bytes | str] = []
    sums = PixelSums.empty(options.size)
    for item in items:
        try:
            image = square(open_image(item.read(), exif=options.exif), options.size)
        except ImageError as error:
            results.append(str(error))
        except OSError as error:
            results.append(f"It cannot be read ({error.strerror}).")
        else:
            encoded = to_jpeg(image, options.quality)
            sums += PixelSums.of(decode_jpeg(encoded))  # of the pixels as they will be read
            results.append(encoded)
    return results, sums


def _write(
    path: Path, items: tuple[Item, ...], results: list[bytes | str], sums: PixelSums
) -> None:
    """Write a shard, its sums and, last, its notes, which say that all three are there."""
    records, skipped = [], []
    for item, result in zip(items, results, strict=True):
        if isinstance(result, str):
            skipped.append((item.path, result))
        else:
            records.append(Record(result, item.label, item.path))
    write_shard(path, records)
    sums.save(_sums(path))
    labels = Counter(record.label for record in records)
    with whole_file(_notes(path)) as temporary:
        temporary.write_text(json.dumps({"skipped": skipped, "labels": labels}), encoding="utf-8")


def _shard(root: Path, split: str, number: int) -> Path:
    return root / f"{split}-{number:05}.arrow"


def _notes(shard: Path) -> Path:
    return shard.with_suffix(".notes.json")


def _sums(shard: Path) -> Path:
    return shard.with_suffix(".sums.safetensors")


def _finish(root: Path, source: Source, identity: dict[str, Any], names: list[str]) -> Manifest:
    """Add up what the shards' notes say, write statistics and manifest, clear the notes."""
    skipped: list[tuple[str, str]] = []
    sums = PixelSums.empty(identity["options"]["size"])
    counts = {split: [0] * len(source.classes) for split in source.splits}
    for name in names:
        split = name.split("-")[0]
        notes = json.loads(_notes(root / name).read_text(encoding="utf-8"))
        skipped += [(path, reason) for path, reason in notes["skipped"]]
        for label, images in notes["labels"].items():
            counts[split][int(label)] += images
        if split == "train":
            sums += PixelSums.load(_sums(root / name))
    for label, images in enumerate(counts["train"]):
        if not images:
            raise DataError(
                f"Class {source.classes[label]!r} has no training image that can be decoded.",
                "Add some, or remove the class.",
            )
    Statistics.from_sums(sums).save(root / STATISTICS)
    manifest = Manifest(
        name=source.name,
        classes=source.classes,
        counts={split: sum(images) for split, images in counts.items()},
        class_counts={split: tuple(images) for split, images in counts.items()},
        skipped=tuple(skipped),
        checksums={name: sha256(root / name) for name in (*names, STATISTICS)},
        size=identity["options"]["size"],
        **identity,
    )
    write_manifest(root, manifest)
    for leftover in (*root.glob("*.notes.json"), *root.glob("*.sums.safetensors")):
        leftover.unlink()
    (root / UNFINISHED).unlink()
    return manifest
