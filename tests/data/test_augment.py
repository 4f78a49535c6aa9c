"""What the network sees, against slow loops over single pixels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from alexnet.data.augment import (
    _gather_crops,
    _sample_boxes,
    augment,
    crop_and_mirror,
    iter_crops,
    make_normaliser,
    pca_shift,
)
from alexnet.device import Device
from alexnet.errors import DataError
from alexnet.spec import PixelFormat
from alexnet.training.randomness import sample_params

SIZE = 51


@pytest.fixture(scope="module")
def images(prepared):
    split = prepared.splits["train"]
    return torch.from_numpy(np.stack([split.pixels(i) for i in range(6)]))


def test_crops_are_windows_of_the_image_mirrored_or_not(images):
    params = sample_params(6, 64, SIZE, torch.Generator().manual_seed(0))
    out = crop_and_mirror(images, params, SIZE)
    assert params.mirrored.any()
    assert not params.mirrored.all()
    for n in range(6):
        top, left = params.crop_offsets[n].tolist()
        window = images[n].numpy()[top : top + SIZE, left : left + SIZE]
        if params.mirrored[n]:
            window = window[:, ::-1]
        assert np.array_equal(out[n].permute(1, 2, 0).numpy(), window.astype(np.float32))
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_all_crops_in_one_expression_are_the_windows(images):
    params = sample_params(6, 64, SIZE, torch.Generator().manual_seed(0))
    assert torch.equal(
        _gather_crops(images, params, SIZE).float(), crop_and_mirror(images, params, SIZE)
    )


@pytest.mark.slow  # the compiler takes some seconds for each
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "pixels",
    [PixelFormat(), PixelFormat(scale=1 / 255, mean=(0.5, 0.4, 0.3), stdev=(0.2, 0.3, 0.25))],
)
def test_compiled_to_one_pass_it_is_the_same_bit_for_bit(prepared, images, pixels, dtype):
    """Also the last type: a float32 rounded here is the one that the first layer would round."""
    if not Device.named("cpu").can_compile()[0]:
        pytest.skip("torch.compile does not work here")
    normalise = make_normaliser(pixels, prepared.statistics, SIZE)
    compiled = torch.compile(augment, dynamic=False)
    for seed in range(2):
        params = sample_params(6, 64, SIZE, torch.Generator().manual_seed(seed))
        shift = pca_shift(params.noise, prepared.statistics, 0.1)
        plain = (normalise(crop_and_mirror(images, params, SIZE) + shift) / 1.1).to(dtype)
        found = compiled(images, params, shift, normalise, 1.1, SIZE, dtype)
        assert torch.equal(found, plain)
        assert torch.equal(augment(images, params, shift, normalise, 1.1, SIZE, dtype), plain)
        assert found.is_contiguous(memory_format=torch.channels_last)
        bare = compiled(images, params, None, normalise, 1.1, SIZE, dtype)
        assert torch.equal(bare, normalise(crop_and_mirror(images, params, SIZE)).to(dtype))
    assert augment(images[:0], params, None, normalise, 1.0, SIZE, dtype).shape == (
        0,
        3,
        SIZE,
        SIZE,
    )


def test_every_place_is_drawn_and_none_outside():
    params = sample_params(5000, 64, 60, torch.Generator().manual_seed(1))
    assert {tuple(corner) for corner in params.crop_offsets.tolist()} == {
        (y, x) for y in range(5) for x in range(5)
    }
    assert params.mirrored.float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_a_zoomed_crop_of_the_whole_image_is_the_image_scaled(images):
    params = sample_params(6, 64, 64, torch.Generator().manual_seed(0), mirror=False, crop_area=1.0)
    params = replace(params, boxes=torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(6, 1))
    out = crop_and_mirror(images, params, 64)
    torch.testing.assert_close(out, images.permute(0, 3, 1, 2).float(), rtol=0, atol=1e-2)


def test_zoomed_crops_stay_inside_and_cover_what_they_say():
    boxes = sample_params(2000, 64, 51, torch.Generator().manual_seed(2), crop_area=0.35).boxes
    assert (boxes[:, :2].abs() + boxes[:, 2:] <= 1 + 1e-6).all()
    area = boxes[:, 2] * boxes[:, 3]
    assert area.max() <= 1
    assert area.min() > 0.3


def test_colour_noise_has_the_covariance_of_the_pixels(prepared):
    """Section 4.1 with standard deviations, facts 4: a tenth of the pixels' own spread."""
    statistics = prepared.statistics
    noise = torch.randn(200_000, 3, generator=torch.Generator().manual_seed(0))
    shifts = pca_shift(noise, statistics, 0.1)[:, :, 0, 0].double().numpy()
    axes = statistics.colour_eigenvectors.astype(float)
    expected = 0.01 * axes @ np.diag(statistics.colour_stdevs.astype(float) ** 2) @ axes.T
    np.testing.assert_allclose(np.cov(shifts.T), expected, rtol=0.02, atol=0.02)


