"""How a network lies over the processes of its training, and how they come together."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from alexnet import machine
from alexnet.data.order import Part
from alexnet.errors import ConfigError
from alexnet.network import AlexNet
from alexnet.training.distributed import Ranks
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
    traffic: Traffic = field(default_factory=Traffic)  # bytes sent by this process
    in_data: float = 0.0  # bytes that a step of data parallelism over all processes would send


def lay_out(network: AlexNet, ranks: Ranks, execution: Execution, *, compile: bool) -> Layout:
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
    kind = execution.layout
    traffic = Traffic()
    if kind != "data" and ranks.ranks == 1:
        raise ConfigError(
            f"--{kind} divides the network among processes, and this is one.",
            "Start several: alexnet launch --processes 2 train ...",
        )
    in_data = 2 * (ranks.ranks - 1) / ranks.ranks * _bytes(network)
    if kind == "data":
        everyone = Group(None, ranks.rank, ranks.ranks, traffic)
        replica = _replica(network, everyone, ranks, compile, ())
        whole = Division({}, Group())
        return Layout(replica, ranks.part, False, whole, traffic, in_data)
    data, within = _groups(ranks, kind, traffic)
    check(network.spec, within.size, kind)
    device = next(network.parameters()).device
    with torch.device("meta"):
        local = DividedNetwork(network.spec, within, kind)
    local = machine.placed(local.to_empty(device=device), device)
    divided = division(network.spec, within, kind)
    local.load_state_dict(divided.local(network.state_dict()))
    local.to(next(network.parameters()).dtype)
    apart = tuple(divided.dims) if kind == "hybrid" else ()
    replica = _replica(local, data, ranks, compile, apart)
    if kind == "hybrid":
        replica = _with_rows(replica, within)
    part = Part(data.rank, data.size)
    return Layout(replica, part, kind == "hybrid", divided, traffic, in_data)


def _bytes(network: nn.Module) -> int:
    return sum(one.numel() * one.element_size() for one in network.parameters())


def _groups(ranks: Ranks, kind: str, traffic: Traffic) -> tuple[Group, Group]:
    """Return the processes over which gradients are summed, and those that share a network."""
    if kind == "hybrid":
        everyone = Group(None, ranks.rank, ranks.ranks, traffic)
        return everyone, everyone
    if ranks.ranks % 2:
        raise ConfigError(
            f"{ranks.ranks} processes cannot be divided into pairs of towers.",
            "Start an even number.",
        )
    mesh = init_device_mesh(
        ranks.device.type, (ranks.ranks // 2, 2), mesh_dim_names=("data", "tower")
    )
    data = Group(mesh.get_group("data"), ranks.rank // 2, ranks.ranks // 2, traffic)
    return data, Group(mesh.get_group("tower"), ranks.rank % 2, 2, traffic)


def _replica(
    network: nn.Module, data: Group, ranks: Ranks, compile: bool, divided: tuple[str, ...]
) -> Replica:
    """Wrap a network so that gradients of all but the divided parameters are summed over `data`."""
    forward: nn.Module = network
    apart: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    if data.size > 1:
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(network, divided)
        wrapped = DistributedDataParallel(
            network,
            process_group=data.handle,
            broadcast_buffers=False,
            init_sync=False,  # all start from the same weights
            gradient_as_bucket_view=True,
        )
        wrapped.register_comm_hook(data, _summed)
        forward, apart = wrapped, wrapped.no_sync
    called: Callable[[Tensor], Tensor] = torch.compile(forward) if compile else forward
    return Replica(network, called, apart, _adder(data))


def _adder(data: Group) -> Callable[[Tensor], Tensor]:
    def added(numbers: Tensor) -> Tensor:
        if data.size > 1:
            dist.all_reduce(numbers, group=data.handle)
        return numbers

    return added


def _summed(data: Group, bucket: Any) -> torch.futures.Future[Tensor]:
    """Sum gradients; PyTorch's own way divides, which is wrong where shares are uneven."""
    gradients = bucket.buffer()
    data.traffic.sent += 2 * (data.size - 1) / data.size * gradients.nbytes
    future = dist.all_reduce(gradients, group=data.handle, async_op=True).get_future()
    return future.then(lambda done: done.value()[0])


def _with_rows(replica: Replica, group: Group) -> Replica:
    """Let the fully-connected layers know which images of the batch they see: those of all."""
    return replace(replica, rows=lambda rows: group.gathered(rows, 0))
