"""The fast form of a network: fewer passes over memory, and a dense conv1.

The layers are the network's own, so its weights, their names and its mode are too. It computes what
the network does, within the rounding of sums; what layers between give out is not to be seen.
"""

from collections import OrderedDict
from collections.abc import Iterable
from copy import deepcopy
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.kernels import triton_pool
from alexnet.kernels.inference import faster_layer
from alexnet.kernels.native import STORED, unavailable_reason
from alexnet.kernels.normalised_pool import Form, normalised_pool
from alexnet.kernels.space_to_depth import dense_filters, plain_space_to_depth, space_to_depth
from alexnet.layers import LocalResponseNorm


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
        self.scale = norm.alpha / norm.size if norm else 0.0
        self.k = norm.k if norm else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C, H', W')``; the type is kept.

        What fully-connected layers give, ``(N, units)``, is small and left to the plain layers.
        """
        in_pairs = x.dim() == 4 and x.shape[1] // self.form.towers % 2 == 0
        if x.device.type == "cpu" and x.dtype in STORED and in_pairs:
            return normalised_pool(x, self.form, self.scale, self.k)
        if x.dim() == 4 and triton_pool.available(x, x.shape[1], self.form):
            return self.on_gpu(x, None)
        return self.plain(x)

    def on_gpu(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Do the same where `triton_pool.available`, to activations without their bias."""
        learns = x.requires_grad or (bias is not None and bias.requires_grad)
        learns = learns and torch.is_grad_enabled()
        return triton_pool.triton_pool(x, bias, self.form, self.scale, self.k, learns)[0]


class Convolution(nn.Module):
    """A convolution; one with few channels and a stride as a dense one over squares of pixels.

    Parameters
    ----------
    conv : nn.Conv2d
        Whose weight and bias it has, under the same names.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.kernel, self.stride = _side(conv.kernel_size), _side(conv.stride)
        self.padding, self.groups, self.thin = _side(conv.padding), conv.groups, _thin(conv)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, H)`` to ``(N, M, H', H')``."""
        return self.convolved(x, self.bias)

    def convolved(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Do so with another bias, or none."""
        if x.is_cuda and bias is not None:  # which the compiler adds in the pass that follows
            out = self.convolved(x, None)
            return out + bias.to(out.dtype)[:, None, None]
        if not self.thin or x.dtype not in STORED or x.requires_grad:
            return F.conv2d(x, self.weight, bias, self.stride, self.padding, groups=self.groups)
        places = (x.shape[2] + 2 * self.padding - self.kernel) // self.stride + 1
        squares = places - 1 + -(-self.kernel // self.stride)
        device = x.device.type
        kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        lay_out = space_to_depth if device == "cpu" else plain_space_to_depth
        dense = lay_out(x, self.stride, self.padding, squares, kind)
        return F.conv2d(dense, dense_filters(self.weight, self.stride), bias)


class ConvolutionAndPass(Convolution):
    """A convolution and the layers of a `NormalisedPool` after it; on a GPU these add the bias.

    There a convolution's bias is a pass over memory of its own, and its gradient another.
    """

    def __init__(self, conv: nn.Conv2d, layers: Iterable[nn.Module]) -> None:
        super().__init__(conv)
        self.after = NormalisedPool(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, H)`` to ``(N, M, H', H')``."""
        if triton_pool.available(x, len(self.weight), self.after.form):
            return self.after.on_gpu(self.convolved(x, None), self.bias)
        return self.after(self.convolved(x, self.bias))


def _side(size: Any) -> int:
    """Return the one number of a size that PyTorch gives as one, or as two that are the same."""
    return int(size if isinstance(size, int) else size[0])


def fuse(network: nn.Sequential) -> nn.Sequential:
    """Return the fast form of a network, or the network itself where there is none.

    Its parameters are the network's, under the same names.
    """
    like = next(network.parameters(), None)
    if (like is None or like.device.type == "cpu") and unavailable_reason():
        return network
    on_gpu = like is not None and like.is_cuda
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    waiting: dict[str, nn.Module] = {}

    def settle() -> None:
        before = next(reversed(layers), "")
        has_norm = any(isinstance(layer, LocalResponseNorm) for layer in waiting.values())
        if on_gpu and has_norm and isinstance(conv := layers.get(before), nn.Conv2d):
            layers[before] = ConvolutionAndPass(conv, waiting.values())
        elif waiting:
            layers["_".join(waiting)] = NormalisedPool(waiting.values())
        waiting.clear()

    for name, layer in network.named_children():
        if waiting and _order(layer) <= max(map(_order, waiting.values())):
            settle()
        if _order(layer):
            waiting[name] = layer
        else:
            settle()
            layers[name] = layer
    settle()
    for name, layer in layers.items():
        if _thin(layer) or (on_gpu and isinstance(layer, nn.Conv2d)):
            layers[name] = Convolution(layer)
    return nn.Sequential(layers)


class Converted(nn.Module):
    """A tensor in another type."""

    def __init__(self, kind: torch.dtype) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, ...)`` to the same numbers, rounded to the type."""
        return x.to(self.kind)


def fuse_for_inference(network: nn.Sequential, kind: torch.dtype) -> nn.Sequential:
    """Return the fast form of a network that will not be trained any more, in a type.

    Parameters
    ----------
    network : nn.Sequential
        In evaluation mode; left as it is, and without effect on the copy from now on.
    kind : torch.dtype
        Of the weights, of what is computed, and of the logits; pixels may come in any.
    """
    layers = OrderedDict(fuse(prepare_for_inference(network, kind, copy=True)).named_children())
    return nn.Sequential(OrderedDict(pixels=Converted(kind), **layers)).eval()


@torch.inference_mode(False)
@torch.no_grad()
def prepare_for_inference(
    network: nn.Sequential, dtype: torch.dtype, *, copy: bool = False
) -> nn.Sequential:
    """Return the layers of a network that will not be trained any more, in a type.

    Autocast converts 62 million weights at every call, which takes longer than an image does. Here
    they are in that type for good; rounded once or at every call, they are the same. In float32 on
    a processor, layers are those of `kernels.inference` where it has them.

    Parameters
    ----------
    network : nn.Sequential
        In evaluation mode; left as it is.
    dtype : torch.dtype
        Of the weights.
    copy : bool
        Whether to copy weights that are in the type already; else they are the network's.
    """
    converted: dict[int, Any] = {}
    for parameter in network.parameters():
        values = parameter.detach().to(dtype, copy=copy)
        converted[id(parameter)] = nn.Parameter(values, requires_grad=False)
    copied = deepcopy(network, converted)
    like = next(network.parameters(), None)
    fast = dtype == torch.float32 and like is not None and like.device.type == "cpu"
    fast = fast and not unavailable_reason()
    return nn.Sequential(
        OrderedDict(
            (name, faster_layer(layer) if fast else layer)
            for name, layer in copied.named_children()
        )
    ).eval()


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
