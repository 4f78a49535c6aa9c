"""A run as a folder for any static host: the page, and the network that the browser runs.

Nothing is fetched but the folder's own files, and no photograph leaves the browser.
"""

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from alexnet.data.imagenet import describe_classes
from alexnet.errors import ConfigError
from alexnet.files import translate_os_error
from alexnet.interop import WeightType
from alexnet.interop.export import OnnxFile, describe_model, export_onnx
from alexnet.predictor import Predictor

SERVE = Path(__file__).parent
OWN = ("api.js", "index.html", "main.js", "pixels.js", "worker.js")
# Of the served page, whose parts ask another `api.js`.
SHARED = (
    *("decides.js", "dom.js", "icon.svg", "photograph.js", "predictions.js", "session.js"),
    *("sprites.js", "style.css", "text.js"),
)
# Of the npm package onnxruntime-web: a build for processors, and one for GPUs, twice as large.
RUNTIME = (
    *("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"),
    *("ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm"),
)
FROM_NPM = Path("node_modules", "onnxruntime-web", "dist")
SHARD_BYTES = 20_000_000  # hosts take files of 25 MB or more


@dataclass(frozen=True, slots=True)
class StaticSite(OnnxFile):
    """A folder that was written; `bytes` are those of all its files."""

    shards: int  # files of the model


def export_site(
    model: Predictor,
    folder: Path,
    runtime: Path | None,
    images: Tensor,
    source: str,
    *,
    weights: WeightType = "float16",
) -> StaticSite:
    """Write a network as a static folder; it appears whole, once its model was compared.

    Parameters
    ----------
    model : Predictor
        A trained network on the processor.
    folder : Path
        New, or empty.
    runtime : Path | None
        Where onnxruntime-web's files are; by default ``node_modules/onnxruntime-web/dist`` here.
    images, source, weights
        As `export_onnx` takes them.

    Raises
    ------
    ConfigError
        When the folder has files, or the runtime's are not where they should be.
    AlexNetError
        When ONNX Runtime computes something else than the network.
    """
    runtime = runtime or FROM_NPM
    missing = [name for name in RUNTIME if not (runtime / name).is_file()]
    if missing:
        raise ConfigError(
            f"{runtime} has no {missing[0]} of onnxruntime-web.",
            "Name the folder with --onnxruntime-web; `npm install onnxruntime-web` puts it into "
            f"{FROM_NPM}.",
        )
    with translate_os_error(folder):
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder} has files in it.", "Name a new folder.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            made = Path(temporary, "site")
            made.mkdir()
            written = export_onnx(
                model, made / "model.onnx", images, source, portable_for="web", weights=weights
            )
            shards = _cut(made / "model.onnx")
            about = describe_model(model, "pixels") | {
                "names": describe_classes(model.classes),
                "bytes": written.bytes,
                "shards": shards,
            }
            (made / "model.json").write_text(json.dumps(about), encoding="utf-8")
            kept = [SERVE / "site" / name for name in OWN] + [
                SERVE / "page" / name for name in SHARED
            ]
            for file in [*kept, *(runtime / name for name in RUNTIME)]:
                shutil.copyfile(file, made / file.name)
            made.replace(folder)
    total = sum(file.stat().st_size for file in folder.iterdir())
    return StaticSite(folder, total, written.parity, written.opset, written.nodes, len(shards))


def _cut(model: Path) -> list[str]:
    """Cut a file into pieces beside it, which take its place; return their names in order."""
    content, names = model.read_bytes(), list[str]()
    for start in range(0, len(content), SHARD_BYTES):
        names.append(f"model-{len(names):02}.bin")
        (model.parent / names[-1]).write_bytes(content[start : start + SHARD_BYTES])
    model.unlink()
    return names
