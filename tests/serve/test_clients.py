"""The calls of docs/clients.md, each run as it stands; and what deploy/ holds, linted."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(sh|python|js)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
DEPLOY = ROOT / "deploy"


@pytest.fixture(scope="module")
def folder(photographs, tmp_path_factory) -> Path:
    """Return a folder with the files that the page names."""
    folder = tmp_path_factory.mktemp("client")
    images = [Image.open(file) for file in sorted(photographs.rglob("test/*/*.png"))[:2]]
    for image, name in zip(images, ("photograph.jpg", "another.jpg"), strict=True):
        image.convert("RGB").save(folder / name)
    images[0].convert("RGB").save(folder / "picture.bmp")
    return folder


@pytest.mark.parametrize(("kind", "code"), BLOCKS, ids=[kind for kind, _ in BLOCKS])
def test_a_call_of_the_page_is_answered(server, folder, kind, code):
    program = {"sh": "sh", "python": sys.executable, "js": shutil.which("node")}[kind]
    if program is None:
        pytest.skip("there is no node on this machine")
    assert "http://127.0.0.1:8000" in code
    file = folder / f"call.{'mjs' if kind == 'js' else kind}"
    file.write_text(code.replace("http://127.0.0.1:8000", server.url), encoding="utf-8")
    done = subprocess.run(
        [program, file.name], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert re.search("defective|functional|fc10", done.stdout), done.stdout


def test_the_page_has_calls_in_every_language():
    kinds = [kind for kind, _ in BLOCKS]
    assert (kinds.count("sh"), kinds.count("python"), kinds.count("js")) == (5, 3, 1)


def linted(name: str, *arguments: str) -> str:
    """Return what a linter says."""
    program = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip(f"{name} is not installed")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def test_the_dockerfile_is_sound_and_copies_what_is_there():
    assert linted("hadolint", str(DEPLOY / "Dockerfile")) == ""
    text = (DEPLOY / "Dockerfile").read_text()
    kept = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE):
        for name in line.split():
            assert (ROOT / name).exists()
            assert f"!{name}" in kept
    (command,) = re.findall(r"^CMD \[(.*)\]$", text, re.MULTILINE)
    assert command.startswith('"/run/served"')
    (health,) = re.findall(r"^  (\[.*\])$", text, re.MULTILINE)
    compile(json.loads(health)[2], "the health check", "exec")


def test_the_unit_is_sound(tmp_path):
    text = (DEPLOY / "alexnet.service").read_text()
    unit = tmp_path / "alexnet.service"  # its program has to be there
    program = Path(sys.executable).with_name("alexnet")
    unit.write_text(text.replace("/opt/alexnet/bin/alexnet", str(program)))
    assert linted("systemd-analyze", "verify", str(unit)) == ""


def test_the_kubernetes_example_is_sound_and_drains_longer_than_the_server():
    path = DEPLOY / "kubernetes.yaml"
    assert "passed" in linted("kubernetes-validate", "--strict", str(path))
    grace = int(re.findall(r"terminationGracePeriodSeconds: (\d+)", path.read_text())[0])
    assert grace > 30 + 5


@pytest.mark.parametrize("name", ["Dockerfile", "alexnet.service", "kubernetes.yaml"])
def test_every_flag_that_is_named_is_one_of_the_command(command, name):
    known = command("serve", "--help").stdout
    text = (DEPLOY / name).read_text()
    used = re.findall(r"(?<=[\s\[\"])--[a-z-]+", "\n".join(
        line for line in text.splitlines()
        if line.startswith(("CMD", "ExecStart")) or "args:" in line
    ))  # fmt: skip
    assert used
    assert [flag for flag in used if flag not in known] == []
