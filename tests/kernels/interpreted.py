"""The Triton kernels in Triton's interpreter, in a process of its own.

The interpreter must be chosen before Triton is imported, and would stay chosen for other tests.
Writes, for each of `CASES`, what `Case.ours` gives, and checks what needs the operator itself.
"""

import os
import sys
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.kernels.lrn_pool import KernelConfig
from alexnet.layers import local_response_norm
from alexnet.spec import LRN


@dataclass(frozen=True)
class Case:
    channels: int
    size: int = 5
    groups: int = 1
    relu: bool = True
    bias: bool = True
    window: int = 1
    stride: int = 1
    ceil: bool = False
    scale: float = 0.14
    k: float = 2.0
    type: torch.dtype = torch.float32
    pixels: tuple[int, int, int] = (2, 5, 3)  # images, height, width
    channels_last: bool = True

    @property
    def config(self) -> KernelConfig:
        return KernelConfig(self.groups, self.relu, self.size, self.window, self.stride, self.ceil)

    def inputs(self) -> tuple[Tensor, Tensor | None]:
        """Return activations, some of them zero, and a bias or none."""
        draws = torch.Generator().manual_seed(self.channels)
        images, height, width = self.pixels
        x = torch.randn(images, self.channels, height, width, generator=draws)
        x = torch.where(x.abs() < 0.1, torch.zeros_like(x), x * 3).to(self.type)
        bias = torch.randn(self.channels, generator=draws) if self.bias else None
        form = torch.channels_last if self.channels_last else torch.contiguous_format
        return x.contiguous(memory_format=form), bias

    def ours(self, device: str = "cpu") -> tuple[Tensor, ...]:
        """Return the output, the gradient of the input, and that of the bias where there is one."""
        from alexnet.kernels.lrn_pool import triton_lrn_pool

        x, bias = self.inputs()
        x = x.to(device).requires_grad_()
        bias = bias if bias is None else bias.to(device).requires_grad_()
        y, _ = triton_lrn_pool(x, bias, self.config, self.scale, self.k, True)
        assert y.is_contiguous(memory_format=torch.channels_last)
        y.backward(given(y))
        return (y.detach(), x.grad) if bias is None else (y.detach(), x.grad, bias.grad)

    def plain(self) -> tuple[Tensor, ...]:
        """Return the same of the plain layers, in float64."""
        x, bias = self.inputs()
        x = x.double().requires_grad_()
        bias = bias if bias is None else bias.double().requires_grad_()
        a = x if bias is None else x + bias[:, None, None]
        norm = LRN(size=self.size, alpha=self.scale * self.size, beta=0.75, k=self.k)
        y = local_response_norm(a.relu() if self.relu else a, norm, self.groups)
        y = F.max_pool2d(y, self.window, self.stride, ceil_mode=self.ceil)
        y.backward(given(y).to(self.type).double())
        return (y.detach(), x.grad) if bias is None else (y.detach(), x.grad, bias.grad)


def given(y: Tensor) -> Tensor:
    """Return the gradient that comes back, of the shape of an output."""
    draws = torch.Generator().manual_seed(y.numel())
    return torch.randn(y.shape, generator=draws).to(y)


