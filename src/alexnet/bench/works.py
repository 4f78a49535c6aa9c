"""What is measured: a training step, an inference, the normalisation; ours and the peers'.

Ours runs with freed memory kept in the process (`machine.keep_freed_memory`), as `alexnet train`
does. The peers run before that is set, as their users have them, and once more after it, marked
``-kept``, so that what the memory is worth can be told from what the network is worth.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet import machine
from alexnet.bench.peers import plain_lrn, plain_network
from alexnet.errors import ConfigError
from alexnet.fused import fused
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
    scratch: Path  # a folder to write to
    images: Path | None = None  # a folder of photographs


@dataclass(frozen=True, slots=True)
class Work:
    """Functions to time; ``"ours"`` is this project."""

    timed: dict[str, Callable[[], None]]  # as the C library treats memory by default
    timed_with_memory_kept: dict[str, Callable[[], None]]
    amount: float  # of `unit`-seconds in a call: images, or tensors
    unit: str
    amounts: Mapping[str, float] = field(default_factory=dict)  # where a peer's differs


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
    return Work(
        {"eager-float32": eager, "eager-autocast": autocast, "matmul-limit": product},
        {
            "ours": _our_step(setting, images, labels),
            "eager-float32-kept": eager,
            "eager-autocast-kept": autocast,
        },
        setting.batch_size,
        "images/s",
        {"matmul-limit": share},
    )


def _our_step(setting: Setting, images: Tensor, labels: Tensor) -> Callable[[], None]:
    network = machine.placed(build(setting.spec), setting.device)
    forward, _ = machine.compile_or_not(fused(network), setting.device)
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
    forward, _ = machine.compile_or_not(fused(network), setting.device)
    pixels = images.contiguous(memory_format=torch.channels_last)
    product, share = _matmul(setting, 1)
    eager = peer(torch.float32, torch.contiguous_format)
    autocast = peer(torch.bfloat16, torch.channels_last)
    return Work(
        {"eager-float32": eager, "eager-autocast": autocast, "matmul-limit": product},
        {
            "ours": _inference(forward, pixels, setting.kind),
            "eager-float32-kept": eager,
            "eager-autocast-kept": autocast,
        },
        setting.batch_size,
        "images/s",
        {"matmul-limit": share},
    )


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
    ours, _ = machine.compile_or_not(fused(nn.Sequential(LocalResponseNorm(norm))), setting.device)
    peer, narrow = plain_lrn(norm), x.to(setting.kind)

    def run(layer: Callable[[Tensor], Tensor], on: Tensor) -> Callable[[], None]:
        def forward() -> None:
            with torch.no_grad():
                layer(on)

        return forward

    kept = {"ours": run(ours, narrow), "copy": run(torch.clone, narrow)}
    return Work({"torch": run(peer, x)}, kept, 1, "tensors/s")
