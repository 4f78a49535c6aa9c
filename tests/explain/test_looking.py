"""Deconvnet, optimised images, fooling, checks and comparisons, each against what it must be."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from torch import nn

from alexnet.errors import ConfigError
from alexnet.explain.adversarial import fool
from alexnet.explain.attribution import plain_network
from alexnet.explain.checks import correlate_maps, order_curves, redraw_from_the_top, run_checks
from alexnet.explain.compare import align, centre, compare, find_rdm, multiply_rows
from alexnet.explain.deconvnet import project
from alexnet.explain.optimise import Ascent, raise_channel, raise_direction, raise_unit
from alexnet.explain.ranks import correlate_ranks
from alexnet.explain.sheets import project_patches
from alexnet.features import SampledSplit, top_activating
from alexnet.training.checkpoint import Checkpoint, save_checkpoint
from alexnet.training.run import Run
from alexnet.variants import PAPER
from tests.features.conftest import model_of
from tests.test_network import narrow

WIDE = PAPER.with_layers(*[c.name for c in PAPER.convs], *[d.name for d in PAPER.dense], std=0.1)


@pytest.fixture(scope="module")
def paper(large):
    """Return the paper's network with a sixteenth of its widths, for two classes."""
    return model_of(replace(narrow(WIDE), num_classes=2), large)


def unpool_slowly(values, came_in, size, stride):
    """Put each value where its window's first maximum is, one window after the other."""
    out = np.zeros_like(came_in)
    for n, c, i, j in np.ndindex(values.shape):
        top, left = i * stride, j * stride
        window = came_in[n, c, top : top + size, left : left + size]
        row, column = np.unravel_index(window.argmax(), window.shape)
        out[n, c, top + row, left + column] += values[n, c, i, j]
    return out


def test_the_deconvnet_is_a_slow_loop_with_windows_that_share_a_maximum():
    """Convolution, ReLU, overlapping pooling: forward by PyTorch, backward by hand in NumPy."""
    draws = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, bias=True), nn.ReLU(), nn.MaxPool2d(3, 2),
                            nn.Conv2d(4, 5, 2), nn.ReLU()).double()  # fmt: skip
    for weight in network.parameters():
        weight.data.copy_(torch.randn(weight.shape, generator=draws, dtype=torch.float64))
    pixels = torch.randn(2, 3, 11, 11, generator=draws, dtype=torch.float64)
    pixels[:, :, 5, 5] = 9  # a maximum that windows share
    outs = [pixels]
    for layer in network:
        outs.append(layer(outs[-1]).detach())
    best = outs[-1].flatten(1).argmax(1)
    places = torch.stack([torch.tensor(np.unravel_index(int(b), outs[-1].shape[1:])) for b in best])
    found = project(network, pixels, "4", places).numpy()

    signal = np.zeros(outs[-1].shape)
    for n, (unit, row, column) in enumerate(places.tolist()):
        signal[n, unit, row, column] = outs[-1][n, unit, row, column]
    signal = np.maximum(signal, 0)
    back = np.zeros(outs[3].shape)  # the transpose of the second convolution, value by value
    weight = network[3].weight.detach().numpy()
    for n, unit, i, j in zip(*np.nonzero(signal), strict=True):
        back[n, :, i : i + 2, j : j + 2] += signal[n, unit, i, j] * weight[unit]
    pooled_from = outs[2].detach().numpy()
    back = np.maximum(unpool_slowly(back, pooled_from, 3, 2), 0)
    image = np.zeros(pixels.shape)
    weight = network[0].weight.detach().numpy()
    for n, unit, i, j in zip(*np.nonzero(back), strict=True):
        image[n, :, i : i + 3, j : j + 3] += back[n, unit, i, j] * weight[unit]
    np.testing.assert_allclose(found, image, rtol=1e-10, atol=1e-12)
    assert np.abs(image).max() > 0


def test_a_sheet_has_a_tile_a_unit_and_projections_inside_the_patch(paper, large):
    split = large.splits["train"]
    tiles = dict(project_patches(paper, split, "conv3", [2, 5]))
    assert tiles.keys() == {2, 5}
    assert {tile.shape for tile in tiles.values()} == {(196, 392, 3)}
    assert all(np.ptp(tile) > 100 for tile in tiles.values())


