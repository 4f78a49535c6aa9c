"""What is chosen on each kind of device: on GPUs that pretend, since no machine has them all."""

from types import SimpleNamespace

import pytest
import torch

from alexnet import device as device_module
from alexnet.device import (
    MAX_RECORDED,
    CopyStream,
    CudaGraphRunner,
    Device,
    describe_machine,
    is_out_of_memory,
)
from alexnet.errors import ConfigError

CPU = Device(torch.device("cpu"))


@pytest.fixture(autouse=True)
def nothing_but_the_processor(monkeypatch):
    """Take away the GPUs of this machine, and what its environment says."""
    monkeypatch.delenv("ALEXNET_DEVICE", raising=False)


@pytest.fixture
def pretend(monkeypatch):
    """Return a function that has PyTorch say it has some kinds of GPUs, and no others."""

    def pretend(*kinds, gpus=2, fp64=True, bf16=True, macos=15):
        for kind, module in (("cuda", torch.cuda), ("xpu", torch.xpu)):
            monkeypatch.setattr(module, "is_available", lambda kind=kind: kind in kinds)
            monkeypatch.setattr(module, "device_count", lambda kind=kind: gpus * (kind in kinds))
            monkeypatch.setattr(module, "get_device_name", lambda at, kind=kind: f"A {kind} {at}")
            monkeypatch.setattr(module, "is_bf16_supported", lambda including_emulation: bf16)
        monkeypatch.setattr(
            torch.xpu, "get_device_properties",
            lambda at: SimpleNamespace(has_fp64=fp64, has_bfloat16_conversions=bf16),
        )  # fmt: skip
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in kinds)
        monkeypatch.setattr(torch.backends.mps, "get_name", lambda: "Apple M9")
        monkeypatch.setattr(
            torch.backends.mps,
            "is_macos_or_newer",
            lambda major, minor: (major, minor) <= (macos, 0),
        )

    return pretend


@pytest.mark.parametrize(
    ("kinds", "best", "second"),
    [
        ((), "cpu", "cpu"),
        (("mps",), "mps", "mps"),
        (("xpu",), "xpu:0", "xpu:1"),
        (("cuda",), "cuda:0", "cuda:1"),
        (("mps", "cuda", "xpu"), "cuda:0", "cuda:1"),
    ],
)
def test_the_fastest_kind_of_device_is_the_best(kinds, best, second, pretend):
    pretend(*kinds)
    assert str(Device.best()) == best
    assert str(Device.best(1)) == second
    assert device_module.count_devices() == (1 if best in ("cpu", "mps") else 2)


def test_the_environment_names_another_device(pretend, monkeypatch):
    pretend("cuda", "mps")
    monkeypatch.setenv("ALEXNET_DEVICE", "cpu")
    assert Device.best().is_cpu
    monkeypatch.setenv("ALEXNET_DEVICE", "cuda")
    assert str(Device.best(1)) == "cuda:1"
    monkeypatch.setenv("ALEXNET_DEVICE", "xpu")
    with pytest.raises(ConfigError, match=r"no device 'xpu' here\. Known: cuda, mps, cpu\."):
        Device.best()


@pytest.mark.parametrize("name", ["cuda:2", "mps", "no such", "meta", "cpu:1"])
def test_a_device_that_is_not_here_is_refused(name, pretend):
    pretend("cuda")
    with pytest.raises(ConfigError, match=f"no device '{name}' here. Known: cuda, cpu"):
        Device.named(name)


def test_a_name_a_device_of_pytorch_and_one_of_ours_name_the_same(pretend):
    pretend("cuda")
    named = Device.named("cuda:1")
    assert named == Device.named(torch.device("cuda", 1)) == Device.named(named)
    assert (named.type, named.name, str(named)) == ("cuda", "A cuda cuda:1", "cuda:1")
    assert Device.of(torch.ones(1)) == CPU


@pytest.mark.parametrize(
    ("kind", "more", "float64", "bfloat16"),
    [
        ("cuda", {}, True, True),
        ("cuda", {"bf16": False}, True, False),
        ("xpu", {}, True, True),
        ("xpu", {"fp64": False, "bf16": False}, False, False),
        ("mps", {}, False, False),
    ],
)
def test_types_are_those_that_the_device_has(kind, more, float64, bfloat16, pretend):
    pretend(kind, **more)
    device = Device.named(kind)
    assert device.has_float64 == float64
    assert device.sum_dtype == (torch.float64 if float64 else torch.float32)
    assert device.has_fast_bfloat16 == bfloat16
    assert device.choose_dtype("auto") == (torch.bfloat16 if bfloat16 else torch.float32)
    assert device.choose_dtype("bf16") == torch.bfloat16
    assert device.choose_dtype("fp32") == torch.float32
    assert not device.has_int8


def test_bfloat16_before_macos_14_is_refused(pretend):
    pretend("mps", macos=13)
    assert Device.named("mps").choose_dtype("auto") == torch.float32
    with pytest.raises(ConfigError, match="bf16 needs macOS 14"):
        Device.named("mps").choose_dtype("bf16")


def test_processes_meet_by_what_the_device_has(pretend):
    pretend("cuda", "xpu")
    assert Device.of_process(1) == Device.named("cuda:1")
    assert Device.named("cuda").collective_backend == "cpu:gloo,cuda:nccl"
    assert Device.named("xpu").collective_backend == "cpu:gloo,xpu:xccl"
    pretend("mps")
    assert Device.of_process(0) == CPU
    assert CPU.collective_backend == "gloo"


