"""The Triton kernels of `triton_lrn.py`; importing this file imports Triton.

Never run on a GPU: tested in Triton's interpreter on a processor, which knows neither the tensor
cores' rounding nor any time, and compiled for two GPUs. Block sizes are reasoned, not tuned.

The sum over neighbouring maps is a product with a band of ones, as in `lrn.py`, for two reasons.
Neighbours loaded from shifted addresses are not aligned, so that each costs an instruction an
element, and at the bandwidth of an H100 there are some thirty for all. And the backward pass has a
sum over neighbours of something that has such a sum in it; from shifted addresses every power
would be taken once a neighbour. The band is nothing to the tensor cores, and both sums stay in
registers.

A row is a pixel's maps in one tower, which lie side by side in channels-last memory; no window
can leave it. A program has a tile of columns, and goes through blocks of rows, so that it builds
its band once. Where a row is wider than a tile, tiles overlap by what windows reach (`halo`), and
each writes its inner part alone: 64 columns with halos of 8 are read 1.3 times, from the cache.
"""

# The types inside a kernel are Triton's, which has no names for them.
# ruff: noqa: ANN001, ANN202
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl


@triton.jit
def forward(
    x_at,
    out_at,
    rows,
    scale,
    k,
    beta: tl.constexpr,
    maps: tl.constexpr,
    size: tl.constexpr,
    relu: tl.constexpr,
    precision: tl.constexpr,
    block: tl.constexpr,
    tile: tl.constexpr,
    halo: tl.constexpr,
) -> None:
    """Write ``x (k + scale * energy)**-beta``; `rows` x `maps`, stored in any float type."""
    column, inside, kept = _columns(maps, tile, halo)
    band = _band(size, tile)
    for number in range(tl.program_id(0), tl.cdiv(rows, block), tl.num_programs(0)):
        row = number * block + tl.arange(0, block)
        here = (row < rows)[:, None]
        at = row.to(tl.int64)[:, None] * maps + column[None, :]
        x = _activation(x_at + at, here & inside[None, :], relu)
        base = k + scale * tl.dot(x * x, band, input_precision=precision)
        out = x * _power(base, beta)
        tl.store(out_at + at, out.to(out_at.dtype.element_ty), mask=here & kept[None, :])


@triton.jit
def backward(
    x_at,
    grad_at,
    out_at,
    rows,
    scale,
    k,
    beta: tl.constexpr,
    maps: tl.constexpr,
    size: tl.constexpr,
    relu: tl.constexpr,
    precision: tl.constexpr,
    block: tl.constexpr,
    tile: tl.constexpr,
    halo: tl.constexpr,
) -> None:
    """Write the gradient of `forward`'s `x`; its energy is computed once more.

    With ``s = k + scale * energy``: map i has ``g s**-beta`` of its own, and loses
    ``2 beta scale x`` times the sum of ``g x s**(-beta - 1)`` over the maps whose window it is in.
    """
    column, inside, kept = _columns(maps, tile, halo)
    band = _band(size, tile)
    across = tl.trans(band)  # whose window one is in, not who is in one's window: not the same
    for number in range(tl.program_id(0), tl.cdiv(rows, block), tl.num_programs(0)):
        row = number * block + tl.arange(0, block)
        here = (row < rows)[:, None]
        at = row.to(tl.int64)[:, None] * maps + column[None, :]
        there = here & inside[None, :]
        x = _activation(x_at + at, there, relu)
        grad = tl.load(grad_at + at, mask=there, other=0.0).to(tl.float32)
        base = k + scale * tl.dot(x * x, band, input_precision=precision)
        base = tl.where(inside[None, :], base, 1.0)  # k may be 0, and 0 / 0 would spread
        factor = _power(base, beta)
        shared = tl.dot(grad * x * factor / base, across, input_precision=precision)
        out = grad * factor - 2 * beta * scale * x * shared
        if relu:
            out = tl.where(x <= 0, 0.0, out)
        tl.store(out_at + at, out.to(out_at.dtype.element_ty), mask=here & kept[None, :])


@triton.jit
def _columns(maps: tl.constexpr, tile: tl.constexpr, halo: tl.constexpr):
    """Return this program's columns, which of them there are, and which it writes."""
    place = tl.arange(0, tile)
    column = tl.program_id(1) * (tile - 2 * halo) - halo + place
    inside = (column >= 0) & (column < maps)
    return column, inside, inside & (place >= halo) & (place < tile - halo)


@triton.jit
def _band(size: tl.constexpr, tile: tl.constexpr):
    """Return 1 where the map of a row lies in the window of a column's."""
    place = tl.arange(0, tile)
    distance = place[:, None] - place[None, :]  # neighbour minus self
    return ((distance >= -(size // 2)) & (distance < size - size // 2)).to(tl.float32)


@triton.jit
def _activation(at, mask, relu: tl.constexpr):
    """Load, as float32; what is no number stays so, as PyTorch's ReLU has it."""
    x = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    if relu:
        x = tl.where(x < 0, 0.0, x)
    return x


@triton.jit
def _power(base, beta: tl.constexpr):
    """Raise to ``-beta``; -3/4, the paper's, is two square roots instead of a logarithm."""
    if beta == 0.75:
        root = tl.rsqrt(base)
        return root * tl.sqrt(root)
    return tl.exp2(-beta * tl.log2(base))
