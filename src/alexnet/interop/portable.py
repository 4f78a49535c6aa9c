"""A network in operators that every reader of ONNX has, and weights of two bytes or of one.

LRN is what keeps AlexNet out of runtimes: some have no such operator, others mean another sum by
it. Here it is squares, a sum over neighbours and two square roots. Pools say how far they reach
past the edge, instead of rounding up.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from alexnet.data.shards import open_prepared
from alexnet.errors import DataError
from alexnet.interop import Runtime, WeightType
from alexnet.layers import (
    LocallyConnected2d,
    LocalResponseNorm,
    WithinChannelResponseNorm,
    make_band,
)
from alexnet.network import build
from alexnet.predictor import Predictor
from alexnet.spec import LRN

WRITTEN_OPSET = 18  # the oldest that PyTorch's exporter writes
PORTABLE_OPSET = 13  # of 2020: ONNX Runtime 1.6, TensorRT 8, OpenCV 4.5.2
POOLED_BELOW = 2048  # numbers of a row, for which ONNX Runtime's vectorised pool has a buffer


class PortableLRN(LocalResponseNorm):
    """LRN in operators that every reader has; `channels` is for the forms with weights."""

    def __init__(self, norm: LRN, towers: int, channels: int) -> None:
        super().__init__(norm, towers)


class ConvolvedLRN(PortableLRN):
    """The sum over neighbouring channels as a 1x1 convolution, alpha in its weight, k its bias."""

    def __init__(self, norm: LRN, towers: int, channels: int) -> None:
        super().__init__(norm, towers, channels)
        band = make_band(torch.empty(1, channels), norm, self.groups) * (norm.alpha / norm.size)
        # Made in `forward` they would be operators of the file: those of a large band are not
        # folded into a constant, and OpenCV 4 does not read them.
        self.register_buffer("band", band)
        self.register_buffer("bias", torch.full((channels,), float(norm.k)))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(N, C, H, W)``."""
        energy = F.conv2d(x * x, self.band, self.bias, groups=self.groups)  # type: ignore[arg-type]
        return _divide(x, energy, self.norm)


class SlicedLRN(PortableLRN):
    """The sum over neighbouring channels as a sum of shifted slices."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(N, C, H, W)``."""
        before, size = self.norm.size // 2, self.norm.size
        energies = []
        squares, each = x * x, x.shape[1] // self.groups
        starts = range(0, x.shape[1], each)  # slices, for Split of this opset has other attributes
        for part in [squares[:, at : at + each] for at in starts] if self.groups > 1 else [squares]:
            padded = F.pad(part, (0, 0, 0, 0, before, size - 1 - before))
            slices = [padded[:, shift : shift + part.shape[1]] for shift in range(size)]
            energies.append(sum(slices[1:], slices[0]))
        energy = torch.cat(energies, 1)
        return _divide(x, self.norm.k + self.norm.alpha / size * energy, self.norm)


