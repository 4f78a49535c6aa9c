"""Features on their way to the disk: arrays that grow, or Parquet files of some images each."""

import csv
import json
import os
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib import format as npy
from numpy.typing import NDArray

from alexnet.features.images import NamedImages
from alexnet.features.stored import NAMES, Description, part_name
from alexnet.files import atomic_write, translate_os_error

Values = Mapping[str, NDArray[np.float32]]


class Writer(Protocol):
    """Takes the values of one batch of images after another."""

    def add(self, values: Values) -> None:
        """Write the values of the next images, ``(N, *shape)`` by layer."""

    def sync(self) -> int:
        """Return how many images, from the first on, neither a kill nor a power cut can undo."""

    def finish(self) -> None:
        """Bring the rest to the disk; all images were added."""

    def close(self) -> None:
        """Let go of the files."""


class ArrayFiles:
    """A ``.npy`` file a layer, appended to, and the names and labels in a CSV file.

    Written, not mapped: on a full disk a write is refused, where a map would end the process.
    """

    def __init__(self, folder: Path, about: Description, split: NamedImages, done: int) -> None:
        self._folder, self._done = folder, done
        if not done:
            _write_names(folder / NAMES, about, split)
        self._files = {
            layer: _opened(folder / f"{layer}.npy", (about.images, *shape), done)
            for layer, shape in about.layers.items()
        }

    def add(self, values: Values) -> None:
        """Append the values of the next images."""
        with translate_os_error(self._folder):
            for layer, file in self._files.items():
                rest = np.ascontiguousarray(values[layer], "<f4").data.cast("B")
                while rest:  # a nearly full disk may take a part
                    rest = rest[file.write(rest) :]
        self._done += len(next(iter(values.values())))

    def sync(self) -> int:
        """Wait for the disk."""
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


def _opened(path: Path, shape: tuple[int, ...], done: int) -> FileIO:
    """Open an array of a shape for its rows from `done` on; what is behind them goes."""
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


class ParquetFiles:
    """Parquet files of ``about.rows`` images each: their names, labels, and a column a layer.

    A column holds lists of one length, its maps flattened; the shapes are in the metadata.
    """

    def __init__(self, folder: Path, about: Description, split: NamedImages, done: int) -> None:
        self._folder, self._about, self._split, self._done = folder, about, split, done
        self._waiting: list[Values] = []
        kinds = {
            layer: pa.list_(pa.float32(), int(np.prod(shape)))
            for layer, shape in about.layers.items()
        }
        shapes = json.dumps({"classes": about.classes, "shapes": about.layers})
        self._schema = pa.schema(
            {"name": pa.string(), "label": pa.int32(), **kinds}, metadata={"alexnet": shapes}
        )

    def add(self, values: Values) -> None:
        """Keep the values of the next images, and write those that fill a file."""
        self._waiting.append(values)
        while self._images_waiting >= self._about.rows:
            self._write(self._about.rows)

    def sync(self) -> int:
        """Count the images in whole files."""
        return self._done

    def finish(self) -> None:
        """Write the last file."""
        if self._images_waiting:
            self._write(self._images_waiting)

    def close(self) -> None:
        """Nothing is open."""

    @property
    def _images_waiting(self) -> int:
        return sum(len(next(iter(values.values()))) for values in self._waiting)

    def _write(self, rows: int) -> None:
        numbers = range(self._done, self._done + rows)
        columns: list[pa.Array] = [
            pa.array([self._split.path(number) for number in numbers], pa.string()),
            pa.array([self._split.label(number) for number in numbers], pa.int32()),
        ]
        rest = {}
        for layer in self._about.layers:
            whole = np.concatenate([values[layer] for values in self._waiting])
            flat = pa.array(np.ascontiguousarray(whole[:rows]).reshape(-1))
            columns.append(
                pa.FixedSizeListArray.from_arrays(flat, self._schema.field(layer).type.list_size)
            )
            rest[layer] = whole[rows:]
        self._waiting = [rest] if len(next(iter(rest.values()))) else []
        table = pa.table(columns, schema=self._schema)
        path = self._folder / part_name(self._done // self._about.rows)
        with atomic_write(path) as temporary:
            pq.write_table(table, temporary, compression="zstd", use_dictionary=["name"])
        self._done += rows
