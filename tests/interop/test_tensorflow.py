"""Keras's files, TensorFlow.js's and NumPy's dictionaries in: against Keras itself, or NumPy."""

import json
import os
import sys
import zipfile

import numpy as np
import pytest
import torch

from alexnet.errors import RunError
from alexnet.interop.imports import detect_format, import_file, read_weights_file
from alexnet.interop.layer_ir import find_differences
from alexnet.network import AlexNet
from alexnet.variants import CAFFE, narrow
from tests.interop.tensorflow_files import (
    SIDE,
    alexnet,
    dictionary,
    forward,
    graph_model,
    keras_file,
    layers_model,
)

IMAGES = np.random.default_rng(0).uniform(-1, 1, (3, SIDE, SIDE, 3)).astype(np.float32)


def logits(imported, images=IMAGES):
    """Return what the imported network makes of images with their channels last."""
    network = AlexNet(imported.spec).eval()
    network.load_state_dict(imported.weights)
    with torch.inference_mode():
        return network(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()


def read(path, form):
    assert detect_format(path) == form
    return read_weights_file(path, form)


def compare(ours, theirs, bound=1e-5):
    apart = np.abs(ours - theirs).max() / np.abs(theirs).max()
    print(f"{apart:.1e}")  # shown by pytest -rP
    assert theirs.std() > 0.1
    assert apart < bound


def pairs(spec, seed=0):
    """Return weights of a network, and the same as TensorFlow has them: HWIO, and by HWC."""
    network = AlexNet(spec)
    draws = torch.Generator().manual_seed(seed)
    shapes = {name: one.shape for name, one in network.state_dict().items()}
    state = {name: torch.randn(shape, generator=draws) for name, shape in shapes.items()}
    maps, side = spec.flat
    theirs = {}
    for name in [layer.name for layer in (*spec.convs, *spec.dense)] + [spec.output_name]:
        weight = state[f"{name}.weight"]
        if name == spec.dense[0].name:
            weight = weight.reshape(-1, maps, side, side).permute(0, 2, 3, 1).flatten(1)
        order = (2, 3, 1, 0) if weight.dim() == 4 else (1, 0)
        theirs[name] = (weight.permute(order).numpy(), state[f"{name}.bias"].numpy())
    return state, theirs


@pytest.mark.parametrize("named", [False, True])
def test_a_dictionary_of_arrays_is_caffes_network(named, tmp_path):
    """As bvlc_alexnet.npy: filters by row, column, input and output, the groups' side by side."""
    spec = narrow(CAFFE, 16)
    state, theirs = pairs(spec)
    (tmp_path / "net.npy").write_bytes(dictionary(theirs, python2=named, named=named))
    imported = read(tmp_path / "net.npy", "npy")
    assert not find_differences(spec, imported.spec)
    assert imported.spec.towers == 2
    assert imported.spec.pixels.channel_order == "BGR"
    assert all(torch.equal(imported.weights[name], one) for name, one in state.items())


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"conv2": None}, "'conv2' has no weights and biases"),
        ({"conv9": [np.zeros(1), np.zeros(1)]}, "not those of AlexNet: conv9"),
        ({"fc6": [np.zeros((7, 4)), np.zeros(4)]}, "which no square map of 16 channels has"),
        ({"conv2": [np.zeros((5, 5, 7, 16)), np.zeros(16)]}, "'conv2' has 0 groups"),
        ({"conv1": [np.full((11, 11, 3, 6), np.nan), np.zeros(6)]}, "not finite"),
    ],
)
def test_another_dictionary_is_refused_by_its_layer(changed, sentence, tmp_path):
    _, theirs = pairs(narrow(CAFFE, 16))
    layers = {**theirs, **changed}
    out = np.array({k: v if v is None else [*v] for k, v in layers.items()}, object)
    np.save(tmp_path / "net.npy", out, allow_pickle=True)
    with pytest.raises(RunError, match=sentence):
        import_file(tmp_path / "net.npy", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("fused", [False, True])
def test_a_graph_of_tensorflow_js_computes_what_numpy_does(fused, tmp_path):
    """Groups are Split and ConcatV2; alpha is not divided by the window there."""
    steps = alexnet()
    imported = read(graph_model(tmp_path, steps, fused), "tfjs")
    compare(logits(imported), forward(steps, IMAGES))
    norm = imported.spec.convs[0].norm
    assert (norm.size, norm.alpha, norm.k, norm.span) == (5, 1e-4, 1.0, "layer")
    assert [conv.grouped for conv in imported.spec.convs] == [False, True, False]


def test_layers_of_tensorflow_js_compute_what_numpy_does(tmp_path):
    steps = alexnet(lrn=False)
    imported = read(layers_model(tmp_path, steps), "tfjs")
    compare(logits(imported), forward(steps, IMAGES))
    assert imported.spec.image_size == SIDE


@pytest.mark.parametrize("h5", [False, True])
def test_layers_of_keras_compute_what_numpy_does(h5, tmp_path):
    steps = alexnet(lrn=False)
    (tmp_path / "net").write_bytes(keras_file(steps, h5))
    imported = read(tmp_path / "net", "keras")
    compare(logits(imported), forward(steps, IMAGES))
    assert imported.spec.image_size == SIDE


def test_an_array_of_hdf5_that_is_larger_than_its_file_is_refused(tmp_path):
    """Where nothing is written HDF5 keeps no bytes: gigabytes of zeros in a kilobyte."""
    import h5py

    (tmp_path / "net.h5").write_bytes(keras_file(alexnet(lrn=False), h5=True))
    with h5py.File(tmp_path / "net.h5", "r+") as file:
        group = file["model_weights/conv2d_0/net/conv2d_0"]
        del group["kernel"]
        group.create_dataset("kernel", (11, 11, 3, 1 << 20), np.float32)
    with pytest.raises(RunError, match="compressed or lies elsewhere"):
        read(tmp_path / "net.h5", "keras")


def test_quantised_shards_are_scaled_back(tmp_path):
    steps = alexnet(lrn=False)
    imported = read(layers_model(tmp_path, steps, quantize="uint8"), "tfjs")
    compare(logits(imported), forward(steps, IMAGES), bound=0.1)
    first = imported.weights["conv1.weight"].numpy().transpose(2, 3, 1, 0)
    step = np.ptp(steps[0][2][0]) / 255
    assert np.abs(first - steps[0][2][0]).max() < 0.51 * step


def edit(path, change):
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t["weightsManifest"][0].update(paths=["../x.bin"]), "lie in '../x.bin'"),
        (lambda t: t["weightsManifest"][0]["paths"].pop(), "its shape .* wants"),
        (lambda t: t["weightsManifest"][0]["weights"].pop(), "its manifest tells"),
        (lambda t: t["weightsManifest"][0]["weights"][0].update(shape=[9**9]), "wants 387,420,489"),
        (lambda t: t["modelTopology"]["model_config"]["config"]["layers"][1].update(
            class_name="Lambda"), "is a Lambda"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_a_sentence(change, sentence, tmp_path):
    path = layers_model(tmp_path, alexnet(lrn=False))
    edit(path, change)
    with pytest.raises(RunError, match=sentence):
        import_file(path, tmp_path / "run")


@pytest.mark.slow  # Keras takes some seconds to be imported
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras's own, of NumPy's arrays
@pytest.mark.parametrize("functional", [False, True])
def test_files_of_keras_compute_what_keras_does(functional, tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    layers, drawn = [], []
    for kind, told, arrays in alexnet(lrn=False):
        if kind == "Conv2D":
            said = {"groups": 1, **told}
            layers.append(keras.layers.Conv2D(arrays[0].shape[-1], len(arrays[0]), **said))
        elif kind == "Dense":
            layers.append(keras.layers.Dense(arrays[0].shape[-1]))
        else:
            layers.append(getattr(keras.layers, kind)(**told))
        drawn += arrays
    layers[-1:-1] = [keras.layers.Dropout(0.5)]
    layers.append(keras.layers.Softmax())
    if functional:
        ends = [keras.Input((SIDE, SIDE, 3))]
        for layer in layers:
            ends.append(layer(ends[-1]))
        model, plain = keras.Model(ends[0], ends[-1]), keras.Model(ends[0], ends[-2])
    else:
        model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), *layers])
        plain = keras.Sequential([keras.Input((SIDE, SIDE, 3)), *layers[:-1]])
    model.set_weights(drawn)  # Keras's own differ from run to run, and its biases are all 0
    theirs = plain.predict(IMAGES, verbose=0)
    for name in ("net.keras", "net.h5"):
        model.save(tmp_path / name)
        imported = read(tmp_path / name, "keras")
        compare(logits(imported), theirs)
        assert imported.spec.dropout.rate == 0.5
    with zipfile.ZipFile(tmp_path / "net.keras") as archive:
        archive.extract("model.weights.h5", tmp_path)
    with pytest.raises(RunError, match="weights alone"):
        read(tmp_path / "model.weights.h5", "keras")
    assert "tensorflow" not in sys.modules
