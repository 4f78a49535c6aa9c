"""State dicts: torchvision's ``alexnet-owt-*.pth`` and its like, and this project's safetensors.

A ``.pth`` is a pickle. Its steps are read first, by a reader that runs nothing, for the names and
shapes of its tensors alone; PyTorch loads it, ``weights_only``, once they are known to be an
AlexNet's and no larger than the file.
"""

import json
import math
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from alexnet.config import from_json
from alexnet.errors import RunError
from alexnet.interop.imported import Imported, MeanColour, file_bytes
from alexnet.interop.weights import TORCHVISION_NAMES, read_safetensors
from alexnet.network import AlexNet
from alexnet.pickles import NUMPY, Reader
from alexnet.spec import Spec
from alexnet.variants import TORCHVISION

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how PyTorch's files began before 1.6
LARGEST_PICKLE = 64 << 20  # bytes of the pickle inside of a file, the numbers not counted
MOST_LAYERS = 100
WRAPPED = ("state_dict", "model", "model_state_dict")  # where trainings keep it
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class _Storage:
    """A tensor's memory: how many numbers."""

    size: int


@dataclass(frozen=True, slots=True)
class _Described:
    """A tensor that was not made: its shape."""

    shape: tuple[int, ...]


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


def is_safetensors(path: Path) -> bool:
    """Whether a file begins with the length of a JSON object, and the object."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def read_state_dict(path: Path) -> Imported:
    """Read a state dict of torchvision's ``alexnet``, any number of classes and any widths.

    Raises
    ------
    RunError
        When the file is damaged, asks for what no state dict needs, or has other layers.
    """
    if is_safetensors(path):
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 -- no mapping
        spec = torchvision_spec(shapes)
        tensors: Mapping[str, Tensor] = read_safetensors(path, shapes)
        where = "safetensors"
    else:
        data = file_bytes(path)
        described, prefix = _described(data)
        spec = torchvision_spec({name: value.shape for name, value in described.items()})
        tensors = _loaded(data, prefix)
        where = "state dict of PyTorch"
    weights = {}
    for ours, theirs in TORCHVISION_NAMES.items():
        for part in ("weight", "bias"):
            tensor = tensors[f"{theirs}.{part}"]
            if not tensor.isfinite().all():
                raise RunError(f"{theirs}.{part!s} has numbers that are not finite.")
            weights[f"{ours}.{part}"] = tensor.detach().float().clone().contiguous()
    return Imported(spec=spec, weights=weights, found=(f"{where}, torchvision's names",))


def torchvision_spec(shapes: Shapes) -> Spec:
    """Return the spec of a state dict: torchvision's network, as wide as its tensors.

    Raises
    ------
    RunError
        With the first tensor that is not as it should be.
    """
    wanted = {
        f"{name}.{part}" for name in TORCHVISION_NAMES.values() for part in ("weight", "bias")
    }
    if missing := sorted(wanted - shapes.keys()):
        some = ", ".join(sorted(shapes)[:4]) or "nothing"
        raise RunError(
            f"It has no {missing[0]!r}, which torchvision's alexnet has; it has {some}.",
            "Another network cannot be read from a state dict alone: it does not tell its layers.",
        )
    if extra := sorted(shapes.keys() - wanted):
        raise RunError(f"It has {extra[0]!r}, which torchvision's alexnet has not.")
    maps, made = [], 3
    for conv in TORCHVISION.convs:
        theirs = TORCHVISION_NAMES[conv.name]
        found = shapes[f"{theirs}.weight"]
        maps.append(found[0] if found else 0)
        _require(theirs, shapes, (maps[-1], made, conv.kernel_size, conv.kernel_size))
        made = maps[-1]
    made, units = made * TORCHVISION.flat[1] ** 2, []
    for name in ("fc6", "fc7", "fc8"):
        theirs = TORCHVISION_NAMES[name]
        found = shapes[f"{theirs}.weight"]
        units.append(found[0] if found else 0)
        _require(theirs, shapes, (units[-1], made))
        made = units[-1]
    convs = (replace(c, out_channels=n) for c, n in zip(TORCHVISION.convs, maps, strict=True))
    dense = (replace(d, units=n) for d, n in zip(TORCHVISION.dense, units[:2], strict=True))
    return replace(TORCHVISION, convs=tuple(convs), dense=tuple(dense), num_classes=units[2])


def _require(name: str, shapes: Shapes, wanted: tuple[int, ...]) -> None:
    for part, shape in (("weight", wanted), ("bias", wanted[:1])):
        found = shapes[f"{name}.{part}"]
        if tuple(found) != shape or min(shape) < 1:
            raise RunError(f"'{name}.{part}' is {tuple(found)}; expected {shape}.")


def _described(data: bytes) -> tuple[dict[str, _Described], tuple[str, ...]]:
    """Return names and shapes of the tensors of a file, and where in it they are; nothing is made.

    The second value: the key of a training's checkpoint that holds them, if one does.
    """
    if data.startswith(LEGACY):
        reader = Reader(data, _TENSORS, persistent=_Storages(len(data)))
        for _ in range(3):  # a number, a version, the sizes of the system's numbers
            reader.load()
        content = reader.load()
        reader.load()  # the names of the tensors' memories; their numbers follow
    else:
        pickled = _inner_pickle(data)
        content = Reader(pickled, _TENSORS, persistent=_Storages(len(data))).load()
    place: tuple[str, ...] = ()
    if isinstance(content, dict):
        for key in WRAPPED:
            if isinstance(content.get(key), dict):
                content, place = content[key], (key,)
                break
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise RunError(
            "It holds no state dict.", "Save one with torch.save(model.state_dict(), …)."
        )
    named = {_plain_name(name): value for name, value in content.items()}
    tensors = {name: value for name, value in named.items() if isinstance(value, _Described)}
    if len(tensors) < len(content):
        raise RunError("It holds other things than tensors under the names of a state dict.")
    return tensors, place


def _inner_pickle(data: bytes) -> bytes:
    """Return the pickle of PyTorch's archive, whose parts must be as large as they lie there."""
    with zipfile.ZipFile(BytesIO(data)) as archive:
        parts = archive.infolist()
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
            raise RunError("Its parts are compressed, as PyTorch never writes them.")
        if sum(part.file_size for part in parts) > len(data):
            raise RunError("Its parts are declared larger than the file.")
        found = [part for part in parts if part.filename.endswith("/data.pkl")]
        if len(found) != 1 or found[0].file_size > LARGEST_PICKLE:
            raise RunError("It has no pickle of a state dict, or a very large one.")
        return archive.read(found[0])