def test_optimised_units_exceed_every_training_patch_and_a_seed_gives_the_same(paper, large):
    ascent = Ascent(paper, large.statistics, "conv3", steps=64)
    best = top_activating(paper, large.splits["train"], "conv3", range(4), 1)
    for unit in range(4):
        found = ascent.run(raise_unit(unit), seed=unit)
        (score,) = found.scores
        assert score > best[unit][0].activation
        assert found.images.shape == (1, 227, 227, 3)
    again = ascent.run(raise_unit(3), seed=3)
    np.testing.assert_array_equal(again.images, found.images)
    assert (ascent.run(raise_unit(3), seed=4).images != found.images).any()


def test_the_score_is_the_networks_own_for_the_image_that_is_written(paper, large):
    found = Ascent(paper, large.statistics, "conv4", steps=3, count=2).run(raise_channel(1))
    pixels = torch.from_numpy(found.images).permute(0, 3, 1, 2).float()
    whole = paper.network.activations(paper.normalise(pixels), ["conv4"])["conv4"]
    np.testing.assert_allclose(found.scores, whole[:, 1].mean((1, 2)).detach(), rtol=1e-4)


def test_dreams_caricatures_directions_and_diversity(paper, large, tmp_path):
    photograph = large.splits["train"].pixels(0)
    for objective in ("dream", "caricature"):
        ascent = Ascent(paper, large.statistics, "conv3", steps=6, photograph=photograph)
        goal = ascent.choose(caricature=objective == "caricature")
        image = ascent.run(goal).images[0]
        view = photograph[14:241, 14:241]
        likeness = np.corrcoef(image.ravel(), view.ravel())[0, 1]
        assert 0.2 < likeness < 0.9999, objective
    direction = torch.zeros(24)
    direction[7] = 2
    ascent = Ascent(paper, large.statistics, "conv3", steps=4)
    one, other = (
        ascent.run(goal).images for goal in (raise_direction(direction), raise_channel(7))
    )
    assert np.abs(one.astype(int) - other).mean() < 1  # the direction of one channel is the channel

    for wrong in (np.zeros(24), np.full(24, np.nan), np.append(np.ones(23), np.inf)):
        np.save(tmp_path / "wrong.npy", wrong)
        with pytest.raises(ConfigError, match="is no direction"):
            ascent.choose(direction=tmp_path / "wrong.npy")

    def spread(diversity):
        many = Ascent(paper, large.statistics, "conv2", steps=20, count=3, diversity=diversity)
        images = many.run(raise_channel(1)).images.reshape(3, -1)
        return np.corrcoef(images)[np.triu_indices(3, 1)].mean()

    assert spread(5.0) < spread(0.0)


@pytest.mark.parametrize("method", ["fgsm", "pgd"])
def test_fooling_stays_within_its_bound_and_lowers_the_class(paper, large, method):
    prepared = large.splits["train"].pixels(3)
    found = fool(paper, prepared, method, epsilon=3)
    assert 0 < np.abs(found.change).max() <= 3
    first = int(found.probabilities[0].argmax())
    assert found.probabilities[1][first] < found.probabilities[0][first]
    aimed = fool(paper, prepared, method, epsilon=3, target=1 - first)
    assert aimed.probabilities[1][1 - first] > aimed.probabilities[0][1 - first]
    with pytest.raises(ConfigError, match="0 grey levels"):
        fool(paper, prepared, epsilon=0)


def test_deletion_and_insertion_tell_a_right_map_from_a_wrong_one():
    """A class that is the brightness of the left half: the map of the left half is right."""
    pixels = torch.ones(1, 3, 40, 40)

    def probabilities(x):
        share = x[:, 0, :, :20].mean((1, 2))
        return torch.stack([share, 1 - share], 1)

    left = np.repeat(np.arange(40, 0, -1, dtype=np.float32)[None], 40, 0)
    (good, _), (bad, _) = (order_curves(probabilities, pixels, m, 0) for m in (left, -left))
    assert good == pytest.approx(0.25, abs=0.01)  # falls to 0 on half of the way
    assert bad == pytest.approx(0.75, abs=0.01)


def test_the_sanity_check_redraws_from_the_top_and_leaves_the_run_alone(paper):
    before = {name: weight.clone() for name, weight in paper.network.state_dict().items()}
    changed = set()
    for name, redrawn in redraw_from_the_top(paper):
        weights = redrawn.network.state_dict()
        changed.add(f"{name}.weight")
        assert {n for n in weights if n.endswith("weight") and (weights[n] != before[n]).any()} == (
            changed
        )
    assert len(changed) == 8
    assert all((paper.network.state_dict()[n] == w).all() for n, w in before.items())


