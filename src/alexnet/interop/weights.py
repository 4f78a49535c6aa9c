"""Files of weights alone, in and out: safetensors, and state dicts of torchvision's ``alexnet``.

What a file holds is seen first, by names, shapes and types; a tensor is made once they are known to
be an AlexNet's.
"""

import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from alexnet.bounds import MAX_IMAGE, MAX_LAYERS, parse_json, read_safetensors_header
from alexnet.config import from_json
from alexnet.errors import ConfigError, RunError
from alexnet.files import atomic_write
from alexnet.interop.export import describe_model
from alexnet.interop.layer_ir import ImportedNetwork, MeanColour, find_differences
from alexnet.interop.torch_files import SAVE_WEIGHTS, StoredTensor, as_text, read_torch_file
from alexnet.network import AlexNet
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
CONV1 = "features.0.weight"
WRAPPERS = (  # where trainings keep it
    *("state_dict", "model", "model_state_dict", "model_state", "net", "network"),
    *("weights", "params"),
)
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
SAFETENSORS_DTYPES = dict(zip(("F32", "F16", "BF16", "F64"), FLOATS, strict=True))


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


def list_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a safetensors file by name; none is made yet."""
    read_safetensors_header(path)  # within bounds, before the library parses it
    found = {}
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 -- no dictionary
            told = file.get_slice(name)
            dtype = SAFETENSORS_DTYPES.get(told.get_dtype(), told.get_dtype())
            load = partial(_load_safetensor, path, name)
            found[name] = StoredTensor(tuple(told.get_shape()), dtype, load)
    return found


def _load_safetensor(path: Path, name: str) -> Tensor:
    with safe_open(path, framework="pt") as file:
        return file.get_tensor(name)


def read_safetensors(path: Path, shapes: Shapes) -> dict[str, Tensor]:
    """Read exactly the tensors that are expected, and nothing before the file is seen to have them.

    `shapes` are the names and shapes that it must hold. The numbers must be finite; those of 16 or
    64 bits become float32.
    """
    try:
        held = list_safetensors(path)
        for name, shape in shapes.items():
            if name not in held:
                raise RunError(f"{str(path)!r} has no {name!r}, which its network needs.")
            if held[name].shape != shape:
                raise RunError(
                    f"{name!r} in {str(path)!r} is {held[name].shape}; its network needs {shape}."
                )
        if extra := sorted(held.keys() - shapes.keys()):
            raise RunError(f"{str(path)!r} has {extra[0]!r}, which its network does not know.")
        where = f"in {str(path)!r}"
        return {name: load_float32(f"{name!r} {where}", held[name]) for name in shapes}
    except FileNotFoundError:
        raise RunError(f"There is no file {str(path)!r}.", "Export or download it again.") from None
    except (OSError, SafetensorError, ValueError, OverflowError) as error:
        raise RunError(
            f"{str(path)!r} is damaged or no safetensors file ({error}).",
            "Export or download it again.",
        ) from None


def load_float32(name: str, stored: StoredTensor) -> Tensor:
    """Make a tensor in float32; its numbers must be real and finite."""
    if stored.dtype not in FLOATS:
        raise RunError(
            f"{name} is of {tell_dtype(stored)}.",
            "Expected float32, or float16, bfloat16 or float64, which become float32.",
        )
    tensor = stored.load().detach().float().contiguous()
    if not tensor.isfinite().all():
        raise RunError(f"{name} has numbers that are not finite.")
    return tensor


def tell_dtype(stored: StoredTensor) -> str:
    """Name a tensor's type as PyTorch does: float16."""
    return str(stored.dtype).removeprefix("torch.")


def tell_conversion(tensors: Iterable[StoredTensor]) -> tuple[str, ...]:
    """Say of which types tensors are that become float32; nothing where all are float32."""
    found = sorted({tell_dtype(one) for one in tensors} - {"float32"})
    return (f"{' and '.join(found)}, made float32",) if found else ()


