"""Convolutions of stride 1 in float32 on a processor, with a quarter of the products or fewer.

Winograd's minimal filtering (Lavin and Gray, 2016), forward and backward, within float32's rounding
of the plain layers; ``winograd.cpp`` has the transforms, and the products are PyTorch's.
"""

import ctypes
import math
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from alexnet.kernels.native import (
    LANES,
    address,
    call,
    channels_last,
    compile_kernel,
    find_compile_error,
)

KERNEL = "winograd.cpp"
# Side of a filter: sides that a tile of the result may have, the first where the result's size is
# not known. The largest tile of 8 inputs is the best for conv2's 27 pixels; three of 5 cover the 13
# of conv3 to conv5, as four of 4 would, with 23 % fewer products; one of 6 a small network's 6.
OUTPUTS = {3: (5, 6), 5: (4,)}
POINTS = (0, 1, -1, 2, -2, 0.5, -0.5)  # at which polynomials are evaluated, besides infinity
TILE_BYTES = 20 << 20  # of tiles that are laid out at once: more would not stay in the cache


class WinogradArguments(ctypes.Structure):
    """`WinogradArguments` of ``winograd.cpp``, field by field."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in (
            *("images", "height", "width", "channels"),
            *("groups", "padding", "down", "across", "threads"),
        )
    )


def choose_outputs(side: int, height: int, width: int) -> int:
    """Return the side of the tiles that cover a result with the fewest products.

    Examples
    --------
    >>> [choose_outputs(3, size, size) for size in (6, 13)]
    [6, 5]
    """

    def products(outputs: int) -> int:
        return (outputs + side - 1) ** 2 * -(-height // outputs) * -(-width // outputs)

    return min(OUTPUTS[side], key=products)


@cache
def winograd_matrices(side: int, outputs: int) -> tuple[NDArray[np.float64], ...]:
    r"""Return the matrices of a convolution with filters of a side, `outputs` at a time.

    With them a row of :math:`m` outputs is :math:`A [(G g) \odot (B d)]`, of a filter :math:`g` and
    of :math:`t = m + side - 1` inputs :math:`d` (Toom and Cook: polynomials of a product are
    determined by their values at as many points as they have coefficients).

    Returns
    -------
    A, G, B : ndarray
        ``(m, t)``, ``(t, side)`` and ``(t, t)``; the rows of B have 1 as their largest entry.
    """
    tile = outputs + side - 1

    def powers(count: int) -> NDArray[np.float64]:
        finite = np.array(POINTS[: tile - 1])[:, None] ** np.arange(count)
        return np.vstack([finite, np.eye(count)[-1]])

    b = np.linalg.inv(powers(tile)).T
    scale = np.abs(b).max(1, keepdims=True)
    return powers(outputs).T, powers(side) * scale, b / scale


@torch.library.custom_op("alexnet::winograd", mutates_args=(), device_types="cpu")
def winograd(
    x: Tensor, filters: Tensor, bias: Tensor, side: int, padding: int, groups: int
) -> Tensor:
    """Convolve ``(N, C, H, W)`` float32 with what `transform_filters` returned; no gradient.

    Raises
    ------
    TypeError
        For another type than float32.
    """
    _check_float32(x, filters, bias)
    x, out = channels_last(x), _empty_output(x, bias, side, padding)
    outputs = math.isqrt(len(filters) // groups) - side + 1
    library, (a, _, b) = _library(side, outputs), _float32_matrices(side, outputs)
    together = _images_together(side, outputs, max(x.shape[1], out.shape[1]), out)
    for images, results in zip(x.split(together), out.split(together), strict=True):
        tiles, shape = _spread(images, b, side, padding, groups, out)
        with torch.autocast("cpu", enabled=False):  # else they could be of bfloat16
            products = tiles @ filters.mT
        shape.height, shape.width, shape.channels = *out.shape[2:], len(bias)
        library.gather(
            address(products), address(a), address(bias), address(results), ctypes.byref(shape)
        )
    return out


@torch.library.custom_op("alexnet::winograd_conv2d", mutates_args=(), device_types="cpu")
def winograd_conv2d(x: Tensor, weight: Tensor, bias: Tensor, padding: int, groups: int) -> Tensor:
    """Convolve ``(N, C, H, W)`` float32 with filters ``(M, C / groups, side, side)``.

    Raises
    ------
    TypeError
        For another type than float32.
    """
    side = weight.shape[2]
    outputs = choose_outputs(side, *_output_size(x, side, padding))
    filters = transform_filters(weight, groups, outputs)
    return winograd._init_fn(x, filters, bias, side, padding, groups)


@torch.library.custom_op("alexnet::winograd_filter_gradient", mutates_args=(), device_types="cpu")
def winograd_filter_gradient(
    x: Tensor, gradient: Tensor, side: int, padding: int, groups: int
) -> Tensor:
    """Return the gradient of `winograd_conv2d` with respect to its filters.

    The sum over tiles stays in the form of the products, and is brought back once.
    """
    _check_float32(x, gradient)
    x, gradient = channels_last(x), channels_last(gradient)
    outputs = choose_outputs(side, *gradient.shape[2:])
    library, (a, g, b) = _library(side, outputs), _float32_matrices(side, outputs)
    channels, filters = x.shape[1] // groups, gradient.shape[1] // groups
    sums = x.new_zeros(len(g) ** 2 * groups, filters, channels)
    across_tiles = a.T.contiguous()
    together = _images_together(side, outputs, max(x.shape[1], gradient.shape[1]), gradient)
    for images, results in zip(x.split(together), gradient.split(together), strict=True):
        tiles, shape = _spread(images, b, side, padding, groups, gradient)
        shape.height, shape.width, shape.channels = *gradient.shape[2:], gradient.shape[1]
        shape.padding = 0
        others = tiles.new_empty(*tiles.shape[:2], filters)
        library.spread_gradient(
            address(results), address(across_tiles), address(others), ctypes.byref(shape)
        )
        with torch.autocast("cpu", enabled=False):
            sums.baddbmm_(others.mT, tiles)
    with torch.autocast("cpu", enabled=False):
        found = torch.kron(g, g).T.contiguous() @ sums.view(len(g) ** 2, -1)
    return found.view(side, side, groups * filters, channels).permute(2, 3, 0, 1).contiguous()


@winograd.register_fake
def _(x: Tensor, filters: Tensor, bias: Tensor, side: int, padding: int, groups: int) -> Tensor:
    return _empty_output(x, bias, side, padding)


@winograd_conv2d.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, padding: int, groups: int) -> Tensor:
    return _empty_output(x, bias, weight.shape[2], padding)


@winograd_filter_gradient.register_fake
def _(x: Tensor, gradient: Tensor, side: int, padding: int, groups: int) -> Tensor:
    return x.new_empty(gradient.shape[1], x.shape[1] // groups, side, side)


def _save_input(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, *ctx.settings = inputs
    ctx.save_for_backward(x, weight)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    (x, weight), (padding, groups) = ctx.saved_tensors, ctx.settings
    side = weight.shape[2]
    for_x = for_weight = for_bias = None
    if ctx.needs_input_grad[0]:  # a convolution again, with the filters turned and transposed
        turned = weight.flip(2, 3).unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
        no_bias = weight.new_zeros(len(turned))
        for_x = winograd_conv2d(gradient, turned, no_bias, side - 1 - padding, groups)
    if ctx.needs_input_grad[1]:
        for_weight = winograd_filter_gradient(x, gradient, side, padding, groups)
    if ctx.needs_input_grad[2]:
        for_bias = gradient.sum((0, 2, 3))
    return for_x, for_weight, for_bias, None, None


winograd_conv2d.register_autograd(_differentiate, setup_context=_save_input)


def transform_filters(weight: Tensor, groups: int, outputs: int | None = None) -> Tensor:
    """Return filters ``(M, C / groups, side, side)`` at every point of a tile of so many outputs.

    The result is ``(tile**2 * groups, M / groups, C / groups)``.
    """
    _check_float32(weight)
    side = weight.shape[2]
    _, g, _ = _float32_matrices(side, outputs or OUTPUTS[side][0])
    with torch.autocast("cpu", enabled=False):
        made = torch.kron(g, g) @ weight.detach().permute(2, 3, 0, 1).reshape(side**2, -1)
    return made.view(-1, len(weight) // groups, weight.shape[1])


class WinogradConv2d(nn.Conv2d):
    """A convolution of stride 1 with the weight and the bias of another.

    Parameters
    ----------
    conv : nn.Conv2d
        With filters of 3x3 or 5x5, its channels a multiple of `LANES`.
    frozen : bool
        Whether the weight will not change any more: it is transformed once.
    """

    def __init__(self, conv: nn.Conv2d, *, frozen: bool) -> None:
        side, padding = conv.kernel_size[0], int(conv.padding[0])
        super().__init__(
            conv.in_channels, conv.out_channels, side, padding=padding, groups=conv.groups,
            device="meta",
        )  # fmt: skip
        self.weight, self.bias = conv.weight, conv.bias
        self.filters = transform_filters(conv.weight, conv.groups) if frozen else None

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, M, H', W')``, channels-last.

        Another type than float32 is left to the plain layer, and a single image, whose few tiles
        take as long as their transformed filters to be read.
        """
        assert self.bias is not None
        if input.dtype != torch.float32 or input.shape[0] == 1:
            return super().forward(input)
        side, padding = self.kernel_size[0], int(self.padding[0])
        if self.filters is None:
            return call(winograd_conv2d, input, self.weight, self.bias, padding, self.groups)
        return call(winograd, input, self.filters, self.bias, side, padding, self.groups)


