"""The report compares what it says, in the form that tools read."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch

from alexnet import device as devices
from alexnet.bench import plot, report
from alexnet.bench.contender import Contender
from alexnet.bench.limits import limits, matmul, matmul_name
from alexnet.bench.peers import plain_network
from alexnet.bench.works import eager_inference, infer_1_work, infer_work
from alexnet.errors import AlexNetError
from tests.bench.networks import TINY

FAST_BFLOAT16 = devices.has_fast_bfloat16(devices.best_device())
OURS = torch.bfloat16 if FAST_BFLOAT16 else torch.float32


@pytest.fixture(scope="module")
def measured():
    def two(work):
        def made(setting):
            ours, theirs = (
                Contender(name, partial(eager_inference, plain_network, kind))
                for name, kind in (("ours", OURS), ("eager-float32", torch.float32))
            )
            return replace(work(setting), contenders=(ours, theirs))

        return made

    def small(setting):
        kinds = (torch.float32, torch.bfloat16)
        products = (Contender(matmul_name(kind), partial(matmul, kind, 128)) for kind in kinds)
        return (*products, limits(setting)[-1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "WORKS", {"infer": two(infer_work), "infer-1": two(infer_1_work)})
        patch.setattr(report, "limits", small)
        said = []
        told = report.measured(
            ["infer", "infer-1"], TINY, batch_size=2, rounds=2, threads=1, say=said.append
        )
    assert said == ["infer: ours, eager-float32", "infer-1: ours, eager-float32"]
    return json.loads(json.dumps(told))


def test_a_result_has_medians_spreads_and_a_ratio(measured):
    rows = {(row["work"], row["peer"]): row for row in measured["results"]}
    assert rows.keys() == {
        ("infer", "eager-float32"), ("infer", "matmul-limit"), ("infer-1", "eager-float32"),
    }  # fmt: skip
    for (work, _), row in rows.items():
        higher, lower = ("theirs", "ours") if work == "infer-1" else ("ours", "theirs")
        assert row["ratio"] == pytest.approx(row[higher] / row[lower])
        for name in ("ours", "theirs", "ratio"):
            low, high = row[f"{name}_spread"]
            assert 0 < low <= high
        for name in ("ours", "theirs"):
            assert row[f"{name}_spread"][0] <= row[name] <= row[f"{name}_spread"][1]
    assert rows["infer-1", "eager-float32"]["unit"] == "ms"


def test_the_limit_of_a_work_is_the_machines_own(measured):
    row = next(row for row in measured["results"] if row["peer"] == "matmul-limit")
    kind = measured["machine"]["type"]
    rate = row["theirs"] * 2 * TINY.macs / 1e9
    low, high = measured["limits_spread"][f"matmul_{kind}_gflops"]
    assert low <= rate <= high  # the spread is over the rounds of all works


def test_the_report_says_where_and_with_what(measured):
    assert {"processor", "threads", "device", "type", "system"} <= measured["machine"].keys()
    assert {"alexnet", "python", "torch", "onnxruntime", "openvino"} <= measured["versions"].keys()
    assert {"matmul_float32_gflops", "copy_gb_per_s"} <= measured["limits"].keys()
    assert ("matmul_bfloat16_gflops" in measured["limits"]) == FAST_BFLOAT16
    missing = [(row["work"], row["peer"]) for row in measured["missing"]]
    assert missing == ([] if FAST_BFLOAT16 else [("limits", "matmul_bfloat16_gflops")])
    assert (measured["network"], measured["batch_size"], measured["rounds"]) == ("single", 2, 2)


def test_the_table_has_a_line_a_result_and_a_line_a_missing_peer(measured):
    why = "This needs the package openvino, which is not installed."
    missing = [{"work": "infer", "peer": "openvino-best", "why": why}]
    lines = report.as_text(measured | {"missing": missing}).splitlines()
    assert len(lines) == 1 + len(measured["results"]) + 1 + 2
    assert f"infer: no openvino-best. {why}" in lines
    assert lines[3].startswith("infer-1  eager-float32")
    assert lines[3].endswith("ms")


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_plot_is_a_whole_file(measured, tmp_path, suffix):
    path = tmp_path / f"bench{suffix}"
    plot.draw(measured, path)
    start = path.read_bytes()[:100]
    assert start.startswith(b"\x89PNG") if suffix == ".png" else b"<?xml" in start
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_plot_that_cannot_be_written_leaves_nothing(measured, tmp_path):
    (tmp_path / "bench.png").mkdir()
    with pytest.raises((AlexNetError, OSError)):
        plot.draw(measured, tmp_path / "bench.png")
    assert [file.name for file in tmp_path.iterdir()] == ["bench.png"]


def test_the_command_prints_one_json_object(command, tmp_path):
    done = command(
        *("bench", "lrn", "--batch-size", 1, "--rounds", 1, "--json", "--threads", 1),
        *("--plot", tmp_path / "bench.png"),
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert {(row["work"], row["peer"]) for row in told["results"]} == {
        ("lrn", "torch"), ("lrn", "copy"),
    }  # fmt: skip
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert done.stderr.strip() == "lrn: ours, torch, copy"
