"""Checkpoints of cuda-convnet and cuda-convnet2 -> spec and weights.

A checkpoint is a pickle of Python 2: the layers as dictionaries with their weights, beside the
options of the command line as objects of the program. Nothing of it is run (`pickles`). A network
of two towers has every layer twice; they are followed side by side and joined, each weight put
where the layer says that its inputs come from: in the net of 2012, fc2048bb takes its own tower's
half first and the other's second (facts 9).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from alexnet.bounds import read_bytes
from alexnet.errors import RunError
from alexnet.interop import layer_ir as ir
from alexnet.pickles import ArrayUnpickler
from alexnet.spec import DropoutSpec, PixelFormat

PICKLE_PACKAGES = frozenset((
    *("options", "util", "data", "layer", "gpumodel", "convnet", "convdata", "ordereddict"),
    "python_util",
))  # fmt: skip
# The mean over cuda-convnet2's own mean image of ImageNet, RGB (facts 4).
ILSVRC_MEAN = (127.30, 119.72, 104.91)
MAX_STEPS = 100
LayerSettings = Mapping[str, Any]


def read_checkpoint(path: Path) -> ir.ImportedNetwork:
    """Read a network and its weights."""
    data = read_bytes(path)
    content = decode_keys(ArrayUnpickler(data, _NAMES, PICKLE_PACKAGES).load())
    state = decode_keys(content.get("model_state"))
    named = _name_layers(state.get("layers"))
    kept = (layer.get("weights") for layer in named.values())
    arrays = (part for parts in kept if isinstance(parts, list) for part in parts)
    if sum(part.nbytes for part in arrays if isinstance(part, np.ndarray)) > 2 * len(data):
        raise RunError("Its layers have more numbers than the file.")
    layers, image = _follow(named, _find_images(named))
    network, weights = ir.assemble_network(_pool_last(layers), PixelFormat(), image)
    towers = "two towers" if network.towers == 2 else "one tower"
    epoch = _simple(state.get("epoch"))
    return ir.ImportedNetwork(
        spec=network,
        weights=weights,
        found=(f"cuda-convnet checkpoint, {len(named)} layers, {towers}, epoch {epoch}",),
        mean=ir.MeanColour(ILSVRC_MEAN, "mean colour of ImageNet, as the file has none"),
    )


_NAMES: Mapping[str, Callable[..., Any]] = {
    "copy_reg._reconstructor": lambda *arguments: None,
    "__builtin__.object": lambda: None,
}


def decode_keys(content: Any) -> dict[str, Any]:
    """Return a dictionary with text as keys, and text for texts of Python 2."""
    if not isinstance(content, dict):
        raise RunError("It is no checkpoint of cuda-convnet.", "Its first layer is a dictionary.")
    return {str(_text(key)): _text(value) for key, value in content.items()}


def _text(value: Any) -> Any:
    return value.decode("latin-1") if isinstance(value, bytes) and len(value) < 4096 else value


def _name_layers(content: Any) -> dict[str, LayerSettings]:
    """Return the layers by name: cuda-convnet2 keeps a dictionary, the first program a list."""
    if isinstance(content, dict):
        return {str(_text(name)): _settings(layer) for name, layer in content.items()}
    if not isinstance(content, list):
        raise RunError("It has no layers.", "Expected model_state with layers.")
    layers = [_settings(layer) for layer in content]
    names = [str(layer.get("name")) for layer in layers]
    for layer in layers:
        layer["inputs"] = [
            names[place] if isinstance(place, int) and 0 <= place < len(names) else place
            for place in layer.get("inputs", [])
        ]
    return dict(zip(names, layers, strict=True))


def _settings(content: Any) -> dict[str, Any]:
    """Return a layer's settings that are numbers, text, arrays, lists of them or a neuron's.

    Others are left out: a layer refers to the whole layers below it, and a value that contains
    the same one twice, and that the same one twice, has no end when it is printed or compared.
    """
    found = {name: _simple(value, inside=2) for name, value in decode_keys(content).items()}
    return {name: value for name, value in found.items() if value is not None}


def _simple(value: Any, inside: int = 0) -> Any:
    """Return a value that is safe to print and to compare, or nothing."""
    value = _text(value)
    if isinstance(value, str | int | float | np.generic | np.ndarray):
        return value
    if isinstance(value, list | tuple) and inside:
        parts = [_simple(part) for part in value[:MAX_STEPS]]
        return parts if all(part is not None for part in parts) else None
    if isinstance(value, dict) and inside:
        few = list(value.items())[:MAX_STEPS]
        return {str(_text(key)): _simple(part, inside - 1) for key, part in few}
    return None


def _find_images(named: Mapping[str, LayerSettings]) -> str:
    """Return the name of the layer of data that a convolution sees."""
    data = [name for name, layer in named.items() if layer.get("type") == "data"]
    seen = {
        name for layer in named.values() if layer.get("type") == "conv" for name in _inputs(layer)
    }
    found = [name for name in data if name in seen]
    if len(found) != 1:
        raise RunError(
            f"Its layers of data are {', '.join(data) or 'none'}; convolutions see {len(found)}.",
            "Expected one.",
        )
    return found[0]


def _inputs(layer: LayerSettings) -> list[str]:
    found = layer.get("inputs", [])
    return [str(_text(name)) for name in (found if isinstance(found, list | tuple) else [])]


@dataclass(frozen=True, slots=True)
class Towers:
    """A layer of the network: one layer of the file, or one of each tower, side by side."""

    names: tuple[str, ...]
    layers: tuple[LayerSettings, ...]
    takes: tuple[str, ...]  # the layers before, side by side

    @property
    def name(self) -> str:
        """The names of all, joined."""
        return "+".join(self.names)

    def alike(self, *keys: str) -> LayerSettings:
        """Return the settings of the towers' layers, which must be the same."""
        for key in keys:
            if len({str(layer.get(key)) for layer in self.layers}) > 1:
                raise RunError(
                    f"{' and '.join(self.names)} differ in {key}.",
                    "Expected two towers that are alike.",
                )
        return self.layers[0]


