"""Source -> prepared data set: in parallel, resumable, the same bytes whatever happens.

The source's order is cut into shards. A shard is one task, written whole or not at all, and its
bytes are a function of its images: a killed preparation keeps the shards that it has, and any
number of preparations may work on one folder at once, on one machine or on several that share it.
A task runs in a process of its own, or on another machine, and answers by the files that it
writes: the shard and, last, its metadata with the sums of its pixels.
"""

import hashlib
import json
import os
import random
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from alexnet.data.decode import Pixels, encode_jpeg, inspect_image, jpeg_library, resize_and_crop
from alexnet.data.downloads import DownloadReport
from alexnet.data.duplicates import (
    DuplicatePolicy,
    choose_dropped,
    describe_duplicates,
    find_duplicates,
)
from alexnet.data.samples import Sample, SampleIndex, Source, describe_counts, escape
from alexnet.data.shards import (
    DATA_FORMAT,
    REPORT,
    STATISTICS,
    ImageRecord,
    Manifest,
    PreparedData,
    ShardInfo,
    is_prepared,
    open_prepared,
    write_manifest,
    write_shard,
)
from alexnet.data.sources import open_source
from alexnet.data.statistics import PixelSums, Statistics
from alexnet.data.workers import ATTEMPTS, process_pool, run_in_processes, run_on_executor
from alexnet.errors import DataError, ImageError
from alexnet.files import (
    cache_folder,
    require_space,
    sha256,
    temporary_suffix,
    translate_os_error,
    write_json,
)

UNFINISHED = "preparing.json"
DROPPED = "dropping.json"  # while it is being made: which rows of which shards are duplicates
MAX_KINDS = 5  # of trouble with images that are said on the screen
MAX_NAMED = 1000  # files of a kind that the report names of those passed over
CLUSTER_TASKS = 256  # shards in work on a cluster
SUMMED_AT_ONCE = 64  # images whose pixels are held before they are summed


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How images are prepared."""

    size: int = 256  # pixels on a side, after scaling the shorter side and cropping (section 2)
    quality: int = 95  # of the JPEG, as in cuda-convnet2 (facts 4)
    raw: bool = False  # keep the pixels themselves, six times the size, nothing to decode
    exif: bool = True  # turn images upright as their EXIF orientation says
    shard_images: int = 512  # images in a file: one task, some 17 MB

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 4096:
            raise DataError(f"The prepared size is {self.size}.", "It must be 8 to 4096 pixels.")
        if not 1 <= self.quality <= 100:
            raise DataError(f"The JPEG quality is {self.quality}.", "It must be 1 to 100.")
        if self.raw and self.shard_images * self.size**2 * 3 >= 1 << 31:
            raise DataError(
                f"{self.shard_images} raw images of {self.size} pixels do not fit into a shard.",
                "Prepare JPEGs, or a smaller size.",
            )

    @property
    def typical_bytes(self) -> float:
        """What an image takes on the disk, as a rule: 36 kB at 256 pixels, quality 95."""
        return 3.0 * self.size**2 if self.raw else 0.55 * self.size**2 * self.quality / 95


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a preparation is."""

    done: int  # images
    total: int
    skipped: int
    repaired: int
    images_per_second: float  # since this command began
    seconds_left: float


def open_or_prepare(
    where: str | Path,
    options: Options = Options(),
    *,
    seed: int = 0,
    workers: int | None = None,
    hold_out: bool = True,
    choose: Callable[[Source], Source] = lambda source: source,
    say: Callable[[str], None] = lambda text: None,
    report: Callable[[Progress], None] = lambda progress: None,
    fetched: DownloadReport = lambda file, done, total: None,
) -> PreparedData:
    """Open a prepared data set, or prepare a source into the cache and open that.

    `where` is a prepared data set, or anything `sources.open_source` takes; `options`, `seed`,
    `workers` and `hold_out` are as for `prepare` and `open_source`. `choose` returns what of a
    source is to be prepared. `say`, `report` and `fetched` are called with sentences for the user,
    with the progress, and with that of a download. Raises `DataError` when it is no data, or cannot
    be prepared.
    """
    if is_prepared(Path(where)):
        return open_prepared(where)
    source = choose(open_source(where, seed, hold_out=hold_out, report=fetched))
    for note in source.notes:
        say(note)
    identity = f"{DATA_FORMAT} {source.fingerprint()} {source.stamp} {options}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:12]
    root = cache_folder() / f"{source.name}-{options.size}-{key}"
    if not is_prepared(root):
        say(f"Preparing {source.name} in {root}, once.")
    prepare(source, root, options, workers=workers, report=report)
    for line in describe_report(root):
        say(line)
    return open_prepared(root)


