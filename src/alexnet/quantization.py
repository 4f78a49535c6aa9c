"""A trained network in int8 on the processor: fewer bytes to read, more products a second.

Convolutions and fully-connected layers multiply 8-bit whole numbers and add them up in 32 bits.
Weights have one scale an output channel and lie evenly around zero; what a layer reads has one
scale, fixed by the smallest and the largest value that calibration images put there. What stands
between two such layers (normalisation, pooling) is computed in bfloat16 or float32 as before.

The products are PyTorch's own oneDNN operators, the ones that its compiler lowers quantised models
to; called one by one they were faster than through it (`benchmarks/results/2026-11-26_int8`).
"""

import inspect
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn

from alexnet.device import Device
from alexnet.errors import ConfigError, DataError
from alexnet.fused import fuse
from alexnet.layers import Dropout
from alexnet.network import AlexNet

LEVELS = 255  # steps of an 8-bit activation, from its lowest value to its highest
WEIGHT_LEVELS = 127  # steps of a weight on either side of zero; -128 is left out
CALIBRATION_BATCH = 32  # images


@dataclass(frozen=True, slots=True)
class QuantRange:
    """The values of a layer's input, 0 among them, and how 0 to 255 stands for them."""

    low: float  # at most 0
    high: float  # at least 0

    @property
    def scale(self) -> float:
        """What one step is worth."""
        return (self.high - self.low) / LEVELS or 1.0  # nothing but zeros: any scale is right

    @property
    def zero_point(self) -> int:
        """The whole number that stands for 0 exactly, 0 to 255: what padding is made of."""
        return round(-self.low / self.scale)

    def include(self, values: Tensor) -> Self:
        """Return the range with some values put in."""
        low, high = (float(end) for end in values.aminmax())
        return type(self)(min(self.low, low), max(self.high, high))


def quantize_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round weights ``(M, ...)`` to int8, with one float32 scale for each of M output channels.

    ``values * scales`` is the weight, to half a step; values are -127 to 127.

    Examples
    --------
    >>> import torch
    >>> quantize_weight(torch.tensor([[0.5, -1.27], [0.0, 254.0]]))
    (tensor([[  50, -127],
            [   0,  127]], dtype=torch.int8), tensor([0.0100, 2.0000]))
    """
    rows = weight.detach().float().flatten(1)
    largest = rows.abs().amax(1)
    scales = torch.where(largest > 0, largest, 1.0) / WEIGHT_LEVELS
    values = (rows / scales[:, None]).round().to(torch.int8)
    return values.reshape(weight.shape), scales


class Quantize(nn.Module):
    """Values to whole numbers: ``(N, ...)`` float to uint8, clipped to the range."""

    def __init__(self, range: QuantRange) -> None:
        super().__init__()
        self.range = range

    def forward(self, x: Tensor) -> Tensor:
        """Round to the nearest step."""
        steps = x.float() * (1 / self.range.scale) + self.range.zero_point
        return steps.round().clamp(0, LEVELS).to(torch.uint8)

    def extra_repr(self) -> str:
        """Show the range in `print(network)`."""
        return str(self.range)


class Int8Layer(nn.Module):
    """A convolution or fully-connected layer over 8-bit numbers, and the ReLU after it.

    `input` is the range of its uint8 inputs; outputs are uint8 over the range `output`, or of that
    floating dtype. The layer that it is made of is left as it is.
    """

    def __init__(
        self,
        layer: nn.Conv2d | nn.Linear,
        input: QuantRange,
        relu: bool,
        output: QuantRange | torch.dtype,
    ) -> None:
        super().__init__()
        values, scales = quantize_weight(layer.weight)
        self.input, self.relu, self.output = input, relu, output
        self.arguments: list[Any] = []  # of the operator, after the weights
        if isinstance(layer, nn.Conv2d):
            self.operator = torch.ops.onednn.qconv2d_pointwise
            self.arguments += map(list, (layer.stride, layer.padding, layer.dilation))
            self.arguments += [layer.groups]
            packed = torch.ops.onednn.qconv_prepack(
                values, scales, input.scale, input.zero_point, *self.arguments, None
            )
        else:
            self.operator = torch.ops.onednn.qlinear_pointwise
            packed = torch.ops.onednn.qlinear_prepack(values, None)
        bias = None if layer.bias is None else layer.bias.detach().float()
        self.weights = (packed, scales, torch.zeros_like(scales, dtype=torch.int32), bias)
        if isinstance(output, QuantRange):
            self.arguments += [output.scale, output.zero_point, torch.uint8]
        else:
            self.arguments += [1.0, 0, output]
        self.arguments += ["relu" if relu else "none", [], ""]

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` or ``(N, units)`` uint8 to outputs of the layer's dtype."""
        scale, zero_point = self.input.scale, self.input.zero_point
        return self.operator(x, scale, zero_point, *self.weights, *self.arguments)

    def extra_repr(self) -> str:
        """Show the settings in `print(network)`."""
        return f"input={self.input}, relu={self.relu}, output={self.output}"


