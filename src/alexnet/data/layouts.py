"""What the names in a folder or an archive mean: the layouts in which images are handed around.

Class folders, tables of labels, WebDataset, Parquet and CIFAR; ImageNet's own are in `imagenet`.
Most functions take what `archives` lists, whether it lies in a folder, a tar or a zip.
"""

import ast
import csv
import hashlib
import io
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.data.archives import (
    ARCHIVE_SUFFIXES,
    Contents,
    is_image,
    read_file,
    read_slice,
)
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
LABEL_TABLE = "labels.csv"
FILE_COLUMNS = ("file", "file_name", "filename", "image", "image_id", "id", "path")
LABEL_COLUMNS = ("label", "class", "category", "labels")
NAMED_IMAGE = re.compile(r"([^\W\d_][^.]*)\.\d+\.[^.]+")  # cat.0.jpg
MOST_CLASS_BYTES = 1 << 24  # of a list of names
NUMBERED_NAME = re.compile(r"\s*(\d+)\s*[:,;\s]\s*(.*\S)\s*")  # 0: cat
CIFAR_IMAGE = 3 * 32 * 32  # bytes
CIFAR_BINARY_NAMES = {"batches.meta.txt", "fine_label_names.txt"}
CIFAR_PYTHON_NAMES = {"batches.meta", "meta"}

Folder = tuple[str, ...]  # its name after those of the folders that it lies in
Grouped = dict[str, defaultdict[str, list[FileSlice]]]  # by split and class


def list_class_folders(contents: Contents) -> Source:
    """List images whose class is told by their folder, or by their own names.

    ``docs/data.md`` says which folders are splits and which are classes; `FolderLayout` decides.
    """
    images = contents.take_images()
    if not images:
        raise _no_images(contents)
    top = _find_top({_folder(piece.name) for piece in images})
    images = [_strip(piece, top, contents) for piece in images]
    folders = {_folder(piece.name) for piece in images}
    layout = FolderLayout.of(folders, contents.name)
    places = {folder: layout.place(folder) for folder in folders}
    found = group_by_class(layout.splits.values() or ["train"])
    loose: dict[str, list[FileSlice]] = defaultdict(list)
    for piece in images:
        split, label, _ = places[_folder(piece.name)]
        (found[split][label] if label else loose[split]).append(piece)
    if not any(found.values()):
        _group_by_name(found, loose, contents)
    for split, pieces in loose.items():
        why = "lies in no class folder" if split else "lies beside the splits"
        contents.passed_over[why] += [piece.name for piece in pieces]
        if split and not found[split]:
            contents.notes.append(f"The {split} split has no labels: passed over.")
    start = "".join(f"{name}/" for name in top)
    listed = [_folder(f.removeprefix(start)) for f in contents.folders if f.startswith(start)]
    contents.notes.extend(_describe_folders(places, map(layout.place, listed)))
    return index_classes(contents, found, images)


def _folder(name: str) -> Folder:
    return tuple(name.split("/")[:-1])


def _no_images(contents: Contents) -> DataError:
    """Return the error of a source without an image; one of archives is named for what it is."""
    archives = [piece.name for piece in contents.files if piece.name.endswith(ARCHIVE_SUFFIXES)]
    fix = "It should hold one folder of images a class."
    if archives:
        fix = f"Name the archive that it holds, {archives[0]!r}, unpacked from this one."
    if "encrypted" in contents.passed_over:
        fix = "Unpack it with its password, and name the folder."
    return DataError(f"No images were found in {contents.name!r}. {contents.describe()}", fix)


def _strip(piece: FileSlice, top: Folder, contents: Contents) -> FileSlice:
    """Return a slice under its name below the folder `top`, in which all images lie."""
    if not top:
        return piece
    name = "/".join(piece.name.split("/")[len(top) :])
    file = piece.file if contents.archive else "/".join((piece.file, *top))
    return replace(piece, name=name, file=file)


