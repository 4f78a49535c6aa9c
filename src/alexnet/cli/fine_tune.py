"""What ``alexnet train --from`` begins with."""

from pathlib import Path
from typing import TYPE_CHECKING

from alexnet.errors import ConfigError, DataError, RunError

if TYPE_CHECKING:
    from alexnet.training.run import Pretrained, RunConfig


def starting_point(
    start: Path | None, network: str | None, out: Path | None, old: "RunConfig | None"
) -> "Pretrained | None":
    """Return the weights to begin with; none where they are drawn, or the run has its own copy.

    Raises
    ------
    ConfigError
        When a network is named as well.
    RunError
        When `start` is neither a run nor a model folder, or is damaged.
    """
    from alexnet.training.checkpoint import checkpoint_folders

    if start is None:
        return None
    if network:
        raise ConfigError(
            "--network and --from both say what the network is.", "Leave out --network."
        )
    same = bool(old and old.initial_weights and old.initial_weights.path == str(start.resolve()))
    if same and out and checkpoint_folders(out / "checkpoints"):
        return None
    return pretrained(start)


def pretrained(folder: Path) -> "Pretrained":
    """Open a run, or a model folder, to begin with its weights."""
    from alexnet.interop.model_folder import WEIGHTS, read
    from alexnet.training.run import Pretrained, Run

    if not folder.is_dir():
        raise RunError(
            f"There is no folder {str(folder)!r} to begin from.", "Name a run or a model folder."
        )
    if not (folder / WEIGHTS).is_file():
        return Pretrained.from_run(Run.open(folder))
    found = read(folder)
    file = folder / WEIGHTS
    return Pretrained.from_folder(folder, file, found.config, found.checkpoint, found.statistics)


def check_same_size(size: int, source: "Pretrained") -> None:
    """See that images have the size that the network's mean image is of."""
    wanted = source.config.data_size
    if size != wanted:
        raise DataError(
            f"The data was prepared at {size} pixels, and that of {source.origin.path!r} at "
            f"{wanted}.",
            f"Prepare it with --size {wanted}, or name the source itself.",
        )
