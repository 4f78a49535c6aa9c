"""``alexnet claims``."""

import json as json_format
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alexnet.cli.common import parse_duration, require_counts
from alexnet.errors import ConfigError

if TYPE_CHECKING:
    from alexnet.claims.claim import Check, Claim, RunResult
    from alexnet.claims.grid import Cost, GridConfig
    from alexnet.claims.report import Finding
    from alexnet.claims.scales import Scale
    from alexnet.cli.console import Console
    from alexnet.data.shards import PreparedData

Say = Callable[[str], None]


def claims(
    *names: str,
    data: str | None = None,
    scale: Literal["small", "night", "cifar", "imagenet", "imagenette"] = "small",
    seeds: int | None = None,
    epochs_factor: float = 1.0,
    budget: str | None = None,
    out: Path = Path("claims"),
    workers: int | None = None,
    threads: int | None = None,
    cluster: str | None = None,
    note: list[str] | None = None,
    list: bool = False,
    dry_run: bool = False,
    report_only: bool = False,
    json: bool = False,
) -> int:
    """Run the paper's claims as experiments and say, with statistics, which of them hold.

    Example: `alexnet claims relu dropout --budget 30m`, or `alexnet claims --list`

    Each claim compares two networks or trainings that differ in one thing, with several seeds. Run
    the same command again to go on after it was stopped or killed; other claims into the same
    --out use what is there. The results are `results.jsonl`, `report.html` and `report.md`.

    Parameters
    ----------
    names
        relu, lrn, lrn-confounded, lrn-order, lrn-span, lrn-alpha, overlap, dropout, augment, pca,
        pca-eigenvalues, pca-copied, depth, towers, init, alive, counts, dropout-identity; by
        default all. augment also asks its networks of several seeds together.
    data
        A prepared data set, or any source that `alexnet prepare` takes. cifar10 by default, which
        is downloaded, and imagenette at that scale; the scale imagenet has no default.
    scale
        small (default): a part of CIFAR-10, narrow networks, an hour or so on two cores. night: a
        quarter of it, learned by heart, in a night. cifar: CIFAR-10 at the schedules of 2012.
        imagenet: the full network, as run in 2012. imagenette: `single`, on some ten thousand
        photographs.
    seeds
        Runs of each arm. small, imagenet, imagenette: 3; cifar: 5; night: 5, and up to 22 where the
        seeds differ by more.
    epochs_factor
        Train every run so many times as long as the scale says, 0.1 to 100: whether an effect is
        missing because the training was short.
    budget
        Take as many seeds, and if need be as large a part of the epochs, as are expected to fit
        into so long: 30m, 2h.
    out
        The folder of the results.
    workers
        Runs at once, each in a process of its own; by default the processors over the threads.
    threads
        Processor threads of each run. By default 1, or all where there is a GPU.
    cluster
        Address of a Dask scheduler whose workers make the runs; they must see the same files.
    note
        A paragraph for the report, such as what is particular about the data. Repeatable.
    list
        Print the claims of the scale, what is varied and how they are judged; run nothing.
    dry_run
        Measure this machine's speed, print the expected cost, run nothing.
    report_only
        Train nothing; write the report of the runs that are there, which another command may be
        adding to. Give what it was given: names, --scale, --seeds, --epochs-factor, --budget.
    json
        Print one JSON object and nothing else.
    """
    from alexnet.claims.claim import FILE, Check, Claim
    from alexnet.claims.experiments import make_claims_and_checks, select_claims
    from alexnet.claims.grid import recall_budget
    from alexnet.claims.report import judge_claim, write_report
    from alexnet.claims.scales import find_scale

    require_counts(seeds=seeds, workers=workers, most=1000)
    within = parse_duration(budget) if budget else None  # refused before images are prepared
    check_together(out / FILE, seeds, epochs_factor, within, dry_run, report_only)
    asked = find_scale(scale)
    wanted = select_claims(make_claims_and_checks(asked), names)
    if seeds or epochs_factor != 1:
        wanted = change_runs(wanted, seeds, epochs_factor)
    if list:
        print(
            json_format.dumps({"claims": describe_claims(wanted)}) if json else format_list(wanted)
        )
        return 0
    notes = [*(note or [])]
    results: Sequence[RunResult] = ()
    costs: Sequence[tuple[str, Cost]] = ()
    trained = [claim for claim in wanted if isinstance(claim, Claim)]
    if trained:
        with open_grid(trained, asked, data, out, workers, threads, cluster, json) as config:
            if dry_run:
                _, costs = plan_claims(trained, within, config, by_claim=True)
            else:
                done, results = answer_claims(trained, within, config, report_only=report_only)
                together = ask_networks_together(done, results, config)
                wanted = (*replace_by_name(wanted, done), *together)
                if within and (chosen := recall_budget(trained, within, config)):
                    seeds, epochs_factor = chosen
                notes.insert(0, describe_setting(asked, config, epochs_factor))
    if dry_run:
        if json:
            print(json_format.dumps(list_costs(costs)))
        elif not trained:
            print("Nothing to train: what was named is computed.")
        return 0
    out.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["alexnet", "claims", *list_flags(data, scale, seeds, epochs_factor, out)])
    findings = [judge_claim(claim, results) for claim in wanted if isinstance(claim, Claim)]
    made = [claim for claim in wanted if isinstance(claim, Check)]
    print(
        json_format.dumps(list_findings(findings, made)) if json else format_table(findings, made),
        flush=True,  # before the report, which may fail where the runs did not
    )
    page, _ = write_report(wanted, results, out, command=command, notes=notes)
    if not json:
        print(f"report: {page}")
    return 0