def _follow(named: Mapping[str, LayerSettings], data: str) -> tuple[list[ir.ImportedLayer], int]:
    """Follow one tower, or two side by side, from the data to the softmax."""
    layers: list[ir.ImportedLayer] = []
    image = 0
    current: tuple[str, ...] = (data,)
    for _ in range(MAX_STEPS):
        takers = {
            name: layer
            for name, layer in named.items()
            if {*_inputs(layer)} & {*current} and not str(layer.get("type")).startswith("cost")
        }
        kinds = {str(layer.get("type")) for layer in takers.values()}
        if kinds == {"softmax"} and len(current) == 1:
            return layers, image
        if len(kinds) != 1 or len(takers) > 2:
            raise RunError(
                f"{' and '.join(current)} {'is' if len(current) == 1 else 'are'} taken by "
                f"{', '.join(takers) or 'nothing'}.",
                "Expected one layer, or one of each tower.",
            )
        kind = kinds.pop()
        if kind not in _READERS:
            raise RunError(
                f"The layer {next(iter(takers))!r} is of type {kind!r}.",
                f"Expected {', '.join(_READERS)}.",
            )
        names = tuple(sorted(takers, key=lambda name: (_tower(takers[name], current), name)))
        towers = Towers(names, tuple(takers[name] for name in names), current)
        if kind == "conv" and not layers:
            image = _whole(towers.layers[0], "imgSize")
        layers.append(_READERS[kind](towers))
        current = names
    raise RunError(f"It has more than {MAX_STEPS} layers.")


def _tower(layer: LayerSettings, current: Sequence[str]) -> int:
    """Return which one of the layers before is taken; 0 where it is all of them."""
    own = [current.index(name) for name in _inputs(layer) if name in current]
    return own[0] if len(own) == 1 else 0


