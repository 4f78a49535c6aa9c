"""The page in a real browser, before a real server of a run that was trained a moment ago.

The classes of that run have names that would be HTML if anything took them for it.
"""

import base64
import json
import os
import re
import shutil
import time
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import pytest

from alexnet.explain import METHODS
from alexnet.variants import NETWORKS
from tests.conftest import QUICK

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect
expect.set_options(timeout=10_000)

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
HOSTILE = ("<img src=x onerror=document.title='ran'>", "<b>&amp; defective")
PANELS = ("network", "decides", "neighbours", "filters", "switches", "window", "training")

pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"there is no {CHROMIUM} on this machine"
)


@pytest.fixture(scope="session")
def hostile_run(photographs, tmp_path_factory, command) -> Path:
    """Return a run, not yet finished as its files say, whose classes are called like HTML."""
    root = tmp_path_factory.mktemp("hostile")
    for split in ("train", "test"):
        for plain, name in zip(("functional", "defective"), HOSTILE, strict=True):
            shutil.copytree(photographs / split / plain, root / "images" / split / name)
    run = root / "run"
    done = command("train", root / "images", "--out", run, *QUICK, "--max-steps", "12")
    assert done.returncode == 0, done.stderr
    (run / "test.json").unlink()
    return run


@pytest.fixture(scope="session")
def address(serving, hostile_run) -> str:
    """Serve the run, and wait until its training images have been looked at."""
    server = serving(hostile_run)
    while server.get("/v1/exciting?layer=conv1&unit=0").status_code == 503:
        time.sleep(0.1)
    return f"{server.url}/"


@pytest.fixture(scope="module")  # playwright's event loop must not outlast these tests
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, address):
    """Return the page, opened; whatever its console says against it fails the test."""
    yield from opened(chromium, address)


@pytest.fixture
def phone(chromium, address):
    look = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    yield from opened(chromium, address, **look)


def opened(chromium, address, **look):
    context = chromium.new_context(**{"viewport": {"width": 1280, "height": 800}, **look})
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address.rstrip("/"))
    context.set_default_timeout(10_000)
    page, complaints = context.new_page(), []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.complaints = complaints
    page.goto(address)
    expect(page.locator("#about")).to_contain_text("2 classes")
    yield page
    context.close()
    assert not page.complaints


@pytest.fixture(scope="session")
def held_out(photographs) -> Path:
    """Return a photograph that the run was not trained on."""
    return sorted((photographs / "test").rglob("*.png"))[0]


def choose(page, held_out: Path):
    page.set_input_files("#choose", held_out)
    expect(page.locator("#bars .name")).to_have_count(2)


def drop(page, held_out: Path):
    """Drop a file on the page: a DataTransfer that the browser made, and its drop event."""
    transfer = page.evaluate_handle(
        """async ([content, name]) => {
          const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], name, { type: "image/png" }));
          return transfer;
        }""",
        [base64.b64encode(held_out.read_bytes()).decode(), held_out.name],
    )
    page.dispatch_event("#drop", "dragover", {"dataTransfer": transfer})
    expect(page.locator("#dropping")).to_be_visible()
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    expect(page.locator("#dropping")).to_be_hidden()


def paste(page, held_out: Path):
    """Put an image on the system's clipboard, and press Ctrl+V."""
    page.evaluate(
        """async (content) => {
          const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
          const blob = new Blob([bytes], { type: "image/png" });
          await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
        }""",
        base64.b64encode(held_out.read_bytes()).decode(),
    )
    page.keyboard.press("Control+V")


def answer(page) -> list[tuple[str, str]]:
    """Return what the bars say: names and percentages, in order."""
    expect(page.locator("#bars .name")).to_have_count(2)
    expect(page.locator("#bars:not([aria-busy])")).to_be_visible()
    return list(
        zip(
            page.locator("#bars .name").all_inner_texts(),
            page.locator("#bars .share").all_inner_texts(),
            strict=True,
        )
    )


def shown(share: float) -> str:
    return "< 0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"


@pytest.fixture(scope="session")
def ranked(command, hostile_run, held_out):
    """Return what ``alexnet predict`` says of the held_out, by views."""
    said = {}
    for views in (1, 10):
        done = command("predict", hostile_run, held_out, "--views", str(views), "--json")
        assert done.returncode == 0, done.stderr
        (image,) = json.loads(done.stdout)["images"]
        said[views] = [(one["name"], shown(one["probability"])) for one in image["predictions"]]
    return said


@pytest.mark.parametrize("give", [choose, drop, paste])
def test_a_photograph_is_answered_as_the_command_answers(give, page, held_out, ranked):
    give(page, held_out)
    assert answer(page) == ranked[1]
    page.get_by_label("ten views").check()
    expect(page.locator("#crop .view")).to_have_count(10)
    assert answer(page) == ranked[10]


