"""Runs of interleaved rounds, and what they come to."""

import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from alexnet import machine
from alexnet.bench.data_works import loader_work, prepare_work
from alexnet.bench.works import Setting, Work, infer_work, lrn_work, train_work
from alexnet.spec import Spec
from alexnet.version import __version__

WORKS = {
    "train": train_work,
    "infer": infer_work,
    "lrn": lrn_work,
    "prepare": prepare_work,
    "loader": loader_work,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One comparison. A ratio above 1 means that ours is ahead; limits count as peers."""

    work: str
    peer: str
    unit: str
    ours: float  # median
    theirs: float  # median
    ratio: float
    ours_spread: tuple[float, float]  # slowest and fastest round
    theirs_spread: tuple[float, float]


def measured(
    works: Iterable[str],
    spec: Spec,
    *,
    batch_size: int,
    rounds: int,
    threads: int | None,
    images: Path | None = None,
) -> dict[str, Any]:
    """Run benchmarks one after another; return the report that ``--json`` prints.

    `images` is a folder of photographs, for the works on data.
    """
    device = machine.best_device()
    used = machine.use_threads(threads)
    with tempfile.TemporaryDirectory() as scratch:
        kind = machine.chosen_type("auto", device)
        setting = Setting(spec, batch_size, device, kind, Path(scratch), images)
        subjects = {work: WORKS[work](setting) for work in works}
        # Memory once kept stays, and the peers would find it: those that must not go first.
        times = {work: interleaved(s.timed, rounds, device) for work, s in subjects.items()}
        machine.keep_freed_memory()
        for work, subject in subjects.items():
            times[work] |= interleaved(subject.timed_with_memory_kept, rounds, device)
    results = [
        compared(work, subject, peer, times[work])
        for work, subject in subjects.items()
        for peer in times[work]
        if peer != "ours"
    ]
    return {
        "results": [asdict(result) for result in results],
        "limits": limits(device),
        "machine": {
            "processor": machine.processor(),
            "threads": used,
            "device": str(device),
            "system": platform.platform(),
        },
        "versions": {
            "alexnet": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "network": spec.name,
        "batch_size": batch_size,
        "rounds": rounds,
    }


def compared(work: str, subject: Work, peer: str, times: Mapping[str, list[float]]) -> Result:
    """Return the comparison with one peer."""
    ours = [subject.amount / seconds for seconds in times["ours"]]
    theirs = [subject.amounts.get(peer, subject.amount) / seconds for seconds in times[peer]]
    return Result(
        work=work,
        peer=peer,
        unit=subject.unit,
        ours=statistics.median(ours),
        theirs=statistics.median(theirs),
        ratio=statistics.median(ours) / statistics.median(theirs),
        ours_spread=(min(ours), max(ours)),
        theirs_spread=(min(theirs), max(theirs)),
    )


def interleaved(
    timed: Mapping[str, Callable[[], None]], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Time each function once a round, in turn, so that a busy moment meets them all.

    Each runs once untimed before: what is measured is a step among steps, not the first one
    after another's.
    """
    times: dict[str, list[float]] = {name: [] for name in timed}
    for number in range(rounds + 1):  # the first round compiles and is not counted
        for name, call in timed.items():
            call()
            elapsed = seconds(call, device)
            if number:
                times[name].append(elapsed)
    return times


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Return how long a call takes, the device's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def limits(device: torch.device) -> dict[str, float]:
    """Measure what the machine can do at most: matrix products by type, and copying."""
    found = {}
    side = 8192 if device.type == "cuda" else 4096
    for name, kind in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
        times = [seconds(lambda: a @ b, device) for _ in range(5)]  # noqa: B023 -- used at once
        found[f"matmul_{name}_gflops"] = 2 * side**3 / statistics.median(times) / 1e9
    source = torch.ones(64 << 20, device=device)  # 256 MB
    target = torch.empty_like(source)
    times = [seconds(lambda: target.copy_(source), device) for _ in range(7)]
    found["copy_gb_per_s"] = 2 * source.nbytes / statistics.median(times[2:]) / 1e9
    return found


def as_text(report: Mapping[str, Any]) -> str:
    """Return a report as a table."""
    lines = [f"{'work':8} {'against':16} {'ours':>10} {'theirs':>10} {'ratio':>7}  unit"]
    for row in report["results"]:
        lines.append(
            f"{row['work']:8} {row['peer']:16} {row['ours']:10.1f} {row['theirs']:10.1f} "
            f"{row['ratio']:6.2f}x  {row['unit']}"
        )
    lines.append(", ".join(f"{name} {value:,.0f}" for name, value in report["limits"].items()))
    lines.append(", ".join(f"{k} {v}" for k, v in (report["machine"] | report["versions"]).items()))
    return "\n".join(lines)
