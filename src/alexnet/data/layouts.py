"""Numbered labels: WebDataset, Parquet and CIFAR, in the layouts in which they are handed around.

ImageNet's own are in `imagenet`, class folders in `folders`.
"""

import ast
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.bounds import MAX_LIST, check_parquet, parse_json
from alexnet.data.archives import Contents, is_image, read_file, read_slice
from alexnet.data.samples import (
    FileSlice,
    Reader,
    SampleIndex,
    Source,
    escape,
    find_split,
    stamp_files,
    tell_split,
)
from alexnet.errors import DataError, ImageError
from alexnet.files import atomic_write, cache_folder, sha256, temporary_suffix
from alexnet.pickles import load_arrays

CLASS_LISTS = ("classes.txt", "classnames.txt")
NUMBERED_NAME = re.compile(r"\s*(\d+)\s*[:,;\s]\s*(.*\S)\s*")  # 0: cat
IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "class", "category", "fine_label")
CIFAR_IMAGE = 3 * 32 * 32  # bytes
CIFAR_BINARY_NAMES = {"batches.meta.txt", "fine_label_names.txt"}
CIFAR_PYTHON_NAMES = {"batches.meta", "meta"}


def list_webdataset(name: str, tars: Sequence[Contents]) -> Source:
    """List tars of ``KEY.jpg`` beside ``KEY.cls``, the number of the class as text.

    The split is told by the tar's name (``train-0000.tar``, ``imagenet-val-07.tar``). Class names
    come from ``classes.txt`` or ``classnames.txt`` beside the tars, else they are the numbers.
    """
    found: dict[str, list[tuple[FileSlice, int]]] = defaultdict(list)
    notes: list[str] = []
    files = [contents.archive for contents in tars if contents.archive]
    for file, contents in zip(files, tars, strict=True):
        split = find_split(file.stem)
        if split is None:
            raise DataError(
                f"{file.name!r} does not say which split it is.",
                "Name the tars train-…, val-… or test-….",
            )
        pairs, alone = _pair_with_labels(contents.files)
        notes += contents.notes
        if alone:
            notes.append(f"{file.name}: {alone:,} samples lack their image or their label.")
        found[split] += [(image, _read_label(label)) for image, label in pairs]
    if not any(found.values()):
        raise DataError(
            f"No image in the tars of {name!r} has a label.",
            "Write the number of each image's class as KEY.cls beside its KEY.jpg.",
        )
    return _index_numbered(name, files[0].parent, found, read_slice, notes, stamp_files(files))


def _pair_with_labels(
    pieces: Sequence[FileSlice],
) -> tuple[list[tuple[FileSlice, FileSlice]], int]:
    """Return images with their labels, and the number of samples that lack one of the two.

    A key names one sample wherever its files lie; where a shard has a file twice, a sample is files
    of one key that follow one another, as WebDataset itself reads them. A key ends at the first
    dot, or at the last where no label's does (`1.5.jpg`, `1.5.cls`).
    """
    parts = [(*_split_key(piece.name), piece) for piece in pieces]
    if not any(ending == "cls" for _, ending, _ in parts):
        parts = [(*piece.name.rpartition(".")[::2], piece) for piece in pieces]
    parts = [part for part in parts if part[1] == "cls" or is_image(part[2])]
    unique = len({(key, ending) for key, ending, _ in parts}) == len(parts)
    images: dict[tuple[str, int], FileSlice] = {}
    labels: dict[tuple[str, int], FileSlice] = {}
    run, before, endings = 0, "", set[str]()
    for key, ending, piece in parts:
        if not unique and (key != before or ending in endings):
            run += 1
            endings.clear()
        before = key
        endings.add(ending)
        (labels if ending == "cls" else images)[key, run] = piece
    pairs = [(images[sample], labels[sample]) for sample in images if sample in labels]
    return pairs, len(images.keys() ^ labels.keys())


def _split_key(name: str) -> tuple[str, str]:
    """Return the key and the ending of a file of a sample: what stands before the first dot."""
    folder, _, file = name.rpartition("/")
    key, _, ending = file.partition(".")
    return f"{folder}/{key}", ending


