"""ONNX: one file with graph, weights and what a reader must know, checked before it is kept.

Local response normalisation is ONNX's own operator, which readers have fast kernels for; in two
towers there is one for each half of the maps.
"""

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.errors import AlexNetError, MissingExtraError
from alexnet.files import atomic_write
from alexnet.interop.deployment import (
    LOGITS,
    PROBABILITIES,
    Deployed,
    InputKind,
    description,
    example,
    input_of,
)
from alexnet.interop.parity import Parity, Runner, measure, require
from alexnet.layers import LocalResponseNorm
from alexnet.predictor import Predictor
from alexnet.spec import LRN

OPSET = 23  # the newest that PyTorch's exporter vouches for; ONNX Runtime reads it from 1.23 on


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """What was written, and how far it is from the network."""

    path: Path
    bytes: int
    opset: int
    nodes: int
    parity: Parity


def export_onnx(
    model: Predictor, path: Path, images: Tensor, source: str, *, kind: InputKind = "pixels"
) -> OnnxFile:
    """Write a network as one ONNX file that ONNX Runtime was seen to run alike.

    Parameters
    ----------
    model : Predictor
        A trained network on the processor.
    path : Path
        The file; it appears only if the check holds.
    images, source
        What to check it on: ``(N, prepared, prepared, 3)`` uint8, and where they are from.
    kind : str
        ``"pixels"``: the network alone, input ``pixels``, float32 ``(N, 3, image, image)``.
        ``"images"``: preprocessing inside, input ``images``, uint8 ``(N, prepared, prepared, 3)``.
        Outputs of both: ``logits`` and ``probabilities``, float32 ``(N, classes)``.

    Raises
    ------
    MissingExtraError
        Without the extra ``export``.
    AlexNetError
        When ONNX Runtime computes something else, with the difference; no file is left.
    """
    with needed():
        import onnxscript  # noqa: F401 -- torch's exporter asks for it later, in words of its own

        proto = graph(model, kind)
    with atomic_write(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())
        parity = measure(model, runner(temporary, kind), kind, images, source)
        require(parity, "ONNX file")
    return OnnxFile(path, path.stat().st_size, OPSET, len(proto.graph.node), parity)


def graph(model: Predictor, kind: InputKind) -> Any:
    """Return the ``onnx.ModelProto`` of a network, any batch size, metadata in it."""
    name = input_of(model, kind).name
    with _quiet():
        program = torch.onnx.export(
            with_native_norms(Deployed(model, kind)),
            (example(model, kind),),
            dynamo=True,
            opset_version=OPSET,
            input_names=[name],
            output_names=[LOGITS, PROBABILITIES],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    for key, value in description(model, kind).items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
    return proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what PyTorch's exporter says about itself and about packages nobody asked for."""
    said = logging.getLogger("torch.onnx")
    level = said.level
    said.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        said.setLevel(level)


def with_native_norms(module: Deployed) -> Deployed:
    """Put ONNX's operator in the place of every local response normalisation that it can be."""
    for name, layer in module.network.named_children():
        if isinstance(layer, LocalResponseNorm) and layer.norm.size % 2:
            module.network.set_submodule(name, NativeNorm(layer.norm, layer.groups))
    return module


class NativeNorm(nn.Module):
    """`LocalResponseNorm` as ONNX's LRN; it can be exported, not run.

    The two agree for odd windows. An even one reaches further to the left here and to the right
    there, and ONNX Runtime has none, so those are exported as the convolution that they are.
    """

    def __init__(self, norm: LRN, groups: int) -> None:
        super().__init__()
        self.norm, self.groups = norm, groups

    def forward(self, x: Tensor) -> Tensor:
        """Emit one operator a tower for ``(N, C, H, W)``."""
        parts = [self._emitted(part) for part in x.chunk(self.groups, 1)]
        return torch.cat(parts, 1) if self.groups > 1 else parts[0]

    def _emitted(self, x: Tensor) -> Tensor:
        norm = self.norm
        constants: dict[str, float] = {
            "alpha": float(norm.alpha),
            "beta": float(norm.beta),
            "bias": float(norm.k),
        }
        attributes: dict[str, Any] = {"size": norm.size, **constants}
        return torch.onnx.ops.symbolic("LRN", (x,), attributes, dtype=x.dtype, shape=x.shape)


def runner(path: Path, kind: InputKind) -> Runner:
    """Return ONNX Runtime on the processor with a file loaded.

    Raises
    ------
    MissingExtraError
        Without the extra ``export``.
    AlexNetError
        When ONNX Runtime refuses the file.
    """
    with needed():
        import onnxruntime
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


@contextlib.contextmanager
def needed() -> Iterator[None]:
    """Turn a missing package of the extra ``export`` into a sentence."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("onnx", "onnxscript", "onnxruntime"):
            raise MissingExtraError(str(error.name), "export", "Writing ONNX") from None
        raise
