"""What every route works with: the network and its queue, the decoding threads, the run."""

import asyncio
import gc
import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
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
from alexnet.data.prepare import Options, open_or_prepare
from alexnet.data.shards import PreparedData, open_prepared
from alexnet.explain.optimise import Ascent, Optimised, raise_unit
from alexnet.predictor import Predictor
from alexnet.serve.admission import LOG, Admission, Answered, require_ready
from alexnet.serve.curves import Curves
from alexnet.serve.engine import BatchFunction, Engine
from alexnet.serve.exchange import read_images
from alexnet.serve.gallery import Gallery
from alexnet.serve.images import Photograph
from alexnet.serve.networks import Networks
from alexnet.training.checkpoint import checkpoint_folders
from alexnet.training.run import Run

_T = TypeVar("_T")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
OPTIMISED = 256  # images of units that are kept
ASCENT = 64  # steps in which one is made: some seconds
SIZES = (1, 2, 4, 8, 16, 32, 64)
DISK_SECONDS = 2.0  # that the disk has to answer in


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

    def count_request(self, answered: Answered) -> None:
        """Count a request."""
        self._requests.labels(answered.route, str(answered.status)).inc()
        self._seconds.labels(answered.route).observe(answered.seconds)

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


@dataclass(frozen=True, slots=True)
class Model:
    """A checkpoint as it is served: a request has the same one from its beginning to its end."""

    networks: Networks
    gallery: Gallery
    optimise: Callable[[str, int], Optimised]  # the image that excites a unit of a layer most

    @property
    def predictor(self) -> Predictor:
        """The network with its preprocessing."""
        return self.networks.predictor


