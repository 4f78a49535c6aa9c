"""Damaged files of every format that is imported, and pickles that would run something.

``PYTHONPATH=src:. python benchmarks/mutate_imports.py --count 1000 OUT.json``

Each format in a process of its own: how many files were read and refused, the slowest, and the
most memory beyond what the process held before. A run is written for every tenth, if it can be
read. Anything but a network or a sentence is a crash, and is written down with the number of the
file; one that takes longer than `SECONDS` ends the process.
"""

import argparse
import json
import pickle
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from alexnet.errors import AlexNetError
from tests.interop.samples import (
    damaged,
    forget_peak,
    imported,
    memory,
    originals,
    payloads,
    with_pickle,
)

SECONDS = 60
PICKLED = ("cuda-convnet, two towers", "pth", "pth, before 1.6", "batches.meta", "dictionary")


def mutate(kind: str, files: dict[str, bytes], count: int) -> dict[str, Any]:
    """Import `count` damaged files of a kind; return what became of them."""
    found: dict[str, Any] = {"format": kind, "bytes": len(files[kind]), "files": count}
    found |= {"read": 0, "refused": 0, "crashes": [], "slowest_s": 0.0}
    good = files["caffemodel, newer"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        imported(kind, files[kind], folder, good)  # what it needs is loaded before it is measured
        shutil.rmtree(folder / "run")
        held = memory("VmRSS")
        forget_peak()
        for number, data in enumerate(damaged(files[kind], count, seed=0)):
            started = time.perf_counter()
            signal.alarm(SECONDS)
            try:
                imported(kind, data, folder, good, write=number % 10 == 0)
                found["read"] += 1
            except AlexNetError:
                found["refused"] += 1
            except Exception as error:
                found["crashes"].append(f"{number}: {type(error).__name__}: {error}"[:200])
            signal.alarm(0)
            found["slowest_s"] = max(found["slowest_s"], time.perf_counter() - started)
            shutil.rmtree(folder / "run", ignore_errors=True)
    found["slowest_s"] = round(found["slowest_s"], 3)
    return found | {"peak_mb": round(memory("VmHWM") - held, 1)}


def hostile(kind: str, files: dict[str, bytes]) -> dict[str, Any]:
    """Import every payload in a file of a kind; return how many ran, here and in Python's own."""
    live, ran, refused = 0, [], 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        marker = folder / "ran"
        for called, payload in payloads(marker).items():
            pickle.loads(payload)
            live += marker.exists()
            marker.unlink(missing_ok=True)
            data = with_pickle(files["pth"], payload) if kind == "pth" else payload
            if kind == "dictionary":
                start = files[kind]
                data = start[: start.index(b"\n") + 1] + payload
            if kind == "pth, before 1.6":
                start = files[kind]
                data = start[: start.index(b".", start.index(b"type_sizes")) + 1] + payload
            try:
                imported(kind, data, folder, files["caffemodel, newer"])
            except AlexNetError:
                refused += 1
            if marker.exists():
                ran.append(called)
                marker.unlink()
    return {"format": kind, "payloads": live, "refused": refused, "executed": ran}


def main() -> None:
    """Write what was found, format by format."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--only", nargs="*", help="the kinds, by how their names begin; all")
    asked = parser.parse_args()
    files = originals()
    result: dict[str, Any] = {"damaged": [], "payloads": []}
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        chosen = [kind for kind in files if kind.startswith(tuple(asked.only or [""]))]
        for kind in chosen:
            result["damaged"].append(pool.submit(mutate, kind, files, asked.count).result())
            print(result["damaged"][-1], file=sys.stderr)
        for kind in PICKLED if not asked.only else ():
            result["payloads"].append(pool.submit(hostile, kind, files).result())
            print(result["payloads"][-1], file=sys.stderr)
    asked.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
