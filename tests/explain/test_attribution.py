"""Maps of attribution against oracles: finite differences, formulas by hand, completeness."""

import json
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from captum import attr
from PIL import Image

from alexnet.data.statistics import Statistics
from alexnet.errors import ConfigError
from alexnet.explain import METHODS, explain, explain_all
from alexnet.explain.attribution import (
    attribute,
    last_activation,
    make_question,
    place_units,
    plain_network,
)
from alexnet.explain.checks import correlate_maps
from alexnet.network import build
from alexnet.predictor import Switches, assemble
from alexnet.variants import AS_RUN, CAFFE, CIFAR_LOCAL, PAPER, SINGLE, TORCHVISION
from tests.test_network import narrow


def predictor_of(spec, seed=1, precision="fp32", std=0.05, first=0.05):
    """Return a network of drawn weights, loud enough to have an opinion, for ten classes."""
    names = [layer.name for layer in (*spec.convs, *spec.dense)]
    spec = spec.with_layers(*names, std=std, bias=0.1).with_layers(names[0], std=first)
    spec = replace(spec, num_classes=10, output_std=std)
    prepared = spec.image_size + 29
    draws = np.random.default_rng(seed)
    statistics = Statistics(
        draws.uniform(90, 150, (3, prepared, prepared)).astype(np.float32),
        np.array([10, 20, 60], np.float32),
        np.eye(3, dtype=np.float32),
    )
    weights = build(spec, seed).state_dict()
    classes = tuple(f"class {number}" for number in range(10))
    return assemble(spec, weights, statistics, classes, precision=precision)


@pytest.fixture(scope="module")
def single():
    return predictor_of(narrow(SINGLE))


@pytest.fixture(scope="module")
def smooth():
    """Return a network whose gradients do not jump: tanh and averages."""
    convs = tuple(
        replace(conv, pool=replace(conv.pool, kind="average") if conv.pool else None)
        for conv in SINGLE.convs
    )
    return predictor_of(narrow(replace(SINGLE, convs=convs, activation="tanh")), first=5e-4)


@pytest.fixture(scope="module")
def photograph(photographs):
    with Image.open(sorted((photographs / "test" / "defective").iterdir())[0]) as image:
        return image.convert("RGB").resize((300, 260))


def ask(predictor, photograph, target=3):
    return make_question(
        predictor, torch.from_numpy(predictor.load_pixels(photograph)), target=target
    )


def test_saliency_is_the_gradient_by_finite_differences_in_float64(smooth, photograph):
    """Where no maximum or ReLU changes over; central differences are within 1e-6."""
    question = ask(smooth, photograph)
    network = deepcopy(question.network).double()
    pixels = question.pixels.detach().double().requires_grad_()
    found = attribute(smooth, replace(question, network=network, pixels=pixels), "saliency")
    step, draws = 1e-3, np.random.default_rng(0)
    strongest = np.argsort(found.ravel())[-200:]
    for place in draws.choice(strongest, 5, replace=False):
        row, column = divmod(int(place), found.shape[1])
        slopes = []
        for channel in range(3):
            moved = torch.zeros_like(pixels)
            moved[0, channel, row, column] = step
            with torch.no_grad():
                up, down = (network(pixels + sign * moved)[0, 3] for sign in (1, -1))
            slopes.append(abs(float(up - down)) / (2 * step))
        assert found[row, column] == pytest.approx(max(slopes), rel=1e-6)


def test_grad_cam_is_the_formula_by_hand(single, photograph):
    question = ask(single, photograph)
    layer = last_activation(single)
    x, units = question.pixels, None
    for name, module in question.network.named_children():
        x = module(x)
        if name == layer:
            units = x
    (gradient,) = torch.autograd.grad(x[0, 3], units)
    weights = gradient.mean((2, 3), keepdim=True)
    cam = torch.relu((weights * units).sum(1))
    expected = place_units(single, layer, cam.detach())[0].numpy()
    found = attribute(single, question, "grad-cam")
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * expected.max())
    assert found.max() > 0


