"""A server as it is operated: odd requests, floods, a hundred thousand requests, many SIGTERMs.

    python benchmarks/serve_operation.py {rows,flood,memory,sigterm,mutate} FOLDER [--source SRC]

FOLDER has the JPEG files that are sent. The run is one of `--network` with ten classes whose
weights are drawn from a seed: what it answers does not matter here. `--source` is the `src` of
another version, for a comparison. The server is a process of its own, the clients are this one.

rows     what was wrong on 2026-11-26, one answer each
flood    2,000 connections for `--seconds`: 64 that predict every two seconds, 200 that send a byte
         a second, 200 that never read, 60 that read the curves of 90,000 lines, the rest silent
memory   64 clients for `--seconds`, and the server's memory
sigterm  `--count` servers, each stopped at a random moment under load; each is a fork of this
         process, which has imported what a server is made of
mutate   `--count` images, forms and packed bodies with bytes changed
"""

import argparse
import asyncio
import gzip
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import httpx
import numpy as np
import psutil
from serve_load import clients, messages, numbers, processor, quantile

LINES = 90_000


def make_run(folder: Path, network: str) -> Path:
    """Make a run without training it, with a year of metrics."""
    import torch

    from alexnet.data.statistics import Statistics
    from alexnet.network import build
    from alexnet.recipes import RECIPES
    from alexnet.training.checkpoint import Checkpoint
    from alexnet.training.run import Run, RunConfig
    from alexnet.variants import NETWORKS

    torch.set_num_threads(1)  # a fork of this process finds no threads, and would wait for them
    spec = replace(NETWORKS[network], num_classes=10)
    recipe = replace(RECIPES["paper"], precision="fp32")
    size = spec.image_size + (29 if spec.image_size > 200 else 4)
    config = RunConfig(
        spec=spec, recipe=recipe, classes=tuple(map(str, range(10))), data="/gone/away",
        data_fingerprint="", data_size=size,
    )  # fmt: skip
    mean = np.full((3, size, size), 120, np.float32)
    statistics = Statistics(mean, np.ones(3, np.float32), np.eye(3, dtype=np.float32))
    first = Checkpoint(0, dict(build(spec, 0).state_dict()))
    run = Run.start(folder, config, statistics, first=first)
    line = {"epoch": 1.5, "loss": 0.69, "train_top1": 0.51, "lr": 0.01, "images_per_second": 1e3}
    with (run.folder / "metrics.jsonl").open("w") as file:
        for step in range(LINES):
            file.write(json.dumps({"step": step, **line}) + "\n")
    return folder


class Server:
    """A server in a process of its own."""

    def __init__(self, run: Path, source: Path, *arguments: str, **environment: str) -> None:
        command = [sys.executable, "-m", "alexnet", "serve", str(run), "--port", "0", *arguments]
        variables = {**os.environ, "PYTHONPATH": str(source), **environment}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=variables
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        self.port = int(self.line.split("127.0.0.1:")[1].split()[0]) if self.line else 0
        self.url = f"http://127.0.0.1:{self.port}"
        for _ in range(600 if self.line else 0):
            if answers(self.port):
                break
            time.sleep(0.1)

    def memory(self, kind: str = "pss") -> float:
        """Return megabytes; what processes share counts once (`pss`)."""
        process = psutil.Process(self.process.pid)
        family = [process, *process.children(recursive=True)]
        return sum(getattr(one.memory_full_info(), kind) for one in family) / 1e6

    def stop(self) -> float:
        """Ask it to end; return the seconds that it took."""
        start = time.perf_counter()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(120)
        return time.perf_counter() - start


def answers(port: int) -> bool:
    try:
        return bool(httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=5).text)
    except httpx.HTTPError:
        return False


@contextmanager
def serving(run: Path, source: Path, *arguments: str, **environment: str) -> Iterator[Server]:
    server = Server(run, source, *arguments, **environment)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


def silent(port: int, request: str) -> socket.socket:
    """Send a request, and never read."""
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.connect(("127.0.0.1", port))
    line.sendall(request.encode())
    return line


