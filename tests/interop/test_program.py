"""``torch.export`` programs against the network, read where this package is not."""

import json
import subprocess
import sys

import pytest
import torch

from alexnet.interop.export import METADATA, export_program, generate_images
from alexnet.variants import NETWORKS


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
