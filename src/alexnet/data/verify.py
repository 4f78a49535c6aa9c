"""Whether a prepared data set is what was written: every checksum, every image."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from alexnet.data.shards import Manifest, Shard, Split, read_manifest
from alexnet.errors import DataError, ImageError
from alexnet.files import sha256


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong with a file of a prepared data set."""

    file: str
    what: str  # a sentence; names the images that are known to be hit


def verify(
    root: str | Path, report: Callable[[int, int], None] = lambda done, total: None
) -> list[Damage]:
    """Check every checksum of a prepared data set and decode every image.

    Parameters
    ----------
    root : str or Path
        Its folder.
    report : callable
        Called with the images checked so far, and their number.

    Returns
    -------
    list of Damage
        Empty when all is well.

    Raises
    ------
    DataError
        When it is no prepared data set, or its manifest cannot be read.
    """
    root = Path(root)
    manifest = read_manifest(root)
    found = [
        Damage(name, "Its checksum is not that of what was written.")
        for name, checksum in manifest.checksums.items()
        if not (root / name).is_file() or sha256(root / name) != checksum
    ]
    shards = [(split, shard) for split, listed in manifest.shards.items() for shard in listed]
    done, total = 0, sum(shard.images for _, shard in shards)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        check = partial(_shard_damage, root, manifest)
        for (_, shard), damage in zip(shards, pool.map(check, shards), strict=True):
            done += shard.images
            found += [Damage(shard.file, damage)] if damage else []
            report(done, total)
    return found


def _shard_damage(root: Path, manifest: Manifest, shard: tuple[str, Shard]) -> str:
    name, about = shard
    split = Split(name, root, (about,), manifest.size, manifest.raw)
    wrong = []
    try:
        for row in range(about.images):
            try:
                split.pixels(row)
            except (ImageError, UnicodeDecodeError):
                wrong.append(split.where(row))
    except DataError as error:
        return error.what
    except Exception as error:  # Arrow raises many types on a damaged file
        return f"It cannot be read ({type(error).__name__})."
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        return f"Damaged: {', '.join(wrong[:3])}{more}."
    if sha256(root / about.file) != about.sha256:
        return "Its checksum is not that of what was written, though every image is whole."
    return ""
