"""ONNX files and programs against the network (scenario 28), and that the check of them can fail.

Narrow networks here: all geometry is real, widths are a sixteenth. The full-size form is
``benchmarks/export_parity.py``.
"""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import alexnet
from alexnet.errors import AlexNetError, MissingExtraError
from alexnet.interop.export import (
    METADATA,
    OPSET,
    Deployed,
    build_onnx,
    export_onnx,
    export_program,
    generate_images,
    measure_parity,
    require_parity,
    run_onnx,
    sample_images,
)
from alexnet.spec import LRN
from alexnet.variants import NETWORKS, with_lrn
from tests.interop.conftest import model_of, narrow


# Of the graphs that take images, those that take pixels are a part.
@pytest.mark.parametrize("kind", ["images", pytest.param("pixels", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_runtime_computes_the_network(models, name, kind, tmp_path):
    model = models[name]
    images = generate_images(model.resize_to, 74)  # in batches of 1, 2, 7 and 64
    written = export_onnx(model, tmp_path / "net.onnx", images, "generated images", kind=kind)
    assert written.parity.holds
    assert written.parity.logits > 0  # two programs, not one
    assert list(tmp_path.iterdir()) == [tmp_path / "net.onnx"]  # one file, no part of it left


def test_the_file_takes_what_a_decoder_gives_and_says_so(models, tmp_path):
    model = models["caffe"]
    images = generate_images(model.resize_to, 3)
    export_onnx(model, tmp_path / "net.onnx", images, "generated", kind="images")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    taken = session.get_inputs()[0]
    side = model.resize_to
    assert (taken.name, taken.type) == ("images", "tensor(uint8)")
    assert taken.shape == ["batch", side, side, 3]
    _, chances = session.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(chances, model.probabilities(images), atol=1e-5)
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["classes"]) == list(model.classes)
    source = str(Path(alexnet.__file__).parent).encode()
    assert source not in (tmp_path / "net.onnx").read_bytes()  # PyTorch writes its stack traces
    assert json.loads(told["preprocessing_inside"]) is True
    assert json.loads(told["preprocessing"])["channels"] == "BGR"


def test_pixels_can_be_made_from_the_metadata_alone(models, tmp_path):
    """What issue threads ask for: no preprocessing to guess, the mean image included."""
    import base64

    model = models["caffe"]
    images = generate_images(model.resize_to, 3)
    export_onnx(model, tmp_path / "net.onnx", images, "generated")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    told = json.loads(session.get_modelmeta().custom_metadata_map["preprocessing"])
    mean = np.frombuffer(base64.b64decode(told["mean"]["float32_base64"]), "<f4")
    mean = mean.reshape(told["mean"]["shape"])
    at = (told["prepared"] - told["crop"]) // 2
    crop = images.numpy()[:, at : at + told["crop"], at : at + told["crop"]].transpose(0, 3, 1, 2)
    pixels = (crop.astype(np.float32) * told["scale"] - mean) / told["stdev"][0]
    pixels = np.ascontiguousarray(pixels[:, ::-1] if told["channels"] == "BGR" else pixels)
    _, chances = session.run(None, {"pixels": pixels.astype(np.float32)})
    np.testing.assert_allclose(chances, model.probabilities(images), atol=1e-5)


@pytest.mark.parametrize(("name", "operators"), [("single", 2), ("paper", 4), ("caffe", 2)])
def test_norms_are_onnx_operators_one_a_tower(models, name, operators):
    proto = build_onnx(models[name], "pixels")
    onnx.checker.check_model(proto, full_check=True)
    assert (proto.opset_import[0].domain, proto.opset_import[0].version) == ("", OPSET)
    nodes = [node.op_type for node in proto.graph.node]
    assert nodes.count("LRN") == operators
    assert "Pow" not in nodes
    assert len(nodes) < 35


def test_an_even_window_is_exported_as_the_convolution_that_it_is(tmp_path):
    model = model_of(with_lrn(narrow("single"), size=4))
    images = generate_images(model.resize_to, 3)
    written = export_onnx(model, tmp_path / "net.onnx", images, "generated")
    assert written.parity.holds


def wrong_norm(model):
    convs = [replace(conv, norm=conv.norm and LRN(k=1)) for conv in model.spec.convs]
    return _with_weights(model, replace(model.spec, convs=tuple(convs)))


def norm_across_towers(model):
    return _with_weights(model, with_lrn(model.spec, span="layer"))


def wrong_order(model):
    return _with_weights(
        model, model.spec.with_layers("conv1", order=("activation", "pool", "norm"))
    )


def wrong_colours(model):
    return replace(model, normalise=replace(model.normalise, bgr=not model.normalise.bgr))


def wrong_mean(model):
    mean = model.normalise.mean.mean((2, 3), keepdim=True).expand_as(model.normalise.mean)
    return replace(model, normalise=replace(model.normalise, mean=mean))


def wrong_crop(model):
    """Cut the window one pixel further up and to the left."""
    return replace(
        model, normalise=lambda pixels: model.normalise(pixels.roll((1, 1), dims=(2, 3)))
    )


def _with_weights(model, spec):
    from alexnet.network import build

    other = build(spec, seed=None).eval()
    other.load_state_dict(model.network.state_dict())
    return replace(model, network=other)


@pytest.mark.parametrize(
    "mistake",
    [wrong_norm, norm_across_towers, wrong_order, wrong_colours, wrong_mean, wrong_crop],
)
def test_a_planted_mistake_is_far_outside_the_limits(models, mistake):
    """The margin of the tolerances: each mistake is 30 times over them at the least."""
    model = models["paper"]
    deployed = Deployed(mistake(model), "images")
    images = generate_images(model.resize_to, 10)
    found = measure_parity(model, deployed, "images", images, "generated")
    assert found.logits > 3e-3
    assert found.probabilities > 3e-4
    assert not found.holds


def test_a_file_that_is_not_the_network_is_not_kept(models, tmp_path, monkeypatch):
    from alexnet.interop import export

    def another(model, *arguments):
        return build_onnx(wrong_colours(model), *arguments)

    monkeypatch.setattr(export, "build_onnx", another)
    images = generate_images(models["single"].resize_to, 3)
    with pytest.raises(AlexNetError, match=r"off by .*e-0.*No file was kept"):
        export_onnx(models["single"], tmp_path / "net.onnx", images, "generated", kind="images")
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_are_none_do_not_pass(models):
    def broken(batch):
        nothing = torch.full((len(batch), 20), torch.nan)
        return nothing, nothing

    model = models["single"]
    images = generate_images(model.resize_to, 3)
    with pytest.raises(AlexNetError, match="is not the network"):
        require_parity(measure_parity(model, broken, "images", images, "generated"), "ONNX file")


def test_the_check_takes_the_runs_own_photographs_where_they_are(models, prepared):
    model = replace(models["cifar_quick"], resize_to=64)
    images, source = sample_images(model, str(prepared.root), 5)
    assert images.shape == (5, 64, 64, 3)
    assert "held-out" in source
    assert sample_images(model, "/nowhere", 5)[1] == "generated images"


def test_without_the_extra_it_is_named(models, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"alexnet\[export\]"):
        export_onnx(models["single"], tmp_path / "x", torch.empty(0), "none")


def test_a_file_that_onnx_runtime_refuses_is_a_sentence(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"no graph")
    with pytest.raises(AlexNetError, match=r"ONNX Runtime .* refuses"):
        run_onnx(tmp_path / "net.onnx", "pixels")


@pytest.mark.parametrize("name", NETWORKS)
def test_the_program_is_the_network_bit_for_bit_in_any_batch(models, name, tmp_path):
    model = models[name]
    images = generate_images(model.resize_to, 12)
    path = tmp_path / "net.pt2"
    written = export_program(model, path, images, "generated", kind="images")
    assert (written.parity.logits, written.parity.probabilities) == (0, 0)
    assert written.parity.top5 == 12


ALONE = """
import json, sys, torch
sys.modules["alexnet"] = None  # whatever asks for it fails
entries = {"METADATA": ""}
program = torch.export.load(sys.argv[1], extra_files=entries).module()
images = torch.load(sys.argv[2], weights_only=True)
torch.save(program(images), sys.argv[3])
print(entries["METADATA"])
""".replace("METADATA", METADATA)


def test_it_runs_without_this_package_and_says_what_it_takes(models, tmp_path, environment):
    model = models["as_run"]
    images = generate_images(model.resize_to, 3)
    export_program(model, tmp_path / "net.pt2", images, "generated", kind="images")
    torch.save(images, tmp_path / "images.pt")
    paths = [str(tmp_path / name) for name in ("net.pt2", "images.pt", "out.pt")]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ALONE, *paths],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["classes"] == list(model.classes)
    _, chances = torch.load(tmp_path / "out.pt", weights_only=True)
    with torch.inference_mode():
        wanted = model.network(model.centre_crops(images)).softmax(1)
    torch.testing.assert_close(chances, wanted, atol=1e-6, rtol=0)
