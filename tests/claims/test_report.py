"""The report: opened in a real browser, rendered from Markdown, and held against its numbers."""

import json
import math
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt

from alexnet.claims import plots, report
from alexnet.claims.claim import TUNING_SEED, Claim, RunResult
from alexnet.claims.report import judge_claim, tabulate_changes, write_report
from alexnet.claims.verdict import Measurement, Verdict
from alexnet.config import from_json
from alexnet.errors import MissingExtraError
from tests.claims.samples import (
    CONFOUNDED,
    COUNTS,
    FIGURE_1,
    HOSTILE,
    LRN,
    NEVER,
    VIEWS,
    WITH,
    WITHOUT,
    everything,
    figure_1_results,
    paired,
    result,
)

COMMAND = "alexnet claims --seeds 5"
NOTE = "The images are <i>JPEG</i> copies."


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """Return a folder with the report of claims of every kind."""
    folder = tmp_path_factory.mktemp("report")
    assert write_report(*everything(), folder, command=COMMAND, notes=[NOTE]) == (
        folder / "report.html",
        folder / "report.md",
    )
    return folder


def test_same_results_make_the_same_bytes_also_after_json(written, tmp_path):
    claims, results = everything()
    lines = [json.dumps(asdict(one)) for one in results]
    write_report(claims, [from_json(RunResult, json.loads(line)) for line in lines], tmp_path,
          command=COMMAND, notes=[NOTE])  # fmt: skip
    for name in ("report.html", "report.md"):
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes()


def test_every_verdict_is_in_both_forms(written):
    page, document = ((written / name).read_text() for name in ("report.html", "report.md"))
    claims, results = everything()
    findings = [judge_claim(c, results) for c in claims if isinstance(c, Claim)]
    assert {finding.comparison.verdict for finding in findings} == set(Verdict)
    for verdict in map(report.format_verdict, findings):
        assert f"</span> {verdict}</span>" in page
        assert f"**{verdict}**" in document


def test_both_forms_say_the_same_numbers(written):
    page, document = ((written / name).read_text() for name in ("report.html", "report.md"))
    claims, results = everything()
    for claim in claims:
        if isinstance(claim, Claim):
            finding = judge_claim(claim, results)
            said = [
                report.format_effect(finding),
                report.format_spread(finding),
                report.format_paper_effect(claim),
                report.format_half_width(finding),
            ]
            said += [cell for row in report.tabulate_values(finding)[1] for cell in row[1:4]]
            for text in said:
                assert text in page
                assert text in document


def test_markdown_shows_hostile_names_as_text_and_keeps_its_tables(written):
    renderer = MarkdownIt("commonmark").enable("table")
    tokens = renderer.parse((written / "report.md").read_text())
    kinds = {token.type for token in tokens}
    inline = [child for token in tokens for child in token.children or ()]
    assert "html_block" not in kinds
    assert not [child for child in inline if child.type in ("html_inline", "link_open")]
    texts = ["".join(c.content for c in token.children or ()) for token in tokens]
    assert any(HOSTILE in text for text in texts)
    assert texts.count("Verdict") == 2  # the table of all claims, and that of counts
    tables = [token for token in tokens if token.type == "table_open"]
    assert len(tables) == 1 + 10 * len(("numbers", "settings", "provenance", "values")) + 2


def test_a_claim_that_was_never_run_is_there_and_says_so(tmp_path):
    page, document = write_report([NEVER], [], tmp_path)
    for path in (page, document):
        assert "no finished pair of runs" in path.read_text()
        assert Verdict.TOO_FEW.value in path.read_text()


def test_stopped_runs_are_said_to_be_a_bound():
    finding = judge_claim(FIGURE_1, figure_1_results(np.random.default_rng(7)))
    assert report.format_effect(finding).startswith("at least ")
    assert report.format_interval(finding).endswith(" times or more")
    assert any("2 of 5 runs of tanh" in text for _, text in report.list_cautions(finding))
    rows = report.tabulate_values(finding)[1]
    assert [row[1].startswith("more than 40") for row in rows] == [False, True, False, True, False]
    assert [row[3].startswith("at least") for row in rows] == [False, True, False, True, False]


def test_runs_that_diverged_are_counted_and_said_to_be():
    results = paired(WITHOUT, WITH, 0.01, np.random.default_rng(0))
    why = "The loss is no number at step 12."
    bad = replace(results[2], failed=why, measures=results[2].measures | {"test_error": 0.9})
    assert bad.spec == WITHOUT.spec
    finding = judge_claim(LRN, [*results[:2], bad, *results[3:]])
    assert finding.comparison.seeds == 5
    ((head, text),) = report.list_cautions(finding)
    assert head == "Diverged."
    assert text.startswith("1 of 5 runs of without LRN")
    assert text.endswith(why)


