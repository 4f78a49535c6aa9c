#!/usr/bin/env bash
# torch 2.13.0, on the processor (with numpy 2.4.6, Python 3.11): the first numbers of
# `torch.randn` depend on how many are asked for.
#
# One seed, n numbers and then N > n numbers: one would expect the n to be the first of the N, as
# with NumPy, as with `torch.rand`, and as with `torch.randn` in lengths that are multiples of 16.
#
# Seen: below 16 numbers another method is used, so 15 and 16 numbers have none in common. From 16
# on numbers are made in blocks of 16, and where n is no multiple of 16 the last block is made anew
# from fresh draws, over the end of the block before it: of 17 numbers 1 is among the first 17 of
# 32, of 20 numbers 4. In float64 the numbers are others than in float32 from 16 on, while below 16
# they are the same but for rounding. So PCA jitter (three numbers an image) of image 0 is another
# in a batch of 5 than in one of 6; the last images of a short batch have other numbers than in a
# full one; and two processes that draw for half a batch each do not draw what one would for the
# whole. GPUs use another method, which is not looked at here.
#
# Output:
#   n   N    of the n numbers, equal to the first of N:  torch.randn   torch.rand   numpy
#   15  32   0    15   15
#   16  32   16   16   16
#   17  32   1    17   17
#   20  40   4    20   20
#   100 1000 84   100  100
#   jitter of image 0 in batches of 5 and 6 images: [1.541, -0.293, -2.179] [-1.126, -1.152, 0.567]
#   float64 and float32 within 1e-6: 15 numbers True, 16 numbers False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import numpy as np
import torch


def randn(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def rand(n: int) -> torch.Tensor:
    return torch.rand(n, generator=torch.Generator().manual_seed(0))


def normal(n: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(n)


print("n   N    of the n numbers, equal to the first of N:  torch.randn   torch.rand   numpy")
for n, longer, expected in ((15, 32, 0), (16, 32, 16), (17, 32, 1), (20, 40, 4), (100, 1000, 84)):
    equal = [int((draw(n) == draw(longer)[:n]).sum()) for draw in (randn, rand, normal)]
    print(f"{n:<3} {longer:<4} {equal[0]:<4} {equal[1]:<4} {equal[2]}")
    assert equal == [expected, n, n]
five, six = (randn(images, 3)[0] for images in (5, 6))
print(
    "jitter of image 0 in batches of 5 and 6 images:",
    *([round(v, 3) for v in j.tolist()] for j in (five, six)),
)
assert not (five == six).any()
short, long = (
    bool((randn(n) - randn(n, dtype=torch.float64)).abs().max() < 1e-6) for n in (15, 16)
)
print(f"float64 and float32 within 1e-6: 15 numbers {short}, 16 numbers {long}")
assert short and not long
PY
