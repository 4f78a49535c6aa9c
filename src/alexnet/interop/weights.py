"""Files of weights alone, in and out: safetensors, and state dicts of torchvision's ``alexnet``.

A ``.pth`` is a pickle. It is read first by a reader that runs nothing, for the names and shapes of
its tensors alone; PyTorch loads it, ``weights_only``, once they are known to be an AlexNet's and no
larger than the file.
"""

import io
import json
import math
import re
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from alexnet.config import differences, from_json
from alexnet.errors import ConfigError, RunError
from alexnet.files import atomic_write
from alexnet.interop.bounds import MOST_LAYERS, read_bytes, read_inner_pickle
from alexnet.interop.export import describe_model
from alexnet.interop.layer_ir import ImportedNetwork, MeanColour
from alexnet.network import AlexNet
from alexnet.pickles import ArrayUnpickler
from alexnet.predictor import Predictor
from alexnet.spec import Spec
from alexnet.variants import TORCHVISION

Shapes = Mapping[str, tuple[int, ...]]

# Where torchvision's ``alexnet`` keeps what the paper calls conv1 ... fc8 (facts 1d).
TORCHVISION_NAMES = {
    "conv1": "features.0",
    "conv2": "features.3",
    "conv3": "features.6",
    "conv4": "features.8",
    "conv5": "features.10",
    "fc6": "classifier.1",
    "fc7": "classifier.4",
    "fc8": "classifier.6",
}
# What may differ from TORCHVISION without a difference in what the network computes.
HARMLESS = ("name", "num_classes", "pixels", "dropout.rate", "output_std", "output_bias")
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how PyTorch's files began before 1.6
WRAPPED = ("state_dict", "model", "model_state_dict")  # where trainings keep it


def export_safetensors(model: Predictor, path: Path) -> None:
    """Write the weights under their own names, ``conv1.weight`` ... ``fc8.bias``, bit for bit.

    The metadata says what the network is (``spec``), its classes and its preprocessing, as JSON;
    the mean image is not in it: a model folder has it.
    """
    metadata = {"format": "pt", "spec": json.dumps(asdict(model.spec))}
    for key, value in describe_model(model, "images").items():
        if key not in ("input", "preprocessing_inside"):
            metadata[key] = value if isinstance(value, str) else json.dumps(value)
    write_safetensors(path, model.network.state_dict(), metadata)


