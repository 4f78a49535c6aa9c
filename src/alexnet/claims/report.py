"""The report on the claims: ``report.html``, one file that needs no network, and ``report.md``.

Here is what both say: a claim with what its runs gave (`Finding`), and numbers, intervals and
verdicts as text. How it is laid out stands in ``templates/``.
"""

import importlib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from alexnet.claims.claim import (
    Arm,
    Check,
    Claim,
    RunResult,
    list_changes,
    measurements_by_seed,
    results_by_seed,
    trial_results,
)
from alexnet.claims.plots import render_curves, render_pairs
from alexnet.claims.verdict import Comparison, Measurement, Verdict, compare
from alexnet.errors import MissingExtraError
from alexnet.files import atomic_write

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]  # heads, rows

SYMBOLS = {
    Verdict.HOLDS: "✓",
    Verdict.DIRECTION: "↗",
    Verdict.NO_LARGER: "≤",
    Verdict.NOT_SEEN: "○",
    Verdict.REVERSED: "✗",
    Verdict.TOO_FEW: "…",
}
# Markdown's own signs, taken as text.
MARKDOWN_SIGNS = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_[]<>|#~"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A claim, its comparison, and the runs of both arms by seed."""

    claim: Claim
    comparison: Comparison
    first: dict[int, RunResult]
    second: dict[int, RunResult]
    trials: tuple[tuple[Arm, RunResult], ...]  # the runs that tried an arm's learning rates

    @property
    def arms(self) -> tuple[tuple[Arm, dict[int, RunResult]], ...]:
        """Both arms with their runs."""
        return (self.claim.first, self.first), (self.claim.second, self.second)

    @property
    def runs(self) -> tuple[RunResult, ...]:
        """The runs of both arms; one that is both is there once."""
        both = (*self.first.values(), *self.second.values())
        return tuple({run.key: run for run in both}.values())


def judge_claim(claim: Claim, results: Sequence[RunResult]) -> Finding:
    """Return what the results say about a claim, of the seeds that it asks for.

    Raises `MissingExtraError` when SciPy is not installed.
    """
    arms = claim.first, claim.second
    # Of an arm that two claims share the other may have asked for more.
    asked = [run for run in results if run.seed < claim.seeds]
    trials = tuple(
        (arm, run)
        for arm in arms
        for run in sorted(trial_results(arm, results), key=lambda run: run.recipe.lr)
    )
    first, second = (measurements_by_seed(claim, arm, asked) for arm in arms)
    return Finding(
        claim=claim,
        comparison=compare(
            first,
            second,
            ratio=claim.ratio,
            min_effect=claim.min_effect,
            relevant=claim.relevant_effect,
        ),
        first=results_by_seed(claim.first, asked),
        second=results_by_seed(claim.second, asked),
        trials=trials,
    )