def test_a_stranger_without_a_photograph_gets_an_example(page):
    page.get_by_role("button", name="An example").click()
    assert len(answer(page)) == 2
    expect(page.locator("#crop .view")).not_to_have_count(0)


def test_a_server_with_a_token_asks_for_it(chromium, serving, hostile_run, held_out):
    server = serving(hostile_run, "--token", "swordfish")
    page = chromium.new_page()
    page.goto(f"{server.url}/")
    expect(page.locator("#about")).to_contain_text("no token, or a wrong one")
    page.get_by_label("This server asks for its token").fill("swordfish")
    page.get_by_role("button", name="Go on").click()
    expect(page.locator("#about")).to_contain_text("2 classes")
    choose(page, held_out)
    page.close()
    server.stop()


def settled(page, panel: str):
    """Show a panel and wait until it asks for nothing more."""
    page.locator(f"nav a[href='#{panel}']").click()
    expect(page.locator(f"#{panel}")).to_be_visible()
    expect(page.locator("[aria-busy]")).to_have_count(0)


def test_every_panel_opens_and_shows_what_it_promises(page, held_out):
    choose(page, held_out)
    promised = {
        "network": "#units canvas",
        "decides": "#decides-grid rect",
        "neighbours": "#neighbours-list img",
        "filters": "#filters-picture",
        "switches": "#switch-bars .now",
        "window": "#window-drawing circle",
        "training": "#training-charts polyline",
    }
    assert tuple(promised) == PANELS
    for panel, content in promised.items():
        settled(page, panel)
        expect(page.locator(content).first).to_be_visible()
        expect(page.locator(".panel:visible")).to_have_count(1)
    expect(page.locator(".wrong")).to_have_count(0)


def test_what_decides_offers_the_methods_and_says_what_each_is(page, held_out):
    choose(page, held_out)
    settled(page, "decides")
    methods = page.locator("#decides-method option").all_inner_texts()
    assert methods == ["grey square", *METHODS]
    said = set()
    for method in ("grad-cam", "saliency", "integrated-gradients", "deconvolution"):
        page.locator("#decides-method").select_option(method)
        expect(page.locator("#decides-words")).to_contain_text("speaks for it most")
        expect(page.locator("[aria-busy]")).to_have_count(0)
        said.add(page.locator("#decides-lead").inner_text())
        cells = page.locator("#decides-grid rect")
        assert cells.count() == 32 * 32
        shares = cells.evaluate_all("all => all.map(one => +one.getAttribute('fill-opacity'))")
        assert max(shares) == pytest.approx(0.75)
        assert min(shares) < 0.3
    assert len(said) == 4
    page.locator("#decides-class").select_option(index=1)
    expect(page.locator("#decides-words")).to_contain_text("speaks for it most")
    page.locator("#decides-method").select_option("covering")
    expect(page.locator("#decides-words")).to_contain_text("with nothing covered")


def test_a_unit_shows_an_image_made_to_excite_it(page, held_out):
    choose(page, held_out)
    page.locator("#layers input[value=conv2]").check(force=True)
    page.locator("#units input").nth(3).check(force=True)
    page.locator(".optimised button").click()
    expect(page.locator(".optimised img")).to_be_visible(timeout=60_000)
    expect(page.locator(".optimised")).to_contain_text("Made to excite it most:")


def test_every_layer_shows_its_maps_and_a_unit_what_made_them(page, held_out):
    choose(page, held_out)
    maps = {"conv1": 32, "pool1": 32, "conv2": 32, "pool2": 32, "conv3": 64, "pool3": 64}
    for layer, count in maps.items():
        page.locator(f"#layers input[value={layer}]").check(force=True)
        expect(page.locator("#layer-title")).to_have_text(layer)
        expect(page.locator("#units label")).to_have_count(count)
        page.locator("#units input").nth(3).check(force=True)
        expect(page.locator("#unit-title")).to_have_text(f"{layer}, map 4 of {count}")
        expect(page.locator("#unit-figures canvas")).to_have_count(2)  # the map, and its filter
        expect(page.locator("#unit-figures .patches img")).not_to_have_count(0)
    page.locator("#layers input[value=fc10]").check(force=True)
    page.locator("#units input[type=number]").fill("2")
    page.locator("#units input[type=number]").press("Enter")
    expect(page.locator("#unit-title")).to_have_text(f"fc10: {sorted(HOSTILE)[1]}")


