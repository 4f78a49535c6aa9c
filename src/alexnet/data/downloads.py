"""Data sets by name: fetched where there is a network, checked, and kept."""

import hashlib
import os
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from alexnet.errors import DataError
from alexnet.files import cache_folder, fsync, lock, translate_os_error

TIMEOUT = 30  # seconds without an answer
DOWNLOAD_BLOCK = 1 << 20
FOLDER = "ALEXNET_DOWNLOADS"  # the environment variable

DownloadReport = Callable[[str, int, int], None]  # file, bytes so far, bytes in all (0: not told)


@dataclass(frozen=True, slots=True)
class Archive:
    """A file on the network, and how to know that it has come whole."""

    url: str
    file: str  # the name it is kept under
    checksum: str  # md5, as its publisher or its users' tools give it; of a zip's members where
    # the archive is packed anew for everyone who asks


ARCHIVES = {
    "cifar10": Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "cifar-10-binary.tar.gz",
        "md5:c32a1d4ab5d03f1284b67883e8d87530",
    ),
    "cifar100": Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        "cifar-100-binary.tar.gz",
        "md5:03b5dce01913d631647c71ecec9e9cb8",
    ),
    "tiny-imagenet": Archive(
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        "tiny-imagenet-200.zip",
        "md5:90528d7ca1a48142e341f4ef8d21d0de",
    ),
    "imagenette": Archive(
        "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2.tgz",
        "imagenette2.tgz",
        "md5:fe2fc210e6bb7c5664d602c3cd71e612",
    ),
    "clothing": Archive(
        "https://github.com/alexeygrigorev/clothing-dataset-small/archive/"
        "11961516512414bf9f6c150a832cfd21b54a6b54.zip",
        "clothing-dataset-small.zip",
        "members:93915eef0851633bfcbe5007765d2be58bb395d9210952a84e7106337cd2d1f8",
    ),
}


def find_archive(name: str, report: DownloadReport = lambda file, done, total: None) -> Path:
    """Return the archive of a built-in data set, downloaded if it is not there yet.

    It is looked for in the folder that the environment variable ``ALEXNET_DOWNLOADS`` names, then
    in the cache. A download that was interrupted goes on where it stopped. Without a network, or
    where something else has come than was meant, it is a `DataError`.
    """
    archive = ARCHIVES[name]
    kept = Path(os.environ.get(FOLDER) or cache_folder() / "downloads") / archive.file
    if not kept.is_file():
        download(archive, kept, report)
    elif not has_checksum(kept, archive.checksum):
        raise DataError(
            f"{str(kept)!r} is not the archive of {name}, {archive.checksum}.",
            "Delete it, and it will be downloaded again.",
        )
    return kept


def download(
    archive: Archive, target: Path, report: DownloadReport = lambda file, done, total: None
) -> None:
    """Download an archive to `target`, going on with what an earlier attempt left.

    A checksum that is wrong is a DataError, and nothing stands at `target` then. Another process
    that downloads the same is waited for.
    """
    part = target.with_name(f"{target.name}.part")
    with translate_os_error(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with lock(target.with_name(f".{target.name}.lock")), translate_os_error(target):
        if target.is_file():
            return  # by another process, which was waited for
        try:
            with part.open("ab") as out:
                _append(archive, out, report)
        except OSError as error:  # URLError is one
            if error.errno and error.filename == str(part):
                raise  # of the disk, not of the network
            raise DataError(
                f"{archive.url} cannot be downloaded ({getattr(error, 'reason', error)}).",
                f"Run the command again to go on, or get the file elsewhere, put it into a folder "
                f"as {archive.file}, and name that folder in {FOLDER}.",
            ) from None
        if not has_checksum(part, archive.checksum):
            part.unlink()
            raise DataError(
                f"What came from {archive.url} is not what was published, {archive.checksum}.",
                "Run the command again; if it comes back, tell us.",
            )
        fsync(part)
        part.replace(target)


def _append(archive: Archive, out: BinaryIO, report: DownloadReport) -> None:
    """Append to an open file what it lacks of an archive."""
    done = out.tell()
    request = urllib.request.Request(archive.url, headers={"User-Agent": "alexnet"})
    if done:
        request.add_header("Range", f"bytes={done}-")
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to send
            return
        raise
    with answer:
        if done and answer.status != 206:  # the server sends all of it again
            out.truncate(0)
            done = 0
        total = done + int(answer.headers.get("Content-Length") or 0)
        while block := answer.read(DOWNLOAD_BLOCK):
            out.write(block)
            done += len(block)
            report(archive.file, done, total)
    if done < total:
        raise urllib.error.URLError(f"the connection ended after {done:,} of {total:,} bytes")


def has_checksum(path: Path, checksum: str) -> bool:
    """Whether a file has a checksum, ``md5:…``, or is a zip whose members have, ``members:…``."""
    kind, _, expected = checksum.partition(":")
    if kind == "members":
        return hash_zip_members(path) == expected
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return digest.hexdigest() == expected


def hash_zip_members(path: Path) -> str:
    """Return the sha256 of the names, sizes and CRCs of a zip's files; "" if one is damaged.

    The folder that all of them lie in is left out of the names.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            files = [member for member in archive.infolist() if not member.is_dir()]
            if archive.testzip() is not None:
                return ""
    except (zipfile.BadZipFile, zlib.error, OSError):
        return ""
    lines = sorted(f"{f.filename.partition('/')[2]} {f.file_size} {f.CRC:08x}" for f in files)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
