"""Every case runs, the peers are who they say, and ratios point the right way."""

import sys
from dataclasses import replace

import pytest
import torch

from alexnet.bench import cases, network_suites
from alexnet.bench.cases import Suite, list_limit_cases, make_cases, matmul_name
from alexnet.bench.network_suites import (
    build_compiled_network,
    build_plain_network,
    build_torchvision_network,
    draw_pixels,
    export_network,
    list_runtime_cases,
    make_infer_1_suite,
    make_infer_suite,
    make_lrn_suite,
    make_train_suite,
    time_onnxruntime,
    time_openvino,
)
from alexnet.device import Device
from alexnet.network import build
from alexnet.spec import DropoutSpec
from alexnet.variants import TORCHVISION
from tests.bench.networks import TINY, settings

FAST_BFLOAT16 = Device.named("cpu").has_fast_bfloat16


@pytest.fixture
def uncompiled(monkeypatch):
    monkeypatch.setattr(network_suites, "compile_fast", lambda module, device: module)


def test_the_peer_is_the_same_network():
    spec = replace(TINY, dropout=DropoutSpec(form="inverted"))
    ours, theirs = build(spec, seed=1).eval(), build_plain_network(TINY).eval()
    theirs.load_state_dict(ours.state_dict())
    kinds = {type(module) for module in theirs}
    assert {torch.nn.LocalResponseNorm, torch.nn.Dropout} <= kinds
    assert not any(kind.__module__ == "alexnet.layers" for kind in kinds)
    x = torch.randn(2, 3, 67, 67, generator=torch.Generator().manual_seed(0)) * 60
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_torchvisions_form_is_its_layer_list():
    network = build_torchvision_network(TINY)
    kinds = " ".join(type(module).__name__ for module in network)
    assert kinds == (
        "Conv2d ReLU MaxPool2d Conv2d ReLU MaxPool2d Conv2d ReLU Conv2d ReLU Conv2d ReLU "
        "MaxPool2d Flatten Dropout Linear ReLU Dropout Linear ReLU Linear"
    )
    assert all(module.inplace for module in network if isinstance(module, torch.nn.ReLU))
    assert sum(p.numel() for p in build_torchvision_network(TORCHVISION).parameters()) == 61_100_840


@pytest.mark.parametrize(
    ("make", "peers"),
    [
        (make_train_suite, {"compiled", "eager-float32", "eager-autocast", "eager-torchvision"}),
        (
            make_infer_suite,
            {"compiled", "eager-float32", "onnxruntime-float32", "openvino-best"},
        ),
        (
            make_infer_1_suite,
            {"compiled", "eager-float32", "eager-autocast", "onnxruntime-float32"},
        ),
        (make_lrn_suite, {"torch", "copy"}),
    ],
)
def test_every_case_of_the_network_runs(make, peers, tmp_path, uncompiled):
    found = make(settings(tmp_path))
    names = [case.name for case in found.cases]
    assert names[0] == "ours"
    assert peers <= set(names)
    timed, ready = make_cases(
        [one for one in found.cases if one.name not in ("compiled", "openvino-best")],
        found.settings,
    )
    slow = {name for name in names if "autocast" in name and not FAST_BFLOAT16}
    assert ready.missing.keys() == slow
    for one in timed.values():
        one.call()
    images = {"infer-1": 1, "lrn": 1}.get(
        make.__name__.removeprefix("make_").removesuffix("_suite").replace("_", "-"), 2
    )
    assert set(ready.amounts.values()) == {images}


def test_a_training_step_has_three_products_a_layer_but_for_the_first(tmp_path):
    macs = {layer.name: layer.macs for layer in TINY.layers()}
    wanted = 2 * (3 * TINY.macs - macs["conv1"]) / 1e9
    assert make_train_suite(settings(tmp_path)).gflop == pytest.approx(wanted)


