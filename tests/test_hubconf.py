"""``torch.hub.load`` from a copy of the repository where nothing is installed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet.interop.model_folder import write

ROOT = Path(__file__).parents[1]

ASKED = """
import json, sys, torch
for entry, positional, named in json.loads(sys.argv[2]):
    network = torch.hub.load(sys.argv[1], entry, *positional, source="local", **named)
    print(network.spec.name, network.spec.num_classes, sum(p.numel() for p in network.parameters()))
import alexnet
assert alexnet.__file__.startswith(sys.argv[1]), alexnet.__file__
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Return a copy of what a clone has."""
    root = tmp_path_factory.mktemp("clone")
    shutil.copy(ROOT / "hubconf.py", root)
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    return root


def test_entries_build_their_networks(repository, environment, trained, tmp_path):
    """In a process without an installation. The weights are `cifar_quick`'s, of two classes; its
    last layer has 65 parameters a class."""
    folder = str(write(trained, tmp_path / "model"))
    asked = [
        ("alexnet", ["cifar_quick"], {}, "cifar_quick 10 145578"),
        ("alexnet", [], {"network": "cifar_quick", "num_classes": 2}, "cifar_quick 2 145058"),
        ("paper", [10], {}, "paper 10 56909194"),
        ("paper", [], {"num_classes": 10, "seed": 3}, "paper 10 56909194"),
        ("alexnet", [], {"weights": folder}, "cifar_quick 2 145058"),
        ("alexnet", [], {"weights": folder, "num_classes": 7}, "cifar_quick 7 145383"),
    ]
    loads = json.dumps([load for *load, _ in asked])
    done = subprocess.run(
        [sys.executable, "-c", ASKED, str(repository), loads],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines() == [printed for *_, printed in asked], done.stderr


def test_every_entry_is_a_network_and_nothing_else_is_listed():
    import runpy

    from alexnet.variants import NETWORKS

    names = runpy.run_path(str(ROOT / "hubconf.py"))
    entries = {name for name, it in names.items() if callable(it) and not name.startswith("_")}
    assert entries == {"alexnet", *NETWORKS} - {"cifar_quick", "cifar_local"}
