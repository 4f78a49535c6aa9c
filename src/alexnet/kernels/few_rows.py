"""Fully-connected layers over a few images in float32 on a processor.

What takes time is reading the weights; ``few_rows.cpp`` reads them once for all the images.
"""

import ctypes

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.kernels.native import LANES, address, call, compile_kernel, find_compile_error

KERNEL = "few_rows.cpp"
UNITS = 4  # that are computed together
ROWS = (2, 64)  # images, from and to, of which `FewRowsLinear` is faster than the plain layer


@torch.library.custom_op("alexnet::few_rows_linear", mutates_args=(), device_types="cpu")
def few_rows_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Apply a fully-connected layer to ``(N, inputs)`` float32, else a `TypeError`; no gradient."""
    for tensor in (x, weight, bias):
        if tensor.dtype != torch.float32:
            raise TypeError(f"The kernel of few rows is for float32, not {tensor.dtype}.")
    x, out = x.contiguous(), bias.repeat(len(x), 1)
    sizes = (*x.shape, len(weight), torch.get_num_threads())
    library = compile_kernel(KERNEL)
    library.multiply(address(x), address(weight), address(out), *map(ctypes.c_int64, sizes))
    return out


@few_rows_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], len(weight))


class FewRowsLinear(nn.Linear):
    """A fully-connected layer that reads its weights once for all of a few images."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, device="meta")
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(N, inputs)`` to ``(N, units)``; what is no float32 by the plain layer."""
        fits = input.dtype == torch.float32 and input.shape[1:] == (self.in_features,)
        if fits and ROWS[0] <= input.shape[0] <= ROWS[1]:
            return call(few_rows_linear, input, self.weight, self.bias)
        return F.linear(input, self.weight, self.bias)


def has_few_rows_form(layer: nn.Module) -> bool:
    """Whether a layer is one that `FewRowsLinear` can be, and its kernel compiles."""
    return (
        isinstance(layer, nn.Linear)
        and layer.bias is not None
        and layer.in_features % LANES == 0
        and layer.out_features % UNITS == 0
        and not find_compile_error(KERNEL)
    )
