"""The prepared data set on disk: Arrow files of small JPEGs, memory-mapped, and what is in them."""

import json
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from alexnet.data.statistics import Statistics
from alexnet.errors import DataError
from alexnet.files import sha256, whole_file

FORMAT = 1
MANIFEST = "dataset.json"
STATISTICS = "statistics.safetensors"
SCHEMA = pa.schema([("image", pa.binary()), ("label", pa.int32()), ("path", pa.string())])


@dataclass(frozen=True, slots=True)
class Record:
    """One prepared image."""

    image: bytes  # a JPEG
    label: int
    path: str  # its name in the source


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a prepared data set is: the content of its ``dataset.json``."""

    name: str
    classes: tuple[str, ...]
    counts: dict[str, int]  # images by split
    class_counts: dict[str, tuple[int, ...]]  # images by split and class
    size: int  # pixels on a side
    options: dict[str, object]  # of `prepare`
    fingerprint: str  # of the source's names and labels
    skipped: tuple[tuple[str, str], ...]  # images left out: path, reason
    checksums: dict[str, str]  # sha256 of every file
    format: int = FORMAT


def write_shard(path: Path, records: Iterable[Record]) -> None:
    """Write records to an Arrow IPC file, whole or not at all."""
    columns = list(zip(*((r.image, r.label, r.path) for r in records), strict=True)) or [(), (), ()]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    with whole_file(path) as temporary, pa.ipc.new_file(str(temporary), SCHEMA) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=SCHEMA))


class Split:
    """The images of one split, by number; nothing is read before it is asked for."""

    def __init__(self, name: str, shards: list[pa.RecordBatch]) -> None:
        self.name = name
        self._shards = shards
        self._ends = list(accumulate(shard.num_rows for shard in shards))
        labels = [np.asarray(shard.column("label")) for shard in shards]
        self.labels: NDArray[np.int32] = np.concatenate(labels or [np.zeros(0, np.int32)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Record:
        shard = bisect_right(self._ends, index)
        row = index - (self._ends[shard - 1] if shard else 0)
        batch = self._shards[shard]
        image, label, path = (batch.column(name)[row].as_py() for name in SCHEMA.names)
        return Record(image, label, path)


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
    def held_out(self) -> Split:
        """The split to test on: ``test``, or ``val`` where there is no test split."""
        return self.splits["test" if "test" in self.splits else "val"]

    @property
    def validation(self) -> Split:
        """The split to watch during training: ``val``, or ``test`` where there is none."""
        return self.splits["val" if "val" in self.splits else "test"]


def is_prepared(root: Path) -> bool:
    """Whether a folder holds a finished prepared data set."""
    return (root / MANIFEST).is_file()


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Write ``dataset.json``, the last file of a preparation."""
    with whole_file(root / MANIFEST) as temporary:
        temporary.write_text(json.dumps(asdict(manifest), indent=1) + "\n", encoding="utf-8")


def open_prepared(root: str | Path) -> PreparedData:
    """Open a prepared data set; its images are memory-mapped.

    Raises
    ------
    DataError
        When it is none, was made by a later version, or lacks a file.
    """
    root = Path(root)
    manifest = _read_manifest(root / MANIFEST)
    splits: dict[str, Split] = {}
    for split in manifest.counts:
        names = sorted(name for name in manifest.checksums if name.startswith(f"{split}-"))
        splits[split] = Split(split, [_open_shard(root / name) for name in names])
        if len(splits[split]) != manifest.counts[split]:
            raise DataError(
                f"The {split} split of {str(root)!r} has {len(splits[split]):,} images and "
                f"should have {manifest.counts[split]:,}.",
                "Prepare the data again.",
            )
    return PreparedData(root, manifest, Statistics.load(root / STATISTICS), splits)


def _read_manifest(path: Path) -> Manifest:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields["format"] > FORMAT:
            raise DataError(
                f"{str(path)!r} is of format {fields['format']}, this version reads {FORMAT}.",
                "Install a newer alexnet.",
            )
        fields["classes"] = tuple(fields["classes"])
        return Manifest(**fields)
    except FileNotFoundError:
        raise DataError(
            f"{str(path.parent)!r} is no prepared data set.",
            f"Make one with: alexnet prepare SOURCE {path.parent}",
        ) from None
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{str(path)!r} is damaged ({error}).", "Delete the folder and prepare it again."
        ) from None


def _open_shard(path: Path) -> pa.RecordBatch:
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(
            f"{str(path)!r} cannot be read ({error}).", "Delete it and prepare the data again."
        ) from None


def damaged_files(root: str | Path) -> list[str]:
    """Return the files of a prepared data set whose checksum is not the recorded one."""
    root = Path(root)
    manifest = _read_manifest(root / MANIFEST)
    return [
        name
        for name, checksum in manifest.checksums.items()
        if not (root / name).is_file() or sha256(root / name) != checksum
    ]