def test_colour_shift_is_the_sum_over_the_axes(prepared):
    statistics = prepared.statistics
    noise = torch.tensor([[0.3, -1.0, 2.0]])
    expected = sum(
        statistics.colour_eigenvectors[:, i]
        * statistics.colour_stdevs[i]
        * noise[0, i].item()
        * 0.1
        for i in range(3)
    )
    shift = pca_shift(noise, statistics, 0.1)
    np.testing.assert_allclose(shift.flatten().numpy(), expected, rtol=1e-5, atol=1e-5)


def test_the_mean_images_central_window_is_subtracted_wherever_the_crop_was_taken(prepared, images):
    normalise = make_normaliser(PixelFormat(), prepared.statistics, SIZE)
    window = prepared.statistics.mean_image[:, 6 : 6 + SIZE, 6 : 6 + SIZE]
    for top, left in ((0, 0), (13, 4)):
        pixels = images[:, top : top + SIZE, left : left + SIZE].permute(0, 3, 1, 2).float()
        np.testing.assert_allclose(normalise(pixels).numpy(), pixels.numpy() - window, atol=1e-4)


def test_other_networks_get_the_pixels_that_they_expect(prepared, images):
    pixels = images.permute(0, 3, 1, 2).float()
    mean, stdev = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expects = PixelFormat(scale=1 / 255, mean=mean, stdev=stdev)
    expected = (pixels / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(stdev)[
        :, None, None
    ]
    got = make_normaliser(expects, prepared.statistics, 64)(pixels)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    bgr = make_normaliser(PixelFormat(channel_order="BGR"), prepared.statistics, 64)(pixels)
    rgb = make_normaliser(PixelFormat(), prepared.statistics, 64)(pixels)
    assert torch.equal(bgr, rgb[:, [2, 1, 0]])


def test_ten_views_are_those_of_a_slow_loop(images):
    """Section 4.1: four corners, the centre, and the mirror image of each."""
    rest = 64 - SIZE
    expected = []
    for top, left in [(rest // 2, rest // 2), (0, 0), (0, rest), (rest, 0), (rest, rest)]:
        for mirrored in (False, True):
            view = np.empty((2, 3, SIZE, SIZE), np.float32)
            for n, c, y, x in np.ndindex(view.shape):
                source = left + (SIZE - 1 - x if mirrored else x)
                view[n, c, y, x] = images[n, top + y, source, c]
            expected.append(view)
    got = list(iter_crops(images[:2], SIZE, 10))
    assert len(got) == 10
    for ours, slow in zip(got, expected, strict=True):
        assert np.array_equal(ours.numpy(), slow)


def test_views_that_cannot_be_are_refused(images):
    with pytest.raises(DataError, match="3 views"):
        next(iter_crops(images, SIZE, 3))
    with pytest.raises(DataError, match="too small"):
        next(iter_crops(images, 65, 1))


def test_centred_crops_change_nothing_else_that_is_drawn():
    free, centred = (
        sample_params(50, 64, SIZE, torch.Generator().manual_seed(0), centred=centred)
        for centred in (False, True)
    )
    assert (centred.crop_offsets == 6).all()
    assert not (free.crop_offsets == 6).all()
    assert torch.equal(free.mirrored, centred.mirrored)
    assert torch.equal(free.noise, centred.noise)


def test_eigenvalues_are_the_squares_of_the_standard_deviations(prepared):
    """Facts 4: read to the letter, the paper shifts colours along each axis by its eigenvalue."""
    statistics = prepared.statistics
    noise = torch.tensor([[0.3, -1.0, 2.0]])
    stretched = noise * torch.from_numpy(statistics.colour_stdevs)
    literal = pca_shift(noise, statistics, 0.1, "eigenvalues")
    torch.testing.assert_close(literal, pca_shift(stretched, statistics, 0.1))


def test_nine_views_are_a_grid_without_mirror_images(images):
    """Facts 6: offsets 0, 4 and 8 of 24-pixel crops from 32."""
    small = images[:, 10:42, 20:52]
    found = {view.numpy().tobytes() for view in iter_crops(small, 24, 9)}
    wanted = [
        small[:, y : y + 24, x : x + 24].permute(0, 3, 1, 2).float()
        for y in (0, 4, 8)
        for x in (0, 4, 8)
    ]
    assert found == {view.numpy().tobytes() for view in wanted}
    assert len(found) == 9
    assert torch.equal(next(iter_crops(small, 24, 9)), next(iter_crops(small, 24, 1)))


def test_a_zoomed_crop_without_the_kernel_repeats_the_border(images):
    """Crops at the edges, zoomed in: against PyTorch's own border, which not every device has."""
    half, mirrored = torch.linspace(0.2, 1, 12).reshape(6, 2), torch.arange(6) % 2 == 0
    boxes = torch.cat([(1 - half) * torch.tensor([1, -1]), half], 1)
    grid = torch.zeros(6, 2, 3)
    grid[:, 0, 0] = half[:, 0] * torch.where(mirrored, -1, 1)
    grid[:, 1, 1], grid[:, :, 2] = half[:, 1], boxes[:, :2]
    wanted = F.grid_sample(
        images.permute(0, 3, 1, 2).float(),
        F.affine_grid(grid, [6, 3, 200, 200], align_corners=False),
        padding_mode="border",
        align_corners=False,
    )
    found = _sample_boxes(images, boxes, mirrored, 200)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3)
