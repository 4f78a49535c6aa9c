"""A file of weights from anywhere -> a run's folder that every command takes."""

import contextlib
import math
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet import bounds
from alexnet.data.imagenet import WNID
from alexnet.data.layouts import parse_class_list
from alexnet.data.statistics import Statistics
from alexnet.errors import RunError
from alexnet.files import sha256
from alexnet.interop import FORMATS, WeightsFormat, model_folder
from alexnet.interop.caffe import IMAGENET_MEAN, read_binaryproto, read_caffemodel
from alexnet.interop.cuda_convnet import read_checkpoint
from alexnet.interop.keras import HDF5, WEIGHTS, read_keras
from alexnet.interop.layer_ir import ImportedNetwork, MeanColour
from alexnet.interop.model_folder import IMPORTED
from alexnet.interop.onnx_import import read_onnx
from alexnet.interop.tensorflow import read_npy
from alexnet.interop.tfjs import read_tfjs
from alexnet.interop.torch_files import LEGACY
from alexnet.interop.weights import (
    is_safetensors,
    list_safetensors,
    read_own_safetensors,
    read_state_dict,
    tell_conversion,
)
from alexnet.pickles import load_arrays
from alexnet.recipes import FAST
from alexnet.spec import Spec
from alexnet.training.checkpoint import Checkpoint
from alexnet.training.run import Run, RunConfig, software_versions
from alexnet.variants import network_named

