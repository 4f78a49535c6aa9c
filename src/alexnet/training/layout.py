"""How a network lies over the processes of its training: which part each has, and the sums.

With data parallelism each process has the whole network and a part of every batch. With towers, as
the two GPUs of 2012 (section 3.5), a process has half of the channels of every convolution and
half of the units of every hidden layer. Activations are exchanged only where the paper's lines
cross: into the convolutions that see all channels (conv3) and into the fully-connected layers; the
output layer sums what each half contributes to the logits. The gradients come back the same way.
Towers joined are the grouped network of one device: the same parameters under the same names, of
which each process has a part.

The hybrid of 2014 ("one weird trick", facts 3b) divides only the fully-connected layers, which
have 95 % of the parameters; before them the images of all processes come together.
"""

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from alexnet.data.loader import Part
from alexnet.device import Device
from alexnet.errors import ConfigError
from alexnet.fused import fuse
from alexnet.layers import Dropout
from alexnet.network import AlexNet, make_conv_block, make_dense_block
from alexnet.spec import Spec
from alexnet.training.distributed import Collective, DistributedContext, Group, run_collective
from alexnet.training.trainer import Replica, keep_local

DividedLayout = Literal["towers", "hybrid"]
LayoutName = Literal["data", "towers", "hybrid"]


class Exchange(nn.Module):
    """Joins the parts of all processes along images (dimension 0), or channels or units (1).

    A part's gradient is the sum of those on all processes, each of which saw it.
    """

    def __init__(self, group: Group, dim: int) -> None:
        super().__init__()
        self.gather = partial(group.all_gather, dim=dim)
        self.scatter = partial(group.reduce_scatter, dim=dim)
        self.run_collective = _end_graphs_at(run_collective)

    def forward(self, part: Tensor) -> Tensor:
        """Join ``(N, C, ...)`` of each process."""
        return self.run_collective(part, self.gather, self.scatter)


class SharedOutput(nn.Module):
    """The output layer of divided units: ``(N, part of the units)`` to logits ``(N, classes)``.

    With towers the logits of all images are on each process, which goes on to compute the same
    loss: a part's gradient is that of the sum. With the hybrid each process keeps its own images'.
    """

    def __init__(self, inputs: int, classes: int, group: Group, layout: DividedLayout) -> None:
        super().__init__()
        linear = nn.Linear(inputs, classes)
        self.weight, self.bias = linear.weight, linear.bias
        self.sum: Collective = group.all_reduce
        self.sum_backward: Collective = keep_local
        if layout == "hybrid":
            self.sum = partial(group.reduce_scatter, dim=0)
            self.sum_backward = partial(group.all_gather, dim=0)
        self.run_collective = _end_graphs_at(run_collective)

    def forward(self, units: Tensor) -> Tensor:
        """Sum the logits over the parts of the units, in the bias's type: wider than bfloat16."""
        part = F.linear(units, self.weight).to(self.bias.dtype)
        return self.run_collective(part, self.sum, self.sum_backward) + self.bias


