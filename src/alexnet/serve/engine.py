"""The run's network as functions of batches of images, and the one thread that runs them.

Jobs wait in a bounded queue, and those of the same function are run together, so that the cost of a
forward is shared: what is there when the thread is free, up to a batch. It waits for more only
while images are being decoded that will be queued next, and then for a moment.
"""

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet import device as devices
from alexnet.data.imagenet import describe_classes
from alexnet.errors import did_you_mean
from alexnet.explain.attribution import attribute, make_question
from alexnet.features import layer_shapes, receptive_field
from alexnet.predictor import Predictor, Switches
from alexnet.serve.admission import Admission, HTTPError

BatchFunction = Callable[[Tensor], Sequence[Any]]  # images (N, ...) -> N results
MAX_DELAY = 0.02  # seconds that a batch waits at most for images that are being decoded; measured
WARM_UP = (7, 2, 32)  # batches that the compiler sees; a round number first would become a rule
CELLS = 46  # along a side of an explanation: of 5 pixels each in views of 227
KEPT = 64  # functions: a request may name any of a million sets of layers


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


class Networks:
    """A predictor as batch functions, and what its network consists of.

    The functions of `probabilities`, `activations` and `attributions` are the same for the same
    arguments, so that the engine runs requests together that ask for the same.
    """

    def __init__(self, predictor: Predictor) -> None:
        predictor.network.to(predictor.dtype)  # the weights are held once
        self.predictor = predictor
        self.class_names = describe_classes(predictor.classes)  # as people read them
        self.shapes = layer_shapes(predictor.spec)  # of every named output, first to last
        self.fields = {name: receptive_field(predictor.spec, name) for name in self.shapes}
        mean = predictor.normalise.mean.mean((0, 2, 3)) / predictor.normalise.scale
        # Of the training images, (3,) uint8 RGB: what is nothing special.
        self.mean_colour = mean.round().clamp(0, 255).to(torch.uint8).cpu()
        self.probabilities = lru_cache(KEPT)(self._probabilities)
        self.activations = lru_cache(KEPT)(self._activations)
        self.attributions = lru_cache(KEPT)(self._attributions)
        self._compiled: Predictor | None = None
        # Kernels are built at the first call on a machine: no request is to wait for a compiler.
        # Two images are run by others than one is.
        for images in (1, 2):
            self.predictor.probabilities(self._black(images))

    @property
    def is_compiled(self) -> bool:
        """Whether batches are run by the compiled network by now."""
        return self._compiled is not None

    def check(self, layer: str, unit: int = 0) -> None:
        """See that there is an output of that name, and a unit of that number; else 404."""
        if layer not in self.shapes:
            fix = did_you_mean(layer, self.shapes)
            raise HTTPError(404, f"No layer is called {layer!r}.", fix)
        units = self.shapes[layer][0]
        if not 0 <= unit < units:
            raise HTTPError(404, f"{layer} has no unit {unit}.", f"Its units are 0 to {units - 1}.")

    def get_filters(self, layer: str) -> tuple[Tensor, bool]:
        """Return a convolution's weights, and whether they are of the three colours of pixels.

        The weights are ``(filters, channels, k, k)`` float32, colours in the order of RGB; 404
        where the layer is no convolution with shared weights.
        """
        self.check(layer)
        network, spec = self.predictor.network, self.predictor.spec
        found = network.get_submodule(layer)
        if not isinstance(found, nn.Conv2d):
            known = [n for n, x in network.named_children() if isinstance(x, nn.Conv2d)]
            raise HTTPError(404, f"{layer} has no filters to draw.", did_you_mean(layer, known))
        weight = found.weight.detach().float().cpu()
        is_coloured = weight.shape[1] == spec.in_channels == 3
        is_bgr = is_coloured and self.predictor.normalise.bgr
        return weight.flip(1) if is_bgr else weight, is_coloured

    def compile(self) -> str:
        """Compile the network, for batches of any size; return why it is not, or nothing.

        It takes some seconds to a minute, while the plain form answers.
        """
        predictor = self.predictor
        if not predictor.device.gains_by_compiling(predictor.dtype):
            return ""
        works, complaint = predictor.device.can_compile()
        if works:
            compiled = torch.compile(predictor.fast_network, dynamic=True)
            try:
                with torch.inference_mode():
                    for images in WARM_UP:
                        pixels = predictor.centre_crops(self._black(images))
                        torch._dynamo.mark_dynamic(pixels, 0)
                        compiled(pixels)
            except Exception as error:  # whatever the tool chain raises
                return f"The network could not be compiled ({type(error).__name__})."
            self._compiled = replace(predictor, forward=compiled)
        return complaint

    def _black(self, images: int) -> Tensor:
        side = self.predictor.resize_to
        return torch.zeros((images, side, side, 3), dtype=torch.uint8)

    def _probabilities(self, switches: Switches, views: int) -> Callable[[Tensor], list[Tensor]]:
        """Return the function from images to class probabilities, ``(classes,)`` float32 each."""
        as_trained = switches.lrn and switches.dropout_scale

        def run(images: Tensor) -> list[Tensor]:
            compiled = self._compiled if as_trained and len(images) > 1 else None
            predictor = compiled or self.predictor
            return list(predictor.probabilities(images, views, switches).cpu().unbind())

        return run

    def _activations(
        self, switches: Switches, names: tuple[str, ...]
    ) -> Callable[[Tensor], list[dict[str, Tensor]]]:
        """Return the function from images to the named outputs of the centre view, float32 each."""

        def run(images: Tensor) -> list[dict[str, Tensor]]:
            found = self.predictor.activations(images, names, switches)
            return [{name: found[name][i] for name in names} for i in range(len(images))]

        return run

    def _attributions(
        self, switches: Switches, method: str, target: int
    ) -> Callable[[Tensor], list[Tensor]]:
        """Return the function from images to how their pixels speak for a class, as cells.

        ``(cells, cells)`` float32 each, at most `CELLS`: the mean of the pixels of each.
        """

        def run(images: Tensor) -> list[Tensor]:
            found = []
            for image in images:
                question = make_question(self.predictor, image, target, switches=switches)
                whole = torch.from_numpy(attribute(self.predictor, question, method))
                size = -(-len(whole) // CELLS)
                found.append(F.avg_pool2d(whole[None], size, ceil_mode=True)[0])
            return found

        return run
