"""What every route works with: the network and its queue, the decoding threads, the run."""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from starlette.requests import Request
from torch import Tensor

from alexnet import device as devices
from alexnet.data.imagenet import describe_classes
from alexnet.data.prepare import Options, open_or_prepare
from alexnet.data.shards import PreparedData, open_prepared
from alexnet.predictor import Predictor
from alexnet.serve.admission import Admission, read_images
from alexnet.serve.engine import BatchFunction, Engine
from alexnet.serve.gallery import Gallery
from alexnet.serve.images import Photograph
from alexnet.serve.networks import Networks
from alexnet.training.run import Run

_T = TypeVar("_T")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SIZES = (1, 2, 4, 8, 16, 32, 64)
_LOG = logging.getLogger("alexnet.serve")


class ServerMetrics:
    """The counters of a process, for Prometheus: with several workers each has its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "alexnet_requests", "Requests answered.", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "alexnet_request_seconds", "From the first header to the last byte of the answer.",
            ["route"], buckets=SECONDS, registry=self._registry,
        )  # fmt: skip
        self._batches = Histogram(
            "alexnet_batch_images", "Images run together.", buckets=SIZES, registry=self._registry
        )
        self._forward = Counter(
            "alexnet_forward_seconds", "Time that the network ran.", registry=self._registry
        )

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Count a request; 499 where the client went away."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_batch(self, images: int, seconds: float) -> None:
        """Count a batch."""
        self._batches.observe(images)
        self._forward.inc(seconds)

    def add_gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add a number that is looked up when it is asked for."""
        Gauge(name, text, registry=self._registry).set_function(value)

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)


class Service:
    """A loaded run and what it is served with; threads start.

    `data` names training images to search; by default they are those of the run.
    """

    def __init__(
        self, run: Run, predictor: Predictor, admission: Admission, data: str | None = None
    ) -> None:
        settings = admission.settings
        self.run, self.predictor, self.admission = run, predictor, admission
        self.class_names = describe_classes(predictor.classes)
        self.metrics = ServerMetrics()
        self.networks = Networks(predictor)
        self.engine = Engine(admission, self.metrics.count_batch)

        def open_data() -> PreparedData:
            if data is None:
                return open_prepared(run.config.data)
            options = Options(size=predictor.resize_to)
            return open_or_prepare(data, options, seed=run.config.recipe.seed)

        self.gallery = Gallery(self.networks, self.engine, settings.training_images, open_data)
        self.decoders = ThreadPoolExecutor(
            settings.decoders, "decoder", initializer=devices.lower_thread_priority
        )
        if settings.compile:
            threading.Thread(target=self._compile, name="compiler", daemon=True).start()
        for name, text, value in (
            ("waiting_images", "Views of images in the queue.", lambda: admission.forwards),
            ("answering", "Requests with a body that are being answered.",
             lambda: admission.requests),
            ("looking", "Whether training images are looked at.", self.gallery.is_running),
            ("compiled", "Whether the network is compiled.", lambda: self.networks.is_compiled),
        ):  # fmt: skip
            self.metrics.add_gauge(f"alexnet_{name}", text, value)

    async def read_photographs(self, request: Request) -> list[Photograph]:
        """Return the decoded images of a request, in order.

        Raises
        ------
        HTTPError, ImageError
            When one of them is refused.
        """
        settings = self.admission.settings
        files = await read_images(request, settings.max_images)
        size, most = self.predictor.resize_to, settings.max_pixels
        with self.engine.expect(len(files)):
            decoded = (self.run_aside(Photograph.decode, file, size, most) for file in files)
            return await asyncio.gather(*decoded)

    async def run_network(
        self, function: BatchFunction, images: Sequence[Tensor], cost: int = 1
    ) -> list[Any]:
        """Return the results of a function on images, run with those of other requests."""
        futures = self.engine.submit(function, images, cost)
        return await asyncio.gather(*map(asyncio.wrap_future, futures))

    async def run_aside(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Run what takes the processor for long, and no network, in a decoding thread."""
        return await asyncio.get_running_loop().run_in_executor(self.decoders, function, *arguments)

    def close(self) -> None:
        """End the threads, when what is queued is done."""
        self.gallery.close()
        self.engine.close()
        self.decoders.shutdown()

    def _compile(self) -> None:
        if complaint := self.networks.compile():
            _LOG.warning(complaint)
