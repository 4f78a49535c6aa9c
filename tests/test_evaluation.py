"""Counts are whole, exact, and by class."""

import pytest
import torch

from alexnet.data.loader import Batch
from alexnet.evaluation import evaluate, summarize


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
