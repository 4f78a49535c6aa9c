"""The images of a scale: all of a source, or the same number of each class, prepared."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from alexnet.claims.scale import Scale
from alexnet.data.downloads import DownloadReport
from alexnet.data.prepare import Options, Progress, open_or_prepare
from alexnet.data.samples import SampleIndex, Source
from alexnet.data.shards import PreparedData
from alexnet.errors import DataError


def images_of(
    scale: Scale,
    where: str | Path,
    *,
    say: Callable[[str], None] = lambda text: None,
    report: Callable[[Progress], None] = lambda progress: None,
    fetched: DownloadReport = lambda file, done, total: None,
) -> PreparedData:
    """Open the images that a scale's claims are run on; a source is prepared into the cache.

    A prepared data set is taken whole, whatever the scale's number of images.

    Raises
    ------
    DataError
        When it is no data, or was prepared at a size that the scale's networks do not take.
    """
    data = open_or_prepare(
        where,
        Options(size=scale.size, raw=scale.raw),
        choose=lambda source: part_of(source, scale.images),
        say=say,
        report=report,
        fetched=fetched,
    )
    if data.manifest.size != scale.size:
        raise DataError(
            f"{str(data.root)!r} was prepared at {data.manifest.size} pixels; the claims at scale "
            f"{scale.name!r} need {scale.size}.",
            f"Name the source itself, or prepare it with --size {scale.size}.",
        )
    return data


def part_of(source: Source, images: tuple[int, int] | None) -> Source:
    """Return a source with so many training and so many test images, evenly over the classes.

    Of each class the first ones are taken, so that the choice is the same wherever it is made; a
    class with fewer gives what it has. There is no validation split: nothing is chosen by it.
    """
    if images is None:
        return source
    held_out = "test" if "test" in source.splits else "val"
    splits = {
        "train": _even(source.splits["train"], images[0], len(source.classes)),
        "test": _even(source.splits[held_out], images[1], len(source.classes)),
    }
    return replace(source, splits=splits)


def _even(samples: SampleIndex, images: int, classes: int) -> SampleIndex:
    each = max(1, images // classes)
    first = [np.flatnonzero(samples.labels == label)[:each] for label in range(classes)]
    return samples.take(np.sort(np.concatenate(first)))
