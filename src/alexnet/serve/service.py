"""What every route works with: the network, its queue, the decoding threads, the run."""

import asyncio
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from torch import Tensor

from alexnet import device as devices
from alexnet.data.prepare import Options, open_or_prepare
from alexnet.data.shards import PreparedData, open_prepared
from alexnet.predictor import Predictor
from alexnet.serve.engine import Engine, Work
from alexnet.serve.gallery import Gallery
from alexnet.serve.measures import Measures
from alexnet.serve.networks import Networks
from alexnet.serve.pictures import Picture, opened
from alexnet.serve.settings import Settings
from alexnet.serve.uploads import uploaded
from alexnet.training.run import Run

LOG = logging.getLogger("alexnet.serve")


@dataclass(slots=True)
class Service:
    """A loaded run and what it is served with."""

    run: Run
    model: Predictor
    settings: Settings
    networks: Networks
    engine: Engine
    decoders: ThreadPoolExecutor
    measures: Measures
    gallery: Gallery

    async def pictures(self, request: Request) -> list[Picture]:
        """Return the decoded images of a request, in order.

        Raises
        ------
        Refusal
            When one of them is refused.
        """
        files = await uploaded(request, self.settings.max_images)
        prepared, most = self.model.resize_to, self.settings.max_pixels
        with self.engine.expecting(len(files)):
            decoded = (self.aside(opened, file, prepared, most) for file in files)
            return await asyncio.gather(*decoded)

    async def picture(self, request: Request) -> Picture:
        """Return the decoded image of a request that has one."""
        pictures = await self.pictures(request)
        return pictures[0]

    async def ask(self, work: Work, images: Sequence[Tensor], cost: int = 1) -> list[Any]:
        """Return the results of a work on images, run with those of other requests."""
        futures = self.engine.submit(work, images, cost)
        return await asyncio.gather(*map(asyncio.wrap_future, futures))

    async def aside(self, function: Any, *arguments: Any) -> Any:
        """Run what takes the processor for long, and no network, in a decoding thread."""
        return await asyncio.get_running_loop().run_in_executor(self.decoders, function, *arguments)

    def close(self) -> None:
        """End the threads, when what is queued is done."""
        self.gallery.close()
        self.engine.close()
        self.decoders.shutdown()


def make_service(
    run: Run, model: Predictor, settings: Settings, data: str | None = None
) -> Service:
    """Put the parts together; threads start.

    Parameters
    ----------
    run, model, settings
        What is served, and its limits.
    data : str
        Training images to look at; by default those that the run was trained on.
    """
    measures = Measures()
    engine = Engine(settings.batch_size, settings.max_waiting, measures.ran)
    measures.gauge(
        "alexnet_waiting_images", "Views of images in the queue.", lambda: engine.waiting
    )
    networks = Networks(model)

    def find() -> PreparedData:
        if data is None:
            return open_prepared(run.config.data)
        return open_or_prepare(data, Options(size=model.resize_to), seed=run.config.recipe.seed)

    gallery = Gallery(networks, engine, settings.training_images, find)
    gallery.start()
    if settings.compile:
        threading.Thread(target=_compile, args=[networks], name="compiler", daemon=True).start()
    measures.gauge("alexnet_looking", "Whether training images are looked at.", gallery.is_looking)
    measures.gauge("alexnet_compiled", "Whether the network is compiled.", lambda: networks.fast)
    decoders = ThreadPoolExecutor(settings.decoders, "decoder", initializer=devices.give_way)
    return Service(run, model, settings, networks, engine, decoders, measures, gallery)


def _compile(networks: Networks) -> None:
    if complaint := networks.compile():
        LOG.warning(complaint)
