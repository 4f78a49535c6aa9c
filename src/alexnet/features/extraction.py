"""Activations of a whole split, streamed to the disk; a killed extraction goes on."""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
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
from alexnet.features.layers import activations, select_layers
from alexnet.features.storage import (
    DONE,
    UNFINISHED,
    ArrayWriter,
    Description,
    FileFormat,
    ParquetWriter,
    PoolMode,
    StoredFeatures,
    open_stored,
    read_description,
    read_unfinished,
)
from alexnet.files import atomic_write, free_bytes, lock, translate_os_error
from alexnet.old_names import repr_with_old_names
from alexnet.predictor import Predictor

BATCH = 64  # images; rows of a product may round by the batch they are in, so it never changes
PART = 64 << 20  # bytes of a Parquet file, uncompressed, about
SAVE_EVERY = 1.0  # seconds between the moments from which a killed extraction goes on

Report = Callable[[int, int], None]


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

    Raises
    ------
    ConfigError
        When there is no such layer.
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

    A killed extraction goes on where it was when the same is asked for again, and ends in the
    same bytes (on one machine with one number of threads); a finished one is opened.

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

    Raises
    ------
    ConfigError
        When there is no such layer.
    DataError
        When the folder has other features, the disk has no room for them, or an image is damaged.
    """
    out = Path(out)
    about = describe(predictor, split, layers, classes=classes, form=form, pool=pool)
    with translate_os_error(out):
        out.mkdir(parents=True, exist_ok=True)
    refusal = DataError(
        f"Another process is writing features to {str(out)!r}.",
        "Wait for it, or choose another folder.",
    )
    with lock(out, refusal):
        if (old := read_description(out)) is not None:
            _check_same(out, old, about)
            (out / UNFINISHED).unlink(missing_ok=True)  # a kill may have come before this
            return open_stored(out)
        done = _count_done(out, about)
        _check_free_space(out, about, done)
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
        with atomic_write(out / DONE) as temporary:
            temporary.write_text(json.dumps(asdict(about), indent=1) + "\n", encoding="utf-8")
        (out / UNFINISHED).unlink()
    return open_stored(out)


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


def _count_done(out: Path, about: Description) -> int:
    """Return how many images an earlier, killed extraction has stored for good."""
    unfinished = read_unfinished(out)
    if unfinished is None:
        if any(not file.name.startswith(".") for file in out.iterdir()):
            raise DataError(
                f"{str(out)!r} holds other files.", "Choose an empty folder, or a new one."
            )
        return 0
    old, done = unfinished
    _check_same(out, old, about)
    return done


def _check_same(out: Path, old: Description, new: Description) -> None:
    """Refuse to mix features of different things in a folder."""
    changed = differences(old, new)
    if changed:
        listed = (f"{name}: {was!r} there, {now!r} now" for name, (was, now) in changed.items())
        raise DataError(
            f"{str(out)!r} holds features of something else ({'; '.join(listed)}).",
            "Choose another folder.",
        )


def _check_free_space(out: Path, about: Description, done: int) -> None:
    """Refuse to begin what the disk cannot hold; Parquet is compressed, and may be smaller."""
    needed = about.bytes * (about.images - done) // max(1, about.images)
    free = free_bytes(out)
    if about.form == "arrays" and needed > free:
        raise DataError(
            f"The features take {needed / 1e9:,.1f} GB, and the disk of {str(out)!r} has "
            f"{free / 1e9:,.1f} GB free.",
            "Choose fewer layers, keep one number a map (--pool), or another disk.",
        )


def _save_progress(out: Path, about: Description, done: int) -> None:
    """Write down how many images are stored for good."""
    with atomic_write(out / UNFINISHED) as temporary:
        text = json.dumps({"about": asdict(about), "done": done}, indent=1)
        temporary.write_text(text + "\n", encoding="utf-8")
