"""Real photographs in small numbers, and the real command line."""

import multiprocessing
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from alexnet.cli.main import main
from alexnet.data.prepare import Options, prepare
from alexnet.data.shards import PreparedData, open_prepared
from alexnet.data.sources import open_elpv, open_source

Command = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).parents[1]
PRELOADED = ["tests.conftest", "torch", "torch._dynamo", "alexnet.training.fit", "alexnet.api"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what starts the command in processes of its own: seconds each, to import torch.

    So are servers, trainings that are killed, and the pages that a browser opens.
    """
    for item in items:
        if "environment" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Begin every test with the same draws, so that one that fails fails again when run alone."""
    torch.manual_seed(0)
    random.seed(0)  # from which Keras draws the seeds of its layers


@pytest.fixture(scope="session")
def photographs(tmp_path_factory) -> Path:
    """Return a class folder of 48 photographs of solar cells: train 36 and test 12."""
    root = tmp_path_factory.mktemp("photographs")
    source = open_elpv()
    for label, name in enumerate(source.classes):
        items = [item for item in source.splits["train"] if item.label == label][:24]
        for number, item in enumerate(items):
            split = "train" if number < 18 else "test"
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / Path(item.path).name).write_bytes(item.read())
    return root


@pytest.fixture(scope="session")
def prepared(photographs, tmp_path_factory) -> PreparedData:
    """Return the photographs, prepared at 64 pixels."""
    root = tmp_path_factory.mktemp("prepared") / "data"
    prepare(open_source(photographs), root, Options(size=64))
    return open_prepared(root)


def damaged(prepared: PreparedData, folder: Path, numbers: list[int]) -> PreparedData:
    """Copy a prepared data set and overwrite some training images on the disk."""
    shutil.copytree(prepared.root, folder)
    shard = folder / "train-00000.arrow"
    data = bytearray(shard.read_bytes())
    for number in numbers:
        image = prepared.splits["train"][number].image
        at = data.find(image)
        data[at + 20 : at + 60] = bytes(40)
    shard.write_bytes(data)
    return open_prepared(folder)


@pytest.fixture(scope="session")
def large(photographs, tmp_path_factory) -> PreparedData:
    """Return the photographs, prepared at 256 pixels."""
    root = tmp_path_factory.mktemp("large") / "data"
    prepare(open_source(photographs), root, Options(size=256))
    return open_prepared(root)


@pytest.fixture
def small_disk(tmp_path, request) -> Iterator[Path]:
    """Return a folder on a real disk of `request.param` kilobytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={request.param}k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> dict[str, str]:
    """Return an environment with a cache of its own and one thread."""
    changed = {"ALEXNET_CACHE": str(tmp_path_factory.mktemp("cache")), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **changed, "COLUMNS": "100"}


@pytest.fixture(scope="session")
def command(environment, tmp_path_factory) -> Command:
    """Return a function that runs ``alexnet`` in a process of its own.

    It is a fork of one that has imported torch, which takes a process of its own seconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    folder = tmp_path_factory.mktemp("commands")

    def run(*arguments: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        words = [*map(str, arguments)]
        streams = [folder / name for name in ("stdout", "stderr")]
        process = context.Process(target=run_command, args=(words, environment, cwd, *streams))
        process.start()
        process.join(120)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(words, 120)
        texts = [stream.read_text(encoding="utf-8") for stream in streams]
        return subprocess.CompletedProcess(words, process.exitcode, *texts)

    return run


def run_command(
    words: list[str], environment: dict[str, str], cwd: Path, out: Path, error: Path
) -> None:
    """Be a process of ``alexnet`` in a folder, its output going to two files."""
    for number, stream in enumerate((out, error), start=1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    sys.argv = ["alexnet", *words]
    main()


QUICK = (
    *("--network", "cifar_quick", "--batch-size", "12", "--no-compile", "--precision", "fp32"),
    *("--threads", "1", "--set", "log_every=1", "--set", "network.dropout.rate=0.5"),
    *("--set", "validate_every=10", "--lr", "0.001", "--set", "crop_area=none"),
)


@pytest.fixture(scope="session")
def trained(photographs, tmp_path_factory, command) -> Path:
    """Return the folder of a short finished run."""
    run = tmp_path_factory.mktemp("runs") / "trained"
    done = command("train", photographs, "--out", run, *QUICK, "--max-steps", "12")
    assert done.returncode == 0, done.stderr
    return run
