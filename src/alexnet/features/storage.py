"""Features on the disk: what they are of, how they are written and how they are opened.

OUT/  features.json  and  images.csv  conv5.npy  relu7.npy ...   or  part-00000.parquet ...
"""

import csv
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib import format as npy
from numpy.typing import NDArray

from alexnet.config import from_json
from alexnet.errors import ConfigError, DataError, did_you_mean
from alexnet.features.images import NamedImages
from alexnet.features.layers import Shape
from alexnet.files import atomic_write, translate_os_error

STORAGE_FORMAT = 1
DONE, UNFINISHED = "features.json", "extracting.json"
NAMES_FILE = "images.csv"
EXTRACT_AGAIN = "Delete its folder and extract again."
FileFormat = Literal["arrays", "parquet"]
PoolMode = Literal["none", "mean", "max"]
Values = Mapping[str, NDArray[np.float32]]  # by layer, (N, *shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """What features are of: the content of ``features.json``, where all of it must agree."""

    network: str
    step: int  # of the checkpoint
    weights: str  # checksum of the weights and the preprocessing
    split: str
    images: int
    data: str  # checksum of the images
    classes: tuple[str, ...]  # of the labels
    layers: dict[str, Shape]  # with the shape for one image, as stored
    pool: PoolMode
    form: FileFormat
    rows: int  # images in a part, of Parquet
    format: int = STORAGE_FORMAT

    @property
    def bytes(self) -> int:
        """Size of all layers, uncompressed: float32."""
        return 4 * self.images * sum(int(np.prod(shape)) for shape in self.layers.values())

    def part_path(self, folder: Path, number: int) -> Path:
        """Return the path of a Parquet file."""
        return folder / f"part-{number:05}.parquet"


