"""TensorFlow's order of numbers -> spec and weights: what `keras` and `tfjs` share, and ``.npy``.

Filters are (row, column, input, output), a dense layer behind the maps takes them by row, column
and channel, and ``SAME`` means zeros whose number depends on the map. Readers make their lists of
layers with a `LayerList`.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from alexnet.bounds import read_bytes
from alexnet.errors import RunError
from alexnet.interop import layer_ir as ir
from alexnet.interop.caffe import IMAGENET_MEAN
from alexnet.pickles import load_arrays
from alexnet.spec import DropoutSpec, PixelFormat
from alexnet.variants import CAFFE, TORCHVISION

Padding = Literal["SAME", "VALID"] | tuple[int, int]


class LayerList:
    """Layers as they are read, with the maps that the last one makes.

    `side` is that of the images, where the file tells it; `most` how many bytes all layers' numbers
    may take.
    """

    def __init__(self, side: int | None, most: int) -> None:
        self.image = side
        self._side, self._channels = side, 3
        self._most = most
        self._flat = False
        self.layers: list[ir.ImportedLayer] = []

    def add(self, layer: ir.ImportedLayer) -> None:
        """Add a layer that changes no shape, or whose shape was looked at."""
        self.layers = ir.gather_layers([*self.layers, layer], self._most)

    def flatten(self) -> None:
        """Lay the maps in a row."""
        self._flat = True

    def add_convolution(
        self,
        name: str,
        kernel: NDArray[Any],
        bias: NDArray[Any] | None,
        stride: int = 1,
        padding: Padding = "VALID",
        groups: int = 1,
        before: int = 0,
    ) -> None:
        """Add a convolution of filters (row, column, input, output); `before` zeros all around."""
        if kernel.ndim != 4 or kernel.shape[0] != kernel.shape[1] or self._flat:
            raise RunError(
                f"The convolution {name!r} has weights of {kernel.shape}, or comes behind a row.",
                "Expected (side, side, inputs, outputs), square.",
            )
        first, last = self._find_padding(name, kernel.shape[0], stride, padding)
        weight = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1), np.float32)
        layer = ir.Convolution(
            name, weight, _bias(bias, len(weight)), stride, (before + first, before + last), groups
        )
        self.add(layer)
        self._channels = len(weight)
        self._shrink(kernel.shape[0], stride, sum(layer.padding))

    def add_pool(
        self,
        name: str,
        window: int,
        stride: int,
        padding: Padding = "VALID",
        kind: Literal["max", "average"] = "max",
    ) -> None:
        """Add a pool; with ``SAME`` its windows may hang over the end, not the beginning."""
        first, last = self._find_padding(name, window, stride, padding)
        if first:
            raise RunError(
                f"The pool {name!r} is padded by {first} before the map.",
                "Expected windows that begin inside the map.",
            )
        self.add(ir.Pooling(name, window, stride, kind, padding_after=last))
        self._shrink(window, stride, last)

    def add_dense(self, name: str, kernel: NDArray[Any], bias: NDArray[Any] | None) -> None:
        """Add a fully-connected layer of weights (input, output).

        The first one's inputs are by row, column and channel, and become by channel first.
        """
        if kernel.ndim != 2 or not self._flat:
            raise RunError(
                f"{name!r} has weights of {kernel.shape}, or comes behind maps.",
                "Expected (inputs, outputs), behind a row.",
            )
        weight = kernel.T
        if not any(isinstance(layer, ir.FullyConnected) for layer in self.layers):
            side = round((kernel.shape[0] / self._channels) ** 0.5)
            if side * side * self._channels != kernel.shape[0]:
                raise RunError(
                    f"{name!r} takes {kernel.shape[0]:,} numbers, which no square map of "
                    f"{self._channels} channels has."
                )
            maps = kernel.reshape(side, side, self._channels, -1)
            weight = maps.transpose(3, 2, 0, 1).reshape(kernel.shape[::-1])
        weight = np.ascontiguousarray(weight, np.float32)
        self.add(ir.FullyConnected(name, weight, _bias(bias, len(weight))))

    def add_bias(self, bias: NDArray[Any]) -> None:
        """Give the last layer the biases that come behind it."""
        last = self.layers[-1] if self.layers else None
        if not isinstance(last, ir.Convolution | ir.FullyConnected) or last.bias.any():
            raise RunError("It adds an array to something that is no layer with weights.")
        self.layers[-1] = replace(last, bias=_bias(bias, len(last.weight)))

    def add_activation(self, name: str, kind: Any) -> None:
        """Add an activation by its name there; ``linear`` and ``softmax`` are passed over."""
        if kind in ("relu", "tanh"):
            self.add(ir.Activation(name, kind))
        elif kind not in ("linear", "softmax", None):
            raise RunError(f"{name!r} has the activation {str(kind)[:40]!r}.", "Expected relu.")

    def add_dropout(self, name: str, rate: float) -> None:
        """Add dropout, whose outputs are scaled in training."""
        if rate:
            self.add(ir.Drop(name, DropoutSpec(rate=ir.round_float32(rate), form="inverted")))

    def count_groups(self, kernel: NDArray[Any]) -> int:
        """Return in how many groups filters (row, column, input, output) see the maps."""
        seen = kernel.shape[2] if kernel.ndim == 4 else 0
        return self._channels // seen if seen and self._channels % seen == 0 else 0

    def _find_padding(
        self, name: str, window: int, stride: int, padding: Padding
    ) -> tuple[int, int]:
        """Return the zeros before and after: of ``SAME`` as many as make ceil(side / stride)."""
        if padding == "VALID":
            return 0, 0
        if padding != "SAME":
            return padding
        if self._side is None and stride > 1:
            raise RunError(
                f"{name!r} is padded by SAME, and the file does not tell the image's side.",
                "Save the network with its input shape.",
            )
        side = self._side or stride
        zeros = max((-(-side // stride) - 1) * stride + window - side, 0)
        return zeros // 2, zeros - zeros // 2

    def _shrink(self, window: int, stride: int, zeros: int) -> None:
        if self._side is not None:
            self._side = (self._side + zeros - window) // max(stride, 1) + 1


def _bias(bias: NDArray[Any] | None, count: int) -> NDArray[np.float32]:
    if bias is None:
        return np.zeros(count, np.float32)
    return np.asarray(bias, np.float32).reshape(-1)


def assemble_layers(layers: LayerList, found: Sequence[str]) -> ir.ImportedNetwork:
    """Make a network of the layers; as the files do not say, its pixels are those of its kind.

    Networks with LRN come from Caffe's weights (BGR, 0-255 less the mean), those without from
    torchvision's shape or a training of somebody's own.
    """
    network, weights = ir.assemble_network(layers.layers, PixelFormat(), layers.image)
    like = CAFFE if any(conv.norm for conv in network.convs) else TORCHVISION
    colour = ir.MeanColour(IMAGENET_MEAN, "mean colour of ImageNet") if like is CAFFE else None
    said = f"the file does not say what its pixels are; taken to be those of {like.name}"
    network = replace(network, pixels=like.pixels)
    return ir.ImportedNetwork(network, weights, (*found, said), mean=colour)


def read_npy(path: Path) -> ir.ImportedNetwork:
    """Read a dictionary of arrays, ``conv1`` to ``fc8``, as ``bvlc_alexnet.npy`` is one.

    It has no layers: all but the widths and groups is taken from Caffe's network. A layer's arrays
    are a pair, or have the names ``weights`` and ``biases``.
    """
    data = read_bytes(path)
    file = io.BytesIO(data)
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    held = load_arrays(data[file.tell() :]) if dtype.hasobject and shape == () else None
    if not isinstance(held, Mapping):
        raise RunError(
            "It is an array of NumPy, not a dictionary of a network's.",
            "Expected what np.save wrote of {'conv1': [weights, biases], ...}.",
        )
    arrays = {_text(name): _pair(_text(name), told) for name, told in held.items()}
    names = [conv.name for conv in CAFFE.convs]
    names += [*(layer.name for layer in CAFFE.dense), CAFFE.output_name]
    if arrays.keys() != {*names}:
        apart = ", ".join(sorted(arrays.keys() ^ {*names})[:4])
        raise RunError(
            f"Its layers are not those of AlexNet: {apart}.", f"Expected {', '.join(names)}."
        )
    layers = LayerList(None, 2 * len(data))
    for conv in CAFFE.convs:
        kernel, bias = arrays[conv.name]
        groups = layers.count_groups(kernel)
        pads = (conv.padding, conv.padding)
        layers.add_convolution(conv.name, kernel, bias, conv.stride, pads, groups)
        layers.add(ir.Activation(conv.name))
        if conv.norm:
            layers.add(ir.Normalisation(conv.name, conv.norm))
        if conv.pool:
            layers.add_pool(conv.name, conv.pool.kernel_size, conv.pool.stride)
    layers.flatten()
    for name in names[len(CAFFE.convs) :]:
        layers.add_dense(name, *arrays[name])
        if name != CAFFE.output_name:
            layers.add(ir.Activation(name))
            layers.add_dropout(name, CAFFE.dropout.rate)
    said = "dictionary of arrays, which tells no layers: taken to be those of caffe"
    return assemble_layers(layers, (said,))


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def _pair(name: str, told: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a layer's weights and biases."""
    if isinstance(told, Mapping):
        by_name = {_text(key): value for key, value in told.items()}
        told = [by_name.get("weights"), by_name.get("biases")]
    good = isinstance(told, list | tuple) and len(told) == 2
    if not good or not all(isinstance(one, np.ndarray) and one.dtype.kind == "f" for one in told):
        raise RunError(f"{name!r} has no weights and biases.", "Expected a pair of arrays.")
    return told[0], told[1]
