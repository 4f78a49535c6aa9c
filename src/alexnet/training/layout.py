"""How a network lies over the processes of its training, and how they come together."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from alexnet import device as devices
from alexnet.data.loader import Part
from alexnet.errors import ConfigError
from alexnet.fused import fuse
from alexnet.network import AlexNet
from alexnet.training.distributed import DistributedContext
from alexnet.training.execution import Execution
from alexnet.training.groups import Group, Traffic
from alexnet.training.towers import DividedNetwork, Division, check, division
from alexnet.training.trainer import Replica


@dataclass(frozen=True, slots=True)
class Layout:
    """A process's part of a network and of every batch."""

    replica: Replica
    part: Part  # of the images of a batch
    even: bool  # whether all processes must have equally many images
    divided: Division
    activations: Traffic  # bytes of activations and their gradients that this process has sent
    gradients: float  # bytes of the parameters' gradients that it sends a step
    in_data: float  # bytes that it would send a step with data parallelism alone


def lay_out(
    network: AlexNet, ranks: DistributedContext, execution: Execution, *, compile: bool
) -> Layout:
    """Lay a network out over the processes, its weights as they are.

    Parameters
    ----------
    network : AlexNet
        Whole and the same on each process, on its device.
    ranks : Ranks
        The processes.
    execution : Execution
        Its `layout` is how they share the work.
    compile : bool
        Whether to compile the network.

    Raises
    ------
    ConfigError
        When the network or the number of processes does not allow it.
    """
    kind, everyone = execution.layout, Group(None, ranks.rank, ranks.ranks)
    in_data = ring(network, (), everyone)
    if kind == "data":
        replica = _replica(network, everyone, (), compile=compile)
        alone = Division({}, Group())
        return Layout(replica, ranks.part, False, alone, everyone.traffic, in_data, in_data)
    if ranks.ranks == 1:
        raise ConfigError(
            f"--{kind} divides the network among processes, and this is one.",
            "Start several: alexnet launch --processes 2 train ...",
        )
    data, within = (everyone, everyone) if kind == "hybrid" else _pairs(ranks)
    check(network.spec, within.size, kind)
    device = next(network.parameters()).device
    with torch.device("meta"):
        local = DividedNetwork(network.spec, within, kind)
    local = devices.place_network(
        local.to(next(network.parameters()).dtype).to_empty(device=device), device
    )
    divided = division(network.spec, replace(within, traffic=Traffic()), kind)
    local.load_state_dict(divided.local(network.state_dict()))
    learned = {name for name, one in network.named_parameters() if one.requires_grad}
    for name, parameter in local.named_parameters():
        parameter.requires_grad_(name in learned)
    apart = tuple(divided.dims) if kind == "hybrid" else ()
    replica = _replica(local, data, apart, compile=compile)
    if kind == "hybrid":
        replica = replace(replica, rows=lambda rows: within.gathered(rows, 0))
    gradients = ring(local, apart, data)
    part = Part(data.rank, data.size)
    return Layout(replica, part, kind == "hybrid", divided, within.traffic, gradients, in_data)


def ring(network: nn.Module, left_out: Sequence[str], group: Group) -> float:
    """Return the bytes that a process sends when all but some gradients are summed in a ring."""
    sizes = (
        one.numel() * one.element_size()
        for name, one in network.named_parameters()
        if name not in left_out and one.requires_grad
    )
    return 2 * (group.size - 1) / group.size * sum(sizes)


def _pairs(ranks: DistributedContext) -> tuple[Group, Group]:
    """Return the processes with the same tower, and the two of one network: a mesh."""
    if ranks.ranks % 2:
        raise ConfigError(
            f"{ranks.ranks} processes cannot be divided into pairs of towers.",
            "Start an even number.",
        )
    mesh = init_device_mesh(
        ranks.device.type, (ranks.ranks // 2, 2), mesh_dim_names=("data", "tower")
    )
    data = Group(mesh.get_group("data"), ranks.rank // 2, ranks.ranks // 2)
    return data, Group(mesh.get_group("tower"), ranks.rank % 2, 2)


def _replica(
    network: nn.Sequential, data: Group, divided: Sequence[str], *, compile: bool
) -> Replica:
    """Wrap a network so that gradients of all but the divided parameters are summed over `data`.

    PyTorch divides that sum by the number of processes. The loss makes up for it; or, where some
    gradients are not summed, each of the others does.
    """
    forward: nn.Module = fuse(network) if compile else network
    apart: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    learned = {name: one for name, one in network.named_parameters() if one.requires_grad}
    if data.size > 1 and learned.keys() - divided:  # else there is nothing to sum
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(forward, divided)
        forward = DistributedDataParallel(
            forward,
            process_group=data.handle,
            init_sync=False,  # all start from the same weights
            gradient_as_bucket_view=True,
        )
        apart = forward.no_sync
        for name, parameter in learned.items() if divided else ():
            if name not in divided:
                parameter.register_hook(partial(torch.mul, other=data.size))
    called: Callable[[Tensor], Tensor] = (
        torch.compile(forward, dynamic=False) if compile else forward
    )
    return Replica(
        network, called, apart, averaged_over=1 if divided else data.size, added=data.added
    )
