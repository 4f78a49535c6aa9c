"""What a GPU says of the kernels, a training step and one image; each line as soon as it is known.

    python benchmarks/gpu.py [--batch 512]

The limits first: an 8192-cube bfloat16 product and a copy of 1 GB. Then the pass of bias, ReLU,
normalisation and pooling (`kernels/lrn_pool.py`), forward and backward, in copies of its
input, sizes of conv1 and conv2; whole steps in turn, ours, from bytes, and the eager network in
float32, under autocast, and compiled under autocast (`alexnet bench train` compares the same, each
in a process of its own, which takes minutes); one image with kernels started one by one and
replayed. Medians. The last line is all of it as JSON.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import gettempdir

import torch
from triton.testing import do_bench

from alexnet.bench.cases import BenchSettings, TimedCall, time_round
from alexnet.bench.network_suites import (
    build_compiled_network,
    build_plain_network,
    draw_pixels,
    time_eager_step,
    time_our_step,
)
from alexnet.device import CudaGraphRunner, Device
from alexnet.fused import fuse_for_inference
from alexnet.kernels.lrn_pool import KernelConfig, triton_lrn_pool, triton_lrn_pool_backward
from alexnet.network import build
from alexnet.variants import network_named

GPU = torch.device("cuda")
TURNS = 5
SCALE, K = 1e-4, 2.0


def milliseconds(call: Callable[[], object]) -> float:
    """Return the median time of a call on the GPU itself."""
    return do_bench(call, warmup=10, rep=30, return_mode="median")


def limits() -> dict[str, float]:
    """Return TFLOP/s of a large product, and TB/s read and written by a copy."""
    a, b = (torch.randn(8192, 8192, device=GPU, dtype=torch.bfloat16) for _ in range(2))
    x = torch.randn(1 << 29, device=GPU, dtype=torch.bfloat16)
    out = torch.empty_like(x)
    return {
        "matmul_tflops": 2 * 8192**3 / milliseconds(lambda: a @ b) / 1e9,
        "copy_tb_per_s": 2 * x.nbytes / milliseconds(lambda: out.copy_(x)) / 1e9,
    }


def passes(batch: int, maps: int, side: int, window: int) -> dict[str, float]:
    """Return the time of a copy in ms, and how many copies a pass takes each way."""
    x = torch.randn(batch, maps, side, side, device=GPU, dtype=torch.bfloat16)
    x = x.contiguous(memory_format=torch.channels_last)
    bias = torch.randn(maps, device=GPU)
    config = KernelConfig(1, 1, 5, window, (window + 1) // 2, 0)
    y, chosen = triton_lrn_pool(x, bias, config, SCALE, K, True)
    given = torch.randn_like(y)
    copy = milliseconds(x.clone)
    forward = milliseconds(lambda: triton_lrn_pool(x, bias, config, SCALE, K, True))
    backward = milliseconds(
        lambda: triton_lrn_pool_backward(given, x, bias, chosen, config, SCALE, K)
    )  # fmt: skip
    return {"copy_ms": copy, "forward": forward / copy, "backward": backward / copy}


def rates(steps: dict[str, TimedCall]) -> dict[str, list[float]]:
    """Return images a second of each in every turn, after one that does not count."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(TURNS + 1):
        for name, timed in steps.items():
            rate = timed.amount / time_round(timed, Device(GPU))
            if turn:
                found[name].append(rate)
    return found


def one_image(settings: BenchSettings) -> dict[str, float]:
    """Return milliseconds of one image, its kernels started one by one and as a graph."""
    network = fuse_for_inference(
        settings.device.place_network(build(settings.spec)).eval(), torch.bfloat16
    )
    fast = torch.compile(network, dynamic=False)
    pixels = draw_pixels(settings, settings.spec)
    found = {}
    for name, call in (("started", fast), ("replayed", CudaGraphRunner(fast))):
        times = []
        for _ in range(200):
            begun = time.perf_counter()
            with torch.no_grad():
                call(pixels)
            torch.cuda.synchronize()
            times.append((time.perf_counter() - begun) * 1e3)
        found[name] = statistics.median(times[20:])
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=512)
    asked = parser.parse_args()
    found: dict[str, object] = {"device": Device(GPU).name, "torch": torch.__version__}

    def told(name: str, value: object) -> None:
        found[name] = value
        print(name, value, flush=True)

    told("limits", limits())
    for maps, side in ((96, 55), (256, 27)):
        for window in (1, 3):
            told(f"pass of {maps} maps, window {window}", passes(asked.batch, maps, side, window))
    half = torch.bfloat16
    makers = {
        "ours": time_our_step,
        "eager-autocast": partial(time_eager_step, build_plain_network, half),
        "eager-float32": partial(time_eager_step, build_plain_network, torch.float32),
        "compiled-autocast": partial(
            time_eager_step, partial(build_compiled_network, Device(GPU)), half
        ),
    }
    spec, scratch = network_named("single"), Path(gettempdir())
    batch = BenchSettings(
        spec=spec, batch_size=asked.batch, device=Device(GPU), dtype=torch.bfloat16,
        scratch=scratch,
    )  # fmt: skip
    turns = rates({name: make(batch) for name, make in makers.items()})
    ours = turns.pop("ours")
    told("ours, images/s", statistics.median(ours))
    for name, each in turns.items():
        told(f"{name}, images/s", statistics.median(each))
        over = [mine / theirs for mine, theirs in zip(ours, each, strict=True)]
        told(f"ours over {name}", [statistics.median(over), min(over), max(over)])
    told("one image, ms", one_image(replace(batch, batch_size=1)))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
