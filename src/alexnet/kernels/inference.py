"""Layers of a network that will not be trained any more, in float32 on a processor.

A convolution of stride 1 takes a quarter of the products or fewer (Winograd's minimal filtering:
Lavin and Gray, 2016), a fully-connected layer over few images the time in which its weights are
read. Both are within float32's rounding of the plain layers; ``inference.cpp`` has the loops.
"""

import ctypes
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from alexnet.kernels.native import address, call, channels_last, compile_kernel, find_compile_error

KERNEL = "inference.cpp"
OUTPUTS = 4  # pixels along a side of a tile of the result
POINTS = (0, 1, -1, 2, -2, 0.5, -0.5)  # at which polynomials are evaluated, besides infinity
LANES = 16  # floats in the widest vector register
UNITS = 4  # of a fully-connected layer that are computed together
ROWS = (2, 64)  # images, from and to, of which `FewRowsLinear` is faster than the plain layer
TOGETHER = 5  # images whose tiles are laid out at once: more would not stay in the cache


class WinogradArguments(ctypes.Structure):
    """`WinogradArguments` of ``inference.cpp``, field by field."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in (
            *("images", "height", "width", "channels"),
            *("groups", "padding", "down", "across", "threads"),
        )
    )


@cache
def winograd_matrices(side: int) -> tuple[NDArray[np.float64], ...]:
    r"""Return the matrices of a convolution with filters of a side.

    With them a row of :math:`m` outputs is :math:`A [(G g) \odot (B d)]`, of a filter :math:`g` and
    of :math:`t = m + side - 1` inputs :math:`d` (Toom and Cook: polynomials of a product are
    determined by their values at as many points as they have coefficients).

    Returns
    -------
    A, G, B : ndarray
        ``(m, t)``, ``(t, side)`` and ``(t, t)``; the rows of B have 1 as their largest entry.
    """
    tile = OUTPUTS + side - 1

    def powers(count: int) -> NDArray[np.float64]:
        finite = np.array(POINTS[: tile - 1])[:, None] ** np.arange(count)
        return np.vstack([finite, np.eye(count)[-1]])

    b = np.linalg.inv(powers(tile)).T
    scale = np.abs(b).max(1, keepdims=True)
    return powers(OUTPUTS).T, powers(side) * scale, b / scale


@torch.library.custom_op("alexnet::winograd", mutates_args=(), device_types="cpu")
def winograd(
    x: Tensor, filters: Tensor, bias: Tensor, side: int, padding: int, groups: int
) -> Tensor:
    """Convolve ``(N, C, H, W)`` float32 with filters of `WinogradConv2d`; no gradient.

    Raises
    ------
    TypeError
        For another type than float32.
    """
    _check_float32(x, filters, bias)
    x, out = channels_last(x), _empty_output(x, bias, side, padding)
    tile = OUTPUTS + side - 1
    library = compile_kernel(KERNEL, tile=tile, outputs=OUTPUTS)
    a, _, b = (torch.from_numpy(matrix).float().contiguous() for matrix in winograd_matrices(side))
    down, across = (-(-length // OUTPUTS) for length in out.shape[2:])
    for images, results in zip(x.split(TOGETHER), out.split(TOGETHER), strict=True):
        count, channels, *size = images.shape
        more = groups, padding, down, across, torch.get_num_threads()
        tiles = x.new_empty(tile**2 * groups, count * down * across, channels // groups)
        shape = WinogradArguments(count, *size, channels, *more)
        library.spread(address(images), address(b), address(tiles), ctypes.byref(shape))
        with torch.autocast("cpu", enabled=False):  # else they could be of bfloat16
            products = tiles @ filters.mT
        shape = WinogradArguments(count, *out.shape[2:], len(bias), *more)
        library.gather(
            address(products), address(a), address(bias), address(results), ctypes.byref(shape)
        )
    return out


@winograd.register_fake
def _(x: Tensor, filters: Tensor, bias: Tensor, side: int, padding: int, groups: int) -> Tensor:
    return _empty_output(x, bias, side, padding)


@torch.library.custom_op("alexnet::few_rows_linear", mutates_args=(), device_types="cpu")
def few_rows_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Apply a fully-connected layer to ``(N, inputs)`` float32; no gradient.

    Raises
    ------
    TypeError
        For another type than float32.
    """
    _check_float32(x, weight, bias)
    x, out = x.contiguous(), bias.repeat(len(x), 1)
    sizes = (*x.shape, len(weight), torch.get_num_threads())
    library = compile_kernel(KERNEL, tile=OUTPUTS + 2, outputs=OUTPUTS)
    library.multiply(address(x), address(weight), address(out), *map(ctypes.c_int64, sizes))
    return out