def test_checks_of_methods_and_controls(paper, large):
    images = [large.splits["train"].pixels(number) for number in range(2)]
    boxes = [(0, 0, 256, 256), (0, 0, 1, 1)]
    found = {one.method: one for one in run_checks(paper, images, ["saliency", "grad-cam"], boxes)}
    assert [*found] == ["saliency", "grad-cam", "edges", "blobs"]
    assert found["saliency"].pointing == 0.5
    assert list(found["grad-cam"].sanity) == [
        "fc8", "fc7", "fc6", "conv5", "conv4", "conv3", "conv2", "conv1",
    ]  # fmt: skip
    assert found["edges"].sanity == {}
    assert abs(found["saliency"].sanity["conv1"]) < 0.9


def test_cka_and_dissimilarities_are_those_of_their_formulas():
    draws = np.random.default_rng(0)
    x, y = draws.normal(size=(30, 50)), draws.normal(size=(30, 20)) + 2
    y[:, 0] += 3 * x[:, 0]
    cx, cy = x - x.mean(0), y - y.mean(0)
    expected = np.linalg.norm(cy.T @ cx) ** 2 / (
        np.linalg.norm(cx.T @ cx) * np.linalg.norm(cy.T @ cy)
    )
    assert align(centre(x @ x.T / 50), centre(y @ y.T / 20)) == pytest.approx(expected, rel=1e-10)
    turned = y @ np.linalg.qr(draws.normal(size=(20, 20)))[0] * 7  # CKA sees no rotation or scale
    assert align(centre(y @ y.T), centre(turned @ turned.T)) == pytest.approx(1, rel=1e-10)
    rdm = find_rdm(x @ x.T / 50, x.mean(1))
    np.testing.assert_allclose(rdm, pdist(x, "correlation"), rtol=1e-10)


def test_a_network_is_like_itself_and_less_like_another(paper, large, tmp_path):
    split = large.splits["train"]
    other = model_of(paper.spec, large, seed=9)
    same = compare(paper, paper, (split, split), tmp_path / "same")
    np.testing.assert_allclose(same.cka.diagonal(), 1, rtol=1e-6)
    np.testing.assert_allclose(same.rsa.diagonal(), 1, rtol=1e-5)
    assert same.agreement == 1
    assert set(same.weights.values()) == {0.0}
    assert same.layers[0] == ("pool1", "pool2", "relu3", "relu4", "pool5", "relu6", "relu7", "fc8")
    found = compare(paper, other, (split, split), tmp_path / "other", layers=["conv1", "fc8"])
    assert found.cka.shape == (2, 2)
    assert found.cka.max() < 1
    expected = spearmanr(found.rdms[0][0], found.rdms[1][1]).statistic
    assert found.rsa[0, 1] == pytest.approx(expected, abs=1e-4)
    assert found.weights["conv1"] > 1
    with pytest.raises(ConfigError, match="Did you mean 'conv5'"):
        compare(paper, other, (split, split), tmp_path / "no", layers=["cnv5"])


def test_a_sample_is_spread_over_the_split(large):
    split = large.splits["train"]
    some = SampledSplit(split, 4)
    assert [some.path(n) for n in range(4)] == [split.path(n) for n in (0, 12, 23, 35)]
    assert (some.label(3), len(SampledSplit(split, 99))) == (split.label(35), 36)
    np.testing.assert_array_equal(some.pixels(2), split.pixels(23))
    assert some.identity != SampledSplit(split, 5).identity


def test_ranks_correlate_as_spearman_says():
    draws = np.random.default_rng(2)
    a = draws.normal(size=(20, 20)).astype(np.float32)
    b = (a + draws.normal(size=a.shape)).astype(np.float32)
    expected = spearmanr(np.abs(a).ravel(), np.abs(b).ravel()).statistic
    assert correlate_maps(a, b) == pytest.approx(expected, abs=1e-6)
    assert correlate_maps(a, np.zeros_like(a)) == 0


@pytest.mark.parametrize("zeros", [0.1, 0.6, 0.9])
def test_maps_that_are_mostly_zero_do_not_agree_on_their_zeros(zeros):
    """What is left of two maps after a ReLU; ranks by place gave .7 at nine tenths."""
    draws = np.random.default_rng(3)
    both = draws.random((2, 24, 24)) * (draws.random((2, 24, 24)) >= zeros)
    found = correlate_maps(*both.astype(np.float32))
    assert found == pytest.approx(spearmanr(*both.reshape(2, -1)).statistic, abs=1e-6)
    assert abs(found) < 0.1


