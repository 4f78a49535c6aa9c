"""The public Python interface, gathered: `build`, `switched`, `load`, and the hub's two."""

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from alexnet.errors import ConfigError
from alexnet.spec import Spec
from alexnet.variants import (
    network_named,
    with_dropout,
    with_input,
    without_layer,
    without_lrn,
    without_overlap,
)

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from alexnet.device import Device
    from alexnet.network import AlexNet
    from alexnet.predictor import Predictor


def switched(
    name: str = "single",
    *,
    num_classes: int | None = None,
    towers: Literal[1, 2] | None = None,
    activation: Literal["relu", "tanh"] | None = None,
    lrn: bool = True,
    overlapping: bool = True,
    dropout: float | None = None,
    input: Literal["227", "224-overhang", "224-padded"] | None = None,
    without: str | None = None,
) -> Spec:
    """Return a named network with some switches thrown; finer ones with `dataclasses.replace`.

    Raises `ConfigError` when a name is unknown or the network cannot be.

    Parameters
    ----------
    name
        One of the named networks: single, paper, as_run, caffe, caffenet, torchvision, ...
    num_classes
        Width of the last layer, by default the network's own; 0 for no last layer.
    towers
        1, or 2 with maps shared where the paper shares them.
    activation
        ``"relu"`` or ``"tanh"``.
    lrn
        False takes every normalisation out.
    overlapping
        False for 2/2 pooling, padded so that the head still sees 6x6 (facts 1a).
    dropout
        Rate; 0 for none.
    input
        An answer to '224 or 227?' (`variants.with_input`).
    without
        A convolution to take out, any but the first: ``"conv3"``.
    """
    for switch, given in {"lrn": lrn, "overlapping": overlapping}.items():
        if not isinstance(given, bool):
            raise ConfigError(f"{switch} is {given!r}.", "It must be True or False.")
    chosen = network_named(name)
    if num_classes is not None:
        chosen = replace(chosen, num_classes=num_classes)
    if towers is not None:
        chosen = replace(chosen, towers=towers)
    if activation is not None:
        chosen = replace(chosen, activation=activation)
    if dropout is not None:
        chosen = with_dropout(chosen, rate=dropout)
    if not lrn:
        chosen = without_lrn(chosen)
    if not overlapping:
        chosen = without_overlap(chosen)
    if input is not None:
        chosen = with_input(chosen, input)
    return without_layer(chosen, without) if without else chosen


def build(
    network: "str | Spec" = "single",
    num_classes: int | None = None,
    *,
    seed: int = 0,
    **switches: object,
) -> "AlexNet":
    """Build a network, its initial weights drawn from `seed`.

    Raises `ConfigError` when a name is unknown or the network cannot be.

    Parameters
    ----------
    network
        A name or a `Spec`.
    num_classes
        Width of the last layer, by default the network's own; 0 for no last layer.
    seed
        Of the initial weights.
    **switches
        Others of `switched`, for a name: ``alexnet.build("paper", 10, dropout=0)``.

    Returns
    -------
    AlexNet
        A `torch.nn.Module` in training mode: pixels ``(N, 3, 227, 227)`` to logits
        ``(N, num_classes)``; ``network.spec.pixels`` says what the pixels are.
    """
    from alexnet.network import build as build_network

    if not isinstance(network, Spec):
        network = switched(network, num_classes=num_classes, **switches)  # type: ignore[arg-type]
    elif switches:
        raise ConfigError(
            f"{next(iter(switches))} is for a network that is named, and this is a Spec.",
            "Change its fields with dataclasses.replace.",
        )
    elif num_classes is not None:
        network = replace(network, num_classes=num_classes)
    return build_network(network, seed)


def load(
    run: "str | Path",
    *,
    device: "Device | torch.device | str | None" = None,
    precision: Literal["auto", "fp32", "bf16"] | None = None,
) -> "Predictor":
    """Load a trained run: `load(run).predict(image)` ranks its classes.

    Raises `RunError` when the folder is no run, or has no checkpoint that can be loaded.

    Parameters
    ----------
    run
        The folder that ``alexnet train --out`` made.
    device
        Where the network is to run; by default the GPU where there is one.
    precision
        Of the matrix products; by default the recipe's. For int8 see `predictor.quantize`.
    """
    from alexnet.training.run import Run

    return Run.open(run).predictor(device=device, precision=precision)


def from_pretrained(where: "str | Path", *, revision: str | None = None) -> "Predictor":
    """Load a model folder, or a repository ``user/name`` of the Hugging Face hub of that form.

    Nothing in it is run: weights are safetensors, and are compared with the configuration first.
    """
    from alexnet.interop.model_folder import from_pretrained as load_folder

    return load_folder(where, revision=revision)


def push_to_hub(run: "str | Path", repo_id: str, *, private: bool = False) -> str:
    """Send a trained run to the Hugging Face hub, with a model card; return its address."""
    from alexnet.interop.model_folder import push_to_hub as push

    return push(run, repo_id, private=private)
