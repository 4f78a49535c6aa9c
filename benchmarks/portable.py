"""Portable ONNX files: are they the network, and how fast is each form of LRN?

``PYTHONPATH=src:. python benchmarks/portable.py parity|speed|weights OUT.json [NETWORK...]``
with ``WIDTH=narrow`` before it for channels and units a sixteenth of their own, ``ROUNDS=3`` for
fewer rounds than seven, ``PROGRAMS="opencv openvino"`` for some of the programs.

``parity`` compares every named network in ONNX Runtime, OpenVINO, OpenCV and onnxruntime-web's
WebAssembly, each with the form that is fastest there. ``speed`` times LRN's operator and the forms
without it, in rounds that take every file in turn: one thread, the processor's time of the process,
which other work on the machine hardly stretches. ``weights`` prints what files of each type of
weight weigh. Weights are drawn so that logits spread as a trained network's do.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import torch

from alexnet.interop import export
from alexnet.interop.export import PIXELS, build_onnx, generate_images, measure_parity
from alexnet.interop.portable import (
    FASTEST,
    ConvolvedLRN,
    PooledLRN,
    PooledOrConvolvedLRN,
    SlicedLRN,
    insert_stored,
    store_weights,
)
from alexnet.predictor import Predictor
from alexnet.variants import NETWORKS, network_named
from tests.interop.conftest import model_of, narrow
from tests.interop.runtimes import RUNTIMES, Web, find_onnxruntime_web

FORMS = {"operator": None, "by size": PooledOrConvolvedLRN, "convolution": ConvolvedLRN,
         "slices": SlicedLRN, "pool": PooledLRN}  # fmt: skip
WIDTH = narrow if os.environ.get("WIDTH") == "narrow" else network_named
ROUNDS, BATCHES = int(os.environ.get("ROUNDS", "7")), (1, 64)
WEB = "onnxruntime-web"
PROGRAMS = os.environ.get("PROGRAMS", " ".join([*RUNTIMES, WEB])).split()


def write(model: Predictor, form: str, folder: Path) -> Path:
    """Write the file of a network in a form."""
    path, lrn = folder / f"{form}.onnx", FORMS[form]
    if lrn is not None:
        export.FASTEST = {"web": lrn}
    proto = build_onnx(model, PIXELS, None if lrn is None else "web")
    path.write_bytes(proto.SerializeToString())
    return path


def measure_parities(names: list[str], folder: Path) -> list[dict]:
    """Return how far every network is from itself in every program."""
    rows, dist, path = [], find_onnxruntime_web(), folder / "net.onnx"
    for name in names:
        model = model_of(WIDTH(name))
        images = generate_images(model.resize_to, 10)
        forms = {program: FASTEST["web" if program == WEB else program] for program in PROGRAMS}
        for form in dict.fromkeys(forms.values()):
            runtime = next(one for one, its in FASTEST.items() if its is form)
            path.write_bytes(build_onnx(model, PIXELS, runtime).SerializeToString())
            for program in [one for one in PROGRAMS if forms[one] is form]:
                with Web(dist, folder, path) if program == WEB else nullcontext() as web:
                    run = web.run if web else RUNTIMES[program](path)
                    found = measure_parity(model, run, PIXELS, images, "generated", (1, 2, 7))
                rows.append({"network": name, "form": form.__name__, "program": program})
                rows[-1] |= {"logits": found.logits, "probabilities": found.probabilities}
                rows[-1] |= {"top5": found.top5, "holds": found.holds}
                print(json.dumps(rows[-1]), flush=True)
    return rows


def measure_speeds(names: list[str], folder: Path) -> list[dict]:
    """Return images a second of every form, in each program and batch: medians, and all rounds."""
    rows, dist = [], find_onnxruntime_web()
    for name in names:
        model = model_of(WIDTH(name))
        images = generate_images(model.resize_to, max(BATCHES))
        pixels = model.in_float32.centre_crops(images).contiguous()
        files = {form: write(model, form, folder) for form in FORMS}
        for program in [one for one in RUNTIMES if one in PROGRAMS]:
            loaded = {form: RUNTIMES[program](path) for form, path in files.items()}
            for batch in BATCHES:
                rows += summarise(name, program, batch, rounds_of(loaded, pixels[:batch]))
            del loaded
        if WEB not in PROGRAMS:
            continue
        with Web(dist, folder, *files.values()) as web:
            for batch in (1, 10):
                web.time(pixels[:batch])
                found = [web.time(pixels[:batch]) for _ in range(ROUNDS)]
                seconds = {form: [one[i] / 1e3 for one in found] for i, form in enumerate(files)}
                rows += summarise(name, WEB, batch, seconds)
    return rows


def rounds_of(loaded: dict, pixels: torch.Tensor) -> dict[str, list[float]]:
    """Return the seconds of every form in each round, after one that does not count."""
    seconds: dict[str, list[float]] = {form: [] for form in loaded}
    for number in range(ROUNDS + 1):
        for form, run in loaded.items():
            start = time.process_time()
            run(pixels)
            if number:
                seconds[form].append(time.process_time() - start)
    return seconds


def summarise(name: str, program: str, batch: int, seconds: dict[str, list[float]]) -> list[dict]:
    """Return a row a form: its median rate, and the rounds' ratios to the operator's."""
    rows = []
    for form, each in seconds.items():
        ratios = [a / b for a, b in zip(seconds["operator"], each, strict=True)]
        rows.append({
            "network": name, "program": program, "batch": batch, "form": form,
            "images_a_second": batch / statistics.median(each),
            "to_operator": statistics.median(ratios), "least": min(ratios), "most": max(ratios),
        })  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    return rows


def weigh(names: list[str], folder: Path) -> list[dict]:
    """Return the bytes of every network's file by type of weight."""
    rows = []
    for name in names:
        model = model_of(WIDTH(name))
        for dtype in ("float32", "float16", "int8"):
            proto = build_onnx(model, PIXELS, "web")
            insert_stored(proto.graph, store_weights(model.network, dtype))
            rows.append({"network": name, "weights": dtype, "bytes": proto.ByteSize()})
            print(json.dumps(rows[-1]), flush=True)
    return rows


if __name__ == "__main__":
    torch.set_num_threads(1)
    measure = {"parity": measure_parities, "speed": measure_speeds, "weights": weigh}[sys.argv[1]]
    with tempfile.TemporaryDirectory() as folder:
        found = measure(sys.argv[3:] or list(NETWORKS), Path(folder))
    Path(sys.argv[2]).write_text(json.dumps(found, indent=1) + "\n")
