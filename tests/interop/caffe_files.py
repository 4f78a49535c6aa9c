"""Caffe's files, written by a protobuf writer of the tests' own, in both forms that Caffe had."""

import struct
from dataclasses import dataclass

import numpy as np

Value = bytes | int | float | str | np.ndarray | list


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: Value, *, packed: bool = True) -> bytes:
    """Encode a field: numbers, text, messages; arrays packed or one number after the other."""
    if isinstance(value, list):
        return b"".join(field(number, one) for one in value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, np.ndarray):
        data = np.ascontiguousarray(value, "<f4").tobytes()
        if packed:
            return varint(number << 3 | 2) + varint(len(data)) + data
        key = varint(number << 3 | 5)
        return b"".join(key + data[at : at + 4] for at in range(0, len(data), 4))
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def message(*fields: tuple[int, Value]) -> bytes:
    return b"".join(field(number, value) for number, value in fields)


@dataclass(frozen=True)
class Step:
    """A layer of a net: its name, type and settings by name, and its weights."""

    name: str
    kind: str
    settings: dict[str, float]
    blobs: tuple[np.ndarray, ...] = ()


# where a layer's settings lie, in the older and the newest form, and under which numbers
PARAMETERS = {
    "Convolution": ("convolution_param", 10, 106),
    "Dropout": ("dropout_param", 12, 108),
    "InnerProduct": ("inner_product_param", 17, 117),
    "LRN": ("lrn_param", 18, 118),
    "Pooling": ("pooling_param", 19, 121),
    "ReLU": ("relu_param", 30, 123),
    "Softmax": ("softmax_param", 39, 125),
}
NUMBERS = {
    "Convolution": {"num_output": 1, "pad": 3, "kernel_size": 4, "group": 5, "stride": 6},
    "Dropout": {"dropout_ratio": 1},
    "InnerProduct": {"num_output": 1},
    "LRN": {"local_size": 1, "alpha": 2, "beta": 3, "k": 5},
    "Pooling": {"pool": 1, "kernel_size": 2, "stride": 3},
    "ReLU": {},
    "Softmax": {},
}
OLD_TYPES = {
    "Convolution": 4, "Dropout": 6, "InnerProduct": 14, "LRN": 15, "Pooling": 17, "ReLU": 18,
    "Softmax": 20,
}  # fmt: skip


def alexnet(order: str, widths=(96, 256, 384, 384, 256, 4096, 4096, 1000), seed=0) -> list[Step]:
    """Return BVLC's reference networks: ``norm-pool`` is bvlc_alexnet, ``pool-norm`` caffenet.

    Weights are random, of a size that carries the signal to the end: pixels of 0-255 make sums
    in the norms that matter, and logits of a few units.
    """
    draws = np.random.default_rng(seed)

    def weights(*shape: int, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        weight = draws.standard_normal(shape, np.float32)
        weight *= np.float32(scale * (2 / np.prod(shape[1:])) ** 0.5)
        return weight, draws.standard_normal(shape[0], np.float32) * np.float32(0.1)

    one, two, three, four, five, six, seven, last = widths
    relu, pool = {}, {"pool": 0, "kernel_size": 3, "stride": 2}
    norm = {"local_size": 5, "alpha": 1e-4, "beta": 0.75}

    def conv(number, maps, inputs, kernel, **settings):
        blobs = weights(maps, inputs // settings.get("group", 1), kernel, kernel)
        settings |= {"num_output": maps, "kernel_size": kernel}
        return Step(f"conv{number}", "Convolution", settings, blobs), Step(
            f"relu{number}", "ReLU", relu
        )

    def after(number):
        pair = Step(f"norm{number}", "LRN", norm), Step(f"pool{number}", "Pooling", pool)
        return pair if order == "norm-pool" else pair[::-1]

    def dense(number, units, inputs):
        return (
            Step(f"fc{number}", "InnerProduct", {"num_output": units}, weights(units, inputs)),
            Step(f"relu{number}", "ReLU", relu),
            Step(f"drop{number}", "Dropout", {"dropout_ratio": 0.5}),
        )

    return [
        *conv(1, one, 3, 11, stride=4), *after(1),
        *conv(2, two, one, 5, pad=2, group=2), *after(2),
        *conv(3, three, two, 3, pad=1), *conv(4, four, three, 3, pad=1, group=2),
        *conv(5, five, four, 3, pad=1, group=2), Step("pool5", "Pooling", pool),
        *dense(6, six, five * 36), *dense(7, seven, six),
        Step("fc8", "InnerProduct", {"num_output": last}, weights(last, seven, scale=0.05)),
        Step("prob", "Softmax", {}),
    ]  # fmt: skip


def wired(steps: list[Step]) -> list[tuple[Step, str, str]]:
    """Return each layer with what it takes and makes; some write over what they take, as BVLC's."""
    rows, current = [], "data"
    for step in steps:
        top = current if step.kind in ("ReLU", "Dropout") else step.name
        rows.append((step, current, top))
        current = top
    return rows


def caffemodel(steps: list[Step], form: str = "layer", *, packed: bool = True, name="AlexNet"):
    """Encode a net: ``layers``, as BVLC published its files, or ``layer``, as Caffe writes now."""
    old = form == "layers"
    out = [field(1, name)]
    for step, bottom, top in wired(steps):
        _, *places = PARAMETERS[step.kind]
        numbers = NUMBERS[step.kind]
        settings = message(*((numbers[key], value) for key, value in step.settings.items()))
        blobs = [blob(values, old, packed=packed) for values in step.blobs]
        if old:
            head = message((2, bottom), (3, top), (4, step.name), (5, OLD_TYPES[step.kind]))
            out.append(field(2, head + field(6, blobs) + field(places[0], settings)))
        else:
            head = message((1, step.name), (2, step.kind), (3, bottom), (4, top))
            out.append(field(100, head + field(7, blobs) + field(places[1], settings)))
    return b"".join(out)


def blob(values: np.ndarray, old: bool, *, packed: bool = True) -> bytes:
    """Encode an array, its shape as four numbers, or as the newest form has it."""
    if old:
        shape = [*[1] * (4 - values.ndim), *values.shape]
        return message(*enumerate(map(int, shape), 1)) + field(5, values, packed=packed)
    dims = b"".join(map(varint, values.shape))
    return field(7, field(1, dims)) + field(5, values, packed=packed)


def prototxt(steps: list[Step], image: int = 227) -> str:
    """Write a net's description as people deploy it."""
    lines = ['name: "AlexNet"', 'input: "data"', f"input_dim: 1 input_dim: 3 input_dim: {image}"]
    lines.append(f"input_dim: {image}  # as the file's own text")
    for step, bottom, top in wired(steps):
        settings = " ".join(f"{key}: {value}" for key, value in step.settings.items())
        inner = f"  {PARAMETERS[step.kind][0]} {{ {settings} }}\n" if settings else ""
        lines.append(
            f'layer {{\n  name: "{step.name}"\n  type: "{step.kind}"\n  bottom: "{bottom}"\n'
            f'  top: "{top}"\n{inner}}}'
        )
    return "\n".join(lines) + "\n"
