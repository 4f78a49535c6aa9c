"""A run's curves for TensorBoard, where it is installed."""

from pathlib import Path
from typing import Any, Self


class Board:
    """Writes scalars into a run's folder; without TensorBoard installed it writes nothing."""

    def __init__(self, folder: Path, done: int) -> None:
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        # Points after `done` are of steps that a stopped run is about to take again.
        self._writer = SummaryWriter(str(folder), purge_step=done + 1)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def add(self, step: int, **numbers: float) -> None:
        """Add a point to each curve."""
        if self._writer is not None:
            for name, number in numbers.items():
                self._writer.add_scalar(name, number, step)
