"""Processes that do the same work, and one that starts them again when they die."""

import os
import signal
import time
import traceback
from collections.abc import Callable

WAITED_FOR = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
RESTART_SECONDS = 0.5  # before a worker takes the place of one that died, perhaps at its start


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
