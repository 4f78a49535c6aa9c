"""What lies beside a file of weights: names of classes, and the mean of the training images."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.data.imagenet import WNID
from alexnet.errors import RunError
from alexnet.interop.caffe import read_binaryproto
from alexnet.interop.imported import LARGEST_SIDE, file_bytes, refused
from alexnet.pickles import load_arrays

NPY, PICKLED = b"\x93NUMPY", b"\x80"  # how NumPy's files begin, and pickles of protocol 2


def read_classes(path: Path, count: int) -> tuple[str, ...]:
    """Read names of classes, one a line in the order of the outputs.

    A line that begins with a wnid, as in Caffe's ``synset_words.txt``, is that wnid. The
    ``batches.meta`` of cuda-convnet has names, too.

    Raises
    ------
    RunError
        When there are more or fewer than the network has outputs, or two are the same.
    """
    with refused(path):
        data = file_bytes(path, most=1 << 26)
        if data.startswith(PICKLED):
            lines = [_words(name) for name in _meta(data).get("label_names", [])]
        else:
            lines = [line.strip() for line in data.decode("utf-8").splitlines() if line.strip()]
        names = tuple(
            line.split()[0] if WNID.fullmatch(line.split()[0]) else line for line in lines
        )
        if len(names) != count:
            raise RunError(
                f"It names {len(names)} classes and the network has {count}.",
                "One a line is right.",
            )
        if len(set(names)) < count:
            twice = next(name for name in names if names.count(name) > 1)
            raise RunError(f"It names {twice!r} twice.")
    return names


def _meta(data: bytes) -> dict[str, Any]:
    """Read cuda-convnet's pickle of what it knows of its data."""
    content = load_arrays(data)
    if not isinstance(content, dict):
        raise RunError("It is no batches.meta of cuda-convnet.")
    return {_words(key): value for key, value in content.items()}


def _words(value: Any) -> str:
    if not isinstance(value, str | bytes):
        raise RunError("It has names that are no text.", "Expected cuda-convnet's batches.meta.")
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def read_mean(path: Path) -> NDArray[np.float32]:
    """Read a mean image ``(3, side, side)`` or colour ``(3,)``.

    From Caffe's ``.binaryproto``, NumPy's ``.npy`` or cuda-convnet's ``batches.meta``.

    Raises
    ------
    RunError
        When it is none of them, or not finite.
    """
    with refused(path):
        with path.open("rb") as file:
            start = file.read(len(NPY))
        if start == NPY:
            mean = _read_npy(path)
        elif start.startswith(PICKLED):
            flat = _meta(file_bytes(path, most=1 << 28)).get("data_mean")
            if not isinstance(flat, np.ndarray) or flat.dtype.kind != "f":
                raise RunError("It has no data_mean.", "Expected cuda-convnet's batches.meta.")
            mean = np.asarray(flat, np.float32).reshape(3, math.isqrt(flat.size // 3), -1)
        else:
            mean = read_binaryproto(path)
        square = mean.ndim == 3 and mean.shape[1] == mean.shape[2]
        if mean.shape[:1] != (3,) or not (mean.ndim == 1 or square):
            raise RunError(f"It is an array of {mean.shape}.", "Expected (3, side, side) or (3,).")
        if not np.isfinite(mean).all():
            raise RunError("It has numbers that are not finite.")
    return mean


def _read_npy(path: Path) -> NDArray[np.float32]:
    """Read an array of a size that was looked at first; never an object."""
    with path.open("rb") as file:
        major, _ = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if major == 1 else (
            np.lib.format.read_array_header_2_0
        )  # fmt: skip
        shape, _, kind = header(file)
    if kind.hasobject or kind.kind not in "fiu" or math.prod(shape) > 3 * LARGEST_SIDE**2:
        raise RunError(f"It is an array of {shape}, {kind}.", "Expected numbers, (3, side, side).")
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    return np.array(values.reshape(-1) if values.ndim == 2 else values, np.float32)
