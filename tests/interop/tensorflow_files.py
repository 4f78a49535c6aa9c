"""Small files as TensorFlow's family writes them, and its layers in NumPy, channels last.

A network is a list of steps: a class of Keras, its settings, and its arrays.
"""

import base64
import io
import json
import zipfile
from math import ceil
from pathlib import Path

import numpy as np

from tests.interop.convnet_files import pickled

PARTS = ("kernel", "bias")
SIDE = 67  # conv1 without padding leaves 15, whose pool leaves 7


def draw(seed, *shape):
    spread = (2 / np.prod(shape[:-1])) ** 0.5
    return np.random.default_rng(seed).normal(0, spread, shape).astype(np.float32)


def alexnet(lrn=True, groups=2, classes=5):
    """Return the steps of a narrow AlexNet with groups, ``SAME``, zeros before, and pools."""
    lrn_settings = {"depth_radius": 2, "bias": 1.0, "alpha": 2e-5, "beta": 0.75}
    norm = [("LRN", lrn_settings, ())] if lrn else []
    pool = ("MaxPooling2D", {"pool_size": 3, "strides": 2, "padding": "valid"}, ())
    relu = ("ReLU", {}, ())
    grouped = {"strides": 1, "padding": "same", "groups": groups}
    return [
        ("Conv2D", {"strides": 4, "padding": "valid"}, (draw(1, 11, 11, 3, 8), draw(2, 8))),
        relu, *norm, pool,
        ("Conv2D", grouped, (draw(3, 5, 5, 8 // groups, 12), draw(4, 12))),
        relu, *norm, pool,
        ("ZeroPadding2D", {"padding": 1}, ()),
        ("Conv2D", {"strides": 1, "padding": "valid"}, (draw(5, 3, 3, 12, 8), draw(6, 8))),
        relu,
        ("Flatten", {}, ()),
        ("Dense", {}, (draw(7, 3 * 3 * 8, 16), draw(8, 16))), relu,
        ("Dense", {}, (draw(9, 16, classes), draw(10, classes))),
    ]  # fmt: skip


def forward(steps, x):
    """Return the logits of images (N, side, side, 3), in float64."""
    x = x.astype(np.float64)
    for kind, told, arrays in steps:
        if kind == "Conv2D":
            x = _convolve(x, *arrays, told["strides"], told["padding"], told.get("groups", 1))
        elif kind == "ZeroPadding2D":
            pad = told["padding"]
            x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        elif kind == "LRN":
            squares = np.pad(x**2, ((0, 0), (0, 0), (0, 0), (told["depth_radius"],) * 2))
            width = 2 * told["depth_radius"] + 1
            sums = sum(squares[..., c : c + x.shape[-1]] for c in range(width))
            x = x / (told["bias"] + told["alpha"] * sums) ** told["beta"]  # not over the width
        elif kind == "MaxPooling2D":
            x = _windows(x, told["pool_size"], told["strides"]).max((3, 4))
        elif kind == "ReLU":
            x = np.maximum(x, 0)
        elif kind == "Flatten":
            x = x.reshape(len(x), -1)  # row, column, channel
        elif kind == "Dense":
            x = x @ arrays[0] + arrays[1]
    return x


def _windows(x, side, stride):
    """Return (N, rows, columns, side, side, channels) of the windows inside."""
    found = np.lib.stride_tricks.sliding_window_view(x, (side, side), (1, 2))
    return found[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3)


def _convolve(x, kernel, bias, stride, padding, groups):
    if padding == "same":
        total = max((ceil(x.shape[1] / stride) - 1) * stride + len(kernel) - x.shape[1], 0)
        ends = (total // 2, total - total // 2)
        x = np.pad(x, ((0, 0), ends, ends, (0, 0)))
    parts = zip(np.split(x, groups, 3), np.split(kernel, groups, 3), strict=True)
    made = [np.tensordot(_windows(one, len(k), stride), k, 3) for one, k in parts]
    return np.concatenate(made, 3) + bias


def dictionary(layers, python2=False, named=False):
    """Return what ``np.save`` writes of a dictionary of pairs, of Python 2 or this one."""
    out = io.BytesIO()
    pairs = {
        name: dict(zip(("weights", "biases"), pair, strict=True)) if named else [*pair]
        for name, pair in layers.items()
    }
    held = np.array(pairs, object)
    if not python2:
        np.save(out, held)
        return out.getvalue()
    told = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(out, told)
    return out.getvalue() + pickled(held)


def _config(kind, name, told, arrays):
    """Return the settings of a layer with all that Keras writes of its shape."""
    config = {"name": name, **told}
    if kind == "Conv2D":
        config |= {"filters": arrays[0].shape[-1], "kernel_size": [*arrays[0].shape[:2]]}
    if kind == "Dense":
        config["units"] = arrays[0].shape[-1]
    return config


def keras_file(steps, h5=False):
    """Return what ``model.save`` writes of a Sequential network: a zip, or one file of HDF5."""
    import h5py

    layers, out, inside = [], io.BytesIO(), io.BytesIO()
    counts = {}
    with h5py.File(inside, "w") as file:
        for number, (kind, told, arrays) in enumerate(steps):
            name = f"{kind.lower()}_{number}"
            layers.append({"class_name": kind, "config": _config(kind, name, told, arrays)})
            count = counts[kind] = counts.get(kind, -1) + 1
            place = f"layers/{kind.lower()}{f'_{count}' if count else ''}/vars"
            group = file.create_group(f"model_weights/{name}" if h5 else place)
            names = [f"net/{name}/{part}" if h5 else str(n) for n, part in enumerate(PARTS)]
            for one, array in zip(names, arrays, strict=False):
                group.create_dataset(one, data=array)
            group.attrs["weight_names"] = [one.encode() for one in names[: len(arrays)]]
        shape = {"name": "input", "batch_shape": [None, SIDE, SIDE, 3]}
        layers = [{"class_name": "InputLayer", "config": shape}, *layers]
        config = json.dumps(
            {"class_name": "Sequential", "config": {"name": "net", "layers": layers}}
        )
        if h5:
            file.attrs["model_config"] = config
    if h5:
        return inside.getvalue()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", config)
        archive.writestr("model.weights.h5", inside.getvalue())
    return out.getvalue()


def shards(folder: Path, entries, size=1000, quantize=None):
    """Write arrays by name as shards of `size` bytes; return the manifest."""
    told, data = [], b""
    for name, array in entries:
        one = {"name": name, "shape": [*array.shape], "dtype": "float32"}
        if array.dtype == np.int32:
            one["dtype"] = "int32"
        elif quantize:
            least, span = float(array.min()), float(np.ptp(array)) or 1.0
            array = np.rint((array - least) / span * 255).astype(quantize)
            one["quantization"] = {"dtype": quantize, "min": least, "scale": span / 255}
        data += array.tobytes()
        told.append(one)
    count = ceil(len(data) / size)
    paths = [f"group1-shard{n + 1}of{count}.bin" for n in range(count)]
    for number, path in enumerate(paths):
        (folder / path).write_bytes(data[number * size : (number + 1) * size])
    return [{"paths": paths, "weights": told}]


def layers_model(folder: Path, steps, quantize=None):
    """Write the ``model.json`` of a layers model and its shards; return its path."""
    layers, entries = [], []
    for number, (kind, told, arrays) in enumerate(steps):
        name = f"{kind.lower()}_{number}"
        config = _config(kind, name, told, arrays)
        if not layers:
            config["batch_input_shape"] = [None, SIDE, SIDE, 3]
        layers.append({"class_name": kind, "config": config})
        entries += zip((f"{name}/kernel", f"{name}/bias"), arrays, strict=False)
    topology = {
        "keras_version": "2.12.0", "backend": "tensorflow",
        "model_config": {"class_name": "Sequential", "config": {"name": "net", "layers": layers}},
    }  # fmt: skip
    return _write(folder, "layers-model", topology, shards(folder, entries, quantize=quantize))


def _write(folder, form, topology, manifest):
    told = {"format": form, "modelTopology": topology, "weightsManifest": manifest}
    (folder / "model.json").write_text(json.dumps(told))
    return folder / "model.json"


def graph_model(folder: Path, steps, fused=False):
    """Write a graph model: groups as Split, Conv2D and ConcatV2; return its path."""
    made = GraphWriter(fused)
    for kind, told, arrays in steps:
        made.current = getattr(made, f"add_{kind.lower()}")(told, *arrays)
    made.add("Softmax", made.current)
    topology = {"node": made.nodes, "versions": {"producer": 1395}}
    return _write(folder, "graph-model", topology, shards(folder, made.entries))


class GraphWriter:
    """A frozen graph of TensorFlow, as the converter writes it down."""

    def __init__(self, fused):
        self.nodes, self.entries, self.fused = [], [], fused
        dims = [{"size": str(side)} for side in (-1, SIDE, SIDE, 3)]
        shape = {"shape": {"dim": dims}}
        self.current = self.add("Placeholder", shape=shape, dtype={"type": "DT_FLOAT"})

    def add(self, op, *inputs, **attributes):
        """Add a node; arrays among its inputs become constants in the shards."""
        names = [one if isinstance(one, str) else self.add_array(one) for one in inputs]
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append({"name": name, "op": op, "input": names, "attr": attributes})
        return name

    def add_array(self, array):
        name = self.add("Const", dtype={"type": "DT_FLOAT"})
        self.entries.append((name, np.asarray(array)))
        return name

    def add_conv2d(self, told, kernel, bias):
        settings = {"strides": _square(told["strides"]), "padding": _text(told["padding"].upper())}
        settings |= {"dilations": _square(1), "data_format": _text("NHWC")}
        axis = np.array(3, np.int32)
        if told.get("groups", 1) == 2:
            split = self.add("Split", axis, self.current, num_split={"i": "2"})
            halves = zip((split, f"{split}:1"), np.split(kernel, 2, 3), strict=True)
            made = [self.add("Conv2D", one, half, **settings) for one, half in halves]
            return self.add("BiasAdd", self.add("ConcatV2", *made, axis, N={"i": "2"}), bias)
        if self.fused:
            settings["fused_ops"] = {"list": {"s": [_text("BiasAdd")["s"]]}}
            settings["num_args"] = {"i": "1"}
            return self.add("_FusedConv2D", self.current, kernel, bias, **settings)
        return self.add("BiasAdd", self.add("Conv2D", self.current, kernel, **settings), bias)

    def add_zeropadding2d(self, told):
        ends = [told["padding"]] * 2
        return self.add("Pad", self.current, np.array([[0, 0], ends, ends, [0, 0]], np.int32))

    def add_lrn(self, told):
        settings = {name: {"f": value} for name, value in told.items()}
        settings["depth_radius"] = {"i": str(told["depth_radius"])}
        return self.add("LRN", self.current, **settings)

    def add_maxpooling2d(self, told):
        sizes = {"ksize": _square(told["pool_size"]), "strides": _square(told["strides"])}
        return self.add("MaxPool", self.current, **sizes, padding=_text("VALID"))

    def add_relu(self, told):
        return self.add("Relu", self.current)

    def add_flatten(self, told):
        return self.add("Reshape", self.current, np.array([-1, 72], np.int32))

    def add_dense(self, told, kernel, bias):
        return self.add("BiasAdd", self.add("MatMul", self.current, kernel), bias)


def _text(value):
    return {"s": base64.b64encode(value.encode()).decode()}


def _square(size):
    return {"list": {"i": ["1", str(size), str(size), "1"]}}
