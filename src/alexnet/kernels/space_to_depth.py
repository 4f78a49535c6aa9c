"""Squares of pixels as channels: what makes a dense convolution of one with a stride.

conv1 sees three channels in steps of four pixels, which fills no vector register. Squares of four
by four pixels laid side by side are 48 channels in steps of one (docs/performance.md).
"""

import ctypes

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.kernels.native import CPP_DTYPES, address, call, channels_last, compile_kernel


class SpaceToDepthArguments(ctypes.Structure):
    """`SpaceToDepthArguments` of ``space_to_depth.cpp``, field by field."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in ("images", "height", "width", "padding", "out_height", "out_width", "threads")
    )


@torch.library.custom_op("alexnet::space_to_depth", mutates_args=(), device_types="cpu")
def space_to_depth(x: Tensor, side: int, padding: int, squares: int, dtype: torch.dtype) -> Tensor:
    """Lay squares of pixels side by side as channels, in another type if wanted; no gradient.

    ``(N, C, H, W)`` to ``(N, side * side * C, squares, squares)``, channels-last, of `dtype`; both
    types are of float32, float64 and bfloat16. Channels are by row, column and channel of the
    pixel. `padding` zeros come before the first row and column, and past the edge of an image are
    zeros.
    """
    x = channels_last(x)
    out = _empty_output(x, side, squares, dtype)
    if x.numel():
        images, channels, height, width = x.shape
        library = compile_kernel(
            "space_to_depth.cpp",
            given=CPP_DTYPES[x.dtype],
            wanted=CPP_DTYPES[dtype],
            channels=channels,
            side=side,
        )
        arguments = SpaceToDepthArguments(
            images, height, width, padding, squares, squares, torch.get_num_threads()
        )
        library.run(address(x), address(out), ctypes.byref(arguments))
    return out


@space_to_depth.register_fake
def _(x: Tensor, side: int, padding: int, squares: int, dtype: torch.dtype) -> Tensor:
    return _empty_output(x, side, squares, dtype)


def _empty_output(x: Tensor, side: int, squares: int, dtype: torch.dtype) -> Tensor:
    images, channels = x.shape[:2]
    return torch.empty(
        (images, side * side * channels, squares, squares),
        dtype=dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )


def plain_space_to_depth(
    x: Tensor, side: int, padding: int, squares: int, dtype: torch.dtype
) -> Tensor:
    """Do what `space_to_depth` does, on any device, by operations that a compiler fuses."""
    past = squares * side - padding - x.shape[2]  # below 0 where the last rows are not seen
    padded = F.pad(x.to(dtype), (padding, past, padding, past))
    apart = padded.unflatten(3, (squares, side)).unflatten(2, (squares, side))
    return channels_last(apart.permute(0, 3, 5, 1, 2, 4).flatten(1, 3))


def convert_to_squares(
    x: Tensor, side: int, padding: int, squares: int, dtype: torch.dtype
) -> Tensor:
    """Do so by the kernel on a processor, by operations that a compiler fuses elsewhere."""
    if x.device.type == "cpu":
        return call(space_to_depth, x, side, padding, squares, dtype)
    return plain_space_to_depth(x, side, padding, squares, dtype)


def dense_filters(weight: Tensor, side: int) -> Tensor:
    """Return a convolution's weights for squares of pixels; differentiable.

    ``(M, C, K, K)`` to ``(M, side * side * C, K', K')``, where `K'` squares cover `K` pixels; the
    filters are zero past their edge.
    """
    out_channels, channels, kernel_size, _ = weight.shape
    missing = -kernel_size % side
    squares = (kernel_size + missing) // side
    padded = F.pad(weight, (0, missing, 0, missing))
    apart = padded.reshape(out_channels, channels, squares, side, squares, side)
    return channels_last(
        apart.permute(0, 3, 5, 1, 2, 4).reshape(out_channels, -1, squares, squares)
    )