class StoredFeatures:
    """Opened features: the names and labels of images, and an array a layer."""

    def __init__(self, folder: Path, about: Description) -> None:
        self.folder = folder
        self.about = about

    def __len__(self) -> int:
        return self.about.images

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers, first to last."""
        return tuple(self.about.layers)

    @cached_property
    def names(self) -> list[str]:
        """The images' names, in order."""
        return [name for name, _ in self._images]

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """The images' classes, ``(N,)``: places in ``about.classes``; -1 where not known."""
        return np.array([label for _, label in self._images], np.int32)

    @cached_property
    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Every layer's values, ``(N, *shape)`` float32; see `array`."""
        return {layer: self.array(layer) for layer in self.layers}

    def array(self, layer: str) -> NDArray[np.float32]:
        """Return a layer's values, ``(N, *shape)`` float32; memory-mapped, or read if Parquet.

        Raises
        ------
        ConfigError
            When the layer was not stored.
        DataError
            When its file is missing or damaged.
        """
        if layer not in self.about.layers:
            raise ConfigError(
                f"{str(self.folder)!r} has no features of {layer!r}.",
                did_you_mean(layer, self.layers),
            )
        shape = (self.about.images, *self.about.layers[layer])
        try:
            if self.about.form == "parquet":
                columns = [table.column(0).combine_chunks() for table in self._read_parts(layer)]
                flat = [np.asarray(column.flatten(), np.float32) for column in columns]
                array: NDArray[np.float32] = np.concatenate(flat).reshape(shape)
            else:
                array = np.load(self.folder / f"{layer}.npy", mmap_mode="r")
        except (OSError, ValueError, EOFError, pa.ArrowException) as error:
            raise self._damaged(error) from None
        if array.shape != shape or array.dtype != np.float32:
            raise DataError(
                f"The features of {layer} in {str(self.folder)!r} are damaged: they are "
                f"{array.shape} and should be {shape}.",
                "Delete the folder and extract them again.",
            )
        return array

    def _read_parts(self, *columns: str) -> list[pa.Table]:
        parts = range(-(-self.about.images // self.about.rows))
        return [
            pq.read_table(self.about.part_path(self.folder, part), columns=[*columns])
            for part in parts
        ]

    @cached_property
    def _images(self) -> list[tuple[str, int]]:
        try:
            if self.about.form == "parquet":
                tables = self._read_parts("name", "label")
                rows: list[dict[str, Any]] = [row for table in tables for row in table.to_pylist()]
            else:
                with (self.folder / NAMES_FILE).open(encoding="utf-8", newline="") as file:
                    rows = list(csv.DictReader(file))
            return [(row["name"], int(row["label"])) for row in rows]
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> DataError:
        return DataError(f"The features in {str(self.folder)!r} are damaged ({error}).")


def open_stored(folder: str | Path) -> StoredFeatures:
    """Open features that `extract` stored.

    Raises
    ------
    DataError
        When there are none, they are not finished, or are damaged.
    """
    folder = Path(folder)
    about = read_description(folder)
    if about is None:
        if (folder / UNFINISHED).is_file():
            raise DataError(
                f"The features in {str(folder)!r} are not finished.",
                "The same alexnet features command goes on with them.",
            )
        raise DataError(
            f"{str(folder)!r} holds no features.",
            f"Make them with: alexnet features RUN --layers fc7 --out {folder}",
        )
    return StoredFeatures(folder, about)


def read_description(folder: Path) -> Description | None:
    """Read what finished features are of; ``None`` where there are none.

    Raises
    ------
    DataError
        When it cannot be read, or is of another version's format.
    """
    found = _read_json(folder / DONE)
    return None if found is None else _check_description(folder / DONE, found)


def describe_folder(folder: Path) -> Description | None:
    """Read what the features in a folder are of, finished or not; ``None`` where there are none.

    Raises
    ------
    DataError
        When they are damaged, or of another version's format.
    """
    unfinished = read_unfinished(folder)
    return read_description(folder) or (unfinished[0] if unfinished else None)


def read_unfinished(folder: Path) -> tuple[Description, int] | None:
    """Read what unfinished features are of, and how many images are stored for good."""
    path = folder / UNFINISHED
    found = _read_json(path)
    if found is None:
        return None
    about, done = _check_description(path, found.get("about")), found.get("done")
    if not isinstance(done, int) or not 0 <= done <= about.images:
        raise DataError(f"{str(path)!r} is damaged.", EXTRACT_AGAIN)
    return about, done


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DataError(f"{str(path)!r} is damaged ({error}).", EXTRACT_AGAIN) from None
    return found if isinstance(found, dict) else {}


def _check_description(path: Path, found: Any) -> Description:
    version = found.get("format") if isinstance(found, dict) else None
    if version != STORAGE_FORMAT:
        raise DataError(
            f"{str(path)!r} is of format {version}, this version reads {STORAGE_FORMAT}.",
            "Extract the features again, into another folder.",
        )
    try:
        return from_json(Description, found)
    except ConfigError as error:
        raise DataError(f"{str(path)!r} is damaged ({error}).", EXTRACT_AGAIN) from None


class ArrayWriter:
    """A ``.npy`` file a layer, appended to, and the names and labels in a CSV file.

    Written, not mapped: on a full disk a write is refused, where a map would end the process.
    """

    def __init__(self, folder: Path, about: Description, split: NamedImages, done: int) -> None:
        self._folder, self._done = folder, done
        if not done:
            _write_names(folder / NAMES_FILE, about, split)
        self._files = {
            layer: _open_array(folder / f"{layer}.npy", (about.images, *shape), done)
            for layer, shape in about.layers.items()
        }

    def add(self, values: Values) -> None:
        """Append the values of the next images."""
        with translate_os_error(self._folder):
            for layer, file in self._files.items():
                rest = np.ascontiguousarray(values[layer], "<f4").data.cast("B")
                while rest:  # a nearly full disk may take a part
                    rest = rest[file.write(rest) :]
        self._done += _count(values)

    def sync(self) -> int:
        """Wait for the disk; return how many images no kill and no power cut can undo."""
        with translate_os_error(self._folder):
            for file in self._files.values():
                os.fsync(file.fileno())
        return self._done

    def finish(self) -> None:
        """Wait for the disk."""
        self.sync()

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()


def _open_array(path: Path, shape: Shape, done: int) -> FileIO:
    """Open an array for its rows from `done` on; what is behind them goes."""
    with translate_os_error(path):
        file = path.open("r+b" if done else "w+b", buffering=0)
        npy.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        end = file.tell() + done * 4 * int(np.prod(shape[1:]))
        file.truncate(end)
        file.seek(end)
    return file


def _write_names(path: Path, about: Description, split: NamedImages) -> None:
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("image", "name", "label", "class"))
        for image in range(len(split)):
            label = split.label(image)
            name = about.classes[label] if 0 <= label < len(about.classes) else ""
            rows.writerow((image, split.path(image), label, name))


class ParquetWriter:
    """Parquet files of ``about.rows`` images each: their names, labels, and a column a layer.

    A column holds lists of one length, a layer's values flattened; the shapes are in the metadata.
    """

    def __init__(self, folder: Path, about: Description, split: NamedImages, done: int) -> None:
        self._folder, self._about, self._split, self._done = folder, about, split, done
        self._waiting: list[Values] = []
        columns = {
            layer: pa.list_(pa.float32(), int(np.prod(shape)))
            for layer, shape in about.layers.items()
        }
        shapes = json.dumps({"classes": about.classes, "shapes": about.layers})
        self._schema = pa.schema(
            {"name": pa.string(), "label": pa.int32(), **columns}, metadata={"alexnet": shapes}
        )

    def add(self, values: Values) -> None:
        """Keep the values of the next images, and write those that fill a file."""
        self._waiting.append(values)
        while sum(map(_count, self._waiting)) >= self._about.rows:
            self._write_part(self._about.rows)

    def sync(self) -> int:
        """Return how many images are in whole files."""
        return self._done

    def finish(self) -> None:
        """Write the last file."""
        if rest := sum(map(_count, self._waiting)):
            self._write_part(rest)

    def close(self) -> None:
        """Nothing is open."""

    def _write_part(self, rows: int) -> None:
        numbers = range(self._done, self._done + rows)
        columns: list[pa.Array] = [
            pa.array([self._split.path(number) for number in numbers], pa.string()),
            pa.array([self._split.label(number) for number in numbers], pa.int32()),
        ]
        rest = {}
        for layer in self._about.layers:
            whole = np.concatenate([values[layer] for values in self._waiting])
            flat = pa.array(np.ascontiguousarray(whole[:rows]).reshape(-1))
            size = self._schema.field(layer).type.list_size
            columns.append(pa.FixedSizeListArray.from_arrays(flat, size))
            rest[layer] = whole[rows:]
        self._waiting = [rest] if _count(rest) else []
        table = pa.table(columns, schema=self._schema)
        path = self._about.part_path(self._folder, self._done // self._about.rows)
        with atomic_write(path) as temporary:
            pq.write_table(table, temporary, compression="zstd", use_dictionary=["name"])
        self._done += rows


def _count(values: Values) -> int:
    """Return of how many images some values are."""
    return len(next(iter(values.values())))
