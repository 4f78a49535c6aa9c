"""A run and the type of its products: what ``predict`` and ``evaluate`` have in common."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from alexnet.predictor import Predictor

Precision = Literal["auto", "fp32", "bf16", "int8"]


def model_at(run: Path, precision: Precision | None) -> "Predictor":
    """Load a run; for int8 onto the processor, its products still to be made int8."""
    import torch

    from alexnet.api import load

    if precision == "int8":
        return load(run, device=torch.device("cpu"))
    return load(run, precision=precision)
