"""Every image once an epoch, any step by itself, nothing lost when a thread fails."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.data.loader import evaluation_batches, training_batches, training_numbers
from alexnet.data.shards import Record
from alexnet.errors import DataError


@given(images=st.integers(1, 50), batch=st.integers(1, 64), seed=st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_every_epoch_has_every_image_once(images, batch, seed):
    steps = -(-3 * images // batch)
    row = list(
        itertools.chain.from_iterable(
            training_numbers(images, batch, step, seed) for step in range(steps)
        )
    )
    for epoch in range(3):
        assert sorted(row[epoch * images : (epoch + 1) * images]) == list(range(images))


def test_no_epoch_is_a_shifted_copy_of_another():
    """By chance one image in 500 is at the same place, whatever the shift."""
    orders = [
        np.array(training_numbers(500, 500, epoch, seed)) for seed in (0, 1) for epoch in (0, 1, 2)
    ]
    for one, other in itertools.combinations(orders, 2):
        for shift in range(-12, 13):
            assert (np.roll(one, shift) == other).mean() < 0.02


def test_epochs_and_seeds_differ():
    first, second = (training_numbers(50, 50, step, 0) for step in (0, 1))
    assert first != second
    assert first != training_numbers(50, 50, 0, 1)


def test_batches_begin_at_any_step(prepared):
    split = prepared.splits["train"]
    whole = list(itertools.islice(training_batches(split, 8, 5, 0), 12))
    tail = list(itertools.islice(training_batches(split, 8, 5, 7), 5))
    for before, after in zip(whole[7:], tail, strict=True):
        assert before.numbers == after.numbers
        assert torch.equal(before.images, after.images)
        assert torch.equal(before.labels, after.labels)


def test_evaluation_takes_each_image_once_in_order(prepared):
    split = prepared.splits["test"]
    batches = list(evaluation_batches(split, 5))
    assert [len(batch.labels) for batch in batches] == [5, 5, 2]
    assert list(itertools.chain.from_iterable(batch.numbers for batch in batches)) == list(
        range(12)
    )
    assert Counter(torch.cat([b.labels for b in batches]).tolist()) == {0: 6, 1: 6}


class Damaged:
    """A split whose fourth image has been overwritten on the disk."""

    name = "train"
    labels = np.zeros(8, np.int32)

    def __init__(self, split):
        self.split = split

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return Record(b"overwritten", 0, "cell.png") if index == 3 else self.split[index]


def test_a_damaged_image_stops_with_its_name(prepared):
    with pytest.raises(DataError, match=r"'cell.png', number 3 of the train split, is damaged"):
        list(evaluation_batches(Damaged(prepared.splits["train"]), 4))
