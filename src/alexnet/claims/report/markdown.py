"""The report in Markdown: the words and numbers of the page, with tables and without pictures."""

from collections.abc import Iterable, Sequence

from alexnet.claims.claim import Check
from alexnet.claims.report import words
from alexnet.claims.report.finding import Finding, changes
from alexnet.claims.statistics import Verdict

# Markdown's own signs, taken as text.
MARKS = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_[]<>|#~"})


def document(shown: Sequence[Finding | Check], command: str, notes: Sequence[str]) -> str:
    """Return the whole document."""
    blocks = ["# The claims of AlexNet, asked again", words.INTRODUCTION, *map(plain, notes)]
    blocks += ["## All claims", _summary(shown), words.METHOD]
    for one in shown:
        blocks += _check(one) if isinstance(one, Check) else _claim(one, command)
    return "\n\n".join(block for block in blocks if block) + "\n"


def plain(text: str) -> str:
    r"""Return a text in which nothing is Markdown or HTML, on one line.

    Examples
    --------
    >>> print(plain("a|b <i>"))
    a\|b \<i\>
    """
    return " ".join(text.split()).replace("&", "&amp;").translate(MARKS)


def verdict(value: Verdict) -> str:
    """Return a verdict with its sign."""
    return f"{words.SYMBOLS[value]} **{value.value}**"


def _agreement(agrees: bool) -> str:
    return "✓ **agrees**" if agrees else "✗ **differs**"


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table of cells that are Markdown already."""
    heads = tuple(heads)
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _texts(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    return table(map(plain, heads), (map(plain, row) for row in rows))


def _summary(shown: Iterable[Finding | Check]) -> str:
    rows = []
    for one in shown:
        if isinstance(one, Check):
            row = (plain(one.name), "stated", words.agreeing(one), "", _agreement(one.agrees))
            rows.append(row)
            continue
        rows.append((
            plain(one.claim.name),
            words.paper_number(one.claim),
            f"{words.effect(one)}, {words.interval(one)}",
            str(one.comparison.seeds),
            verdict(one.comparison.verdict),
        ))  # fmt: skip
    return table(("Claim", "Paper", "Here, 95 % interval", "Seeds", "Verdict"), rows)


def _claim(finding: Finding, command: str) -> list[str]:
    claim = finding.claim
    why = f"{words.reason(finding)} {words.against_paper(finding)}".strip()
    blocks = [
        f"## {plain(claim.sentence)}",
        f"{plain(claim.name)}, {plain(words.section(claim.section))}",
        f"{verdict(finding.comparison.verdict)}: {plain(why)}",
        _texts(
            ("", ""),
            [
                ("Paper", f"{words.paper_number(claim)}: {claim.paper}"),
                ("Here", f"{words.effect(finding)}: {words.spread(finding)}"),
                *words.numbers(finding),
            ],
        ),
        *(f"**{head.strip()}** {plain(text)}" for head, text in words.cautions(finding)),
        plain(words.varied(finding)),
    ]
    blocks += [
        plain(claim.note),
        _texts(("Setting", claim.first.name, claim.second.name), changes(claim)),
        f"Ask again:\n\n    {command} {claim.name}",
    ]
    if finding.runs:
        blocks += [
            plain(words.setting(finding.runs)),
            _texts(("", ""), words.provenance(finding.runs)),
        ]
        blocks += ["All values:", _texts(*words.raw(finding))]
    if finding.tried:
        blocks += [words.TRIED, _texts(*words.tried(finding))]
    return blocks


def _check(check: Check) -> list[str]:
    rows = [
        (plain(r.what), plain(r.stated), plain(r.ours), _agreement(r.agrees), plain(r.note))
        for r in check.rows
    ]
    return [
        f"## {plain(check.sentence)}",
        f"{plain(check.name)}, {plain(words.section(check.section))}",
        f"{_agreement(check.agrees)}: {words.checked(check)}",
        table(("What", "Stated", "Computed here", "Verdict", "Note"), rows),
    ]
