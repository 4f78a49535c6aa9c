"""The deconvnet of Zeiler and Fergus (2014): what of an image a unit answered to, as pixels."""

import torch
from torch import Tensor, nn

from alexnet.layers import Dropout, LocalResponseNorm, WithinChannelResponseNorm


def project(network: nn.Sequential, pixels: Tensor, layer: str, places: Tensor) -> Tensor:
    """Project one unit's activation for each image back to pixels.

    Every other unit of the layer is set to nought, and the layers are undone in turn: pooling puts
    a value back where its maximum was, and adds up where windows that overlap share one; ReLU lets
    through what is positive; a convolution is its transpose, without its bias. Response
    normalisation and dropout are passed over, as are the factors that they divided by.

    Parameters
    ----------
    network : nn.Sequential
        Of `plain_network`.
    pixels : Tensor
        ``(N, 3, side, side)`` float32, as the network takes them.
    layer : str
        Its name.
    places : Tensor
        ``(N, 3)`` int64: unit, row and column; row and column are 0 where the layer is fully
        connected.

    Returns
    -------
    Tensor
        ``(N, 3, side, side)``, in the units of `pixels`, up to a factor.
    """
    passed: list[tuple[nn.Module, Tensor, Tensor]] = []  # a layer, what came in, what went out
    x = pixels.detach()
    for name, module in network.named_children():
        came_in = x.detach().requires_grad_()
        with torch.enable_grad():
            x = module(came_in)
        passed.append((module, came_in, x))
        if name == layer:
            break
    image = torch.arange(len(pixels), device=pixels.device)
    at = (image, *places.unbind(1)) if x.dim() == 4 else (image, places[:, 0])
    signal = torch.zeros_like(x)
    signal[at] = x.detach()[at]
    for module, came_in, went_out in reversed(passed):
        if isinstance(module, nn.ReLU):
            signal = signal.relu()
        elif not isinstance(module, LocalResponseNorm | WithinChannelResponseNorm | Dropout):
            # The gradient of a pooling keeps its switches; that of a convolution transposes it.
            (signal,) = torch.autograd.grad(went_out, came_in, signal)
    return signal
