"""What a checkpoint every 100 steps costs a training of `single`: the same steps with and without.

    python benchmarks/checkpoint_cost.py [--rounds 3] [--every 100] [--folder DIR]

Batch 64 of random pixels, the network compiled, in bfloat16 where the processor has it. A round
takes `every` steps, then the same number with a checkpoint begun at the first of them, written
beside the others; the cost is the median of the rounds' differences, as a share of the time
without.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from alexnet.device import Device, keep_freed_memory
from alexnet.fused import fuse
from alexnet.network import build
from alexnet.recipes import FAST
from alexnet.training.checkpoint import Checkpoint, CheckpointWriter, copy_to_host
from alexnet.training.optimizer import learning_rates_at, make_optimizer, momentum_buffers
from alexnet.training.trainer import LocalBatch, Replica, train
from alexnet.variants import SINGLE


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    device = Device.best()
    keep_freed_memory()
    network = device.place_network(build(SINGLE))
    forward, complaint = device.compile(fuse(network), device.choose_dtype("auto"))
    optimizer = make_optimizer(network, FAST)
    pixels = torch.randn(64, 3, 227, 227, device=device.torch).mul(60)
    share = LocalBatch(
        pixels.contiguous(memory_format=torch.channels_last),
        torch.arange(64, device=device.torch) % 1000,
        0,
        64,
    )

    def endless() -> Iterator[LocalBatch]:
        while True:
            yield share

    dtype = device.choose_dtype("auto")
    steps = train(
        Replica(network, forward),
        optimizer,
        endless(),
        FAST,
        lambda n: learning_rates_at(FAST, 0.5),
        done=0,
        total=1 << 30,
        dtype=dtype,
    )

    def seconds() -> float:
        begin = time.perf_counter()
        for _ in range(asked.every):
            next(steps)
        return time.perf_counter() - begin

    for _ in range(5):
        next(steps)
    without, with_one, waited, written = [], [], [], []
    with (
        tempfile.TemporaryDirectory(dir=asked.folder) as folder,
        CheckpointWriter(Path(folder)) as writer,
    ):
        for number in range(asked.rounds):
            without.append(seconds())
            begin = time.perf_counter()
            writer.save(
                lambda number=number: Checkpoint(
                    number,
                    copy_to_host(network.state_dict()),
                    copy_to_host(momentum_buffers(optimizer, network)),
                    {"rates": {}},
                )
            )
            waited.append(time.perf_counter() - begin)
            with_one.append(seconds() + waited[-1])
            begin = time.perf_counter()
            writer.wait()
            written.append(time.perf_counter() - begin)
    costs = [a / b - 1 for a, b in zip(with_one, without, strict=True)]
    print(
        json.dumps(
            {
                "cost": statistics.median(costs),
                "costs": costs,
                "seconds_without": without,
                "seconds_with": with_one,
                "seconds_waited_for_the_copy": waited,
                "seconds_still_writing_at_the_end": written,
                "every": asked.every,
                "batch": 64,
                "type": str(dtype),
                "compiled": not complaint,
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
