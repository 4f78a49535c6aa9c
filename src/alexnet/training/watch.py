"""What a training keeps an eye on: damaged images, waiting for them, its speed, its losses."""

import math
import statistics
import time
from collections import deque
from collections.abc import Iterator

from alexnet.data.loader import Batch
from alexnet.errors import TrainingError
from alexnet.training.events import Notice
from alexnet.training.history import History

FEW = 20  # losses, below which none can be called unusual


class Damage:
    """The training images that turned out damaged."""

    def __init__(self, most: float) -> None:
        self._most = most
        self._found: dict[int, str] = {}
        self._told = 0

    def count(self, batch: Batch) -> None:
        """Take note of a batch's damaged images.

        Raises
        ------
        TrainingError
            When there are more than may be.
        """
        for one in batch.corrupt:
            self._found.setdefault(one.index, f"{one.name} is damaged: {one.reason}")
        if len(self._found) > self._most:
            raise TrainingError(
                f"{len(self._found)} training images are damaged, more than --set max_corrupt "
                f"allows; the last: {list(self._found.values())[-1]}",
                "alexnet prepare --verify names all damage; prepare the data again.",
            )

    def news(self) -> Iterator[Notice]:
        """Yield what has been found since it was last asked for."""
        for text in list(self._found.values())[self._told :]:
            self._told += 1
            yield Notice(f"{text} Another image takes its place ({self._told} so far).", own=True)


class Waits:
    """How long the training waits for its images."""

    def __init__(self) -> None:
        self._waited = 0.0
        self._begun: float | None = None

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Pass batches on; count the time until each is there, but for the first one's."""
        while True:
            asked = time.perf_counter()
            batch = next(batches)
            got = time.perf_counter()
            if self._begun is None:
                self._begun = got
            else:
                self._waited += got - asked
            yield batch

    def share(self) -> float:
        """Return the waiting's share of the time since the first batch, 0 to 1."""
        if self._begun is None:
            return 0.0
        return self._waited / (time.perf_counter() - self._begun)


class Stopwatch:
    """Images a second, over the last few steps."""

    def __init__(self) -> None:
        self._laps: deque[float] = deque(maxlen=20)
        self.restart()

    def restart(self) -> None:
        """Forget the time since the last lap, which was spent on something else."""
        self._last = time.perf_counter()

    def lap(self, images: int) -> float:
        """Count a step of `images`; return the rate."""
        now = time.perf_counter()
        self._laps.append((now - self._last) / images)
        self._last = now
        return len(self._laps) / sum(self._laps)


def judged(history: History, spike: float | None, loss: float) -> str:
    """Return what is wrong with a loss, or nothing, and remember it.

    Parameters
    ----------
    history : History
        Of the losses before; a good one is added.
    spike : float | None
        A loss so many times their median is wrong; ``None``: none is too large.
    loss : float
        Of the batch.
    """
    if not math.isfinite(loss):
        return f"is {loss}"
    if spike and len(history.losses) >= FEW:
        usual = statistics.median(history.losses)
        if loss > spike * usual:
            return f"is {loss:.3g}, more than {spike:g} times its usual {usual:.3g},"
    history.losses.append(loss)
    history.refused = 0
    return ""
