"""What a source of labelled images is: classes, and a listing for each split."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from alexnet.data.listing import Place, SampleIndex

SPLITS = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
SPLIT_WORD = re.compile(r"(?:^|[^a-z])(train|val|validation|valid|test)(?:[^a-z]|$)")


@dataclass(frozen=True, slots=True)
class Source:
    """Labelled images by split, in a fixed order."""

    name: str
    classes: tuple[str, ...]  # folder names or wnids; `wordnet.readable` makes names of these
    splits: dict[str, SampleIndex]  # "train" and at least one of "val" and "test"
    notes: tuple[str, ...] = ()  # what was decided on the way, for the user to read
    stamp: str = ""  # of the files' places, sizes and times: changes when their content may have

    def fingerprint(self) -> str:
        """Return a hash of the class names and of every image's name and label."""
        digest = hashlib.sha256(repr(self.classes).encode("utf-8", "surrogateescape"))
        for split, listing in sorted(self.splits.items()):
            digest.update(split.encode())
            for identity in listing.identity():
                digest.update(identity)
        return digest.hexdigest()


def split_named(name: str) -> str | None:
    """Return the split that a file's name tells of: ``imagenet-train-0001.tar`` is train."""
    found = SPLIT_WORD.search(name.lower())
    return SPLITS[found[1]] if found else None


def stamp(files: Iterable[Path]) -> str:
    """Return a hash of where files are, how large, and when they were changed."""
    digest = hashlib.sha256()
    for file in files:
        about = file.stat() if file.exists() else None
        if about and not file.is_dir():
            digest.update(
                f"{file.resolve()}\0{about.st_size} {about.st_mtime_ns}\n".encode(
                    "utf-8", "surrogateescape"
                )
            )
    return digest.hexdigest()


def stamp_of(places: Iterable[Place]) -> str:
    """Return the stamp of the files that places lie in."""
    return stamp(Path(p.file, p.name) if p.length < 0 else Path(p.file) for p in places)