def write_report(
    claims: Iterable[Claim | Check],
    results: Sequence[RunResult],
    folder: Path,
    *,
    command: str = "alexnet claims",
    notes: Sequence[str] = (),
) -> tuple[Path, Path]:
    """Write both forms of the report into `folder`; return their paths, the page first.

    The same claims and results make the same bytes. A claim without runs is in the report too, and
    says so. Raises `MissingExtraError` when matplotlib or SciPy is not installed.

    Parameters
    ----------
    claims : iterable of Claim or Check
        In the order in which they are shown.
    results : sequence of RunResult
        Finished runs, of these claims or others.
    folder : Path
        An existing folder.
    command : str
        What repeats the runs, up to the name of a claim.
    notes : sequence of str
        What a reader must know about all of them, a paragraph each: how the data differ from
        the paper's, at what scale this is.
    """
    if any(isinstance(one, Claim) for one in claims) and (missing := find_missing_library()):
        raise missing
    shown = [judge_claim(one, results) if isinstance(one, Claim) else one for one in claims]
    page, document = folder / "report.html", folder / "report.md"
    for path in (page, document):
        templates = Environment(
            loader=FileSystemLoader(Path(__file__).with_name("templates")),
            autoescape=True,  # whatever a name holds is text
            finalize=escape_markdown if path == document else None,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        templates.globals |= {function.__name__: function for function in IN_TEMPLATES}
        text = templates.get_template(f"{path.name}.jinja").render(
            shown=shown,
            findings=[one for one in shown if isinstance(one, Finding)],
            checks=[one for one in shown if isinstance(one, Check)],
            command=command,
            notes=notes,
            symbols=SYMBOLS,
            verdicts=list(Verdict),
        )
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return page, document


def find_missing_library() -> MissingExtraError | None:
    """Return what is to be said of a library that a report needs and that is not installed."""
    for name in ("matplotlib", "scipy"):
        try:
            importlib.import_module(name)
        except ImportError:
            return MissingExtraError(name, "claims", "The report on claims")
    return None


def escape_markdown(value: object) -> str:
    r"""Return a text in which nothing is Markdown or HTML, on one line; `Markup` is left as it is.

    Examples
    --------
    >>> print(escape_markdown("a|b <i>"))
    a\|b \<i\>
    """
    if isinstance(value, Markup):
        return value
    text = " ".join(str(value).split())
    return Markup(text.replace("&", "&amp;").translate(MARKDOWN_SIGNS))


def format_number(value: float, is_fraction: bool) -> str:
    """Return one value: a fraction in percent, anything else to three digits."""
    if not math.isfinite(value):
        return "not finite"
    return _with_sign(f"{value * 100:.2f} %" if is_fraction else f"{value:.3g}")


def format_measurement(measured: Measurement, is_fraction: bool) -> str:
    """Return what a run gave; a censored one says so."""
    return "more than " * measured.censored + format_number(measured.value, is_fraction)


def format_amount(effect: float, claim: Claim, *, unit: bool = True, exact: bool = False) -> str:
    """Return a difference in points (or plain), or a ratio in times.

    A number that was measured has its digits; one that is `exact`, the paper's or a rule's, has as
    many as were written down.
    """
    points = claim.is_fraction and not claim.ratio
    digits = "g" if exact else ".2f" if points else ".3g"
    text = _with_sign(format(effect * 100 if points else effect, digits))
    if not unit or not (claim.ratio or points):
        return text
    return f"{text} {'time' if claim.ratio else 'point'}{'s' * (text != '1')}"


def _with_sign(text: str) -> str:
    """Return a number's text with a minus sign, not a hyphen, and no negative zero."""
    digits = text.lstrip("-").split(" ")[0]
    return text.lstrip("-") if float(digits) == 0 else text.replace("-", "−", 1)


def format_effect(finding: Finding) -> str:
    """Return the mean effect with its unit, and whether it is a bound."""
    comparison = finding.comparison
    if not comparison.pairs:
        return "not yet"
    if comparison.bound == "unknown":
        return "unknown"
    return f"{comparison.bound} {format_amount(comparison.effect, finding.claim)}".strip()


def format_interval(finding: Finding) -> str:
    """Return the interval in words."""
    claim, (low, high) = finding.claim, finding.comparison.interval
    if math.isnan(low):
        return "none"
    if finding.comparison.is_unlimited:
        return "without limits"
    if finding.comparison.is_open_below:
        return f"{format_amount(high, claim)} or less"
    if math.isinf(high):
        return f"{format_amount(low, claim)} or more"
    return f"{format_amount(low, claim, unit=False)} to {format_amount(high, claim)}"


def format_verdict(finding: Finding) -> str:
    """Return the verdict in words, with its number where it has one."""
    verdict, claim = finding.comparison.verdict, finding.claim
    if verdict != Verdict.NO_LARGER:
        return verdict.value
    return verdict.value.replace("x", format_amount(finding.comparison.largest, claim), 1)


def format_half_width(finding: Finding) -> str:
    """Return the smallest effect that these runs could have shown."""
    half_width = finding.comparison.half_width
    return format_amount(half_width, finding.claim) if math.isfinite(half_width) else "unknown"


def format_spread(finding: Finding) -> str:
    """Return the interval and the number of seeds."""
    count = finding.comparison.seeds
    if not count:
        return "no finished pair of runs"
    seeds = f"{count} seed" + "s" * (count != 1)
    if math.isnan(finding.comparison.interval[0]):
        return f"{seeds}, no interval"
    return f"95 % interval {format_interval(finding)}, {seeds}"


def format_paper_effect(claim: Claim) -> str:
    """Return the size of the effect in the paper."""
    none = claim.paper_effect is None
    return "no number" if none else format_amount(claim.paper_effect or 0, claim, exact=True)


def format_section(text: str) -> str:
    """Return where a claim stands: bare numbers are sections of the paper."""
    if not text[:1].isdigit():
        return text
    return f"section{'s' * bool(re.match(r'[0-9.]+, [0-9]', text))} {text}"


def state_rule(claim: Claim) -> str:
    """Return the claim's rule, as it stood before its runs."""
    what, way = ("ratio", "over") if claim.ratio else ("difference", "minus")
    return (
        f"Holds when the whole 95 % interval of the {what}, “{claim.first.name}” {way} "
        f"“{claim.second.name}”, is above {int(claim.ratio)}{_size(claim)}."
    )


def _size(claim: Claim) -> str:
    return f", and the mean reaches {_min_effect(claim)}" if claim.min_effect else ""


def _min_effect(claim: Claim) -> str:
    return format_amount(claim.min_effect or 0, claim, exact=True)


def explain_verdict(finding: Finding) -> str:
    """Return why the verdict is what it is, and where the paper's number lies."""
    claim, comparison = finding.claim, finding.comparison
    claimed = "The whole interval is on the side that is claimed"
    match comparison.verdict:
        case Verdict.HOLDS:
            reason = f"{claimed}{_size(claim)}."
        case Verdict.DIRECTION:
            mean = "the mean, a lower bound," if comparison.bound else "the mean"
            reason = f"{claimed}, but {mean} does not reach {_min_effect(claim)}."
        case Verdict.REVERSED:
            reason = (
                f"The whole interval is on the other side: “{claim.first.name}” has the smaller "
                f"number ({claim.measure_text})."
            )
        case Verdict.TOO_FEW:
            reason = "A verdict needs at least two seeds that both arms have finished."
        case Verdict.NO_LARGER:
            reason = (
                f"The interval contains {int(claim.ratio)} and does not reach "
                f"{format_amount(claim.relevant_effect, claim, exact=True)}, which would matter: "
                f"an effect here is {format_amount(comparison.largest, claim)} at most."
            )
        case Verdict.NOT_SEEN:
            reason = _explain_unseen(finding)
    return f"{reason} {_compare_with_paper(finding)}".strip()


def _explain_unseen(finding: Finding) -> str:
    """Return why runs cannot tell an effect from chance, and what they leave possible."""
    comparison = finding.comparison
    if comparison.is_unlimited and not any(comparison.censored):
        return (
            "All pairs differ by the same number, as measures that are counted in steps may: they "
            "show no spread, so nothing says how far the next pair would be from it."
        )
    left = (
        "They were stopped too early to say how large it may be."
        if math.isinf(comparison.interval[1])
        else f"An effect of {format_interval(finding)} is not ruled out."
    )
    return (
        f"The interval contains {int(comparison.ratio)}: these runs cannot tell the effect from "
        f"chance. {left}"
    )


def _compare_with_paper(finding: Finding) -> str:
    """Return where the paper's number lies, seen from the interval; empty where there is none."""
    claim, (low, high) = finding.claim, finding.comparison.interval
    if claim.paper_effect is None or math.isnan(low) or finding.comparison.is_unlimited:
        return ""
    said = format_paper_effect(claim)
    paper = f"The paper's {said} {'lies' if said.startswith('1 ') else 'lie'}"
    if claim.paper_effect < low:
        return f"{paper} below the interval: here the effect is larger."
    if claim.paper_effect > high:
        unseen = finding.comparison.verdict in (Verdict.NO_LARGER, Verdict.NOT_SEEN)
        return (
            f"{paper} above the interval: here the effect is smaller{', if there is one' * unseen}."
        )
    return f"{paper} inside the interval."


def list_cautions(finding: Finding) -> Iterator[tuple[str, str]]:
    """Yield what a reader must know before believing the verdict: a word, and sentences."""
    claim, comparison = finding.claim, finding.comparison
    if claim.confounded:
        yield (
            "Confounded.",
            "More than one thing differs between these two. What is measured here cannot be put "
            "down to one of them alone.",
        )
    for (arm, runs), count in zip(finding.arms, comparison.censored, strict=True):
        of = f"of {comparison.seeds} runs of {arm.name}"
        failed = [runs[seed] for seed, *_ in comparison.pairs if runs[seed].failed]
        if failed:
            yield (
                "Diverged.",
                f"{len(failed)} {of} could not be trained to their end and count as networks that "
                "guess. Differences to them are no small variations about a mean, as the interval "
                f"takes them to be. {failed[0].failed}",
            )
        if count > len(failed):
            yield (
                "Stopped.",
                f"{count - len(failed)} {of} ended before they got there. Each counts with what it "
                f"had by then: the true number of {claim.measure_text} is larger, and nobody knows "
                "by how much.",
            )
    if comparison.left_out:
        yield (
            "Left out.",
            f"Of seed{'s' * (len(comparison.left_out) > 1)} "
            f"{', '.join(map(str, comparison.left_out))} one arm has no finished run, or a run "
            "whose measure is not finite.",
        )


def list_numbers(finding: Finding) -> list[tuple[str, str]]:
    """Return what was measured of each arm, and the rule of the verdict."""
    claim, comparison = finding.claim, finding.comparison
    kind = "geometric mean" if claim.ratio else "mean"
    rows = []
    for (arm, _), mean, censored in zip(
        finding.arms, comparison.means, comparison.censored, strict=True
    ):
        value = format_measurement(Measurement(mean, bool(censored)), claim.is_fraction)
        rows.append((arm.name, f"{value} {claim.measure_text} ({kind})"))
    power = ("Could have been seen", format_half_width(finding))
    return [*((*rows, power) if comparison.pairs else ()), ("Rule", state_rule(claim))]


def describe_switch(finding: Finding) -> str:
    """Return in words what differs, and the learning rates where each arm has its own."""
    text = f"Differs: {finding.claim.switch.rstrip('.')}."
    for arm, _ in finding.arms:
        rates = [run.recipe.lr for of, run in finding.trials if of is arm]
        if rates:
            tried = ", ".join(f"{lr:g}" for lr in rates)
            end = ", at an end of them" * (arm.recipe.lr in (min(rates), max(rates)))
            chosen = (
                f"{arm.recipe.lr:g}, its best of {tried}{end}"
                if {*arm.learning_rates} <= {*rates}
                else f"not chosen yet, tried so far: {tried}"
            )
            text += f" Learning rate of {arm.name}: {chosen}."
    return text


def tabulate_changes(claim: Claim) -> Table:
    """Return a table of what differs between the arms, with both values (`list_changes`)."""
    first, second = claim.first, claim.second
    rows: list[tuple[str, ...]] = []
    for path, values in list_changes(first, second).items():
        if path == "measure":
            values = claim.measure_of(first), claim.measure_of(second)
        rows.append((path, *map(_show, values)))
    return ("Setting", first.name, second.name), rows


def _show(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_show(field)}" for name, field in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_show, value)) or "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def tabulate_values(finding: Finding) -> Table:
    """Return the table of all values: a row for each seed of either arm."""
    claim = finding.claim
    pairs = {seed: (first, second) for seed, first, second in finding.comparison.pairs}
    rows = []
    for seed in sorted(finding.first.keys() | finding.second.keys()):
        values = []
        for arm, runs in finding.arms:
            name = claim.measure_of(arm)
            there = seed in runs and name in runs[seed].measures
            measured = runs[seed].measurement(name) if there else None
            values.append(format_measurement(measured, claim.is_fraction) if measured else "none")
        effect = "left out"
        if seed in pairs:
            first, second = pairs[seed]
            one = compare({seed: first}, {seed: second}, ratio=claim.ratio)
            effect = f"{one.bound} {format_amount(one.effect, claim)}".strip()
        keys = dict.fromkeys(runs[seed].key for _, runs in finding.arms if seed in runs)
        rows.append((str(seed), *values, effect, " ".join(keys)))
    return ("Seed", claim.first.name, claim.second.name, "Effect", "Runs"), rows


def tabulate_trials(finding: Finding) -> Table:
    """Return the table of learning rates that were tried, with both of what they are chosen by."""
    claim = finding.claim
    rows: list[tuple[str, ...]] = []
    for arm, run in finding.trials:
        measured = format_measurement(run.measurement(claim.measure_of(arm)), claim.is_fraction)
        last = format_number(run.last_train_error, is_fraction=True)
        rows.append((arm.name, f"{run.recipe.lr:g}", measured, last))
    return ("Arm", "Learning rate", claim.measure_title, "Training error of the last pass"), rows


def describe_runs(runs: Sequence[RunResult]) -> str:
    """Return in a line on what the runs were made, and how long they took."""
    names = _join_distinct(str(run.data.get("name", "")) for run in runs)
    seconds = sum(run.seconds for run in runs)
    unit, length = next(
        (pair for pair in (("h", 3600), ("min", 60)) if seconds >= pair[1]), ("s", 1)
    )
    took = f"{seconds / length:.{0 if unit == 's' else 1}f} {unit}"
    return f"{len(runs)} runs on {names}, {took} of {_join_distinct(run.machine for run in runs)}."


def list_provenance(runs: Sequence[RunResult]) -> list[tuple[str, str]]:
    """Return what the runs were made of and on, every value that occurs."""

    def spell(values: dict[str, Any]) -> str:
        return ", ".join(f"{key} {value}" for key, value in values.items())

    return [
        ("Data", _join_distinct(spell(run.data) for run in runs)),
        ("Machine", _join_distinct(run.machine for run in runs)),
        ("Versions", _join_distinct(spell(run.versions) for run in runs)),
        ("Commit", _join_distinct(run.commit for run in runs)),
    ]


def _join_distinct(values: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(values))


IN_TEMPLATES = (
    describe_runs, describe_switch, explain_verdict, format_effect, format_half_width,
    format_interval, format_paper_effect, format_section, format_spread, format_verdict,
    list_cautions, list_numbers, list_provenance, render_curves, render_pairs, tabulate_changes,
    tabulate_trials, tabulate_values,
)  # fmt: skip
