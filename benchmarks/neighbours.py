"""How long the exact search among many vectors takes, and the memory that it needs.

    python benchmarks/neighbours.py VECTORS DIMENSIONS [--queries 8] [--folder DIR]

The vectors are a memory map of rectified normal numbers, as activations are, written first; the
queries are some of them with noise. Each answer is compared with distances taken one by one in
float64. The file was read before, so that the disk is not measured.
`numpy_processor_seconds` is the time of one product of the queries with all vectors, in parts,
with no bound, distance or order.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from alexnet.features import Neighbours

PART = 4096


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("vectors", type=int)
    parser.add_argument("dimensions", type=int)
    parser.add_argument("--queries", type=int, default=8)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--search", type=Path, help="of the second process: the file")
    asked = parser.parse_args()
    if asked.search:
        print(json.dumps(search(asked.search, asked.queries)))
        return
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        path = Path(folder) / "vectors.npy"
        write(path, asked.vectors, asked.dimensions)
        again = [sys.executable, __file__, *sys.argv[1:], "--search", str(path)]
        subprocess.run(
            again, check=True
        )  # a process that wrote nothing: its memory is the search's


def write(path: Path, vectors: int, dimensions: int) -> None:
    """Write rectified normal vectors."""
    draws = np.random.default_rng(0)
    array = np.lib.format.open_memmap(path, "w+", np.float32, (vectors, dimensions))
    for at in range(0, vectors, PART):
        part = array[at : at + PART]
        draws.standard_normal(out=part, dtype=np.float32)
        np.maximum(part, 0, out=part)
    array.flush()


def search(path: Path, queries: int) -> dict[str, object]:
    """Search, and compare with float64."""
    vectors = np.load(path, mmap_mode="r")
    draws = np.random.default_rng(1)
    chosen = np.sort(draws.choice(len(vectors), queries, replace=False))
    noise = draws.standard_normal((queries, vectors.shape[1]), np.float32)
    asked = np.array(vectors[chosen]) + np.float32(0.5) * noise
    with path.open("rb") as file:
        while file.read(1 << 24):  # so that it is in memory, but not in this process's
            pass
    held = peak_megabytes()
    begin, worked = time.perf_counter(), time.process_time()
    distances, indices = Neighbours(vectors).nearest(asked, 6)
    seconds, worked = time.perf_counter() - begin, time.process_time() - worked
    peak = peak_megabytes()
    plain = product(vectors, asked)
    return {
        "vectors": len(vectors),
        "dimensions": vectors.shape[1],
        "queries": queries,
        "seconds": round(seconds, 2),
        "processor_seconds": round(worked, 2),
        "numpy_processor_seconds": round(plain, 2),
        "peak_mb": peak,
        "peak_before_mb": held,
        "file_mb": round(path.stat().st_size / 1e6),
        "equal_to_float64": agrees(vectors, asked, distances, indices),
        "nearest_is_the_one_with_noise": bool((indices[:, 0] == chosen).all()),
    }


def peak_megabytes() -> int:
    """Return the most memory this program has held (`ru_maxrss` would count its parent's too)."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


def product(vectors: np.ndarray, queries: np.ndarray) -> float:
    """Return the processor seconds of the products alone."""
    begin = time.process_time()
    for at in range(0, len(vectors), PART):
        part = np.array(vectors[at : at + PART])
        queries @ part.T
    return time.process_time() - begin


def agrees(
    vectors: np.ndarray, queries: np.ndarray, distances: np.ndarray, indices: np.ndarray
) -> bool:
    """Whether the answers are those of float64, each distance from its vectors' difference."""
    best = np.empty((len(queries), len(vectors)))
    for at in range(0, len(vectors), PART):
        part = np.array(vectors[at : at + PART], np.float64)
        for query, row in zip(queries.astype(np.float64), best, strict=True):
            difference = part - query
            row[at : at + PART] = np.sqrt(np.einsum("ij,ij->i", difference, difference))
    order = np.argsort(best, 1, kind="stable")[:, : indices.shape[1]]
    same = np.take_along_axis(best, order, 1)
    return bool((order == indices).all() and np.allclose(same, distances, rtol=1e-12))


if __name__ == "__main__":
    main()