def write_safetensors(
    path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write tensors, dense and on the processor, whole or not at all."""
    dense = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    with atomic_write(path) as temporary:
        temporary.write_bytes(safetensors.torch.save(dense, dict(metadata)))


def read_safetensors(path: Path, shapes: Shapes) -> dict[str, Tensor]:
    """Read exactly the tensors that are expected, and nothing before the file is seen to have them.

    `shapes` are the names and shapes that it must hold, all of float32 and finite numbers.
    """
    try:
        with safe_open(path, framework="pt") as file:
            _check_header(path, file, shapes)
            tensors = {name: file.get_tensor(name) for name in shapes}
    except FileNotFoundError:
        raise RunError(f"There is no file {str(path)!r}.", "Export or download it again.") from None
    except (OSError, SafetensorError, ValueError, OverflowError) as error:
        raise RunError(
            f"{str(path)!r} is damaged or no safetensors file ({error}).",
            "Export or download it again.",
        ) from None
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise RunError(f"{str(path)!r} has numbers in {name!r} that are not finite.")
    return tensors


def _check_header(path: Path, file: safe_open, shapes: Shapes) -> None:
    held = set(file.keys())
    for name, shape in shapes.items():
        if name not in held:
            raise RunError(f"{str(path)!r} has no {name!r}, which its network needs.")
        found = file.get_slice(name)
        dtype, given = found.get_dtype(), tuple(found.get_shape())
        if (dtype, given) != ("F32", shape):
            raise RunError(
                f"{name!r} in {str(path)!r} is {dtype} {given}; its network needs F32 {shape}."
            )
    if extra := sorted(held - shapes.keys()):
        raise RunError(f"{str(path)!r} has {extra[0]!r}, which its network does not know.")


def find_shapes(spec: Spec) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a network's tensors; none of them takes memory."""
    if len(spec.convs) + len(spec.dense) > MOST_LAYERS:
        raise RunError(f"Its network has more than {MOST_LAYERS} layers.")
    with torch.device("meta"):
        network = AlexNet(spec)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def is_safetensors(path: Path) -> bool:
    """Whether a file begins with the length of a JSON object, and the object."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def read_own_safetensors(path: Path) -> ImportedNetwork:
    """Read what ``alexnet export --to safetensors`` wrote."""
    with safe_open(path, framework="pt") as file:
        told = file.metadata() or {}
    if "spec" not in told:
        raise RunError("It does not say what its network is.", "See --as torchvision.")
    spec = from_json(Spec, json.loads(told["spec"]))
    classes = from_json(tuple[str, ...], json.loads(told.get("classes", "[]")))
    about = json.loads(told.get("preprocessing", "{}"))
    mean = None
    if not isinstance(spec.pixels.mean, tuple):
        values = tuple(float(value) / spec.pixels.scale for value in about["mean"]["colour"])
        if len(values) != 3 or not np.isfinite(values).all():
            raise RunError("Its mean colour is no colour.")
        values = values[::-1] if spec.pixels.channel_order == "BGR" else values
        mean = MeanColour(values, "the file's mean colour; its mean image is not in it")
    return ImportedNetwork(
        spec=spec,
        weights=read_safetensors(path, find_shapes(spec)),
        found=(f"safetensors of alexnet {told.get('alexnet_version', '')}",),
        mean=mean,
        resize_to=int(about.get("prepared", 0)),
        classes=classes if len(classes) == spec.num_classes else None,
    )


def export_torchvision(model: Predictor, path: Path) -> None:
    """Write a state dict that torchvision's ``alexnet(num_classes=...)`` loads.

    Raises
    ------
    ConfigError
        When the network computes something else than torchvision's, with the first differences.
    """
    apart = [
        f"{path.removeprefix('convs.').removeprefix('dense.')} is {ours}, there {theirs}"
        for path, (theirs, ours) in differences(TORCHVISION, model.spec).items()
        if not path.startswith(HARMLESS) and not path.endswith((".std", ".bias"))
    ]
    if apart:
        raise ConfigError(
            f"Network {model.spec.name!r} is not torchvision's ({'; '.join(apart[:3])}).",
            "Export it as onnx, safetensors, huggingface or program; torchvision can load only "
            "the network called 'torchvision'.",
        )
    weights = {}
    for name, tensor in model.network.state_dict().items():
        layer, _, part = name.partition(".")
        weights[f"{TORCHVISION_NAMES[layer]}.{part}"] = tensor.detach().cpu().contiguous()
    content = io.BytesIO()  # torch's own writer hides why the disk refused
    torch.save(weights, content)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def is_torch(start: bytes, path: Path) -> bool:
    """Whether a file that begins with `start` was written by ``torch.save``."""
    if start.startswith(LEGACY):
        return True
    if not start.startswith(b"PK"):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, OSError):
        return False


def read_state_dict(path: Path) -> ImportedNetwork:
    """Read a state dict of torchvision's ``alexnet``, any number of classes and any widths."""
    if is_safetensors(path):
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
        spec, where = find_torchvision_spec(shapes), "safetensors"
        tensors = read_safetensors(path, shapes)
    else:
        data, where = read_bytes(path), "state dict of PyTorch"
        described = _find_state_dict(_describe_content(data), _Described)
        spec = find_torchvision_spec({name: one.shape for name, one in described.items()})
        tensors = _load_tensors(data)
    weights = {}
    for ours, theirs in TORCHVISION_NAMES.items():
        for part in ("weight", "bias"):
            tensor = tensors[f"{theirs}.{part}"]
            if not tensor.isfinite().all():
                raise RunError(f"{theirs}.{part} has numbers that are not finite.")
            weights[f"{ours}.{part}"] = tensor.detach().float().clone().contiguous()
    return ImportedNetwork(spec=spec, weights=weights, found=(f"{where}, torchvision's names",))


def find_torchvision_spec(shapes: Shapes) -> Spec:
    """Return the spec of a state dict: torchvision's network, as wide as its tensors."""
    names = TORCHVISION_NAMES
    wanted = {f"{name}.{part}" for name in names.values() for part in ("weight", "bias")}
    if missing := sorted(wanted - shapes.keys()):
        some = ", ".join(sorted(shapes)[:4]) or "nothing"
        raise RunError(
            f"It has no {missing[0]!r}, which torchvision's alexnet has; it has {some}.",
            "Another network cannot be read from a state dict alone: it does not tell its layers.",
        )
    if extra := sorted(shapes.keys() - wanted):
        raise RunError(f"It has {extra[0]!r}, which torchvision's alexnet has not.")
    width = {ours: next(iter(shapes[f"{theirs}.weight"]), 0) or 1 for ours, theirs in names.items()}
    spec = replace(
        TORCHVISION,
        convs=tuple(replace(c, out_channels=width[c.name]) for c in TORCHVISION.convs),
        dense=tuple(replace(layer, units=width[layer.name]) for layer in TORCHVISION.dense),
        num_classes=width["fc8"],
    )
    for name, shape in find_shapes(spec).items():
        layer, _, part = name.partition(".")
        theirs = f"{names[layer]}.{part}"
        if shapes[theirs] != shape:
            raise RunError(f"{theirs!r} is {shapes[theirs]}; expected {shape}.")
    return spec


@dataclass(frozen=True, slots=True)
class _Described:
    """A tensor that was not made."""

    shape: tuple[int, ...]


class _StorageCounter(ArrayUnpickler):
    """Reads a ``.pth`` and makes no tensor; more memory than the file holds is refused."""

    def __init__(self, data: bytes, file_size: int) -> None:
        super().__init__(data, _TENSORS)
        self.file_size, self.total = file_size, 0
        self.sizes: dict[str, int] = {}  # numbers, by the memory's name

    def persistent_load(self, pid: Any) -> int:
        """Count what a reference to a tensor's memory says; return its numbers."""
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] not in ("storage", b"storage"):
            raise RunError("It refers to something that is no tensor's memory.")
        key, size = pid[2], pid[4]
        if not isinstance(key, str | bytes) or not isinstance(size, int) or size < 0:
            raise RunError("It refers to a tensor's memory of no sense.")
        self.total += size - self.sizes.get(str(key), 0)
        self.sizes[str(key)] = size
        if self.total > self.file_size:
            raise RunError(f"It declares {size:,} numbers; the file has {self.file_size:,} bytes.")
        return size


