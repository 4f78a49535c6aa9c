"""Files of weights alone: safetensors with the project's names, and torchvision's state dict."""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from alexnet.config import differences
from alexnet.errors import ConfigError, RunError
from alexnet.files import atomic_write
from alexnet.interop.deployment import description
from alexnet.predictor import Predictor
from alexnet.spec import Spec
from alexnet.variants import TORCHVISION

Weights = Mapping[str, Tensor]

# Where torchvision's ``alexnet`` keeps what the paper calls conv1 ... fc8 (facts 1d).
TORCHVISION_NAMES = {
    "conv1": "features.0",
    "conv2": "features.3",
    "conv3": "features.6",
    "conv4": "features.8",
    "conv5": "features.10",
    "fc6": "classifier.1",
    "fc7": "classifier.4",
    "fc8": "classifier.6",
}
# What may differ from TORCHVISION without a difference in what the network computes.
HARMLESS = ("name", "num_classes", "pixels", "dropout.rate", "output_std", "output_bias")


def export_safetensors(model: Predictor, path: Path) -> None:
    """Write the weights under their own names, ``conv1.weight`` ... ``fc8.bias``, bit for bit.

    The metadata says what the network is (``spec``), its classes and its preprocessing, as JSON;
    the mean image is not in it: a model folder has it.
    """
    metadata = {"format": "pt", "spec": json.dumps(asdict(model.spec))}
    for key, value in description(model, "images").items():
        if key not in ("input", "preprocessing_inside"):
            metadata[key] = value if isinstance(value, str) else json.dumps(value)
    write_safetensors(path, model.network.state_dict(), metadata)


def write_safetensors(path: Path, weights: Weights, metadata: Mapping[str, str]) -> None:
    """Write tensors, dense and on the processor, whole or not at all."""
    dense = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    with atomic_write(path) as temporary:
        temporary.write_bytes(safetensors.torch.save(dense, dict(metadata)))


def read_safetensors(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Read exactly the tensors that are expected, and nothing before the file is seen to have them.

    Parameters
    ----------
    path : Path
        A file that nobody vouches for.
    shapes : mapping
        The names and shapes it must hold, all float32.

    Raises
    ------
    RunError
        When the file is damaged, lacks a tensor, has one too many or of another shape or type, or
        holds a number that is not finite.
    """
    try:
        with safe_open(path, framework="pt") as file:
            _check_header(path, file, shapes)
            tensors = {name: file.get_tensor(name) for name in shapes}
    except FileNotFoundError:
        raise RunError(f"There is no file {str(path)!r}.", "Export or download it again.") from None
    except (OSError, SafetensorError, ValueError, OverflowError) as error:
        raise RunError(
            f"{str(path)!r} is damaged or no safetensors file ({error}).",
            "Export or download it again.",
        ) from None
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise RunError(f"{str(path)!r} has numbers in {name!r} that are not finite.")
    return tensors


def _check_header(path: Path, file: safe_open, shapes: Mapping[str, tuple[int, ...]]) -> None:
    held = set(file.keys())
    for name, shape in shapes.items():
        if name not in held:
            raise RunError(f"{str(path)!r} has no {name!r}, which its network needs.")
        found = file.get_slice(name)
        if tuple(found.get_shape()) != shape or found.get_dtype() != "F32":
            raise RunError(
                f"{name!r} in {str(path)!r} is {found.get_dtype()} {tuple(found.get_shape())}; "
                f"its network needs F32 {shape}."
            )
    if extra := sorted(held - shapes.keys()):
        raise RunError(f"{str(path)!r} has {extra[0]!r}, which its network does not know.")


def export_torchvision(model: Predictor, path: Path) -> None:
    """Write a state dict that torchvision's ``alexnet(num_classes=...)`` loads.

    Raises
    ------
    ConfigError
        When the network computes something else than torchvision's.
    """
    check_torchvision(model.spec)
    content = io.BytesIO()  # torch's own writer hides why the disk refused
    torch.save(to_torchvision(model.network.state_dict()), content)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def check_torchvision(spec: Spec) -> None:
    """See that a network computes what torchvision's does.

    Raises
    ------
    ConfigError
        With the first fields that differ.
    """
    apart = [
        f"{path.removeprefix('convs.').removeprefix('dense.')} is {ours}, there {theirs}"
        for path, (theirs, ours) in differences(TORCHVISION, spec).items()
        if not path.startswith(HARMLESS) and not path.endswith((".std", ".bias"))
    ]
    if apart:
        raise ConfigError(
            f"Network {spec.name!r} is not torchvision's ({'; '.join(apart[:3])}).",
            "Export it as onnx, safetensors, huggingface or program; torchvision can load only "
            "the network called 'torchvision'.",
        )


def to_torchvision(weights: Weights) -> dict[str, Tensor]:
    """Rename ``conv1.weight`` ... to torchvision's ``features.0.weight`` ...."""
    renamed = {}
    for name, tensor in weights.items():
        layer, _, part = name.partition(".")
        renamed[f"{TORCHVISION_NAMES[layer]}.{part}"] = tensor.detach().cpu().contiguous()
    return renamed
