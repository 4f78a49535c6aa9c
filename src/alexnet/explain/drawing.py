"""Pictures of explanations, of units and of two networks beside each other."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from alexnet.explain.attribution import Explanation
from alexnet.figures.style import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = "viridis"  # as even to the eye in grey and to the colour-blind
STRONGEST = 99.5  # percentile that gets the last colour: a gradient has a few far larger pixels
LONGEST = 640  # pixels of a photograph in a picture
A_ROW = 6


def draw_explanation(explanation: Explanation) -> "Figure":
    """Draw a map over its photograph, with its colours."""
    figure = new_figure(5.2, 4.4)
    axes = figure.subplots()
    drawn = _lay_over(axes, explanation)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.85)
    bar.set_label(f"speaks for “{explanation.name}”")
    axes.set_title(_describe(explanation), fontsize=9)
    return figure


def draw_strip(explanations: Sequence[Explanation]) -> "Figure":
    """Draw the maps of one photograph beside each other, the photograph first.

    Each has its own scale: methods measure different things.
    """
    rows = -(-(len(explanations) + 1) // A_ROW)
    columns = min(A_ROW, len(explanations) + 1)
    figure = new_figure(1.75 * columns + 0.5, 2.0 * rows + 0.3)
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    places[0].imshow(_shrink(explanations[0]))
    places[0].set_title(_describe(explanations[0]).split(": ", 1)[1], fontsize=8)
    for axes, explanation in zip(places[1:], explanations, strict=False):
        drawn = _lay_over(axes, explanation)
        axes.set_title(explanation.method, fontsize=8)
    for axes in places:
        axes.set_axis_off()
    bar = figure.colorbar(drawn, ax=places, shrink=0.7, aspect=30, ticks=[])
    bar.set_label("nothing … strongest", fontsize=8)
    return figure


def _lay_over(axes: "Axes", explanation: Explanation) -> Any:
    """Draw the photograph in grey, and the map where the network saw it."""
    width, height = explanation.photograph.size
    left, top, right, bottom = explanation.box
    axes.imshow(_shrink(explanation).convert("L"), cmap="gray", extent=(0, width, height, 0))
    most = max(float(np.percentile(explanation.map, STRONGEST)), 1e-30)
    drawn = axes.imshow(
        explanation.map, COLOURS, alpha=0.6, vmin=0, vmax=most, interpolation="bilinear",
        extent=(left, right, bottom, top),
    )  # fmt: skip
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return drawn


def _shrink(explanation: Explanation) -> Any:
    photograph = explanation.photograph.copy()
    photograph.thumbnail((LONGEST, LONGEST))
    return photograph


def _describe(explanation: Explanation) -> str:
    return f"{explanation.method}: {explanation.name}, {explanation.probability:.1%}"


def lay_out_sheet(tiles: Sequence[NDArray[np.uint8]], columns: int, gap: int = 4) -> Any:
    """Lay tiles ``(side, side, 3)`` uint8 of one size in rows on white, with gaps of pixels."""
    side = tiles[0].shape[0] + gap
    width = tiles[0].shape[1] + gap
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * side + gap, columns * width + gap, 3), 255, np.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // columns * side + gap, number % columns * width + gap
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return sheet
