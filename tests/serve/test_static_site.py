"""The page without a server: its folder behind a plain file server, in a real browser."""

import base64
import contextlib
import functools
import http.server
import threading

import numpy as np
import pytest
from PIL import Image

from alexnet.data.decode import resize_and_crop
from alexnet.errors import AlexNetError, ConfigError
from alexnet.interop.export import generate_images
from alexnet.serve.static_site import RUNTIME, SHARD_BYTES, export_site
from tests.interop.conftest import model_of, narrow
from tests.interop.runtimes import find_onnxruntime_web
from tests.serve.test_page import CHROMIUM, FLAGS, expect, sync_api

DIST = find_onnxruntime_web()
in_browser = [
    pytest.mark.slow,  # a browser starts, and compiles onnxruntime-web
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM} on this machine"),
    pytest.mark.skipif(
        DIST is None, reason="onnxruntime-web is not installed: npm install onnxruntime-web"
    ),
]
SIZES = ((331, 250), (250, 331), (301, 402), (60, 47), (236, 236))  # larger, odd, smaller, equal


@pytest.fixture(scope="module")
def model():
    """Return a network whose channels are BGR and whose mean is an image."""
    return model_of(narrow("caffe"))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory, model):
    """Return files of several sizes: one is a JPEG that lies on its side."""
    folder, files = tmp_path_factory.mktemp("photographs"), []
    for number, (size, pixels) in enumerate(zip(SIZES, generate_images(400, 9)[4:], strict=True)):
        image = Image.fromarray(pixels.numpy()).resize(size)
        files.append(folder / f"{number}.png")
        image.save(files[-1])
    turned = Image.Exif()
    turned[0x0112] = 6
    image.save(folder / "turned.jpg", quality=95, exif=turned)
    return [*files, folder / "turned.jpg"]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(tmp_path_factory, model):
    """Serve the folder as any host would, without a header of its own."""
    folder = tmp_path_factory.mktemp("web") / "site"
    export_site(model, folder, DIST, generate_images(model.resize_to, 3), "generated")
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@contextlib.contextmanager
def opened(address, *flags):
    """Open the page in a browser of its own; what it asks of elsewhere fails the test."""

    def is_elsewhere(url: str) -> bool:
        return not url.startswith((address, "blob:", "data:"))

    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])
        page, strayed = browser.new_page(viewport={"width": 1280, "height": 800}), []
        page.on("console", lambda said: strayed.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: strayed.append(str(error)))
        page.on("request", lambda one: strayed.append(one.url) if is_elsewhere(one.url) else None)
        page.goto(address)
        expect(page.locator("#about")).to_contain_text("20 classes", timeout=60_000)
        yield page
        assert not strayed
        browser.close()


@pytest.fixture(scope="module")
def page(address):
    with opened(address) as page:
        yield page


def answer(page, file, views):
    """Return what the page's own question for a photograph is answered, in full."""
    return page.evaluate(
        """async ([content, views]) => {
          const { request } = await import("./api.js");
          const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
          return request("predict", { query: { top: 20, views }, photograph: new Blob([bytes]) });
        }""",
        [base64.b64encode(file.read_bytes()).decode(), views],
    )


def assert_ranks_as_predict_does(page, model, file, views):
    found = answer(page, file, views)["predictions"][0]
    wanted = model.in_float32.predict(file, top=20, crops=views)
    assert [one["name"] for one in found[:5]] == [one.name for one in wanted[:5]], file
    chances = {one.name: one.probability for one in wanted}
    off = max(abs(one["probability"] - chances[one["name"]]) for one in found)
    assert off < 1e-2, (file, views)


class TestWithAGPU:
    """Chromium's WebGPU, which SwiftShader computes on the processor; before the other browser."""

    pytestmark = in_browser

    def test_the_page_ranks_as_predict_does(self, address, model, photographs):
        with opened(address, "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader") as page:
            expect(page.locator("#about")).to_contain_text("WebGPU")
            for file in (photographs[2], photographs[-1]):
                assert_ranks_as_predict_does(page, model, file, views=1)


