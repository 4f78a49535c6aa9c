"""What share of the machine's limit each layer reaches, alone, in the type and layout of a step.

A layer cannot take less time than its operations do at the rate of a large matrix product, nor less
than its numbers do at the rate of a copy: the longer of the two is its limit. Layers without
weights are taken together between those that have them. Training is forward and backward together:
the compiler moves work from one to the other, so neither has a time of its own. The update of all
weights is a line by itself.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor, _dynamo, nn

from alexnet import device as devices
from alexnet.bench.contender import Contender, Setting, Timed
from alexnet.bench.limits import matmul_name
from alexnet.bench.rounds import Heat
from alexnet.bench.works import fast_forward
from alexnet.fused import fuse_for_inference
from alexnet.network import AlexNet, build
from alexnet.recipes import FAST
from alexnet.spec import Spec
from alexnet.training.optimizer import learning_rates_at, make_optimizer, update
from alexnet.training.randomness import seed_dropout

Pass = Literal["inference", "training", "update"]
WEIGHT = 4  # bytes: weights, gradients and velocity are float32 in a step
MOST_COMPILED = 128  # parts in two passes each; more than any network here has
UPDATE = "all weights"


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A layer with weights, or the layers without between two of them."""

    name: str  # conv1; relu1+norm1+pool1
    modules: tuple[str, ...]
    inputs: tuple[int, ...]  # (maps, side, side) or (units,) of one image
    outputs: tuple[int, ...]
    weights: int  # biases too
    macs: int  # multiply-accumulate operations for one image, forward
    first: bool  # its input needs no gradient


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One part in one pass, over the whole batch."""

    layer: str
    work: Pass
    ms: float
    gflop: float  # a multiplication and an addition are two
    gb: float  # of its numbers, each read or written once where it has to be
    bound: Literal["matmul", "copy", ""]  # which limit is the longer; of a sum neither
    limit_ms: float
    share: float  # of the limit reached


def parts(spec: Spec) -> Iterator[Part]:
    """Yield the parts of a network, first to last."""
    with torch.device("meta"):
        names = list(dict(AlexNet(spec).named_children()))
    layers = {layer.name: layer for layer in spec.layers()}
    weighted = {name for name, layer in layers.items() if layer.parameters}
    inputs: tuple[int, ...] = (spec.in_channels, spec.image_size, spec.image_size)
    for key, run in groupby(names, lambda name: name if name in weighted else ""):
        modules = tuple(run)
        outputs = inputs
        for name in modules:
            if name in layers:
                layer = layers[name]
                outputs = (layer.channels, *(2 * (layer.size,) if layer.kind != "dense" else ()))
            elif name == "flatten":
                outputs = (math.prod(outputs),)
        yield Part(
            name="+".join(name for name in modules if name != "flatten"),
            modules=modules,
            inputs=inputs,
            outputs=outputs,
            weights=layers[key].parameters if key else 0,
            macs=layers[key].macs if key else 0,
            first=modules[0] == names[0],
        )
        inputs = outputs


def contenders(spec: Spec) -> tuple[Contender, ...]:
    """Return everything there is to time; ``conv1 inference``, ``conv1 training``, the update."""
    found = []
    for part in parts(spec):
        found.append(Contender(f"{part.name} inference", partial(inference, part), True))
        found.append(Contender(f"{part.name} training", partial(training, part), True))
    return (*found, Contender(f"{UPDATE} update", update_alone, True))


def inference(part: Part, setting: Setting) -> Timed:
    """Return a part's forward pass without gradients."""
    module, x = module_of(part, setting)
    forward = by_itself(fuse_for_inference(module.eval(), setting.kind), setting.device)

    def run() -> None:
        with torch.no_grad():
            forward(x)

    return Timed(run, 1)


def training(part: Part, setting: Setting) -> Timed:
    """Return a part's forward and backward pass."""
    module, x = module_of(part, setting)
    forward = by_itself(module, setting.device)
    x.requires_grad_(not part.first)
    with in_type(setting):
        gradient = torch.ones_like(forward(x))

    def run() -> None:
        with in_type(setting):
            out = forward(x)
        torch.autograd.backward(out, gradient)
        x.grad = None
        module.zero_grad()

    return Timed(run, 1)


def by_itself(module: nn.Sequential, device: torch.device) -> nn.Module:
    """Return a part as a step runs it.

    To PyTorch every part is the same function, `nn.Sequential`'s, compiled anew; after eight times
    it would give up and run the others uncompiled.
    """
    _dynamo.config.recompile_limit = MOST_COMPILED
    return fast_forward(module, device)


