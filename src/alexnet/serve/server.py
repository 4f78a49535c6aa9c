"""The processes that serve a run, and the one that starts them again when they die."""

import logging
import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import uvicorn

from alexnet import device as devices
from alexnet.errors import AlexNetError, ConfigError
from alexnet.serve.admission import Admission, ServerSettings
from alexnet.serve.app import make_app
from alexnet.serve.engine import Networks
from alexnet.serve.protocol import HTTPProtocol
from alexnet.serve.service import Service, load_networks
from alexnet.training.checkpoint import checkpoint_folders
from alexnet.training.run import Run

SWITCH_INTERVAL = 0.001  # seconds that a thread keeps Python while another waits, not 0.005
ACCEPTED_AT_ONCE = 16  # connections; 2,000 that come together would keep all others waiting
BACKLOG = 2048  # connections that the system keeps until they are accepted
SEND_BUFFER = 64 << 10  # bytes of an answer that the system holds for who does not read
WAITED_FOR = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
RESTART_SECONDS = 0.5  # before a worker takes the place of one that died, perhaps at its start


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where and how a server listens."""

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    threads: int | None = None  # of each worker; by default its share of the processors
    data: str | None = None  # training images to search; by default the run's own
    log_json: bool = False  # a line of JSON for each request

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigError(f"--workers is {self.workers}.", "It must be at least 1.")
        if not 0 <= self.port < 65536:
            raise ConfigError(f"--port is {self.port}.", "It must be 0 to 65535.")


def serve(
    folder: Path, settings: ServerSettings, address: Address, report: Callable[[str], None] = print
) -> NoReturn:
    """Serve a run until a signal stops it; the process ends with 128 and the signal's number.

    `report` is told where the server is to be found; and of each request, where that was asked for.
    A run that cannot be loaded, or an address that cannot be listened at, is an `AlexNetError`.
    """
    run = Run.open(folder)
    listening = _bind(address.host, address.port)
    _allow_many_files()
    devices.keep_freed_memory()
    sys.setswitchinterval(SWITCH_INTERVAL)
    host = f"[{address.host}]" if ":" in address.host else address.host
    port = listening.getsockname()[1]
    report(f"Serving {folder} at http://{host}:{port} in a moment; Ctrl-C stops it.")
    log = report if address.log_json else None
    if address.workers == 1:
        devices.use_threads(address.threads)
        networks = _load(run, settings)
        status = _answer(Service(run, networks, Admission(settings), address.data, log), listening)
    else:
        status = _serve_by_workers(run, settings, address, listening, log)
    # What still runs in the background, as the preparation of data, is given up: it can be begun
    # again, and the interpreter would wait for it.
    sys.stdout.flush()
    os._exit(status)


def _serve_by_workers(
    run: Run,
    settings: ServerSettings,
    address: Address,
    listening: socket.socket,
    log: Callable[[str], None] | None,
) -> int:
    """Load the run once and fork: on a processor all workers have the same weights in memory.

    A GPU cannot be used on both sides of a fork, so there each worker loads them.
    """
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # a look at it that does no harm
    devices.use_threads(1)  # threads would be lost in the fork, and waited for
    shared = _load(run, settings) if devices.Device.best().is_cpu else None
    threads = address.threads or max(1, (os.cpu_count() or 1) // address.workers)
    parent = os.getpid()
    # Together they hold, and run, what one does.
    settings = replace(settings, batch_size=max(1, settings.batch_size // address.workers))

    def work() -> int:
        devices.use_threads(threads)
        networks = shared or _load(run, settings)
        service = Service(run, networks, Admission(settings), address.data, log)
        return _answer(service, listening, parent)

    return supervise(work, address.workers, settings.drain_seconds)


def _load(run: Run, settings: ServerSettings) -> Networks:
    """Load the newest checkpoint; of a run that is followed, wait for the first."""
    while settings.follow_seconds and not checkpoint_folders(run.checkpoints):
        time.sleep(settings.follow_seconds)
    networks = load_networks(run)
    assert networks is not None  # every step is newer than none
    return networks


def _answer(service: Service, listening: socket.socket, parent: int | None = None) -> int:
    """Answer until a signal, or the end of a parent, stops it; return the exit status."""
    settings = service.admission.settings
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # a line for each odd form
    config = uvicorn.Config(
        make_app(service),
        http=partial(HTTPProtocol, service.admission),  # type: ignore[arg-type]
        ws="none",
        server_header=False,
        proxy_headers=False,  # nothing here asks who the client is
        access_log=False,
        log_level="critical",  # what failed is logged here, with the request's id
        backlog=ACCEPTED_AT_ONCE,
        timeout_keep_alive=settings.idle_seconds,
        timeout_graceful_shutdown=max(1, settings.drain_seconds - 2),  # and 2 s to end
    )
    stopped_by: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises what stopped it again
        signal.signal(number, lambda number, frame: stopped_by.append(number))
    _Server(config, parent).run(sockets=[listening])
    return 128 + stopped_by[0] if stopped_by else 1


class _Server(uvicorn.Server):
    """uvicorn's server, which ends with its parent and takes new connections a few at a time."""

    def __init__(self, config: uvicorn.Config, parent: int | None) -> None:
        super().__init__(config)
        self._parent = parent

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; asyncio takes the backlog for what it accepts before it does anything else."""
        await super().startup(sockets)
        for one in sockets or ():
            one.listen(BACKLOG)

    async def on_tick(self, counter: int) -> bool:
        """Return whether to stop."""
        return await super().on_tick(counter) or self._parent not in (None, os.getppid())


def _bind(host: str, port: int) -> socket.socket:
    """Take an address without listening yet: nobody is to connect before the run is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, or asyncio would not turn Nagle's algorithm off: answers of more than
    # one write would wait 40 ms for the client's acknowledgement.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)  # of each connection
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


def supervise(work: Callable[[], int], count: int, drain_seconds: float) -> int:
    """Keep forked workers at work until SIGTERM or SIGINT; return 128 and the signal's number.

    A worker's status is what `work` returns. It is to end at SIGTERM; one that takes longer than
    `drain_seconds` is killed.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, WAITED_FOR)
    workers = {_start(work) for _ in range(count)}
    while (number := signal.sigwait(WAITED_FOR)) == signal.SIGCHLD:
        _reap(workers)
        if len(workers) < count:
            time.sleep(RESTART_SECONDS)
            workers |= {_start(work) for _ in range(count - len(workers))}
    until = time.monotonic() + drain_seconds
    for worker in workers:
        os.kill(worker, signal.SIGTERM)
    while workers and (left := until - time.monotonic()) > 0:
        signal.sigtimedwait([signal.SIGCHLD], left)
        _reap(workers)
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    return 128 + number


def _start(work: Callable[[], int]) -> int:
    """Fork a worker; return its process id."""
    worker = os.fork()
    if worker:
        return worker
    status = 1
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WAITED_FOR)
        status = work()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _reap(workers: set[int]) -> None:
    """Forget the workers that have ended."""
    while workers and (ended := os.waitpid(-1, os.WNOHANG)[0]):
        workers.discard(ended)