def test_learning_rates_that_were_tried_are_told_apart_from_the_runs_compared():
    finding = judge_claim(FIGURE_1, figure_1_results(np.random.default_rng(7)))
    assert report.tabulate_trials(finding)[1] == [
        ("tanh", "0.001", "37", "37.00 %"), ("tanh", "0.004", "38.5", "38.50 %"),
        ("tanh", "0.016", "40", "40.00 %"), ("ReLU", "0.001", "12", "12.00 %"),
        ("ReLU", "0.004", "7", "7.00 %"), ("ReLU", "0.016", "9", "9.00 %"),
    ]  # fmt: skip
    assert finding.comparison.seeds == 5
    said = report.describe_switch(finding)
    assert "tanh: 0.001, its best of 0.001, 0.004, 0.016, at an end of them." in said
    assert "ReLU: 0.004, its best of 0.001, 0.004, 0.016." in said
    assert "best" not in report.describe_switch(judge_claim(FIGURE_1, []))


def test_a_rate_is_not_said_to_be_chosen_before_all_are_tried():
    results = figure_1_results(np.random.default_rng(7))
    tanh = [run for run in results if run.seed == TUNING_SEED and run.spec == FIGURE_1.first.spec]
    said = report.describe_switch(judge_claim(FIGURE_1, tanh[:2]))
    assert said.endswith("Learning rate of tanh: not chosen yet, tried so far: 0.001, 0.004.")


def test_seeds_that_another_claim_asked_of_a_shared_arm_are_not_this_ones():
    """Nothing of it is missing, and its pictures and hours are of the runs that it compares."""
    results = paired(WITHOUT, WITH, 0.03, np.random.default_rng(0))
    finding = judge_claim(replace(LRN, seeds=3), [run for run in results if run.seed < 3] + [
        run for run in results if run.seed >= 3 and run.spec == WITH.spec])  # fmt: skip
    assert (finding.comparison.seeds, finding.comparison.left_out) == (3, ())
    assert not list(report.list_cautions(finding))
    assert len(finding.runs) == 6
    missing = judge_claim(LRN, [run for run in results if run.spec == WITH.spec or run.seed < 3])
    assert missing.comparison.left_out == (3, 4)


def test_what_was_not_seen_is_said_from_end_to_end():
    """Runs that leave harm possible, and not the paper's effect, say both."""
    first, second = (dict(enumerate(values)) for values in ((0.10, 0.12, 0.09), (0.12, 0.12, 0.12)))
    results = [
        result(arm, seed, (), test_error=values[seed])
        for arm, values in ((WITHOUT, first), (WITH, second))
        for seed in values
    ]
    finding = judge_claim(replace(LRN, seeds=3, paper_effect=0.04), results)
    said = report.explain_verdict(finding)
    assert "An effect of −5.46 to 2.13 points is not ruled out." in said
    assert said.endswith("above the interval: here the effect is smaller, if there is one.")
    alike = [replace(run, measures={"test_error": 0.2}) for run in results]
    said = report.explain_verdict(judge_claim(replace(LRN, seeds=3), alike))
    assert said.startswith("All pairs differ by the same number")
    assert "paper" not in said


def test_what_networks_give_together_is_not_called_exact(tmp_path):
    several = replace(COUNTS, name="ensemble", is_exact=False)
    for path in write_report([COUNTS, several], [], tmp_path):
        text = path.read_text()
        assert text.count("Computed here, not trained for.") == 1
        assert text.count("other seeds would give other numbers") == 1
    assert "| ensemble | stated | 1 of 2 agree | unknown |" in text
    assert "| counts | stated | 1 of 2 agree | exact |" in text


def test_changes_are_one_row_for_a_part_that_one_arm_lacks():
    assert tabulate_changes(FIGURE_1)[1] == [
        ("spec.activation", "tanh", "relu"),
        ("recipe.lr", "0.001", "0.004"),
    ]
    whole = "alpha 0.001, beta 0.75, k 1, size 9, span tower"
    assert tabulate_changes(LRN)[1] == [
        ("spec.convs.conv1.norm", "none", whole),
        ("spec.convs.conv2.norm", "none", whole),
    ]
    assert tabulate_changes(CONFOUNDED)[1][-1] == ("recipe.epochs", "100", "20")
    assert tabulate_changes(VIEWS)[1] == [("measure", "test_error", "test_error_10_views")]