class PooledLRN(PortableLRN):
    """The sum over neighbouring channels as an average pool, for which they become rows."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(N, C, H, W)``."""
        before, size = self.norm.size // 2, self.norm.size
        rows = (x * x).reshape(-1, self.groups, x.shape[1] // self.groups, x[0, 0].numel())
        padded = F.pad(rows, (0, 0, before, size - 1 - before))
        mean = F.avg_pool2d(padded, (size, 1), stride=1).reshape(-1, *x.shape[1:])
        return _divide(x, self.norm.k + self.norm.alpha * mean, self.norm)


class PooledOrConvolvedLRN(PooledLRN):
    """`PooledLRN` on small maps, however many channels, and `ConvolvedLRN` on large ones."""

    def __init__(self, norm: LRN, towers: int, channels: int) -> None:
        super().__init__(norm, towers, channels)
        self.convolved = ConvolvedLRN(norm, towers, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(N, C, H, W)``."""
        if x[0, 0].numel() < POOLED_BELOW:
            return super().forward(x)
        result: Tensor = self.convolved(x)
        return result


def _divide(x: Tensor, base: Tensor, norm: LRN) -> Tensor:
    """Return ``x / base**beta``; the paper's .75 by square roots, cheaper than a power."""
    if norm.beta != 0.75:
        return x * base.pow(-norm.beta)
    root = base.sqrt()
    return x / (root * root.sqrt())


class PaddedWithinChannelLRN(WithinChannelResponseNorm):
    """Zeros around the map are an operator of their own: OpenCV 4 may not count a pool's."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(N, C, H, W)``."""
        norm = self.norm
        mean = F.avg_pool2d(F.pad(x * x, (norm.size // 2,) * 4), norm.size, stride=1)
        return x * (norm.k + norm.alpha * mean).pow(-norm.beta)


class SlicedLocal(nn.Module):
    """Local filters over slices of the padded map: an unfold needs a newer opset's Shape."""

    def __init__(self, layer: LocallyConnected2d) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.kernel, self.padding, self.size = layer.kernel_size, layer.padding, layer.out_size

    def forward(self, x: Tensor) -> Tensor:
        """Apply each position's own filters to ``(N, C, H, W)``."""
        padded, size = F.pad(x, (self.padding,) * 4), self.size
        steps = [(i, j) for i in range(self.kernel) for j in range(self.kernel)]
        slices = [padded[:, :, i : i + size, j : j + size] for i, j in steps]
        # One channel after the other, no new axis: with those OpenCV 4 is wrong for several images.
        windows = torch.cat(slices, 1).reshape(-1, self.weight.shape[1], size**2)  # (N, k k C, P)
        ordered = self.weight.unflatten(1, (-1, len(steps))).transpose(1, 2).flatten(1, 2)
        outputs, inputs, positions = ordered.shape
        out = F.conv2d(
            windows.transpose(1, 2).reshape(-1, positions * inputs, 1, 1),
            ordered.permute(2, 0, 1).reshape(positions * outputs, inputs, 1, 1),
            groups=positions,
        )
        rows = out.reshape(-1, positions, outputs).transpose(1, 2)  # (N, M, P)
        return rows.reshape(-1, *self.bias.shape) + self.bias


class ExplicitPool(nn.Module):
    """A pool that rounds its positions up, as one that says how far it reaches past the edge."""

    def __init__(self, pool: nn.MaxPool2d | nn.AvgPool2d) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Emit one operator for ``(N, C, H, W)``; what lies past the edge does not count."""
        shape = self.pool(torch.empty(1, *x.shape[1:], device="meta")).shape[1:]
        size, stride = int(self.pool.kernel_size), int(self.pool.stride)  # type: ignore[arg-type]
        past = max(0, (shape[-1] - 1) * stride + size - x.shape[-1])
        kind = "MaxPool" if isinstance(self.pool, nn.MaxPool2d) else "AveragePool"
        attributes: dict[str, Any] = {
            "kernel_shape": [size] * 2,
            "strides": [stride] * 2,
            "pads": [0, 0, past, past],
        }
        result: Tensor = torch.onnx.ops.symbolic(
            kind, (x,), attributes, dtype=x.dtype, shape=(x.shape[0], *shape)
        )
        return result


# Which form of LRN is the fastest there: benchmarks/results/2026-11-29_portable.
FASTEST: Mapping[Runtime, type[PortableLRN]] = {
    "onnxruntime": PooledOrConvolvedLRN,
    "openvino": SlicedLRN,
    "opencv": PooledLRN,
    "web": SlicedLRN,
}


def make_portable(network: nn.Sequential, lrn: type[PortableLRN]) -> None:
    """Put the plain forms in the place of layers that a reader may lack, LRN's as given."""
    channels = 0  # that come out of the last layer of weights
    for name, layer in network.named_children():
        if isinstance(layer, nn.Conv2d | LocallyConnected2d):
            channels = layer.weight.shape[0]
        if isinstance(layer, LocalResponseNorm):
            network.set_submodule(name, lrn(layer.norm, layer.groups, channels))
        elif isinstance(layer, WithinChannelResponseNorm):
            network.set_submodule(name, PaddedWithinChannelLRN(layer.norm))
        elif isinstance(layer, LocallyConnected2d):
            network.set_submodule(name, SlicedLocal(layer))
        elif isinstance(layer, nn.MaxPool2d | nn.AvgPool2d) and layer.ceil_mode:
            network.set_submodule(name, ExplicitPool(layer))


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """A weight in fewer bytes, and by what each of its output channels is multiplied."""

    values: NDArray[np.float16] | NDArray[np.int8]
    scale: NDArray[np.float32] | None = None  # (outputs, 1, ...)

    def restore(self) -> Tensor:
        """Return the float32 weight that a reader computes with."""
        wide = self.values.astype(np.float32)
        return torch.from_numpy(wide if self.scale is None else wide * self.scale)


def store_weights(network: nn.Module, dtype: WeightType) -> dict[str, StoredWeight]:
    """Return every weight of a network in fewer bytes, by name; biases stay as they are.

    ``float16`` rounds to 11 bits. ``int8`` rounds to 127 steps each way of the largest weight of an
    output channel. Of ``float32`` there is nothing to store: the result is empty.
    """
    stored = {}
    for name, parameter in network.named_parameters():
        weight = parameter.detach().numpy()
        if weight.ndim == 1 or dtype == "float32" or name.endswith("bias"):
            continue
        if dtype == "float16":
            stored[name] = StoredWeight(weight.astype(np.float16))
        else:
            largest = np.abs(weight).max(tuple(range(1, weight.ndim)), keepdims=True)
            scale = np.maximum(largest, np.finfo(np.float32).tiny) / 127
            stored[name] = StoredWeight(np.rint(weight / scale).astype(np.int8), scale)
    return stored


def with_stored_weights(model: Predictor, stored: Mapping[str, StoredWeight]) -> Predictor:
    """Return a predictor that computes with the weights as a reader of the file restores them."""
    if not stored:
        return model
    network = build(model.spec, seed=None).eval()
    restored = {name: weight.restore() for name, weight in stored.items()}
    network.load_state_dict({**model.network.state_dict(), **restored})
    return replace(model, network=network)


def measure_cost(model: Predictor, dtype: WeightType, data: str) -> dict[str, float] | None:
    """Test a network before and after its weights are stored, on a run's held-out images.

    Centre crops, on all of them. ``None`` where the prepared data set is not there any more.
    """
    stored = with_stored_weights(model, store_weights(model.network, dtype))
    try:
        prepared = open_prepared(Path(data))
        before, after = (one.in_float32.evaluate(prepared, crops=1) for one in (model, stored))
    except DataError:
        return None
    return {
        "images": before.images, "top1": after.top1, "top5": after.top5,
        "float32_top1": before.top1, "float32_top5": before.top5,
    }  # fmt: skip


def declare_portable(proto: Any) -> None:
    """Declare a graph as what it is: of an opset in which its operators mean the same already.

    onnx has no converter for Pad. Its checker refuses what only a newer opset has. OpenCV 4 counts
    an average pool's padding if PyTorch is said to have written the file, whatever the pool says.
    """
    from onnx import checker, helper

    for node in proto.graph.node:
        for attribute in [one for one in node.attribute if one.name == "allowzero"]:
            node.attribute.remove(attribute)  # of Reshape, from 14 on; no shape here has a zero
    proto.opset_import[0].version = PORTABLE_OPSET
    proto.ir_version = helper.find_min_ir_version_for(proto.opset_import)
    proto.producer_name = "alexnet"
    checker.check_model(proto, full_check=True)


def insert_stored(graph: Any, stored: Mapping[str, StoredWeight]) -> None:
    """Put stored weights in the place of a graph's, and the operators that widen them again.

    Cast and Mul of constants are what every reader has, and works out once, when it loads the file.
    """
    from onnx import TensorProto, helper, numpy_helper

    widening = []
    for tensor in list(graph.initializer):
        weight = stored.get(tensor.name.removeprefix("network."))
        if weight is None:
            continue
        graph.initializer.remove(tensor)
        parts = {f"{tensor.name}.stored": weight.values, f"{tensor.name}.scale": weight.scale}
        kept = {name: values for name, values in parts.items() if values is not None}
        graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in kept.items())
        names = [*kept, tensor.name]
        wide = tensor.name if weight.scale is None else f"{tensor.name}.wide"
        widening.append(helper.make_node("Cast", names[:1], [wide], to=TensorProto.FLOAT))
        if weight.scale is not None:
            widening.append(helper.make_node("Mul", [wide, names[1]], [tensor.name]))
    nodes = [*widening, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