BF16 = torch.bfloat16
POOL = {"window": 3, "stride": 2}
CASES = [
    Case(96),  # conv1 of `single`
    Case(96, groups=2),  # of `paper`
    Case(256, pixels=(1, 3, 3)),
    Case(16, 3, k=1.3, relu=False),
    Case(16, 9, 2, k=1, bias=False),  # towers of one group; as far as windows may reach
    Case(104, 9, relu=False, bias=False),
    Case(8, 7),
    Case(8, 1, relu=False),
    Case(24, pixels=(3, 9, 11)),  # several blocks, the last one short
    Case(24, channels_last=False),
    Case(72, 3, k=1e-3, scale=1.0),  # a sum that is all there is
    Case(96, **POOL, pixels=(2, 7, 9)),
    Case(96, groups=2, **POOL, pixels=(2, 9, 7)),
    Case(24, **POOL, ceil=True, pixels=(2, 8, 6), bias=False),  # windows that reach past the edge
    Case(24, relu=False, **POOL, pixels=(1, 5, 5)),  # the largest may be negative
    Case(16, window=2, stride=2, pixels=(3, 7, 6)),
    Case(16, window=2, stride=3, pixels=(2, 8, 9)),  # pixels that no window sees
    Case(16, window=4, stride=1, pixels=(1, 6, 7)),
    Case(96, type=BF16),
    Case(96, groups=2, type=BF16),
    Case(104, 9, relu=False, type=BF16),
    Case(32, 3, 2, k=1, type=BF16),
    Case(96, type=BF16, **POOL, pixels=(2, 7, 7)),
]


def main(out: str) -> None:
    """Save outputs and gradients of all cases."""
    found = [case.ours() for case in CASES]
    one_call()
    many_blocks()
    no_numbers()
    first_of_equals()
    torch.save(found, out)


def one_call() -> None:
    """The operator is what PyTorch asks of one, and its compiler keeps it as one call."""
    from alexnet.kernels.lrn_pool import triton_lrn_pool

    config = KernelConfig(2, 1, 5, 3, 2, 0)
    x, bias = CASES[3].inputs()
    x.requires_grad_()
    torch.library.opcheck(triton_lrn_pool, (x, bias.requires_grad_(), config, 0.14, 2.0, True))
    torch.library.opcheck(triton_lrn_pool, (x.detach(), None, config, 0.14, 2.0, False))
    seen = []

    def look(graph, inputs):
        seen.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    def network(x):
        return triton_lrn_pool(x + 1, bias, config, 0.14, 2.0, True)[0] * 2

    compiled = torch.compile(network, backend=look, fullgraph=True)
    torch.testing.assert_close(compiled(x), network(x), rtol=0, atol=0)
    assert sum("triton_lrn_pool" in name for name in seen) == 1, seen


def many_blocks() -> None:
    """A program that has several blocks does them all; without images there is nothing to do."""
    from alexnet.kernels import lrn_pool as kernels

    case = Case(16, pixels=(1, 20, 20))
    whole = case.ours()
    kernels.PROGRAMS = 3  # of 7 blocks
    for ours, theirs in zip(case.ours(), whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
    nothing = Case(16, pixels=(0, 20, 20)).ours()
    assert nothing[1].shape == (0, 16, 20, 20)
    assert not nothing[2].any()


def no_numbers() -> None:
    """What is no number stays so through the ReLU and the pooling, and in its own pixel."""
    from alexnet.kernels.lrn_pool import triton_lrn_pool

    x = torch.ones(1, 8, 1, 2)
    x[0, 3, 0, 1] = float("nan")
    y, _ = triton_lrn_pool(x, None, KernelConfig(1, 1, 3, 1, 1, 0), 0.23, 2.0, False)
    assert y[0, 3, 0, 1].isnan()
    assert y[..., 0].isfinite().all()
    y, _ = triton_lrn_pool(
        x.repeat(1, 1, 2, 1), None, KernelConfig(1, 1, 3, 2, 1, 0), 0.23, 2.0, False
    )
    assert y[0, 3].isnan().all()


def first_of_equals() -> None:
    """Of equal activations the first is chosen, as PyTorch's pooling does."""
    from alexnet.kernels.lrn_pool import triton_lrn_pool

    x = torch.ones(1, 16, 3, 3, requires_grad=True)
    triton_lrn_pool(x, None, KernelConfig(1, 1, 5, 3, 2, 0), 0.0, 1.0, True)[0].sum().backward()
    assert x.grad[:, :, 0, 0].eq(1).all()
    assert x.grad.sum() == 16


if __name__ == "__main__":
    assert os.environ["TRITON_INTERPRET"] == "1"
    main(sys.argv[1])
