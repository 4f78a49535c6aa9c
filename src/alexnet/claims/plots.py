"""Pictures of claims: pairs of runs with their interval, learning curves, and the paper's Figure 1.

Those of the report are SVG inside its page. matplotlib draws them in `COLOURS`, which are then
replaced by the style sheet's variables of the same names, so that a picture follows the page from
light to dark; its texts stay texts, in the page's type.
"""

import contextlib
import io
import math
import re
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from alexnet.claims.claim import FILE, RunResult, read_results
from alexnet.errors import RunError
from alexnet.files import translate_os_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from alexnet.claims.report import Finding
    from alexnet.figures.style import ImageFormat

COLOURS = {
    "first": "#b3491f", "second": "#1c5d99", "verdict": "#19703f",
    "soft": "#5b5a55", "grid": "#e6e3dc", "page": "#fdfcfa",
}  # fmt: skip
SOFT = COLOURS["soft"]
STYLE: Any = {
    "font.size": 11,
    "text.color": SOFT,
    "axes.labelcolor": SOFT,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": COLOURS["grid"],
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "figure.titlesize": 11,
    "lines.markersize": 7,
    "svg.fonttype": "none",
    **{f"axes.spines.{side}": False for side in ("left", "right", "top", "bottom")},
    **{f"{axis}tick.major.size": 0 for axis in "xy"},
}
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))

# What a claim's measure is seen to come from, as fields of a curve's points; else the test error.
CURVES = {
    "epochs_to_25": ("train_error",),
    "final_train_error": ("train_error",),
    "gap": ("train_error", "test_error"),
}
CURVE_TITLES = {"train_error": "Training error", "test_error": "Test error"}
FIGURE_1 = ("tanh", "ReLU")  # the arms of the claim `relu`
Curve = list[tuple[float, float]]  # epoch, error of 0 to 1


@contextlib.contextmanager
def page_style() -> Iterator[None]:
    """Draw figures for the report's page within the block.

    Raises `MissingExtraError` when matplotlib is not installed.
    """
    from alexnet.figures.style import drawing_style

    with drawing_style():
        import matplotlib as mpl

        with mpl.rc_context(STYLE):
            yield


def render_pairs(finding: "Finding", text: str) -> Markup:
    """Return the picture of a claim's pairs as SVG, with the text that stands for it."""
    with page_style():
        return _make_svg(draw_pairs(finding), text, f"{finding.claim.name} pairs")


def render_curves(finding: "Finding") -> Iterator[Markup]:
    """Yield the pictures of a claim's learning curves as SVG."""
    with page_style():
        for number, (figure, text) in enumerate(draw_loss_curves(finding)):
            yield _make_svg(figure, text, f"{finding.claim.name} {number}")


def draw_pairs(finding: "Finding") -> "Figure":
    """Draw each pair as two joined points, and beside them the differences with their interval."""
    claim = finding.claim
    figure = _new_figure(_shorten(claim.measure_title, 54))
    values, differences = figure.subplots(1, 2, width_ratios=(1.2, 1))
    figure.subplots_adjust(left=0.13, right=0.99, bottom=0.16, top=0.84, wspace=0.4)
    for axes in (values, differences):
        axes.set_yscale("log" if claim.ratio else "linear")
    _draw_values(values, finding)
    _draw_differences(differences, finding)
    return figure


