"""How long a batch's crops, mirrors, colours and mean take: as they are, and compiled to one pass.

    python benchmarks/augmentation.py [--batch 64] [--rounds 12]

Random images of 256 pixels to crops of 227. Every form is compared with the first one bit for bit;
the rounds are interleaved. Prints JSON: milliseconds, the median and the range.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from alexnet.data.augment import Normaliser, augment
from alexnet.device import Device, describe_processor, keep_freed_memory
from alexnet.training.randomness import sample_params

PREPARED, SIZE = 256, 227
F32, BF16 = torch.float32, torch.bfloat16


def forms(batch: int) -> dict[str, Callable[[], Tensor]]:
    """Return the ways to do it, by name."""
    device = Device.best().torch
    draws = torch.Generator().manual_seed(0)
    shape = (batch, PREPARED, PREPARED, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=draws).to(device)
    mean = torch.rand(1, SIZE, SIZE, 3, generator=draws).to(device) * 255
    mean = mean.permute(0, 3, 1, 2)  # channels-last, as the training makes it
    shift = torch.randn(batch, 3, 1, 1, generator=draws).to(device) * 10
    normalise = Normaliser(mean, 1.0, torch.ones(1, 3, 1, 1), False, False)
    found = {}
    for crop, area in (("windows", None), ("zoomed", 0.5)):
        choices = sample_params(batch, PREPARED, SIZE, draws, crop_area=area).to(device)
        for kind in (F32, BF16):
            look = partial(augment, images, choices, shift, normalise, 1.0, SIZE, kind)
            name = f"{crop}, {str(kind).removeprefix('torch.')}"
            found[name] = look
            compiled = torch.compile(augment, dynamic=False)
            found[f"{name}, compiled"] = partial(compiled, *look.args)
    return found


def main() -> None:
    """Compare, time and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=12)
    asked = parser.parse_args()
    keep_freed_memory()
    ways = forms(asked.batch)
    times: dict[str, list[float]] = {name: [] for name in ways}
    first = {name: way() for name, way in ways.items()}
    same = {
        name: torch.equal(pixels, first[name.removesuffix(", compiled")])
        for name, pixels in first.items()
    }
    for _ in range(asked.rounds):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            Device.best().synchronize()
            times[name].append((time.perf_counter() - begun) * 1e3)
    found = {
        name: {
            "median": round(statistics.median(all_), 2),
            "least": round(min(all_), 2),
            "most": round(max(all_), 2),
            "same_bits": same[name],
        }
        for name, all_ in times.items()
    }
    about = {
        "batch": asked.batch,
        "threads": torch.get_num_threads(),
        "processor": describe_processor(),
        "device": Device.best().name,
        "torch": torch.__version__,
    }
    print(json.dumps({"ms": found} | about, indent=1))


if __name__ == "__main__":
    main()
