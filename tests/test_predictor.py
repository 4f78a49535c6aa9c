"""The predictor computes what the plain layers do, crop by crop, in one float64 network."""

from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from threading import Barrier

import numpy as np
import pytest
import torch
from torch import nn

from alexnet.data.augment import iter_crops
from alexnet.errors import ConfigError, DataError
from alexnet.layers import Dropout, LocalResponseNorm
from alexnet.network import build
from alexnet.predictor import Predictor, Switches, ask_together, assemble, fit_weights
from alexnet.variants import CIFAR_QUICK, NETWORKS
from tests.test_network import narrow


def predictor_of(spec, data, seed=1) -> Predictor:
    """Return a network with lively weights and the preprocessing of a data set."""
    network = build(spec, seed)
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in network.children():
            if isinstance(weight := getattr(layer, "weight", None), nn.Parameter):
                inputs = weight[0].numel() if weight.dim() != 3 else weight.shape[1]
                weight.normal_(0, (2 / inputs) ** 0.5, generator=draws)
    classes = tuple(f"class{label}" for label in range(spec.num_classes))
    return assemble(
        spec, network.state_dict(), data.statistics, classes, precision="fp32",
        device=torch.device("cpu"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def single(large):
    return predictor_of(replace(narrow(NETWORKS["single"], 2), num_classes=12), large)


@pytest.fixture(scope="module")
def quick(prepared):
    return predictor_of(CIFAR_QUICK, prepared)


def images_of(predictor, count=3):
    shape = (count, predictor.resize_to, predictor.resize_to, 3)
    draws = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=draws)


def layers_of(predictor, switches=Switches()):  # noqa: B008 -- frozen
    """Return the plain layers in float64, by name."""
    double = deepcopy(predictor.network).double()
    return {name: layer for name, layer in double.named_children() if switches.keeps(layer)}


@torch.no_grad()
def by_hand(predictor, images, crops, switches=Switches()):  # noqa: B008 -- frozen
    """Return the mean of the softmax of each crop."""
    network = nn.Sequential(*layers_of(predictor, switches).values())
    found = []
    for crop in iter_crops(images, predictor.spec.image_size, crops):
        pixels = predictor.normalise(crop.flip(3) if switches.mirror else crop)
        found.append(network(pixels.double()).softmax(1).numpy())
    return np.mean(found, 0)


@pytest.mark.parametrize("crops", [1, 9, 10])
@pytest.mark.parametrize("count", [1, 3, 40])
def test_probabilities_are_the_mean_of_each_crops(quick, crops, count):
    images = images_of(quick, count)
    got = quick.probabilities(images, crops)
    np.testing.assert_allclose(got.numpy(), by_hand(quick, images, crops), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(got.sum(1).numpy(), 1, rtol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_its_plain_layers(name, prepared, large):
    data = prepared if name.startswith("cifar") else large
    predictor = predictor_of(replace(narrow(NETWORKS[name]), num_classes=12), data)
    images = images_of(predictor)
    got = predictor.probabilities(images, 10)
    np.testing.assert_allclose(got.numpy(), by_hand(predictor, images, 10), rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize(
    "switches",
    [Switches(lrn=False), Switches(dropout_scale=False), Switches(mirror=True)],
    ids=["lrn", "dropout", "mirror"],
)
def test_switches_take_layers_out_or_mirror_the_image(single, switches):
    images = images_of(single)
    got = single.probabilities(images, 1, switches).numpy()
    np.testing.assert_allclose(got, by_hand(single, images, 1, switches), rtol=2e-4, atol=1e-6)
    assert np.abs(got - single.probabilities(images, 1).numpy()).max() > 1e-3
    kept = layers_of(single, switches).values()
    assert any(isinstance(layer, LocalResponseNorm) for layer in kept) == switches.lrn
    assert any(isinstance(layer, Dropout) for layer in kept) == switches.dropout_scale


@pytest.mark.parametrize("switches", [Switches(), Switches(lrn=False)], ids=["trained", "no lrn"])
def test_activations_are_those_of_the_plain_layers(single, switches):
    images = images_of(single)
    (crop,) = iter_crops(images, single.spec.image_size, 1)
    out, wanted = single.normalise(crop).double(), {}
    for name, layer in deepcopy(single.network).double().named_children():
        with torch.no_grad():
            out = layer(out) if switches.keeps(layer) else out
        wanted[name] = out
    for names in ([*reversed(wanted)], ["pool2"], ["norm1", "fc7"]):
        found = single.activations(images, names, switches)
        assert list(found) == sorted(names, key=list(wanted).index)
        for name, values in found.items():
            exact = wanted[name].numpy()
            assert values.dtype == torch.float32
            np.testing.assert_allclose(
                values.numpy(), exact, rtol=0, atol=2e-5 * np.abs(exact).max()
            )
    with pytest.raises(ConfigError, match=r"'conv7'.*conv"):
        single.activations(images, ["conv7"])


def test_logits_are_the_centre_crops(single):
    images = images_of(single)
    (crop,) = iter_crops(images, single.spec.image_size, 1)
    assert torch.equal(single.centre_crops(images), single.normalise(crop))
    exact = nn.Sequential(*layers_of(single).values())(single.normalise(crop).double()).detach()
    largest = float(exact.abs().max())
    np.testing.assert_allclose(single.logits(images), exact, rtol=0, atol=1e-5 * largest)


@pytest.mark.slow  # bfloat16 products are emulated on many processors
def test_logits_in_bfloat16_are_nearly_the_same(single):
    images, half = images_of(single), replace(single, dtype=torch.bfloat16)
    found, exact = half.logits(images), single.logits(images)
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < 2**-5 * exact.abs().max()
    assert torch.equal(half.in_float32.logits(images), exact)


def test_mixed_precision_around_a_question_changes_nothing(single):
    images, single = images_of(single), replace(single)  # whose fast form is made within, too
    with torch.autocast("cpu", torch.bfloat16):
        within = single.probabilities(images), single.logits(images)
        outputs = single.activations(images, ["conv3", "fc7"])
    assert torch.equal(within[0], single.probabilities(images))
    assert torch.equal(within[1], single.logits(images))
    single = replace(single)
    assert torch.equal(within[0], single.probabilities(images))
    for name, values in single.activations(images, outputs).items():
        assert torch.equal(outputs[name], values)


def test_many_photographs_are_ranked_as_each_alone(quick, photographs):
    files = sorted(photographs.rglob("*.*"))[:35]  # more than are taken at once
    together = list(quick.predict_many(files, top=3))
    assert len(together) == len(files)
    for file, ranked in zip(files, together, strict=True):
        alone = quick.predict(file, top=3)
        assert [one.label for one in ranked] == [one.label for one in alone]
        assert [one.probability for one in ranked] == pytest.approx(
            [one.probability for one in alone], rel=1e-4
        )


def test_another_form_answers_in_place_of_the_network(quick):
    predictor = replace(quick, forward=lambda pixels: torch.eye(len(pixels), 10))
    images = images_of(quick)
    assert predictor.probabilities(images).argmax(1).tolist() == [0, 1, 2]
    switched = Switches(dropout_scale=False)
    assert torch.equal(
        predictor.probabilities(images, 1, switched), quick.probabilities(images, 1, switched)
    )


def test_an_unknown_number_of_crops_is_refused(quick):
    with pytest.raises(DataError, match="7 views"):
        quick.probabilities(images_of(quick), 7)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda images: images.float(), lambda images: images[:, 1:], lambda images: images[0],
        lambda images: images[..., :1], lambda images: images.permute(0, 3, 1, 2),
    ],
    ids=["float", "not square", "one image", "grey", "channels first"],
)  # fmt: skip
def test_what_are_no_prepared_images_is_refused(quick, wrong):
    images = wrong(images_of(quick))
    for ask in (quick.probabilities, quick.logits, quick.centre_crops):
        with pytest.raises(DataError, match="uint8 RGB"):
            ask(images)
    with pytest.raises(DataError, match="uint8 RGB"):
        quick.activations(images, ["conv1"])


def test_threads_that_share_a_predictor_get_what_each_gets_alone(single, monkeypatch):
    monkeypatch.setattr("alexnet.predictor.MAX_BUILT", 2)  # forms are dropped and made anew
    switches = [Switches(lrn=bool(i % 2), dropout_scale=i % 4 < 2, mirror=i > 3) for i in range(8)]
    draws = images_of(single, 8).split(1)

    def ask(predictor, which):
        given = draws[which], switches[which]
        outputs = predictor.activations(draws[which], [f"conv{which % 5 + 1}"], switches[which])
        return [predictor.probabilities(given[0], 1, given[1]), *outputs.values()]

    alone = [ask(replace(single), which) for which in range(8)]
    shared = replace(single)
    together = Barrier(8)

    def ask_with_others(which):
        together.wait()
        return [ask(shared, which) for _ in range(3)]

    with ThreadPoolExecutor(8) as threads:
        for wanted, found in zip(alone, threads.map(ask_with_others, range(8)), strict=True):
            for answers in found:
                assert all(map(torch.equal, answers, wanted))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_without_fusion_it_is_the_network_itself(single, kind):
    plain, images = replace(single, dtype=kind, fused=False), images_of(single)
    with torch.no_grad(), torch.autocast("cpu", kind, enabled=kind == torch.bfloat16):
        pixels = plain.centre_crops(images)
        wanted = plain.network(pixels).float()
    assert torch.equal(plain.logits(images), wanted)
    assert plain.fast_network.conv1 is single.network.conv1


def test_the_fast_forms_that_are_kept_are_bounded(quick, monkeypatch):
    """A client of a server may ask for any set of layers, one after the other."""
    monkeypatch.setattr("alexnet.predictor.MAX_BUILT", 2)
    asked, images = replace(quick), images_of(quick, 1)
    for names in (["conv1"], ["conv1", "pool1"], ["relu1"], ["pool2"]):
        assert list(asked.activations(images, names)) == names
    assert len(asked._built) == 2


def test_networks_asked_together_give_the_mean_of_their_probabilities(prepared):
    """Whatever their sizes and in whatever order each has the classes."""
    first = predictor_of(CIFAR_QUICK, prepared)
    turned = replace(predictor_of(CIFAR_QUICK, prepared, seed=2), classes=first.classes[::-1])
    images = images_of(first)
    by_each = by_hand(first, images, 10), by_hand(turned, images, 10)[:, ::-1]
    together = ask_together([first, turned], [3, 1])
    got = together.probabilities(images, 10).numpy()
    np.testing.assert_allclose(got, 0.75 * by_each[0] + 0.25 * by_each[1], rtol=1e-4, atol=1e-6)
    assert together.classes == first.classes
    assert ask_together([first]) is first


def test_networks_that_cannot_be_asked_together_are_told_apart(quick, single, prepared):
    other = replace(quick, classes=(*quick.classes[:-1], "another"))
    with pytest.raises(ConfigError, match=r"do not know the same classes: .*'another'"):
        ask_together([quick, other])
    with pytest.raises(ConfigError, match="64 and 256 pixels"):
        ask_together([quick, replace(single, classes=quick.classes)])
    for weights in ([1.0], [0.0, 0.0], [2.0, -1.0]):
        with pytest.raises(ConfigError, match="cannot be given to 2 networks"):
            ask_together([quick, quick], weights)


def test_fitted_weights_leave_out_a_network_that_only_disturbs():
    """Two networks that are right by a little, and one that is sure of the wrong class."""
    labels = torch.arange(40) % 4
    right = torch.full((40, 4), 0.2).scatter(1, labels[:, None], 0.4)
    wrong = torch.full((40, 4), 0.03).scatter(1, (labels[:, None] + 1) % 4, 0.91)
    of_each = torch.stack([right, wrong, right])
    weights = fit_weights(of_each, labels)
    assert sum(weights) == pytest.approx(1)
    mean = torch.tensordot(torch.tensor(weights), of_each, 1)
    assert (mean.argmax(1) == labels).all()
    assert (of_each.mean(0).argmax(1) != labels).all()
