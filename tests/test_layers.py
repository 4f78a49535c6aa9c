"""The layers against PyTorch's, against the formulas, and against gradients in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from alexnet.layers import (
    Dropout,
    LocallyConnected2d,
    LocalResponseNorm,
    WithinChannelResponseNorm,
    banded_lrn,
    local_response_norm,
)
from alexnet.spec import LRN, WithinChannelLRN

# No default constants, and sums that matter.
WINDOWS = [
    LRN(size=5, alpha=0.7, beta=0.75, k=2),
    LRN(size=3, alpha=0.4, beta=0.6, k=1.3),
    LRN(size=9, alpha=0.9, beta=0.75, k=1),
    LRN(size=4, alpha=0.5, beta=0.5, k=1.1),
]


@pytest.fixture
def x():
    draws = torch.Generator().manual_seed(1)
    return torch.randn(2, 12, 5, 4, generator=draws, dtype=torch.float64) * 3


def by_formula(a, norm):
    """Section 3.3 as printed, whose alpha is ours over n."""
    b, half, alpha = np.empty_like(a), norm.size // 2, norm.alpha / norm.size
    for i in range(a.shape[1]):
        window = a[:, max(0, i - half) : i + half + 1]
        b[:, i] = a[:, i] / (norm.k + alpha * (window**2).sum(1)) ** norm.beta
    return b


@pytest.mark.parametrize("norm", WINDOWS[:3])
@pytest.mark.parametrize("form", [local_response_norm, lambda x, norm: LocalResponseNorm(norm)(x)])
def test_lrn_is_the_formula_of_the_paper(x, norm, form):
    np.testing.assert_allclose(form(x, norm).numpy(), by_formula(x.numpy(), norm), rtol=1e-12)


@pytest.mark.parametrize("norm", WINDOWS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_lrn_is_pytorchs_forward_and_backward_to_1e_6(x, norm, layout):
    ours = x.float().contiguous(memory_format=layout).requires_grad_()
    theirs = x.float().requires_grad_()
    out = LocalResponseNorm(norm)(ours)
    expected = F.local_response_norm(theirs, norm.size, norm.alpha, norm.beta, norm.k)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-6)


def test_lrn_gradient_is_that_of_finite_differences(x):
    small = x[:1, :, :2, :2].clone().requires_grad_()
    assert torch.autograd.gradcheck(LocalResponseNorm(WINDOWS[0]), (small,))


@pytest.mark.parametrize("norm", WINDOWS)
def test_lrn_in_bfloat16_is_the_float32_one_to_its_precision(x, norm):
    """Two roundings of 2**-9 in the sum and one in the result: 2**-7 covers them."""
    wide = LocalResponseNorm(norm)(x.float().bfloat16().float())
    narrow = LocalResponseNorm(norm)(x.float().bfloat16())
    assert narrow.dtype == torch.bfloat16
    torch.testing.assert_close(narrow.float(), wide, rtol=2**-7, atol=1e-6)


def test_lrn_in_float32_is_not_rounded_by_autocast(x):
    with torch.autocast("cpu", torch.bfloat16):
        inside = LocalResponseNorm(WINDOWS[0])(x.float())
    torch.testing.assert_close(inside, LocalResponseNorm(WINDOWS[0])(x.float()), rtol=0, atol=0)


def test_lrn_window_stays_in_its_tower(x):
    halves = [LocalResponseNorm(WINDOWS[0])(half) for half in x.chunk(2, 1)]
    together = LocalResponseNorm(WINDOWS[0], towers=2)(x)
    torch.testing.assert_close(together, torch.cat(halves, 1), rtol=1e-12, atol=0)
    torch.testing.assert_close(local_response_norm(x, WINDOWS[0], 2), together, rtol=1e-12, atol=0)


def test_lrn_window_crosses_the_towers_where_the_spec_says_so(x):
    whole = LRN(size=5, alpha=0.7, span="layer")
    torch.testing.assert_close(
        LocalResponseNorm(whole, towers=2)(x), LocalResponseNorm(whole)(x), rtol=0, atol=0
    )
    assert not torch.allclose(LocalResponseNorm(whole)(x), LocalResponseNorm(WINDOWS[0], 2)(x))


def test_banded_kernel_takes_any_power(x):
    expected = x * (1.5 + 0.3 / 5 * LocalResponseNormEnergy(x)).pow(-0.3)
    torch.testing.assert_close(banded_lrn(x, LRN(size=5, alpha=0.3, beta=0.3, k=1.5), 1), expected)


def LocalResponseNormEnergy(x):
    padded = F.pad(x**2, (0, 0, 0, 0, 2, 2))
    return padded.unfold(1, 5, 1).sum(-1)


def test_same_map_norm_is_the_2012_formula(x):
    """Facts 2: x (1 + 1e-3 / 25 * the sum over 5x5)**-.75, outside counted as zero."""
    a = x.numpy() * 20
    out = WithinChannelResponseNorm(WithinChannelLRN())(torch.from_numpy(a)).numpy()
    for n, c, i, j in np.ndindex(a.shape):
        window = a[n, c, max(0, i - 2) : i + 3, max(0, j - 2) : j + 3]
        expected = a[n, c, i, j] * (1 + 1e-3 / 25 * (window**2).sum()) ** -0.75
        assert out[n, c, i, j] == pytest.approx(expected, rel=1e-12)


def test_a_local_layer_with_equal_filters_is_a_convolution():
    layer = LocallyConnected2d(3, 4, 6, 3, padding=1).double()
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(weight.reshape(4, 27, 1).expand(4, 27, 36))
        layer.bias.zero_()
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(layer(x), F.conv2d(x, weight, padding=1))


def test_dropout_as_in_2012_masks_and_scales_at_test():
    """Facts 3b: masked without rescaling in training, times 1 - rate at test."""
    layer, ones = Dropout(0.25, "2012"), torch.ones(1, 10_000)
    torch.manual_seed(0)
    out = layer(ones)
    assert set(out.unique().tolist()) == {0.0, 1.0}
    assert out.mean().item() == pytest.approx(0.75, abs=0.02)
    assert torch.equal(layer.eval()(ones), ones * 0.75)


def test_inverted_dropout_scales_in_training():
    layer, ones = Dropout(0.25), torch.ones(1, 10_000)
    torch.manual_seed(0)
    out = layer(ones)
    assert set(out.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert torch.equal(layer.eval()(ones), ones)
