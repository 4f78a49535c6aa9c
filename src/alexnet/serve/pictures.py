"""Bytes of an upload -> the square that the network's views are cut from; arrays -> PNGs."""

import base64
import io
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from alexnet.data.decode import open_image, resize_and_crop
from alexnet.errors import ImageError
from alexnet.serve.refusals import Refusal
from alexnet.serve.settings import FORMATS

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels of the photograph


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded photograph as the network's preparation leaves it."""

    pixels: Tensor  # (prepared, prepared, 3) uint8 RGB
    width: int  # of the photograph, upright
    height: int

    def box(self, left: float, top: float, right: float, bottom: float) -> Box:
        """Return where a box of the prepared square lies in the photograph."""
        side = min(self.width, self.height)
        scale = side / len(self.pixels)
        x, y = (self.width - side) / 2, (self.height - side) / 2
        return x + left * scale, y + top * scale, x + right * scale, y + bottom * scale


def opened(data: bytes, prepared: int, max_pixels: int) -> Picture:
    """Decode an upload of one of the allowed formats.

    Raises
    ------
    Refusal
        415 when it is none of the formats, 413 when it announces too many pixels (which is found
        out before any is decoded), 422 when it is damaged.
    """
    try:
        image = open_image(data, formats=FORMATS, max_pixels=max_pixels)
    except ImageError as error:
        raise _refusal(error, max_pixels) from None
    pixels = torch.from_numpy(np.array(resize_and_crop(image, prepared)))
    return Picture(pixels, image.width, image.height)


def _refusal(error: ImageError, max_pixels: int) -> Refusal:
    if "pixels than" in error.what:
        fix = f"Send one of at most {max_pixels:,} pixels."
        return Refusal(413, "The image announces more pixels than this server decodes.", fix)
    if "known format" in error.what or "empty" in error.what:
        return Refusal(
            415, error.what, f"Send a file of one of these formats: {', '.join(FORMATS)}."
        )
    return Refusal(422, error.what, "Send an image that other programs can open.")


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """Encode ``(H, W)`` grey or ``(H, W, 3)`` RGB uint8 as a PNG in a ``data:`` address."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def sheet(tiles: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Lay ``(N, h, w)`` or ``(N, h, w, 3)`` tiles in rows of `columns`, without gaps."""
    rows = -(-len(tiles) // columns)
    height, width = tiles.shape[1:3]
    out = np.zeros((rows * height, columns * width, *tiles.shape[3:]), np.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // columns * height, number % columns * width
        out[top : top + height, left : left + width] = tile
    return out
