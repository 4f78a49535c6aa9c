"""int8 computes what the float32 network does, to the steps that 8 bits have."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from alexnet.data.augment import iter_crops, make_normaliser
from alexnet.data.loader import sample_evenly
from alexnet.device import Device
from alexnet.errors import ConfigError, DataError
from alexnet.network import build
from alexnet.predictor import Predictor, quantize
from alexnet.quantization import (
    Int8Layer,
    Int8Network,
    Quantize,
    QuantRange,
    calibrate,
    quantize_network,
    quantize_weight,
)
from alexnet.variants import NETWORKS
from tests.test_network import narrow

CPU = Device.named("cpu")
needs_int8 = pytest.mark.skipif(not CPU.has_int8, reason="no int8 products here")


def model_of(name, data) -> Predictor:
    """Return a narrow network, weights as He drew them, with the data's preprocessing."""
    spec = replace(narrow(NETWORKS[name]), num_classes=10)
    network = build(spec).eval()
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for member in network.children():
            if isinstance(weight := getattr(member, "weight", None), nn.Parameter):
                inputs = weight[0].numel() if weight.dim() != 3 else weight.shape[1]
                weight.normal_(0, (2 / inputs) ** 0.5, generator=draws)
    size = data.manifest.size
    normalise = make_normaliser(spec.pixels, data.statistics, spec.image_size)
    names = tuple(f"class {number}" for number in range(10))
    return Predictor(network, names, normalise, size, 0, CPU, torch.float32)


def pixels_of(model, data) -> torch.Tensor:
    return model.normalise(
        next(iter_crops(sample_evenly(data.splits["train"], 36), model.spec.image_size, 1))
    )


@pytest.mark.parametrize("shape", [(5, 3, 4, 4), (7, 20)])
def test_weights_have_numpys_scale_a_channel_and_are_at_most_half_a_step_off(shape):
    draws = np.random.default_rng(0)
    loudness = 10.0 ** draws.uniform(-3, 3, shape[0])
    weight = (draws.normal(size=shape).T * loudness).T.astype(np.float32)
    values, scales = quantize_weight(torch.from_numpy(weight))
    rows = weight.reshape(shape[0], -1)
    np.testing.assert_allclose(scales, np.abs(rows).max(1) / 127, rtol=1e-6)
    steps = (rows.T / (np.abs(rows).max(1) / 127)).T
    assert values.dtype == torch.int8
    assert values.shape == shape
    assert (values.flatten(1).abs().amax(1) == 127).all()  # each channel uses all of its steps
    assert np.abs(values.reshape(shape[0], -1).numpy() - steps).max() <= 0.5 + 1e-4


def test_a_channel_of_zeros_stays_zeros():
    values, scales = quantize_weight(torch.zeros(2, 3))
    assert not values.any()
    assert (scales > 0).all()


def test_zero_stands_for_itself_and_values_outside_are_clipped():
    given = QuantRange(-120.3, 131.9)
    x = torch.tensor([-500.0, -120.3, 0.0, 0.4, 131.9, 500.0])
    steps = Quantize(given)(x)
    expected = np.clip(np.rint(x.numpy() / given.scale) + given.zero_point, 0, 255)
    np.testing.assert_array_equal(steps, expected)
    assert steps[2] == given.zero_point
    back = (steps.float() - given.zero_point) * given.scale
    assert (back - x)[1:5].abs().max() <= given.scale  # half a step, and half of the zero's


def test_ranges_are_those_of_what_each_layer_reads(large):
    model = model_of("single", large)
    pixels = pixels_of(model, large)
    ranges = calibrate(model.network, pixels)
    names = [f"conv{number}" for number in range(1, 6)] + ["fc6", "fc7", "fc8"]
    assert list(ranges) == names
    acts = model.network.activations(pixels, ["pool1", "relu3", "drop6"])
    assert ranges["conv1"].low == pixels.min()
    assert ranges["conv1"].high == pixels.max()
    for name, before in {"conv2": "pool1", "conv4": "relu3", "fc7": "drop6"}.items():
        assert ranges[name].low == 0
        assert ranges[name].high == pytest.approx(acts[before].max().item(), rel=1e-5)


@needs_int8
@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_is_that_of_the_rounded_numbers(padding, groups):
    draws = torch.Generator().manual_seed(0)
    layer = nn.Conv2d(8, 16, 3, stride=2, padding=padding, groups=groups)
    given = QuantRange(-3.0, 1.5)  # padding must stand for 0, which is not the number 0 here
    x = torch.randint(0, 256, (2, 8, 9, 9), generator=draws, dtype=torch.uint8)
    values, scales = quantize_weight(layer.weight)
    got = Int8Layer(layer, given, False, torch.float32)(x)
    expected = torch.nn.functional.conv2d(
        (x.double() - given.zero_point) * given.scale,
        values.double() * scales[:, None, None, None],
        layer.bias.double(),
        2,
        padding,
        groups=groups,
    )
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)


@needs_int8
@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_near_those_of_float32_on_photographs(name, prepared, large):
    data = prepared if name.startswith("cifar") else large
    model = model_of(name, data)
    pixels = pixels_of(model, data)
    quantized = quantize_network(model.network, pixels, compiled=False)
    with torch.inference_mode():
        exact, got = model.network(pixels), quantized(pixels)
    assert got.dtype == torch.float32
    error = (got - exact).square().mean().sqrt() / exact.std()
    assert 1e-5 < error < 0.06, f"{error}"


@needs_int8
def test_the_network_it_is_made_of_is_left_as_it_is(large):
    model = model_of("single", large)
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    pixels = pixels_of(model, large)
    int8 = quantize(model, large)
    assert int8.network is model.network
    assert not torch.equal(
        int8.probabilities(sample_evenly(large.splits["train"], 4)),
        model.probabilities(sample_evenly(large.splits["train"], 4)),
    )
    assert list(model.network.state_dict()) == list(before)
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, before[name])
    assert pixels.dtype == torch.float32


@needs_int8
def test_compiled_is_the_same_at_every_batch_size(large):
    if not CPU.can_compile()[0]:
        pytest.skip("no compiler here")
    model = model_of("single", large)
    pixels = pixels_of(model, large)[:6]
    ranges = calibrate(model.network, pixels)
    plain = Int8Network(model.network, ranges, CPU.choose_dtype("auto"))
    fast = quantize_network(model.network, pixels)
    with torch.inference_mode():
        for size in (6, 5):
            exact = plain(pixels[:size])
            torch.testing.assert_close(fast(pixels[:size]), exact, rtol=0, atol=0.02 * exact.std())


@needs_int8
def test_a_network_without_a_last_layer_returns_what_it_would_see(large):
    model = model_of("single", large)
    model.network.reset_classifier(0)
    pixels = pixels_of(model, large)
    with torch.inference_mode():
        exact = model.network(pixels)
        got = quantize_network(model.network, pixels, compiled=False)(pixels)
    assert got.shape == exact.shape
    assert (got - exact).square().mean().sqrt() < 0.06 * exact.std()


@needs_int8
def test_without_images_it_says_so(large):
    model = model_of("single", large)
    none = torch.empty(0, 256, 256, 3, dtype=torch.uint8)
    with pytest.raises(DataError, match=r"no image to calibrate .*few hundred"):
        quantize(model, none)
    del (untrained := replace(large, splits=dict(large.splits))).splits["train"]
    with pytest.raises(DataError, match="no training images"):
        quantize(model, untrained)


def test_a_network_elsewhere_or_a_processor_without_int8_is_refused(large, monkeypatch):
    model = model_of("single", large)
    pixels = pixels_of(model, large)[:1]
    with pytest.raises(ConfigError, match=r"on meta.*device=torch.device\('cpu'\)"):
        quantize_network(build(model.spec).to("meta"), pixels)
    monkeypatch.setattr(Device, "has_int8", False)
    with pytest.raises(ConfigError, match="no int8 products"):
        quantize_network(model.network, pixels)


def test_spread_images_are_of_the_whole_split(large):
    split = large.splits["train"]
    images = sample_evenly(split, 5)
    assert images.shape == (5, 256, 256, 3)
    assert np.array_equal(images[0].numpy(), split.pixels(0))
    assert np.array_equal(images[-1].numpy(), split.pixels(len(split) - 1))
    assert len(sample_evenly(split, 1000)) == len(split)


@needs_int8
def test_commands_answer_in_int8(trained, photographs, command):
    image = next((photographs / "test").rglob("*.*"))
    said = command("predict", trained, image, "--precision", "int8", "--json")
    plain = command("predict", trained, image, "--precision", "fp32", "--json")
    assert said.returncode == 0, said.stderr
    assert "probability" in said.stdout
    assert said.stdout != plain.stdout
    tested = command("evaluate", trained, "--precision", "int8", "--views", "1", "--json")
    assert tested.returncode == 0, tested.stderr
    assert '"images": 12' in tested.stdout
