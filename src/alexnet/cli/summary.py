"""``alexnet summary`` and ``alexnet doctor``: what a network is, and what this machine can do."""

import json as json_format
from dataclasses import asdict
from typing import TYPE_CHECKING

from alexnet.cli.common import Json, apply_settings

if TYPE_CHECKING:
    from alexnet.spec import Spec

EXTRAS = {
    "demo": ("elpv_dataset", "the built-in photographs"),
    "fast": ("simplejpeg", "faster decoding"),
    "heic": ("pillow_heif", "photographs of telephones"),
    "near": ("imagehash", "alexnet prepare --near-duplicates"),
    "imagenet": ("scipy", "ILSVRC's devkit"),
    "cluster": ("distributed", "preparing on a Dask cluster"),
    "tensorboard": ("tensorboard", "curves in TensorBoard"),
    "wandb": ("wandb", "alexnet train --log wandb"),
    "mlflow": ("mlflow", "alexnet train --log mlflow"),
    "trackio": ("trackio", "alexnet train --log trackio"),
    "plots": ("matplotlib", "alexnet figures"),
    "claims": ("scipy", "the report of alexnet claims"),
    "explain": ("captum", "alexnet explain"),
    "export": ("onnxruntime", "alexnet export --to onnx"),
    "import": ("onnx", "alexnet import of Caffe's files and ONNX"),
    "keras": ("h5py", "alexnet import of Keras's files"),
    "serve": ("fastapi", "alexnet serve"),
    "bench": ("openvino", "OpenVINO beside alexnet bench"),
    "hub": ("huggingface_hub", "repositories of the Hugging Face hub"),
}


def summary(network: str = "single", *, set: list[str] | None = None, json: Json = False) -> None:
    """Print a network layer by layer, with the arithmetic written out.

    Example: `alexnet summary paper --set num_classes=10`

    Parameters
    ----------
    network
        single, paper, as_run, as_run_six, as_run_apart, caffe, caffenet, torchvision, cifar_quick
        or cifar_local.
    set
        A field of the network to change, NAME=VALUE: `towers=2`, `conv1.norm.k=1`. Repeatable.
    """
    from alexnet.variants import network_named

    chosen = apply_settings(network_named(network), set or [])
    if json:
        print(format_spec(chosen))
    else:
        print(format_text(chosen))


def format_spec(spec: "Spec") -> str:
    """Return the counts of a network as a JSON object."""
    layers = [{**asdict(layer), "outputs": layer.outputs} for layer in spec.layers()]
    counts = {
        "network": spec.name,
        "parameters": spec.parameters,
        "neurons": spec.neurons,
        "neurons_with_input": spec.neurons + spec.inputs,
        "macs": spec.macs,
        "classes": spec.num_classes,
        "layers": layers,
    }
    return json_format.dumps(counts)


def format_text(spec: "Spec") -> str:
    """Return the counts of a network as the starting document writes them."""
    lines = [f"{'layer':10} {'output':>12} {'neurons':>9} {'parameters':>12}  arithmetic"]
    for layer in spec.layers():
        shape = (
            f"{layer.size}x{layer.size}x{layer.channels}" if layer.size > 1 else str(layer.channels)
        )
        neurons = f"{layer.outputs:,}" if layer.kind != "pool" else ""
        count = f"{layer.parameters:,}" if layer.parameters else ""
        lines.append(
            f"{layer.name:10} {shape:>12} {neurons:>9} {count:>12}  {layer.arithmetic}".rstrip()
        )
    lines.append(f"{spec.parameters:,} parameters, {spec.macs:,} multiply-accumulates an image")
    lines.append(
        f"{spec.neurons:,} neurons, {spec.neurons + spec.inputs:,} with the input's {spec.inputs:,}"
    )
    return "\n".join(lines)


def doctor() -> None:
    """Say what is installed, what this machine can do, and how to get what is missing.

    Example: `alexnet doctor`
    """
    import platform
    from importlib.metadata import version
    from importlib.util import find_spec

    import torch

    from alexnet import __version__
    from alexnet.data import decode
    from alexnet.device import Device, use_threads
    from alexnet.files import cache_folder, free_bytes
    from alexnet.kernels.native import unavailable_reason

    device = Device.best()
    _, complaint = device.can_compile()
    memory = device.memory()
    about = "" if memory is None else f" ({memory[0] / 1e9:,.0f} of {memory[1] / 1e9:,.0f} GB free)"
    cache = cache_folder()
    facts = {
        "alexnet": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": f"{device.name}{about}",
        "threads": str(use_threads(None)),
        "bfloat16": "in hardware" if device.has_fast_bfloat16 else "no: float32 is used",
        "torch.compile": complaint or "works",
        "kernels": unavailable_reason() or "work",
        "JPEG decoder": decode.jpeg_library(),
        "cache": f"{cache} ({free_bytes(cache) / 1e9:,.0f} GB free)",
    }
    for name, fact in facts.items():
        print(f"{name:14} {fact}")
    for extra, (module, purpose) in EXTRAS.items():
        if find_spec(module) is None:
            print(f"{extra:14} missing: {purpose}. Install: pip install 'alexnet[{extra}]'")
        else:
            print(f"{extra:14} {module} {version(module.replace('_', '-'))}")
