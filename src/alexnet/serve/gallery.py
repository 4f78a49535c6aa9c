"""What the network made of its training images: found out in the background, kept in memory."""

import base64
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data.decode import encode_jpeg
from alexnet.data.imagenet import describe_classes
from alexnet.data.shards import PreparedData, Split
from alexnet.errors import AlexNetError, ImageError
from alexnet.features import Neighbours, TopActivation, last_hidden
from alexnet.serve.engine import Engine
from alexnet.serve.networks import Networks, Switches
from alexnet.serve.refusals import Refusal, busy

PATCHES = 9  # kept for each unit, as the page shows
NEAREST = 6  # as in Figure 4
CHUNK = 8  # images run at a time: what a request has to wait for at most
STOP_SECONDS = 5  # that the end of the server waits for the thread
QUALITY = 90  # of the JPEGs that are shown
EXAMPLE_QUALITY = 98  # of one that comes back to be classified
LOG = logging.getLogger("alexnet.serve")


@dataclass(frozen=True, slots=True)
class Seen:
    """What the images did to the units of every layer, and their vectors."""

    numbers: NDArray[np.int64]  # of the images in the training split
    vectors: NDArray[np.float32]  # (images, units) of the last hidden layer
    values: dict[str, Tensor]  # by layer, (units, PATCHES): the strongest, falling
    places: dict[str, Tensor]  # by layer, (units, PATCHES, 2): row of `numbers`, place in the map