def _find_top(folders: set[Folder]) -> Folder:
    """Return the folder in which splits or classes lie: all images lie in it, in folders below."""
    top: Folder = ()
    while True:
        below = {folder[len(top) :] for folder in folders}
        firsts = {folder[:1] for folder in below}
        (first, *others) = firsts
        if others or not first or below == {first} or tell_split(first[0]):
            return top
        top += first


@dataclass(frozen=True, slots=True)
class FolderLayout:
    """What the top folders of images are: splits, with classes below them, or classes."""

    splits: Mapping[str, str]  # of each top folder that is one: train, val or test
    doubled: frozenset[str] = frozenset()  # splits in folders of their own name: train/train/CLASS
    inverted: bool = False  # classes, with splits below each

    @classmethod
    def of(cls, folders: Iterable[Folder], name: str) -> "FolderLayout":
        """Return the layout of all folders of images; a DataError where it contradicts itself."""
        inside: dict[str, set[str]] = {}
        for folder in folders:
            for first in folder[:1]:
                inside.setdefault(first, set()).update(folder[1:2])
        splits = _find_splits(inside)
        for split in splits.values():
            if len(twice := [escape(top) for top in splits if splits[top] == split]) > 1:
                raise DataError(
                    f"{name!r} has more than one of {split}: {', '.join(twice)}.",
                    "Keep one of them.",
                )
        if splits and "train" not in splits.values():
            raise DataError(
                f"{name!r} has {next(iter(splits))!r} and no 'train'.",
                "Name the training folder 'train'.",
            )
        if splits or len(inside) < 2 or len(set.intersection(*inside.values())) < 2:
            told = {top for top in splits if [*map(find_split, inside[top])] == [splits[top]]}
            return cls(splits, frozenset(told))
        shared = set.union(*inside.values())
        if all(map(tell_split, shared)) and not any(len(folder) > 2 for folder in folders):
            return cls({name: tell_split(name) or "" for name in shared}, inverted=True)
        raise DataError(
            f"{' and '.join(repr(escape(top)) for top in sorted(inside)[:2])} in {name!r} hold "
            f"folders of the same names ({', '.join(map(escape, sorted(shared)[:3]))}): they are "
            "no classes.",
            f"Name them train, val and test, or write a {LABEL_TABLE} (file,label) beside them.",
        )

    def place(self, folder: Folder) -> tuple[str, str, str]:
        """Return the split and the class of a folder, and the folder inside it; "" for none."""
        if self.inverted:
            folder = (*folder[1:2], *folder[:1])
        if not self.splits:
            split, below = "train", folder
        else:
            split = self.splits.get(folder[0], "") if folder else ""
            below = folder[2:] if folder and folder[0] in self.doubled else folder[1:]
        label, inner, *_ = (*below, "", "")
        return split, label if split else "", inner


def _find_splits(inside: Mapping[str, set[str]]) -> dict[str, str]:
    """Return which top folders are splits, given the folders inside each.

    A folder with the name of a split and class folders below it is one, or if there are no others.
    ``seg_train`` is one beside ``seg_test``, where nothing else has folders below it.
    """
    named = {top: split for top in sorted(inside) if (split := tell_split(top))}
    deep = [top for top in sorted(inside) if inside[top]]
    told = {top: split for top in deep if (split := find_split(top))}
    if len(named) == len(inside):
        return named
    if len(told) == len(deep) and len(set(told.values())) > 1:
        return told
    return {top: split for top, split in named.items() if inside[top]}


def _group_by_name(found: Grouped, loose: dict[str, list[FileSlice]], contents: Contents) -> None:
    """Group images that lie in no class folder by their names: ``cat.0.jpg``, ``dog.0.jpg``."""
    told = {
        split: [NAMED_IMAGE.fullmatch(PurePosixPath(piece.name).name) for piece in pieces]
        for split, pieces in loose.items()
    }
    if not all(told.get("train", [None])) or len({m[1] for m in told["train"] if m}) < 2:
        raise DataError(
            f"The images of {contents.name!r} lie in no class folders.",
            "Put the images of each class into a folder of its own, or write a "
            f"{LABEL_TABLE} (file,label) beside them.",
        )
    for split, matches in told.items():
        if all(matches):
            for piece, match in zip(loose.pop(split), matches, strict=True):
                found.setdefault(split, defaultdict(list))[match[1]].append(piece)  # type: ignore[index]
    contents.notes.append(f"Classes are told by the names of files: {', '.join(found['train'])}.")


