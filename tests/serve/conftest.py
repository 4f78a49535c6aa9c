"""A real server in a process of its own, and raw connections to it."""

import io
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

httpx = pytest.importorskip("httpx", reason="httpx is not installed")
psutil = pytest.importorskip("psutil", reason="psutil is not installed")
pytest.importorskip("fastapi", reason="the extra serve is not installed")


@dataclass(frozen=True)
class Served:
    """A running server."""

    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, **more):
        return httpx.get(self.url + path, timeout=30, **more)

    def post(self, path: str, data: bytes, **more):
        return httpx.post(self.url + path, content=data, timeout=30, **more)

    def resident(self) -> int:
        return psutil.Process(self.process.pid).memory_info().rss

    def files(self) -> int:
        return psutil.Process(self.process.pid).num_fds()

    def connect(self, data: bytes = b"") -> socket.socket:
        """Open a connection and send something on it."""
        line = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        line.sendall(data)
        return line

    def is_quick(self, photograph: bytes) -> float:
        """See that a well-behaved client is answered; return after how long."""
        start = time.perf_counter()
        assert self.post("/v1/predict", photograph).status_code == 200
        return time.perf_counter() - start

    def wait_until_it_answers(self) -> None:
        for _ in range(1200):
            try:
                self.connect().close()
                return
            except OSError:
                assert self.process.poll() is None
                time.sleep(0.1)
        raise AssertionError("the server did not get ready")

    def stop(self) -> int:
        """Ask the server to end; return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


def start(run: Path, environment: dict[str, str], *arguments: str) -> Served:
    """Start a server; it may not answer yet."""
    process = subprocess.Popen(
        [sys.executable, "-m", "alexnet", "serve", str(run), "--port", "0", "--threads", "1",
         "--no-compile", *arguments],
        env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    found = re.search(r":(\d+) in a moment", process.stdout.readline())
    assert found, process.wait(timeout=30)
    return Served(process, int(found[1]))


@pytest.fixture(scope="session")
def serving(environment) -> Iterator[Callable[..., Served]]:
    """Return a function that starts a server, which ends with the tests at the latest."""
    running: list[Served] = []

    def begin(run: Path, *arguments: str) -> Served:
        served = start(run, environment, *arguments)
        running.append(served)
        served.wait_until_it_answers()
        return served

    yield begin
    for served in running:
        if served.process.poll() is None:
            served.process.kill()
        served.process.wait()
        served.process.stdout.close()  # type: ignore[union-attr]


@pytest.fixture(scope="session")
def server(serving, trained) -> Served:
    """Return the server that most tests share."""
    return serving(trained)


@pytest.fixture(scope="session")
def photograph(photographs) -> bytes:
    """Return a photograph's file."""
    return sorted(photographs.rglob("test/*/*.png"))[0].read_bytes()


def saved(pixels: np.ndarray, kind: str = "PNG", **how) -> bytes:
    """Encode ``(H, W, 3)`` uint8."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **how)
    return out.getvalue()


def reason(answer) -> str:
    """Return the sentences of a refusal, having seen that it has the form of every error."""
    error = json.loads(answer.content)["error"]
    assert error.keys() == {"reason", "fix", "request_id"}
    assert error["request_id"] == answer.headers["x-request-id"]
    assert error["reason"].endswith((".", "?"))
    return f"{error['reason']} {error['fix']}"
