"""Numbers and verdicts as text: the same words in the page, in Markdown, and in pictures' texts."""

import math
import re
from collections.abc import Iterable, Sequence

from alexnet.claims.claim import Check, Claim, Result
from alexnet.claims.report.finding import Finding
from alexnet.claims.statistics import Comparison, Measured, Verdict, compare

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]  # heads, rows

SYMBOLS = {
    Verdict.HOLDS: "✓",
    Verdict.DIRECTION: "↗",
    Verdict.NOT_SEEN: "○",
    Verdict.REVERSED: "✗",
    Verdict.TOO_FEW: "…",
}


def number(value: float, share: bool) -> str:
    """Return one value: a share in percent, anything else to three digits."""
    if not math.isfinite(value):
        return "no number"
    return _signed(f"{value * 100:.2f} %" if share else f"{value:.3g}")


def measured(value: Measured, share: bool) -> str:
    """Return what a run gave; a stopped one says so."""
    return f"{'more than ' if value.capped else ''}{number(value.value, share)}"


def amount(effect: float, claim: Claim, *, unit: bool = True, exact: bool = False) -> str:
    """Return a difference in points (or plain), or a ratio in times.

    A number that was measured has its digits; one that is `exact`, the paper's or a rule's, has as
    many as were written down.
    """
    digits = "g" if exact else ".2f" if claim.share and not claim.ratio else ".3g"
    points = claim.share and not claim.ratio
    text = _signed(format(effect * 100 if points else effect, digits))
    if not unit or not (claim.ratio or points):
        return text
    return f"{text} {'time' if claim.ratio else 'point'}{'s' * (text != '1')}"


def _signed(text: str) -> str:
    """Return a number's text with a minus sign, not a hyphen, and no negative zero."""
    digits = text.lstrip("-").split(" ")[0]
    return text.lstrip("-") if float(digits) == 0 else text.replace("-", "−", 1)


def effect(finding: Finding) -> str:
    """Return the mean effect with its unit, and whether it is a bound."""
    comparison = finding.comparison
    if not comparison.pairs:
        return "not yet"
    if comparison.bound == "unknown":
        return "unknown"
    return f"{comparison.bound} {amount(comparison.effect, finding.claim)}".strip()


def interval(finding: Finding) -> str:
    """Return the interval in words."""
    comparison, claim = finding.comparison, finding.claim
    low, high = comparison.interval
    if math.isnan(low):
        return "none"
    below = open_below(comparison)
    if below and math.isinf(high):
        return "without limits"
    if below:
        return f"{amount(high, claim)} or less"
    if math.isinf(high):
        return f"{amount(low, claim)} or more"
    return f"{amount(low, claim, unit=False)} to {amount(high, claim)}"


def open_below(comparison: Comparison) -> bool:
    """Whether the interval has no lower end, which is 0 for a ratio."""
    return comparison.interval[0] == (0 if comparison.ratio else -math.inf)


def rule(claim: Claim) -> str:
    """Return the claim's rule, as it stood before its runs."""
    what, way = ("ratio", "over") if claim.ratio else ("difference", "minus")
    size = f", and the mean reaches {_enough(claim)}" if claim.enough else ""
    return (
        f"Holds when the whole 95 % interval of the {what}, “{claim.first.name}” {way} "
        f"“{claim.second.name}”, is above {_none(claim)}{size}."
    )


def _enough(claim: Claim) -> str:
    return amount(claim.enough or 0, claim, exact=True)


def _none(claim: Claim) -> str:
    """Return the effect that is none."""
    return "1" if claim.ratio else "0"


def reason(finding: Finding) -> str:
    """Return in a sentence or two why the verdict is what it is."""
    claim, comparison = finding.claim, finding.comparison
    high, claimed = comparison.interval[1], "The whole interval is on the side that is claimed"
    match comparison.verdict:
        case Verdict.HOLDS:
            size = f", and the mean reaches {_enough(claim)}" if claim.enough else ""
            return f"{claimed}{size}."
        case Verdict.DIRECTION:
            mean = "the mean, a lower bound," if comparison.bound else "the mean"
            return f"{claimed}, but {mean} does not reach {_enough(claim)}."
        case Verdict.REVERSED:
            return (
                f"The whole interval is on the other side: “{claim.first.name}” has the smaller "
                f"number ({claim.measured})."
            )
        case Verdict.TOO_FEW:
            return "A verdict needs at least two seeds that both arms have finished."
    size = (
        f"An effect of up to {amount(high, claim)} is not ruled out."
        if math.isfinite(high)
        else "They were stopped too early to say how large it may be."
    )
    text = f"The interval contains {_none(claim)}: these runs cannot tell the effect from chance."
    return f"{text} {size}"


