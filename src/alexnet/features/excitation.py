"""The images, and the places in them, that excite a unit most."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data.loader import ImageSplit, evaluation_batches
from alexnet.errors import ConfigError
from alexnet.features.outputs import activations, chosen
from alexnet.features.receptive import receptive_field
from alexnet.predictor import Predictor

BATCH = 64  # images


@dataclass(frozen=True, slots=True)
class TopActivation:
    """How much an image excites a unit, and where."""

    image: int  # its number in the split
    row: int  # of the map; 0 where the layer is fully connected
    column: int
    activation: float


def top_activating(
    model: Predictor, split: ImageSplit, layer: str, units: Iterable[int], count: int = 9
) -> dict[int, tuple[TopActivation, ...]]:
    """Find the images of a split that excite each unit most, in one pass for all units.

    Parameters
    ----------
    model : Predictor
        A trained run.
    split : ImageSplit
        Such as ``data.splits["train"]``.
    layer : str
        A name of `layer_names`.
    units : iterable of int
        Maps of a convolution and what follows it, or units of a fully-connected layer.
    count : int
        Images for each unit.

    Returns
    -------
    dict of tuple
        By unit, the strongest first. Each image is named once, with the place in its map that
        is strongest; of equal ones the earlier image, then the earlier place.

    Raises
    ------
    ConfigError
        When there is no such layer or unit.
    DataError
        At a damaged image.
    """
    wanted = list(dict.fromkeys(units))
    _check(model, layer, wanted, count)
    best = torch.empty(len(wanted), 0)  # (units, up to count) activations
    at = torch.empty(len(wanted), 0, 2, dtype=torch.int64)  # image, place in its map
    width = 1
    for batch in evaluation_batches(split, BATCH):
        maps = activations(model, batch.images, [layer])[layer][:, wanted]
        width = maps.shape[-1] if maps.dim() > 2 else 1
        values, places = _first_strongest(maps.flatten(2) if maps.dim() > 2 else maps[..., None])
        numbers = torch.tensor(batch.indices).expand_as(places)
        best = torch.cat([best, values], 1)
        at = torch.cat([at, torch.stack([numbers, places], -1)], 1)
        best, order = best.sort(dim=1, descending=True, stable=True)
        best, order = best[:, :count], order[:, :count]
        at = at.gather(1, order[..., None].expand(*order.shape, 2))
    return {
        unit: tuple(
            TopActivation(image, place // width, place % width, value)
            for value, (image, place) in zip(values, places, strict=True)
        )
        for unit, values, places in zip(wanted, best.tolist(), at.tolist(), strict=True)
    }


def _first_strongest(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest value and its first place, each ``(units, N)``, of ``(N, units, P)``."""
    values = maps.amax(2, keepdim=True)
    places = (maps == values).to(torch.uint8).argmax(2)  # argmax alone may name any of equals
    return values[..., 0].T, places.T


def _check(model: Predictor, layer: str, units: Sequence[int], count: int) -> None:
    maps = chosen(model.spec, [layer])[layer][0]
    if not units:
        raise ConfigError("No unit was named.", f"{layer} has the units 0 to {maps - 1}.")
    for unit in units:
        if not 0 <= unit < maps:
            raise ConfigError(f"{layer} has no unit {unit}.", f"Its units are 0 to {maps - 1}.")
    if count < 1:
        raise ConfigError(f"The number of images is {count}.", "It must be at least 1.")


def patch(
    model: Predictor, split: ImageSplit, layer: str, excitation: TopActivation
) -> NDArray[np.uint8]:
    """Cut out of an image what the excited unit saw of it: ``(height, width, 3)`` uint8 RGB."""
    field = receptive_field(model.spec, layer)
    left, top, right, bottom = field.box_in(split.size, excitation.row, excitation.column)
    return split.pixels(excitation.image)[top:bottom, left:right]
