"""A network with every layer of AlexNet that is made in a blink, and a setting to run it in."""

from dataclasses import replace
from pathlib import Path

import torch

from alexnet.bench.cases import BenchSettings
from alexnet.device import Device
from alexnet.spec import Dense
from alexnet.variants import SINGLE

TINY = replace(
    SINGLE,
    image_size=67,
    num_classes=10,
    dense=(Dense(name="fc6", units=16), Dense(name="fc7", units=16)),
)


def settings(scratch: Path, **changes) -> BenchSettings:
    """Return two images a call, on the processor, in float32."""
    plain = BenchSettings(
        spec=TINY,
        batch_size=2,
        device=Device.named("cpu"),
        dtype=torch.float32,
        scratch=scratch,
        threads=1,
    )
    return replace(plain, **changes)
