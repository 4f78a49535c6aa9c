"""Boxes of images, cut at any zoom and resized: ``zoom.cpp``."""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from alexnet.kernels.native import compiled

SOURCE = Path(__file__).with_suffix(".cpp")


class Shape(ctypes.Structure):
    """`Shape` of ``zoom.cpp``, field by field."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in ("images", "height", "width", "channels", "side", "threads")
    )


def zoomed(images: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Cut a box out of each image and resize it by bilinear interpolation, on the processor.

    What `torch.nn.functional.grid_sample` does at the places of ``affine_grid``, corners not
    aligned and the border repeated, within the rounding of float32.

    Parameters
    ----------
    images : Tensor
        ``(N, H, W, C)`` uint8.
    boxes : Tensor
        ``(N, 4)`` float32: centre x and y, half width and half height, the image being -1 to 1. A
        negative half width mirrors left to right.
    side : int
        Of the result, in pixels.

    Returns
    -------
    Tensor
        ``(N, C, side, side)`` float32 of 0-255, channels-last.

    Raises
    ------
    OSError, subprocess.SubprocessError
        Where `native.why_not` has a reason.
    """
    images, boxes = images.contiguous(), boxes.float().contiguous()
    count, height, width, channels = images.shape
    out = torch.empty(
        (count, channels, side, side), memory_format=torch.channels_last, dtype=torch.float32
    )
    shape = Shape(count, height, width, channels, side, torch.get_num_threads())
    pointers = [ctypes.c_void_p(one.data_ptr()) for one in (images, boxes, out)]
    compiled(SOURCE).run(*pointers, ctypes.byref(shape))
    return out
