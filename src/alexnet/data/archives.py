"""What a folder, a tar or a zip holds, listed and read in place: nothing is ever unpacked.

Names are kept for messages and labels alone; no file is written under one, so that an absolute
path or ``..`` in an archive reaches nothing.
"""

import gzip
import hashlib
import math
import os
import posixpath
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from itertools import repeat
from pathlib import Path, PurePosixPath

from alexnet.bounds import MAX_IMAGE_BYTES, MAX_LINKED
from alexnet.data.samples import FileSlice, Reader, SampleIndex, Source, stamp_files
from alexnet.errors import DataError, ImageError
from alexnet.files import atomic_write, cache_folder, lock

IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".avif"),
}
HEIF_SUFFIXES = {".heic", ".heif", ".hif"}  # what telephones write
# Folders of systems, which are not hidden by their names.
HIDDEN_NAMES = {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found"}
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz")
ZIP_HEADER = 30  # bytes before the name of a member
SPARSE = -2  # the length of a slice that is a sparse member of a tar, from its header on
MAX_LINKS = 40  # that are followed to one file, as in Linux


def reason_to_pass_over(name: str) -> str:
    """Return why a file is no image of a data set, by its name; nothing where it is one."""
    path = PurePosixPath(name)
    if any(part[0] == "." or part in HIDDEN_NAMES for part in path.parts):
        return "hidden"
    ending = path.suffix.lower()
    if ending in IMAGE_SUFFIXES or (ending in HEIF_SUFFIXES and find_spec("pillow_heif")):
        return ""
    if ending in HEIF_SUFFIXES:
        return f"ends in {ending} (pip install 'alexnet[heic]' reads it)"
    return f"ends in {ending}" if ending else "has no ending"


def is_image(piece: FileSlice) -> bool:
    """Whether a name ends like an image's; hidden files and what lies in hidden folders do not."""
    return not reason_to_pass_over(piece.name)


@dataclass(frozen=True, slots=True)
class Contents:
    """What a folder, a tar or a zip holds, and how to read it."""

    name: str  # of the data set
    reader: Reader
    files: list[FileSlice]
    archive: Path | None = None  # the file that was named; None for a folder
    folders: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    passed_over: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def take_images(self, used: Collection[str] = ()) -> list[FileSlice]:
        """Return the images; what is none, and not `used` otherwise, is passed over."""
        images = []
        for piece in self.files:
            reason = reason_to_pass_over(piece.name)
            if not reason:
                images.append(piece)
            elif piece.name not in used:
                self.passed_over[reason].append(piece.name)
        return images

    def below(self, top: str) -> "Contents":
        """Return what lies below a folder, ``top/``, under shorter names."""
        if not top:
            return self
        inside = [piece for piece in self.files if piece.name.startswith(top)]
        for piece in self.files:
            if not piece.name.startswith(top):
                why = reason_to_pass_over(piece.name) or "lies beside the data"
                self.passed_over[why].append(piece.name)
        files = [replace(piece, name=piece.name.removeprefix(top)) for piece in inside]
        if self.archive is None:
            files = [replace(piece, file=f"{piece.file}/{top[:-1]}") for piece in files]
        folders = [name.removeprefix(top) for name in self.folders if name.startswith(top)]
        return replace(self, files=files, folders=folders)

    def stamp(self, pieces: Iterable[FileSlice]) -> str:
        """Return the stamp of the files that slices lie in."""
        if self.archive is not None:
            return stamp_files(repeat(self.archive, sum(1 for _ in pieces)))
        return stamp_files(Path(piece.file, piece.name) for piece in pieces)

    def source(
        self, classes: tuple[str, ...], splits: dict[str, SampleIndex], used: Iterable[FileSlice]
    ) -> Source:
        """Return the source of some images, whose files are `used`."""
        notes, passed_over = tuple(self.notes), dict(self.passed_over)
        return Source(self.name, classes, splits, notes, self.stamp(used), passed_over)


def list_folder(root: Path) -> Contents:
    """List the files below a folder, sorted.

    Links are followed; one to a folder that it lies in, and one in a folder that is a link itself,
    are passed over, so that there is no end that is not reached.
    """
    contents = Contents(root.resolve().name, read_file, [])
    real = os.path.realpath(root)
    left = [("", False)]  # folders to be listed, and whether they are reached by a link
    while left:
        inside, linked = left.pop()
        folders = []
        for entry in _scan(Path(root, inside), inside, contents):
            name = inside + entry.name
            kind = _tell_kind(entry)
            if kind == "file":
                contents.files.append(FileSlice(name, str(root)))
            elif kind != "folder":
                contents.passed_over[kind].append(name)
            elif reason_to_pass_over(name) == "hidden":
                contents.passed_over["hidden"].append(f"{name}/")
            elif entry.is_symlink() and (
                linked or Path(real, inside).is_relative_to(os.path.realpath(entry.path))
            ):
                contents.passed_over["link that leads around"].append(name)
            else:
                folders.append((f"{name}/", linked or entry.is_symlink()))
        contents.folders.extend(name for name, _ in folders)
        left += reversed(folders)
    return contents


def _scan(folder: Path, name: str, contents: Contents) -> "list[os.DirEntry[str]]":
    """Return what lies in a folder, sorted; one inside that cannot be read is passed over."""
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        contents.passed_over[f"folder that cannot be read ({error.strerror})"].append(name)
        return []


def _tell_kind(entry: "os.DirEntry[str]") -> str:
    """Return ``file`` or ``folder``, links followed, or why it is neither."""
    try:
        if entry.is_file() or entry.is_dir():
            return "file" if entry.is_file() else "folder"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "link to nothing" if entry.is_symlink() else "no regular file"


def list_tar(file: Path) -> Contents:
    """List the files in a tar, or a tar.gz, in its order; links within it are followed.

    What follows the last whole header of a tar that ends early cannot be known: a note is added
    that says so, and the images before it are used.
    """
    tar_file = file if file.suffix == ".tar" else decompress_tar(file)
    contents = Contents(file.name.split(".")[0], read_slice, [], file)
    try:
        with tarfile.open(tar_file, "r:") as tar:
            links: dict[str, str] = {}
            members = _list_members(tar, tar_file, contents, file.name, links=links)
            contents.files.extend(members)
            _follow_links(contents, links)
    except (tarfile.TarError, OSError, *ODD_TAR) as error:
        raise DataError(
            f"{str(file)!r} is no uncompressed tar ({error}).",
            "Unpack its compression first (gunzip), not the tar itself.",
        ) from None
    return contents


ODD_TAR = (ValueError, OverflowError, MemoryError, RecursionError)  # of tarfile, on wrong headers


def list_nested_tars(file: Path, notes: list[str]) -> Iterator[tuple[str, FileSlice]]:
    """Yield the files in the tars in a tar, each with the inner tar's name without its ending."""
    outers = list_tar(file)
    notes += outers.notes
    with file.open("rb") as stream:
        for outer in outers.files:
            if not outer.name.endswith(".tar"):
                continue
            stream.seek(outer.offset)
            try:
                with tarfile.open(fileobj=stream, mode="r:") as tar:
                    inner = replace(outers, notes=notes)
                    name = f"{outer.name} in {file.name}"
                    for piece in _list_members(tar, file, inner, name, outer.offset + outer.length):
                        yield PurePosixPath(outer.name).stem, piece
            except (tarfile.TarError, *ODD_TAR) as error:
                notes.append(f"{outer.name} in {file.name} is no tar ({error}): left out.")


def _list_members(
    tar: tarfile.TarFile,
    file: Path,
    contents: Contents,
    name: str,
    end: float = math.inf,
    links: dict[str, str] | None = None,
) -> Iterator[FileSlice]:
    """Yield the files of an open tar that lie before `end`; note where it stops too soon.

    `links` is given the places in the tar that links lead to.
    """
    found = 0
    whole = False
    try:
        for member in tar:
            if member.offset_data + (0 if member.issparse() else member.size) > end:
                break
            path = _clean_path(member.name)
            if member.isreg():
                found += 1
                if member.issparse():
                    yield FileSlice(path, str(file), member.offset, SPARSE)
                else:
                    yield FileSlice(path, str(file), member.offset_data, member.size)
            elif member.isdir():
                contents.folders.append(f"{path}/")
            elif links is not None and member.islnk():
                links[path] = _clean_path(member.linkname)
            elif links is not None and member.issym():
                links[path] = _locate_link(member.name, member.linkname)
        else:
            tar.fileobj.seek(tar.offset)  # type: ignore[union-attr]
            closing = tar.fileobj.read(tarfile.BLOCKSIZE)  # type: ignore[union-attr]
            whole = closing == bytes(tarfile.BLOCKSIZE)
    except (tarfile.ReadError, EOFError, *ODD_TAR):
        pass
    if not whole:
        contents.notes.append(
            f"{name} ends early or is damaged after {found:,} files, the last perhaps cut short: "
            "it may be an incomplete download."
        )


def list_zip(file: Path) -> Contents:
    """List the files in a zip, in its order; links within it are followed."""
    contents = Contents(file.name.split(".")[0], read_zip_member, [], file)
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError, OverflowError) as error:
        raise DataError(f"{str(file)!r} is no whole zip ({error}).", "Download it again.") from None
    links: dict[str, str] = {}
    coded = 0
    slashes = any("/" in member.filename for member in members)
    for member in members:
        text, told = _decode_zip_name(member)
        coded += not told
        if not slashes:  # as old programs of Windows wrote names
            text = text.replace("\\", "/")
        name = _clean_path(text)
        piece = FileSlice(name, str(file), member.header_offset, member.compress_size)
        if text.endswith("/"):
            contents.folders.append(f"{name}/")
        elif member.flag_bits & 1:
            contents.passed_over["encrypted"].append(name)
        elif stat.S_ISLNK(member.external_attr >> 16):
            links[name] = _read_link(text, piece)
        else:
            contents.files.append(piece)
    _follow_links(contents, links)
    if coded:
        contents.notes.append(
            f"{coded:,} names in {file.name} are not UTF-8: they are read as code page 437, as "
            "zips without a mark are. If they look wrong, unpack it and name the folder."
        )
    return contents


