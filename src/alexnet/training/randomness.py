"""Everything random in a training is drawn here: a function of (seed, step, image), nothing else.

- The order of the images is a function of the seed and the epoch (`Order`).
- Crops, mirror images and colours are a function of the seed, the step and the image's place in
  the batch (`make_generator`, `sample_params`).
- Dropout masks are a function of the seed, the step, the image's place in the batch, the layer and
  the unit (`seed_dropout`).
- What takes the place of a corrupt image is a function of that image (`Order.replacements`).

Places are those in the batch of all processes, and each process draws for the whole batch and keeps
what belongs to its images. So any number of processes trains on the same batches, and no
generator's state is saved: a resumed run is the undisturbed one, bit for bit. (The initial weights
are a function of the seed too; `network.build` draws them.)
"""

import hashlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from alexnet.data.augment import AugmentParams
from alexnet.data.loader import ALONE, Part, next_images
from alexnet.errors import DataError
from alexnet.layers import Dropout, hash_uint32
from alexnet.recipes import Recipe

ASPECT = 4 / 3  # of zoomed crops, at most; not in the paper


@dataclass(frozen=True, slots=True)
class Order:
    """The order of the training images, every one once an epoch, shuffled anew each time.

    Any step can be asked for without the ones before it. That there is no whole batch in an epoch
    of which the rest is dropped is a `DataError`.
    """

    images: int
    batch_size: int
    seed: int
    last_batch: Literal["run-on", "short", "drop"] = "run-on"  # as in `Recipe`; "short" is 2012's

    def __post_init__(self) -> None:
        if self.last_batch == "drop" and self.images < self.batch_size:
            raise DataError(
                f"{self.images:,} images make no batch of {self.batch_size}.",
                "Take a smaller --batch-size, or --set last_batch=short.",
            )

    @classmethod
    def of(cls, recipe: Recipe, images: int) -> Self:
        """Return the order in which a recipe takes so many training images."""
        return cls(images, recipe.batch_size, recipe.seed, recipe.last_batch)

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which every image comes once."""
        steps = self.images / self.batch_size
        return {"run-on": steps, "short": math.ceil(steps), "drop": math.floor(steps)}[
            self.last_batch
        ]

    def steps(self, epochs: float) -> int:
        """Return how many steps `epochs` are; the last one counts whole."""
        return max(1, math.ceil(epochs * self.steps_per_epoch - 1e-9))

    def indices(self, step: int) -> NDArray[np.integer]:
        """Return which images step `step`, counted from 0, trains on."""
        if self.last_batch == "run-on":
            start, stop = step * self.batch_size, (step + 1) * self.batch_size
            parts = []
            for epoch in range(start // self.images, (stop - 1) // self.images + 1):
                before = epoch * self.images
                shuffled = shuffle(self.images, self.seed, epoch)
                parts.append(shuffled[max(0, start - before) : stop - before])
            return np.concatenate(parts)
        epoch, within = divmod(step, int(self.steps_per_epoch))
        start = within * self.batch_size
        return shuffle(self.images, self.seed, epoch)[start : start + self.batch_size]

    def batches(self, first_step: int, part: Part = ALONE) -> Iterator[NDArray[np.integer]]:
        """Yield a process's part of the indices of each step from `first_step` on, without end."""
        return (part.of(self.indices(step)) for step in itertools.count(first_step))

    def replacements(self, index: int) -> Iterator[int]:
        """Yield the images that take the place of a corrupt one: the first whole one after it."""
        return next_images(index, self.images)


@lru_cache(maxsize=2)
def shuffle(images: int, seed: int, epoch: int) -> NDArray[np.integer]:
    """Return the order of an epoch: a permutation of ``range(images)``."""
    # The epoch is part of the key: neighbouring counters of one key give shifted copies of one row.
    key = np.array([seed, epoch], np.uint64)
    dtype = np.int32 if images < 1 << 31 else np.int64
    permutation = np.random.Generator(np.random.Philox(key=key)).permutation
    return permutation(np.arange(images, dtype=dtype))


def step_seed(seed: int, step: int) -> int:
    """Return the seed of one training step, counted from 1."""
    return (seed * 1_000_003 + step) % 2**63


def make_generator(seed: int, step: int) -> torch.Generator:
    """Return the generator, on the processor, of what `sample_params` draws for a step."""
    return torch.Generator().manual_seed(step_seed(seed, step))


def sample_params(
    images: int,
    prepared: int,
    size: int,
    generator: torch.Generator,
    *,
    mirror: bool = True,
    centred: bool = False,
    crop_area: float | None = None,
) -> AugmentParams:
    """Draw the random choices for a batch of `images` images of `prepared` pixels on a side.

    The batch is that of all processes, and `generator`, of `make_generator`, on the processor: the
    draws are the same on any device. Crops of `size` pixels are at one of
    ``(prepared - size + 1)**2`` places (section 4.1), or, `centred`, in the centre; with a
    `crop_area`, they cover at least that share of the image, at any zoom. With `mirror`, half of
    the images are mirrored left to right.
    """
    offsets = torch.randint(0, prepared - size + 1, (images, 2), generator=generator)
    if centred:
        offsets = torch.full_like(offsets, (prepared - size) // 2)
    mirrored = torch.rand(images, generator=generator) < (0.5 if mirror else 0)
    noise = torch.randn(images, 3, generator=generator)
    if crop_area is None:
        return AugmentParams(offsets, mirrored, noise)
    share = torch.rand(images, generator=generator) * (1 - crop_area) + crop_area
    # Powers and roots in float64, then rounded: in float32 their last bit depends on the processor.
    exponent = torch.rand(images, generator=generator) * 2 - 1
    aspect = (ASPECT ** exponent.double()).float()
    areas = torch.stack([share * aspect, share / aspect], 1)
    half = areas.double().sqrt().float().clamp(max=1)
    centre = (torch.rand(images, 2, generator=generator) * 2 - 1) * (1 - half)
    return AugmentParams(offsets, mirrored, noise, torch.cat([centre, half], 1))


def seed_dropout(network: nn.Module, seed: int, rows: Tensor) -> None:
    """Make every dropout of a network a function of a `step_seed` and of the images' places.

    `rows` are those of the images that come next in the batch of all processes, ``(N,)`` int64.
    """
    for name, layer in network.named_modules():
        if isinstance(layer, Dropout):
            digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=4).digest()
            key = int.from_bytes(digest, "little")
            layer.rows = hash_uint32(hash_uint32(rows + 1) ^ key)[:, None]
