"""The kernel of one pass against the plain layers in float64, forward and backward."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from alexnet.kernels.native import unavailable_reason
from alexnet.kernels.normalised_pool import Form, normalised_pool, normalised_pool_backward
from alexnet.layers import local_response_norm
from alexnet.spec import LRN

pytestmark = pytest.mark.skipif(
    bool(unavailable_reason()), reason=unavailable_reason() or "a C++ compiler is there"
)

PAPER = Form(towers=1, rectify=1, neighbours=5, window=3, stride=2, ceil=0)
FORMS = {
    "as in the paper": (PAPER, 8, 11),
    "two towers": (PAPER._replace(towers=2), 12, 11),
    "windows past the edge": (PAPER._replace(ceil=1), 6, 12),
    "windows that do not overlap": (PAPER._replace(window=2), 6, 9),
    "rows between the windows": (PAPER._replace(window=2, stride=3), 6, 10),
    "three neighbours": (PAPER._replace(neighbours=3), 6, 7),
    "nine neighbours, more than maps": (PAPER._replace(neighbours=9), 4, 7),
    "no normalisation": (PAPER._replace(neighbours=0), 8, 11),
    "no pooling": (PAPER._replace(window=1, stride=1), 8, 5),
    "normalisation alone": (PAPER._replace(rectify=0, window=1, stride=1), 8, 5),
    "no ReLU": (PAPER._replace(rectify=0), 8, 11),
}
NORM = LRN(alpha=0.5, k=2.0)  # strong, so that mistakes are seen
SOME = ["two towers", "windows past the edge", "normalisation alone"]  # each is compiled
EPSILON = {torch.float64: 1e-13, torch.float32: 2e-6}  # sums of a few terms, and the power


def plain(x, form, norm=NORM):
    """The definition: PyTorch's ReLU and pooling, and the paper's formula."""
    x = x.relu() if form.rectify else x
    if form.neighbours:
        alpha = norm.alpha / norm.size
        wide = replace(norm, size=form.neighbours, alpha=alpha * form.neighbours)
        x = local_response_norm(x, wide, form.towers)
    return F.max_pool2d(x, form.window, form.stride, ceil_mode=bool(form.ceil))


def drawn(maps, side, kind, images=3):
    draws = torch.Generator().manual_seed(maps * side)
    x = torch.randn(images, maps, side, side, dtype=torch.float64, generator=draws) * 3
    return x.to(kind).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, torch.float64) for name in FORMS] + [(name, torch.float32) for name in SOME],
)
def test_it_is_the_plain_layers_and_so_is_its_gradient(name, kind):
    form, maps, side = FORMS[name]
    draws = torch.Generator().manual_seed(1)
    x = drawn(maps, side, kind)
    exact = x.double().clone().requires_grad_()
    wanted = plain(exact, form)
    given = torch.randn(wanted.shape, dtype=torch.float64, generator=draws)
    wanted.backward(given.to(kind).double())
    mine = x.clone().requires_grad_()
    found = normalised_pool(mine, form, NORM.alpha / 5, NORM.k)
    found.backward(given.to(kind))
    assert found.dtype == mine.grad.dtype == kind
    tolerance = {"rtol": EPSILON[kind], "atol": EPSILON[kind]}
    torch.testing.assert_close(found.double(), wanted, **tolerance)
    torch.testing.assert_close(mine.grad.double(), exact.grad, **tolerance)


def test_the_gradient_is_that_of_finite_differences():
    x = drawn(6, 7, torch.float64, images=1).requires_grad_()
    form = PAPER._replace(towers=1)
    assert torch.autograd.gradcheck(lambda x: normalised_pool(x, form, 0.1, 2.0), x)


@pytest.mark.parametrize("name", SOME)
def test_in_bfloat16_it_is_the_plain_layers_to_its_last_bit_or_so(name):
    """Half a unit in the last place is 2**-8 at most; the power adds 2e-4."""
    form, maps, side = FORMS[name]
    x = drawn(maps, side, torch.bfloat16)
    found = normalised_pool(x, form, NORM.alpha / 5, NORM.k)
    wanted = plain(x.double(), form)
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
    form = PAPER._replace(window=3, stride=3)
    exact = x.double().clone().requires_grad_()
    weak = replace(NORM, alpha=0.01)  # else it is not the largest that stay the largest
    wanted = plain(exact, form, weak)
    given = torch.randn(wanted.shape, dtype=torch.float64, generator=draws).bfloat16()
    wanted.backward(given.double())
    found = normalised_pool_backward(given, x, form, weak.alpha / 5, weak.k)
    error = (found.double() - exact.grad).abs()
    assert (error <= 2**-8 * exact.grad.abs() + 1e-3 * exact.grad.abs().amax()).all()


@pytest.mark.parametrize("images", [1, 2, 5])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_and_bands_of_rows_change_nothing(images, threads):
    x, before = drawn(8, 23, torch.float32, images), torch.get_num_threads()
    one = [normalised_pool(part, PAPER, 0.1, 2.0) for part in x.split(1)]
    try:
        torch.set_num_threads(threads)
        assert torch.equal(normalised_pool(x, PAPER, 0.1, 2.0), torch.cat(one))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16])
def test_what_is_no_number_stays_none(kind):
    """Else a training that diverges would not be seen to."""
    x = torch.ones(1, 8, 7, 7, dtype=kind)
    x[0, 3, 2, 2] = torch.nan
    found = normalised_pool(x, PAPER, 0.1, 2.0)
    assert torch.equal(found.isnan(), plain(x.double(), PAPER).isnan())
    assert found.isnan().any()
    assert not found.isnan().all()


def test_equal_ones_give_the_gradient_to_the_first_as_pytorch_does():
    x = torch.ones(1, 2, 5, 5, dtype=torch.float64).requires_grad_()
    form = PAPER._replace(neighbours=0)
    normalised_pool(x, form, 0.0, 1.0).sum().backward()
    again = x.detach().clone().requires_grad_()
    plain(again, form).sum().backward()
    assert torch.equal(x.grad, again.grad)


def test_a_batch_of_none_is_none():
    x = torch.zeros(0, 8, 7, 7).requires_grad_()
    found = normalised_pool(x, PAPER, 0.1, 2.0)
    assert found.shape == (0, 8, 3, 3)
    found.sum().backward()
    assert x.grad.shape == x.shape


def test_pytorch_finds_nothing_wrong_with_the_operator():
    x = drawn(8, 11, torch.float32).requires_grad_()
    torch.library.opcheck(normalised_pool, (x, list(PAPER), 0.1, 2.0))
