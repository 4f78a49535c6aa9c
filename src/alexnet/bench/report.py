"""What the rounds come to: one comparison a peer, the machine's limits, versions and hardware."""

import contextlib
import importlib.metadata
import platform
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alexnet import device as devices
from alexnet.bench import roofline
from alexnet.bench.contender import MATMUL, Setting, Work
from alexnet.bench.data_works import loader_work, prepare_work
from alexnet.bench.limits import limits, matmul_name
from alexnet.bench.rounds import Child, Heat, Ready, heat
from alexnet.bench.works import infer_1_work, infer_int8_work, infer_work, lrn_work, train_work
from alexnet.spec import Spec
from alexnet.version import __version__

ROOFLINE = "roofline"
WORKS = {
    "train": train_work,
    "infer": infer_work,
    "infer-1": infer_1_work,
    "infer-int8": infer_int8_work,
    "lrn": lrn_work,
    "prepare": prepare_work,
    "loader": loader_work,
}
PACKAGES = ("torch", "onnxruntime", "openvino", "simplejpeg", "pillow")


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One comparison. A ratio above 1 means that ours is ahead; limits count as peers."""

    work: str
    peer: str
    unit: str
    ours: float  # median of the rounds
    theirs: float  # median
    ratio: float  # of the medians
    ours_spread: tuple[float, float]  # lowest and highest round
    theirs_spread: tuple[float, float]
    ratio_spread: tuple[float, float]  # of the ratios within a round
    note: str = ""


def measured(
    works: Sequence[str],
    spec: Spec,
    *,
    batch_size: int,
    rounds: int,
    threads: int | None,
    images: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Run benchmarks one after another; return the report that ``--json`` prints.

    Parameters
    ----------
    works
        Names of `WORKS`, or `ROOFLINE`.
    spec, batch_size
        The network, and images a call.
    rounds
        How often each contender is measured, 1 or more.
    threads
        Processor threads; None: PyTorch's choice.
    images
        A folder of photographs, for the works on data.
    say
        Told what is being done.

    Raises
    ------
    AlexNetError
        When a contender that is installed cannot run.
    """
    device = devices.best_device()
    used = devices.use_threads(threads)
    kind = devices.choose_dtype("auto", device)
    sheet = Sheet()
    with tempfile.TemporaryDirectory() as scratch:
        setting = Setting(
            spec=spec, batch_size=batch_size, device=device, kind=kind, scratch=Path(scratch),
            images=images, threads=threads,
        )  # fmt: skip
        subjects = {name: WORKS[name](setting) for name in works if name != ROOFLINE}
        with contextlib.closing(Child(limits(setting), setting)) as always:
            sheet.add_missing("limits", always.ready)
            for name, work in subjects.items():
                say(f"{name}: {', '.join(one.name for one in work.contenders)}")
                alone = [[contender] for contender in work.contenders]
                sheet.add(name, work, heat(alone, work.setting, always, rounds))
            if ROOFLINE in works:
                say(f"{ROOFLINE}: every layer by itself")
                run = heat([roofline.contenders(spec)], setting, always, rounds)
                sheet.add_roofline(roofline.lines(setting, run), run)
    return {
        **sheet.told(),
        "machine": {
            "processor": devices.processor(),
            "threads": used,
            "device": devices.device_name(device),
            "type": str(kind).removeprefix("torch."),
            "system": platform.platform(),
        },
        "versions": versions(),
        "network": spec.name,
        "batch_size": batch_size,
        "rounds": rounds,
    }


class Sheet:
    """What has been measured so far."""

    def __init__(self) -> None:
        self._results: list[Result] = []
        self._missing: list[dict[str, str]] = []
        self._limits: dict[str, list[float]] = {}
        self._lines: list[roofline.Line] = []

    def add(self, name: str, work: Work, run: Heat) -> None:
        """Compare ours with every peer of a work."""
        self._count_limits(run)
        self.add_missing(name, run.ready)
        here = [one.name for one in work.contenders if one.name in run.times]
        values = {one: work.values(run.times[one], run.ready.amounts[one]) for one in here}
        if work.gflop:
            rates = run.rates(matmul_name(work.setting.kind))
            values[MATMUL] = [rate / work.gflop for rate in rates]
        ours = values.pop("ours")
        for peer, theirs in values.items():
            note = run.ready.notes.get(peer, "")
            self._results.append(compared(name, work, peer, ours, theirs, note))

    def add_missing(self, name: str, ready: Ready) -> None:
        """Take the names of those contenders of a work that did not run, and why."""
        for peer, why in ready.missing.items():
            self._missing.append({"work": name, "peer": peer, "why": why})

    def add_roofline(self, lines: list[roofline.Line], run: Heat) -> None:
        """Take the lines of the roofline."""
        self._count_limits(run)
        self._lines = lines

    def _count_limits(self, run: Heat) -> None:
        for name in run.always:
            self._limits.setdefault(name, []).extend(run.rates(name))

    def told(self) -> dict[str, Any]:
        """Return the parts of the report that were measured."""
        return {
            "results": [asdict(one) for one in self._results],
            "missing": self._missing,
            "limits": {name: statistics.median(rates) for name, rates in self._limits.items()},
            "limits_spread": {name: spread(rates) for name, rates in self._limits.items()},
            **({"roofline": [asdict(one) for one in self._lines]} if self._lines else {}),
        }


def compared(
    name: str, work: Work, peer: str, ours: Sequence[float], theirs: Sequence[float], note: str
) -> Result:
    """Return the comparison with one peer, of a value of each in every round."""
    ahead = work.ahead
    return Result(
        work=name,
        peer=peer,
        unit=work.unit,
        ours=statistics.median(ours),
        theirs=statistics.median(theirs),
        ratio=ahead(statistics.median(ours), statistics.median(theirs)),
        ours_spread=spread(ours),
        theirs_spread=spread(theirs),
        ratio_spread=spread(list(map(ahead, ours, theirs))),
        note=note,
    )


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Return the lowest and the highest."""
    return min(values), max(values)


def versions() -> dict[str, str]:
    """Return the versions of everything that a number may depend on and that is installed."""
    found = {"alexnet": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def as_text(report: Mapping[str, Any]) -> str:
    """Return a report as a table; a spread is the lowest and highest of the rounds."""
    lines = []
    if report["results"]:
        lines.append(
            f"{'work':8} {'against':20} {'ours':>9} {'theirs':>9} {'ratio':>7} {'spread':>13}  unit"
        )
    for row in report["results"]:
        low, high = row["ratio_spread"]
        note = f" ({row['note']})" if row["note"] else ""
        lines.append(
            f"{row['work']:8} {row['peer']:20} {row['ours']:9.2f} {row['theirs']:9.2f} "
            f"{row['ratio']:6.2f}x {low:6.2f}-{high:<6.2f}  {row['unit']}{note}"
        )
    if "roofline" in report:
        lines.append(roofline.as_text(report["roofline"]))
    lines += [f"{row['work']}: no {row['peer']}. {row['why']}" for row in report["missing"]]
    lines.append(", ".join(f"{name} {value:,.0f}" for name, value in report["limits"].items()))
    lines.append(", ".join(f"{k} {v}" for k, v in (report["machine"] | report["versions"]).items()))
    return "\n".join(lines)
