"""A trained network for other programs: ONNX and ``torch.export``, checked before a file is kept.

One module holds preprocessing, network and probabilities. What is written of it is run beside the
network on the same images, and appears only if the two agree.
"""

import base64
import contextlib
import io
import json
import logging
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet import __version__
from alexnet.data.augment import iter_crops
from alexnet.data.loader import evaluation_batches
from alexnet.data.shards import open_prepared
from alexnet.errors import AlexNetError, DataError, MissingExtraError
from alexnet.files import atomic_write
from alexnet.interop import Runtime, WeightType
from alexnet.interop.portable import (
    FASTEST,
    WRITTEN_OPSET,
    declare_portable,
    insert_stored,
    make_portable,
    store_weights,
    with_stored_weights,
)
from alexnet.layers import LocalResponseNorm
from alexnet.predictor import Predictor
from alexnet.spec import LRN

InputKind = Literal["pixels", "images"]
PIXELS, IMAGES = "pixels", "images"
LOGITS, PROBABILITIES = "logits", "probabilities"
OPSET = 23  # the newest that PyTorch's exporter vouches for; ONNX Runtime reads it from 1.23 on
METADATA = "alexnet.json"  # the entry of a program's archive that says what it takes
BATCHES = (1, 2, 7, 64)

# Two programs add the same float32 terms in another order. A sum of n = 9216 terms, fc6's, is off
# by about sqrt(n) * 2**-24 = 6e-6 of its size; eight layers of that stay below the limits. A wrong
# constant, crop or order of channels does not: the tests plant each.
LOGITS_WITHIN = 1e-4  # of the image's largest logit
PROBABILITIES_WITHIN = 1e-5
TIE = 1e-5  # of the largest logit: classes nearer than this may change places

Runner = Callable[[Tensor], tuple[Tensor, Tensor]]  # a batch to logits and probabilities


