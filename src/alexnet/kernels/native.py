"""C++ kernels compiled on the machine that runs them, for that machine.

``torch.compile`` needs a C++ compiler too, so where steps are compiled these can be. A kernel is
compiled once for each layer and type, in about a second, and kept in the user's cache.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.files import cache_folder, lock, sha256

CPP_DTYPES = {torch.bfloat16: "bfloat16", torch.float32: "float", torch.float64: "double"}
FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"),
    # What no result depends on, and vector code waits for.
    *("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros"),
)
LANES = 16  # floats in the widest vector register, which layers with kernels fill
WIDE_VECTORS = "-mprefer-vector-width=512"  # x86 compilers use half of the register else
COMPILE_SECONDS = 120  # at most
PROBE = {"stored": "float", "channels": 2, "relu": 1, "norm": 0, "window": 1, "stride": 1}


def unavailable_reason() -> str:
    """Return why kernels cannot be compiled and run here, or nothing where they can.

    One in the cache that is damaged, or that another user may have written, is compiled anew.
    """
    return find_compile_error("lrn_pool.cpp", **PROBE)


@cache
def find_compile_error(source: str, **constants: str | int) -> str:
    """Return why a kernel cannot be compiled and run here, or nothing where it can."""
    if sys.byteorder != "little":
        return "pairs of bfloat16 are read as little-endian words"
    try:
        compile_kernel(source, **constants)
    except subprocess.CalledProcessError as error:
        return (error.stderr.strip().splitlines() or [str(error)])[0][:120]
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return ""


@cache
def compile_kernel(source: str, **constants: str | int) -> ctypes.CDLL:
    """Return a file of this folder as a library, with constants as macros; compiled at first use.

    Raises `OSError` where there is no compiler, or nothing can be written to the cache; a
    `subprocess.SubprocessError` where the compiler refuses or does not end.
    """
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if not compiler:
        raise OSError("there is no C++ compiler")
    flags = [*FLAGS, *(f"-D{name.upper()}={value}" for name, value in constants.items())]
    if platform.machine() in ("x86_64", "AMD64"):
        flags.append(WIDE_VECTORS)
    path = Path(__file__).parent / source
    texts = [file.read_text(encoding="utf-8") for file in (path, *sorted(path.parent.glob("*.h")))]
    key = "\0".join([*texts, *flags, _describe_compiler(compiler)])
    folder = cache_folder() / "kernels"
    folder.mkdir(parents=True, exist_ok=True)
    if folder.stat().st_uid == os.getuid():
        folder.chmod(0o700)
    _check_owner(folder)
    name = hashlib.sha256(key.encode()).hexdigest()[:32]
    with lock(folder / f".{name}.lock"):
        built = next(filter(_is_whole, folder.glob(f"{name}-*.so")), None)
        if built is None:
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                made = Path(scratch, "kernel.so")
                _run([compiler, *flags, str(path), "-o", str(made)])
                made.chmod(0o700)
                built = folder / f"{name}-{sha256(made)}.so"
                made.replace(built)
        return ctypes.CDLL(str(built))


def _is_whole(library: Path) -> bool:
    """Whether a library is what was compiled here: the checksum in its name, and its owner."""
    try:
        _check_owner(library)
    except OSError:
        return False
    return library.stem.endswith(sha256(library))


def _check_owner(path: Path) -> None:
    """Refuse to run what another user may have written; `OSError`."""
    status = path.stat()
    if status.st_uid not in (os.getuid(), 0) or status.st_mode & 0o022:
        raise OSError(f"others may write {str(path)!r}, from which compiled kernels are loaded")


@cache
def _describe_compiler(compiler: str) -> str:
    """Return what a library depends on besides its source: the compiler, and what it may use."""
    macros = [compiler, "-march=native", "-E", "-dM", "-x", "c++", os.devnull]
    return _run([compiler, "--version"]) + _run(macros)


def _run(command: list[str]) -> str:
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=COMPILE_SECONDS
    )
    return done.stdout


def call(operator: Any, *arguments: Any) -> Tensor:
    """Call a `torch.library.custom_op`, past PyTorch where it has nothing to trace.

    Its first call through PyTorch imports the compiler: 2.6 s, and 150 MB that stay.
    """
    tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
    # Graphs are made with tensors of other classes, which have no numbers.
    plain = all(type(tensor) in (Tensor, nn.Parameter) for tensor in tensors)
    learns = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    has_no_gradient = learns and operator._backward_fn is None  # PyTorch says so, once asked
    if torch.compiler.is_compiling() or not plain or has_no_gradient:
        result = operator(*arguments)
    elif learns:
        result = _Untraced.apply(*arguments, operator)
    else:
        result = operator._init_fn(*arguments)
    return result  # type: ignore[no-any-return]


class _Untraced(torch.autograd.Function):
    """An operator, its last input, with the gradient that was registered for it."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        *arguments, ctx.operator = inputs
        output: Tensor = ctx.operator._init_fn(*arguments)
        ctx.operator._setup_context_fn(ctx, tuple(arguments), output)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return *ctx.operator._backward_fn(ctx, *gradients), None


def channels_last(x: Tensor) -> Tensor:
    """Return a tensor in the layout that the kernels read, copied where it has another."""
    return x.contiguous(memory_format=torch.channels_last)


def address(x: Tensor) -> ctypes.c_void_p:
    """Return where a tensor's numbers begin, for a kernel to read or write."""
    return ctypes.c_void_p(x.data_ptr())