def update_alone(setting: Setting) -> Timed:
    """Return the update of every weight."""
    network = devices.place_network(build(setting.spec), setting.device)
    optimizer, rates = make_optimizer(network, FAST), learning_rates_at(FAST, FAST.warmup)
    gradients = [torch.zeros_like(parameter) for parameter in network.parameters()]

    def run() -> None:
        for parameter, gradient in zip(network.parameters(), gradients, strict=True):
            parameter.grad = gradient
        update(optimizer, rates, FAST)

    return Timed(run, 1)


def in_type(setting: Setting) -> torch.autocast:
    """Return the context in which a step runs its network."""
    enabled = setting.kind != torch.float32
    return torch.autocast(setting.device.type, setting.kind, enabled=enabled)


def module_of(part: Part, setting: Setting) -> tuple[nn.Sequential, Tensor]:
    """Return a part of a network by itself, and its input as the part before leaves it."""
    network = build(setting.spec)
    seed_dropout(network, 0, torch.arange(setting.batch_size, device=setting.device))
    module = nn.Sequential(*(network.get_submodule(name) for name in part.modules))
    x = torch.randn(setting.batch_size, *part.inputs, device=setting.device)
    if x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    return devices.place_network(module, setting.device), x.to(setting.kind)


def costs(setting: Setting) -> Iterator[tuple[str, Pass, float, float]]:
    """Yield each part's name and pass, and what the batch costs at least: GFLOP, and GB moved.

    Inference reads input and weights and writes the output. Training reads input, weights and the
    output's gradient once more, and writes the gradients of input and weights. Activations are in
    the type of the matrix products, and so are the weights of inference; those of a step are in
    float32. The update reads weights, gradients and velocity and writes weights and velocity.
    """
    batch, narrow, weights = setting.batch_size, setting.kind.itemsize, 0
    for part in parts(setting.spec):
        inputs, outputs = batch * math.prod(part.inputs), batch * math.prod(part.outputs)
        gflop = 2 * part.macs * batch / 1e9
        activations = (inputs + outputs) * narrow
        forward = activations + part.weights * WEIGHT
        backward = forward + part.weights * WEIGHT + (0 if part.first else inputs * narrow)
        yield part.name, "inference", gflop, (activations + part.weights * narrow) / 1e9
        yield part.name, "training", gflop * (2 if part.first else 3), (forward + backward) / 1e9
        weights += part.weights
    yield UPDATE, "update", 0.0, 5 * weights * WEIGHT / 1e9


def lines(setting: Setting, heat: Heat) -> list[Line]:
    """Return each part's time, cost and share of the limit; last the sum of each kind of call."""
    rate, copied = (
        median(heat.rates(name)) for name in (matmul_name(setting.kind), "copy_gb_per_s")
    )
    found = []
    for layer, work, gflop, gb in costs(setting):
        ms = median(heat.times[f"{layer} {work}"]) * 1e3
        product, moved = gflop / rate * 1e3, gb / copied * 1e3
        limit = max(product, moved)
        found.append(
            Line(
                layer=layer,
                work=work,
                ms=ms,
                gflop=gflop,
                gb=gb,
                limit_ms=limit,
                bound="matmul" if product >= moved else "copy",
                share=limit / ms,
            )
        )
    inference = [one for one in found if one.work == "inference"]
    step = [one for one in found if one.work != "inference"]
    return [*found, added(inference, "inference"), added(step, "training")]


def added(found: Sequence[Line], work: Pass) -> Line:
    """Return the sum of some lines; that of training has the update in it."""
    ms, limit = sum(one.ms for one in found), sum(one.limit_ms for one in found)
    gflop, gb = sum(one.gflop for one in found), sum(one.gb for one in found)
    return Line(
        layer="sum",
        work=work,
        ms=ms,
        gflop=gflop,
        gb=gb,
        limit_ms=limit,
        bound="",
        share=limit / ms,
    )


def as_text(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the lines, as dictionaries, as a table."""
    heads = ("layer", "pass", "ms", "GFLOP", "GB", "limit ms", "share")
    rows = ["{:24} {:10} {:>9} {:>9} {:>7} {:>9} {:>6}  bound".format(*heads)]
    for one in found:
        rows.append(
            f"{one['layer']:24} {one['work']:10} {one['ms']:9.2f} {one['gflop']:9.2f} "
            f"{one['gb']:7.3f} {one['limit_ms']:9.2f} {one['share']:6.2f}  {one['bound']}"
        )
    return "\n".join(rows)
