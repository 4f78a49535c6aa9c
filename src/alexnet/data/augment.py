"""Batches of uint8 images -> what a network sees: crops, mirrors, colour noise, ten crops.

All of it runs on the device that holds the images. Nothing is drawn here: `AugmentParams` are the
random choices, drawn by `training.randomness`, so that a test can apply them another way.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.data.statistics import Statistics
from alexnet.device import Device
from alexnet.errors import DataError
from alexnet.kernels.native import unavailable_reason
from alexnet.kernels.pixels import box_windows, crop_windows, zoom_crops
from alexnet.spec import PixelFormat

# ImageNet's colour axes as fb.resnet.torch has them, and most implementations after it (facts 4):
# eigenvalues of pixels of 0-1, used as if they were standard deviations.
COPIED_LENGTHS = (0.2175, 0.0188, 0.0045)
COPIED_DIRECTIONS = (  # columns
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)


@dataclass(frozen=True, slots=True)
class AugmentParams:
    """The random choices for a batch of N images."""

    crop_offsets: Tensor  # (N, 2) int64: top and left of the crop, in pixels
    mirrored: Tensor  # (N,) bool
    noise: Tensor  # (N, 3) float32: along each colour axis, in its standard deviations
    boxes: Tensor | None = None  # (N, 4) float32 in [-1, 1]: centre x, y and half sizes of a crop
    # at any zoom, which takes the place of `crop_offsets`

    def of(self, start: int, stop: int) -> Self:
        """Return the choices for some of the images."""
        return replace(
            self,
            crop_offsets=self.crop_offsets[start:stop],
            mirrored=self.mirrored[start:stop],
            noise=self.noise[start:stop],
            boxes=None if self.boxes is None else self.boxes[start:stop],
        )

    def to(self, device: torch.device) -> Self:
        """Return the choices with all that `crop_and_mirror` needs on a device."""
        copy = Device(device).to_device
        boxes = None if self.boxes is None else copy(self.boxes)
        return replace(
            self, crop_offsets=copy(self.crop_offsets), mirrored=copy(self.mirrored), boxes=boxes
        )


@dataclass(frozen=True, slots=True)
class Normaliser:
    """Turns 0-255 RGB pixels into what a network expects: `spec.PixelFormat`, with numbers."""

    mean: Tensor  # (1, 3, size, size) or (1, 3, 1, 1), RGB, after scaling
    scale: float
    stdev: Tensor  # (1, 3, 1, 1)
    bgr: bool
    divides: bool = True  # whether any `stdev` is not 1: to ask a GPU would wait for it

    @property
    def subtracts(self) -> bool:
        """Whether it subtracts the mean and does nothing else."""
        return self.scale == 1 and not self.divides and not self.bgr

    def __call__(self, pixels: Tensor) -> Tensor:
        """Normalise ``(N, 3, size, size)`` float RGB of 0-255; channels-last is kept."""
        out = pixels - self.mean if self.scale == 1 else pixels * self.scale - self.mean
        if self.divides:
            out = out / self.stdev
        return out.flip(1) if self.bgr else out


def make_normaliser(
    pixels: PixelFormat, statistics: Statistics, size: int, device: torch.device | str = "cpu"
) -> Normaliser:
    """Return the preprocessing of a network whose images are `size` pixels on a side.

    The mean image's central window is subtracted from every crop, wherever the crop was taken, as
    in 2012 (facts 4). One smaller than `size` is a `DataError`.
    """
    if pixels.mean == "image":
        prepared = statistics.mean_image.shape[-1]
        if prepared < size:
            raise DataError(
                f"The data was prepared at {prepared} pixels and the network takes {size}.",
                f"Prepare it again with --size {size + 29} or more.",
            )
        at = (prepared - size) // 2
        mean = torch.from_numpy(statistics.mean_image)[:, at : at + size, at : at + size]
    elif pixels.mean == "channel":
        mean = torch.from_numpy(statistics.mean_colour)[:, None, None]
    else:
        mean = torch.tensor(pixels.mean)[:, None, None] / pixels.scale
    stdev = torch.tensor(pixels.stdev)[None, :, None, None]
    return Normaliser(
        mean=(mean * pixels.scale)[None].to(device),
        scale=pixels.scale,
        stdev=stdev.to(device),
        bgr=pixels.channel_order == "BGR",
        divides=bool((stdev != 1).any()),
    )


def augment(
    images: Tensor,
    params: AugmentParams,
    shift: Tensor | None,
    normalise: Normaliser,
    divisor: float,
    size: int,
    dtype: torch.dtype,
) -> Tensor:
    """Cut, mirror, colour and normalise: prepared images to what the network sees.

    ``(N, H, W, 3)`` uint8 to ``(N, 3, size, size)`` of `dtype`, channels-last but for zoomed crops
    on a GPU; bfloat16 where the first layer would round its input to that anyway. `shift` is
    ``(N, 3, 1, 1)``, of `pca_shift`, or None for images as they are; coloured ones are divided by
    `divisor`. On a GPU `params` are there too.

    It is one pass over the pixels where `augment_fused`, or when it is compiled; and the same bits
    on a processor.
    """
    if not len(images):
        return images.new_empty(0, 3, size, size, dtype=dtype)
    if _has_kernel(images) and normalise.subtracts:
        windows, last = _windows(images, params, size), 1.0 if shift is None else divisor
        return zoom_crops(images, windows, size, shift, normalise.mean, last, dtype)
    pixels = crop_and_mirror(images, params, size)
    if shift is not None:
        pixels = pixels + shift
    pixels = normalise(pixels)
    if shift is not None and divisor != 1:
        pixels = pixels / divisor
    return pixels.to(dtype)


def augment_fused(normalise: Normaliser, device: torch.device) -> bool:
    """Whether `augment` is one pass over the pixels without PyTorch's compiler."""
    return Device(device).is_cpu and normalise.subtracts and not unavailable_reason()


