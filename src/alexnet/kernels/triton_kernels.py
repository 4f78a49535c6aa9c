"""The Triton kernels of `lrn_pool.py`; importing this file imports Triton.

A program's lane has a group of eight neighbouring channels of a pixel, 16 bytes of bfloat16, which
lie side by side in channels-last memory, and the groups before and after it, which its windows of
neighbours reach into. Each number is a variable of its own, so that sums over neighbours are sums
of registers: no lane waits for another, and nothing goes through shared memory. The other two
groups come from the cache, since the lanes beside read them too. As a product with a band of ones
on the tensor cores, which was tried first, a sum costs three times as much (docs/log.md).

Pooling windows overlap too, so that the forward pass normalises most activations twice, some four
times: the normalised image is neither written nor read for it.
"""

# The types inside a kernel are Triton's, which has no names for them, and tuples grow by `+` alone.
# ruff: noqa: ANN001, ANN202, RUF005
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, var-annotated"

import triton
import triton.language as tl


@triton.jit
def forward(
    x_at,
    bias_at,
    out_at,
    chosen_at,
    groups,
    scale,
    k,
    height: tl.constexpr,
    width: tl.constexpr,
    out_height: tl.constexpr,
    out_width: tl.constexpr,
    channels: tl.constexpr,
    towers: tl.constexpr,
    size: tl.constexpr,
    relu: tl.constexpr,
    biased: tl.constexpr,
    window: tl.constexpr,
    stride: tl.constexpr,
    keeps: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Write the largest ``a (k + scale * energy)**-3/4`` of each window, and its place in it.

    `groups` are those of the output, of all images.
    """
    reach: tl.constexpr = size // 2
    group = tl.program_id(0) * block + tl.arange(0, block)
    here = group < groups
    channel = group * 8 % (channels * towers)
    before, after = channel % channels != 0, (channel + 8) % channels != 0
    bias = _bias(bias_at, channel, before, after, biased, block)
    pixel = group // (channels * towers // 8)
    column = pixel % out_width
    row = pixel // out_width % out_height
    image = pixel // (out_width * out_height)
    largest, chosen = _eight(float("-inf"), tl.float32, block), _eight(0, tl.int32, block)
    for place in range(window * window):
        y, x = row * stride + place // window, column * stride + place % window
        there = here & (y < height) & (x < width)
        at = ((image * height + y) * width + x).to(tl.int64) * (channels * towers) + channel
        a = _activations(x_at, at, there, before, after, bias, relu)
        bases = _bases(a, scale, k, reach, 0)
        now, places = (), ()
        for i in tl.static_range(8):
            root = tl.rsqrt(bases[i])
            normalised = a[8 + i] * (root * tl.sqrt(root))
            better = there & ((normalised > largest[i]) | (normalised != normalised))
            now = now + (tl.where(better, normalised, largest[i]),)
            places = places + (tl.where(better, place, chosen[i]),)
        largest, chosen = now, places
    at = pixel.to(tl.int64) * (channels * towers) + channel
    _write(out_at, at, here, largest)
    if keeps:
        _write(chosen_at, at, here, chosen)


@triton.jit
def backward(
    x_at,
    bias_at,
    grad_at,
    chosen_at,
    out_at,
    bias_grad_at,
    groups,
    scale,
    k,
    height: tl.constexpr,
    width: tl.constexpr,
    out_height: tl.constexpr,
    out_width: tl.constexpr,
    channels: tl.constexpr,
    towers: tl.constexpr,
    size: tl.constexpr,
    relu: tl.constexpr,
    biased: tl.constexpr,
    window: tl.constexpr,
    stride: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Write the gradient of `forward`'s `x`; its energy is computed once more.

    An activation's own gradient ``g`` is that of the windows which chose it. With
    ``s = k + scale * energy``: channel i has ``g s**-3/4`` of its own, and loses ``3/2 scale a``
    times the sum of ``g a s**-7/4`` over the channels whose window of neighbours it is in. `groups`
    are those of the input. Programs are so many that a lane has the same eight channels of every
    pixel that it comes to, and adds up the bias's gradient over its own.
    """
    reach: tl.constexpr = size // 2
    lane = tl.program_id(0) * block + tl.arange(0, block)
    channel = lane * 8 % (channels * towers)
    before, after = channel % channels != 0, (channel + 8) % channels != 0
    bias = _bias(bias_at, channel, before, after, biased, block)
    bias_grad = _eight(0, tl.float32, block)
    for first in range(tl.program_id(0) * block, groups, tl.num_programs(0) * block):
        group = first + tl.arange(0, block)
        here = group < groups
        pixel = group // (channels * towers // 8)
        at = pixel.to(tl.int64) * (channels * towers) + channel
        a = _activations(x_at, at, here, before, after, bias, relu)
        grad = _gradients(
            grad_at, chosen_at, pixel, channel, here, before, after,
            height, width, out_height, out_width, channels * towers, window, stride, reach, block,
        )  # fmt: skip
        bases = _bases(a, scale, k, reach, reach)  # of the group and of `reach` to either side
        factors, terms = (), ()
        for i in tl.static_range(8 + 2 * reach):
            base = bases[i]
            if i < reach:  # k may be 0, and 0 / 0 would spread from where there are none
                base = tl.where(before, base, 1.0)
            if i >= 8 + reach:
                base = tl.where(after, base, 1.0)
            root = tl.rsqrt(base)
            factor = root * tl.sqrt(root)
            factors = factors + (factor,)
            term = grad[i] * a[8 - reach + i] * factor * (root * root)
            terms = terms + (term,)
        out, sums = (), ()
        for i in tl.static_range(8):
            shared = terms[i]
            for near in tl.static_range(2 * reach):
                shared += terms[i + 1 + near]
            d = grad[reach + i] * factors[reach + i] - 1.5 * scale * a[8 + i] * shared
            if relu:
                d = tl.where(a[8 + i] <= 0, 0.0, d)
            out = out + (d,)
            sums = sums + (bias_grad[i] + tl.where(here, d, 0.0),)
        _write(out_at, at, here, out)
        bias_grad = sums
    if biased:
        _write(bias_grad_at, lane.to(tl.int64) * 8, lane >= 0, bias_grad)


@triton.jit
def _gradients(
    grad_at, chosen_at, pixel, channel, here, before, after,
    height: tl.constexpr, width: tl.constexpr, out_height: tl.constexpr, out_width: tl.constexpr,
    all_channels: tl.constexpr, window: tl.constexpr, stride: tl.constexpr, reach: tl.constexpr,
    block: tl.constexpr,
):  # fmt: skip
    """Return what comes back to a group and `reach` channels to either side, from all windows."""
    column = pixel % width
    row = pixel // width % height
    image = pixel // (width * height)
    over: tl.constexpr = (window + stride - 1) // stride  # windows, each way
    grad = ()
    for _ in tl.static_range(8 + 2 * reach):
        grad = grad + (tl.zeros((block,), tl.float32),)
    for back in range(over * over):
        y, x = row // stride - back // over, column // stride - back % over
        down, right = row - y * stride, column - x * stride
        inside = here & (y >= 0) & (y < out_height) & (down < window)
        inside = inside & (x >= 0) & (x < out_width) & (right < window)
        at = ((image * out_height + y) * out_width + x).to(tl.int64) * all_channels + channel
        given = _three(grad_at, at, inside, before, after, tl.float32)
        added = ()
        if window == 1:
            for i in tl.static_range(8 + 2 * reach):
                added = added + (grad[i] + given[8 - reach + i],)
        else:
            chosen = _three(chosen_at, at, inside, before, after, tl.int32)
            place = down * window + right
            for i in tl.static_range(8 + 2 * reach):
                ours = chosen[8 - reach + i] == place
                added = added + (grad[i] + tl.where(ours, given[8 - reach + i], 0.0),)
        grad = added
    return grad


@triton.jit
def _activations(x_at, at, here, before, after, bias, relu: tl.constexpr):
    """Return the activations of three groups."""
    x = _three(x_at, at, here, before, after, tl.float32)
    a = ()
    for i in tl.static_range(24):
        one = x[i] + bias[i]
        if relu:
            one = tl.maximum(one, 0.0, propagate_nan=tl.PropagateNan.ALL)  # as in PyTorch
        a = a + (one,)
    return a


@triton.jit
def _bases(a, scale, k, reach: tl.constexpr, more: tl.constexpr):
    """Return ``k + scale * energy`` of a group's channels and of `more` channels to either side."""
    squares, bases = (), ()
    for i in tl.static_range(24):
        squares = squares + (a[i] * a[i],)
    for i in tl.static_range(8 + 2 * more):
        energy = squares[8 - more - reach + i]
        for near in tl.static_range(2 * reach):
            energy += squares[8 - more - reach + i + 1 + near]
        bases = bases + (k + scale * energy,)
    return bases


@triton.jit
def _bias(at, channel, before, after, biased: tl.constexpr, block: tl.constexpr):
    """Return the bias of three groups, zeros where there is none."""
    none = _eight(0, tl.float32, block)
    bias = none + none + none
    if biased:
        bias = _three(at, channel, channel >= 0, before, after, tl.float32)
    return bias


@triton.jit
def _three(from_, at, here, before, after, kind: tl.constexpr):
    """Load the group at a place and those beside it, as 24 variables of a type."""
    left = _apart(from_, at - 8, here & before, kind)
    return left + _apart(from_, at, here, kind) + _apart(from_, at + 8, here & after, kind)


@triton.jit
def _apart(from_, at, here, kind: tl.constexpr):
    """Load eight neighbours, zeros where they are not here, as a variable each."""
    at = at[:, None] + tl.arange(0, 8)[None, :]
    x = tl.load(from_ + at, mask=here[:, None], other=0).to(kind)
    even, odd = tl.split(x.reshape(x.shape[0], 4, 2))
    x04, x26 = tl.split(even.reshape(x.shape[0], 2, 2))
    x15, x37 = tl.split(odd.reshape(x.shape[0], 2, 2))
    x0, x4 = tl.split(x04)
    x2, x6 = tl.split(x26)
    x1, x5 = tl.split(x15)
    x3, x7 = tl.split(x37)
    return x0, x1, x2, x3, x4, x5, x6, x7


@triton.jit
def _write(to, at, here, x):
    """Store eight variables as neighbours."""
    even = tl.join(tl.join(x[0], x[4]), tl.join(x[2], x[6])).reshape(x[0].shape[0], 4)
    odd = tl.join(tl.join(x[1], x[5]), tl.join(x[3], x[7])).reshape(x[0].shape[0], 4)
    whole = tl.join(even, odd).reshape(x[0].shape[0], 8)
    at = at[:, None] + tl.arange(0, 8)[None, :]
    tl.store(to + at, whole.to(to.dtype.element_ty), mask=here[:, None])


@triton.jit
def _eight(value: tl.constexpr, kind: tl.constexpr, block: tl.constexpr):
    """Return eight variables of a value."""
    x = tl.full((block,), value, kind)
    return x, x, x, x, x, x, x, x