DRAWN = """async (model) => {
  const { draw } = await import("/static/drawing.js");
  const drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  draw(drawing, model, () => {});
  const corners = (shape) => [...shape.points].map(({ x, y }) => [x, y]);
  const boxes = (layer) => [...layer.querySelectorAll("g")].map((box) =>
    [...box.querySelectorAll("polygon")].map(corners));
  const windows = drawing.querySelectorAll(".window").length;
  return [[...drawing.querySelectorAll(".box")].map(boxes), windows];
}"""


@pytest.mark.parametrize("spec", NETWORKS.values(), ids=NETWORKS)
def test_every_network_is_drawn_to_scale_and_no_layer_covers_another(page, spec):
    """Heights are as the sides of the maps, thicknesses as their numbers (spec.py counts both)."""
    rows = list(spec.layers())
    model = {"spec": asdict(spec), "layers": [asdict(row) for row in rows], "towers": spec.towers}
    layers, windows = page.evaluate(DRAWN, model)
    seen = [len(layers[0])] + [spec.towers] * (len(rows) - 2) + [1]
    assert [len(boxes) for boxes in layers] == seen
    sides = [  # of each layer: thickness and height of the front of its boxes
        (box[0][1][0] - box[0][0][0], box[0][2][1] - box[0][1][1])
        for (box, *_), row in zip(layers, rows, strict=True)
        if row.kind != "dense"
    ]
    for row, (thickness, height) in zip(rows[1:], sides[1:], strict=False):
        assert height / row.size == pytest.approx(
            sides[0][1] / spec.image_size, rel=0.05
        )  # 0.1 rounded
        assert thickness / row.channels == pytest.approx(sides[1][0] / rows[1].channels, rel=0.05)
    spans = [[x for box in boxes for shape in box for x, _ in shape] for boxes in layers]
    assert all(max(left) < min(right) for left, right in pairwise(spans))
    seers = [row for row in rows if row.kind in ("conv", "pool")]
    crossing = sum(not conv.grouped for conv in spec.convs[1:]) if spec.towers == 2 else 0
    assert windows == spec.towers * len(seers) + 2 * crossing


def test_the_switches_show_before_and_after(page, held_out, command, hostile_run):
    choose(page, held_out)
    settled(page, "switches")
    assert page.locator("#switch-list input[name=lrn]").is_disabled()  # this network has none
    before = page.locator("#switch-bars .share").all_inner_texts()
    page.locator("#switch-list").get_by_text("No ×0.5 after dropout").click()
    expect(page.locator("#switch-bars .was")).to_have_count(2)
    after = page.locator("#switch-bars .share").all_inner_texts()
    olds = {text.split(" → ")[0] for text in after}
    assert olds == set(before)
    assert {text.split(" → ")[1] for text in after} != olds
    found = set()  # "What decides" asks the network that is so changed
    for switch, note in (
        ("", "Changed under “What if”: No ×0.5 after dropout."),
        ("No ×0.5 after dropout", ""),
        ("Mirrored photograph", "Changed under “What if”: Mirrored photograph."),
    ):
        if switch:
            settled(page, "switches")
            page.locator("#switch-list").get_by_text(switch).click()
        settled(page, "decides")
        page.locator("#decides-method").select_option("saliency")
        expect(page.locator("#decides-words")).to_contain_text("speaks for it most")
        expect(page.locator("[aria-busy]")).to_have_count(0)
        expect(page.locator("#decides-note")).to_have_text(note)
        grid = page.locator("#decides-grid").inner_html()
        found.add((page.locator("#decides-words").inner_text(), grid))
    assert len(found) == 3


@pytest.mark.parametrize(
    ("form", "positions", "last"),
    [("224", 54, 223), ("224, 3 past the edge", 55, 227), ("224, 2 more on each side", 55, 225),
     ("227", 55, 227)],
)  # fmt: skip
def test_the_window_counts_its_positions(page, form, positions, last):
    settled(page, "window")
    page.get_by_label(form, exact=True).check()
    words = page.locator("#window-words")
    expect(words).to_contain_text(f"Window {positions} of {positions} covers")
    expect(words).to_contain_text(f"to {last}.")
    expect(page.locator("#window-drawing .taken")).to_have_count(positions)
    page.locator("#window-slider").press("Home")
    expect(words).to_contain_text(f"Window 1 of {positions}")


def test_the_training_is_followed_as_it_goes_on(page, hostile_run):
    os.utime(hostile_run / "metrics.jsonl")  # as if it had just been written to
    settled(page, "training")
    facts = page.locator("#training-facts")
    expect(facts).not_to_contain_text("4,321")
    with (hostile_run / "metrics.jsonl").open("a") as metrics:
        line = {"step": 4321, "epoch": 9.5, "loss": 0.5, "train_top1": 1, "lr": 0.1}
        metrics.write(json.dumps({**line, "images_per_second": 1234.0}) + "\n")
    expect(facts).to_contain_text("4,321", timeout=10_000)
    expect(facts).to_contain_text("1,234")
    expect(facts).to_contain_text("training now")