def _whole(layer: LayerSettings, name: str, place: int | None = None) -> int:
    """Return a whole number, of a layer, or of one or all of its inputs."""
    value = layer.get(name)
    if isinstance(value, list | tuple):
        if place is None and any(one != value[0] for one in value):
            raise RunError(f"{layer.get('name')!r} has {name} of {str(value)[:80]}, not all alike.")
        value = value[place or 0]
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, int) or abs(value) > 1 << 24:
        raise RunError(f"{layer.get('name')!r} has {name} of {value!r}.", "Expected a number.")
    return value


def _convolution(towers: Towers) -> ir.ImportedLayer:
    """Join the filters of the towers, ``(channels * pixels, filters)`` as they lie there."""
    layer = towers.alike("filterSize", "stride", "padding", "modulesX", "imgSize", "groups")
    side, stride = _whole(layer, "filterSize"), _whole(layer, "stride")
    pad, positions = -_whole(layer, "padding"), _whole(layer, "modulesX")
    image = _whole(layer, "imgSize")
    over = (positions - 1) * stride + side - image - 2 * pad  # past the right and bottom edge
    if not 0 <= over < stride + side:
        raise RunError(f"{towers.names[0]!r} has {positions} positions along {image} pixels.")
    groups = _whole(layer, "groups") if "groups" in layer else 1
    if len(towers.takes) == 2 and {len(_inputs(one)) for one in towers.layers} == {1}:
        groups = len(towers.layers) * groups
    weight = np.concatenate([_filters(one, towers.takes) for one in towers.layers])
    return ir.Convolution(towers.name, weight, _biases(towers), stride, (pad, pad + over), groups)


def _filters(layer: LayerSettings, current: Sequence[str]) -> NDArray[np.float32]:
    """Return one tower's filters ``(filters, channels, side, side)``, its inputs in order."""
    parts = {}
    for place, (name, weight) in enumerate(zip(_inputs(layer), _weights(layer), strict=True)):
        side, filters = _whole(layer, "filterSize", place), _whole(layer, "filters")
        channels = _whole(layer, "channels", place)
        if "groups" in layer:
            channels //= max(1, _whole(layer, "groups", place))
        if weight.shape != (channels * side**2, filters):
            raise RunError(
                f"{layer.get('name')!r} has weights of {weight.shape}; expected "
                f"{(channels * side**2, filters)}."
            )
        parts[name] = weight.reshape(channels, side, side, filters).transpose(3, 0, 1, 2)
    return np.concatenate([parts[name] for name in current if name in parts], axis=1)


def _connected(towers: Towers) -> ir.ImportedLayer:
    """Join the weights of the towers, ``(inputs, outputs)`` an input as they lie there."""
    rows = []
    for layer in towers.layers:
        parts = dict(zip(_inputs(layer), _weights(layer), strict=True))
        if set(parts) != set(towers.takes):
            raise RunError(
                f"{layer.get('name')!r} takes {', '.join(parts)}; expected "
                f"{', '.join(towers.takes)}.",
                "A fully-connected layer sees both towers.",
            )
        outputs = _whole(layer, "outputs")
        if any(part.ndim != 2 or part.shape[1] != outputs for part in parts.values()):
            shapes = [part.shape for part in parts.values()]
            raise RunError(f"{layer.get('name')!r} of {outputs} units has weights of {shapes}.")
        rows.append(np.concatenate([parts[name].T for name in towers.takes], axis=1))
    return ir.FullyConnected(towers.name, np.concatenate(rows), _biases(towers))


def _weights(layer: LayerSettings) -> list[NDArray[Any]]:
    found = layer.get("weights")
    count = len(_inputs(layer))
    if not isinstance(found, list) or len(found) != count:
        raise RunError(f"{layer.get('name')!r} has no weights for each of its {count} inputs.")
    if any(not isinstance(part, np.ndarray) or part.dtype.kind != "f" for part in found):
        raise RunError(f"{layer.get('name')!r} has weights that are no arrays of numbers.")
    return [np.asarray(part, np.float32) for part in found]


