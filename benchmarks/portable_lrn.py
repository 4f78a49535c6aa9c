"""LRN alone, as ONNX's operator and in the forms without it, in four runtimes.

``PYTHONPATH=src:. python benchmarks/portable_lrn.py [96x45 ...]`` prints for conv1's and conv2's
sizes, or for those of so many channels and pixels of a side, the milliseconds of eight images: one
thread, the processor's time, rounds that take each form in turn, median and all of them; and how
far each is from the formula in float64. The graphs are those that `alexnet.interop.portable` makes.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import openvino
import torch
from onnx import TensorProto, helper, numpy_helper

from alexnet.spec import LRN
from tests.interop.runtimes import Web, find_onnxruntime_web

NORM = LRN()
FORMS = ("operator", "convolution", "slices", "pool")
SIZES, IMAGES, ROUNDS = ((96, 55), (256, 27)), 8, 7
Run = Callable[[], np.ndarray]


def band(channels: int) -> np.ndarray:
    """Return which channels are neighbours."""
    index = np.arange(channels)
    return np.abs(index[None] - index[:, None]) <= NORM.size // 2


def make_graph(form: str, channels: int, side: int) -> onnx.ModelProto:
    """Return a model of one normalisation, from ``pixels`` to ``logits``."""
    nodes, kept, half = [], [], NORM.size // 2

    def put(kind: str, inputs: list[str], output: str, **settings: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **settings))
        return output

    def keep(name: str, values: object, dtype: type = np.float32) -> str:
        kept.append(numpy_helper.from_array(np.array(values, dtype), name))
        return name

    if form == "operator":
        settings = {"alpha": NORM.alpha, "beta": NORM.beta, "bias": NORM.k}
        put("LRN", ["pixels"], "logits", size=NORM.size, **settings)
    else:
        squares = put("Mul", ["pixels", "pixels"], "squares")
        if form == "convolution":
            weight = band(channels)[:, :, None, None] * (NORM.alpha / NORM.size)
            bias = keep("bias", np.full(channels, NORM.k))
            base = put("Conv", [squares, keep("weight", weight), bias], "base")
        elif form == "slices":
            padded = put("Pad", [squares, keep("pads", [0, half, 0, 0] * 2, np.int64)], "padded")
            energy, axis = "", keep("axis", [1], np.int64)
            for at in range(NORM.size):
                edges = [keep(f"{at}{end}", [at + end], np.int64) for end in (0, channels)]
                piece = put("Slice", [padded, *edges, axis], f"slice{at}")
                energy = put("Add", [energy, piece], f"energy{at}") if energy else piece
            factor = NORM.alpha / NORM.size
        else:
            rows = keep("rows", [-1, 1, channels, side**2], np.int64)
            rows = put("Reshape", [squares, rows], "in_rows")
            padded = put("Pad", [rows, keep("pads", [0, 0, half, 0] * 2, np.int64)], "padded")
            window = {"kernel_shape": [NORM.size, 1], "strides": [1, 1]}
            mean, shape = put("AveragePool", [padded], "mean", **window), [-1, channels, side, side]
            energy = put("Reshape", [mean, keep("maps", shape, np.int64)], "energy")
            factor = NORM.alpha
        if form != "convolution":
            scaled = put("Mul", [energy, keep("factor", factor)], "scaled")
            base = put("Add", [scaled, keep("k", NORM.k)], "base")
        root = put("Sqrt", [base], "root")
        power = put("Mul", [root, put("Sqrt", [root], "fourth")], "power")
        put("Div", ["pixels", power], "logits")
    put("Identity", ["logits"], "probabilities")  # `Web` reads both outputs
    shape = ["batch", channels, side, side]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name in ("pixels", "logits", "probabilities")
    ]
    graph = helper.make_graph(nodes, form, ends[:1], ends[1:], kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.checker.check_model(model, full_check=True)
    return model


def load_onnxruntime(path: Path, x: np.ndarray) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    return lambda: session.run(["logits"], {"pixels": x})[0]


def load_openvino(path: Path, x: np.ndarray) -> Run:
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_NUM_THREADS": 1})
    return lambda: compiled({"pixels": x})["logits"]


def load_opencv(path: Path, x: np.ndarray) -> Run:
    network = cv2.dnn.readNetFromONNX(str(path))

    def run() -> np.ndarray:
        network.setInput(x, "pixels")
        return network.forward("logits")

    return run


def report(size: tuple[int, int], program: str, form: str, each: list[float], off: float) -> None:
    """Print a line: the median and every round in milliseconds, and the error."""
    spread = " ".join(f"{one:.1f}" for one in sorted(each))
    print(f"{size} {program:16} {form:12} {statistics.median(each):6.1f} ms  {off:.1e}  ({spread})")


def measure(channels: int, side: int, folder: Path) -> None:
    """Time every form of one size in every runtime."""
    x = np.random.default_rng(0).normal(size=(IMAGES, channels, side, side)).astype(np.float32) * 50
    energy = np.einsum("ij,njhw->nihw", band(channels), x.astype(np.float64) ** 2)
    wanted = x / (NORM.k + NORM.alpha / NORM.size * energy) ** NORM.beta
    files = {form: folder / f"{form}.onnx" for form in FORMS}
    for form, path in files.items():
        onnx.save(make_graph(form, channels, side), path)

    def error(found: np.ndarray) -> float:
        return float(np.abs(found - wanted).max() / np.abs(wanted).max())

    loaders = {"onnxruntime": load_onnxruntime, "openvino": load_openvino, "opencv": load_opencv}
    for program, load in loaders.items():
        runs = {form: load(path, x) for form, path in files.items()}
        off = {form: error(run()) for form, run in runs.items()}
        each: dict[str, list[float]] = {form: [] for form in FORMS}
        for _ in range(ROUNDS):
            for form, run in runs.items():
                start = time.process_time()
                run()
                each[form].append(1e3 * (time.process_time() - start))
        for form in FORMS:
            report((channels, side), program, form, each[form], off[form])
    with Web(find_onnxruntime_web(), folder, *files.values()) as web:
        batch = torch.from_numpy(x)
        web.time(batch)
        rounds = [web.time(batch) for _ in range(ROUNDS)]
        for number, form in enumerate(FORMS):
            found = np.fromfile(f"{web.batch}.{number}.logits", np.float32).reshape(x.shape)
            each_round = [one[number] for one in rounds]
            report((channels, side), "onnxruntime-web", form, each_round, error(found))


if __name__ == "__main__":
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as temporary:
        asked = [tuple(map(int, one.split("x"))) for one in sys.argv[1:]]
        for channels, side in asked or SIZES:
            measure(channels, side, Path(temporary))
