"""``alexnet bench``."""

import json as json_format
import math
import os
import sys
from pathlib import Path

from alexnet.cli.common import Json, Threads, parse_duration, require_counts
from alexnet.errors import ConfigError, did_you_mean

WORKS = ("train", "infer", "infer-1", "infer-int8", "lrn", "prepare", "loader", "roofline")
NEED_IMAGES = ("prepare", "loader")
ASKED_FOR = ("infer-int8", "roofline")


def bench(
    *works: str,
    network: str = "single",
    batch_size: int = 64,
    rounds: int = 5,
    budget: str | None = None,
    images: Path | None = None,
    threads: Threads = None,
    plot: Path | None = None,
    json: Json = False,
) -> int:
    """Measure this machine's speed side by side with the usual ways to run the same network.

    Example: `alexnet bench train infer`

    Parameters
    ----------
    works
        train, infer, infer-1 (one image), infer-int8, lrn, prepare, loader, roofline (each layer
        by itself); by default all but infer-int8 and roofline, and prepare and loader only with
        --images.
    network
        The network to run.
    batch_size
        Images a step.
    rounds
        Interleaved measurements of each; the median is reported, with the spread.
    budget
        Take about so long at most, with fewer rounds: 8m. Results show as they come, and what there
        is when it is interrupted is kept.
    images
        A folder of photographs, JPEG files, for prepare and loader.
    plot
        Also draw the comparisons into this file, .png or .svg.
    """
    for work in works:
        if work not in WORKS:
            raise ConfigError(f"No benchmark is called {work!r}.", did_you_mean(work, WORKS))

    require_counts(batch_size=batch_size, rounds=rounds)
    chosen = works or [
        work for work in WORKS if work not in ASKED_FOR and (images or work not in NEED_IMAGES)
    ]
    if plot:
        _check(plot, chosen)

    from alexnet.bench.report import draw_report, format_report, run_benchmarks
    from alexnet.variants import network_named

    report = run_benchmarks(
        chosen,
        network_named(network),
        batch_size=batch_size,
        rounds=rounds,
        threads=threads,
        images=images,
        budget=parse_duration(budget) if budget else math.inf,
        report_progress=lambda text: print(text, file=sys.stderr),
    )
    if plot and report["results"]:
        draw_report(report, plot)
    print(json_format.dumps(report) if json else format_report(report))
    return 130 if report["interrupted"] else 0


def _check(plot: Path, works: "list[str] | tuple[str, ...]") -> None:
    """See that a plot can be drawn before minutes are spent on what it shows."""
    if plot.suffix not in (".png", ".svg"):
        raise ConfigError(f"--plot is {str(plot)!r}.", "Name a .png or .svg file.")
    if plot.is_dir() or not plot.parent.is_dir() or not os.access(plot.parent, os.W_OK):
        raise ConfigError(f"{str(plot)!r} cannot be written.", "Name a file in a folder of yours.")
    if all(work in ASKED_FOR for work in works):
        raise ConfigError("roofline is a table.", "Leave --plot out, or name other works too.")

    from alexnet.figures.style import drawing_style

    with drawing_style():
        pass
