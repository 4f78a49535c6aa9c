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
) -> int:
    """Make a prepared data set of any source; run it again to finish one that was stopped.

    Example: `alexnet prepare photographs/ prepared/`, then `alexnet prepare --verify prepared/`

    Parameters
    ----------
    source
        A class folder (`DIR/class/*.jpg`, with or without `train`, `val`, `test` above); a folder
        with the tars and the devkit of ILSVRC; Parquet files in the Hugging Face layout;
        WebDataset tars; Kaggle's, Tiny ImageNet's or CIFAR's layout; a tar, tar.gz or zip of these;
        or a built-in name: elpv, cifar10, cifar100, tiny-imagenet, imagenette, clothing.
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
    """
    from alexnet.errors import ConfigError

    if verify:
        return _verify(Path(source))
    if dir is None:
        raise ConfigError("No folder to make was named.", "Example: alexnet prepare SOURCE DIR")
    from alexnet.cli.console import Console
    from alexnet.data.prepare import Options
    from alexnet.data.prepare import prepare as prepare_data
    from alexnet.data.shards import REPORT
    from alexnet.data.sources import open_source

    options = Options(size=size, quality=quality, raw=raw, exif=exif)
    with Console() as console:
        found = open_source(source, seed, class_order=class_order, report=console.fetched)
        for note in found.notes:
            console.say(note)
        with connect_cluster(cluster) as cluster_executor:
            manifest = prepare_data(
                found, dir, options,
                workers=workers, executor=cluster_executor, report=console.prepared,
            )  # fmt: skip
    print(manifest.describe())
    print(f"classes: {_list_classes(manifest.classes)}")
    if manifest.skipped or manifest.repaired:
        print(
            f"{manifest.skipped:,} images were skipped and {manifest.repaired:,} repaired: "
            f"{dir / REPORT} says which, and why."
        )
    return 0


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
    from alexnet.errors import ConfigError, MissingExtraError

    try:
        from distributed import Client
    except ImportError:
        raise MissingExtraError("distributed", "cluster", "--cluster") from None
    try:
        client = Client(cluster, timeout=20)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"There is no Dask scheduler at {cluster!r} ({error}).",
            "Start one with: dask scheduler",
        ) from None
    with client:
        yield client.get_executor()
