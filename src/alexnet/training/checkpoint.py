"""Checkpoints that are whole or not there, and the newest of them that is good.

A checkpoint is a folder ``step-00001234`` with ``weights.safetensors`` (any reader opens it),
``velocity.safetensors`` (the optimiser's momentum buffers, by the weights' names), ``state.json``
(rates, errors and losses so far) and ``checksums.json``. None of it can run anything when it is
read. The state of random generators is not in it (`training.randomness`).
"""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from alexnet.errors import RunError
from alexnet.files import fsync, sha256, translate_os_error

WEIGHTS, MOMENTUM = "weights.safetensors", "velocity.safetensors"
STATE, CHECKSUMS = "state.json", "checksums.json"
MAX_STATE = 16 << 20  # bytes of state.json or checksums.json that are read


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A training at one moment, in the processor's memory."""

    step: int
    weights: dict[str, Tensor]
    momentum_buffers: dict[str, Tensor] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)  # numbers, texts, lists: what JSON holds
    skipped: tuple[str, ...] = ()  # newer ones that were broken, with the reason


def save_checkpoint(
    folder: Path, checkpoint: Checkpoint, *, keep: int = 2, best: int | None = None
) -> Path:
    """Write a checkpoint, point ``latest`` at it and remove older ones.

    Everything is on the disk before the checkpoint has its name, and others are removed only after.
    The `keep` newest stay, and that of step `best`, at which ``best`` points. A disk that is full
    or cannot be written to is an `AlexNetError`, and leaves older checkpoints untouched.
    """
    final = checkpoint_folder(folder, checkpoint.step)
    part = folder / f".{final.name}.part"
    with translate_os_error(final):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)
        try:
            part.mkdir()
            _write_tensors(part / WEIGHTS, checkpoint.weights)
            _write_tensors(part / MOMENTUM, checkpoint.momentum_buffers)
            (part / STATE).write_text(json.dumps(checkpoint.state))
            sums = {name: sha256(part / name) for name in (WEIGHTS, MOMENTUM, STATE)}
            (part / CHECKSUMS).write_text(json.dumps(sums))
            for file in part.iterdir():
                fsync(file)
            fsync(part)
            if final.exists():  # of an interrupted run that is now repeated
                shutil.rmtree(final)
            part.rename(final)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        fsync(folder)
    _link(folder / "latest", final)
    kept = checkpoint_folders(folder)[-keep:]
    if best is not None and (at_best := checkpoint_folder(folder, best)).is_dir():
        _link(folder / "best", at_best)
        kept.append(at_best)
    for old in checkpoint_folders(folder):
        if old not in kept:
            shutil.rmtree(old, ignore_errors=True)
    return final


def checkpoint_folder(folder: Path, step: int) -> Path:
    """Return where the checkpoint of a step lies, or would."""
    return folder / f"step-{step:08}"


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    dense = {key: value.detach().contiguous() for key, value in tensors.items()}
    try:
        safetensors.torch.save_file(dense, path)
    except SafetensorError as error:  # the system's refusal is in its text alone
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            if f"os error {number})" in str(error):
                raise OSError(number, os.strerror(number), str(path)) from error
        raise


def _link(link: Path, target: Path) -> None:
    """Make a symbolic link, for people; loading goes by the folders' names."""
    with contextlib.suppress(OSError):  # not every file system has links
        temporary = link.with_name(f".{link.name}.part")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target.name)
        temporary.replace(link)


def checkpoint_folders(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def clear_leftovers(folder: Path) -> None:
    """Remove what a killed process left half-written."""
    for part in folder.glob(".*.part"):
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def load_newest(folder: Path, *, with_state: bool = True) -> Checkpoint | None:
    """Load the newest checkpoint that verifies; nothing if there is none at all.

    That every one is broken is a `RunError`.
    """
    broken: list[str] = []
    for path in reversed(checkpoint_folders(folder)):
        try:
            found = load_checkpoint(path, with_state=with_state)
        except Exception as error:  # whatever a damaged file makes its reader raise
            broken.append(f"{path.name} is damaged ({error})")
            continue
        return replace(found, skipped=tuple(broken))
    if broken:
        raise RunError(
            f"No checkpoint in {str(folder)!r} can be loaded: {'; '.join(broken)}.",
            "Delete the folder to train from the start.",
        )
    return None


def load_checkpoint(path: Path, *, with_state: bool = True) -> Checkpoint:
    """Load one checkpoint, verified. What damage raises depends on the damage."""
    sums = _read_json(path / CHECKSUMS)
    for name in (WEIGHTS, MOMENTUM, STATE) if with_state else (WEIGHTS,):
        if sha256(path / name) != sums[name]:
            raise ValueError(f"the checksum of {name} is wrong")
    weights = safetensors.torch.load_file(path / WEIGHTS)
    step = int(path.name.removeprefix("step-"))
    if not with_state:
        return Checkpoint(step, weights)
    buffers = safetensors.torch.load_file(path / MOMENTUM)
    return Checkpoint(step, weights, buffers, _read_json(path / STATE))


def _read_json(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        text = file.read(MAX_STATE + 1)
    if len(text) > MAX_STATE:
        raise ValueError(f"{path.name} is too large")
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is not what it should be")
    return content


class CheckpointWriter:
    """Writes checkpoints in a thread, so that a training may go on as soon as it has a copy.

    One is written at a time: the next one waits for it. A failure is raised by the call after it,
    at the latest by the end of the ``with`` block.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[Path] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        self._thread.shutdown(wait=True)
        if error is None:
            self.wait()

    def check(self) -> None:
        """Raise what went wrong in writing, if anything has."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Wait until what was given to be written is on the disk."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def save(self, copy: Callable[[], Checkpoint], *, best: int | None = None) -> None:
        """Copy the training by `copy`, and have the copy written.

        The copy is made after the one before was written: there is never memory for two.
        """
        self.wait()
        self._writing = self._thread.submit(save_checkpoint, self._folder, copy(), best=best)


def copy_to_host(tensors: Mapping[str, Tensor], *, share: bool = False) -> dict[str, Tensor]:
    """Copy tensors into the processor's memory, dense and in the order of their dimensions.

    With `share`, those that lie there so already are returned as they are.
    """
    return {
        name: tensor.detach()
        if share and tensor.device.type == "cpu" and tensor.is_contiguous()
        else torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
        for name, tensor in tensors.items()
    }
