"""A run's measurements, followed as they are written: what was read once is not read again."""

import os
import time
from collections import deque
from itertools import count
from typing import Any

from alexnet.serve.responses import RunCurves
from alexnet.training.run import Run, parse_metrics

MAX_LINES = 4_000  # in an answer: longer runs are thinned
MAX_ANSWERS = 64  # that are kept until the run goes on
LIVE_SECONDS = 120  # since a run's last line; longer than a validation takes


class Curves:
    """The lines of ``metrics.jsonl``: the last ones, and of those before every n-th.

    So the memory of a run of any length is bounded. Validations (lines with ``val_top1``) are all
    kept. One thread at a time may ask.
    """

    def __init__(self, run: Run) -> None:
        self._path, self._epochs = run.folder / "metrics.jsonl", run.config.recipe.epochs
        self._forget()

    def render(self, after: int = -1) -> bytes:
        """Return the lines past a step, and where the run stands: a `RunCurves` as JSON."""
        self._read()
        key = (after, self._is_live())
        if key not in self._answers:
            if len(self._answers) == MAX_ANSWERS:
                self._answers.clear()
            self._answers[key] = self._select(*key).model_dump_json().encode()
        return self._answers[key]

    def _forget(self) -> None:
        self._inode, self._offset = 0, 0
        self._kept: list[dict[str, Any]] = []  # of the whole run
        self._recent: deque[bytes] = deque(maxlen=MAX_LINES)  # as they were written
        self._every, self._count, self._thinnable = 1, 0, 0
        self._answers: dict[tuple[int, bool], bytes] = {}

    def _read(self) -> None:
        """Take the lines that were written since the last time; all where the file is another."""
        if not self._path.is_file():
            self._forget()
            return
        with self._path.open("rb") as file:
            found = os.fstat(file.fileno())
            if found.st_ino != self._inode or found.st_size < self._offset:
                self._forget()
                self._inode = found.st_ino
            file.seek(self._offset)
            for text in file:
                if not text.endswith(b"\n"):  # it is being written
                    break
                self._offset += len(text)
                self._add(text)

    def _add(self, text: bytes) -> None:
        """Take a line; it is parsed where it is kept, which most of a long run's are not."""
        self._answers.clear()
        self._recent.append(text)
        is_test = b'"val_top1"' in text
        self._count += not is_test
        if not is_test and self._count % self._every:
            return
        if (line := parse_metrics(text)) is not None:
            self._kept.append(line)
            self._thinnable += not is_test
        if self._thinnable > 2 * MAX_LINES:
            self._every *= 2
            number = count()
            self._kept = [x for x in self._kept if "val_top1" in x or next(number) % 2]
            self._thinnable //= 2

    def _select(self, after: int, live: bool) -> RunCurves:
        """Return the lines past a step, thinned where they are many.

        A validation of the very step `after` is among them, since it is written later than the
        step's other line.
        """
        recent = [line for line in map(parse_metrics, self._recent) if line is not None]
        tested = [line for line in self._kept if "val_top1" in line]
        speeds = [x["images_per_second"] for x in recent if "images_per_second" in x]
        reach_back = recent and recent[0]["step"] <= after
        new = [
            line
            for line in (recent if reach_back else self._kept)
            if line["step"] > after or (line["step"] == after and "val_top1" in line)
        ]
        every = -(-len(new) // MAX_LINES) or 1
        return RunCurves(
            lines=[x for n, x in enumerate(new) if n % every == 0 or "val_top1" in x],
            step=recent[-1]["step"] if recent else 0,
            epochs=self._epochs,
            best=max(tested, key=lambda line: line["val_top1"] or 0, default=None),
            images_per_second=speeds[-1] if speeds else None,
            live=live,
        )

    def _is_live(self) -> bool:
        """Whether the run seems to be training: not yet tested, its metrics have just grown."""
        if self._path.with_name("test.json").is_file() or not self._path.is_file():
            return False
        return time.time() - self._path.stat().st_mtime < LIVE_SECONDS
