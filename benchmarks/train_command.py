"""What share of the bare step's rate the whole `train` command reaches on real photographs.

    python benchmarks/train_command.py DATA [--network N] [--batch 64] [--steps 10] [--rounds 12]

One `alexnet train DATA` in this process, whose loop is given in turn `--steps` batches as they come
from the data, and as many times the last of these again. With new batches a step's time is all that
passes from one to the next: waiting, decoding beside it, making pixels, the update, the log. With
the old one it is the update alone. A round is a turn of new batches between two of the old. The
first step of each turn is left out, since the loader is at work beside one of the old batch too; so
are the first twenty (compiling, filling the caches). Nothing is validated or saved in between.

A machine's speed changes by the minute, so a share is of one round: the median rate of its steps
against the mean of the turns before and after. Told are the median, the lowest and the highest, as
JSON.

DATA should be prepared (`alexnet prepare`), or it is prepared first, outside of what is timed.
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

from alexnet.bench.cases import dtype_name
from alexnet.bench.report import list_versions
from alexnet.cli.main import run
from alexnet.device import Device, describe_processor
from alexnet.training import fit
from alexnet.training.trainer import LocalBatch, Step

SKIPPED = 20  # steps before the first turn


@dataclass(slots=True)
class Lap:
    """When a step's batch was asked for and given, and when the update was made; seconds."""

    asked: float
    given: float = 0.0
    made: float = 0.0


def laps_of(data: str, network: str, batch: int, steps: int, rounds: int) -> list[Lap]:
    """Train, and return the laps of the turns, that of the old batch first and last."""
    laps: list[Lap] = []
    local_batches, train = fit.local_batches, fit.train

    def in_turn(*arguments: Any) -> Iterator[LocalBatch]:
        coming = local_batches(*arguments)
        for number in count(-SKIPPED):
            laps.append(Lap(time.perf_counter()))
            if number < 0 or number // steps % 2:
                batch = next(coming)
            laps[-1].given = time.perf_counter()
            yield batch

    def timed(*arguments: Any, **named: Any) -> Iterator[Step]:
        for step in train(*arguments, **named):
            laps[-1].made = time.perf_counter()
            yield step

    total = SKIPPED + (2 * rounds + 1) * steps + 1  # the last ends the lap before it
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        command = (
            *("train", data, "--out", str(Path(folder, "run")), "--network", network),
            *("--batch-size", str(batch), "--max-steps", str(total), "--epochs", "1000"),
            *("--checkpoint-every", str(10 * total), "--set", "validate_every=1000"),
            *("--set", "test_crops=1"),
        )
        with patch.multiple(fit, local_batches=in_turn, train=timed):
            if status := run(command):
                sys.exit(status)
    return laps[SKIPPED:]


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--network", default="single")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=12)
    asked = parser.parse_args()
    laps = laps_of(asked.data, asked.network, asked.batch, asked.steps, asked.rounds)
    rates = []
    for turn in range(2 * asked.rounds + 1):
        start = turn * asked.steps
        pairs = list(pairwise(laps[start : start + asked.steps + 1]))[1:]
        whole = [after.asked - lap.asked for lap, after in pairs]
        alone = [lap.made - lap.given for lap, _ in pairs]
        rates.append(asked.batch / statistics.median(whole if turn % 2 else alone))
    rounds = [
        {"command": command, "step_before": before, "step_after": after}
        for before, command, after in zip(rates[::2], rates[1::2], rates[2::2], strict=False)
    ]
    shares = [2 * one["command"] / (one["step_before"] + one["step_after"]) for one in rounds]
    print(
        json.dumps(
            {
                "share": statistics.median(shares),
                "share_spread": [min(shares), max(shares)],
                "unit": "images/s",
                "rounds": rounds,
                "network": asked.network,
                "batch": asked.batch,
                "steps": asked.steps,
                "type": dtype_name(Device.best().choose_dtype("auto")),
                "processor": describe_processor(),
                "device": Device.best().name,
                "versions": list_versions(),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
