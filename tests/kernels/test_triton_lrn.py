"""The GPU's normalisation in Triton's interpreter, against the plain form in float64.

Never run on a GPU. The interpreter computes products of float32 exactly where tensor cores round
to TF32, so that these tolerances say nothing of that.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from alexnet.kernels.triton_lrn import available, tiling
from alexnet.layers import local_response_norm
from tests.kernels import interpreted
from tests.kernels.interpreted import CASES

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("interpreted") / "found.pt"
    root = Path(__file__).parents[2]
    paths = os.pathsep.join(map(str, (root / "src", root)))
    done = subprocess.run(
        [sys.executable, interpreted.__file__, out], cwd=root, capture_output=True, text=True,
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
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