class TestInTheBrowser:
    pytestmark = in_browser

    def test_the_page_ranks_as_predict_does(self, page, model, photographs):
        for file in photographs:
            for views in (1, 10):
                assert_ranks_as_predict_does(page, model, file, views)

    def test_what_it_shows_is_the_answer(self, page, model, photographs):
        page.set_input_files("#choose", photographs[2])
        page.get_by_label("ten views").check()
        wanted = model.in_float32.predict(photographs[2])
        expect(page.locator("#bars .name")).to_have_text([one.name for one in wanted])
        expect(page.locator("#crop .view")).to_have_count(5)
        page.get_by_text("What decides").click()
        expect(page.locator("#decides-grid rect")).to_have_count(49, timeout=30_000)
        expect(page.locator("#decides-words")).to_contain_text(wanted[0].name)

    def test_a_file_that_is_no_photograph_is_a_sentence(self, page, tmp_path):
        (tmp_path / "note.txt").write_text("no pixels")
        page.set_input_files("#choose", tmp_path / "note.txt")
        expect(page.locator("#answer-note")).to_have_text("This browser cannot read such a file.")

    @pytest.mark.parametrize(("size", "to"), [((97, 61), 32), ((61, 98), 32), ((20, 31), 64)])
    def test_resizing_is_pillows(self, page, size, to):
        pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
        width, height = size
        side = min(size)
        box = [(width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2]
        data = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)]).ravel().tolist()
        found = page.evaluate(
            """async ([data, width, height, box, to]) => {
              const { resizeSquare } = await import("./pixels.js");
              return Array.from(resizeSquare({ data, width, height }, box, to));
            }""",
            [data, width, height, box, to],
        )
        wanted = np.asarray(resize_and_crop(Image.fromarray(pixels), to))
        off = np.abs(np.reshape(found, (to, to, 3)) - wanted.astype(int))
        assert off.max() <= (1 if height > width else 0)  # Pillow 13 begins with columns there


def test_a_folder_without_the_runtime_is_a_sentence(model, tmp_path):
    images = generate_images(model.resize_to, 3)
    with pytest.raises(ConfigError, match=r"has no ort\.wasm.*npm install onnxruntime-web"):
        export_site(model, tmp_path / "site", tmp_path, images, "generated")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_whole_or_not_at_all(model, tmp_path, monkeypatch):
    runtime, images = tmp_path / "dist", generate_images(model.resize_to, 3)
    runtime.mkdir()
    for name in RUNTIME:
        (runtime / name).write_bytes(b"")
    monkeypatch.setattr("alexnet.serve.static_site.SHARD_BYTES", 300_000)
    written = export_site(model, tmp_path / "site", runtime, images, "generated")
    parts = sorted((tmp_path / "site").glob("model-*.bin"))
    assert written.shards == len(parts) > 1
    assert all(part.stat().st_size <= 300_000 <= SHARD_BYTES for part in parts)
    with pytest.raises(ConfigError, match="has files in it"):
        export_site(model, tmp_path / "site", runtime, images, "generated")
    (runtime / RUNTIME[-1]).unlink()
    (runtime / RUNTIME[-1]).mkdir()  # is no file: refused before anything is written
    with pytest.raises(ConfigError):
        export_site(model, tmp_path / "other", runtime, images, "generated")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["dist", "site"]


@pytest.mark.parametrize("small_disk", [3000], indirect=True)
def test_a_full_disk_is_a_sentence_and_leaves_nothing(model, small_disk, tmp_path):
    runtime, images = tmp_path / "dist", generate_images(model.resize_to, 3)
    runtime.mkdir()
    for name in RUNTIME:
        (runtime / name).write_bytes(bytes(2_000_000))
    with pytest.raises(AlexNetError, match=r"disk is full: .*/site' could not be written"):
        export_site(model, small_disk / "site", runtime, images, "generated")
    assert list(small_disk.iterdir()) == []
