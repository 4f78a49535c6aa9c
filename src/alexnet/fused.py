"""The fast form of a network: fewer passes over memory, and a dense conv1.

The layers are the network's own, so its weights, their names and its mode are too. It computes what
the network does, within the rounding of sums; outputs of layers in between cannot be read from it.
"""

from collections import OrderedDict
from collections.abc import Iterable
from copy import deepcopy
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.device import Device
from alexnet.kernels import lrn_pool
from alexnet.kernels.float32 import (
    FewRowsLinear,
    WinogradConv2d,
    has_few_rows_form,
    has_winograd_form,
)
from alexnet.kernels.lrn_pool import KernelConfig
from alexnet.kernels.native import CPP_DTYPES, call, unavailable_reason
from alexnet.kernels.pixels import convert_to_squares, dense_filters
from alexnet.layers import LocalResponseNorm

FEW_CHANNELS = 16  # fewer do not fill a vector register in bfloat16, about


def fuse(network: nn.Sequential) -> nn.Sequential:
    """Return the fast form of a network, or the network itself where there is none.

    Its parameters are the network's, under the same names.
    """
    first = next(network.parameters(), None)
    device = Device.named("cpu") if first is None else Device.of(first)
    if not device.has_fused_kernels or (device.is_cpu and unavailable_reason()):
        return network
    on_gpu = not device.is_cpu
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    run: dict[str, nn.Module] = {}  # of layers that one pass computes

    def end_run() -> None:
        before = next(reversed(layers), "")
        has_norm = any(isinstance(layer, LocalResponseNorm) for layer in run.values())
        if on_gpu and has_norm and isinstance(conv := layers.get(before), nn.Conv2d):
            layers[before] = ConvReluLrnPool(conv, run.values())
        elif run:
            layers["_".join(run)] = ReluLrnPool(run.values())
        run.clear()

    for name, layer in network.named_children():
        if run and _place_in_pass(layer) <= max(map(_place_in_pass, run.values())):
            end_run()
        if _place_in_pass(layer):
            run[name] = layer
        else:
            end_run()
            layers[name] = layer
    end_run()
    for name, layer in layers.items():
        if _has_few_channels(layer) or (on_gpu and isinstance(layer, nn.Conv2d)):
            layers[name] = FastConv2d(layer, bias_apart=on_gpu)
        elif isinstance(layer, nn.Conv2d) and has_winograd_form(layer):
            layers[name] = WinogradConv2d(layer, frozen=False)
    return nn.Sequential(layers)


def fuse_for_inference(network: nn.Sequential, dtype: torch.dtype) -> nn.Sequential:
    """Return the fast form of a network that will not be trained any more, in a type.

    `dtype` is that of the weights, of what is computed, and of the logits; pixels may come in any.
    The network, in evaluation mode, is left as it is, and without effect on the copy from now on.
    """
    layers = OrderedDict(fuse(prepare_for_inference(network, dtype, copy=True)).named_children())
    return nn.Sequential(OrderedDict(pixels=Cast(dtype), **layers)).eval()


@torch.inference_mode(False)
@torch.no_grad()
def prepare_for_inference(
    network: nn.Sequential, dtype: torch.dtype, *, copy: bool = False
) -> nn.Sequential:
    """Return the layers of a network that will not be trained any more, in a type.

    Autocast converts 62 million weights at every call, which takes longer than an image does. Here
    they are in that type for good; rounded once or at every call, they are the same. In float32 on
    a processor, convolutions are `WinogradConv2d`, and fully-connected layers `FewRowsLinear`. The
    network, in evaluation mode, is left as it is; without `copy`, weights that are in the type
    already are its own.
    """
    converted: dict[int, Any] = {}
    for parameter in network.parameters():
        values = parameter.detach().to(dtype, copy=copy)
        converted[id(parameter)] = nn.Parameter(values, requires_grad=False)
    copied = deepcopy(network, converted)
    first = next(network.parameters(), None)
    on_cpu = first is not None and Device.of(first).is_cpu
    fast = dtype == torch.float32 and on_cpu and not unavailable_reason()
    return nn.Sequential(
        OrderedDict(
            (name, _faster_layer(layer) if fast else layer)
            for name, layer in copied.named_children()
        )
    ).eval()


def _faster_layer(layer: nn.Module) -> nn.Module:
    """Return a frozen layer in its form for float32 on a processor, or itself if it has none."""
    if isinstance(layer, nn.Conv2d) and has_winograd_form(layer):
        return WinogradConv2d(layer, frozen=True)
    if isinstance(layer, nn.Linear) and has_few_rows_form(layer):
        return FewRowsLinear(layer)
    return layer