def test_the_other_runtimes_run_the_very_network(tmp_path):
    openvino = pytest.importorskip("openvino")
    onnxruntime = pytest.importorskip("onnxruntime")
    at = settings(tmp_path)
    given = draw_pixels(at, TINY).numpy()
    wanted = build(TINY).eval()(torch.from_numpy(given)).detach().numpy()
    size = abs(wanted).max()
    session = onnxruntime.InferenceSession(str(export_network(at)))
    assert abs(session.run(["logits"], {"pixels": given})[0] - wanted).max() < 1e-4 * size
    model = openvino.Core().compile_model(
        str(export_network(at)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    assert abs(model(given)["logits"] - wanted).max() < 1e-4 * size
    time_openvino(openvino.Core(), at, "BF16", "THROUGHPUT").call()


def test_a_peer_that_is_not_installed_is_told_in_a_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    timed, ready = make_cases(list_runtime_cases(settings(tmp_path)), settings(tmp_path))
    assert not timed
    for peer, package in (("onnxruntime-float32", "onnxruntime"), ("openvino-best", "openvino")):
        told = ready.missing[peer]
        assert f"needs the package {package}, which is not installed" in told
        assert "pip install 'alexnet[bench]'" in told
        assert "\n" not in told


def test_nothing_runs_in_a_type_that_the_processor_has_to_emulate(tmp_path, monkeypatch):
    monkeypatch.setattr(Device, "has_fast_bfloat16", False)
    monkeypatch.setattr(cases, "COPIED", 1 << 10)
    monkeypatch.setattr(Device, "has_int8", False)
    at = settings(tmp_path)
    timed, ready = make_cases(list_limit_cases(at), at)
    assert ready.missing.keys() == {matmul_name(torch.bfloat16), "matmul_int8_gops"}
    assert matmul_name(torch.float32) in timed
    for work in (
        make_train_suite,
        make_infer_suite,
        make_infer_1_suite,
    ):
        peers = [one for one in work(at).cases if one.name.startswith("eager-")]
        timed, ready = make_cases(peers, at)
        assert timed.keys() | ready.missing.keys() == {peer.name for peer in peers}
        assert ready.missing.keys() == {name for name in ready.missing if "autocast" in name}
        assert all("has no fast bfloat16" in why for why in ready.missing.values())


@pytest.mark.slow  # it compiles a network forward and backward
def test_the_compiled_peer_is_the_same_network(tmp_path):
    at = settings(tmp_path)
    network = build_compiled_network(at.device, TINY)
    plain = build_plain_network(TINY)
    assert network._compiled_call_impl is not None
    assert plain._compiled_call_impl is None
    plain.load_state_dict(network.state_dict())
    pixels = draw_pixels(at, TINY)
    assert torch.allclose(network.eval()(pixels), plain.eval()(pixels), atol=1e-5)
    (case,) = (one for one in make_train_suite(at).cases if one.name == "compiled")
    case.make(at).call()


def test_there_is_no_compiled_peer_without_a_compiler(tmp_path, monkeypatch):
    monkeypatch.setattr(Device, "can_compile", lambda self: (False, "No compiler."))
    for make in (make_train_suite, make_infer_suite, make_infer_1_suite):
        timed, ready = make_cases(make(settings(tmp_path)).cases[1:2], settings(tmp_path))
        assert not timed
        assert ready.missing == {"compiled": "No compiler."}


def test_there_is_no_processor_runtime_beside_a_gpu(tmp_path):
    assert list_runtime_cases(settings(tmp_path, device=Device(torch.device("cuda")))) == ()


def test_a_time_is_better_when_it_is_lower(tmp_path):
    rate = Suite(settings=settings(tmp_path), unit="images/s", cases=())
    delay = replace(rate, unit="ms")
    assert rate.to_unit([0.5], 64) == [128]
    assert delay.to_unit([0.5], 1) == [500]
    assert rate.ratio(200, 100) == 2
    assert delay.ratio(200, 100) == 0.5


def test_the_limits_are_named_with_their_unit(tmp_path):
    names = [one.name for one in list_limit_cases(settings(tmp_path))]
    assert names[:2] == ["matmul_float32_gflops", "matmul_bfloat16_gflops"]
    assert "copy_gb_per_s" in names
    assert "jpeg_256_images_per_s_a_core" not in names
    with_images = list_limit_cases(settings(tmp_path, images=tmp_path))
    assert with_images[-1].name == "jpeg_256_images_per_s_a_core"


def test_onnxruntime_answers_for_one_image(tmp_path):
    pytest.importorskip("onnxruntime")
    logits = time_onnxruntime(settings(tmp_path, batch_size=1)).call()
    assert logits[0].shape == (1, 10)