def test_names_that_look_like_html_are_text_and_no_script_is_run(page, held_out, tmp_path):
    """Scenario 27: names of classes and of files; the policy refuses scripts within the page."""
    named = tmp_path / "<img src=x onerror=document.title='ran'>.png"
    shutil.copy(held_out, named)
    choose(page, named)
    assert {name for name, _ in answer(page)} == set(HOSTILE)
    expect(page.locator("#picture")).to_have_attribute("alt", re.compile("<img src=x"))
    for panel in PANELS:
        settled(page, panel)
    assert page.title() == "AlexNet: see what it sees"
    assert page.locator("img[src=x]").count() == 0
    refused = page.evaluate(
        """() => new Promise((resolve) => {
          document.addEventListener("securitypolicyviolation", (event) => {
            resolve([event.effectiveDirective, event.blockedURI]);
          });
          const script = document.createElement("script");
          script.textContent = "document.title = 'ran'";
          document.body.append(script);
        })"""
    )
    assert refused == ["script-src-elem", "inline"]
    assert page.title() == "AlexNet: see what it sees"
    page.complaints.clear()  # the browser told of the refusal


def test_what_is_no_image_is_refused_in_a_sentence_and_nothing_old_is_left(
    page, held_out, tmp_path
):
    choose(page, held_out)
    expect(page.locator(".thumb.there")).to_have_count(9)  # the input and all layers
    text = tmp_path / "notes.png"
    text.write_text("no image")
    page.set_input_files("#choose", text)
    alert = page.locator("#answer-note[role=alert]")
    expect(alert).to_contain_text("It is not an image of a known format.")
    for shown in ("#bars .name", ".thumb.there", "#drawing image", "#units label", "#crop path"):
        expect(page.locator(shown)).to_have_count(0)
    page.complaints.clear()  # the browser tells of every answer that is an error


def test_what_is_too_large_is_refused_before_it_is_sent(page, tmp_path):
    large = tmp_path / "large.png"
    large.write_bytes(bytes(20_500_000))
    page.set_input_files("#choose", large)
    expect(page.locator("#crop-note[role=alert]")).to_have_text(
        "large.png has 20.5 MB; the server takes 20.0 MB."
    )
    expect(page.locator("#shown")).to_be_hidden()


def test_the_page_is_used_by_keyboard_alone(page, held_out):
    def tab_to(selector: str):
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("(wanted) => document.activeElement.matches(wanted)", selector):
                return
        raise AssertionError(f"{selector} is not reached by Tab")

    page.on("filechooser", lambda chooser: chooser.set_files(held_out))  # the system's own dialog
    tab_to("#choose")
    page.keyboard.press("Enter")
    assert len(answer(page)) == 2
    tab_to("nav a[href='#network']")
    page.keyboard.press("Enter")
    expect(page.locator("#network-title")).to_be_focused()
    tab_to("#layers input")
    expect(page.locator("#layers :checked")).to_have_attribute("value", "conv1")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#layer-title")).to_have_text("pool1")
    tab_to("#units input")
    page.keyboard.press("Space")
    expect(page.locator("#unit-title")).to_have_text("pool1, map 1 of 32")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#unit-title")).to_have_text("pool1, map 2 of 32")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(page, held_out, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")

    def faults() -> list[str]:
        found = axe.run(page).response["violations"]
        return [
            f"{fault['id']}: {node['html']}"
            for fault in found
            if fault["impact"] in ("serious", "critical")
            for node in fault["nodes"]
        ]

    assert faults() == []
    choose(page, held_out)
    for panel in PANELS:
        settled(page, panel)
        if panel == "network":
            page.locator("#units input").first.check(force=True)
            expect(page.locator("[aria-busy]")).to_have_count(0)
        assert faults() == [], panel


def test_a_phone_never_scrolls_sideways_and_all_is_large_enough_to_hit(phone, held_out):
    choose(phone, held_out)
    for panel in PANELS:
        settled(phone, panel)
        wide = phone.evaluate("document.documentElement.scrollWidth")
        assert wide <= 360, panel
        small = phone.eval_on_selector_all(
            "a, button, select, input, .button",
            """(all) => all.map((one) => one.closest("label") ?? one)
              .filter((one) => one.checkVisibility() && !one.matches(".skip"))
              .map((one) => [one.textContent.trim(), one.getBoundingClientRect()])
              .filter(([, box]) => box.width && (box.height < 43.9 || box.width < 43.9))
              .map(([text, box]) => `${text}: ${box.width}x${box.height}`)""",
        )
        assert small == [], panel