class Service:
    """A loaded run and what it is served with; threads start.

    `admission` has the limits, and is told here to count what is answered. `data` names training
    images to search, by default the run's. `log` is told of each request in a line of JSON.
    """

    def __init__(
        self,
        run: Run,
        networks: Networks,
        admission: Admission,
        data: str | None = None,
        log: Callable[[str], None] | None = None,
    ) -> None:
        settings = admission.settings
        self.run, self.admission, self._data, self._log = run, admission, data, log
        self.curves = Curves(run)
        self.metrics = ServerMetrics()
        admission.on_answer = self._note
        self.engine = Engine(admission, self.metrics.count_batch)
        self._optimising = threading.Lock()
        self.model = self._make_model(networks)
        low = devices.lower_thread_priority
        self._decoders = ThreadPoolExecutor(settings.decoders, "decoder", initializer=low)
        self._readers = ThreadPoolExecutor(1, "reader", initializer=low)
        self._optimiser = ThreadPoolExecutor(1, "optimiser", initializer=low)
        self._busy_since: dict[int, float] = {}  # by thread, the monotonic clock
        self._readers.submit(self.curves.render)  # a long run is read before it is asked for
        self._stop = threading.Event()
        if settings.compile:
            threading.Thread(target=self._compile, name="compiler", daemon=True).start()
        if settings.follow_seconds:
            threading.Thread(target=self._follow, name="follower", daemon=True).start()
        for name, text, value in (
            ("waiting_images", "Views of images in the queue.", lambda: admission.forwards),
            ("answering", "Requests with a body that are being answered.",
             lambda: admission.requests),
            ("answer_bytes", "Bytes of answers being read.", lambda: admission.answer_bytes),
            ("looking", "Whether training images are looked at.",
             lambda: self.model.gallery.is_running()),
            ("compiled", "Whether the network is compiled.",
             lambda: self.model.networks.is_compiled),
            ("checkpoint_step", "Of the checkpoint that is served.",
             lambda: self.model.predictor.step),
        ):  # fmt: skip
            self.metrics.add_gauge(f"alexnet_{name}", text, value)

    async def read_photographs(self, request: Request) -> list[Photograph]:
        """Return the decoded images of a request, in order; one that is refused is an error."""
        settings = self.admission.settings
        files = await read_images(request, settings.max_images)
        size, most = self.model.predictor.resize_to, settings.max_pixels
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
        return await self._run_in(self._decoders, function, *arguments)

    async def read(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Run what a question without an image takes, where no image waits behind it."""
        return await self._run_in(self._readers, function, *arguments)

    async def optimise(self, model: Model, layer: str, unit: int) -> Optimised:
        """Return the image that excites a unit most; 503 while another one is being made."""
        free = self._optimising.acquire(blocking=False) or None
        require_ready(free, "The image of another unit is being made.", 3)
        try:  # in a thread of its own, which nothing else waits for
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._optimiser, model.optimise, layer, unit)
        finally:
            self._optimising.release()

    async def find_fault(self) -> str:
        """Return what is not well: the network's thread, those that decode, or the disk."""
        if not self.engine.is_well():
            return "The network does not answer."
        oldest = min(list(self._busy_since.values()), default=time.monotonic())
        if time.monotonic() - oldest > self.admission.settings.request_seconds:
            return "The threads that decode images do not answer."
        try:
            config = self.run.folder / "config.json"
            await asyncio.wait_for(self.read(config.read_bytes), DISK_SECONDS)
        except (OSError, TimeoutError):
            return "The run's folder cannot be read."
        return ""

    def _optimise(self, predictor: Predictor, layer: str, unit: int) -> Optimised:
        ascent = Ascent(predictor, self.run.load_statistics(), layer, steps=ASCENT)
        return ascent.run(raise_unit(unit))

    def close(self) -> None:
        """Finish what is queued, but wait for nothing that may take long."""
        self._stop.set()
        self.model.gallery.close()
        self.engine.close(timeout=1)
        for pool in (self._decoders, self._readers, self._optimiser):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _run_in(self, pool: Executor, function: Callable[..., _T], *arguments: Any) -> _T:
        def run() -> _T:
            thread = threading.get_ident()
            self._busy_since[thread] = time.monotonic()
            try:
                return function(*arguments)
            finally:
                del self._busy_since[thread]

        return await asyncio.get_running_loop().run_in_executor(pool, run)

    def _note(self, answered: Answered) -> None:
        self.metrics.count_request(answered)
        if self._log is not None:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self._log(json.dumps({"time": now, **asdict(answered)}))

    def _make_model(self, networks: Networks) -> Model:
        def open_data() -> PreparedData:
            config = self.run.config
            if self._data is None:
                return open_prepared(config.data)
            options = Options(size=networks.predictor.resize_to)
            return open_or_prepare(self._data, options, seed=config.recipe.seed)

        count = self.admission.settings.training_images
        return Model(
            networks,
            Gallery(networks, self.engine, count, open_data),
            lru_cache(OPTIMISED)(partial(self._optimise, networks.predictor)),
        )

    def _compile(self) -> None:
        if complaint := self.model.networks.compile():
            LOG.warning(complaint)

    def _follow(self) -> None:
        """Serve each newer checkpoint; requests in hand are answered by the one they began with."""
        devices.lower_thread_priority()
        tried = None
        while not self._stop.wait(self.admission.settings.follow_seconds):
            gc.collect()  # the network before this one: its functions and their cache are a cycle
            newest = checkpoint_folders(self.run.checkpoints)[-1:]
            if newest == tried:
                continue
            tried = newest
            try:
                networks = load_networks(self.run, newer_than=self.model.predictor.step)
            except Exception:  # of a thread that nobody waits for; the next one may be whole
                LOG.exception("The newest checkpoint cannot be served.")
                continue
            if networks is not None:
                self.model.gallery.close()
                self.model = self._make_model(networks)
                if self.admission.settings.compile:
                    self._compile()


def load_networks(run: Run, newer_than: int = -1) -> Networks | None:
    """Return the newest whole checkpoint of a run, nothing where it is not newer than a step."""
    found = run.load_weights()
    if found.step <= newer_than:
        return None
    return Networks(run.config.predictor(found, run.load_statistics()))
