"""The report as one HTML page: no script, no network, light and dark, on a phone and on paper."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from alexnet.claims.claim import Check, Row
from alexnet.claims.report import pictures, words
from alexnet.claims.report.finding import Finding, changes
from alexnet.claims.report.markup import Child, element, written
from alexnet.claims.statistics import Verdict

MANY = 6  # rows of a table of settings; more are folded
TITLE = "The claims of AlexNet, asked again"
# Nothing may be loaded from anywhere: a promise that the browser keeps.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(shown: Sequence[Finding | Check], command: str, notes: Sequence[str]) -> str:
    """Return the whole page."""
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", TITLE),
        element("style", style),
    )
    main = element(
        "main",
        element("h1", TITLE),
        *_opening(shown, notes),
        *(_check(one) if isinstance(one, Check) else _claim(one, command) for one in shown),
    )
    return "<!doctype html>\n" + written(element("html", head, element("body", main), lang="en"))


def _opening(shown: Sequence[Finding | Check], notes: Sequence[str]) -> list[Element]:
    """Return what stands before the claims: what this is, the count of verdicts, the table."""
    return [
        element("p", words.INTRODUCTION, class_="lead"),
        *(element("p", note, class_="lead") for note in notes),
        _counts(shown),
        element("h2", "All claims"),
        _summary(shown),
        element("p", words.METHOD, class_="small"),
    ]


def _counts(shown: Iterable[Finding | Check]) -> Element:
    """Return how often each verdict was reached; the bad ones are as large as the good ones."""
    counted = Counter(one.comparison.verdict for one in shown if isinstance(one, Finding))
    checked = Counter(one.agrees for one in shown if isinstance(one, Check))
    badges = [(counted[verdict], _badge(verdict)) for verdict in Verdict]
    badges += [(checked[agrees], _agreement(agrees)) for agrees in (True, False)]
    items = [element("li", element("strong", str(n)), " ", badge) for n, badge in badges if n]
    return element("ul", *items, class_="counts")


def _badge(verdict: Verdict) -> Element:
    """Return a verdict as a sign and its word, in its colour."""
    sign = element("span", words.SYMBOLS[verdict], aria_hidden="true", class_="sign")
    return element("span", sign, " ", verdict.value, class_=f"badge {verdict.name.lower()}")


def _agreement(agrees: bool) -> Element:
    return element(
        "span",
        element("span", "✓" if agrees else "✗", aria_hidden="true", class_="sign"),
        " agrees" if agrees else " differs",
        class_=f"badge {'holds' if agrees else 'reversed'}",
    )


def _summary(shown: Iterable[Finding | Check]) -> Element:
    """Return the table of all claims: what the paper says, what came out, the verdict."""
    return _stacked(("Claim", "Paper", "Here", "Verdict"), map(_summary_row, shown), "summary")


def _stacked(
    heads: Sequence[str], rows: Iterable[Sequence[Sequence[Child]]], name: str = ""
) -> Element:
    """Return a table whose rows are blocks on a phone; the roles say that it still is a table."""
    body = []
    for first, *rest in rows:
        cells = [
            element("td", element("span", *cell), role="cell", data_head=head)
            for head, cell in zip(heads[1:], rest, strict=True)
        ]
        named = element("th", *first, scope="row", role="rowheader")
        body.append(element("tr", named, *cells, role="row"))
    columns = [element("th", head, scope="col", role="columnheader") for head in heads]
    return element(
        "table",
        element("thead", element("tr", *columns, role="row"), role="rowgroup"),
        element("tbody", *body, role="rowgroup"),
        class_=f"stacked {name}".strip(),
        role="table",
    )


def _summary_row(one: Finding | Check) -> tuple[tuple[Child, ...], ...]:
    """Return the four cells of a claim's row."""
    named = one if isinstance(one, Check) else one.claim
    link = element("a", named.name, href=f"#{words.anchor(named.name)}")
    first = (link, element("span", named.sentence, class_="sentence"))
    if isinstance(one, Check):
        return first, ("stated",), (words.agreeing(one),), (_agreement(one.agrees),)
    here = (words.effect(one), element("span", words.spread(one), class_="spread"))
    warning = element("span", "confounded", class_="spread") if one.claim.confounded else None
    verdict = (_badge(one.comparison.verdict), warning)
    return first, (words.paper_number(one.claim),), here, verdict


