"""What is measured of the network: a training step, an inference, the normalisation.

Ours runs with freed memory kept in the process (`devices.keep_freed_memory`), as `alexnet train`
does. The eager peers run as their users have them, and once more with memory kept, marked
``-kept``, so that what the memory is worth can be told from what the network is worth.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet import device as devices
from alexnet.bench.contender import Contender, Setting, Timed, Work, require_fast
from alexnet.bench.peers import plain_lrn, plain_network, torchvision_network
from alexnet.bench.runtimes import onnxruntime_float32, openvino_best
from alexnet.data.augment import Normaliser, augment
from alexnet.errors import ConfigError, TrainingError
from alexnet.fused import fuse, fuse_for_inference
from alexnet.layers import LocalResponseNorm
from alexnet.network import AlexNet, build
from alexnet.quantization import quantize_network
from alexnet.recipes import FAST
from alexnet.spec import LRN, Spec
from alexnet.training.optimizer import learning_rates_at, make_optimizer
from alexnet.training.randomness import sample_params
from alexnet.training.trainer import LocalBatch, Replica, train

PREPARED_MARGIN = 29  # pixels a side that prepared images have more than crops: 256 and 227
ANOTHER_NETWORK = "another network: 64-192-384-256-256 maps, no LRN, 224 pixels"


def fast_forward(network: nn.Sequential, device: torch.device) -> nn.Module:
    """Return a network in its fast form, compiled, as training runs it."""
    return devices.compile_or_not(fuse(network), device)[0]


def eager(
    step: Callable[[Callable[[Spec], AlexNet], torch.dtype, Setting], Timed],
) -> tuple[Contender, ...]:
    """Return the eager peers of a step: float32 and autocast, each with memory kept too."""
    float32 = partial(step, plain_network, torch.float32)
    autocast = partial(step, plain_network, torch.bfloat16)
    return (
        Contender("eager-float32", float32),
        Contender("eager-autocast", autocast),
        Contender("eager-float32-kept", float32, keeps_memory=True),
        Contender("eager-autocast-kept", autocast, keeps_memory=True),
        Contender("eager-torchvision", partial(step, torchvision_network, torch.float32)),
    )


def train_work(setting: Setting) -> Work:
    """Return whole training steps: forward, backward, update."""
    first = next(layer for layer in setting.spec.layers() if layer.kind == "conv")
    macs = 3 * setting.spec.macs - first.macs  # the images need no gradient
    return Work(
        setting=setting,
        unit="images/s",
        contenders=(Contender("ours", our_step, keeps_memory=True), *eager(eager_step)),
        gflop=2 * macs / 1e9,
    )


def infer_work(setting: Setting) -> Work:
    """Return inference on a batch, pixels to logits."""
    return Work(
        setting=setting,
        unit="images/s",
        contenders=(
            Contender("ours", our_inference, keeps_memory=True),
            *eager(eager_inference),
            *runtimes(setting),
        ),
        gflop=2 * setting.spec.macs / 1e9,
    )


def infer_1_work(setting: Setting) -> Work:
    """Return the time of one image by itself, pixels to logits."""
    peers = [peer for peer in eager(eager_inference) if not peer.name.endswith("-kept")]
    return Work(
        setting=replace(setting, batch_size=1),
        unit="ms",
        contenders=(
            Contender("ours", our_inference, keeps_memory=True),
            *peers,
            *runtimes(setting),
        ),
    )


def infer_int8_work(setting: Setting) -> Work:
    """Return inference on a batch in int8, against that in the machine's type.

    Raises
    ------
    ConfigError
        When this processor has no int8 products.
    """
    if setting.device.type != "cpu" or not devices.has_int8():
        raise ConfigError("This machine runs no network in int8.", "Leave out infer-int8.")
    kind = str(setting.kind).removeprefix("torch.")
    return Work(
        setting=setting,
        unit="images/s",
        contenders=(
            Contender("ours", our_int8, keeps_memory=True),
            Contender(f"ours-{kind}", our_inference, keeps_memory=True),
        ),
    )


def lrn_work(setting: Setting) -> Work:
    """Return the normalisation after conv1 alone, against PyTorch's and against a copy.

    Raises
    ------
    ConfigError
        When the network has none.
    """
    if setting.spec.convs[0].norm is None:
        raise ConfigError(f"Network {setting.spec.name!r} has no LRN after conv1 to measure.")
    return Work(
        setting=setting,
        unit="tensors/s",
        contenders=(
            Contender("ours", our_lrn, keeps_memory=True),
            Contender("torch", torch_lrn),
            Contender("copy", copied, keeps_memory=True),
        ),
    )


def runtimes(setting: Setting) -> tuple[Contender, ...]:
    """Return the peers that run the exported network, which they do on a processor."""
    if setting.device.type != "cpu":
        return ()
    return (
        Contender("onnxruntime-float32", onnxruntime_float32),
        Contender("openvino-best", openvino_best),
    )


def our_step(setting: Setting) -> Timed:
    """Return a step of `training.trainer`; on a GPU the pixels are made anew, from bytes there."""
    network = devices.place_network(build(setting.spec), setting.device)
    rates = learning_rates_at(FAST.with_(lr=1e-3), FAST.warmup)
    steps = train(
        Replica(network, fast_forward(network, setting.device)),
        make_optimizer(network, FAST),
        from_bytes(setting) if setting.device.type == "cuda" else itertools.repeat(share(setting)),
        FAST,
        lambda number: rates,
        done=0,
        total=1 << 40,
        dtype=setting.kind,
    )

    def step() -> None:
        if refused := next(steps).refused:
            raise TrainingError(f"The loss {refused}, so the step was not whole.")

    return Timed(step, setting.batch_size)


def share(setting: Setting) -> LocalBatch:
    """Return random pixels as `data.augment` makes them, and labels."""
    pixels = random_pixels(setting, setting.spec).to(setting.kind)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    return LocalBatch(pixels, random_labels(setting), 0, setting.batch_size)


def from_bytes(setting: Setting) -> Iterator[LocalBatch]:
    """Yield what `training.input_pipeline` makes of the same images, cut and coloured anew."""
    spec, device, batch = setting.spec, setting.device, setting.batch_size
    prepared = spec.image_size + PREPARED_MARGIN
    shape = (batch, prepared, prepared, spec.in_channels)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    mean = torch.full((1, spec.in_channels, spec.image_size, spec.image_size), 127.5, device=device)
    mean = mean.contiguous(memory_format=torch.channels_last)
    stdev = torch.ones(1, spec.in_channels, 1, 1, device=device)
    normalise = Normaliser(mean, 1.0, stdev, bgr=False, divides=False)
    look, labels = devices.compile_or_not(augment, device)[0], random_labels(setting)
    draws = torch.Generator().manual_seed(0)
    while True:
        chosen = sample_params(batch, prepared, spec.image_size, draws)
        shift = devices.to_device(chosen.noise[:, :, None, None], device)
        pixels = look(
            images, chosen.to(device), shift, normalise, 1.0, spec.image_size, setting.kind
        )  # fmt: skip
        yield LocalBatch(pixels, labels, 0, batch)


def eager_step(build: Callable[[Spec], AlexNet], kind: torch.dtype, setting: Setting) -> Timed:
    """Return the usual training step; in bfloat16 channels-last, under autocast."""
    require_fast(kind, setting.device)
    network = build(setting.spec).to(setting.device)
    pixels, labels = random_pixels(setting, network.spec), random_labels(setting)
    if kind != torch.float32:
        network = devices.place_network(network, setting.device)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, 0.9, weight_decay=5e-4)

    def step() -> None:
        with torch.autocast(setting.device.type, kind, enabled=kind != torch.float32):
            loss = F.cross_entropy(network(pixels), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return Timed(step, setting.batch_size, noted(network))


def our_inference(setting: Setting) -> Timed:
    """Return the compiled network in the machine's type; on a GPU recorded, and replayed."""
    network = devices.place_network(build(setting.spec), setting.device).eval()
    fast = fast_forward(fuse_for_inference(network, setting.kind), setting.device)
    pixels = random_pixels(setting, setting.spec).contiguous(memory_format=torch.channels_last)
    return inference(devices.CudaGraphRunner(fast), pixels, setting.kind)


