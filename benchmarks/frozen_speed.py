"""How much faster a training step is where layers are frozen: random pixels, no data to load.

    python benchmarks/frozen_speed.py [--network single] [--batch 64] [--rounds 5] [--steps 5]

All layers learning, then the convolutions frozen, then all but the last layer; compiled where there
is a compiler, in bfloat16 where the processor has it. The rounds of the three are taken in turn,
so that what else the machine does meets all alike; a figure is the median of the rounds. Where
others compute as well, the seconds of processor time an image are the ones to compare.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Iterator

import torch

from alexnet.device import Device, keep_freed_memory
from alexnet.fused import fuse
from alexnet.network import build, freeze
from alexnet.recipes import FAST
from alexnet.spec import Spec
from alexnet.training.optimizer import learning_rates_at, make_optimizer
from alexnet.training.trainer import LocalBatch, Replica, Step, train
from alexnet.variants import network_named


def steps(spec: Spec, batch: int, frozen: tuple[str, ...], device: Device) -> Iterator[Step]:
    """Yield the steps of a training without end."""
    network = build(spec)
    freeze(network, frozen)
    network = device.place_network(network)
    forward, _ = device.compile(fuse(network), device.choose_dtype("auto"))
    pixels = torch.randn(batch, 3, spec.image_size, spec.image_size, device=device.torch).mul(60)
    share = LocalBatch(
        pixels.contiguous(memory_format=torch.channels_last),
        torch.arange(batch, device=device.torch) % spec.num_classes, 0, batch,
    )  # fmt: skip
    return train(
        Replica(network, forward), make_optimizer(network, FAST), itertools.repeat(share), FAST,
        lambda number: learning_rates_at(FAST, 0.5), done=0, total=1 << 30,
        dtype=device.choose_dtype("auto"),
    )  # fmt: skip


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", default="single")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    asked = parser.parse_args()
    device, spec = Device.best(), network_named(asked.network)
    keep_freed_memory()
    last_hidden = spec.dense[-1].name
    names = {
        "none": (),
        "convolutions": (f"{spec.convs[0].name}-{spec.convs[-1].name}",),
        "all but the last": (f"{spec.convs[0].name}-{last_hidden}",),
    }
    trainings = {name: steps(spec, asked.batch, frozen, device) for name, frozen in names.items()}
    rates: dict[str, list[float]] = {name: [] for name in names}
    processor: dict[str, list[float]] = {name: [] for name in names}
    for training in trainings.values():
        for _ in range(3):  # compiles, and fills the caches
            next(training)
    for _ in range(asked.rounds):
        for name, training in trainings.items():
            begin, used = time.perf_counter(), time.process_time()
            for _ in range(asked.steps):
                next(training)
            images = asked.batch * asked.steps
            rates[name].append(images / (time.perf_counter() - begin))
            processor[name].append((time.process_time() - used) / images)
    print(
        json.dumps(
            {
                "network": spec.name,
                "batch": asked.batch,
                "frozen": {
                    name: {
                        "images_per_second": statistics.median(rates[name]),
                        "processor_seconds_per_image": statistics.median(processor[name]),
                        "rounds": [rates[name], processor[name]],
                    }
                    for name in names
                },
                "type": str(device.choose_dtype("auto")),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
