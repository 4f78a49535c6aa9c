"""``alexnet prepare``."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor


def prepare(
    source: str,
    dir: Path | None = None,
    *,
    verify: bool = False,
    workers: int | None = None,
    cluster: str | None = None,
    size: int = 256,
    quality: int = 95,
    raw: bool = False,
    exif: bool = True,
    class_order: Literal["wnid", "devkit"] = "wnid",
    seed: int = 0,
    duplicates: Literal["keep", "drop", "error"] = "keep",
    near_duplicates: bool = False,
) -> int:
    """Make a prepared data set of any source; run it again to finish one that was stopped.

    Example: `alexnet prepare photographs/ prepared/`, then `alexnet prepare --verify prepared/`

    Parameters
    ----------
    source
        A class folder (`DIR/class/*.jpg`, with or without `train`, `val`, `test` above); a flat one
        with `labels.csv` (file,label); a folder with the tars and the devkit of ILSVRC; Parquet
        files in the Hugging Face layout; WebDataset tars; Kaggle's, Tiny ImageNet's or CIFAR's
        layout; a tar, tar.gz or zip of these; or a built-in name: elpv, cifar10, cifar100,
        tiny-imagenet, imagenette, clothing.
    dir
        The folder to make.
    verify
        Instead, check every checksum of the prepared data set `source` and decode every image.
    workers
        Processes; by default one a processor. The result does not depend on it.
    cluster
        Address of a Dask scheduler whose workers do the work; they must see the same files.
    size
        Pixels on a side: the shorter side is scaled to it and the central square kept.
    quality
        Of the JPEG files inside, 1 to 100.
    raw
        Keep the pixels themselves: six times the size, nothing to decode in training.
    exif
        Turn photographs upright as their EXIF orientation says.
    class_order
        Of ILSVRC: wnid, as Caffe and torchvision number the classes; devkit, as cuda-convnet.
    seed
        Of the stratified test split that is made of a source which holds nothing out.
    duplicates
        Of images whose pixels are the same, which are always counted: keep them; drop all but one,
        a held-out one before a training one, and all that are under several labels; or error.
    near_duplicates
        Count images that look alike, too, and list them in `near_duplicates.json`.
    """
    from alexnet.errors import ConfigError

    if verify:
        return _verify(Path(source))
    if dir is None:
        raise ConfigError("No folder to make was named.", "Example: alexnet prepare SOURCE DIR")
    from alexnet.cli.console import Console
    from alexnet.data.prepare import Options, describe_report
    from alexnet.data.prepare import prepare as prepare_data
    from alexnet.data.sources import open_source

    options = Options(size=size, quality=quality, raw=raw, exif=exif)
    with Console() as console:
        found = open_source(source, seed, class_order=class_order, report=console.fetched)
        for note in found.notes:
            console.say(note)
        with connect_cluster(cluster) as cluster_executor:
            manifest = prepare_data(
                found, dir, options,
                workers=workers, executor=cluster_executor, duplicates=duplicates,
                report=console.prepared,
            )  # fmt: skip
    print(manifest.describe())
    print(f"classes: {_list_classes(manifest.classes)}")
    for line in describe_report(dir):
        print(line)
    if near_duplicates:
        _list_near_duplicates(dir)
    return 0


def _list_near_duplicates(root: Path) -> None:
    """Find images that look alike, count them by kind and list them in a file."""
    from dataclasses import asdict

    from alexnet.data.duplicates import describe_duplicates, find_near_duplicates
    from alexnet.data.shards import open_prepared
    from alexnet.files import write_json

    groups = find_near_duplicates(open_prepared(root))
    listed = root / "near_duplicates.json"
    write_json(listed, [[asdict(copy) for copy in group] for group in groups])
    told = describe_duplicates([(copy.split, copy.label) for copy in group] for group in groups)
    print(f"Near duplicates: {told or 'none'}. {listed} lists them.")


def _verify(root: Path) -> int:
    """Verify a prepared data set, print what is damaged, return the exit status."""
    from alexnet.cli.console import Console
    from alexnet.data.shards import verify

    with Console() as console:
        damage = verify(root, console.verified)
    for one in damage:
        print(f"{one.file}: {one.reason}")
    print(f"{root}: {len(damage)} files are damaged." if damage else f"{root}: all is well.")
    return 1 if damage else 0


def _list_classes(classes: tuple[str, ...], most: int = 20) -> str:
    """Return the names of the classes, the first `most` of many."""
    from alexnet.data.imagenet import describe_classes

    names = describe_classes(classes)
    rest = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


@contextlib.contextmanager
def connect_cluster(cluster: str | None) -> "Iterator[Executor | None]":
    """Give the executor of a Dask cluster, or ``None`` where no cluster is named."""
    if cluster is None:
        yield None
        return
    from alexnet.errors import ConfigError, import_extra

    distributed = import_extra("distributed", "cluster", "--cluster")
    try:
        client = distributed.Client(cluster, timeout=20)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"There is no Dask scheduler at {cluster!r} ({error}).",
            "Start one with: dask scheduler",
        ) from None
    with client:
        yield client.get_executor()