def _describe_folders(
    places: Mapping[Folder, tuple[str, str, str]], listed: Iterable[tuple[str, str, str]]
) -> Iterator[str]:
    """Say which folders make no class, having no image, and which are joined with one above."""
    inner: dict[str, set[str]] = defaultdict(set)
    for split, label, inside in places.values():
        if split == "train":
            inner[label].add(inside)
    empty = {label for split, label, _ in listed if split == "train"} - {*inner, ""}
    if empty:
        names = ", ".join(map(escape, sorted(empty)))
        yield f"No class is made of folders without an image: {names}."
    if joined := [label for label in sorted(inner) if len(inner[label] - {""}) > 1]:
        names = ", ".join(map(escape, sorted(inner[joined[0]] - {""})[:3]))
        more = f" (and {len(joined) - 1} more classes)" if joined[1:] else ""
        yield f"Folders below a class belong to it: {names} to {escape(joined[0])}{more}."


def group_by_class(splits: Iterable[str]) -> Grouped:
    """Return empty groups of images by split and class, to be filled."""
    return {split: defaultdict(list) for split in splits}


def index_classes(contents: Contents, found: Grouped, images: Sequence[FileSlice]) -> Source:
    """Return the source of images that are grouped by split and class.

    A class is spelled as in the training split; another spelling in Unicode is the same name.
    """
    spelled: dict[str, str] = {}
    for split in sorted(found, key=lambda split: split != "train"):
        for label in sorted(found[split]):
            same = spelled.setdefault(unicodedata.normalize("NFC", label), label)
            if same != label:
                found[split][same] += found[split].pop(label)
    classes = tuple(sorted(found["train"]))
    splits = {}
    for split, by_class in found.items():
        for extra in sorted(by_class.keys() - set(classes)):
            raise DataError(
                f"Class {escape(extra)!r} of the {split} split of {contents.name!r} has no "
                "training image.",
                "Add some to the train folder, or remove the class.",
            )
        if not by_class:
            continue
        if missing := [escape(label) for label in classes if label not in by_class]:
            contents.notes.append(f"The {split} split has no image of: {', '.join(missing)}.")
        splits[split] = SampleIndex.of(contents.reader, label_in_order(classes, by_class))
    return contents.source(tuple(map(escape, classes)), splits, images)


def label_in_order(
    classes: Sequence[str], by_class: Mapping[str, Sequence[FileSlice]]
) -> Iterator[tuple[FileSlice, int]]:
    """Yield images with their labels: class by class, each in the order of the names."""
    for label, name in enumerate(classes):
        for piece in sorted(by_class.get(name, ()), key=lambda piece: piece.name):
            yield piece, label


