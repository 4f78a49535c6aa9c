"""Which biases keep units alive before any training: those of the convolutions, or their own.

    python benchmarks/units_alive.py DATA [--network night] [--seeds 5]

DATA is a prepared data set of photographs. Prints, for biases of 1 where the paper has them, and of
0 in the fully-connected layers, in the convolutions, in both, which share of the first hidden
layer's units no held-out image activates, and which every image does; means over the seeds.
"""

import argparse
import statistics
from dataclasses import replace
from pathlib import Path

from alexnet.claims.runs import count_active
from alexnet.claims.scales import NIGHT
from alexnet.data.shards import PreparedData, open_prepared
from alexnet.network import build
from alexnet.predictor import assemble
from alexnet.spec import Spec
from alexnet.variants import network_named


def shares(spec: Spec, data: PreparedData, seed: int) -> tuple[float, float]:
    """Return the shares of units that no image activates, and that every image does, in percent."""
    predictor = assemble(spec, build(spec, seed).state_dict(), data.statistics, data.classes)
    never, always = count_active(predictor, data.held_out, "relu6")
    return 100 * never, 100 * always


def main() -> None:
    """Measure, and print a line for each choice of biases."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--network", default="night")
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    data = open_prepared(asked.data)
    spec = NIGHT.five.spec if asked.network == "night" else network_named(asked.network)
    spec = replace(spec, num_classes=len(data.classes))
    convs = [layer.name for layer in spec.convs if layer.bias == 1]
    dense = [layer.name for layer in spec.dense if layer.bias == 1]
    print(f"{asked.network}, {len(data.held_out)} images{'never':>24} {'always':>7}")
    for what, zeros in (
        ("1 where the paper has it", []),
        ("0 in the fully-connected layers", dense),
        ("0 in the convolutions", convs),
        ("0 everywhere", [*convs, *dense]),
    ):
        changed = spec.with_layers(*zeros, bias=0.0) if zeros else spec
        found = [shares(changed, data, seed) for seed in range(asked.seeds)]
        never, always = (statistics.fmean(ends) for ends in zip(*found, strict=True))
        print(f"{what:34} {never:5.1f} % {always:5.1f} %", flush=True)


if __name__ == "__main__":
    main()
