"""What the rounds come to: one comparison a peer, the machine's limits, versions, a table, bars."""

import contextlib
import importlib.metadata
import math
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from alexnet import __version__
from alexnet.bench import roofline
from alexnet.bench.cases import (
    MATMUL,
    BenchSettings,
    CaseProcess,
    Measurements,
    Suite,
    dtype_name,
    list_limit_cases,
    matmul_name,
    run_rounds,
)
from alexnet.bench.data_suites import make_loader_suite, make_prepare_suite
from alexnet.bench.network_suites import (
    make_infer_1_suite,
    make_infer_int8_suite,
    make_infer_suite,
    make_lrn_suite,
    make_train_suite,
)
from alexnet.device import Device, describe_processor, use_threads
from alexnet.files import atomic_write
from alexnet.spec import Spec

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOFLINE = "roofline"
SUITES = {
    "train": make_train_suite,
    "infer": make_infer_suite,
    "infer-1": make_infer_1_suite,
    "infer-int8": make_infer_int8_suite,
    "lrn": make_lrn_suite,
    "prepare": make_prepare_suite,
    "loader": make_loader_suite,
}
PACKAGES = ("torch", "onnxruntime", "openvino", "simplejpeg", "pillow")
WIDTH = 8.0  # inches of a plot
BAR, HEAD = 0.26, 0.55  # inches of height: of a bar, and of a suite's title and axis
TITLES = {
    "train": "Training steps",
    "infer": "Inference on a batch",
    "infer-1": "Inference on one image",
    "infer-int8": "Inference in int8",
    "lrn": "Normalisation after conv1",
    "prepare": "Preparing photographs",
    "loader": "Loading batches",
}
LIMITS = (MATMUL, "copy", "decode+resize", "libjpeg-turbo")  # peers that no network can pass