def prepare(
    source: Source,
    root: str | Path,
    options: Options = Options(),
    *,
    workers: int | None = None,
    executor: Executor | None = None,
    duplicates: DuplicatePolicy = "keep",
    report: Callable[[Progress], None] = lambda progress: None,
) -> Manifest:
    """Make a prepared data set of a source, or finish one that was begun.

    With more than one worker, processes are started, which import nothing of the calling script.
    Raises `DataError` when the folder holds something else or the source has changed since, a class
    is left without a training image, there are duplicates and may be none, or the disk is too
    small.

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
    duplicates : str
        Of images that are the same: ``"keep"`` them and report them; ``"drop"`` all but one, and
        all that are under several labels; or take them for an ``"error"``.
    report : callable
        Called with a `Progress` every few images.

    Returns
    -------
    Manifest
        What was prepared; ``report.json`` beside it lists what was skipped, repaired or passed
        over, and duplicates.
    """
    if workers is not None and workers < 1:
        raise DataError(f"{workers} workers cannot prepare anything.", "Give 1 or more.")
    root = Path(root)
    identity: dict[str, Any] = {
        "options": asdict(options) | ({"duplicates": "drop"} if duplicates == "drop" else {}),
        "fingerprint": source.fingerprint(),
        "encoder": "none" if options.raw else jpeg_library(),
        "stamp": source.stamp,
    }
    if is_prepared(root):
        return _accept_finished(root, identity, duplicates)
    alone = _claim(root, identity)
    tasks = _split_into_tasks(source, root, options)
    left = sum(len(task.samples) for task in tasks if not task.is_done())
    fix = "Make room, or choose a folder on another disk."
    require_space(root, left * options.typical_bytes, fix)
    # Where another preparation may be at work: two random orders seldom meet.
    order = tasks if alone else random.sample(tasks, len(tasks))
    try:
        for progress in _make_shards(order, workers, executor):
            report(progress)
        return _finish(source, root, tasks, identity, duplicates)
    except FileNotFoundError:
        if not is_prepared(root):
            raise
        return _accept_finished(root, identity, duplicates)  # another one here was faster


def _accept_finished(root: Path, identity: dict[str, Any], duplicates: DuplicatePolicy) -> Manifest:
    """Return the manifest of a finished preparation; one of something else is refused.

    So is one that has lost a shard, or has duplicates where there may be none.
    """
    manifest = open_prepared(root).manifest
    if manifest.fingerprint != identity["fingerprint"] or manifest.options != identity["options"]:
        raise DataError(
            f"{str(root)!r} holds another prepared data set ({manifest.name}).",
            "Delete it or choose another folder.",
        )
    if manifest.stamp and identity["stamp"] not in ("", manifest.stamp):
        raise DataError(
            f"The files that {str(root)!r} was prepared from were changed or moved since.",
            "Delete it or choose another folder, to prepare them as they are now.",
        )
    for shard in chain.from_iterable(manifest.shards.values()):
        path = root / shard.file
        if not path.is_file() or path.stat().st_size != shard.bytes:
            raise DataError(
                f"{str(path)!r} is not there any more, or was cut short.",
                "Delete its folder, and run the same command again.",
            )
    if duplicates == "error":
        _refuse_duplicates(root, json.loads((root / REPORT).read_text("utf-8"))["duplicates"])
    _remove_leftovers(root)
    return manifest


