"""How fast a run of the claims is now and was in another version, in turns on the same core.

    python benchmarks/claims_speed.py DATA BEFORE [--rounds 5] [--steps 40]

DATA is a prepared data set of 32-pixel images, BEFORE the `src` folder of the other version. Every
round trains each network of the scale `night` in a fresh process of either version, one thread,
through `fit` as the claims do. Processor time counts: it stays comparable beside other work.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from alexnet.claims.scales import NIGHT, SMALL

OURS = Path(__file__).parents[1] / "src"
CHILD = """
import json, sys, tempfile, time
from alexnet.config import from_json
from alexnet.data.shards import open_prepared
from alexnet.recipes import Recipe
from alexnet.spec import Spec
from alexnet.training.fit import fit
from alexnet.training.monitor import Progressed
from alexnet.training.run import Run, RunConfig
asked, data = json.load(sys.stdin), open_prepared(sys.argv[1])
spec, recipe = from_json(Spec, asked["spec"]), from_json(Recipe, asked["recipe"])
with tempfile.TemporaryDirectory() as folder:
    config = RunConfig(spec=spec, recipe=recipe, classes=data.classes, data=str(data.root),
        data_fingerprint=data.manifest.fingerprint, data_size=data.manifest.size, made_with={})
    times, events = [], fit(Run.start(folder + "/run", config, data.statistics), data)
    for event in events:
        if isinstance(event, Progressed):
            times.append((time.process_time(), time.perf_counter(), event.step.loss))
            if len(times) == asked["steps"]:
                break
    events.close()
half = times[len(times) // 4]
count = len(times) - 1 - len(times) // 4
print(json.dumps([*((end - begin) / count for begin, end in zip(half[:2], times[-1][:2])),
    [loss for *_, loss in times]]))
"""


def train(source: Path, data: str, spec: dict, recipe: dict, steps: int) -> list:
    """Return the seconds of a step of a fresh process, its processor's and by the clock."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, data],
        input=json.dumps({"spec": spec, "recipe": recipe, "steps": steps}),
        env={**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def main() -> None:
    """Measure, and print a line a network."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("before", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    asked = parser.parse_args()
    setups = {
        "night, five convolutions": NIGHT.plain,
        "night, dropout": NIGHT.dropout,
        "night, Figure 1's": NIGHT.four,
        "night, local": NIGHT.with_lrn,
        "small, five convolutions": SMALL.plain,
    }
    print(f"{'':26} {'before':>9} {'now':>9}   images/s  times faster, each round")
    for name, setup in setups.items():
        recipe = asdict(setup.recipe.with_(threads=1))
        found: dict[str, list] = {"before": [], "now": []}
        for _ in range(asked.rounds):
            for when, source in (("before", asked.before), ("now", OURS)):
                form = recipe if when == "now" else recipe | {"compile": False}
                found[when].append(train(source, asked.data, asdict(setup.spec), form, asked.steps))
        ratios = [a[0] / b[0] for a, b in zip(found["before"], found["now"], strict=True)]
        speed = [
            setup.recipe.batch_size / statistics.median(step for step, *_ in found[when])
            for when in ("before", "now")
        ]
        apart = max(
            abs(a - b) / a for a, b in zip(found["before"][0][2], found["now"][0][2], strict=True)
        )
        print(
            f"{name:26} {speed[0]:9.0f} {speed[1]:9.0f}   {statistics.median(ratios):.2f} "
            f"({', '.join(f'{ratio:.2f}' for ratio in ratios)}); losses within {apart:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