def run_benchmarks(
    works: Sequence[str],
    spec: Spec,
    *,
    batch_size: int,
    rounds: int,
    threads: int | None,
    images: Path | None = None,
    budget: float = math.inf,
    report_progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Run `works`, of `SUITES` or `ROOFLINE`, one after another; return the report of ``--json``.

    ``results`` has one row a peer: work, peer, unit, the medians of the rounds (ours, theirs), the
    ratio of these, above 1 where ours is ahead, and the lowest and highest round of each.
    ``missing`` names what did not run, and why. A case that is installed and cannot run raises an
    `AlexNetError`. What has been measured when it is interrupted is returned, with ``interrupted``
    true.

    `images` is a folder of photographs, for the suites on data. `budget`, in seconds, is shared
    equally among the suites: fewer rounds are run where they do not fit, one at least.
    `report_progress` is called with a line on what is measured next, and with the rows of what was.
    """
    deadline = time.monotonic() + budget
    device, used = Device.best(), use_threads(threads)
    results: list[dict[str, Any]] = []
    missing: list[dict[str, str]] = []
    limits: dict[str, list[float]] = {}
    lines: list[roofline.Line] = []
    interrupted = False

    def add_limits(measured: Measurements) -> None:
        for name in limits_process.made.amounts:
            limits.setdefault(name, []).extend(measured.rates(name))

    def add_missing(work: str, measured: Measurements) -> None:
        missing.extend(
            {"work": work, "peer": peer, "why": why} for peer, why in measured.missing.items()
        )

    with contextlib.ExitStack() as stack:
        settings = BenchSettings(
            spec=spec,
            batch_size=batch_size,
            device=device,
            dtype=device.choose_dtype("auto"),
            scratch=Path(stack.enter_context(tempfile.TemporaryDirectory())),
            images=images,
            threads=threads,
        )
        suites = {name: SUITES[name](settings) for name in works if name != ROOFLINE}
        limits_process = CaseProcess(list_limit_cases(settings), settings)
        stack.enter_context(contextlib.closing(limits_process))
        add_missing("limits", limits_process.made)
        try:
            for done, name in enumerate(works):
                now = time.monotonic()
                until = now + (deadline - now) / (len(works) - done)
                if name == ROOFLINE:
                    report_progress(f"{ROOFLINE}: every layer by itself")
                    together = [roofline.list_cases(spec)]
                    measured = run_rounds(together, settings, limits_process, rounds, until)
                    lines = roofline.make_lines(settings, measured)
                else:
                    suite = suites[name]
                    report_progress(f"{name}: {', '.join(case.name for case in suite.cases)}")
                    alone = [[case] for case in suite.cases]
                    measured = run_rounds(alone, suite.settings, limits_process, rounds, until)
                    rows = compare_with_peers(name, suite, measured)
                    report_progress("\n".join(map(format_row, rows)))
                    results += rows
                add_missing(name, measured)
                add_limits(measured)
                if interrupted := measured.interrupted:
                    break
        except KeyboardInterrupt:
            interrupted = True
    return {
        "results": results,
        "missing": missing,
        "limits": {name: median(rates) for name, rates in limits.items()},
        "limits_spread": {name: _spread(rates) for name, rates in limits.items()},
        **({"roofline": [asdict(line) for line in lines]} if lines else {}),
        "machine": {
            "processor": describe_processor(),
            "threads": used,
            "device": device.name,
            "type": dtype_name(settings.dtype),
            "system": platform.platform(),
        },
        "versions": list_versions(),
        "network": spec.name,
        "batch_size": batch_size,
        "rounds": rounds,
        "interrupted": interrupted,
    }


def compare_with_peers(name: str, suite: Suite, measured: Measurements) -> list[dict[str, Any]]:
    """Return a row for each peer of a suite that ran; limits count as peers."""
    ran = [case.name for case in suite.cases if case.name in measured.times]
    values = {peer: suite.to_unit(measured.times[peer], measured.amounts[peer]) for peer in ran}
    if suite.gflop:
        rates = measured.rates(matmul_name(suite.settings.dtype))
        values[MATMUL] = [rate / suite.gflop for rate in rates]
    ours = values.pop("ours")
    return [
        {
            "work": name,
            "peer": peer,
            "unit": suite.unit,
            "ours": median(ours),
            "theirs": median(theirs),
            "ratio": suite.ratio(median(ours), median(theirs)),
            "ours_spread": _spread(ours),
            "theirs_spread": _spread(theirs),
            "ratio_spread": _spread(list(map(suite.ratio, ours, theirs))),  # within a round
            "note": measured.notes.get(peer, ""),
        }
        for peer, theirs in values.items()
    ]


def _spread(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def list_versions() -> dict[str, str]:
    """Return the versions of everything that a number may depend on and that is installed."""
    found = {"alexnet": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def format_report(report: Mapping[str, Any]) -> str:
    """Return a report as a table; a spread is the lowest and highest of the rounds."""
    lines = []
    if report["results"]:
        lines.append(
            f"{'work':8} {'against':20} {'ours':>9} {'theirs':>9} {'ratio':>7} {'spread':>13}  unit"
        )
    for row in report["results"]:
        lines.append(format_row(row))
    if "roofline" in report:
        lines.append(roofline.format_lines(report["roofline"]))
    lines += [f"{row['work']}: no {row['peer']}. {row['why']}" for row in report["missing"]]
    lines.append(", ".join(f"{name} {value:,.0f}" for name, value in report["limits"].items()))
    lines.append(", ".join(f"{k} {v}" for k, v in (report["machine"] | report["versions"]).items()))
    return "\n".join(lines)


def format_row(row: Mapping[str, Any]) -> str:
    """Return a comparison as a line of the table."""
    low, high = row["ratio_spread"]
    note = f" ({row['note']})" if row["note"] else ""
    return (
        f"{row['work']:8} {row['peer']:20} {row['ours']:9.2f} {row['theirs']:9.2f} "
        f"{row['ratio']:6.2f}x {low:6.2f}-{high:<6.2f}  {row['unit']}{note}"
    )


def draw_report(report: Mapping[str, Any], path: Path) -> None:
    """Draw the comparisons as bars, whole or not at all; .png or .svg as the path says.

    One row of axes a suite, ours in red, spreads as whiskers.
    """
    from alexnet.figures.style import INK, drawing_style, new_figure

    suites = [(name, list(rows)) for name, rows in groupby(report["results"], lambda r: r["work"])]
    heights = [HEAD + BAR * (len(rows) + 1) for _, rows in suites]
    with drawing_style():
        figure = new_figure(WIDTH, sum(heights) + 0.3)
        grid = figure.subplots(len(suites), 1, height_ratios=heights, squeeze=False)
        for axes, (name, rows) in zip(grid[:, 0], suites, strict=True):
            draw_bars(axes, name, rows)
        about = report["machine"]
        figure.supxlabel(
            f"{report['network']}, batch {report['batch_size']}, {about['threads']} threads, "
            f"{about['processor']}; medians of {report['rounds']} rounds, lowest to highest",
            fontsize=7.5,
            color=INK,
        )
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], dpi=150)


def draw_bars(axes: "Axes", name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw a suite: ours on top, then every peer with how many times its speed ours is."""
    from alexnet.figures.style import FAINT, INK, OTHER, RIGHT

    bars = [("ours", rows[0]["ours"], rows[0]["ours_spread"], RIGHT, "")]
    for row in rows:
        colour = FAINT if row["peer"] in LIMITS else OTHER
        ratio = f"   ours: {row['ratio']:.2f}x"
        bars.append((row["peer"], row["theirs"], row["theirs_spread"], colour, ratio))
    names, values, spreads, colours, _ = zip(*bars, strict=True)
    places = range(len(bars))
    errors = [
        [value - low for value, (low, _) in zip(values, spreads, strict=True)],
        [high - value for value, (_, high) in zip(values, spreads, strict=True)],
    ]
    axes.barh(places, values, color=colours, height=0.72)
    axes.errorbar(values, places, xerr=errors, fmt="none", ecolor=INK, elinewidth=0.9, capsize=2.5)
    for place, (_, value, spread, _, ratio) in zip(places, bars, strict=True):
        text = f" {value:,.{0 if value >= 100 else 1}f}{ratio}"
        axes.text(max(value, spread[1]), place, text, va="center", fontsize=8, color=INK)
    axes.set_yticks(places, names, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.2, y=0.02)
    axes.set_xlim(left=0)
    unit = rows[0]["unit"]
    lower = ", lower is better" if unit == "ms" else ""
    axes.set_title(f"{TITLES.get(name, name)} ({unit}{lower})", loc="left", fontsize=9.5)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=7.5)