class Int8Network(nn.Sequential):
    """A network whose convolutions and fully-connected layers are `Int8Layer`.

    ``(N, 3, image_size, image_size)`` float pixels to ``(N, num_classes)`` float32 logits, as the
    network it is made of; that one is left as it is. It cannot be trained, and runs on the
    processor alone.

    Members have the paper's names. What stands before a layer, and its rounding, is the member
    ``to_conv2``; there is none where only a ReLU does, whose layer outputs uint8 itself. `ranges`
    are those of every layer's input, by name, from `calibrate`; what stands between the layers is
    computed in `dtype`, bfloat16 or float32.
    """

    def __init__(
        self, network: AlexNet, ranges: Mapping[str, QuantRange], dtype: torch.dtype
    ) -> None:
        lead, blocks = _split_at_layers(network)
        modules: OrderedDict[str, nn.Module] = OrderedDict()
        first, last = blocks[0], blocks[-1]
        modules[f"to_{first.name}"] = nn.Sequential(*lead, Quantize(ranges[first.name]))
        for block, following in pairwise(blocks):
            next_input = ranges[following.name]
            direct = _direct_output(block.after, next_input)
            wide = torch.float32 if _have_weights(block.after) else dtype
            modules[block.name] = Int8Layer(
                block.layer, ranges[block.name], block.relu, direct or wide
            )
            if not direct:
                modules[f"to_{following.name}"] = nn.Sequential(
                    *fuse(nn.Sequential(*block.after)), Quantize(next_input)
                )
        modules[last.name] = Int8Layer(last.layer, ranges[last.name], last.relu, torch.float32)
        if last.after:
            modules["end"] = nn.Sequential(*last.after)
        super().__init__(modules)
        self.spec = network.spec


@dataclass(frozen=True, slots=True)
class _Block:
    """A layer that is computed in int8, and what follows it up to the next one."""

    name: str
    layer: nn.Conv2d | nn.Linear
    relu: bool  # whether a ReLU comes first of what follows
    after: tuple[nn.Module, ...]  # the rest


def _split_at_layers(network: AlexNet) -> tuple[list[nn.Module], list[_Block]]:
    """Return what stands before the first layer, and the layers."""
    groups: list[list[tuple[str, nn.Module]]] = [[]]
    for name, member in network.named_children():
        if isinstance(member, nn.Conv2d | nn.Linear):
            groups.append([])
        groups[-1].append((name, member))
    lead, *rest = groups
    blocks = []
    for (name, layer), *following in rest:
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        after = [member for _, member in following]
        relu = bool(after) and isinstance(after[0], nn.ReLU)
        blocks.append(_Block(name, layer, relu, tuple(after[relu:])))
    return [member for _, member in lead], blocks


def _have_weights(members: Iterable[nn.Module]) -> bool:
    """Whether some of them compute in float32 because their weights do: local layers."""
    return any(True for member in members for _ in member.parameters())


def _direct_output(after: Iterable[nn.Module], next_input: QuantRange) -> QuantRange | None:
    """Return the range of uint8 outputs that the next layer can take as they are, or None.

    Only dropout, at test a constant factor, may stand between the two.
    """
    for member in after:
        if not isinstance(member, Dropout):
            return None
        if member.form == "2012":
            kept = 1 - member.rate
            next_input = QuantRange(next_input.low / kept, next_input.high / kept)
    return next_input


@torch.inference_mode()
def calibrate(network: AlexNet, pixels: Tensor) -> dict[str, QuantRange]:
    """Run calibration images, normalised as the network expects; return each input's range.

    Without an image it is a `DataError`.
    """
    if not len(pixels):
        raise DataError("There is no image to calibrate int8 with.", "Give a few hundred.")
    ranges: dict[str, QuantRange] = {}
    for x in pixels.split(CALIBRATION_BATCH):
        for name, member in network.named_children():
            if isinstance(member, nn.Conv2d | nn.Linear):
                ranges[name] = ranges.get(name, QuantRange(0.0, 0.0)).include(x)
            x = member(x)
    return ranges


def quantize_network(network: AlexNet, pixels: Tensor, *, compiled: bool = True) -> Int8Network:
    """Return a trained network in int8, its scales fixed by calibration images.

    `network`, in evaluation mode and on the processor, is left as it is. `pixels` are
    ``(N, 3, image_size, image_size)`` float, normalised as it expects: a few hundred images of the
    training data; none is a `DataError`. The result maps pixels to float32 logits, and is called
    without gradients. With `compiled`, what stands between the layers is compiled where a compiler
    works, in some seconds at the first batch of each size.

    A network on a GPU, or a processor without int8 products, is a `ConfigError`.
    """
    device = Device.of(next(network.parameters()))
    if not device.is_cpu:
        raise ConfigError(
            f"int8 runs on the processor, and the network is on {device}.",
            "Load it with device=torch.device('cpu').",
        )
    if not device.has_int8:
        raise ConfigError(
            "This processor has no int8 products (AVX-512 VNNI or AMX).", "Use bf16 or fp32."
        )
    ranges = calibrate(network, pixels)
    quantized = Int8Network(network, ranges, device.choose_dtype("auto")).eval()
    if compiled and device.can_compile()[0]:
        for name, member in quantized.named_children():
            if not isinstance(member, Int8Layer):
                setattr(quantized, name, _compile_for_any_batch(member))
    return quantized


def _compile_for_any_batch(member: nn.Module) -> Any:
    """Compile once for every size of batch.

    By default the compiler counts all that it made of `nn.Sequential` together, and gives up
    after eight; newer versions can count each one apart.
    """
    apart = "isolate_recompiles" in inspect.signature(torch.compile).parameters
    more: dict[str, Any] = {"isolate_recompiles": True} if apart else {}
    return torch.compile(member, dynamic=True, **more)
