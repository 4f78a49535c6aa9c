"""What the machine can do, and how it is made to do it: device, types, compiler, memory."""

import ctypes
import os
import platform
import sys
import threading
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from alexnet.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])
M = TypeVar("M", bound=nn.Module)


def best_device(number: int = 0) -> torch.device:
    """Return the GPU of a number where PyTorch has one that it can use, else the processor."""
    return torch.device("cuda", number) if torch.cuda.is_available() else torch.device("cpu")


def device_name(device: torch.device) -> str:
    """Return what a report calls a device: ``cpu``, or the GPU's own name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def place_network(network: M, device: torch.device | str) -> M:
    """Move a network to a device, its weights channels-last, the fast layout of convolutions."""
    return network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a small tensor from the host to a device; on a GPU nobody waits for it to arrive."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)  # pageable memory would be waited for


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(
        torch.cpu._is_avx512_bf16_supported()  # type: ignore[no-untyped-call]
        or torch.cpu._is_amx_tile_supported()  # type: ignore[no-untyped-call]
    )


def has_int8() -> bool:
    """Whether the processor multiplies int8 in hardware, sums in 32 bits: AVX-512 VNNI or AMX.

    Without, pairs of products are added up in 16 bits, which overflow.
    """
    return bool(
        torch.backends.mkldnn.is_available()
        and (
            torch.cpu._is_vnni_supported()  # type: ignore[no-untyped-call]
            or torch.cpu._is_amx_tile_supported()  # type: ignore[no-untyped-call]
        )
    )


def choose_dtype(precision: Literal["auto", "fp32", "bf16"], device: torch.device) -> torch.dtype:
    """Return the type of the matrix products; weights and sums are float32 in either case."""
    if precision == "auto":
        precision = "bf16" if has_fast_bfloat16(device) else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def can_compile(device: torch.device) -> tuple[bool, str]:
    """Return whether ``torch.compile`` works here, or why it does not.

    It needs a C++ compiler on a processor and Triton on a GPU, and fails at the first call
    without; a probe of two numbers finds out before.
    """
    try:
        torch.compile(_probe)(torch.ones(2, device=device))
    except Exception as error:  # whatever the tool chain raises
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else repr(error)
        return False, f"torch.compile does not work here, so steps are slower ({reason})."
    return True, ""


def compile_or_not(function: F, device: torch.device) -> tuple[F, str]:
    """Return the function compiled, or as it is with the reason why."""
    works, complaint = can_compile(device)
    return (torch.compile(function, dynamic=False) if works else function), complaint  # type: ignore[return-value]


MOST_RECORDED = 16  # shapes of a network's input; others run as they are


class CudaGraphRunner:
    """A function of a tensor on a GPU that is recorded once a shape and then replayed.

    The processor starts a graph of kernels at once, where it would start them one by one: for a
    single image that takes ten times longer than the kernels themselves (docs/performance.md).
    Weights are read where they lay when it was recorded: changed in place they count, replaced
    they do not.

    Parameters
    ----------
    function : callable
        A tensor to a tensor, the same of each shape every time. No gradient comes back through it.
    """

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.function = function
        self._recorded: dict[Any, tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor]] = {}
        self._pool: Any = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the function does, in memory of its own."""
        key = (x.shape, x.stride(), x.dtype, x.device, torch.is_autocast_enabled("cuda"))
        if key not in self._recorded:
            if not x.is_cuda or len(self._recorded) == MOST_RECORDED:
                return self.function(x)
            self._recorded[key] = self._record(x)
        graph, given, found = self._recorded[key]
        given.copy_(x)
        graph.replay()
        return found.clone()  # else the next call would overwrite it

    @torch.inference_mode(False)
    @torch.no_grad()
    def _record(self, x: torch.Tensor) -> tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor]:
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


def _probe(x: torch.Tensor) -> torch.Tensor:
    return x * 2 + 1


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device, or the processor, has no memory left."""
    told = ("can't allocate memory", "could not create a primitive")  # PyTorch's and oneDNN's
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in told)
    )


TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4  # glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let the process reuse freed memory instead of returning it to the kernel; glibc alone.

    A step allocates and frees gigabytes. By default glibc maps each large block anew, and the
    kernel clears every page of it again: a third of the time of a step (measured in
    ``docs/log.md``). The price is that the process keeps its largest size to its end; there is no
    way back.

    Returns
    -------
    bool
        Whether the C library took the setting.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    settings = {MMAP_MAX: 0, TRIM_THRESHOLD: -1, TOP_PAD: 256 << 20}
    taken = [library.mallopt(name, value) for name, value in settings.items()]
    return all(taken)


def give_way() -> None:
    """Let the calling thread, and those that it starts, come after the process's others; Linux.

    A thread that answers a connection needs the processor seldom and at once.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.nice(0) + 5)


def use_threads(count: int | None) -> int:
    """Use `count` processor threads, or PyTorch's choice: ``OMP_NUM_THREADS``, else every core.

    Returns
    -------
    int
        How many threads are used.
    """
    if count is not None:
        if count < 1:
            raise ConfigError(f"{count} threads cannot do anything.", "Give 1 or more.")
        torch.set_num_threads(count)
    return torch.get_num_threads()


def processor() -> str:
    """Return the processor's name and number of cores."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 -- no regular file
            lines = [line for line in file if line.startswith("model name")]
        name = lines[0].split(":", 1)[1].strip() if lines else name
    except OSError:
        pass
    return f"{name}, {os.cpu_count()} cores"
