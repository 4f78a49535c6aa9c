"""The comparisons of a report as bars: one row of axes a work, ours in red, spreads as whiskers."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet.bench.contender import MATMUL
from alexnet.figures.style import FAINT, INK, OTHER, RIGHT, drawing_style, new_figure
from alexnet.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 8.0  # inches
BAR, HEAD = 0.26, 0.55  # inches of height: of a bar, and of a work's title and axis
TITLES = {
    "train": "Training steps",
    "infer": "Inference on a batch",
    "infer-1": "Inference on one image",
    "infer-int8": "Inference in int8",
    "lrn": "Normalisation after conv1",
    "prepare": "Preparing photographs",
    "loader": "Loading batches",
}
LIMITS = (MATMUL, "copy", "decode+resize", "libjpeg-turbo")  # peers that no network can pass


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Write the picture of a report, whole or not at all; .png or .svg as the path says.

    Raises
    ------
    MissingExtraError
        When matplotlib is not installed.
    AlexNetError
        When the path cannot be written.
    """
    works = [(work, list(rows)) for work, rows in groupby(report["results"], lambda r: r["work"])]
    heights = [HEAD + BAR * (len(rows) + 1) for _, rows in works]
    with drawing_style():
        figure = new_figure(WIDTH, sum(heights) + 0.3)
        grid = figure.subplots(len(works), 1, height_ratios=heights, squeeze=False)
        for axes, (work, rows) in zip(grid[:, 0], works, strict=True):
            bars(axes, work, rows)
        about = report["machine"]
        figure.supxlabel(
            f"{report['network']}, batch {report['batch_size']}, {about['threads']} threads, "
            f"{about['processor']}; medians of {report['rounds']} rounds, lowest to highest",
            fontsize=7.5,
            color=INK,
        )
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], dpi=150)


def bars(axes: "Axes", work: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw a work: ours on top, then every peer with how many times its speed ours is."""
    unit = rows[0]["unit"]
    drawn = [("ours", rows[0]["ours"], rows[0]["ours_spread"], RIGHT, "")]
    for row in rows:
        colour = FAINT if row["peer"] in LIMITS else OTHER
        drawn.append(
            (row["peer"], row["theirs"], row["theirs_spread"], colour, times(row["ratio"]))
        )
    places = range(len(drawn))
    values = [value for _, value, *_ in drawn]
    errors = [
        [value - spread[0] for _, value, spread, *_ in drawn],
        [spread[1] - value for _, value, spread, *_ in drawn],
    ]
    axes.barh(places, values, color=[colour for *_, colour, _ in drawn], height=0.72)
    axes.errorbar(values, places, xerr=errors, fmt="none", ecolor=INK, elinewidth=0.9, capsize=2.5)
    for place, (_, value, spread, _, told) in zip(places, drawn, strict=True):
        text = f" {value:,.{0 if value >= 100 else 1}f}{told}"
        axes.text(max(value, spread[1]), place, text, va="center", fontsize=8, color=INK)
    axes.set_yticks(places, [name for name, *_ in drawn], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.2, y=0.02)
    axes.set_xlim(left=0)
    lower = ", lower is better" if unit == "ms" else ""
    axes.set_title(f"{TITLES.get(work, work)} ({unit}{lower})", loc="left", fontsize=9.5)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=7.5)


def times(ratio: float) -> str:
    """Return how a ratio is written beside a bar."""
    return f"   ours: {ratio:.2f}x"
