"""Pictures of explanations, of units and of two networks beside each other."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from alexnet.explain.attribution import Explanation
from alexnet.explain.checks import MethodCheck
from alexnet.explain.compare import NetworkComparison
from alexnet.figures.style import FAINT, OTHER, RIGHT, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOUR_MAP = "viridis"  # as even to the eye in grey and to the colour-blind
FULL_PERCENTILE = 99.5  # that gets the last colour: a gradient has a few far larger pixels
PHOTOGRAPH_SIDE = 640  # pixels of a photograph in a picture
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
    most = max(float(np.percentile(explanation.map, FULL_PERCENTILE)), 1e-30)
    drawn = axes.imshow(
        explanation.map, COLOUR_MAP, alpha=0.6, vmin=0, vmax=most, interpolation="bilinear",
        extent=(left, right, bottom, top),
    )  # fmt: skip
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return drawn


def _shrink(explanation: Explanation) -> Any:
    photograph = explanation.photograph.copy()
    photograph.thumbnail((PHOTOGRAPH_SIDE, PHOTOGRAPH_SIDE))
    return photograph


def _describe(explanation: Explanation) -> str:
    return f"{explanation.method}: {explanation.name}, {explanation.probability:.1%}"


def draw_comparison(found: NetworkComparison, one: str, other: str) -> "Figure":
    """Draw layers against layers: linear CKA, and the correlation of dissimilarities."""
    figure = new_figure(8.2, 4.0)
    for axes, values, title in zip(
        figure.subplots(1, 2), (found.cka, found.rsa), ("linear CKA", "RDMs, Spearman"), strict=True
    ):
        drawn = axes.imshow(values, COLOUR_MAP, vmin=0, vmax=1)
        for (row, column), value in np.ndenumerate(values):
            shade = "black" if value > 0.6 else "white"
            axes.text(column, row, f"{value:.2f}", color=shade, ha="center", va="center", size=6)
        axes.set_xticks(range(len(found.layers[1])), found.layers[1], rotation=60)
        axes.set_yticks(range(len(found.layers[0])), found.layers[0])
        axes.set(title=title, xlabel=other, ylabel=one)
    figure.colorbar(drawn, ax=figure.axes, shrink=0.8)
    return figure


def draw_checks(checks: Sequence[MethodCheck]) -> "Figure":
    """Draw what methods passed: the two curves' means, and the sanity check by layer."""
    figure = new_figure(9, 3.6)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.2))
    for place, check in enumerate(checks):
        left.plot([check.deletion, check.insertion], [place, place], color=FAINT)
        left.plot(check.deletion, place, "o", color=OTHER)
        left.plot(check.insertion, place, "o", color=RIGHT)
    left.set_yticks(range(len(checks)), [check.method for check in checks])
    left.invert_yaxis()
    left.set(xlabel="mean probability: deletion (blue, low is good), insertion (red)")
    for check in checks:
        if check.sanity:
            right.plot([*check.sanity], [*check.sanity.values()], label=check.method)
    right.set(xlabel="weights redrawn down to", ylabel="rank correlation of the maps")
    right.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure
