"""Layers in float32 are the plain ones in float64, to float32's rounding; gradients too."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from alexnet.fused import fuse, fuse_for_inference, prepare_for_inference
from alexnet.kernels import float32
from alexnet.kernels.float32 import (
    FewRowsLinear,
    WinogradConv2d,
    few_rows_linear,
    winograd_conv2d,
    winograd_filter_gradient,
    winograd_matrices,
)
from alexnet.kernels.native import unavailable_reason
from alexnet.network import build
from alexnet.variants import SINGLE

pytestmark = pytest.mark.skipif(bool(unavailable_reason()), reason="no C++ compiler")


def faster_layer(layer):
    """Return a layer in the form that it has in a network for inference in float32."""
    return prepare_for_inference(nn.Sequential(layer).eval(), torch.float32)[0]


def exact(layer, x):
    with torch.no_grad():
        return deepcopy(layer).double()(x.double())


@pytest.mark.parametrize("side", [3, 5])
def test_matrices_are_a_convolutions(side):
    a, g, b = winograd_matrices(side)
    draws = np.random.default_rng(0)
    inputs, filters = draws.normal(size=a.shape[1]), draws.normal(size=side)
    found = a @ ((g @ filters) * (b @ inputs))
    np.testing.assert_allclose(found, np.correlate(inputs, filters, "valid"), rtol=1e-10)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("side", [3, 5])
@pytest.mark.parametrize("images", [1, 2, 7])
def test_convolutions_at_every_edge(images, side, padding, groups):
    torch.manual_seed(0)
    plain = nn.Conv2d(96, 96, side, padding=padding, groups=groups)
    fast = faster_layer(plain)
    assert isinstance(fast, WinogradConv2d)
    assert fast.weight.data_ptr() == plain.weight.data_ptr()
    for height, width in ((13, 13), (8, 11), (5, 6)):
        x = torch.randn(images, 96, height, width)  # channels first: laid out anew
        with torch.inference_mode():
            found = fast(x)
        wanted = exact(plain, x)
        assert found.shape == wanted.shape
        assert found.is_contiguous(memory_format=torch.channels_last) or images == 1
        # Of 96 channels at most 1.1e-5 was seen, of conv3's 256 1.14e-5 (12 draws each).
        assert (found - wanted).abs().max() < 1.5e-5 * wanted.abs().max()


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("side", "padding"), [(3, 0), (3, 1), (5, 2), (5, 0)])
def test_gradients_at_every_edge(side, padding, groups):
    """Errors grow with the tile: 7 inputs for a side of 3, 8 for one of 5."""
    torch.manual_seed(0)
    plain = nn.Conv2d(96, 96, side, padding=padding, groups=groups)
    fast = fuse(nn.Sequential(plain))[0]
    assert isinstance(fast, WinogradConv2d)
    assert fast.weight is plain.weight
    for height, width in ((13, 13), (8, 11), (5, 6)):
        x = torch.randn(7, 96, height, width)
        out = torch.randn(7, 96, *(length + 2 * padding - side + 1 for length in (height, width)))
        wanted = gradients(deepcopy(plain).double(), x.double(), out.double())
        for found, right in zip(gradients(fast, x, out), wanted, strict=True):
            assert (found - right).abs().max() < 2e-5 * right.abs().max()


def test_one_image_is_convolved_as_by_the_plain_layer():
    """By oneDNN too, with filters that it has laid out before: a copy has its own."""
    torch.manual_seed(0)
    plain = nn.Conv2d(96, 96, 3, padding=1)
    fast = faster_layer(plain)
    for size in (13, 11, 13):
        x = torch.randn(1, 96, size, size).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            wanted = plain(x)
            torch.testing.assert_close(fast(x), wanted, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(deepcopy(fast)(x), wanted, rtol=1e-5, atol=1e-5)
    assert len(fast.packed) == 2
    x.requires_grad_()
    assert torch.autograd.grad(fast(x).sum(), x)[0].shape == x.shape


def gradients(layer, x, out):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(layer(x), (x, layer.weight, layer.bias), out)


def test_a_frozen_layer_takes_part_in_training():
    torch.manual_seed(0)
    plain = nn.Conv2d(96, 96, 3, padding=1).requires_grad_(False)
    fast = fuse(nn.Sequential(plain))[0]
    x = torch.randn(3, 96, 13, 13, requires_grad=True)
    found, wanted = (torch.autograd.grad(one(x).square().sum(), x)[0] for one in (fast, plain))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)
    plain.requires_grad_(True)
    assert fast(x.detach()).requires_grad


def test_batches_that_are_laid_out_in_pieces_are_whole(monkeypatch):
    torch.manual_seed(0)
    layer = fuse(nn.Sequential(nn.Conv2d(96, 96, 3, padding=1)))[0]
    x, out = torch.randn(7, 96, 13, 13), torch.randn(7, 96, 13, 13)
    at_once = layer(x), *gradients(layer, x, out)
    monkeypatch.setattr(float32, "TILE_BYTES", 1 << 20)
    in_pieces = layer(x), *gradients(layer, x, out)
    for one, other in zip(at_once, in_pieces, strict=True):
        assert (one - other).abs().max() < 2e-5 * one.abs().max()


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 10, 64, 65])
def test_fully_connected_layers_over_any_number_of_images(rows):
    torch.manual_seed(0)
    plain = nn.Linear(96, 20)
    fast = faster_layer(plain)
    assert isinstance(fast, FewRowsLinear)
    x = torch.randn(rows, 96)
    with torch.inference_mode():
        found = fast(x)
    torch.testing.assert_close(found.double(), exact(plain, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(96, 96, 3, stride=2), nn.Conv2d(96, 96, 11), nn.Conv2d(96, 96, 3, dilation=2),
        nn.Conv2d(72, 96, 3), nn.Conv2d(96, 72, 3), nn.Conv2d(96, 96, 3, groups=4),
        nn.Conv2d(96, 96, 3, padding=(0, 1)), nn.Conv2d(96, 96, 3, bias=False),
        nn.Conv2d(96, 96, 3, padding_mode="reflect"), nn.Linear(95, 20), nn.Linear(96, 19),
        nn.Linear(96, 20, bias=False), nn.ReLU(),
    ],
    ids=str,
)  # fmt: skip
def test_other_layers_are_left_as_they_are(layer):
    assert type(faster_layer(layer)) is type(layer)


def test_small_networks_keep_the_plain_layers(monkeypatch):
    """Few channels have no form of their own; a map of 6 pixels is left to the plain layer."""
    assert type(faster_layer(nn.Conv2d(64, 64, 3, groups=2))) is nn.Conv2d
    fast, asked = faster_layer(nn.Conv2d(96, 96, 3, padding=1)), []
    monkeypatch.setattr(float32, "call", lambda operator, x, *rest: asked.append(x.shape[2]) or x)
    for size in (6, 13):
        fast(torch.zeros(64, 96, size, size))
    assert asked == [13]


@pytest.mark.parametrize("layer", [nn.Conv2d(96, 96, 3), nn.Linear(96, 20)], ids=str)
def test_layers_are_left_as_they_are_where_their_kernel_does_not_compile(
    layer, monkeypatch, tmp_path
):
    refused = tmp_path / "kernel.cpp"
    refused.write_text("this is no C++", encoding="utf-8")
    monkeypatch.setattr(float32, "WINOGRAD", str(refused))
    monkeypatch.setattr(float32, "FEW_ROWS", str(refused))
    assert type(faster_layer(layer)) is type(layer)
    assert type(fuse(nn.Sequential(layer))[0]) is type(layer)
    monkeypatch.setenv("CXX", "/nowhere/g++")
    assert type(faster_layer(layer)) is type(layer)  # as found out before


def test_the_whole_network_is_as_near_to_float64_as_the_plain_one():
    network = build(SINGLE, seed=1).eval()
    x = torch.randn(2, 3, 227, 227) * 60
    fast = fuse_for_inference(network, torch.float32)
    assert sum(isinstance(layer, WinogradConv2d) for layer in fast) == 4
    with torch.inference_mode():
        mine, plain = fast(x), network(x)
    wanted = exact(network, x)
    scale = wanted.abs().max()
    assert (mine - wanted).abs().max() < 2 * (plain - wanted).abs().max() + 1e-6 * scale


def test_other_types_are_left_to_the_plain_layers_and_refused_by_the_kernels():
    """The kernels read raw memory: half as wide numbers would end where twice as many are read."""
    conv, linear = nn.Conv2d(96, 96, 3), nn.Linear(96, 20)
    image, rows = torch.randn(4, 96, 13, 13), torch.randn(3, 96)
    image = image.contiguous(memory_format=torch.channels_last)  # as within a network
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for layer, x in ((conv, image.bfloat16()), (linear, rows.bfloat16())):
            assert torch.equal(faster_layer(layer)(x), layer(x))
        within = faster_layer(conv)(image), faster_layer(linear)(rows)
    with torch.inference_mode():
        assert torch.equal(within[0], faster_layer(conv)(image))
        assert torch.equal(within[1], faster_layer(linear)(rows))
    fast = faster_layer(conv)
    with pytest.raises(TypeError, match="bfloat16"):
        float32.winograd(image.bfloat16(), fast.filters, conv.bias, 3, 0, 1)
    with pytest.raises(TypeError, match="float64"):
        float32.winograd(image, fast.filters.double(), conv.bias, 3, 0, 1)
    with pytest.raises(TypeError, match="float64"):
        winograd_conv2d(image.double(), conv.weight.detach().double(), conv.bias.double(), 0, 1)
    with pytest.raises(TypeError, match="bfloat16"):
        winograd_filter_gradient(image, torch.zeros(4, 64, 6, 6).bfloat16(), 3, 0, 1)
    with pytest.raises(TypeError, match="bfloat16"):
        few_rows_linear(rows.bfloat16(), linear.weight, linear.bias)
    with pytest.raises(TypeError, match="float16"):
        few_rows_linear(rows, linear.weight, linear.bias.half())


def test_a_fully_connected_layer_refuses_rows_of_another_length():
    with torch.inference_mode(), pytest.raises(RuntimeError):
        faster_layer(nn.Linear(96, 20))(torch.randn(3, 80))


def test_it_is_one_operator_to_the_compiler():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(96, 96, 3), nn.Flatten(), nn.Linear(96 * 121, 8)).eval()
    fast = nn.Sequential(*map(faster_layer, layers))
    compiled = torch.compile(fast, backend="aot_eager", fullgraph=True)
    x = torch.randn(3, 96, 13, 13)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), layers(x), rtol=1e-4, atol=1e-5)
