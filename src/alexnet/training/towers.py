"""One network over several processes: a tower each, as the two GPUs of 2012 had (section 3.5).

A process has half of the maps of every convolution and half of the units of every hidden layer.
Activations are exchanged only where the paper's lines cross: into the convolutions that see all
maps (conv3) and into the fully-connected layers; the output layer adds what each half says. The
gradients come back the same way. Towers joined are the grouped network of one device: the same
parameters under the same names, of which each process has a part.

The hybrid of 2014 ("one weird trick", facts 3b) divides only the fully-connected layers, which
have 95 % of the parameters; before them the images of all processes come together.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.errors import ConfigError
from alexnet.layers import Dropout
from alexnet.network import make_conv_block, make_dense_block
from alexnet.spec import Spec
from alexnet.training.groups import Group, add, gather, reduce

Kind = Literal["towers", "hybrid"]


class Exchange(nn.Module):
    """Brings the parts of all processes together along a dimension."""

    def __init__(self, group: Group, dim: int) -> None:
        super().__init__()
        self.group, self.dim = group, dim

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # graphs end where processes meet
    def forward(self, part: Tensor) -> Tensor:
        """Join ``(N, C, ...)`` of each process, along images (0) or along maps or units (1)."""
        return gather(part, self.group, self.dim)


class SharedOutput(nn.Module):
    """The output layer of units that are divided: ``(N, part of the units)`` to logits.

    The logits of all images are on each process with towers, each process's own images' with the
    hybrid, whose images come from several.
    """

    def __init__(self, inputs: int, classes: int, group: Group, kind: Kind) -> None:
        super().__init__()
        bare = nn.Linear(inputs, classes)
        self.weight, self.bias = bare.weight, bare.bias
        self.group, self.kind = group, kind

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, units: Tensor) -> Tensor:
        """Add what the units of every process say."""
        said = F.linear(units, self.weight).to(self.bias.dtype)  # sums want more than bfloat16
        logits = add(said, self.group) if self.kind == "towers" else reduce(said, self.group, 0)
        return logits + self.bias


class DividedNetwork(nn.Sequential):
    """One process's part of a spec's network: pixels to logits.

    Parameters
    ----------
    spec : Spec
        Of the whole network.
    group : Group
        The processes that divide it; two for towers.
    kind : {"towers", "hybrid"}
        Which layers are divided: all, or the fully-connected ones.

    Raises
    ------
    ConfigError
        When the network cannot be divided so.
    """

    def __init__(self, spec: Spec, group: Group, kind: Kind) -> None:
        check(spec, group.size, kind)
        part = _part_of(spec, group.size, kind)
        modules: OrderedDict[str, nn.Module] = OrderedDict()
        sizes = {layer.name: layer.size for layer in spec.layers()}
        maps = spec.in_channels
        for place, (conv, whole) in enumerate(zip(part.convs, spec.convs, strict=True)):
            if place and kind == "towers" and not whole.grouped:
                modules[f"exchange_into_{conv.name}"] = Exchange(group, 1)
                maps *= group.size
            modules.update(make_conv_block(part, conv, maps, sizes[conv.name]))
            maps = conv.out_channels
        inputs = maps * spec.flat[1] ** 2
        if spec.dense:
            into = spec.dense[0].name
            modules[f"exchange_into_{into}"] = Exchange(group, 1 if kind == "towers" else 0)
            inputs *= group.size if kind == "towers" else 1
        modules["flatten"] = nn.Flatten()
        for place, dense in enumerate(part.dense):
            if place:
                modules[f"exchange_into_{dense.name}"] = Exchange(group, 1)
                inputs *= group.size
            block = make_dense_block(part, dense.name, inputs, dense.units)
            if part.dropout.place == "outputs":
                _shift(block, group.rank * dense.units)
            modules.update(block)
            inputs = dense.units
        modules[spec.output_name] = SharedOutput(inputs, spec.num_classes, group, kind)
        super().__init__(modules)


def _shift(block: Mapping[str, nn.Module], first_unit: int) -> None:
    """Tell a block's dropout that its units are not the layer's first."""
    for layer in block.values():
        if isinstance(layer, Dropout):
            layer.first_unit = first_unit


def _part_of(spec: Spec, parts: int, kind: Kind) -> Spec:
    """Return the spec whose layers have the widths of one process's part."""
    dense = tuple(replace(dense, units=dense.units // parts) for dense in spec.dense)
    if kind == "hybrid":
        return replace(spec, dense=dense)
    convs = tuple(
        replace(conv, out_channels=conv.out_channels // parts, grouped=False) for conv in spec.convs
    )
    return replace(spec, towers=1, convs=convs, dense=dense)


def check(spec: Spec, parts: int, kind: Kind) -> None:
    """See that a network can be divided among so many processes.

    Raises
    ------
    ConfigError
        When it cannot, with the reason.
    """
    if kind == "towers":
        if spec.towers != 2:
            raise ConfigError(
                f"Network {spec.name!r} has one tower, which two processes cannot share.",
                "Take --network paper or as_run, which have two, or leave out --towers.",
            )
        if any(conv.norm and conv.norm.span == "layer" for conv in spec.convs):
            raise ConfigError(
                f"The normalisation of {spec.name!r} looks across its towers.",
                "Set network.convN.norm.span=tower, or leave out --towers.",
            )
    elif not spec.dense:
        raise ConfigError(
            f"Network {spec.name!r} has no hidden fully-connected layer to divide.",
            "Leave out --hybrid.",
        )
    if odd := next((dense for dense in spec.dense if dense.units % parts), None):
        raise ConfigError(
            f"The {odd.units:,} units of {odd.name} cannot be divided among {parts} processes.",
            "Start as many processes as divide them.",
        )


@dataclass(frozen=True, slots=True)
class Division:
    """Which parameters are divided among the processes, and along which dimension."""

    dims: Mapping[str, int]  # by parameter; one that is not here is on every process, whole
    group: Group

    def local(self, whole: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return this process's part of the tensors of the whole network."""
        group = self.group
        return {
            name: tensor.chunk(group.size, self.dims[name])[group.rank].contiguous()
            if name in self.dims
            else tensor
            for name, tensor in whole.items()
        }

    def whole(self, local: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of the whole network; every process must ask at once."""
        return {
            name: self.group.gathered(tensor.detach(), self.dims[name])
            if name in self.dims
            else tensor.detach()
            for name, tensor in local.items()
        }


def division(spec: Spec, group: Group, kind: Kind) -> Division:
    """Return how the parameters of a spec's network are divided: by outputs, fc8 by inputs."""
    convs = [conv.name for conv in spec.convs] if kind == "towers" else []
    layers = convs + [dense.name for dense in spec.dense]
    dims = {f"{layer}.{what}": 0 for layer in layers for what in ("weight", "bias")}
    return Division(dims | {f"{spec.output_name}.weight": 1}, group)
