"""A run's curves for the page, read anew at every request: the run may still be training."""

import time
from typing import Any

from alexnet.training.run import Run

MAX_LINES = 4_000  # in an answer: longer runs are thinned
LIVE_SECONDS = 120  # since the last line; longer than a validation takes


def curves(run: Run, after: int) -> dict[str, Any]:
    """Return the lines of ``metrics.jsonl`` past a step, and where the run stands.

    Validations (lines with ``val_top1``) are all kept; of the other lines, where there are more
    than `MAX_LINES`, every n-th. A validation of the very step `after` is among them, since it is
    written later than the step's other line.
    """
    lines = run.metrics()
    tested = [line for line in lines if "val_top1" in line]
    speeds = [line["images_per_second"] for line in lines if "images_per_second" in line]
    new = [x for x in lines if x["step"] > after or (x["step"] == after and "val_top1" in x)]
    every = -(-len(new) // MAX_LINES) or 1
    return {
        "lines": [x for n, x in enumerate(new) if n % every == 0 or "val_top1" in x],
        "step": int(lines[-1]["step"]) if lines else 0,
        "epochs": run.config.recipe.epochs,
        "best": max(tested, key=lambda line: line["val_top1"], default=None),
        "images_per_second": speeds[-1] if speeds else None,
        "live": is_live(run),
    }


def is_live(run: Run) -> bool:
    """Whether the run seems to be training: not yet tested, and its metrics have just grown."""
    metrics = run.folder / "metrics.jsonl"
    if (run.folder / "test.json").is_file() or not metrics.is_file():
        return False
    return time.time() - metrics.stat().st_mtime < LIVE_SECONDS