def _biases(towers: Towers) -> NDArray[np.float32]:
    found = [layer.get("biases") for layer in towers.layers]
    if any(not isinstance(part, np.ndarray) or part.dtype.kind != "f" for part in found):
        raise RunError(f"{towers.name!r} has no biases.")
    return np.concatenate([np.asarray(part, np.float32).reshape(-1) for part in found])


def _norm(towers: Towers) -> ir.ImportedLayer:
    """Read a normalisation; the file has its scale divided by the window already (facts 2)."""
    layer = towers.alike("size", "scale", "pow", "minDiv", "blocked")
    size, within = _whole(layer, "size"), layer["type"] == "rnorm"
    defaults = (("scale", math.nan), ("pow", math.nan), ("minDiv", 1.0))
    scale, beta, k = (float(layer.get(name, default)) for name, default in defaults)
    if layer.get("blocked"):
        raise RunError(f"The norm {towers.name!r} is blocked.", "Expected a window that moves.")
    alpha = ir.round_float32(scale * (size**2 if within else size))
    parts = len(towers.layers)
    return ir.make_norm(towers.name, size, alpha, beta, k, within_channel=within, parts=parts)


def _pool(towers: Towers) -> ir.ImportedLayer:
    layer = towers.alike("sizeX", "stride", "pool", "start")
    kinds: dict[str, Literal["max", "average"]] = {"max": "max", "avg": "average"}
    kind = kinds.get(str(layer.get("pool")))
    if kind is None or layer.get("start") or layer.get("sum"):
        raise RunError(
            f"The pool {towers.name!r} is of kind {layer.get('pool')!r} from "
            f"{layer.get('start')!r}.",
            "Expected max or avg, from 0.",
        )
    window, stride = _whole(layer, "sizeX"), _whole(layer, "stride")
    return ir.Pooling(towers.name, window, stride, kind, ceil_mode=True)


def _neuron(towers: Towers) -> ir.ImportedLayer:
    kind = decode_keys(towers.alike("neuron").get("neuron"))
    settings = decode_keys(kind.get("params") or {})
    if kind.get("type") == "relu":
        return ir.Activation(towers.name)
    if kind.get("type") == "tanh" and set(settings.values()) == {1.0}:
        return ir.Activation(towers.name, "tanh")
    raise RunError(
        f"{towers.names[0]!r} is {kind.get('type')!r} with {settings}.",
        "Expected relu or tanh[1,1].",
    )


def _dropout(towers: Towers) -> ir.ImportedLayer:
    """Read dropout, whose outputs are multiplied by what is kept at test (section 4.2)."""
    kept = float(towers.alike("keep").get("keep", 0.5))
    return ir.Drop(towers.name, DropoutSpec(rate=ir.round_float32(1 - kept)))


_READERS: Mapping[str, Callable[[Towers], ir.ImportedLayer]] = {
    "conv": _convolution, "fc": _connected, "cmrnorm": _norm, "rnorm": _norm, "pool": _pool,
    "neuron": _neuron, "dropout": _dropout, "hs": _dropout,
}  # fmt: skip


def _pool_last(layers: Sequence[ir.ImportedLayer]) -> list[ir.ImportedLayer]:
    """Put a ReLU before a max pool where nothing else follows the convolution: they commute."""
    ordered = list(layers)
    for place in range(len(ordered) - 2):
        conv, pool, relu = ordered[place : place + 3]
        alone = isinstance(conv, ir.Convolution) and isinstance(relu, ir.Activation)
        if alone and isinstance(pool, ir.Pooling) and pool.kind == "max":
            ordered[place + 1 : place + 3] = [relu, pool]
    return ordered
