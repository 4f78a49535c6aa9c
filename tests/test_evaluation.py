"""Counts are whole, exact, and by class."""

import numpy as np
import pytest
import torch

from alexnet.data.augment import iter_crops, make_normaliser
from alexnet.data.loader import Batch
from alexnet.evaluation import evaluate, probabilities, summary
from alexnet.network import build
from alexnet.spec import PixelFormat
from alexnet.variants import CIFAR_QUICK


def test_ten_views_average_the_probabilities_of_each(prepared):
    network = build(CIFAR_QUICK.with_layers("conv1", std=0.01)).eval()
    images = torch.randint(0, 256, (3, 40, 40, 3), dtype=torch.uint8)
    statistics = prepared.statistics
    normalise = make_normaliser(PixelFormat(), statistics, 32)
    got = probabilities(network, images, normalise, size=32, count=10)
    by_hand = [network(normalise(view)).softmax(1) for view in iter_crops(images, 32, 10)]
    expected = np.mean([one.detach().numpy() for one in by_hand], 0)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(got.sum(1).numpy(), 1, rtol=1e-6)


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
    result = evaluate(predict, batches, names, crops=1, device=torch.device("cpu"))
    ranked = chances.argsort(1, descending=True)
    assert result.images == 53
    assert result.top1 == pytest.approx((ranked[:, 0] == labels).double().mean().item())
    assert result.top5 == pytest.approx(
        (ranked[:, :5] == labels[:, None]).any(1).double().mean().item()
    )
    assert result.majority == labels.bincount().max().item() / 53
    assert sum(images for _, images, _ in result.by_class()) == 53
    assert {"top1", "top5", "views", "images", "classes", "majority"} <= summary(result).keys()
