"""The data that a command looks at with a run: those that were named, or the run's own."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet.errors import DataError

if TYPE_CHECKING:
    from alexnet.data.shards import PreparedData
    from alexnet.predictor import Predictor


def data_for(run: Path, model: "Predictor", named: str | None) -> "PreparedData":
    """Open the data that were named, or else the run's own, at the size of the run's images.

    Raises
    ------
    DataError
        When none were named and the run was imported: it has none.
    """
    from alexnet.data.prepare import Options, open_or_prepare
    from alexnet.training.run import Run

    config = Run.open(run).config
    origin = config.made_with.get("imported")
    if named is None and origin:
        raise DataError(
            f"The run was imported ({origin}) and has no data of its own.",
            "Name some: a prepared data set, a folder of classes, or a built-in name.",
        )
    return open_or_prepare(
        named or config.data,
        Options(size=model.resize_to),
        seed=config.recipe.seed,
        say=lambda text: print(text, file=sys.stderr),
    )