class Deployed(nn.Module):
    """Pixels or images in, ``(N, classes)`` logits and probabilities out, one crop an image.

    Parameters
    ----------
    model : Predictor
        On the processor.
    kind : str
        ``"pixels"`` takes what the network takes: ``(N, 3, image, image)`` float32 after
        preprocessing. ``"images"`` takes ``(N, resize_to, resize_to, 3)`` uint8 RGB.
    """

    def __init__(self, model: Predictor, kind: InputKind) -> None:
        super().__init__()
        self.size = model.spec.image_size
        self.normalise = model.normalise if kind == IMAGES else None
        self.network = nn.Sequential(OrderedDict(model.network.named_children()))
        self.eval()

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and their softmax."""
        if self.normalise is not None:
            input = self.normalise(next(iter_crops(input, self.size, 1)))
        logits = self.network(input)
        return logits, logits.softmax(1)


def input_shape(model: Predictor, kind: InputKind) -> tuple[int, int, int]:
    """Return the shape of one image that `Deployed` of the same arguments takes."""
    if kind == IMAGES:
        return model.resize_to, model.resize_to, 3
    return model.spec.in_channels, model.spec.image_size, model.spec.image_size


def make_example(model: Predictor, kind: InputKind) -> Tensor:
    """Return a batch of two to trace with: a batch of one would be frozen into the graph."""
    dtype = torch.uint8 if kind == IMAGES else torch.float32
    return torch.zeros(2, *input_shape(model, kind), dtype=dtype)


def describe_preprocessing(model: Predictor, *, with_mean_image: bool = False) -> dict[str, Any]:
    """Describe in plain numbers what happens to an image before the network sees it.

    With `with_mean_image` a mean that is an image is given in full, as base64 of little-endian
    float32; else its mean colour stands for it.
    """
    normalise = model.normalise
    mean: dict[str, Any] = {"colour": normalise.mean.mean((0, 2, 3)).tolist()}
    if normalise.mean.shape[-1] > 1:
        mean["shape"] = list(normalise.mean.shape[1:])
        if with_mean_image:
            raw = normalise.mean.cpu().contiguous().numpy().astype("<f4").tobytes()
            mean["float32_base64"] = base64.b64encode(raw).decode()
    return {
        "resize": f"shorter side to {model.resize_to}, centre square of {model.resize_to}",
        "prepared": model.resize_to,
        "crop": model.spec.image_size,
        "values": "0-255 RGB",
        "formula": "(value * scale - mean) / stdev, then the channels in their order",
        "scale": normalise.scale,
        "mean": mean,  # after scaling, RGB
        "stdev": normalise.stdev.flatten().tolist(),
        "channels": "BGR" if normalise.bgr else "RGB",
        "layout": "NCHW",
    }


def describe_model(model: Predictor, kind: InputKind) -> dict[str, Any]:
    """Return what a reader of an exported file must know, for its metadata."""
    dtype = "uint8" if kind == IMAGES else "float32"
    return {
        "alexnet_version": __version__,
        "network": model.spec.name,
        "step": model.step,
        "classes": list(model.classes),
        "input": f"{kind}: {dtype} (N, {', '.join(map(str, input_shape(model, kind)))})",
        "preprocessing_inside": kind == IMAGES,
        "preprocessing": describe_preprocessing(model, with_mean_image=kind == PIXELS),
    }


@dataclass(frozen=True, slots=True)
class Parity:
    """How far an exported network is from its original, on the same images side by side."""

    images: int
    source: str  # of the images
    batches: tuple[int, ...]  # sizes they were given in
    logits: float  # largest difference, as a share of the image's largest logit
    probabilities: float  # largest difference
    top5: int  # images with the same five first classes in the same order, ties aside

    @property
    def holds(self) -> bool:
        """Whether the two are the same network, within what float32 allows."""
        return (
            self.logits <= LOGITS_WITHIN
            and self.probabilities <= PROBABILITIES_WITHIN
            and self.top5 == self.images
        )


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """What was written, and how far it is from the network."""

    path: Path
    bytes: int
    parity: Parity


@dataclass(frozen=True, slots=True)
class OnnxFile(ExportedFile):
    """An ONNX file that was written."""

    opset: int
    nodes: int


def sample_images(model: Predictor, data: str, count: int) -> tuple[Tensor, str]:
    """Return ``(N, resize_to, resize_to, 3)`` uint8 images to compare on, and where they are from.

    The run's held-out photographs where its prepared data is still there; else soft coloured
    shapes, the same on every machine.
    """
    try:
        prepared = open_prepared(Path(data))
        if prepared.manifest.size == model.resize_to:
            batch = next(evaluation_batches(prepared.held_out, count))
            return batch.images, f"held-out images of {prepared.manifest.name}"
    except (DataError, StopIteration):
        pass
    return generate_images(model.resize_to, count), "generated images"


def generate_images(side: int, count: int) -> Tensor:
    """Return `count` images of soft coloured shapes, ``(count, side, side, 3)`` uint8."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 8, 8, generator=generator) * 255
    smooth = F.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 255)
    return smooth.permute(0, 2, 3, 1).to(torch.uint8).contiguous()


@torch.inference_mode()
def measure_parity(
    model: Predictor,
    run: Runner,
    kind: InputKind,
    images: Tensor,
    source: str,
    batches: tuple[int, ...] = BATCHES,
) -> Parity:
    """Run the network and its exported form on the same images and compare them.

    The network gets its pixels from the project's own preprocessing, whatever `kind` of input
    `run` takes. `images` are ``(N, resize_to, resize_to, 3)`` uint8, given in batches of each size
    in turn until none is left; `source` says in the report where they are from.
    """
    logits = probabilities = 0.0
    start = same = 0
    for size in cycle(batches):
        batch = images[start : start + size]
        if not len(batch):
            break
        start += size
        pixels = model.in_float32.centre_crops(batch)
        wanted = model.network(pixels)
        found, chances = run(batch if kind == IMAGES else pixels)
        largest = wanted.abs().amax(1).clamp(min=1e-6)  # (N,)
        off = ((found - wanted).abs().amax(1) / largest).nan_to_num(nan=torch.inf)
        apart = (chances - wanted.softmax(1)).abs().nan_to_num(nan=torch.inf)
        logits = max(logits, off.max().item())
        probabilities = max(probabilities, apart.max().item())
        best = wanted.topk(min(5, wanted.shape[1])).values
        chosen = wanted.gather(1, found.topk(best.shape[1]).indices)  # what the original gives them
        same += int(((best - chosen).abs() <= TIE * largest[:, None]).all(1).sum())
    return Parity(len(images), source, batches, logits, probabilities, same)


