"""Figure 1: the training error by epoch, of networks that differ in their activation alone."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from alexnet.figures.style import FAINT, INK, OTHER, RIGHT, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = Sequence[tuple[float, float]]  # epoch, training error of 0 to 1
TARGET = 0.25  # the error whose reaching the paper compares (section 3.1)
STYLES = {"tanh": (OTHER, "--"), "ReLU": (RIGHT, "-")}  # dashed and solid, as in the paper


def activations(arms: Mapping[str, Sequence[Curve]]) -> "Figure":
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
