"""Lists of layers made into specs, where a file leaves something open."""

import numpy as np
import pytest

from alexnet.errors import RunError
from alexnet.interop.layer_ir import (
    Activation,
    Convolution,
    Drop,
    FullyConnected,
    ImportedLayer,
    Pooling,
    assemble_network,
)
from alexnet.spec import PixelFormat
from tests.interop.conftest import narrow


def layers_of(name: str) -> list[ImportedLayer]:
    """Write a named network down as a file would; its norms left out."""
    spec = narrow(name)
    layers: list[ImportedLayer] = []
    maps = 3
    for conv in spec.convs:
        groups = spec.groups(conv)
        weight = np.ones(
            (conv.out_channels, maps // groups, conv.kernel_size, conv.kernel_size), np.float32
        )
        padding = (conv.padding, conv.padding + conv.asymmetric_padding)
        bias = np.zeros(conv.out_channels, np.float32)
        layers.append(Convolution(conv.name, weight, bias, conv.stride, padding, groups))
        layers.append(Activation("relu"))
        layers += [Pooling("pool", 3, 2)] if conv.pool else []
        maps = conv.out_channels
    inputs = maps * 36
    for layer in spec.dense:
        weight, bias = np.ones((layer.units, inputs), np.float32), np.zeros(layer.units, np.float32)
        layers += [FullyConnected(layer.name, weight, bias), Activation("relu"), Drop("drop")]
        inputs = layer.units
    return [*layers, FullyConnected("fc8", np.ones((5, inputs), np.float32), np.zeros(5, "f4"))]


@pytest.mark.parametrize(
    ("name", "image"), [("torchvision", 224), ("caffe", 227), ("paper", 227), ("as_run", 224)]
)
def test_an_input_that_the_file_leaves_open_is_the_usual_one(name, image):
    """Several sides would fit: networks that pad their image take 224, others 227."""
    spec, weights = assemble_network(layers_of(name), PixelFormat())
    assert spec.image_size == image
    assert list(weights)[:2] == ["conv1.weight", "conv1.bias"]
    assert (spec.layers().__next__().size, spec.flat[1]) == (image, 6)


def test_an_input_that_does_not_fit_is_refused_with_both_numbers():
    with pytest.raises(RunError, match=r"takes 576 numbers; with images of 200 pixels .* 16x5x5"):
        assemble_network(layers_of("caffe"), PixelFormat(), 200)


def test_what_follows_the_last_layer_is_refused():
    with pytest.raises(RunError, match="'fc8', the last layer, is followed by 'relu'"):
        assemble_network([*layers_of("caffe"), Activation("relu")], PixelFormat())
