"""The processes that serve a run."""

import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uvicorn
from uvicorn.supervisors import Multiprocess

from alexnet import device as devices
from alexnet.errors import AlexNetError, ConfigError
from alexnet.serve.admission import Admission, App, ServerSettings
from alexnet.serve.app import make_app
from alexnet.serve.protocol import HTTPProtocol
from alexnet.serve.service import Service
from alexnet.training.run import Run

SWITCH_INTERVAL = 0.001  # seconds that a thread keeps Python while another waits, not 0.005


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where and how a server listens."""

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    threads: int | None = None  # of each worker; by default its share of the processors
    data: str | None = None  # training images to search; by default the run's own

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigError(f"--workers is {self.workers}.", "It must be at least 1.")
        if not 0 <= self.port < 65536:
            raise ConfigError(f"--port is {self.port}.", "It must be 0 to 65535.")


def serve(
    folder: Path, settings: ServerSettings, address: Address, report: Callable[[str], None] = print
) -> int:
    """Serve a run until a signal stops it; return the exit status, 128 and the signal's number.

    Parameters
    ----------
    folder : Path
        The run's.
    settings : Settings
        The limits.
    address : Address
        Where to listen.
    report : callable
        Told where the server is to be found.

    Raises
    ------
    AlexNetError
        When the run cannot be loaded, or the address cannot be listened at.
    """
    run = Run.open(folder)
    if address.workers > 1:
        run.load_weights()  # before processes are started that would fail on it, again and again
    listening = _bind(address.host, address.port)
    _allow_many_files()
    admission = Admission(settings)  # each worker has a copy, which its app and protocol share
    config = uvicorn.Config(
        partial(load_app, folder, admission, address),
        factory=True,
        workers=address.workers,
        http=partial(HTTPProtocol, admission),  # type: ignore[arg-type]
        ws="none",
        server_header=False,
        proxy_headers=False,  # nothing here asks who the client is
        access_log=False,
        log_level="error",
        timeout_keep_alive=settings.idle_seconds,
        timeout_graceful_shutdown=settings.drain_seconds,
        timeout_worker_healthcheck=20,  # a worker that loads PyTorch may be silent for some
    )
    host = f"[{address.host}]" if ":" in address.host else address.host
    port = listening.getsockname()[1]
    report(f"Serving {folder} at http://{host}:{port} in a moment; Ctrl-C stops it.")
    if address.workers > 1:
        workers = _Workers(config, [listening])
        workers.run()
        return workers.exit_status
    stopped_by: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises what stopped it again
        signal.signal(number, lambda number, frame: stopped_by.append(number))
    uvicorn.Server(config).run(sockets=[listening])
    return 128 + stopped_by[0] if stopped_by else 1


def load_app(folder: Path, admission: Admission, address: Address) -> App:
    """Load a run and return its application; called in each worker."""
    threads = address.threads
    if threads is None and address.workers > 1:
        threads = max(1, (os.cpu_count() or 1) // address.workers)
    devices.keep_freed_memory()
    devices.use_threads(threads)
    sys.setswitchinterval(SWITCH_INTERVAL)
    run = Run.open(folder)
    return make_app(Service(run, run.predictor(), admission, address.data))


def _bind(host: str, port: int) -> socket.socket:
    """Take an address without listening yet: nobody is to connect before the run is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, or asyncio would not turn Nagle's algorithm off: answers of more than
    # one write would wait 40 ms for the client's acknowledgement.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise AlexNetError(
            f"{host}:{port} cannot be listened at ({error.strerror}).",
            "Choose another --port, or another --host.",
        ) from None
    return bound


def _allow_many_files() -> None:
    """Let the process open as many connections as the system lets it ask for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(65_536, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


class _Workers(Multiprocess):
    """uvicorn's supervisor, which starts a worker again that dies, noting what stopped it."""

    exit_status = 1

    def handle_int(self) -> None:
        """Stop as Ctrl-C asks."""
        self.exit_status = 128 + signal.SIGINT
        super().handle_int()

    def handle_term(self) -> None:
        """Stop as SIGTERM asks."""
        self.exit_status = 128 + signal.SIGTERM
        super().handle_term()