def test_layercam_is_the_formula_by_hand(single, photograph):
    question = ask(single, photograph)
    units = question.network[:14](question.pixels)
    assert list(question.network._modules)[13] == last_activation(single)
    (gradient,) = torch.autograd.grad(question.network[14:](units)[0, 3], units)
    cam = sum(
        np.maximum(gradient[0, n].numpy(), 0) * units[0, n].detach().numpy()
        for n in range(units.shape[1])
    )
    expected = place_units(single, last_activation(single), torch.from_numpy(cam)[None])[0]
    np.testing.assert_allclose(
        attribute(single, question, "layercam"), expected, rtol=1e-4, atol=1e-6
    )


def test_integrated_gradients_are_complete(smooth, single, photograph):
    """Their sum is the difference of the logits from the mean image's.

    To 1e-4 of it where the gradient changes smoothly on the way. With ReLUs and maxima it jumps, so
    that the error falls as one over the steps: within 2 % of all that was attributed, here.
    """
    for predictor in (smooth, single):
        question = ask(predictor, photograph)
        with torch.no_grad():
            one, none = (question.network(x)[0, 3] for x in (question.pixels, question.pixels * 0))
        found = attribute(predictor, question, "integrated-gradients")
        tolerance = 1e-4 * abs(one - none) if predictor is smooth else 0.02 * np.abs(found).sum()
        assert float(found.sum()) == pytest.approx(float(one - none), abs=float(tolerance))


def test_occlusion_is_what_covering_a_square_costs(single, photograph):
    """A corner lies under one square alone, of 58 pixels: 2 of 8 parts of the side."""
    question = ask(single, photograph)
    found = attribute(single, question, "occlusion")
    covered = question.pixels.detach().clone()
    covered[:, :, :58, :58] = 0
    with torch.no_grad():
        whole, without = (
            question.network(x).softmax(1)[0, 3] for x in (question.pixels, covered)
        )  # fmt: skip
    assert found[0, 0] == pytest.approx(float(whole - without), rel=1e-3, abs=1e-7)
    assert found[0, 0] != 0


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
def test_what_is_ours_for_speed_is_captums_own(single, photograph):
    """Guided Grad-CAM from one forward; all covered copies in one batch."""
    question = ask(single, photograph)
    layer = question.network.get_submodule(question.layer)
    pixels, row = question.pixels, torch.arange(227) * 7 // 227
    pieces = (row[:, None] * 7 + row).expand(1, 1, -1, -1)
    guided = attr.GuidedGradCam(question.network, layer).attribute(
        pixels, 3, interpolate_mode="bilinear"
    )
    covering = {
        "occlusion": attr.Occlusion(question.probabilities).attribute(
            pixels.detach(), (3, 58, 58), (3, 29, 29), target=3, perturbations_per_eval=49
        ),
        "ablation": attr.FeatureAblation(question.probabilities).attribute(
            pixels.detach(), target=3, feature_mask=pieces, perturbations_per_eval=49
        ),
    }
    expected = guided.detach().abs().amax(1)[0].numpy()
    found = attribute(single, question, "guided-grad-cam")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * expected.max())
    for method, by_captum in covering.items():  # differences of near probabilities, in float32
        found = attribute(single, question, method)
        np.testing.assert_allclose(found, by_captum.mean(1)[0].numpy(), atol=1e-6)
        assert np.abs(found).max() > 1e-4