def _new_figure(title: str) -> "Figure":
    """Return an empty figure with its title at the left; all of one kind are laid out alike."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.5))  # inches: 360 x 252 of the SVG's units
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def _draw_values(axes: "Axes", finding: "Finding") -> None:
    """Draw the values of both arms, a line for each seed, a short line for each mean."""
    claim, comparison = finding.claim, finding.comparison
    for _, first, second in comparison.pairs:
        values = first.value, second.value
        axes.plot((0, 1), values, color=SOFT, lw=1, alpha=0.45, gid="pair")
        _mark(axes, 0, first.value, "first", up=first.censored)
        _mark(axes, 1, second.value, "second", up=second.censored)
    for name, mean, x in zip(("first", "second"), comparison.means, (-0.3, 1.3), strict=True):
        ends = (x - 0.1, x + 0.1)
        axes.plot(ends, (mean, mean), color=COLOURS[name], lw=2.5, gid=f"mean {name}")
    names = [textwrap.fill(_shorten(arm.name, 28), 14) for arm in (claim.first, claim.second)]
    axes.set_xticks((0, 1), names)
    axes.set_xlim(-0.6, 1.6)
    _set_ticks(axes, "%" if claim.is_fraction else "")


def _draw_differences(axes: "Axes", finding: "Finding") -> None:
    """Draw what each seed says, the mean with its interval, and the paper's number."""
    claim, comparison = finding.claim, finding.comparison
    points = claim.is_fraction and not claim.ratio
    title = "ratio" if claim.ratio else "difference, points" if points else "difference"
    axes.set_title(title, loc="right")
    axes.axhline(1 if claim.ratio else 0, color=SOFT, lw=1, gid="zero")
    if claim.paper_effect is not None:
        axes.axhline(claim.paper_effect, color=SOFT, lw=1.5, ls=(0, (1, 2)), gid="paper")
        axes.annotate("paper", (0, claim.paper_effect), (0, 3), gid="paper-label",
                      xycoords=("axes fraction", "data"), textcoords="offset points")  # fmt: skip
    step = min(0.09, 0.36 / len(comparison.pairs))  # equal values are seen to be several
    for place, (_, a, b) in enumerate(comparison.pairs):
        x = step * (place - (len(comparison.pairs) - 1) / 2)
        value = a.value / b.value if claim.ratio else a.value - b.value
        _mark(axes, x, value, "soft", up=a.censored, down=b.censored)
    low, high = comparison.interval
    ends = [end for end in (low, high) if math.isfinite(end) and (end > 0 or not claim.ratio)]
    verdict: dict[str, Any] = {"color": COLOURS["verdict"], "lw": 2, "gid": "interval"}
    axes.plot([0.4] * len(ends), ends, ls="", marker="_", ms=10, mew=2, **verdict)
    bottom, top = axes.get_ylim()
    if not math.isnan(low):
        shown = (low if low in ends else bottom), (high if high in ends else top)
        axes.plot((0.4, 0.4), shown, **verdict)
        for end, is_open, marker in zip(shown, (low, high), (7, 6), strict=True):
            if is_open not in ends:  # carets down and up, whose tip is at the axis' end
                axes.plot(0.4, end, marker=marker, ms=8, clip_on=False, **verdict)
    axes.plot(0.4, comparison.effect, "D", color=COLOURS["verdict"], gid="diamond", zorder=3)
    axes.set_ylim(bottom, top)
    named = f"{claim.first.name} {'÷' if claim.ratio else '−'} {claim.second.name}"
    axes.set_xticks((0,), [textwrap.fill(_shorten(named, 40), 20)])
    axes.set_xlim(-0.6, 0.9)
    _set_ticks(axes, "×" if claim.ratio else "points" if points else "")


def _mark(
    axes: "Axes", x: float, y: float, name: str, *, up: bool = False, down: bool = False
) -> None:
    """Draw a value as a dot; where the true one is larger or smaller, as an open triangle."""
    colour, is_open = COLOURS[name], up or down
    axes.plot(
        x, y, "o" if up == down else "^" if up else "v", color=colour, zorder=2,
        mfc=COLOURS["page"] if is_open else colour, mec=colour if is_open else COLOURS["page"],
        gid=f"dot {name}" + " open" * is_open,
    )  # fmt: skip


