"""The rate of a preparation by two versions of the source, in turn: images a second of a processor.

``python benchmarks/preparation_rate.py OLD/src NEW/src FOLDER [--rounds 9]``

Each round is a process a version, in an order that changes, which lists and prepares FOLDER whole
at 256 pixels by one worker. Processor time is compared: it is the work, whatever else runs.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile

CHILD = """
import sys, time
from alexnet.data.prepare import Options, prepare
from alexnet.data.sources import open_source
begun = time.process_time()
source = open_source(sys.argv[1])
listed = time.process_time() - begun
manifest = prepare(source, sys.argv[2], Options(), workers=1)
print(sum(manifest.counts.values()), time.process_time() - begun, listed)
"""


def measure(source: str, folder: str) -> tuple[float, float]:
    """Return the images prepared a second, and the seconds that listing took."""
    with tempfile.TemporaryDirectory() as out:
        done = subprocess.run(
            [sys.executable, "-c", CHILD, folder, f"{out}/data"],
            env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    images, seconds, listed = map(float, done.stdout.split())
    return images / seconds, listed


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("folder")
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    rates: dict[str, list[float]] = {given.old: [], given.new: []}
    for number in range(given.rounds + 1):
        for source in sorted(rates, reverse=bool(number % 2)):
            rate, listed = measure(source, given.folder)
            if number:  # the first warms the disk's cache
                rates[source].append(rate)
            print(f"{source}: {rate:.1f} images/s, listed in {listed * 1000:.0f} ms", flush=True)
    old, new = rates[given.old], rates[given.new]
    ratios = sorted(after / before for before, after in zip(old, new, strict=True))
    print(
        f"old {statistics.median(old):.1f}, new {statistics.median(new):.1f} images/s; "
        f"ratio {statistics.median(ratios):.3f} (median of {len(ratios)}, "
        f"{ratios[0]:.3f} to {ratios[-1]:.3f})"
    )


if __name__ == "__main__":
    main()
