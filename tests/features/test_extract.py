"""Features on the disk are those of the images, after any kill, and never a mixture."""


import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from alexnet.data.augment import views
from alexnet.errors import ConfigError
from alexnet.features import (
    activations,
    extract,
    last_hidden,
    layer_names,
    layer_shapes,
)  # fmt: skip
from alexnet.network import build
from alexnet.variants import AS_RUN, CAFFENET, CIFAR_LOCAL, NETWORKS, SINGLE
from tests.test_network import narrow


@pytest.mark.parametrize("spec", NETWORKS.values(), ids=NETWORKS)
def test_every_named_output_has_the_shape_that_is_told(spec):
    spec = narrow(spec, 16)
    shapes = layer_shapes(spec)
    network = build(spec).eval()
    found = network.activations(torch.zeros(1, 3, spec.image, spec.image), shapes)
    assert {name: tuple(value.shape[1:]) for name, value in found.items()} == shapes
    assert list(found) == list(layer_names(spec))


def test_layers_are_in_the_order_of_each_network():
    assert layer_names(SINGLE)[:6] == ("conv1", "relu1", "norm1", "pool1", "conv2", "relu2")
    assert layer_names(AS_RUN)[:4] == ("conv1", "norm1", "pool1", "relu1")
    assert layer_names(CAFFENET)[:4] == ("conv1", "relu1", "pool1", "norm1")
    assert layer_names(SINGLE)[-3:] == ("fc7", "relu7", "fc8")
    assert [last_hidden(s) for s in (SINGLE, CIFAR_LOCAL)] == ["relu7", "relu4"]


def test_activations_are_the_networks_own_for_the_centre_view(paper, large):
    images = torch.stack([torch.from_numpy(large.held_out.pixels(i).copy()) for i in range(3)])
    found = activations(paper, images, ["relu7", "conv1", "fc8"])
    assert list(found) == ["conv1", "relu7", "fc8"]
    pixels = paper.normalise(next(views(images, 227, 1)))
    with torch.inference_mode():
        assert torch.allclose(found["fc8"], paper.network(pixels), rtol=1e-5, atol=1e-6)
        assert torch.allclose(found["conv1"], paper.network.conv1(pixels), rtol=1e-4, atol=1e-3)
    assert (found["relu7"] >= 0).all()
    with pytest.raises(ConfigError, match="no layer 'cnov1'. Did you mean 'conv1'"):
        activations(paper, images, ["cnov1"])


@pytest.mark.parametrize("form", ["arrays", "parquet"])
@pytest.mark.parametrize("pool", ["none", "mean", "max"])
def test_stored_features_are_the_activations(quick, prepared, tmp_path, form, pool):
    split = prepared.splits["train"]
    stored = extract(
        quick, split, ["pool2", "relu64"], tmp_path, classes=prepared.classes, form=form, pool=pool
    )
    images = torch.stack([torch.from_numpy(split.pixels(i).copy()) for i in range(len(split))])
    wanted = activations(quick, images, ["pool2", "relu64"])
    maps = wanted["pool2"]
    if pool != "none":
        maps = maps.mean((2, 3)) if pool == "mean" else maps.amax((2, 3))
    np.testing.assert_allclose(stored.arrays["pool2"], maps, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(stored.arrays["relu64"], wanted["relu64"], rtol=1e-4, atol=1e-4)
    assert stored.names == [split[i].path for i in range(len(split))]
    assert stored.labels.tolist() == split.labels.tolist()
    assert stored.about.bytes == sum(array.nbytes for array in stored.arrays.values())
    if form == "arrays":
        assert isinstance(stored.arrays["pool2"], np.memmap)
    else:
        table = pq.read_table(tmp_path / "part-00000.parquet")
        assert table.column_names == ["name", "label", "pool2", "relu64"]