def has_winograd_form(layer: nn.Module) -> bool:
    """Whether a layer is one that `WinogradConv2d` can be, and its kernel compiles."""
    return (
        isinstance(layer, nn.Conv2d)
        and not isinstance(layer, WinogradConv2d)
        and layer.kernel_size in ((3, 3), (5, 5))
        and layer.stride == layer.dilation == (1, 1)
        and layer.padding in ((0, 0), (1, 1), (2, 2))
        and layer.padding_mode == "zeros"
        and layer.bias is not None
        and layer.in_channels // layer.groups % LANES == 0
        and layer.out_channels // layer.groups % LANES == 0
        and not find_compile_error(
            KERNEL, **_constants(layer.kernel_size[0], OUTPUTS[layer.kernel_size[0]][0])
        )
    )


def _constants(side: int, outputs: int) -> dict[str, str | int]:
    return {"tile": outputs + side - 1, "outputs": outputs}


def _library(side: int, outputs: int) -> ctypes.CDLL:
    return compile_kernel(KERNEL, **_constants(side, outputs))


def _float32_matrices(side: int, outputs: int) -> tuple[Tensor, Tensor, Tensor]:
    a, g, b = (torch.from_numpy(matrix).float() for matrix in winograd_matrices(side, outputs))
    return a.contiguous(), g.contiguous(), b.contiguous()


