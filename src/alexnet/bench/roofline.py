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

from alexnet.bench.cases import BenchSettings, Case, Measurements, TimedCall, matmul_name
from alexnet.bench.network_suites import compile_fast
from alexnet.fused import fuse_for_inference
from alexnet.network import AlexNet, build
from alexnet.recipes import FAST
from alexnet.spec import Spec
from alexnet.training.optimizer import learning_rates_at, make_optimizer, update
from alexnet.training.randomness import seed_dropout

Pass = Literal["inference", "training", "update"]
WEIGHT_BYTES = 4  # weights, gradients and momentum are float32 in a step
MAX_COMPILED = 128  # parts in two passes each; more than any network here has
UPDATE = "all weights"


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkPart:
    """A layer with weights, or the layers without between two of them."""

    name: str  # conv1; relu1+norm1+pool1
    modules: tuple[str, ...]
    inputs: tuple[int, ...]  # (channels, side, side) or (units,) of one image
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


def list_parts(spec: Spec) -> Iterator[NetworkPart]:
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
                outputs = layers[name].shape
            elif name == "flatten":
                outputs = (math.prod(outputs),)
        yield NetworkPart(
            name="+".join(name for name in modules if name != "flatten"),
            modules=modules,
            inputs=inputs,
            outputs=outputs,
            weights=layers[key].parameters if key else 0,
            macs=layers[key].macs if key else 0,
            first=modules[0] == names[0],
        )
        inputs = outputs


def list_cases(spec: Spec) -> tuple[Case, ...]:
    """Return everything there is to time; ``conv1 inference``, ``conv1 training``, the update."""
    found = []
    for part in list_parts(spec):
        found.append(Case(f"{part.name} inference", partial(time_part_inference, part), True))
        found.append(Case(f"{part.name} training", partial(time_part_training, part), True))
    return (*found, Case(f"{UPDATE} update", time_update, True))


def time_part_inference(part: NetworkPart, settings: BenchSettings) -> TimedCall:
    """Return a part's forward pass without gradients."""
    module, x = build_part(part, settings)
    forward = _compile_alone(fuse_for_inference(module.eval(), settings.dtype), settings)

    def run() -> None:
        with torch.no_grad():
            forward(x)

    return TimedCall(run, 1)


def time_part_training(part: NetworkPart, settings: BenchSettings) -> TimedCall:
    """Return a part's forward and backward pass."""
    module, x = build_part(part, settings)
    forward = _compile_alone(module, settings)
    x.requires_grad_(not part.first)
    with settings.device.autocast(settings.dtype):
        gradient = torch.ones_like(forward(x))

    def run() -> None:
        with settings.device.autocast(settings.dtype):
            out = forward(x)
        torch.autograd.backward(out, gradient)
        x.grad = None
        module.zero_grad()

    return TimedCall(run, 1)


def time_update(settings: BenchSettings) -> TimedCall:
    """Return the update of every weight."""
    network = settings.device.place_network(build(settings.spec))
    optimizer, rates = make_optimizer(network, FAST), learning_rates_at(FAST, FAST.warmup)
    gradients = [torch.zeros_like(parameter) for parameter in network.parameters()]

    def run() -> None:
        for parameter, gradient in zip(network.parameters(), gradients, strict=True):
            parameter.grad = gradient
        update(optimizer, rates, FAST)

    return TimedCall(run, 1)


def _compile_alone(module: nn.Sequential, settings: BenchSettings) -> nn.Module:
    """Return a part as a step runs it.

    To PyTorch every part is the same function, `nn.Sequential`'s, compiled anew; after eight times
    it would give up and run the others uncompiled.
    """
    _dynamo.config.recompile_limit = MAX_COMPILED
    return compile_fast(module, settings)


def build_part(part: NetworkPart, settings: BenchSettings) -> tuple[nn.Sequential, Tensor]:
    """Return a part of a network by itself, and its input as the part before leaves it."""
    network, device = build(settings.spec), settings.device
    seed_dropout(network, 0, torch.arange(settings.batch_size, device=device.torch))
    module = nn.Sequential(*(network.get_submodule(name) for name in part.modules))
    x = torch.randn(settings.batch_size, *part.inputs, device=device.torch)
    if x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    return device.place_network(module), x.to(settings.dtype)


def list_costs(settings: BenchSettings) -> Iterator[tuple[str, Pass, float, float]]:
    """Yield each part's name and pass, and what the batch costs at least: GFLOP, and GB moved.

    Inference reads input and weights and writes the output. Training reads input, weights and the
    output's gradient once more, and writes the gradients of input and weights. Activations are in
    the type of the matrix products, and so are the weights of inference; those of a step are in
    float32. The update reads weights, gradients and momentum and writes weights and momentum.
    """
    batch, narrow, weights = settings.batch_size, settings.dtype.itemsize, 0
    for part in list_parts(settings.spec):
        inputs, outputs = batch * math.prod(part.inputs), batch * math.prod(part.outputs)
        gflop = 2 * part.macs * batch / 1e9
        activations, wide = (inputs + outputs) * narrow, part.weights * WEIGHT_BYTES
        input_gradient = 0 if part.first else inputs * narrow
        training = 2 * activations + 3 * wide + input_gradient
        yield part.name, "inference", gflop, (activations + part.weights * narrow) / 1e9
        yield part.name, "training", gflop * (2 if part.first else 3), training / 1e9
        weights += part.weights
    yield UPDATE, "update", 0.0, 5 * weights * WEIGHT_BYTES / 1e9


def make_lines(settings: BenchSettings, measured: Measurements) -> list[Line]:
    """Return each part's time, cost and share of the limit; last the sum of each kind of call."""
    matmul = median(measured.rates(matmul_name(settings.dtype)))
    copy = median(measured.rates("copy_gb_per_s"))
    found = []
    for layer, work, gflop, gb in list_costs(settings):
        ms = median(measured.times[f"{layer} {work}"]) * 1e3
        product_ms, copy_ms = gflop / matmul * 1e3, gb / copy * 1e3
        limit = max(product_ms, copy_ms)
        bound: Literal["matmul", "copy"] = "matmul" if product_ms >= copy_ms else "copy"
        found.append(
            Line(
                layer=layer, work=work, ms=ms, gflop=gflop, gb=gb,
                bound=bound, limit_ms=limit, share=limit / ms,
            )
        )  # fmt: skip
    inference = [line for line in found if line.work == "inference"]
    step = [line for line in found if line.work != "inference"]
    return [*found, _sum_lines(inference, "inference"), _sum_lines(step, "training")]


def _sum_lines(lines: Sequence[Line], work: Pass) -> Line:
    """Return the sum of some lines; that of training has the update in it."""
    ms, limit = sum(line.ms for line in lines), sum(line.limit_ms for line in lines)
    gflop, gb = sum(line.gflop for line in lines), sum(line.gb for line in lines)
    return Line(
        layer="sum", work=work, ms=ms, gflop=gflop, gb=gb,
        bound="", limit_ms=limit, share=limit / ms,
    )  # fmt: skip


def format_lines(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return the lines, as dictionaries, as a table."""
    heads = ("layer", "pass", "ms", "GFLOP", "GB", "limit ms", "share")
    rows = ["{:24} {:10} {:>9} {:>9} {:>7} {:>9} {:>6}  bound".format(*heads)]
    for line in lines:
        rows.append(
            "{layer:24} {work:10} {ms:9.2f} {gflop:9.2f} {gb:7.3f} {limit_ms:9.2f} {share:6.2f}  "
            "{bound}".format(**line)
        )
    return "\n".join(rows)
