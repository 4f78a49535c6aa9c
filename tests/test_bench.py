"""The benchmark compares what it says, in the form that tools read."""

import json
from dataclasses import replace

import torch

from alexnet.bench.peers import plain_network
from alexnet.network import build
from alexnet.variants import SINGLE


def test_the_peer_is_the_same_network():
    spec = replace(SINGLE, image=67, classes=10)
    ours, theirs = build(spec, seed=1).eval(), plain_network(spec).eval()
    theirs.load_state_dict(ours.state_dict())
    assert any(isinstance(module, torch.nn.LocalResponseNorm) for module in theirs)
    x = torch.randn(2, 3, 67, 67, generator=torch.Generator().manual_seed(0)) * 60
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_the_report_is_one_json_object(command):
    done = command(
        "bench", "infer", "lrn", "--network", "single", "--batch-size", 2, "--rounds", 1, "--json"
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {"results", "limits", "machine", "versions"} <= report.keys()
    peers = {(row["work"], row["peer"]) for row in report["results"]}
    assert {
        ("infer", "eager-float32"),
        ("infer", "eager-autocast"),
        ("infer", "matmul-limit"),
    } <= peers
    assert {("lrn", "torch"), ("lrn", "copy")} <= peers
    for row in report["results"]:
        assert {"work", "peer", "unit", "ours", "theirs", "ratio"} <= row.keys()
        assert abs(row["ratio"] - row["ours"] / row["theirs"]) < 1e-9
