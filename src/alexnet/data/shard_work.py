"""The work of one task of a preparation: some images of a source -> one shard and its notes.

It runs in a process of its own, or on another machine, and speaks through the files that it
writes: the shard and, last, its notes with the sums of its pixels, which say that both are there.
"""

import json
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from alexnet.data.decode import Pixels, encode_jpeg, inspect_image, resize_and_crop
from alexnet.data.options import Options
from alexnet.data.samples import Sample, SampleIndex
from alexnet.data.shards import Record, write_shard
from alexnet.data.statistics import PixelSums
from alexnet.data.workers import ATTEMPTS, process_pool
from alexnet.errors import ImageError
from alexnet.files import sha256

CHUNK = 64  # images whose pixels are held before they are summed


@dataclass(frozen=True, slots=True)
class Task:
    """Which images become which shard."""

    shard: Path
    samples: SampleIndex
    options: Options
    mark: str  # of temporary files, so that two preparations of one folder do not meet


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image as it will be kept."""

    encoded: bytes
    pixels: Pixels  # (size, size, 3), before encoding
    repairs: tuple[str, ...]


def prepare_image(sample: Sample, options: Options) -> Prepared | str:
    """Prepare one image, or return why it cannot be."""
    try:
        found = inspect_image(sample.read(), exif=options.exif)
    except ImageError as error:
        return str(error)
    except OSError as error:
        return f"It cannot be read ({error.strerror})."
    repairs = found.repairs
    suffix = PurePosixPath(sample.path).suffix.lower()
    if Image.registered_extensions().get(suffix, found.format) != found.format:
        repairs = (f"{found.format} under the name of a {suffix}", *repairs)
    pixels = np.asarray(resize_and_crop(found.image, options.size))
    encoded = pixels.tobytes() if options.raw else encode_jpeg(pixels, options.quality)
    return Prepared(encoded, pixels, repairs)


def make_shard(
    task: Task, prepared: Callable[[Sample, Options], Prepared | str] = prepare_image
) -> dict[str, Any]:
    """Write a shard and its notes; return the notes."""
    size = task.options.size
    records, sums = [], PixelSums.empty(size)
    skipped: list[tuple[str, str]] = []
    repaired: list[tuple[str, str]] = []
    samples = iter(task.samples)
    while chunk := list(islice(samples, CHUNK)):
        pixels = []
        for sample in chunk:
            name = sample.path.encode("utf-8", "backslashreplace").decode()
            result = prepared(sample, task.options)
            if isinstance(result, str):
                skipped.append((name, result))
                continue
            if result.repairs:
                repaired.append((name, "; ".join(result.repairs)))
            pixels.append(result.pixels)
            image = result.encoded
            records.append(Record(image, sample.label, name, zlib.crc32(image)))
        sums += PixelSums.of(pixels, size)
    write_shard(task.shard, records, task.mark)
    notes = {
        "images": len(records),
        "labels": Counter(record.label for record in records),
        "skipped": skipped,
        "repaired": repaired,
        "bytes": task.shard.stat().st_size,
        "sha256": sha256(task.shard),
    }
    sums.save(notes_file(task.shard), json.dumps(notes), task.mark)
    return notes


def make_shard_carefully(task: Task) -> dict[str, Any]:
    """Write a shard whose images have killed their worker: each is decoded in a process apart.

    One that kills that process `ATTEMPTS` times in a row is left out.
    """
    pools = [process_pool(1)]

    def alone(sample: Sample, options: Options) -> Prepared | str:
        for _ in range(ATTEMPTS):
            try:
                return pools[-1].submit(prepare_image, sample, options).result()
            except BrokenProcessPool:
                pools.append(process_pool(1))
        return "It ends the process that decodes it."

    try:
        return make_shard(task, alone)
    finally:
        for pool in pools:
            pool.shutdown()


def notes_file(shard: Path) -> Path:
    """Return where a shard's notes are: what it holds, what it had to leave out, and its sums."""
    return shard.with_suffix(".notes.safetensors")
