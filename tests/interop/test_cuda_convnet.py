"""cuda-convnet's checkpoints against NumPy forms of its layers, written from facts 1 and 2."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from alexnet.api import load
from alexnet.errors import RunError
from alexnet.interop.imports import detect_format, import_file
from alexnet.interop.layer_ir import recognise
from alexnet.variants import AS_RUN
from tests.interop.convnet_files import (
    Options,
    checkpoint,
    computed,
    one_tower,
    pickled,
    two_towers,
)

CPU = torch.device("cpu")
CLASSES = 10


def imported(layers, folder):
    (folder / "90.417").write_bytes(checkpoint(layers))
    assert detect_format(folder / "90.417") == "cuda-convnet"
    made = import_file(folder / "90.417", folder / "run")
    return made, load(folder / "run", device=CPU).network


def compared(layers, network, pairs):
    """See that layers of the file and of the network make the same, towers side by side."""
    pixels = np.random.default_rng(2).uniform(-120, 130, (1, 3, 224, 224)).astype(np.float32)
    theirs = computed(layers, pixels)
    with torch.inference_mode():
        ours = network.activations(torch.from_numpy(pixels), pairs)
    for name, parts in pairs.items():
        other = np.concatenate([theirs[part] for part in parts], axis=1)
        mine = ours[name].numpy().reshape(other.shape)
        apart = np.abs(mine - other).max() / np.abs(other).max()
        print(f"{name}: {apart:.1e}")  # shown by pytest -rP
        assert apart < 1e-5, name
    assert 0.3 < theirs["fc1000"].std() < 10


def test_two_towers_compute_what_their_settings_say(tmp_path):
    layers = two_towers(divisor=8, classes=CLASSES)
    made, network = imported(layers, tmp_path)
    pairs = {
        "conv1": ["conv1a", "conv1b"], "norm1": ["rnorm1a", "rnorm1b"],
        "pool1": ["pool1a", "pool1b"], "relu1": ["pool1a_neuron", "pool1b_neuron"],
        "conv2": ["conv2a", "conv2b"], "norm2": ["rnorm2a", "rnorm2b"],
        "within_channel_lrn2": ["cnorm2a", "cnorm2b"], "pool2": ["pool2a", "pool2b"],
        "relu3": ["conv3a_neuron", "conv3b_neuron"], "relu4": ["conv4a_neuron", "conv4b_neuron"],
        "conv5": ["conv5a", "conv5b"], "pool5": ["pool3a_neuron", "pool3b_neuron"],
        "drop6": ["dropout1a", "dropout1b"], "fc7": ["fc2048ba", "fc2048bb"],
        "drop7": ["dropout2a", "dropout2b"], "fc8": ["fc1000"],
    }  # fmt: skip
    compared(layers, network, pairs)
    spec = made.run.config.spec
    assert (spec.image_size, spec.towers, spec.convs[0].asymmetric_padding) == (224, 2, 3)


def test_the_network_of_2012_is_recognised_as_it_was_run(tmp_path):
    made, _ = imported(two_towers(divisor=8), tmp_path)
    spec = made.run.config.spec
    convs = tuple(replace(conv, out_channels=8 * conv.out_channels) for conv in spec.convs)
    dense = tuple(replace(layer, units=8 * layer.units) for layer in spec.dense)
    wide = recognise(replace(spec, convs=convs, dense=dense))
    assert (wide.name, wide.convs, wide.dense) == ("as_run", AS_RUN.convs, AS_RUN.dense)
    assert wide.dropout == AS_RUN.dropout
    assert "two towers" in made.found[0]


def test_one_tower_computes_what_its_settings_say(tmp_path):
    layers = one_tower(divisor=8, classes=CLASSES)
    made, network = imported(layers, tmp_path)
    pairs = {
        "conv1": ["conv1"], "norm1": ["rnorm1"], "relu1": ["pool1_neuron"], "norm2": ["rnorm2"],
        "pool2": ["pool2"], "conv5": ["conv5"], "pool5": ["pool3_neuron"], "fc8": ["fc1000"],
    }  # fmt: skip
    compared(layers, network, pairs)
    assert made.run.config.spec.pixels.channel_order == "RGB"


def test_the_first_programs_list_of_layers_is_the_same(tmp_path):
    layers = one_tower(divisor=8, classes=CLASSES)
    names = list(layers)
    rows = []
    for name, layer in layers.items():
        inputs = [names.index(one) for one in layer.get("inputs", [])]
        rows.append({**layer, "name": name, "inputs": inputs, "inputLayers": []})
    (tmp_path / "list").mkdir()
    _, network = imported(rows, tmp_path / "list")
    _, other = imported(layers, tmp_path)
    pairs = zip(network.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


def test_mean_and_names_come_from_the_programs_own_file(tmp_path):
    draws = np.random.default_rng(0)
    mean = draws.uniform(90, 140, (3, 256, 256)).astype(np.float32)
    names = [f"n{number:08}" for number in range(CLASSES)]
    meta = {"data_mean": mean.reshape(-1, 1), "label_names": names, "num_vis": 3 * 256**2}
    (tmp_path / "batches.meta").write_bytes(pickled(meta))
    (tmp_path / "net").write_bytes(checkpoint(one_tower(divisor=8, classes=CLASSES)))
    meta_file = tmp_path / "batches.meta"
    import_file(tmp_path / "net", tmp_path / "run", mean=meta_file, classes=meta_file)
    model = load(tmp_path / "run", device=CPU)
    assert model.classes == tuple(names)
    pixels = torch.rand(1, 3, 224, 224) * 255
    seen = model.normalise(pixels)[0].numpy()
    np.testing.assert_allclose(seen, pixels[0].numpy() - mean[:, 16:240, 16:240], atol=1e-4)


def changed(name, **settings):
    layers = one_tower(divisor=8, classes=CLASSES)
    layers[name] |= settings
    return layers


WRONG = {
    r"type 'local'": lambda: changed("conv3", type="local"),
    r"'conv3' has weights of \(216, 40\)": lambda: changed("conv3", weights=[np.ones((216, 40))]),
    r"'conv3' has no weights for each of its 1": lambda: changed("conv3", weights=[]),
    r"'conv3' has weights that are no arrays": lambda: changed("conv3", weights=["x"]),
    r"'conv3' has 8112 biases": lambda: changed("conv3", biases=np.ones((8112, 1), np.float32)),
    r"window of 4": lambda: changed("rnorm1", size=4),
    r"of kind 'maxabs'": lambda: changed("pool1", pool="maxabs"),
    r"'logistic'": lambda: changed("conv3_neuron", neuron={"type": "logistic", "params": {}}),
    r"has 54 positions along 224": lambda: changed("conv1", modulesX=54),
    r"stride of \[4, 2\], not all alike": lambda: changed("conv1", stride=[4, 2]),
    r"pool1_neuron is taken by conv2, rnorm2": lambda: changed("rnorm2", inputs=["pool1_neuron"]),
    r"layers of data are data, labels; convolutions see 2": lambda: changed(
        "conv1", inputs=["data", "labels"]
    ),
    r"has no layers": lambda: None,
}  # fmt: skip


@pytest.mark.parametrize("sentence", WRONG)
def test_other_networks_are_refused_with_the_layer_and_what_was_expected(sentence, tmp_path):
    (tmp_path / "net").write_bytes(checkpoint(WRONG[sentence]()))
    with pytest.raises(RunError, match=sentence):
        import_file(tmp_path / "net", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_pickles_of_something_else_are_refused(tmp_path):
    for content, sentence in (
        ([1, 2], "no checkpoint"),
        ({"op": Options()}, "no checkpoint"),
        ({"model_state": {"layers": {"data": 3}}}, "no checkpoint"),
    ):
        (tmp_path / "net").write_bytes(pickled(content))
        with pytest.raises(RunError, match=sentence):
            import_file(tmp_path / "net", tmp_path / "run")
