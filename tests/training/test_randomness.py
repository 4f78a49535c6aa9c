"""Everything random is a function of the seed, the step and the image, and stays what it was."""

import hashlib
import itertools
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from alexnet.errors import DataError
from alexnet.layers import Dropout
from alexnet.training.randomness import (
    Order,
    make_generator,
    sample_params,
    seed_dropout,
    step_seed,
)

# Digests of what was drawn before all of it was drawn in one module (83060ce); a run that was begun
# then goes on bit for bit.
ORDERS = {"run-on": "79e8c45c2f7001fc", "short": "ddc12c60db20c3c3", "drop": "022dcfed5342794e"}
PARAMS = {
    (): "8b0af496ffe3a617",
    (("centred", True),): "83b7c1124af22255",
    (("mirror", False),): "a9ff375dce75941e",
    (("crop_area", 0.35),): "b8ee96ca63cc0506",  # since 2026-11-30: before, AMD and Intel differed
}
MASKS = "976852d5c4f5e11d"


def digest(arrays):
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


@pytest.mark.parametrize(("last_batch", "known"), ORDERS.items())
def test_the_order_of_images_is_what_it_was(last_batch, known):
    order = Order(103, 8, 7, last_batch)
    assert digest(order.indices(step) for step in range(40)) == known


@pytest.mark.parametrize(("flags", "known"), PARAMS.items())
def test_crops_mirrors_and_colours_are_what_they_were(flags, known):
    drawn = []
    for step in (1, 2, 1000):
        params = sample_params(12, 256, 227, make_generator(7, step), **dict(flags))
        drawn += [params.crop_offsets, params.mirrored, params.noise, params.boxes]
    assert digest(tensor.numpy() for tensor in drawn if tensor is not None) == known


def test_dropout_masks_are_what_they_were():
    layers = OrderedDict(fc6drop=Dropout(0.5), fc7drop=Dropout(0.5, "2012"))
    network, masked = nn.Sequential(layers), []
    for step in (1, 2, 1000):
        seed_dropout(network, step_seed(7, step), torch.arange(12) + 4)
        masked += [layer(torch.ones(12, 64)).numpy() for layer in network]
    assert digest(masked) == MASKS


def test_what_takes_the_place_of_a_corrupt_image_follows_it():
    found = list(Order(36, 8, 7).replacements(34))
    assert found[:4] == [35, 0, 1, 2]
    assert len(found) == 999


@given(images=st.integers(1, 50), batch=st.integers(1, 64), seed=st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_every_epoch_has_every_image_once(images, batch, seed):
    order = Order(images, batch, seed)
    row = np.concatenate([order.indices(step) for step in range(-(-3 * images // batch))])
    for epoch in range(3):
        assert sorted(row[epoch * images : (epoch + 1) * images]) == list(range(images))


@pytest.mark.parametrize(("last", "sizes"), [("short", [4, 4, 2]), ("drop", [4, 4])])
def test_the_last_batch_of_an_epoch_is_as_asked(last, sizes):
    order = Order(10, 4, 7, last)
    steps = len(sizes)
    assert order.steps(3) == 3 * steps
    batches = [order.indices(step) for step in range(3 * steps)]
    assert [len(batch) for batch in batches] == sizes * 3
    for epoch in range(3):
        seen = np.concatenate(batches[epoch * steps : (epoch + 1) * steps])
        assert len(set(seen.tolist())) == sum(sizes)


def test_an_epoch_without_a_whole_batch_is_refused():
    with pytest.raises(DataError, match="3 images make no batch of 4"):
        Order(3, 4, 0, "drop")


def test_no_epoch_is_a_shifted_copy_of_another():
    """By chance one image in 500 is at the same place, whatever the shift."""
    orders = [Order(500, 500, seed).indices(epoch) for seed in (0, 1) for epoch in (0, 1, 2)]
    for one, other in itertools.combinations(orders, 2):
        for shift in range(-12, 13):
            assert (np.roll(one, shift) == other).mean() < 0.02


def test_seeded_dropout_is_a_function_of_the_seed_the_image_and_the_unit_alone():
    """Parts of a batch and parts of a layer have the masks of the whole, in any type."""
    network, ones = nn.Sequential(Dropout(0.5)), torch.ones(6, 64)
    seed_dropout(network, 7, torch.arange(6))
    whole = network(ones)
    seed_dropout(network, 7, torch.tensor([4, 5]))
    assert torch.equal(network(ones[:2].double()).float(), whole[4:])
    upper = nn.Sequential(Dropout(0.5, first_unit=32))
    seed_dropout(upper, 7, torch.arange(6))
    assert torch.equal(upper(ones[:, :32]), whole[:, 32:])
    seed_dropout(network, 8, torch.arange(6))
    assert not torch.equal(network(ones), whole)


def test_seeded_masks_have_no_pattern():
    """Rates, and correlations between images, units and steps, are those of independent draws.

    Bounds: 6 standard deviations, of the mean of 50 x 64 x 1,024 draws and of the largest of some
    2,000 to 500,000 correlations (5.2 is expected of half a million).
    """
    network, ones, masks = nn.Sequential(Dropout(0.5)), torch.ones(64, 1024), []
    for seed in range(50):
        seed_dropout(network, seed, torch.arange(64))
        masks.append((network(ones) > 0).double())
    drawn = torch.stack(masks)
    assert abs(drawn.mean().item() - 0.5) < 6 * 0.5 / drawn.numel() ** 0.5
    for series in (drawn[0], drawn[0].T, drawn.flatten(1)):
        correlations = torch.corrcoef(series).fill_diagonal_(0)
        assert correlations.abs().max() < 6 / series.shape[1] ** 0.5
