"""What a server must survive, in the numbers of a release: scenarios 17 and 22 to 25.

    python benchmarks/serve_hostile.py RUN PHOTOGRAPH [--json FILE]

A healthy client asks for a prediction every 50 ms all the while; its latencies are told for each
attack. The short forms of these are tests (tests/serve/test_limits.py).
"""

import argparse
import json
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil

HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\n"


class Healthy(threading.Thread):
    """A client that behaves, and what it waits."""

    def __init__(self, url: str, photograph: bytes) -> None:
        super().__init__(daemon=True)
        self.url, self.photograph = url, photograph
        self.latencies: list[float] = []
        self.failed = 0
        self.going = True

    def run(self) -> None:
        with httpx.Client(base_url=self.url, timeout=30) as client:
            while self.going:
                start = time.perf_counter()
                status = client.post("/v1/predict", content=self.photograph).status_code
                self.latencies.append(time.perf_counter() - start)
                self.failed += status != 200
                time.sleep(0.05)


def png(width: int, height: int, data: bytes) -> bytes:
    """Return a grey PNG whose header announces what it will."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def mutated(original: bytes, count: int) -> list[bytes]:
    """Return a file with some bytes changed, a third of them cut as well."""
    random, found = np.random.default_rng(24), []
    for number in range(count):
        data = bytearray(original)
        for _ in range(random.integers(1, 20)):
            data[random.integers(len(data))] = random.integers(256)
        found.append(bytes(data[: random.integers(1, len(data))] if number % 3 == 0 else data))
    return found


def post(url: str, files: list[bytes], clients: int = 1) -> dict[str, int]:
    """Send files, some at a time; return how often each status came."""
    with httpx.Client(base_url=url, timeout=30) as client, ThreadPoolExecutor(clients) as pool:
        answers = pool.map(lambda file: client.post("/v1/predict", content=file), files)
        return dict(Counter(str(answer.status_code) for answer in answers))


def held(port: int, data: list[bytes], trickle: bytes = b"") -> dict[str, float]:
    """Open a connection for each piece of data; return what came, and when the last was closed."""
    lines = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in data]
    for line, piece in zip(lines, data, strict=True):
        line.sendall(piece)
        line.setblocking(False)
    start, left = time.perf_counter(), set(range(len(lines)))
    statuses: Counter[str] = Counter()
    while left and time.perf_counter() - start < 40:
        for number in list(left):
            try:
                if trickle:
                    lines[number].send(trickle)
                part = lines[number].recv(4096)
            except BlockingIOError:
                continue
            except OSError:
                part = b""
            if part:
                statuses[part.split(b" ")[1].decode()] += 1
            else:
                left.discard(number)
        time.sleep(0.5)
    for line in lines:
        line.close()
    seconds = round(time.perf_counter() - start, 1)
    return {**statuses, "still_open": len(left), "all_closed_after_seconds": seconds}


def endless(port: int, head: bytes, part: bytes) -> dict[str, float | str]:
    """Send parts until the server has had enough."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
        line.sendall(head)
        total = 0
        try:
            while total < 500_000_000:
                line.sendall(part)
                total += len(part)
        except OSError:
            pass
        try:
            first = line.recv(65_536).split(b"\r\n")[0].decode()
        except OSError:
            first = "reset"
    return {"sent_megabytes": round(total / 1e6, 1), "answer": first}


def attacks(port: int, url: str, photograph: bytes) -> dict[str, Callable[[], dict[str, object]]]:
    bomb = png(30_000, 30_000, zlib.compress(bytes(30_001 * 30_000 // 8), 9))
    header = png(141_422, 141_422, zlib.compress(bytes(1000)))
    chunk = b"10000\r\n" + bytes(65_536) + b"\r\n"
    pixels = png(7_000, 7_000, zlib.compress(bytes(7_001 * 7_000)))
    slow = [HEAD[:40], HEAD, HEAD + b"Content-Length: 9000\r\n\r\n12345"]
    return {
        "nothing": lambda: time.sleep(5) or {},  # type: ignore[func-returns-value]
        "17 bomb of 900 megapixels, 20 times": lambda: post(url, [bomb] * 20),
        "17 header of 20 gigapixels, 20 times": lambda: post(url, [header] * 20),
        "17 the largest image allowed, 10 times": lambda: post(url, [pixels] * 10),
        "22 body of 100 MB": lambda: endless(
            port, HEAD + b"Content-Length: 100000000\r\n\r\n", bytes(65_536)
        ),
        "22 chunks without end": lambda: endless(
            port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", chunk
        ),
        "23 500 half-sent requests": lambda: held(port, [slow[n % 3] for n in range(500)]),
        "23 500 trickling requests": lambda: held(
            port, [slow[2 - n % 2] for n in range(500)], b"a"
        ),
        "1,000 idle connections": lambda: held(port, [b""] * 1000),
        "24 5,000 mutated images": lambda: post(url, mutated(photograph, 5000), 8),
    }


def measured(arguments: argparse.Namespace) -> dict[str, object]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
    photograph = arguments.photograph.read_bytes()
    command = [sys.executable, "-m", "alexnet", "serve", str(arguments.run), "--port", "0"]
    server = subprocess.Popen([*command, "--no-compile"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    port = int(server.stdout.readline().split("127.0.0.1:")[1].split()[0])
    url = f"http://127.0.0.1:{port}"
    while True:
        try:
            if "alexnet_looking 0.0" in httpx.get(url + "/metrics").text:
                break
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    process = psutil.Process(server.pid)
    post(url, mutated(photograph, 50))
    report: dict[str, object] = {}
    try:
        for name, attack in attacks(port, url, photograph).items():
            healthy = Healthy(url, photograph)
            healthy.start()
            before, files = process.memory_info().rss, process.num_fds()
            start = time.perf_counter()
            found = attack()
            seconds = time.perf_counter() - start
            healthy.going = False
            healthy.join()
            waited = sorted(healthy.latencies)
            report[name] = {
                **found,
                "seconds": round(seconds, 2),
                "healthy": {
                    "requests": len(waited),
                    "failed": healthy.failed,
                    "p50_ms": round(1000 * waited[len(waited) // 2], 1),
                    "p99_ms": round(1000 * waited[len(waited) * 99 // 100], 1),
                    "longest_ms": round(1000 * waited[-1], 1),
                },
                "memory_megabytes": round((process.memory_info().rss - before) / 1e6, 1),
                "files": process.num_fds() - files,
            }
            print(name, json.dumps(report[name]), file=sys.stderr, flush=True)
    finally:
        server.terminate()
        server.wait(timeout=60)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("photograph", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    text = json.dumps(measured(arguments), indent=1)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
