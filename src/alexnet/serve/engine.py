"""One thread that runs the network, and the bounded queue before it.

Jobs that ask for the same work are run together, so that the cost of a forward is shared: what is
there when the thread is free, up to a batch. It waits for company only while images are being
decoded that will ask next, and then for a moment.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alexnet import device as devices
from alexnet.serve.refusals import busy

Work = Callable[[Tensor], Sequence[Any]]  # images (N, ...) -> N results
PATIENCE = 0.02  # seconds that a batch waits at most for images that are being decoded; measured


@dataclass(frozen=True, slots=True)
class _Job:
    work: Work
    image: Tensor
    cost: int
    result: "Future[Any]"


class Engine:
    """Runs works over images, batch after batch.

    Parameters
    ----------
    batch_size : int
        Forwards of an image in one batch, at most.
    max_waiting : int
        Forwards that may wait; past it `submit` refuses.
    ran : callable
        Told of each batch: its images, and the seconds it took.
    """

    def __init__(
        self,
        batch_size: int,
        max_waiting: int,
        ran: Callable[[int, float], None] = lambda images, seconds: None,
    ) -> None:
        self._batch_size = batch_size
        self._max_waiting = max_waiting
        self._ran = ran
        self._jobs: deque[_Job] = deque()
        self._waiting = 0
        self._coming = 0
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Forwards that wait."""
        return self._waiting

    @contextlib.contextmanager
    def expecting(self, images: int) -> Iterator[None]:
        """Say that images are being decoded in the block, for which a batch may wait a moment."""
        with self._changed:
            self._coming += images
        try:
            yield
        finally:
            with self._changed:  # nobody is woken: the job that follows does that
                self._coming -= images

    def submit(self, work: Work, images: Sequence[Tensor], cost: int = 1) -> "list[Future[Any]]":
        """Queue a job an image, all or none of them; the futures hold the results.

        Parameters
        ----------
        work : callable
            What is done; images of the same one are run together.
        images : sequence of Tensor
            Of one shape.
        cost : int
            Forwards that an image takes: 10 for ten views.

        Raises
        ------
        Refusal
            503 when the queue has no room for all of them; when it is empty, it always has.
        """
        jobs = [_Job(work, image, cost, Future()) for image in images]
        with self._changed:
            waiting = self._waiting + cost * len(jobs)
            if self._closed or (self._jobs and waiting > self._max_waiting):
                raise busy("The server has as many images waiting as it can answer in time.")
            self._jobs.extend(jobs)
            self._waiting = waiting
            self._changed.notify()
        return [job.result for job in jobs]

    def close(self) -> None:
        """Finish what is queued, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        devices.give_way()
        # OpenMP, which oneDNN asks, keeps the number of threads for each thread that asks.
        torch.set_num_threads(torch.get_num_threads())
        while batch := self._next():
            wanted = [job for job in batch if job.result.set_running_or_notify_cancel()]
            if not wanted:
                continue
            start = time.perf_counter()
            try:
                results = wanted[0].work(torch.stack([job.image for job in wanted]))
                for job, result in zip(wanted, results, strict=True):
                    job.result.set_result(result)
            except Exception as error:  # the thread goes on; who waits is told
                for job in wanted:
                    if not job.result.done():
                        job.result.set_exception(error)
            self._ran(len(wanted), time.perf_counter() - start)

    def _next(self) -> list[_Job]:
        """Wait for jobs; take the first and those of its work, in order. Empty when closed."""
        with self._changed:
            while not self._jobs and not self._closed:
                self._changed.wait()
            if not self._jobs:
                return []
            until = time.monotonic() + PATIENCE
            while self._coming and self._waiting < self._batch_size and not self._closed:
                if not self._changed.wait(until - time.monotonic()):
                    break
            work = self._jobs[0].work
            batch: list[_Job] = []
            others: list[_Job] = []
            most = max(1, self._batch_size // self._jobs[0].cost)
            while self._jobs and len(batch) < most:
                job = self._jobs.popleft()
                (batch if job.work is work else others).append(job)
            self._waiting -= sum(job.cost for job in batch)
            self._jobs.extendleft(reversed(others))
            return batch
