"""Images of a prepared data set that are the same, by what was written for them; and near ones.

The same pixels are encoded as the same bytes, so images are compared by their checksums and
lengths, which the shards have, and those that agree by their bytes: nothing is decoded.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexnet.data.shards import PreparedData, Shard, ShardInfo, open_shard
from alexnet.errors import import_extra

DuplicatePolicy = Literal["keep", "drop", "error"]
LOOKED_AT = ("test", "val", "train")  # the order in which `drop` keeps the first
NEAR_BITS = 3  # of the 64 of a perceptual hash: assumed; 0 is what scaling and encoding change
BANDS = NEAR_BITS + 1  # of 16 bits; two hashes that near have at least one in common


@dataclass(frozen=True, slots=True)
class Copy:
    """One of several images that are the same."""

    split: str
    image: str  # its path in the source
    label: int
    shard: str
    row: int


CopyGroup = tuple[Copy, ...]  # images that are the same, a held-out one first


def find_duplicates(root: Path, shards: Mapping[str, Sequence[ShardInfo]]) -> list[CopyGroup]:
    """Return the groups of images that are the same, each and all in the order of the shards."""
    listed = [(split, info) for split in LOOKED_AT for info in shards.get(split, ())]
    keys = [_keys(open_shard(root, info)) for _, info in listed]
    if not keys:
        return []
    every = np.concatenate(keys)
    values, counts = np.unique(every, return_counts=True)
    suspect = values[counts > 1]
    groups: dict[tuple[int, bytes], list[Copy]] = defaultdict(list)
    for (split, info), of_shard in zip(listed, keys, strict=True):
        rows = np.flatnonzero(np.isin(of_shard, suspect)).tolist()
        if not rows:
            continue
        shard = open_shard(root, info)
        for row in rows:
            path, label = str(shard.paths[row].as_py()), int(shard.labels[row])
            copy = Copy(split, path, label, info.file, row)
            groups[int(of_shard[row]), bytes(shard.image(row))].append(copy)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _keys(shard: Shard) -> NDArray[np.uint64]:
    """Return the checksum and the length of each image as one number, ``(N,)`` uint64."""
    lengths = np.diff(shard.ends).astype(np.uint64)
    return (shard.crcs.astype(np.uint64) << np.uint64(32)) | lengths


def choose_dropped(groups: Iterable[CopyGroup]) -> Iterator[Copy]:
    """Yield all but the first of each group, and all of one under several labels.

    The first is a held-out one, if there is one; of contradicting labels nobody knows the right.
    """
    for group in groups:
        contradicts = len({copy.label for copy in group}) > 1
        yield from group if contradicts else group[1:]


def describe_duplicates(groups: Iterable[Iterable[tuple[str, int]]]) -> str:
    """Say how many groups of the same images there are, given each one's split and label."""
    kinds = {"within a class": 0, "under several labels": 0, "in several splits": 0}
    images = total = 0
    for group in groups:
        splits, labels = (set(column) for column in zip(*group, strict=True))
        total += 1
        images += len(list(group))
        kinds["under several labels"] += len(labels) > 1
        kinds["in several splits"] += len(splits) > 1
        kinds["within a class"] += len(labels) == len(splits) == 1
    counts = ", ".join(f"{number:,} {kind}" for kind, number in kinds.items() if number)
    return f"{images:,} images in {total:,} group{'s' * (total > 1)}: {counts}" if total else ""


def find_near_duplicates(data: PreparedData) -> list[CopyGroup]:
    """Return groups of images whose perceptual hashes differ in no more than `NEAR_BITS` bits.

    The hash is `imagehash.phash`, 64 bits of an image's low frequencies.
    """
    imagehash = import_extra("imagehash", "near", "--near-duplicates")
    copies, hashes = [], []
    for split in (data.splits[name] for name in LOOKED_AT if name in data.splits):
        for index in range(len(split)):
            bits = imagehash.phash(Image.fromarray(split.pixels(index))).hash
            hashes.append(int.from_bytes(np.packbits(bits).tobytes(), "big"))
            copies.append(Copy(split.name, split.path(index), split.label(index), "", index))
    groups: dict[int, list[Copy]] = defaultdict(list)
    for copy, first in zip(copies, _join_near(hashes), strict=True):
        groups[first].append(copy)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _join_near(hashes: Sequence[int]) -> Iterator[int]:
    """Yield for each hash the first of those that near ones lead to, one after the other."""
    bands: dict[tuple[int, int], list[int]] = defaultdict(list)
    before = list(range(len(hashes)))

    def first(index: int) -> int:
        while before[index] != index:
            index = before[index]
        return index

    width = 64 // BANDS
    for index, value in enumerate(hashes):
        for band in range(BANDS):
            bands[band, value >> band * width & (1 << width) - 1].append(index)
    for alike in bands.values():
        for one, other in combinations(alike, 2):
            if (hashes[one] ^ hashes[other]).bit_count() <= NEAR_BITS:
                earlier, later = sorted((first(one), first(other)))
                before[later] = earlier
    return map(first, range(len(hashes)))