def _decode_zip_name(member: zipfile.ZipInfo) -> tuple[str, bool]:
    """Return the name of a member, and whether its encoding is known.

    A name that is not marked as UTF-8 often is: Unix's zip and macOS do not mark theirs.
    """
    if member.flag_bits & 0x800 or member.filename.isascii():
        return member.filename, True
    try:
        return member.filename.encode("cp437").decode("utf-8"), True
    except UnicodeError:
        return member.filename, False


def _read_link(name: str, piece: FileSlice) -> str:
    """Return where in a zip a link leads."""
    try:
        return _locate_link(name, os.fsdecode(read_zip_member(piece)))
    except ImageError:
        return ""


def _locate_link(name: str, target: str) -> str:
    """Return the place in an archive that a symbolic link leads to; "" outside of it."""
    inside = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    return "" if inside.startswith(("/", "..")) else _clean_path(inside)


def _follow_links(contents: Contents, links: dict[str, str]) -> None:
    """Add the files that links within an archive lead to, under the links' names.

    As in a folder, not those to a folder that they lie in, and not those in a linked folder.
    """
    if not links:
        return
    files = {piece.name: piece for piece in contents.files}
    inside: dict[str, list[FileSlice]] = defaultdict(list)
    for piece in contents.files:
        for folder in PurePosixPath(piece.name).parents:
            inside[str(folder)].append(piece)
    linked = 0
    for name, first in links.items():
        target = _resolve_link(first, links)
        if target in files:
            contents.files.append(replace(files[target], name=name))
        elif target not in inside:
            kind = "link to nothing" if first else "link out of the archive"
            contents.passed_over[kind].append(name)
        elif PurePosixPath(name).is_relative_to(target):
            contents.passed_over["link that leads around"].append(name)
        else:
            contents.folders.append(f"{name}/")
            linked += len(inside[target])
            if linked > MAX_LINKED:
                raise DataError(
                    f"The links in {str(contents.archive)!r} lead to over {MAX_LINKED:,} files.",
                    "Unpack it, and remove the links that are not needed.",
                )
            contents.files.extend(
                replace(piece, name=name + piece.name.removeprefix(target))
                for piece in inside[target]
            )


