"""Figure 3: the filters of conv1, as the 2012 code laid them out."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from alexnet.predictor import Predictor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACROSS = 16  # filters a row (facts 5)
GAP = 3  # white pixels between the towers
WIDTH = 9.0  # inches, about


def filters(model: Predictor) -> "Figure":
    """Draw conv1's filters, every pixel of a filter a whole number of dots."""
    from matplotlib.figure import Figure

    image = sheet(model)
    height, width = image.shape[:2]
    zoom = max(1, round(WIDTH * 150 / width))
    figure = Figure(figsize=(width * zoom / 150, height * zoom / 150))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(image, interpolation="none", aspect="auto")
    axes.set_axis_off()
    return figure


def sheet(model: Predictor) -> NDArray[np.float32]:
    """Return the filters of conv1 as one picture, ``(height, width, 3)`` of 0 to 1, RGB.

    Sixteen a row with a black border of one pixel, one scale for all from the smallest weight to
    the largest, as in the 2012 source (facts 5). Of two towers the first is above the second, each
    beginning a row. Networks that take BGR are turned to RGB.
    """
    parameter = model.network.get_submodule(model.spec.convs[0].name).get_parameter("weight")
    weight = parameter.detach().float().cpu()  # (maps, 3, k, k)
    if model.normalise.bgr:
        weight = weight.flip(1)
    low, high = weight.min(), weight.max()
    scale = float(high - low) or 1.0
    tiles = ((weight - low) / scale).permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy()
    towers = [_rows(part) for part in np.split(tiles, model.spec.towers)]
    gap = np.ones((GAP, towers[0].shape[1], 3), np.float32)
    return np.concatenate([part for tower in towers for part in (gap, tower)][1:])


def _rows(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lay ``(n, k, k, 3)`` out in rows."""
    count, side = tiles.shape[:2]
    down = -(-count // ACROSS)
    rows = np.ones((down * (side + 1) + 1, ACROSS * (side + 1) + 1, 3), np.float32)
    for index, tile in enumerate(tiles):
        top, left = index // ACROSS * (side + 1), index % ACROSS * (side + 1)
        rows[top : top + side + 2, left : left + side + 2] = 0
        rows[top + 1 : top + side + 1, left + 1 : left + side + 1] = tile
    return rows
