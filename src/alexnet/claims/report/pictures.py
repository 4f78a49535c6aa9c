"""The pictures of a claim as inline SVG: its pairs with their interval, and its learning curves.

Drawn here, not by matplotlib: the same picture must be read on white and on black, so its colours
are the page's own (`report.css`), and its texts are text, in the page's type, at a size that is
right on a phone.
"""

import math
from collections.abc import Mapping
from xml.etree.ElementTree import Element

from alexnet.claims.claim import Claim, Result
from alexnet.claims.report import words
from alexnet.claims.report.axes import Axis, around
from alexnet.claims.report.finding import Finding
from alexnet.claims.report.markup import element

Curve = list[tuple[float, float]]  # (epoch, error)

WIDTH, HEIGHT, TOP = 360, 250, 42  # TOP: where axes end, under two rows of text
ARMS = ("first", "second")  # the classes of both arms: first is dashed, second is solid
LETTER = 6.2  # the mean width of a letter at the pictures' type size

# What a claim's measure is seen to come from, as fields of an epoch; else the test error.
CURVES = {
    "epochs_to_25": ("train_error",),
    "final_train_error": ("train_error",),
    "gap": ("train_error", "test_error"),
}
TITLES = {"train_error": "Training error", "test_error": "Test error"}


def pairs(finding: Finding) -> Element:
    """Draw each pair as two joined points, and beside them the differences with their interval."""
    claim, comparison = finding.claim, finding.comparison
    told = (
        f"{claim.measured} of {comparison.seeds} pairs of runs, "
        f"{claim.first.name} on the left and {claim.second.name} on the right. "
        f"Mean effect {words.effect(finding)}, 95 % interval {words.interval(finding)}."
    )
    return picture(told, *_values(finding), *_differences(finding))


def picture(told: str, *children: Element) -> Element:
    """Return an SVG with the text that stands for it where it cannot be seen."""
    box = f"0 0 {WIDTH} {HEIGHT}"
    return element("svg", *children, viewBox=box, role="img", aria_label=told)


def _values(finding: Finding) -> list[Element]:
    """Draw the left panel: the values of both arms, a line for each seed, a bar for each mean."""
    claim, comparison = finding.claim, finding.comparison
    places = (86.0, 168.0)
    every = [m.value for _, *both in comparison.pairs for m in both]
    axis = around(every, HEIGHT - 48, TOP, log=claim.ratio)
    drawn = [_text(4, 12, _shortened(words.capital(claim.measured), 54))]
    drawn += _upright(axis, 46, claim.share, ticks_to=200)
    for _, first, second in comparison.pairs:
        ends = axis.at(first.value), axis.at(second.value)
        drawn.append(_line(places[0], ends[0], places[1], ends[1], "pair"))
        drawn.append(_mark(places[0], ends[0], "first", up=first.capped))
        drawn.append(_mark(places[1], ends[1], "second", up=second.capped))
    outer = places[0] - 22, places[1] + 22
    for name, arm, mean, x, beside in zip(
        ARMS, (claim.first, claim.second), comparison.means, places, outer, strict=True
    ):
        drawn.append(_line(beside - 7, axis.at(mean), beside + 7, axis.at(mean), f"mean {name}"))
        drawn += _named(x, arm.name, 14)
    return drawn


def _differences(finding: Finding) -> list[Element]:
    """Draw the right panel: what each seed says, the mean, its interval, and the paper's number."""
    claim, comparison = finding.claim, finding.comparison
    none = 1.0 if claim.ratio else 0.0
    low, high = comparison.interval
    paper = [] if claim.paper_effect is None else [claim.paper_effect]
    each = [
        (a.value / b.value if claim.ratio else a.value - b.value, a.capped, b.capped)
        for _, a, b in comparison.pairs
    ]
    values = [none, *paper, low, high, *(value for value, *_ in each)]
    axis = around(values, HEIGHT - 48, TOP, log=claim.ratio)
    points = claim.share and not claim.ratio
    title = "ratio" if claim.ratio else "difference, points" if points else "difference"
    drawn = [_text(WIDTH - 4, 28, title, "end")]
    drawn += _upright(axis, 258, claim.share, points=True, times=claim.ratio)
    drawn.append(_line(258, axis.at(none), WIDTH - 4, axis.at(none), "zero"))
    for number in paper:
        drawn.append(_line(258, axis.at(number), WIDTH - 4, axis.at(number), "paper"))
    drawn += _interval(finding, axis, 306)
    step = min(7.0, 26 / len(each))  # beside each other: equal values are seen to be several
    for place, (value, up, down) in enumerate(each):
        x = 278 + step * (place - (len(each) - 1) / 2)
        drawn.append(_mark(x, axis.at(value), "each", up=up, down=down))
    for number in paper:
        drawn.append(_text(WIDTH - 4, axis.at(number) - 4, "paper", "end", "paper"))
    named = f"{claim.first.name} {'÷' if claim.ratio else '−'} {claim.second.name}"
    return [*drawn, *_named(300, named, 20)]