def test_dead_layers_are_like_nothing():
    draws = np.random.default_rng(4)
    live, dead = draws.random(190), np.ones(190)
    rounded = np.round(live, 1)
    expected = spearmanr(live, rounded).statistic
    found = correlate_ranks([live, dead], [live, rounded, dead])
    np.testing.assert_allclose(found, [[1, expected, 0], [0, 0, 0]], atol=1e-12)


@pytest.mark.parametrize("common", [0, 30, 3000])
def test_what_all_images_share_hides_nothing_of_what_tells_them_apart(common):
    """An untrained layer: at 3000 all but a ten-millionth of the squares is the same vector."""
    draws = np.random.default_rng(5)
    rows = (common + draws.random((40, 500))).astype(np.float32)
    found, sums = multiply_rows(rows)
    exact = rows.astype(np.float64)
    centred = exact - exact.mean(0)
    # Products are 9e6 at most and float64 has 2e-16 of that, some tens of times; float32 has 0.5.
    np.testing.assert_allclose(centre(found), centred @ centred.T / 500, rtol=0, atol=1e-7)
    distances = find_rdm(found, sums)
    np.testing.assert_allclose(distances, pdist(exact, "correlation"), rtol=0, atol=1e-5)


def test_the_plain_network_is_the_network(paper, large):
    pixels = paper.centre_crops(torch.from_numpy(large.splits["train"].pixels(0))[None])
    with torch.no_grad():
        torch.testing.assert_close(plain_network(paper)(pixels), paper.network(pixels))


@pytest.mark.slow  # each command is a process that imports torch
def test_the_commands_of_units_and_comparisons(command, trained, tmp_path):
    few = ("--steps", 4, "--out", tmp_path)
    for name, flags in {
        "conv2-unit-3": ("--layer", "conv2", "--unit", 3),
        "fc10-class-defective": ("--class", "defective", "--count", 2, "--diversity", 0.1),
        "conv1-deconvnet": ("--layer", "conv1", "--units", "0-3", "--deconvnet"),
        "conv1-units-12-0-4": ("--layer", "conv1", "--units", "0-3"),
        "conv1-units-12-0-4-2-0.5": (
            *("--layer", "conv1", "--units", "0-3", "--count", 2, "--diversity", 0.5),
        ),
    }.items():
        done = command("visualise", trained, *flags, *few)
        assert done.returncode == 0, done.stderr
        with Image.open(tmp_path / f"{name}.png") as image:
            assert np.ptp(np.array(image)) > 20, name
    (tiles,) = tmp_path.glob(f"conv1-units-12-0-4-{'[0-9a-f]' * 12}")
    tile, drawn = tiles / "0002.png", (tmp_path / "conv1-units-12-0-4.png").read_bytes()
    tile.unlink()  # as if stopped there: the others are not made again
    kept = (tiles / "0001.png").stat().st_mtime_ns
    again = ("--layer", "conv1", "--units", "0-3", *few)
    command("visualise", trained, *again)
    assert tile.is_file()
    assert (tiles / "0001.png").stat().st_mtime_ns == kept
    assert (tmp_path / "conv1-units-12-0-4.png").read_bytes() == drawn
    run = Run.open(shutil.copytree(trained, tmp_path / "run", symlinks=True))
    weights = {name: one.flip(0) for name, one in run.load_weights().weights.items()}
    save_checkpoint(run.checkpoints, Checkpoint(12, weights))  # others, of the same step
    command("visualise", run.folder, *again)
    assert (tmp_path / "conv1-units-12-0-4.png").read_bytes() != drawn
    refused = command("visualise", trained, "--layer", "conv2", "--unit", 99)
    assert refused.returncode == 1
    assert "conv2 has no unit 99" in refused.stderr

    done = command("compare", trained, trained, "--out", tmp_path / "c", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["agreement"] == 1
    rdms = np.load(tmp_path / "c" / "rdms-1.npy")
    about = json.loads((tmp_path / "c" / "rdms-1.json").read_text())
    layers = about["rdm_descriptors"]["layer"]
    assert rdms.shape == (len(layers), 12 * 11 / 2)
    assert len(about["pattern_descriptors"]["image"]) == 12
