"""The suites on the network: a training step, an inference, the normalisation; ours and its peers.

Ours runs with freed memory kept in the process (`device.keep_freed_memory`), as `alexnet train`
does. The eager peers are what users of PyTorch usually write; they run as their users have them,
and once more with memory kept, marked ``-kept``, so that what the memory is worth can be told from
what the network is worth; and compiled by ``torch.compile``, in our type. ONNX Runtime and OpenVINO
run the network that `alexnet export --to onnx` writes, each as its own guide says, with as many
threads as ours.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.bench.cases import (
    BenchSettings,
    Case,
    Suite,
    TimedCall,
    UnsuitableError,
    dtype_name,
    require_fast,
    time_round,
)
from alexnet.data.augment import Normaliser, augment
from alexnet.data.statistics import Statistics
from alexnet.device import CudaGraphRunner, Device
from alexnet.errors import ConfigError, TrainingError, import_extra
from alexnet.fused import fuse, fuse_for_inference
from alexnet.layers import Dropout, LocalResponseNorm
from alexnet.network import AlexNet, build
from alexnet.predictor import assemble
from alexnet.quantization import quantize_network
from alexnet.recipes import FAST
from alexnet.spec import LRN, Spec
from alexnet.training.optimizer import learning_rates_at, make_optimizer
from alexnet.training.randomness import sample_params
from alexnet.training.trainer import LocalBatch, Replica, train
from alexnet.variants import TORCHVISION, with_dropout

PREPARED_MARGIN = 29  # pixels a side that prepared images have more than crops: 256 and 227
ANOTHER_NETWORK = "another network: 64-192-384-256-256 maps, no LRN, 224 pixels"
CHECKED = 2  # images on which the exported file is compared with the network
OPENVINO_DTYPES = ("FP32", "BF16", "FP16")  # OpenVINO's names of those that need no other network

MakeNetwork = Callable[[Spec], AlexNet]


def make_train_suite(settings: BenchSettings) -> Suite:
    """Return whole training steps: forward, backward, update."""
    first = next(layer for layer in settings.spec.layers() if layer.kind == "conv")
    macs = 3 * settings.spec.macs - first.macs  # the images need no gradient
    eager = list_eager_cases(time_eager_step, settings)
    cases = (Case("ours", time_our_step, keeps_memory=True), *eager)
    return Suite(settings=settings, unit="images/s", cases=cases, gflop=2 * macs / 1e9)


def make_infer_suite(settings: BenchSettings) -> Suite:
    """Return inference on a batch, pixels to logits."""
    ours = Case("ours", time_our_inference, keeps_memory=True)
    eager = list_eager_cases(time_eager_inference, settings)
    cases = (ours, *eager, *list_runtime_cases(settings))
    gflop = 2 * settings.spec.macs / 1e9
    return Suite(settings=settings, unit="images/s", cases=cases, gflop=gflop)


def make_infer_1_suite(settings: BenchSettings) -> Suite:
    """Return the time of one image by itself, pixels to logits."""
    cases = make_infer_suite(settings).cases
    cases = tuple(case for case in cases if not case.name.endswith("-kept"))
    return Suite(settings=replace(settings, batch_size=1), unit="ms", cases=cases)


def make_infer_int8_suite(settings: BenchSettings) -> Suite:
    """Return inference on a batch in int8, against that in the type chosen for the device.

    A processor without int8 products is a `ConfigError`.
    """
    if not settings.device.has_int8:
        raise ConfigError("This machine runs no network in int8.", "Leave out infer-int8.")
    plain = Case(f"ours-{dtype_name(settings.dtype)}", time_our_inference, keeps_memory=True)
    cases = (Case("ours", time_our_int8, keeps_memory=True), plain)
    return Suite(settings=settings, unit="images/s", cases=cases)


def make_lrn_suite(settings: BenchSettings) -> Suite:
    """Return the normalisation after conv1 alone, against PyTorch's and against a copy.

    A network without one is a `ConfigError`.
    """
    if settings.spec.convs[0].norm is None:
        raise ConfigError(f"Network {settings.spec.name!r} has no LRN after conv1 to measure.")
    ours, copy = Case("ours", time_our_lrn, keeps_memory=True), Case("copy", time_lrn_copy, True)
    cases = (ours, Case("torch", time_torch_lrn), copy)
    return Suite(settings=settings, unit="tensors/s", cases=cases)


def list_eager_cases(
    make: Callable[[MakeNetwork, torch.dtype, BenchSettings], TimedCall], settings: BenchSettings
) -> tuple[Case, ...]:
    """Return the eager peers of a step: float32 and autocast, each with memory kept too.

    Before them stands the same network compiled, in the type that ours has.
    """
    compiled = partial(build_compiled_network, settings.device)
    float32 = partial(make, build_plain_network, torch.float32)
    autocast = partial(make, build_plain_network, torch.bfloat16)
    return (
        Case("compiled", partial(make, compiled, settings.dtype)),
        Case("eager-float32", float32),
        Case("eager-autocast", autocast),
        Case("eager-float32-kept", float32, keeps_memory=True),
        Case("eager-autocast-kept", autocast, keeps_memory=True),
        Case("eager-torchvision", partial(make, build_torchvision_network, torch.float32)),
    )


def list_runtime_cases(settings: BenchSettings) -> tuple[Case, ...]:
    """Return the peers that run the exported network, which they do on a processor."""
    if not settings.device.is_cpu:
        return ()
    return Case("onnxruntime-float32", time_onnxruntime), Case("openvino-best", time_openvino_best)


# Networks.


def compile_fast(network: nn.Sequential, settings: BenchSettings) -> nn.Module:
    """Return a network in its fast form, compiled where that pays, as training runs it."""
    return settings.device.compile(fuse(network), settings.dtype)[0]


def build_plain_network(spec: Spec) -> AlexNet:
    """Return the network of a spec with PyTorch's own LRN and dropout in place of ours.

    PyTorch's window cannot stop at a tower, so this is a peer for networks of one tower. Its
    dropout is the inverted one.
    """
    network = build(with_dropout(spec, form="inverted"))
    for name, module in list(network.named_children()):
        if isinstance(module, LocalResponseNorm):
            setattr(network, name, build_plain_lrn(module.norm))
        elif isinstance(module, Dropout):
            setattr(network, name, nn.Dropout(module.rate))
    return network


def build_compiled_network(device: Device, spec: Spec) -> AlexNet:
    """Return the plain network as ``torch.compile`` makes it when it is first called.

    `UnsuitableError` where the compiler does not work.
    """
    works, complaint = device.can_compile()
    if not works:
        raise UnsuitableError(complaint)
    network = build_plain_network(spec)
    network.compile(dynamic=False)
    return network


def build_torchvision_network(spec: Spec) -> AlexNet:
    """Return torchvision's AlexNet, layer by layer, for as many classes as a spec has.

    It is another network: 64-192-384-256-256 maps, no LRN, ReLUs that overwrite their input.
    """
    network = build_plain_network(replace(TORCHVISION, num_classes=spec.num_classes))
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    return network


def build_plain_lrn(norm: LRN) -> nn.LocalResponseNorm:
    """Return PyTorch's layer for our constants."""
    return nn.LocalResponseNorm(norm.size, norm.alpha, norm.beta, norm.k)