def _interval(finding: Finding, axis: Axis, place: float) -> list[Element]:
    """Draw the mean as a diamond on its interval; an end that is open is an arrow."""
    comparison = finding.comparison
    mean, (low, high) = comparison.effect, comparison.interval
    drawn = []
    if not math.isnan(low):
        foot = axis.start if words.open_below(comparison) else axis.at(low)
        head = axis.end if math.isinf(high) else axis.at(high)
        drawn.append(_line(place, foot, place, head, "interval"))
        for end, is_open, way in (
            (foot, words.open_below(comparison), 1),
            (head, math.isinf(high), -1),
        ):
            tip = end - 7 * way if is_open else end
            shape = f"M{place - 5:.1f} {tip:.1f}L{place:.1f} {end:.1f}L{place + 5:.1f} {tip:.1f}"
            drawn.append(element("path", d=shape, class_="interval"))
    if comparison.pairs:
        y = axis.at(mean)
        shape = f"M{place:.1f} {y - 6:.1f}l6 6l-6 6l-6 -6z"
        drawn.append(element("path", d=shape, class_="diamond"))
    return drawn


def _upright(
    axis: Axis,
    x: float,
    share: bool,
    *,
    points: bool = False,
    times: bool = False,
    ticks_to: float = WIDTH - 4,
) -> list[Element]:
    """Draw an upright axis: faint lines across, and their values at the left."""
    drawn = []
    for tick in axis.ticks():
        drawn.append(_line(x, axis.at(tick), ticks_to, axis.at(tick), "grid"))
        value = f"{tick * 100:g}" if share and not times else f"{tick:g}"
        unit = "×" if times else " %" if share and not points else ""
        drawn.append(_text(x - 5, axis.at(tick) + 4, value.replace("-", "−") + unit, "end", "tick"))
    return drawn


def curves(finding: Finding) -> list[Element]:
    """Draw the learning curves behind the claim's measure; none where both arms are one run.

    For `relu` this is Figure 1 of the paper: the training error by epoch, ReLU solid, tanh dashed.
    """
    claim = finding.claim
    if finding.first == finding.second:
        return []
    drawn = []
    for field in CURVES.get(claim.measure, ("test_error",)):
        arms = [_points(finding.first, field), _points(finding.second, field)]
        if all(len(mean_curve(arm)) > 1 for arm in arms):
            drawn.append(_curves(claim, field, arms))
    return drawn


def _points(results: Mapping[int, Result], field: str) -> list[Curve]:
    """Return a curve for each seed: (epoch, error) where it was measured."""
    return [
        [
            (float(point.epoch), value)
            for point in result.curve
            if (value := getattr(point, field)) is not None and math.isfinite(value)
        ]
        for result in results.values()
    ]


