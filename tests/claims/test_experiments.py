"""Each claim compares two arms that differ in what it says, and in nothing else."""

from dataclasses import replace

import pytest

from alexnet.claims.claim import run_key, varied_fields
from alexnet.claims.experiments import depth, make_claims, make_claims_and_checks, select_claims
from alexnet.claims.grid import split_by_order
from alexnet.claims.scales import (
    CIFAR_FULL,
    FOUR_LAYERS,
    IMAGENET,
    LOCAL_11,
    LOCAL_13,
    NIGHT,
    SCALES,
    SMALL,
    halve,
    merge_towers,
    shrink,
)
from alexnet.errors import ConfigError
from alexnet.variants import PAPER, SINGLE

ALL = [(scale, claim) for scale in SCALES.values() for claim in make_claims(scale)]
NAMES = [f"{scale.name}-{claim.name}" for scale, claim in ALL]

# Claims whose one switch is two fields of ours: the paper counts crops and mirror images as one
# form of augmentation; a tower is its maps and their groups; at full size, 2/2 pools need the
# padding and rounding that keep the last map at 6x6 (facts 1a). Biases are of convolutions and of
# fully-connected layers.
TWO_FIELDS = {"augment", "towers", "overlap", "alive-first", "alive-last"}


@pytest.mark.parametrize(("scale", "claim"), ALL, ids=NAMES)
def test_the_arms_differ_in_what_the_claim_names(scale, claim):
    assert varied_fields(claim.first, claim.second) == claim.varied
    assert claim.varied


@pytest.mark.parametrize(("scale", "claim"), ALL, ids=NAMES)
def test_one_switch_is_one_field_unless_it_is_said_that_it_is_not(scale, claim):
    if claim.confounded:
        assert len(claim.varied) > 1
    elif claim.name not in TWO_FIELDS:
        assert len(claim.varied) == 1


def test_what_made_the_network_win_is_asked_first():
    first, then = split_by_order(make_claims(NIGHT))
    assert {claim.group for claim in first} == {"lrn", "overlap", "dropout", "augment", "pca"}
    assert "pca-copied" in {claim.name for claim in then}
    assert {*first, *then} == {*make_claims(NIGHT)}


def test_the_features_share_a_network_that_nothing_else_regularises():
    claims = {claim.name: claim for claim in make_claims(NIGHT)}
    plain = claims["lrn"].second
    for arm in (claims["overlap"].second, claims["augment"].first, claims["pca"].first):
        assert (arm.spec, arm.recipe) == (plain.spec, plain.recipe)
    assert (plain.spec.dropout.rate, plain.recipe.crop, plain.recipe.mirror) == (0, "centre", False)


def test_the_difference_is_found_by_hand_too():
    """`varied_fields` against pairs of which the difference is known."""
    one = make_claims(SMALL)[0].first
    same = replace(one, name="the same")
    assert varied_fields(one, same) == frozenset()
    changed = replace(one, spec=one.spec.with_layers("conv1", out_channels=16), measure="gap")
    assert varied_fields(one, changed) == {"spec.convs.out_channels", "measure"}
    rate = replace(one, recipe=one.recipe.with_(lr=0.5, seed=7))
    assert varied_fields(one, rate) == {"recipe.lr"}
    bare = replace(one, spec=one.spec.with_layers("conv1", pool=None))
    assert "spec.convs.pool" in varied_fields(one, bare)
    assert not any(path.startswith("spec.convs.pool.") for path in varied_fields(one, bare))


def test_the_confounded_pair_is_the_four_things_of_2012():
    """Facts 6."""
    claim = next(c for c in make_claims(CIFAR_FULL) if c.name == "lrn-confounded")
    assert "four things" in claim.paper
    assert claim.varied == {
        "spec.convs.norm", "spec.convs.out_channels", "recipe.epochs", "recipe.milestones",
        "recipe.weight_decays.decay",
    }  # fmt: skip
    maps = [
        {conv.name: conv.out_channels for conv in arm.spec.convs}
        for arm in (claim.first, claim.second)
    ]
    assert maps == [
        {"conv1": 64, "conv2": 64, "local3": 32, "local4": 32},
        {"conv1": 64, "conv2": 64, "local3": 64, "local4": 32},
    ]
    decays = [arm.recipe.weight_decays[-1].decay for arm in (claim.first, claim.second)]
    assert decays == [0.004, 0.01]


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_every_claim_of_the_document_is_there_at_every_scale(scale):
    wanted = {
        "relu", "lrn", "lrn-order", "lrn-span", "lrn-alpha", "overlap", "dropout", "augment",
        "pca", "pca-eigenvalues", "pca-copied", "depth", "towers", "init", "alive",
        "counts", "dropout-identity",
    }  # fmt: skip
    if scale.without_lrn is not None:
        wanted.add("lrn-confounded")
    assert {claim.group for claim in make_claims_and_checks(scale)} == wanted
    names = [claim.name for claim in make_claims_and_checks(scale)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("scale", "claim"), ALL, ids=NAMES)
