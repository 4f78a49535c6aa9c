"""The mean image and the colour axes of a training set, summed exactly.

Sums are of integers, so that their order does not matter: any number of workers, and any number
of restarts, give the same bytes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from alexnet.errors import DataError
from alexnet.files import whole_file


@dataclass(frozen=True, slots=True)
class PixelSums:
    """Running sums over images of one size; mergeable."""

    images: int
    total: NDArray[np.int64]  # (size, size, 3), of the pixel values 0-255
    products: NDArray[np.int64]  # (3, 3), of the channels' values with each other

    @classmethod
    def empty(cls, size: int) -> Self:
        """Return the sums of no image."""
        return cls(0, np.zeros((size, size, 3), np.int64), np.zeros((3, 3), np.int64))

    @classmethod
    def of(cls, image: NDArray[np.uint8]) -> Self:
        """Return the sums of one image, ``(size, size, 3)`` uint8 RGB."""
        flat = image.reshape(-1, 3).astype(np.float64)  # whole numbers below 2**53: exact
        return cls(1, image.astype(np.int64), (flat.T @ flat).astype(np.int64))

    def __add__(self, other: "PixelSums") -> "PixelSums":
        return PixelSums(
            self.images + other.images, self.total + other.total, self.products + other.products
        )

    def save(self, path: Path) -> None:
        """Write the sums to a file, whole or not at all."""
        arrays = {"total": self.total, "products": self.products}
        with whole_file(path) as temporary:
            temporary.write_bytes(save({"images": np.array(self.images), **arrays}))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        arrays = load_file(path)
        return cls(int(arrays["images"]), arrays["total"], arrays["products"])


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
    def from_sums(cls, sums: PixelSums) -> Self:
        """Turn sums into statistics.

        The covariance is of RGB pixel values about their mean over all images and positions
        (section 4.1). Axes are in ascending order of variance, each with a positive largest
        component, so that they are the same on every machine.
        """
        pixels = sums.images * sums.total.shape[0] * sums.total.shape[1]
        mean = sums.total.sum(axis=(0, 1)) / pixels
        covariance = sums.products / pixels - np.outer(mean, mean)
        values, axes = np.linalg.eigh(covariance)
        strongest = axes[np.abs(axes).argmax(axis=0), range(3)]
        return cls(
            (sums.total / sums.images).transpose(2, 0, 1).astype(np.float32, order="C"),
            np.sqrt(np.maximum(values, 0)).astype(np.float32),
            (axes * np.sign(strongest)).astype(np.float32),
        )

    def save(self, path: Path) -> None:
        """Write ``statistics.safetensors``, whole or not at all."""
        arrays = {
            "mean_image": self.mean_image,
            "colour_stdevs": self.colour_stdevs,
            "colour_eigenvectors": self.colour_eigenvectors,
        }
        with whole_file(path) as temporary:
            temporary.write_bytes(save(arrays))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        DataError
            When the file is missing or is something else.
        """
        try:
            arrays = load_file(path)
            return cls(arrays["mean_image"], arrays["colour_stdevs"], arrays["colour_eigenvectors"])
        except (OSError, SafetensorError, KeyError) as error:
            raise DataError(
                f"{str(path)!r} cannot be read ({error}).", "Prepare the data again."
            ) from None
