"""Does a training grow? The memory of `alexnet train`, sampled once a second over many steps.

python benchmarks/train_memory.py DATA --steps 2000 --batch 16
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from alexnet import machine

WARM = 0.1  # share of the steps after which nothing new is asked for


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="a folder of photographs, or any other source")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--network", default="single")
    asked = parser.parse_args()
    found: list[tuple[int, int]] = []  # the step, and bytes resident
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        command = [sys.executable, "-m", "alexnet", "train", asked.data, "--out", str(run)]
        command += ["--network", asked.network, "--epochs", "1000", "--set", "test_views=1"]
        command += ["--batch-size", str(asked.batch), "--max-steps", str(asked.steps)]
        with subprocess.Popen(command, stdout=sys.stderr) as training:
            watched = psutil.Process(training.pid)
            while training.poll() is None:
                found.append((logged(run / "metrics.jsonl"), resident(watched)))
                time.sleep(1)
    early = [size for step, size in found if 0 < step <= asked.steps * WARM]
    late = [size for step, size in found if step > asked.steps * WARM]
    third = len(late) // 3
    summary = {
        "peak, MB": round(max(size for _, size in found) / 1e6),
        "peak of the first tenth, MB": round(max(early, default=0) / 1e6),
        "middle of the steps after it, MB": round(sorted(late[third:-third])[third // 2] / 1e6),
        "last, MB": round(max(late[-third:]) / 1e6),
        "steps": asked.steps,
        "batch": asked.batch,
        "network": asked.network,
        "machine": machine.processor(),
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
