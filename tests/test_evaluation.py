"""Counts are whole, exact, and by class."""

import pytest
import torch

from alexnet.data.loader import Batch
from alexnet.evaluation import evaluate, rank_classes, summarize


def test_counts_are_those_of_a_slow_loop():
    draws = torch.Generator().manual_seed(0)
    chances = torch.rand(53, 7, generator=draws)
    labels = torch.randint(0, 7, (53,), generator=draws)
    at = [0]

    def predict(images):
        part = chances[at[0] : at[0] + len(images)]
        at[0] += len(images)
        return part

    batches = [
        Batch(torch.zeros(len(part), 1, 1, 3, dtype=torch.uint8), part, tuple(range(len(part))))
        for part in labels.split(10)
    ]
    names = tuple("abcdefg")
    result = evaluate(predict, batches, names, crops=1)
    ranked = chances.argsort(1, descending=True)
    assert result.images == 53
    assert result.top1 == pytest.approx((ranked[:, 0] == labels).double().mean().item())
    assert result.top5 == pytest.approx(
        (ranked[:, :5] == labels[:, None]).any(1).double().mean().item()
    )
    assert result.majority == labels.bincount().max().item() / 53
    assert sum(images for _, images, _ in result.by_class()) == 53
    assert {"top1", "top5", "views", "images", "classes", "majority"} <= summarize(result).keys()


@pytest.mark.parametrize("classes", [10, 100, 1000])
def test_of_equal_classes_the_first_are_in_the_top_five(classes):
    """What `topk` and a plain `sort` do not promise: below, a network that is sure of one class."""
    chances = torch.zeros(classes, classes)
    chances[:, classes // 2] = 1
    labels = torch.arange(classes)
    numbers = tuple(range(classes))
    batch = Batch(torch.zeros(classes, 1, 1, 3, dtype=torch.uint8), labels, numbers)
    result = evaluate(lambda _: chances, [batch], tuple(map(str, labels.tolist())), crops=1)
    assert result.in_top5 == 5
    assert rank_classes(chances)[1][0, :5].tolist() == [classes // 2, 0, 1, 2, 3]
    assert rank_classes(torch.full((classes,), 0.25))[1].tolist() == labels.tolist()