def _curves(claim: Claim, field: str, arms: list[list[Curve]]) -> Element:
    """Draw each seed's curve thin and each arm's mean thick."""
    means = [mean_curve(lines) for lines in arms]
    line_of_paper = claim.measure == "epochs_to_25"
    every = [line for arm in arms for line in arm if line]
    right = Axis(0, max(line[-1][0] for line in every), 46, WIDTH - 34)
    low, high = (0.0, max(y for line in every for _, y in line)) if line_of_paper else _end(every)
    up = Axis(low, high + (high - low) * 0.05, HEIGHT - 36, TOP)
    drawn = _upright(up, right.start, share=True, ticks_to=right.end)
    for tick in right.ticks(6):
        drawn.append(_text(right.at(tick), HEIGHT - 20, f"{tick:g}", "middle", "tick"))
    drawn.append(_line(right.start, up.start, right.end, up.start, "zero"))
    drawn.append(_text((right.start + right.end) / 2, HEIGHT - 4, "epochs", "middle"))
    if line_of_paper:
        drawn.append(_line(right.start, up.at(0.25), right.end, up.at(0.25), "paper"))
        drawn.append(_text(right.end + 5, up.at(0.25) + 4, "25 %", "start", "paper"))
    lines = []
    for name, arm, mean in zip(ARMS, arms, means, strict=True):
        lines += [_path(line, right, up, f"curve thin {name}") for line in arm if line]
        lines.append(_path(mean, right, up, f"curve {name}"))
    drawn.append(_window(lines, right, up))
    title = TITLES[field]
    named = list(zip((claim.first, claim.second), means, strict=True))
    ends = ", ".join(f"{arm.name} ends at {words.number(mean[-1][1], True)}" for arm, mean in named)
    told = f"{title} by epoch: {claim.second.name} solid, {claim.first.name} dashed; {ends}."
    return picture(told, *_legend(claim, title), *drawn)


def _end(lines: list[Curve]) -> tuple[float, float]:
    """Return the errors between which arms differ: from a quarter of the epochs on."""
    late = [y for line in lines for epoch, y in line if epoch >= line[-1][0] / 4]
    margin = (max(late) - min(late)) * 0.1 or 0.01
    return max(min(late) - margin, 0.0), max(late)


def _window(lines: list[Element], right: Axis, up: Axis) -> Element:
    """Return lines cut off where the axes end."""
    x, y, width, height = right.start, up.end, right.end - right.start + 1, up.start - up.end + 1
    box = f"{x:g} {y:g} {width:g} {height:g}"
    return element("svg", *lines, x=x, y=y, width=width, height=height, viewBox=box)


def mean_curve(lines: list[Curve]) -> Curve:
    """Return the mean over the seeds at every epoch that all of them have."""
    by_epoch = [dict(line) for line in lines if line]
    shared = sorted(set.intersection(*map(set, by_epoch))) if by_epoch else []
    return [(epoch, sum(line[epoch] for line in by_epoch) / len(by_epoch)) for epoch in shared]


def _legend(claim: Claim, title: str) -> list[Element]:
    """Draw what is shown, and under it a piece of each line with the name of its arm."""
    drawn, x = [_text(4, 12, title)], 4.0
    for name, arm in zip(ARMS, (claim.first, claim.second), strict=True):
        text = _shortened(arm.name, 22)
        drawn.append(_line(x, 24, x + 20, 24, f"curve {name}"))
        drawn.append(_text(x + 25, 28, text))
        x += 25 + LETTER * len(text) + 14
    return drawn


def _path(points: Curve, right: Axis, up: Axis, name: str) -> Element:
    places = (f"{right.at(x):.1f} {up.at(y):.1f}" for x, y in points)
    return element("path", d="M" + "L".join(places), class_=name)


def _mark(x: float, y: float, name: str, *, up: bool = False, down: bool = False) -> Element:
    """Draw a value as a dot; where the true one is larger or smaller, as an open triangle."""
    if up == down:
        return element("circle", cx=x, cy=y, r=3.6, class_=f"dot {name}{' open' * up}")
    shape = f"M{x:.1f} {y - 5:.1f}l5 8h-10z" if up else f"M{x:.1f} {y + 5:.1f}l5 -8h-10z"
    return element("path", d=shape, class_=f"dot open {name}")


def _line(x1: float, y1: float, x2: float, y2: float, name: str) -> Element:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=name)


def _text(x: float, y: float, text: str, anchor: str = "start", name: str = "") -> Element:
    return element("text", text, x=x, y=y, text_anchor=anchor, class_=name or None)


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _named(x: float, name: str, length: int) -> list[Element]:
    """Return a name under the axes, in one or two rows."""
    rows = enumerate(_rows(name, length))
    return [_text(x, HEIGHT - 26 + 13 * row, part, "middle") for row, part in rows]


def _rows(text: str, length: int) -> list[str]:
    """Return a name in at most two rows."""
    if len(text) <= length or " " not in text:
        return [_shortened(text, length)]
    middle = min(
        (at for at, letter in enumerate(text) if letter == " "),
        key=lambda at: abs(at - len(text) / 2),
    )
    return [_shortened(text[:middle], length), _shortened(text[middle + 1 :], length)]