def test_on_the_processor_nothing_is_copied_or_waited_for():
    x = torch.ones(2)
    assert CPU.to_device(x) is x
    assert CopyStream(CPU).copy(x, x) == (x, x)
    assert CPU.start_copy_to_host(x).wait() is x
    assert CPU.memory() is None
    CPU.synchronize()
    CPU.make_current()
    CPU.release_memory()


def test_on_mps_copies_are_ordinary_and_it_is_waited_for(pretend, monkeypatch):
    pretend("mps")
    waited = []
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append(True))
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: waited.append(False))
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 100)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 30)
    device = Device.named("mps")
    assert not device.pins_memory
    device.synchronize()
    device.release_memory()
    assert waited == [True, False]
    assert device.memory() == (70, 100)
    x = torch.ones(2)
    assert device.start_copy_to_host(x).wait() is x
    assert device.name == "Apple M9"


class FakeQueue:
    """The functions of `torch.cuda` and `torch.xpu` that order work, noting what is asked."""

    def __init__(self):
        self.asked = []

    def Stream(self, device):
        return self._stream("beside")

    def current_stream(self, device):
        return self._stream("now")

    def _stream(self, name):
        return SimpleNamespace(
            name=name, wait_stream=lambda other: self.asked.append(f"{name} waits for {other.name}")
        )

    def stream(self, stream):
        self.asked.append(f"on {stream.name}")
        return torch.no_grad()

    def Event(self):
        return SimpleNamespace(
            record=lambda stream: self.asked.append(f"event on {stream.name}"),
            synchronize=lambda: self.asked.append("event waited for"),
        )


@pytest.mark.parametrize("kind", ["cuda", "xpu"])
def test_a_batch_is_copied_beside_and_what_follows_waits_for_it(kind, monkeypatch):
    queue = FakeQueue()
    monkeypatch.setitem(device_module.STREAM_MODULES, kind, queue)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda x, s: queue.asked.append("kept"))
    monkeypatch.setattr(torch.Tensor, "to", lambda x, *where, **how: x)
    device = Device(torch.device(kind, 0))
    assert device.pins_memory
    batch = torch.ones(2), torch.zeros(1)
    assert CopyStream(device).copy(*batch) == batch
    assert queue.asked == ["on beside", "now waits for beside", "kept", "kept"]
    queue.asked.clear()
    copy = device.start_copy_to_host(batch[0])
    assert queue.asked == ["event on now"]
    assert copy.wait() is batch[0]
    assert queue.asked == ["event on now", "event waited for"]


def test_autocast_is_for_bfloat16_alone():
    for dtype, used in ((torch.bfloat16, True), (torch.float32, False), (torch.float64, False)):
        with CPU.autocast(dtype):
            assert torch.is_autocast_enabled("cpu") == used


def test_a_network_is_placed_channels_last():
    conv = CPU.place_network(torch.nn.Conv2d(8, 8, 3))
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_what_cannot_be_compiled_runs_as_it_is_with_the_reason(monkeypatch):
    def broken(function, **options):
        raise RuntimeError("no compiler\nat all")

    monkeypatch.setattr(torch, "compile", broken)
    function, complaint = CPU.compile(torch.relu, torch.bfloat16)
    assert function is torch.relu
    assert complaint == "torch.compile does not work here, so steps are slower (no compiler)."


def test_on_mps_nothing_is_compiled(pretend):
    pretend("mps")
    function, complaint = Device.named("mps").compile(torch.relu, torch.float32)
    assert function is torch.relu
    assert "prototype on MPS" in complaint


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_want_of_memory_is_recognised_on_every_device(error, is_one):
    assert is_out_of_memory(error) == is_one


def test_a_machine_is_named_by_what_computes(pretend, monkeypatch):
    monkeypatch.setattr(device_module, "processor_name", lambda: "A processor")
    pretend()
    assert describe_machine().startswith("A processor, ")
    pretend("cuda")
    assert describe_machine().startswith("A cuda cuda:0 beside A processor, ")


def test_without_a_gpu_a_function_runs_as_it_is():
    calls = []
    runner = CudaGraphRunner(lambda x: calls.append(x) or x + 1)
    assert runner(torch.ones(2)).tolist() == [2, 2]
    assert runner(torch.zeros(2)).tolist() == [1, 1]
    assert len(calls) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_on_a_gpu_each_shape_is_recorded_once_and_answers_are_kept_apart(mode):
    layer = torch.nn.Linear(8, 8).cuda().requires_grad_(False)
    calls = []
    runner = CudaGraphRunner(lambda x: calls.append(x) or layer(x))
    with mode(), torch.autocast("cuda", torch.bfloat16):
        batches = [torch.randn(n, 8, device="cuda") for n in (1, 3, 1, 3, 3)]
        found = [runner(batch) for batch in batches]
        wanted = [layer(batch) for batch in batches]
    assert len(calls) == 2 * 3  # each shape twice before it is recorded
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
    layer.weight.mul_(2)  # where it lies: a graph reads it again
    torch.testing.assert_close(runner(batches[1]), layer(batches[1]), rtol=1e-6, atol=1e-6)
    many = [torch.randn(n, 8, device="cuda") for n in range(1, MAX_RECORDED + 5)]
    for batch in many:
        torch.testing.assert_close(runner(batch), layer(batch), rtol=1e-6, atol=1e-6)
