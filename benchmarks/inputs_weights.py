"""Files of weights and odd images as people bring them: what becomes of each, a line a case.

``PYTHONPATH=src:. python benchmarks/inputs_weights.py [WORD]``

Run with the source of another version first in ``PYTHONPATH``, the same inputs show what that one
did. Memory is limited to 8 GB, so that what asks for more is refused by the system.
"""

import contextlib
import io
import json
import resource
import struct
import sys
import tempfile
import traceback
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import safetensors.torch
import torch
from onnx import helper
from PIL import Image

import alexnet
from alexnet.cli.main import run as run_command
from alexnet.data import decode
from alexnet.errors import AlexNetError
from tests.interop.caffe_files import alexnet as caffe_alexnet
from tests.interop.caffe_files import caffemodel
from tests.interop.onnx_files import exported, with_view
from tests.interop.samples import Python2, own_safetensors
from tests.interop.test_weights import by_torchvision

MEMORY = 8 << 30
CASES: dict[str, Callable[[Path], str]] = {}


def case(function: Callable[[Path], str]) -> Callable[[Path], str]:
    """Note a case under its docstring."""
    CASES[str(function.__doc__).rstrip(".")] = function
    return function


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return by_torchvision((8, 12, 16, 16, 16), 24, 5).eval()


def imported(folder: Path, name: str, data: bytes, *options: str) -> str:
    """Import a file by the command; return what it said, in short."""
    (folder / name).write_bytes(data)
    out, said = io.StringIO(), io.StringIO()
    arguments = ["import", str(folder / name), "--out", str(folder / "run"), *options]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
        status = run_command(arguments)
    lines = [line for line in out.getvalue().splitlines() if not line.startswith(("  ", "in "))]
    text = " | ".join(lines[:5]) if status == 0 else said.getvalue().strip()
    return f"{'read' if status == 0 else 'refused'}: {text}".replace(str(folder) + "/", "")