def test_numbers_have_the_signs_and_units_of_a_printed_page():
    assert report.format_amount(-0.0142, LRN) == "−1.42 points"
    assert report.format_amount(-0.00001, LRN) == "0.00 points"
    assert report.format_amount(0.01, LRN, exact=True) == "1 point"
    assert report.format_amount(6.04, FIGURE_1) == "6.04 times"
    assert (
        report.format_measurement(Measurement(40, censored=True), is_fraction=False)
        == "more than 40"
    )
    assert report.format_number(math.nan, is_fraction=True) == "not finite"


@pytest.mark.parametrize("claim", [LRN, replace(LRN, ratio=True), replace(LRN, is_fraction=False)])
def test_the_picture_shows_the_numbers(claim):
    finding = judge_claim(claim, paired(WITHOUT, WITH, 0.03, np.random.default_rng(4)))
    comparison = finding.comparison
    with plots.page_style():
        values, differences = plots.draw_pairs(finding).axes
    for arm, name in ((1, "first"), (2, "second")):
        assert drawn(values, f"dot {name}") == [pair[arm].value for pair in comparison.pairs]
        assert drawn(values, f"mean {name}")[::2] == [comparison.means[arm - 1]]
    each = [a.value / b.value if claim.ratio else a.value - b.value for _, a, b in comparison.pairs]
    assert drawn(differences, "dot soft") == each
    assert drawn(differences, "diamond") == [comparison.effect]
    assert drawn(differences, "interval") == [*comparison.interval] * 2  # its ends and its line
    assert drawn(differences, "zero") == [1 if claim.ratio else 0] * 2
    assert drawn(differences, "paper") == [claim.paper_effect] * 2


def drawn(axes, name):
    """Return where everything of a name stands on the upright axis."""
    return [float(y) for line in axes.lines if line.get_gid() == name for y in line.get_ydata()]


def test_an_open_end_of_an_interval_is_drawn_to_the_end_of_its_axis():
    finding = judge_claim(FIGURE_1, figure_1_results(np.random.default_rng(7)))
    with plots.page_style():
        values, differences = plots.draw_pairs(finding).axes
    assert len(drawn(values, "dot first open")) == len(drawn(differences, "dot soft open")) == 2
    assert max(drawn(differences, "interval")) == differences.get_ylim()[1]
    assert min(drawn(differences, "interval")) == finding.comparison.interval[0]


@pytest.mark.parametrize("values", [(0.2, 0.2, 0.2), (5.0,), (1e-6, 1.0, 1000.0), (-3.0, 7.0)])
@pytest.mark.parametrize("ratio", [False, True])
def test_whatever_runs_gave_has_a_picture_with_some_ticks(values, ratio):
    results = [
        result(arm, seed, (), test_error=value)
        for seed, value in enumerate(values) for arm in (WITH, WITHOUT)
    ]  # fmt: skip
    finding = judge_claim(replace(LRN, ratio=ratio, is_fraction=False), results)
    with plots.page_style():
        for axes in plots.draw_pairs(finding).axes:
            low, high = axes.get_ylim()
            assert low < high
            assert 1 <= sum(low <= tick <= high for tick in axes.get_yticks()) <= 12


def test_mean_curve_is_the_mean_where_all_seeds_have_a_point():
    lines = [[(1.0, 0.8), (2.0, 0.6), (3.0, 0.2)], [(1.0, 0.6), (2.0, 0.2)], []]
    assert plots.average_curves(lines) == [(1.0, pytest.approx(0.7)), (2.0, pytest.approx(0.4))]
    assert plots.average_curves([]) == []


def test_one_run_measured_in_two_ways_has_no_curves_to_compare():
    results = paired(WITHOUT, WITH, 0.01, np.random.default_rng(0))
    with plots.page_style():
        assert list(plots.draw_loss_curves(judge_claim(VIEWS, results))) == []
        assert len(list(plots.draw_loss_curves(judge_claim(LRN, results)))) == 1


