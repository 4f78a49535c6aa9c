"""What share of the bare step's rate the whole `train` command reaches on real photographs.

    python benchmarks/train_command.py DATA [--network N] [--batch 64] [--steps 60] [--rounds 3]

Each round runs `alexnet train DATA` in a process of its own for so many steps, and right before and
after it the step alone: the same network, update and type on the same random pixels every time, in
a process that sleeps meanwhile. The command's rate is the median of those in its `metrics.jsonl`,
each over twenty steps; the first twenty (compiling, filling the caches) are left out, and nothing
is validated or saved in between. The step's rate in a round is the mean of before and after. A
share is of one round; told are the median, the lowest and the highest, as JSON.

DATA should be prepared (`alexnet prepare`), or it is prepared first, outside of what is timed.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from alexnet import machine
from alexnet.bench.contender import Contender, Setting
from alexnet.bench.report import versions
from alexnet.bench.rounds import Child
from alexnet.bench.works import our_step
from alexnet.variants import network_named

SKIPPED = 20  # steps before the rate is read: the log's speed is that of the last twenty
STEP = "step alone"


def command_rate(data: str, network: str, batch: int, steps: int, run: Path) -> float:
    """Return the images a second of a training, the median of what its log says of its steps."""
    command = (
        *(sys.executable, "-m", "alexnet", "train", data, "--out", str(run)),
        *("--network", network, "--batch-size", str(batch), "--max-steps", str(SKIPPED + steps)),
        *("--epochs", "1000", "--checkpoint-every", str(10 * steps), "--set", "log_every=1"),
        *("--set", "validate_every=1000", "--set", "test_views=1"),
    )
    subprocess.run(command, check=True, stdout=sys.stderr)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return statistics.median(
        line["images_per_second"]
        for line in lines
        if line["step"] > SKIPPED and "images_per_second" in line
    )


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--network", default="single")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    device = machine.best_device()
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(
            spec=network_named(asked.network), batch_size=asked.batch, device=device,
            kind=machine.chosen_type("auto", device), scratch=Path(folder),
        )  # fmt: skip
        ours = Contender(STEP, our_step, keeps_memory=True)
        with contextlib.closing(Child([ours], setting)) as step:
            step.round()  # compiles
            for number in range(asked.rounds):
                before = asked.batch / step.round()[STEP]
                run = Path(folder, f"run-{number}")
                rate = command_rate(asked.data, asked.network, asked.batch, asked.steps, run)
                after = asked.batch / step.round()[STEP]
                rounds.append({"command": rate, "step_before": before, "step_after": after})
    shares = [2 * one["command"] / (one["step_before"] + one["step_after"]) for one in rounds]
    print(
        json.dumps(
            {
                "share": statistics.median(shares),
                "share_spread": [min(shares), max(shares)],
                "unit": "images/s",
                "rounds": rounds,
                "network": asked.network,
                "batch": asked.batch,
                "steps": asked.steps,
                "type": str(setting.kind).removeprefix("torch."),
                "processor": machine.processor(),
                "device": machine.device_name(device),
                "versions": versions(),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
