"""The paper's update rule (section 5) and the schedules of its learning rate.

``v <- momentum * v - decay * rate * w - rate * gradient``, then ``w <- w + v``: the rate is inside
the paper's velocity v, so after a reduction the old velocity still moves the weights at its old
scale. PyTorch keeps ``v / -rate`` instead, its ``momentum_buffer``, and would rescale it at once.
The two are the same rule when PyTorch's momentum is multiplied by ``old rate / new rate`` in the
step where the rate changes, which costs nothing and keeps its fused kernel.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from alexnet.recipes import Recipe


@dataclass(frozen=True, slots=True)
class Rates:
    """The learning rates of one step; 0 freezes what it belongs to."""

    weights: float
    biases: float
    conv1_weights: float
    conv1_biases: float


@dataclass(slots=True)
class ParameterGroup:
    """Parameters that have a learning rate and a weight decay in common."""

    name: str  # a field of `Rates`
    weight_decay: float
    parameters: list[nn.Parameter]
    lr: float  # of their last update: the one inside their velocity


class MomentumSGD:
    """PyTorch's fused SGD with momentum, without `torch.optim`.

    Making any optimizer of that loads PyTorch's compiler: 2.6 s, and 150 MB that stay.
    """

    def __init__(self, groups: Sequence[ParameterGroup]) -> None:
        self.groups = tuple(groups)
        self.buffers: dict[nn.Parameter, Tensor] = {}  # of those that were updated

    @torch.no_grad()
    def step(self, group: ParameterGroup, rate: float, momentum: float) -> None:
        """Update the parameters of a group that have a gradient."""
        group.lr = rate
        gradients = {one: one.grad for one in group.parameters if one.grad is not None}
        for parameter in gradients:
            if parameter not in self.buffers:
                self.buffers[parameter] = torch.zeros_like(parameter)
        if gradients:
            torch._fused_sgd_(
                [*gradients],
                [*gradients.values()],
                [self.buffers[one] for one in gradients],
                weight_decay=group.weight_decay,
                momentum=momentum,
                lr=rate,
                dampening=0.0,
                nesterov=False,
                maximize=False,
                is_first_step=False,
            )


def make_optimizer(network: nn.Module, recipe: Recipe) -> MomentumSGD:
    """Return momentum SGD over the groups of `Rates`; biases have no weight decay (facts 3a).

    Weights of a rate are several groups where layers have weight decays of their own. Parameters
    that need no gradient are in none: no decay moves them, and no momentum.
    """
    own = {layer.name: layer.decay for layer in recipe.weight_decays}
    groups: dict[tuple[str, float], list[nn.Parameter]] = {
        (field.name, recipe.weight_decay if field.name.endswith("weights") else 0.0): []
        for field in fields(Rates)
    }
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        layer, role = name.rsplit(".", 2)[-2:]
        group = "biases" if role == "bias" else "weights"
        decay = 0.0 if role == "bias" else own.get(layer, recipe.weight_decay)
        key = (f"conv1_{group}" if layer == "conv1" else group), decay
        groups.setdefault(key, []).append(parameter)
    return MomentumSGD(
        [
            ParameterGroup(name, decay, members, recipe.lr)
            for (name, decay), members in groups.items()
        ]
    )


def update(optimizer: MomentumSGD, rates: Rates, recipe: Recipe) -> None:
    """Apply the gradients that `backward` left, at the given rates, and clear them.

    A rate of 0 skips the group altogether, its velocity too, as the 2012 source did (facts 3a).
    """
    for group in optimizer.groups:
        rate = getattr(rates, group.name)
        if rate:
            rescale = group.lr / rate if recipe.lr_inside_velocity else 1.0
            optimizer.step(group, rate, recipe.momentum * rescale)
        for parameter in group.parameters:
            parameter.grad = None


def momentum_buffers(optimizer: MomentumSGD, network: nn.Module) -> dict[str, Tensor]:
    """Return the momentum buffers by the names of the parameters; none before an update."""
    return {
        name: optimizer.buffers[parameter]
        for name, parameter in network.named_parameters()
        if parameter in optimizer.buffers
    }


def last_rates(optimizer: MomentumSGD) -> dict[str, float]:
    """Return the rate at which each group was last updated: that inside its velocity."""
    return {group.name: group.lr for group in optimizer.groups}


def resume(
    optimizer: MomentumSGD,
    network: nn.Module,
    buffers: Mapping[str, Tensor],
    rates: Mapping[str, float],
) -> None:
    """Give an optimiser what these two returned; a parameter without a buffer begins at rest."""
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            buffer = torch.zeros_like(parameter)
            if name in buffers:
                buffer.copy_(buffers[name])
            optimizer.buffers[parameter] = buffer
    for group in optimizer.groups:
        group.lr = rates[group.name]


def learning_rates_at(recipe: Recipe, progress: float, reductions: int = 0) -> Rates:
    """Return the rates at a fraction of the run, 0 to 1.

    `reductions` is how often the plateau schedule has divided the rate by 10 (`count_reductions`).
    """
    factor = _schedule(recipe, progress, reductions)
    weights = recipe.lr * factor
    biases = recipe.lr * recipe.bias_lr * (factor if recipe.bias_lr_drops else 1.0)
    conv1_weights, conv1_biases = weights, biases
    if recipe.conv1_slow_from is not None and progress >= recipe.conv1_slow_from:
        conv1_weights = recipe.lr * 0.1 ** (len(recipe.milestones) or recipe.max_reductions)
    if recipe.conv1_frozen_from is not None and progress >= recipe.conv1_frozen_from:
        conv1_weights = conv1_biases = 0.0
    return Rates(weights, biases, conv1_weights, conv1_biases)


def _schedule(recipe: Recipe, progress: float, reductions: int) -> float:
    """Return the rate as a fraction of the highest one."""
    if recipe.schedule == "plateau":
        return float(0.1**reductions)
    if recipe.schedule == "milestones":
        return float(0.1 ** sum(progress >= milestone for milestone in recipe.milestones))
    if progress < recipe.warmup:
        return max(progress / recipe.warmup, 0.04)  # a first step of 0 would be no step
    falling = (progress - recipe.warmup) / (1 - recipe.warmup)
    return max((1 + math.cos(math.pi * falling)) / 2, 1e-6)


def count_reductions(errors: Sequence[float], patience: int, max_reductions: int) -> int:
    """Return how often the plateau schedule has reduced the rate, by the validation errors so far.

    It does when `patience` validations in a row were no better than the best before them, and
    then counts anew; more than `max_reductions` are not made.
    """
    best, since, reductions = math.inf, 0, 0
    for error in errors:
        since = 0 if error < best else since + 1
        best = min(best, error)
        if since == patience and reductions < max_reductions:
            reductions, since = reductions + 1, 0
    return reductions