def our_int8(setting: Setting) -> Timed:
    """Return the network in int8, calibrated on the same random pixels, compiled in between."""
    network = build(setting.spec).eval()
    pixels = random_pixels(setting, setting.spec)
    channels_last = pixels.contiguous(memory_format=torch.channels_last)
    return inference(quantize_network(network, pixels), channels_last, torch.float32)


def eager_inference(build: Callable[[Spec], AlexNet], kind: torch.dtype, setting: Setting) -> Timed:
    """Return the usual inference; in bfloat16 channels-last, under autocast."""
    require_fast(kind, setting.device)
    network = build(setting.spec).to(setting.device).eval()
    pixels = random_pixels(setting, network.spec)
    if kind != torch.float32:
        network = devices.place_network(network, setting.device)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
    return inference(network, pixels, kind, noted(network))


def inference(
    network: Callable[[Tensor], Tensor], pixels: Tensor, kind: torch.dtype, note: str = ""
) -> Timed:
    """Return a network on a batch; that of a single image is waited for, every time."""

    def infer() -> None:
        with (
            torch.no_grad(),
            torch.autocast(pixels.device.type, kind, enabled=kind != torch.float32),
        ):
            network(pixels)

    return Timed(infer, len(pixels), note, awaited=len(pixels) == 1)


