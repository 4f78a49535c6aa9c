"""The named outputs of a network, and their values for images."""

from collections.abc import Iterable

import torch
from torch import Tensor

from alexnet.errors import ConfigError, did_you_mean
from alexnet.network import AlexNet
from alexnet.predictor import Predictor
from alexnet.spec import Spec

Shape = tuple[int, ...]
PLUMBING = ("pad", "drop", "flatten")  # they move or scale numbers that have a name already


def layer_shapes(spec: Spec) -> dict[str, Shape]:
    """Return every named output of a network, first to last, with its shape for one image.

    ``conv1`` is the sum before the activation, ``relu1`` after it, ``norm1`` and ``pool1`` what
    follows, in the spec's order. ``(maps, side, side)``, or ``(units,)`` where layers are fully
    connected.
    """
    sizes = {
        layer.name: (layer.channels,)
        if layer.kind == "dense"
        else (layer.channels, layer.size, layer.size)
        for layer in spec.layers()
    }
    with torch.device("meta"):  # names alone: no weight is allocated
        names = [name for name, _ in AlexNet(spec).named_children()]
    shapes: dict[str, Shape] = {}
    shape = sizes["input"]
    for name in names:
        shape = sizes.get(name, shape)  # activations and norms keep it
        if not name.startswith(PLUMBING):
            shapes[name] = shape
    return shapes


def layer_names(spec: Spec) -> tuple[str, ...]:
    """Return the names of a network's outputs, first to last: conv1, relu1, norm1, ... fc8."""
    return tuple(layer_shapes(spec))


def last_hidden(spec: Spec) -> str:
    """Return the layer that Figure 4 compares images in: the last but one, after its activation.

    ``relu7`` in the networks of 2012.
    """
    return layer_names(spec)[-2]


def chosen(spec: Spec, layers: Iterable[str]) -> dict[str, Shape]:
    """Return the named layers with their shapes, first to last.

    Raises
    ------
    ConfigError
        When a name is unknown, with the nearest one, or none is given.
    """
    shapes = layer_shapes(spec)
    wanted = set(layers)
    for name in sorted(wanted - shapes.keys()):
        raise ConfigError(
            f"Network {spec.name!r} has no layer {name!r}.", did_you_mean(name, shapes)
        )
    if not wanted:
        raise ConfigError("No layer was named.", f"Known: {', '.join(shapes)}.")
    return {name: shape for name, shape in shapes.items() if name in wanted}


def activations(model: Predictor, images: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
    """Return what the named layers put out for the centre view of images.

    Parameters
    ----------
    model : Predictor
        A trained run (`prediction.load`).
    images : Tensor
        ``(N, prepared, prepared, 3)`` uint8 RGB (`Predictor.load_pixels` makes one of any picture).
    layers : iterable of str
        Names of `layer_names`.

    Returns
    -------
    dict of Tensor
        By layer, first to last, ``(N, *shape)`` float32 on the processor. The network runs in
        float32 whatever it was trained in.

    Raises
    ------
    ConfigError
        When a name is unknown.
    """
    return model.in_float32.activations(images, chosen(model.spec, layers))
