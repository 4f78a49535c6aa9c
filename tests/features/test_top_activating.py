"""The most exciting images are those of a search through all activations."""

import numpy as np
import pytest
import torch

from alexnet.errors import ConfigError
from alexnet.features import (
    JoinedSplits,
    Photographs,
    activations,
    patch,
    receptive_field,
    search,
    top_activating,
)  # fmt: skip


@pytest.mark.parametrize("layer", ["conv2", "pool3", "relu64", "fc10"])
def test_the_most_exciting_images_are_those_of_all_activations(quick, prepared, layer, monkeypatch):
    monkeypatch.setattr(search, "BATCH", 7)  # several batches
    split = prepared.splits["train"]
    images = torch.stack([torch.from_numpy(split.pixels(i).copy()) for i in range(len(split))])
    maps = activations(quick, images, [layer])[layer].numpy()
    maps = maps.reshape(*maps.shape[:2], -1)
    width = int(maps.shape[2] ** 0.5)
    found = top_activating(quick, split, layer, [1, 0], count=5)
    assert list(found) == [1, 0]
    for unit, ranked in found.items():
        order = np.argsort(-maps[:, unit].max(1), kind="stable")[:5]
        np.testing.assert_allclose(
            [one.activation for one in ranked], maps[order, unit].max(1), rtol=1e-4, atol=1e-5
        )
        if np.ptp(maps[:, unit]) > 0:
            assert [one.image for one in ranked] == order.tolist()
            for one in ranked:
                assert one.row * width + one.column == maps[one.image, unit].argmax()


def test_of_equal_images_the_first_is_named(quick, prepared):
    twice = JoinedSplits([prepared.splits["test"]] * 2)
    for ranked in top_activating(quick, twice, "conv3", range(8), count=4).values():
        first, second, third, fourth = ranked
        assert (second.image, fourth.image) == (first.image + 12, third.image + 12)
        assert first.activation == second.activation


def test_a_name_has_its_split_before_it_once(prepared):
    """Class folders in train/ and test/ have it already."""
    both = JoinedSplits([prepared.splits["train"], prepared.splits["test"]])
    names = [both.path(number) for number in range(len(both))]
    assert len(set(names)) == len(both) == 48
    assert all(name.split("/")[0] in ("train", "test") for name in names)
    assert all(name.split("/")[1] in ("defective", "functional") for name in names)


def test_a_patch_is_what_the_unit_saw_and_alone_excites_it(paper, large):
    """Everything else painted grey, the unit answers the same."""
    split = large.splits["train"]
    (best, *_), *_ = top_activating(paper, split, "conv3", [5], count=3).values()
    cut = patch(paper, split, "conv3", best)
    left, top, right, bottom = receptive_field(paper.spec, "conv3").box(best.row, best.column)
    assert cut.shape == (bottom - top, right - left, 3)
    painted = torch.full((1, 256, 256, 3), 128, dtype=torch.uint8)
    margin = (256 - 227) // 2
    painted[0, margin + top : margin + bottom, margin + left : margin + right] = torch.from_numpy(
        cut.copy()
    )
    answer = activations(paper, painted, ["conv3"])["conv3"][0, 5, best.row, best.column]
    assert float(answer) == pytest.approx(best.activation, rel=1e-4)


def test_units_and_counts_that_cannot_be_are_refused(quick, prepared):
    split = prepared.splits["test"]
    with pytest.raises(ConfigError, match=r"conv1 has no unit 32. Its units are 0 to 31"):
        top_activating(quick, split, "conv1", [32])
    with pytest.raises(ConfigError, match="at least 1"):
        top_activating(quick, split, "conv1", [0], count=0)
    with pytest.raises(ConfigError, match="No unit"):
        top_activating(quick, split, "conv1", [])


def test_photographs_are_images_without_labels(quick, photographs):
    files = sorted((photographs / "test" / "defective").iterdir())
    split = Photographs(quick, files)
    assert (len(split), split.size, split.label(0)) == (6, 64, -1)
    assert split.path(2) == str(files[2])
    ranked = top_activating(quick, split, "fc64", [3], count=2)[3]
    assert ranked[0].activation >= ranked[1].activation
