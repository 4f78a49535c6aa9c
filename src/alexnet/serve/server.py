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
from alexnet.serve.app import make_app
from alexnet.serve.gate import App
from alexnet.serve.service import make_service
from alexnet.serve.settings import Settings
from alexnet.serve.wire import Wire
from alexnet.training.run import Run

SWITCH = (
    0.001  # seconds that a thread keeps Python while another waits, not 0.005: refusals are soon
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where and how a server listens."""

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    threads: int | None = None  # of each worker; by default its share of the processors
    data: str | None = None  # training images to look at; by default the run's own

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigError(f"--workers is {self.workers}.", "It must be at least 1.")
        if not 0 <= self.port < 65536:
            raise ConfigError(f"--port is {self.port}.", "It must be 0 to 65535.")


def serve(
    folder: Path, settings: Settings, address: Address, say: Callable[[str], None] = print
) -> int:
    """Serve a run until a signal stops it.

    Parameters
    ----------
    folder : Path
        The run's.
    settings : Settings
        The limits.
    address : Address
        Where to listen.
    say : callable
        Told where the server is to be found.

    Returns
    -------
    int
        The exit status: 128 and the number of the signal.

    Raises
    ------
    AlexNetError
        When the run cannot be loaded, or the address cannot be listened at.
    """
    run = Run.open(folder)
    if address.workers > 1:
        run.weights()  # before processes are started that would fail on it, again and again
    listening = bound(address.host, address.port)
    allow_many_files()
    config = uvicorn.Config(
        partial(loaded_app, folder, settings, address),
        factory=True,
        workers=address.workers,
        http=partial(Wire, settings, {}),  # type: ignore[arg-type]
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
    where = f"http://{host}:{listening.getsockname()[1]}"
    say(f"Serving {folder} at {where} in a moment; Ctrl-C stops it.")
    stopped: list[int] = []
    if address.workers > 1:
        Workers(config, [listening], stopped).run()
    else:
        for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises what stopped it again
            signal.signal(number, lambda number, frame: stopped.append(number))
        uvicorn.Server(config).run(sockets=[listening])
    return 128 + stopped[0] if stopped else 1


def loaded_app(folder: Path, settings: Settings, address: Address) -> App:
    """Load a run and return its application; called in each worker."""
    devices.keep_freed_memory()
    devices.use_threads(threads_each(address))
    sys.setswitchinterval(SWITCH)
    run = Run.open(folder)
    return make_app(make_service(run, run.predictor(), settings, address.data))


def threads_each(address: Address) -> int | None:
    """Return the threads of a worker: as asked, or an equal share where there are several."""
    if address.threads is None and address.workers > 1:
        return max(1, (os.cpu_count() or 1) // address.workers)
    return address.threads


def bound(host: str, port: int) -> socket.socket:
    """Take an address without listening yet: nobody is to connect before the run is loaded.

    Raises
    ------
    AlexNetError
        When it is taken, or none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, or asyncio would not turn Nagle's algorithm off: answers of more than
    # one write would wait 40 ms for the client's acknowledgement.
    taken = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, port))
    except OSError as error:
        taken.close()
        raise AlexNetError(
            f"{host}:{port} cannot be listened at ({error.strerror}).",
            "Choose another --port, or another --host.",
        ) from None
    return taken


def allow_many_files() -> None:
    """Let the process open as many connections as the system lets it ask for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(65_536, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


class Workers(Multiprocess):
    """uvicorn's supervisor, which starts a worker again that dies, noting what stopped it."""

    def __init__(
        self, config: uvicorn.Config, sockets: list[socket.socket], stopped: list[int]
    ) -> None:
        super().__init__(config, sockets)
        self._stopped = stopped

    def handle_int(self) -> None:
        """Stop as Ctrl-C asks."""
        self._stopped.append(signal.SIGINT)
        super().handle_int()

    def handle_term(self) -> None:
        """Stop as SIGTERM asks."""
        self._stopped.append(signal.SIGTERM)
        super().handle_term()
