"""Zoomed crops against PyTorch's own sampling, in float64."""

import pytest
import torch
import torch.nn.functional as F

from alexnet.kernels.native import why_not
from alexnet.kernels.zoom import zoomed

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "a C++ compiler is there")


@pytest.mark.parametrize(("sides", "channels", "side"), [((32, 32), 3, 24), ((9, 14), 1, 20)])
def test_it_is_grid_sample(sides, channels, side):
    draws = torch.Generator().manual_seed(side)
    images = torch.randint(256, (6, *sides, channels), dtype=torch.uint8, generator=draws)
    half = torch.rand(6, 2, generator=draws) * 0.9 + 0.1
    centre = (torch.rand(6, 2, generator=draws) * 2 - 1) * (1 - half)
    half[::2, 0] *= -1  # mirrored
    half[5], centre[5] = 1.0, 0.0  # the whole image
    boxes = torch.cat([centre, half], 1)
    grid = torch.zeros(6, 2, 3, dtype=torch.float64)
    grid[:, 0, 0], grid[:, 1, 1], grid[:, :, 2] = boxes[:, 2], boxes[:, 3], boxes[:, :2]
    places = F.affine_grid(grid, [6, channels, side, side], align_corners=False)
    wanted = F.grid_sample(
        images.permute(0, 3, 1, 2).double(), places, padding_mode="border", align_corners=False
    )
    found = zoomed(images, boxes, side)
    assert found.is_contiguous(memory_format=torch.channels_last)
    # Places are of float32: 1e-5 of a pixel at most, between pixels up to 255 apart.
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=5e-3)


def test_the_whole_image_at_its_own_size_is_the_image():
    images = torch.randint(256, (2, 17, 17, 3), dtype=torch.uint8)
    found = zoomed(images, torch.tensor([[0.0, 0, 1, 1]] * 2), 17)
    torch.testing.assert_close(found, images.permute(0, 3, 1, 2).float(), rtol=0, atol=1e-3)


def test_no_images_are_none():
    assert zoomed(torch.zeros(0, 8, 8, 3, dtype=torch.uint8), torch.zeros(0, 4), 5).shape[0] == 0
