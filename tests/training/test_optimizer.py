"""The paper's rule, number by number, and its schedules."""

import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from alexnet.errors import ConfigError
from alexnet.recipes import AS_RUN, CAFFE, FAST, PAPER, LayerDecay
from alexnet.training.optimizer import (
    Rates,
    count_reductions,
    learning_rates_at,
    make_optimizer,
    update,
)


def one_weight():
    network = nn.Sequential()
    network.add_module("fc6", nn.Linear(1, 1))
    with torch.no_grad():
        network.fc6.weight.fill_(1.0)
        network.fc6.bias.fill_(1.0)
    return network.double()


def steps(recipe, rates, gradients):
    """Return the weight and bias after each update."""
    network = one_weight()
    optimizer = make_optimizer(network, recipe)
    seen = []
    for rate, gradient in zip(rates, gradients, strict=True):
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        update(optimizer, Rates(rate, rate, rate, rate), recipe)
        seen.append((network.fc6.weight.item(), network.fc6.bias.item()))
    return seen


def test_the_rule_across_a_drop_by_hand():
    """Section 5: v <- .9 v - .0005 e w - e g; w <- w + v, with e from .1 to .01 after two steps.

    Weight, worked out by hand with decay 0.5 in place of .0005 so that it shows:
    v1 = -.05 - .2 = -.25, w1 = .75; v2 = -.225 - .0375 - .1 = -.3625, w2 = .3875;
    v3 = -.32625 - .0019375 - .02 = -.3481875, w3 = .0393125, where a rule that rescales
    the velocity would have moved ten times less.
    """
    recipe = PAPER.with_(weight_decay=0.5)
    seen = steps(recipe, [0.1, 0.1, 0.01], [2.0, 1.0, 2.0])
    assert [weight for weight, _ in seen] == pytest.approx([0.75, 0.3875, 0.0393125], rel=1e-12)
    # The bias has no decay: v = -.2, -.28, -.272.
    assert [bias for _, bias in seen] == pytest.approx([0.8, 0.52, 0.248], rel=1e-12)


def test_the_rate_outside_the_velocity_is_pytorchs_rule():
    rates, gradients = [0.1, 0.1, 0.01, 0.02], [2.0, 1.0, 2.0, -1.0]
    seen = steps(PAPER.with_(lr_inside_velocity=False, weight_decay=0.5), rates, gradients)
    weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
    theirs = torch.optim.SGD([weight], lr=0.1, momentum=0.9, weight_decay=0.5)
    for (ours, _), rate, gradient in zip(seen, rates, gradients, strict=True):
        theirs.param_groups[0]["lr"] = rate
        weight.grad = torch.full_like(weight, gradient)
        theirs.step()
        assert ours == pytest.approx(weight.item(), rel=1e-12)


def test_a_rate_of_zero_freezes_the_velocity_too():
    """Facts 3a: the update is skipped, so the step after goes on as if it had not been."""
    with_pause = steps(PAPER, [0.1, 0.0, 0.1], [1.0, 5.0, 1.0])
    without = steps(PAPER, [0.1, 0.1], [1.0, 1.0])
    assert with_pause[0] == with_pause[1]
    assert with_pause[2] == pytest.approx(without[1], rel=1e-12)


def test_groups_are_weights_and_biases_with_conv1_apart():
    from alexnet.network import build
    from alexnet.variants import PAPER as NETWORK

    network = build(replace(NETWORK, num_classes=2), None)
    optimizer = make_optimizer(network, PAPER)
    sizes = {group.name: len(group.parameters) for group in optimizer.groups}
    decays = {group.name: group.weight_decay for group in optimizer.groups}
    assert sizes == {"weights": 7, "biases": 7, "conv1_weights": 1, "conv1_biases": 1}
    assert decays == {"weights": 5e-4, "biases": 0, "conv1_weights": 5e-4, "conv1_biases": 0}


def test_frozen_layers_are_in_no_group_and_nothing_moves_them():
    """No decay, no momentum, whatever the rates: the bits stay."""
    from alexnet.network import build, freeze
    from alexnet.variants import CIFAR_QUICK

    network = build(CIFAR_QUICK)
    freeze(network, ["conv1", "fc64"])
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimizer = make_optimizer(network, PAPER)
    sizes = {group.name: len(group.parameters) for group in optimizer.groups}
    assert sizes == {"weights": 3, "biases": 3, "conv1_weights": 0, "conv1_biases": 0}
    for _ in range(3):
        network(torch.ones(2, 3, 32, 32)).square().sum().backward()
        update(optimizer, Rates(0.1, 0.1, 0.1, 0.1), PAPER)
    after = network.state_dict()
    still = {name.split(".")[0] for name in after if torch.equal(after[name], before[name])}
    assert still == {"conv1", "fc64"}


