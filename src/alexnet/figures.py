"""The paper's figures, drawn from a trained run: its curves, Figure 3 and the left of Figure 4."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from alexnet.data.shards import PreparedData
from alexnet.data.wordnet import readable
from alexnet.errors import MissingExtraError
from alexnet.files import whole_file
from alexnet.prediction import Model
from alexnet.training.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RIGHT, OTHER = "#d1495b", "#6c8ead"  # the right class is red in Figure 4


def draw_all(run: Run, model: Model, data: PreparedData, seed: int = 0) -> Iterator[Path]:
    """Draw every figure into the run's ``figures`` folder; yield the paths.

    Raises
    ------
    MissingExtraError
        When matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # noqa: F401 -- asked for before anything is drawn
    except ImportError:
        raise MissingExtraError("matplotlib", "plots", "Drawing figures") from None
    folder = run.folder / "figures"
    folder.mkdir(exist_ok=True)
    for name, figure in (
        ("curves", curves(run.metrics())),
        ("filters", filters(model)),
        ("predictions", predictions(model, data, seed)),
    ):
        path = folder / f"{name}.png"
        with whole_file(path) as temporary:
            figure.savefig(temporary, format="png", dpi=120, facecolor="white")
        yield path


def curves(metrics: list[dict[str, float]]) -> "Figure":
    """Draw the training loss and the accuracies over the epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    trained = [line for line in metrics if "loss" in line]
    watched = [line for line in metrics if "val_top1" in line]
    epochs = [line["epoch"] for line in trained]
    window = max(1, len(trained) // 60)
    left.plot(epochs, [line["loss"] for line in trained], color="#cccccc", lw=0.7)
    left.plot(epochs, smoothed([line["loss"] for line in trained], window), color=OTHER)
    left.set(xlabel="epoch", ylabel="training loss (nats)")
    right.plot(
        epochs, smoothed([line["train_top1"] for line in trained], window), color=OTHER,
        label="training batches",
    )  # fmt: skip
    right.plot(
        [line["epoch"] for line in watched], [line["val_top1"] for line in watched], "o-",
        color=RIGHT, label="watched split, one view",
    )  # fmt: skip
    right.set(xlabel="epoch", ylabel="top-1 accuracy", ylim=(0, 1))
    right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def smoothed(values: list[float], window: int) -> NDArray[np.float64]:
    """Return the running mean over up to `window` values before and with each."""
    sums = np.cumsum([0.0, *values])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    mean: NDArray[np.float64] = (sums[ends] - sums[starts]) / (ends - starts)
    return mean


def filters(model: Model) -> "Figure":
    """Draw conv1's filters as Figure 3 does: 16 a row, one scale for all (facts 5)."""
    from matplotlib.figure import Figure

    parameter = model.network.get_submodule("conv1").get_parameter("weight")
    weight = parameter.detach().float().cpu()  # (maps, 3, k, k)
    if model.normalise.bgr:
        weight = weight.flip(1)
    low, high = weight.min(), weight.max()
    tiles = ((weight - low) / (high - low)).permute(0, 2, 3, 1).numpy()
    side, across = tiles.shape[1] + 1, 16
    down = -(-len(tiles) // across)
    sheet = np.ones((down * side + 1, across * side + 1, 3), np.float32)
    for index, tile in enumerate(tiles):
        top, left = index // across * side + 1, index % across * side + 1
        sheet[top : top + side - 1, left : left + side - 1] = tile
    figure = Figure(figsize=(9, 9 * down / across), layout="constrained")
    axes = figure.subplots()
    axes.imshow(sheet, interpolation="nearest")
    axes.set_axis_off()
    return figure


def predictions(model: Model, data: PreparedData, seed: int) -> "Figure":
    """Draw eight held-out photographs with their five most probable classes (Figure 4, left)."""
    from matplotlib.figure import Figure

    split, names = data.held_out, readable(data.classes)
    chosen = np.random.default_rng(seed).permutation(len(split))[:8]
    figure = Figure(figsize=(9, 6.6), layout="constrained")
    axes = figure.subplots(4, 4, height_ratios=(3, 1.3, 3, 1.3))
    for place in range(8):
        row, column = place // 4 * 2, place % 4
        if place < len(chosen):
            pixels = split.pixels(int(chosen[place]))
            right = names[split.label(int(chosen[place]))]
            _picture(axes[row, column], pixels, right)
            ranked = model.predict(pixels)
            bars = [(p.name, p.probability) for p in reversed(ranked)]
            _bars(axes[row + 1, column], bars, right)
        else:
            axes[row, column].set_axis_off()
            axes[row + 1, column].set_axis_off()
    return figure


def _picture(axes: Any, pixels: NDArray[np.uint8], name: str) -> None:
    axes.imshow(pixels)
    axes.set_title(name, fontsize=10)
    axes.set_axis_off()


def _bars(axes: Any, bars: list[tuple[str, float]], right: str) -> None:
    names, chances = zip(*bars, strict=True)
    axes.barh(names, chances, color=[RIGHT if name == right else OTHER for name in names])
    axes.set(xlim=(0, 1), xticks=[])
    axes.tick_params(axis="y", length=0, labelsize=8)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
