"""Processes that do the same work, and one that starts them again when they die."""

import os
import signal
import time
import traceback
from collections.abc import Callable

WAITED_FOR = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
YOUNG = 5.0  # seconds: a worker that dies sooner is replaced after a pause


def supervise(work: Callable[[], int], count: int, drain_seconds: float) -> int:
    """Fork `count` workers, and others for those that die, until SIGTERM or SIGINT ends all.

    Parameters
    ----------
    work : callable
        What a worker does; it returns the worker's exit status, and ends at SIGTERM.
    count : int
        Workers.
    drain_seconds : float
        That the workers have for what they have in hand; those that take longer are killed.

    Returns
    -------
    int
        128 and the signal's number.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, WAITED_FOR)
    workers: dict[int, float] = {}  # when each was born, by process id
    while True:
        while len(workers) < count:
            workers[_start(work)] = time.monotonic()
        number = signal.sigwait(WAITED_FOR)
        if number != signal.SIGCHLD:
            break
        if any(time.monotonic() - born < YOUNG for born in _reap(workers)):
            time.sleep(1)
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


def _reap(workers: dict[int, float]) -> list[float]:
    """Forget the workers that have ended; return when they were born."""
    ended = []
    while workers:
        worker, _ = os.waitpid(-1, os.WNOHANG)
        if not worker:
            break
        ended.append(workers.pop(worker, 0.0))
    return ended
