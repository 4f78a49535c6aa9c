"""How fast two versions of the source train and infer, in turn on one machine.

    python benchmarks/builds.py OLD NEW [--suites train infer infer-1 lrn] [--rounds 7]

OLD and NEW are folders with ``src/alexnet``, of a commit of 2026-11-26 or later. Each has a process
of its own that makes what ``alexnet bench`` calls ours, and they are asked in turn, so that what
else the machine does slows both. Of each suite the median ratio of a round is printed, above 1
where NEW is faster, with its lowest and highest round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ANSWER = """
import importlib, json, statistics, sys, tempfile, time
from pathlib import Path
from alexnet.variants import SINGLE
suite, batch_size = sys.argv[1], 1 if sys.argv[1] == "infer-1" else int(sys.argv[2])
shared = dict(spec=SINGLE, batch_size=batch_size, scratch=Path(tempfile.mkdtemp()))
try:
    from alexnet import device as room
    from alexnet.bench import network_suites as cases
    from alexnet.bench.cases import BenchSettings
    device = room.Device.best()
    settings = BenchSettings(device=device, dtype=device.choose_dtype("auto"), **shared)
    make = {"train": "time_our_step", "lrn": "time_our_lrn"}.get(suite, "time_our_inference")
except ImportError:  # the names of 2026-11-26
    from alexnet import machine as room
    from alexnet.bench import works as cases
    from alexnet.bench.contender import Setting
    device = room.best_device()
    settings = Setting(device=device, kind=room.chosen_type("auto", device), **shared)
    make = {"train": "our_step", "lrn": "our_lrn"}.get(suite, "our_inference")
room.keep_freed_memory()
call = getattr(cases, make)(settings).call
for _ in range(3):
    call()
print("ready", flush=True)
for line in sys.stdin:
    times = []
    while sum(times) < 1.0 or len(times) < 2:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    print(json.dumps(statistics.median(times)), flush=True)
"""


class Build:
    """A process that runs the source of one folder and answers with the seconds of a call."""

    def __init__(self, folder: Path, suite: str, batch_size: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", ANSWER, suite, str(batch_size)],
            env=os.environ | {"PYTHONPATH": str(folder / "src")},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def wait_until_ready(self) -> None:
        if self._process.stdout.readline() != "ready\n":
            sys.exit("A version could not run; what it said stands above.")

    def ask(self) -> float:
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--suites", nargs="+", default=["train", "infer", "infer-1", "lrn"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=64)
    asked = parser.parse_args()
    for suite in asked.suites:
        builds = []
        for folder in (asked.old, asked.new):
            builds.append(Build(folder.resolve(), suite, asked.batch_size))
            builds[-1].wait_until_ready()
        rounds = [[build.ask() for build in builds] for _ in range(asked.rounds)]
        for build in builds:
            build.close()
        ratios = [old / new for old, new in rounds]
        old, new = (statistics.median(one) for one in zip(*rounds, strict=True))
        print(
            f"{suite:8} {statistics.median(ratios):.3f} [{min(ratios):.3f}, {max(ratios):.3f}]"
            f"  old {old * 1e3:.1f} ms, new {new * 1e3:.1f} ms a call",
            flush=True,
        )


if __name__ == "__main__":
    main()