@pytest.mark.parametrize(
    ("epoch", "weights", "biases", "conv1", "conv1_biases"),
    [
        (0, 1e-2, 2e-2, 1e-2, 2e-2),
        (24.9, 1e-2, 2e-2, 1e-2, 2e-2),
        (25, 1e-3, 2e-2, 1e-3, 2e-2),
        (51, 1e-4, 2e-2, 1e-4, 2e-2),
        (67, 1e-4, 2e-2, 1e-5, 2e-2),
        (72, 1e-4, 2e-2, 0, 0),
        (79, 1e-5, 2e-2, 0, 0),
    ],
)
def test_as_run_has_the_rates_of_the_log(epoch, weights, biases, conv1, conv1_biases):
    """Facts 3b, run 145."""
    rates = learning_rates_at(AS_RUN, epoch / 90 + 1e-9)
    got = (rates.weights, rates.biases, rates.conv1_weights, rates.conv1_biases)
    assert got == pytest.approx((weights, biases, conv1, conv1_biases))


def test_caffe_drops_every_hundred_thousand_of_450_000():
    rates = [
        learning_rates_at(CAFFE, step / 450_000).weights for step in (0, 99_999, 100_001, 400_001)
    ]
    assert rates == pytest.approx([1e-2, 1e-2, 1e-3, 1e-6])


def test_one_cycle_rises_to_the_rate_and_falls_to_nothing():
    rates = [learning_rates_at(FAST, i / 1000).weights for i in range(1001)]
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(FAST.lr)
    assert top == pytest.approx(1000 * FAST.warmup, abs=1)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert 0 < rates[-1] < 1e-6


@pytest.mark.parametrize(
    ("errors", "stalls"),
    [
        ([], 0),
        ([0.9, 0.8, 0.7], 0),
        ([0.5, 0.5, 0.6], 1),  # two no better than the best before them
        ([0.5, 0.6, 0.4, 0.5, 0.4], 1),
        ([0.5, 0.6, 0.6, 0.6, 0.6], 2),
        ([0.5] * 20, 3),
        ([0.5, math.nan, math.nan], 1),
    ],
)
def test_the_error_has_stalled_when_it_has(errors, stalls):
    assert count_reductions(errors, patience=2, max_reductions=3) == stalls


def test_the_paper_divides_by_ten_at_each_stall():
    assert [learning_rates_at(PAPER, 0.5, stalls).weights for stalls in range(4)] == pytest.approx(
        [1e-2, 1e-3, 1e-4, 1e-5]
    )


def test_a_layer_may_have_a_decay_of_its_own():
    """Facts 6: .004 in one layer and 1 in another; biases decay nowhere, whoever asks for it."""
    plain = PAPER.with_(weight_decay=0.5)
    own = plain.with_(weight_decays=(LayerDecay(name="fc6", decay=0.25),))
    other = plain.with_(weight_decays=(LayerDecay(name="fc7", decay=0.25),))
    rates, gradients = [0.1, 0.1], [2.0, 1.0]
    assert steps(own, rates, gradients) == steps(plain.with_(weight_decay=0.25), rates, gradients)
    assert steps(other, rates, gradients) == steps(plain, rates, gradients)


def test_a_decay_below_0_is_refused():
    with pytest.raises(ConfigError, match="fc6"):
        PAPER.with_(weight_decays=(LayerDecay(name="fc6", decay=-1.0),))


STEP = """
import sys, torch
from alexnet.fused import fuse
from alexnet.network import build
from alexnet.recipes import FAST
from alexnet.training.optimizer import Rates, make_optimizer, update
from alexnet.variants import PAPER, narrow
network = build(narrow(PAPER, 2))
optimizer = make_optimizer(network, FAST)
fuse(network)(torch.randn(2, 3, 227, 227)).square().mean().backward()
update(optimizer, Rates(1e-3, 1e-3, 1e-3, 1e-3), FAST)
print("torch._dynamo" in sys.modules)
"""


def test_a_step_loads_no_compiler():
    """`torch.optim` and the operators of `torch.library` would: seconds of every start."""
    done = subprocess.run([sys.executable, "-c", STEP], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