def _refuse_duplicates(root: Path, groups: Sequence[Mapping[str, Any]]) -> None:
    """See that there are no duplicates, as a report lists them; `DataError` where there are."""
    if groups:
        raise DataError(
            f"There are duplicates, {_describe_groups(groups)}: {root / REPORT} lists them.",
            "Remove them from the source, or run again with --duplicates keep; or prepare into "
            "another folder with --duplicates drop.",
        )


def _remove_leftovers(root: Path) -> None:
    """Remove what only an unfinished preparation needs."""
    for pattern in ("*.notes.safetensors", ".*.part", DROPPED, UNFINISHED):
        for leftover in root.glob(pattern):
            leftover.unlink(missing_ok=True)


def _claim(root: Path, identity: dict[str, Any]) -> bool:
    """Mark the folder as being prepared from this source; return whether it was not before."""
    claim = root / UNFINISHED
    with translate_os_error(root):
        root.mkdir(parents=True, exist_ok=True)
        if claim.is_file():
            claimed = json.loads(claim.read_text(encoding="utf-8"))
            if identity | claimed == identity:  # one of 2026-11-26 has no stamp
                return False
            if identity | claimed | {"stamp": identity["stamp"]} == identity:
                raise DataError(
                    f"Files were changed or moved since their preparation in {str(root)!r} began.",
                    "Delete it, and run the same command again.",
                )
            raise DataError(
                f"{str(root)!r} holds the unfinished preparation of something else, with other "
                "options, or by another JPEG encoder.",
                "Delete it or choose another folder.",
            )
        if any(path.name[0] != "." for path in root.iterdir()):
            raise DataError(f"{str(root)!r} is not empty.", "Choose a new folder.")
    write_json(claim, identity, temporary_suffix())
    return True


@dataclass(frozen=True, slots=True)
class ShardTask:
    """Which images become which shard."""

    shard: Path
    samples: SampleIndex
    options: Options
    suffix: str = ""  # of temporary files
    dropped: tuple[str, ...] = ()  # names of images that are left out, being elsewhere as well

    @property
    def metadata(self) -> Path:
        """The file of what the shard holds, what it had to leave out, and its sums."""
        return self.shard.with_suffix(".notes.safetensors")

    @property
    def split(self) -> str:
        """The name of the split that the images are of."""
        return self.shard.name.split("-")[0]

    def is_done(self) -> bool:
        """Whether the shard is there, whole: its metadata is written last."""
        return self.metadata.is_file()

    def read_metadata(self) -> tuple[PixelSums, dict[str, Any]]:
        """Return the sums of a shard that is done, and what `make_shard` returned."""
        sums, text = PixelSums.load(self.metadata)
        return sums, json.loads(text)

    def describe_shard(self, metadata: dict[str, Any]) -> ShardInfo:
        """Return the shard's entry in the manifest, from its metadata."""
        return ShardInfo(self.shard.name, *(metadata[k] for k in ("images", "bytes", "sha256")))


def _split_into_tasks(source: Source, root: Path, options: Options) -> list[ShardTask]:
    tasks = []
    for split, samples in sorted(source.splits.items()):
        for number, start in enumerate(range(0, len(samples), options.shard_images)):
            of_shard = np.arange(start, min(start + options.shard_images, len(samples)))
            shard = root / f"{split}-{number:05}.arrow"
            tasks.append(ShardTask(shard, samples.take(of_shard), options, temporary_suffix()))
    return tasks


def _make_shards(
    tasks: list[ShardTask], workers: int | None, executor: Executor | None
) -> Iterator[Progress]:
    """Make the shards that are not there yet; yield the progress after each."""
    total = sum(len(task.samples) for task in tasks)
    missing = [task for task in tasks if not task.is_done()]
    done = before = total - sum(len(task.samples) for task in missing)
    begun = time.monotonic()
    skipped = repaired = 0
    left = (task for task in missing if not task.is_done())  # asked as each one's turn comes
    use = min(workers or os.cpu_count() or 1, len(missing))
    if executor is not None:
        results = run_on_executor(executor, make_shard, left, CLUSTER_TASKS)
    elif use > 1:
        results = run_in_processes(make_shard, left, use, make_shard_carefully)
    else:
        results = ((task, make_shard(task)) for task in left)
    for task, metadata in results:
        done += len(task.samples)
        skipped += len(metadata["skipped"])
        repaired += len(metadata["repaired"])
        speed = (done - before) / (time.monotonic() - begun)
        yield Progress(done, total, skipped, repaired, speed, (total - done) / speed)


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """An image as it will be kept."""

    encoded: bytes
    pixels: Pixels  # (size, size, 3), before encoding
    repairs: tuple[str, ...]