class Cast(nn.Module):
    """A tensor in another type: ``(N, ...)`` to the same numbers, rounded."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """Convert."""
        return x.to(self.dtype)


class ReluLrnPool(nn.Module):
    """Layers that follow each other: ReLU, local response normalisation, max pooling, or some.

    They are in this order, one of each at most.
    """

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.plain = nn.Sequential(*layers)
        lrn = next((x for x in self.plain if isinstance(x, LocalResponseNorm)), None)
        pool = next((x for x in self.plain if isinstance(x, nn.MaxPool2d)), None)
        self.config = KernelConfig(
            towers=lrn.groups if lrn else 1,
            relu=int(isinstance(self.plain[0], nn.ReLU)),
            norm_size=lrn.norm.size if lrn else 0,
            window=_one_side(pool.kernel_size) if pool else 1,
            stride=_one_side(pool.stride) if pool else 1,
            ceil_mode=int(pool.ceil_mode) if pool else 0,
        )
        self.scale = lrn.norm.alpha / lrn.norm.size if lrn else 0.0
        self.k = lrn.norm.k if lrn else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C, H', W')``; the type is kept.

        What fully-connected layers give, ``(N, units)``, is small and left to the plain layers.
        """
        if x.dim() == 4 and lrn_pool.is_cpp_available(x, self.config):
            return call(lrn_pool.lrn_pool, x, self.config, self.scale, self.k)
        if x.dim() == 4 and lrn_pool.is_triton_available(x, x.shape[1], self.config):
            return self.run_triton(x, None)
        return self.plain(x)

    def run_triton(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Do the same where Triton's kernel is available, to activations without their bias."""
        learns = x.requires_grad or (bias is not None and bias.requires_grad)
        learns = learns and torch.is_grad_enabled()
        return lrn_pool.triton_lrn_pool(x, bias, self.config, self.scale, self.k, learns)[0]


class FastConv2d(nn.Module):
    """A convolution; one with few channels and a stride as a dense one over squares of pixels.

    It has the weight and the bias of another, under the same names. With `bias_apart` the bias is
    added after the convolution, in a pass that a compiler joins to the next one.
    """

    def __init__(self, conv: nn.Conv2d, *, bias_apart: bool) -> None:
        super().__init__()
        self.weight, self.bias, self.bias_apart = conv.weight, conv.bias, bias_apart
        self.kernel_size, self.stride = _one_side(conv.kernel_size), _one_side(conv.stride)
        self.padding, self.groups = _one_side(conv.padding), conv.groups
        self.few_channels = _has_few_channels(conv)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, H)`` to ``(N, M, H', H')``."""
        if not self.bias_apart or self.bias is None:
            return self.convolve(x, self.bias)
        out = self.convolve(x, None)
        return out + self.bias.to(out.dtype)[:, None, None]

    def convolve(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Do so with another bias, or none."""
        if not self.few_channels or x.dtype not in CPP_DTYPES or x.requires_grad:
            return F.conv2d(x, self.weight, bias, self.stride, self.padding, groups=self.groups)
        out_size = (x.shape[2] + 2 * self.padding - self.kernel_size) // self.stride + 1
        squares = out_size - 1 + -(-self.kernel_size // self.stride)
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        dense = convert_to_squares(x, self.stride, self.padding, squares, dtype)
        return F.conv2d(dense, dense_filters(self.weight, self.stride), bias)


class ConvReluLrnPool(FastConv2d):
    """A convolution and the layers of a `ReluLrnPool` after it, which adds the bias: on a GPU.

    There a convolution's bias is a pass over memory of its own, and its gradient another.
    """

    def __init__(self, conv: nn.Conv2d, layers: Iterable[nn.Module]) -> None:
        super().__init__(conv, bias_apart=True)
        self.after = ReluLrnPool(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, H)`` to ``(N, M, H', H')``."""
        if lrn_pool.is_triton_available(x, len(self.weight), self.after.config):
            return self.after.run_triton(self.convolve(x, None), self.bias)
        return self.after(super().forward(x))


def _one_side(size: Any) -> int:
    """Return the one number of a size that PyTorch gives as one, or as two that are the same."""
    return int(size if isinstance(size, int) else size[0])


def _has_few_channels(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a layer is a convolution whose stride leaves too few channels to compute with."""
    return (
        isinstance(layer, nn.Conv2d)
        and layer.stride[0] > 1
        and layer.groups == 1
        and layer.in_channels < FEW_CHANNELS
    )


def _place_in_pass(layer: nn.Module) -> int:
    """Return the place of a layer within a pass, or 0 where it is in none."""
    if isinstance(layer, nn.ReLU):
        return 1
    if isinstance(layer, LocalResponseNorm):
        norm = layer.norm
        return 2 if norm.beta == 0.75 and norm.size % 2 else 0
    if isinstance(layer, nn.MaxPool2d):
        return 3 if layer.padding == 0 and layer.dilation == 1 else 0
    return 0
