"""Class folders, and flat folders whose labels a table or the files' names have.

Which folders are splits and which are classes is decided here, in `FolderLayout`, whether they lie
on the disk, in a tar or in a zip.
"""

import csv
import io
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from alexnet.data.archives import ARCHIVE_SUFFIXES, Contents, is_image
from alexnet.data.samples import (
    FileSlice,
    SampleIndex,
    Source,
    describe_counts,
    escape,
    find_split,
    tell_split,
)
from alexnet.errors import DataError

LABEL_TABLE = "labels.csv"
TABLE_FILES = ("file", "file_name", "filename", "image", "image_id", "id", "path")
TABLE_LABELS = ("label", "class", "category", "labels")
NAMED_IMAGE = re.compile(r"([^\W\d_][^.]*)\.\d+\.[^.]+")  # cat.0.jpg

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


def has_class_folders(contents: Contents) -> bool:
    """Whether the images lie in folders of two classes or more."""
    folders = {_folder(piece.name) for piece in contents.files if is_image(piece)}
    if not folders:
        return False
    top = len(_find_top(folders))
    try:
        layout = FolderLayout.of({folder[top:] for folder in folders}, contents.name)
    except DataError:
        return False
    return len({layout.place(folder[top:])[1] for folder in folders} - {""}) > 1


def _folder(name: str) -> Folder:
    return tuple(name.split("/")[:-1])


def _compose(name: str) -> str:
    """Return a name in the one form of Unicode in which names are compared."""
    return unicodedata.normalize("NFC", name)


def _no_images(contents: Contents) -> DataError:
    """Return the error of a source without an image; one of archives is named for what it is."""
    archives = [piece.name for piece in contents.files if piece.name.endswith(ARCHIVE_SUFFIXES)]
    fix = "It should hold one folder of images a class."
    if archives:
        fix = f"Name the archive that it holds, {archives[0]!r}, unpacked from this one."
    if "encrypted" in contents.passed_over:
        fix = "Unpack it with its password, and name the folder."
    held = describe_counts({kind: len(names) for kind, names in contents.passed_over.items()})
    held = f"What it holds: {held}." if held else "It is empty."
    return DataError(f"No images were found in {contents.name!r}. {held}", fix)


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
    def of(cls, folders: Collection[Folder], name: str) -> "FolderLayout":
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
        if splits or len(inside) < 2 or len(set.intersection(*inside.values())) < 2:
            lone = {top: next(iter(inside[top])) for top in splits if len(inside[top]) == 1}
            if len(lone) == len(splits) and len(set(lone.values())) == 1:  # train/images/CLASS
                told = {top for top in splits if any(f[0] == top for f in folders if len(f) > 2)}
            else:
                told = {top for top, name in lone.items() if find_split(name) == splits[top]}
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
        more = f", and so in {len(joined)} classes" if joined[1:] else ""
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
            same = spelled.setdefault(_compose(label), label)
            if same != label:
                found[split][same] += found[split].pop(label)
    classes = tuple(sorted(found["train"] if "train" in found else set().union(*found.values())))
    if not any(found.values()):
        raise _no_images(contents)
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
    folder, _, name = table.name.rpartition("/")
    contents = contents.below(f"{folder}/" if folder else "")
    images = contents.take_images(used=(name,))
    where: dict[str, set[int]] = defaultdict(set)  # numbers of images, by what they may be called
    for number, piece in enumerate(images):
        path = PurePosixPath(piece.name)
        for called in (piece.name, str(path.with_suffix("")), path.name, path.stem):
            where[_compose(called)].add(number)
    layout = FolderLayout(_find_splits({f[0]: set() for p in images if (f := _folder(p.name))}))
    found = group_by_class(["train"])
    lines: dict[int, tuple[int, str, str]] = {}  # of images that are labelled: line, label, split
    for line, (file, label, split) in _read_label_table(contents, table):
        numbers = where.get(_compose(file.removeprefix("./")))
        if not numbers or not label:
            why = f"has no label in {name}" if numbers else f"is named in {name} alone"
            contents.passed_over[why].append(file)
            continue
        number = min(numbers, key=lambda number: (images[number].name != file, number))
        if len(numbers) > 1 and images[number].name != file:
            raise DataError(
                f"Line {line} of {table.name!r} in {contents.name!r} may mean "
                f"{len(numbers)} files, {images[number].name!r} and another.",
                "Write their paths from the table's folder.",
            )
        told = tell_split(split)
        if split and not told:
            raise DataError(
                f"Line {line} of {table.name!r} in {contents.name!r} has the split {split!r}.",
                "Call it train, val or test, or leave the column out.",
            )
        told = told or layout.place(_folder(images[number].name))[0] or "train"
        first, *before = lines.setdefault(number, (line, label, told))
        for verb, was, now in zip(("labels", "has"), before, (label, told), strict=True):
            if was != now:
                raise DataError(
                    f"{table.name!r} in {contents.name!r} {verb} {file!r} as {was!r} in line "
                    f"{first} and as {now!r} in line {line}.",
                    "Keep one of them.",
                )
        if first == line:
            found.setdefault(told, defaultdict(list))[label].append(images[number])
    if not lines:
        raise DataError(
            f"{table.name!r} in {contents.name!r} labels no image that is there.",
            "Name each by its path from the table's folder.",
        )
    unlabelled = [piece.name for n, piece in enumerate(images) if n not in lines]
    contents.passed_over[f"is not in {name}"] += unlabelled
    return index_classes(contents, found, [images[number] for number in sorted(lines)])


def _read_label_table(
    contents: Contents, table: FileSlice
) -> Iterator[tuple[int, tuple[str, str, str]]]:
    """Yield the file, the label and the split in each row of a table, with its line's number."""
    try:
        text = contents.reader(table).decode("utf-8-sig")
        delimiter = max(",;\t", key=text.partition("\n")[0].count)
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        columns = {(name or "").strip().lower(): name for name in rows.fieldnames or ()}
        files = [columns[name] for name in TABLE_FILES if name in columns]
        labels = [columns[name] for name in TABLE_LABELS if name in columns]
        if not files or not labels:
            raise DataError(
                f"{table.name!r} in {contents.name!r} has no columns 'file' and 'label'.",
                "Its first line should be: file,label",
            )
        named = files[0], labels[0], columns.get("split")
        for row in rows:
            file, label, split = (((name and row[name]) or "").strip() for name in named)
            yield rows.line_num, (file.replace("\\", "/"), label, split)
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise DataError(
            f"{table.name!r} in {contents.name!r} is no table of text ({error}).",
            "Save it as CSV in UTF-8.",
        ) from None
