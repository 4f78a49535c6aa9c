"""Learning curves of a run, and Figure 1: those of networks that differ in their activation."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from alexnet.figures.style import FAINT, INK, OTHER, RIGHT, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Metrics = dict[str, Any]  # a line of ``metrics.jsonl``
Curve = Sequence[tuple[float, float]]  # epoch, training error of 0 to 1
TARGET = 0.25  # the error whose reaching the paper compares (section 3.1)
STYLES = {"tanh": (OTHER, "--"), "ReLU": (RIGHT, "-")}  # dashed and solid, as in the paper


def draw_curves(metrics: Sequence[Metrics]) -> "Figure":
    """Draw the training loss, the error rates and the learning rate over the epochs.

    Parameters
    ----------
    metrics : sequence of dict
        The lines of a run's ``metrics.jsonl``: some with ``loss``, some with ``val_top1``.
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


def _draw_errors(axes: "Axes", lines: Sequence[Metrics]) -> None:
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


def draw_activations(arms: Mapping[str, Sequence[Curve]]) -> "Figure":
    """Draw each run's training error, ReLU solid and tanh dashed, and the line of 25 %.

    Parameters
    ----------
    arms : mapping of str to sequence of Curve
        ``"ReLU"`` and ``"tanh"``, a curve a seed. A run that ended at 25 % is a curve that does.
    """
    figure = new_figure(5, 3.6)
    axes = figure.subplots()
    for name, runs in arms.items():
        colour, dash = STYLES.get(name, (INK, ":"))
        for number, curve in enumerate(runs):
            epochs, errors = zip(*curve, strict=True)
            label = f"{name}, {len(runs)} seeds" if not number else None
            axes.plot(epochs, errors, dash, color=colour, lw=1.2, label=label)
    axes.axhline(TARGET, color=FAINT, lw=0.8)
    axes.set(xlabel="epochs", ylabel="training error rate", xlim=(0, None), ylim=(0, 0.8))
    axes.legend()
    return figure
