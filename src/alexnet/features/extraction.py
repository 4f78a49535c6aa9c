"""Activations of a whole split, streamed to the disk and opened again; a killed extraction goes on.

OUT/  features.json  and  images.csv  conv5.npy  relu7.npy ...   or  part-00000.parquet ...
"""

import contextlib
import csv
import hashlib
import json
import os
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from io import FileIO
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from alexnet.config import differences, from_json
from alexnet.data.decode import Pixels, copy_into
from alexnet.data.loader import ImageSplit, evaluation_batches
from alexnet.data.samples import escape
from alexnet.errors import ConfigError, DataError, ImageError, did_you_mean
from alexnet.features.layers import Shape, activations, select_layers
from alexnet.files import atomic_write, lock, require_space, sha256, translate_os_error, write_json
from alexnet.old_names import repr_with_old_names
from alexnet.predictor import Predictor

STORED_FORMAT = 1
DONE, UNFINISHED = "features.json", "extracting.json"
NAMES_FILE = "images.csv"
FileFormat = Literal["arrays", "parquet"]
PoolMode = Literal["none", "mean", "max"]
Values = Mapping[str, NDArray[np.float32]]  # by layer, (N, *shape)
BATCH = 64  # images; rows of a product may round by the batch they are in, so it never changes
PART = 64 << 20  # bytes of a Parquet file, uncompressed, about
SAVE_EVERY = 1.0  # seconds between the moments from which a killed extraction goes on
Report = Callable[[int, int], None]


class NamedImages(ImageSplit, Protocol):
    """Images that have names, and a checksum of all of them; a `Split` is one."""

    def path(self, index: int) -> str:
        """Return the name of an image in its source."""

    @property
    def identity(self) -> str:
        """A checksum of all images."""


class Photographs:
    """Files of photographs as a split without labels (-1), prepared as the network's data was."""

    name = "photographs"

    def __init__(self, predictor: Predictor, files: Sequence[Path]) -> None:
        self._predictor, self._files = predictor, files
        self.size = predictor.resize_to

    def __len__(self) -> int:
        return len(self._files)

    def pixels(self, index: int, out: Pixels | None = None) -> Pixels:
        """Return an image, ``(size, size, 3)`` uint8 RGB; `DataError` where there is none."""
        try:
            pixels = self._predictor.load_pixels(self._files[index])
        except ImageError as error:
            raise DataError(error.what, error.fix or "Leave it out.") from None
        return copy_into(out, pixels)

    def label(self, index: int) -> int:
        """Return -1: what is on a photograph is not known."""
        return -1

    def path(self, index: int) -> str:
        """Return the file as it was named."""
        return escape(str(self._files[index]))

    def describe(self, index: int) -> str:
        """Name an image for a message."""
        return repr(self.path(index))

    @property
    def identity(self) -> str:
        """A checksum of the files' contents, in order."""
        return _checksum(map(sha256, self._files))


class JoinedSplits:
    """Splits one behind the other; an image's name has its split before it."""

    def __init__(self, splits: Sequence[NamedImages]) -> None:
        self.name = "+".join(split.name for split in splits)
        self.size = splits[0].size
        self.identity = _checksum(split.identity for split in splits)  # of all images, in order
        self._splits = splits
        self._ends = list(accumulate(map(len, splits)))

    def __len__(self) -> int:
        return self._ends[-1]

    def _at(self, index: int) -> tuple[NamedImages, int]:
        """Return the split that an image is of, and its number there."""
        number = bisect_right(self._ends, index)
        return self._splits[number], index - (self._ends[number - 1] if number else 0)

    def pixels(self, index: int, out: Pixels | None = None) -> Pixels:
        """Return an image, ``(size, size, 3)`` uint8 RGB, in `out` if that is given."""
        split, at = self._at(index)
        return split.pixels(at, out)

    def label(self, index: int) -> int:
        """Return the class of an image."""
        split, at = self._at(index)
        return split.label(at)

    def path(self, index: int) -> str:
        """Return the split and the name of an image: ``train/cat/1.jpg``."""
        split, at = self._at(index)
        path = split.path(at)
        return path if path.startswith(f"{split.name}/") else f"{split.name}/{path}"

    def describe(self, index: int) -> str:
        """Name an image for a message."""
        split, at = self._at(index)
        return split.describe(at)


