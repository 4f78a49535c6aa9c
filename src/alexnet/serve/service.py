"""What every route works with: the network and its queue, decoding threads, the run's curves."""

import asyncio
import gc
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import count
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
from alexnet.serve.engine import BatchFunction, Engine, Networks
from alexnet.serve.exchange import read_images
from alexnet.serve.gallery import Gallery
from alexnet.serve.images import Photograph
from alexnet.serve.responses import RunCurves
from alexnet.training.checkpoint import checkpoint_folders
from alexnet.training.run import Run, parse_metrics

_T = TypeVar("_T")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
OPTIMISED = 256  # images of units that are kept
ASCENT = 64  # steps in which one is made: some seconds
SIZES = (1, 2, 4, 8, 16, 32, 64)
DISK_SECONDS = 2.0  # that the disk has to answer in
MAX_LINES = 4_000  # in an answer: longer runs are thinned
MAX_ANSWERS = 64  # that are kept until the run goes on
LIVE_SECONDS = 120  # since a run's last line; longer than a validation takes


class Curves:
    """The lines of ``metrics.jsonl``: the last ones, and of those before every n-th.

    So the memory of a run of any length is bounded. Validations (lines with ``val_top1``) are all
    kept. One thread at a time may ask.
    """

    def __init__(self, run: Run) -> None:
        self._path, self._epochs = run.folder / "metrics.jsonl", run.config.recipe.epochs
        self._forget()

    def render(self, after: int = -1) -> bytes:
        """Return the lines past a step, and where the run stands: a `RunCurves` as JSON."""
        self._read()
        key = (after, self._is_live())
        if key not in self._answers:
            if len(self._answers) == MAX_ANSWERS:
                self._answers.clear()
            self._answers[key] = self._select(*key).model_dump_json().encode()
        return self._answers[key]

    def _forget(self) -> None:
        self._inode, self._offset = 0, 0
        self._kept: list[dict[str, Any]] = []  # of the whole run
        self._recent: deque[bytes] = deque(maxlen=MAX_LINES)  # as they were written
        self._every, self._count, self._thinnable = 1, 0, 0
        self._answers: dict[tuple[int, bool], bytes] = {}

    def _read(self) -> None:
        """Take the lines that were written since the last time; all where the file is another."""
        if not self._path.is_file():
            self._forget()
            return
        with self._path.open("rb") as file:
            found = os.fstat(file.fileno())
            if found.st_ino != self._inode or found.st_size < self._offset:
                self._forget()
                self._inode = found.st_ino
            file.seek(self._offset)
            for text in file:
                if not text.endswith(b"\n"):  # it is being written
                    break
                self._offset += len(text)
                self._add(text)

    def _add(self, text: bytes) -> None:
        """Take a line; it is parsed where it is kept, which most of a long run's are not."""
        self._answers.clear()
        self._recent.append(text)
        is_test = b'"val_top1"' in text
        self._count += not is_test
        if not is_test and self._count % self._every:
            return
        if (line := parse_metrics(text)) is not None:
            self._kept.append(line)
            self._thinnable += not is_test
        if self._thinnable > 2 * MAX_LINES:
            self._every *= 2
            number = count()
            self._kept = [x for x in self._kept if "val_top1" in x or next(number) % 2]
            self._thinnable //= 2

    def _select(self, after: int, live: bool) -> RunCurves:
        """Return the lines past a step, thinned where they are many.

        A validation of the very step `after` is among them, since it is written later than the
        step's other line.
        """
        recent = [line for line in map(parse_metrics, self._recent) if line is not None]
        tested = [line for line in self._kept if "val_top1" in line]
        speeds = [x["images_per_second"] for x in recent if "images_per_second" in x]
        reach_back = recent and recent[0]["step"] <= after
        new = [
            line
            for line in (recent if reach_back else self._kept)
            if line["step"] > after or (line["step"] == after and "val_top1" in line)
        ]
        every = -(-len(new) // MAX_LINES) or 1
        return RunCurves(
            lines=[x for n, x in enumerate(new) if n % every == 0 or "val_top1" in x],
            step=recent[-1]["step"] if recent else 0,
            epochs=self._epochs,
            best=max(tested, key=lambda line: line["val_top1"] or 0, default=None),
            images_per_second=speeds[-1] if speeds else None,
            live=live,
        )

    def _is_live(self) -> bool:
        """Whether the run seems to be training: not yet tested, its metrics have just grown."""
        if self._path.with_name("test.json").is_file() or not self._path.is_file():
            return False
        return time.time() - self._path.stat().st_mtime < LIVE_SECONDS


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
