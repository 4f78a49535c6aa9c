"""ReLU, local response normalisation and max pooling in one pass: ``lrn_pool.cpp``."""

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from alexnet.kernels.native import CPP_DTYPES, address, channels_last, compile_kernel


class PoolArguments(ctypes.Structure):
    """`PoolArguments` of ``lrn_pool.cpp``, field by field."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("images", "height", "width", "towers")),
        *((name, ctypes.c_int64) for name in ("out_height", "out_width", "threads")),
        *((name, ctypes.c_double) for name in ("scale", "k")),
    )


class KernelConfig(NamedTuple):
    """Which layers the kernel computes, as whole numbers: PyTorch's operators take a list."""

    towers: int  # parts that the channels are in; the normalisation's window stays inside one
    relu: int  # 1 where a ReLU comes first
    norm_size: int  # channels in the normalisation's window, odd; 0 leaves it out
    window: int  # of the pooling
    stride: int  # of the pooling; a window and a stride of 1 leave it out
    ceil_mode: int  # 1 where windows that reach past the edge count


def is_available(x: Tensor, config: KernelConfig) -> bool:
    """Whether `lrn_pool` takes ``(N, C, H, W)`` of a type, where a tensor is."""
    in_pairs = x.shape[1] // config.towers % 2 == 0
    return x.device.type == "cpu" and x.dtype in CPP_DTYPES and in_pairs


@torch.library.custom_op("alexnet::lrn_pool", mutates_args=(), device_types="cpu")
def lrn_pool(x: Tensor, config: Sequence[int], scale: float, k: float) -> Tensor:
    """Apply ReLU, local response normalisation and max pooling, in this order, in one pass.

    ``(N, C, H, W)``, float32, float64 or bfloat16, best channels-last, to ``(N, C, H', W')``,
    channels-last, in the same type. `config`, a `KernelConfig`, says which of the three, and how; a
    tower has an even number of channels. ``b = a / (k + scale * sum(a**2)) ** 0.75``, where `scale`
    is the paper's alpha (section 3.3). Sums are of float32 at least; the power is within 2e-4 of
    its value for bfloat16 and 3e-7 for float32.
    """
    layers, x = KernelConfig(*config), channels_last(x)
    out = empty_like_output(x, layers)
    if x.numel():
        arguments = _arguments(x, out, layers, scale, k)
        _library(x, layers).forward(address(x), address(out), ctypes.byref(arguments))
    return out


@torch.library.custom_op("alexnet::lrn_pool_backward", mutates_args=(), device_types="cpu")
def lrn_pool_backward(
    gradient: Tensor, x: Tensor, config: Sequence[int], scale: float, k: float
) -> Tensor:
    """Return the gradient of `lrn_pool` with respect to `x`, in its shape and type.

    What is given to a window goes to the first of the largest under it, compared before they are
    rounded to the type of `x`.
    """
    layers, x = KernelConfig(*config), channels_last(x)
    gradient = channels_last(gradient.to(x.dtype))
    out = torch.empty_like(x)
    if x.numel():
        arguments = _arguments(x, gradient, layers, scale, k)
        pointers = address(x), address(gradient), address(out)
        _library(x, layers).backward(*pointers, ctypes.byref(arguments))
    return out


@lrn_pool.register_fake
def _(x: Tensor, config: Sequence[int], scale: float, k: float) -> Tensor:
    return empty_like_output(x, KernelConfig(*config))


@lrn_pool_backward.register_fake
def _(gradient: Tensor, x: Tensor, config: Sequence[int], scale: float, k: float) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


def _save_input(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, *ctx.settings = inputs
    ctx.save_for_backward(x)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
    (x,) = ctx.saved_tensors
    return lrn_pool_backward(gradient, x, *ctx.settings), None, None, None


lrn_pool.register_autograd(_differentiate, setup_context=_save_input)


def empty_like_output(x: Tensor, config: KernelConfig) -> Tensor:
    """Return an empty tensor of the result's shape, by PyTorch's own rule of the edge.

    It is not asked on the meta device, whose first pooling imports a second of PyTorch's compiler.
    """
    return torch.empty(
        (*x.shape[:2], *(_count_windows(length, config) for length in x.shape[2:])),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )


def _count_windows(length: int, config: KernelConfig) -> int:
    past = config.stride - 1 if config.ceil_mode else 0
    count = (length - config.window + past) // config.stride + 1
    if config.ceil_mode and (count - 1) * config.stride >= length:
        count -= 1  # the last window would begin past the edge
    if count < 1:
        raise RuntimeError(f"A window of {config.window} does not fit into {length} pixels.")
    return count


def _library(x: Tensor, config: KernelConfig) -> ctypes.CDLL:
    return compile_kernel(
        "lrn_pool.cpp",
        stored=CPP_DTYPES[x.dtype],
        channels=x.shape[1] // config.towers,
        relu=config.relu,
        norm=config.norm_size,
        window=config.window,
        stride=config.stride,
    )


def _arguments(
    x: Tensor, out: Tensor, config: KernelConfig, scale: float, k: float
) -> PoolArguments:
    images, _, height, width = x.shape
    sides = (height, width, config.towers, *out.shape[2:])
    return PoolArguments(images, *sides, torch.get_num_threads(), scale, k)
