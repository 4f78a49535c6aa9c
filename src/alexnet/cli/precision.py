"""A run and the type of its products: what ``predict`` and ``evaluate`` have in common."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from alexnet.data.shards import PreparedData
    from alexnet.prediction import Model

Precision = Literal["auto", "fp32", "bf16", "int8"]


def model_at(run: Path, precision: Precision | None) -> "Model":
    """Load a run; for int8 onto the processor, its products still to be made int8."""
    import torch

    from alexnet.prediction import load

    if precision == "int8":
        return load(run, device=torch.device("cpu"))
    return load(run, precision=precision)


def data_for(run: Path, model: "Model", named: str | None) -> "PreparedData":
    """Open the data that were named, or else the run's own, at the size of its images."""
    from alexnet.cli.evaluate import data_of
    from alexnet.data.cache import ready
    from alexnet.data.options import Options
    from alexnet.training.run import Run

    config = Run.open(run).config
    return ready(
        data_of(config, named),
        Options(size=model.prepared),
        seed=config.recipe.seed,
        say=lambda text: print(text, file=sys.stderr),
    )
