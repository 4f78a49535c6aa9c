"""The programs besides ours that run an ONNX file: functions from pixels to both outputs."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from alexnet.interop.export import LOGITS, PIXELS, PROBABILITIES, run_onnx

Runner = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
DIST = Path("node_modules", "onnxruntime-web", "dist")


def find_onnxruntime_web() -> Path | None:
    """Return onnxruntime-web's files where npm puts them, or where ALEXNET_ONNXRUNTIME_WEB says."""
    named = os.environ.get("ALEXNET_ONNXRUNTIME_WEB")
    folders = [Path(named)] if named else [DIST, Path(".venv") / DIST]
    return next((folder.resolve() for folder in folders if folder.is_dir()), None)


def run_openvino(path: Path) -> Runner:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(path, "CPU", settings)

    def run(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = compiled({PIXELS: batch.contiguous().numpy()})
        return torch.from_numpy(found[LOGITS].copy()), torch.from_numpy(found[PROBABILITIES].copy())

    return run


def run_opencv(path: Path) -> Runner:
    import cv2

    cv2.setNumThreads(torch.get_num_threads())
    network = cv2.dnn.readNetFromONNX(str(path))

    def run(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        network.setInput(batch.contiguous().numpy(), PIXELS)
        logits, probabilities = network.forward([LOGITS, PROBABILITIES])
        return torch.from_numpy(logits.copy()), torch.from_numpy(probabilities.copy())

    return run


RUNTIMES = {"onnxruntime": lambda path: run_onnx(path, PIXELS), "openvino": run_openvino,
            "opencv": run_opencv}  # fmt: skip

# Loads the files named, then answers a line {"batch", "shape"} each, which it runs on every file in
# turn: onnxruntime-web as a browser without a GPU has it, in one thread.
WEB = """
import { readFileSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
const [dist, ...files] = process.argv.slice(2);
const ort = await import(`${dist}/ort.wasm.bundle.min.mjs`);
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = `${dist}/`;
const read = (file) => new Uint8Array(readFileSync(file)); // a copy: Node's buffers share memory
ort.env.wasm.wasmBinary = read(`${dist}/ort-wasm-simd-threaded.wasm`).buffer;
const sessions = [];
for (const file of files) {
  sessions.push(await ort.InferenceSession.create(read(file), { executionProviders: ["wasm"] }));
}
for await (const line of createInterface({ input: process.stdin })) {
  const { batch, shape } = JSON.parse(line);
  const input = new ort.Tensor("float32", new Float32Array(read(batch).buffer), shape);
  const milliseconds = [];
  for (const [number, session] of sessions.entries()) {
    const start = process.cpuUsage();
    const found = await session.run({ pixels: input });
    const { user, system } = process.cpuUsage(start);
    milliseconds.push((user + system) / 1e3);
    for (const name of ["logits", "probabilities"]) {
      writeFileSync(`${batch}.${number}.${name}`, found[name].data);
    }
  }
  console.log(JSON.stringify(milliseconds));
}
"""


class Web:
    """onnxruntime-web's WebAssembly in Node, with several files loaded; a context."""

    def __init__(self, dist: Path, folder: Path, *files: Path) -> None:
        program = folder / "web.mjs"
        program.write_text(WEB)
        node = shutil.which("node") or "node"
        self.batch = folder / "batch"
        self.process = subprocess.Popen(
            [node, program, dist, *files],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> "Web":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def run(self, batch: torch.Tensor, file: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        self.time(batch)
        parts = [f"{self.batch}.{file}.{name}" for name in (LOGITS, PROBABILITIES)]
        found = [torch.from_numpy(np.fromfile(part, np.float32)) for part in parts]
        logits, probabilities = (one.unflatten(0, (len(batch), -1)) for one in found)
        return logits, probabilities

    def time(self, batch: torch.Tensor) -> list[float]:
        """Run a batch on every file; return the processor's milliseconds for each."""
        batch.contiguous().numpy().tofile(self.batch)
        question = {"batch": str(self.batch), "shape": list(batch.shape)}
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())