def _count_tiles(outputs: int, out: Tensor) -> tuple[int, int]:
    """Return how many tiles cover an output's height, and its width."""
    down, across = (-(-length // outputs) for length in out.shape[2:])
    return down, across


def _images_together(side: int, outputs: int, channels: int, out: Tensor) -> int:
    """Return of how many images the tiles are laid out at once."""
    down, across = _count_tiles(outputs, out)
    numbers = (outputs + side - 1) ** 2 * down * across * channels
    return max(1, TILE_BYTES // (4 * numbers))


def _spread(
    images: Tensor, b: Tensor, side: int, padding: int, groups: int, out: Tensor
) -> tuple[Tensor, WinogradArguments]:
    """Return the transformed tiles of images, and the sizes that made them."""
    count, channels, *size = images.shape
    outputs = len(b) - side + 1
    down, across = _count_tiles(outputs, out)
    threads = torch.get_num_threads()
    shape = WinogradArguments(count, *size, channels, groups, padding, down, across, threads)
    tiles = images.new_empty(len(b) ** 2 * groups, count * down * across, channels // groups)
    _library(side, outputs).spread(address(images), address(b), address(tiles), ctypes.byref(shape))
    return tiles, shape


def _check_float32(*tensors: Tensor) -> None:
    for tensor in tensors:
        if tensor.dtype != torch.float32:
            raise TypeError(f"The Winograd kernels are for float32, not {tensor.dtype}.")


def _empty_output(x: Tensor, bias: Tensor, side: int, padding: int) -> Tensor:
    shape = (x.shape[0], len(bias), *_output_size(x, side, padding))
    return torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)


def _output_size(x: Tensor, side: int, padding: int) -> tuple[int, int]:
    height, width = (length + 2 * padding - side + 1 for length in x.shape[2:])
    return height, width
