"""Features on the disk are those of the images, after any kill, and never a mixture."""

import multiprocessing
import random
import time
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from alexnet.data.augment import iter_crops
from alexnet.errors import AlexNetError, ConfigError, DataError
from alexnet.features import (
    activations,
    extract,
    last_hidden,
    layer_names,
    layer_shapes,
    open_stored,
)  # fmt: skip
from alexnet.features import extraction as module
from alexnet.features.extraction import DONE, read_stored
from alexnet.network import build
from alexnet.variants import AS_RUN, CAFFENET, CIFAR_LOCAL, NETWORKS, SINGLE
from tests.features.steps import extracted
from tests.test_network import narrow


@pytest.mark.parametrize("spec", NETWORKS.values(), ids=NETWORKS)
def test_every_named_output_has_the_shape_that_is_told(spec):
    spec = narrow(spec, 16)
    shapes = layer_shapes(spec)
    network = build(spec).eval()
    found = network.activations(torch.zeros(1, 3, spec.image_size, spec.image_size), shapes)
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
    pixels = paper.normalise(next(iter_crops(images, 227, 1)))
    with torch.inference_mode():
        assert torch.allclose(found["fc8"], paper.network(pixels), rtol=1e-5, atol=1e-6)
        assert torch.allclose(found["conv1"], paper.network.conv1(pixels), rtol=1e-4, atol=1e-3)
    assert (found["relu7"] >= 0).all()
    with pytest.raises(ConfigError, match=r"no layer 'cnov1'. Did you mean 'conv1'"):
        activations(paper, images, ["cnov1"])


BOTH = pytest.mark.parametrize("form", ["arrays", "parquet"])


@BOTH
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
    assert stored.labels.tolist() == [split.label(i) for i in range(len(split))]
    assert stored.about.bytes == sum(array.nbytes for array in stored.arrays.values())
    if form == "arrays":
        assert isinstance(stored.arrays["pool2"], np.memmap)
    else:
        table = pq.read_table(tmp_path / "part-00000.parquet")
        assert table.column_names == ["name", "label", "pool2", "relu64"]


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def stored_for_good(out):
    """How many images an extraction goes on from."""
    return (read_stored(out) or (None, 0))[1] or 0


@pytest.mark.slow  # processes are started, and killed
@BOTH
def test_an_extraction_killed_at_any_moment_ends_in_the_same_bytes(form, prepared, tmp_path):
    extracted(prepared.root, tmp_path / "undisturbed", form)
    wanted = contents(tmp_path / "undisturbed")
    assert len(wanted) == (4 if form == "arrays" else 5)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.features.steps"])
    draws, out, resumed_from = random.Random(7), tmp_path / "killed", []
    while not (out / DONE).is_file():
        before = stored_for_good(out)
        child = processes.Process(target=extracted, args=(prepared.root, out, form))
        child.start()
        while stored_for_good(out) <= before and child.is_alive():
            time.sleep(0.002)
        time.sleep(draws.random() * 0.2)
        child.kill()
        child.join()
        resumed_from.append(before)
    extracted(prepared.root, out, form)
    assert contents(out) == wanted
    assert len(set(resumed_from)) > 2


def test_unfinished_features_are_not_opened_and_others_are_not_mixed_in(quick, prepared, tmp_path):
    split, out = prepared.splits["train"], tmp_path / "out"
    with pytest.raises(DataError, match="holds no features"):
        open_stored(out)

    def interrupted(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(quick, split, ["fc64"], out, report=interrupted)
    with pytest.raises(DataError, match="not finished"):
        open_stored(out)
    other = replace(quick, network=build(quick.spec, seed=9).eval())
    for finished in (False, True):
        if finished:
            extract(quick, split, ["fc64"], out)
            before = contents(out)
        for changed, call in {
            "weights": (other, split, ["fc64"], out),
            "data": (quick, prepared.splits["test"], ["fc64"], out),
            "layers": (quick, split, ["fc64", "fc10"], out),
        }.items():
            with pytest.raises(DataError, match=rf"something else \(.*{changed}"):
                extract(*call)
        with pytest.raises(DataError, match="form: 'arrays' there, 'parquet' now"):
            extract(quick, split, ["fc64"], out, form="parquet")
    extract(quick, split, ["fc64"], out)
    assert contents(out) == before
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").touch()
    with pytest.raises(DataError, match="holds other files"):
        extract(quick, split, ["fc64"], tmp_path / "letters")


def test_two_processes_do_not_write_to_one_folder(quick, prepared, tmp_path):
    def again(done, total):
        extract(quick, prepared.splits["train"], ["fc64"], tmp_path)

    with pytest.raises(DataError, match="Another process is writing"):
        extract(quick, prepared.splits["train"], ["fc64"], tmp_path, report=again)


@pytest.mark.parametrize("small_disk", [200], indirect=True)
def test_a_disk_without_room_is_refused_before_and_explained_during(
    quick, prepared, small_disk, monkeypatch
):
    split = prepared.splits["train"]
    with pytest.raises(DataError, match=r"GB are needed .* free"):
        extract(quick, split, ["conv1"], small_disk / "out")
    monkeypatch.setattr(module, "require_space", lambda *asked: None)
    with pytest.raises(AlexNetError, match="The disk is full"):
        extract(quick, split, ["conv1"], small_disk / "out")
    (small_disk / "out" / "conv1.npy").unlink()


def test_damaged_features_are_a_sentence(quick, prepared, tmp_path):
    stored = extract(quick, prepared.splits["test"], ["fc64"], tmp_path)
    with pytest.raises(ConfigError, match=r"no features of 'fc46'. Did you mean 'fc64'"):
        stored.array("fc46")
    array = (tmp_path / "fc64.npy").read_bytes()
    for broken in (array[:-40], array[:7], b""):
        (tmp_path / "fc64.npy").write_bytes(broken)
        with pytest.raises(DataError, match="damaged"):
            open_stored(tmp_path).array("fc64")
    for text in ("{", "[]", '{"format": 9}', '{"format": 1}'):
        (tmp_path / DONE).write_text(text)
        with pytest.raises(DataError, match=r"damaged|of format"):
            open_stored(tmp_path)
