"""Layers in float32 on a processor, within its rounding of the plain ones.

Convolutions of stride 1 take a quarter of the products or fewer, by Winograd's minimal filtering
(Lavin and Gray, 2016), forward and backward: ``winograd.cpp`` has the transforms, and the products
are PyTorch's. What takes time in fully-connected layers over a few images is reading the weights;
``few_rows.cpp`` reads them once for all the images.
"""

import ctypes
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
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

WINOGRAD, FEW_ROWS = "winograd.cpp", "few_rows.cpp"
# Side of a filter: side of a tile of the result. The largest tile of 8 inputs is the best for
# conv2's 27 pixels; three of 5 outputs cover the 13 of conv3 to conv5, as four of 4 would, with
# 23 % fewer products.
OUTPUTS = {3: 5, 5: 4}
POINTS = (0, 1, -1, 2, -2, 0.5, -0.5)  # at which polynomials are evaluated, besides infinity
TILE_BYTES = 20 << 20  # of tiles that are laid out at once: more would not stay in the cache
MIN_TILES = 16  # of all images; fewer take as long as their transformed filters to be read
MIN_CHANNELS = 48  # of a group; with fewer, transforms take longer than the products that they save
MIN_GAIN = 2.0  # products of the plain layer for each: few where tiles reach far over a small map
UNITS = 4  # that are computed together
FEW_IMAGES = 64  # at most: of more, `FewRowsLinear` is slower than the plain layer


