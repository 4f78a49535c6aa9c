"""Local response normalisation on a GPU, with the ReLU before it: one pass over memory each way.

The forward pass reads its input and writes its output, and keeps nothing but that input; the
backward pass reads the input and the gradient, and writes the gradient. Storage is float32 or
bfloat16, arithmetic float32. The plain form, `layers.local_response_norm`, is the oracle of its
tests, and `lrn.banded_lrn` what runs where `available` says no.

Never run on a GPU: tested in Triton's interpreter on a processor alone (docs/performance.md). The
max pool after it is not part of it: its windows overlap, so that every activation would be
normalised up to four times or exchanged between programs, and whether that pays only a GPU can say.

Triton is imported at the first call, and never where there is no GPU.
"""

import importlib.util
from functools import cache
from typing import Any

import torch
from torch import Tensor

BLOCK, WARPS = 32, 8  # pixels that a program takes at once, and by how many warps: more of the one
# or fewer of the other, and the compiler runs out of registers in float32
TILE = 64  # maps, the halos included, where a tower is wider
PROGRAMS = 1024  # of a tile, at most: several for each of an H100's 132 multiprocessors
LEAST = 16  # the narrowest matrix that tensor cores take
AMPERE = (8, 0)  # the first GPUs whose tensor cores take float32, as TF32


def available(x: Tensor) -> bool:
    """Whether `triton_lrn` takes a tensor: ``(N, C, H, W)``, float32 or bfloat16, NVIDIA's GPU."""
    return (
        x.is_cuda
        and x.dim() == 4
        and x.dtype in (torch.float32, torch.bfloat16)
        and _takes(x.device)
    )


@cache
def _takes(device: torch.device) -> bool:
    return (
        torch.version.hip is None
        and importlib.util.find_spec("triton") is not None
        and torch.cuda.get_device_capability(device) >= AMPERE
    )


@torch.library.custom_op("alexnet::lrn", mutates_args=())
def triton_lrn(
    x: Tensor, size: int, alpha_over_n: float, beta: float, k: float, groups: int, relu: bool
) -> Tensor:
    """Divide each activation by a power of the energy of its neighbouring maps.

    An operator of PyTorch's, so that ``torch.compile`` keeps it as one call. It can be
    differentiated once.

    Parameters
    ----------
    x : Tensor
        ``(N, C, H, W)``, float32 or bfloat16, for which `available` holds. Channels-last is the
        layout that it takes as it is; another is copied first.
    size, alpha_over_n, beta, k
        As in `layers.local_response_norm`.
    groups : int
        Towers; the window never crosses from one into another.
    relu : bool
        Whether negative activations are set to zero first.

    Returns
    -------
    Tensor
        ``(N, C, H, W)`` in the type of `x`, channels-last. From bfloat16, squares enter the sum
        with the 11 bits of TF32, three more than they were computed from; from float32, with
        three such products, all but the last bits. One infinite activation makes all maps of its
        pixel and tile no number, where the plain form loses its neighbours alone.
    """
    from alexnet.kernels import triton_source

    return _run(triton_source.forward, (x,), size, alpha_over_n, beta, k, groups, relu)


@torch.library.custom_op("alexnet::lrn_backward", mutates_args=())
def _backward(
    grad: Tensor, x: Tensor, size: int, alpha_over_n: float, beta: float, k: float, groups: int,
    relu: bool,
) -> Tensor:  # fmt: skip
    from alexnet.kernels import triton_source

    return _run(triton_source.backward, (x, grad), size, alpha_over_n, beta, k, groups, relu)


def _run(
    kernel: Any, tensors: tuple[Tensor, ...], size: int, alpha_over_n: float, beta: float, k: float,
    groups: int, relu: bool,
) -> Tensor:  # fmt: skip
    """Launch a kernel over tensors of one shape; return what it writes."""
    tensors = tuple(one.contiguous(memory_format=torch.channels_last) for one in tensors)
    out = torch.empty_like(tensors[0])
    maps = out.shape[1] // groups
    if not out.numel():
        return out
    tile, halo, tiles = tiling(maps, size)
    rows = out.numel() // maps
    grid = (min(-(-rows // BLOCK), PROGRAMS), tiles)
    precision = "tf32" if out.dtype == torch.bfloat16 else "tf32x3"
    kernel[grid](
        *tensors, out, rows, alpha_over_n / size, k,
        beta=beta, maps=maps, size=size, relu=relu, precision=precision,
        block=BLOCK, tile=tile, halo=halo, num_warps=WARPS, enable_fp_fusion=True,
    )  # fmt: skip
    return out


def tiling(maps: int, size: int) -> tuple[int, int, int]:
    """Return how wide a tile is, how much of it at either side is read alone, and how many.

    The backward pass sees windows of windows: ``size - 1`` maps to either side, here rounded up so
    that addresses stay aligned to 16 bytes.

    Examples
    --------
    >>> tiling(48, 5), tiling(96, 5), tiling(256, 5)
    ((64, 0, 1), (64, 8, 2), (64, 8, 6))
    """
    if maps <= TILE:
        return max(LEAST, 1 << (maps - 1).bit_length()), 0, 1
    halo = -(-(size - 1) // 8) * 8
    tile = max(TILE, 1 << (4 * halo - 1).bit_length())  # at least half of it written
    return tile, halo, -(-maps // (tile - 2 * halo))


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


@triton_lrn.register_fake
def _(x: Tensor, *constants: Any) -> Tensor:
    return _like(x)


@_backward.register_fake
def _(grad: Tensor, x: Tensor, *constants: Any) -> Tensor:
    return _like(x)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, *ctx.constants = inputs
    ctx.save_for_backward(x)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (x,) = ctx.saved_tensors
    return _backward(grad, x, *ctx.constants), None, None, None, None, None, None


triton_lrn.register_autograd(_gradients, setup_context=_keep)