def against_paper(finding: Finding) -> str:
    """Return where the paper's number lies, seen from the interval; empty where there is none."""
    claim, (low, high) = finding.claim, finding.comparison.interval
    if claim.paper_effect is None or math.isnan(low):
        return ""
    paper = amount(claim.paper_effect, claim, exact=True)
    if claim.paper_effect < low:
        return f"The paper's {paper} lie below the interval: here the effect is larger."
    if claim.paper_effect > high:
        return f"The paper's {paper} lie above the interval: here the effect is smaller."
    return f"The paper's {paper} lie inside the interval."


def cautions(finding: Finding) -> list[tuple[str, str]]:
    """Return what a reader must know before believing the verdict: a word, and sentences."""
    claim, comparison = finding.claim, finding.comparison
    said = [("Confounded. ", CONFOUNDED)] if claim.confounded else []
    arms = ((claim.first, finding.first), (claim.second, finding.second))
    for (arm, runs), count in zip(arms, comparison.capped, strict=True):
        of = f"of {comparison.seeds} runs of {arm.name}"
        failed = [runs[seed] for seed, *_ in comparison.pairs if runs[seed].failed]
        if failed:
            said.append((
                "Diverged. ",
                f"{len(failed)} {of} could not be trained to their end and count as networks that "
                "guess. Differences to them are no small variations about a mean, as the interval "
                f"takes them to be. {failed[0].failed}",
            ))  # fmt: skip
        if count > len(failed):
            said.append((
                "Stopped. ",
                f"{count - len(failed)} {of} ended before they got there. "
                f"Each counts with what it had by then: the true number of {claim.measured} is "
                "larger, and nobody knows by how much.",
            ))  # fmt: skip
    if comparison.left_out:
        listed = ", ".join(map(str, comparison.left_out))
        said.append((
            "Left out. ",
            f"Of seed{'s' * (len(comparison.left_out) > 1)} {listed} one arm has no finished run, "
            "or a run that gave no number.",
        ))  # fmt: skip
    return said


def duration(seconds: float) -> str:
    """Return a time in the unit that fits it."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


INTRODUCTION = (
    "The paper of 2012 gives a reason for each part of its network, most of them with a number. "
    "Here each is asked again: two networks that differ in one thing are trained side by side from "
    "the same seeds, and the difference between them is held against what the paper says."
)
METHOD = (
    "Runs of one seed form a pair. The interval is Student's, at 95 %, of the mean over the pairs' "
    "differences (for ratios, of their logarithms). One seed gives no verdict. “Not seen at this "
    "scale” does not mean that there is no effect: the interval says how large it may be. Of 100 "
    "intervals about 5 miss the truth by chance."
)
PAIRS_CAPTION = (
    "Left: the runs, a line for each seed, short bars for the means. Right: what each seed says, "
    "and the mean (diamond) with its 95 % interval."
)
STOPPED_CAPTION = (
    " Open triangles are runs that were stopped before they got there: the true value lies further."
)
CONFOUNDED = (
    "More than the switch differs between these two, as it did in the paper. What is measured here "
    "cannot be put down to the switch alone."
)
TRIED = "Learning rates tried for each, with a seed that is not among those compared:"


def anchor(name: str) -> str:
    """Return the name under which a link finds a claim."""
    return "claim-" + "".join(c if c.isalnum() else "-" for c in name)


def capital(text: str) -> str:
    """Return a text with a capital first, the others as they are."""
    return text[:1].upper() + text[1:]


def section(text: str) -> str:
    """Return where a claim stands: bare numbers are sections of the paper."""
    if not text[:1].isdigit():
        return text
    return f"section{'s' * bool(re.match(r'[0-9.]+, [0-9]', text))} {text}"


def agreeing(check: Check) -> str:
    """Return how many lines of a check agree."""
    return f"{sum(row.agrees for row in check.rows)} of {len(check.rows)} agree"


def checked(check: Check) -> str:
    """Return what a check is, and how it came out."""
    return f"Computed here, not trained for. Of what is stated, {agreeing(check)}."


def seeds(finding: Finding) -> str:
    """Return how many pairs of runs there are."""
    count = finding.comparison.seeds
    return f"{count} seed" + "s" * (count != 1)


def paper_number(claim: Claim) -> str:
    """Return the size of the effect in the paper."""
    none = claim.paper_effect is None
    return "no number" if none else amount(claim.paper_effect or 0, claim, exact=True)


def spread(finding: Finding) -> str:
    """Return the interval and the number of seeds."""
    if not finding.comparison.pairs:
        return "no finished pair of runs"
    if math.isnan(finding.comparison.interval[0]):
        return f"{seeds(finding)}, no interval"
    return f"95 % interval {interval(finding)}, {seeds(finding)}"


def numbers(finding: Finding) -> list[tuple[str, str]]:
    """Return what was measured of each arm, and the rule of the verdict."""
    claim, comparison = finding.claim, finding.comparison
    if not comparison.pairs:
        return [("Rule", rule(claim))]
    kind = "geometric mean" if claim.ratio else "mean"
    rows = []
    for arm, mean, capped in zip(
        (claim.first, claim.second), comparison.means, comparison.capped, strict=True
    ):
        value = measured(Measured(mean, capped=bool(capped)), claim.share)
        rows.append((arm.name, f"{value} {claim.measured} ({kind})"))
    return [*rows, ("Rule", rule(claim))]


def varied(finding: Finding) -> str:
    """Return in words what differs, and the learning rates where each arm has its own."""
    claim = finding.claim
    text = f"Differs: {claim.switch.rstrip('.')}."
    for arm in (claim.first, claim.second):
        rates = [rate for name, rate, _ in finding.tried if name == arm.name]
        if rates:
            end = arm.recipe.lr in (min(rates), max(rates))
            text += (
                f" Learning rate of {arm.name}: {arm.recipe.lr:g}, its best of "
                f"{', '.join(f'{rate:g}' for rate in rates)}{', at an end of them' * end}."
            )
    return text


def curve_caption(finding: Finding) -> str:
    """Return what the learning curves show; those of `epochs_to_25` are the paper's Figure 1."""
    claim = finding.claim
    text = (
        f"Solid: {claim.second.name}. Dashed: {claim.first.name}. Thin lines are seeds, thick ones "
        "their means."
    )
    figure_1 = claim.measure == "epochs_to_25"
    return f"Figure 1 of the paper, from these runs. {text}" if figure_1 else text