class SampledSplit(JoinedSplits):
    """Some images of a split, evenly spread over it; all where there are no more."""

    def __init__(self, split: NamedImages, count: int) -> None:
        self.name, self.size, self._splits = split.name, split.size, [split]
        places = np.linspace(0, len(split) - 1, min(count, len(split)))
        self._indices = [int(place) for place in places.round()]
        self.identity = _checksum([split.identity, str(self._indices)])

    def __len__(self) -> int:
        return len(self._indices)

    def _at(self, index: int) -> tuple[NamedImages, int]:
        return self._splits[0], self._indices[index]

    def path(self, index: int) -> str:
        """Return the name of an image."""
        split, at = self._at(index)
        return split.path(at)


def _checksum(sums: Iterable[str]) -> str:
    return hashlib.sha256("".join(sums).encode()).hexdigest()


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
    format: int = STORED_FORMAT

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

        Raises `ConfigError` when the layer was not stored; `DataError` when its file is missing or
        damaged.
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
                "Delete its folder and extract again.",
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

    Raises `DataError` when there are none, they are not finished, or are damaged.
    """
    folder = Path(folder)
    about, done = read_stored(folder) or (None, 0)
    if about is None:
        raise DataError(
            f"{str(folder)!r} holds no features.",
            f"Make them with: alexnet features RUN --layers fc7 --out {folder}",
        )
    if done is not None:
        raise DataError(
            f"The features in {str(folder)!r} are not finished.",
            "The same alexnet features command goes on with them.",
        )
    return StoredFeatures(folder, about)


def read_stored(folder: Path) -> tuple[Description, int | None] | None:
    """Read what the features in a folder are of; ``None`` where there are none.

    The second value is how many images an unfinished extraction has stored for good, ``None`` of a
    finished one. Raises `DataError` when they are damaged, or of another version's format.
    """
    is_finished = (folder / DONE).is_file()
    path = folder / (DONE if is_finished else UNFINISHED)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        fields, done = (content, None) if is_finished else (content["about"], content["done"])
        if fields["format"] != STORED_FORMAT:
            raise DataError(
                f"{str(path)!r} is of format {fields['format']}, this version reads "
                f"{STORED_FORMAT}.",
                "Extract the features again, into another folder.",
            )
        about = from_json(Description, fields)
        if done is not None and not 0 <= done <= about.images:
            raise ValueError(f"{done} of {about.images} images are said to be done")
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{str(path)!r} is damaged ({error}).", "Delete its folder and extract again."
        ) from None
    return about, done


def describe(
    predictor: Predictor,
    split: NamedImages,
    layers: Iterable[str],
    *,
    classes: Sequence[str] = (),
    form: FileFormat = "arrays",
    pool: PoolMode = "none",
) -> Description:
    """Return what `extract` would store: its layers' shapes and ``bytes`` before it begins.

    Raises `ConfigError` when there is no such layer.
    """
    shapes = select_layers(predictor.spec, layers)
    if pool != "none":
        shapes = {name: shape[:1] for name, shape in shapes.items()}
    row = 4 * sum(int(np.prod(shape)) for shape in shapes.values())
    return Description(
        network=predictor.spec.name,
        step=predictor.step,
        weights=checksum(predictor),
        split=split.name,
        images=len(split),
        data=split.identity,
        classes=tuple(classes),
        layers=shapes,
        pool=pool,
        form=form,
        rows=BATCH * max(1, PART // (row * BATCH)),
    )


def extract(
    predictor: Predictor,
    split: NamedImages,
    layers: Iterable[str],
    out: str | Path,
    *,
    classes: Sequence[str] = (),
    form: FileFormat = "arrays",
    pool: PoolMode = "none",
    every: float = SAVE_EVERY,
    report: Report = lambda done, total: None,
) -> StoredFeatures:
    """Store what the named layers put out for every image of a split: the centre crop's.

    A killed extraction goes on where it was when the same is asked for again, and ends in the same
    bytes (on one machine with one number of threads); a finished one is opened. Raises
    `ConfigError` when there is no such layer; `DataError` when the folder has other features, the
    disk has no room for them, or an image is damaged.

    Parameters
    ----------
    predictor : Predictor
        A trained run.
    split : NamedImages
        Such as ``data.splits["train"]``, or `Photographs`.
    layers : iterable of str
        Names of `layer_names`.
    out : str or Path
        A folder for them alone.
    classes : sequence of str
        What the labels mean.
    form : {"arrays", "parquet"}
        A ``.npy`` file a layer, to be memory-mapped, or Parquet.
    pool : {"none", "mean", "max"}
        What is kept of each channel: all of it, its mean or its largest value.
    every : float
        Seconds between the moments from which a killed extraction goes on.
    report : callable
        Called with the images done and all images, after every batch.
    """
    out = Path(out)
    about = describe(predictor, split, layers, classes=classes, form=form, pool=pool)
    with translate_os_error(out):
        out.mkdir(parents=True, exist_ok=True)
    refusal = DataError(
        f"Another process is writing features to {str(out)!r}.",
        "Wait for it, or choose another folder.",
    )
    with lock(out / ".lock", refusal):
        done = _count_done(out, about)
        if done is None:
            (out / UNFINISHED).unlink(missing_ok=True)  # a kill may have come before this
            return StoredFeatures(out, about)
        if form == "arrays":  # Parquet is compressed, and may be smaller
            needed = about.bytes * (about.images - done) // max(1, about.images)
            fix = "Choose fewer layers, keep one number a map (--pool), or another disk."
            require_space(out, needed, fix)
        _save_progress(out, about, done)
        make_writer = ArrayWriter if form == "arrays" else ParquetWriter
        with contextlib.closing(make_writer(out, about, split, done)) as writer:
            saved = time.monotonic()
            for batch in evaluation_batches(split, BATCH, first=done):
                found = activations(predictor, batch.images, about.layers)
                writer.add({name: pool_channels(values, pool) for name, values in found.items()})
                done += len(batch.images)
                report(done, about.images)
                if time.monotonic() - saved >= every:
                    _save_progress(out, about, writer.sync())
                    saved = time.monotonic()
            writer.finish()
        write_json(out / DONE, asdict(about))
        (out / UNFINISHED).unlink()
    return StoredFeatures(out, about)


def pool_channels(values: Tensor, pool: PoolMode) -> NDArray[np.float32]:
    """Return ``(N, C, H, W)`` as it is, or one number a channel, ``(N, C)``."""
    if pool == "none" or values.dim() == 2:
        return values.numpy()
    places = values.flatten(2)
    return (places.mean(2) if pool == "mean" else places.amax(2)).numpy()


def checksum(predictor: Predictor) -> str:
    """Return a checksum of all that turns an image into activations: weights and preprocessing."""
    normalise = predictor.normalise
    digest = hashlib.sha256(repr_with_old_names(predictor.spec).encode())
    digest.update(repr((predictor.resize_to, normalise.scale, normalise.bgr)).encode())
    tensors = {"mean": normalise.mean, "stdev": normalise.stdev}
    for name, tensor in (tensors | predictor.network.state_dict()).items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _count_done(out: Path, about: Description) -> int | None:
    """Return how many images are stored for good, ``None`` where all are; refuse other features."""
    if (found := read_stored(out)) is None:
        if any(not file.name.startswith(".") for file in out.iterdir()):
            raise DataError(
                f"{str(out)!r} holds other files.", "Choose an empty folder, or a new one."
            )
        return 0
    old, done = found
    if changed := differences(old, about):
        listed = (f"{name}: {was!r} there, {now!r} now" for name, (was, now) in changed.items())
        raise DataError(
            f"{str(out)!r} holds features of something else ({'; '.join(listed)}).",
            "Choose another folder.",
        )
    return done


def _save_progress(out: Path, about: Description, done: int) -> None:
    """Write down how many images are stored for good."""
    write_json(out / UNFINISHED, {"about": asdict(about), "done": done})


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

    finish = sync

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