FORMS = {
    "single": SINGLE, "paper": PAPER, "as_run": AS_RUN, "caffe": CAFFE, "cifar_local": CIFAR_LOCAL,
    "torchvision": TORCHVISION,
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_every_method_explains_every_network(name, photograph):
    """Towers, overhang, norms before ReLU, BGR, local weights: a finite map that is not flat."""
    predictor = predictor_of(FORMS[name] if name == "cifar_local" else narrow(FORMS[name]))
    side = predictor.spec.image_size
    for found in explain_all(predictor, photograph):
        assert found.map.shape == (side, side)
        assert np.isfinite(found.map).all()
        assert np.ptp(found.map) > 0, found.method


def test_a_network_in_bfloat16_is_explained_as_in_float32(photograph):
    """A server holds its weights in bfloat16 alone: they are rounded, then nothing else is."""
    exact, rounded = (predictor_of(narrow(SINGLE), precision=name) for name in ("fp32", "bf16"))
    rounded.network.bfloat16()
    for method in ("saliency", "grad-cam", "layercam"):
        maps = [explain(p, photograph, method, label="class 3").map for p in (exact, rounded)]
        assert correlate_maps(*maps) > 0.95, method
    assert next(rounded.network.parameters()).dtype == torch.bfloat16


def test_switches_and_classes_change_the_map_and_a_second_call_does_not(single, photograph):
    first, same, other, without = (
        explain(single, photograph, "smoothgrad", label=label, switches=switches).map
        for label, switches in (
            ("class 3", Switches()), ("class 3", Switches()), ("class 4", Switches()),
            ("class 3", Switches(lrn=False)),
        )
    )  # fmt: skip
    np.testing.assert_array_equal(first, same)
    assert correlate_maps(first, other) < 0.99
    assert correlate_maps(first, without) < 0.999


def test_the_map_of_a_mirrored_photograph_is_turned_back(single, photograph):
    prepared = torch.from_numpy(single.load_pixels(photograph))
    question = make_question(single, prepared, 3, switches=Switches(mirror=True))
    as_seen = attribute(single, replace(question, is_mirrored=False), "saliency")
    np.testing.assert_array_equal(attribute(single, question, "saliency"), as_seen[:, ::-1])
    assert (question.pixels != ask(single, photograph).pixels).any()


def test_a_map_lies_where_its_units_look(single, photograph):
    """A change of pixels inside a small square moves the units that the map puts there."""
    network = plain_network(single)[:14]
    pixels = ask(single, photograph).pixels.detach()
    for row, column in ((60, 170), (113, 113), (150, 70)):
        changed = pixels.clone()
        changed[:, :, row - 3 : row + 4, column - 3 : column + 4] += 60
        with torch.no_grad():
            moved = (network(changed) - network(pixels)).abs().sum(1)
        placed = place_units(single, last_activation(single), moved)[0].numpy()
        rows, columns = np.indices(placed.shape)
        middle = [(placed * place).sum() / placed.sum() for place in (rows, columns)]
        assert np.hypot(middle[0] - row, middle[1] - column) < 16  # a stride of conv5's units


def test_the_view_is_where_it_was_in_the_photograph(single, photograph):
    """300x260 scaled to 256: the view of 227 is in the middle of the central 260x260."""
    found = single.explain(photograph, "saliency")
    edge = 14 * 260 / 256
    assert found.box == pytest.approx((20 + edge, edge, 20 + edge + 227 * 260 / 256,
                                       edge + 227 * 260 / 256))  # fmt: skip
    left, top, right, bottom = found.box
    assert left <= found.peak[0] <= right
    assert top <= found.peak[1] <= bottom


def test_what_cannot_be_is_said(single, photograph):
    with pytest.raises(ConfigError, match="Did you mean 'grad-cam'"):
        explain(single, photograph, "gradcam")
    with pytest.raises(ConfigError, match="no class 'clas 3'"):
        explain(single, photograph, label="clas 3")
    with pytest.raises(ConfigError, match="No layer of maps is called 'fc7'"):
        explain(single, photograph, layer="fc7")
    tanh = predictor_of(narrow(replace(SINGLE, activation="tanh")))
    with pytest.raises(ConfigError, match="changes how ReLUs go backward"):
        explain(tanh, photograph, "deconvolution")
    assert np.ptp(explain(tanh, photograph, "grad-cam").map) >= 0


@pytest.mark.slow  # each command is a process that imports torch, captum and matplotlib
def test_the_command_writes_maps_and_pictures(command, trained, photographs, tmp_path):
    files = sorted((photographs / "test" / "defective").iterdir())[:2]
    done = command("explain", trained, *files, "--out", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["images"]
    assert [one["method"] for one in found[0]["methods"]] == list(METHODS)
    maps = [np.load(path) for path in found[1]["files"] if path.endswith(".npy")]
    assert [one.shape for one in maps] == [(32, 32)] * len(METHODS)
    with Image.open(found[0]["files"][-1]) as strip:
        assert min(strip.size) > 300
    one = command("explain", trained, files[0], "--method", "grad-cam", "--class", "functional",
                  "--form", "svg", "--out", tmp_path / "one")  # fmt: skip
    assert one.returncode == 0, one.stderr
    assert "functional" in one.stdout
    assert (tmp_path / "one" / f"{files[0].stem}-grad-cam.svg").read_text().startswith("<?xml")
