"""The GPU's normalisation in Triton's interpreter, against the plain form in float64.

Never run on a GPU. The interpreter computes products of float32 exactly where tensor cores round
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

from alexnet.kernels.triton_lrn import WARPS, available, tiling, triton_lrn
from alexnet.layers import local_response_norm
from tests.kernels.interpreted import CASES

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)


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
    out = tmp_path_factory.mktemp("interpreted") / "found.pt"
    in_a_process("interpreted.py", out, TRITON_INTERPRET="1")
    return torch.load(out)


def expected(case):
    x, grad = case.inputs()
    x = x.double().requires_grad_()
    y = local_response_norm(x.relu() if case.relu else x, case.norm, case.groups)
    y.backward(grad.double())
    return y.detach(), x.grad


@pytest.mark.parametrize("number", range(len(CASES)))
def test_it_is_the_plain_form_and_its_gradient(found, number):
    """Float32: some ten operations of 2**-24 each, and a power that is good to 2**-22.

    Bfloat16: the result is that of float32, made shorter once, which the interpreter does by
    cutting: 2**-7 of it; a GPU rounds, with half of that error. A gradient is a difference of two
    terms, so that its error in float32 is relative to the larger of them: the largest gradient.
    """
    case = CASES[number]
    narrow = case.type == torch.bfloat16
    for ours, exact in zip(found[number], expected(case), strict=True):
        assert ours.dtype == case.type
        tolerance = 1e-6 * exact.abs().max().item()
        torch.testing.assert_close(
            ours.double(), exact, rtol=2**-7 if narrow else 2e-6, atol=tolerance
        )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("case", CASES)
def test_on_a_gpu_it_is_the_plain_form_and_its_gradient(case):
    """Never run yet. Bfloat16 has TF32's rounding of the sum, 2**-11, beside its own."""
    x, grad = (one.cuda() for one in case.inputs())
    assert available(x)
    one, x = case.norm, x.requires_grad_()
    y = triton_lrn(x, one.size, one.alpha_over_n, one.beta, one.k, case.groups, case.relu)
    y.backward(grad)
    rounding = 2**-7 if case.type == torch.bfloat16 else 2e-6
    for ours, exact in zip((y, x.grad), expected(case), strict=True):
        tolerance = rounding / 2 * exact.abs().max().item()
        torch.testing.assert_close(ours.double().cpu(), exact, rtol=rounding, atol=tolerance)


def test_it_compiles_for_gpus_and_fits_their_registers_and_memory(tmp_path):
    """For an A100 and an H100, wherever this runs: nothing is spilled into memory.

    And two programs share a multiprocessor's 65,536 registers (of float32, one has them) and its
    164 kB of memory, the smaller of the two.
    """
    if platform.machine() != "x86_64" or sys.platform != "linux":
        pytest.skip("Triton's assembler is tried on Linux on x86-64 alone")
    built = json.loads(
        in_a_process("compiled.py", TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))
    )
    assert len(built) == 8
    for one in built:
        assert one["stack"] == 0, one
        assert one["registers"] * WARPS * 32 * (2 if one["type"] == "bf16" else 1) <= 65536, one
        assert one["shared"] * 2 <= 164_000, one
        assert one["tensor_cores"], one


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9, 17, 40])
@pytest.mark.parametrize("maps", [1, 2, 48, 64, 65, 96, 100, 128, 256, 1000])
def test_tiles_write_every_map_once_and_see_all_that_it_depends_on(maps, size):
    tile, halo, tiles = tiling(maps, size)
    written = []
    for number in range(tiles):
        first = number * (tile - 2 * halo) - halo
        inner = range(first + halo, first + tile - halo)
        written += [column for column in inner if column < maps]
        seen = range(max(0, first), min(maps, first + tile))
        for column in inner:
            if column < maps:
                reach = range(max(0, column - size + 1), min(maps, column + size))
                assert reach[0] in seen
                assert reach[-1] in seen
    assert written == list(range(maps))
    assert tile & (tile - 1) == 0
    assert tile >= 16


def test_it_does_not_offer_itself_where_there_is_no_gpu():
    assert not available(torch.ones(1, 8, 2, 2))