def _end_graphs_at(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Keep a function out of compiled graphs: where processes meet, each ends.

    Said here and not by a decorator, which would load PyTorch's compiler for every training.
    """
    disabled: Callable[..., Tensor] = torch.compiler.disable(function)
    return disabled


class DividedNetwork(nn.Sequential):
    """One process's part of a spec's network: pixels to logits.

    `group` are the processes that divide it, two for towers.
    """

    def __init__(self, spec: Spec, group: Group, layout: DividedLayout) -> None:
        check_divisible(spec, group.size, layout)
        towers = layout == "towers"
        part = _narrow(spec, group.size, layout)
        modules: OrderedDict[str, nn.Module] = OrderedDict()
        sizes = {layer.name: layer.size for layer in spec.layers()}
        channels = spec.in_channels
        for place, (conv, whole) in enumerate(zip(part.convs, spec.convs, strict=True)):
            if place and towers and not whole.grouped:
                modules[f"exchange_into_{conv.name}"] = Exchange(group, 1)
                channels *= group.size
            modules.update(make_conv_block(part, conv, channels, sizes[conv.name]))
            channels = conv.out_channels
        inputs = channels * spec.flat[1] ** 2
        if spec.dense:
            modules[f"exchange_into_{spec.dense[0].name}"] = Exchange(group, 1 if towers else 0)
            inputs *= group.size if towers else 1
        modules["flatten"] = nn.Flatten()
        for place, dense in enumerate(part.dense):
            if place:
                modules[f"exchange_into_{dense.name}"] = Exchange(group, 1)
                inputs *= group.size
            block = make_dense_block(part, dense.name, inputs, dense.units)
            for layer in block.values() if part.dropout.place == "outputs" else ():
                if isinstance(layer, Dropout):
                    layer.first_unit = group.rank * dense.units
            modules.update(block)
            inputs = dense.units
        modules[spec.output_name] = SharedOutput(inputs, spec.num_classes, group, layout)
        super().__init__(modules)


def _narrow(spec: Spec, parts: int, layout: DividedLayout) -> Spec:
    """Return the spec whose layers have the widths of one process's part."""
    dense = tuple(replace(dense, units=dense.units // parts) for dense in spec.dense)
    if layout == "hybrid":
        return replace(spec, dense=dense)
    convs = tuple(
        replace(conv, out_channels=conv.out_channels // parts, grouped=False) for conv in spec.convs
    )
    return replace(spec, towers=1, convs=convs, dense=dense)


def check_divisible(spec: Spec, parts: int, layout: DividedLayout) -> None:
    """See that a network can be divided among so many processes: else a `ConfigError`."""
    if layout == "towers":
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

    def take_part(self, whole: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return this process's part of the tensors of the whole network."""
        group = self.group
        return {
            name: tensor.chunk(group.size, self.dims[name])[group.rank].contiguous()
            if name in self.dims
            else tensor
            for name, tensor in whole.items()
        }

    def join(self, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of the whole network; every process must ask at once."""
        return {
            name: self.group.all_gather(tensor.detach(), self.dims[name])
            if name in self.dims
            else tensor.detach()
            for name, tensor in parts.items()
        }


def make_division(spec: Spec, group: Group, layout: DividedLayout) -> Division:
    """Return how the parameters of a spec's network are divided: by outputs, fc8 by inputs."""
    convs = [conv.name for conv in spec.convs] if layout == "towers" else []
    layers = convs + [dense.name for dense in spec.dense]
    dims = {f"{layer}.{what}": 0 for layer in layers for what in ("weight", "bias")}
    return Division(dims | {f"{spec.output_name}.weight": 1}, group)


@dataclass(frozen=True, slots=True)
class Layout:
    """A process's part of a network and of every batch."""

    replica: Replica
    part: Part  # of the images of a batch
    even: bool  # whether all processes must have equally many images
    division: Division
    activations: Group  # who exchange activations and their gradients, and what was sent
    gradients: float  # bytes of the parameters' gradients that it sends a step
    in_data: float  # bytes that it would send a step with data parallelism alone


def lay_out(
    network: AlexNet, context: DistributedContext, name: LayoutName, *, fast: torch.dtype | None
) -> Layout:
    """Lay a network, whole and the same on each process, out over them, its weights as they are.

    `fast` is the type of products for which it gets its fast form; None leaves the plain layers.
    A network or a number of processes that does not allow it is a `ConfigError`.
    """
    everyone = Group(None, context.rank, context.world_size)
    in_data = count_gradient_bytes(network, (), everyone)
    if name == "data":
        replica = _replicate(network, everyone, (), fast=fast)
        alone = Division({}, Group())
        return Layout(replica, context.part, False, alone, everyone, in_data, in_data)
    if context.world_size == 1:
        raise ConfigError(
            f"--{name} divides the network among processes, and this is one.",
            "Start several: alexnet launch --processes 2 train ...",
        )
    data, within = (everyone, everyone) if name == "hybrid" else _make_pairs(context)
    check_divisible(network.spec, within.size, name)
    example = next(network.parameters())
    device = Device.of(example)
    with torch.device("meta"):
        local = DividedNetwork(network.spec, within, name)
    local = device.place_network(local.to(example.dtype).to_empty(device=device.torch))
    division = make_division(network.spec, replace(within), name)
    local.load_state_dict(division.take_part(network.state_dict()))
    trained = {key for key, parameter in network.named_parameters() if parameter.requires_grad}
    for key, parameter in local.named_parameters():
        parameter.requires_grad_(key in trained)
    unsummed = tuple(division.dims) if name == "hybrid" else ()
    replica = _replicate(local, data, unsummed, fast=fast)
    if name == "hybrid":
        replica = replace(replica, dropout_rows=partial(within.all_gather, dim=0))
    gradients = count_gradient_bytes(local, unsummed, data)
    part = Part(data.rank, data.size)
    return Layout(replica, part, name == "hybrid", division, within, gradients, in_data)


def count_gradient_bytes(network: nn.Module, left_out: Sequence[str], group: Group) -> float:
    """Return the bytes that a process sends when all but some gradients are summed in a ring."""
    sizes = (
        parameter.numel() * parameter.element_size()
        for name, parameter in network.named_parameters()
        if name not in left_out and parameter.requires_grad
    )
    return 2 * (group.size - 1) / group.size * sum(sizes)


def _make_pairs(context: DistributedContext) -> tuple[Group, Group]:
    """Return the processes with the same tower, and the two of one network: a mesh."""
    rank, world_size = context.rank, context.world_size
    if world_size % 2:
        raise ConfigError(
            f"{world_size} processes cannot be divided into pairs of towers.",
            "Start an even number.",
        )
    mesh = init_device_mesh(
        context.device.type, (world_size // 2, 2), mesh_dim_names=("data", "tower")
    )
    data = Group(mesh.get_group("data"), rank // 2, world_size // 2)
    return data, Group(mesh.get_group("tower"), rank % 2, 2)


def _replicate(
    network: nn.Sequential, data: Group, unsummed: Sequence[str], *, fast: torch.dtype | None
) -> Replica:
    """Wrap a network so that gradients of all parameters but some are summed over `data`.

    PyTorch divides that sum by the number of processes. The loss makes up for it; or, where some
    gradients are not summed, each of the others does.
    """
    forward: nn.Module = network if fast is None else fuse(network)
    no_sync: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    trained = {name: one for name, one in network.named_parameters() if one.requires_grad}
    if data.size > 1 and trained.keys() - unsummed:  # else there is nothing to sum
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(forward, unsummed)
        forward = DistributedDataParallel(
            forward,
            process_group=data.handle,
            init_sync=False,  # all start from the same weights
            gradient_as_bucket_view=True,
        )
        no_sync = forward.no_sync
        for name, parameter in trained.items() if unsummed else ():
            if name not in unsummed:
                parameter.register_hook(partial(torch.mul, other=data.size))
    if fast is not None:
        forward, _ = Device.of(next(network.parameters())).compile(forward, fast)
    divisor = 1 if unsummed else data.size
    return Replica(network, forward, no_sync, divisor, data.all_reduce)