def _set_ticks(axes: "Axes", unit: str) -> None:
    """Set few, round ticks in a unit; at 1, 2, 5 of each decade of a long axis of logarithms."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    low, high = axes.get_ylim()
    if axes.get_yscale() == "log" and high / low >= 4:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1000 else (1,)))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_minor_locator(NullLocator())
    factor = 100 if unit in ("%", "points") else 1
    after = {"%": " %", "×": "×"}.get(unit, "")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value * factor:g}{after}".replace("-", "−"))


def draw_loss_curves(finding: "Finding") -> Iterator[tuple["Figure", str]]:
    """Draw the learning curves behind the claim's measure, each with a text that stands for it.

    None where both arms are one run. For `relu` this is Figure 1 of the paper: the training error
    by epoch, ReLU solid, tanh dashed.
    """
    claim = finding.claim
    if finding.first == finding.second:
        return
    for field in CURVES.get(claim.measure, ("test_error",)):
        arms = [_curves_of(runs.values(), field) for runs in (finding.first, finding.second)]
        if all(len(average_curves(arm)) > 1 for arm in arms):
            names = claim.first.name, claim.second.name
            yield _draw_curves(names, field, arms, claim.measure == "epochs_to_25")


def _curves_of(results: Iterable[RunResult], field: str) -> list[Curve]:
    """Return a curve for each run, where it was measured."""
    return [
        [
            (float(point.epoch), value)
            for point in result.curve
            if (value := getattr(point, field)) is not None and math.isfinite(value)
        ]
        for result in results
    ]


def _draw_curves(
    names: tuple[str, str], field: str, arms: list[list[Curve]], until_25: bool
) -> tuple["Figure", str]:
    """Draw each seed's curve thin and each arm's mean thick, and the line of 25 % if it counts."""
    title = CURVE_TITLES[field]
    figure = _new_figure(title)
    axes = figure.subplots()
    figure.subplots_adjust(left=0.12, right=0.9, bottom=0.17, top=0.83)
    late, last, ends = [], 0.0, []
    for arm, name, curves in zip(names, ("first", "second"), arms, strict=True):
        style: dict[str, Any] = {
            "color": COLOURS[name], "ls": (0, (4, 2.5)) if name == "first" else "-",
        }  # fmt: skip
        for curve in filter(None, curves):
            axes.plot(*zip(*curve, strict=True), lw=1, alpha=0.4, gid=f"curve thin {name}", **style)
            last = max(last, curve[-1][0])
            late += [error for epoch, error in curve if until_25 or epoch >= curve[-1][0] / 4]
        mean = average_curves(curves)
        label = _shorten(arm, 22)
        axes.plot(*zip(*mean, strict=True), lw=2.2, label=label, gid=f"curve {name}", **style)
        ends.append(f"{arm} ends at {mean[-1][1] * 100:.2f} %")
    margin = (max(late) - min(late)) * 0.1 or 0.01
    axes.set_ylim(0 if until_25 else max(min(late) - margin, 0), max(late) + margin / 2)
    axes.set_xlim(0, last)
    axes.set_xlabel("epochs")
    _set_ticks(axes, "%")
    if until_25:
        axes.axhline(0.25, color=SOFT, lw=1.5, ls=(0, (1, 2)), gid="paper")
        axes.annotate("25 %", (1, 0.25), (4, 0), va="center", gid="paper-label",
                      xycoords=("axes fraction", "data"), textcoords="offset points")  # fmt: skip
    figure.legend(loc="upper left", bbox_to_anchor=(-0.02, 0.945), ncols=2)
    text = f"{title} by epoch: {names[1]} solid, {names[0]} dashed; "
    return figure, text + ", ".join(ends) + "."


def average_curves(curves: list[Curve]) -> Curve:
    """Return the mean over the seeds at every epoch that all of them have."""
    by_epoch = [dict(curve) for curve in curves if curve]
    shared = sorted(set.intersection(*map(set, by_epoch))) if by_epoch else []
    return [(epoch, sum(curve[epoch] for curve in by_epoch) / len(by_epoch)) for epoch in shared]


def _make_svg(figure: "Figure", text: str, salt: str) -> Markup:
    """Return a figure as an SVG element of a page, with the text that stands for it.

    The groups' ids become classes, colours the page's variables. `salt` keeps the ids that are
    referred to apart from those of the page's other figures.
    """
    import matplotlib as mpl

    file = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": salt}):
        figure.savefig(file, format="svg", facecolor="none", metadata=NO_METADATA)
    svg = file.getvalue().partition("<svg ")[2]
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box
    svg = f'<svg {box[0]} role="img" aria-label="{escape(text.strip())}">' + svg.partition(">")[2]
    svg = re.sub(r"<!--.*?-->|<style.*?</style>|\n\s*", " ", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="([^"]*?)(?:_\d+)?"', r'<g class="\1"', svg)
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return Markup(svg)


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def draw_figure_1(results: Iterable[RunResult]) -> "Figure | None":
    """Draw the paper's Figure 1 from the compared runs of `relu`; None without both arms' runs."""
    runs = [run for run in results if run.curve]
    arms = [
        _curves_of((run for run in runs if f"relu/{name}" in run.arms), "train_error")
        for name in FIGURE_1
    ]
    return _draw_curves(FIGURE_1, "train_error", arms, until_25=True)[0] if all(arms) else None


def save_figure_1(folder: Path, form: "ImageFormat" = "both") -> Iterator[Path]:
    """Draw Figure 1 into the ``figures`` of a folder of results; yield the paths.

    Raises `RunError` when the folder has no finished run of either network; `MissingExtraError`
    when matplotlib is not installed.
    """
    from alexnet.figures.style import save

    pictures = folder / "figures"
    with page_style(), translate_os_error(pictures):
        if (figure := draw_figure_1(read_results(folder / FILE))) is None:
            raise RunError(
                f"{str(folder)!r} has no runs of Figure 1's networks.",
                f"Make them with: alexnet claims relu --out {folder}",
            )
        pictures.mkdir(exist_ok=True)
        yield from list(save(figure, pictures, "figure-1", form))
