"""Does a training grow? The memory of `alexnet train`, sampled once a second over many steps.

python benchmarks/train_memory.py DATA --steps 2000 --batch 16

Prints JSON: the peak of each tenth of the steps. A checkpoint is written from a copy of the weights
and of the velocity; from the first on, their room is part of the process.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from alexnet.device import describe_processor

PARTS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="a folder of photographs, or any other source")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--network", default="single")
    parser.add_argument("--checkpoint-every", type=int, default=500)
    asked = parser.parse_args()
    found: list[tuple[int, int]] = []  # the step, and bytes resident
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        command = [sys.executable, "-m", "alexnet", "train", asked.data, "--out", str(run)]
        command += ["--network", asked.network, "--epochs", "1000", "--set", "test_crops=1"]
        command += ["--batch-size", str(asked.batch), "--max-steps", str(asked.steps)]
        command += ["--checkpoint-every", str(asked.checkpoint_every)]
        with subprocess.Popen(command, stdout=sys.stderr) as training:
            watched = psutil.Process(training.pid)
            while training.poll() is None:
                found.append((logged(run / "metrics.jsonl"), resident(watched)))
                time.sleep(1)
    peaks = [0] * PARTS
    for step, size in found:
        part = min(step * PARTS // asked.steps, PARTS - 1)
        peaks[part] = max(peaks[part], round(size / 1e6))
    summary = {
        "peak of each tenth, MB": peaks,
        "steps": asked.steps,
        "batch": asked.batch,
        "checkpoint every": asked.checkpoint_every,
        "network": asked.network,
        "machine": describe_processor(),
    }
    print(json.dumps(summary, indent=1))


def logged(metrics: Path) -> int:
    """Return the last step that a run has written of."""
    try:
        return int(json.loads(metrics.read_text().splitlines()[-1]).get("step", 0))
    except (OSError, IndexError, ValueError):
        return 0


def resident(process: psutil.Process) -> int:
    """Return the bytes that a process has in memory, or 0 where it has ended."""
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


if __name__ == "__main__":
    main()
