"""Weights out and in, bit for bit, and torchvision's network from its published layer list."""

import json
from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from torch import nn

from alexnet.config import from_json
from alexnet.errors import ConfigError
from alexnet.interop.weights import export_safetensors, export_torchvision, read_safetensors
from alexnet.spec import Spec
from alexnet.variants import NETWORKS


@pytest.mark.parametrize("name", NETWORKS)
def test_safetensors_come_back_bit_for_bit(models, name, tmp_path):
    model, path = models[name], tmp_path / "net.safetensors"
    export_safetensors(model, path)
    state = model.network.state_dict()
    back = read_safetensors(path, {name: tuple(tensor.shape) for name, tensor in state.items()})
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())
    with safe_open(path, framework="pt") as file:
        told = file.metadata()
    assert from_json(Spec, json.loads(told["spec"])) == model.spec
    assert json.loads(told["classes"]) == list(model.classes)


def by_torchvision(maps, units, classes) -> nn.Module:
    """Return torchvision's ``alexnet`` as its source lists it, with other widths."""
    one, two, three, four, five = maps
    features = nn.Sequential(
        nn.Conv2d(3, one, kernel_size=11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(one, two, kernel_size=5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(two, three, kernel_size=3, padding=1), nn.ReLU(),
        nn.Conv2d(three, four, kernel_size=3, padding=1), nn.ReLU(),
        nn.Conv2d(four, five, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
    )  # fmt: skip
    classifier = nn.Sequential(
        nn.Dropout(), nn.Linear(five * 36, units), nn.ReLU(),
        nn.Dropout(), nn.Linear(units, units), nn.ReLU(), nn.Linear(units, classes),
    )  # fmt: skip
    pool = [("avgpool", nn.AdaptiveAvgPool2d(6)), ("flatten", nn.Flatten())]
    return nn.Sequential(OrderedDict([("features", features), *pool, ("classifier", classifier)]))


def test_torchvision_loads_the_state_dict_and_computes_the_same(models, tmp_path, monkeypatch):
    model = models["torchvision"]
    monkeypatch.setattr("alexnet.interop.weights.TORCHVISION", as_wide_as(model.spec))
    export_torchvision(model, tmp_path / "net.pth")
    maps = [conv.out_channels for conv in model.spec.convs]
    theirs = by_torchvision(maps, model.spec.dense[0].units, model.spec.num_classes).eval()
    theirs.load_state_dict(torch.load(tmp_path / "net.pth", weights_only=True))
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted, found = theirs(pixels), model.network(pixels)
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()  # sums in another order


def as_wide_as(spec):
    """Return the reference with narrow widths: they are what the state dict must agree in."""
    return replace(NETWORKS["torchvision"], convs=spec.convs, dense=spec.dense)


@pytest.mark.parametrize("name", sorted(NETWORKS.keys() - {"torchvision"}))
def test_other_networks_are_refused_with_the_difference(models, name, tmp_path):
    with pytest.raises(ConfigError, match=r"is not torchvision's \(.*there"):
        export_torchvision(models[name], tmp_path / "net.pth")
    assert list(tmp_path.iterdir()) == []
