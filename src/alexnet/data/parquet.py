"""Labelled images in Parquet files, in the Hugging Face layout."""

import json
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from alexnet.data.layouts import class_names
from alexnet.data.listing import Place, SampleIndex
from alexnet.data.source import Source, split_named, stamp
from alexnet.errors import DataError, ImageError


def parquet_files(root: Path) -> list[Path]:
    """Return the Parquet files of a folder, or of its folder ``data``."""
    return sorted({*root.glob("*.parquet"), *root.glob("data/*.parquet")})


def parquet_folder(root: Path) -> Source:
    """List Parquet files with the columns ``image: {bytes, path}`` and ``label``.

    The split is told by the file's name: ``train.parquet``, ``test-00000-of-00001.parquet``.
    Class names come from the schema's metadata where it has them, else from ``classes.txt``
    beside the files, else they are the numbers. A split without any label (all below 0), as
    ImageNet's test split, is passed over.

    Raises
    ------
    DataError
        When a file is damaged or has other columns, or a label is missing.
    """
    files = [(file, split_named(file.stem)) for file in parquet_files(root)]
    rows: dict[str, list[tuple[Place, int]]] = defaultdict(list)
    names: Sequence[str] | None = None
    for file, split in files:
        if split is not None:
            labels, given = _labels(file)
            names = names or given
            rows[split] += [
                (Place(f"{file.stem}/{row}", str(file), row), label)
                for row, label in enumerate(labels)
            ]
    if not rows:
        raise DataError(
            f"No Parquet file in {str(root)!r} names its split.",
            "They should be called train…, val… or test….",
        )
    notes = []
    for split in list(rows):
        without = sum(label < 0 for _, label in rows[split])
        if without and (split == "train" or without < len(rows[split])):
            raise DataError(
                f"{str(root)!r} has images without a label (below 0).", "Leave them out."
            )
        if without:
            notes.append(f"The {split} split has no labels: passed over.")
            del rows[split]
    highest = max((label for pairs in rows.values() for _, label in pairs), default=0)
    classes = class_names(root, highest, names)
    splits = {split: SampleIndex.of(read_row, pairs) for split, pairs in rows.items()}
    stamped = stamp(file for file, _ in files)
    return Source(root.resolve().name, classes, splits, tuple(notes), stamped)


def _labels(file: Path) -> tuple[list[int], Sequence[str] | None]:
    """Return the labels of a file and, where its schema has them, the names of the classes."""
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)  # type: ignore[no-untyped-call]
        labels = [int(label) for label in table.read(["label"]).column("label").to_pylist()]
        table.schema_arrow.field("image").type.field("bytes")
        about = json.loads((table.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
    except Exception as error:  # Arrow raises many types on broken files
        raise DataError(
            f"{str(file)!r} is not Parquet with the columns image and label ({error})."
        ) from None
    return labels, about.get("info", {}).get("features", {}).get("label", {}).get("names")


def read_row(file: str, name: str, offset: int, length: int) -> bytes:
    """Read the image in row `offset`; row groups are read whole, and the last few are kept.

    Raises
    ------
    ImageError
        When the file cannot be read there.
    """
    try:
        row = offset
        for group, rows in enumerate(_groups(file)):
            if row < rows:
                return _row_group(file, group)[row]
            row -= rows
    except Exception as error:  # Arrow raises many types on broken files
        raise ImageError(f"Its row group cannot be read ({error}).") from None
    raise ImageError("The file became shorter while it was read.")


@lru_cache(maxsize=64)
def _groups(file: str) -> tuple[int, ...]:
    import pyarrow.parquet as pq

    about = pq.ParquetFile(file).metadata  # type: ignore[no-untyped-call]
    return tuple(about.row_group(group).num_rows for group in range(about.num_row_groups))


@lru_cache(maxsize=4)
def _row_group(file: str, group: int) -> Sequence[bytes]:
    import pyarrow.parquet as pq

    table = pq.ParquetFile(file).read_row_group(group, ["image"])  # type: ignore[no-untyped-call]
    return [(image or {}).get("bytes") or b"" for image in table.column("image").to_pylist()]
