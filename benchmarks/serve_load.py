"""Load a server as 64 clients would, past its bound too, and compare it with `alexnet bench infer`.

    python benchmarks/serve_load.py RUN FOLDER [--seconds 60] [--json FILE]

The server is ``alexnet serve RUN`` in a process of its own; the clients are one more process on the
same machine, so they take part of its time. FOLDER has the JPEG files that are sent. What is done:

1. ``alexnet bench infer`` at the server's batch, with the server not yet started;
2. 64 clients for a minute, each sending its next photograph when its last one is answered;
3. 400 clients for ten seconds, past the bound: how soon the others are refused;
4. how soon one client is answered as before;
5. 64 clients until 20,000 requests are answered in all, and what the memory did.
"""

import argparse
import asyncio
import json
import platform
import statistics
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import psutil

BATCH = 32  # the server's `ServerSettings.batch_size`
CLIENTS, MANY = 64, 400


@dataclass
class Load:
    """What some clients saw."""

    seconds: float = 0.0
    by_status: dict[int, list[float]] = field(default_factory=dict)  # latencies, in seconds
    broken: int = 0  # requests without an answer

    def summary(self) -> dict[str, object]:
        rows = {
            str(status): {
                "requests": len(times),
                "a_second": round(len(times) / self.seconds, 1),
                **{f"p{p}_ms": round(1000 * quantile(times, p), 1) for p in (50, 90, 99)},
                "longest_ms": round(1000 * max(times), 1),
            }
            for status, times in sorted(self.by_status.items())
        }
        return {"seconds": round(self.seconds, 1), "without_answer": self.broken, "by_status": rows}


def quantile(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


async def client(
    port: int, requests: list[bytes], load: Load, until: float, most: list[int]
) -> None:
    """Send one request after another on a kept connection until the time or the number is up."""
    reader = writer = None
    number = 0
    while time.perf_counter() < until and most[0] > 0:
        most[0] -= 1
        start = time.perf_counter()
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(requests[number % len(requests)])
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            status = int(head.split(b" ", 2)[1])
            load.by_status.setdefault(status, []).append(time.perf_counter() - start)
            if status == 503:
                await asyncio.sleep(1)  # as Retry-After says
            if reader.at_eof():
                writer.close()
                writer = None
        except (OSError, EOFError, TimeoutError, IndexError):
            kept = number and time.perf_counter() - start < 1  # closed between two requests
            if not kept:
                load.broken += 1
            writer = None
        number += 1
    if writer is not None:
        writer.close()


async def clients(port: int, requests: list[bytes], count: int, seconds: float, most: int) -> Load:
    load, start = Load(), time.perf_counter()
    left = [most]
    spread = [requests[n % len(requests) :] + requests[: n % len(requests)] for n in range(count)]
    await asyncio.gather(*(client(port, s, load, start + seconds, left) for s in spread))
    load.seconds = time.perf_counter() - start
    return load


def messages(folder: Path) -> list[bytes]:
    files = sorted(folder.rglob("*.jpg"))[:200]
    head = "POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\n"
    bodies = [file.read_bytes() for file in files]
    return [f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies]


def numbers(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {k: float(v) for k, v in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def resident(server: subprocess.Popen) -> float:
    """Return the memory of a server and its workers, in megabytes."""
    process = psutil.Process(server.pid)
    family = [process, *process.children(recursive=True)]
    return sum(one.memory_info().rss for one in family) / 1e6


def started(run: Path, workers: int) -> tuple[subprocess.Popen, int]:
    """Start a server; wait until it has compiled, and has seen its training images."""
    command = [sys.executable, "-m", "alexnet", "serve", str(run), "--port", "0"]
    command += ["--workers", str(workers)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    port = int(server.stdout.readline().split("127.0.0.1:")[1].split()[0])
    for tries in range(600):
        time.sleep(1)
        try:  # often enough that every worker is asked
            told = [numbers(port) for _ in range(10 * workers)]
            # In float32 on a processor nothing is compiled, however long one waits.
            compiled = tries > 15 or all(one["alexnet_compiled"] for one in told)
            if compiled and not any(one["alexnet_looking"] for one in told):
                return server, port
        except OSError:
            continue
    server.kill()
    raise SystemExit("The server did not get ready.")


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores"


def bench(rounds: int) -> float:
    command = [sys.executable, "-m", "alexnet", "bench", "infer", "--batch-size", str(BATCH)]
    done = subprocess.run(
        [*command, "--rounds", str(rounds), "--json"], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)["results"][0]["ours"]


def measured(arguments: argparse.Namespace) -> dict[str, object]:
    infer = bench(arguments.rounds)
    print(f"bench infer: {infer:.1f} images/s", file=sys.stderr, flush=True)
    requests = messages(arguments.folder)
    server, port = started(arguments.run, arguments.workers)

    def run(count: int, seconds: float, most: int = 1 << 30) -> Load:
        return asyncio.run(clients(port, requests, count, seconds, most))

    print("the server is ready", file=sys.stderr, flush=True)
    try:
        idle = run(1, 5)
        run(CLIENTS, 5)  # the memory that a full batch needs is taken now
        memory = [resident(server)]
        sustained = run(CLIENTS, arguments.seconds)
        after = numbers(port)
        print("64 clients are done", file=sys.stderr, flush=True)
        memory.append(resident(server))
        overload = run(MANY, 10)
        stopped = time.perf_counter()
        usual = statistics.median(idle.by_status[200])
        while True:
            one = run(1, 30, 1)
            if one.by_status.get(200, [9.0])[0] < 2 * usual:
                break
        print("400 clients are done", file=sys.stderr, flush=True)
        recovery = time.perf_counter() - stopped
        memory.append(resident(server))
        done = sum(map(len, sustained.by_status.values())) + len(overload.by_status.get(200, ()))
        rest = run(CLIENTS, 120, max(0, arguments.requests - done))
        memory.append(resident(server))
    finally:
        server.terminate()
        status = server.wait(timeout=60)
    images, batches = after["alexnet_batch_images_sum"], after["alexnet_batch_images_count"]
    answered = len(sustained.by_status.get(200, ())) / sustained.seconds
    return {
        "command": f"python benchmarks/serve_load.py {arguments.run.name} {arguments.folder.name}",
        "machine": processor(),
        "kernel": platform.platform(),
        "python": platform.python_version(),
        "request_bytes": round(statistics.mean(map(len, requests))),
        "bench_infer_images_a_second": round(infer, 1),
        "batch": BATCH,
        "one_client": idle.summary(),
        "clients_64": sustained.summary(),
        "workers": arguments.workers,
        "images_a_batch_since_the_start": round(images / batches, 1),
        "share_of_bench_infer": round(answered / infer, 3),
        "clients_400": overload.summary(),
        "recovery_seconds": round(recovery, 3),
        "rest": rest.summary(),
        "requests_in_all": done + sum(map(len, rest.by_status.values())),
        "resident_megabytes": [round(value, 1) for value in memory],
        "exit_status": status,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5, help="of bench infer")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    text = json.dumps(measured(arguments), indent=1)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
