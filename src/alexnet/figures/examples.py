"""What the network learned and saw: Figure 3, its filters, and Figure 4, images beside others."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet.data.imagenet import describe_classes
from alexnet.data.shards import PreparedData, Split
from alexnet.errors import DataError
from alexnet.features import (
    StoredFeatures,
    describe,
    extract,
    find_nearest,
    last_hidden,
    read_stored,
)
from alexnet.figures.style import (
    FAINT,
    INK,
    PALE_OTHER,
    PALE_RIGHT,
    RIGHT,
    new_figure,
    shorten,
    show_image,
)
from alexnet.predictor import Prediction, Predictor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FILTERS_A_ROW = 16  # (facts 5)
GAP = 3  # white pixels between the towers
SHEET_WIDTH = 9.0  # inches, about
NEIGHBOURS = 6  # training images beside each query, as in the paper
QUERIES = 5


def draw_filters(predictor: Predictor) -> "Figure":
    """Draw conv1's filters, every pixel of a filter a whole number of dots."""
    from matplotlib.figure import Figure

    image = lay_out_filters(predictor)
    height, width = image.shape[:2]
    zoom = max(1, round(SHEET_WIDTH * 150 / width))
    figure = Figure(figsize=(width * zoom / 150, height * zoom / 150))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(image, interpolation="none", aspect="auto")
    axes.set_axis_off()
    return figure


def lay_out_filters(predictor: Predictor) -> NDArray[np.float32]:
    """Return the filters of conv1 as one picture, ``(height, width, 3)`` of 0 to 1, RGB.

    Sixteen a row with a black border of one pixel, one scale for all from the smallest weight to
    the largest, as in the 2012 source (facts 5). Of two towers the first is above the second, each
    beginning a row. Networks that take BGR are turned to RGB.
    """
    spec = predictor.spec
    parameter = predictor.network.get_submodule(spec.convs[0].name).get_parameter("weight")
    weight = parameter.detach().float().cpu()  # (filters, 3, k, k)
    if predictor.normalise.bgr:
        weight = weight.flip(1)
    low, high = weight.min(), weight.max()
    tiles = ((weight - low) / (float(high - low) or 1.0)).permute(0, 2, 3, 1).expand(-1, -1, -1, 3)
    towers = [_lay_out_rows(part) for part in np.split(tiles.numpy(), spec.towers)]
    gap = np.ones((GAP, towers[0].shape[1], 3), np.float32)
    return np.concatenate([part for tower in towers for part in (gap, tower)][1:])


def _lay_out_rows(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lay ``(n, k, k, 3)`` out in rows."""
    count, side = tiles.shape[:2]
    down = -(-count // FILTERS_A_ROW)
    rows = np.ones((down * (side + 1) + 1, FILTERS_A_ROW * (side + 1) + 1, 3), np.float32)
    for index, tile in enumerate(tiles):
        top, left = (place * (side + 1) for place in divmod(index, FILTERS_A_ROW))
        rows[top : top + side + 2, left : left + side + 2] = 0
        rows[top + 1 : top + side + 1, left + 1 : left + side + 1] = tile
    return rows


def choose_images(split: Split, count: int, seed: int) -> list[int]:
    """Return the numbers of `count` images drawn from a split."""
    return [int(n) for n in np.random.default_rng(seed).permutation(len(split))[:count]]


def draw_predictions(predictor: Predictor, data: PreparedData, seed: int = 0) -> "Figure":
    """Draw eight held-out images with their five most probable classes (Figure 4, left).

    Two rows of four; the true class is above the image, and red among the bars.
    """
    split, names = data.held_out, describe_classes(data.classes)
    figure = new_figure(9, 8.2)
    grid = figure.subplots(4, 4, height_ratios=(3, 1.7, 3, 1.7))
    places = [(grid[row, column], grid[row + 1, column]) for row in (0, 2) for column in range(4)]
    numbers = choose_images(split, len(places), seed)
    images = [split.pixels(number) for number in numbers]
    ranked = predictor.predict_many(images)
    for (above, below), number, pixels, one in zip(places, numbers, images, ranked, strict=False):
        label = split.label(number)
        show_image(above, pixels, names[label])
        _draw_bars(below, one, data.classes[label])
    for above, below in places[len(numbers) :]:
        above.set_axis_off()
        below.set_axis_off()
    return figure


def _draw_bars(axes: "Axes", ranked: list[Prediction], right: str) -> None:
    """Draw probabilities as bars with the names on them, the most probable first."""
    for place, prediction in enumerate(ranked):
        true = prediction.label == right
        colour = PALE_RIGHT if true else PALE_OTHER
        axes.barh(place, prediction.probability, height=0.8, color=colour)
        axes.text(
            0.02, place, shorten(prediction.name, 20), va="center", fontsize=8,
            color=RIGHT if true else INK, fontweight="bold" if true else "normal", clip_on=True,
        )  # fmt: skip
        axes.text(
            0.99, place, f"{prediction.probability:.2f}", va="center", ha="right", fontsize=7,
            color=INK,
        )  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(4.6, -0.6), xticks=[], yticks=[])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(FAINT)


def extract_training_features(
    run: Path,
    predictor: Predictor,
    data: PreparedData,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> StoredFeatures:
    """Return the last hidden layer's features of all training images, kept with the run.

    They are made once for a data set, go on where a kill stopped them, and are made again when the
    run has been trained further.
    """
    split, layer = data.train, last_hidden(predictor.spec)
    folder = run / "features" / f"train-{layer}-{split.identity[:12]}"
    about = describe(predictor, split, [layer], classes=data.classes)
    try:
        outdated = folder.is_dir() and (read_stored(folder) or (None,))[0] != about
    except DataError:  # damaged, or of another version
        outdated = True
    if outdated:
        shutil.rmtree(folder)
    return extract(predictor, split, [layer], folder, classes=data.classes, report=report)


def draw_neighbours(
    predictor: Predictor, data: PreparedData, stored: StoredFeatures, seed: int = 0
) -> "Figure":
    """Draw held-out images, each with the training images nearest to it (Figure 4, right).

    `stored` is of `extract_training_features`, and `seed` of the choice of images.
    """
    split, train = data.held_out, data.train
    names = describe_classes(data.classes)
    numbers = choose_images(split, QUERIES, seed)
    queries = torch.from_numpy(np.stack([split.pixels(number) for number in numbers]))
    (layer,) = stored.layers
    _, found = find_nearest(predictor, stored, queries, layer, NEIGHBOURS)
    figure = new_figure(9, 1.55 * len(numbers) + 0.3)
    widths = (1, 0.15, *[1] * NEIGHBOURS)
    grid = figure.subplots(len(numbers), len(widths), width_ratios=widths, squeeze=False)
    for row, number, indices in zip(grid, numbers, found.tolist(), strict=True):
        label = split.label(number)
        show_image(row[0], split.pixels(number), names[label], width=16)
        for axes, index in zip(row[2:], indices, strict=False):
            same = train.label(index) == label
            name = names[train.label(index)]
            show_image(axes, train.pixels(index), name, width=16, colour=RIGHT if same else INK)
        for axes in row:
            axes.set_axis_off()
    figure.supxlabel(
        f"left: held-out images; right: the {found.shape[1]} training images nearest in {layer}, "
        "red where of the same class",
        fontsize=8,
    )
    return figure
