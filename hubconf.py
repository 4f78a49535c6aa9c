"""The networks for ``torch.hub``, from a clone or from GitHub, without an installation.

>>> import torch
>>> network = torch.hub.load(REPOSITORY, "paper", num_classes=10)  # doctest: +SKIP

Every entry returns a `torch.nn.Module` from pixels ``(N, 3, side, side)`` to logits
``(N, num_classes)``; ``network.spec.pixels`` says what the pixels are.
"""

import sys
from pathlib import Path as _Path  # torch.hub lists every name without an underscore
from typing import Any as _Any

dependencies = ["torch"]  # to build; `weights` needs those of pyproject.toml

SOURCE = str(_Path(__file__).resolve().parent / "src")
if SOURCE not in sys.path:
    sys.path.insert(0, SOURCE)


def alexnet(
    network: str = "single",
    num_classes: int | None = None,
    *,
    weights: str | None = None,
    **switches: _Any,
) -> _Any:
    """Build a network, or load a trained one.

    Parameters
    ----------
    network : str
        ``single``, ``paper``, ``as_run``, ``caffe``, ``caffenet``, ``torchvision``, ...
    num_classes : int, optional
        Width of the last layer; by default the network's own. On trained weights another width
        draws the last layer anew, as ``reset_classifier`` does.
    weights : str, optional
        A model folder, or a repository ``user/name`` of the Hugging Face hub; it says what the
        network is, and `network` and the switches are not looked at.
    **switches
        Those of ``alexnet.build``: ``seed``, ``lrn``, ``dropout``, ...
    """
    from alexnet.api import build, from_pretrained

    if not weights:
        return build(network, num_classes, **switches)
    trained = from_pretrained(weights).network
    if num_classes is not None and num_classes != trained.num_classes:
        trained.reset_classifier(num_classes)
    return trained


def single(num_classes: int | None = None, **switches: _Any) -> _Any:
    """Build the network of one GPU, the default."""
    return alexnet("single", num_classes, **switches)


def paper(num_classes: int | None = None, **switches: _Any) -> _Any:
    """Build the two towers as published."""
    return alexnet("paper", num_classes, **switches)


def as_run(num_classes: int | None = None, **switches: _Any) -> _Any:
    """Build what the 2012 source ran."""
    return alexnet("as_run", num_classes, **switches)


def as_run_six(num_classes: int | None = None, **switches: _Any) -> _Any:
    """Build the same with a sixth convolution over the last pooling."""
    return alexnet("as_run_six", num_classes, **switches)


def as_run_apart(num_classes: int | None = None, **switches: _Any) -> _Any:
    """Build the same with towers that meet in the fully-connected layers alone."""
    return alexnet("as_run_apart", num_classes, **switches)


def caffe(num_classes: int | None = None, **switches: _Any) -> _Any:
    """Build BVLC's AlexNet."""
    return alexnet("caffe", num_classes, **switches)


def caffenet(num_classes: int | None = None, **switches: _Any) -> _Any:
    """Build BVLC's CaffeNet, which pools before it normalises."""
    return alexnet("caffenet", num_classes, **switches)


def torchvision(num_classes: int | None = None, **switches: _Any) -> _Any:
    """Build the network that torchvision calls AlexNet."""
    return alexnet("torchvision", num_classes, **switches)
