"""Figure 4: test images with their five most probable classes, and with their neighbours."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from alexnet.data.imagenet import describe_classes
from alexnet.data.shards import PreparedData, Split
from alexnet.errors import DataError
from alexnet.features import (
    Description,
    Stored,
    describe,
    description_of,
    extract,
    find_nearest,
    last_hidden,
)
from alexnet.figures.style import (
    FAINT,
    INK,
    PALE_OTHER,
    PALE_RIGHT,
    RIGHT,
    new_figure,
    picture,
)
from alexnet.predictor import Prediction, Predictor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEIGHBOURS = 6  # training images beside each query, as in the paper
QUERIES = 5


def chosen(split: Split, count: int, seed: int) -> list[int]:
    """Return the numbers of `count` images drawn from a split."""
    return [int(n) for n in np.random.default_rng(seed).permutation(len(split))[:count]]


def predictions(model: Predictor, data: PreparedData, seed: int = 0) -> "Figure":
    """Draw eight held-out images with their five most probable classes (Figure 4, left).

    Two rows of four; the true class is above the image, and red among the bars.
    """
    split, names = data.held_out, describe_classes(data.classes)
    figure = new_figure(9, 8.2)
    grid = figure.subplots(4, 4, height_ratios=(3, 1.7, 3, 1.7))
    places = [(grid[row, column], grid[row + 1, column]) for row in (0, 2) for column in range(4)]
    numbers = chosen(split, len(places), seed)
    for (above, below), number in zip(places, numbers, strict=False):
        pixels, label = split.pixels(number), split.label(number)
        picture(above, pixels, names[label])
        _bars(below, model.predict(pixels), data.classes[label])
    for above, below in places[len(numbers) :]:
        above.set_axis_off()
        below.set_axis_off()
    return figure


def _bars(axes: "Axes", ranked: list[Prediction], right: str) -> None:
    """Draw probabilities as bars with the names on them, the most probable first."""
    for place, prediction in enumerate(ranked):
        true = prediction.label == right
        colour = PALE_RIGHT if true else PALE_OTHER
        axes.barh(place, prediction.probability, height=0.8, color=colour)
        name = prediction.name if len(prediction.name) <= 20 else f"{prediction.name[:19]}…"
        axes.text(
            0.02, place, name, va="center", fontsize=8, color=RIGHT if true else INK,
            fontweight="bold" if true else "normal", clip_on=True,
        )  # fmt: skip
        axes.text(
            0.99, place, f"{prediction.probability:.2f}", va="center", ha="right", fontsize=7,
            color=INK,
        )  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(4.6, -0.6), xticks=[], yticks=[])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(FAINT)


def stored_training(
    run: Path,
    model: Predictor,
    data: PreparedData,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Stored:
    """Return the last hidden layer's features of all training images, kept with the run.

    They are made once for a data set, go on where a kill stopped them, and are made again when the
    run has been trained further.
    """
    split, layer = data.splits["train"], last_hidden(model.spec)
    folder = run / "features" / f"train-{layer}-{split.identity[:12]}"
    about = describe(model, split, [layer], classes=data.classes)
    if folder.is_dir() and _found(folder) != about:
        shutil.rmtree(folder)
    return extract(model, split, [layer], folder, classes=data.classes, report=report)


def _found(folder: Path) -> Description | None:
    try:
        return description_of(folder)
    except DataError:  # damaged, or of another version: made again
        return None


def neighbours(model: Predictor, data: PreparedData, stored: Stored, seed: int = 0) -> "Figure":
    """Draw held-out images, each with the training images nearest to it (Figure 4, right).

    Parameters
    ----------
    model, data
        A trained run and a prepared data set.
    stored
        Of `stored_training`.
    seed
        Of the choice of images.
    """
    split, train, names = data.held_out, data.splits["train"], describe_classes(data.classes)
    numbers = chosen(split, QUERIES, seed)
    queries = torch.from_numpy(np.stack([split.pixels(number) for number in numbers]))
    (layer,) = stored.layers
    _, found = find_nearest(model, stored, queries, layer, NEIGHBOURS)
    figure = new_figure(9, 1.55 * len(numbers) + 0.3)
    widths = (1, 0.15, *[1] * NEIGHBOURS)
    grid = figure.subplots(len(numbers), len(widths), width_ratios=widths, squeeze=False)
    for row, number, indices in zip(grid, numbers, found.tolist(), strict=True):
        label = split.label(number)
        picture(row[0], split.pixels(number), names[label], width=16)
        for axes, index in zip(row[2:], indices, strict=False):
            same = train.label(index) == label
            name = names[train.label(index)]
            picture(axes, train.pixels(index), name, width=16, colour=RIGHT if same else INK)
        for axes in row:
            axes.set_axis_off()
    figure.supxlabel(
        f"left: held-out images; right: the {found.shape[1]} training images nearest in {layer}, "
        "red where of the same class",
        fontsize=8,
    )
    return figure
