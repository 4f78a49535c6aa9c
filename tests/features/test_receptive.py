"""The pixels a unit is said to see are those whose gradient is not zero, in the real network."""

from dataclasses import replace

import pytest
import torch

from alexnet.features import layer_shapes, receptive_field
from alexnet.network import build
from alexnet.variants import (
    AS_RUN,
    CIFAR_QUICK,
    NETWORKS,
    PAPER,
    plain_pooling,
    with_input,
)  # fmt: skip
from tests.test_network import narrow

ODD = replace(CIFAR_QUICK, name="odd", image=37)  # sizes at which windows leave pixels over
FORMS = [
    *NETWORKS.values(),
    ODD,
    replace(plain_pooling(PAPER), name="plain pooling"),
    replace(with_input(PAPER, "224-padded"), name="224 padded"),
    replace(AS_RUN, name="as_run 229", image=229),
]


def seen(network, layer, row, column, draws):
    """Return the box of pixels with a gradient, over several random images."""
    spec = network.spec
    touched = torch.zeros(spec.image, spec.image, dtype=torch.bool)
    for _ in range(6):
        x = torch.randn(2, 3, spec.image, spec.image, generator=draws).double().requires_grad_()
        out = network.activations(x, [layer])[layer]
        unit = out[..., row, column] if out.dim() == 4 else out
        (gradient,) = torch.autograd.grad(unit.sum(), x)
        touched |= (gradient != 0).any(0).any(0)
    rows, columns = torch.where(touched)
    return tuple(
        int(number) for number in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    )


@pytest.mark.parametrize("spec", FORMS, ids=[spec.name for spec in FORMS])
def test_the_box_of_a_unit_is_where_its_gradient_is_not_zero(spec):
    """Averages and tanh let every pixel through, where a maximum hides most of them."""
    convs = tuple(
        replace(c, pool=replace(c.pool, kind="average") if c.pool else None) for c in spec.convs
    )
    smooth = narrow(replace(spec, convs=convs, activation="tanh"), 16)
    names = [conv.name for conv in smooth.convs] + [layer.name for layer in smooth.dense]
    network = build(smooth.with_layers(*names, std=0.3, bias=0.0), seed=2).double().eval()
    draws = torch.Generator().manual_seed(3)
    wanted = [n for n in layer_shapes(smooth) if n.startswith(("conv", "local", "pool", "same"))]
    for layer in wanted:
        field = receptive_field(smooth, layer)
        last = field.side - 1
        for row, column in {(0, last), (last // 2, 0), (last, last // 3)}:
            assert field.box(row, column) == seen(network, layer, row, column, draws), layer
