"""Images that excite a unit, a channel, a class or a direction most, by gradient ascent.

The image is a spectrum whose frequencies weigh alike, in the decorrelated colours of the run's
training set, seen a little moved and scaled at most steps (Olah and others, Feature Visualization,
2017): ascent in plain pixels ends in noise of high frequency.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, inf
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data.decode import ImageLike
from alexnet.data.statistics import Statistics
from alexnet.errors import ConfigError
from alexnet.explain.attribution import plain_network
from alexnet.features.layers import select_layers
from alexnet.predictor import Predictor

RATE = 0.012  # of Adam; above it images end in black and white
JITTER = 8 / 227  # of a side: the image is moved by at most so much at every step
ZOOM = 0.08  # and scaled by at most so much
MOVED = 0.75  # share of the steps at which the image is moved; at the others it is made sharp
NOISE = 0.01  # of the spectrum that ascent begins with

Objective = Callable[[Tensor], Tensor]  # a layer's outputs for N images -> (N,), to be raised


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


@dataclass(frozen=True, eq=False)
class Optimised:
    """Images that ascent ended with."""

    images: NDArray[np.uint8]  # (N, side, side, 3) RGB
    scores: tuple[float, ...]  # of the objective for those very images, unmoved


class Ascent:
    """Gradient ascent of an image through a run's network, up to a layer.

    Raises `ConfigError` when there is no such layer, or there is nothing to do.

    Parameters
    ----------
    predictor, statistics
        A trained run, and the colours of its training images.
    layer : str
        A name of `layer_names`.
    count, steps : int
        Images, which begin differently, and steps of Adam.
    diversity : float
        How much likeness among the images costs, as a share of the objective.
    photograph : str, Path, ...
        What `Predictor.load_pixels` takes, to begin with in place of noise.
    """

    def __init__(
        self, predictor: Predictor, statistics: Statistics, layer: str, *, count: int = 1,
        steps: int = 256, diversity: float = 0.0, photograph: ImageLike | None = None,
    ) -> None:  # fmt: skip
        if count < 1 or steps < 1:
            raise ConfigError(f"{count} images in {steps} steps cannot be.", "Give 1 or more.")
        if not 0 <= diversity < inf:
            raise ConfigError(f"A diversity of {diversity:g} cannot be.", "Give 0 or more.")
        (self.channels, *_) = select_layers(predictor.spec, [layer])[layer]
        self.layer, self._count, self._steps, self._diversity = layer, count, steps, diversity
        whole = plain_network(predictor)
        self._network = whole[: list(whole._modules).index(layer) + 1]
        self._normalise = predictor.normalise
        self._device = predictor.device.torch
        self._side = predictor.spec.image_size
        self._colours = _Colours(statistics, self._device)
        self._start: Tensor | None = None  # (1, 3, side, side) RGB of 0-255
        if photograph is not None:
            pixels = torch.from_numpy(predictor.load_pixels(photograph)).to(self._device)
            pixels = pixels[predictor.view, predictor.view]
            self._start = pixels.permute(2, 0, 1)[None].float()

    def choose(
        self, unit: int | None = None, channel: int | None = None, direction: Path | None = None,
        *, caricature: bool = False,
    ) -> Objective:  # fmt: skip
        """Return what to raise: one of the three, or else what the layer finds in the photograph.

        `direction` is a ``.npy`` file of one number a channel. Raises `ConfigError` when there is
        no such unit, or the direction has another length.
        """
        number = unit if unit is not None else channel
        if number is not None and not 0 <= number < self.channels:
            raise ConfigError(
                f"{self.layer} has no unit {number}.", f"Its units are 0 to {self.channels - 1}."
            )
        if unit is not None:
            return raise_unit(unit)
        if channel is not None:
            return raise_channel(channel)
        if direction is not None:
            try:
                vector = torch.from_numpy(np.load(direction)).float().to(self._device)
            except (OSError, ValueError, TypeError) as error:
                raise ConfigError(f"{str(direction)!r} is no array ({error}).") from None
            if vector.shape != (self.channels,):
                raise ConfigError(
                    f"{str(direction)!r} has the shape {tuple(vector.shape)}.",
                    f"{self.layer} takes ({self.channels},).",
                )
            if not 0 < float(vector.norm()) < inf:
                raise ConfigError(
                    f"{str(direction)!r} is no direction.", "Its numbers are finite, and not all 0."
                )
            return raise_direction(vector)
        if caricature and self._start is not None:
            with torch.no_grad():
                return raise_likeness(self._network(self._normalise(self._start)))
        return raise_all()

    def run(self, objective: Objective, seed: int = 0) -> Optimised:
        """Raise an objective; the same images for a seed, of the noise and of the movements."""
        draws = torch.Generator().manual_seed(seed)
        side, colours = self._side, self._colours
        # (side, side // 2 + 1): photographs have so much of each frequency
        weights = 1 / _frequencies(side).clamp(min=1 / side).to(self._device)
        if self._start is None:
            noise = torch.randn(self._count, 3, *weights.shape, 2, generator=draws)
            spectrum = NOISE * torch.view_as_complex(noise.to(self._device))
        else:
            plain = torch.fft.rfft2(colours.from_rgb(self._start), norm="ortho") / weights
            spectrum = plain.repeat(self._count, 1, 1, 1)
        values = torch.view_as_real(spectrum).contiguous().requires_grad_()
        unmoved = ceil(MOVED * self._steps)  # from this step on

        def draw() -> Tensor:
            shaped = torch.view_as_complex(values) * weights
            return colours.to_rgb(torch.fft.irfft2(shaped, s=(side, side), norm="ortho"))

        for step in range(self._steps):
            if step in (0, unmoved):  # anew: what it holds of moved images keeps its steps small
                adam = torch.optim.Adam([values], RATE)
            seen = _move(draw(), draws) if step < unmoved else draw()
            outputs = self._network(self._normalise(seen))
            score = objective(outputs).sum()
            if self._diversity and self._count > 1:
                score = score - self._diversity * score.detach().abs() * _likeness(outputs)
            (values.grad,) = torch.autograd.grad(-score, values)
            adam.step()
        with torch.no_grad():
            final = draw().round().clamp(0, 255)
            scores = objective(self._network(self._normalise(final)))
        images = final.permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy()
        return Optimised(images, tuple(scores.tolist()))


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
