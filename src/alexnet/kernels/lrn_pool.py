"""ReLU, local response normalisation and max pooling in one pass over memory each way.

On a processor by ``lrn_pool.cpp``; on a GPU by Triton, which is imported at the first call and adds
the convolution's bias too. There the forward pass reads its input and writes its output; of the
pooling it keeps one byte an output, of the rest nothing. The backward pass reads input, gradient
and those bytes, and writes the gradient. Storage is float32 or bfloat16, arithmetic float32. Plain
layers are the oracle of the tests, and what runs where neither is available.
"""

import ctypes
import importlib.util
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from alexnet.kernels.native import CPP_DTYPES, address, call, channels_last, compile_kernel

TRITON = torch.version.hip is None and importlib.util.find_spec("triton") is not None
GROUP = 8  # channels that a lane has: 16 bytes of bfloat16
BLOCK, WARPS = 128, 4  # groups that a program takes at once, one a lane
PROGRAMS = 4096  # at most of the backward pass: each leaves sums of the bias's gradient
AMPERE = (8, 0)  # the first GPUs with bfloat16
MAX_NEIGHBOURS = 9  # of which the backward pass sees those of the groups beside its own


class PoolArguments(ctypes.Structure):
    """`PoolArguments` of ``lrn_pool.cpp``, field by field."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("images", "height", "width", "towers")),
        *((name, ctypes.c_int64) for name in ("out_height", "out_width", "threads")),
        *((name, ctypes.c_double) for name in ("scale", "k")),
    )


class KernelConfig(NamedTuple):
    """Which layers the kernel computes, as whole numbers: PyTorch's operators take a list."""

    towers: int  # parts that the channels are in; the normalisation's window stays inside one
    relu: int  # 1 where a ReLU comes first
    norm_size: int  # channels in the normalisation's window, odd; 0 leaves it out
    window: int  # of the pooling
    stride: int  # of the pooling; a window and a stride of 1 leave it out
    ceil_mode: int  # 1 where windows that reach past the edge count


def is_cpp_available(x: Tensor, config: KernelConfig) -> bool:
    """Whether `lrn_pool` takes ``(N, C, H, W)`` of a type, where a tensor is."""
    in_pairs = x.shape[1] // config.towers % 2 == 0
    return x.device.type == "cpu" and x.dtype in CPP_DTYPES and in_pairs


@torch.library.custom_op("alexnet::lrn_pool", mutates_args=(), device_types="cpu")
def lrn_pool(x: Tensor, config: Sequence[int], scale: float, k: float) -> Tensor:
    """Apply ReLU, local response normalisation and max pooling, in this order, in one pass.

    ``(N, C, H, W)``, float32, float64 or bfloat16, best channels-last, to ``(N, C, H', W')``,
    channels-last, in the same type. `config`, a `KernelConfig`, says which of the three, and how; a
    tower has an even number of channels. ``b = a / (k + scale * sum(a**2)) ** 0.75``, where `scale`
    is the paper's alpha (section 3.3). Sums are of float32 at least; the power is within 2e-4 of
    its value for bfloat16 and 3e-7 for float32.
    """
    layers, x = KernelConfig(*config), channels_last(x)
    out = empty_like_output(x, layers)
    if x.numel():
        arguments = _arguments(x, out, layers, scale, k)
        _library(x, layers).forward(address(x), address(out), ctypes.byref(arguments))
    return out


@torch.library.custom_op("alexnet::lrn_pool_backward", mutates_args=(), device_types="cpu")
def lrn_pool_backward(
    gradient: Tensor, x: Tensor, config: Sequence[int], scale: float, k: float
) -> Tensor:
    """Return the gradient of `lrn_pool` with respect to `x`, in its shape and type.

    What is given to a window goes to the first of the largest under it, compared before they are
    rounded to the type of `x`.
    """
    layers, x = KernelConfig(*config), channels_last(x)
    gradient = channels_last(gradient.to(x.dtype))
    out = torch.empty_like(x)
    if x.numel():
        arguments = _arguments(x, gradient, layers, scale, k)
        pointers = address(x), address(gradient), address(out)
        _library(x, layers).backward(*pointers, ctypes.byref(arguments))
    return out


