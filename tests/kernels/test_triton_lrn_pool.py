"""The GPU's one pass in Triton's interpreter, against the plain layers in float64.

The interpreter computes products of float32 exactly where tensor cores round
to TF32, so that these tolerances say nothing of that.
"""

import importlib.util
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from alexnet.kernels.lrn_pool import KernelConfig, is_triton_available
from tests.kernels.interpreted import CASES

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("triton") is None, reason="Triton is not installed"
    ),
    pytest.mark.slow,
]  # Triton's interpreter takes a thousand times a processor's time


def in_a_process(script, *arguments, **environment):
    root = Path(__file__).parents[2]
    paths = os.pathsep.join(map(str, (root / "src", root)))
    done = subprocess.run(
        [sys.executable, Path(__file__).parent / script, *arguments], cwd=root, text=True,
        capture_output=True, env={**os.environ, "PYTHONPATH": paths, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    if torch.cuda.is_available():
        pytest.skip("the GPU itself is asked, whose Triton may be too old to interpret")
    out = tmp_path_factory.mktemp("interpreted") / "found.pt"
    in_a_process("interpreted.py", out, TRITON_INTERPRET="1")
    return torch.load(out)


@pytest.mark.parametrize("number", range(len(CASES)))
def test_it_is_the_plain_form_and_its_gradient(found, number):
    """Float32: some ten operations of 2**-24 each, and a power that is good to 2**-22.

    Bfloat16: the result is that of float32, made shorter once, which the interpreter does by
    cutting: 2**-7 of it; a GPU rounds, with half of that error. A gradient is a difference of two
    terms, so that its error in float32 is relative to the larger of them: the largest gradient.
    """
    case = CASES[number]
    for ours, exact in zip(found[number], case.plain(), strict=True):
        narrow = ours.dtype == torch.bfloat16
        tolerance = 1e-6 * exact.abs().max().item()
        torch.testing.assert_close(
            ours.double(), exact, rtol=2**-7 if narrow else 2e-6, atol=tolerance
        )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("case", CASES)
def test_on_a_gpu_it_is_the_plain_form_and_its_gradient(case):
    """Bfloat16 has TF32's rounding of the sum, 2**-11, beside its own."""
    rounding = 2**-7 if case.type == torch.bfloat16 else 4e-6
    for ours, exact in zip(case.ours("cuda"), case.plain(), strict=True):
        tolerance = rounding / 2 * exact.abs().max().item()
        torch.testing.assert_close(ours.double().cpu(), exact, rtol=rounding, atol=tolerance)


def test_it_compiles_for_gpus_and_fits_their_registers(tmp_path):
    """For an A100 and an H100, wherever this runs: nothing is spilled, loads are of 16 bytes.

    And enough warps share a multiprocessor's 65,536 registers to hide the time of memory: 16 in
    bfloat16, a quarter of the most, 12 in float32. In bfloat16 the forward pass has no need of
    shared memory.
    """
    if platform.machine() != "x86_64" or sys.platform != "linux":
        pytest.skip("Triton's assembler is tried on Linux on x86-64 alone")
    built = json.loads(
        in_a_process("compiled.py", TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))
    )
    assert len(built) == 16
    for one in built:
        assert one["stack"] == 0, one
        assert one["registers"] * 32 * (16 if one["type"] == "bf16" else 12) <= 65536, one
        assert one["wide"] >= one["loads"] - 3, one  # but for the bytes that pooling keeps
        if one["kernel"] == "forward" and one["type"] == "bf16":
            assert one["shared"] == 0, one


def test_it_does_not_offer_itself_where_there_is_no_gpu():
    assert not is_triton_available(torch.ones(1, 8, 2, 2), 8, KernelConfig(1, 1, 5, 3, 2, 0))
