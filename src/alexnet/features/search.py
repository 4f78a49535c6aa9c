"""Which stored images are most like others, in a layer."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from alexnet.errors import DataError
from alexnet.features.extraction import identity, pooled
from alexnet.features.neighbours import Neighbours
from alexnet.features.outputs import activations
from alexnet.features.stored import Stored
from alexnet.predictor import Predictor


def find_nearest(
    model: Predictor, stored: Stored, images: Tensor, layer: str, count: int = 6
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the stored images nearest to some others by Euclidean distance in a layer.

    Parameters
    ----------
    model : Predictor
        The network that made the stored features.
    stored : Stored
        Features with that layer.
    images : Tensor
        ``(N, prepared, prepared, 3)`` uint8 RGB.
    layer : str
        Of the stored ones.
    count : int
        How many to return for each image.

    Returns
    -------
    distances, indices : ndarray
        ``(N, count)`` each, the nearest first.

    Raises
    ------
    ConfigError
        When the layer was not stored.
    DataError
        When the features are another network's.
    """
    if stored.about.weights != identity(model):
        raise DataError(
            f"The features in {str(stored.folder)!r} are those of other weights or another "
            "preprocessing.",
            "Extract them again with this run.",
        )
    vectors = Neighbours(stored.array(layer))
    queries = pooled(activations(model, images, [layer])[layer], stored.about.pool)
    return vectors.nearest(queries, count)
