"""However a network and its batches are divided among processes, it is the same training."""

import contextlib
import os
import socket
import subprocess
import sys

import pytest
import safetensors.torch
import torch

from alexnet.errors import ConfigError
from alexnet.network import build
from alexnet.training.distributed import DistributedContext, Group
from alexnet.training.layout import check_divisible, count_gradient_bytes, lay_out, make_division
from alexnet.variants import NETWORKS, PAPER
from tests.training.steps import SIDE, narrow

# Processes that meet over gloo, up to four of them.
pytestmark = [pytest.mark.slow, pytest.mark.long]


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def steps(out, processes, *flags):
    """Run `tests.training.steps` in so many processes; return what rank 0 saved."""
    common = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1"}
    common |= {"MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.training.steps", str(out), *flags],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(processes)
    ]
    try:
        assert [process.wait(timeout=100) for process in started] == [0] * processes
    finally:
        for process in started:
            with contextlib.suppress(OSError):
                process.kill()
    return safetensors.torch.load_file(out)


def furthest(one, other):
    """Return the largest difference of anything that two trainings ended with."""
    names = one.keys() - {"sent", "in_data"}
    assert names == other.keys() - {"sent", "in_data"}
    return max(float((one[name] - other[name]).abs().max()) for name in names)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Return what 20 steps in one process end with, by network and type."""
    folder = tmp_path_factory.mktemp("alone")
    found = {}

    def of(network, kind):
        if (network, kind) not in found:
            flags = ("--network", network, "--kind", kind)
            found[network, kind] = steps(folder / f"{network}-{kind}", 1, *flags)
        return found[network, kind]

    return of


@pytest.mark.parametrize(
    ("network", "layout", "processes", "more"),
    [
        ("paper", "data", 2, ()),
        ("paper", "data", 3, ()),
        ("paper", "data", 2, ("--micro", "3")),
        ("paper", "towers", 2, ()),
        ("as_run", "towers", 2, ()),
        ("paper", "towers", 4, ("--micro", "2")),
        ("single", "hybrid", 2, ("--micro", "3")),
        ("torchvision", "hybrid", 2, ()),
    ],
)
def test_in_float64_it_is_that_of_one_process(alone, tmp_path, network, layout, processes, more):
    """20 steps with dropout, momentum and decay, the last of 5 and 2 images, which 3 and 4
    processes cannot share evenly. 1e-10 is asked; what sums in another order cost is 1e-15."""
    flags = ("--network", network, "--layout", layout, *more)
    found = steps(tmp_path / "out", processes, *flags)
    assert furthest(alone(network, "float64"), found) < 1e-10


@pytest.fixture(scope="module")
def frozen_alone(tmp_path_factory):
    return steps(tmp_path_factory.mktemp("frozen") / "alone", 1, *FROZEN)


FROZEN = ("--freeze", "conv1-conv4", "fc8", "--sizes", "8", "8", "5")


@pytest.mark.parametrize("layout", ["data", "towers", "hybrid"])
def test_with_frozen_layers_too(frozen_alone, tmp_path, layout):
    """And data parallelism sends the gradients of the others alone, each once with two."""
    found = steps(tmp_path / "out", 2, "--layout", layout, *FROZEN)
    assert furthest(frozen_alone, found) < 1e-10
    moving = {name.split(".")[1] for name in found if name.startswith("velocity.")}
    assert moving == {"conv5", "fc6", "fc7"}
    learned = sum(one.numel() for name, one in found.items() if name.startswith("velocity."))
    assert found["in_data"] == 8 * learned
    start = build(narrow("paper")).double().state_dict()
    kept = [name for name in start if torch.equal(found[name], start[name])]
    assert {name.split(".")[0] for name in kept} == {"conv1", "conv2", "conv3", "conv4", "fc8"}


def test_in_float32_towers_are_the_grouped_network(alone, tmp_path):
    found = steps(tmp_path / "out", 2, "--layout", "towers", "--kind", "float32")
    assert furthest(alone("paper", "float32"), found) < 1e-5


def test_compiled_and_shared_in_micro_batches_it_is_the_same(alone, tmp_path):
    flags = ("--kind", "float32", "--compile", "--micro", "2")
    found = steps(tmp_path / "out", 2, *flags)
    assert furthest(alone("paper", "float32"), found) < 1e-5


def test_traffic_is_what_the_shapes_say(tmp_path):
    """Of the narrow paper network: into conv3 32 maps of 7x7, conv5's 32 of 1x1 into fc6, 64
    units into fc7, 10 logits; each process sends half of them, and half of the gradients."""
    images, bytes_each = 4, 8
    found = steps(tmp_path / "out", 2, "--layout", "towers", "--sizes", str(images))
    spec = narrow("paper")
    sizes = {layer.name: layer.outputs for layer in spec.layers()}
    crossing = sizes["pool2"] + sizes["pool5"] + sizes["fc6"]  # there, and the gradients back
    logits = 2 * (2 - 1) / 2 * sizes["fc8"]
    assert found["sent"] == images * bytes_each * (crossing / 2 + crossing / 2 + logits)


def test_what_one_process_would_send_is_nothing():
    assert count_gradient_bytes(build(narrow("paper")), (), Group()) == 0


@pytest.mark.parametrize("kind", ["towers", "hybrid"])
def test_a_network_divided_and_joined_is_itself(kind):
    whole = build(PAPER).state_dict()
    parts = [make_division(PAPER, Group(None, rank, 2), kind).take_part(whole) for rank in (0, 1)]
    dims = make_division(PAPER, Group(None, 0, 2), kind).dims
    for name, tensor in whole.items():
        if name in dims:
            joined = torch.cat([part[name] for part in parts], dims[name])
            assert torch.equal(joined, tensor)
            assert parts[0][name].numel() * 2 == tensor.numel()
        else:
            assert parts[0][name] is tensor


@pytest.mark.parametrize(
    ("network", "parts", "kind", "told"),
    [
        ("single", 2, "towers", "'single' has one tower"),
        ("caffe", 2, "towers", "looks across its towers"),
        ("cifar_local", 2, "hybrid", "no hidden fully-connected layer"),
        ("paper", 3, "hybrid", "4,096 units of fc6 cannot be divided among 3"),
    ],
)
def test_what_cannot_be_divided_is_refused_with_the_reason(network, parts, kind, told):
    with pytest.raises(ConfigError, match=told):
        check_divisible(NETWORKS[network], parts, kind)


@pytest.mark.parametrize("kind", ["towers", "hybrid"])
def test_one_process_has_nobody_to_divide_with(kind):
    with pytest.raises(ConfigError, match=r"this is one.*alexnet launch"):
        lay_out(build(narrow("paper")), DistributedContext(), kind, fast=None)


def test_checkpoints_go_from_one_device_to_towers_and_back(photographs, tmp_path, command):
    """Both directions, through the command; float32, so to 1e-5."""
    flags = ["--network", "paper", "--batch-size", 12, "--no-compile", "--precision", "fp32"]
    flags += ["--set", f"network.image_size={SIDE}", "--set", "crop_area=none", "--lr", 0.001]
    flags += ["--set", "network.fc6.units=64", "--set", "network.fc7.units=64", "--threads", 1]
    alone, towers = (), ("launch", "--processes", 2)
    found = {}
    orders = {
        "alone": {8: alone},
        "to": {4: alone, 8: towers},
        "back": {4: towers, 8: alone},
    }
    for name, order in orders.items():
        run = tmp_path / name
        for steps, launch in order.items():
            shared = ("--towers", 2) if launch else ()
            words = (*launch, "train", photographs, "--out", run, *flags, *shared)
            done = command(*words, "--max-steps", steps)
            assert done.returncode == 0, done.stderr
        newest = run / "checkpoints" / "step-00000008"
        found[name] = {
            file: safetensors.torch.load_file(newest / f"{file}.safetensors")
            for file in ("weights", "velocity")
        }
    for name in ("to", "back"):
        for file, tensors in found["alone"].items():
            assert tensors.keys() == found[name][file].keys()
            for key, tensor in tensors.items():
                torch.testing.assert_close(found[name][file][key], tensor, rtol=0, atol=1e-5)
