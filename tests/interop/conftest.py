"""Small trained-like networks of every kind, with preprocessing of their own."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from alexnet.data.statistics import Statistics
from alexnet.interop.export import generate_images
from alexnet.network import build
from alexnet.predictor import Predictor
from alexnet.recipes import FAST
from alexnet.spec import Spec
from alexnet.training.checkpoint import Checkpoint, save_checkpoint
from alexnet.training.run import Run, RunConfig
from alexnet.variants import NETWORKS

CPU = torch.device("cpu")
MARGIN = 9  # odd, so that a crop rounded the other way would show
CLASSES = 20


def narrow(name: str, classes: int = CLASSES) -> Spec:
    """Return a named network with every width a sixteenth: all its geometry is real."""
    spec = NETWORKS[name]
    convs = tuple(
        replace(conv, out_channels=max(conv.out_channels // 16, 8)) for conv in spec.convs
    )
    dense = tuple(replace(layer, units=max(layer.units // 16, 8)) for layer in spec.dense)
    return replace(spec, convs=convs, dense=dense, num_classes=classes)


def statistics(side: int, seed: int = 0) -> Statistics:
    """Return a mean image that differs from pixel to pixel, and colour axes."""
    draws = np.random.default_rng(seed)
    mean = draws.uniform(80, 150, (3, side, side)).astype(np.float32)
    axes = np.linalg.qr(draws.normal(size=(3, 3)))[0].astype(np.float32)
    return Statistics(mean, np.array([5, 9, 40], np.float32), axes)


@torch.no_grad()
def lively_weights(spec: Spec, pixels: torch.Tensor, seed: int = 0) -> dict[str, torch.Tensor]:
    """Draw weights that carry the signal to the end; logits have a deviation of 2, as trained.

    With the paper's .01 the logits of an untrained network hardly depend on the image, and a
    comparison would see nothing.
    """
    network, draws = build(spec).eval(), torch.Generator().manual_seed(seed)
    for layer in network.children():
        weight = getattr(layer, "weight", None)
        if weight is None:
            continue
        inputs = weight[0].numel() if weight.dim() != 3 else weight.shape[1]
        weight.normal_(0, (2 / inputs) ** 0.5, generator=draws)
        layer.bias.normal_(0, 0.1, generator=draws)
    last = network.get_submodule(spec.output_name)
    logits = network(pixels)
    last.weight.mul_(2 / logits.std(0).mean())
    last.bias.sub_(network(pixels).mean(0))
    return network.state_dict()


def config_of(spec: Spec, side: int) -> RunConfig:
    """Return a run's configuration for a network."""
    return RunConfig(
        spec=spec,
        recipe=replace(FAST, precision="fp32"),
        classes=tuple(f"class {label}" for label in range(spec.num_classes)),
        data="/home/someone/photographs",
        data_fingerprint="f" * 64,
        data_size=side,
        made_with={"alexnet": "0.1.0", "command": "alexnet train /home/someone/photographs"},
    )


def model_of(spec: Spec) -> Predictor:
    """Return a trained-like network with its preprocessing."""
    side = spec.image_size + MARGIN
    config, measured = config_of(spec, side), statistics(side)
    blank = build(spec, seed=None).state_dict()
    first = config.predictor(Checkpoint(0, blank, {}), measured, device=CPU)
    images = (
        generate_images(side, 16)[:, : spec.image_size, : spec.image_size]
        .permute(0, 3, 1, 2)
        .float()
    )
    weights = lively_weights(spec, first.normalise(images))
    return config.predictor(Checkpoint(7, weights, {}), measured, device=CPU)


@pytest.fixture(scope="session")
def models() -> dict[str, Predictor]:
    """Return a narrow network of every name."""
    return {name: model_of(narrow(name)) for name in NETWORKS}


@pytest.fixture(scope="session")
def run(tmp_path_factory, models):
    """Return the folder of a run with the narrow `caffe`: BGR, and a tested one."""
    folder = tmp_path_factory.mktemp("runs") / "caffe"
    model = models["caffe"]
    opened = Run.start(folder, config_of(model.spec, model.resize_to), statistics(model.resize_to))
    save_checkpoint(opened.checkpoints, Checkpoint(7, model.network.state_dict()))
    by_class = [{"name": name, "images": 5, "top1": 0.5} for name in model.classes]
    tested = {"split": "test", "top1": 0.5, "top5": 0.9, "majority": 0.05, "images": 100}
    tested |= {"views": 10, "by_class": by_class, "classes": model.classes}
    confusion = [[0] * len(model.classes) for _ in model.classes]
    opened.write_json("test.json", tested | {"confusion": confusion})
    return folder