def rows(run: Path, folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    photograph = next(folder.rglob("*.jpg")).read_bytes()
    with serving(run, arguments.source) as server:
        found = {
            "S1 a prediction beside 60 reads": predict_beside_reads(server, photograph),
            "S3 refusals with 400 clients": refuse(server, folder, arguments.seconds),
            **ask_oddly(server, photograph),
            "S6 30 that never read 20 MB": never_read(server, photograph),
        }
    found["S2 SIGTERM beside a preparation"] = stop_preparing(run, folder, arguments.source)
    secret = {"Authorization": "Bearer secret"}
    with serving(run, arguments.source, "--token", "secret\n") as server:
        found["S6 a token with a newline"] = predict(server, photograph, secret).status_code
    with serving(run, arguments.source, "--token", "", ALEXNET_TOKEN="secret") as server:
        asked = predict(server, photograph).status_code if server.line else "does not start"
        found["S6 --token '' beside ALEXNET_TOKEN"] = asked
    return found


def predict(
    server: Server, body: bytes, headers: dict[str, str] | None = None, route: str = "predict"
) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/{route}", content=body, headers=headers, timeout=120)


def predict_beside_reads(server: Server, photograph: bytes) -> str:
    predict(server, photograph)
    start = time.perf_counter()
    predict(server, photograph)
    alone = time.perf_counter() - start

    async def many() -> tuple[int, float, dict[int, int]]:
        async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
            reads = [asyncio.create_task(client.get("/v1/run")) for _ in range(60)]
            await asyncio.sleep(0.3)
            start = time.perf_counter()
            answer = await client.post("/v1/predict", content=photograph)
            seconds = time.perf_counter() - start
            read = Counter(one.status_code for one in await asyncio.gather(*reads))
            return answer.status_code, seconds, dict(read)

    status, seconds, read = asyncio.run(many())
    return f"{status} in {seconds:.2f} s ({alone:.2f} s alone); reads {read}"


def refuse(server: Server, folder: Path, seconds: float) -> str:
    requests = messages(folder)
    asyncio.run(clients(server.port, requests, 64, 3, 1 << 30))
    load = asyncio.run(clients(server.port, requests, 400, seconds, 1 << 30))
    times, answered = load.by_status.get(503, [0.0]), len(load.by_status.get(200, []))

    def tell(some: list[float]) -> str:
        values = (f"p{p} {1000 * quantile(some, p):.0f}" for p in (50, 90, 95, 99))
        return f"{', '.join(values)} ms of {len(some)}"

    return (
        f"{tell(times)}; the first 272, of 400 connections made at once: {tell(times[:272])}; the "
        f"others: {tell(times[272:] or times)}; {answered} answered, {load.broken} lost"
    )


def ask_oddly(server: Server, photograph: bytes) -> dict[str, object]:
    packed = predict(server, gzip.compress(photograph), {"Content-Encoding": "gzip"})
    odd = b'--x\r\nContent-Disposition: form-data; name="\xff"\r\n\r\nabc\r\n--x--\r\n'
    kind = {"Content-Type": "multipart/form-data; charset=undefined; boundary=x"}
    module = httpx.get(server.url + "/static/main.js")
    return {
        "S4 HEAD /healthz": httpx.head(server.url + "/healthz").status_code,
        "S4 Content-Encoding: gzip": f"{packed.status_code} {packed.text[:60]}",
        "S4 charset=undefined": predict(server, odd, kind).status_code,
        "S5 images that moved": httpx.get(server.url + "/v1/example").text,
        "S7 Cache-Control of a module": module.headers.get("cache-control"),
    }


def never_read(server: Server, photograph: bytes) -> str:
    """Ask for as many numbers as an answer may have, 30 times, and read none."""
    shapes = httpx.get(server.url + "/v1/model").json()["shapes"]
    layer, shape = max(shapes.items(), key=lambda item: np.prod(item[1]))
    images = min(32, int(1_000_000 // np.prod(shape)))
    part = b'--x\r\nContent-Disposition: form-data; name="i"; filename="a"\r\n\r\n'
    body = (part + photograph + b"\r\n") * images + b"--x--\r\n"
    head = f"POST /v1/features?layers={layer} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    head += "Content-Type: multipart/form-data; boundary=x\r\n"
    before = highest = server.memory()
    lines = [silent(server.port, f"{head}Content-Length: {len(body)}\r\n\r\n") for _ in range(30)]
    for line in lines:
        line.sendall(body)
    for _ in range(30):
        time.sleep(0.5)
        highest = max(highest, server.memory())
    for line in lines:
        line.close()
    return f"+{highest - before:.0f} MB"


def stop_preparing(run: Path, folder: Path, source: Path) -> str:
    files = sorted(folder.rglob("*.jpg"))
    with tempfile.TemporaryDirectory() as images, tempfile.TemporaryDirectory() as cache:
        for number in range(6_000):
            place = Path(images) / "train" / str(number % 10)
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}.jpg").symlink_to(files[number % len(files)].resolve())
        server = Server(run, source, "--data", images, ALEXNET_CACHE=cache)
        time.sleep(2)
        return f"gone after {server.stop():.1f} s"


class Flood:
    """The clients of a flood, and what those that behave have seen."""

    def __init__(self, port: int, requests: list[bytes], seconds: float) -> None:
        self.port, self.requests = port, requests
        self.until = time.perf_counter() + seconds
        self.seen: list[float] = []
        self.failed: Counter[str] = Counter()
        self.reads: Counter[int] = Counter()

    def start(self) -> list[asyncio.Task[None]]:
        work = [self._predict(number) for number in range(64)]
        work += [self._never_read() for _ in range(200)]
        kinds = ((200, self._trickle), (60, self._read), (1_476, self._wait))
        work += [self._again(kind) for count, kind in kinds for _ in range(count)]
        return [asyncio.create_task(one) for one in work]

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.wait_for(asyncio.open_connection("127.0.0.1", self.port), 30)

    async def _predict(self, number: int) -> None:
        await asyncio.sleep(number / 32)
        reader = writer = None
        while time.perf_counter() < self.until:
            start = time.perf_counter()
            try:
                if reader is None or writer is None:
                    reader, writer = await self._connect()
                writer.write(self.requests[number % len(self.requests)])
                status = await asyncio.wait_for(read_status(reader), 30)
                if status == 200:
                    self.seen.append(time.perf_counter() - start)
                else:
                    self.failed[str(status)] += 1
            except (OSError, EOFError, TimeoutError) as error:
                self.failed[type(error).__name__] += 1
                reader = writer = None
            await asyncio.sleep(max(0, start + 2 - time.perf_counter()))

    async def _again(
        self, work: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
    ) -> None:
        """Keep a connection, and open another when it is closed."""
        while time.perf_counter() < self.until:
            with suppress(OSError, EOFError, TimeoutError):
                reader, writer = await self._connect()
                await work(reader, writer)
                writer.close()
            await asyncio.sleep(1)

    async def _trickle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9000\r\n\r\n"
        for byte in head + bytes(9000):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(1)

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"GET /v1/run HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            self.reads[await read_status(reader)] += 1
            await asyncio.sleep(1)

    async def _wait(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def _never_read(self) -> None:
        while time.perf_counter() < self.until:
            with suppress(OSError):
                line = silent(self.port, "GET /v1/run HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                await asyncio.sleep(20)
                line.close()
            await asyncio.sleep(1)


async def read_status(reader: asyncio.StreamReader) -> int:
    """Read a whole answer; return its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
    return int(head.split(b" ", 2)[1])


def flood(run: Path, folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    requests, held = messages(folder), []

    async def run_flood(server: Server) -> Flood:
        found = Flood(server.port, requests, arguments.seconds)
        running = found.start()
        while time.perf_counter() < found.until:
            held.append(round(server.memory("rss"), 1))
            await asyncio.sleep(1)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        return found

    with serving(run, arguments.source) as server:
        asyncio.run(clients(server.port, requests, 64, 3, 1 << 30))
        found = asyncio.run(run_flood(server))
        told = numbers(server.port)
    minute = min(60, len(held) // 3)
    return {
        "seconds": arguments.seconds,
        "predictions": len(found.seen),
        "failed": dict(found.failed),
        **{f"p{p}_ms": round(1000 * quantile(found.seen, p)) for p in (50, 90, 99)},
        "longest_ms": round(1000 * max(found.seen)),
        "reads": dict(found.reads),
        "megabytes_after": {f"{minute} s": held[minute], "end": held[-1]},
        "growth_megabytes": round(max(held[minute:]) - held[minute], 1),
        "answered": {k[23:]: v for k, v in told.items() if k.startswith("alexnet_requests_total{")},
    }


def memory(run: Path, folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    requests, found, done = messages(folder), [], 0
    with serving(run, arguments.source, "--workers", str(arguments.workers)) as server:
        at_start = {"pss": server.memory(), "rss": server.memory("rss")}
        asyncio.run(clients(server.port, requests, 64, 5, 1 << 30))
        start, statuses = time.perf_counter(), Counter()
        while time.perf_counter() - start < arguments.seconds and done < arguments.count:
            load = asyncio.run(clients(server.port, requests, 64, 5, 1 << 30))
            statuses.update({k: len(v) for k, v in load.by_status.items()})
            done = sum(statuses.values())
            found.append((done, round(server.memory(), 1)))
        files = psutil.Process(server.process.pid).num_fds()
    if arguments.picture:
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
        axes.plot(*zip(*found, strict=True), color="black", linewidth=1)
        axes.set(xlabel="requests", ylabel="memory, MB", ylim=(0, 1.2 * max(y for _, y in found)))
        figure.savefig(arguments.picture, dpi=120)
    return {
        "workers": arguments.workers,
        "seconds": round(time.perf_counter() - start),
        "statuses": dict(statuses),
        "megabytes_at_start": {k: round(v, 1) for k, v in at_start.items()},
        "megabytes": [found[0][1], found[len(found) // 2][1], found[-1][1]],
        "open_files": files,
    }


def run_silently(command: list[str]) -> None:
    from alexnet.cli.main import run

    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os._exit(run(command))


def sigterm(run: Path, folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    requests = messages(folder)
    seen: Counter[str] = Counter()
    took, statuses = [], Counter()

    async def ask(port: int, number: int) -> None:
        """Ask on a kept connection until nobody listens; an answer that breaks off is lost."""
        reader = writer = None
        fresh = False  # nothing was answered on this connection
        while True:
            try:
                if writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    fresh = True
                writer.write(requests[number % len(requests)])
                head = await reader.readuntil(b"\r\n\r\n")
                fresh = False
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                seen["answered " + head.split(b" ", 2)[1].decode()] += 1
                if b"\r\nconnection: close" in head.lower():
                    writer.close()
                    writer = None
            except ConnectionRefusedError:
                return
            except (OSError, EOFError) as error:
                # Connected by the system, and not yet taken by the server when it closed the port.
                untaken = fresh and isinstance(error, ConnectionResetError)
                seen["reset before it was taken" if untaken else f"lost: {error!r:.60}"] += 1
                return

    async def load(server: BaseProcess, port: int, seconds: float) -> None:
        asking = [asyncio.create_task(ask(port, n)) for n in range(16)]
        await asyncio.sleep(seconds)
        start = time.perf_counter()
        server.terminate()
        while server.is_alive():
            await asyncio.sleep(0.02)
        took.append(time.perf_counter() - start)
        statuses[server.exitcode] += 1
        await asyncio.gather(*asking)

    import_module("alexnet.serve.server")
    for _ in range(arguments.count):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = ["serve", str(run), "--port", str(port), "--workers", str(arguments.workers)]
        server = get_context("fork").Process(target=run_silently, args=(command,))
        server.start()
        while not answers(port):
            time.sleep(0.1)
        asyncio.run(load(server, port, random.uniform(0, 2)))
    return {
        "servers": arguments.count, "requests": dict(seen), "exit_status": dict(statuses),
        "seconds_to_the_end": {f"p{p}": round(quantile(took, p), 2) for p in (50, 90, 100)},
    }  # fmt: skip


def mutate(run: Path, folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    from io import BytesIO

    from PIL import Image

    chance, originals = np.random.default_rng(24), []
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP"):
        out = BytesIO()
        with Image.open(next(folder.rglob("*.jpg"))) as image:
            image.resize((80, 60)).save(out, kind)
        originals.append(({}, out.getvalue()))
    form = {"Content-Type": "multipart/form-data; charset=utf-8; boundary=x"}
    part = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
    part += b"Content-Type: image/png\r\n\r\n" + originals[1][1] + b"\r\n"
    originals += [(form, part + part + b"--x--\r\n"), (form, part[:90] + b"\r\n--x--\r\n")]
    originals += [({"Content-Encoding": "gzip"}, gzip.compress(originals[4][1]))]
    originals += [({**form, "Content-Encoding": "gzip"}, gzip.compress(part + b"--x--\r\n"))]
    statuses: Counter[int] = Counter()
    wrong = []
    with serving(run, arguments.source) as server, httpx.Client(timeout=60) as client:
        files = psutil.Process(server.process.pid).num_fds()
        for number in range(arguments.count):
            headers, body = originals[number % len(originals)]
            data = bytearray(body)
            for _ in range(chance.integers(1, 20)):
                where = chance.integers(min(len(data), 200) if chance.random() < 0.5 else len(data))
                data[where] = chance.integers(256)
            if number % 3 == 0:
                data = data[: chance.integers(1, len(data))]
            if "Content-Type" in headers and number % 5 == 0:
                kind = bytearray(headers["Content-Type"].encode())
                kind[chance.integers(20, len(kind))] = chance.integers(33, 126)
                headers = {**headers, "Content-Type": kind.decode()}
            path = ("predict", "maps?layer=conv1", "features")[number % 3]
            answer = client.post(f"{server.url}/v1/{path}", content=bytes(data), headers=headers)
            statuses[answer.status_code] += 1
            if answer.status_code >= 500:
                wrong.append(number)
        more = psutil.Process(server.process.pid).num_fds() - files
    return {"bodies": arguments.count, "statuses": dict(statuses), "wrong": wrong, "files": more}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("rows", "flood", "memory", "sigterm", "mutate"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--network", default="single")
    parser.add_argument("--source", type=Path, default=Path(__file__).parents[1] / "src")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder) / "run", arguments.network)
        found = globals()[arguments.what](run, arguments.folder, arguments)
    command = " ".join(["python benchmarks/serve_operation.py", *sys.argv[1:]])
    print(json.dumps({"command": command, "machine": processor(), **found}, indent=1))


if __name__ == "__main__":
    main()