def list_label_table(contents: Contents, table: FileSlice) -> Source:
    """List images whose labels a table has: ``labels.csv``, with a column ``split`` or without.

    A file is named by its path from the table's folder, or by its name alone where no other file
    has it, with its ending or without. Splits are those of the column, or else of top folders.
    """
    contents = contents.below(table.name.removesuffix(LABEL_TABLE))
    images = contents.take_images(used=(LABEL_TABLE,))
    where: dict[str, set[int]] = defaultdict(set)  # numbers of images, by what they may be called
    for number, piece in enumerate(images):
        path = PurePosixPath(piece.name)
        for called in (piece.name, str(path.with_suffix("")), path.name, path.stem):
            where[called].add(number)
    layout = FolderLayout(_find_splits({f[0]: set() for p in images if (f := _folder(p.name))}))
    found = group_by_class(["train"])
    lines: dict[int, tuple[int, str]] = {}  # of images that are labelled: their line and label
    for line, (file, label, split) in _read_label_table(contents, table):
        numbers = where.get("/".join(part for part in file.split("/") if part not in ("", ".")))
        if not numbers or not label:
            why = (
                f"has no label in {LABEL_TABLE}" if numbers else f"is named in {LABEL_TABLE} alone"
            )
            contents.passed_over[why].append(file)
            continue
        number = min(numbers, key=lambda number: (images[number].name != file, number))
        if len(numbers) > 1 and images[number].name != file:
            raise DataError(
                f"Line {line} of {table.name!r} in {contents.name!r} may mean "
                f"{len(numbers)} files, {images[number].name!r} and another.",
                "Write their paths from the table's folder.",
            )
        if lines.setdefault(number, (line, label))[1] != label:
            raise DataError(
                f"{table.name!r} in {contents.name!r} labels {file!r} as "
                f"{lines[number][1]!r} in line {lines[number][0]} and as {label!r} in line {line}.",
                "Keep one of them.",
            )
        if lines[number][0] == line:
            split = tell_split(split) or layout.place(_folder(images[number].name))[0] or "train"
            found.setdefault(split, defaultdict(list))[label].append(images[number])
    if not lines:
        raise DataError(
            f"{table.name!r} in {contents.name!r} labels no image that is there.",
            "Name each by its path from the table's folder.",
        )
    unlabelled = [piece.name for n, piece in enumerate(images) if n not in lines]
    contents.passed_over[f"is not in {LABEL_TABLE}"] += unlabelled
    return index_classes(contents, found, [images[number] for number in sorted(lines)])


