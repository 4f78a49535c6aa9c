"""Pairs of processes that write the same thing, started 0 to 500 ms apart; nothing lost or torn.

``PYTHONPATH=src python benchmarks/race_commands.py [run download kernel archive] [--count 25]``

run: two trainings of one folder, on other data. One is refused by name, or comes after the other;
    the run that stays has the classes, the weights and the metrics of one of them alone.
download: from a slow server on this machine. Both find the file whole, and it is sent once.
kernel: a compiled kernel. Both load it, and one library is left; every third pair finds the cache
    with a damaged one.
archive: an unpacked tar.gz. Both read all of it, and in every fourth pair one is killed.
"""

import argparse
import gzip
import hashlib
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

DRAWS = random.Random(0)
TRAIN = (
    *("--network", "cifar_quick", "--batch-size", "8", "--max-steps", "3", "--no-compile"),
    *("--precision", "fp32", "--threads", "1", "--set", "log_every=1"),
)
DOWNLOAD = """
import sys
from pathlib import Path
from alexnet.data.downloads import Archive, download
download(Archive(sys.argv[1], "x.bin", sys.argv[2]), Path(sys.argv[3]))
"""
KERNEL = """
from alexnet.kernels.native import unavailable_reason
print(unavailable_reason() or "loaded")
"""
UNPACK = """
import hashlib, sys
from pathlib import Path
from alexnet.data.archives import decompress_tar
print(hashlib.sha256(decompress_tar(Path(sys.argv[1])).read_bytes()).hexdigest())
"""


def start(cache: Path, *command: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "ALEXNET_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *command], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def start_pair(cache: Path, *commands: tuple[str, ...]) -> list[tuple[int, str]]:
    """Start two processes 0 to 500 ms apart; return how each ended and what it said."""
    pair = [start(cache, *commands[0])]
    time.sleep(DRAWS.uniform(0, 0.5))
    pair.append(start(cache, *commands[-1]))
    said = [process.communicate(timeout=120)[0] for process in pair]
    return [(process.returncode, text) for process, text in zip(pair, said, strict=True)]


def make_photographs(root: Path, classes: tuple[str, ...]) -> Path:
    pixels = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(8):
            noise = pixels.integers(0, 256, (40, 40, 3), np.uint8)
            Image.fromarray(noise).save(root / name / f"{number}.png")
    return root


def race_run(number: int, root: Path) -> str:
    """Return what went wrong, or nothing."""
    data = [make_photographs(root / kind, (f"{kind}1", f"{kind}2")) for kind in ("a", "b")]
    run, cache = root / "run", root / "cache"
    first, second = (("-m", "alexnet", "train", str(d), "--out", str(run), *TRAIN) for d in data)
    ends = start_pair(cache, first, second)
    config = json.loads((run / "config.json").read_text())
    test = json.loads((run / "test.json").read_text())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    winners = [data[i].name for i, (status, _) in enumerate(ends) if not status]
    refused = [text for status, text in ends if status]
    told = all("trained by another process (process" in t or "begun" in t for t in refused)
    steps = [line["step"] for line in lines if "loss" in line]
    good = (
        len(winners) == 1
        and told
        and config["classes"] == test["classes"] == [f"{winners[0]}{n}" for n in (1, 2)]
        and steps == [1, 2, 3]
        and len(list((run / "checkpoints").glob("step-*"))) == 1
        and not list(run.rglob(".*"))
    )
    return "" if good else f"{ends} {config['classes']} {test['classes']} {steps}"


def race_download(number: int, root: Path) -> str:
    """Return what went wrong, or nothing."""
    body = DRAWS.randbytes(3_000_000)
    sent = []

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            begin = int(self.headers.get("Range", "bytes=0-")[6:-1])
            sent.append(begin)
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(body) - begin))
            self.end_headers()
            for at in range(begin, len(body), 300_000):
                self.wfile.write(body[at : at + 300_000])
                time.sleep(0.05)

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
    target = root / "downloads" / "x.bin"
    url = f"http://127.0.0.1:{server.server_port}/x.bin"
    ends = start_pair(root / "cache", ("-c", DOWNLOAD, url, f"md5:{digest}", str(target)))
    server.shutdown()
    good = (
        [status for status, _ in ends] == [0, 0]
        and target.read_bytes() == body
        and sent == [0]
        and [file.name for file in target.parent.iterdir()] == ["x.bin"]
    )
    return "" if good else f"{ends} {sent} {sorted(target.parent.iterdir())}"


def race_kernel(number: int, root: Path) -> str:
    """Return what went wrong, or nothing."""
    cache = root / "cache"
    if number % 3 == 2:
        assert "loaded" in start(cache, "-c", KERNEL).communicate()[0]
        (library,) = (cache / "kernels").glob("*.so")
        os.truncate(library, DRAWS.choice((0, 1000, library.stat().st_size // 2)))
    ends = start_pair(cache, ("-c", KERNEL))
    left = sorted(file.name for file in (cache / "kernels").iterdir())
    loaded = all(code == 0 and said.splitlines()[-1:] == ["loaded"] for code, said in ends)
    good = loaded and len(left) == 1  # one that waits for the other says so
    return "" if good else f"{ends} {left}"


def race_archive(number: int, root: Path) -> str:
    """Return what went wrong, or nothing."""
    inner, cache = BytesIO(), root / "cache"
    with tarfile.open(fileobj=inner, mode="w") as tar:
        for name in range(300):
            member = tarfile.TarInfo(f"c{name % 2}/{name}.bin")
            member.size = 60_000
            tar.addfile(member, BytesIO(DRAWS.randbytes(60_000)))
    packed = root / "x.tar.gz"
    with gzip.open(packed, "wb", compresslevel=1) as out:
        out.write(inner.getvalue())
    expected = hashlib.sha256(inner.getvalue()).hexdigest()
    if number % 4 == 3:
        killed = start(cache, "-c", UNPACK, str(packed))
        time.sleep(DRAWS.uniform(0.1, 0.6))
        killed.kill()
        killed.communicate()
    ends = start_pair(cache, ("-c", UNPACK, str(packed)))
    left = [file.name for file in cache.iterdir() if file.name.endswith((".tar", ".part"))]
    good = ends == [(0, f"{expected}\n")] * 2 and len(left) == 1
    return "" if good else f"{ends} {left}"


RACES: dict[str, Callable[[int, Path], str]] = {
    "run": race_run, "download": race_download, "kernel": race_kernel, "archive": race_archive,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="*", choices=[*RACES, []], default=[*RACES])
    parser.add_argument("--count", type=int, default=25, help="pairs of each kind")
    asked = parser.parse_args()
    wrong = 0
    for kind in asked.kinds:
        failed = 0
        for number in range(asked.count):
            with tempfile.TemporaryDirectory() as folder:
                if what := RACES[kind](number, Path(folder)):
                    failed += 1
                    print(f"{kind} {number}: {what[:2000]}", flush=True)
        print(f"{kind}: {asked.count} pairs, {failed} wrong", flush=True)
        wrong += failed
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
