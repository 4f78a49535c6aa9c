"""The layers that PyTorch lacks, or does differently from 2012."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.spec import LRN, WithinChannelLRN


def local_response_norm(x: Tensor, norm: LRN, towers: int = 1) -> Tensor:
    r"""Divide each activation by a power of the energy of its neighbouring channels (section 3.3).

    .. math:: b_i = a_i \left(k + \frac{\alpha}{n} \sum_{j=i-n/2}^{i+n/2} a_j^2\right)^{-\beta}

    This is the plain form, a sum of shifted slices; `LocalResponseNorm` runs the fast one.

    Parameters
    ----------
    x : Tensor
        Activations, ``(N, C, H, W)``, float. Any range: at pixel scale 0-255 the sum matters, at
        unit scale it vanishes and the layer is a constant factor ``k**-beta`` (facts 2).
    norm : LRN
        Window and constants. ``alpha`` follows PyTorch: it is divided by ``size`` here.
    towers : int
        How many parts the channels are in; the window stays inside one unless ``norm.span`` is
        ``"layer"``.

    Returns
    -------
    Tensor
        ``(N, C, H, W)``, the type of `x`. Channels beyond the first and last count as zero.

    Examples
    --------
    >>> import torch
    >>> thirds = LRN(size=3, alpha=3, beta=1, k=0)
    >>> local_response_norm(torch.ones(1, 3, 1, 1), thirds).flatten()
    tensor([0.5000, 0.3333, 0.5000])
    """
    if towers > 1 and norm.span == "tower":
        return torch.cat([local_response_norm(part, norm) for part in x.chunk(towers, 1)], 1)
    before = norm.size // 2
    channels = x.shape[1]
    squares = F.pad(x.square(), (0, 0, 0, 0, before, norm.size - 1 - before))
    slices = [squares[:, shift : shift + channels] for shift in range(norm.size)]
    energy = torch.stack(slices).sum(0)  # (N, C, H, W)
    return x * (norm.k + norm.alpha / norm.size * energy).pow(-norm.beta)


def banded_lrn(x: Tensor, norm: LRN, groups: int) -> Tensor:
    """Do the same as `local_response_norm` by one convolution: sums over channels are a band.

    PyTorch's own form pads, pools in 3-D and takes a general power; on two cores it costs more than
    all convolutions of the network, and it has no bfloat16 there. A 1x1 convolution of the squares
    with a band of ones is a matrix product, which every device does at its full rate, in every
    type. Measured against a sum of shifted slices in `docs/log.md`.

    Parameters
    ----------
    x : Tensor
        ``(N, C, H, W)``, float32, float64 or bfloat16.
    norm : LRN
        Window and constants.
    groups : int
        Parts of the channels; the window never crosses from one into another.

    Returns
    -------
    Tensor
        ``(N, C, H, W)`` in the type of `x`. The energy is summed in the type's own precision
        (bfloat16: relative error 2**-8, on a term that is small beside `k`), the power is taken
        in float32 at least. On a GPU, where this form has not been measured, PyTorch's default
        lets float32 convolutions run in TF32 (``torch.backends.cudnn.allow_tf32``).
    """
    band = make_band(x, norm, groups)
    with torch.autocast(x.device.type, enabled=False):  # else float32 would be summed in bfloat16
        energy = F.conv2d(x * x, band, groups=groups)  # (N, C, H, W)
    wide = torch.promote_types(x.dtype, torch.float32)
    base = norm.k + norm.alpha / norm.size * energy.to(wide)
    if norm.beta == 0.75:  # the paper's: two square roots instead of a logarithm
        root = base.sqrt()
        factor = 1 / (root * root.sqrt())
    else:
        factor = base.pow(-norm.beta)
    return (x.to(wide) * factor).to(x.dtype)


def make_band(x: Tensor, norm: LRN, groups: int) -> Tensor:
    """Return the weight ``(C, C / groups, 1, 1)`` that sums a window of the channels of `x`."""
    index = torch.arange(x.shape[1] // groups, device=x.device)
    distance = index[None, :] - index[:, None]  # neighbour minus self
    inside = (distance >= -(norm.size // 2)) & (distance < norm.size - norm.size // 2)
    return inside.to(x.dtype).repeat(groups, 1)[:, :, None, None]


class LocalResponseNorm(nn.Module):
    """`local_response_norm` as a layer, in its fast form: ``(N, C, H, W)`` to the same."""

    def __init__(self, norm: LRN, towers: int = 1) -> None:
        super().__init__()
        self.norm = norm
        self.groups = towers if norm.span == "tower" else 1

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(N, C, H, W)``; the type is kept."""
        return banded_lrn(x, self.norm, self.groups)

    def extra_repr(self) -> str:
        """Show the constants in `print(network)`."""
        return f"{self.norm}, groups={self.groups}"


