"""Files that are either whole or not there, and locks: who writes, locks first."""

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from alexnet.errors import AlexNetError, DataError

SAID_AFTER = 2.0  # seconds of waiting for another process


@contextlib.contextmanager
def atomic_write(path: Path, mark: str = "") -> Iterator[Path]:
    """Give a temporary path beside `path`; it takes `path`'s place when the block ends well.

    The content is on the disk before the new name is, so that neither a kill nor a power cut leaves
    half a file under the final name. Who writes the same file at once waits: the temporary file is
    its own lock. Machines that share a file system without locks each give a `mark` of their own
    for its name. A full disk, or a folder that cannot be written to, is an `AlexNetError`.
    """
    temporary = path.with_name(f".{path.name}{mark}.part")
    with translate_os_error(path):
        handle = _acquire(temporary, lambda held: None)
        try:
            yield temporary
            fsync(temporary)
            temporary.replace(path)
            fsync(path.parent)
        finally:
            _release(temporary, handle)


def write_json(path: Path, content: Any, mark: str = "") -> None:
    """Write a value as JSON, whole or not at all; `mark` as for `atomic_write`."""
    with atomic_write(path, mark) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def temporary_suffix() -> str:
    """Return a mark of temporary files that no other process has, on this machine or another."""
    return f".{platform.node()}-{os.getpid()}"


@contextlib.contextmanager
def translate_os_error(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write `path`, or into it, into sentences.

    An error that names a file elsewhere is left as it is: it is not about `path`.
    """
    try:
        yield
    except OSError as error:
        if not _is_about(error, path):
            raise
        cut_short = "requested and" in str(error)  # NumPy's words for a short write
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or cut_short:
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


def _is_about(error: OSError, path: Path) -> bool:
    """Whether an error names no file, or `path`, one in it, beside it, or a folder above it.

    What is made in a temporary folder beside `path`, to take its name, is about it too. A copy that
    fails names what it reads first, and second what it writes.
    """
    named = [one for one in (error.filename, error.filename2) if isinstance(one, str | bytes)]
    return not named or any(_belongs_to(Path(os.fsdecode(one)), path) for one in named)


def _belongs_to(named: Path, path: Path) -> bool:
    named, path = named.absolute(), path.absolute()
    temporary = any(
        folder.parent == path.parent and folder.name.startswith(f".{path.name}.")
        for folder in named.parents
    )
    inside = path in (named, *named.parents)
    return inside or temporary or named in path.parents or named.parent == path.parent


@contextlib.contextmanager
def lock(path: Path, refusal: AlexNetError | None = None) -> Iterator[None]:
    """Keep other processes and threads out while the block runs; a killed one holds nothing.

    `path` is the file of the lock, which says who holds it; made for the block, and removed after
    it. Where another holds the lock, `refusal` is raised, with who that is; without one the other
    is waited for, and after two seconds that is logged. On a file system without locks the block
    runs all the same.
    """

    def held(handle: int) -> None:
        holder = os.pread(handle, 200, 0).decode(errors="replace") or "another process"
        if refusal:
            raise type(refusal)(f"{refusal.what.removesuffix('.')} ({holder}).", refusal.fix)
        logging.getLogger(__name__).warning("Waiting for %s, which holds %r.", holder, str(path))

    with translate_os_error(path):
        handle = _acquire(path, held, patience=0 if refusal else SAID_AFTER)
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {platform.node()}".encode())
    try:
        yield
    finally:
        _release(path, handle)


def _acquire(path: Path, held: Callable[[int], None], patience: float = 0.0) -> int:
    """Make and lock a file; where it stays locked for `patience` seconds, call `held`, and wait."""
    begun = time.monotonic()
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            while not (free := _try_lock(handle)) and time.monotonic() - begun < patience:
                time.sleep(0.02)
            if not free:
                held(handle)
                fcntl.flock(handle, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), path.stat()):
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # who held it has removed it or given it another name


def _try_lock(handle: int) -> bool:
    """Lock an open file if nobody has; on a file system without locks nobody ever has."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _release(path: Path, handle: int) -> None:
    """Remove a locked file where it still has its name, and let others in."""
    with contextlib.suppress(OSError):
        if os.path.samestat(os.fstat(handle), path.stat()):
            path.unlink()
    os.close(handle)


def free_bytes(path: Path) -> int:
    """Return the free space, in bytes, of the disk that holds `path` or will hold it."""
    existing = next(place for place in (path, *path.absolute().parents) if place.exists())
    return shutil.disk_usage(existing).free


def require_space(path: Path, needed: float, fix: str) -> None:
    """See that the disk that will hold `path` has so many bytes free: else a `DataError`."""
    if needed > (free := free_bytes(path)):
        told = f"About {needed / 1e9:,.1f} GB are needed in {str(path)!r}"
        raise DataError(f"{told}, {free / 1e9:,.1f} GB are free.", fix)


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
