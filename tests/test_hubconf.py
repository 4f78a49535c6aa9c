"""``torch.hub.load`` from a copy of the repository where nothing is installed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ASKED = """
import json, sys, torch
network = torch.hub.load(sys.argv[1], sys.argv[2], source="local", **json.loads(sys.argv[3]))
import alexnet
assert alexnet.__file__.startswith(sys.argv[1]), alexnet.__file__
print(network.spec.name, network.spec.classes, sum(p.numel() for p in network.parameters()))
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Return a copy of what a clone has."""
    root = tmp_path_factory.mktemp("clone")
    shutil.copy(ROOT / "hubconf.py", root)
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    return root


@pytest.mark.parametrize(
    ("entry", "switches", "printed"),
    [
        ("alexnet", {"network": "cifar_quick"}, "cifar_quick 10 145578"),
        ("paper", {"num_classes": 10}, "paper 10 56909194"),
    ],
)
def test_an_entry_builds_its_network(repository, environment, entry, switches, printed):
    done = subprocess.run(
        [sys.executable, "-c", ASKED, str(repository), entry, json.dumps(switches)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == printed, done.stderr


def test_every_entry_is_a_network_and_nothing_else_is_listed():
    import runpy

    from alexnet.variants import NETWORKS

    names = runpy.run_path(str(ROOT / "hubconf.py"))
    entries = {name for name, it in names.items() if callable(it) and not name.startswith("_")}
    assert entries == {"alexnet", *NETWORKS} - {"cifar_quick", "cifar_local"}