class WinogradArguments(ctypes.Structure):
    """`WinogradArguments` of ``winograd.cpp``, field by field."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in (
            *("images", "height", "width", "channels"),
            *("groups", "padding", "down", "across", "threads"),
        )
    )


@cache
def winograd_matrices(side: int) -> tuple[NDArray[np.float64], ...]:
    r"""Return the matrices of a convolution with filters of a side: A, G and B.

    With them a row of :math:`m` outputs is :math:`A [(G g) \odot (B d)]`, of a filter :math:`g` and
    of :math:`t = m + side - 1` inputs :math:`d` (Toom and Cook: polynomials of a product are
    determined by their values at as many points as they have coefficients). They are ``(m, t)``,
    ``(t, side)`` and ``(t, t)``; the rows of B have 1 as their largest entry.
    """
    tile = OUTPUTS[side] + side - 1

    def powers(count: int) -> NDArray[np.float64]:
        finite = np.array(POINTS[: tile - 1])[:, None] ** np.arange(count)
        return np.vstack([finite, np.eye(count)[-1]])

    b = np.linalg.inv(powers(tile)).T
    scale = np.abs(b).max(1, keepdims=True)
    return powers(OUTPUTS[side]).T, powers(side) * scale, b / scale


@torch.library.custom_op("alexnet::winograd", mutates_args=(), device_types="cpu")
def winograd(
    x: Tensor, filters: Tensor, bias: Tensor, side: int, padding: int, groups: int
) -> Tensor:
    """Convolve ``(N, C, H, W)`` float32 with what `transform_filters` returned; no gradient."""
    _check_float32(x, filters, bias)
    x, out = channels_last(x), _empty_output(x, bias, side, padding)
    library, (a, _, b) = _library(side), _float32_matrices(side)
    together = _images_together(side, padding, x, out.shape[1])
    for images, results in zip(x.split(together), out.split(together), strict=True):
        tiles, shape = _spread(images, b, side, padding, groups)
        with torch.autocast("cpu", enabled=False):  # else they could be of bfloat16
            products = tiles @ filters.mT
        shape.height, shape.width, shape.channels = *out.shape[2:], len(bias)
        library.gather(
            address(products), address(a), address(bias), address(results), ctypes.byref(shape)
        )
    return out


@torch.library.custom_op("alexnet::winograd_conv2d", mutates_args=(), device_types="cpu")
def winograd_conv2d(x: Tensor, weight: Tensor, bias: Tensor, padding: int, groups: int) -> Tensor:
    """Convolve ``(N, C, H, W)`` float32 with filters ``(M, C / groups, side, side)``."""
    return winograd._init_fn(
        x, transform_filters(weight, groups), bias, weight.shape[2], padding, groups
    )


@torch.library.custom_op("alexnet::winograd_filter_gradient", mutates_args=(), device_types="cpu")
def winograd_filter_gradient(
    x: Tensor, gradient: Tensor, side: int, padding: int, groups: int
) -> Tensor:
    """Return the gradient of `winograd_conv2d` with respect to its filters.

    The sum over tiles stays in the form of the products, and is brought back once.
    """
    _check_float32(x, gradient)
    x, gradient = channels_last(x), channels_last(gradient)
    library, (a, g, b) = _library(side), _float32_matrices(side)
    inputs, outputs = x.shape[1] // groups, gradient.shape[1] // groups
    sums = x.new_zeros(len(g) ** 2 * groups, outputs, inputs)
    across_tiles = a.T.contiguous()
    together = _images_together(side, padding, x, gradient.shape[1])
    for images, results in zip(x.split(together), gradient.split(together), strict=True):
        tiles, shape = _spread(images, b, side, padding, groups)
        shape.height, shape.width, shape.channels = *gradient.shape[2:], gradient.shape[1]
        shape.padding = 0
        others = tiles.new_empty(*tiles.shape[:2], outputs)
        library.spread_gradient(
            address(results), address(across_tiles), address(others), ctypes.byref(shape)
        )
        with torch.autocast("cpu", enabled=False):
            sums.baddbmm_(others.mT, tiles)
    with torch.autocast("cpu", enabled=False):
        found = torch.kron(g, g).T.contiguous() @ sums.view(len(g) ** 2, -1)
    return found.view(side, side, groups * outputs, inputs).permute(2, 3, 0, 1).contiguous()


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
        for_x = call(winograd_conv2d, gradient, turned, no_bias, side - 1 - padding, groups)
    if ctx.needs_input_grad[1]:
        for_weight = call(winograd_filter_gradient, x, gradient, side, padding, groups)
    if ctx.needs_input_grad[2]:
        for_bias = gradient.sum((0, 2, 3))
    return for_x, for_weight, for_bias, None, None


winograd_conv2d.register_autograd(_differentiate, setup_context=_save_input)


def transform_filters(weight: Tensor, groups: int) -> Tensor:
    """Return filters ``(M, C / groups, side, side)`` at every point of a tile.

    The result is ``(tile**2 * groups, M / groups, C / groups)``.
    """
    _check_float32(weight)
    side, (_, g, _) = weight.shape[2], _float32_matrices(weight.shape[2])
    with torch.autocast("cpu", enabled=False):
        made = torch.kron(g, g) @ weight.detach().permute(2, 3, 0, 1).reshape(side**2, -1)
    return made.view(-1, len(weight) // groups, weight.shape[1])


class WinogradConv2d(nn.Conv2d):
    """A convolution of stride 1 with the weight and the bias of another.

    That has filters of 3x3 or 5x5, and channels that are a multiple of `LANES`, no few. Where it is
    `frozen`, its weight will not change any more, and is transformed once.
    """

    def __init__(self, conv: nn.Conv2d, *, frozen: bool) -> None:
        side, padding = conv.kernel_size[0], int(conv.padding[0])
        super().__init__(
            conv.in_channels, conv.out_channels, side, padding=padding, groups=conv.groups,
            device="meta",
        )  # fmt: skip
        self.weight, self.bias = conv.weight, conv.bias
        self.filters = transform_filters(conv.weight, conv.groups) if frozen else None
        self.packed: dict[torch.Size, Tensor] = {}  # by what they are applied to

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, M, H', W')``, channels-last.

        Another type than float32 is left to the plain layer, fewer tiles than `MIN_TILES`, and maps
        of which they save less than `MIN_GAIN`.
        """
        assert self.bias is not None
        side, padding = self.kernel_size[0], int(self.padding[0])
        down, across = _count_tiles(side, padding, input)
        height, width = _output_size(side, padding, input)
        tile = OUTPUTS[side] + side - 1
        gain = side**2 * height * width / (tile**2 * down * across)
        few = input.shape[0] * down * across < MIN_TILES or gain < MIN_GAIN
        if few or input.dtype != torch.float32:
            return self._convolve_plainly(channels_last(input))
        if self.filters is None:
            return call(winograd_conv2d, input, self.weight, self.bias, padding, self.groups)
        return call(winograd, input, self.filters, self.bias, side, padding, self.groups)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "packed": {}}  # what is in oneDNN's order cannot be copied

    def _convolve_plainly(self, input: Tensor) -> Tensor:
        """Convolve by oneDNN, with filters in its own order, if they stay as they are.

        PyTorch would bring them into that order at every call: a third of the time of one image. It
        has these two operators for the compiler, which packs the constants of a frozen graph.
        """
        learns = torch.is_grad_enabled() and input.requires_grad
        frozen = self.filters is not None and not learns and input.dtype == torch.float32
        # Asked last: the compiler cannot trace this call, and in bfloat16, which it compiles, it
        # never comes to it.
        if not (frozen and torch.backends.mkldnn.is_available()):
            return super().forward(input)
        how = list(self.padding), list(self.stride), list(self.dilation), self.groups
        if input.shape not in self.packed:
            self.packed[input.shape] = torch.ops.aten.mkldnn_reorder_conv2d_weight(
                self.weight.to_mkldnn(), *how, list(input.shape)
            )
        return torch.ops.mkldnn._convolution_pointwise(
            input, self.packed[input.shape], self.bias, *how, "none", [], ""
        )


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
        and all(
            channels // layer.groups % LANES == 0 and channels // layer.groups >= MIN_CHANNELS
            for channels in (layer.in_channels, layer.out_channels)
        )
        and not find_compile_error(WINOGRAD, **_constants(layer.kernel_size[0]))
    )


