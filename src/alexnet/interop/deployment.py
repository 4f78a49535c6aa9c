"""A trained network as one module for other programs: preprocessing, network, probabilities."""

import base64
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from alexnet.predictor import Predictor
from alexnet.version import __version__

InputKind = Literal["pixels", "images"]
PIXELS, IMAGES = "pixels", "images"
LOGITS, PROBABILITIES = "logits", "probabilities"


class Deployed(nn.Module):
    """Pixels or images in, ``(N, classes)`` logits and probabilities out, one view an image.

    Parameters
    ----------
    model : Predictor
        On the processor.
    kind : str
        ``"pixels"`` takes what the network takes: ``(N, 3, image, image)`` float32 after
        preprocessing. ``"images"`` takes what `Preprocessing` takes.
    """

    def __init__(self, model: Predictor, kind: InputKind) -> None:
        super().__init__()
        self.before = Preprocessing(model) if kind == IMAGES else nn.Identity()
        self.network = nn.Sequential(OrderedDict(model.network.named_children()))
        self.eval()

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and their softmax."""
        logits = self.network(self.before(input))
        return logits, logits.softmax(1)


class Preprocessing(nn.Module):
    """`augment.Normaliser` of the central view, in operators that every exporter knows.

    ``(N, prepared, prepared, 3)`` uint8 RGB, as decoders give it, to ``(N, 3, image, image)``.
    """

    def __init__(self, model: Predictor) -> None:
        super().__init__()
        self.mean: Tensor
        self.stdev: Tensor
        corner = (model.resize_to - model.spec.image_size) // 2
        self.inside = slice(corner, corner + model.spec.image_size)
        self.scale, self.bgr = model.normalise.scale, model.normalise.bgr
        self.register_buffer("mean", model.normalise.mean.clone())
        self.register_buffer("stdev", model.normalise.stdev.clone())

    def forward(self, images: Tensor) -> Tensor:
        """Cut, scale, subtract the mean, divide, order the channels."""
        pixels = images[:, self.inside, self.inside].permute(0, 3, 1, 2).float()
        pixels = (pixels * self.scale - self.mean) / self.stdev
        return pixels.flip(1) if self.bgr else pixels


@dataclass(frozen=True, slots=True)
class Input:
    """What an exported network takes: its name, type and the shape of one image."""

    name: InputKind
    type: Literal["float32", "uint8"]
    shape: tuple[int, int, int]


def input_of(model: Predictor, kind: InputKind) -> Input:
    """Return what `Deployed` of the same arguments takes."""
    if kind == IMAGES:
        return Input(kind, "uint8", (model.resize_to, model.resize_to, 3))
    return Input(
        kind, "float32", (model.spec.in_channels, model.spec.image_size, model.spec.image_size)
    )


def example(model: Predictor, kind: InputKind) -> Tensor:
    """Return a batch of two to trace with: a batch of one would be frozen into the graph."""
    taken = input_of(model, kind)
    return torch.zeros(2, *taken.shape, dtype=getattr(torch, taken.type))


def preprocessing(model: Predictor, *, with_mean_image: bool = False) -> dict[str, Any]:
    """Describe in plain numbers what happens to an image before the network sees it.

    Parameters
    ----------
    model : Predictor
        The trained network.
    with_mean_image : bool
        Whether to give a mean that is an image in full, as base64 of little-endian float32; else
        its mean colour stands for it.
    """
    normalise, spec = model.normalise, model.spec
    mean: dict[str, Any] = {"colour": normalise.mean.mean((0, 2, 3)).tolist()}
    if normalise.mean.shape[-1] > 1:
        mean["shape"] = list(normalise.mean.shape[1:])
        if with_mean_image:
            raw = normalise.mean.cpu().contiguous().numpy().astype("<f4").tobytes()
            mean["float32_base64"] = base64.b64encode(raw).decode()
    return {
        "resize": f"shorter side to {model.resize_to}, centre square of {model.resize_to}",
        "prepared": model.resize_to,
        "crop": spec.image_size,
        "values": "0-255 RGB",
        "formula": "(value * scale - mean) / stdev, then the channels in their order",
        "scale": normalise.scale,
        "mean": mean,  # after scaling, RGB
        "stdev": normalise.stdev.flatten().tolist(),
        "channels": "BGR" if normalise.bgr else "RGB",
        "layout": "NCHW",
    }


def description(model: Predictor, kind: InputKind) -> dict[str, Any]:
    """Return what a reader of an exported file must know, for its metadata."""
    taken = input_of(model, kind)
    return {
        "alexnet_version": __version__,
        "network": model.spec.name,
        "step": model.step,
        "classes": list(model.classes),
        "input": f"{taken.name}: {taken.type} (N, {', '.join(map(str, taken.shape))})",
        "preprocessing_inside": kind == IMAGES,
        "preprocessing": preprocessing(model, with_mean_image=kind == PIXELS),
    }
