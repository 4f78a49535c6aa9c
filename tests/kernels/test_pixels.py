"""Squares of pixels as channels, against PyTorch's own convolution with a stride."""

import pytest
import torch
import torch.nn.functional as F

from alexnet.kernels.native import unavailable_reason
from alexnet.kernels.pixels import dense_filters, plain_space_to_depth, space_to_depth

pytestmark = pytest.mark.skipif(
    bool(unavailable_reason()), reason=unavailable_reason() or "a C++ compiler is there"
)


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "padding"),
    [(227, 11, 4, 0), (224, 11, 4, 2), (31, 8, 4, 3), (20, 5, 2, 1), (13, 3, 3, 0), (9, 3, 4, 0)],
)
@pytest.mark.parametrize("squares_of", [space_to_depth, plain_space_to_depth])
def test_a_dense_convolution_of_the_squares_is_the_one_with_a_stride(
    side, kernel, stride, padding, squares_of
):
    draws = torch.Generator().manual_seed(side)
    x = torch.randn(2, 3, side, side, dtype=torch.float64, generator=draws)
    weight = torch.randn(4, 3, kernel, kernel, dtype=torch.float64, generator=draws)
    weight.requires_grad_()
    wanted = F.conv2d(x, weight, stride=stride, padding=padding)
    squares = wanted.shape[2] - 1 + -(-kernel // stride)
    dense = squares_of(x, stride, padding, squares, torch.float64)
    found = F.conv2d(dense, dense_filters(weight, stride))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    given = torch.randn(wanted.shape, dtype=torch.float64, generator=draws)
    (theirs,) = torch.autograd.grad(wanted, weight, given)
    (mine,) = torch.autograd.grad(found, weight, given)
    torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16, torch.float64])
def test_types_are_converted_as_pytorch_converts_them(given, wanted):
    x = (torch.randn(2, 3, 9, 9, dtype=torch.float64) * 100).to(given)
    x[0, 0, 0, 0], x[0, 1, 0, 0], x[0, 2, 0, 0] = torch.nan, torch.inf, 1 + 2**-8
    found = space_to_depth(x, 4, 0, 3, wanted)
    x = x.float() if wanted == torch.bfloat16 else x
    plain = plain_space_to_depth(x, 4, 0, 3, wanted)
    torch.testing.assert_close(found, plain, rtol=0, atol=0, equal_nan=True)


def test_pytorch_finds_nothing_wrong_with_the_operator():
    torch.library.opcheck(space_to_depth, (torch.randn(2, 3, 9, 9), 4, 0, 3, torch.bfloat16))
