"""Pixels on their way into conv1: windows of images, and squares of pixels as channels.

`zoom_crops` cuts windows at any zoom, colours them and takes the mean off at once: ``zoom.cpp``.
`space_to_depth` makes a dense convolution of one with a stride: conv1 sees three channels in steps
of four pixels, which fills no vector register. Squares of four by four pixels laid side by side are
48 channels in steps of one (docs/performance.md).
"""

import ctypes

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.kernels.native import CPP_DTYPES, address, call, channels_last, compile_kernel


class ZoomArguments(ctypes.Structure):
    """`ZoomArguments` of ``zoom.cpp``, field by field."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("images", "height", "width", "side", "threads")),
        ("divisor", ctypes.c_double),
    )


def crop_windows(corners: Tensor, mirrored: Tensor, side: int) -> Tensor:
    """Return the windows of `zoom_crops` that are `side` pixels of the image, no zoom.

    ``(N, 2)`` int64, top and left, and ``(N,)`` bool to ``(N, 4)`` float64.
    """
    step = torch.where(mirrored, -1.0, 1.0).double()
    left = corners[:, 1] + mirrored * (side - 1)
    return torch.stack([left, corners[:, 0], step, torch.ones_like(step)], 1)


def box_windows(boxes: Tensor, mirrored: Tensor, height: int, width: int, side: int) -> Tensor:
    """Return the windows of `zoom_crops` that are boxes of the image.

    ``(N, 4)``, centre x and y, half width and half height, the image being -1 to 1, and ``(N,)``
    bool to ``(N, 4)`` float64. Where a box ends, its outermost pixels end: corners are not aligned.
    """
    sides = torch.tensor([width, height])
    centre, half = boxes.double().chunk(2, 1)
    half[:, 0] *= torch.where(mirrored, -1.0, 1.0)
    step = half * sides / side
    first = (centre + 1 - half) * sides / 2 - 0.5 + step / 2
    return torch.cat([first, step], 1)


def zoom_crops(
    images: Tensor,
    windows: Tensor,
    side: int,
    shift: Tensor | None = None,
    mean: Tensor | None = None,
    divisor: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Cut a window out of each image by bilinear interpolation, and colour it, on the processor.

    ``(N, H, W, C)`` uint8 to ``(N, C, side, side)``, channels-last, of `dtype`: float32, float64 or
    bfloat16; all is computed in float32. `windows`, ``(N, 4)`` float64, of `crop_windows` or
    `box_windows`, are where in the image the first pixel of the result lies, x and y in pixels, and
    the steps from each to the next, which are negative where it is mirrored. The border is repeated
    where a window reaches past it.

    `shift`, ``(N, C, 1, 1)`` float32, is added; then `mean`, ``(1, C, side, side)`` or
    ``(1, C, 1, 1)`` float32, best channels-last, is subtracted; all is divided by `divisor` at
    last. Another type or shape is a `TypeError`.
    """
    if images.dtype != torch.uint8 or images.dim() != 4:
        raise TypeError(f"Images are (N, H, W, C) uint8, not {_describe(images)}.")
    if windows.dtype != torch.float64 or windows.shape != (len(images), 4):
        raise TypeError(f"Windows are ({len(images)}, 4) float64, not {_describe(windows)}.")
    for given in (shift, mean):
        if given is not None and given.dtype != torch.float32:
            raise TypeError(f"What is added and subtracted is float32, not {_describe(given)}.")
    count, height, width, channels = images.shape
    shift = torch.zeros(count, channels) if shift is None else shift.reshape(count, channels)
    mean = torch.zeros(1, channels, 1, 1) if mean is None else mean
    laid = mean.expand(1, channels, side, side).permute(0, 2, 3, 1)
    inputs = [one.contiguous() for one in (images, windows, shift, laid)]
    out = torch.empty((count, channels, side, side), memory_format=torch.channels_last, dtype=dtype)
    kernel = compile_kernel(
        "zoom.cpp", wanted=CPP_DTYPES[dtype], channels=channels, divides=int(divisor != 1)
    )
    arguments = ZoomArguments(count, height, width, side, torch.get_num_threads(), divisor)
    kernel.run(*map(address, (*inputs, out)), ctypes.byref(arguments))
    return out


def _describe(x: Tensor) -> str:
    return f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}"


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