@pytest.mark.parametrize("package", ["matplotlib", "scipy", "scipy.special"])
def test_without_a_package_the_extra_is_named(package, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'alexnet\[claims\]'"):
        write_report(*everything(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_runs_without_curves_are_reported_without_their_picture(tmp_path):
    bare = [result(arm, seed, (), test_error=0.1 + 0.01 * seed + 0.02 * (arm is WITHOUT))
            for seed in range(3) for arm in (WITH, WITHOUT)]  # fmt: skip
    page, _ = write_report([LRN], bare, tmp_path)
    assert page.read_text().count("<figure>") == 1


# What follows needs a browser.

CHROMIUM = next(
    filter(Path.exists, map(Path, ("/usr/bin/chromium", "/usr/bin/google-chrome"))), None
)
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
SIZES = {"phone": (360, 740), "desktop": (1280, 900)}
# Sizes change the layout and schemes the colours, neither the other: two readers see all four.
READERS = [("phone", "dark"), ("desktop", "light")]


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        yield opened
        opened.close()


@pytest.fixture(scope="module", params=READERS, ids="-".join)
def opened(request, browser, written):
    """Open the report on a phone at night and on a desk by day, with all its details unfolded.

    Whatever the browser complains about or asks the network for fails the test.
    """
    size, scheme = request.param
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, offline=True
    )
    page, complaints, requests = context.new_page(), [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda asked: requests.append(asked.url))
    page.goto((written / "report.html").as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    yield page
    assert complaints == []
    assert requests == [(written / "report.html").as_uri()]
    context.close()


def test_page_is_whole_wherever_it_is_read(opened):
    sizes = opened.evaluate(
        "[...document.querySelectorAll('figure > svg')].map(one => {"
        " const box = one.getBoundingClientRect(), drawn = one.getBBox();"
        " return [box.width, box.height, drawn.width, drawn.height, one.getAttribute('aria-label')]"
        "})"
    )
    assert (
        len(sizes) == 9 + 9
    )  # pairs of all claims that were run; curves: two of gap, none of views
    assert all(min(width, height, across, down) > 150 for width, height, across, down, _ in sizes)
    assert all(re.search(r"\d", told) for *_, told in sizes)
    across = opened.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert across[0] <= across[1]
    assert opened.locator("script, img, link").count() == 0
    assert HOSTILE in opened.locator("#claim-relu").inner_text()
    assert NOTE in opened.locator("main").inner_text()
    assert opened.title()


def test_page_breaks_no_rule_of_accessibility(opened):
    """Contrast, headings, names of pictures, headers of tables: as axe checks them."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe is not installed"
    )
    violations = axe.Axe().run(opened).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"][:200]) for one in violations] == []


def test_texts_of_pictures_are_readable_in_either_scheme(opened):
    """WCAG's 4.5 to 1 for texts in pictures, 3 to 1 for what is drawn; axe looks at neither."""
    ratios = opened.evaluate(CONTRASTS)
    assert len(ratios) > 400
    poor = [one for one in ratios if one[1] < (4.5 if one[0] == "text" else 3)]
    assert poor == []


CONTRASTS = """
(() => {
  const light = text => {
    const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const page = light(getComputedStyle(document.body).backgroundColor);
  const ratio = colour => {
    const [low, high] = [light(colour), page].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const found = [];
  for (const one of document.querySelectorAll("svg text"))
    found.push(["text", ratio(getComputedStyle(one).fill)]);
  const lines = "svg :is(.curve, .mean, .interval, .zero, .paper) path";
  for (const one of document.querySelectorAll(lines))
    found.push(["line", ratio(getComputedStyle(one).stroke)]);
  for (const one of document.querySelectorAll("svg :is(.dot:not(.open), .diamond) use"))
    found.push(["dot", ratio(getComputedStyle(one).fill)]);
  return found;
})()
"""


def test_figure_1_has_relu_solid_and_tanh_dashed_and_the_line_of_25_percent(opened):
    figure = opened.locator("#claim-relu figure").nth(1)
    assert figure.locator("figcaption").inner_text().startswith("Figure 1 of the paper")
    dashes = figure.evaluate(
        "one => [...one.querySelectorAll('.curve:not(.thin)')].map(curve => ["
        " curve.classList.contains('second'),"
        " getComputedStyle(curve.querySelector('path')).strokeDasharray !== 'none'])"
    )
    assert dashes == [[False, True], [True, False]]
    assert figure.locator(".curve.thin").count() == 10
    legend = figure.locator("text").all_text_contents()
    assert {"Training error", "tanh", "ReLU", "25 %", "epochs"} <= set(legend)
    assert figure.locator(".paper").count() == 1


def test_a_claim_that_fails_is_as_loud_as_one_that_holds(opened):
    looks = {}
    for name in ("relu", "views", "overlap", "pca", "one-seed"):
        badge = opened.locator(f"#claim-{name} .verdict-line .badge")
        looks[name] = badge.evaluate(
            "one => { const style = getComputedStyle(one);"
            " return [style.fontSize, style.fontWeight, style.color]; }"
        )
        assert badge.inner_text()[0] in report.SYMBOLS.values()
        assert opened.locator("table.summary .badge", has_text=badge.inner_text()[2:]).count()
    assert len({tuple(look[:2]) for look in looks.values()}) == 1
    assert len({look[2] for look in looks.values()}) == 5


def test_links_of_the_table_lead_to_their_claims(opened):
    targets = opened.evaluate(
        "[...document.querySelectorAll('table.summary a')]"
        ".map(one => document.querySelectorAll(one.getAttribute('href')).length)"
    )
    assert targets == [1] * 11