def pth(content: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    torch.save(content, out, **options)
    return out.getvalue()


def half(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {name: value.to(dtype) for name, value in network().state_dict().items()}


@case
def _(folder: Path) -> str:
    """torchvision's names in a float16 .safetensors."""
    return imported(folder, "a.safetensors", safetensors.torch.save(half(torch.float16)))


@case
def _(folder: Path) -> str:
    """torchvision's names in a bfloat16 .safetensors."""
    return imported(folder, "a.safetensors", safetensors.torch.save(half(torch.bfloat16)))


@case
def _(folder: Path) -> str:
    """own .safetensors, converted to float16."""
    data = own_safetensors()
    size = int.from_bytes(data[:8], "little")
    told = json.loads(data[8 : 8 + size])["__metadata__"]
    state = {name: value.half() for name, value in safetensors.torch.load(data).items()}
    return imported(folder, "a.safetensors", safetensors.torch.save(state, told))


@case
def _(folder: Path) -> str:
    """float16 .pth (the neighbour that was taken)."""
    return imported(folder, "a.pth", pth(half(torch.float16)))


@case
def _(folder: Path) -> str:
    """weights in int8."""
    return imported(folder, "a.pth", pth(half(torch.int8)))


@case
def _(folder: Path) -> str:
    """a .pth of Python 2, names as bytes."""
    data = pth(network().state_dict(), pickle_module=Python2, _use_new_zipfile_serialization=False)
    (folder / "b").write_bytes(data)
    assert len(torch.load(folder / "b", weights_only=True)) == 16
    return imported(folder, "a.pth", data)


def renamed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in network().state_dict().items()}


@case
def _(folder: Path) -> str:
    """a checkpoint of Lightning."""
    told = {"epoch": 1, "global_step": 9, "pytorch-lightning_version": "2.5", "callbacks": {}}
    return imported(folder, "a.ckpt", pth(told | {"state_dict": renamed("model.")}))


@case
def _(folder: Path) -> str:
    """{'net': ..., 'acc': ..., 'epoch': ...}."""
    return imported(folder, "a.pth", pth({"net": renamed("module."), "acc": 90.1, "epoch": 3}))


@case
def _(folder: Path) -> str:
    """{'model_state': ..., 'optimizer_state': ...}."""
    return imported(folder, "a.pth", pth({"model_state": renamed(""), "optimizer_state": {}}))


@case
def _(folder: Path) -> str:
    """names that begin with backbone."""
    return imported(folder, "a.pth", pth(renamed("backbone.")))


@case
def _(folder: Path) -> str:
    """names that begin with backbone in a .safetensors."""
    return imported(folder, "a.safetensors", safetensors.torch.save(renamed("backbone.")))


@case
def _(folder: Path) -> str:
    """two networks in one file, student. and teacher."""
    return imported(folder, "a.pth", pth(renamed("student.") | renamed("teacher.")))


@case
def _(folder: Path) -> str:
    """a whole network, torch.save(model)."""
    return imported(folder, "a.pth", pth(torch.nn.Sequential(torch.nn.Linear(2, 2))))


def by_dynamo() -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(network(), (torch.zeros(1, 3, 224, 224),), out, dynamo=True)
    return out.getvalue()


@case
def _(folder: Path) -> str:
    """torchvision's alexnet by torch.onnx.export."""
    return imported(folder, "a.onnx", by_dynamo())


@case
def _(folder: Path) -> str:
    """the same by PyTorch's older exporter."""
    return imported(folder, "a.onnx", exported(network()))


@case
def _(folder: Path) -> str:
    """PyTorch 0.4 to 1.1: Shape, Gather, Unsqueeze, Concat, Reshape."""
    return imported(folder, "a.onnx", with_view(exported(network()), "Gather").SerializeToString())


@case
def _(folder: Path) -> str:
    """PyTorch 0.4 to 1.1: Shape, Slice, Concat, Reshape."""
    return imported(folder, "a.onnx", with_view(exported(network()), "Slice").SerializeToString())


@case
def _(folder: Path) -> str:
    """equal initialisers joined by Identity."""
    model = onnx.load_from_string(exported(network()))
    kept = [one for one in model.graph.initializer if one.name != "classifier.4.bias"]
    twin = next(one for one in kept if one.name == "classifier.1.bias")
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    joined = helper.make_node("Identity", [twin.name], ["classifier.4.bias"])
    model.graph.node.insert(0, joined)
    return imported(folder, "a.onnx", model.SerializeToString())


@case
def _(folder: Path) -> str:
    """TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.trace(network(), torch.zeros(1, 3, 224, 224))
        script.save(folder / "b")
    return imported(folder, "a.pt", (folder / "b").read_bytes())


@case
def _(folder: Path) -> str:
    """a program of torch.export, .pt2."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(network(), (torch.zeros(1, 3, 224, 224),))
        torch.export.save(program, str(folder / "b.pt2"))
    return imported(folder, "a.pt2", (folder / "b.pt2").read_bytes())


@case
def _(folder: Path) -> str:
    """Caffe's .solverstate."""
    name = b"caffe_alexnet_train_iter_450000.caffemodel"
    blob = b"\x2a\x10" + np.zeros(4, np.float32).tobytes()
    data = b"\x08\xd0\xbb\x1b\x12" + bytes([len(name)]) + name + b"\x1a" + bytes([len(blob)]) + blob
    return imported(folder, "a.solverstate", data)


@case
def _(folder: Path) -> str:
    """Keras' .h5."""
    return imported(folder, "a.h5", b"\x89HDF\r\n\x1a\n" + bytes(2000))


@case
def _(folder: Path) -> str:
    """a .npy, bvlc_alexnet.npy as TensorFlow's users have it."""
    out = io.BytesIO()
    np.save(out, np.array({"conv1": [np.zeros((11, 11, 3, 96))]}, object), allow_pickle=True)
    return imported(folder, "bvlc_alexnet.npy", out.getvalue())


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 244408911\n"
PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body></body></html>"
NAMED = {
    "a Git LFS pointer": ("alexnet.pth", POINTER),
    "a Git LFS pointer, with --as": ("alexnet.pth", POINTER, "--as", "torchvision"),
    "an HTML page": ("alexnet.pth", PAGE),
    "a .mat of MatConvNet": ("imagenet-caffe-alex.mat", b"MATLAB 5.0 MAT-file" + bytes(99)),
    "TensorFlow Lite": ("a.tflite", b"\x1c\0\0\0TFL3" + bytes(99)),
    "a gzip": ("a.caffemodel.gz", b"\x1f\x8b\x08\0" + bytes(99)),
    "an index of shards": ("model.safetensors.index.json", b'{"metadata": {}, "weight_map": {}}'),
    "a description alone, .prototxt": ("deploy.prototxt", b'name: "AlexNet"\nlayer {\n}\n'),
    "an empty file": ("a.pth", b""),
}  # fmt: skip
for named, given in NAMED.items():
    CASES[named] = lambda folder, given=given: imported(folder, *given)


@case
def _(folder: Path) -> str:
    """a zip with a .pth in it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("alexnet/alexnet.pth", pth(network().state_dict()))
    return imported(folder, "alexnet.zip", out.getvalue())


def announcing(**changes: Any) -> bytes:
    """Return an own .safetensors that announces other sizes than those of its tensors."""
    data = own_safetensors()
    size = int.from_bytes(data[:8], "little")
    told = json.loads(data[8 : 8 + size])["__metadata__"]
    spec, about = json.loads(told["spec"]), json.loads(told["preprocessing"])
    spec |= {key: value for key, value in changes.items() if key in spec}
    about |= {key: value for key, value in changes.items() if key in about}
    told |= {"spec": json.dumps(spec), "preprocessing": json.dumps(about)}
    return safetensors.torch.save(safetensors.torch.load(data), told)


@case
def _(folder: Path) -> str:
    """a .safetensors that announces an image of 40,000 pixels."""
    conv = {"name": "conv1", "out_channels": 1, "kernel_size": 1, "stride": 40_000}
    spec = {"name": "x", "convs": [conv], "dense": [], "image_size": 40_000, "num_classes": 1}
    sizes = {
        "conv1.weight": (1, 3, 1, 1),
        "conv1.bias": (1,),
        "fc8.weight": (1, 1),
        "fc8.bias": (1,),
    }
    state = {name: torch.zeros(size) for name, size in sizes.items()}
    return imported(
        folder, "a.safetensors", safetensors.torch.save(state, {"spec": json.dumps(spec)})
    )


@case
def _(folder: Path) -> str:
    """a .safetensors whose images are announced to be prepared at 4,000 pixels."""
    said = imported(folder, "a.safetensors", announcing(prepared=4000))
    mean = folder / "run" / "statistics.safetensors"
    return said + (f" (a mean image of {mean.stat().st_size:,} bytes)" if mean.exists() else "")


@case
def _(folder: Path) -> str:
    """a small pickle that asks for 8 GB by numbers of no bytes."""
    dtype = b"cnumpy\ndtype\nX\x02\0\0\0S0\x85R"
    shape = b"(K\x01J\0\0\0@K\x08ttb."  # not run: filled in below
    state = b"(K\x01(" + b"J\0\0\0@" + b"K\x08" + b"t" + dtype + b"\x89" + b"C\0" + b"tb."
    del shape
    return imported(folder, "net", b"\x80\x03cnumpy\nndarray\n)R" + state, "--as", "cuda-convnet")


@case
def _(folder: Path) -> str:
    """metadata nested 100,000 deep."""
    deep = "[" * 100_000 + "]" * 100_000
    return imported(folder, "a.safetensors", safetensors.torch.save({}, {"spec": deep}))


@case
def _(folder: Path) -> str:
    """metadata of 10 million empty lists."""
    wide = "[" + "[]," * 10_000_000 + "[]]"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = imported(folder, "a.safetensors", safetensors.torch.save({}, {"spec": wide}))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    return f"{said[:200]} ({grown} MB more)"


def photograph() -> Image.Image:
    draws = np.random.default_rng(0)
    small = Image.fromarray(draws.integers(0, 256, (6, 8, 3), np.uint8))
    return small.resize((80, 60), Image.Resampling.BICUBIC)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def both_decoders(data: bytes) -> str:
    """Decode with the extra `fast` and without it."""
    kept, sizes = decode.simplejpeg, []
    for library in (kept, None):
        decode.simplejpeg = library
        with contextlib.suppress(AlexNetError):
            sizes.append(decode.to_rgb(data).size)
    decode.simplejpeg = kept
    return f"with fast {sizes[0]}, without {sizes[1]}"


XMP = (
    b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF><rdf:Description "
    b'tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


@case
def _(folder: Path) -> str:
    """a JPEG of 80x60 with its orientation in XMP alone."""
    data = saved(photograph(), "JPEG")
    return both_decoders(data[:2] + b"\xff\xe1" + struct.pack(">H", len(XMP) + 2) + XMP + data[2:])


@case
def _(folder: Path) -> str:
    """a JPEG of 80x60 with its Exif behind 130 kB of ICC."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(photograph(), "JPEG", exif=exif.tobytes())
    head = b"\xff\xe2" + struct.pack(">H", 65_002) + b"ICC_PROFILE\0"
    profile = b"".join(head + bytes([part, 2]) + bytes(64_986) for part in (1, 2))
    return both_decoders(data[:2] + profile + data[2:])


def forms(folder: Path, name: str, data: bytes) -> str:
    """Return how many kinds of pixels a file's forms give."""
    (folder / name).write_bytes(data)
    with Image.open(io.BytesIO(data)) as opened:
        array = np.asarray(opened)
        given = [folder / name, data, io.BytesIO(data), opened, opened.copy(), array]
        found = [np.asarray(decode.to_rgb(one)).tobytes() for one in given]
    return f"{len(set(found))} kinds of pixels of path, bytes, file, image, copy, array"


@case
def _(folder: Path) -> str:
    """a 16-bit grey PNG in every form."""
    deep = np.random.default_rng(0).integers(0, 65536, (60, 80)).astype(np.uint16)
    return forms(folder, "a.png", saved(Image.fromarray(deep), "PNG"))


@case
def _(folder: Path) -> str:
    """an RGBA PNG in every form."""
    return forms(folder, "a.png", saved(photograph().convert("RGBA"), "PNG"))


def tiff(values: Any) -> str:
    found = decode.inspect_image(saved(Image.fromarray(values), "TIFF"))
    grey = np.asarray(found.image)[..., 0]
    return f"read: values {grey.min()} to {grey.max()}, said: {', '.join(found.repairs) or '-'}"


ramp = np.linspace(0, 1, 4800).reshape(60, 80)
TIFFS = {
    "a TIFF of 32-bit integers of 0-255": (ramp * 255).astype(np.int32),
    "a TIFF of 32-bit integers of 0-65,535": (ramp * 65535).astype(np.int32),
    "a TIFF of 32-bit integers of 0-1,000,000": (ramp * 1e6).astype(np.int32),
    "a TIFF of floats of 0-1": ramp.astype(np.float32),
    "a TIFF of floats of 0-255": (ramp * 255).astype(np.float32),
    "a TIFF of floats of 0-60,000": (ramp * 60_000).astype(np.float32),
    "a TIFF of floats of -1 to 1": (ramp * 2 - 1).astype(np.float32),
    "a TIFF of floats, one of them NaN": np.where(ramp == 0, np.nan, ramp).astype(np.float32),
}
for named, values in TIFFS.items():
    CASES[named] = lambda folder, values=values: tiff(values)


def beside(folder: Path, command: str) -> str:
    (folder / "net.caffemodel").write_bytes(
        caffemodel(caffe_alexnet("norm-pool", (16, 32, 48, 48, 32, 40, 24, 2)), "layers")
    )
    (folder / "photographs").mkdir()
    (folder / "photographs" / "a.JPEG").write_bytes(saved(photograph(), "JPEG"))
    (folder / "photographs" / "._a.JPEG").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        ")
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(said := io.StringIO()),
    ):
        run_command(["import", str(folder / "net.caffemodel"), "--out", str(folder / "run")])
        options = ["--layers", "fc7", "--out", str(folder / "f")] if command == "features" else []
        status = run_command([command, str(folder / "run"), str(folder / "photographs"), *options])
    return f"status {status} {said.getvalue().strip().splitlines()[-1:]}".replace(str(folder), "")


