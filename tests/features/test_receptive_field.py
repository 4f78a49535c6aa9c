"""The pixels a unit is said to see are those whose gradient is not zero, in the real network."""

from dataclasses import replace

import pytest
import torch

from alexnet.errors import ConfigError
from alexnet.features import layer_names, layer_shapes, receptive_field
from alexnet.network import build
from alexnet.variants import (
    AS_RUN,
    CIFAR_LOCAL,
    CIFAR_QUICK,
    NETWORKS,
    PAPER,
    SINGLE,
    with_input,
    without_overlap,
)
from tests.test_network import narrow

ODD = replace(CIFAR_QUICK, name="odd", image_size=37)  # sizes at which windows leave pixels over
FORMS = [
    *NETWORKS.values(),
    ODD,
    replace(without_overlap(PAPER), name="plain pooling"),
    replace(with_input(PAPER, "224-padded"), name="224 padded"),
    replace(AS_RUN, name="as_run 229", image_size=229),
]


def seen(network, layer, row, column, draws):
    """Return the box of pixels that have a gradient for an image of noise."""
    spec = network.spec
    x = torch.randn(1, 3, spec.image_size, spec.image_size, generator=draws).to(torch.float64)
    out = network.activations(x.requires_grad_(), [layer])[layer]
    (gradient,) = torch.autograd.grad(out[..., row, column].sum(), x)
    rows, columns = torch.where((gradient != 0).any(0).any(0))
    return (
        int(columns.min()),
        int(rows.min()),
        int(columns.max()) + 1,
        int(rows.max()) + 1,
    )


@pytest.mark.parametrize("spec", FORMS, ids=[spec.name for spec in FORMS])
def test_the_box_of_a_unit_is_where_its_gradient_is_not_zero(spec):
    """With averages and tanh, which let every pixel through where maxima hide most of them."""
    convs = tuple(
        replace(c, pool=replace(c.pool, kind="average") if c.pool else None) for c in spec.convs
    )
    smooth = narrow(replace(spec, convs=convs, activation="tanh"), 16)
    names = [conv.name for conv in smooth.convs]
    network = build(smooth.with_layers(*names, std=0.1, bias=0.0), seed=2).double().eval()
    draws = torch.Generator().manual_seed(3)
    wanted = [n for n in layer_shapes(smooth) if n.startswith(("conv", "local", "pool", "same"))]
    for layer in wanted:
        field = receptive_field(spec, layer)
        last = field.side - 1
        for row, column in {(0, last), (last // 2, 0), (last, last // 3)}:
            assert field.box(row, column) == seen(network, layer, row, column, draws), layer


def test_maxima_and_relus_never_reach_outside_the_box_and_do_reach_its_edges():
    network = build(CIFAR_QUICK.with_layers("conv1", "conv2", std=0.2), seed=4).double().eval()
    field, draws = receptive_field(CIFAR_QUICK, "relu2"), torch.Generator().manual_seed(5)
    boxes = [seen(network, "relu2", 7, 4, draws) for _ in range(60)]
    left, top, right, bottom = zip(*boxes, strict=True)
    assert (min(left), min(top), max(right), max(bottom)) == field.box(7, 4)


def test_sizes_are_those_of_the_arithmetic_of_the_paper():
    """Conv1 sees 11 pixels; pool5 of the paper's network 195, every 32 (arithmetic by hand)."""
    fields = {name: receptive_field(PAPER, name) for name in layer_names(PAPER)}
    found = [(fields[n].size, fields[n].stride) for n in ("conv1", "pool1", "conv2", "pool2")]
    assert found == [(11, 4), (19, 8), (51, 8), (67, 16)]
    assert [fields[n].size for n in ("conv3", "conv4", "conv5", "pool5")] == [99, 131, 163, 195]
    assert fields["norm1"].size == fields["relu1"].size == fields["conv1"].size
    assert receptive_field(AS_RUN, "within_channel_lrn2").size == 51 + 4 * 8
    for name in ("fc6", "relu7", "fc8"):
        assert fields[name].box(0, 0) == (0, 0, 227, 227)
    assert receptive_field(CIFAR_LOCAL, "fc10").box(0, 0) == (0, 0, 24, 24)


def test_units_that_are_not_there_are_refused():
    with pytest.raises(ConfigError, match="conv5 has no unit in row 13, column 0"):
        receptive_field(SINGLE, "conv5").box(13, 0)
    with pytest.raises(ConfigError, match="no layer 'conv6'"):
        receptive_field(SINGLE, "conv6")
