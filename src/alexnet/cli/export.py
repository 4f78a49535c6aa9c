"""``alexnet export``."""

import json as json_format
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from alexnet.cli.common import Json, RunFolder, Threads, require_counts
from alexnet.errors import ConfigError

ExportFormat = Literal["onnx", "program", "safetensors", "torchvision", "huggingface"]


def export(
    run: RunFolder,
    out: Path,
    *,
    to: ExportFormat,
    with_preprocessing: bool = False,
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
        The file to write; for huggingface, the folder.
    to
        onnx: one file for ONNX Runtime and others. program: torch.export, `.pt2`. safetensors:
        weights by the paper's names. torchvision: a state dict that its alexnet() loads.
        huggingface: a model folder with a card, for alexnet.from_pretrained.
    with_preprocessing
        onnx and program: take prepared uint8 RGB images, (N, side, side, 3), and do the rest
        inside; else float32 pixels as the network takes them.
    images
        onnx and program: how many images the copy is compared on, the run's held-out ones if they
        are still there. The file is kept only if the two agree.
    push
        huggingface: also send the folder to this repository, user/name, of the hub.
    private
        huggingface: make that repository a private one.
    """
    require_counts(images=images)
    if with_preprocessing and to not in ("onnx", "program"):
        raise ConfigError(f"{to} holds weights alone.", "Leave --with-preprocessing out.")
    if push and to != "huggingface":
        raise ConfigError(f"A {to} file is not pushed.", "Use --to huggingface with --push.")
    kind: Literal["images", "pixels"] = "images" if with_preprocessing else "pixels"

    from alexnet import device as devices

    devices.use_threads(threads)
    result: dict[str, Any] = {"to": to, "path": str(out)}
    if to == "huggingface":
        result |= _model_folder(run, out, push, private)
    elif to in ("onnx", "program"):
        result |= _compared(run, out, to, kind, images)
    else:
        result |= _weights(run, out, to)
    if json:
        print(json_format.dumps(result))
    else:
        print("\n".join(_sentences(result)))


def _compared(
    run: Path, out: Path, to: str, kind: Literal["images", "pixels"], count: int
) -> dict[str, Any]:
    from alexnet.api import load
    from alexnet.interop.export import describe_model, export_onnx, export_program, sample_images
    from alexnet.training.run import Run

    model = load(run, device="cpu")
    images, source = sample_images(model, Run.open(run).config.data, count)
    write = export_onnx if to == "onnx" else export_program
    written = write(model, out, images, source, kind=kind)
    told = describe_model(model, kind)
    return {**asdict(written), "path": str(out), "input": told["input"], "classes": told["classes"]}


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
    return said