def require_parity(parity: Parity, what: str) -> None:
    """Refuse an exported form that is not the network, with what was measured and is allowed."""
    if not parity.holds:
        raise AlexNetError(
            f"The {what} is not the network: on {parity.images} images its logits are off by "
            f"{parity.logits:.1e} of the largest (at most {LOGITS_WITHIN:.0e}), its probabilities "
            f"by {parity.probabilities:.1e} (at most {PROBABILITIES_WITHIN:.0e}), and "
            f"{parity.top5} name the same five classes. No file was kept.",
            "Try another version of torch or onnxruntime, and report it: it is a defect.",
        )


def export_program(
    model: Predictor, path: Path, images: Tensor, source: str, *, kind: InputKind = "pixels"
) -> ExportedFile:
    """Write a network as a ``.pt2`` program for any batch size, read back and compared.

    Arguments are those of `export_onnx`. Read it with ``torch.export.load(path)``;
    ``.module()(input)`` returns logits and probabilities.

    Raises
    ------
    AlexNetError
        When the program computes something else, with the difference; no file is left.
    """
    batch = {0: torch.export.Dim("batch", min=1)}
    with torch.no_grad():
        exported = torch.export.export(
            Deployed(model, kind), (make_example(model, kind),), dynamic_shapes=(batch,)
        )
    content = io.BytesIO()  # a path would have to end in .pt2
    torch.export.save(
        exported, content, extra_files={METADATA: json.dumps(describe_model(model, kind))}
    )
    with atomic_write(path) as temporary:
        temporary.write_bytes(content.getbuffer())
        read = torch.export.load(io.BytesIO(temporary.read_bytes())).module()
        parity = measure_parity(model, read, kind, images, source)
        require_parity(parity, "program")
    return ExportedFile(path, path.stat().st_size, parity)


def export_onnx(
    model: Predictor,
    path: Path,
    images: Tensor,
    source: str,
    *,
    kind: InputKind = "pixels",
    portable_for: Runtime | None = None,
    weights: WeightType = "float32",
) -> OnnxFile:
    """Write a network as one ONNX file that ONNX Runtime was seen to run alike.

    Parameters
    ----------
    model : Predictor
        A trained network on the processor.
    path : Path
        The file; it appears only if the check holds.
    images, source
        What to check it on: ``(N, resize_to, resize_to, 3)`` uint8, and where they are from.
    kind : str
        ``"pixels"``: the network alone, input ``pixels``, float32 ``(N, 3, image, image)``.
        ``"images"``: preprocessing inside, input ``images``, uint8, as `images` above.
        Outputs of both: ``logits`` and ``probabilities``, float32 ``(N, classes)``.
    portable_for : str | None
        Write LRN as operators that every reader has, in the form that is fastest in this one, pools
        without rounding up, and an older opset.
    weights : str
        What weights are stored as. Readers compute in float32 all the same; with rounded weights
        the file is compared with the network that has them.

    Raises
    ------
    MissingExtraError
        Without the extra ``export``.
    AlexNetError
        When ONNX Runtime computes something else, with the difference; no file is left.
    """
    _import_onnxruntime()
    stored = store_weights(model.network, weights)
    model = with_stored_weights(model, stored)
    proto = build_onnx(model, kind, portable_for)
    insert_stored(proto.graph, stored)
    with atomic_write(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())
        parity = measure_parity(model, run_onnx(temporary, kind), kind, images, source)
        require_parity(parity, "ONNX file")
    opset = proto.opset_import[0].version
    return OnnxFile(path, path.stat().st_size, parity, opset, len(proto.graph.node))