@lrn_pool.register_fake
def _(x: Tensor, config: Sequence[int], scale: float, k: float) -> Tensor:
    return empty_like_output(x, KernelConfig(*config))


@lrn_pool_backward.register_fake
def _(gradient: Tensor, x: Tensor, config: Sequence[int], scale: float, k: float) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


def _save_input(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, *ctx.settings = inputs
    ctx.save_for_backward(x)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
    (x,) = ctx.saved_tensors
    return call(lrn_pool_backward, gradient, x, *ctx.settings), None, None, None


lrn_pool.register_autograd(_differentiate, setup_context=_save_input)


def empty_like_output(x: Tensor, config: KernelConfig) -> Tensor:
    """Return an empty tensor of the result's shape, by PyTorch's own rule of the edge.

    It is not asked on the meta device, whose first pooling imports a second of PyTorch's compiler.
    """
    return torch.empty(
        (*x.shape[:2], *(_count_windows(length, config) for length in x.shape[2:])),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )


def _count_windows(length: int, config: KernelConfig) -> int:
    past = config.stride - 1 if config.ceil_mode else 0
    count = (length - config.window + past) // config.stride + 1
    if config.ceil_mode and (count - 1) * config.stride >= length:
        count -= 1  # the last window would begin past the edge
    if count < 1:
        raise RuntimeError(f"A window of {config.window} does not fit into {length} pixels.")
    return count


def _library(x: Tensor, config: KernelConfig) -> ctypes.CDLL:
    return compile_kernel(
        "lrn_pool.cpp",
        stored=CPP_DTYPES[x.dtype],
        channels=x.shape[1] // config.towers,
        relu=config.relu,
        norm=config.norm_size,
        window=config.window,
        stride=config.stride,
    )


def _arguments(
    x: Tensor, out: Tensor, config: KernelConfig, scale: float, k: float
) -> PoolArguments:
    images, _, height, width = x.shape
    sides = (height, width, config.towers, *out.shape[2:])
    return PoolArguments(images, *sides, torch.get_num_threads(), scale, k)


def is_triton_available(x: Tensor, channels: int, config: KernelConfig) -> bool:
    """Whether `triton_lrn_pool` takes so many channels, on a tensor's device, in its type."""
    return (
        x.is_cuda
        and x.dtype in (torch.float32, torch.bfloat16)
        and channels % (GROUP * config.towers) == 0
        and 0 < config.norm_size <= MAX_NEIGHBOURS
        and config.window <= 15  # a place in it is one byte
        and TRITON
        and torch.cuda.get_device_capability(x.device) >= AMPERE
    )


@torch.library.custom_op("alexnet::triton_lrn_pool", mutates_args=())
def triton_lrn_pool(
    x: Tensor, bias: Tensor | None, config: Sequence[int], scale: float, k: float, keeps: bool
) -> tuple[Tensor, Tensor]:
    """Add a bias, apply ReLU, normalise over channels and take the largest of each window.

    ``(N, C, H, W)`` for which `is_triton_available` holds, best channels-last, and a bias ``(C,)``
    of any float type, to ``(N, C, H', W')`` in the type of `x`, channels-last. `config` is
    a `KernelConfig` with a normalisation, ``b = a / (k + scale * sum(a**2)) ** 0.75``: `scale` is
    the paper's alpha (section 3.3). Roots are the processor's own, good to some 2**-22.

    It can be differentiated once, where it `keeps` the second result: the place of the largest in
    its window, uint8 of the same shape. It is an operator of PyTorch's, so that ``torch.compile``
    keeps it as one call.
    """
    from alexnet.kernels import triton_kernels

    layers, x = KernelConfig(*config), channels_last(x)
    out = empty_like_output(x, layers)
    chosen = torch.empty_like(out if keeps and layers.window > 1 else out[:0], dtype=torch.uint8)
    if out.numel():
        groups = out.numel() // GROUP
        triton_kernels.forward[(-(-groups // BLOCK),)](
            x, bias, out, chosen, groups, scale, k,
            keeps=chosen.numel() > 0, **_constants(x, out, layers, bias),
        )  # fmt: skip
    return out, chosen


@torch.library.custom_op("alexnet::triton_lrn_pool_backward", mutates_args=())
def triton_lrn_pool_backward(
    grad: Tensor, x: Tensor, bias: Tensor | None, chosen: Tensor, config: Sequence[int],
    scale: float, k: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the gradients of `x`, in its type, and of the bias, ``(C,)`` float32 or nothing."""
    from alexnet.kernels import triton_kernels

    layers, x, grad = KernelConfig(*config), channels_last(x), channels_last(grad)
    if layers.window > 1 and chosen.shape != grad.shape:
        raise RuntimeError("triton_lrn_pool was called without `keeps`, so it has no gradient.")
    out, programs = torch.empty_like(x), _count_programs(x)
    lanes = programs * BLOCK if bias is not None else 0
    sums = torch.empty(lanes * GROUP, dtype=torch.float32, device=x.device)
    if x.numel():
        triton_kernels.backward[(programs,)](
            x, bias, grad, chosen, out, sums, x.numel() // GROUP, scale, k,
            **_constants(x, grad, layers, bias),
        )  # fmt: skip
    return out, sums.view(-1, x.shape[1]).sum(0) if bias is not None else sums


def _count_programs(x: Tensor) -> int:
    """Return how many programs share a tensor's groups: a lane has the same channels in all."""
    alike = x.shape[1] // GROUP // math.gcd(x.shape[1] // GROUP, BLOCK)
    wanted = min(PROGRAMS, -(-x.numel() // (GROUP * BLOCK)))
    return -(-wanted // alike) * alike


def _constants(x: Tensor, out: Tensor, config: KernelConfig, bias: Tensor | None) -> dict[str, Any]:
    """Return what the kernels are compiled for."""
    return {
        "height": x.shape[2],
        "width": x.shape[3],
        "out_height": out.shape[2],
        "out_width": out.shape[3],
        "channels": x.shape[1] // config.towers,
        "towers": config.towers,
        "size": config.norm_size,
        "relu": bool(config.relu),
        "biased": bias is not None,
        "window": config.window,
        "stride": config.stride,
        "block": BLOCK,
        "num_warps": WARPS,
        "enable_fp_fusion": True,  # what was measured; Triton 3.10 changes its default
    }


@triton_lrn_pool.register_fake
def _(
    x: Tensor, bias: Tensor | None, config: Sequence[int], scale: float, k: float, keeps: bool
) -> tuple[Tensor, Tensor]:
    out = empty_like_output(x, KernelConfig(*config))
    kept = out if keeps and KernelConfig(*config).window > 1 else out[:0]
    return out, torch.empty_like(kept, dtype=torch.uint8)


@triton_lrn_pool_backward.register_fake
def _(grad: Tensor, x: Tensor, bias: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    sums = x.new_empty(x.shape[1] if bias is not None else 0, dtype=torch.float32)
    return torch.empty_like(x, memory_format=torch.channels_last), sums


def _save_triton_inputs(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, bias, *ctx.constants, _ = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(x, bias, output[1])


def _differentiate_triton(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    x, bias, chosen = ctx.saved_tensors
    gradient, sums = triton_lrn_pool_backward(grad, x, bias, chosen, *ctx.constants)
    return gradient, None if bias is None else sums.to(bias.dtype), None, None, None, None


triton_lrn_pool.register_autograd(_differentiate_triton, setup_context=_save_triton_inputs)
