"""A network as any file lists it: one layer after the other.

Caffe, ONNX and cuda-convnet differ in how they write their layers down, not in what the layers
are. Each reader makes this list of its file, and `assembly` a spec and weights of the list.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from alexnet.errors import RunError
from alexnet.spec import LRN, Dropout, WithinChannelLRN

Array = NDArray[np.float32]
LARGEST_IMAGE = 1024  # pixels on a side


@dataclass(frozen=True, slots=True)
class Convolution:
    """Filters ``(maps, inputs / groups, side, side)``, a bias a map, and how they move."""

    name: str
    weight: Array
    bias: Array
    stride: int = 1
    padding: tuple[int, int] = (0, 0)  # zeros before (top and left), and after
    groups: int = 1


@dataclass(frozen=True, slots=True)
class FullyConnected:
    """Weights ``(units, inputs)``, the inputs ordered by map, row and column."""

    name: str
    weight: Array
    bias: Array


@dataclass(frozen=True, slots=True)
class Activation:
    """A nonlinearity, of each number."""

    name: str
    kind: Literal["relu", "tanh"] = "relu"


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Local response normalisation, across maps, all or each of two halves, or within one."""

    name: str
    norm: LRN | WithinChannelLRN
    parts: int = 1


@dataclass(frozen=True, slots=True)
class Pooling:
    """Pooling; where the last window reaches over the edge, what is outside is not counted."""

    name: str
    window: int
    stride: int
    kind: Literal["max", "average"] = "max"
    ceil: bool = False
    after: int = 0  # rows and columns added at the end alone


@dataclass(frozen=True, slots=True)
class Drop:
    """Dropout."""

    name: str
    dropout: Dropout = field(default_factory=lambda: Dropout(form="inverted"))


Weighted = Convolution | FullyConnected
Layer = Weighted | Activation | Normalisation | Pooling | Drop


def gather(layers: Iterable[Layer], most: int) -> list[Layer]:
    """Return layers as a list, unless their numbers take more than `most` bytes.

    A file that names one array many times would grow with every copy that is made of it.

    Raises
    ------
    RunError
        When they do.
    """
    gathered, held = [], 0
    for layer in layers:
        if isinstance(layer, Convolution | FullyConnected):
            held += layer.weight.nbytes + layer.bias.nbytes
        if held > most:
            raise RunError("Its layers have more numbers than the file.")
        gathered.append(layer)
    return gathered