def _read_label_table(
    contents: Contents, table: FileSlice
) -> Iterator[tuple[int, tuple[str, str, str]]]:
    """Yield the file, the label and the split in each row of a table, with its line's number."""
    try:
        text = contents.reader(table).decode("utf-8-sig")
        delimiter = max(",;\t", key=text.partition("\n")[0].count)
        rows = csv.DictReader(io.StringIO(text), delimiter=delimiter)
        columns = {(name or "").strip().lower(): name for name in rows.fieldnames or ()}
        files = [columns[name] for name in FILE_COLUMNS if name in columns]
        labels = [columns[name] for name in LABEL_COLUMNS if name in columns]
        if not files or not labels:
            raise DataError(
                f"{table.name!r} in {contents.name!r} has no columns 'file' and 'label'.",
                "Its first line should be: file,label",
            )
        for row in rows:
            fields = (
                row[files[0]],
                row[labels[0]],
                row[columns["split"]] if "split" in columns else "",
            )
            file, label, split = ((field or "").strip() for field in fields)
            yield rows.line_num, (file.replace("\\", "/"), label, split)
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise DataError(
            f"{table.name!r} in {contents.name!r} is no table of text ({error}).",
            "Save it as CSV in UTF-8.",
        ) from None


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
    of one key that follow one another, as WebDataset itself reads them.
    """
    parts = [(*_split_key(piece.name), piece) for piece in pieces]
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
    if extra := used - {label for _, label in rows.get("train", ())}:
        raise DataError(
            f"Class {told[min(extra)]!r} of {str(folder)!r} has no training image.",
            "Add some, or remove the class.",
        )
    if names and len(told) < len(names):
        lacking = [name for label, name in enumerate(names) if label not in told]
        notes = [*notes, f"No class is made of names without an image: {', '.join(lacking)}."]
    number = {label: index for index, label in enumerate(told)}
    splits = {
        split: SampleIndex.of(reader, ((piece, number[label]) for piece, label in pairs))
        for split, pairs in rows.items()
    }
    return Source(name, tuple(map(escape, told.values())), splits, tuple(notes), stamp)


def read_class_list(path: Path) -> list[str]:
    """Read the names of classes: one a line, or numbered from 0, or a Python or JSON list or dict.

    Raises
    ------
    DataError
        When it is no such list, or has a name twice; with the lines.
    """
    try:
        text = path.read_bytes()[:MOST_CLASS_BYTES].decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{str(path)!r} cannot be read ({error}).", "Save it in UTF-8.") from None
    names = _parse_literal(text) or [line.strip() for line in text.splitlines()]
    while names and not names[-1]:
        names.pop()
    numbered = [NUMBERED_NAME.fullmatch(name) for name in names]
    if names and all(numbered):
        by_number = {int(m[1]): m[2].strip("'\",") for m in numbered if m}
        if by_number.keys() == set(range(len(names))):
            names = [by_number[number] for number in range(len(names))]
    lines: dict[str, int] = {}
    for line, name in enumerate(names, 1):
        if not name or lines.setdefault(name, line) != line:
            wrong = (
                f"{name!r} in lines {lines[name]} and {line}" if name else f"no name in line {line}"
            )
            raise DataError(f"{str(path)!r} has {wrong}.", "Give each class a name of its own.")
    return names


def _parse_literal(text: str) -> list[str]:
    """Return the names in a list or a dict by number; nothing where the text is neither."""
    try:
        value = ast.literal_eval(text.strip()) if text.lstrip()[:1] in ("[", "{") else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    if isinstance(value, dict):
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
    names: Sequence[str] | None = None
    kinds = set()
    for file in files:
        inside = file.relative_to(root).with_suffix("")
        folders = [name for name in inside.parts[:-1] if name != "data"]
        told = [split for split in (find_split(file.stem), *map(tell_split, folders)) if split]
        if told:
            labels, given = _read_labels(file)
            names = names or given
            kinds.add(tuple(name for name in folders if not tell_split(name)))
            shown = inside.as_posix() if folders else file.stem
            rows[told[0]] += [
                (FileSlice(f"{shown}/{row}", str(file), row), label)
                for row, label in enumerate(labels)
            ]
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
    notes = []
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
    texts = {label for pairs in rows.values() for _, label in pairs if isinstance(label, str)}
    if texts:
        names = sorted(texts)
        number = {name: index for index, name in enumerate(names)}
        rows = {s: [(p, number[str(label)]) for p, label in pairs] for s, pairs in rows.items()}  # type: ignore[assignment]
    name, stamp = root.resolve().name, stamp_files(files)
    return _index_numbered(name, root, rows, read_parquet_row, notes, stamp, names)


def _open_parquet(file: str | Path) -> Any:
    import pyarrow.parquet  # slow to import, and seldom needed

    return pyarrow.parquet.ParquetFile(file)  # type: ignore[no-untyped-call]


def _read_labels(file: Path) -> tuple[list[int | str], Sequence[str] | None]:
    """Return the labels of a file and, where its schema has them, the names of the classes.

    A label that is null is -1.
    """
    try:
        table = _open_parquet(file)
        image, label = _find_columns(table)
        column = table.read([label]).column(label).to_pylist()
        labels = [-1 if v is None else v if isinstance(v, str) else max(-1, int(v)) for v in column]
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
        features = json.loads((table.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
        names = features.get("info", {}).get("features", {}).get(label, {}).get("names")
        names = [str(name) for name in names] if names else None
    except Exception as error:  # Arrow raises many types on broken files
        raise DataError(
            f"{str(file)!r} is not Parquet with the columns image and label ({error})."
        ) from None
    if labels and nulls >= len(labels):
        raise DataError(
            f"{str(file)!r} has the paths of images and not the images.",
            "Write their bytes into the column, or name the folder of the images.",
        )
    return labels, names


def _find_columns(table: Any) -> tuple[str, str]:
    """Return the names of the columns of images and of labels; a ValueError where one lacks."""
    import pyarrow as pa

    def holds_images(kind: Any) -> bool:
        if pa.types.is_struct(kind):
            return kind.get_field_index("bytes") >= 0
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    kinds = {field.name: field.type for field in table.schema_arrow}
    images = [name for name, kind in kinds.items() if holds_images(kind)]
    images = [name for name in ("image", "img") if name in images] or images
    labels = [name for name in (*LABEL_COLUMNS, "fine_label") if name in kinds]
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
