"""A file of weights from anywhere -> a run's folder that every command takes."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from alexnet.errors import RunError
from alexnet.interop import hub, model_folder
from alexnet.interop.caffe import IMAGENET_MEAN, read_caffemodel
from alexnet.interop.companions import read_classes, read_mean
from alexnet.interop.cuda_convnet import read_checkpoint
from alexnet.interop.imported import Imported, MeanColour, identity, refused, start_run
from alexnet.interop.onnx_import import read_onnx
from alexnet.interop.protobuf import LENGTH, FormatError, top_fields
from alexnet.interop.state_dicts import (
    is_safetensors,
    is_torch,
    read_own_safetensors,
    read_state_dict,
)
from alexnet.training.run import Run
from alexnet.variants import network_named

Form = Literal["caffe", "torchvision", "onnx", "cuda-convnet", "safetensors", "huggingface"]
FORMS: tuple[Form, ...] = get_args(Form)
PEEKED = 4096  # bytes of a file that tell what it is


@dataclass(frozen=True, slots=True)
class Import:
    """A run made of a foreign file, and what that was found to be."""

    run: Run
    form: Form
    found: tuple[str, ...]  # in words


def import_file(
    source: str | Path,
    out: str | Path,
    *,
    form: Form | None = None,
    classes: Path | None = None,
    mean: Path | None = None,
    prototxt: Path | None = None,
    pixels: str | None = None,
) -> Import:
    """Make a run's folder of a file of weights.

    Parameters
    ----------
    source : str or Path
        A file; a model folder; or, with ``form="huggingface"``, a repository ``user/name``.
    out : str or Path
        The run's folder.
    form : str, optional
        One of `FORMS`; by default what the file is seen to be.
    classes : Path, optional
        A text with one class a line, in the order of the outputs.
    mean : Path, optional
        A ``.binaryproto`` or ``.npy`` with a mean image or colour of 0-255, its channels in the
        network's order.
    prototxt : Path, optional
        caffe: the layers, where those in the file should not count.
    pixels : str, optional
        A named network whose pixels it takes, where the file does not say or is wrong.

    Raises
    ------
    RunError
        When a file is damaged or holds another network, with what was expected.
    MissingExtraError
        For a repository, without the extra ``hub``.
    """
    out = Path(out)
    if (out / "config.json").exists():
        raise RunError(f"{str(out)!r} is already a run.", "Choose another --out.")
    form = form or form_of(Path(source))
    if prototxt is not None and form != "caffe":
        raise RunError(f"A file of {form} has no .prototxt.", "Leave --prototxt out.")
    if form == "huggingface":
        if classes or mean or pixels:
            raise RunError("A model folder has all of its own.", "Leave the other options out.")
        run = model_folder.to_run(hub.located(source), out)
        return Import(run, form, ("model folder of alexnet",))
    path = Path(source)
    imported = replace(read_file(path, form, prototxt), notes=identity(path))
    if pixels is not None:
        imported = with_pixels(imported, pixels)
    names = read_classes(classes, imported.spec.num_classes) if classes else None
    given = read_mean(mean) if mean else None
    run = start_run(imported, out, str(source), form, classes=names, mean=given)
    found = imported.found
    if imported.mean and imported.mean_image is None and given is None:
        found = (*found, imported.mean.origin)
    return Import(run, form, found)


def read_file(path: Path, form: Form, prototxt: Path | None = None) -> Imported:
    """Read the network of a file, and make nothing of it yet.

    Raises
    ------
    RunError
        When the file is damaged or holds another network, with what was expected.
    """
    if form == "huggingface":
        raise RunError(f"{str(path)!r} is no model folder.", "Name the folder or the repository.")
    with refused(path):
        if form == "caffe":
            return read_caffemodel(path, prototxt)
        if form == "torchvision":
            return read_state_dict(path)
        if form == "safetensors":
            return read_own_safetensors(path)
        if form == "onnx":
            return read_onnx(path)
        return read_checkpoint(path)


def with_pixels(imported: Imported, name: str) -> Imported:
    """Return a network that takes the pixels of a named one, where its file does not say.

    A mean image is the file's own, or the mean colour of ImageNet.

    Raises
    ------
    ConfigError
        When no network has the name.
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


def form_of(path: Path) -> Form:
    """Return what a file is, where its content leaves no doubt.

    Raises
    ------
    RunError
        When it may be several things, or none that is known.
    """
    choices = ", ".join(FORMS)
    if path.is_dir():
        return "huggingface"
    with refused(path), path.open("rb") as file:
        start = file.read(PEEKED)
        held = is_safetensors(path)
    if is_torch(start, path):
        return "torchvision"
    if held:
        return "safetensors" if b'"spec"' in start else "torchvision"
    if start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05":
        return "cuda-convnet"
    found = _protobuf(start)
    if found is None:
        raise RunError(f"What {str(path)!r} is cannot be seen.", f"Say it with --as: {choices}.")
    return found


def _protobuf(start: bytes) -> Form | None:
    """Tell Caffe from ONNX by the numbers of the first fields, as far as they are whole."""
    fields = []
    try:
        for number, wire in top_fields(start):
            fields.append((number, wire))
    except FormatError:
        pass
    if not fields:
        return None
    known: dict[Form, set[tuple[int, int]]] = {
        "onnx": {(1, 0), (2, LENGTH), (3, LENGTH), (4, LENGTH), (5, 0), (6, LENGTH), (7, LENGTH),
                 (8, LENGTH), (14, LENGTH)},
        "caffe": {(1, LENGTH), (2, LENGTH), (3, LENGTH), (4, 0), (8, LENGTH), (100, LENGTH)},
    }  # fmt: skip
    fitting = [form for form, told in known.items() if set(fields) <= told]
    return fitting[0] if len(fitting) == 1 else None