def find_shapes(spec: Spec) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a network's tensors; none of them takes memory."""
    if len(spec.convs) + len(spec.dense) > MAX_LAYERS:
        raise RunError(f"Its network has more than {MAX_LAYERS} layers.")
    if spec.image_size > MAX_IMAGE:
        raise RunError(f"Its images of {spec.image_size:,} pixels are larger than {MAX_IMAGE}.")
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
    told = read_safetensors_header(path).get("__metadata__", {})
    if "spec" not in told:
        raise RunError("It does not say what its network is.", "See --as torchvision.")
    spec = from_json(Spec, parse_json(told["spec"]))
    classes = from_json(tuple[str, ...], parse_json(told.get("classes", "[]")))
    about = parse_json(told.get("preprocessing", "{}"))
    mean = None
    if not isinstance(spec.pixels.mean, tuple):
        values = tuple(float(value) / spec.pixels.scale for value in about["mean"]["colour"])
        if len(values) != 3:
            raise RunError("Its mean colour is no colour.")
        values = values[::-1] if spec.pixels.channel_order == "BGR" else values
        mean = MeanColour(values, "the file's mean colour; its mean image is not in it")
    return ImportedNetwork(
        spec=spec,
        weights=read_safetensors(path, find_shapes(spec)),
        found=(
            f"safetensors of alexnet {told.get('alexnet_version', '')}",
            *tell_conversion(list_safetensors(path).values()),
        ),
        mean=mean,
        resize_to=int(about.get("prepared", 0)),
        classes=classes if len(classes) == spec.num_classes else None,
    )


def export_torchvision(model: Predictor, path: Path) -> None:
    """Write a state dict that torchvision's ``alexnet(num_classes=...)`` loads.

    A network that computes something else than torchvision's is a `ConfigError`.
    """
    apart = [
        f"{path} is {ours}, there {theirs}"
        for path, (theirs, ours) in find_differences(TORCHVISION, model.spec, HARMLESS).items()
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


def read_state_dict(path: Path) -> ImportedNetwork:
    """Read a state dict of torchvision's ``alexnet``, any number of classes and any widths.

    It may lie under one known name in a training's checkpoint (`WRAPPERS`), and its names may begin
    with what wrappers put there and with one prefix; what was taken off is in ``found``.
    """
    if is_safetensors(path):
        content, where = list_safetensors(path), "safetensors"
    else:
        content, where = read_torch_file(path), "state dict of PyTorch"
    state, taken = find_state_dict(content)
    spec = find_torchvision_spec({name: stored.shape for name, stored in state.items()})
    weights = {
        f"{ours}.{part}": load_float32(f"{theirs}.{part}", state[f"{theirs}.{part}"])
        for ours, theirs in TORCHVISION_NAMES.items()
        for part in ("weight", "bias")
    }
    found = (f"{where}, torchvision's names", *taken, *tell_conversion(state.values()))
    return ImportedNetwork(spec=spec, weights=weights, found=found)


def find_state_dict(content: Any) -> tuple[dict[str, StoredTensor], tuple[str, ...]]:
    """Return a file's state dict by torchvision's names, and what was taken off, in words."""
    said = []
    held = {as_text(k): v for k, v in content.items()} if isinstance(content, dict) else {}
    wrapper = next((name for name in WRAPPERS if isinstance(held.get(name), dict)), None)
    if wrapper:
        held = {as_text(k): v for k, v in held[wrapper].items()}
        said.append(f"taken from {wrapper!r} in it")
    if not held:
        raise RunError("It holds no state dict: a whole network, or something else.", SAVE_WEIGHTS)
    if others := [name for name, one in held.items() if not isinstance(one, StoredTensor)]:
        raise RunError(
            f"It holds other things than tensors under the names of a state dict: {others[0]!r}.",
            f"Expected a state dict, alone or under one of {', '.join(WRAPPERS)}.",
        )
    shorter = {name: re.sub(r"(^|\.)(?:module|_orig_mod)\.", r"\1", name) for name in held}
    if shorter.keys() != {*shorter.values()}:
        said.append("'module.' and '_orig_mod.' taken off the names")
    prefixes = {name.removesuffix(CONV1) for name in shorter.values() if name.endswith(CONV1)}
    if len(prefixes) > 1:
        raise RunError(
            f"It has several networks, of names that begin with {sorted(prefixes)}.",
            "Save the state dict of one alone.",
        )
    if prefix := next(iter(prefixes), ""):
        said.append(f"{prefix!r} taken off the names")
    found: dict[str, StoredTensor] = {}
    for name, stored in held.items():
        short = shorter[name].removeprefix(prefix)
        if short in found:
            raise RunError(f"It has {short!r} twice, once as {name!r}.")
        found[short] = stored
    return found, tuple(said)


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
