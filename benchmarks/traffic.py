"""What each process of two sends a step, in the three ways to share the paper's network.

    torchrun --standalone --nproc-per-node 2 benchmarks/traffic.py [--batch 128] [--network paper]

Two steps of random pixels in float32; rank 0 prints JSON. Bytes are counted where tensors
are handed to the collectives, as a ring sends them.
"""

import argparse
import json
import time
from collections.abc import Iterator

import torch

from alexnet.network import build
from alexnet.recipes import PAPER
from alexnet.training.distributed import join_processes
from alexnet.training.layout import Layout, lay_out
from alexnet.training.optimizer import learning_rates_at, make_optimizer
from alexnet.training.trainer import LocalBatch, train
from alexnet.variants import network_named

STEPS = 2


def shares(layout: Layout, batch: int, image: int, device: torch.device) -> Iterator[LocalBatch]:
    """Yield this process's share of the same random batch, without end."""
    first, stop = layout.part.range(batch)
    pixels = torch.randn(stop - first, 3, image, image, device=device) * 60
    labels = torch.arange(stop - first, device=device)
    while True:
        yield LocalBatch(pixels.contiguous(memory_format=torch.channels_last), labels, first, batch)


def main() -> None:
    """Measure each layout in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--network", default="paper")
    asked = parser.parse_args()
    spec = network_named(asked.network)
    found = {}
    with join_processes(600) as context:
        for kind in ("data", "towers", "hybrid"):
            network = context.device.place_network(build(spec))
            layout = lay_out(network, context, kind, fast=None)
            steps = train(
                layout.replica,
                make_optimizer(layout.replica.network, PAPER),
                shares(layout, asked.batch, spec.image_size, context.device.torch),
                PAPER,
                lambda number: learning_rates_at(PAPER, 0.5),
                done=0,
                total=STEPS,
                dtype=torch.float32,
            )
            begin = time.perf_counter()
            losses = [step.loss for step in steps]
            found[kind] = {
                "activations_mb": layout.activations.sent / STEPS / 1e6,
                "gradients_mb": layout.gradients / 1e6,
                "seconds_a_step": (time.perf_counter() - begin) / STEPS,
                "losses": losses,
            }
    if context.is_main:
        about = {"network": spec.name, "batch": asked.batch, "processes": context.world_size}
        print(json.dumps(about | {"torch": torch.__version__} | found, indent=1))


if __name__ == "__main__":
    main()