def crop_and_mirror(images: Tensor, params: AugmentParams, size: int) -> Tensor:
    """Cut and mirror.

    ``(N, H, W, 3)`` uint8 to ``(N, 3, size, size)`` float32 of 0-255, channels-last in memory.
    """
    if _has_kernel(images):
        return zoom_crops(images, _windows(images, params, size), size)
    if params.boxes is not None:
        return _sample_boxes(images, params.boxes, params.mirrored, size)
    if torch.compiler.is_compiling() or not Device.of(images).is_cpu:
        return _gather_crops(images, params, size).float()
    crops = []
    for image, (top, left), mirrored in zip(
        images, params.crop_offsets.tolist(), params.mirrored.tolist(), strict=True
    ):
        crop = image[top : top + size, left : left + size]
        crops.append(crop.flip(1) if mirrored else crop)
    return torch.stack(crops).permute(0, 3, 1, 2).float()


def _gather_crops(images: Tensor, params: AugmentParams, size: int) -> Tensor:
    """Cut and mirror all images in one expression, which a compiler fuses with what follows.

    By itself it is slower on a processor than a copy of each window.
    """
    place = torch.arange(size, device=images.device)
    rows = params.crop_offsets[:, :1] + place  # (N, size)
    flipped = torch.where(params.mirrored[:, None], size - 1 - place, place)
    columns = params.crop_offsets[:, 1:] + flipped
    image = torch.arange(len(images), device=images.device)[:, None, None]
    return images[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _sample_boxes(images: Tensor, boxes: Tensor, mirrored: Tensor, size: int) -> Tensor:
    """Cut and mirror crops at any zoom by bilinear interpolation; the border is repeated."""
    boxes = boxes.to(images.device, copy=True)
    boxes[:, 2] *= torch.where(mirrored.to(images.device), -1.0, 1.0)
    grid = torch.zeros(len(images), 2, 3, device=images.device)
    grid[:, 0, 0], grid[:, 1, 1], grid[:, :, 2] = boxes[:, 2], boxes[:, 3], boxes[:, :2]
    shape = [len(images), 3, size, size]
    x, y = F.affine_grid(grid, shape, align_corners=False).unbind(-1)
    # What reaches past the centres of the outermost pixels is moved there: the same as
    # padding_mode="border", which MPS does not have.
    right, bottom = 1 - 1 / images.shape[2], 1 - 1 / images.shape[1]
    inside = torch.stack([x.clamp(-right, right), y.clamp(-bottom, bottom)], -1)
    return F.grid_sample(images.permute(0, 3, 1, 2).float(), inside, align_corners=False)


def _has_kernel(images: Tensor) -> bool:
    """Whether a C++ kernel cuts the crops; PyTorch's compiler fuses plain expressions instead."""
    if torch.compiler.is_compiling() or not Device.of(images).is_cpu:
        return False
    return not unavailable_reason()


def _windows(images: Tensor, params: AugmentParams, size: int) -> Tensor:
    """Return the crops as the C++ kernel takes them, ``(N, 4)``."""
    if params.boxes is None:
        return crop_windows(params.crop_offsets, params.mirrored, size)
    return box_windows(params.boxes, params.mirrored, images.shape[1], images.shape[2], size)


def pca_shift(
    noise: Tensor,
    statistics: Statistics,
    strength: float,
    axes: Literal["stdevs", "eigenvalues", "copied"] = "stdevs",
) -> Tensor:
    """Return one RGB shift an image, ``(N, 3, 1, 1)`` of 0-255 (section 4.1).

    The paper prints eigenvalues as the lengths of the axes; its source used standard deviations,
    their roots. Eigenvalues of pixels of 0-255 would shift by a thousand grey levels (facts 4);
    those of pixels of 0-1 are what many implementations copied, times 255.
    """
    stdevs = torch.from_numpy(statistics.colour_stdevs)
    lengths = stdevs.square() if axes == "eigenvalues" else stdevs
    directions = torch.from_numpy(statistics.colour_eigenvectors)  # columns
    if axes == "copied":
        lengths, directions = torch.tensor(COPIED_LENGTHS) * 255, torch.tensor(COPIED_DIRECTIONS)
    return ((noise * lengths * strength) @ directions.T)[:, :, None, None]


def iter_crops(images: Tensor, size: int, count: int = 10) -> Iterator[Tensor]:
    """Yield the crops that are tested, each ``(N, 3, size, size)`` float32 of 0-255.

    One: the centre. Ten: the centre and the four corners, and the mirror image of each
    (section 4.1). Nine: a grid of three by three places, as the CIFAR-10 networks of 2012 were
    tested (facts 6). Another number, or images smaller than `size`, is a DataError.
    """
    for top, left in crop_offsets(images.shape[1], size, count):
        crop = images[:, top : top + size, left : left + size].permute(0, 3, 1, 2).float()
        yield crop
        if count == 10:
            yield crop.flip(3)


def crop_offsets(prepared: int, size: int, count: int) -> tuple[tuple[int, int], ...]:
    """Return the tops and lefts of the windows that one, nine or ten crops are cut from.

    Of ten there are five, each taken twice, the second time mirrored. Another number, or prepared
    images smaller than `size`, is a DataError.
    """
    if count not in (1, 9, 10):
        raise DataError(f"{count} views cannot be taken of an image.", "Take 1, 9 or 10.")
    rest = prepared - size
    if rest < 0:
        raise DataError(f"Images of {prepared} pixels are too small for {size}.")
    middle = rest // 2
    five = ((middle, middle), (0, 0), (0, rest), (rest, 0), (rest, rest))
    sides = ((0, middle), (middle, 0), (middle, rest), (rest, middle))
    return {1: five[:1], 9: five + sides, 10: five}[count]
