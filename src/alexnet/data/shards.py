"""The prepared data set on disk: Arrow files of small images, memory-mapped, and their manifest."""

import hashlib
import json
import os
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from alexnet.data.decode import Pixels, copy_into, decode_jpeg, jpeg_library
from alexnet.data.samples import ALL
from alexnet.data.statistics import Statistics
from alexnet.errors import DataError, ImageError
from alexnet.files import atomic_write, sha256, write_json

DATA_FORMAT = 2
MANIFEST = "dataset.json"
STATISTICS = "statistics.safetensors"
REPORT = "report.json"
SCHEMA = pa.schema(
    [("image", pa.binary()), ("label", pa.int32()), ("path", pa.string()), ("crc32", pa.uint32())]
)


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One prepared image."""

    image: bytes  # a JPEG, or the pixels themselves
    label: int
    path: str  # its name in the source
    crc32: int  # of `image`


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """What the manifest knows of a shard."""

    file: str
    images: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a prepared data set is: the content of its ``dataset.json``."""

    name: str
    classes: tuple[str, ...]  # folder names or wnids
    counts: dict[str, int]  # images by split
    class_counts: dict[str, tuple[int, ...]]  # images by split and class
    size: int  # pixels on a side
    options: dict[str, object]  # of `prepare`
    fingerprint: str  # of the source's names and labels
    skipped: int  # images left out: report.json says which, and why
    repaired: int  # images that needed more than decoding: report.json says which
    shards: dict[str, tuple[ShardInfo, ...]]  # by split
    checksums: dict[str, str] = field(default_factory=dict)  # sha256 of the other files
    stamp: str = ""  # of the source's files, as `Source.stamp`; none in data of 2026-11-26
    format: int = DATA_FORMAT

    def describe(self) -> str:
        """Say what it is in a line: its name, classes, and images by split."""
        counts = ", ".join(f"{count:,} {split}" for split, count in self.counts.items())
        return f"{self.name}: {len(self.classes)} classes, images: {counts}"

    @property
    def raw(self) -> bool:
        """Whether images are kept as pixels instead of JPEGs."""
        return bool(self.options.get("raw"))


def write_shard(path: Path, records: Iterable[ImageRecord], suffix: str = "") -> None:
    """Write records to an Arrow IPC file, whole or not at all; `suffix` as for `atomic_write`."""
    rows = [(r.image, r.label, r.path, r.crc32) for r in records]
    columns = list(zip(*rows, strict=True)) or [() for _ in SCHEMA]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    with atomic_write(path, suffix) as temporary, pa.ipc.new_file(str(temporary), SCHEMA) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=SCHEMA))


@dataclass(frozen=True, slots=True)
class Shard:
    """The columns of a shard, in the mapped file: nothing is copied."""

    images: memoryview  # all of them, one behind the other
    ends: NDArray[np.int32]  # (N + 1,): image i is from ends[i] to ends[i + 1]
    labels: NDArray[np.int32]
    paths: pa.StringArray
    crcs: NDArray[np.uint32]

    def image(self, row: int) -> memoryview:
        """Return the bytes of an image."""
        return self.images[self.ends[row] : self.ends[row + 1]]


def open_shard(root: Path, info: ShardInfo) -> Shard:
    """Map a shard into memory; one that is not as long as it was written is refused."""
    path = root / info.file
    fix = "Prepare the data again, into a new folder."
    try:
        size = path.stat().st_size
        if size != info.bytes:
            raise DataError(
                f"{str(path)!r} has {size:,} bytes and should have {info.bytes:,}.", fix
            )
        batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
        batch.validate(full=True)  # a damaged offset would read outside the file
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{str(path)!r} cannot be read ({error}).", fix) from None
    if batch.schema != SCHEMA or batch.num_rows != info.images:
        raise DataError(f"{str(path)!r} does not hold {info.images:,} images.", fix)
    images, labels, paths, crcs = batch.columns
    _, ends, data = images.buffers()
    return Shard(
        memoryview(data or b"").cast("B"),
        np.frombuffer(ends, np.int32),
        np.asarray(labels),
        paths,
        np.asarray(crcs),
    )


