"""``torch.export``: the network as a program that PyTorch runs without this package."""

import io
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from alexnet.files import atomic_write
from alexnet.interop.deployment import Deployed, InputKind, description, example
from alexnet.interop.parity import Parity, measure, require
from alexnet.predictor import Predictor

METADATA = "alexnet.json"  # the entry of the archive that says what the program takes


@dataclass(frozen=True, slots=True)
class ProgramFile:
    """What was written, and how far it is from the network."""

    path: Path
    bytes: int
    parity: Parity


def export_program(
    model: Predictor, path: Path, images: Tensor, source: str, *, kind: InputKind = "pixels"
) -> ProgramFile:
    """Write a network as a ``.pt2`` program for any batch size, read back and compared.

    Arguments are those of `onnx_export.export_onnx`. Read it with ``torch.export.load(path)``;
    ``.module()(input)`` returns logits and probabilities.

    Raises
    ------
    AlexNetError
        When the program computes something else, with the difference; no file is left.
    """
    batch = {0: torch.export.Dim("batch", min=1)}
    with torch.no_grad():
        exported = torch.export.export(
            Deployed(model, kind), (example(model, kind),), dynamic_shapes=(batch,)
        )
    content = io.BytesIO()  # a path would have to end in .pt2
    torch.export.save(
        exported, content, extra_files={METADATA: json.dumps(description(model, kind))}
    )
    with atomic_write(path) as temporary:
        temporary.write_bytes(content.getbuffer())
        with temporary.open("rb") as file:
            read = torch.export.load(io.BytesIO(file.read())).module()
        parity = measure(model, read, kind, images, source)
        require(parity, "program")
    return ProgramFile(path, path.stat().st_size, parity)