def pairs_caption(finding: Finding) -> str:
    """Return what the picture of the pairs shows."""
    return PAIRS_CAPTION + STOPPED_CAPTION * any(finding.comparison.capped)


def setting(runs: Sequence[Result]) -> str:
    """Return in a line on what the runs were made, and how long they took."""
    names = _distinct(str(run.data.get("name", "")) for run in runs)
    total = sum(run.seconds for run in runs)
    machines = _distinct(run.machine for run in runs)
    return f"{len(runs)} runs on {names}, {duration(total)} of {machines}."


def provenance(runs: Sequence[Result]) -> list[tuple[str, str]]:
    """Return what the runs were made of and on, every value that occurs."""
    data = [", ".join(f"{key} {value}" for key, value in run.data.items()) for run in runs]
    versions = [", ".join(f"{key} {value}" for key, value in run.versions.items()) for run in runs]
    return [
        ("Data", _distinct(data)),
        ("Machine", _distinct(run.machine for run in runs)),
        ("Versions", _distinct(versions)),
        ("Commit", _distinct(run.commit for run in runs)),
    ]


def _distinct(values: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(values))


def raw(finding: Finding) -> Table:
    """Return the heads and rows of the table of all values: a row for each seed of either arm."""
    claim = finding.claim
    arms = ((claim.first, finding.first), (claim.second, finding.second))
    heads = ("Seed", *(arm.name for arm, _ in arms), "Effect", "Runs")
    pairs = {seed: (first, second) for seed, first, second in finding.comparison.pairs}
    rows = []
    for seed in sorted(finding.first.keys() | finding.second.keys()):
        values = []
        for arm, runs in arms:
            name = claim.measure_of(arm)
            run = runs.get(seed)
            if run is None or name not in run.measures:
                values.append("none")
            else:
                value = Measured(run.measures[name], capped=name in run.capped)
                values.append(measured(value, claim.share))
        each = "left out"
        if seed in pairs:
            first, second = pairs[seed]
            each = _each(compare({seed: first}, {seed: second}, ratio=claim.ratio), claim)
        keys = dict.fromkeys(runs[seed].key for _, runs in arms if seed in runs)
        rows.append((str(seed), *values, each, " ".join(keys)))
    return heads, rows


def _each(one: Comparison, claim: Claim) -> str:
    return f"{one.bound} {amount(one.effect, claim)}".strip()


def tried(finding: Finding) -> Table:
    """Return the heads and rows of the table of learning rates."""
    claim = finding.claim
    rows: list[tuple[str, ...]] = [
        (name, f"{rate:g}", measured(value, claim.share)) for name, rate, value in finding.tried
    ]
    return ("Arm", "Learning rate", capital(claim.measured)), rows
