"""What TensorFlow.js itself makes of files that `alexnet import` reads, against the import.

``PYTHONPATH=src:. python benchmarks/tfjs_parity.py FOLDER``, where FOLDER has ``node_modules`` with
``@tensorflow/tfjs`` (npm install @tensorflow/tfjs@4.22.0). Prints the largest difference of the
logits, as a share of the largest logit, for a layers model, a quantised one, and graphs.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from alexnet.interop.imports import read_weights_file
from alexnet.network import AlexNet
from tests.interop.tensorflow_files import SIDE, alexnet, graph_model, layers_model

RUN = """
const tf = require('@tensorflow/tfjs'), fs = require('fs'), path = require('path');
const [file, pixels, form] = process.argv.slice(2);
const told = JSON.parse(fs.readFileSync(file));
const folder = path.dirname(file), group = told.weightsManifest[0];
const data = Buffer.concat(group.paths.map((name) => fs.readFileSync(path.join(folder, name))));
const bytes = data.buffer.slice(data.byteOffset, data.byteOffset + data.length);
const artifacts = {modelTopology: told.modelTopology, weightSpecs: group.weights,
                   format: told.format, weightData: bytes};
const handler = {load: async () => artifacts};
const raw = fs.readFileSync(pixels);
const numbers = new Float32Array(raw.buffer, raw.byteOffset, raw.length / 4);
const x = tf.tensor(numbers, [2, SIDE, SIDE, 3]);
(async () => {
  const model = await (form === 'graph' ? tf.loadGraphModel(handler) : tf.loadLayersModel(handler));
  const y = model.predict(x);
  console.log('LOGITS' + JSON.stringify((form === 'graph' ? tf.log(y) : y).arraySync()));
})();
""".replace("SIDE", str(SIDE))


def run_tfjs(modules: Path, model: Path, images: np.ndarray, form: str) -> np.ndarray:
    """Return what TensorFlow.js makes of images (N, side, side, 3)."""
    (model.parent / "run.js").write_text(RUN)
    images.tofile(model.parent / "pixels")
    command = ["node", "run.js", str(model), str(model.parent / "pixels"), form]
    told = subprocess.run(
        command, cwd=model.parent, capture_output=True, text=True, check=True,
        env={"NODE_PATH": str(modules / "node_modules"), "PATH": "/usr/bin:/usr/local/bin"},
    ).stdout  # fmt: skip
    return np.array(json.loads(told.split("LOGITS")[1]))


def main() -> None:
    """Compare each kind of file."""
    modules = Path(sys.argv[1]).resolve()
    images = np.random.default_rng(0).uniform(-1, 1, (2, SIDE, SIDE, 3)).astype(np.float32)
    plain = alexnet(lrn=False, groups=1)  # its layers have neither
    kinds = {
        "layers": lambda folder: layers_model(folder, plain),
        "layers, uint8": lambda folder: layers_model(folder, plain, quantize="uint8"),
        "graph": lambda folder: graph_model(folder, alexnet()),
        "graph, fused": lambda folder: graph_model(folder, alexnet(), fused=True),
    }
    for kind, write in kinds.items():
        with tempfile.TemporaryDirectory() as name:
            file = write(Path(name))
            theirs = run_tfjs(modules, file, images, kind.split(",")[0])
            imported = read_weights_file(file, "tfjs")
            network = AlexNet(imported.spec).eval()
            network.load_state_dict(imported.weights)
            with torch.inference_mode():
                ours = network(torch.from_numpy(images).permute(0, 3, 1, 2)).double()
            if kind.startswith("graph"):  # which ends in a softmax
                ours = ours.log_softmax(1)
            apart = np.abs(ours.numpy() - theirs).max() / np.abs(theirs).max()
            print(f"{kind:14} {apart:.1e}")


if __name__ == "__main__":
    main()