def build_onnx(model: Predictor, kind: InputKind, portable_for: Runtime | None = None) -> Any:
    """Return the ``onnx.ModelProto`` of a network, any batch size, metadata in it."""
    deployed = Deployed(model, kind)
    if portable_for is None:
        with_native_norms(deployed)
    else:
        make_portable(deployed.network, FASTEST[portable_for])
    with _silence_exporter():
        program = torch.onnx.export(
            deployed,
            (make_example(model, kind),),
            dynamo=True,
            opset_version=OPSET if portable_for is None else WRITTEN_OPSET,
            input_names=[kind],
            output_names=[LOGITS, PROBABILITIES],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    for node in proto.graph.node:  # stack traces of the exporter: paths of this machine
        node.ClearField("metadata_props")
    if portable_for is not None:
        declare_portable(proto)
    for key, value in {**describe_model(model, kind), "spec": asdict(model.spec)}.items():
        proto.metadata_props.add(
            key=key, value=value if isinstance(value, str) else json.dumps(value)
        )
    return proto


@contextlib.contextmanager
def _silence_exporter() -> Iterator[None]:
    """Keep back what PyTorch's exporter says about itself and about packages nobody asked for."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.setLevel(level)


def with_native_norms(module: Deployed) -> Deployed:
    """Put ONNX's operator in the place of every local response normalisation that it can be."""
    for name, layer in module.network.named_children():
        if isinstance(layer, LocalResponseNorm) and layer.norm.size % 2:
            module.network.set_submodule(name, OnnxLRN(layer.norm, layer.groups))
    return module


class OnnxLRN(nn.Module):
    """`LocalResponseNorm` as ONNX's own operator, for which readers have fast kernels; not run.

    In two towers there is one for each half of the maps. The two agree for odd windows. An even
    one reaches further to the left here and to the right there, and ONNX Runtime has none, so
    those are exported as the convolution that they are.
    """

    def __init__(self, norm: LRN, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.attributes: dict[str, Any] = {
            "size": norm.size,
            "alpha": float(norm.alpha),
            "beta": float(norm.beta),
            "bias": float(norm.k),
        }

    def forward(self, x: Tensor) -> Tensor:
        """Emit one operator a tower for ``(N, C, H, W)``."""
        parts = [
            torch.onnx.ops.symbolic(
                "LRN", (part,), self.attributes, dtype=x.dtype, shape=part.shape
            )
            for part in (x.chunk(self.groups, 1) if self.groups > 1 else (x,))
        ]
        return torch.cat(parts, 1) if self.groups > 1 else parts[0]


def run_onnx(path: Path, kind: InputKind) -> Runner:
    """Return ONNX Runtime on the processor with a file loaded."""
    onnxruntime = _import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # its own classes share no base
        raise AlexNetError(
            f"ONNX Runtime {onnxruntime.__version__} refuses the file ({error}).",
            "A newer one reads it: pip install --upgrade onnxruntime",
        ) from None

    def run(batch: Tensor) -> tuple[Tensor, Tensor]:
        fed = {kind: batch.contiguous().numpy()}
        logits, probabilities = session.run([LOGITS, PROBABILITIES], fed)
        return torch.from_numpy(logits), torch.from_numpy(probabilities)

    return run


def _import_onnxruntime() -> Any:
    """Return the package; without one of the extra ``export`` there is a sentence."""
    try:
        import onnx  # noqa: F401 -- PyTorch's exporter asks for these later, in words of its own
        import onnxruntime
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "export", "Writing ONNX") from None
    return onnxruntime