def _describe_tensor(count: Any, offset: Any, shape: Any, stride: Any, *more: Any) -> _Described:
    """Return a tensor's shape; one that reaches beyond its memory would enlarge that."""
    sizes, steps = tuple(map(int, shape[:9])), tuple(map(int, stride[:9]))
    if not isinstance(count, int) or len(sizes) > 8 or min((offset, *sizes, *steps)) < 0:
        raise RunError("It has a tensor of no sense.")
    reach = offset + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True)) + 1
    if math.prod(sizes) > count or (min(sizes, default=1) and reach > count):
        raise RunError(f"It has a tensor of {sizes} on a memory of {count:,} numbers.")
    return _Described(sizes)


_DTYPES = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_TENSORS: Mapping[str, Any] = {
    "collections.OrderedDict": lambda *arguments: {},
    "torch._utils._rebuild_tensor": _describe_tensor,
    "torch._utils._rebuild_tensor_v2": _describe_tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *more: tensor,
    **{f"torch.{dtype}Storage": lambda *arguments: None for dtype in _DTYPES},
}


def _describe_content(data: bytes) -> Any:
    """Return what a ``.pth`` holds, its tensors described; nothing is made."""
    if not data.startswith(LEGACY):
        return _StorageCounter(read_inner_pickle(data), len(data)).load()
    counter = _StorageCounter(data, len(data))
    for _ in range(3):  # a number, a version, the sizes of the system's numbers
        counter.load()
    content = counter.load()
    counter.load()  # the names of the tensors' memories; their numbers follow
    return content


def _load_tensors(data: bytes) -> dict[str, Tensor]:
    """Return the tensors of a ``.pth`` that was described before."""
    content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    tensors = _find_state_dict(content, Tensor)
    for name, tensor in tensors.items():
        if tensor.nbytes > tensor.untyped_storage().nbytes():  # one number, many times
            raise RunError(f"It has {name!r} of {tuple(tensor.shape)} on a smaller memory.")
    return tensors


def _find_state_dict(content: Any, kind: type) -> dict[str, Any]:
    """Return the state dict in a file, or in the part of a training's checkpoint that has it."""
    if isinstance(content, dict):
        content = next(
            (content[key] for key in WRAPPED if isinstance(content.get(key), dict)), content
        )
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise RunError(
            "It holds no state dict.", "Save one with torch.save(model.state_dict(), …)."
        )
    found: dict[str, Any] = {}
    for wrapped, tensor in content.items():
        if not isinstance(tensor, kind):
            raise RunError("It holds other things than tensors under the names of a state dict.")
        name = _strip_wrappers(wrapped)
        if name in found:
            raise RunError(f"It has {name!r} twice, once as {wrapped!r}.")
        found[name] = tensor
    return found


def _strip_wrappers(name: str) -> str:
    """Return a tensor's name without what wrappers of a network put before or into it."""
    return re.sub(r"(^|\.)(module|_orig_mod)\.", r"\1", name)