class Split:
    """The images of one split, by number; no shard is opened before one of its images is asked for.

    What it costs does not grow with the images: a shard's entry is some numbers.
    """

    def __init__(
        self, name: str, root: Path, shards: tuple[ShardInfo, ...], size: int, raw: bool
    ) -> None:
        self.name = name
        self.size = size
        self.raw = raw
        self._root = root
        self._shards = shards
        self._ends = list(accumulate(shard.images for shard in shards))
        self._opened: dict[int, Shard] = {}

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> ImageRecord:
        """Return an image's record; nothing of it is checked."""
        if not 0 <= index < len(self):
            raise IndexError(f"The {self.name} split has no image {index}.")
        shard, row = self._find(index)
        path = shard.paths[row].as_py()
        return ImageRecord(
            bytes(shard.image(row)), int(shard.labels[row]), path, int(shard.crcs[row])
        )

    def pixels(self, index: int, out: Pixels | None = None) -> Pixels:
        """Return an image, ``(size, size, 3)`` uint8 RGB, in `out` if that is given.

        One that is not what was written, or cannot be decoded, is an `ImageError`.
        """
        shard, row = self._find(index)
        image = shard.image(row)
        if zlib.crc32(image) != shard.crcs[row]:
            raise ImageError("Its checksum is not that of what was written.")
        if not self.raw:
            return decode_jpeg(image, out)
        return copy_into(out, np.frombuffer(image, np.uint8).reshape(self.size, self.size, 3))

    def label(self, index: int) -> int:
        """Return the class of an image."""
        shard, row = self._find(index)
        return int(shard.labels[row])

    def path(self, index: int) -> str:
        """Return the name of an image in its source."""
        shard, row = self._find(index)
        return str(shard.paths[row].as_py())

    def describe(self, index: int) -> str:
        """Name an image for a message: its own name, its shard and its place in it."""
        number, row = self._locate(index)
        try:
            name = repr(self.path(index))
        except (pa.ArrowInvalid, UnicodeDecodeError):  # the damage may be in the name
            name = "an image"
        return f"{name} (row {row} of {self._shards[number].file})"

    @property
    def identity(self) -> str:
        """What tells these images from all others: a checksum of their shards' checksums."""
        sums = "".join(shard.sha256 for shard in self._shards)
        return hashlib.sha256(sums.encode()).hexdigest()

    def describe_decoding(self) -> str:
        """Say how images become pixels: by which decoder, or not at all."""
        if self.raw:
            return f"raw {self.size}x{self.size} pixels, nothing to decode"
        return f"{self.size}x{self.size} JPEG, decoded by {jpeg_library()} in threads"

    def _locate(self, index: int) -> tuple[int, int]:
        """Return the number of an image's shard and its row there."""
        number = bisect_right(self._ends, index)
        return number, index - (self._ends[number - 1] if number else 0)

    def _find(self, index: int) -> tuple[Shard, int]:
        number, row = self._locate(index)
        return self._open(number), row

    def _open(self, number: int) -> Shard:
        if number not in self._opened:
            self._opened[number] = open_shard(self._root, self._shards[number])
        return self._opened[number]


