"""The figures show what they say, cut no name and let none run into another."""

import json
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from PIL import Image
from scipy.spatial.distance import cdist

from alexnet.api import load
from alexnet.data.imagenet import load_synsets
from alexnet.data.prepare import Options, open_or_prepare
from alexnet.data.shards import open_prepared
from alexnet.errors import ConfigError, MissingExtraError
from alexnet.features import activations
from alexnet.figures import (
    draw_all,
    draw_confusion,
    draw_curves,
    draw_filters,
    draw_neighbours,
    draw_predictions,
    draw_test_confusion,
    extract_training_features,
)
from alexnet.figures.charts import DARK, find_worst
from alexnet.figures.examples import GAP, choose_images, lay_out_filters
from alexnet.figures.style import RIGHT, drawing_style, fold_name, save
from alexnet.training.run import Run
from alexnet.variants import CAFFE, CIFAR_QUICK, PAPER, SINGLE
from tests.features.conftest import model_of
from tests.test_network import narrow


@pytest.fixture(autouse=True)
def _style(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path_factory.getbasetemp() / "figures-cache"))
    with drawing_style():
        yield


def texts(figure):
    """Return the texts that are drawn, with their boxes in dots."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    found = [figure._supxlabel] if figure._supxlabel else []
    for axes in figure.axes:
        found += [axes.title, *axes.texts]
        if axes.axison:
            found += [axes.xaxis.label, axes.yaxis.label]
            found += ticks(axes.xaxis, 0) + ticks(axes.yaxis, 1)
        if axes.get_legend():
            found += axes.get_legend().get_texts()
    return [
        (text, text.get_window_extent(canvas.get_renderer())) for text in found if text.get_text()
    ]


def ticks(axis, along):
    """Return the labels of an axis that are inside its limits; others are not drawn."""
    low, high = sorted(axis.get_view_interval())
    return [text for text in axis.get_ticklabels() if low <= text.get_position()[along] <= high]


def check_texts(figure):
    """No text is cut by the edge, and no two lie over each other."""
    placed = texts(figure)
    width, height = figure.canvas.get_width_height()
    for text, box in placed:
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        assert inside, f"{text.get_text()!r} is cut"
    for (one, first), (other, second) in combinations(placed, 2):
        across = min(first.x1, second.x1) - max(first.x0, second.x0)
        down = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert across < 2 or down < 2, f"{one.get_text()!r} is over {other.get_text()!r}"


def test_the_filters_of_two_towers_are_above_each_other(large):
    model = model_of(narrow(PAPER, 2), large)  # 48 maps: 24 a tower, two rows each
    image = lay_out_filters(model)
    assert image.shape == (2 * (2 * 12 + 1) + GAP, 16 * 12 + 1, 3)
    weight = model.network.conv1.weight.detach().permute(0, 2, 3, 1).numpy()
    scaled = (weight - weight.min()) / (weight.max() - weight.min())
    below = 2 * 12 + 1 + GAP
    for number, (top, left) in {
        0: (0, 0),
        17: (12, 12),
        24: (below, 0),
        47: (below + 12, 84),
    }.items():
        tile = image[top + 1 : top + 12, left + 1 : left + 12]
        np.testing.assert_allclose(tile, scaled[number], atol=1e-6)
        assert (image[top, left : left + 13] == 0).all()  # the border
    assert (image[25 : 25 + GAP] == 1).all()


def test_filters_of_networks_that_take_bgr_are_shown_in_rgb(large):
    ours = model_of(narrow(SINGLE, 2), large)
    theirs = model_of(narrow(replace(CAFFE, towers=1), 2), large)
    theirs.network.conv1.weight.data.copy_(ours.network.conv1.weight.flip(1))
    np.testing.assert_array_equal(lay_out_filters(theirs), lay_out_filters(ours))


def test_filters_of_small_networks_fill_rows_of_sixteen(prepared, tmp_path):
    image = lay_out_filters(model_of(CIFAR_QUICK, prepared))
    assert image.shape == (2 * 6 + 1, 16 * 6 + 1, 3)
    assert (image.min(), image.max()) == (0, 1)
    (path,) = save(draw_filters(model_of(CIFAR_QUICK, prepared)), tmp_path, "filters", "png")
    drawn = np.asarray(Image.open(path).convert("RGB"))
    zoom = drawn.shape[1] // 97
    assert drawn.shape == (13 * zoom, 97 * zoom, 3)
    np.testing.assert_allclose(drawn[zoom // 2 :: zoom, zoom // 2 :: zoom] / 255, image, atol=0.01)


def test_predictions_are_the_networks_and_the_right_class_is_red(quick, prepared):
    figure = draw_predictions(quick, prepared, seed=3)
    split = prepared.held_out
    shown = [axes for axes in figure.axes if axes.images]
    below = [axes for axes in figure.axes if axes.patches]
    assert len(shown) == len(below) == 8
    for axes, bars, number in zip(shown, below, choose_images(split, 8, 3), strict=True):
        right = prepared.classes[split.label(number)]
        assert axes.get_title() == right
        np.testing.assert_array_equal(axes.images[0].get_array(), split.pixels(number))
        ranked = quick.predict(split.pixels(number))
        assert [bar.get_width() for bar in bars.patches] == pytest.approx(
            [place.probability for place in ranked]
        )
        red = [text.get_text() for text in bars.texts if to_hex(text.get_color()) == RIGHT]
        assert red == [right]
    check_texts(figure)


def test_neighbours_are_the_nearest_training_images_of_the_last_hidden_layer(
    quick, prepared, tmp_path
):
    figure = draw_neighbours(
        quick, prepared, extract_training_features(tmp_path, quick, prepared), seed=5
    )
    train, split = prepared.splits["train"], prepared.held_out

    def hidden(images, numbers):
        pixels = torch.stack([torch.from_numpy(images.pixels(n).copy()) for n in numbers])
        return activations(quick, pixels, ["relu64"])["relu64"].double().numpy()

    numbers = choose_images(split, 5, 5)
    distances = cdist(hidden(split, numbers), hidden(train, range(len(train))))
    pictures = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(pictures) == 5 * 7
    for row, number in enumerate(numbers):
        np.testing.assert_array_equal(pictures[7 * row], split.pixels(number))
        for picture, index in zip(
            pictures[7 * row + 1 : 7 * row + 7], np.argsort(distances[row])[:6], strict=True
        ):
            np.testing.assert_array_equal(picture, train.pixels(int(index)))
    check_texts(figure)


def test_training_features_are_made_once_and_again_for_other_weights(quick, prepared, tmp_path):
    first = extract_training_features(tmp_path, quick, prepared)
    made = (first.folder / "relu64.npy").stat()
    again = extract_training_features(tmp_path, quick, prepared)
    assert (again.folder / "relu64.npy").stat().st_mtime_ns == made.st_mtime_ns
    later = replace(quick, step=7)
    assert extract_training_features(tmp_path, later, prepared).about.step == 7
    (first.folder / "features.json").write_text("{")
    assert extract_training_features(tmp_path, quick, prepared).about.step == 0
    assert [folder.name for folder in (tmp_path / "features").iterdir()] == [first.folder.name]


def table(classes):
    draws = np.random.default_rng(1)
    counts = draws.integers(0, 3, (classes, classes))
    counts[np.arange(classes), np.arange(classes)] += 40
    return counts


@pytest.mark.parametrize("classes", [1, 2, 10, 20, 45, 60])
def test_every_cell_has_its_number_or_every_row_its_name(classes):
    names = sorted(load_synsets())[700 : 700 + classes]
    counts = table(classes)
    figure = draw_confusion(names, counts.tolist(), "a test")
    (axes,) = figure.axes
    np.testing.assert_allclose(
        axes.images[0].get_array(), counts / counts.sum(1, keepdims=True), atol=1e-12
    )
    assert len(axes.get_yticklabels()) == len(axes.get_xticklabels()) == classes
    written = [text.get_text() for text in axes.texts]
    assert written == ([f"{n}" if n else "" for n in counts.flat] if classes <= 20 else [])
    for text in axes.texts:  # no dark number on a dark cell
        row, column = round(text.get_position()[1]), round(text.get_position()[0])
        dark = counts[row, column] / counts[row].sum() > DARK
        assert (text.get_color() == "white") == dark
    check_texts(figure)


def test_a_thousand_classes_show_the_matrix_and_the_most_frequent_mistakes():
    names, counts = sorted(load_synsets())[:1000], table(1000)
    counts[3, 700], counts[999, 0] = 77, 55
    figure = draw_confusion(names, counts.tolist(), "a test")
    matrix, beside = figure.axes
    assert matrix.images[0].get_array().shape == (1000, 1000)
    (text,) = beside.texts
    lines = text.get_text().splitlines()
    assert "1,000 classes" in lines[0]
    assert find_worst(counts, 2) == [(3, 700, 77), (999, 0, 55)]
    assert lines[5].startswith("   77  ")
    check_texts(figure)


def test_curves_show_every_line_of_the_log_and_need_none():
    lines = [
        {"step": n, "epoch": n / 10, "loss": 3 - n / 50, "train_top1": n / 200, "lr": 0.01}
        for n in range(100)
    ]
    lines += [{"step": 50, "epoch": 5.0, "val_top1": 0.5, "val_top5": 0.9}]
    figure = draw_curves(lines)
    loss, errors, _ = figure.axes
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [3 - n / 50 for n in range(100)])
    assert [line.get_ydata()[-1] for line in errors.lines[1:]] == pytest.approx([0.5, 0.1])
    check_texts(figure)
    stepped = [
        {**line, "lr": 0.01 if line["epoch"] < 5 else 0.001} for line in lines if "lr" in line
    ]
    labels = [text.get_text() for text, _ in texts(draw_curves(stepped))]
    assert {"0.01", "0.001"} <= set(labels)
    check_texts(draw_curves([]))


def test_long_names_and_other_scripts_are_folded_and_drawn():
    assert fold_name("cat", 9) == "cat"
    assert fold_name("Staffordshire bullterrier, Staffordshire bull terrier", 16).count("\n") == 1
    assert all(len(line) <= 16 for line in fold_name("a" * 50 + " " + "b" * 9, 16).splitlines())
    check_texts(draw_confusion(["猫", "cost $5$ or $6"], [[3, 1], [0, 2]]))


def test_every_figure_of_a_run_is_written_and_needs_nothing_beside_it(trained):
    run, model = Run.open(trained), load(trained)
    data = open_prepared(run.config.data)
    for file in (trained / "figures").glob("*"):
        file.unlink()
    paths = list(draw_all(run, model, data))
    names = ("curves", "filters", "predictions", "neighbours", "confusion")
    assert [path.name for path in paths] == [
        f"{n}.{kind}" for n in names for kind in ("png", "svg")
    ]
    assert set((trained / "figures").iterdir()) == set(paths)
    for path in paths:
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert min(image.size) >= 100
                assert len(image.convert("RGB").getcolors(1 << 22)) > 10
        else:
            tree = ElementTree.parse(path)
            links = [
                value
                for node in tree.iter()
                for name, value in node.items()
                if name.endswith("href")
            ]
            assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)


def test_the_confusion_is_that_of_the_run_s_test_or_else_is_counted(trained, photographs, tmp_path):
    run, model = Run.open(trained), load(trained)
    counts = json.loads((trained / "test.json").read_text())["confusion"]
    (axes,) = draw_test_confusion(run, model, open_prepared(run.config.data)).axes
    assert [text.get_text() for text in axes.texts] == [
        f"{n}" if n else "" for row in counts for n in row
    ]
    assert "ten views" in axes.get_title()
    nine = Run.open(shutil.copytree(trained, tmp_path / "nine"))
    told = json.loads((nine.folder / "test.json").read_text())
    (nine.folder / "test.json").write_text(json.dumps(told | {"views": 9}))
    (axes,) = draw_test_confusion(nine, model, open_prepared(run.config.data)).axes
    assert "nine views" in axes.get_title()
    shutil.copytree(photographs / "train", tmp_path / "train")
    shutil.copytree(photographs / "train", tmp_path / "test")
    (axes,) = draw_test_confusion(
        run, model, open_or_prepare(tmp_path, Options(size=model.resize_to))
    ).axes
    assert axes.get_title().startswith("36 held-out images, one view")


def test_only_figures_that_there_are_can_be_asked_for(trained, prepared):
    run, model = Run.open(trained), load(trained)
    (path,) = draw_all(run, model, prepared, names=["filters"], form="svg")
    assert path == trained / "figures" / "filters.svg"
    with pytest.raises(ConfigError, match=r"no figure 'curvs'. Did you mean 'curves'"):
        list(draw_all(run, model, prepared, names=["curvs"]))


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'alexnet\[plots\]'"), drawing_style():
        pass