def prepare_image(sample: Sample, options: Options) -> PreparedImage | str:
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
    return PreparedImage(encoded, pixels, repairs)


def make_shard(
    task: ShardTask,
    prepare: Callable[[Sample, Options], PreparedImage | str] = prepare_image,
) -> dict[str, Any]:
    """Write a shard and its metadata; return the metadata."""
    records, sums = [], PixelSums.empty(task.options.size)
    skipped: list[tuple[str, str]] = []
    repaired: list[tuple[str, str]] = []
    positions: list[int] = []
    samples = enumerate(task.samples)
    while chunk := list(islice(samples, SUMMED_AT_ONCE)):
        pixels = []
        for position, sample in chunk:
            name = escape(sample.path)
            result = prepare(sample, task.options)
            if isinstance(result, str):
                skipped.append((name, result))
                continue
            if result.repairs:
                repaired.append((name, "; ".join(result.repairs)))
            pixels.append(result.pixels)
            positions.append(position)
            records.append(
                ImageRecord(result.encoded, sample.label, name, zlib.crc32(result.encoded))
            )
        sums += PixelSums.of(pixels, task.options.size)
    write_shard(task.shard, records, task.suffix)
    metadata = {
        "images": len(records),
        "positions": positions,  # of the images among the samples
        "dropped": task.dropped,
        "labels": Counter(record.label for record in records),
        "skipped": skipped,
        "repaired": repaired,
        "bytes": task.shard.stat().st_size,
        "sha256": sha256(task.shard),
    }
    sums.save(task.metadata, json.dumps(metadata), task.suffix)
    return metadata


def make_shard_carefully(task: ShardTask) -> dict[str, Any]:
    """Write a shard whose images have killed their worker: each is decoded in a process apart.

    One that kills that process `ATTEMPTS` times in a row is left out.
    """
    pools = [process_pool(1)]

    def prepare_apart(sample: Sample, options: Options) -> PreparedImage | str:
        for _ in range(ATTEMPTS):
            try:
                return pools[-1].submit(prepare_image, sample, options).result()
            except BrokenProcessPool:
                pools.append(process_pool(1))
        return "It ends the process that decodes it."

    try:
        return make_shard(task, prepare_apart)
    finally:
        for pool in pools:
            pool.shutdown()


