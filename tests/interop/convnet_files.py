"""Checkpoints of cuda-convnet2 as Python 2 wrote them, and its networks in NumPy (facts 1, 2)."""

import io
import pickle
import struct
from math import ceil

import numpy as np


class Options:
    """Stands for an object of the program: its class is written by name, as Python 2's were."""

    def __init__(self, **state):
        self.state = state


class Pickler(pickle._Pickler):
    """Protocol 2 as Python 2 wrote it: text as bytes, objects of classic classes."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012 -- as the class it extends has it

    def save_text(self, value):
        data = value.encode("latin-1") if isinstance(value, str) else value
        short = len(data) < 256
        head = b"U" + bytes([len(data)]) if short else b"T" + struct.pack("<i", len(data))
        self.write(head + data)
        self.memoize(value)

    def save_options(self, value):
        self.write(pickle.MARK + b"cpython_util.options\nOptionsParser\n" + pickle.OBJ)
        self.memoize(value)
        self.save(value.state)
        self.write(pickle.BUILD)

    dispatch[str] = save_text
    dispatch[bytes] = save_text
    dispatch[Options] = save_options


def pickled(content) -> bytes:
    """Return a pickle in which NumPy has its old name, as then."""
    out = io.BytesIO()
    Pickler(out, 2).dump(content)
    return out.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def checkpoint(layers) -> bytes:
    """Encode a checkpoint; `layers` by name, as cuda-convnet2 has them, or as a list."""
    option = Options(name="mini", value=128, value_given=True)
    op = Options(options={"minibatch_size": option})
    state = {"layers": layers, "epoch": 90, "batchnum": 417, "train_outputs": [({}, 128)]}
    return pickled({"model_state": state, "op": op})


class Net:
    """A network being written down, layer by layer, as the program's parser leaves it."""

    def __init__(self, image=224, seed=0):
        self.draws = np.random.default_rng(seed)
        self.layers = {
            "data": {"type": "data", "outputs": 3 * image**2, "dataIdx": 0},
            "labels": {"type": "data", "outputs": 1, "dataIdx": 1},
        }
        self.shapes = {"data": (3, image)}

    def add(self, name, kind, inputs, shape, neuron="", **settings):
        maps, side = shape
        known = {"name": name, "type": kind, "inputs": list(inputs), "outputs": maps * side**2}
        known["inputLayers"] = [self.layers[one] for one in inputs]
        self.layers[name] = known | settings
        self.shapes[name] = shape
        if not neuron:
            return name
        told = {"type": neuron, "params": {}, "usesActs": True, "usesInputs": False}
        return self.add(f"{name}_neuron", "neuron", [name], shape, neuron_settings=0, told=told)

    def weights(self, rows, columns, order):
        scale = np.float32((2 / sum(rows)) ** 0.5)
        return [
            np.array(self.draws.standard_normal((row, columns), np.float32) * scale, order=order)
            for row in rows
        ]

    def conv(self, name, inputs, filters, side, *, stride=1, padding=0, groups=1, neuron=""):
        channels = [self.shapes[one][0] for one in inputs]
        image = self.shapes[inputs[0]][1]
        modules = 1 + ceil((2 * padding + image - side) / stride)
        rows = [count // groups * side**2 for count in channels]
        several = len(inputs)
        return self.add(
            name, "conv", inputs, (filters, modules), neuron,
            weights=self.weights(rows, filters, "C"), filters=filters, modulesX=modules,
            biases=self.draws.standard_normal((filters, 1), np.float32) * np.float32(0.1),
            channels=channels, filterSize=[side] * several, stride=[stride] * several,
            padding=[-padding] * several, groups=[groups] * several, imgSize=[image] * several,
            sharedBiases=True,
        )  # fmt: skip

    def fc(self, name, inputs, units, *, neuron="", scale=1.0):
        rows = [self.layers[one]["outputs"] for one in inputs]
        weights = [part * np.float32(scale) for part in self.weights(rows, units, "F")]
        bias = self.draws.standard_normal((1, units), np.float32) * np.float32(0.1)
        return self.add(name, "fc", inputs, (units, 1), neuron, weights=weights, biases=bias)

    def norm(self, name, kind, source, *, scale, min_div=1.0, size=5):
        maps, side = self.shapes[source]
        divided = scale / (size if kind == "cmrnorm" else size**2)
        known = {"size": size, "scale": divided, "pow": 0.75, "minDiv": min_div, "channels": maps}
        return self.add(name, kind, [source], (maps, side), blocked=False, imgSize=side, **known)

    def pool(self, name, source, *, neuron=""):
        maps, side = self.shapes[source]
        out = ceil((side - 3) / 2) + 1
        known = {"pool": "max", "sizeX": 3, "stride": 2, "start": 0, "channels": maps}
        return self.add(name, "pool", [source], (maps, out), neuron, outputsX=out, **known)

    def dropout(self, name, source):
        known = {"keep": 0.5, "enable": True}
        return self.add(name, "dropout", [source], self.shapes[source], **known)

    def finished(self, last):
        self.add("probs", "softmax", [last], self.shapes[last])
        self.add("logprob", "cost.logreg", ["labels", "probs"], (1, 1), topk=5)
        for layer in self.layers.values():
            if "told" in layer:
                layer["neuron"] = layer.pop("told")
                layer.pop("neuron_settings")
        return self.layers


def two_towers(divisor=1, classes=1000):
    """Return the network of 2012 on two processors, by its settings (facts 1a)."""
    net = Net()

    def both(make):
        return [make(tower) for tower in "ab"]

    def n(count):
        return count // divisor

    row = both(lambda t: net.conv(f"conv1{t}", ["data"], n(48), 11, stride=4))
    row = both(
        lambda t: net.norm(f"rnorm1{t}", "cmrnorm", row["ab".index(t)], scale=1e-4, min_div=2)
    )
    row = both(lambda t: net.pool(f"pool1{t}", f"rnorm1{t}", neuron="relu"))
    pools = dict(zip("ab", row, strict=True))
    row = both(lambda t: net.conv(f"conv2{t}", [pools[t]], n(128), 5, padding=2, neuron="relu"))
    relus = dict(zip("ab", row, strict=True))
    both(lambda t: net.norm(f"rnorm2{t}", "cmrnorm", relus[t], scale=1e-4, min_div=2))
    both(lambda t: net.norm(f"cnorm2{t}", "rnorm", f"rnorm2{t}", scale=1e-3))
    row = both(lambda t: net.pool(f"pool2{t}", f"cnorm2{t}"))
    three = both(lambda t: net.conv(f"conv3{t}", row, n(192), 3, padding=1, neuron="relu"))
    four = [
        net.conv(f"conv4{t}", [source], n(192), 3, padding=1, neuron="relu")
        for t, source in zip("ab", three, strict=True)
    ]
    five = [
        net.conv(f"conv5{t}", [source], n(128), 3, padding=1)
        for t, source in zip("ab", four, strict=True)
    ]
    row = [
        net.pool(f"pool3{t}", source, neuron="relu") for t, source in zip("ab", five, strict=True)
    ]
    row = both(lambda t: net.fc(f"fc2048{t}", row, n(2048), neuron="relu"))
    a, b = [net.dropout(f"dropout1{t}", one) for t, one in zip("ab", row, strict=True)]
    row = [
        net.fc("fc2048ba", [a, b], n(2048), neuron="relu"),
        net.fc("fc2048bb", [b, a], n(2048), neuron="relu"),  # its own tower's half first
    ]
    row = [net.dropout(f"dropout2{t}", one) for t, one in zip("ab", row, strict=True)]
    return net.finished(net.fc("fc1000", row, classes, scale=0.2))


def one_tower(divisor=1, classes=1000):
    """Return cuda-convnet2's network for one processor (facts 1d)."""
    net = Net()
    last = net.conv("conv1", ["data"], 64 // divisor, 11, stride=4)
    last = net.norm("rnorm1", "cmrnorm", last, scale=1e-4, min_div=2)
    last = net.pool("pool1", last, neuron="relu")
    last = net.conv("conv2", [last], 192 // divisor, 5, padding=2, neuron="relu")
    last = net.norm("rnorm2", "cmrnorm", last, scale=1e-4, min_div=2)
    last = net.pool("pool2", last)
    for number, filters in ((3, 384), (4, 256)):
        last = net.conv(f"conv{number}", [last], filters // divisor, 3, padding=1, neuron="relu")
    last = net.conv("conv5", [last], 256 // divisor, 3, padding=1, groups=2)
    last = net.pool("pool3", last, neuron="relu")
    for number in (1, 2):
        last = net.fc(f"fc4096{number}", [last], 4096 // divisor, neuron="relu")
        last = net.dropout(f"dropout{number}", last)
    return net.finished(net.fc("fc1000", [last], classes, scale=0.2))


def computed(layers, images):
    """Return what every layer makes of ``(N, 3, H, W)``, in float64, from facts 1c and 2."""
    made = {"data": images.astype(np.float64)}
    for name, layer in layers.items():
        kind = layer["type"]
        if kind == "data" or kind.startswith("cost"):
            continue
        given = [made[one] for one in layer["inputs"]]
        made[name] = FORMS[kind](layer, given)
    return made


def _conv(layer, given):
    """Apply filters at ``modulesX`` places a side; what lies outside of the image is skipped."""
    total = layer["biases"].astype(np.float64).reshape(1, -1, 1, 1)
    for place, (maps, weight) in enumerate(zip(given, layer["weights"], strict=True)):
        groups, side = layer["groups"][place], layer["filterSize"][place]
        stride, start, places = layer["stride"][place], layer["padding"][place], layer["modulesX"]
        channels, filters = maps.shape[1] // groups, layer["filters"] // groups
        bank = weight.astype(np.float64).reshape(channels, side, side, layer["filters"])
        out = np.zeros((len(maps), layer["filters"], places, places))
        for y, x in np.ndindex(places, places):
            top, left = start + y * stride, start + x * stride
            rows = slice(max(0, top), min(maps.shape[2], top + side))
            columns = slice(max(0, left), min(maps.shape[3], left + side))
            seen = maps[:, :, rows, columns]
            used = bank[
                :, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
            ]
            for group in range(groups):
                own = slice(group * filters, (group + 1) * filters)
                part = seen[:, group * channels : (group + 1) * channels]
                out[:, own, y, x] = np.einsum("nchw,chwf->nf", part, used[..., own])
        total = total + out
    return total


def _cmrnorm(layer, given):
    (maps,), half = given, layer["size"] // 2
    out = np.empty_like(maps)
    for i in range(maps.shape[1]):
        window = maps[:, max(0, i - half) : i + half + 1]
        total = layer["scale"] * (window**2).sum(1)  # divided by the window already
        out[:, i] = maps[:, i] * (layer["minDiv"] + total) ** -layer["pow"]
    return out


def _rnorm(layer, given):
    (maps,), half = given, layer["size"] // 2
    out = np.empty_like(maps)
    for y, x in np.ndindex(maps.shape[2:]):
        window = maps[:, :, max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1]
        total = layer["scale"] * (window**2).sum((2, 3))
        out[:, :, y, x] = maps[:, :, y, x] * (layer["minDiv"] + total) ** -layer["pow"]
    return out


def _pool(layer, given):
    (maps,), side, stride = given, layer["sizeX"], layer["stride"]
    out = np.empty((*maps.shape[:2], layer["outputsX"], layer["outputsX"]))
    for y, x in np.ndindex(out.shape[2:]):
        top, left = y * stride, x * stride
        out[:, :, y, x] = maps[:, :, top : top + side, left : left + side].max((2, 3))
    return out


def _fc(layer, given):
    flat = [one.reshape(len(one), -1) for one in given]
    total = sum(one @ part for one, part in zip(flat, layer["weights"], strict=True))
    return total + layer["biases"]


def _softmax(layer, given):
    powers = np.exp(given[0] - given[0].max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


FORMS = {
    "conv": _conv, "cmrnorm": _cmrnorm, "rnorm": _rnorm, "pool": _pool, "fc": _fc,
    "softmax": _softmax,
    "neuron": lambda layer, given: np.maximum(given[0], 0),
    "dropout": lambda layer, given: given[0] * layer["keep"],
}  # fmt: skip
