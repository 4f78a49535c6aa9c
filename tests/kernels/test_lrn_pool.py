"""The kernel of one pass against the plain layers in float64, forward and backward."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from alexnet.kernels.lrn_pool import KernelConfig, empty_like_output, lrn_pool, lrn_pool_backward
from alexnet.kernels.native import unavailable_reason
from alexnet.layers import local_response_norm
from alexnet.spec import LRN

pytestmark = pytest.mark.skipif(
    bool(unavailable_reason()), reason=unavailable_reason() or "a C++ compiler is there"
)

PAPER = KernelConfig(towers=1, relu=1, norm_size=5, window=3, stride=2, ceil_mode=0)
CONFIGS = {
    "as in the paper": (PAPER, 8, 11),
    "two towers": (PAPER._replace(towers=2), 12, 11),
    "windows past the edge": (PAPER._replace(ceil_mode=1), 6, 12),
    "windows that do not overlap": (PAPER._replace(window=2), 6, 9),
    "rows between the windows": (PAPER._replace(window=2, stride=3), 6, 10),
    "three neighbours": (PAPER._replace(norm_size=3), 6, 7),
    "nine neighbours, more than channels": (PAPER._replace(norm_size=9), 4, 7),
    "no normalisation": (PAPER._replace(norm_size=0), 8, 11),
    "no pooling": (PAPER._replace(window=1, stride=1), 8, 5),
    "normalisation alone": (PAPER._replace(relu=0, window=1, stride=1), 8, 5),
    "no ReLU": (PAPER._replace(relu=0), 8, 11),
}
NORM = LRN(alpha=0.5, k=2.0)  # strong, so that mistakes are seen
SOME = ["two towers", "windows past the edge", "normalisation alone"]  # each is compiled
EPSILON = {torch.float64: 1e-13, torch.float32: 2e-6}  # sums of a few terms, and the power


def plain(x, config, norm=NORM):
    """The definition: PyTorch's ReLU and pooling, and the paper's formula."""
    x = x.relu() if config.relu else x
    if config.norm_size:
        alpha = norm.alpha / norm.size
        wide = replace(norm, size=config.norm_size, alpha=alpha * config.norm_size)
        x = local_response_norm(x, wide, config.towers)
    return F.max_pool2d(x, config.window, config.stride, ceil_mode=bool(config.ceil_mode))


def drawn(channels, side, kind, images=3):
    draws = torch.Generator().manual_seed(channels * side)
    x = torch.randn(images, channels, side, side, dtype=torch.float64, generator=draws) * 3
    return x.to(kind).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, torch.float64) for name in CONFIGS] + [(name, torch.float32) for name in SOME],
)
def test_it_is_the_plain_layers_and_so_is_its_gradient(name, kind):
    config, channels, side = CONFIGS[name]
    draws = torch.Generator().manual_seed(1)
    x = drawn(channels, side, kind)
    exact = x.double().clone().requires_grad_()
    wanted = plain(exact, config)
    given = torch.randn(wanted.shape, dtype=torch.float64, generator=draws)
    wanted.backward(given.to(kind).double())
    mine = x.clone().requires_grad_()
    found = lrn_pool(mine, config, NORM.alpha / 5, NORM.k)
    found.backward(given.to(kind))
    assert found.dtype == mine.grad.dtype == kind
    tolerance = {"rtol": EPSILON[kind], "atol": EPSILON[kind]}
    torch.testing.assert_close(found.double(), wanted, **tolerance)
    torch.testing.assert_close(mine.grad.double(), exact.grad, **tolerance)


def test_the_gradient_is_that_of_finite_differences():
    x = drawn(6, 7, torch.float64, images=1).requires_grad_()
    config = PAPER._replace(towers=1)
    assert torch.autograd.gradcheck(lambda x: lrn_pool(x, config, 0.1, 2.0), x)


@pytest.mark.parametrize("name", SOME)
def test_in_bfloat16_it_is_the_plain_layers_to_its_last_bit_or_so(name):
    """Half a unit in the last place is 2**-8 at most; the power adds 2e-4."""
    config, channels, side = CONFIGS[name]
    x = drawn(channels, side, torch.bfloat16)
    found = lrn_pool(x, config, NORM.alpha / 5, NORM.k)
    wanted = plain(x.double(), config)
    assert ((found.double() - wanted).abs() <= (2**-8 + 2.5e-4) * wanted.abs()).all()


def test_the_gradient_in_bfloat16_is_that_in_float64_where_no_maxima_are_near_each_other():
    """Where two are equal in eight bits, either may be found to be the larger."""
    draws = torch.Generator().manual_seed(0)
    largest = torch.randint(3, (4, 8, 7, 7), generator=draws)  # one of three a row of a window
    column = torch.arange(21) % 3
    apart = (largest.repeat_interleave(3, 2).repeat_interleave(3, 3) == column).double()
    noise = torch.rand(apart.shape, dtype=torch.float64, generator=draws)
    row = 1.1 ** (torch.arange(21) % 3)[:, None].double()
    x = (
        ((1 + 2 * apart) * row + noise * 0.01)
        .bfloat16()
        .contiguous(memory_format=torch.channels_last)
    )
    config = PAPER._replace(window=3, stride=3)
    exact = x.double().clone().requires_grad_()
    weak = replace(NORM, alpha=0.01)  # else it is not the largest that stay the largest
    wanted = plain(exact, config, weak)
    given = torch.randn(wanted.shape, dtype=torch.float64, generator=draws).bfloat16()
    wanted.backward(given.double())
    found = lrn_pool_backward(given, x, config, weak.alpha / 5, weak.k)
    error = (found.double() - exact.grad).abs()
    assert (error <= 2**-8 * exact.grad.abs() + 1e-3 * exact.grad.abs().amax()).all()


@pytest.mark.parametrize("images", [1, 2, 5])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_and_bands_of_rows_change_nothing(images, threads):
    x, before = drawn(8, 23, torch.float32, images), torch.get_num_threads()
    one = [lrn_pool(part, PAPER, 0.1, 2.0) for part in x.split(1)]
    try:
        torch.set_num_threads(threads)
        assert torch.equal(lrn_pool(x, PAPER, 0.1, 2.0), torch.cat(one))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16])
def test_what_is_no_number_stays_none(kind):
    """Else a training that diverges would not be seen to."""
    x = torch.ones(1, 8, 7, 7, dtype=kind)
    x[0, 3, 2, 2] = torch.nan
    found = lrn_pool(x, PAPER, 0.1, 2.0)
    assert torch.equal(found.isnan(), plain(x.double(), PAPER).isnan())
    assert found.isnan().any()
    assert not found.isnan().all()


def test_equal_ones_give_the_gradient_to_the_first_as_pytorch_does():
    x = torch.ones(1, 2, 5, 5, dtype=torch.float64).requires_grad_()
    config = PAPER._replace(norm_size=0)
    lrn_pool(x, config, 0.0, 1.0).sum().backward()
    again = x.detach().clone().requires_grad_()
    plain(again, config).sum().backward()
    assert torch.equal(x.grad, again.grad)


@pytest.mark.parametrize("ceil_mode", [0, 1])
@pytest.mark.parametrize(("window", "stride"), [(1, 1), (2, 2), (2, 3), (3, 2), (5, 1)])
def test_as_many_windows_fit_as_pytorch_says(window, stride, ceil_mode):
    config = PAPER._replace(window=window, stride=stride, ceil_mode=ceil_mode)
    for length in range(1, 20):
        x = torch.zeros(1, 2, length, length)
        try:
            wanted = F.max_pool2d(x, window, stride, ceil_mode=bool(ceil_mode)).shape
        except RuntimeError:
            with pytest.raises(RuntimeError, match="does not fit"):
                empty_like_output(x, config)
        else:
            assert empty_like_output(x, config).shape == wanted


def test_a_batch_of_none_is_none():
    x = torch.zeros(0, 8, 7, 7).requires_grad_()
    found = lrn_pool(x, PAPER, 0.1, 2.0)
    assert found.shape == (0, 8, 3, 3)
    found.sum().backward()
    assert x.grad.shape == x.shape


def test_pytorch_finds_nothing_wrong_with_the_operator():
    x = drawn(8, 11, torch.float32).requires_grad_()
    torch.library.opcheck(lrn_pool, (x, list(PAPER), 0.1, 2.0))
