"""Local response normalisation as one convolution: the sum over neighbouring maps is a band.

PyTorch's own form pads, pools in 3-D and takes a general power; on two cores it costs more than
all convolutions of the network, and it has no bfloat16 there. A 1x1 convolution of the squares
with a band of ones is a matrix product, which every device does at its full rate, in every type.
Measured against a sum of shifted slices in `docs/log.md`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def banded_lrn(x: Tensor, size: int, alpha: float, beta: float, k: float, groups: int) -> Tensor:
    """Divide each activation by a power of the energy of its neighbouring maps.

    Parameters
    ----------
    x : Tensor
        ``(N, C, H, W)``, float32, float64 or bfloat16.
    size, alpha, beta, k
        As in `layers.local_response_norm`.
    groups : int
        Towers; the window never crosses from one into another.

    Returns
    -------
    Tensor
        ``(N, C, H, W)`` in the type of `x`. The energy is summed in the type's own precision
        (bfloat16: relative error 2**-8, on a term that is small beside `k`), the power is taken
        in float32 at least. On a GPU, where this form has not been measured, PyTorch's default
        lets float32 convolutions run in TF32 (``torch.backends.cudnn.allow_tf32``).
    """
    maps = x.shape[1] // groups
    index = torch.arange(maps, device=x.device)
    distance = index[None, :] - index[:, None]  # neighbour minus self
    inside = (distance >= -(size // 2)) & (distance < size - size // 2)
    band = inside.to(x.dtype).repeat(groups, 1)[:, :, None, None]  # (C, C / groups, 1, 1)
    with torch.autocast(x.device.type, enabled=False):  # else float32 would be summed in bfloat16
        energy = F.conv2d(x * x, band, groups=groups)  # (N, C, H, W)
    wide = torch.promote_types(x.dtype, torch.float32)
    base = k + alpha / size * energy.to(wide)
    return (x.to(wide) * _power(base, -beta)).to(x.dtype)


def _power(base: Tensor, exponent: float) -> Tensor:
    """Raise to a power; -3/4, the paper's, costs two square roots instead of a logarithm."""
    if exponent != -0.75:
        return base.pow(exponent)
    root = base.sqrt()
    return 1 / (root * root.sqrt())