PEEKED = 4096  # bytes of a file that tell what it is
TFJS = re.compile(rb'\s*\{.*"(?:modelTopology|weightsManifest)"', re.DOTALL)
USUAL_SIDE = 256  # of prepared images, for networks of 227 and 224 (section 2)
NPY, PICKLED, ZIP = b"\x93NUMPY", b"\x80", b"PK"  # how files begin; pickles from protocol 2
DOWNLOAD_AGAIN = "Download it again."
UNPACK = "Unpack it, and name the file of weights in it."
WITHOUT_AS = "Leave --as out."
WITHOUT_LAYERS = "Give the file that it was converted from."
# How files begin that people take for weights, what they are, and what to do.
OTHER_FILES = [
    (re.compile(pattern, re.DOTALL), what, fix)
    for pattern, what, fix in (
        (rb"$", "empty", DOWNLOAD_AGAIN),
        (rb"version https://git-lfs", "a pointer of Git LFS", "Fetch the file with git lfs pull."),
        (rb"(?i:(?:\xef\xbb\xbf)?\s*<(?:!doctype|!--|html|head|\?xml))", "a web page",
         "Download the file itself; the page may ask to sign in first."),
        (rb"\s*\{\s*\"", "JSON, which has no weights", "Name the file of weights beside it."),
        (rb"\s*(?:#[^\n]*\n\s*)*(?:name|layers?|input|net)\s*[:{]", "a description of layers",
         "Name a .caffemodel, and this as --prototxt."),
        (rb"\x08[\x80-\xff]{0,4}[\0-\x7f]\x12.[ -~]*\.caffemodel",
         "the state of Caffe's solver: a step and momenta", "Name the .caffemodel beside it."),
        (rb"\x89HDF", "HDF5, as Keras writes", WITHOUT_AS),
        (rb"\x93NUMPY", "an array of NumPy", WITHOUT_AS),
        (rb"MATLAB", "a file of MATLAB", WITHOUT_LAYERS),
        (rb".{4}TFL3", "TensorFlow Lite", WITHOUT_LAYERS),
        (rb"\x1f\x8b|BZh\d1AY|\xfd7zXZ|7z\xbc\xaf|Rar!|.{257}ustar", "an archive", UNPACK),
        (rb"\x89PNG|\xff\xd8\xff", "an image", "Photographs are for alexnet predict."),
    )
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Import:
    """A run made of a foreign file, and what that was found to be."""

    run: Run
    form: WeightsFormat
    found: tuple[str, ...]  # in words


def import_file(
    source: str | Path,
    out: str | Path,
    *,
    form: WeightsFormat | None = None,
    classes: Path | None = None,
    mean: Path | None = None,
    prototxt: Path | None = None,
    pixels: str | None = None,
) -> Import:
    """Make a run's folder of a file of weights.

    `source` is a file; a model folder; or, with ``form="huggingface"``, a repository ``user/name``.
    By default `form` is what the file is seen to be. `classes` is a text with one class a line, in
    the order of the outputs. `mean` is a ``.binaryproto`` or ``.npy`` with a mean image or colour
    of 0-255, its channels in the network's order. A `prototxt` has the layers, where those in a
    file of Caffe should not count. `pixels` is a named network whose pixels it takes, where the
    file does not say or is wrong.

    A file that is damaged or holds another network is a `RunError`, with what was expected.
    """
    out, path = Path(out), Path(source)
    if (out / "config.json").exists():
        raise RunError(f"{str(out)!r} is already a run.", "Choose another --out.")
    form = form or detect_format(path)
    if prototxt is not None and form != "caffe":
        raise RunError(f"A file of {form} has no .prototxt.", "Leave --prototxt out.")
    if form == "huggingface":
        if classes or mean or pixels:
            raise RunError("A model folder has all of its own.", "Leave the other options out.")
        folder = model_folder.fetch(source)
        run = model_folder.to_run(folder, out)
        converted = tell_conversion(list_safetensors(folder / model_folder.WEIGHTS).values())
        return Import(run, form, ("model folder of alexnet", *converted))
    imported = read_weights_file(path, form, prototxt)
    if pixels is not None:
        imported = with_pixels(imported, pixels)
    names = read_classes(classes, imported.spec.num_classes) if classes else imported.classes
    image = read_mean(mean) if mean else imported.mean_image
    found = imported.found
    if image is None and imported.mean is not None:
        image, found = np.array(imported.mean.values, np.float32), (*found, imported.mean.origin)
    with bounds.explain_damage(path):
        spec, statistics = with_mean(imported.spec, image, imported.resize_to)
    config = RunConfig(
        spec=spec,
        recipe=replace(FAST, precision="fp32"),
        classes=names or tuple(f"class {number}" for number in range(spec.num_classes)),
        data=IMPORTED,
        data_fingerprint="",
        data_size=statistics.mean_image.shape[-1],
        made_with={
            **software_versions(),
            IMPORTED: f"{form}: {path.name}",
            "imported_sha256": sha256(path),
        },
    )
    run = Run.start(out, config, statistics, first=Checkpoint(0, imported.weights))
    return Import(run, form, found)


def read_weights_file(
    path: Path, form: WeightsFormat, prototxt: Path | None = None
) -> ImportedNetwork:
    """Read the network of a file, and make nothing of it yet."""
    if form == "huggingface":
        raise RunError(f"{str(path)!r} is no model folder.", "Name the folder or the repository.")
    readers: dict[str, Callable[[Path], ImportedNetwork]] = {
        "caffe": partial(read_caffemodel, prototxt=prototxt), "torchvision": read_state_dict,
        "safetensors": read_own_safetensors, "onnx": read_onnx, "cuda-convnet": read_checkpoint,
        "keras": read_keras, "tfjs": read_tfjs, "npy": read_npy,
    }  # fmt: skip
    with bounds.explain_damage(path):
        _peek(path, form)
        return readers[form](path)


def _peek(path: Path, form: WeightsFormat | None = None) -> bytes:
    """Return a file's first bytes, unless they say that it is certainly of another kind."""
    with path.open("rb") as file:
        start = file.read(PEEKED)
    if is_safetensors(path) or TFJS.match(start):  # begin with any number; with what JSON does
        return start
    if form in (None, "keras", "npy") and start.startswith((HDF5, NPY)):
        return start
    for pattern, what, fix in OTHER_FILES:
        if pattern.match(start):
            raise RunError(f"It is {what}.", fix)
    if start.startswith(ZIP):
        _refuse_other_zips(path)
    return start


def _refuse_other_zips(path: Path) -> None:
    """Name a zip that neither ``torch.save`` nor Keras wrote."""
    names = _list_zip(path)
    if WEIGHTS in names:
        return
    weights = [name for name in names if name.endswith((".pth", ".pt", ".caffemodel", ".onnx"))]
    save = "In Python: m = {}.load(file), then torch.save({}, 'weights.pth')."
    if "constants.pkl" in names:
        raise RunError("It is a TorchScript program.", save.format("torch.jit", "m.state_dict()"))
    if "archive_format" in names:
        fix = save.format("torch.export", "m.state_dict")
        raise RunError("It is a program of torch.export.", fix)
    if weights:
        raise RunError(f"It is a zip with {weights[0]!r} in it.", UNPACK)
    if "data.pkl" not in names:
        raise RunError("It is a zip, not of torch.save or cut short.", DOWNLOAD_AGAIN)


def _list_zip(path: Path) -> list[str]:
    """Return the names in a zip, without their folders."""
    with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        return [name.rpartition("/")[2] for name in archive.namelist()]
    return []


def with_pixels(imported: ImportedNetwork, name: str) -> ImportedNetwork:
    """Return a network that takes the pixels of a named one, where its file does not say.

    A mean image is the file's own, or the mean colour of ImageNet.
    """
    pixels = network_named(name).pixels
    mean = imported.mean
    if mean is not None and pixels.channel_order != imported.spec.pixels.channel_order:
        mean = replace(mean, values=mean.values[::-1])
    if isinstance(pixels.mean, tuple):
        mean = None
    elif mean is None:
        colour = IMAGENET_MEAN[::-1] if pixels.channel_order == "RGB" else IMAGENET_MEAN
        mean = MeanColour(colour, "mean colour of ImageNet, as no mean file was given")
    return replace(imported, spec=replace(imported.spec, pixels=pixels), mean=mean)


def with_mean(
    spec: Spec, mean: NDArray[np.float32] | None, resize_to: int | None = None
) -> tuple[Spec, Statistics]:
    """Return the spec that subtracts a mean, and the statistics that a run keeps of it.

    A mean image as large as the network's input is the window that it sees; the prepared images
    around it are larger. Nothing is known of the training set's colours: their axes are nought.
    """
    seen, pixels = spec.image_size, spec.pixels
    side = USUAL_SIDE if 192 < seen <= USUAL_SIDE - 16 else seen + seen // 8
    if resize_to and not seen <= resize_to <= bounds.MAX_SIDE:
        raise RunError(
            f"Its images are said to be prepared at {resize_to:,} pixels.",
            f"Expected {seen}, what the network takes, to {bounds.MAX_SIDE:,}.",
        )
    side = resize_to or side
    if mean is None:
        colour = np.array(pixels.mean if isinstance(pixels.mean, tuple) else (0, 0, 0), np.float32)
        return spec, Statistics.of_mean((colour / pixels.scale)[:, None, None], side)
    rgb = np.ascontiguousarray(mean[::-1] if pixels.channel_order == "BGR" else mean)
    if rgb.ndim == 1:
        red, green, blue = (float(value) * pixels.scale for value in rgb)
        coloured = replace(spec, pixels=replace(pixels, mean=(red, green, blue)))
        return coloured, Statistics.of_mean(rgb[:, None, None], side)
    given = rgb.shape[-1]
    if given < seen:
        raise RunError(
            f"The mean image has {given} pixels on a side and the network takes {seen}.",
            "Give the mean of the whole images, or a mean colour.",
        )
    if given < side and given == seen:
        wide = Statistics.of_mean(rgb.mean((1, 2), keepdims=True), side).mean_image
        at = (side - given) // 2
        wide[:, at : at + given, at : at + given] = rgb
        rgb, given = wide, side
    return replace(spec, pixels=replace(pixels, mean="image")), Statistics.of_mean(rgb, given)


def detect_format(path: Path) -> WeightsFormat:
    """Return what a file is, where its content leaves no doubt."""
    if path.is_dir():
        return "huggingface"
    with bounds.explain_damage(path):
        start = _peek(path)
        if is_safetensors(path):
            own = "spec" in bounds.read_safetensors_header(path).get("__metadata__", {})
            return "safetensors" if own else "torchvision"
    if start.startswith(HDF5) or (start.startswith(ZIP) and WEIGHTS in _list_zip(path)):
        return "keras"
    if start.startswith((ZIP, LEGACY)):
        return "torchvision"
    if start.startswith(NPY):
        return "npy"
    if TFJS.match(start):
        return "tfjs"
    if start[:1] == PICKLED and start[1:2] in b"\x02\x03\x04\x05":
        return "cuda-convnet"
    found = _detect_protobuf(start)
    if found is None:
        choices = ", ".join(FORMATS)
        raise RunError(f"What {str(path)!r} is cannot be seen.", f"Say it with --as: {choices}.")
    return found


def _detect_protobuf(start: bytes) -> WeightsFormat | None:
    """Tell Caffe from ONNX by the first fields' numbers; the last may go on after what was read."""
    varint, length = bounds.VARINT, bounds.LENGTH
    known: dict[WeightsFormat, set[tuple[int, int]]] = {
        "onnx": {
            (1, varint),
            (5, varint),
            *((number, length) for number in (2, 3, 4, 6, 7, 8, 14)),
        },
        "caffe": {(4, varint), *((number, length) for number in (1, 2, 3, 8, 100))},
    }
    fields: set[tuple[int, int]] = set()
    at = 0
    with contextlib.suppress(bounds.FormatError):
        while at < len(start):
            number, wire, _ = bounds.read_key(start, at, len(start))
            fields.add((number, wire))
            *_, at = bounds.next_field(start, at, len(start))
    fitting = [form for form, told in known.items() if fields and fields <= told]
    return fitting[0] if len(fitting) == 1 else None


def read_classes(path: Path, count: int) -> tuple[str, ...]:
    """Read names of classes in the order of the outputs, as `data.layouts.read_class_list` does.

    A line that begins with a wnid, as in Caffe's ``synset_words.txt``, is that wnid. The
    ``batches.meta`` of cuda-convnet has names, too.
    """
    with bounds.explain_damage(path):
        data = bounds.read_bytes(path, bounds.MAX_LIST)
        if data.startswith(PICKLED):
            lines = [_decode(name) for name in _read_meta(data).get("label_names", [])]
        else:
            lines = [line for line in parse_class_list(data.decode("utf-8-sig")) if line]
        firsts = [line.split()[0] for line in lines]
        names = tuple(a if WNID.fullmatch(a) else b for a, b in zip(firsts, lines, strict=True))
        if len(names) != count:
            raise RunError(
                f"It names {len(names)} classes and the network has {count}.",
                "One a line is right.",
            )
        if len(set(names)) < count:
            twice = next(name for name in names if names.count(name) > 1)
            raise RunError(f"It names {twice!r} twice.")
    return names


def _read_meta(data: bytes) -> dict[str, Any]:
    """Read cuda-convnet's pickle of what it knows of its data."""
    content = load_arrays(data)
    if not isinstance(content, dict):
        raise RunError("It is no batches.meta of cuda-convnet.")
    return {_decode(key): value for key, value in content.items()}


def _decode(value: Any) -> str:
    if not isinstance(value, str | bytes):
        raise RunError("It has names that are no text.", "Expected cuda-convnet's batches.meta.")
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def read_mean(path: Path) -> NDArray[np.float32]:
    """Read a mean image ``(3, side, side)`` or colour ``(3,)``.

    From Caffe's ``.binaryproto``, NumPy's ``.npy`` or cuda-convnet's ``batches.meta``.
    """
    with bounds.explain_damage(path):
        with path.open("rb") as file:
            start = file.read(len(NPY))
        if start == NPY:
            mean = _read_npy(path)
        elif start.startswith(PICKLED):
            flat = _read_meta(bounds.read_bytes(path, bounds.MAX_MEAN)).get("data_mean")
            if not isinstance(flat, np.ndarray) or flat.dtype.kind != "f":
                raise RunError("It has no data_mean.", "Expected cuda-convnet's batches.meta.")
            mean = np.asarray(flat, np.float32).reshape(3, math.isqrt(flat.size // 3), -1)
        else:
            mean = read_binaryproto(path)
        square = mean.ndim == 3 and mean.shape[1] == mean.shape[2]
        if mean.shape[:1] != (3,) or not (mean.ndim == 1 or square):
            raise RunError(f"It is an array of {mean.shape}.", "Expected (3, side, side) or (3,).")
        if not np.isfinite(mean).all():
            raise RunError("It has numbers that are not finite.")
    return mean


def _read_npy(path: Path) -> NDArray[np.float32]:
    """Read an array of a size that was looked at first; never an object."""
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    if values.dtype.kind not in "fiu" or values.size > 3 * bounds.MAX_SIDE**2:
        raise RunError(
            f"It is an array of {values.shape}, {values.dtype}.",
            "Expected numbers, (3, side, side).",
        )
    return np.array(values.reshape(-1) if values.ndim == 2 else values, np.float32)