def _build_eager_network(make: MakeNetwork, dtype: torch.dtype, settings: BenchSettings) -> AlexNet:
    """Return a network as its users have it: in bfloat16 channels-last, for autocast."""
    require_fast(dtype, settings.device)
    network = make(settings.spec).to(settings.device.torch)
    return network if dtype == torch.float32 else settings.device.place_network(network)


def _describe(network: AlexNet) -> str:
    return ANOTHER_NETWORK if network.spec.name == "torchvision" else ""


# Training steps.


def time_our_step(settings: BenchSettings) -> TimedCall:
    """Return a step of `training.trainer`; on a GPU the pixels are made anew, from bytes there."""
    device = settings.device
    network = device.place_network(build(settings.spec))
    rates = learning_rates_at(FAST.with_(lr=1e-3), FAST.warmup)
    on_cpu = device.is_cpu
    batches = itertools.repeat(draw_batch(settings)) if on_cpu else iterate_augmented(settings)
    steps = train(
        Replica(network, compile_fast(network, settings)), make_optimizer(network, FAST), batches,
        FAST, lambda number: rates, done=0, total=1 << 40, dtype=settings.dtype,
    )  # fmt: skip

    def step() -> None:
        if refused := next(steps).refused:
            raise TrainingError(f"The loss {refused}, so the step was not whole.")

    return TimedCall(step, settings.batch_size)


def draw_batch(settings: BenchSettings) -> LocalBatch:
    """Return random pixels as `data.augment` makes them, and labels."""
    pixels = draw_pixels(settings, settings.spec, channels_last=True).to(settings.dtype)
    return LocalBatch(pixels, draw_labels(settings), 0, settings.batch_size)


