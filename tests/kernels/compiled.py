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

from alexnet.kernels import triton_kernels
from alexnet.kernels.lrn_pool import BLOCK, WARPS

TOOLS = Path(triton.backends.nvidia.__file__).parent / "bin"


def build(kernel, kind: str, capability: int, window: int) -> dict:
    """Compile as `triton_lrn_pool` calls it; return registers, stack and shared memory in bytes."""
    side = (55 - window) // ((window + 1) // 2) + 1
    fixed = {"height": 55, "width": 55, "out_height": side, "out_width": side, "channels": 96}
    fixed |= {"towers": 1, "size": 5, "relu": True, "biased": True, "window": window}
    fixed |= {"stride": (window + 1) // 2, "block": BLOCK}
    if kernel is triton_kernels.forward:
        tensors = {"x_at": kind, "bias_at": "fp32", "out_at": kind, "chosen_at": "u8"}
        fixed["keeps"] = window > 1
    else:
        tensors = {"x_at": kind, "bias_at": "fp32", "grad_at": kind, "chosen_at": "u8"}
        tensors |= {"out_at": kind, "bias_grad_at": "fp32"}
    types = {name: f"*{type_}" for name, type_ in tensors.items()}
    types |= {"groups": "i32", "scale": "fp32", "k": "fp32"} | dict.fromkeys(fixed, "constexpr")
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
    ptx = done.asm["ptx"]
    return {
        "kernel": kernel.__name__,
        "type": kind,
        "capability": capability,
        "window": window,
        "registers": int(re.search(r"REG:(\d+)", told)[1]),
        "stack": int(re.search(r"STACK:(\d+)", told)[1]),
        "shared": done.metadata.shared,
        "wide": len(re.findall(r"ld\.global\S*\.v4\.b32", ptx)),  # loads of 16 bytes
        "loads": len(re.findall(r"ld\.global", ptx)),
    }


if __name__ == "__main__":
    found = [
        build(kernel, kind, capability, window)
        for kernel in (triton_kernels.forward, triton_kernels.backward)
        for kind in ("bf16", "fp32")
        for capability in (80, 90)
        for window in (1, 3)
    ]
    print(json.dumps(found))
