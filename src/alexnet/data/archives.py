"""What a folder, a tar or a zip holds, listed in place: nothing is ever unpacked.

Names are kept for messages and labels alone; no file is written under one, so that an absolute
path or ``..`` in an archive reaches nothing.
"""

import gzip
import hashlib
import math
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from alexnet.data.listing import Place
from alexnet.errors import DataError
from alexnet.files import atomic_write, cache_folder

IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".avif"),
}
BLOCK = 512  # bytes of a tar


def is_image(place: Place) -> bool:
    """Whether a name ends like an image's; hidden files and what lies in hidden folders do not."""
    path = PurePosixPath(place.name)
    return path.suffix.lower() in IMAGE_SUFFIXES and all(part[0] != "." for part in path.parts)


def folder_places(root: Path) -> Iterator[Place]:
    """Yield the files below a folder, sorted; links to folders are not followed."""
    for folder, folders, files in os.walk(root):
        folders.sort()
        inside = os.path.relpath(folder, root)
        for name in sorted(files):
            path = name if inside == "." else f"{inside}{os.sep}{name}"
            yield Place(path.replace(os.sep, "/"), str(root))


def tar_places(file: Path, notes: list[str]) -> Iterator[Place]:
    """Yield the files in an uncompressed tar, in its order.

    What follows the last whole header of a tar that ends early cannot be known: a note is added
    that says so, and the images before it are used.

    Raises
    ------
    DataError
        When it is no uncompressed tar.
    """
    try:
        with tarfile.open(file, "r:") as tar:
            yield from _members(tar, file, notes, file.name)
    except (tarfile.TarError, OSError) as error:
        raise DataError(
            f"{str(file)!r} is no uncompressed tar ({error}).",
            "Unpack its compression first (gunzip), not the tar itself.",
        ) from None


def nested_tar_places(file: Path, notes: list[str]) -> Iterator[tuple[str, Place]]:
    """Yield the files in the tars in a tar, each with the inner tar's name without its ending."""
    with file.open("rb") as stream:
        for outer in list(tar_places(file, notes)):
            if not outer.name.endswith(".tar"):
                continue
            stream.seek(outer.offset)
            try:
                with tarfile.open(fileobj=stream, mode="r:") as tar:
                    name = f"{outer.name} in {file.name}"
                    for place in _members(tar, file, notes, name, outer.offset + outer.length):
                        yield PurePosixPath(outer.name).stem, place
            except tarfile.TarError as error:
                notes.append(f"{outer.name} in {file.name} is no tar ({error}): left out.")


def _members(
    tar: tarfile.TarFile, file: Path, notes: list[str], name: str, end: float = math.inf
) -> Iterator[Place]:
    """Yield the files of an open tar that lie before `end`; note where it stops too soon."""
    found = 0
    whole = False
    try:
        for member in tar:
            if member.offset_data + member.size > end:
                break
            if member.isreg():
                found += 1
                yield Place(_tidy(member.name), str(file), member.offset_data, member.size)
        else:
            tar.fileobj.seek(tar.offset)  # type: ignore[union-attr]
            whole = tar.fileobj.read(BLOCK) == bytes(BLOCK)  # type: ignore[union-attr]
    except (tarfile.ReadError, EOFError):
        pass
    if not whole:
        notes.append(
            f"{name} ends early or is damaged after {found:,} files, the last perhaps cut short: "
            "it may be an incomplete download."
        )


def zip_places(file: Path) -> Iterator[Place]:
    """Yield the files in a zip, in its order; `listing.read_zipped` reads them.

    Raises
    ------
    DataError
        When it is no zip, or ends early.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise DataError(f"{str(file)!r} is no whole zip ({error}).", "Download it again.") from None
    for member in members:
        if not member.is_dir() and not member.flag_bits & 1:  # 1: encrypted
            yield Place(
                _tidy(member.filename), str(file), member.header_offset, member.compress_size
            )


def without_top(places: Iterable[Place]) -> list[Place]:
    """Drop the folder that everything in an archive lies in, if there is one."""
    listed = list(places)
    tops = {place.name.split("/", 1)[0] for place in listed}
    if len(tops) != 1 or any("/" not in place.name for place in listed):
        return listed
    return [Place(p.name.split("/", 1)[1], p.file, p.offset, p.length) for p in listed]


def uncompressed(file: Path) -> Path:
    """Return a tar without its gzip compression, made once in the cache.

    Raises
    ------
    DataError
        When it is damaged or cut short.
    """
    about = file.stat()
    identity = f"{file.resolve()} {about.st_size} {about.st_mtime_ns}"
    key = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    target = cache_folder() / f"{file.name.split('.')[0]}-{key}.tar"
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            atomic_write(target) as temporary,
            gzip.open(file) as packed,
            temporary.open("wb") as out,
        ):
            shutil.copyfileobj(packed, out, 1 << 20)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{str(file)!r} is damaged or cut short ({error}).", "Download it again."
        ) from None
    return target


def _tidy(name: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    return "/".join(parts)
