"""``alexnet doctor``."""

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


def doctor() -> None:
    """Say what is installed, what this machine can do, and how to get what is missing.

    Example: `alexnet doctor`
    """
    import platform
    from importlib.metadata import version
    from importlib.util import find_spec

    import torch

    from alexnet.data import decode
    from alexnet.device import Device, use_threads
    from alexnet.files import cache_folder, free_bytes
    from alexnet.kernels.native import unavailable_reason
    from alexnet.version import __version__

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
