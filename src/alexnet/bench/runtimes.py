"""ONNX Runtime and OpenVINO on the network that `alexnet export --to onnx` writes.

Each is used as its own guide says: its default optimisations, as many threads as ours, and for
OpenVINO its two performance hints in every type that it has for this processor.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alexnet.bench.contender import Setting, Timed
from alexnet.bench.rounds import round_seconds
from alexnet.data.augment import make_normaliser
from alexnet.data.statistics import Statistics
from alexnet.errors import MissingExtraError
from alexnet.interop.export import export_onnx, generate_images
from alexnet.network import build
from alexnet.predictor import Predictor

CHECKED = 2  # images on which the exported file is compared with the network
TYPES = ("FP32", "BF16", "FP16")  # OpenVINO's names of those that need no other network


def exported(setting: Setting) -> Path:
    """Return the network as an ONNX file, written by the first who asks."""
    path, spec = setting.scratch / "network.onnx", setting.spec
    if not path.exists():
        flat = Statistics(
            np.zeros((3, spec.image_size, spec.image_size), np.float32),
            np.zeros(3, np.float32),
            np.eye(3, dtype=np.float32),
        )
        model = Predictor(
            build(spec).eval(),
            tuple(map(str, range(spec.num_classes))),
            make_normaliser(spec.pixels, flat, spec.image_size),
            spec.image_size,
            0,
            torch.device("cpu"),
            torch.float32,
        )
        export_onnx(model, path, generate_images(spec.image_size, CHECKED), "generated images")
    return path


def onnxruntime_float32(setting: Setting) -> Timed:
    """Return ONNX Runtime with its default options.

    Raises
    ------
    MissingExtraError
        When it is not installed.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise MissingExtraError("onnxruntime", "bench", "This comparison") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(exported(setting)), options, providers=["CPUExecutionProvider"]
    )
    fed = {"pixels": pixels(setting)}
    return Timed(lambda: session.run(["logits"], fed), setting.batch_size)


def openvino_best(setting: Setting) -> Timed:
    """Return OpenVINO in whichever type and with whichever hint is fastest here.

    Raises
    ------
    MissingExtraError
        When it is not installed.
    """
    try:
        import openvino
    except ModuleNotFoundError:
        raise MissingExtraError("openvino", "bench", "This comparison") from None
    core = openvino.Core()
    here = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    best: tuple[float, str, Callable[[], object]] = (math.inf, "", lambda: None)
    for kind in (kind for kind in TYPES if kind in here):
        for hint in ("LATENCY", "THROUGHPUT"):
            call = openvino_call(core, setting, kind, hint)
            took = round_seconds(Timed(call, 1), setting.device)
            best = min(best, (took, f"{kind.lower()}, hint {hint}", call), key=lambda x: x[0])
    return Timed(best[2], setting.batch_size, best[1])


def openvino_call(core: Any, setting: Setting, kind: str, hint: str) -> Callable[[], object]:
    """Return a function that has OpenVINO run the batch.

    With the hint for throughput the batch is shared among as many requests as OpenVINO wants at
    once, where it can be divided.
    """
    import openvino

    def compiled(images: int) -> Any:
        model = core.read_model(exported(setting))
        model.reshape(
            [images, setting.spec.in_channels, setting.spec.image_size, setting.spec.image_size]
        )
        chosen = {
            "PERFORMANCE_HINT": hint,
            "INFERENCE_PRECISION_HINT": kind.replace("FP", "f").lower(),
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        return core.compile_model(model, "CPU", chosen)

    whole = compiled(setting.batch_size)
    wanted = whole.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    parts = math.gcd(setting.batch_size, wanted)
    network = compiled(setting.batch_size // parts) if parts > 1 else whole
    queue = openvino.AsyncInferQueue(network, parts)
    fed = [openvino.Tensor(part) for part in np.split(pixels(setting), parts)]

    def run() -> None:
        for part in fed:
            queue.start_async({0: part}, share_inputs=True)
        queue.wait_all()

    return run


def pixels(setting: Setting) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return ``(batch, channels, image, image)`` float32, -128 to 127."""
    spec = setting.spec
    shape = (setting.batch_size, spec.in_channels, spec.image_size, spec.image_size)
    return np.random.default_rng(0).integers(-128, 128, shape).astype(np.float32)
