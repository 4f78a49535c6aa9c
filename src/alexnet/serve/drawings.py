"""Maps and filters as pictures: sheets of tiles, in PNG."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alexnet.serve.networks import Networks
from alexnet.serve.pictures import data_uri, sheet
from alexnet.serve.refusals import Refusal

MAX_TILES = 4_096  # of a fully-connected layer's units, each one pixel


def drawn_maps(layer: str, out: Tensor) -> dict[str, Any]:
    """Draw a layer's output for one image.

    Parameters
    ----------
    layer : str
        Its name.
    out : Tensor
        ``(maps, side, side)`` or ``(units,)`` float32. Zero and below are black, the layer's
        largest value is white; so layers before a ReLU show what the ReLU lets through.
    """
    maps = out if out.dim() == 3 else out[:, None, None]
    largest = max(float(maps.max()), 1e-12)
    tiles = (maps.clamp(min=0) * (255 / largest)).round().to(torch.uint8).numpy()
    columns = columns_for(len(tiles))
    return {
        "layer": layer,
        "maps": len(tiles),
        "size": tiles.shape[1],
        "columns": columns,
        "image": data_uri(sheet(tiles, columns)),
        "means": rounded(maps.mean((1, 2))),
        "largest": rounded(maps.amax((1, 2))),
    }


def drawn_filters(networks: Networks, layer: str, unit: int | None) -> dict[str, Any]:
    """Draw the weights of a convolution.

    A layer that sees the pixels shows every filter in colour, one scale for all, as Figure 3 does;
    another shows the filters of one unit, a grey tile for each map that it sees. Zero is the
    middle grey.

    Raises
    ------
    Refusal
        404 where the layer has no shared filters or the unit is none of its own.
    """
    weight = networks.filters(layer)  # (maps, sees, k, k) float32
    colour = weight.shape[1] == networks.model.spec.in_channels == 3
    if colour and networks.model.normalise.bgr:
        weight = weight.flip(1)
    if not colour:
        unit = unit or 0
        if not 0 <= unit < len(weight):
            fix = f"Its units are 0 to {len(weight) - 1}."
            raise Refusal(404, f"{layer} has no unit {unit}.", fix)
        weight = weight[unit][:, None]  # (sees, 1, k, k)
    scale = max(float(weight.abs().max()), 1e-12)
    tiles = ((weight / scale + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    columns = columns_for(len(tiles))
    drawn = sheet(tiles, columns)
    return {
        "layer": layer,
        "unit": None if colour else unit,
        "filters": len(tiles),
        "size": tiles.shape[1],
        "columns": columns,
        "image": data_uri(drawn if colour else np.ascontiguousarray(drawn[..., 0])),
        "scale": scale,
    }


def columns_for(tiles: int) -> int:
    """Return how many tiles go in a row: 16 for the 96 of conv1, as in Figure 3."""
    return 2 ** math.ceil(math.log2(max(1, tiles)) / 2 + 0.5) if tiles > 1 else 1


def rounded(values: Tensor) -> list[float]:
    """Return numbers with the digits that a float32 of an activation has to tell."""
    return [float(f"{value:.5g}") for value in values.tolist()]