def test_the_last_epoch_is_tested(scale, claim):
    """The test error that counts is that of the end."""
    for arm in (claim.first, claim.second):
        assert arm.recipe.epochs % arm.recipe.validate_every == 0


@pytest.mark.parametrize(("scale", "alike"), [("night", {"conv4", "conv5"}), ("small", set())])
def test_a_claim_says_where_another_compares_the_same_networks(scale, alike):
    claims = depth(SCALES[scale])
    notes = {claim.switch: claim.note for claim in claims}
    assert {name for name, note in notes.items() if note} == alike
    assert all("conv4" in notes[name] or "conv5" in notes[name] for name in alike)
    trained = {run_key(claim.first.spec, claim.first.recipe, "data") for claim in claims}
    assert len(trained) == (2 if alike else 3)  # the same network is trained once


def test_claims_are_asked_for_by_name_or_group():
    claims = make_claims_and_checks(SMALL)
    assert [c.name for c in select_claims(claims, ["depth"])] == [
        "depth-conv3", "depth-conv4", "depth-conv5",
    ]  # fmt: skip
    assert [c.name for c in select_claims(claims, ["lrn"])] == ["lrn"]  # of five features one
    assert [c.name for c in select_claims(claims, ["depth-conv4", "counts"])] == [
        "depth-conv4",
        "counts",
    ]
    assert select_claims(claims, []) == claims
    with pytest.raises(ConfigError, match="Did you mean 'dropout'"):
        select_claims(claims, ["droput"])


def test_in_small_everything_but_the_size_is_the_papers():
    small, full = shrink(PAPER), PAPER
    for ours, theirs in zip(small.convs, full.convs, strict=True):
        kept = ("name", "grouped", "norm", "order", "bias", "within_channel_lrn")
        assert all(getattr(ours, field) == getattr(theirs, field) for field in kept)
        assert ours.out_channels * 4 == theirs.out_channels
        assert (ours.pool is None) == (theirs.pool is None)
    assert small.towers == 2
    assert small.dropout == full.dropout
    assert [layer.size for layer in small.layers() if layer.kind == "pool"] == [12, 6, 3]


def test_in_small_signals_keep_their_strength():
    """Standard deviation times the root of the inputs, of which each unit adds up so many."""
    small = shrink(PAPER)
    inputs = {"conv2": (5 * 5 * 48, 5 * 5 * 12), "conv4": (9 * 192, 9 * 48),
              "fc6": (9216, 576), "fc7": (4096, 512)}  # fmt: skip
    for name, (before, after) in inputs.items():
        assert small.layer(name).std * after**0.5 == pytest.approx(0.01 * before**0.5, rel=1e-3)
    assert small.output_std * 512**0.5 == pytest.approx(0.01 * 4096**0.5, rel=1e-3)


def test_towers_are_those_of_the_paper():
    """Facts 1a: net 145-half has 59,798,312 parameters, and one tower is `single`."""
    assert halve(PAPER).parameters == 59_798_312
    assert merge_towers(PAPER).parameters == SINGLE.parameters


def test_the_networks_of_2012_have_the_layers_of_their_files():
    """Facts 6."""
    assert [conv.out_channels for conv in FOUR_LAYERS.convs] == [32, 32, 64]
    assert not FOUR_LAYERS.dense
    assert all(conv.norm is None for conv in LOCAL_13.convs)
    assert [conv.norm is None for conv in LOCAL_11.convs] == [False, False, True, True]


def test_the_full_network_is_that_of_2012():
    claims = {claim.name: claim for claim in make_claims(IMAGENET)}
    assert claims["lrn"].second.spec.parameters == PAPER.parameters
    assert claims["lrn"].second.spec.layer("conv2").within_channel_lrn is not None
    assert claims["lrn"].first.spec.layer("conv2").within_channel_lrn is not None
    assert claims["lrn-confounded"].first.spec.layer("conv2").within_channel_lrn is None  # net 148
    assert claims["overlap"].first.spec.flat == (256, 6)  # net 147
