"""Each switch changes one thing."""

import itertools
from dataclasses import replace

import pytest
import torch

from alexnet.api import switched
from alexnet.config import differences
from alexnet.errors import ConfigError
from alexnet.network import build
from alexnet.variants import (
    AS_RUN,
    PAPER,
    SINGLE,
    network_named,
    with_input,
    with_lrn,
    without_layer,
    without_lrn,
    without_overlap,
)


def test_an_unknown_network_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'paper'"):
        network_named("papr")


def test_plain_pooling_keeps_the_head_at_6x6():
    """Facts 1a: 55 -> 28 -> 26 -> 13 -> 13 -> 11 -> 6."""
    sizes = [layer.size for layer in without_overlap(PAPER).layers()]
    assert sizes[:9] == [227, 55, 28, 26, 13, 13, 13, 11, 6]
    assert without_overlap(PAPER).parameters == PAPER.parameters


@pytest.mark.parametrize("form", ["227", "224-overhang", "224-padded"])
def test_every_answer_to_224_or_227_gives_55(form):
    changed = with_input(SINGLE, form)
    assert [layer.size for layer in changed.layers()][1] == 55
    assert changed.parameters == SINGLE.parameters


@pytest.mark.parametrize("name", ["conv3", "conv4", "conv5"])
def test_a_layer_can_be_taken_out_and_the_head_still_sees_6x6(name):
    changed = without_layer(PAPER, name)
    assert name not in [conv.name for conv in changed.convs]
    assert changed.flat[1] == 6
    assert sum(p.numel() for p in build(changed, None).parameters()) == changed.parameters


FAMILY = ("single", "paper", "as_run", "caffe", "caffenet", "torchvision")
SWITCHES = {
    "num_classes": (10,),
    "towers": (1, 2),
    "activation": ("tanh",),
    "lrn": (False,),
    "overlapping": (False,),
    "dropout": (0.0,),
    "input": ("227", "224-overhang", "224-padded"),
    "without": ("conv3", "conv4", "conv5"),
}


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("pair", list(itertools.combinations(SWITCHES, 2)), ids="-".join)
def test_under_every_pair_of_switches_the_head_sees_6x6(name, pair):
    for values in itertools.product(*(SWITCHES[switch] for switch in pair)):
        spec = switched(name, **dict(zip(pair, values, strict=True)))
        assert spec.flat == (spec.convs[-1].out_channels, 6), values
        with torch.device("meta"):
            network = build(spec, None)
        assert sum(p.numel() for p in network.parameters()) == spec.parameters


@pytest.mark.parametrize("name", ["conv3", "conv4", "conv5"])
@pytest.mark.parametrize("network", FAMILY)
def test_a_layer_and_overlap_are_taken_out_in_either_order(network, name):
    spec = network_named(network)
    assert without_overlap(without_layer(spec, name)) == without_layer(without_overlap(spec), name)


@pytest.mark.parametrize("name", ["cifar_quick", "cifar_local"])
def test_pools_that_round_up_need_no_less_padding_without_overlap(name):
    """32 -> 16 -> 8 -> 4 with either window."""
    spec = network_named(name)
    changed = without_overlap(spec)
    assert [layer.size for layer in changed.layers()] == [layer.size for layer in spec.layers()]
    assert [conv.padding for conv in changed.convs] == [conv.padding for conv in spec.convs]


def test_conv1_cannot_be_taken_out():
    with pytest.raises(ConfigError, match="'conv1' cannot be taken out"):
        without_layer(PAPER, "conv1")


def test_without_lrn_has_no_norm_of_either_kind():
    names = dict(build(without_lrn(AS_RUN), None).named_children())
    assert not [name for name in names if "norm" in name]


def test_lrn_constants_change_in_every_layer():
    changed = with_lrn(PAPER, k=1.5)
    assert differences(PAPER, changed) == {
        "convs.conv1.norm.k": (2.0, 1.5),
        "convs.conv2.norm.k": (2.0, 1.5),
    }


def test_paper_and_as_run_differ_in_named_fields_only():
    """Facts 1b, line by line."""
    changed = differences(PAPER, AS_RUN)
    assert set(changed) == {
        "name", "image_size", "convs.conv1.asymmetric_padding", "convs.conv1.order",
        "convs.conv1.norm.alpha", "convs.conv2.norm.alpha",
        *(f"convs.conv2.within_channel_lrn{tail}" for tail in
          (".size", ".alpha", ".beta", ".k")),
        "convs.conv3.std", "convs.conv4.std", "convs.conv5.std",
    }  # fmt: skip
    assert changed["convs.conv3.std"] == (0.01, 0.03)


def test_single_is_the_paper_in_one_tower_with_the_weights_of_the_source():
    assert set(differences(PAPER, SINGLE)) == {
        "name", "towers", "convs.conv3.std", "convs.conv4.std", "convs.conv5.std",
    }  # fmt: skip


@pytest.mark.parametrize("activation", ["ReLU", "gelu", "linear", ""])
def test_an_activation_is_one_of_two(activation):
    with pytest.raises(ConfigError, match=rf"activation is '{activation}'. It must be one of"):
        switched("single", activation=activation)


@pytest.mark.parametrize("switch", ["lrn", "overlapping"])
@pytest.mark.parametrize("given", ["off", 0, None])
def test_a_switch_is_on_or_off(switch, given):
    with pytest.raises(ConfigError, match=rf"{switch} is {given!r}. It must be True or False."):
        switched("single", **{switch: given})


def test_switches_combine():
    changed = replace(
        without_overlap(without_lrn(with_input(PAPER, "224-overhang"))), activation="tanh"
    )
    assert "tanh5" in dict(build(changed, None).named_children())
