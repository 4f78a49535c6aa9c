"""The report compares what it says, in the form that tools read."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch

from alexnet.bench import report
from alexnet.bench.cases import Case, list_limit_cases, matmul_name, time_matmul
from alexnet.bench.network_suites import (
    build_plain_network,
    make_infer_1_suite,
    make_infer_suite,
    time_eager_inference,
)
from alexnet.device import Device
from alexnet.errors import AlexNetError
from tests.bench.networks import TINY

pytestmark = pytest.mark.slow  # every case is a process of its own

FAST_BFLOAT16 = Device.best().has_fast_bfloat16
OURS = torch.bfloat16 if FAST_BFLOAT16 else torch.float32


@pytest.fixture(scope="module")
def measured():
    def with_two_cases(make_suite):
        def make(settings):
            ours, theirs = (
                Case(name, partial(time_eager_inference, build_plain_network, dtype))
                for name, dtype in (("ours", OURS), ("eager-float32", torch.float32))
            )
            return replace(make_suite(settings), cases=(ours, theirs))

        return make

    def small_limits(settings):
        dtypes = (torch.float32, torch.bfloat16)
        products = (Case(matmul_name(dtype), partial(time_matmul, dtype, 128)) for dtype in dtypes)
        return (*products, list_limit_cases(settings)[-1])

    suites = {
        "infer": with_two_cases(make_infer_suite),
        "infer-1": with_two_cases(make_infer_1_suite),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "SUITES", suites)
        patch.setattr(report, "list_limit_cases", small_limits)
        said = []
        found = report.run_benchmarks(
            ["infer", "infer-1"], TINY, batch_size=2, rounds=2, threads=1,
            report_progress=said.append,
        )  # fmt: skip
    assert said[::2] == ["infer: ours, eager-float32", "infer-1: ours, eager-float32"]
    assert said[1].startswith("infer    eager-float32")
    return json.loads(json.dumps(found))


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
    lines = report.format_report(measured | {"missing": missing}).splitlines()
    assert len(lines) == 1 + len(measured["results"]) + 1 + 2
    assert f"infer: no openvino-best. {why}" in lines
    assert lines[3].startswith("infer-1  eager-float32")
    assert lines[3].endswith("ms")


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_plot_is_a_whole_file(measured, tmp_path, suffix):
    path = tmp_path / f"bench{suffix}"
    report.draw_report(measured, path)
    start = path.read_bytes()[:100]
    assert start.startswith(b"\x89PNG") if suffix == ".png" else b"<?xml" in start
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_plot_that_cannot_be_written_leaves_nothing(measured, tmp_path):
    (tmp_path / "bench.png").mkdir()
    with pytest.raises((AlexNetError, OSError)):
        report.draw_report(measured, tmp_path / "bench.png")
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
    assert done.stderr.splitlines()[0] == "lrn: ours, torch, copy"
