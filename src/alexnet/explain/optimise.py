"""Images that excite a unit, a channel, a class or a direction most, by gradient ascent.

The image is a spectrum whose frequencies weigh alike, in the decorrelated colours of the run's
training set, seen a little moved and scaled at every step (Olah and others, Feature Visualization,
2017): ascent in plain pixels ends in noise of high frequency.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from alexnet.data.augment import Normaliser
from alexnet.data.statistics import Statistics

RATE = 0.05  # of Adam, as in the reference above
JITTER = 8 / 227  # of a side: the image is moved by at most so much at every step
ZOOM = 0.08  # and scaled by at most so much
NOISE = 0.01  # of the spectrum that ascent begins with

Objective = Callable[[Tensor], Tensor]  # a layer's outputs for N images -> (N,), to be raised


@dataclass(frozen=True, eq=False)
class Optimised:
    """Images that ascent ended with."""

    images: NDArray[np.uint8]  # (N, side, side, 3) RGB
    scores: tuple[float, ...]  # of the objective for those very images, unmoved


def raise_unit(unit: int) -> Objective:
    """Raise a unit: of a channel that in the middle."""
    return lambda x: x[:, unit, x.shape[2] // 2, x.shape[3] // 2] if x.dim() == 4 else x[:, unit]


def raise_channel(unit: int) -> Objective:
    """Raise the mean of a channel."""
    return lambda x: x[:, unit].mean((1, 2)) if x.dim() == 4 else x[:, unit]


def raise_direction(direction: Tensor) -> Objective:
    """Raise the outputs along a direction, one number a channel, at every place."""
    unit = direction / direction.norm()
    return lambda x: (x.flatten(2).mean(2) if x.dim() == 4 else x) @ unit


def raise_all() -> Objective:
    """Raise whatever the layer answers with: DeepDream (Mordvintsev and others, 2015)."""
    return lambda x: x.square().flatten(1).mean(1)


def raise_likeness(outputs: Tensor) -> Objective:
    """Raise the outputs along those for a photograph: a caricature of it, as the layer sees it."""

    def score(x: Tensor) -> Tensor:
        flat, like = x.flatten(1), outputs.flatten(1)
        along = (flat * like).sum(1) / like.norm()
        return along * F.cosine_similarity(flat, like).clamp(min=0.1)

    return score


def optimise(
    network: nn.Sequential,
    normalise: Normaliser,
    statistics: Statistics,
    objective: Objective,
    *,
    side: int,
    count: int = 1,
    steps: int = 256,
    seed: int = 0,
    diversity: float = 0.0,
    start: NDArray[np.uint8] | None = None,
) -> Optimised:
    """Change images until a layer's outputs raise an objective; the same for a seed.

    Parameters
    ----------
    network : nn.Sequential
        The plain layers up to and with the layer (`plain_network`).
    normalise, statistics
        The run's preprocessing, and the colours of its training images.
    objective : callable
        Such as ``raise_unit(12)``.
    side : int
        Of the images, in pixels: ``spec.image_size``.
    count : int
        How many images, which begin differently.
    steps : int
        Of Adam.
    seed : int
        Of the first noise and of how the images are moved.
    diversity : float
        How much likeness among the images costs, as a share of the objective.
    start : ndarray
        ``(side, side, 3)`` uint8 RGB, a photograph to begin with in place of noise.
    """
    device = normalise.mean.device
    draws = torch.Generator().manual_seed(seed)
    colours = _Colours(statistics, device)
    weights = 1 / _frequencies(side).clamp(min=1 / side).to(device)  # (side, side // 2 + 1)
    if start is None:
        noise = torch.randn(count, 3, *weights.shape, 2, generator=draws).to(device)
        spectrum = NOISE * torch.view_as_complex(noise)
    else:
        pixels = torch.from_numpy(start).to(device).permute(2, 0, 1)[None].float()
        spectrum = torch.fft.rfft2(colours.from_rgb(pixels), norm="ortho") / weights
        spectrum = spectrum.repeat(count, 1, 1, 1)
    values = torch.view_as_real(spectrum).contiguous().requires_grad_()
    adam = torch.optim.Adam([values], RATE)

    def images() -> Tensor:
        shaped = torch.view_as_complex(values) * weights
        return colours.to_rgb(torch.fft.irfft2(shaped, s=(side, side), norm="ortho"))

    for _ in range(steps):
        outputs = network(normalise(_move(images(), draws)))
        score = objective(outputs).sum()
        if diversity and count > 1:
            score = score - diversity * score.detach().abs() * _likeness(outputs)
        (values.grad,) = torch.autograd.grad(-score, values)
        adam.step()
    with torch.no_grad():
        final = images().round().clamp(0, 255)
        scores = objective(network(normalise(final)))
    drawn = final.permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy()
    return Optimised(drawn, tuple(scores.tolist()))


class _Colours:
    """Between RGB of 0-255 and the decorrelated colours of a training set.

    A sigmoid keeps RGB within its range; at its middle its slope is such that 1 is a standard
    deviation along a colour axis.
    """

    def __init__(self, statistics: Statistics, device: torch.device) -> None:
        axes = torch.from_numpy(statistics.colour_eigenvectors * statistics.colour_stdevs)
        self._axes = (axes * 4 / 255).to(device)  # (3, 3)
        mean = torch.from_numpy(statistics.mean_colour).to(device)
        self._mean = (mean / 255).logit(1e-3)[:, None, None]

    def to_rgb(self, x: Tensor) -> Tensor:
        """Map ``(N, 3, H, W)`` decorrelated to RGB of 0-255."""
        return 255 * (torch.einsum("ij,njhw->nihw", self._axes, x) + self._mean).sigmoid()

    def from_rgb(self, x: Tensor) -> Tensor:
        """Map RGB back; black and white are taken as the nearest colours that can be reached."""
        return torch.einsum(
            "ij,njhw->nihw", torch.linalg.pinv(self._axes), (x / 255).logit(2e-3) - self._mean
        )


def _frequencies(side: int) -> Tensor:
    """Return the frequency of each number of a real spectrum, in cycles a pixel."""
    return (torch.fft.fftfreq(side)[:, None] ** 2 + torch.fft.rfftfreq(side) ** 2).sqrt()


def _move(images: Tensor, draws: torch.Generator) -> Tensor:
    """Move and scale every image a little; its edge is mirrored."""
    theta = torch.zeros(len(images), 2, 3)
    theta[:, :, 2] = 2 * JITTER * (2 * torch.rand(len(images), 2, generator=draws) - 1)
    scale = 1 + ZOOM * (2 * torch.rand(len(images), generator=draws) - 1)
    theta[:, 0, 0] = theta[:, 1, 1] = scale
    grid = F.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _likeness(outputs: Tensor) -> Tensor:
    """Return the mean cosine between images of what the layer's channels have in common."""
    flat = outputs.flatten(2) if outputs.dim() == 4 else outputs[:, :, None]
    style = F.normalize(torch.einsum("ncp,ndp->ncd", flat, flat).flatten(1))
    likeness = style @ style.T
    return (likeness.sum() - likeness.trace()) / (len(style) * (len(style) - 1))
