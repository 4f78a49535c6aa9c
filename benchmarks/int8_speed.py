"""What int8 gains in speed: ``python benchmarks/int8_speed.py BATCH [--others]``.

Its rivals are interleaved in one process, network `single` with drawn weights, random pixels. Those
that are not kept need packages that the project does not: torchao (its PT2E quantisation, lowered
by the compiler) and ONNX Runtime (static quantisation of the exported graph).
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.device import Device, describe_processor, keep_freed_memory
from alexnet.layers import LocalResponseNorm
from alexnet.network import AlexNet, build
from alexnet.quantization import quantize_network
from alexnet.variants import SINGLE

Forward = Callable[[Tensor], object]
CPU = Device.named("cpu")


class PlainNorm(nn.Module):
    """PyTorch's own normalisation, which exports as ONNX's."""

    def __init__(self, layer: LocalResponseNorm) -> None:
        super().__init__()
        self.norm = layer.norm

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        return F.local_response_norm(x, norm.size, norm.alpha, norm.beta, norm.k)


def bfloat16(network: nn.Module, compiled: bool) -> Forward:
    forward = CPU.compile(network, torch.bfloat16)[0] if compiled else network

    def run(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return forward(x)

    return run


def pt2e(network: AlexNet, pixels: Tensor) -> Forward:
    from torchao.quantization.pt2e.lowering import lower_pt2e_quantized_to_x86
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(torch.export.export(network, (pixels,)).module(), quantizer)
    prepared(pixels)
    return lower_pt2e_quantized_to_x86(convert_pt2e(prepared), (pixels,))


def onnxruntime_int8(network: AlexNet, pixels: Tensor) -> Forward:
    import onnxruntime
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.batches: Iterator[dict[str, object]] = iter([{"pixels": pixels.numpy()}])

        def get_next(self) -> dict[str, object] | None:
            return next(self.batches, None)

    members = [PlainNorm(m) if isinstance(m, LocalResponseNorm) else m for m in network]
    with tempfile.TemporaryDirectory() as folder:
        plain, ready, done = (str(Path(folder) / f"{name}.onnx") for name in "abc")
        torch.onnx.export(
            nn.Sequential(*members), (pixels,), plain, dynamo=False, input_names=["pixels"]
        )
        quant_pre_process(plain, ready)
        quantization.quantize_static(ready, done, Reader(), per_channel=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(done, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"pixels": x.numpy()})


def main() -> None:
    keep_freed_memory()
    network = CPU.place_network(build(SINGLE)).eval()
    with torch.no_grad():
        for weight in network.parameters():
            if weight.dim() > 1:  # as He drew them, so that every layer has something to round
                weight.normal_(0, (2 / weight[0].numel()) ** 0.5)
    batch = int(sys.argv[1])
    pixels = torch.randint(-128, 128, (batch, 3, 227, 227)).float()
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        ways: dict[str, Forward] = {
            "bfloat16, compiled": bfloat16(network, True),
            "bfloat16": bfloat16(network, False),
            "int8, compiled": quantize_network(network, pixels),
            "int8": quantize_network(network, pixels, compiled=False),
        }
        if "--others" in sys.argv:
            ways["torchao PT2E, compiled"] = pt2e(network, pixels)
            ways["ONNX Runtime, static int8"] = onnxruntime_int8(network, pixels)
        times = timed(ways, pixels, calls=max(1, 20 // batch), rounds=15)
    for name, spent in times.items():
        row = [round(1e3 * value, 2) for value in (min(spent), *statistics.quantiles(spent))]
        print(json.dumps({"batch": batch, "way": name, "ms: least and quartiles": row}))
    print(json.dumps({"machine": describe_processor(), "torch": torch.__version__}))


def timed(
    ways: dict[str, Forward], pixels: Tensor, calls: int, rounds: int
) -> dict[str, list[float]]:
    """Return the seconds a call, one number a round, the ways in turn."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for forward in ways.values():
        forward(pixels), forward(pixels)
    for _ in range(rounds):
        for name, forward in ways.items():
            start = time.perf_counter()
            for _ in range(calls):
                forward(pixels)
            times[name].append((time.perf_counter() - start) / calls)
    return times


if __name__ == "__main__":
    main()
