"""The mean image and the colour axes of a training set, summed exactly.

Sums are of integers, so that their order does not matter: any number of workers, and any number
of restarts, give the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from alexnet.errors import DataError
from alexnet.files import atomic_write

PAIRS = tuple(combinations_with_replacement(range(3), 2))  # of channels, each once


@dataclass(frozen=True, slots=True)
class PixelSums:
    """Running sums over images of one size; mergeable."""

    images: int
    total: NDArray[np.int64]  # (3, size, size), of the pixel values 0-255
    products: NDArray[np.int64]  # (3, 3), of the channels' values with each other

    @classmethod
    def empty(cls, size: int) -> Self:
        """Return the sums of no image."""
        return cls(0, np.zeros((3, size, size), np.int64), np.zeros((3, 3), np.int64))

    @classmethod
    def of(cls, images: Sequence[NDArray[np.uint8]], size: int) -> Self:
        """Return the sums of some images, at most 4,096, each ``(size, size, 3)`` uint8 RGB."""
        # Whole numbers: float32 holds them exactly up to 2**24, below which stay the sum of 4,096
        # pixels and a row of 258 squares.
        dtype = np.float32 if size <= 258 else np.float64
        total, products = np.zeros((3, size, size), dtype), np.zeros((3, 3), np.int64)
        channels, planes = np.empty((3, size, size), np.uint8), np.empty((3, size, size), dtype)
        for image in images:
            for channel in range(3):  # as bytes, converted then: twice as fast as at once
                channels[channel] = image[:, :, channel]
            planes[:] = channels
            total += planes
            for i, j in PAIRS:
                products[i, j] += int(np.vecdot(planes[i], planes[j]).sum(dtype=np.float64))
        lower = np.tril_indices(3, -1)
        products[lower] = products.T[lower]
        return cls(len(images), total.astype(np.int64), products)

    def __add__(self, other: "PixelSums") -> "PixelSums":
        return PixelSums(
            self.images + other.images, self.total + other.total, self.products + other.products
        )

    def save(self, path: Path, metadata: str, suffix: str = "") -> None:
        """Write the sums and a text, whole or not at all; `suffix` as for `atomic_write`."""
        arrays = {"images": np.array(self.images), "total": self.total, "products": self.products}
        with atomic_write(path, suffix) as temporary:
            temporary.write_bytes(save(arrays, {"notes": metadata}))

    @classmethod
    def load(cls, path: Path) -> tuple[Self, str]:
        """Read what `save` wrote: the sums, and the text."""
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in ("images", "total", "products")}
            metadata = file.metadata()["notes"]
        return cls(int(arrays["images"]), arrays["total"], arrays["products"]), metadata


@dataclass(frozen=True, slots=True)
class Statistics:
    """What preprocessing and colour noise need to know of a training set."""

    mean_image: NDArray[np.float32]  # (3, size, size), 0-255 RGB
    colour_stdevs: NDArray[np.float32]  # (3,), 0-255: roots of the covariance's eigenvalues
    colour_eigenvectors: NDArray[np.float32]  # (3, 3), RGB; the columns are the axes

    @property
    def mean_colour(self) -> NDArray[np.float32]:
        """The mean of each channel, ``(3,)``, 0-255 RGB."""
        return self.mean_image.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)

    @classmethod
    def of_mean(cls, mean: NDArray[Any], size: int) -> Self:
        """Return those of a mean image or colour, ``(3, …)``, 0-255 RGB; colours have no axes."""
        image = np.array(np.broadcast_to(mean, (3, size, size)), np.float32)
        return cls(image, np.zeros(3, np.float32), np.eye(3, dtype=np.float32))

    @classmethod
    def from_sums(cls, sums: PixelSums) -> Self:
        """Turn sums into statistics.

        The covariance is of RGB pixel values about their mean over all images and positions
        (section 4.1). Axes are in ascending order of variance, each with a positive largest
        component, so that they are the same on every machine.
        """
        pixels = sums.images * sums.total[0].size
        mean = sums.total.sum(axis=(1, 2)) / pixels
        covariance = sums.products / pixels - np.outer(mean, mean)
        values, axes = np.linalg.eigh(covariance)
        strongest = axes[np.abs(axes).argmax(axis=0), range(3)]
        return cls(
            (sums.total / sums.images).astype(np.float32),
            np.sqrt(np.maximum(values, 0)).astype(np.float32),
            (axes * np.sign(strongest)).astype(np.float32),
        )

    def save(self, path: Path, suffix: str = "") -> None:
        """Write ``statistics.safetensors``, whole or not at all; `suffix` as for `atomic_write`."""
        with atomic_write(path, suffix) as temporary:
            temporary.write_bytes(save({f.name: getattr(self, f.name) for f in fields(self)}))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote; a DataError when the file is missing or is something else."""
        try:
            arrays = load_file(path)
            return cls(arrays["mean_image"], arrays["colour_stdevs"], arrays["colour_eigenvectors"])
        except (OSError, SafetensorError, KeyError) as error:
            raise DataError(
                f"{str(path)!r} cannot be read ({error}).", "Prepare the data again."
            ) from None