def _finish(
    source: Source,
    root: Path,
    tasks: list[ShardTask],
    identity: dict[str, Any],
    duplicates: DuplicatePolicy,
) -> Manifest:
    """Add up the shards' metadata, write report, statistics and manifest, clear the metadata."""
    if duplicates == "drop":
        _drop_duplicates(root, tasks)
    shards: dict[str, list[ShardInfo]] = defaultdict(list)
    counts = {split: [0] * len(source.classes) for split in source.splits}
    report: dict[str, list[dict[str, Any]]] = {"skipped": [], "repaired": [], "dropped": []}
    size, suffix = identity["options"]["size"], temporary_suffix()
    sums = PixelSums.empty(size)
    for task in tasks:
        split = task.split
        shard_sums, metadata = task.read_metadata()
        shards[split].append(task.describe_shard(metadata))
        for label, images in metadata["labels"].items():
            counts[split][int(label)] += images
        for kind in ("skipped", "repaired"):
            report[kind] += [{"split": split, "image": i, "reason": w} for i, w in metadata[kind]]
        report["dropped"] += [{"split": split, "image": i} for i in metadata.get("dropped", ())]
        if split == "train" or "train" not in counts:  # of data that are only tested on: all
            sums += shard_sums
    groups = find_duplicates(root, shards)
    report["duplicates"] = [
        {"images": [{"split": c.split, "image": c.image, "label": c.label} for c in group]}
        for group in groups
    ]
    report["passed_over"] = [
        {"reason": why, "files": len(names), "first": sorted(map(escape, names))[:MAX_NAMED]}
        for why, names in sorted(source.passed_over.items())
        if names
    ]
    write_json(root / REPORT, report, suffix)
    if duplicates == "error":
        _refuse_duplicates(root, report["duplicates"])
    for label, images in enumerate(counts.get("train", ())):
        if not images:
            raise DataError(
                f"Class {source.classes[label]!r} has no training image that can be decoded.",
                "Add some, or remove the class.",
            )
    Statistics.from_sums(sums).save(root / STATISTICS, suffix)
    manifest = Manifest(
        name=source.name,
        classes=source.classes,
        counts={split: sum(images) for split, images in counts.items()},
        class_counts={split: tuple(images) for split, images in counts.items()},
        size=size,
        options=identity["options"],
        fingerprint=identity["fingerprint"],
        skipped=len(report["skipped"]),
        repaired=len(report["repaired"]),
        shards={split: tuple(shards.get(split, ())) for split in source.splits},
        checksums={name: sha256(root / name) for name in (STATISTICS, REPORT)},
        stamp=source.stamp,
    )
    write_manifest(root, manifest, suffix)
    _remove_leftovers(root)
    return manifest


def _drop_duplicates(root: Path, tasks: list[ShardTask]) -> None:
    """Make the shards that hold duplicates anew, without them.

    Which they are is written down before the first shard is, so that an interruption changes
    nothing, and another preparation of the folder drops the same.
    """
    plan = root / DROPPED
    if not plan.is_file():
        rows: dict[str, list[int]] = defaultdict(list)
        shards: dict[str, list[ShardInfo]] = defaultdict(list)
        for task in tasks:
            shards[task.split].append(task.describe_shard(task.read_metadata()[1]))
        for copy in choose_dropped(find_duplicates(root, shards)):
            rows[copy.shard].append(copy.row)
        if not plan.is_file():
            write_json(plan, rows, temporary_suffix())
    rows = json.loads(plan.read_text(encoding="utf-8"))
    for task in tasks:
        _, metadata = task.read_metadata()
        if task.shard.name in rows and not metadata["dropped"]:
            left_out = {metadata["positions"][row] for row in rows[task.shard.name]}
            kept = [at for at in range(len(task.samples)) if at not in left_out]
            names = tuple(escape(task.samples[at].path) for at in sorted(left_out))
            make_shard(replace(task, samples=task.samples.take(np.array(kept, int)), dropped=names))


def describe_report(root: Path) -> list[str]:
    """Say in a few lines what ``report.json`` of a prepared data set lists, counted by kind."""
    report = json.loads((root / REPORT).read_text(encoding="utf-8"))
    lines = []
    for kind in ("skipped", "repaired"):
        reasons = Counter(
            why.rstrip(".") for one in report[kind] for why in one["reason"].split("; ")
        )
        if reasons:
            most = dict(reasons.most_common(MAX_KINDS))
            if others := reasons.total() - sum(most.values()):
                most["other reasons"] = others
            lines.append(f"{kind.capitalize()}: {describe_counts(most, 'image')}.")
    if passed_over := report.get("passed_over"):
        told = describe_counts({one["reason"]: one["files"] for one in passed_over})
        lines.append(f"Passed over: {told}.")
    if report.get("duplicates"):
        lines.append(f"Duplicates: {_describe_groups(report['duplicates'])}.")
    if report.get("dropped"):
        lines.append(f"{len(report['dropped']):,} duplicates were dropped.")
    return [*lines, f"{root / REPORT} lists them."] if lines else []


def _describe_groups(groups: Sequence[Mapping[str, Any]]) -> str:
    return describe_duplicates([(c["split"], c["label"]) for c in g["images"]] for g in groups)
