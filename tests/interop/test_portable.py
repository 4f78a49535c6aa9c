"""Portable ONNX files and stored weights, in every program that could be had here."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from alexnet.interop import export
from alexnet.interop.export import (
    LOGITS_WITHIN,
    PIXELS,
    build_onnx,
    export_onnx,
    generate_images,
    measure_parity,
)
from alexnet.interop.portable import (
    PORTABLE_OPSET,
    ConvolvedLRN,
    PooledLRN,
    SlicedLRN,
    measure_cost,
    store_weights,
    with_stored_weights,
)
from alexnet.layers import local_response_norm
from alexnet.spec import LRN
from alexnet.variants import NETWORKS, network_named
from tests.interop.conftest import model_of, narrow
from tests.interop.runtimes import RUNTIMES, Web, find_onnxruntime_web

# Two towers, LRN within channels, a pool over linear maps; local layers, averages, windows of nine.
HARDEST = {("as_run", "opencv"), ("cifar_local", "openvino")}
slow = pytest.mark.slow  # each is exported, and compiled by two programs
CASES = [
    pytest.param(name, program, marks=() if (name, program) in HARDEST else slow)
    for name in NETWORKS
    for program in ("openvino", "opencv")
]


@pytest.mark.parametrize(("name", "program"), CASES)
def test_other_programs_compute_the_network(models, name, program, tmp_path):
    pytest.importorskip({"opencv": "cv2"}.get(program, program))
    model, path = models[name], tmp_path / "net.onnx"
    images = generate_images(model.resize_to, 10)
    written = export_onnx(model, path, images, "generated", portable_for=program)
    assert written.opset == PORTABLE_OPSET
    graph = onnx.load(path).graph
    assert "LRN" not in {node.op_type for node in graph.node}
    attributes = [one for node in graph.node for one in node.attribute]
    assert not [one for one in attributes if one.name == "ceil_mode" and one.i]
    found = measure_parity(model, RUNTIMES[program](path), PIXELS, images, "generated", (1, 7))
    assert found.logits <= LOGITS_WITHIN
    assert found.top5 == 10


@pytest.mark.slow  # Node starts, and compiles onnxruntime-web
def test_a_browser_without_a_gpu_computes_the_networks(models, tmp_path):
    dist = find_onnxruntime_web()
    if dist is None:
        pytest.skip("onnxruntime-web is not installed: npm install onnxruntime-web")
    for name, _ in HARDEST:
        model, path = models[name], tmp_path / f"{name}.onnx"
        images = generate_images(model.resize_to, 10)
        export_onnx(model, path, images, "generated", portable_for="web", weights="float16")
        rounded = with_stored_weights(model, store_weights(model.network, "float16"))
        with Web(dist, tmp_path, path) as web:
            found = measure_parity(rounded, web.run, PIXELS, images, "generated", (1, 7))
        assert found.holds, name


# Two norms each: on maps of 55 x 55 and, in two towers, 27 x 27; of 27 x 27 and 13 x 13.
@pytest.mark.parametrize(("name", "pooled"), [("paper", 1), ("caffenet", 2)])
def test_the_form_for_onnx_runtime_goes_by_the_size_of_a_map(models, name, pooled, tmp_path):
    model, path = models[name], tmp_path / "net.onnx"
    images = generate_images(model.resize_to, 3)
    assert export_onnx(model, path, images, "", portable_for="onnxruntime").parity.holds
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count("AveragePool") == pooled
    assert kinds.count("Conv") == 5 + 2 - pooled


@pytest.mark.parametrize("form", [ConvolvedLRN, SlicedLRN, PooledLRN])
@pytest.mark.parametrize(
    ("norm", "towers"),
    [(LRN(), 2), (LRN(size=4, alpha=0.7, beta=0.6, k=1.3), 1), (LRN(size=9, span="layer"), 2)],
)
def test_each_form_is_the_formula(form, norm, towers):
    x = 30 * torch.randn(2, 24, 5, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(form(norm, towers, 24)(x), local_response_norm(x, norm, towers))


@pytest.mark.parametrize(
    "runtime", ["onnxruntime", *(pytest.param(one, marks=slow) for one in ("openvino", "opencv"))]
)
def test_at_full_width_nothing_is_computed_that_is_known(runtime):
    """The exporter folds small constants alone: 256 channels have a band that it would leave."""
    spec = network_named("single").with_layers("fc6", "fc7", units=16)
    kinds = {node.op_type for node in build_onnx(model_of(spec), PIXELS, runtime).graph.node}
    assert not kinds & {"GreaterOrEqual", "Less", "And", "Expand", "Tile", "Range", "Where", "Cast"}


@pytest.mark.parametrize("weights", ["float16", "int8"])
def test_stored_weights_are_what_readers_compute_with(models, weights, tmp_path):
    model, path = models["paper"], tmp_path / "net.onnx"
    images = generate_images(model.resize_to, 10)
    written = export_onnx(
        model, path, images, "generated", portable_for="onnxruntime", weights=weights
    )
    assert written.parity.holds
    whole = sum(one.numel() for one in model.network.parameters() if one.dim() > 1)
    bytes_each = {"float16": 2, "int8": 1}[weights]
    stored = {one.name: one.data_type for one in onnx.load(path).graph.initializer}
    kind = {"float16": onnx.TensorProto.FLOAT16, "int8": onnx.TensorProto.INT8}[weights]
    assert [*stored.values()].count(kind) == 8
    beside = path.stat().st_size - whole * bytes_each  # mean image, biases, scales, the graph
    assert beside < 1.3 * 4 * model.normalise.mean.numel() * 4 / 3


def test_int8_keeps_each_output_channel_within_half_a_step(models):
    network = models["single"].network
    for name, weight in store_weights(network, "int8").items():
        off = (weight.restore() - network.get_parameter(name)).abs().flatten(1).amax(1)
        step = network.get_parameter(name).abs().flatten(1).amax(1) / 127
        assert (off <= 0.5001 * step).all(), name


def test_a_channel_of_zeros_is_stored_as_one(models):
    model = model_of(narrow("cifar_quick"))
    with torch.no_grad():
        model.network.conv1.weight[0] = 0
    (first, *_) = store_weights(model.network, "int8").values()
    assert not first.restore()[0].any()
    assert np.isfinite(first.scale).all()


def test_wrong_weights_in_the_file_are_not_kept(models, tmp_path, monkeypatch):
    def doubled(graph, stored):
        more = {name: replace(one, values=one.values * 2) for name, one in stored.items()}
        insert_stored(graph, more)

    insert_stored = export.insert_stored
    monkeypatch.setattr(export, "insert_stored", doubled)
    images = generate_images(models["single"].resize_to, 3)
    with pytest.raises(Exception, match="is not the network"):
        export_onnx(models["single"], tmp_path / "x", images, "generated", weights="float16")
    assert list(tmp_path.iterdir()) == []


def test_what_weights_cost_is_of_the_runs_own_test_images(prepared):
    spec = replace(narrow("cifar_quick"), num_classes=len(prepared.classes))
    model = replace(model_of(spec), resize_to=64, classes=prepared.classes)
    found = measure_cost(model, "float16", str(prepared.root))
    assert found["images"] == 12
    exact = model.evaluate(prepared, crops=1)
    assert (found["float32_top1"], found["float32_top5"]) == (exact.top1, exact.top5)
    assert measure_cost(model, "float16", "/nowhere") is None


def test_preprocessing_inside_is_portable_too(models):
    proto = build_onnx(models["caffe"], "images", "onnxruntime")
    assert proto.opset_import[0].version == PORTABLE_OPSET
    assert "LRN" not in {node.op_type for node in proto.graph.node}