def _constants(side: int) -> dict[str, str | int]:
    return {"tile": OUTPUTS[side] + side - 1, "outputs": OUTPUTS[side]}


def _library(side: int) -> ctypes.CDLL:
    return compile_kernel(WINOGRAD, **_constants(side))


def _float32_matrices(side: int) -> tuple[Tensor, Tensor, Tensor]:
    a, g, b = (torch.from_numpy(matrix).float() for matrix in winograd_matrices(side))
    return a.contiguous(), g.contiguous(), b.contiguous()


def _output_size(side: int, padding: int, images: Tensor) -> tuple[int, int]:
    """Return the height and the width of what comes of images."""
    height, width = (length + 2 * padding - side + 1 for length in images.shape[2:])
    return height, width


def _count_tiles(side: int, padding: int, images: Tensor) -> tuple[int, int]:
    """Return how many tiles cover the height of what comes of images, and its width."""
    height, width = _output_size(side, padding, images)
    return -(-height // OUTPUTS[side]), -(-width // OUTPUTS[side])


def _images_together(side: int, padding: int, images: Tensor, outputs: int) -> int:
    """Return of how many images the tiles are laid out at once."""
    down, across = _count_tiles(side, padding, images)
    channels = max(images.shape[1], outputs)
    numbers = (OUTPUTS[side] + side - 1) ** 2 * down * across * channels
    return max(1, TILE_BYTES // (4 * numbers))


def _spread(
    images: Tensor, b: Tensor, side: int, padding: int, groups: int
) -> tuple[Tensor, WinogradArguments]:
    """Return the transformed tiles of images, and the sizes that made them."""
    count, channels, *size = images.shape
    down, across = _count_tiles(side, padding, images)
    threads = torch.get_num_threads()
    shape = WinogradArguments(count, *size, channels, groups, padding, down, across, threads)
    tiles = images.new_empty(len(b) ** 2 * groups, count * down * across, channels // groups)
    _library(side).spread(address(images), address(b), address(tiles), ctypes.byref(shape))
    return tiles, shape


def _check_float32(*tensors: Tensor) -> None:
    for tensor in tensors:
        if tensor.dtype != torch.float32:
            raise TypeError(f"These kernels are for float32, not {tensor.dtype}.")


def _empty_output(x: Tensor, bias: Tensor, side: int, padding: int) -> Tensor:
    shape = (x.shape[0], len(bias), *_output_size(side, padding, x))
    return torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)


@torch.library.custom_op("alexnet::few_rows_linear", mutates_args=(), device_types="cpu")
def few_rows_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Apply a fully-connected layer to ``(N, inputs)`` float32, else a `TypeError`; no gradient."""
    _check_float32(x, weight, bias)
    x, out = x.contiguous(), bias.repeat(len(x), 1)
    sizes = (*x.shape, len(weight), torch.get_num_threads())
    library = compile_kernel(FEW_ROWS)
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
        if fits and 0 < input.shape[0] <= FEW_IMAGES:
            return call(few_rows_linear, input, self.weight, self.bias)
        return F.linear(input, self.weight, self.bias)


def has_few_rows_form(layer: nn.Module) -> bool:
    """Whether a layer is one that `FewRowsLinear` can be, and its kernel compiles."""
    return (
        isinstance(layer, nn.Linear)
        and layer.bias is not None
        and layer.in_features % LANES == 0
        and layer.out_features % UNITS == 0
        and not find_compile_error(FEW_ROWS)
    )