class Gallery:
    """The training images of a run, as far as they are still there.

    Parameters
    ----------
    networks, engine
        What the images are run through; requests come first, since the queue is shared.
    most : int
        Images that are looked at, evenly spread over the training split.
    find : callable
        Returns the data, or raises `AlexNetError` where it is gone; called in the background.
    """

    def __init__(
        self, networks: Networks, engine: Engine, most: int, find: Callable[[], PreparedData]
    ) -> None:
        self._networks, self._engine, self._most, self._find = networks, engine, most, find
        self._held_out: Split | None = None
        self._split: Split | None = None
        self._seen: Seen | None = None
        self._neighbours: Neighbours | None = None
        self._missing = ""  # why there are none
        self._names = describe_classes(networks.model.classes)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="gallery", daemon=True)

    @property
    def has_images(self) -> bool:
        """Whether the training images are there, be it that they are still being looked at."""
        return not self._missing

    def is_looking(self) -> bool:
        """Whether the images are still being looked at."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to look at the images."""
        self._thread.start()

    def close(self) -> None:
        """Give up what is not done."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)  # it may be preparing data

    def exciting(self, layer: str, unit: int) -> dict[str, Any]:
        """Return the patches that excite a unit most, the strongest first.

        Raises
        ------
        Refusal
            404 without training images or such a unit, 503 while they are being looked at.
        """
        self._networks.check(layer)
        units = self._networks.shapes[layer][0]
        if unit >= units:
            raise Refusal(404, f"{layer} has no unit {unit}.", f"Its units are 0 to {units - 1}.")
        split, seen, _ = self._ready()
        side = self._networks.shapes[layer][-1] if len(self._networks.shapes[layer]) == 3 else 1
        found = zip(
            seen.values[layer][unit].tolist(), seen.places[layer][unit].tolist(), strict=True
        )
        patches = []
        for value, (row, place) in found:
            one = TopActivation(int(seen.numbers[row]), place // side, place % side, value)
            patches.append(self._patch(split, layer, one))
        return {"layer": layer, "unit": unit, "patches": patches, "images": len(seen.numbers)}

    def example(self, number: int) -> bytes:
        """Return a held-out image as a JPEG, for who has no photograph at hand.

        Raises
        ------
        Refusal
            404 without training images, 503 while they are being opened.
        """
        self._check_there()
        if self._held_out is None:
            raise busy("The images are still being opened.")
        return encode_jpeg(self._held_out.pixels(number % len(self._held_out)), EXAMPLE_QUALITY)

    def _patch(self, split: Split, layer: str, one: TopActivation) -> dict[str, Any]:
        field = self._networks.fields[layer]
        left, top, right, bottom = field.box_in(split.size, one.row, one.column)
        return {
            "image": jpeg_uri(split.pixels(one.image)[top:bottom, left:right]),
            "class": self._names[split.label(one.image)],
            "activation": float(f"{one.activation:.5g}"),
            "box": [left, top, right, bottom],
        }

    def nearest(self, vector: Tensor) -> dict[str, Any]:
        """Return the training images nearest to a vector of the last hidden layer.

        Raises
        ------
        Refusal
            404 without training images, 503 while they are being looked at.
        """
        split, seen, neighbours = self._ready()
        distances, rows = neighbours.nearest(vector.numpy()[None], NEAREST)
        return {
            "layer": last_hidden(self._networks.model.spec),
            "neighbours": [
                {
                    "image": jpeg_uri(split.pixels(int(seen.numbers[row]))),
                    "class": self._names[split.label(int(seen.numbers[row]))],
                    "distance": float(f"{distance:.5g}"),
                }
                for distance, row in zip(distances[0], rows[0], strict=True)
            ],
            "images": len(seen.numbers),
        }

    def check(self) -> None:
        """See that the images have been looked at, before an upload is decoded for them."""
        self._ready()

    def _check_there(self) -> None:
        if self._missing:
            fix = "Start the server where the data is, or with --data DATA."
            raise Refusal(404, f"The training images are not there: {self._missing}", fix)

    def _ready(self) -> tuple[Split, Seen, Neighbours]:
        self._check_there()
        if self._split is None or self._seen is None or self._neighbours is None:
            raise busy("The training images are still being looked at.", 5)
        return self._split, self._seen, self._neighbours

    def _look(self) -> None:
        try:
            data = self._find()
            if data.classes != self._networks.model.classes:
                raise AlexNetError("the data has other classes than the run.")
            self._held_out = data.held_out
            split = data.splits["train"]
            seen = self._seen_of(split)
            if seen is not None:
                self._split, self._seen = split, seen
                self._neighbours = Neighbours(seen.vectors)
        except AlexNetError as error:
            self._missing = error.what
        except Exception as error:  # of a thread that nobody waits for
            LOG.exception("The training images could not be looked at.")
            self._missing = f"{type(error).__name__}: {error}"

    def _seen_of(self, split: Split) -> Seen | None:
        """Run the images through the network, a chunk at a time; ``None`` where it was stopped."""
        numbers = np.unique(np.linspace(0, len(split) - 1, self._most).astype(np.int64))
        hidden = last_hidden(self._networks.model.spec)
        strongest = {layer: _Strongest() for layer in self._networks.shapes}
        kept, vectors = [], []
        for start in range(0, len(numbers), CHUNK):
            images = []
            for number in numbers[start : start + CHUNK]:
                try:
                    images.append(torch.from_numpy(split.pixels(int(number)).copy()))
                    kept.append(int(number))
                except ImageError:  # a damaged one is left out
                    continue
            outputs = self._run(images)
            if outputs is None:
                return None
            for row, output in enumerate(outputs, len(kept) - len(outputs)):
                vectors.append(output[hidden].numpy())
                for layer, found in strongest.items():
                    found.add(row, output[layer])
        if not kept:
            raise AlexNetError("none of them can be read.")
        return Seen(
            np.array(kept),
            np.stack(vectors),
            {layer: found.values for layer, found in strongest.items()},
            {layer: found.places for layer, found in strongest.items()},
        )

    def _run(self, images: list[Tensor]) -> list[dict[str, Tensor]] | None:
        """Run images when the queue has room for them."""
        work = self._networks.activations(Switches(), tuple(self._networks.shapes))
        futures: list[Future[Any]] = []
        while not self._stop.is_set():
            try:
                futures = self._engine.submit(work, images)
            except Refusal:
                time.sleep(0.2)
                continue
            return [future.result() for future in futures]
        return None


class _Strongest:
    """The strongest activations of each unit of a layer so far, one an image at most."""

    def __init__(self) -> None:
        self.values = torch.empty(0)
        self.places = torch.empty(0, dtype=torch.int64)

    def add(self, row: int, out: Tensor) -> None:
        """See an image: ``(maps, side, side)`` or ``(units,)``."""
        flat = out.reshape(len(out), -1)
        values, places = flat.max(1, keepdim=True)
        at = torch.stack([torch.full_like(places, row), places], -1)  # (units, 1, 2)
        if self.values.numel():
            values = torch.cat([self.values, values], 1)
            at = torch.cat([self.places, at], 1)
        self.values, order = values.topk(min(PATCHES, values.shape[1]), 1)
        self.places = at.gather(1, order[..., None].expand(*order.shape, 2))


def jpeg_uri(pixels: NDArray[np.uint8]) -> str:
    """Encode ``(H, W, 3)`` uint8 RGB as a JPEG in a ``data:`` address."""
    encoded = encode_jpeg(np.ascontiguousarray(pixels), QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(encoded).decode()
