"""Activations of a whole split, streamed to the disk; a killed extraction goes on."""

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.config import differences
from alexnet.data.loader import evaluation_batches
from alexnet.errors import DataError
from alexnet.features.images import NamedImages
from alexnet.features.outputs import activations, chosen
from alexnet.features.stored import (
    DONE,
    GOING,
    Description,
    Form,
    Pooling,
    Stored,
    open_stored,
    read_description,
    read_going,
)
from alexnet.features.writers import ArrayFiles, ParquetFiles
from alexnet.files import atomic_write, free_bytes, translate_os_error
from alexnet.old_names import repr_with_old_names
from alexnet.predictor import Predictor

BATCH = 64  # images; rows of a product may round by the batch they are in, so it never changes
PART = 64 << 20  # bytes of a Parquet file, uncompressed, about
EVERY = 1.0  # seconds between the moments from which a killed extraction goes on

Report = Callable[[int, int], None]


def describe(
    model: Predictor,
    split: NamedImages,
    layers: Iterable[str],
    *,
    classes: Sequence[str] = (),
    form: Form = "arrays",
    pool: Pooling = "none",
) -> Description:
    """Return what `extract` would store: its layers' shapes and ``bytes`` before it begins.

    Raises
    ------
    ConfigError
        When there is no such layer.
    """
    shapes = chosen(model.spec, layers)
    if pool != "none":
        shapes = {name: shape[:1] for name, shape in shapes.items()}
    row = 4 * sum(int(np.prod(shape)) for shape in shapes.values())
    return Description(
        network=model.spec.name,
        step=model.step,
        weights=identity(model),
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
    model: Predictor,
    split: NamedImages,
    layers: Iterable[str],
    out: str | Path,
    *,
    classes: Sequence[str] = (),
    form: Form = "arrays",
    pool: Pooling = "none",
    every: float = EVERY,
    report: Report = lambda done, total: None,
) -> Stored:
    """Store what the named layers put out for every image of a split: the centre view's.

    A killed extraction goes on where it was when the same is asked for again, and ends in the
    same bytes (on one machine with one number of threads); a finished one is opened.

    Parameters
    ----------
    model : Predictor
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
        What is kept of each map: all of it, its mean or its largest value.
    every : float
        Seconds between the moments from which a killed extraction goes on.
    report : callable
        Called with the images done and all images, after every batch.

    Returns
    -------
    Stored
        The features, opened.

    Raises
    ------
    ConfigError
        When there is no such layer.
    DataError
        When the folder has other features, the disk has no room for them, or an image is damaged.
    """
    out = Path(out)
    about = describe(model, split, layers, classes=classes, form=form, pool=pool)
    with translate_os_error(out):
        out.mkdir(parents=True, exist_ok=True)
    with _alone(out):
        if (old := read_description(out / DONE)) is not None:
            _check_same(out, old, about)
            (out / GOING).unlink(missing_ok=True)  # a kill may have come before this
            return open_stored(out)
        done = _done_before(out, about)
        _check_room(out, about, done)
        _note(out, about, done)
        kind = ArrayFiles if form == "arrays" else ParquetFiles
        with contextlib.closing(kind(out, about, split, done)) as writer:
            noted = time.monotonic()
            for values in _values(model, split, about, done):
                writer.add(values)
                done += len(next(iter(values.values())))
                report(done, about.images)
                if time.monotonic() - noted >= every:
                    _note(out, about, writer.sync())
                    noted = time.monotonic()
            writer.finish()
        with atomic_write(out / DONE) as temporary:
            temporary.write_text(json.dumps(asdict(about), indent=1) + "\n", encoding="utf-8")
        (out / GOING).unlink()
    return open_stored(out)


def _values(
    model: Predictor, split: NamedImages, about: Description, done: int
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Yield what is to be stored of one batch after another."""
    for batch in evaluation_batches(split, BATCH, first=done):
        found = activations(model, batch.images, about.layers)
        yield {name: pooled(values, about.pool) for name, values in found.items()}


def pooled(values: Tensor, how: Pooling) -> NDArray[np.float32]:
    """Return ``(N, maps, H, W)`` as it is, or one number a map, ``(N, maps)``."""
    if how == "none" or values.dim() == 2:
        return values.numpy()
    maps = values.flatten(2)
    return (maps.mean(2) if how == "mean" else maps.amax(2)).numpy()


def identity(model: Predictor) -> str:
    """Return a checksum of all that turns an image into activations: weights and preprocessing."""
    digest = hashlib.sha256(repr_with_old_names(model.spec).encode())
    digest.update(repr((model.resize_to, model.normalise.scale, model.normalise.bgr)).encode())
    tensors = {"mean": model.normalise.mean, "stdev": model.normalise.stdev}
    for name, tensor in (tensors | model.network.state_dict()).items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep other extractions out of the folder within the block."""
    handle = os.open(out, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(
                    f"Another process is writing features to {str(out)!r}.",
                    "Wait for it, or choose another folder.",
                ) from None
        yield
    finally:
        os.close(handle)


def _done_before(out: Path, about: Description) -> int:
    """Return how many images an earlier, killed extraction has stored for good."""
    going = read_going(out)
    if going is None:
        if any(not file.name.startswith(".") for file in out.iterdir()):
            raise DataError(
                f"{str(out)!r} holds other files.", "Choose an empty folder, or a new one."
            )
        return 0
    old, done = going
    _check_same(out, old, about)
    return done


def _check_same(out: Path, old: Description, new: Description) -> None:
    """Refuse to mix features of different things in a folder."""
    changed = differences(old, new)
    if changed:
        told = "; ".join(
            f"{name}: {was!r} there, {now!r} now" for name, (was, now) in changed.items()
        )
        raise DataError(
            f"{str(out)!r} holds features of something else ({told}).", "Choose another folder."
        )


def _check_room(out: Path, about: Description, done: int) -> None:
    """Refuse to begin what the disk cannot hold; Parquet is compressed, and may be smaller."""
    needed = about.bytes * (about.images - done) // max(1, about.images)
    free = free_bytes(out)
    if about.form == "arrays" and needed > free:
        raise DataError(
            f"The features take {needed / 1e9:,.1f} GB, and the disk of {str(out)!r} has "
            f"{free / 1e9:,.1f} GB free.",
            "Choose fewer layers, keep one number a map (--pool), or another disk.",
        )


def _note(out: Path, about: Description, done: int) -> None:
    """Write down how many images are stored for good."""
    with atomic_write(out / GOING) as temporary:
        text = json.dumps({"about": asdict(about), "done": done}, indent=1)
        temporary.write_text(text + "\n", encoding="utf-8")
