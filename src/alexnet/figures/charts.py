"""What a run was and came to: its learning curves and the confusion matrix."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from alexnet.data.imagenet import describe_classes
from alexnet.figures.style import FAINT, INK, OTHER, RIGHT, new_figure, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COUNTED = 20  # classes up to which every cell has its number
NAMED = 60  # classes up to which every row has its name
WORST = 40  # mistakes that are listed where there are more
LONGEST = 24  # letters of a name
DARK = 0.65  # share of a row from which white is read better than ink


def draw_curves(metrics: Sequence[Mapping[str, float]]) -> "Figure":
    """Draw the training loss, the error rates and the learning rate over the epochs.

    `metrics` are the lines of a run's ``metrics.jsonl``: some with ``loss``, some with
    ``val_top1``.
    """
    figure = new_figure(11, 3.4)
    loss, errors, rate = figure.subplots(1, 3, width_ratios=(3, 3, 2))
    # The loss is None where it was no number.
    trained = [line for line in metrics if line.get("loss") is not None and "lr" in line]
    watched = [line for line in metrics if "val_top1" in line]
    epochs = [line["epoch"] for line in trained]
    window = max(1, len(trained) // 60)
    losses = [line["loss"] for line in trained]
    loss.plot(epochs, losses, color=FAINT, lw=0.6)
    loss.plot(epochs, running_mean(losses, window), color=OTHER)
    loss.set_ylabel("training loss (nats)")
    wrong = [1 - line["train_top1"] for line in trained if "train_top1" in line]
    if len(wrong) == len(epochs):
        errors.plot(epochs, running_mean(wrong, window), color=OTHER, label="training batches")
    _draw_errors(errors, watched)
    errors.set(ylabel="error rate", ylim=(0, 1))
    if errors.lines:
        errors.legend(fontsize=8)
    _draw_rates(rate, epochs, [line["lr"] for line in trained])
    for axes in (loss, errors, rate):
        axes.set_xlabel("epoch")
    return figure


def _draw_rates(axes: "Axes", epochs: Sequence[float], rates: Sequence[float]) -> None:
    """Draw the learning rate; one that falls in steps, as the paper's does, by factors."""
    axes.plot(epochs, rates, color=INK, lw=1)
    axes.set_ylabel("learning rate")
    levels = len(set(rates))
    if 1 < levels <= len(rates) // 4 and min(rates) > 0:
        axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")


def _draw_errors(axes: "Axes", lines: Sequence[Mapping[str, float]]) -> None:
    """Draw the errors on the watched split, top-5 where it says more than top-1."""
    epochs = [line["epoch"] for line in lines]
    marker = "o-" if len(lines) < 60 else "-"
    for measure, style, name in (("val_top1", marker, "top-1"), ("val_top5", "--", "top-5")):
        values = [1 - line[measure] for line in lines if measure in line]
        if len(values) == len(epochs) and any(values):
            axes.plot(epochs, values, style, color=RIGHT, ms=4, label=f"watched split, {name}")


def running_mean(values: Sequence[float], window: int) -> NDArray[np.float64]:
    """Return the running mean over up to `window` values before and with each."""
    sums = np.cumsum([0.0, *values])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    mean: NDArray[np.float64] = (sums[ends] - sums[starts]) / (ends - starts)
    return mean


def draw_confusion(
    classes: Sequence[str], counts: Sequence[Sequence[int]], title: str = ""
) -> "Figure":
    """Draw how often the images of each class were taken for each class.

    `counts` are images by true class and by the class ranked first; `classes` are folders or wnids.
    Up to 20 classes every cell has its number of images; up to 60 every row and column its name.
    With more, cells are a few dots each: the mistakes made most often are listed beside them.
    """
    table = np.array(counts, dtype=np.int64)
    names = [shorten(name, LONGEST) for name in describe_classes(classes)]
    shares = table / np.maximum(1, table.sum(1, keepdims=True))
    if len(names) > NAMED:
        return _draw_large(names, table, shares, title)
    side = max(4.0, min(11.0, 2.4 + 0.42 * len(names)))
    letters = max(map(len, names)) * 0.075
    figure = new_figure(side + letters + 0.4, side + letters)
    axes = figure.subplots()
    _draw_matrix(axes, shares)
    axes.set_xticks(
        range(len(names)), names, rotation=90 if letters > 0.8 * side / len(names) else 0
    )
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0, labelsize=8 if len(names) <= 30 else 6)
    if len(names) <= COUNTED:
        for (row, column), count in np.ndenumerate(table):
            dark = shares[row, column] > DARK
            axes.text(
                column, row, f"{count:,}" if count else "", ha="center", va="center", fontsize=7,
                color="white" if dark else INK,
            )  # fmt: skip
    axes.set_title(title, fontsize=9)
    return figure


def _draw_large(
    names: Sequence[str], table: NDArray[np.int64], shares: NDArray[np.float64], title: str
) -> "Figure":
    """Draw a matrix without names, and the list of the most frequent mistakes beside it."""
    figure = new_figure(13, 8.2)
    axes, beside = figure.subplots(1, 2, width_ratios=(8, 4))
    _draw_matrix(axes, np.sqrt(shares))  # a single image must be seen
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=9)
    beside.set_axis_off()
    wrong = [
        f"{count:5,}  {names[true]} → {names[taken]}"
        for true, taken, count in find_worst(table, WORST)
    ]
    note = (
        f"{len(names):,} classes, in the order of their labels; names do not fit.\n"
        "Dark by the square root of the share of the row.\n\n"
        "The most frequent mistakes (images, true → taken for):\n"
    )
    beside.text(0, 1, "\n".join([note, *wrong]), va="top", fontsize=8, linespacing=1.5)
    return figure


def _draw_matrix(axes: "Axes", shares: NDArray[np.float64]) -> None:
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xlabel="taken for", ylabel="true class")
    axes.spines[["top", "right"]].set_visible(True)


def find_worst(table: NDArray[np.int64], count: int) -> list[tuple[int, int, int]]:
    """Return the most frequent mistakes: true class, class taken for it, images."""
    wrong = table.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    places = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [(int(a), int(b), int(wrong[a, b])) for a, b in places if wrong[a, b]]
