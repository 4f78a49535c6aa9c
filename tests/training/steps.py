"""A few steps of a narrow network in one process of several: what `test_layout` compares.

Not through the command, whose weights are float32 and whose batches are even.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch

from alexnet import variants
from alexnet.network import build, freeze
from alexnet.recipes import PAPER
from alexnet.spec import Spec
from alexnet.training.checkpoint import copy_to_host
from alexnet.training.distributed import join_processes
from alexnet.training.input_pipeline import pad
from alexnet.training.layout import Layout, lay_out
from alexnet.training.optimizer import learning_rates_at, make_optimizer, momentum_buffers
from alexnet.training.trainer import LocalBatch, MicroBatch, train
from alexnet.variants import NETWORKS

SIDE = 67  # the smallest image that leaves something for pool5
RECIPE = PAPER.with_(lr=1e-3, label_smoothing=0.1)


def narrow(name: str) -> Spec:
    """Return a named network with an eighth of each width, on small images."""
    return replace(variants.narrow(NETWORKS[name], 8, 64), num_classes=10, image_size=SIDE)


def shares(layout: Layout, sizes: list[int], kind: torch.dtype) -> Iterator[LocalBatch]:
    """Yield this process's share of batches of random pixels, the last ones uneven."""
    draws = torch.Generator().manual_seed(0)
    for size in sizes:
        pixels = torch.randn(size, 3, SIDE, SIDE, generator=draws, dtype=torch.float64) * 60
        labels = torch.randint(0, 10, (size,), generator=draws)
        first, stop = layout.part.range(size)
        room = -(-size // layout.part.ranks) if layout.even else max(1, stop - first)
        mine = pixels[first:stop].to(kind), labels[first:stop]
        yield LocalBatch(*pad(*mine, room), first, size)


def main() -> None:
    """Train and save the whole network's weights and velocity."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--network", default="paper")
    parser.add_argument("--layout", default="data")
    parser.add_argument("--kind", default="float64")
    parser.add_argument("--micro", type=int)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--freeze", nargs="*", default=[])
    parser.add_argument("--sizes", type=int, nargs="*", default=[8] * 18 + [5, 2])
    asked = parser.parse_args()
    kind = getattr(torch, asked.kind)
    torch.set_num_threads(1)
    with join_processes(60) as context:
        network = build(narrow(asked.network)).to(kind)
        freeze(network, asked.freeze)
        layout = lay_out(network, context, asked.layout, fast=kind if asked.compile else None)
        local = layout.replica.network
        optimizer = make_optimizer(local, RECIPE)
        steps = train(
            layout.replica,
            optimizer,
            shares(layout, asked.sizes, kind),
            RECIPE,
            lambda number: learning_rates_at(RECIPE, 0.0),
            done=0,
            total=len(asked.sizes),
            dtype=kind,
            micro=MicroBatch(asked.micro),
        )
        losses = [step.loss for step in steps]
        found = layout.division.join(local.state_dict())
        carried = layout.division.join(momentum_buffers(optimizer, local))
        if context.is_main:
            found |= {f"velocity.{name}": tensor for name, tensor in carried.items()}
            found |= {"losses": torch.tensor(losses, dtype=torch.float64)}
            sent = layout.activations.sent / len(asked.sizes) + layout.gradients
            found |= {"sent": torch.tensor(sent)}
            found |= {"in_data": torch.tensor(layout.in_data)}
            safetensors.torch.save_file(copy_to_host(found), asked.out)


if __name__ == "__main__":
    main()
