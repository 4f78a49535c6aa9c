"""Take the pictures of docs/page.md, in Chromium, of a run that is served with its photographs.

    python benchmarks/page_pictures.py RUN PHOTOGRAPH docs/images

The run should have been trained on photographs that are still where they were, by a network of five
convolutions. Each picture is of one panel; what a panel shows is waited for, not timed.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright
from serve_load import started

CHROMIUM = Path("/usr/bin/chromium")
DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "device_scale_factor": 2}
DARK = {"color_scheme": "dark"}


@contextmanager
def serving(run: Path) -> Iterator[str]:
    """Serve a run on a free port of this machine; give the page's address."""
    server, port = started(run, 1)
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait()


@contextmanager
def opened(browser: Browser, address: str, photograph: Path, **look: Any) -> Iterator[Page]:
    """Open the page with a photograph on it."""
    context = browser.new_context(**look)
    page = context.new_page()
    page.goto(address)
    page.set_input_files("#choose", photograph)
    expect(page.locator("#bars .name").first).to_be_visible()
    yield page
    context.close()


def show(page: Page, panel: str) -> None:
    """Open a panel and wait until it asks for nothing more."""
    page.locator(f"nav a[href='#{panel}']").click()
    expect(page.locator("[aria-busy]")).to_have_count(0, timeout=120_000)


def main() -> None:
    """Take all nine."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("run", "photograph", "out"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=60_000)
    with sync_playwright() as playwright, serving(given.run) as address:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

        def take(name: str, page: Page) -> None:
            page.wait_for_timeout(500)  # transitions
            picture = Image.open(BytesIO(page.screenshot())).convert("RGB").quantize(256)
            picture.save(given.out / f"serve-{name}.png", optimize=True)

        with opened(browser, address, given.photograph, **DESKTOP) as page:
            show(page, "network")
            take("desktop", page)
            page.locator("#units input").nth(31).check(force=True)
            page.locator(".optimised button").click()
            expect(page.locator(".optimised img")).to_be_visible(timeout=120_000)
            expect(page.locator("#unit-figures .patches img")).not_to_have_count(0, timeout=120_000)
            page.locator("#layer-title").scroll_into_view_if_needed()
            page.locator(".optimised img").scroll_into_view_if_needed()
            take("unit", page)
            page.evaluate("scrollTo(0, 0)")
            show(page, "decides")
            page.locator("#decides-method").select_option("grad-cam")
            expect(page.locator("#decides-words")).to_contain_text("speaks for it most")
            take("decides", page)
            show(page, "window")
            take("window", page)
            show(page, "switches")
            page.locator("#switch-list").get_by_text("normalisation").first.click()
            expect(page.locator("#switch-bars .was").first).to_be_visible()
            take("switches", page)
            show(page, "training")
            take("training", page)
        with opened(browser, address, given.photograph, **DESKTOP, **DARK) as page:
            show(page, "neighbours")
            take("desktop-dark", page)
        with opened(browser, address, given.photograph, **PHONE) as page:
            take("phone", page)
        with opened(browser, address, given.photograph, **PHONE, **DARK) as page:
            show(page, "network")
            take("phone-dark", page)
        browser.close()


if __name__ == "__main__":
    main()
