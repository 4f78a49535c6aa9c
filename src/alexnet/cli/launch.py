"""``alexnet launch``: several processes of one command, started again together when one is lost."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Annotated, Any

from cyclopts import Parameter

from alexnet.cli.common import require_counts
from alexnet.errors import ConfigError, TrainingError

SIGNALLED = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # statuses of a command
READ_SECONDS = 2.0  # in which the parent has read a result, unless it reads no more


def launch(
    *command: Annotated[str, Parameter(allow_leading_hyphen=True)],
    processes: int | None = None,
    nodes: str = "1",
    rendezvous: str | None = None,
    name: str = "alexnet",
    restarts: int = 3,
) -> int:
    """Run a command in several processes that train together; restart all when one is lost.

    Example: `alexnet launch --processes 2 train elpv --towers 2`

    Each restart goes on from the last checkpoint. What torchrun does, it does as well; this sets
    what restarts need to be reliable (docs/scaling.md).

    Parameters
    ----------
    command
        A command of alexnet and its arguments.
    processes
        On each machine; by default as many as it has GPUs, or one.
    nodes
        Machines: a number, or a range such as 2:4 within which some may come and go.
    rendezvous
        HOST:PORT of one of the machines, where all meet; needed for more than one.
    name
        Of the training, where several meet at the same place.
    restarts
        How often to start again.
    """
    require_counts(processes=processes, most=1024)
    require_counts(restarts=restarts, least=0)
    fewest, _, most = nodes.partition(":")
    if not (fewest.isdecimal() and (most or fewest).isdecimal() and int(fewest) > 0):
        raise ConfigError(f"--nodes {nodes!r} is no number of machines.", "Write 2, or 2:4.")
    if nodes != "1" and not rendezvous:
        raise ConfigError("Several machines need a place to meet.", "Give --rendezvous HOST:PORT.")
    if not command:
        raise ConfigError("There is no command to launch.", "Write: alexnet launch train ...")

    from alexnet.device import count_devices

    each = processes or count_devices()
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // each)))
    # Else a restart meets in the store of the processes before it and mostly fails
    # (github.com/pytorch/pytorch/issues/135712).
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"

    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=int(fewest),
        max_nodes=int(most or fewest),
        nproc_per_node=each,
        run_id=name,
        rdzv_backend="c10d",
        rdzv_endpoint=rendezvous or "localhost:0",
        max_restarts=restarts,
    )
    try:
        with _passed_on(signal.SIGUSR1):
            stopped = multiprocessing.get_context("spawn").Value("i", 0)
            statuses = elastic_launch(config, worker)(list(command), stopped, each)
    except SignalException as error:
        return 128 + int(error.sigval)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        raise TrainingError(
            f"Rank {rank} ended with status {failure.exitcode}, after {restarts} restarts.",
            "What it said is above; the same command goes on from the last checkpoint.",
        ) from error
    return max(statuses.values())


def worker(command: list[str], stopped: Any, workers: int) -> int:
    """Run a command in one process of several; what a restart can mend ends the process.

    `stopped` counts the processes of this machine, `workers` in all, that a signal has stopped. A
    process that returns waits until its result is read. A parent that has the signal too reads
    none, and would kill after 30 seconds what has saved long ago.
    """
    from alexnet.cli.main import LOST, mend_streams, run

    mend_streams()
    status = run(command)
    if status == LOST:
        sys.exit(LOST)
    if status in SIGNALLED:
        with stopped.get_lock():
            stopped.value += 1
        threading.Thread(
            target=_end_once_all_stopped, args=(stopped, workers, status), daemon=True
        ).start()
    return status


def _end_once_all_stopped(stopped: Any, workers: int, status: int) -> None:
    """End this process when all have stopped and nobody reads that they have."""
    while stopped.value < workers:
        time.sleep(0.05)
    time.sleep(READ_SECONDS)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@contextlib.contextmanager
def _passed_on(number: signal.Signals) -> Iterator[None]:
    """Pass a signal on to the processes within the block."""
    from multiprocessing import active_children

    def pass_on(received: int, frame: object) -> None:
        for child in active_children():
            if child.pid:
                os.kill(child.pid, received)

    before = signal.signal(number, pass_on)
    try:
        yield
    finally:
        signal.signal(number, before)
