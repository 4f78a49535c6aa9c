"""``alexnet export``."""

import json as json_format
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from alexnet.cli.common import Json, RunFolder, Threads, require_counts
from alexnet.errors import ConfigError
from alexnet.interop import Runtime, WeightType

if TYPE_CHECKING:  # torch
    from alexnet.interop.export import ExportedFile

ExportFormat = Literal["onnx", "program", "safetensors", "torchvision", "huggingface", "web"]


def export(
    run: RunFolder,
    out: Path,
    *,
    to: ExportFormat,
    with_preprocessing: bool = False,
    portable: bool = False,
    for_: Annotated[Runtime | None, Parameter(name="--for")] = None,
    weights: WeightType | None = None,
    onnxruntime_web: Path | None = None,
    images: int = 74,
    push: str | None = None,
    private: bool = False,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Write a trained run for other programs, and say how far the copy is from it.

    Example: `alexnet export runs/elpv elpv.onnx --to onnx --with-preprocessing`

    Parameters
    ----------
    out
        The file to write; for huggingface and web, the folder.
    to
        onnx: one file for ONNX Runtime and others. program: torch.export, `.pt2`. safetensors:
        weights by the paper's names. torchvision: a state dict that its alexnet() loads.
        huggingface: a model folder with a card, for alexnet.from_pretrained. web: a folder for any
        static host, whose page predicts in the browser.
    with_preprocessing
        onnx and program: take prepared uint8 RGB images, (N, side, side, 3), and do the rest
        inside; else float32 pixels as the network takes them.
    portable
        onnx: without LRN and other operators that some runtimes lack or read differently.
    for_
        onnx: portable, in the form of LRN that is fastest in this runtime; all run all forms.
    weights
        onnx and web: float16 and int8 are a half and a quarter of the size; what they cost is
        measured on the run's test images. By default float32, for web float16.
    onnxruntime_web
        web: the folder with onnxruntime-web's files; by default where npm puts them.
    images
        onnx, program and web: how many images the copy is compared on, the run's held-out ones if
        they are still there. It is kept only if the two agree.
    push
        huggingface: also send the folder to this repository, user/name, of the hub.
    private
        huggingface: make that repository a private one.
    """
    require_counts(images=images)
    if with_preprocessing and to not in ("onnx", "program"):
        raise ConfigError(f"{to} takes no whole images.", "Leave --with-preprocessing out.")
    if push and to != "huggingface":
        raise ConfigError(f"A {to} file is not pushed.", "Use --to huggingface with --push.")
    if (portable or for_) and to != "onnx":
        raise ConfigError(f"A {to} file has no such form.", "Use --portable and --for with onnx.")
    if weights and to not in ("onnx", "web"):
        raise ConfigError(f"A {to} file keeps its weights.", "Leave --weights out.")
    kind: Literal["images", "pixels"] = "images" if with_preprocessing else "pixels"

    from alexnet import device as devices

    devices.use_threads(threads)
    result: dict[str, Any] = {"to": to, "path": str(out)}
    if to == "huggingface":
        result |= _model_folder(run, out, push, private)
    elif to in ("onnx", "program", "web"):
        runtime = for_ or ("onnxruntime" if portable else None)
        weights = weights or ("float16" if to == "web" else "float32")
        result |= _compared(run, out, to, kind, images, runtime, weights, onnxruntime_web)
    else:
        result |= _weights(run, out, to)
    if json:
        print(json_format.dumps(result))
    else:
        print("\n".join(_sentences(result)))


def _compared(
    run: Path,
    out: Path,
    to: str,
    kind: Literal["images", "pixels"],
    count: int,
    runtime: Runtime | None,
    weights: WeightType,
    onnxruntime_web: Path | None,
) -> dict[str, Any]:
    from alexnet.api import load
    from alexnet.interop.export import describe_model, export_onnx, export_program, sample_images
    from alexnet.interop.portable import measure_cost
    from alexnet.serve.static_site import export_site
    from alexnet.training.run import Run

    model, data = load(run, device="cpu"), Run.open(run).config.data
    images, source = sample_images(model, data, count)
    if to == "onnx":
        written: ExportedFile = export_onnx(
            model, out, images, source, kind=kind, portable_for=runtime, weights=weights
        )
    elif to == "program":
        written = export_program(model, out, images, source, kind=kind)
    else:
        written = export_site(model, out, onnxruntime_web, images, source, weights=weights)
    told = describe_model(model, kind)
    result = {**asdict(written), "path": str(out), "input": told["input"]}
    if weights != "float32":
        result |= {"weights": weights, "cost": measure_cost(model, weights, data)}
    return {**result, "classes": told["classes"]}


def _weights(run: Path, out: Path, to: str) -> dict[str, Any]:
    from alexnet.api import load
    from alexnet.interop.weights import export_safetensors, export_torchvision

    model = load(run, device="cpu")
    (export_safetensors if to == "safetensors" else export_torchvision)(model, out)
    return {"bytes": out.stat().st_size, "tensors": len(model.network.state_dict())}


def _model_folder(run: Path, out: Path, push: str | None, private: bool) -> dict[str, Any]:
    from alexnet.interop.model_folder import upload, write

    folder = write(run, out)
    files = sorted(file.name for file in folder.iterdir() if file.is_file())
    address = upload(folder, push, private=private) if push else None
    return {"files": files, "repository": address}


def _sentences(result: dict[str, Any]) -> list[str]:
    said = [f"{result['path']}: {result['bytes'] / 1e6:,.1f} MB" if "bytes" in result else ""]
    if "files" in result:
        said = [f"{result['path']}: {', '.join(result['files'])}"]
    if result.get("repository"):
        said.append(f"sent to {result['repository']}")
    if "input" in result:
        said.append(f"takes {result['input']}; gives logits and probabilities")
    if parity := result.get("parity"):
        batches = ", ".join(map(str, parity["batches"]))
        said.append(f"compared on {parity['images']} {parity['source']}, in batches of {batches}:")
        said.append(f"  logits off by at most {parity['logits']:.1e} of the largest")
        said.append(f"  probabilities off by at most {parity['probabilities']:.1e}")
        said.append(f"  the same five classes for {parity['top5']}")
    if cost := result.get("cost"):
        said.append(
            f"weights in {result['weights']} on {cost['images']:,} test images, centre crop: top-1 "
            f"{cost['top1']:.3f} ({cost['float32_top1']:.3f} in float32), top-5 {cost['top5']:.3f} "
            f"({cost['float32_top5']:.3f})"
        )
    elif "cost" in result:
        said.append("what the weights cost is not known: the run's test images are not there")
    if "shards" in result:
        said.append(f"files of the model: {result['shards']}; any static host serves it, here")
        said.append(f"  python -m http.server --directory {result['path']}")
    return said
