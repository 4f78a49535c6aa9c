"""Where a network runs: a GPU by CUDA, Apple's by MPS, Intel's by XPU, or the processor.

`Device` is the only place that tells them apart: types, streams, pinned memory, waiting, memory
figures, the compiler, and what a device cannot do. Beside it stand settings of the whole process.

CUDA (with ROCm, which has its name) and the processor are measured and tested. MPS and XPU follow
PyTorch's documentation and are tested on a device that pretends, never on the hardware.
"""

import ctypes
import os
import platform
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar

import torch
from torch import Tensor, autocast, nn
from torch import device as TorchDevice
from torch import dtype as DType

from alexnet.errors import ConfigError
from alexnet.recipes import MAX_THREADS

Function = TypeVar("Function", bound=Callable[..., Any])
M = TypeVar("M", bound=nn.Module)

VARIABLE = "ALEXNET_DEVICE"  # of the environment: the device to use in place of the best one
Precision = Literal["auto", "fp32", "bf16"]
STREAM_MODULES: dict[str, Any] = {
    "cuda": torch.cuda,
    "xpu": torch.xpu,
}  # GPUs that have streams, and whose
# modules of PyTorch have the same functions


@dataclass(frozen=True, slots=True)
class Device:
    """A device of PyTorch, and what it can do.

    Examples
    --------
    >>> device = Device.named("cpu")
    >>> device.type, device.has_float64, device.choose_dtype("fp32")
    ('cpu', True, torch.float32)
    """

    torch: TorchDevice

    @classmethod
    def best(cls, number: int = 0) -> Self:
        """Return the GPU of a number where PyTorch has one that it can use, else the processor.

        CUDA comes before XPU before MPS. ``ALEXNET_DEVICE`` in the environment names another; one
        that is not here is a `ConfigError`.
        """
        found = cls.named(os.environ.get(VARIABLE) or available_types()[0])
        if found.type in STREAM_MODULES and found.torch.index is None:
            return cls(TorchDevice(found.type, number))
        return found

    @classmethod
    def of_process(cls, local_rank: int) -> Self:
        """Return the device of one of several processes that train together on this machine.

        PyTorch has no collective operations on MPS, so that there the processor is used.
        """
        best = cls.best(local_rank)
        return cls(TorchDevice("cpu")) if best.type == "mps" else best

    @classmethod
    def named(cls, name: "str | TorchDevice | Device") -> Self:
        """Return a device by its name in PyTorch: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, ``xpu``.

        One that is not here is a `ConfigError`.
        """
        if isinstance(name, Device):
            return cls(name.torch)
        try:
            found = TorchDevice(name)
        except RuntimeError:
            found = None
        here = available_types()
        if found is None or found.type not in here or (found.index or 0) >= _count(found.type):
            raise ConfigError(
                f"There is no device {str(name)!r} here.", f"Known: {', '.join(here)}."
            )
        return cls(found)

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        """Return the device that a tensor is on."""
        return cls(tensor.device)

    def __str__(self) -> str:
        return str(self.torch)

    @property
    def type(self) -> str:
        """``cpu``, ``cuda``, ``mps`` or ``xpu``."""
        return self.torch.type

    @property
    def is_cpu(self) -> bool:
        """Whether it is the processor."""
        return self.type == "cpu"

    @property
    def name(self) -> str:
        """What a report calls it: ``cpu``, or the GPU's own name."""
        if self.type in STREAM_MODULES:
            return str(STREAM_MODULES[self.type].get_device_name(self.torch))
        if self.type == "mps":
            return str(torch.backends.mps.get_name())
        return str(self.torch)

    # What it can do.

    def describe_rounding(self, threads: int | None = None) -> str:
        """Say what the last bits of a sum depend on: the device, a processor's vectors, threads.

        Threads are those that are used, unless a number is given.
        """
        if not self.is_cpu:
            return self.name
        vectors = torch.backends.cpu.get_cpu_capability()
        return f"{processor_name()} ({vectors}), {threads or torch.get_num_threads()} threads"

    @property
    def has_float64(self) -> bool:
        """Whether it computes in float64: MPS never does, and some of Intel's GPUs do not."""
        if self.type == "xpu":
            return bool(torch.xpu.get_device_properties(self.torch).has_fp64)
        return self.type != "mps"

    @property
    def sum_dtype(self) -> DType:
        """The widest type that it has, for sums over many images."""
        return torch.float64 if self.has_float64 else torch.float32

    @property
    def has_fast_bfloat16(self) -> bool:
        """Whether it multiplies bfloat16 matrices in hardware.

        PyTorch does not say which of Apple's GPUs do, so MPS counts as one that does not.
        """
        if self.type == "cuda":
            return torch.cuda.is_bf16_supported(including_emulation=False)
        if self.type == "xpu":
            return bool(torch.xpu.get_device_properties(self.torch).has_bfloat16_conversions)
        if not self.is_cpu:
            return False
        return bool(
            torch.cpu._is_avx512_bf16_supported()  # type: ignore[no-untyped-call]
            or torch.cpu._is_amx_tile_supported()  # type: ignore[no-untyped-call]
        )

    @property
    def has_int8(self) -> bool:
        """Whether networks run in int8 on it: on a processor with AVX-512 VNNI or AMX.

        Those add up products of int8 in 32 bits. Without, pairs of products are added up in 16
        bits, which overflow.
        """
        return self.is_cpu and bool(
            torch.backends.mkldnn.is_available()
            and (
                torch.cpu._is_vnni_supported()  # type: ignore[no-untyped-call]
                or torch.cpu._is_amx_tile_supported()  # type: ignore[no-untyped-call]
            )
        )

    @property
    def has_fused_kernels(self) -> bool:
        """Whether `fused` has kernels for it."""
        return self.type in ("cpu", "cuda")

    @property
    def pins_memory(self) -> bool:
        """Whether copies from pinned memory of the host run beside other work."""
        return self.type in STREAM_MODULES

    @property
    def records_graphs(self) -> bool:
        """Whether a network's kernels can be recorded and replayed as one, by a CUDA graph."""
        return self.type == "cuda"

    @property
    def collective_backend(self) -> str:
        """What `torch.distributed` uses for tensors on it and on the processor."""
        gpu = {"cuda": ",cuda:nccl", "xpu": ",xpu:xccl"}.get(self.type, "")
        return f"cpu:gloo{gpu}" if gpu else "gloo"

    def choose_dtype(self, precision: Precision) -> DType:
        """Return the type of the matrix products; weights and sums are float32 in either case.

        bf16 on MPS before macOS 14, which does not have the type, is a `ConfigError`.
        """
        if precision == "auto":
            precision = "bf16" if self.has_fast_bfloat16 else "fp32"
        if precision == "fp32":
            return torch.float32
        if self.type == "mps" and not torch.backends.mps.is_macos_or_newer(14, 0):
            raise ConfigError("bf16 needs macOS 14 on this GPU.", "Use fp32.")
        return torch.bfloat16

    def autocast(self, dtype: DType) -> autocast:
        """Return the context in which matrix products are of a type.

        For float32 and float64 that is none, whatever context is around it.
        """
        narrow = dtype == torch.bfloat16
        return autocast(self.type, dtype if narrow else None, enabled=narrow)

    # Moving numbers.

    def place_network(self, network: M) -> M:
        """Move a network here, its weights channels-last, the fast layout of convolutions."""
        return network.to(self.torch).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def to_device(self, tensor: Tensor) -> Tensor:
        """Copy a small tensor from the host here; the host does not wait for it where it can be.

        Pageable memory would be waited for, so it is pinned first.
        """
        if not self.pins_memory or tensor.device.type != "cpu":
            return tensor.to(self.torch)
        return tensor.pin_memory().to(self.torch, non_blocking=True)

    def start_copy_to_host(self, tensor: Tensor) -> "HostCopy":
        """Start to copy a tensor from here to the host, which waits for no later work."""
        if self.type not in STREAM_MODULES:
            return HostCopy(tensor, None)
        queue = STREAM_MODULES[self.type]
        copy = tensor.to("cpu", non_blocking=True)  # into pinned memory
        arrived = queue.Event()
        arrived.record(queue.current_stream(self.torch))
        return HostCopy(copy, arrived)

    def synchronize(self) -> None:
        """Wait until everything that was queued here is done."""
        if self.type in STREAM_MODULES:
            STREAM_MODULES[self.type].synchronize(self.torch)
        elif self.type == "mps":
            torch.mps.synchronize()

    def make_current(self) -> None:
        """Let this process use it where no device is named, as collective operations do."""
        if self.type in STREAM_MODULES:
            STREAM_MODULES[self.type].set_device(self.torch)

    # Its memory.

    def memory(self) -> tuple[int, int] | None:
        """Return its free memory and all of it, in bytes; None for a processor."""
        if self.type in STREAM_MODULES:
            free, total = STREAM_MODULES[self.type].mem_get_info(self.torch)
            return int(free), int(total)
        if self.type == "mps":
            total = torch.mps.recommended_max_memory()
            return total - torch.mps.driver_allocated_memory(), total
        return None

    def release_memory(self) -> None:
        """Give memory that PyTorch keeps for later tensors back to the device."""
        if self.type in STREAM_MODULES:
            STREAM_MODULES[self.type].empty_cache()
        elif self.type == "mps":
            torch.mps.empty_cache()

    # Compiling.

    def gains_by_compiling(self, dtype: DType) -> bool:
        """Whether ``torch.compile`` makes fast forms of a network in a type any faster.

        Not in float32 on a processor: what it would join is in kernels of this package already,
        and it takes seconds at each start (benchmarks/results/2026-11-29_float32).
        """
        return not (self.is_cpu and dtype == torch.float32)

    def can_compile(self) -> tuple[bool, str]:
        """Return whether ``torch.compile`` works here, or why it does not.

        It needs a C++ compiler on a processor and Triton on a GPU, and fails at the first call
        without; a probe of two numbers finds out before. PyTorch calls its compiler for MPS a
        prototype, and none of ours was tried with it.
        """
        if self.type == "mps":
            return False, "torch.compile is a prototype on MPS, so functions run as they are."
        try:
            torch.compile(_probe)(torch.ones(2, device=self.torch))
        except Exception as error:  # whatever the tool chain raises
            reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else repr(error)
            return False, f"torch.compile does not work here, so steps are slower ({reason})."
        return True, ""

    def compile(self, function: Function, dtype: DType) -> tuple[Function, str]:
        """Return the function compiled for a type, or as it is with the reason why, if it is one.

        There is none where nothing is gained by it.
        """
        if not self.gains_by_compiling(dtype):
            return function, ""
        works, complaint = self.can_compile()
        return (torch.compile(function, dynamic=False) if works else function), complaint  # type: ignore[return-value]