@few_rows_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], len(weight))


class WinogradConv2d(nn.Conv2d):
    """A convolution of stride 1, whose weights are transformed once and must not change after.

    Parameters
    ----------
    conv : nn.Conv2d
        With filters of 3x3 or 5x5, its channels a multiple of `LANES`; its weight and bias are
        this one's.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        side, padding = conv.kernel_size[0], int(conv.padding[0])
        super().__init__(
            conv.in_channels, conv.out_channels, side, padding=padding, groups=conv.groups,
            device="meta",
        )  # fmt: skip
        self.weight, self.bias = conv.weight, conv.bias
        _, matrix, _ = winograd_matrices(side)
        both = torch.from_numpy(np.kron(matrix, matrix)).to(conv.weight.dtype)
        flat = conv.weight.detach().permute(2, 3, 0, 1).flatten(0, 1).flatten(1)
        with torch.autocast("cpu", enabled=False):
            made = both @ flat
        made = made.view(-1, len(conv.weight) // conv.groups, conv.weight.shape[1])
        self.filters = made  # (tile**2 * groups, out channels, in channels), of a group

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, M, H', W')``, channels-last.

        Another type than float32 is left to the plain layer, and a single image, whose few tiles
        take as long as their transformed filters to be read.
        """
        assert self.bias is not None
        if input.dtype != torch.float32 or input.shape[0] == 1:
            return super().forward(input)
        side, padding = self.kernel_size[0], int(self.padding[0])
        return call(winograd, input, self.filters, self.bias, side, padding, self.groups)


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


def faster_layer(layer: nn.Module) -> nn.Module:
    """Return a layer in its form here, with the same weights; or itself where there is none.

    There is none either where its kernel cannot be compiled.
    """
    if (
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size in ((3, 3), (5, 5))
        and layer.stride == layer.dilation == (1, 1)
        and layer.padding in ((0, 0), (1, 1), (2, 2))
        and layer.padding_mode == "zeros"
        and layer.bias is not None
        and layer.in_channels // layer.groups % LANES == 0
        and layer.out_channels // layer.groups % LANES == 0
        and _has_kernel(layer.kernel_size[0])
    ):
        return WinogradConv2d(layer)
    if (
        isinstance(layer, nn.Linear)
        and layer.bias is not None
        and layer.in_features % LANES == 0
        and layer.out_features % UNITS == 0
        and _has_kernel(3)
    ):
        return FewRowsLinear(layer)
    return layer


def _has_kernel(side: int) -> bool:
    return not find_compile_error(KERNEL, tile=OUTPUTS + side - 1, outputs=OUTPUTS)


def _check_float32(*tensors: Tensor) -> None:
    for tensor in tensors:
        if tensor.dtype != torch.float32:
            raise TypeError(f"The kernels of inference are for float32, not {tensor.dtype}.")


def _empty_output(x: Tensor, bias: Tensor, side: int, padding: int) -> Tensor:
    height, width = (length + 2 * padding - side + 1 for length in x.shape[2:])
    shape = (x.shape[0], len(bias), height, width)
    return torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