def _resolve_link(target: str, links: dict[str, str]) -> str:
    """Return the file or folder that a place in an archive is, when links are followed."""
    for _ in range(MAX_LINKS):
        path = PurePosixPath(target)
        link = next((str(p) for p in (path, *path.parents) if str(p) in links), None)
        if link is None:
            return target
        target = links[link] + target.removeprefix(link)
    return ""


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
    return _read(Path(piece.file, piece.name), 0, -1)


def read_slice(piece: FileSlice) -> bytes:
    """Read a piece of a file, as of an uncompressed member of a tar."""
    if piece.length == SPARSE:
        return _read_sparse(piece)
    data = _read(Path(piece.file), piece.offset, piece.length)
    if len(data) < piece.length:
        raise ImageError(f"The archive {piece.file!r} ends before this image does.")
    return data


def _read(file: Path, offset: int, length: int) -> bytes:
    """Read a part of a file, to its end where `length` is -1, if an image can be so long."""
    with file.open("rb", buffering=0) as stream:
        size = os.fstat(stream.fileno()).st_size - offset
        if max(length, 0 if length >= 0 else size) > MAX_IMAGE_BYTES:
            raise ImageError(f"It has {max(length, size):,} bytes, more than any image.")
        stream.seek(offset)
        return stream.read(min(length, size) if length >= 0 else -1)


def _read_sparse(piece: FileSlice) -> bytes:
    """Read a member of a tar that is kept without its holes."""
    try:
        with Path(piece.file).open("rb") as stream:
            stream.seek(piece.offset)
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                member = tar.next()
                if member is None or member.size > MAX_IMAGE_BYTES:
                    raise ImageError("It has more bytes than any image.")
                content = tar.extractfile(member)
                return content.read() if content else b""
    except (tarfile.TarError, *ODD_TAR) as error:
        raise ImageError(f"It cannot be unpacked ({error}).") from None


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


def _clean_path(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", ".", ".."))
