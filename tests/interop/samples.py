"""A small file of every format that is imported, ways to damage one, and pickles that would run."""

import builtins
import collections
import io
import operator
import os
import pickle
import random
import runpy
import shutil
import subprocess
import tempfile
import timeit
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from alexnet.interop.export import build_onnx
from alexnet.interop.imports import WeightsFormat, import_file, read_mean, read_weights_file
from alexnet.interop.portable import insert_stored, store_weights
from alexnet.interop.weights import export_safetensors
from alexnet.predictor import Predictor
from tests.interop.caffe_files import alexnet, blob, caffemodel, prototxt
from tests.interop.conftest import model_of, narrow
from tests.interop.convnet_files import checkpoint, one_tower, pickled, two_towers
from tests.interop.onnx_files import exported, zoo
from tests.interop.tensorflow_files import alexnet as tensorflow_alexnet
from tests.interop.tensorflow_files import dictionary, graph_model, keras_file, layers_model
from tests.interop.test_weights import by_torchvision

WIDTHS = (8, 16, 16, 16, 16, 24, 16, 5)
CLASSES = 5
SPECIAL = (b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff", b"\xff" * 9 + b"\x01")


def saved(content: object, *, zipped: bool = True, **options: Any) -> bytes:
    out = io.BytesIO()
    torch.save(content, out, _use_new_zipfile_serialization=zipped, **options)
    return out.getvalue()


def own_safetensors() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "net.safetensors")
        export_safetensors(model_of(narrow("caffe", CLASSES)), path)
        return path.read_bytes()


def originals() -> dict[str, bytes]:
    """Return a good file of every format, by what it is."""
    torch.manual_seed(0)
    state = by_torchvision((8, 12, 16, 16, 16), 24, CLASSES).state_dict()
    steps = alexnet("norm-pool", WIDTHS)
    draws = np.random.default_rng(0)
    image = draws.uniform(60, 160, (3, 230, 230)).astype(np.float32)
    npy = io.BytesIO()
    np.save(npy, image)
    meta = {"data_mean": image.reshape(-1, 1), "label_names": list("abcde")}
    own = model_of(narrow("paper", CLASSES))
    return {
        "caffemodel, older": caffemodel(steps, "layers"),
        "caffemodel, newer": caffemodel(steps, "layer"),
        "caffemodel, numbers one by one": caffemodel(steps, "layer", packed=False),
        "prototxt": prototxt(steps).encode(),
        "binaryproto": blob(image[None], old=True),
        "npy": npy.getvalue(),
        "batches.meta": pickled(meta),
        "pth": saved(state),
        "pth, before 1.6": saved(state, zipped=False),
        "pth, of Python 2": saved(state, zipped=False, pickle_module=Python2),
        "safetensors, torchvision's": safetensors.torch.save(state),
        "safetensors, in float16": safetensors.torch.save({k: v.half() for k, v in state.items()}),
        "safetensors, own": own_safetensors(),
        "onnx, the zoo's": zoo(divisor=16, classes=CLASSES).SerializeToString(),
        "onnx, of PyTorch": exported(by_torchvision((8, 12, 16, 16, 16), 24, CLASSES)),
        "onnx, own": build_onnx(own, "pixels").SerializeToString(),
        "onnx, own in int8": _own_in_int8(own),
        "dictionary": dictionary(_dictionary_layers()),
        "keras": keras_file(tensorflow_alexnet(lrn=False)),
        "keras, h5": keras_file(tensorflow_alexnet(lrn=False), h5=True),
        "tfjs, graph": _model_json(graph_model),
        "tfjs, layers": _model_json(layers_model),
        "cuda-convnet, one tower": checkpoint(one_tower(divisor=16, classes=CLASSES)),
        "cuda-convnet, two towers": checkpoint(two_towers(divisor=16, classes=CLASSES)),
    }


