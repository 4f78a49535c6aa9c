"""The roofline's parts are the network, and its costs are the arithmetic's."""

from dataclasses import asdict

import pytest
import torch

from alexnet.bench import roofline
from alexnet.bench.cases import Measurements, make_cases
from alexnet.bench.network_suites import make_train_suite
from alexnet.variants import SINGLE
from tests.bench.networks import TINY, settings


def test_the_parts_are_the_layers_with_weights_and_what_lies_between():
    names = [part.name for part in roofline.list_parts(SINGLE)]
    assert names == [
        "conv1", "relu1+norm1+pool1", "conv2", "relu2+norm2+pool2", "conv3", "relu3", "conv4",
        "relu4", "conv5", "relu5+pool5", "fc6", "relu6+drop6", "fc7", "relu7+drop7", "fc8",
    ]  # fmt: skip


def test_the_operations_add_up_to_the_networks(tmp_path):
    at = settings(tmp_path, spec=SINGLE, batch_size=64)
    costs = list(roofline.list_costs(at))
    inference = sum(gflop for _, work, gflop, _ in costs if work == "inference")
    training = sum(gflop for _, work, gflop, _ in costs if work == "training")
    assert inference == pytest.approx(64 * 2 * SINGLE.macs / 1e9)
    assert training == pytest.approx(64 * make_train_suite(at).gflop)


def test_the_numbers_moved_are_counted_once_each(tmp_path):
    at = settings(tmp_path, spec=SINGLE, batch_size=64, dtype=torch.bfloat16)
    costs = {(layer, work): gb for layer, work, _, gb in roofline.list_costs(at)}
    conv1, pool1, pixels = 96 * 55**2, 96 * 27**2, 3 * 227**2
    weights = 96 * (3 * 11**2 + 1)
    once = 64 * 2 * (pixels + conv1)
    assert costs["conv1", "inference"] == pytest.approx((once + 2 * weights) / 1e9)
    assert costs["conv1", "training"] == pytest.approx((2 * once + 3 * 4 * weights) / 1e9)
    group = "relu1+norm1+pool1"
    assert costs[group, "inference"] == pytest.approx(64 * 2 * (conv1 + pool1) / 1e9)
    assert costs[group, "training"] == pytest.approx(64 * 2 * (3 * conv1 + 2 * pool1) / 1e9)
    assert costs["all weights", "update"] == pytest.approx(5 * 4 * SINGLE.parameters / 1e9)


def test_every_part_runs_alone_on_what_the_one_before_leaves(tmp_path, monkeypatch):
    monkeypatch.setattr(roofline, "compile_fast", lambda module, device: module)
    at = settings(tmp_path)
    timed, _ = make_cases(roofline.list_cases(TINY), at)
    for one in timed.values():
        one.call()
    for part in roofline.list_parts(TINY):
        module, x = roofline.build_part(part, at)
        assert x.shape == (2, *part.inputs)
        assert module(x).shape == (2, *part.outputs)
        assert sum(parameter.numel() for parameter in module.parameters()) == part.weights


def test_a_share_is_of_the_longer_limit_and_the_sums_hold_the_update(tmp_path):
    at = settings(tmp_path)
    names = [case.name for case in roofline.list_cases(TINY)]
    times = {name: [0.010, 0.011, 0.012] for name in names}
    limits = {"matmul_float32_gflops": 1.0, "copy_gb_per_s": 1.0}
    amounts = dict.fromkeys(names, 1.0) | limits
    times |= {name: [0.01] for name in limits}
    measured = Measurements(amounts, times=times)
    lines = roofline.make_lines(at, measured)  # rates of 100 GFLOP/s and 100 GB/s
    conv1, group = lines[0], lines[2]
    assert (conv1.bound, group.bound) == ("matmul", "copy")
    assert conv1.limit_ms == pytest.approx(conv1.gflop / 100 * 1e3)
    assert group.limit_ms == pytest.approx(group.gb / 100 * 1e3)
    assert conv1.share == pytest.approx(conv1.limit_ms / 11)
    inference, training = lines[-2:]
    assert inference.ms == pytest.approx(11 * 15)
    assert training.ms == pytest.approx(11 * 16)
    table = roofline.format_lines([asdict(line) for line in lines]).splitlines()
    assert len(table) == 1 + 31 + 2
