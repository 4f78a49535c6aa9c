"""What a folder, a tar or a zip holds, listed and read in place: nothing is ever unpacked.

Names are kept for messages and labels alone; no file is written under one, so that an absolute
path or ``..`` in an archive reaches nothing.
"""

import gzip
import hashlib
import math
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from alexnet.bounds import MAX_IMAGE_BYTES
from alexnet.data.samples import FileSlice
from alexnet.errors import DataError, ImageError
from alexnet.files import atomic_write, cache_folder, lock

IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".avif"),
}
ZIP_HEADER = 30  # bytes before the name of a member


def is_image(piece: FileSlice) -> bool:
    """Whether a name ends like an image's; hidden files and what lies in hidden folders do not."""
    path = PurePosixPath(piece.name)
    return path.suffix.lower() in IMAGE_SUFFIXES and all(part[0] != "." for part in path.parts)


def list_folder(root: Path) -> Iterator[FileSlice]:
    """Yield the files below a folder, sorted; links to folders are not followed."""
    for folder, folders, files in os.walk(root):
        folders.sort()
        inside = os.path.relpath(folder, root)
        for name in sorted(files):
            path = name if inside == "." else f"{inside}{os.sep}{name}"
            yield FileSlice(path.replace(os.sep, "/"), str(root))


def list_tar(file: Path, notes: list[str]) -> Iterator[FileSlice]:
    """Yield the files in an uncompressed tar, in its order.

    What follows the last whole header of a tar that ends early cannot be known: a note is added
    that says so, and the images before it are used.
    """
    try:
        with tarfile.open(file, "r:") as tar:
            yield from _list_members(tar, file, notes, file.name)
    except (tarfile.TarError, OSError) as error:
        raise DataError(
            f"{str(file)!r} is no uncompressed tar ({error}).",
            "Unpack its compression first (gunzip), not the tar itself.",
        ) from None


def list_nested_tars(file: Path, notes: list[str]) -> Iterator[tuple[str, FileSlice]]:
    """Yield the files in the tars in a tar, each with the inner tar's name without its ending."""
    with file.open("rb") as stream:
        for outer in list(list_tar(file, notes)):
            if not outer.name.endswith(".tar"):
                continue
            stream.seek(outer.offset)
            try:
                with tarfile.open(fileobj=stream, mode="r:") as tar:
                    name = f"{outer.name} in {file.name}"
                    for piece in _list_members(tar, file, notes, name, outer.offset + outer.length):
                        yield PurePosixPath(outer.name).stem, piece
            except tarfile.TarError as error:
                notes.append(f"{outer.name} in {file.name} is no tar ({error}): left out.")


def _list_members(
    tar: tarfile.TarFile, file: Path, notes: list[str], name: str, end: float = math.inf
) -> Iterator[FileSlice]:
    """Yield the files of an open tar that lie before `end`; note where it stops too soon."""
    found = 0
    whole = False
    try:
        for member in tar:
            if member.offset_data + member.size > end:
                break
            if member.isreg():
                found += 1
                yield FileSlice(_normalise(member.name), str(file), member.offset_data, member.size)
        else:
            tar.fileobj.seek(tar.offset)  # type: ignore[union-attr]
            closing = tar.fileobj.read(tarfile.BLOCKSIZE)  # type: ignore[union-attr]
            whole = closing == bytes(tarfile.BLOCKSIZE)
    except (tarfile.ReadError, EOFError):
        pass
    if not whole:
        notes.append(
            f"{name} ends early or is damaged after {found:,} files, the last perhaps cut short: "
            "it may be an incomplete download."
        )


def list_zip(file: Path) -> Iterator[FileSlice]:
    """Yield the files in a zip, in its order; `read_zip_member` reads them."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise DataError(f"{str(file)!r} is no whole zip ({error}).", "Download it again.") from None
    for member in members:
        if not member.is_dir() and not member.flag_bits & 1:  # 1: encrypted
            name = _normalise(member.filename)
            yield FileSlice(name, str(file), member.header_offset, member.compress_size)


def strip_top_folder(slices: Iterable[FileSlice]) -> list[FileSlice]:
    """Drop the folder that everything in an archive lies in, if there is one."""
    listed = list(slices)
    tops = {piece.name.split("/", 1)[0] for piece in listed}
    if len(tops) != 1 or any("/" not in piece.name for piece in listed):
        return listed
    return [replace(piece, name=piece.name.split("/", 1)[1]) for piece in listed]


def decompress_tar(file: Path) -> Path:
    """Return a tar without its gzip compression, made once in the cache, by one process."""
    status = file.stat()
    identity = f"{file.resolve()} {status.st_size} {status.st_mtime_ns}"
    key = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    target = cache_folder() / f"{file.name.split('.')[0]}-{key}.tar"
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with lock(target.with_name(f".{target.name}.lock")):
            if target.is_file():
                return target
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


def read_file(piece: FileSlice) -> bytes:
    """Read a file of a folder."""
    return Path(piece.file, piece.name).read_bytes()


def read_slice(piece: FileSlice) -> bytes:
    """Read a piece of a file, as of an uncompressed member of a tar."""
    with Path(piece.file).open("rb", buffering=0) as stream:
        stream.seek(piece.offset)
        data = stream.read(piece.length)
    if len(data) < piece.length:
        raise ImageError(f"The archive {piece.file!r} ends before this image does.")
    return data


def read_zip_member(piece: FileSlice) -> bytes:
    """Read the member of a zip whose header is at `offset` and which is `length` bytes packed.

    It is found by its offset instead of by `zipfile`, which would read the whole directory of the
    zip in every worker.
    """
    header = read_slice(replace(piece, length=ZIP_HEADER))
    method, name_length, extra_length = struct.unpack("<8xH16xHH", header)
    start = piece.offset + ZIP_HEADER + name_length + extra_length
    data = read_slice(replace(piece, offset=start))
    if method == zipfile.ZIP_STORED:
        return data
    if method != zipfile.ZIP_DEFLATED:
        raise ImageError(f"It is packed by method {method}, which is not read here.")
    try:
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        data = unpacker.decompress(data, MAX_IMAGE_BYTES)
    except zlib.error as error:
        raise ImageError(f"It cannot be unpacked ({error}).") from None
    if unpacker.unconsumed_tail:
        raise ImageError("It unpacks to more bytes than any image has.")
    return data


def _normalise(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", ".", ".."))
