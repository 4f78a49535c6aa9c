"""What is measured: a training step, an inference, the normalisation; ours and the peers'.

Ours runs with freed memory kept in the process (`machine.keep_freed_memory`), as `alexnet train`
does; the peers run as glibc treats a process with large blocks by default, as their users have
it, and once more, marked ``-kept``, with our memory setting, so that the difference can be seen.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet import machine
from alexnet.bench.peers import plain_lrn, plain_network
from alexnet.errors import ConfigError
from alexnet.layers import LocalResponseNorm
from alexnet.network import build
from alexnet.recipes import FAST
from alexnet.spec import Spec
from alexnet.training.optimizer import make_optimizer, rates_at, update

TRAINING_PASSES = 3  # forward, gradient of the inputs, gradient of the weights


@dataclass(frozen=True, slots=True)
class Setting:
    """What all works of a report share."""

    spec: Spec
    batch_size: int
    device: torch.device
    kind: torch.dtype  # ours: of the matrix products


@dataclass(frozen=True, slots=True)
class Work:
    """Functions to time; ``timed["ours"]`` is this project."""

    timed: dict[str, Callable[[], None]]
    amount: float  # of `unit`-seconds in a call: images, or tensors
    unit: str
    amounts: dict[str, float] = field(default_factory=dict)  # where a peer's differs


def _kept(call: Callable[[], None], keep: bool) -> Callable[[], None]:
    def with_memory_setting() -> None:
        machine.keep_freed_memory(keep)
        call()

    return with_memory_setting


def _images(setting: Setting) -> Tensor:
    side = setting.spec.image
    pixels = torch.randint(-128, 128, (setting.batch_size, 3, side, side), device=setting.device)
    return pixels.float()


def _matmul(setting: Setting, passes: int) -> tuple[Callable[[], None], float]:
    """Return a large matrix product, and how many images have as many operations."""
    a, b = (torch.randn(4096, 4096, device=setting.device).to(setting.kind) for _ in range(2))
    operations = 2 * setting.spec.macs * passes
    if passes == TRAINING_PASSES:  # the images need no gradient
        operations -= 2 * next(x.macs for x in setting.spec.layers() if x.kind == "conv")

    def product() -> None:
        a @ b

    return product, 2 * 4096**3 / operations


def train_work(setting: Setting) -> Work:
    """Return whole training steps: forward, backward, update."""
    images, spec = _images(setting), setting.spec
    labels = torch.randint(0, spec.classes, (setting.batch_size,), device=setting.device)

    def peer(kind: torch.dtype, layout: torch.memory_format) -> Callable[[], None]:
        network = plain_network(spec).to(setting.device)
        optimizer = torch.optim.SGD(network.parameters(), 1e-3, 0.9, weight_decay=5e-4)
        if layout == torch.channels_last:
            network = machine.placed(network, setting.device)
        pixels = images.contiguous(memory_format=layout)

        def step() -> None:
            with torch.autocast(setting.device.type, kind, enabled=kind != torch.float32):
                loss = F.cross_entropy(network(pixels), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()

        return step

    product, share = _matmul(setting, TRAINING_PASSES)
    eager = peer(torch.float32, torch.contiguous_format)
    autocast = peer(torch.bfloat16, torch.channels_last)
    timed = {
        "ours": _kept(_our_step(setting, images, labels), keep=True),
        "eager-float32": _kept(eager, keep=False),
        "eager-autocast": _kept(autocast, keep=False),
        "eager-float32-kept": _kept(eager, keep=True),
        "matmul-limit": product,
    }
    return Work(timed, setting.batch_size, "images/s", {"matmul-limit": share})


def _our_step(setting: Setting, images: Tensor, labels: Tensor) -> Callable[[], None]:
    network = machine.placed(build(setting.spec), setting.device)
    forward: nn.Module = network
    forward, _ = machine.compile_or_not(network, setting.device)
    optimizer = make_optimizer(network, FAST)
    pixels = images.contiguous(memory_format=torch.channels_last)
    rates = rates_at(FAST.with_(lr=1e-3), 0.15)

    def step() -> None:
        enabled = setting.kind != torch.float32
        with torch.autocast(setting.device.type, setting.kind, enabled=enabled):
            logits = forward(pixels)
        F.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        update(optimizer, rates, FAST)

    return step


def infer_work(setting: Setting) -> Work:
    """Return inference on a batch, pixels to logits."""
    images = _images(setting)

    def peer(kind: torch.dtype, layout: torch.memory_format) -> Callable[[], None]:
        network = plain_network(setting.spec).to(setting.device).eval()
        if layout == torch.channels_last:
            network = machine.placed(network, setting.device)
        return _inference(network, images.contiguous(memory_format=layout), kind)

    network = machine.placed(build(setting.spec), setting.device).eval()
    forward, _ = machine.compile_or_not(network, setting.device)
    pixels = images.contiguous(memory_format=torch.channels_last)
    product, share = _matmul(setting, 1)
    eager = peer(torch.float32, torch.contiguous_format)
    timed = {
        "ours": _kept(_inference(forward, pixels, setting.kind), keep=True),
        "eager-float32": _kept(eager, keep=False),
        "eager-autocast": _kept(peer(torch.bfloat16, torch.channels_last), keep=False),
        "eager-float32-kept": _kept(eager, keep=True),
        "matmul-limit": product,
    }
    return Work(timed, setting.batch_size, "images/s", {"matmul-limit": share})


def _inference(
    network: Callable[[Tensor], Tensor], pixels: Tensor, kind: torch.dtype
) -> Callable[[], None]:
    enabled = kind != torch.float32

    def infer() -> None:
        with torch.no_grad(), torch.autocast(pixels.device.type, kind, enabled=enabled):
            network(pixels)

    return infer


def lrn_work(setting: Setting) -> Work:
    """Return the normalisation after conv1 alone, against PyTorch's and against a copy."""
    conv1 = setting.spec.convs[0]
    norm = conv1.norm
    if norm is None:
        raise ConfigError(f"Network {setting.spec.name!r} has no LRN after conv1 to measure.")
    side = next(layer.size for layer in setting.spec.layers() if layer.name == conv1.name)
    x = torch.randn(setting.batch_size, conv1.maps, side, side, device=setting.device)
    x = x.contiguous(memory_format=torch.channels_last)
    ours, _ = machine.compile_or_not(LocalResponseNorm(norm), setting.device)
    peer, narrow = plain_lrn(norm), x.to(setting.kind)

    def run(layer: Callable[[Tensor], Tensor], on: Tensor) -> Callable[[], None]:
        def forward() -> None:
            with torch.no_grad():
                layer(on)

        return forward

    timed = {
        "ours": _kept(run(ours, narrow), keep=True),
        "torch": _kept(run(peer, x), keep=False),
        "copy": _kept(run(torch.clone, narrow), keep=True),
    }
    return Work(timed, 1, "tensors/s")
