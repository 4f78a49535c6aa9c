"""Checkpoints that are whole or not there, and the newest of them that is good.

A checkpoint is a folder ``step-00001234`` with ``weights.safetensors`` (any reader opens it),
``state.pt`` (the optimiser's velocity; read without executing anything) and ``checksums.json``.
"""

import contextlib
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from alexnet.errors import RunError
from alexnet.files import explained, sha256, sync

WEIGHTS, STATE, CHECKSUMS = "weights.safetensors", "state.pt", "checksums.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded checkpoint."""

    step: int
    weights: dict[str, Tensor]
    state: dict[str, Any]
    passed_over: tuple[str, ...] = ()  # newer ones that were broken, with the reason


def save_checkpoint(
    folder: Path,
    step: int,
    weights: dict[str, Tensor],
    state: dict[str, Any],
    *,
    keep: int = 2,
) -> Path:
    """Write a checkpoint, point ``latest`` at it and remove all but the `keep` newest.

    Everything is on the disk before the checkpoint has its name, and the one before is removed
    only after.

    Raises
    ------
    AlexNetError
        When the disk is full or cannot be written to; older checkpoints are untouched.
    """
    final = folder / f"step-{step:08}"
    part = folder / f".{final.name}.part"
    with explained(final):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)
        try:
            part.mkdir()
            dense = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
            (part / WEIGHTS).write_bytes(safetensors.torch.save(dense))
            buffer = io.BytesIO()  # torch's own writer hides why the disk refused
            torch.save(state, buffer)
            (part / STATE).write_bytes(buffer.getbuffer())
            sums = {name: sha256(part / name) for name in (WEIGHTS, STATE)}
            (part / CHECKSUMS).write_text(json.dumps(sums))
            for file in part.iterdir():
                sync(file)
            sync(part)
            if final.exists():  # of an interrupted run that is now repeated
                shutil.rmtree(final)
            part.rename(final)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        sync(folder)
    _point(folder / "latest", final.name)
    for old in checkpoint_folders(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def _point(link: Path, target: str) -> None:
    """Make a symbolic link, for people; loading goes by the folders' names."""
    with contextlib.suppress(OSError):  # not every file system has links
        temporary = link.with_name(f".{link.name}.part")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(link)


def checkpoint_folders(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def load_newest(folder: Path, *, with_state: bool = True) -> Checkpoint | None:
    """Load the newest checkpoint that verifies; nothing if there is none at all.

    Raises
    ------
    RunError
        When there are checkpoints and every one is broken.
    """
    broken: list[str] = []
    for path in reversed(checkpoint_folders(folder)):
        try:
            found = _load(path, with_state)
        except Exception as error:  # whatever a damaged file makes its reader raise
            broken.append(f"{path.name} is damaged ({error})")
            continue
        return Checkpoint(found.step, found.weights, found.state, tuple(broken))
    if broken:
        raise RunError(
            f"No checkpoint in {str(folder)!r} can be loaded: {'; '.join(broken)}.",
            "Delete the folder to train from the start.",
        )
    return None


def _load(path: Path, with_state: bool) -> Checkpoint:
    sums = json.loads((path / CHECKSUMS).read_text())
    for name in (WEIGHTS, STATE) if with_state else (WEIGHTS,):
        if sha256(path / name) != sums[name]:
            raise ValueError(f"the checksum of {name} is wrong")
    state = torch.load(path / STATE, map_location="cpu", weights_only=True) if with_state else {}
    weights = safetensors.torch.load_file(path / WEIGHTS)
    return Checkpoint(int(path.name.removeprefix("step-")), weights, state)
