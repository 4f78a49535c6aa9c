"""How long one photograph and many take, ten crops each, in two versions of the source.

    python benchmarks/predictor.py OLD NEW [--threads 1 2] [--rounds 5] [--photographs 64]

OLD and NEW are folders with ``src/alexnet``. Both predict with the same full-size network of random
weights and the same JPEG files. Each version has a process of its own, and they are asked in turn,
so that what else the machine does slows both. ``cold`` is the command ``alexnet predict`` for one
photograph, from the start of the process to its end; ``load`` is opening the run.

The medians of seconds are printed, on the clock and of the processor, and how many times as fast
NEW is by each.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

MAKE_RUN = """
import sys, numpy as np
from alexnet.data.statistics import Statistics
from alexnet.network import build
from alexnet.recipes import FAST
from alexnet.training.checkpoint import Checkpoint, save_checkpoint
from alexnet.training.run import Run, RunConfig
from alexnet.variants import SINGLE
from dataclasses import replace
mean = np.full((3, 256, 256), 120, np.float32)
statistics = Statistics(mean, np.ones(3, np.float32), np.eye(3, dtype=np.float32))
config = RunConfig(spec=SINGLE, recipe=replace(FAST, precision="fp32"), data="none",
    classes=tuple(f"class {number}" for number in range(1000)), data_fingerprint="0", data_size=256)
run = Run.start(sys.argv[1], config, statistics)
save_checkpoint(run.checkpoints, Checkpoint(1, build(SINGLE, 0).state_dict()))
"""

ANSWER = """
import json, sys, time
import alexnet
from pathlib import Path
def timed(ask):
    processor, clock = time.process_time(), time.perf_counter()
    ask()
    return time.perf_counter() - clock, time.process_time() - processor
models = []
print(json.dumps(timed(lambda: models.append(alexnet.load(sys.argv[1])))), flush=True)
(model,) = models
files = sorted(Path(sys.argv[2]).iterdir())
def many():
    if hasattr(model, "predict_many"):
        return list(model.predict_many(files))
    return [model.predict(file) for file in files]
asks = {"one": lambda: model.predict(files[0]), "many": many}
for line in sys.stdin:
    print(json.dumps(timed(asks[line.strip()])), flush=True)
"""


def environment(tree: Path, threads: int) -> dict[str, str]:
    """Return what a version runs with."""
    return {**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": str(threads)}


class Version:
    """A process of one version that predicts when it is asked."""

    def __init__(self, tree: Path, run: Path, photographs: Path, threads: int) -> None:
        self.environment = environment(tree, threads)
        self.run, self.photograph = run, sorted(photographs.iterdir())[0]
        self.process = subprocess.Popen(
            [sys.executable, "-c", ANSWER, str(run), str(photographs)],
            env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.load = self._read()

    def _read(self) -> tuple[float, float]:
        assert self.process.stdout
        clock, processor = json.loads(self.process.stdout.readline())
        return clock, processor

    def ask(self, what: str) -> tuple[float, float]:
        """Return the seconds that it takes, on the clock and of the processor."""
        if what == "cold":
            return self._cold()
        assert self.process.stdin
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return self._read()

    def _cold(self) -> tuple[float, float]:
        before, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [sys.executable, "-m", "alexnet", "predict", str(self.run), str(self.photograph)]
        subprocess.run(command, env=self.environment, check=True, capture_output=True)
        clock, after = time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_CHILDREN)
        return clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def write_photographs(folder: Path, count: int) -> None:
    """Write `count` JPEG files of 500x375 soft shapes."""
    folder.mkdir()
    draws = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(draws.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        image = coarse.resize((500, 375), Image.Resampling.BICUBIC)
        image.save(folder / f"{number:03}.jpg", quality=90)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--photographs", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run, photographs = Path(scratch, "run"), Path(scratch, "photographs")
        write_photographs(photographs, options.photographs)
        command = [sys.executable, "-c", MAKE_RUN, str(run)]
        subprocess.run(command, env=environment(options.old, 1), check=True)
        for threads in options.threads:
            measure(options, run, photographs, threads)


def measure(options: argparse.Namespace, run: Path, photographs: Path, threads: int) -> None:
    """Ask both versions in turn, and print a line for everything that was asked."""
    trees = (options.old, options.new)
    versions = [Version(tree, run, photographs, threads) for tree in trees]
    report(threads, "load", [[version.load] for version in versions])
    for what in ("one", "many", "cold"):
        found: list[list[tuple[float, float]]] = [[], []]
        for turn in range(options.rounds + 1):
            for seconds, version in zip(found, versions, strict=True):
                taken = version.ask(what)
                if turn:  # at first, kernels are compiled and forms are made
                    seconds.append(taken)
        report(threads, what, found)
    for version in versions:
        version.close()


def report(threads: int, what: str, both: list[list[tuple[float, float]]]) -> None:
    """Print the medians of both versions."""
    line = [f"{threads} threads  {what:5}"]
    for place, name in enumerate(("clock", "processor")):
        old, new = (statistics.median(one[place] for one in seconds) for seconds in both)
        line.append(f"{name} {old:7.3f} s -> {new:7.3f} s, {old / new:4.2f}x")
    print("   ".join(line), flush=True)


if __name__ == "__main__":
    main()