class _Storages:
    """What references to tensors' memory say; more in all than the file holds is refused."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.sizes: dict[str, int] = {}

    def __call__(self, told: Any) -> _Storage:
        if not isinstance(told, tuple) or len(told) < 5 or told[0] not in ("storage", b"storage"):
            raise RunError("It refers to something that is no tensor's memory.")
        key, size = told[2], told[4]
        if not isinstance(key, str | bytes) or not isinstance(size, int) or size < 0:
            raise RunError("It refers to a tensor's memory of no sense.")
        self.sizes[str(key)] = size
        if sum(self.sizes.values()) > self.most:
            raise RunError(f"It declares {size:,} numbers; the file has {self.most:,} bytes.")
        return _Storage(size)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *more: Any) -> _Described:
    shape = tuple(int(side) for side in size)
    if not isinstance(storage, _Storage) or len(shape) > 8 or min(shape, default=0) < 0:
        raise RunError("It has a tensor of no sense.")
    if math.prod(shape) > storage.size:
        raise RunError(f"It has a tensor of {shape} on a memory of {storage.size:,} numbers.")
    return _Described(shape)


_KINDS = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_TENSORS: Mapping[str, Any] = {
    **NUMPY,
    "collections.OrderedDict": lambda *arguments: {},
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *more: tensor,
    **{f"torch.{kind}Storage": lambda *arguments: None for kind in _KINDS},
}


def _plain_name(name: str) -> str:
    """Return a tensor's name without what wrappers of a network put before or into it."""
    return re.sub(r"(^|\.)(module|_orig_mod)\.", r"\1", name)


def _loaded(data: bytes, place: tuple[str, ...]) -> dict[str, Tensor]:
    content = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    for key in place:
        content = content[key]
    return {_plain_name(name): tensor for name, tensor in content.items()}


def read_own_safetensors(path: Path) -> Imported:
    """Read what ``alexnet export --to safetensors`` wrote.

    Raises
    ------
    RunError
        When it is none, or does not hold what its metadata say.
    """
    with safe_open(path, framework="pt") as file:
        told = file.metadata() or {}
    if "spec" not in told:
        raise RunError("It does not say what its network is.", "See --as torchvision.")
    spec = from_json(Spec, json.loads(told["spec"]))
    if len(spec.convs) + len(spec.dense) > MOST_LAYERS:
        raise RunError(f"Its network has more than {MOST_LAYERS} layers.")
    with torch.device("meta"):
        network = AlexNet(spec)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    classes = from_json(tuple[str, ...], json.loads(told.get("classes", "[]")))
    about = json.loads(told.get("preprocessing", "{}"))
    mean = None
    if not isinstance(spec.pixels.mean, tuple):
        colour = [float(value) / spec.pixels.scale for value in about["mean"]["colour"]]
        values = tuple(reversed(colour)) if spec.pixels.channel_order == "BGR" else tuple(colour)
        mean = MeanColour(values, "the file's mean colour; its mean image is not in it")
        if len(values) != 3 or not np.isfinite(values).all():
            raise RunError("Its mean colour is no colour.")
    return Imported(
        spec=spec,
        weights=read_safetensors(path, shapes),
        found=(f"safetensors of alexnet {told.get('alexnet_version', '')}",),
        mean=mean,
        prepared=int(about.get("prepared", 0)),
        classes=classes if len(classes) == spec.num_classes else None,
    )
