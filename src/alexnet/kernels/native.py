"""C++ pages compiled on the machine that runs them, for that machine.

``torch.compile`` needs a C++ compiler too, so where steps are compiled these are at hand. A page is
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

import torch

from alexnet.files import cache_folder

STORED = {torch.bfloat16: "bfloat16", torch.float32: "float", torch.float64: "double"}
FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"),
    # What no result depends on, and vector code waits for.
    *("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros"),
)
WIDE_VECTORS = "-mprefer-vector-width=512"  # x86 compilers use half of the register else
COMPILING = 120  # seconds, at most


@cache
def unavailable_reason() -> str:
    """Return why pages cannot be compiled and run here, or nothing where they can."""
    if sys.byteorder != "little":
        return "pairs of bfloat16 are read as little-endian words"
    try:
        compiled(Path(__file__).with_name("normalised_pool.cpp"), **TRIAL)
    except subprocess.CalledProcessError as error:
        return (error.stderr.strip().splitlines() or [str(error)])[0][:120]
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return ""


TRIAL = {"stored": "float", "maps": 2, "rectify": 1, "norm": 0, "window": 1, "stride": 1}


@cache
def compiled(source: Path, **constants: str | int) -> ctypes.CDLL:
    """Return a page as a library, its constants defined in capitals; compiled at first use.

    Raises
    ------
    OSError
        Where there is no compiler, or nothing can be written to the cache.
    subprocess.SubprocessError
        Where the compiler refuses or does not end.
    """
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if not compiler:
        raise OSError("there is no C++ compiler")
    flags = [*FLAGS, *(f"-D{name.upper()}={value}" for name, value in constants.items())]
    if platform.machine() in ("x86_64", "AMD64"):
        flags.append(WIDE_VECTORS)
    key = "\0".join([source.read_text(encoding="utf-8"), *flags, _about(compiler)])
    path = cache_folder() / "kernels" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            built = Path(scratch, path.name)
            _run([compiler, *flags, str(source), "-o", str(built)])
            built.replace(path)  # whole or not there, whoever else compiles the same
    return ctypes.CDLL(str(path))


@cache
def _about(compiler: str) -> str:
    """Return what a library depends on besides its page: the compiler, and what it may use."""
    macros = [compiler, "-march=native", "-E", "-dM", "-x", "c++", os.devnull]
    return _run([compiler, "--version"]) + _run(macros)


def _run(command: list[str]) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=COMPILING)
    return done.stdout
