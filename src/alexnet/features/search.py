"""Images that are like others in a layer, and images that activate a unit most."""

import mmap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data.loader import ImageSplit, evaluation_batches
from alexnet.errors import ConfigError, DataError
from alexnet.features.extraction import BATCH, StoredFeatures, checksum, pool_channels
from alexnet.features.layers import activations, receptive_field, select_layers
from alexnet.old_names import renamed_layer
from alexnet.predictor import Predictor

CHUNK = 32 << 20  # bytes of vectors at a time
BLOCK = 256  # queries at a time
UNIT = 2.0**-24  # float32 rounds to within this, relatively

Vectors = NDArray[np.floating]


class Neighbours:
    r"""The nearest of many vectors to some others, by Euclidean distance; exact.

    Distances come from matrix products in float32,

    .. math:: |q - c|^2 = |q|^2 + |c|^2 - 2 q \cdot c,

    whose difference loses digits where vectors are long and close together. So a product only
    *excludes*: the rounding of a sum of D products is at most ``D * 2**-24`` of the sum of their
    sizes, in whatever order they are added (Higham, Accuracy and Stability of Numerical Algorithms,
    section 3.1), which makes it a lower bound of the true distance. Vectors whose bound is below
    the best so far get their distance in float64 from the vectors themselves. A common centre is
    taken off first, which leaves distances as they are and vectors shorter. Raises `ConfigError`
    when there are no vectors.

    Parameters
    ----------
    vectors : ndarray
        ``(N, ...)`` float; what follows the first axis is flattened. May be a memory map: it is
        read once a search, in order, a part at a time.
    """

    def __init__(self, vectors: Vectors) -> None:
        if not vectors.size:
            raise ConfigError("There are no vectors to search.")
        self._vectors = vectors.reshape(len(vectors), -1)
        self._centre = self._sample_centre()

    def _sample_centre(self) -> NDArray[np.float32]:
        """Return the mean of some thousand vectors, ``(D,)``: any centre would do."""
        sample = []
        for first in range(0, len(self._vectors), max(1, len(self._vectors) // 32)):
            sample.append(np.array(self._vectors[first : first + 32], np.float64))
            _release_pages(self._vectors)
        with np.errstate(invalid="ignore", over="ignore"):
            centre = np.concatenate(sample).mean(0)
        return np.nan_to_num(centre, nan=0, posinf=0, neginf=0).astype(np.float32)

    def nearest(
        self, queries: Vectors, count: int = 6
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the distances and the numbers of the `count` vectors nearest to each query.

        Raises `ConfigError` when the queries have another length, or `count` is below 1;
        `DataError` when a vector or a query is not finite.

        Parameters
        ----------
        queries : ndarray
            ``(Q, ...)`` float, of as many numbers as the vectors.
        count : int
            How many; all vectors where there are fewer.

        Returns
        -------
        distances, indices : ndarray
            ``(Q, count)`` each, the nearest first; of equal ones the earlier vector.
        """
        queries = queries.reshape(len(queries), -1)
        dimensions = self._vectors.shape[1]
        if queries.shape[1] != dimensions or count < 1:
            raise ConfigError(
                f"Queries of {queries.shape[1]} numbers, the {count} nearest: this cannot be "
                f"searched among vectors of {dimensions} numbers."
            )
        count = min(count, len(self._vectors))
        squares = np.full((len(queries), count), np.inf)  # squared distances, rising
        indices = np.full((len(queries), count), -1, np.int64)
        moved, energy = subtract_centre(queries, self._centre, "Query")
        for first, rows in self._chunks():
            their_moved, their_energy = subtract_centre(rows, self._centre, "Vector", first)
            for at in range(0, len(queries), BLOCK):
                part = slice(at, at + BLOCK)
                bounds = _lower_bounds(moved[part], energy[part], their_moved, their_energy)
                for row in np.flatnonzero(bounds.min(1) < squares[part, -1]):
                    query = at + int(row)
                    squares[query], indices[query] = _merge(
                        queries[query], squares[query], indices[query], first, rows, bounds[row]
                    )
        return np.sqrt(squares), indices

    def _chunks(self) -> Iterator[tuple[int, Vectors]]:
        """Yield the vectors in order, ``(rows, D)`` at a time, with the first one's number."""
        rows = max(1, CHUNK // (4 * self._vectors.shape[1]))
        for first in range(0, len(self._vectors), rows):
            yield first, self._vectors[first : first + rows]
            _release_pages(self._vectors)


def _lower_bounds(
    queries: NDArray[np.float32],
    energies: NDArray[np.float32],
    rows: NDArray[np.float32],
    energy: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return numbers below the true squared distances, ``(Q, rows)``.

    The product and both energies are each within ``D * UNIT`` of the sum of the sizes of their
    terms, which for the product is at most half the two energies; what is left for the centre
    and the few additions is below 32 units. Below float32's smallest number, 2**-126, errors
    are no longer relative.
    """
    dimensions = rows.shape[1]
    slack = 2 * _rounding_error(dimensions + 32)
    with np.errstate(over="ignore"):
        bounds = queries @ rows.T
        bounds *= -2
        bounds += np.float32(1 - slack) * (energies[:, None] + energy)
    bounds -= np.float32(dimensions * 2.0**-120)
    return bounds


def _merge(
    query: Vectors,
    squares: NDArray[np.float64],
    indices: NDArray[np.int64],
    first: int,
    rows: Vectors,
    bounds: NDArray[np.float32],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Measure those of the vectors that may be nearer than the farthest kept, and keep."""
    exact = query.astype(np.float64)

    def measure(near: NDArray[np.int64]) -> NDArray[np.float64]:
        difference = rows[near] - exact  # float64
        return np.einsum("ij,ij->i", difference, difference)

    count = len(squares)
    near = np.flatnonzero(bounds < squares[-1])
    if len(near) > 4 * count:  # a few first, so that most need no measuring
        limit = measure(near[np.argpartition(bounds[near], count - 1)[:count]]).max()
        near = near[bounds[near] <= limit]
    squares = np.concatenate([squares, measure(near)])
    indices = np.concatenate([indices, first + near])
    kept = np.lexsort((indices, squares))[:count]
    return squares[kept], indices[kept]


def subtract_centre(
    rows: Vectors, centre: NDArray[np.float32], what: str, first: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return vectors less the centre, and their squared lengths, in float32.

    Raises `DataError` when they are not finite, or so long that their squares are not.
    """
    moved = np.subtract(rows, centre).astype(np.float32, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        energy = np.einsum("ij,ij->i", moved, moved)
    if not (finite := np.isfinite(energy)).all():
        number = first + int(finite.argmin())
        raise DataError(f"{what} {number} has a number that is not finite, or above 1e19.")
    return moved, energy


def _rounding_error(terms: int) -> float:
    """Return how far a float32 sum of products may be off, as a share of its terms' sizes."""
    return terms * UNIT / (1 - terms * UNIT)


def _release_pages(vectors: Vectors) -> None:
    """Give back the memory of the parts of a file that were read; they can be read again."""
    owner: object = vectors
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap) and not vectors.flags.writeable and hasattr(owner, "madvise"):
        owner.madvise(mmap.MADV_DONTNEED)


def find_nearest(
    predictor: Predictor, stored: StoredFeatures, images: Tensor, layer: str, count: int = 6
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the stored images nearest to some others by Euclidean distance in a layer.

    `images` are ``(N, resize_to, resize_to, 3)`` uint8 RGB, and `predictor` is the network that
    made the stored features. The distances and the numbers of the images are ``(N, count)`` each,
    the nearest first. Raises `ConfigError` when the layer was not stored; `DataError` when the
    features are another network's.
    """
    if stored.about.weights != checksum(predictor):
        raise DataError(
            f"The features in {str(stored.folder)!r} are those of other weights or another "
            "preprocessing.",
            "Extract them again with this run.",
        )
    vectors = Neighbours(stored.array(layer))
    name = renamed_layer(layer)
    values = activations(predictor, images, [name])[name]
    return vectors.nearest(pool_channels(values, stored.about.pool), count)


@dataclass(frozen=True, slots=True)
class TopActivation:
    """How much an image activates a unit, and where."""

    image: int  # its number in the split
    row: int  # in its channel; 0 where the layer is fully connected
    column: int
    activation: float


def top_activating(
    predictor: Predictor, split: ImageSplit, layer: str, units: Iterable[int], count: int = 9
) -> dict[int, tuple[TopActivation, ...]]:
    """Find the `count` images of a split that activate each unit most, in one pass for all units.

    Units are channels of a convolution and of what follows it, or those of a fully-connected layer.
    By unit, the strongest comes first. Each image is named once, with the place in its channel that
    is strongest; of equal ones the earlier image, then the earlier place. Raises `ConfigError` when
    there is no such layer or unit; `DataError` at a damaged image.
    """
    wanted = list(dict.fromkeys(units))
    _check(predictor, layer, wanted, count)
    best = torch.empty(len(wanted), 0)  # (units, up to count) activations
    at = torch.empty(len(wanted), 0, 2, dtype=torch.int64)  # image, place in its map
    width = 1
    for batch in evaluation_batches(split, BATCH):
        maps = activations(predictor, batch.images, [layer])[layer][:, wanted]
        width = maps.shape[-1] if maps.dim() > 2 else 1
        best, at = keep_strongest(best, at, maps, batch.indices, count)
    return {
        unit: tuple(
            TopActivation(image, place // width, place % width, value)
            for value, (image, place) in zip(values, places, strict=True)
        )
        for unit, values, places in zip(wanted, best.tolist(), at.tolist(), strict=True)
    }


def keep_strongest(
    values: Tensor, places: Tensor, maps: Tensor, images: Sequence[int], count: int
) -> tuple[Tensor, Tensor]:
    """Merge the strongest place of each unit in some images into those kept so far.

    `values` and `places` are of the strongest ones, falling: ``(units, up to count)`` activations
    and ``(units, up to count, 2)`` int64, the image and the place in its flattened map. `maps`,
    ``(N, units, side, side)`` or ``(N, units)``, are of the images that `images` numbers. Of equal
    ones the earlier image is kept, then the earlier place.
    """
    flat = maps.flatten(2) if maps.dim() > 2 else maps[..., None]  # (N, units, places)
    strongest = flat.amax(2, keepdim=True)
    at = (flat == strongest).to(torch.uint8).argmax(2).T  # of `flat` it may name any of equals
    found = torch.stack([torch.tensor(images).expand_as(at), at], -1)
    values = torch.cat([values, strongest[..., 0].T], 1)
    values, order = values.sort(dim=1, descending=True, stable=True)
    places = torch.cat([places, found], 1)
    order = order[:, :count, None].expand(-1, -1, 2)
    return values[:, :count], places.gather(1, order)


def _check(predictor: Predictor, layer: str, units: Sequence[int], count: int) -> None:
    maps = select_layers(predictor.spec, [layer])[layer][0]
    if not units:
        raise ConfigError("No unit was named.", f"{layer} has the units 0 to {maps - 1}.")
    for unit in units:
        if not 0 <= unit < maps:
            raise ConfigError(f"{layer} has no unit {unit}.", f"Its units are 0 to {maps - 1}.")
    if count < 1:
        raise ConfigError(f"The number of images is {count}.", "It must be at least 1.")


def patch(
    predictor: Predictor, split: ImageSplit, layer: str, found: TopActivation
) -> NDArray[np.uint8]:
    """Cut out of an image what the unit saw of it: ``(height, width, 3)`` uint8 RGB."""
    field = receptive_field(predictor.spec, layer)
    left, top, right, bottom = field.box_in(split.size, found.row, found.column)
    return split.pixels(found.image)[top:bottom, left:right]