def change_runs(
    wanted: "Sequence[Claim | Check]", seeds: int | None, epochs_factor: float
) -> "tuple[Claim | Check, ...]":
    """Return claims with as many seeds, and as long runs, as are asked for."""
    from dataclasses import replace

    from alexnet.claims.claim import Check
    from alexnet.claims.grid import scale_epochs

    def change(one: "Claim | Check") -> "Claim | Check":
        if isinstance(one, Check):
            return one
        (longer,) = scale_epochs([one], epochs_factor) if epochs_factor != 1 else (one,)
        return replace(longer, seeds=seeds or one.seeds)

    return tuple(map(change, wanted))


def _on_standard_error(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def list_flags(
    data: str | None,
    scale: str,
    seeds: int | None,
    epochs_factor: float,
    out: Path,
) -> list[str]:
    """Return the flags that repeat a command, but for the names of claims."""
    factor = f"{epochs_factor:g}" if epochs_factor != 1 else None
    given = {
        "--data": data,
        "--seeds": seeds,
        "--epochs-factor": factor,
        "--out": out,
    }
    words = ["--scale", scale]
    for flag, value in given.items():
        words += [flag, str(value)] if value is not None else []
    return words


def check_together(
    file: Path,
    seeds: int | None,
    epochs_factor: float,
    within: float | None,
    dry_run: bool,
    report_only: bool,
) -> None:
    """Raise `ConfigError` where what was asked for does not go together."""
    if not 0.1 <= epochs_factor <= 100:
        raise ConfigError(
            f"{epochs_factor:g} times the epochs cannot be trained.", "Give 0.1 to 100."
        )
    if within and (seeds or epochs_factor != 1):
        raise ConfigError(
            "A budget chooses the seeds and the epochs itself.",
            "Leave out --seeds and --epochs-factor.",
        )
    if report_only and dry_run:
        raise ConfigError("With --report-only nothing is planned.", "Leave out --dry-run.")
    if report_only and not file.is_file():
        raise ConfigError(
            f"{str(file.parent)!r} has no {file.name}.", "Give the --out that the runs went to."
        )


@contextmanager
def open_grid(
    wanted: "Sequence[Claim]",
    scale: "Scale",
    data: str | None,
    out: Path,
    workers: int | None,
    threads: int | None,
    cluster: str | None,
    quiet: bool,
) -> "Iterator[GridConfig]":
    """Prepare the images, and yield with what the runs are made."""
    from alexnet.claims.report import find_missing_library
    from alexnet.cli.console import Console
    from alexnet.cli.prepare import connect_cluster

    with Console() as console, connect_cluster(cluster) as executor:
        say = _on_standard_error if quiet else console.say
        if missing := find_missing_library():
            say(f"{missing} The runs need none of it.")
        prepared = prepare_images(wanted, scale, data, console, say)
        yield make_grid_config(prepared, out, workers, threads, executor, console, say)


def prepare_images(
    wanted: "Sequence[Claim]",
    scale: "Scale",
    data: str | None,
    console: "Console",
    say: Say,
) -> "tuple[PreparedData, PreparedData | None]":
    """Prepare the scale's images, and all of the source where a claim wants them."""
    from dataclasses import replace

    from alexnet.claims.grid import open_images

    where = data or scale.data
    if where is None:
        raise ConfigError(
            f"The claims at scale {scale.name!r} have no data of their own.",
            "Name them: --data DIR, a prepared data set or any source of photographs.",
        )
    shown: dict[str, Any] = {"say": say, "report": console.prepared, "fetched": console.fetched}
    part = open_images(scale, where, **shown)
    if scale.num_images is None or not any(claim.all_images for claim in wanted):
        return part, None
    return part, open_images(replace(scale, num_images=None), where, **shown)


def make_grid_config(
    prepared: "tuple[PreparedData, PreparedData | None]",
    out: Path,
    workers: int | None,
    threads: int | None,
    executor: Any,
    console: "Console",
    say: Say,
) -> "GridConfig":
    """Gather how the runs are made."""
    from alexnet.claims.grid import GridConfig, default_workers
    from alexnet.device import Device, describe_machine
    from alexnet.training.run import software_versions

    gpu = not Device.best().is_cpu
    threads = threads or (None if gpu else 1)
    return GridConfig(
        data=prepared[0],
        whole=prepared[1],
        out=out,
        workers=workers or default_workers(threads),
        threads=threads,
        executor=executor,
        machine=describe_machine(),
        versions=software_versions(),
        say=say,
        report=console.grid,
        report_every=2.0 if sys.stderr.isatty() else 60.0,
    )


def describe_setting(scale: "Scale", config: "GridConfig", epochs_factor: float) -> str:
    """Say in some sentences what everything was run on."""
    apart = ""
    if config.whole and len(config.whole.train) > len(config.data.train):
        apart = f" Figure 1 alone is of all {len(config.whole.train):,}."
    if epochs_factor != 1:
        apart += f" Runs take {epochs_factor:g} times the epochs of the scale."
    return (
        f"Scale {scale.name}: {scale.description}. Data {config.data.manifest.name}: "
        f"{len(config.data.train):,} training and {len(config.data.held_out):,} test "
        f"images, prepared at {scale.image_size} pixels.{apart} At another scale than the paper's "
        "an effect may be smaller, larger or absent: a verdict is on the claim at this scale."
    )


def answer_claims(
    claims: "Sequence[Claim]", within: float | None, config: "GridConfig", *, report_only: bool
) -> "tuple[Sequence[Claim], list[RunResult]]":
    """Make the runs that claims need, or take those that are there; return both as they were run.

    Of runs that are there and are not asked for the number is said.
    """
    from alexnet.claims.claim import FILE, read_results
    from alexnet.claims.grid import apply_budget, gather_results, recall_budget, run_grid

    if not report_only:
        planned, _ = plan_claims(claims, within, config)
        return run_grid(planned, config)
    if within:
        chosen = recall_budget(claims, within, config)
        if chosen is None:
            raise ConfigError(
                f"No command with these claims and this budget has begun in {str(config.out)!r}.",
                "Give the names, the --scale and the --budget that it was given.",
            )
        claims = apply_budget(claims, *chosen)
    known = read_results(config.out / FILE)
    done, results = gather_results(claims, known, config)
    if others := len(known) - len(results):
        config.say(
            f"{others:,} of the {len(known):,} runs in {FILE} are not asked for: they are of other "
            "claims, scales, seeds, lengths or images."
        )
    return done, results


def replace_by_name(
    wanted: "Sequence[Claim | Check]", done: "Sequence[Claim]"
) -> "tuple[Claim | Check, ...]":
    """Return what was asked for, with claims as they were run."""
    by_name: dict[str, Claim | Check] = {claim.name: claim for claim in done}
    return tuple(by_name.get(one.name, one) for one in wanted)


def plan_claims(
    claims: "Sequence[Claim]",
    within: float | None,
    config: "GridConfig",
    *,
    by_claim: bool = False,
) -> "tuple[Sequence[Claim], Sequence[tuple[str, Cost]]]":
    """Say what it will cost; return the claims as they are to be run, and the cost of each."""
    from itertools import accumulate

    from alexnet.claims.grid import Cost, plan_grid

    config.say(f"data     {config.data.manifest.describe()}")
    planned, costs = plan_grid(claims, within, config)
    left = sum((cost for _, cost in costs), Cost(0, 0, 0))
    if by_claim:
        hours = accumulate(cost.seconds / 3600 for _, cost in costs)
        for number, ((name, cost), end) in enumerate(zip(costs, hours, strict=True), start=1):
            config.say(
                f"{number:3}  {name:20} {cost.runs:4} runs {cost.seconds / 3600:6.2f} h, "
                f"done after {end:6.2f} h"
            )
    few, many = min(c.seeds for c in planned), max(c.seeds for c in planned)
    seeds = f"{few} seeds" if few == many else f"{few} to {many} seeds"
    config.say(f"{len(claims)} claims, {seeds}, {config.workers} runs at once: {left} left")
    return planned, costs


def list_costs(costs: "Sequence[tuple[str, Cost]]") -> dict[str, Any]:
    """Return what is left to do as plain values."""
    from dataclasses import asdict

    rows = [{"name": name, **asdict(cost)} for name, cost in costs]
    whole = {key: sum(row[key] for row in rows) for key in ("runs", "images", "seconds")}
    return {"claims": rows, **whole}


def ask_networks_together(
    claims: "Sequence[Claim]", results: "Sequence[RunResult]", config: "GridConfig"
) -> "list[Check]":
    """Return what the networks of the claim on views give together, where they are there."""
    from alexnet.claims.claim import results_by_seed
    from alexnet.claims.ensembles import check_ensemble
    from alexnet.claims.grid import RUNS

    found = (
        check_ensemble(results_by_seed(claim.second, results), config.out / RUNS, config.data)
        for claim in claims
        if claim.name == "augment-views"
    )
    return [check for check in found if check]


def describe_claims(wanted: "Sequence[Claim | Check]") -> list[dict[str, Any]]:
    """Return claims as plain values."""
    from alexnet.claims.claim import Claim
    from alexnet.claims.report import state_rule

    rows = []
    for claim in wanted:
        row: dict[str, Any] = {
            "name": claim.name, "group": claim.group, "section": claim.section,
            "sentence": claim.sentence,
        }  # fmt: skip
        if isinstance(claim, Claim):
            row |= {
                "paper": claim.paper,
                "arms": [claim.first.name, claim.second.name],
                "differs": claim.switch,
                "measure": claim.measure_text,
                "rule": state_rule(claim),
                "confounded": claim.confounded,
            }
        rows.append(row)
    return rows


def format_list(wanted: "Sequence[Claim | Check]") -> str:
    """Return the claims, some lines each."""
    lines = []
    for row in describe_claims(wanted):
        lines.append(f"{row['name']}  (section {row['section']})")
        lines.append(f"  {row['sentence']}")
        if "arms" in row:
            lines.append(f"  {row['arms'][0]} against {row['arms'][1]}; differs: {row['differs']}")
            lines.append(f"  paper: {row['paper']}")
            lines.append(f"  {row['rule']}")
    return "\n".join(lines)


def list_findings(findings: "Sequence[Finding]", checks: "Sequence[Check]") -> dict[str, Any]:
    """Return what was found as plain values; shares are 0 to 1."""
    claims = []
    for finding in findings:
        claim, comparison = finding.claim, finding.comparison
        claims.append(
            {
                "name": claim.name,
                "verdict": comparison.verdict.value,
                "largest": _finite(comparison.largest),
                "half_width": _finite(comparison.half_width),
                "measure": claim.measure_text,
                "arms": [claim.first.name, claim.second.name],
                "means": [_finite(mean) for mean in comparison.means],
                "effect": _finite(comparison.effect),
                "bound": comparison.bound,
                "interval": [_finite(end) for end in comparison.interval],
                "ratio": comparison.ratio,
                "seeds": comparison.seeds,
                "paper_effect": claim.paper_effect,
                "confounded": claim.confounded,
            }
        )
    agreeing = [
        {"name": check.name, "agrees": check.agreeing, "of": len(check.rows)} for check in checks
    ]
    return {"claims": claims, "checks": agreeing}


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None  # also where it is no number


def format_table(findings: "Sequence[Finding]", checks: "Sequence[Check]") -> str:
    """Return what was found as a table."""
    from alexnet.claims.report import (
        format_effect,
        format_half_width,
        format_interval,
        format_verdict,
    )

    heads = f"{'claim':16} {'effect':>24} {'95 % interval':>28} {'could be seen':>13} {'seeds':>5}"
    lines = [f"{heads}  verdict"]
    for finding in findings:
        effect, interval = format_effect(finding), format_interval(finding)
        lines.append(
            f"{finding.claim.name:16} {effect:>24} {interval:>28} {format_half_width(finding):>13} "
            f"{finding.comparison.seeds:5}  {format_verdict(finding)}"
        )
    for check in checks:
        lines.append(f"{check.name:16} {check.agreeing} of {len(check.rows)} lines agree")
    return "\n".join(lines)
