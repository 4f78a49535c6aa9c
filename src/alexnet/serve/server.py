"""The processes that serve a run."""

import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uvicorn

from alexnet import machine
from alexnet.prediction import load
from alexnet.serve.app import make_app
from alexnet.serve.gate import App
from alexnet.serve.service import make_service
from alexnet.serve.settings import Settings
from alexnet.serve.wire import Wire
from alexnet.training.run import Run


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where and how a server listens."""

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    threads: int | None = None  # of each worker


def loaded_app(folder: Path, settings: Settings, threads: int | None) -> App:
    """Load a run and return its application; called in each worker."""
    machine.keep_freed_memory()
    machine.use_threads(threads)
    return make_app(make_service(Run.open(folder), load(folder), settings))


def serve(folder: Path, settings: Settings, address: Address) -> int:
    """Serve a run until a signal stops it; return the exit status: 128 and the signal.

    Raises
    ------
    ConfigError
        When the address cannot be listened at.
    """
    config = uvicorn.Config(
        partial(loaded_app, folder, settings, address.threads),
        factory=True,
        host=address.host,
        port=address.port,
        workers=address.workers,
        http=Wire,
        ws="none",
        server_header=False,
        access_log=False,
        log_level="warning",
        timeout_keep_alive=settings.idle_seconds,
        timeout_graceful_shutdown=settings.drain_seconds,
    )
    server = uvicorn.Server(config)
    stopped = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: stopped.append(number))
    server.run()
    return 128 + stopped[0] if stopped else 0
