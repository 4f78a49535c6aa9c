"""The fast form of a network: fewer passes over memory, and on a processor a dense conv1.

The layers are the network's own, so its weights, their names and its mode are too. It computes what
the network does, within the rounding of sums; what layers between give out is not to be seen.
"""

import copy
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.kernels import triton_lrn
from alexnet.kernels.native import STORED, why_not
from alexnet.kernels.normalised_pool import Form, normalised_pool
from alexnet.kernels.space_to_depth import dense_filters, space_to_depth
from alexnet.layers import LocalResponseNorm
from alexnet.spec import LRN


class NormalisedPool(nn.Module):
    """Layers that follow each other: ReLU, local response normalisation, max pooling, or some.

    Parameters
    ----------
    layers : iterable of nn.Module
        In this order, one of each at most.
    """

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.plain = nn.Sequential(*layers)
        norm = next((x.norm for x in self.plain if isinstance(x, LocalResponseNorm)), None)
        pool = next((x for x in self.plain if isinstance(x, nn.MaxPool2d)), None)
        self.form = Form(
            towers=next((x.groups for x in self.plain if isinstance(x, LocalResponseNorm)), 1),
            rectify=int(isinstance(self.plain[0], nn.ReLU)),
            neighbours=norm.size if norm else 0,
            window=_side(pool.kernel_size) if pool else 1,
            stride=_side(pool.stride) if pool else 1,
            ceil=int(pool.ceil_mode) if pool else 0,
        )
        self.norm, self.pool = norm, pool
        self.scale = norm.alpha_over_n / norm.size if norm else 0.0
        self.k = norm.k if norm else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C, H', W')``; the type is kept.

        What fully-connected layers give, ``(N, units)``, is small and left to the plain layers.
        """
        in_pairs = x.dim() == 4 and x.shape[1] // self.form.towers % 2 == 0
        if x.device.type == "cpu" and x.dtype in STORED and in_pairs:
            return normalised_pool(x, self.form, self.scale, self.k)
        if self.norm and triton_lrn.available(x):  # never run on a GPU (docs/performance.md)
            x = self._on_gpu(x, self.norm)
            return self.pool(x) if self.pool else x
        return self.plain(x)

    def _on_gpu(self, x: Tensor, norm: LRN) -> Tensor:
        constants = (norm.size, norm.alpha_over_n, norm.beta, norm.k)
        return triton_lrn.triton_lrn(x, *constants, self.form.towers, bool(self.form.rectify))


class DenseConv(nn.Module):
    """A convolution with a stride, computed as a dense one over squares of pixels.

    Parameters
    ----------
    conv : nn.Conv2d
        Whose weight and bias it has, under the same names.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.kernel, self.stride = _side(conv.kernel_size), _side(conv.stride)
        self.padding = _side(conv.padding)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, H)`` to ``(N, M, H', H')``."""
        if x.device.type != "cpu" or x.dtype not in STORED or x.requires_grad:
            return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)
        places = (x.shape[2] + 2 * self.padding - self.kernel) // self.stride + 1
        squares = places - 1 + -(-self.kernel // self.stride)
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        dense = space_to_depth(x, self.stride, self.padding, squares, kind)
        return F.conv2d(dense, dense_filters(self.weight, self.stride), self.bias)


def _side(size: Any) -> int:
    """Return the one number of a size that PyTorch gives as one, or as two that are the same."""
    return int(size if isinstance(size, int) else size[0])


def fused(network: nn.Sequential) -> nn.Sequential:
    """Return the fast form of a network, or the network itself where there is none.

    Its parameters are the network's, under the same names.
    """
    like = next(network.parameters(), None)
    if (like is None or like.device.type == "cpu") and why_not():
        return network
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    waiting: dict[str, nn.Module] = {}

    def settle() -> None:
        if waiting:
            layers["_".join(waiting)] = NormalisedPool(waiting.values())
        waiting.clear()

    for name, layer in network.named_children():
        if waiting and _order(layer) <= max(map(_order, waiting.values())):
            settle()
        if _order(layer):
            waiting[name] = layer
        else:
            settle()
            layers[name] = DenseConv(layer) if _thin(layer) else layer
    settle()
    return nn.Sequential(layers)


class Converted(nn.Module):
    """A tensor in another type."""

    def __init__(self, kind: torch.dtype) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, ...)`` to the same numbers, rounded to the type."""
        return x.to(self.kind)


def for_inference(network: nn.Sequential, kind: torch.dtype) -> nn.Sequential:
    """Return the fast form of a network that will not be trained any more, in a type.

    Autocast converts 62 million weights at every call, which takes longer than an image does. This
    is a copy whose weights are in that type for good, as is what it computes; rounded once or at
    every call, they are the same.

    Parameters
    ----------
    network : nn.Sequential
        In evaluation mode; left as it is, and without effect on the copy from now on.
    kind : torch.dtype
        Of the weights, of what is computed, and of the logits; pixels may come in any.
    """
    copied = copy.deepcopy(network).requires_grad_(False).to(kind)
    layers = OrderedDict(fused(copied).named_children())
    return nn.Sequential(OrderedDict(pixels=Converted(kind), **layers)).eval()


THIN = 16  # channels that fill a vector register in bfloat16, about


def _thin(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a layer is a convolution whose stride leaves too few channels to compute with."""
    return (
        isinstance(layer, nn.Conv2d)
        and layer.stride[0] > 1
        and layer.groups == 1
        and layer.in_channels < THIN
    )


def _order(layer: nn.Module) -> int:
    """Return the place of a layer within a pass, or 0 where it is none of its."""
    if isinstance(layer, nn.ReLU):
        return 1
    if isinstance(layer, LocalResponseNorm):
        norm = layer.norm
        return 2 if norm.beta == 0.75 and norm.size % 2 else 0
    if isinstance(layer, nn.MaxPool2d):
        return 3 if layer.padding == 0 and layer.dilation == 1 else 0
    return 0