def _read_label(piece: FileSlice) -> int:
    text = read_slice(piece).decode("utf-8", "replace").strip()
    if not text.isdecimal() or len(text) > 9:
        raise DataError(f"The label {piece.name!r} in {piece.file!r} is {text[:20]!r}, no number.")
    return int(text)


def _index_numbered(
    name: str,
    folder: Path,
    rows: Mapping[str, Sequence[tuple[FileSlice, int]]],
    reader: Reader,
    notes: Sequence[str],
    stamp: str,
    names: Sequence[str] | None = None,
) -> Source:
    """Return the source of numbered classes, named by a list beside the files if not given.

    A number that no image has is no class.
    """
    rows = {split: pairs for split, pairs in rows.items() if pairs}
    used = {label for pairs in rows.values() for _, label in pairs}
    lists = [folder / file for file in CLASS_LISTS if (folder / file).is_file()]
    names = names or (read_class_list(lists[0]) if lists else None)
    if names is not None and max(used, default=0) >= len(names):
        raise DataError(f"{str(folder)!r} has label {max(used)} but names {len(names)} classes.")
    told = {label: names[label] if names else str(label) for label in sorted(used)}
    if "train" in rows and (extra := used - {label for _, label in rows["train"]}):
        raise DataError(
            f"Class {told[min(extra)]!r} of {str(folder)!r} has no training image.",
            "Add some, or remove the class.",
        )
    if names and len(told) < len(names):
        lacking = [escape(name) for label, name in enumerate(names) if label not in told]
        first = f"{', '.join(lacking[:5])}{' …' * (len(lacking) > 5)}"
        notes = [*notes, f"{len(lacking):,} names without an image make no class: {first}."]
    number = {label: index for index, label in enumerate(told)}
    splits = {
        split: SampleIndex.of(reader, ((piece, number[label]) for piece, label in pairs))
        for split, pairs in rows.items()
    }
    return Source(name, tuple(map(escape, told.values())), splits, tuple(notes), stamp)


def read_class_list(path: Path) -> list[str]:
    """Read the names of classes: one a line, or numbered from 0, or a Python or JSON list or dict.

    What is no such list, or has a name twice, is a `DataError` with the lines.
    """
    try:
        text = path.read_bytes()[:MAX_LIST].decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{str(path)!r} cannot be read ({error}).", "Save it in UTF-8.") from None
    names = parse_class_list(text)
    lines: dict[str, int] = {}
    for line, name in enumerate(names, 1):
        if not name or lines.setdefault(name, line) != line:
            wrong = (
                f"{name!r} in lines {lines[name]} and {line}" if name else f"no name in line {line}"
            )
            raise DataError(f"{str(path)!r} has {wrong}.", "Give each class a name of its own.")
    return names


def parse_class_list(text: str) -> list[str]:
    """Return the names in a list of classes in any of the forms of `read_class_list`, unchecked."""
    names = _parse_literal(text) or [line.strip() for line in text.rstrip().splitlines()]
    numbered = [NUMBERED_NAME.fullmatch(name) for name in names]
    if names and all(numbered):
        by_number = {int(m[1]): m[2].strip("'\",") for m in numbered if m}
        if by_number.keys() == set(range(len(names))):
            return [by_number[number] for number in range(len(names))]
    return names


def _parse_literal(text: str) -> list[str]:
    """Return the names in a list, or a dict by or of numbers; nothing where the text is neither."""
    try:
        value = ast.literal_eval(text.strip()) if text.lstrip()[:1] in ("[", "{") else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    if isinstance(value, dict):
        if all(isinstance(number, int) for number in value.values()):  # torchvision's class_to_idx
            value = {number: name for name, number in value.items()}
        numbers = {int(k): v for k, v in value.items() if str(k).isdecimal() and len(str(k)) < 9}
        value = [numbers.get(number, "") for number in range(len(value))]
    return [str(name).strip() for name in value or ()]


