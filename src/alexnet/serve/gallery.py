"""What the network made of its training images: found out in the background, kept in memory."""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alexnet.data.decode import encode_jpeg
from alexnet.data.shards import PreparedData, Split
from alexnet.errors import AlexNetError, ImageError
from alexnet.features import Neighbours, keep_strongest, last_hidden
from alexnet.predictor import Switches
from alexnet.serve import responses
from alexnet.serve.admission import LOG, HTTPError, require_ready
from alexnet.serve.engine import Engine, Networks
from alexnet.serve.images import encode_jpeg_uri, round_digits

PATCHES = 9  # kept for each unit, as the page shows
NEAREST = 6  # as in Figure 4
IMAGES_A_RUN = 8  # in one turn of the network: what a request has to wait for at most
EXAMPLE_QUALITY = 98  # of the JPEG of an image that comes back to be classified


@dataclass(frozen=True, slots=True)
class _Found:
    """The strongest activations of every unit, and the last hidden layer's vectors."""

    split: Split
    numbers: list[int]  # of the images in the split
    neighbours: Neighbours
    values: dict[str, Tensor]  # by layer, (units, PATCHES): the strongest, falling
    places: dict[str, Tensor]  # by layer, (units, PATCHES, 2): row of `numbers`, place in the map


class Gallery:
    """The training images of a run, as far as they are still there.

    `count` of them, evenly spread over the training split, are run through the engine, whose queue
    is shared, so that requests come between. `open_data` is called in the background; it raises
    `AlexNetError` where the data is gone.
    """

    def __init__(
        self, networks: Networks, engine: Engine, count: int, open_data: Callable[[], PreparedData]
    ) -> None:
        self._networks, self._engine = networks, engine
        self._count, self._open_data = count, open_data
        self._held_out: Split | None = None
        self._found: _Found | None = None
        self._is_missing = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gallery", daemon=True)
        self._thread.start()

    @property
    def has_images(self) -> bool:
        """Whether the training images are there, be it that they are still being run."""
        return not self._is_missing

    def is_running(self) -> bool:
        """Whether the images are still being run."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Give up what is not done, without waiting: data may be being prepared."""
        self._stop.set()

    def require_found(self) -> _Found:
        """Return what the images did; 404 without training images, 503 while they are run."""
        self._check_there()
        return require_ready(self._found, "The training images are still being looked at.", 5)

    def encode_example(self, number: int) -> bytes:
        """Return a held-out image as a JPEG, for who has no photograph at hand."""
        self._check_there()
        images = require_ready(self._held_out, "The images are still being opened.")
        return encode_jpeg(images.pixels(number % len(images)), EXAMPLE_QUALITY)

    def find_top_patches(self, layer: str, unit: int) -> responses.TopPatches:
        """Return the patches that excite a unit most, the strongest first."""
        self._networks.check(layer, unit)
        found = self.require_found()
        shape = self._networks.shapes[layer]
        side = shape[-1] if len(shape) == 3 else 1
        patches = []
        for value, (row, place) in zip(
            found.values[layer][unit].tolist(), found.places[layer][unit].tolist(), strict=True
        ):
            number = found.numbers[row]
            left, top, right, bottom = box = self._networks.fields[layer].box_in(
                found.split.size, place // side, place % side
            )
            patches.append(
                responses.Patch(
                    image=encode_jpeg_uri(found.split.pixels(number)[top:bottom, left:right]),
                    class_name=self._networks.class_names[found.split.label(number)],
                    activation=round_digits(value),
                    box=list(box),
                )
            )
        return responses.TopPatches(
            layer=layer, unit=unit, patches=patches, images=len(found.numbers)
        )

    def find_nearest(self, vector: Tensor) -> responses.NearestImages:
        """Return the training images nearest to a vector of the last hidden layer."""
        found = self.require_found()
        distances, rows = found.neighbours.nearest(vector.numpy()[None], NEAREST)
        numbers = [found.numbers[row] for row in rows[0]]
        return responses.NearestImages(
            layer=last_hidden(self._networks.predictor.spec),
            neighbours=[
                responses.Neighbour(
                    image=encode_jpeg_uri(found.split.pixels(number)),
                    class_name=self._networks.class_names[found.split.label(number)],
                    distance=round_digits(distance),
                )
                for distance, number in zip(distances[0], numbers, strict=True)
            ],
            images=len(found.numbers),
        )

    def _check_there(self) -> None:
        if self._is_missing:  # why is in the log: there may be paths in it
            fix = "Start the server where the data is, or with --data DATA."
            raise HTTPError(404, "The training images are not there.", fix)

    def _run(self) -> None:
        try:
            data = self._open_data()
            if data.classes != self._networks.predictor.classes:
                raise AlexNetError("The data has other classes than the run.")
            self._held_out = data.held_out
            self._found = self._search(data.splits["train"])
        except AlexNetError as error:
            self._is_missing = True
            LOG.warning("There are no training images to look at: %s", error)
        except Exception:  # of a thread that nobody waits for
            self._is_missing = True
            LOG.exception("The training images could not be looked at.")

    def _search(self, split: Split) -> _Found | None:
        """Run the images through the network, a chunk at a time; ``None`` where it was stopped."""
        layers = tuple(self._networks.shapes)
        hidden = last_hidden(self._networks.predictor.spec)
        units = {layer: shape[0] for layer, shape in self._networks.shapes.items()}
        values = {layer: torch.empty(units[layer], 0) for layer in layers}
        places = {layer: torch.empty(units[layer], 0, 2, dtype=torch.int64) for layer in layers}
        wanted = np.unique(np.linspace(0, len(split) - 1, self._count).astype(np.int64)).tolist()
        numbers: list[int] = []
        vectors: list[Tensor] = []
        for start in range(0, len(wanted), IMAGES_A_RUN):
            images, first = [], len(numbers)
            for number in wanted[start : start + IMAGES_A_RUN]:
                with contextlib.suppress(ImageError):  # a damaged one is left out
                    images.append(torch.from_numpy(split.pixels(number).copy()))
                    numbers.append(number)
            outputs = self._run_images(layers, images)
            if outputs is None:
                return None
            vectors += [output[hidden] for output in outputs]
            for layer in layers if outputs else ():
                maps = torch.stack([output[layer] for output in outputs])
                values[layer], places[layer] = keep_strongest(
                    values[layer], places[layer], maps, range(first, len(numbers)), PATCHES
                )
        if not numbers:
            raise AlexNetError("None of them can be read.")
        neighbours = Neighbours(torch.stack(vectors).numpy())
        return _Found(split, numbers, neighbours, values, places)

    def _run_images(
        self, layers: tuple[str, ...], images: list[Tensor]
    ) -> list[dict[str, Tensor]] | None:
        """Run images when the queue has room for them."""
        function = self._networks.activations(Switches(), layers)
        while not self._stop.is_set():
            try:
                futures = self._engine.submit(function, images)
            except HTTPError:
                time.sleep(0.2)
                continue
            return [future.result() for future in futures]
        return None
