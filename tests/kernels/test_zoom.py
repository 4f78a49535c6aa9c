"""Zoomed crops against PyTorch's own sampling, in float64."""

import pytest
import torch
import torch.nn.functional as F

from alexnet.kernels.native import unavailable_reason
from alexnet.kernels.pixels import box_windows, crop_windows, zoom_crops

pytestmark = pytest.mark.skipif(
    bool(unavailable_reason()), reason=unavailable_reason() or "a C++ compiler is there"
)


@pytest.mark.parametrize(("sides", "channels", "side"), [((32, 32), 3, 24), ((9, 14), 1, 20)])
def test_it_is_grid_sample(sides, channels, side):
    draws = torch.Generator().manual_seed(side)
    images = torch.randint(256, (6, *sides, channels), dtype=torch.uint8, generator=draws)
    half = torch.rand(6, 2, generator=draws) * 0.9 + 0.1
    centre = (torch.rand(6, 2, generator=draws) * 2 - 1) * (1 - half)
    mirrored = torch.tensor([True, False] * 3)
    half[5], centre[5] = 1.0, 0.0  # the whole image
    windows = box_windows(torch.cat([centre, half], 1), mirrored, *sides, side)
    half[mirrored, 0] *= -1
    boxes = torch.cat([centre, half], 1)
    grid = torch.zeros(6, 2, 3, dtype=torch.float64)
    grid[:, 0, 0], grid[:, 1, 1], grid[:, :, 2] = boxes[:, 2], boxes[:, 3], boxes[:, :2]
    places = F.affine_grid(grid, [6, channels, side, side], align_corners=False)
    wanted = F.grid_sample(
        images.permute(0, 3, 1, 2).double(), places, padding_mode="border", align_corners=False
    )
    found = zoom_crops(images, windows, side)
    assert found.is_contiguous(memory_format=torch.channels_last)
    # Boxes are of float32: 1e-5 of a pixel at most, between pixels up to 255 apart.
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=5e-3)


def test_the_whole_image_at_its_own_size_is_the_image():
    images = torch.randint(256, (2, 17, 17, 3), dtype=torch.uint8)
    whole = box_windows(
        torch.tensor([[0.0, 0, 1, 1]] * 2), torch.tensor([False, False]), 17, 17, 17
    )
    assert torch.equal(zoom_crops(images, whole, 17), images.permute(0, 3, 1, 2).float())


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 3, 4, 6])
@pytest.mark.parametrize("divisor", [1.0, 1.1])
def test_without_zoom_it_is_the_window_coloured_bit_for_bit(kind, channels, divisor):
    draws = torch.Generator().manual_seed(channels)
    images = torch.randint(256, (5, 19, 23, channels), dtype=torch.uint8, generator=draws)
    corners = torch.tensor([[0, 0], [6, 10], [3, 5], [0, 10], [6, 0]])
    mirrored = torch.tensor([False, True, True, False, True])
    shift = torch.randn(5, channels, 1, 1, generator=draws) * 10
    mean = torch.rand(1, channels, 13, 13, generator=draws) * 255
    found = zoom_crops(images, crop_windows(corners, mirrored, 13), 13, shift, mean, divisor, kind)
    for image, one, (top, left), flip, colour in zip(
        images, found, corners.tolist(), mirrored, shift, strict=True
    ):
        window = image[top : top + 13, left : left + 13].permute(2, 0, 1).float()
        window = (window.flip(2) if flip else window) + colour - mean[0]
        assert torch.equal(one, (window / divisor).to(kind))
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "wrong",
    [
        {"images": torch.zeros(2, 8, 8, 3)},
        {"images": torch.zeros(2, 8, 8, dtype=torch.uint8)},
        {"windows": torch.zeros(2, 4)},
        {"windows": torch.zeros(1, 4).double()},
        {"mean": torch.zeros(1, 3, 1, 1).double()},
        {"shift": torch.zeros(2, 3, 1, 1).bfloat16()},
    ],
    ids=["float", "no channels", "float32 windows", "too few windows", "mean", "shift"],
)
def test_other_types_and_shapes_are_refused(wrong):
    given = {
        "images": torch.zeros(2, 8, 8, 3, dtype=torch.uint8),
        "windows": torch.zeros(2, 4).double(),
    }
    with pytest.raises(TypeError, match=r"float|uint8"):
        zoom_crops(**given | wrong, side=5)


def test_no_images_are_none():
    assert (
        zoom_crops(torch.zeros(0, 8, 8, 3, dtype=torch.uint8), torch.zeros(0, 4).double(), 5).shape[
            0
        ]
        == 0
    )