def iterate_augmented(settings: BenchSettings) -> Iterator[LocalBatch]:
    """Yield what `training.input_pipeline` makes of the same images, cut and coloured anew."""
    spec, device, batch = settings.spec, settings.device, settings.batch_size
    size, channels = spec.image_size, spec.in_channels
    prepared = size + PREPARED_MARGIN
    shape = (batch, prepared, prepared, channels)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device.torch)
    mean = torch.full((1, channels, size, size), 127.5, device=device.torch)
    mean = mean.contiguous(memory_format=torch.channels_last)
    stdev = torch.ones(1, channels, 1, 1, device=device.torch)
    normalise = Normaliser(mean, 1.0, stdev, bgr=False, divides=False)
    compiled, labels = device.compile(augment, settings.dtype)[0], draw_labels(settings)
    generator = torch.Generator().manual_seed(0)
    while True:
        params = sample_params(batch, prepared, size, generator)
        shift = device.to_device(params.noise[:, :, None, None])
        pixels = compiled(
            images, params.to(device.torch), shift, normalise, 1.0, size, settings.dtype
        )  # fmt: skip
        yield LocalBatch(pixels, labels, 0, batch)


def time_eager_step(make: MakeNetwork, dtype: torch.dtype, settings: BenchSettings) -> TimedCall:
    """Return the usual training step; in bfloat16 channels-last, under autocast."""
    network = _build_eager_network(make, dtype, settings)
    pixels = draw_pixels(settings, network.spec, channels_last=dtype != torch.float32)
    labels = draw_labels(settings)
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, 0.9, weight_decay=5e-4)

    def step() -> None:
        with settings.device.autocast(dtype):
            loss = F.cross_entropy(network(pixels), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return TimedCall(step, settings.batch_size, _describe(network))


def draw_pixels(settings: BenchSettings, spec: Spec, *, channels_last: bool = False) -> Tensor:
    """Return ``(batch_size, in_channels, image_size, image_size)`` float32, -128 to 127."""
    shape = (settings.batch_size, spec.in_channels, spec.image_size, spec.image_size)
    pixels = torch.randint(-128, 128, shape, device=settings.device.torch).float()
    return pixels.contiguous(memory_format=torch.channels_last) if channels_last else pixels


def draw_labels(settings: BenchSettings) -> Tensor:
    """Return ``(batch_size,)`` int64."""
    shape = (settings.batch_size,)
    return torch.randint(0, settings.spec.num_classes, shape, device=settings.device.torch)


# Inference.


def time_our_inference(settings: BenchSettings) -> TimedCall:
    """Return the compiled network in the device's type; on a GPU recorded, and replayed."""
    network = settings.device.place_network(build(settings.spec)).eval()
    fast = compile_fast(fuse_for_inference(network, settings.dtype), settings)
    pixels = draw_pixels(settings, settings.spec, channels_last=True)
    return time_network(CudaGraphRunner(fast), pixels, settings, settings.dtype)


def time_our_int8(settings: BenchSettings) -> TimedCall:
    """Return the network in int8, calibrated on the same random pixels, compiled in between."""
    network = build(settings.spec).eval()
    pixels = draw_pixels(settings, settings.spec, channels_last=True)
    return time_network(quantize_network(network, pixels), pixels, settings, torch.float32)


def time_eager_inference(
    make: MakeNetwork, dtype: torch.dtype, settings: BenchSettings
) -> TimedCall:
    """Return the usual inference; in bfloat16 channels-last, under autocast."""
    network = _build_eager_network(make, dtype, settings).eval()
    pixels = draw_pixels(settings, network.spec, channels_last=dtype != torch.float32)
    return time_network(network, pixels, settings, dtype, _describe(network))


def time_network(
    network: Callable[[Tensor], Tensor],
    pixels: Tensor,
    settings: BenchSettings,
    dtype: torch.dtype,
    note: str = "",
) -> TimedCall:
    """Return a network on a batch; that of a single image is waited for, every time."""

    def infer() -> None:
        with torch.no_grad(), settings.device.autocast(dtype):
            network(pixels)

    return TimedCall(infer, len(pixels), note, is_latency=len(pixels) == 1)


# The normalisation.


def time_our_lrn(settings: BenchSettings) -> TimedCall:
    """Return our layer on conv1's output, in our type."""
    x, norm = draw_conv1_output(settings)
    layer = compile_fast(nn.Sequential(LocalResponseNorm(norm)), settings)
    return time_layer(layer, x.to(settings.dtype))


def time_torch_lrn(settings: BenchSettings) -> TimedCall:
    """Return PyTorch's layer, in the float32 that it needs on a processor."""
    x, norm = draw_conv1_output(settings)
    return time_layer(build_plain_lrn(norm), x)


def time_lrn_copy(settings: BenchSettings) -> TimedCall:
    """Return a copy of our layer's input: the least that any layer can do."""
    return time_layer(torch.clone, draw_conv1_output(settings)[0].to(settings.dtype))


def draw_conv1_output(settings: BenchSettings) -> tuple[Tensor, LRN]:
    """Return ``(batch_size, C, H, W)`` float32 channels-last, and conv1's normalisation."""
    conv1 = settings.spec.convs[0]
    assert conv1.norm is not None
    size = next(layer.size for layer in settings.spec.layers() if layer.name == conv1.name)
    shape = (settings.batch_size, conv1.out_channels, size, size)
    x = torch.randn(shape, device=settings.device.torch)
    return x.contiguous(memory_format=torch.channels_last), conv1.norm


def time_layer(layer: Callable[[Tensor], Tensor], x: Tensor) -> TimedCall:
    """Return a layer on a tensor, without gradients."""

    def forward() -> None:
        with torch.no_grad():
            layer(x)

    return TimedCall(forward, 1)


# Other runtimes on the exported network.


def export_network(settings: BenchSettings) -> Path:
    """Return the network as an ONNX file, written by the first who asks."""
    from alexnet.interop.export import export_onnx, generate_images

    path, spec = settings.scratch / "network.onnx", settings.spec
    if not path.exists():
        black = Statistics.of_mean(np.zeros((3, 1, 1)), spec.image_size)
        classes, weights = tuple(map(str, range(spec.num_classes))), dict(build(spec).state_dict())
        predictor = assemble(spec, weights, black, classes, precision="fp32", device="cpu")
        images = generate_images(spec.image_size, CHECKED)
        export_onnx(predictor, path, images, "generated images")
    return path


def time_onnxruntime(settings: BenchSettings) -> TimedCall:
    """Return ONNX Runtime with its default options."""
    onnxruntime = import_extra("onnxruntime", "bench", "This comparison")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    file = str(export_network(settings))
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    fed = {"pixels": draw_pixels(settings, settings.spec).numpy()}
    return TimedCall(lambda: session.run(["logits"], fed), settings.batch_size)


def time_openvino_best(settings: BenchSettings) -> TimedCall:
    """Return OpenVINO in whichever type and with whichever hint is fastest here."""
    core = import_extra("openvino", "bench", "This comparison").Core()
    here = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    dtypes = [dtype for dtype in OPENVINO_DTYPES if dtype in here]
    best, fastest = None, math.inf
    for dtype, hint in itertools.product(dtypes, ("LATENCY", "THROUGHPUT")):
        call = time_openvino(core, settings, dtype, hint)
        seconds = time_round(call, settings.device)
        if seconds < fastest:
            best, fastest = replace(call, note=f"{dtype.lower()}, hint {hint}"), seconds
    assert best is not None  # every processor has float32
    return best


def time_openvino(core: Any, settings: BenchSettings, dtype: str, hint: str) -> TimedCall:
    """Return OpenVINO on the batch.

    With the hint for throughput the batch is shared among as many requests as OpenVINO wants at
    once, where it can be divided.
    """
    import openvino

    spec = settings.spec

    def compile_for(images: int) -> Any:
        model = core.read_model(export_network(settings))
        model.reshape([images, spec.in_channels, spec.image_size, spec.image_size])
        options = {
            "PERFORMANCE_HINT": hint,
            "INFERENCE_PRECISION_HINT": dtype.replace("FP", "f").lower(),
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        return core.compile_model(model, "CPU", options)

    whole = compile_for(settings.batch_size)
    wanted = whole.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    parts = math.gcd(settings.batch_size, wanted)
    network = compile_for(settings.batch_size // parts) if parts > 1 else whole
    queue = openvino.AsyncInferQueue(network, parts)
    pixels = draw_pixels(settings, spec).numpy()
    fed = [openvino.Tensor(part) for part in np.split(pixels, parts)]

    def run() -> None:
        for part in fed:
            queue.start_async({0: part}, share_inputs=True)
        queue.wait_all()

    return TimedCall(run, settings.batch_size)