def available_types() -> tuple[str, ...]:
    """Return the kinds of devices that PyTorch can use here, the fastest first."""
    usable: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "xpu": torch.xpu.is_available,
        "mps": torch.backends.mps.is_available,
        "cpu": lambda: True,
    }
    return tuple(kind for kind, works in usable.items() if works())


def _count(type: str) -> int:
    return int(STREAM_MODULES[type].device_count()) if type in STREAM_MODULES else 1


def count_devices() -> int:
    """Return how many processes can have a device of the best kind each; 1 without a GPU.

    Also 1 where ``ALEXNET_DEVICE`` names one of several, such as ``cuda:1``.
    """
    named_one = ":" in os.environ.get(VARIABLE, "")
    return 1 if named_one else _count(Device.best().type)


@dataclass(frozen=True, slots=True)
class HostCopy:
    """A tensor on its way from a device to the host."""

    tensor: Tensor
    arrived: Any  # an event of the device; None where the tensor itself is read

    def wait(self) -> Tensor:
        """Return the tensor, once it is there."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.tensor


class CopyStream:
    """Copies batches from the host to a device beside what the device is computing.

    The training loop asks for a batch while a GPU is still at the last one's gradients: on a stream
    of its own a copy from pinned memory does not queue behind them. On MPS and on the processor a
    copy is an ordinary one.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self._queue = STREAM_MODULES.get(device.type)
        self._stream = self._queue.Stream(device.torch) if self._queue else None

    def copy(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Copy tensors in pinned memory; what is queued after this finds them whole."""
        if self._queue is None:
            return tuple(tensor.to(self.device.torch) for tensor in tensors)
        with self._queue.stream(self._stream):
            copies = tuple(tensor.to(self.device.torch, non_blocking=True) for tensor in tensors)
        now = self._queue.current_stream(self.device.torch)
        now.wait_stream(self._stream)
        for copy in copies:
            copy.record_stream(now)  # else the next copy could take its memory while it is read
        return copies


MAX_RECORDED = 16  # shapes of a network's input; others run as they are


class CudaGraphRunner:
    """A function of a tensor on a GPU that is recorded once a shape and then replayed.

    The processor starts a graph of kernels at once, where it would start them one by one: for a
    single image that takes ten times longer than the kernels themselves (docs/performance.md).
    Weights are read where they lay when it was recorded: changed in place they count, replaced they
    do not. The function does the same for a shape every time, and no gradient comes back.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function
        self._recorded: dict[Any, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}
        self._pool: Any = None

    def __call__(self, x: Tensor) -> Tensor:
        """Return what the function does, in memory of its own."""
        key = (x.shape, x.stride(), x.dtype, x.device, torch.is_autocast_enabled("cuda"))
        if key not in self._recorded:
            if not x.is_cuda or len(self._recorded) == MAX_RECORDED:
                return self.function(x)
            self._recorded[key] = self._record(x)
        graph, given, found = self._recorded[key]
        given.copy_(x)
        graph.replay()
        return found.clone()  # else the next call would overwrite it

    @torch.inference_mode(False)
    @torch.no_grad()
    def _record(self, x: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        given, beside = torch.empty_like(x).copy_(x), torch.cuda.Stream(x.device)
        beside.wait_stream(torch.cuda.current_stream(x.device))
        kind, on = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
        with torch.autocast(
            "cuda", kind, enabled=on, cache_enabled=False
        ):  # a cache would be freed
            with torch.cuda.stream(beside):  # what is chosen and compiled at first is not recorded
                for _ in range(2):
                    self.function(given)
            torch.cuda.current_stream(x.device).wait_stream(beside)
            self._pool = self._pool or torch.cuda.graph_pool_handle()  # graphs run one at a time
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                found = self.function(given)
        return graph, given, found


def _probe(x: Tensor) -> Tensor:
    return x * 2 + 1


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device, or the processor, has no memory left."""
    told = (
        "can't allocate memory",  # PyTorch's, of a processor
        "could not create a primitive",  # oneDNN's
        "MPS backend out of memory",
    )
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in told)
    )


TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4  # glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let the process reuse freed memory; return whether the C library, glibc alone, took that.

    A step allocates and frees gigabytes. By default glibc maps each large block anew, and the
    kernel clears every page of it again: a third of the time of a step (measured in
    ``docs/log.md``). The price is that the process keeps its largest size to its end; there is no
    way back.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    settings = {MMAP_MAX: 0, TRIM_THRESHOLD: -1, TOP_PAD: 256 << 20}
    taken = [library.mallopt(name, value) for name, value in settings.items()]
    return all(taken)


def lower_thread_priority() -> None:
    """Lower the priority of the calling thread, and of those that it starts; Linux alone.

    A thread that answers a connection needs the processor seldom and at once.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.nice(0) + 5)


def use_threads(count: int | None) -> int:
    """Use `count` processor threads, or PyTorch's choice; return how many are used.

    That choice is ``OMP_NUM_THREADS``, else every core.
    """
    if count is not None:
        if not 1 <= count <= MAX_THREADS:
            raise ConfigError(f"{count} threads cannot be had.", f"Give 1 to {MAX_THREADS}.")
        torch.set_num_threads(count)
    return torch.get_num_threads()


def processor_name() -> str:
    """Return what the processor is called."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 -- no regular file
            lines = [line for line in file if line.startswith("model name")]
        name = lines[0].split(":", 1)[1].strip() if lines else name
    except OSError:
        pass
    return name


def describe_processor() -> str:
    """Return the processor's name and number of cores."""
    return f"{processor_name()}, {os.cpu_count()} cores"


def describe_machine() -> str:
    """Return what computes here: the GPU with the processor beside it, or the processor alone."""
    best = Device.best()
    return describe_processor() if best.is_cpu else f"{best.name} beside {describe_processor()}"