@case
def _(folder: Path) -> str:
    """alexnet predict of a folder with ._a.JPEG beside a.JPEG."""
    return beside(folder, "predict")


@case
def _(folder: Path) -> str:
    """alexnet features of a folder with ._a.JPEG beside a.JPEG."""
    return beside(folder, "features")


# The same kinds, after public reports on other tools: see the results for which.


@case
def _(folder: Path) -> str:
    """names that begin with module.0. (DenseTorch 14)."""
    return imported(folder, "a.pth", pth(renamed("module.0.")))


@case
def _(folder: Path) -> str:
    """{'net_coarse': ..., 'net_fine': ...} (GNT 4)."""
    return imported(folder, "a.pth", pth({"net_coarse": renamed(""), "net_fine": renamed("")}))


@case
def _(folder: Path) -> str:
    """a .pth cut in half (sapiens 85)."""
    data = pth(network().state_dict())
    return imported(folder, "a.pth", data[: len(data) // 2])


@case
def _(folder: Path) -> str:
    """parts of one memory, turned, in a .pth (safetensors 95)."""
    state = network().state_dict()
    memory = torch.cat([value.flatten() for value in state.values()])
    parts = memory.split([value.numel() for value in state.values()])
    shared = {k: part.view(v.shape) for part, (k, v) in zip(parts, state.items(), strict=True)}
    shared["classifier.4.weight"] = shared["classifier.4.weight"].t().contiguous().t()
    return imported(folder, "a.pth", pth(shared))


@case
def _(folder: Path) -> str:
    """every array of an ONNX file as a node (onnx2torch 243)."""
    model = onnx.load_from_string(exported(network()))
    arrays = [helper.make_node("Constant", [], [a.name], value=a) for a in model.graph.initializer]
    nodes = [*arrays, *model.graph.node]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    return imported(folder, "a.onnx", model.SerializeToString())


@case
def _(folder: Path) -> str:
    """arrays in an ONNX file that nothing takes (pytorch 13552)."""
    model = onnx.load_from_string(exported(network()))
    for name in "234":
        unused = model.graph.initializer.add()
        unused.CopyFrom(model.graph.initializer[0])
        unused.name = name
    return imported(folder, "a.onnx", model.SerializeToString())


@case
def _(folder: Path) -> str:
    """a 16-bit TIFF, high byte first, in every form (Pillow 5991, iiif 23)."""
    deep = (np.linspace(0, 65535, 4800).reshape(60, 80)).astype(">u2")
    return forms(folder, "a.tiff", saved(Image.fromarray(deep), "TIFF"))


@case
def _(folder: Path) -> str:
    """a PNG turned by its Exif, as a path and as an image (sd-scripts 1316)."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(photograph(), "PNG", exif=exif)
    (folder / "a.png").write_bytes(data)
    sizes = {decode.to_rgb(one).size for one in (folder / "a.png", Image.open(io.BytesIO(data)))}
    return f"{sizes} of 80x60"


def main() -> None:
    """Print a line a case."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    print(f"# {Path(alexnet.__file__).parent}", file=sys.stderr)
    for name, function in CASES.items():
        if len(sys.argv) > 1 and sys.argv[1] not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                said = function(Path(folder))
            except AlexNetError as error:
                said = f"refused: {error}"
            except BaseException as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                said = f"TRACEBACK {type(error).__name__}: {error} ({where.name})"
        print(f"{name}: {said.replace(folder, '')[:420]}", flush=True)


if __name__ == "__main__":
    main()