@dataclass(frozen=True, slots=True)
class PreparedData:
    """An opened prepared data set."""

    root: Path
    manifest: Manifest
    statistics: Statistics
    splits: dict[str, Split]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the labels."""
        return self.manifest.classes

    @property
    def train(self) -> Split:
        """The split to train on; a `DataError` where there is none."""
        if "train" not in self.splits:
            raise DataError(
                f"The data in {str(self.root)!r} has no training images.",
                "Name the data that the run was trained on, or a source with some.",
            )
        return self.splits["train"]

    @property
    def held_out(self) -> Split:
        """The split to test on: ``test``; else ``val``; else all images, of data without splits."""
        return next(self.splits[name] for name in ("test", "val", ALL) if name in self.splits)

    @property
    def validation(self) -> Split:
        """The split to watch during training: ``val``, or ``test`` where there is none."""
        return self.splits["val" if "val" in self.splits else "test"]


def is_prepared(root: Path) -> bool:
    """Whether a folder holds a finished prepared data set."""
    return (root / MANIFEST).is_file()


def write_manifest(root: Path, manifest: Manifest, suffix: str = "") -> None:
    """Write ``dataset.json``, the last file of a preparation."""
    write_json(root / MANIFEST, asdict(manifest), suffix)


def open_prepared(root: str | Path) -> PreparedData:
    """Open a prepared data set; its images are memory-mapped as they are asked for.

    A folder without one, with one of another version, or that lacks a file is a `DataError`.
    """
    root = Path(root)
    manifest = read_manifest(root)
    splits = {
        split: Split(split, root, shards, manifest.size, manifest.raw)
        for split, shards in manifest.shards.items()
    }
    for split, images in manifest.counts.items():
        if len(splits.get(split, ())) != images:
            raise DataError(
                f"{str(root / MANIFEST)!r} is damaged: its {split} shards do not hold the "
                f"{images:,} images that they should have.",
                "Prepare the data again.",
            )
    return PreparedData(root, manifest, Statistics.load(root / STATISTICS), splits)


def read_manifest(root: Path) -> Manifest:
    """Read ``dataset.json``; one that is damaged or of another format is refused."""
    path = root / MANIFEST
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields["format"] != DATA_FORMAT:
            raise DataError(
                f"{str(path)!r} is of format {fields['format']}, this version reads {DATA_FORMAT}.",
                "Install a newer alexnet."
                if fields["format"] > DATA_FORMAT
                else "Prepare the data again, into a new folder.",
            )
        fields["classes"] = tuple(fields["classes"])
        fields["shards"] = {
            split: tuple(ShardInfo(**shard) for shard in listed)
            for split, listed in fields["shards"].items()
        }
        return Manifest(**fields)
    except FileNotFoundError:
        raise DataError(
            f"{str(root)!r} is no prepared data set.",
            f"Make one with: alexnet prepare SOURCE {root}",
        ) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{str(path)!r} is damaged ({error}).", "Delete the folder and prepare it again."
        ) from None


@dataclass(frozen=True, slots=True)
class DamagedFile:
    """What is wrong with a file of a prepared data set."""

    file: str
    reason: str  # a sentence; names the images that are known to be hit


def verify(
    root: str | Path, report: Callable[[int, int], None] = lambda done, total: None
) -> list[DamagedFile]:
    """Check every checksum of a prepared data set and decode every image.

    `report` is called with the images checked so far, and their number. A folder that is no
    prepared data set is a `DataError`.
    """
    root = Path(root)
    manifest = read_manifest(root)
    found = [
        DamagedFile(name, "Its checksum is not that of what was written.")
        for name, checksum in manifest.checksums.items()
        if not (root / name).is_file() or sha256(root / name) != checksum
    ]
    shards = [(split, shard) for split, listed in manifest.shards.items() for shard in listed]
    done, total = 0, sum(shard.images for _, shard in shards)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reasons = pool.map(partial(_check_shard, root, manifest), shards)
        for (_, shard), reason in zip(shards, reasons, strict=True):
            done += shard.images
            found += [DamagedFile(shard.file, reason)] if reason else []
            report(done, total)
    return found


def _check_shard(root: Path, manifest: Manifest, shard: tuple[str, ShardInfo]) -> str:
    """Return what is wrong with a shard, or nothing."""
    name, info = shard
    split = Split(name, root, (info,), manifest.size, manifest.raw)
    wrong = []
    try:
        for row in range(info.images):
            try:
                split.pixels(row)
            except (ImageError, UnicodeDecodeError):
                wrong.append(split.describe(row))
    except DataError as error:
        return error.what
    except Exception as error:  # Arrow raises many types on a damaged file
        return f"It cannot be read ({type(error).__name__})."
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        return f"Damaged: {', '.join(wrong[:3])}{more}."
    if sha256(root / info.file) != info.sha256:
        return "Its checksum is not that of what was written, though every image is whole."
    return ""
