"""The Triton kernels compiled for GPUs that need not be there; prints what the assembler says.

In a process of its own, whose Triton is not the interpreter and keeps nothing.
"""

import json
import re
import subprocess
import tempfile
from pathlib import Path

import triton
import triton.backends.nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from alexnet.kernels import triton_source
from alexnet.kernels.triton_lrn import BLOCK, WARPS, tiling

KERNELS = {triton_source.forward: ("x_at", "out_at")}
KERNELS[triton_source.backward] = ("x_at", "grad_at", "out_at")
TOOLS = Path(triton.backends.nvidia.__file__).parent / "bin"


def build(kernel, tensors, kind: str, capability: int, maps: int = 96, size: int = 5) -> dict:
    """Compile as `triton_lrn` calls it; return registers, stack and shared memory, in bytes."""
    tile, halo, _ = tiling(maps, size)
    precision = "tf32" if kind == "bf16" else "tf32x3"
    fixed = {"beta": 0.75, "maps": maps, "size": size, "relu": True, "precision": precision}
    fixed |= {"block": BLOCK, "tile": tile, "halo": halo}
    types = dict.fromkeys(tensors, f"*{kind}")
    types |= {"rows": "i32", "scale": "fp32", "k": "fp32"} | dict.fromkeys(fixed, "constexpr")
    aligned = {(place,): [["tt.divisibility", 16]] for place in range(len(tensors))}
    done = triton.compile(
        ASTSource(fn=kernel, signature=types, constexprs=fixed, attrs=aligned),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": WARPS, "enable_fp_fusion": True},
    )
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(done.asm["cubin"])
        told = subprocess.run(
            [TOOLS / "cuobjdump", "-res-usage", file.name],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    return {
        "kernel": kernel.__name__,
        "type": kind,
        "capability": capability,
        "registers": int(re.search(r"REG:(\d+)", told)[1]),
        "stack": int(re.search(r"STACK:(\d+)", told)[1]),
        "shared": done.metadata.shared,
        "tensor_cores": bool(re.search(r"mma\S*tf32", done.asm["ptx"])),
    }


if __name__ == "__main__":
    found = [
        build(kernel, tensors, kind, capability)
        for kernel, tensors in KERNELS.items()
        for kind in ("bf16", "fp32")
        for capability in (80, 90)
    ]
    print(json.dumps(found))