def _table(name: str, heads: Iterable[str], rows: Iterable[Iterable[Child]]) -> Element:
    """Return a table whose first column names its rows, in a frame that scrolls by itself."""
    body = []
    for first, *rest in rows:
        cells = [element("td", cell) for cell in rest]
        body.append(element("tr", element("th", first, scope="row"), *cells))
    table = element(
        "table",
        element("thead", element("tr", *(element("th", h, scope="col") for h in heads))),
        element("tbody", *body),
    )
    return element("div", table, class_="frame", tabindex="0", role="region", aria_label=name)


def _claim(finding: Finding, command: str) -> Element:
    """Return a claim's section."""
    claim, verdict = finding.claim, finding.comparison.verdict
    why = f"{words.reason(finding)} {words.against_paper(finding)}"
    return element(
        "section",
        *_heading(claim.name, claim.section, claim.sentence),
        element("p", _badge(verdict), " ", why, class_="verdict-line"),
        *(
            element("p", element("strong", head), text, class_="caution")
            for head, text in words.cautions(finding)
        ),
        _sides(finding),
        _figures(finding),
        _pairs_of(words.numbers(finding)),
        *_varied(finding),
        element("h3", "Ask again"),
        element("pre", element("code", f"{command} {claim.name}")),
        *_runs(finding),
        id=words.anchor(claim.name),
        class_=verdict.name.lower(),
    )


def _heading(name: str, section: str, sentence: str) -> list[Element]:
    """Return a claim's name, where it stands in the paper, and what it says."""
    where = element("p", f"{name} · {words.section(section)}", class_="eyebrow")
    return [where, element("h2", sentence)]


def _sides(finding: Finding) -> Element:
    """Return the paper's number and ours side by side."""
    claim = finding.claim
    sides = (
        ("Paper", words.paper_number(claim), claim.paper),
        ("Here", words.effect(finding), words.spread(finding)),
    )
    return element(
        "div",
        *(
            element(
                "div",
                element("p", name, class_="eyebrow"),
                element("p", number, class_="number"),
                element("p", more, class_="small"),
            )
            for name, number, more in sides
        ),
        class_="sides",
    )


def _pairs_of(rows: Iterable[tuple[str, str]]) -> Element:
    return element(
        "dl", *(element("div", element("dt", name), element("dd", text)) for name, text in rows)
    )


def _figures(finding: Finding) -> Element:
    """Return the claim's pictures with their captions; nothing is drawn of nothing."""
    drawn = []
    if finding.comparison.pairs:
        drawn.append((pictures.pairs(finding), words.pairs_caption(finding)))
    drawn += [(curve, words.curve_caption(finding)) for curve in pictures.curves(finding)]
    figures = [
        element("figure", picture, element("figcaption", caption)) for picture, caption in drawn
    ]
    return element("div", *figures, class_="figures")


def _varied(finding: Finding) -> list[Element]:
    """Return what differs between the arms, in words and by every field."""
    claim = finding.claim
    rows = changes(claim)
    cells = [tuple((text,) for text in row) for row in rows]
    table = _stacked(("Setting", claim.first.name, claim.second.name), cells)
    if len(rows) > MANY:
        table = element("details", element("summary", f"All {len(rows)} fields"), table)
    note = element("p", claim.note) if claim.note else None
    parts = (element("h3", "What was varied"), element("p", words.varied(finding)), note, table)
    return [part for part in parts if part is not None]


def _runs(finding: Finding) -> list[Element]:
    """Return what the runs were made on; with every value, folded."""
    if not finding.runs:
        return []
    name = finding.claim.name
    parts = [
        _table(f"{name}: all values", *words.raw(finding)),
        _pairs_of(words.provenance(finding.runs)),
    ]
    if finding.tried:
        tried = _table(f"{name}: learning rates tried", *words.tried(finding))
        parts += [element("p", words.TRIED, class_="small"), tried]
    return [
        element("p", words.setting(finding.runs), class_="small"),
        element("details", element("summary", "All values, data and versions"), *parts),
    ]


def _check(check: Check) -> Element:
    """Return the section of a claim that is arithmetic."""
    rows = [((r.what,), (r.stated,), (r.ours,), _lines(r)) for r in check.rows]
    return element(
        "section",
        *_heading(check.name, check.section, check.sentence),
        element("p", _agreement(check.agrees), " ", words.checked(check), class_="verdict-line"),
        _stacked(("What", "Stated", "Computed here", "Verdict"), rows),
        id=words.anchor(check.name),
        class_="holds" if check.agrees else "reversed",
    )


def _lines(row: Row) -> tuple[Child, ...]:
    """Return whether a line agrees, with what there is to say about it."""
    note = element("span", row.note, class_="note") if row.note else None
    return _agreement(row.agrees), note
