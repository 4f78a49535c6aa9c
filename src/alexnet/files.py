"""Files that are either whole or not there, and locks: who writes, locks first."""

import contextlib
import errno
import fcntl
import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from alexnet.errors import AlexNetError


@contextlib.contextmanager
def atomic_write(path: Path, mark: str = "") -> Iterator[Path]:
    """Give a temporary path beside `path`; it takes `path`'s place when the block ends well.

    The content is on the disk before the new name is, so that neither a kill nor a power cut
    leaves half a file under the final name. Where several processes may write the same file at
    once, each gives a `mark` of its own for the temporary name.

    Raises
    ------
    AlexNetError
        When the disk is full or the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.name}{mark}.part")
    with translate_os_error(path):
        try:
            yield temporary
            fsync(temporary)
            temporary.replace(path)
            fsync(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def temporary_suffix() -> str:
    """Return a mark of temporary files that no other process has, on this machine or another."""
    return f".{platform.node()}-{os.getpid()}"


@contextlib.contextmanager
def translate_os_error(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write `path` into sentences."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = free_bytes(path)
            raise AlexNetError(
                f"The disk is full: {str(path)!r} could not be written, "
                f"{free / 1e6:,.1f} MB are free.",
                "Make room and run the same command again; it goes on where it stopped.",
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise AlexNetError(
                f"{str(path)!r} cannot be written ({error.strerror}).",
                "Choose a folder that you may write to.",
            ) from error
        raise


@contextlib.contextmanager
def lock(path: Path, refusal: AlexNetError) -> Iterator[None]:
    """Keep other processes out while the block runs; a killed process holds nothing.

    Parameters
    ----------
    path : Path
        What is locked: a folder that exists, or a file, which is made where it is missing.
    refusal : AlexNetError
        What to raise where another process holds the lock: a sentence on who writes what.

    On a file system without locks the block runs all the same.
    """
    with translate_os_error(path):
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise refusal from None
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(handle)


def free_bytes(path: Path) -> int:
    """Return the free space, in bytes, of the disk that holds `path` or will hold it."""
    existing = next(place for place in (path, *path.absolute().parents) if place.exists())
    return shutil.disk_usage(existing).free


def fsync(path: Path) -> None:
    """Wait until a file or a folder's entries are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Return the checksum of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Return where what can be made again is kept: ``ALEXNET_CACHE``, else the user's cache."""
    if chosen := os.environ.get("ALEXNET_CACHE"):
        return Path(chosen)
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        return Path(chosen) / "alexnet"
    try:
        return Path.home() / ".cache" / "alexnet"
    except RuntimeError:  # no home, as in some containers
        return Path(tempfile.gettempdir()) / "alexnet"
