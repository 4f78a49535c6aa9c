"""The Triton kernels in Triton's interpreter, in a process of its own.

The interpreter must be chosen before Triton is imported, and would stay chosen for other tests.
Writes, for each of `CASES`, the output and the gradient, and checks what needs the operator itself.
"""

import os
import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from alexnet.spec import LRN


@dataclass(frozen=True)
class Case:
    maps: int
    groups: int
    norm: LRN
    relu: bool = True
    type: torch.dtype = torch.float32
    pixels: tuple[int, int, int] = (2, 5, 3)  # images, height, width
    channels_last: bool = True

    def inputs(self) -> tuple[Tensor, Tensor]:
        """Return activations, some of them zero, and a gradient."""
        draws = torch.Generator().manual_seed(self.maps)
        images, height, width = self.pixels
        x, grad = torch.randn(2, images, self.maps, height, width, generator=draws).to(self.type)
        x = torch.where(x.abs() < 0.1, torch.zeros_like(x), x * 3)
        form = torch.channels_last if self.channels_last else torch.contiguous_format
        return x.contiguous(memory_format=form), grad


def norm(size: int, beta: float = 0.75, k: float = 2, alpha: float = 0.7) -> LRN:
    """Return constants with which the sum matters."""
    return LRN(size=size, alpha_over_n=alpha, beta=beta, k=k)


BF16 = torch.bfloat16
CASES = [
    Case(96, 1, norm(5)),  # conv1 of `single`: two tiles
    Case(96, 2, norm(5)),  # of `paper`: one a tower
    Case(256, 1, norm(5), pixels=(1, 3, 3)),
    Case(12, 1, norm(3, beta=0.6, k=1.3), relu=False),
    Case(14, 2, norm(9, k=1)),
    Case(100, 1, norm(9), relu=False),
    Case(130, 1, norm(4, beta=0.5, k=1.1)),  # even: what a window sees and is seen by differ
    Case(65, 1, norm(2, beta=1.0)),
    Case(200, 2, norm(19), pixels=(1, 2, 2)),  # halos wider than usual
    Case(3, 1, norm(5)),
    Case(1, 1, norm(1), relu=False),
    Case(12, 1, norm(5), pixels=(3, 9, 11)),  # several blocks of rows, the last one short
    Case(12, 1, norm(5), channels_last=False),
    Case(70, 1, norm(3, k=1e-3, alpha=3)),  # a sum that is all there is
    Case(96, 1, norm(5), type=BF16),
    Case(96, 2, norm(5), type=BF16),
    Case(100, 1, norm(9, beta=0.6), relu=False, type=BF16),
    Case(26, 2, norm(3, k=1), type=BF16),
]


def main(out: str) -> None:
    """Save outputs and gradients of all cases."""
    from alexnet.kernels import triton_lrn as kernels

    found = []
    for case in CASES:
        x, grad = case.inputs()
        x.requires_grad_()
        one = case.norm
        constants = (one.size, one.alpha_over_n, one.beta, one.k, case.groups, case.relu)
        y = kernels.triton_lrn(x, *constants)
        y.backward(grad)
        assert y.is_contiguous(memory_format=torch.channels_last)
        found.append((y.detach(), x.grad))
    one_call()
    many_blocks()
    no_numbers()
    torch.save(found, out)


def one_call() -> None:
    """The operator is what PyTorch asks of one, and its compiler keeps it as one call."""
    from alexnet.kernels.triton_lrn import triton_lrn

    x = CASES[3].inputs()[0].requires_grad_()
    torch.library.opcheck(triton_lrn, (x, 5, 0.7, 0.75, 2.0, 2, True))
    seen = []

    def look(graph, inputs):
        seen.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    def network(x):
        return triton_lrn(x + 1, 5, 0.7, 0.75, 2.0, 2, True) * 2

    compiled = torch.compile(network, backend=look, fullgraph=True)
    torch.testing.assert_close(compiled(x), network(x), rtol=0, atol=0)
    assert sum("lrn" in name for name in seen) == 1, seen


def many_blocks() -> None:
    """A program that has several blocks does them all."""
    from alexnet.kernels import triton_lrn as kernels

    x = torch.randn(1, 16, 20, 20).contiguous(memory_format=torch.channels_last)
    whole = kernels.triton_lrn(x, 5, 0.7, 0.75, 2.0, 1, True)
    kernels.PROGRAMS = 3  # of 7 blocks
    torch.testing.assert_close(
        kernels.triton_lrn(x, 5, 0.7, 0.75, 2.0, 1, True), whole, rtol=0, atol=0
    )
    assert kernels.triton_lrn(x[:0], 5, 0.7, 0.75, 2.0, 1, True).shape == (0, 16, 20, 20)


def no_numbers() -> None:
    """What is no number stays so through the ReLU, and in its own pixel."""
    from alexnet.kernels.triton_lrn import triton_lrn

    x = torch.ones(1, 8, 1, 2)
    x[0, 3, 0, 1] = float("nan")
    y = triton_lrn(x, 3, 0.7, 0.75, 2.0, 1, True)
    assert y[0, 3, 0, 1].isnan()
    assert y[..., 0].isfinite().all()


if __name__ == "__main__":
    assert os.environ["TRITON_INTERPRET"] == "1"
    main(sys.argv[1])
