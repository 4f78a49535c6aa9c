"""A small network of 2012's geometry, whose weights are drawn, and data at its size."""

from dataclasses import replace

import pytest
import torch

from alexnet.data.augment import make_normaliser
from alexnet.data.shards import PreparedData
from alexnet.device import Device
from alexnet.network import build
from alexnet.predictor import Predictor
from alexnet.spec import Spec
from alexnet.variants import CIFAR_QUICK, PAPER
from tests.test_network import narrow


def model_of(spec: Spec, data: PreparedData, seed: int = 1) -> Predictor:
    """Return a network of drawn weights with the preprocessing of a data set."""
    return Predictor(
        build(spec, seed).eval(),
        data.classes,
        make_normaliser(spec.pixels, data.statistics, spec.image_size),
        data.manifest.size,
        0,
        Device.named("cpu"),
        torch.float32,
    )


@pytest.fixture(scope="session")
def paper(large) -> Predictor:
    """Return the paper's network with a sixteenth of its widths, and louder weights."""
    names = [conv.name for conv in PAPER.convs] + [layer.name for layer in PAPER.dense]
    return model_of(narrow(PAPER.with_layers(*names, std=0.1)), large)


@pytest.fixture(scope="session")
def quick(prepared) -> Predictor:
    """Return the quick CIFAR network, for two classes."""
    return model_of(replace(CIFAR_QUICK.with_layers("conv1", std=0.01), num_classes=2), prepared)
