"""The arithmetic of the paper and of the starting document."""

import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest

from alexnet.config import with_setting
from alexnet.errors import ConfigError
from alexnet.network import build
from alexnet.recipes import PAPER as PAPER_RECIPE
from alexnet.spec import LRN, Dense, DropoutSpec, PixelFormat, Pool, WithinChannelLRN
from alexnet.variants import CIFAR_QUICK, NETWORKS, PAPER, SINGLE, TORCHVISION

# The starting document's own counts. Its list of layers prints 384 filters for conv5; its
# arithmetic, and the paper, have 256.
DOCUMENT = {
    "conv1": (55, 96, 34_944),
    "conv2": (27, 256, 614_656),
    "conv3": (13, 384, 885_120),
    "conv4": (13, 384, 1_327_488),
    "conv5": (13, 256, 884_992),
    "fc6": (1, 4096, 37_752_832),
    "fc7": (1, 4096, 16_781_312),
    "fc8": (1, 1000, 4_097_000),
}


def test_each_layer_counts_as_in_the_starting_document():
    counted = {
        layer.name: (layer.size, layer.channels, layer.parameters)
        for layer in SINGLE.layers()
        if layer.parameters
    }
    assert counted == DOCUMENT


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("single", 62_378_344),
        ("paper", 60_965_224),  # facts 1d
        ("as_run", 60_965_224),
        ("as_run_six", 61_555_304),  # and 3 x 3 x 256 x 256 + 256
        ("as_run_apart", 60_522_856),  # less half of conv3's 884,736 weights
        ("caffe", 60_965_224),
        ("caffenet", 60_965_224),
        ("torchvision", 61_100_840),
        ("cifar_quick", 145_578),  # 2,432 + 25,632 + 51,264 + 65,600 + 650
        ("cifar_local", 2_112_970),
    ],
)
def test_parameter_counts_are_the_published_ones(name, parameters):
    assert NETWORKS[name].parameters == parameters


@pytest.mark.parametrize("network", [SINGLE, PAPER])
def test_neurons_are_the_published_ones(network):
    assert network.neurons == 659_272
    assert network.neurons + network.inputs == 813_859


def test_pools_give_the_sizes_of_the_paper():
    sizes = [layer.size for layer in PAPER.layers() if layer.kind == "pool"]
    assert sizes == [27, 13, 6]


def test_the_paper_has_over_twice_the_multiplications_of_its_towers_left_out():
    assert (SINGLE.macs, PAPER.macs) == (1_135_256_096, 724_406_816)


@pytest.mark.parametrize(("network", "smallest"), [(SINGLE, 67), (TORCHVISION, 63)])
def test_an_image_too_small_is_refused_with_the_smallest_that_is_not(network, smallest):
    assert replace(network, image_size=smallest).flat == (256, 1)
    with pytest.raises(ConfigError, match=rf"cannot take {smallest - 1}-pixel.* {smallest} pixels"):
        replace(network, image_size=smallest - 1)


@pytest.mark.parametrize("classes", [0, 1, 2, 21_841])
def test_any_number_of_classes(classes):
    changed = replace(PAPER, num_classes=classes)
    assert changed.parameters == 60_965_224 - 4_097_000 + 4097 * classes


@pytest.mark.parametrize(
    ("layer", "wrong"),
    [
        ("conv1", {"grouped": True}),  # 3 colours for two towers
        ("conv2", {"out_channels": 255}),
        ("conv1", {"order": ("norm", "pool")}),
        ("conv1", {"order": ("activation", "norm")}),
        ("conv1", {"order": ("activation", "norm", "pool", "pool")}),
    ],
)
def test_a_convolution_that_cannot_be_built_is_refused(layer, wrong):
    with pytest.raises(ConfigError, match=layer):
        PAPER.with_layers(layer, **wrong)


@pytest.mark.parametrize("wrong", [{"num_classes": -1}, {"towers": 3}, {"convs": ()}])
def test_values_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigError):
        replace(PAPER, **wrong)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (LRN, {"size": 0}), (LRN, {"k": NAN}), (LRN, {"alpha": INF}),
        (WithinChannelLRN, {"size": 4}), (WithinChannelLRN, {"beta": NAN}),
        (Pool, {"stride": 0}), (Pool, {"kernel_size": 1.5}), (Pool, {"stride": 10**20}),
        (DropoutSpec, {"rate": 1}), (DropoutSpec, {"rate": NAN}),
        (PixelFormat, {"stdev": (0.0, 1.0, 1.0)}), (PixelFormat, {"scale": INF}),
        (PixelFormat, {"mean": (0.0, NAN, 0.0)}),
        (partial(Dense, name="fc6"), {"units": -1}), (partial(Dense, name="fc6"), {"units": 1e14}),
        (partial(Dense, name="fc6", units=1), {"std": -0.1}),
        (partial(replace, SINGLE.convs[0]), {"stride": 0}),
        (partial(replace, SINGLE.convs[0]), {"padding": -1}),
        (partial(replace, SINGLE.convs[0]), {"bias": NAN}),
        (partial(replace, SINGLE), {"image_size": 10**6}),
        (partial(replace, SINGLE), {"output_std": NAN}),
        (LRN, {"span": "towers"}), (Pool, {"kind": "mean"}), (DropoutSpec, {"form": "2014"}),
        (DropoutSpec, {"place": "both"}), (PixelFormat, {"channel_order": "rgb"}),
        (partial(replace, SINGLE), {"activation": "gelu"}),
        (PAPER_RECIPE.with_, {"precision": "fp16"}), (PAPER_RECIPE.with_, {"test_crops": 5}),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_its_own_class(kind, wrong):
    (field,) = wrong
    with pytest.raises(ConfigError, match=rf"^{field} is .*\. It must be "):
        kind(**wrong)


def test_a_network_that_no_memory_holds_is_refused_before_it_is_built():
    with pytest.raises(ConfigError, match=r"would have 13,.* parameters"):
        replace(SINGLE, dense=(Dense(name="fc6", units=1 << 20), *SINGLE.dense[1:]))
    assert replace(SINGLE, num_classes=1 << 20).parameters < 5e9  # what is large and can be


@pytest.mark.parametrize("name", ["", "a.b", "forward", "relu6", "pool6", "Fc 6", "conv1", "fc7"])
def test_a_layer_has_a_name_and_a_number_of_its_own(name):
    """What follows a layer is called by its number: a hidden fc1 would have no ReLU."""
    with pytest.raises(ConfigError, match=r"can be called|same number"):
        with_setting(SINGLE, "fc6.name", name)
    with pytest.raises(ConfigError, match=r"can be called|same number"):
        replace(SINGLE, output_name=name)


@pytest.mark.parametrize("name", ["dense6", "fc66", "local_6"])
def test_a_layer_may_have_another_name(name):
    assert name in dict(build(with_setting(CIFAR_QUICK, "fc64.name", name)).named_children())


def test_counting_loads_no_numerical_library():
    asked = (
        "import sys, alexnet.variants; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0
