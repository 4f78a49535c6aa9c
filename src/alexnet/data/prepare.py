"""Source -> prepared data set: in parallel, resumable, the same bytes whatever happens.

The source's order is cut into shards. A shard is one task, written whole or not at all, and its
bytes are a function of its images: a killed preparation keeps the shards that it has, and any
number of preparations may work on one folder at once, on one machine or on several that share it.
"""

import json
import os
import platform
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.data import decode
from alexnet.data.options import Options
from alexnet.data.samples import Source
from alexnet.data.shard_work import (
    Task,
    make_shard,
    make_shard_carefully,
    notes_file,
)
from alexnet.data.shards import (
    REPORT,
    STATISTICS,
    Manifest,
    Shard,
    is_prepared,
    open_prepared,
    write_manifest,
)
from alexnet.data.statistics import PixelSums, Statistics
from alexnet.data.workers import run_in_processes, run_on_executor
from alexnet.errors import DataError
from alexnet.files import atomic_write, free_bytes, sha256, translate_os_error

UNFINISHED = "preparing.json"
AT_ONCE = 256  # shards in work on a cluster


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a preparation is."""

    done: int  # images
    total: int
    skipped: int
    repaired: int
    images_per_second: float  # since this command began
    seconds_left: float


def prepare(
    source: Source,
    root: str | Path,
    options: Options = Options(),  # noqa: B008 -- a frozen value
    *,
    workers: int | None = None,
    executor: Executor | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Manifest:
    """Make a prepared data set of a source, or finish one that was begun.

    With more than one worker, processes are started that import the calling script anew: it
    should do its own work below ``if __name__ == "__main__"``.

    Parameters
    ----------
    source : Source
        Labelled images.
    root : str or Path
        The folder to make. One that holds this very data set, finished, is left as it is.
    options : Options
        Size, quality, orientation.
    workers : int
        Processes; by default one a processor. The result does not depend on it.
    executor : concurrent.futures.Executor
        Does the work instead, such as Dask's ``Client.get_executor()``. Its workers must see the
        source's files and `root` under the same paths.
    report : callable
        Called with a `Progress` every few images.

    Returns
    -------
    Manifest
        What was prepared; ``report.json`` beside it lists what was skipped or repaired.

    Raises
    ------
    DataError
        When the folder holds something else, a class is left without a training image, or the
        disk is too small.
    """
    if workers is not None and workers < 1:
        raise DataError(f"{workers} workers cannot prepare anything.", "Give 1 or more.")
    root = Path(root)
    identity: dict[str, Any] = {
        "options": asdict(options),
        "fingerprint": source.fingerprint(),
        "encoder": "none" if options.raw else decode.library(),
    }
    if is_prepared(root):
        return _finished(root, identity)
    alone = _claim(root, identity)
    tasks = _tasks(source, root, options)
    _check_space(root, sum(len(t.samples) for t in tasks if not is_made(t)) * options.typical_bytes)
    if not alone:  # another preparation may be at work: two random orders seldom meet
        random.shuffle(tasks)
    try:
        for progress in _made(tasks, workers, executor):
            report(progress)
        return _finish(root, source, identity)
    except FileNotFoundError:
        if not is_prepared(root):
            raise
        return _finished(root, identity)  # another preparation of this folder was faster


def is_made(task: Task) -> bool:
    """Whether a shard is there, whole."""
    return notes_file(task.shard).is_file()


def _made(tasks: list[Task], workers: int | None, executor: Executor | None) -> Iterator[Progress]:
    """Make the shards that are not there yet; yield the progress after each."""
    total = sum(len(task.samples) for task in tasks)
    done = sum(len(task.samples) for task in tasks if is_made(task))
    before, begun = done, time.monotonic()
    skipped = repaired = 0
    left = (task for task in tasks if not is_made(task))  # asked as each one's turn comes
    count = sum(not is_made(task) for task in tasks)
    use = min(workers or os.cpu_count() or 1, count)
    if executor is not None:
        results = run_on_executor(executor, make_shard, left, AT_ONCE)
    elif use > 1:
        results = run_in_processes(make_shard, left, use, make_shard_carefully)
    else:
        results = ((task, make_shard(task)) for task in left)
    for task, notes in results:
        done += len(task.samples)
        skipped += len(notes["skipped"])
        repaired += len(notes["repaired"])
        speed = (done - before) / (time.monotonic() - begun)
        yield Progress(done, total, skipped, repaired, speed, (total - done) / speed)


def _finished(root: Path, identity: dict[str, Any]) -> Manifest:
    manifest = open_prepared(root).manifest
    if manifest.fingerprint != identity["fingerprint"] or manifest.options != identity["options"]:
        raise DataError(
            f"{str(root)!r} holds another prepared data set ({manifest.name}).",
            "Delete it or choose another folder.",
        )
    _clear(root)
    return manifest


def _clear(root: Path) -> None:
    """Remove what only an unfinished preparation needs."""
    for pattern in ("*.notes.safetensors", ".*.part", UNFINISHED):
        for leftover in root.glob(pattern):
            leftover.unlink(missing_ok=True)


def _claim(root: Path, identity: dict[str, object]) -> bool:
    """Mark the folder as being prepared from this source; return whether it was not before."""
    mark = root / UNFINISHED
    with translate_os_error(root):
        root.mkdir(parents=True, exist_ok=True)
        if mark.is_file():
            if json.loads(mark.read_text(encoding="utf-8")) == identity:
                return False
            raise DataError(
                f"{str(root)!r} holds the unfinished preparation of something else, with other "
                "options, or by another JPEG encoder.",
                "Delete it or choose another folder.",
            )
        if any(path.name[0] != "." for path in root.iterdir()):
            raise DataError(f"{str(root)!r} is not empty.", "Choose a new folder.")
    with atomic_write(mark, _mark()) as temporary:
        temporary.write_text(json.dumps(identity), encoding="utf-8")
    return True


def _check_space(root: Path, needed: float) -> None:
    if needed > free_bytes(root):
        raise DataError(
            f"About {needed / 1e9:,.1f} GB are needed in {str(root)!r}, "
            f"{free_bytes(root) / 1e9:,.1f} GB are free.",
            "Make room, or choose a folder on another disk.",
        )


def _tasks(source: Source, root: Path, options: Options) -> list[Task]:
    return [
        Task(
            root / f"{split}-{start // options.shard_images:05}.arrow",
            samples.take(np.arange(len(samples))[start : start + options.shard_images]),
            options,
            _mark(),
        )
        for split, samples in sorted(source.splits.items())
        for start in range(0, len(samples), options.shard_images)
    ]


def _mark() -> str:
    return f".{platform.node()}-{os.getpid()}"


def _finish(root: Path, source: Source, identity: dict[str, Any]) -> Manifest:
    """Add up what the shards' notes say, write report, statistics and manifest, clear the notes."""
    options = Options(**identity["options"])
    tasks = _tasks(source, root, options)
    shards: dict[str, list[Shard]] = {split: [] for split in source.splits}
    counts = {split: [0] * len(source.classes) for split in source.splits}
    found: dict[str, list[dict[str, str]]] = {"skipped": [], "repaired": []}
    sums = PixelSums.empty(options.size)
    for task in tasks:
        split = task.shard.name.split("-")[0]
        of_shard, text = PixelSums.load(notes_file(task.shard))
        notes = json.loads(text)
        shards[split].append(
            Shard(task.shard.name, notes["images"], notes["bytes"], notes["sha256"])
        )
        for label, images in notes["labels"].items():
            counts[split][int(label)] += images
        for kind, listed in found.items():
            listed += [{"split": split, "image": i, "reason": why} for i, why in notes[kind]]
        if split == "train":
            sums += of_shard
    for label, images in enumerate(counts["train"]):
        if not images:
            raise DataError(
                f"Class {source.classes[label]!r} has no training image that can be decoded.",
                "Add some, or remove the class.",
            )
    Statistics.from_sums(sums).save(root / STATISTICS, _mark())
    with atomic_write(root / REPORT, _mark()) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    manifest = Manifest(
        name=source.name,
        classes=source.classes,
        counts={split: sum(images) for split, images in counts.items()},
        class_counts={split: tuple(images) for split, images in counts.items()},
        size=options.size,
        options=identity["options"],
        fingerprint=identity["fingerprint"],
        skipped=len(found["skipped"]),
        repaired=len(found["repaired"]),
        shards={split: tuple(listed) for split, listed in shards.items()},
        checksums={name: sha256(root / name) for name in (STATISTICS, REPORT)},
    )
    write_manifest(root, manifest, _mark())
    _clear(root)
    return manifest
