"""Features on the disk: what they are of, and how they are opened.

OUT/  features.json  and  images.csv  conv5.npy  relu7.npy ...   or  part-00000.parquet ...
"""

import csv
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from alexnet.config import from_json
from alexnet.errors import ConfigError, DataError, did_you_mean
from alexnet.features.outputs import Shape

FORMAT = 1
DONE, GOING = "features.json", "extracting.json"
NAMES = "images.csv"
Form = Literal["arrays", "parquet"]
Pooling = Literal["none", "mean", "max"]


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
    pool: Pooling
    form: Form
    rows: int  # images in a part, of Parquet
    format: int = FORMAT

    @property
    def bytes(self) -> int:
        """Size of all layers, uncompressed: float32."""
        return 4 * self.images * sum(int(np.prod(shape)) for shape in self.layers.values())


class Stored:
    """Opened features: the names and labels of images, and an array a layer.

    Parameters
    ----------
    folder : Path
        Where they lie.
    about : Description
        What they are of.
    """

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
                parts = [_flat(pq.read_table(part, columns=[layer])) for part in self._parts]
                array: NDArray[np.float32] = np.concatenate(parts).reshape(shape)
            else:
                array = np.load(self.folder / f"{layer}.npy", mmap_mode="r")
        except (OSError, ValueError, EOFError, pa.ArrowException) as error:
            raise DataError(
                f"The features in {str(self.folder)!r} are damaged ({error})."
            ) from None
        if array.shape != shape or array.dtype != np.float32:
            raise DataError(
                f"The features of {layer} in {str(self.folder)!r} are damaged: they are "
                f"{array.shape} and should be {shape}.",
                "Delete the folder and extract them again.",
            )
        return array

    @property
    def _parts(self) -> list[Path]:
        return [
            self.folder / part_name(number)
            for number in range(-(-self.about.images // self.about.rows))
        ]

    @cached_property
    def _images(self) -> list[tuple[str, int]]:
        try:
            if self.about.form == "parquet":
                tables = [pq.read_table(part, columns=["name", "label"]) for part in self._parts]
                return [
                    (row["name"], row["label"]) for table in tables for row in table.to_pylist()
                ]
            with (self.folder / NAMES).open(encoding="utf-8", newline="") as file:
                return [(row["name"], int(row["label"])) for row in csv.DictReader(file)]
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise DataError(
                f"The features in {str(self.folder)!r} are damaged ({error})."
            ) from None


def part_name(number: int) -> str:
    """Return the name of a Parquet file."""
    return f"part-{number:05}.parquet"


def _flat(table: pa.Table) -> NDArray[np.float32]:
    column = table.column(0).combine_chunks()
    return np.asarray(column.flatten(), np.float32)


def open_stored(folder: str | Path) -> Stored:
    """Open features that `extract` stored.

    Raises
    ------
    DataError
        When there are none, they are not finished, or are damaged.
    """
    folder = Path(folder)
    about = read_description(folder / DONE)
    if about is None:
        if (folder / GOING).is_file():
            raise DataError(
                f"The features in {str(folder)!r} are not finished.",
                "The same alexnet features command goes on with them.",
            )
        raise DataError(
            f"{str(folder)!r} holds no features.",
            f"Make them with: alexnet features RUN --layers fc7 --out {folder}",
        )
    return Stored(folder, about)


def description_of(folder: Path) -> Description | None:
    """Read what the features in a folder are of, finished or not; ``None`` where there are none.

    Raises
    ------
    DataError
        When they are damaged, or of another version's format.
    """
    going = read_going(folder)
    return read_description(folder / DONE) or (going[0] if going else None)


def read_description(path: Path) -> Description | None:
    """Read what finished features are of; ``None`` where there is no such file.

    Raises
    ------
    DataError
        When it cannot be read, or is of another version's format.
    """
    found = _read(path)
    return None if found is None else _description(path, found)


def read_going(folder: Path) -> tuple[Description, int] | None:
    """Read what unfinished features are of, and how many images are stored for good."""
    path = folder / GOING
    found = _read(path)
    if found is None:
        return None
    about, done = _description(path, found.get("about")), found.get("done")
    if not isinstance(done, int) or not 0 <= done <= about.images:
        raise DataError(f"{str(path)!r} is damaged.", "Delete its folder and extract again.")
    return about, done


def _read(path: Path) -> dict[str, object] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DataError(
            f"{str(path)!r} is damaged ({error}).", "Delete its folder and extract again."
        ) from None
    return found if isinstance(found, dict) else {}


def _description(path: Path, found: object) -> Description:
    version = found.get("format") if isinstance(found, dict) else None
    if version != FORMAT:
        raise DataError(
            f"{str(path)!r} is of format {version}, this version reads {FORMAT}.",
            "Extract the features again, into another folder.",
        )
    try:
        return from_json(Description, found)
    except ConfigError as error:
        raise DataError(
            f"{str(path)!r} is damaged ({error}).", "Delete its folder and extract again."
        ) from None