def _own_in_int8(model: Predictor) -> bytes:
    proto = build_onnx(model, "pixels", "onnxruntime")
    insert_stored(proto.graph, store_weights(model.network, "int8"))
    return proto.SerializeToString()


def _dictionary_layers() -> dict[str, Any]:
    """Return Caffe's layers, an eighth as wide, as TensorFlow has them."""
    draws = np.random.default_rng(0)
    shapes = {
        "conv1": (11, 11, 3, 8), "conv2": (5, 5, 4, 16), "conv3": (3, 3, 16, 16),
        "conv4": (3, 3, 8, 16), "conv5": (3, 3, 8, 16), "fc6": (576, 24), "fc7": (24, 24),
        "fc8": (24, CLASSES),
    }  # fmt: skip
    return {
        name: (draws.normal(size=shape).astype(np.float32), np.zeros(shape[-1], np.float32))
        for name, shape in shapes.items()
    }


def _model_json(write: Callable[..., Path]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write(Path(folder), tensorflow_alexnet(lrn=write is graph_model)).read_bytes()


class Python2:
    """Given to `torch.save` for `pickle`, it writes texts and dictionaries as Python 2 did."""

    class Pickler(pickle._Pickler):
        def __init__(self, file: Any, protocol: int = 2) -> None:
            super().__init__(file, 2)

        def save_text(self, text: str) -> None:
            self.write(b"U" + bytes([len(text)]) + text.encode())
            self.memoize(text)

        def save_ordered(self, value: Any) -> None:
            self.save_reduce(type(value), ([[k, v] for k, v in value.items()],), obj=value)

        dispatch = pickle._Pickler.dispatch | {
            str: save_text, collections.OrderedDict: save_ordered,
        }  # fmt: skip

    @classmethod
    def dump(cls, value: Any, file: Any, protocol: int = 2) -> None:
        cls.Pickler(file).dump(value)


FORMS: dict[str, WeightsFormat] = {
    "caffemodel": "caffe", "pth": "torchvision", "onnx": "onnx", "cuda-convnet": "cuda-convnet",
    "dictionary": "npy", "keras": "keras", "tfjs": "tfjs",
}  # fmt: skip
BESIDE = ("prototxt", "binaryproto", "npy", "batches.meta")  # given with a good .caffemodel


def imported(kind: str, data: bytes, folder: Path, good: bytes, *, write: bool = True) -> None:
    """Import a file of a kind, or a good network with such a file beside it.

    Without `write` it is read alone, which takes a tenth of the time.
    """
    path = folder / f"file.{kind.split(',')[0]}"
    if kind.startswith("tfjs"):  # its shards beside it
        write_model = graph_model if kind.endswith("graph") else layers_model
        write_model(folder, tensorflow_alexnet(lrn=write_model is graph_model))
    path.write_bytes(data)
    form = FORMS.get(kind.split(",")[0], "caffe")
    if kind.startswith("safetensors"):
        form = "safetensors" if kind.endswith("own") else "torchvision"
    beside: dict[str, Any] = {}
    if kind in BESIDE:
        beside = {"prototxt" if kind == "prototxt" else "mean": path}
        path = folder / "good"
        path.write_bytes(good)
    if write:
        import_file(path, folder / "run", form=form, **beside)
        return
    read_weights_file(path, form, beside.get("prototxt"))
    if "mean" in beside:
        read_mean(beside["mean"])


def damaged(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Yield copies with a few changes each, most of them where the structure lies."""
    draws = random.Random(seed)
    edges = min(len(data), 3000)
    for _ in range(count):
        changed = bytearray(data)
        for _ in range(draws.choice((1, 1, 2, 5))):
            near = draws.random() < 0.8
            at = draws.randrange(edges) if near else draws.randrange(len(changed) or 1)
            if near and draws.random() < 0.4:
                at = max(0, len(changed) - 1 - at)
            _change(changed, at, draws)
        yield bytes(changed)


def _change(data: bytearray, at: int, draws: random.Random) -> None:
    kind = draws.randrange(7)
    length = draws.choice((1, 2, 4, 16, 300))
    if kind == 0 and at < len(data):
        data[at] ^= 1 << draws.randrange(8)
    elif kind == 1:
        data[at : at + 1] = bytes([draws.randrange(256)])
    elif kind == 2:
        special = draws.choice(SPECIAL)
        data[at : at + len(special)] = special
    elif kind == 3:
        del data[at : at + length]
    elif kind == 4:
        data[at:at] = draws.randbytes(length)
    elif kind == 5:
        other = draws.randrange(len(data) or 1)
        data[at : at + length] = data[other : other + length]
    elif draws.random() < 0.3:
        del data[at:]


class Calls:
    """Pickled, it is a call."""

    def __init__(self, function: Callable, *arguments: object, state: object = None) -> None:
        self.told = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> tuple:
        return self.told


def payloads(marker: Path) -> dict[str, bytes]:
    """Return pickles that make the file `marker` when Python's own unpickler reads them."""
    name = str(marker)
    code = f"__import__('os').mknod({name!r})"
    script = marker.with_suffix(".py")
    script.write_text(code)
    text = b"X" + len(name).to_bytes(4, "little") + name.encode()
    shell = f"touch {name}"
    made = Calls(os.mknod, name)
    calls = {
        "os.system": Calls(os.system, shell),
        "os.mknod": made,
        "subprocess.call": Calls(subprocess.call, ["touch", name]),
        "subprocess.check_output": Calls(subprocess.check_output, ["touch", name]),
        "eval": Calls(eval, code),
        "exec": Calls(exec, code),
        "Path.touch": Calls(Path.touch, marker),
        "Path.write_text": Calls(Path.write_text, marker, "here"),
        "runpy.run_path": Calls(runpy.run_path, str(script)),
        "timeit.timeit": Calls(timeit.timeit, code, "pass", timeit.default_timer, 1),
        "shutil.copyfile": Calls(shutil.copyfile, str(script), name),
        "map": Calls(collections.deque, Calls(map, os.mknod, [name])),
        "operator.call": Calls(operator.call, os.mknod, name),
        "compile": Calls(eval, Calls(compile, code, "x", "exec")),
        "pickle.loads": Calls(pickle.loads, pickle.dumps(made)),
        "import": Calls(operator.methodcaller("mknod", name), Calls(builtins.__import__, "os")),
        "inside of a state": Calls(collections.OrderedDict, state={"a": made}),
        "inside of an array": Calls(np.array, made),
        "inside of a key": {made: 1},
    }
    pickles = {key: pickle.dumps(value, 2) for key, value in calls.items()}
    module = b"cbuiltins\n__import__\n(X\x02\0\0\0ostR"
    function = b"cbuiltins\ngetattr\n(" + module + b"X\x05\0\0\0mknodtR"
    return pickles | {
        "getattr": b"\x80\x02" + function + b"(" + text + b"tR.",
        "INST": f"(S{shell!r}\nios\nsystem\n.".encode(),
        "OBJ": b"\x80\x02(cos\nmknod\n" + text + b"o.",
        "STACK_GLOBAL": pickle.dumps(calls["os.system"], 4),
    }


def with_pickle(archive: bytes, pickled_part: bytes) -> bytes:
    """Put another pickle into a file of ``torch.save``."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w") as new:
        for part in old.infolist():
            mine = part.filename.endswith("data.pkl")
            new.writestr(part.filename, pickled_part if mine else old.read(part))
    return out.getvalue()


def memory(name: str) -> float:
    """Return what the system counts of this process, in MB: ``VmRSS`` now, ``VmHWM`` at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith(f"{name}:"))


def forget_peak() -> None:
    """Let ``VmHWM`` count from here."""
    Path("/proc/self/clear_refs").write_text("5")