class WithinChannelResponseNorm(nn.Module):
    r"""Divide each activation by a power of the energy around it in its own channel (facts 1a, 2).

    .. math:: b = a \left(k + \frac{\alpha}{n^2} \sum_{n \times n} a^2\right)^{-\beta}

    Pixels outside the feature map count as zero. ``(N, C, H, W)`` to the same.
    """

    def __init__(self, norm: WithinChannelLRN) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(N, C, H, W)``; the type is kept."""
        norm = self.norm
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = F.avg_pool2d(wide.square(), norm.size, stride=1, padding=norm.size // 2)
        return (wide * (norm.k + norm.alpha * mean).pow(-norm.beta)).to(x.dtype)

    def extra_repr(self) -> str:
        """Show the constants in `print(network)`."""
        return str(self.norm)


class LocallyConnected2d(nn.Module):
    """A convolution whose weights are not shared: one filter bank a position (facts 6).

    ``(N, C, H, W)`` to ``(N, M, H', W')``. The weight is ``(M, C * kernel_size**2, H' * W')``.
    """

    def __init__(
        self, in_channels: int, out_channels: int, out_size: int, kernel_size: int, *, padding: int
    ) -> None:
        super().__init__()
        self.kernel_size, self.padding, self.out_size = kernel_size, padding, out_size
        inputs = in_channels * kernel_size**2
        self.weight = nn.Parameter(torch.empty(out_channels, inputs, out_size**2))
        self.bias = nn.Parameter(torch.empty(out_channels, out_size, out_size))

    def forward(self, x: Tensor) -> Tensor:
        """Apply each position's own filters."""
        windows = F.unfold(x, self.kernel_size, padding=self.padding)  # (N, C k k, H' W')
        out = torch.einsum("nip,oip->nop", windows, self.weight)
        return out.unflatten(2, (self.out_size, self.out_size)) + self.bias


class Dropout(nn.Module):
    """Dropout in one of two forms: as in 2012, or inverted as in `torch.nn.Dropout`.

    In 2012 outputs were masked in training and multiplied by ``1 - rate`` at test; the inverted
    form divides by ``1 - rate`` in training instead. The expectations agree, the gradients do
    not: with the form of 2012 every following weight learns at another scale (facts 3b).

    Which units are dropped is drawn from PyTorch's generator, or, once `training.randomness` has
    named the images, is a function of the seed, the image and the unit alone: the same however a
    batch is divided among processes, whatever compiles the network, on every device.

    Parameters
    ----------
    rate : float
        Share of the units that is dropped, 0 to 1.
    form : {"2012", "inverted"}
        Where the scale is made up for.
    first_unit : int
        Place of the first unit in the whole layer, where this is a part of it.
    """

    def __init__(self, rate: float, form: str = "inverted", first_unit: int = 0) -> None:
        super().__init__()
        self.rate, self.form, self.first_unit = rate, form, first_unit
        self.rows: Tensor | None = None  # (N, 1) int64, of `training.randomness`

    def forward(self, x: Tensor) -> Tensor:
        """Mask or scale ``(N, units)``."""
        if not self.training:
            return x * (1 - self.rate) if self.form == "2012" else x
        if self.rows is None:
            kept = torch.rand_like(x, dtype=torch.float32) >= self.rate
        else:
            units = torch.arange(x.shape[1], device=x.device) + self.first_unit
            kept = hash_uint32(self.rows ^ hash_uint32(units + 1)) >= int(self.rate * 2**32)
        return x * kept if self.form == "2012" else x * kept / (1 - self.rate)

    def extra_repr(self) -> str:
        """Show the settings in `print(network)`."""
        return f"rate={self.rate}, form={self.form}"


def hash_uint32(x: Tensor) -> Tensor:
    """Hash whole numbers of 32 bits, each to another: a bijection without a pattern.

    Two multiplications and shifts whose constants were found by search for the least bias
    (github.com/skeeto/hash-prospector). They are below 2**31, so that no product of int64
    overflows and every device agrees.

    Examples
    --------
    >>> import torch
    >>> hash_uint32(torch.tensor([0, 1, 2])).tolist()
    [0, 2261973619, 229111015]
    """
    x = (x ^ (x >> 16)) * 0x21F0AAAD & 0xFFFFFFFF
    x = (x ^ (x >> 15)) * 0x735A2D97 & 0xFFFFFFFF
    return x ^ (x >> 15)