def noted(network: AlexNet) -> str:
    """Return what the report says of a peer that is another network."""
    return ANOTHER_NETWORK if network.spec.name == "torchvision" else ""


def random_pixels(setting: Setting, spec: Spec) -> Tensor:
    """Return ``(batch, channels, image, image)`` float32, -128 to 127."""
    shape = (setting.batch_size, spec.in_channels, spec.image_size, spec.image_size)
    return torch.randint(-128, 128, shape, device=setting.device).float()


def random_labels(setting: Setting) -> Tensor:
    """Return ``(batch,)`` int64."""
    return torch.randint(0, setting.spec.num_classes, (setting.batch_size,), device=setting.device)


def our_lrn(setting: Setting) -> Timed:
    """Return our layer on what conv1 makes, in our type."""
    x, norm = conv1_maps(setting)
    module = fast_forward(nn.Sequential(LocalResponseNorm(norm)), setting.device)
    return without_gradient(module, x.to(setting.kind))


def torch_lrn(setting: Setting) -> Timed:
    """Return PyTorch's layer, in the float32 that it needs on a processor."""
    x, norm = conv1_maps(setting)
    return without_gradient(plain_lrn(norm), x)


def copied(setting: Setting) -> Timed:
    """Return a copy of what our layer is given: the least that any layer can do."""
    return without_gradient(torch.clone, conv1_maps(setting)[0].to(setting.kind))


def conv1_maps(setting: Setting) -> tuple[Tensor, LRN]:
    """Return ``(batch, maps, side, side)`` float32 channels-last, and conv1's normalisation."""
    conv1 = setting.spec.convs[0]
    assert conv1.norm is not None
    side = next(layer.size for layer in setting.spec.layers() if layer.name == conv1.name)
    x = torch.randn(setting.batch_size, conv1.out_channels, side, side, device=setting.device)
    return x.contiguous(memory_format=torch.channels_last), conv1.norm


def without_gradient(layer: Callable[[Tensor], Tensor], x: Tensor) -> Timed:
    """Return a layer on a tensor."""

    def forward() -> None:
        with torch.no_grad():
            layer(x)

    return Timed(forward, 1)