def list_parquet(root: Path, files: Sequence[Path]) -> Source:
    """List Parquet files with a column of images, ``{bytes, path}`` or bytes, and one of labels.

    The split is told by the file's name, ``test-00000-of-00001.parquet``, or by its folder's. Class
    names come from the schema's metadata where it has them, else from ``classes.txt`` beside the
    files, else they are the numbers; labels may be names themselves. A split without any label
    (all below 0), as ImageNet's test split, is passed over.
    """
    rows: dict[str, list[tuple[FileSlice, Any]]] = defaultdict(list)
    known: list[str] = []  # names of classes, of whatever file has them
    kinds: set[tuple[str, ...]] = set()
    notes: list[str] = []
    for file in files:
        inside = file.relative_to(root).with_suffix("")
        folders = [name for name in inside.parts[:-1] if name != "data"]
        told = [split for split in (find_split(file.stem), *map(tell_split, folders)) if split]
        if told:
            column, given = _read_labels(file)
            known += [name for name in given if name not in known] if known else given
            if given:  # numbers go by the names of their own file
                column = _renumber(column, given, known, file)
            kinds.add(tuple(name for name in folders if not tell_split(name)))
            shown = inside.as_posix() if folders else file.stem
            rows[told[0]] += [
                (FileSlice(f"{shown}/{row}", str(file), row), label)
                for row, label in enumerate(column)
            ]
        else:
            notes.append(f"{file.name} does not say which split it is: passed over.")
    if not rows:
        raise DataError(
            f"No Parquet file in {str(root)!r} names its split.",
            "They should be called train…, val… or test….",
        )
    if len(kinds) > 1:
        raise DataError(
            f"{str(root)!r} has the Parquet files of several data sets: "
            f"{', '.join(sorted('/'.join(kind) or '.' for kind in kinds))}.",
            "Name the folder of one of them.",
        )
    for split in list(rows):
        without = sum(label in (None, "") or label == -1 for _, label in rows[split])
        if without and (split == "train" or without < len(rows[split])):
            raise DataError(
                f"{without:,} of the {len(rows[split]):,} {split} images in {str(root)!r} are "
                "without a label (below 0, or null).",
                "Leave them out.",
            )
        if without:
            notes.append(f"The {split} split has no labels: passed over.")
            del rows[split]
    names: Sequence[str] | None = known or None
    labels = {label for pairs in rows.values() for _, label in pairs}
    if any(isinstance(label, str) for label in labels):
        names = sorted({str(label) for label in labels})
        number = {name: index for index, name in enumerate(names)}
        for split, pairs in rows.items():
            rows[split] = [(piece, number[str(label)]) for piece, label in pairs]
    name, stamp = root.resolve().name, stamp_files(files)
    return _index_numbered(name, root, rows, read_parquet_row, notes, stamp, names)


def _renumber(
    labels: Sequence[int | str], given: Sequence[str], known: Sequence[str], file: Path
) -> list[int | str]:
    """Return the numbers that a file's labels have among the classes of all files."""
    beyond = [label for label in labels if isinstance(label, int) and label >= len(given)]
    if beyond:
        raise DataError(f"{str(file)!r} has a label {beyond[0]} and names {len(given)} classes.")
    if given == known[: len(given)]:  # two of ImageNet's classes may have one name, and stay two
        return [*labels]
    numbers = [known.index(name) for name in given]
    return [numbers[x] if isinstance(x, int) and x >= 0 else x for x in labels]


def _open_parquet(file: str | Path) -> Any:
    import pyarrow.parquet  # slow to import, and seldom needed

    opened = pyarrow.parquet.ParquetFile(file)  # type: ignore[no-untyped-call]
    check_parquet(opened.metadata)
    return opened


