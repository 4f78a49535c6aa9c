"""Bias, ReLU, local response normalisation and max pooling on a GPU: one pass over memory each way.

The forward pass reads its input and writes its output; of the pooling it keeps one byte an output,
of the rest nothing. The backward pass reads input, gradient and those bytes, and writes the
gradient. Storage is float32 or bfloat16, arithmetic float32. Plain layers are the oracle of its
tests, and what runs where `available` says no.

Triton is imported at the first call, and never where there is no GPU.
"""

import importlib.util
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from alexnet.kernels.normalised_pool import Form, room

TRITON = torch.version.hip is None and importlib.util.find_spec("triton") is not None
GROUP = 8  # maps that a lane has: 16 bytes of bfloat16
BLOCK, WARPS = 128, 4  # groups that a program takes at once, one a lane
PROGRAMS = 4096  # at most of the backward pass: each leaves sums of the bias's gradient
AMPERE = (8, 0)  # the first GPUs with bfloat16
MOST_NEIGHBOURS = 9  # of which the backward pass sees those of the groups beside its own


def available(x: Tensor, maps: int, form: Form) -> bool:
    """Whether `triton_pool` does a form to a tensor of so many maps, on its device, in its type."""
    return (
        x.is_cuda
        and x.dtype in (torch.float32, torch.bfloat16)
        and maps % (GROUP * form.towers) == 0
        and 0 < form.neighbours <= MOST_NEIGHBOURS
        and form.window <= 15  # a place in it is one byte
        and TRITON
        and torch.cuda.get_device_capability(x.device) >= AMPERE
    )


@torch.library.custom_op("alexnet::triton_pool", mutates_args=())
def triton_pool(
    x: Tensor, bias: Tensor | None, form: Sequence[int], scale: float, k: float, keeps: bool
) -> tuple[Tensor, Tensor]:
    """Add a bias, rectify, normalise over neighbouring maps and take the largest of each window.

    An operator of PyTorch's, so that ``torch.compile`` keeps it as one call. It can be
    differentiated once.

    Parameters
    ----------
    x : Tensor
        ``(N, C, H, W)``, float32 or bfloat16, for which `available` holds. Channels-last is the
        layout that it takes as it is; another is copied first.
    bias : Tensor | None
        ``(C,)``, of any float type.
    form : Form
        Which of them, and how; it has a normalisation.
    scale, k : float
        ``b = a / (k + scale * sum(a**2)) ** 0.75``: `scale` is the paper's alpha (section 3.3).
    keeps : bool
        Whether a gradient will be asked for.

    Returns
    -------
    out, chosen : tuple of Tensor
        ``(N, C, H', W')`` in the type of `x`, channels-last, and of the same shape the place of
        the largest in its window, uint8, or nothing where it is not wanted. Roots are the
        processor's own, good to some 2**-22.
    """
    from alexnet.kernels import triton_source

    one, x = Form(*form), _channels_last(x)
    out = room(x, one)
    chosen = torch.empty_like(out if keeps and one.window > 1 else out[:0], dtype=torch.uint8)
    if out.numel():
        groups = out.numel() // GROUP
        triton_source.forward[(-(-groups // BLOCK),)](
            x, bias, out, chosen, groups, scale, k,
            keeps=chosen.numel() > 0, **_fixed(x, out, one, bias),
        )  # fmt: skip
    return out, chosen


@torch.library.custom_op("alexnet::triton_pool_backward", mutates_args=())
def triton_pool_backward(
    grad: Tensor, x: Tensor, bias: Tensor | None, chosen: Tensor, form: Sequence[int],
    scale: float, k: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the gradients of `x`, in its type, and of the bias, ``(C,)`` float32 or nothing."""
    from alexnet.kernels import triton_source

    one, x, grad = Form(*form), _channels_last(x), _channels_last(grad)
    if one.window > 1 and chosen.shape != grad.shape:
        raise RuntimeError("triton_pool was not told that a gradient would be asked for: `keeps`.")
    out, programs = torch.empty_like(x), _programs(x)
    lanes = programs * BLOCK if bias is not None else 0
    sums = torch.empty(lanes * GROUP, dtype=torch.float32, device=x.device)
    if x.numel():
        triton_source.backward[(programs,)](
            x, bias, grad, chosen, out, sums, x.numel() // GROUP, scale, k,
            **_fixed(x, grad, one, bias),
        )  # fmt: skip
    return out, sums.view(-1, x.shape[1]).sum(0) if bias is not None else sums


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _programs(x: Tensor) -> int:
    """Return how many programs share the groups of a tensor: all of a lane's have the same maps."""
    alike = x.shape[1] // GROUP // math.gcd(x.shape[1] // GROUP, BLOCK)
    wanted = min(PROGRAMS, -(-x.numel() // (GROUP * BLOCK)))
    return -(-wanted // alike) * alike


def _fixed(x: Tensor, out: Tensor, form: Form, bias: Tensor | None) -> dict[str, Any]:
    """Return what the kernels are compiled for."""
    return {
        "height": x.shape[2],
        "width": x.shape[3],
        "out_height": out.shape[2],
        "out_width": out.shape[3],
        "maps": x.shape[1] // form.towers,
        "towers": form.towers,
        "size": form.neighbours,
        "relu": bool(form.rectify),
        "biased": bias is not None,
        "window": form.window,
        "stride": form.stride,
        "block": BLOCK,
        "num_warps": WARPS,
        "enable_fp_fusion": True,  # what was measured; Triton 3.10 changes its default
    }


@triton_pool.register_fake
def _(
    x: Tensor, bias: Tensor | None, form: Sequence[int], scale: float, k: float, keeps: bool
) -> tuple[Tensor, Tensor]:
    out = room(x, Form(*form))
    kept = out if keeps and Form(*form).window > 1 else out[:0]
    return out, torch.empty_like(kept, dtype=torch.uint8)


@triton_pool_backward.register_fake
def _(grad: Tensor, x: Tensor, bias: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    sums = x.new_empty(x.shape[1] if bias is not None else 0, dtype=torch.float32)
    return torch.empty_like(x, memory_format=torch.channels_last), sums


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, bias, *ctx.constants, _ = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(x, bias, output[1])


def _gradients(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    x, bias, chosen = ctx.saved_tensors
    gradient, sums = triton_pool_backward(grad, x, bias, chosen, *ctx.constants)
    return gradient, None if bias is None else sums.to(bias.dtype), None, None, None, None


triton_pool.register_autograd(_gradients, setup_context=_keep)
