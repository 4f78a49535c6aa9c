"""Every image once an epoch, any step by itself, nothing lost when an image is damaged."""

import itertools
import json
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
import torch

from alexnet.data import decode
from alexnet.data.loader import ALONE, Part, evaluation_batches, train_batches
from alexnet.data.prepare import Options, prepare
from alexnet.data.shards import open_prepared
from alexnet.data.sources import open_source
from alexnet.errors import DataError
from alexnet.training.randomness import Order
from tests.conftest import damaged


def ordered_batches(split, order, first_step, part=ALONE):
    return train_batches(split, order.batches(first_step, part), order.replacements)


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_any_number_of_processes_sees_the_same_batches(prepared, ranks):
    """Scenario 5: what a step trains on does not depend on how many share it."""
    split, order = prepared.splits["train"], Order(36, 8, 3)
    parts = [ordered_batches(split, order, 2, Part(rank, ranks)) for rank in range(ranks)]
    for step in range(2, 6):
        together = [number for part in parts for number in next(part).indices]
        assert together == order.indices(step).tolist()


@pytest.mark.parametrize("ranks", [1, 2, 5, 13])
def test_any_number_of_processes_tests_every_image_once(prepared, ranks):
    split = prepared.splits["test"]
    seen = Counter(
        number
        for rank in range(ranks)
        for batch in evaluation_batches(split, 2, Part(rank, ranks))
        for number in batch.indices
    )
    assert seen == Counter(range(12))


def test_batches_begin_at_any_step(prepared):
    split, order = prepared.splits["train"], Order(36, 8, 5)
    whole = list(itertools.islice(ordered_batches(split, order, 0), 12))
    tail = list(itertools.islice(ordered_batches(split, order, 7), 5))
    for before, after in zip(whole[7:], tail, strict=True):
        assert before.indices == after.indices
        assert torch.equal(before.images, after.images)
        assert torch.equal(before.labels, after.labels)


def test_a_batch_holds_the_images_of_its_numbers(prepared):
    split = prepared.splits["train"]
    batch = next(ordered_batches(split, Order(36, 36, 1), 0))
    for at, number in enumerate(batch.indices):
        assert np.array_equal(batch.images[at].numpy(), split.pixels(number))
        assert batch.labels[at] == split[number].label


def test_evaluation_takes_each_image_once_in_order(prepared):
    split = prepared.splits["test"]
    batches = list(evaluation_batches(split, 5))
    assert [len(batch.labels) for batch in batches] == [5, 5, 2]
    assert list(itertools.chain.from_iterable(batch.indices for batch in batches)) == list(
        range(12)
    )
    assert Counter(torch.cat([b.labels for b in batches]).tolist()) == {0: 6, 1: 6}


def test_raw_shards_hold_the_same_pixels_without_a_jpeg_between(photographs, tmp_path):
    prepare(open_source(photographs), tmp_path / "raw", Options(size=64, raw=True))
    prepare(open_source(photographs), tmp_path / "fine", Options(size=64, quality=100))
    raw, fine = (open_prepared(tmp_path / name) for name in ("raw", "fine"))
    assert len(raw.splits["train"][0].image) == 64 * 64 * 3
    ours = next(evaluation_batches(raw.splits["train"], 36)).images
    near = next(evaluation_batches(fine.splits["train"], 36)).images
    assert (ours.int() - near.int()).abs().float().mean() < 1.0  # grey levels, of quality 100
    assert np.array_equal(raw.statistics.mean_image, fine.statistics.mean_image)


def test_a_damaged_training_image_is_named_and_replaced_by_the_next(prepared, tmp_path):
    data = damaged(prepared, tmp_path / "data", [3, 4])
    split = data.splits["train"]
    batch = next(ordered_batches(split, Order(36, 36, 0), 0))
    at = {number: place for place, number in enumerate(batch.indices)}
    assert sorted({one.index for one in batch.corrupt}) == [3, 4]
    for one in batch.corrupt:
        assert one.name.endswith(f"(row {one.index} of train-00000.arrow)")
        assert "checksum" in one.reason
    for number in (3, 4):
        assert np.array_equal(batch.images[at[number]].numpy(), split.pixels(5))
        assert batch.labels[at[number]] == split[5].label


def test_a_damaged_held_out_image_stops_at_once_with_its_name(prepared, tmp_path):
    """Scenario 20: the error surfaces within 5 seconds, whichever thread met it."""
    data = damaged(prepared, tmp_path / "data", [3])
    begun = time.monotonic()
    with pytest.raises(DataError, match=r"row 3 of train-00000.arrow\) is damaged: Its checksum"):
        list(evaluation_batches(data.splits["train"], 4))
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("harm", ["missing", "short"])
def test_a_missing_or_shortened_shard_is_a_sentence(prepared, tmp_path, harm):
    shutil.copytree(prepared.root, tmp_path / "data")
    shard = tmp_path / "data" / "train-00000.arrow"
    if harm == "missing":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:-100])
    split = open_prepared(tmp_path / "data").splits["train"]
    with pytest.raises(DataError, match=r"train-00000.arrow' (cannot be read|has .* bytes and sh)"):
        next(ordered_batches(split, Order(36, 4, 0), 0))


MILLIONS = """
import sys, time, resource
from alexnet.training.randomness import Order
from alexnet.data.shards import open_prepared
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begun = time.perf_counter()
data = open_prepared(sys.argv[1])
opened = time.perf_counter() - begun
order = Order(len(data.splits["train"]), 128, 0)
order.indices(0), order.indices(100_000), order.indices(10**7)
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(len(data.splits["train"]), opened, memory / 1024)
"""


@pytest.mark.slow  # 28,000 shards are written down, and read in a process of its own
def test_an_index_of_14_million_images_is_small_and_opens_at_once(prepared, tmp_path):
    """The issue's bound: under 200 MB, under a second; the seconds are doubled for a busy machine.

    The shards of ImageNet-21k are named in the manifest and not there: opening needs none.
    """
    shutil.copytree(prepared.root, tmp_path / "data")
    path = tmp_path / "data" / "dataset.json"
    manifest = json.loads(path.read_text())
    images = 14_197_122
    manifest["shards"]["train"] = [
        {"file": f"train-{n:05}.arrow", "images": 512, "bytes": 17_000_000, "sha256": f"{n:064x}"}
        for n in range(images // 512)
    ]
    images = images // 512 * 512
    manifest["counts"]["train"] = images
    path.write_text(json.dumps(manifest))
    done = subprocess.run(
        [sys.executable, "-c", MILLIONS, tmp_path / "data"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found, seconds, megabytes = (float(word) for word in done.stdout.split())
    assert found == images, done.stdout
    assert seconds < 2
    assert megabytes < 200


def test_memory_stays_flat_over_many_batches(prepared):
    split, order = prepared.splits["train"], Order(36, 32, 0)
    batches = ordered_batches(split, order, 0)
    for _ in range(50):
        next(batches)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(500):
        next(batches)
    batches.close()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 20  # MB, over 16,000 images


def test_whole_images_never_need_the_slow_decoder(prepared, monkeypatch):
    def slow(*_, **__):
        raise AssertionError("Pillow was asked")

    monkeypatch.setattr(decode, "inspect_image", slow)
    next(ordered_batches(prepared.splits["train"], Order(36, 36, 0), 0))
