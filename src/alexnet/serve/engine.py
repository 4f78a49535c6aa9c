"""One thread that runs the network, and the bounded queue before it.

Jobs of the same function are run together, so that the cost of a forward is shared: what is there
when the thread is free, up to a batch. It waits for more only while images are being decoded that
will be queued next, and then for a moment.
"""

import contextlib
import math
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
from alexnet.serve.admission import Admission

BatchFunction = Callable[[Tensor], Sequence[Any]]  # images (N, ...) -> N results
MAX_DELAY = 0.02  # seconds that a batch waits at most for images that are being decoded; measured


@dataclass(frozen=True, slots=True)
class _Job:
    function: BatchFunction
    image: Tensor
    cost: int
    result: "Future[Any]"


class Engine:
    """Runs functions over images, batch after batch; `on_batch` is told its images and seconds."""

    def __init__(
        self,
        admission: Admission,
        on_batch: Callable[[int, float], None] = lambda images, seconds: None,
    ) -> None:
        self.admission = admission
        self._batch_size = admission.settings.batch_size
        self._on_batch = on_batch
        self._jobs: deque[_Job] = deque()
        self._expected = 0  # images that are being decoded
        self._busy_since = math.inf  # the monotonic clock when the running batch began
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def expect(self, images: int) -> Iterator[None]:
        """Say that images are being decoded in the block, for which a batch may wait a moment."""
        with self._changed:
            self._expected += images
        try:
            yield
        finally:
            with self._changed:  # nobody is woken: the job that follows does that
                self._expected -= images

    def submit(
        self, function: BatchFunction, images: Sequence[Tensor], cost: int = 1
    ) -> "list[Future[Any]]":
        """Queue a job an image, all or none of them; the futures hold the results.

        Images are of one shape; those of the same function are run together. `cost` is the forwards
        that one takes: 10 for ten views. It is a 503 when the queue has no room for all of them.
        """
        jobs = [_Job(function, image, cost, Future()) for image in images]
        with self._changed:
            self.admission.queue_forwards(cost * len(jobs))
            self._jobs.extend(jobs)
            self._changed.notify()
        return [job.result for job in jobs]

    def is_well(self) -> bool:
        """Whether the thread runs, and no batch takes longer than an answer may."""
        limit = self.admission.settings.request_seconds
        return self._thread.is_alive() and time.monotonic() - self._busy_since < limit

    def close(self, timeout: float | None = None) -> None:
        """Finish what is queued, and end the thread; wait for it for some seconds at most."""
        with self._changed:
            self.admission.is_closing = True
            self._changed.notify()
        self._thread.join(timeout)

    def _run(self) -> None:
        devices.lower_thread_priority()
        # OpenMP, which oneDNN asks, keeps the number of threads for each thread that asks.
        torch.set_num_threads(torch.get_num_threads())
        while batch := self._next_batch():
            wanted = [job for job in batch if job.result.set_running_or_notify_cancel()]
            if not wanted:
                continue
            self._busy_since = start = time.monotonic()
            try:
                results = wanted[0].function(torch.stack([job.image for job in wanted]))
                for job, result in zip(wanted, results, strict=True):
                    job.result.set_result(result)
            except Exception as error:  # the thread goes on; who waits is told
                for job in wanted:
                    if not job.result.done():
                        job.result.set_exception(error)
            self._busy_since = math.inf
            self._on_batch(len(wanted), time.monotonic() - start)

    def _next_batch(self) -> list[_Job]:
        """Wait for jobs; take the first and those of its function, in order. Empty when closed."""
        admission = self.admission
        with self._changed:
            while not self._jobs and not admission.is_closing:
                self._changed.wait()
            if not self._jobs:
                return []
            until = time.monotonic() + MAX_DELAY
            while (
                self._expected
                and admission.forwards < self._batch_size
                and not admission.is_closing
                and self._changed.wait(until - time.monotonic())
            ):
                pass
            first = self._jobs[0]
            batch: list[_Job] = []
            others: list[_Job] = []
            while self._jobs and len(batch) < max(1, self._batch_size // first.cost):
                job = self._jobs.popleft()
                (batch if job.function is first.function else others).append(job)
            admission.forwards -= sum(job.cost for job in batch)
            self._jobs.extendleft(reversed(others))
            return batch
