"""ReLU, local response normalisation and max pooling in one pass: ``normalised_pool.cpp``."""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.kernels.native import STORED, compiled

SOURCE = Path(__file__).with_suffix(".cpp")


class Shape(ctypes.Structure):
    """`Shape` of ``normalised_pool.cpp``, field by field."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("images", "height", "width", "towers")),
        *((name, ctypes.c_int64) for name in ("out_height", "out_width", "threads")),
        *((name, ctypes.c_double) for name in ("scale", "k")),
    )


class Form(NamedTuple):
    """What the kernel does to a tensor, as whole numbers, which operators of PyTorch can take."""

    towers: int  # parts that the maps are in; the window of neighbours stays inside one
    rectify: int  # 1 where a ReLU comes first
    neighbours: int  # maps in the normalisation's window, odd; 0 leaves it out
    window: int  # of the pooling
    stride: int  # of the pooling; a window and a stride of 1 leave it out
    ceil: int  # 1 where windows that reach past the edge count


@torch.library.custom_op("alexnet::normalised_pool", mutates_args=(), device_types="cpu")
def normalised_pool(x: Tensor, form: Sequence[int], scale: float, k: float) -> Tensor:
    """Apply ReLU, local response normalisation and max pooling, in this order, in one pass.

    Parameters
    ----------
    x : Tensor
        ``(N, C, H, W)``, float32, float64 or bfloat16; best channels-last. A tower has an even
        number of maps.
    form : Form
        Which of the three, and how.
    scale, k : float
        ``b = a / (k + scale * sum(a**2)) ** 0.75``: `scale` is the paper's alpha (section 3.3).

    Returns
    -------
    Tensor
        ``(N, C, H', W')``, channels-last, in the type of `x`. Sums are of float32 at least; the
        power is within 2e-4 of its value for bfloat16 and 3e-7 for float32.

    Raises
    ------
    OSError, subprocess.SubprocessError
        Where `native.unavailable_reason` has a reason.
    """
    x, out = _channels_last(x), room(x, Form(*form))
    if x.numel():
        shape = _shape(x, out, Form(*form), scale, k)
        _library(x, Form(*form)).forward(_at(x), _at(out), ctypes.byref(shape))
    return out


@torch.library.custom_op("alexnet::normalised_pool_backward", mutates_args=(), device_types="cpu")
def normalised_pool_backward(
    gradient: Tensor, x: Tensor, form: Sequence[int], scale: float, k: float
) -> Tensor:
    """Return the gradient of `normalised_pool` with respect to `x`, in its shape and type.

    What is given to a window goes to the first of the largest under it, compared before they are
    rounded to the type of `x`.
    """
    x, gradient = _channels_last(x), _channels_last(gradient.to(x.dtype))
    out = torch.empty_like(x)
    if x.numel():
        shape = _shape(x, gradient, Form(*form), scale, k)
        _library(x, Form(*form)).backward(_at(x), _at(gradient), _at(out), ctypes.byref(shape))
    return out


@normalised_pool.register_fake
def _(x: Tensor, form: Sequence[int], scale: float, k: float) -> Tensor:
    return room(x, Form(*form))


@normalised_pool_backward.register_fake
def _(gradient: Tensor, x: Tensor, form: Sequence[int], scale: float, k: float) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, *ctx.settings = inputs
    ctx.save_for_backward(x)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
    (x,) = ctx.saved_tensors
    return normalised_pool_backward(gradient, x, *ctx.settings), None, None, None


normalised_pool.register_autograd(_differentiate, setup_context=_keep)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def room(x: Tensor, form: Form) -> Tensor:
    """Return an empty tensor of the result's shape, by PyTorch's own rule of the edge."""
    plane = torch.empty((1, *x.shape[2:]), device="meta")
    sides = F.max_pool2d(plane, form.window, form.stride, ceil_mode=bool(form.ceil)).shape[1:]
    return torch.empty(
        (*x.shape[:2], *sides),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )


def _at(x: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.data_ptr())


def _library(x: Tensor, form: Form) -> ctypes.CDLL:
    return compiled(
        SOURCE,
        stored=STORED[x.dtype],
        maps=x.shape[1] // form.towers,
        rectify=form.rectify,
        norm=form.neighbours,
        window=form.window,
        stride=form.stride,
    )


def _shape(x: Tensor, out: Tensor, form: Form, scale: float, k: float) -> Shape:
    images, _, height, width = x.shape
    sides = out.shape[2:]
    return Shape(images, height, width, form.towers, *sides, torch.get_num_threads(), scale, k)
