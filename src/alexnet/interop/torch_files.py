"""What ``torch.save`` wrote, of any version and of Python 2, read without running what is in it.

A ``.pth`` is a pickle that names memories, and the numbers of these. The pickle is read by
`alexnet.pickles`; each tensor becomes a `StoredTensor`, seen to lie inside of its memory, and is
made of the file's bytes when it is asked for. PyTorch's own reader takes no part.
"""

import math
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alexnet.bounds import MAX_LIST, list_stored, read_bytes
from alexnet.errors import DataError, RunError
from alexnet.pickles import ArrayUnpickler

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how the files began before PyTorch 1.6
SAVE_WEIGHTS = "In the program that made it: torch.save(model.state_dict(), 'weights.pth')."
# Programs whose objects lie beside the weights in the checkpoints of their trainings.
TRAINING_PACKAGES = frozenset((
    *("torch", "torchvision", "argparse", "omegaconf", "ignite"),
    *("lightning", "lightning_fabric", "pytorch_lightning"),
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor that lies in a file, and is not made yet."""

    shape: tuple[int, ...]
    dtype: torch.dtype | str  # a name where PyTorch has no such type
    load: Callable[[], Tensor]


@dataclass(slots=True)
class _Memory:
    """Numbers of one type in a row; where they lie is known once the pickle is read."""

    dtype: torch.dtype
    count: int
    data: memoryview | None = None

    def make_tensor(
        self, shape: tuple[int, ...], stride: tuple[int, ...], start: int, stop: int
    ) -> Tensor:
        """Copy what a tensor spans of the memory, and no more."""
        if start == stop:
            return torch.empty(shape, dtype=self.dtype)
        first, last = start * self.dtype.itemsize, stop * self.dtype.itemsize
        if self.data is None or len(self.data) < last:
            raise RunError(f"It lacks the numbers of a tensor of {shape}.")
        flat = torch.frombuffer(bytearray(self.data[first:last]), dtype=self.dtype)
        return flat.as_strided(shape, stride)


class _TensorUnpickler(ArrayUnpickler):
    """Reads the pickle, and gathers the memories that it names."""

    def __init__(self, data: bytes, file_size: int) -> None:
        super().__init__(data, _TENSORS, TRAINING_PACKAGES)
        self.memories: dict[str, _Memory] = {}
        self._left_bytes = file_size

    def persistent_load(self, pid: Any) -> _Memory:
        """Return a tensor's memory; all of them together are no larger than the file."""
        if not isinstance(pid, tuple) or len(pid) < 5 or as_text(pid[0]) != "storage":
            raise DataError("It refers to something that is no tensor's memory.")
        _, named, key, _, count, *view = pid
        dtype = getattr(named, "stands_for", None)
        if not isinstance(dtype, torch.dtype):
            raise DataError("It has a tensor of a type that no network's weights have.")
        if not isinstance(key, str | bytes) or type(count) is not int or count < 0 or any(view):
            raise DataError("It refers to a tensor's memory of no sense.")
        memory = self.memories.get(as_text(key))
        if memory is None:
            memory = self.memories[as_text(key)] = _Memory(dtype, count)
            self._left_bytes -= count * dtype.itemsize
        if self._left_bytes < 0 or (memory.dtype, memory.count) != (dtype, count):
            raise DataError(f"It declares {count:,} numbers, more than the file has.")
        return memory


def read_torch_file(path: Path) -> Any:
    """Return what a file holds: containers, text, numbers, and tensors as `StoredTensor`.

    One that is damaged, holds another program's objects, or declares more than there is is a
    `RunError`.
    """
    data = read_bytes(path)
    try:
        return _read_legacy(data) if data.startswith(LEGACY) else _read_archive(data)
    except DataError as error:
        raise RunError(error.what, error.fix or SAVE_WEIGHTS) from None


def _read_archive(data: bytes) -> Any:
    with zipfile.ZipFile(BytesIO(data)) as archive:
        parts = list_stored(archive, len(data))
    found = [name for name in parts if name.endswith("/data.pkl")]
    if len(found) != 1 or parts[found[0]].file_size > MAX_LIST:
        raise DataError("It has no pickle of a state dict, or a very large one.")
    folder = found[0].removesuffix("data.pkl")
    if (order := parts.get(f"{folder}byteorder")) and bytes(_slice(data, order)) != b"little":
        raise DataError("Its numbers have their high byte first.")
    unpickler = _TensorUnpickler(bytes(_slice(data, parts[found[0]])), len(data))
    content = unpickler.load()
    for key, memory in unpickler.memories.items():
        if part := parts.get(f"{folder}data/{key}"):
            memory.data = _slice(data, part)
    return content


def _slice(data: bytes, part: zipfile.ZipInfo) -> memoryview:
    """Return a part of a zip where it lies; PyTorch may leave its checksum out."""
    name, extra = struct.unpack_from("<HH", data, part.header_offset + 26)
    start = part.header_offset + 30 + name + extra
    return memoryview(data)[start : start + part.file_size]


def _read_legacy(data: bytes) -> Any:
    unpickler = _TensorUnpickler(data, len(data))
    for _ in range(3):  # a number, a version, the sizes of the system's numbers
        unpickler.load()
    content, keys = unpickler.load(), unpickler.load()
    at = unpickler.position
    for key in map(as_text, keys if isinstance(keys, list) else []):
        if (memory := unpickler.memories.get(key)) is None:
            raise DataError(f"It has a memory {key[:40]!r} that no tensor lies in.")
        if int.from_bytes(data[at : at + 8], "little") != memory.count:
            raise DataError(f"It has not the {memory.count:,} numbers that it declares.")
        end = at + 8 + memory.count * memory.dtype.itemsize
        memory.data, at = memoryview(data)[at + 8 : end], end
    return content


def as_text(key: Any) -> str:
    """Return the text of a key, which in pickles of Python 2 is bytes; of others what they are."""
    if isinstance(key, bytes):
        return key.decode("latin-1")
    return str(key) if isinstance(key, str | int) else type(key).__name__


def _describe_tensor(memory: Any, offset: Any, shape: Any, stride: Any, *more: Any) -> StoredTensor:
    """Return a tensor that is not made, and does not reach beyond its memory."""
    sizes, steps = tuple(map(int, shape[:9])), tuple(map(int, stride[:9]))
    if not isinstance(memory, _Memory) or len(sizes) > 8 or min((offset, *sizes, *steps)) < 0:
        raise DataError("It has a tensor of no sense.")
    span = 1 + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
    stop = offset + (span if min(sizes, default=1) else 0)
    if max(math.prod(sizes), stop) > memory.count:
        raise DataError(f"It has a tensor of {sizes} on a memory of {memory.count:,} numbers.")
    load = partial(memory.make_tensor, sizes, steps, offset, stop)
    return StoredTensor(sizes, memory.dtype, load)


def _make_dict(pairs: Any = ()) -> dict[str, Any]:
    """Return an ordered dictionary, which Python 2 gave its entries at once."""
    return {as_text(key): value for key, value in pairs}


_TENSORS: Mapping[str, Any] = {
    "collections.OrderedDict": _make_dict,
    **dict.fromkeys((  # beside the weights: not needed
        "__builtin__.set", "builtins.set", "pathlib.PosixPath", "pathlib.WindowsPath",
    ), lambda *arguments: {}),
    "torch._utils._rebuild_tensor": _describe_tensor,
    "torch._utils._rebuild_tensor_v2": _describe_tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *more: tensor,
    **{f"torch.{name}Storage": dtype for name, dtype in (
        ("Float", torch.float32), ("Double", torch.float64), ("Half", torch.float16),
        ("BFloat16", torch.bfloat16), ("Long", torch.int64), ("Int", torch.int32),
        ("Short", torch.int16), ("Char", torch.int8), ("Byte", torch.uint8), ("Bool", torch.bool),
    )},
}  # fmt: skip