def _read_labels(file: Path) -> tuple[list[int | str], list[str]]:
    """Return the labels of a file and the names of the classes, none where its schema has none.

    A label that is null is -1.
    """
    try:
        table = _open_parquet(file)
        image, label = _find_columns(table)
        column = table.read([label]).column(label).to_pylist()
        labels = [-1 if v is None else v if isinstance(v, str) else _whole(v) for v in column]
        metadata = table.metadata
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        parts = [group.column(at) for group in groups for at in range(group.num_columns)]
        held = [part for part in parts if part.path_in_schema in (image, f"{image}.bytes")]
        # Nulls alone may be written without a type: as whole numbers without statistics.
        nulls = sum(
            part.statistics.null_count if part.statistics else part.num_values
            for part in held
            if part.statistics or part.physical_type != "BYTE_ARRAY"
        )
        features = parse_json((table.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
        names = features.get("info", {}).get("features", {}).get(label, {}).get("names")
        names = [str(name) for name in names or ()]
    except Exception as error:  # Arrow raises many types on broken files
        raise DataError(
            f"{str(file)!r} is not Parquet with the columns image and label "
            f"({' '.join(str(error).split())})."
        ) from None
    if labels and nulls >= len(labels):
        raise DataError(
            f"{str(file)!r} has the paths of images and not the images.",
            "Write their bytes into the column, or name the folder of the images.",
        )
    return labels, names


def _whole(label: float) -> int:
    """Return a label's number, -1 for all below 0; a ValueError where it is no whole number."""
    if label != int(label):
        raise ValueError(f"the label {label} is no whole number")
    return max(-1, int(label))


def _find_columns(table: Any) -> tuple[str, str]:
    """Return the names of the columns of images and of labels; a ValueError where one lacks."""
    import pyarrow as pa

    def holds_images(kind: Any) -> bool:
        if pa.types.is_struct(kind):
            return kind.get_field_index("bytes") >= 0
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    kinds = {field.name: field.type for field in table.schema_arrow}
    images = [name for name, kind in kinds.items() if holds_images(kind)]
    images = [name for name in IMAGE_COLUMNS if name in images] or images
    labels = [name for name in LABEL_COLUMNS if name in kinds]
    if not images or not labels:
        raise ValueError(f"it has the columns {', '.join(kinds)}")
    return images[0], labels[0]


def read_parquet_row(piece: FileSlice) -> bytes:
    """Read the image in row `offset`; row groups are read whole, and the last few are kept."""
    try:
        row = piece.offset
        for group, rows in enumerate(_count_rows(piece.file)):
            if row < rows:
                return _read_row_group(piece.file, group)[row]
            row -= rows
    except Exception as error:  # Arrow raises many types on broken files
        raise ImageError(f"Its row group cannot be read ({error}).") from None
    raise ImageError("The file became shorter while it was read.")


@lru_cache(maxsize=64)
def _count_rows(file: str) -> tuple[int, ...]:
    """Return the number of rows in each row group."""
    metadata = _open_parquet(file).metadata
    return tuple(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))


@lru_cache(maxsize=4)
def _read_row_group(file: str, group: int) -> Sequence[bytes]:
    table = _open_parquet(file)
    column = _find_columns(table)[0]
    images = table.read_row_group(group, [column]).column(column).to_pylist()
    return [(image.get("bytes") if isinstance(image, dict) else image) or b"" for image in images]


def is_cifar(slices: Iterable[FileSlice]) -> bool:
    """Whether these are the files of CIFAR-10 or CIFAR-100, binary or Python."""
    names = {PurePosixPath(piece.name).name for piece in slices}
    binary = names & CIFAR_BINARY_NAMES and names & {"test_batch.bin", "test.bin"}
    return bool(binary or (names & CIFAR_PYTHON_NAMES and names & {"test_batch", "test"}))


def list_cifar(contents: Contents) -> Source:
    """List the images of CIFAR-10, or of CIFAR-100 by its hundred fine classes."""
    name, reader = contents.name, contents.reader
    if reader not in (read_file, read_slice):
        raise DataError(f"{name!r} is CIFAR in a zip.", "Unpack it, and name the folder.")
    files = {PurePosixPath(piece.name).name: piece for piece in contents.files}
    binary = files.keys() & CIFAR_BINARY_NAMES
    classes, batches = (_list_cifar_binary if binary else _list_cifar_python)(files, reader)
    found: dict[str, list[tuple[FileSlice, int]]] = defaultdict(list)
    for batch, step, labels in batches:
        split = "test" if batch.name.startswith("test") else "train"
        if labels.size and not 0 <= labels.min() <= labels.max() < len(classes):
            raise DataError(f"{batch.name!r} of {name!r} has labels that name no class.")
        for row, label in enumerate(labels.tolist()):
            start = batch.offset + row * step
            image = FileSlice(f"{batch.name}/{row}", batch.file, start, CIFAR_IMAGE)
            found[split].append((image, label))
    splits = {split: SampleIndex.of(read_planes, rows) for split, rows in sorted(found.items())}
    return contents.source(classes, splits, contents.files)


# Of each file: its first image, the bytes from one image to the next, the labels.
CifarBatches = list[tuple[FileSlice, int, NDArray[np.integer]]]


def _list_cifar_binary(
    files: Mapping[str, FileSlice], reader: Reader
) -> tuple[tuple[str, ...], CifarBatches]:
    names = next(files[name] for name in sorted(CIFAR_BINARY_NAMES) if name in files)
    classes = tuple(reader(names).decode("ascii", "replace").split())
    before = 2 if len(classes) == 100 else 1  # bytes of labels: the coarse one, then the fine one
    record = before + CIFAR_IMAGE
    batches: CifarBatches = []
    for name, piece in sorted(files.items()):
        if not name.endswith(".bin"):
            continue
        data = np.frombuffer(reader(piece), np.uint8)
        if not len(data) or len(data) % record:
            raise DataError(
                f"{name!r} in {piece.file!r} has {len(data):,} bytes, no multiple of {record:,}.",
                "Download it again.",
            )
        labels = data.reshape(-1, record)[:, before - 1].astype(np.int64)
        file = piece.file if piece.length >= 0 else str(Path(piece.file, piece.name))
        first = FileSlice(name.removesuffix(".bin"), file, piece.offset + before)
        batches.append((first, record, labels))
    return classes, batches


def _list_cifar_python(
    files: Mapping[str, FileSlice], reader: Reader
) -> tuple[tuple[str, ...], CifarBatches]:
    """Read the pickles; their pixels are written to the cache once, for workers to read there."""
    names = next(files[name] for name in sorted(CIFAR_PYTHON_NAMES) if name in files)
    about = _read_pickle(names, reader)
    given = about.get(b"label_names") or about.get(b"fine_label_names") or ()
    classes = tuple(name.decode("utf-8", "replace") for name in given)
    batches: CifarBatches = []
    for name, piece in sorted(files.items()):
        if not name.startswith(("data_batch", "test", "train")):
            continue
        content = _read_pickle(piece, reader)
        data = content.get(b"data")
        labels = content.get(b"labels", content.get(b"fine_labels"))
        if (
            not isinstance(data, np.ndarray)
            or data.dtype != np.uint8
            or labels is None
            or data.shape != (len(labels), CIFAR_IMAGE)
        ):
            raise DataError(f"{name!r} in {piece.file!r} holds no images and labels of CIFAR.")
        pixels = data.tobytes()
        key = hashlib.sha256(pixels).hexdigest()
        kept = cache_folder() / "cifar" / f"{name}-{key[:12]}.planes"
        if not kept.is_file() or sha256(kept) != key:
            kept.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(kept, temporary_suffix()) as temporary:
                temporary.write_bytes(pixels)
        batches.append((FileSlice(name, str(kept)), CIFAR_IMAGE, np.array(labels, np.int64)))
    return classes, batches


def _read_pickle(piece: FileSlice, reader: Reader) -> dict[bytes, list[bytes]]:
    try:
        content = load_arrays(reader(piece))
    except DataError as error:
        raise DataError(f"{piece.name!r} in {piece.file!r} is not read: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"{piece.name!r} in {piece.file!r} is no batch of CIFAR.")
    return content


def read_planes(piece: FileSlice) -> bytes:
    """Read ``(3, 32, 32)`` bytes of a file, the planes of an image; return it as a PPM file."""
    planes = np.frombuffer(read_slice(piece), np.uint8).reshape(3, 32, 32)
    return b"P6 32 32 255\n" + planes.transpose(1, 2, 0).tobytes()
