"""Windows of images at any zoom, coloured and less the mean, in one pass: ``zoom.cpp``."""

import ctypes

import torch
from torch import Tensor

from alexnet.kernels.native import CPP_DTYPES, address, compile_kernel


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
