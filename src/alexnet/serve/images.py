"""Photographs as the network takes them, with parts covered; maps and filters as pictures."""

import base64
import io
import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from alexnet.data.augment import crop_offsets
from alexnet.data.decode import box_in_photograph, encode_jpeg, inspect_image, resize_and_crop
from alexnet.serve.admission import IMAGE_FORMATS
from alexnet.serve.responses import Crop, Filters, Maps

GRID = 11  # positions of the grey square along a side: 121 forwards in all


@dataclass(frozen=True, slots=True)
class Photograph:
    """A decoded photograph as the network's preparation leaves it."""

    pixels: Tensor  # (size, size, 3) uint8 RGB
    width: int  # of the photograph, upright
    height: int

    @classmethod
    def decode(cls, data: bytes, size: int, max_pixels: int) -> Self:
        """Decode an upload; an `ImageError` where it is none of the formats, or damaged.

        That it announces too many pixels is found out before any is decoded.
        """
        image = inspect_image(data, formats=IMAGE_FORMATS, max_pixels=max_pixels).image
        pixels = torch.from_numpy(np.array(resize_and_crop(image, size)))
        return cls(pixels, image.width, image.height)

    def box(self, left: float, top: float, right: float, bottom: float) -> list[float]:
        """Return where a box of the prepared square lies in the photograph."""
        box = (left, top, right, bottom)
        return list(box_in_photograph(box, len(self.pixels), self.width, self.height))

    def describe_crop(self, view: int, views: int) -> Crop:
        """Return what of the photograph the network saw in 1 or 10 views of some side."""
        size = len(self.pixels)
        boxes = [
            self.box(left, top, left + view, top + view)
            for top, left in crop_offsets(size, view, views)
        ]
        return Crop(
            width=self.width,
            height=self.height,
            square=self.box(0, 0, size, size),
            view=boxes[0],
            views=[box for box in boxes for _ in range(2 if views == 10 else 1)],
        )


@dataclass(frozen=True, slots=True)
class OcclusionGrid:
    """Grey squares over a view, in its pixels: the experiment of Zeiler and Fergus (2014)."""

    view: int  # side of the view
    size: int  # side of a square
    stride: int  # from one to the next
    offset: int  # of the view in the prepared image

    @classmethod
    def over(cls, prepared: int, view: int) -> Self:
        """Return squares of a quarter of the view, spread evenly from edge to edge."""
        size = max(1, view // 4)
        return cls(view, size, max(1, (view - size) // (GRID - 1)), (prepared - view) // 2)

    def cover(self, image: Tensor, colour: Tensor) -> list[Tensor]:
        """Return a prepared image once with each square covered, row by row."""
        copies = []
        starts = [self.offset + step * self.stride for step in range(GRID)]
        for top in starts:
            for left in starts:
                copy = image.clone()
                copy[top : top + self.size, left : left + self.size] = colour
                copies.append(copy)
        return copies


def draw_maps(layer: str, output: Tensor) -> Maps:
    """Draw a layer's output for one image, ``(maps, side, side)`` or ``(units,)`` float32.

    Zero and below are black, the layer's largest value is white; so layers before a ReLU show what
    the ReLU lets through.
    """
    maps = output if output.dim() == 3 else output[:, None, None]
    scale = 255 / max(float(maps.max()), 1e-12)
    tiles = (maps.clamp(min=0) * scale).round().to(torch.uint8).numpy()
    columns = _choose_columns(len(tiles))
    return Maps(
        layer=layer,
        maps=len(tiles),
        size=tiles.shape[1],
        columns=columns,
        image=_encode_png_uri(_tile(tiles, columns)),
        means=list(map(round_digits, maps.mean((1, 2)).tolist())),
        largest=list(map(round_digits, maps.amax((1, 2)).tolist())),
    )


def tile_filters(layer: str, weight: Tensor, unit: int | None) -> Filters:
    """Draw the weights of a convolution, ``(filters, channels, k, k)`` float32.

    With a `unit` a grey tile for each channel of one filter; without, every filter in colour,
    one scale for all, as Figure 3 does. Zero is the middle grey.
    """
    if unit is not None:
        weight = weight[unit][:, None]  # (channels, 1, k, k)
    scale = max(float(weight.abs().max()), 1e-12)
    tiles = ((weight / scale + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    columns = _choose_columns(len(tiles))
    return Filters(
        layer=layer,
        unit=unit,
        filters=len(tiles),
        size=tiles.shape[1],
        columns=columns,
        image=_encode_png_uri(_tile(tiles if unit is None else tiles[..., 0], columns)),
        scale=scale,
    )


def round_digits(value: float) -> float:
    """Return a number with the digits that a float32 of an activation has to tell."""
    return float(f"{value:.5g}")


def encode_jpeg_uri(pixels: NDArray[np.uint8]) -> str:
    """Encode ``(H, W, 3)`` uint8 RGB as a JPEG in a ``data:`` address."""
    encoded = encode_jpeg(np.ascontiguousarray(pixels), 90)
    return "data:image/jpeg;base64," + base64.b64encode(encoded).decode()


def _encode_png_uri(pixels: NDArray[np.uint8]) -> str:
    """Encode ``(H, W)`` grey or ``(H, W, 3)`` RGB uint8 as a PNG in a ``data:`` address."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def _choose_columns(tiles: int) -> int:
    """Return how many tiles go in a row: 16 for the 96 of conv1, as in Figure 3."""
    return 2 ** math.ceil(math.log2(max(1, tiles)) / 2 + 0.5) if tiles > 1 else 1


def _tile(tiles: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Lay ``(N, h, w)`` or ``(N, h, w, 3)`` tiles in rows of `columns`, without gaps."""
    rows = -(-len(tiles) // columns)
    _, height, width, *colours = tiles.shape
    cells = np.zeros((rows * columns, height, width, *colours), np.uint8)
    cells[: len(tiles)] = tiles
    grid = cells.reshape(rows, columns, height, width, *colours).swapaxes(1, 2)
    return grid.reshape(rows * height, columns * width, *colours)
