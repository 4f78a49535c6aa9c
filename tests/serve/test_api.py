"""What the API answers, against the library asked directly."""

import base64
import io
import json
import shutil
import time
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet.api import load
from alexnet.data.augment import Normaliser
from alexnet.data.shards import open_prepared
from alexnet.device import Device
from alexnet.explain import explain
from alexnet.explain.optimise import Ascent
from alexnet.features import activations, last_hidden, top_activating
from alexnet.layers import Dropout, LocalResponseNorm
from alexnet.network import build
from alexnet.predictor import Predictor, Switches
from alexnet.serve.engine import Networks
from alexnet.serve.service import MAX_LINES, Curves
from alexnet.training.run import Run
from alexnet.variants import SINGLE
from tests.serve.conftest import httpx, reason, saved


@pytest.fixture(scope="module")
def model(trained) -> Predictor:
    return load(trained)


def drawn(uri: str) -> np.ndarray:
    """Return the pixels of a data: address."""
    assert uri.startswith("data:image/")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


@pytest.mark.parametrize("views", [1, 10])
def test_predictions_are_those_of_the_library(server, model, photograph, views):
    answer = server.post(f"/v1/predict?top=2&views={views}", photograph).json()
    expected = model.predict(photograph, top=2, crops=views)
    (ranked,) = answer["predictions"]
    assert [row["label"] for row in ranked] == [one.label for one in expected]
    assert [row["probability"] for row in ranked] == pytest.approx(
        [one.probability for one in expected], abs=1e-5
    )


def test_many_images_in_a_form_are_answered_in_order(server, photographs):
    files = [file.read_bytes() for file in sorted(photographs.rglob("*.png"))[::6]]
    form = [("image", (f"{n}.png", file)) for n, file in enumerate(files)]
    together = httpx.post(server.url + "/v1/predict", files=form, timeout=30)
    alone = [server.post("/v1/predict", file).json()["predictions"][0] for file in files]
    for one, other in zip(together.json()["predictions"], alone, strict=True):
        assert [row["probability"] for row in one] == pytest.approx(
            [row["probability"] for row in other], abs=1e-5
        )
        assert [row["name"] for row in one] == [row["name"] for row in other]


def test_crops_are_boxes_of_the_photograph(server, model):
    """400x200: the square is the middle 200, of which the view is the middle image / prepared."""
    answer = server.post("/v1/predict?views=10", saved(np.zeros((200, 400, 3), np.uint8)))
    (crop,) = answer.json()["crops"]
    assert (crop["width"], crop["height"]) == (400, 200)
    assert crop["square"] == [100, 0, 300, 200]
    share = 200 * model.spec.image_size / model.resize_to
    margin = 200 * ((model.resize_to - model.spec.image_size) // 2) / model.resize_to
    assert crop["view"] == pytest.approx(
        [100 + margin, margin, 100 + margin + share, margin + share]
    )
    assert len(crop["views"]) == 10
    assert crop["views"][0] == crop["views"][1] == crop["view"]
    assert crop["views"][2] == pytest.approx([100, 0, 100 + share, share])


def test_features_are_those_of_the_library(server, model, photograph):
    names = list(server.get("/v1/model").json()["outputs"])
    asked = [names[0], names[-1]]
    answer = server.post(f"/v1/features?layers={','.join(asked)}", photograph).json()
    expected = activations(model, torch.from_numpy(model.load_pixels(photograph))[None], asked)
    for name in asked:
        found = answer["features"][0][name]
        assert found["shape"] == list(expected[name].shape[1:])
        values = np.array(found["values"]).reshape(found["shape"])
        np.testing.assert_allclose(values, expected[name][0], rtol=1e-4, atol=1e-4)


def test_maps_are_drawn_from_black_at_zero_to_white_at_the_largest(server, model, photograph):
    answer = server.post("/v1/maps?layer=conv1", photograph).json()
    pixels = torch.from_numpy(model.load_pixels(photograph))[None]
    maps = activations(model, pixels, ["conv1"])["conv1"][0].numpy()
    assert (answer["maps"], answer["size"]) == (len(maps), maps.shape[1])
    sheet, side = drawn(answer["image"]), answer["size"]
    for number in (0, 5, len(maps) - 1):
        row, column = divmod(number, answer["columns"])
        tile = sheet[row * side : (row + 1) * side, column * side : (column + 1) * side]
        expected = np.clip(maps[number], 0, None) * 255 / maps.max()
        np.testing.assert_allclose(tile, expected, atol=1)
    assert answer["largest"] == pytest.approx(maps.max((1, 2)).tolist(), rel=1e-3, abs=1e-3)
    assert answer["means"] == pytest.approx(maps.mean((1, 2)).tolist(), rel=1e-3, abs=1e-3)


def test_filters_are_the_weights_in_colour_or_of_one_unit_in_grey(server, model):
    first = server.get("/v1/filters?layer=conv1").json()
    weight = model.network.conv1.weight.detach()
    sheet, side = drawn(first["image"]), first["size"]
    tile = sheet[:side, side : 2 * side]  # the second filter
    expected = (weight[1].permute(1, 2, 0) / weight.abs().max() + 1) * 127.5
    np.testing.assert_allclose(tile, expected.numpy(), atol=1)
    second = server.get("/v1/filters?layer=conv2&unit=3").json()
    weight = model.network.conv2.weight.detach()[3]
    assert second["filters"] == len(weight)
    assert drawn(second["image"]).ndim == 2
    assert server.get("/v1/filters?layer=conv2&unit=999").status_code == 404
    assert server.get("/v1/filters?layer=pool1").status_code == 404


@pytest.fixture(scope="module")
def looked_at(server) -> None:
    """Wait until the server has seen its training images."""
    for _ in range(600):
        answer = server.get("/v1/exciting?layer=conv1&unit=0")
        if answer.status_code == 200:
            return
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        time.sleep(0.1)
    raise AssertionError(answer.text)


@pytest.mark.usefixtures("looked_at")
def test_exciting_patches_are_those_of_the_library(server, model, trained):
    split = open_prepared(Run.open(trained).config.data).splits["train"]
    expected = top_activating(model, split, "conv2", [4], 9)[4]
    answer = server.get("/v1/exciting?layer=conv2&unit=4").json()
    assert answer["images"] == len(split) == 36
    assert [patch["activation"] for patch in answer["patches"]] == pytest.approx(
        [one.activation for one in expected], rel=1e-3
    )
    for patch in answer["patches"]:
        left, top, right, bottom = patch["box"]
        assert drawn(patch["image"]).shape == (bottom - top, right - left, 3)


@pytest.mark.usefixtures("looked_at")
def test_neighbours_are_the_nearest_by_brute_force(server, model, trained):
    data = open_prepared(Run.open(trained).config.data)
    split, hidden = data.splits["train"], last_hidden(model.spec)
    pixels = torch.from_numpy(np.stack([split.pixels(n) for n in range(len(split))]))
    vectors = activations(model, pixels, [hidden])[hidden].flatten(1).numpy()
    query = saved(split.pixels(7))
    answer = server.post("/v1/neighbours", query).json()
    distances = np.linalg.norm(vectors - vectors[7], axis=1)
    assert [one["distance"] for one in answer["neighbours"]] == pytest.approx(
        np.sort(distances)[:6].tolist(), rel=1e-3, abs=1e-2
    )
    assert answer["neighbours"][0]["class"] == data.classes[split.label(7)]


def test_occlusion_is_the_prediction_of_the_covered_image(server, model, photograph):
    pixels = model.load_pixels(photograph)
    answer = server.post("/v1/occlusion?label=defective", saved(pixels)).json()
    size, stride = answer["size"], answer["stride"]
    offset = (model.resize_to - model.spec.image_size) // 2
    mean = model.normalise.mean.mean((0, 2, 3)).round().byte().numpy()
    for row, column in ((0, 0), (3, 7), (10, 10)):
        covered = pixels.copy()
        top, left = offset + row * stride, offset + column * stride
        covered[top : top + size, left : left + size] = mean
        expected = model.probabilities(torch.from_numpy(covered)[None])[0, 0]
        assert answer["grid"][row][column] == pytest.approx(float(expected), abs=1e-4)
    assert top + size <= offset + model.spec.image_size
    assert server.post("/v1/occlusion?label=cat", photograph).status_code == 404


@pytest.mark.parametrize("method", ["saliency", "grad-cam", "occlusion"])
def test_an_explanation_is_the_librarys_in_cells(server, model, photograph, method):
    prepared = saved(model.load_pixels(photograph))
    query = f"method={method}&label=defective&lrn=off"
    answer = server.post(f"/v1/explain?{query}", prepared).json()
    switches = Switches(lrn=False)
    whole = explain(model, prepared, method, label="defective", switches=switches).map
    grid = np.array(answer["grid"])
    assert grid.shape == (32, 32)  # a view of 32 pixels has a cell each
    np.testing.assert_allclose(grid, whole, rtol=1e-3, atol=1e-4 * np.abs(whole).max())
    assert (answer["class"], answer["method"], answer["size"]) == ("defective", method, 1)
    unknown = server.post("/v1/explain?method=lime", photograph)
    assert unknown.status_code == 404
    assert "No method is called 'lime'" in reason(unknown)


def test_an_optimised_unit_is_the_librarys_and_excites_it(server, model, trained):
    answer = server.get("/v1/optimised?layer=conv2&unit=3").json()
    ascent = Ascent(model, Run.open(trained).load_statistics(), "conv2", steps=64)
    found = ascent.run(ascent.choose(3))
    assert answer["activation"] == pytest.approx(found.scores[0], rel=1e-2)
    assert np.abs(drawn(answer["image"]).astype(int) - found.images[0]).mean() < 12  # a JPEG
    assert server.get("/v1/optimised?layer=conv2&unit=99").status_code == 404


@pytest.fixture(scope="module")
def networks() -> Networks:
    """Return the paper's network, a sixteenth as wide, with large weights so that LRN matters."""
    spec = replace(
        SINGLE,
        convs=tuple(replace(c, out_channels=c.out_channels // 16, std=0.1) for c in SINGLE.convs),
        dense=tuple(replace(d, units=d.units // 16, std=0.05) for d in SINGLE.dense),
        num_classes=10,
        output_std=0.05,
    )
    network = Device.named("cpu").place_network(build(spec)).eval()
    mean = Normaliser(torch.full((1, 3, 1, 1), 120.0), 1.0, torch.ones(1, 3, 1, 1), False)
    names = tuple(map(str, range(10)))
    cpu = Device.named("cpu")
    return Networks(Predictor(network, names, mean, 256, 1, cpu, torch.float32))


@pytest.mark.parametrize(
    ("switches", "kind"),
    [(Switches(lrn=False), LocalResponseNorm), (Switches(dropout_scale=False), Dropout)],
)
def test_a_switch_takes_layers_out_of_the_same_network(networks, switches, kind):
    images = torch.randint(0, 256, (3, 256, 256, 3), dtype=torch.uint8)
    found = torch.stack(networks.probabilities(switches, 1)(images))
    view = images[:, 14:241, 14:241].permute(0, 3, 1, 2).float() - 120
    out = view
    for layer in networks.predictor.network.children():
        out = out if isinstance(layer, kind) else layer(out)
    torch.testing.assert_close(found, out.detach().softmax(1), rtol=1e-4, atol=1e-5)
    as_trained = torch.stack(networks.probabilities(Switches(), 1)(images))
    assert (found - as_trained).abs().max() > 1e-3


def test_the_network_is_run_for_one_and_for_several_images_before_a_request(networks):
    seen = []

    def forward(pixels):
        seen.append(len(pixels))
        return torch.zeros(len(pixels), 10)

    started = Networks(replace(networks.predictor, forward=forward))
    assert seen == [1, 2]
    assert started.compile() == ""
    assert not started.is_compiled  # in float32 on a processor that gains nothing


def test_the_mirror_switch_is_a_mirrored_photograph(networks):
    images = torch.randint(0, 256, (2, 256, 256, 3), dtype=torch.uint8)
    switched = torch.stack(networks.probabilities(Switches(mirror=True), 1)(images))
    mirrored = torch.stack(networks.probabilities(Switches(), 1)(images.flip(2)))
    # the centre of 256 pixels is 14 from the left and 15 from the right
    shifted = torch.stack(networks.probabilities(Switches(), 1)(images.flip(2).roll(-1, 2)))
    torch.testing.assert_close(switched, shifted, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(switched, mirrored, atol=1e-4)


def test_the_run_is_followed_from_a_step_on(server, trained):
    whole = server.get("/v1/run").json()
    assert whole["lines"] == Run.open(trained).read_metrics()
    later = server.get("/v1/run?after=10").json()
    assert [line["step"] for line in later["lines"]] == [11, 12]
    assert not whole["live"]


@pytest.fixture
def empty_run(trained, tmp_path) -> Run:
    """Return a run that goes on, without a line of metrics yet."""
    shutil.copytree(trained, tmp_path / "run")
    for name in ("metrics.jsonl", "test.json"):
        (tmp_path / "run" / name).unlink()
    return Run.open(tmp_path / "run")


def test_curves_name_the_best_validation_and_are_thinned_where_they_are_long(empty_run):
    lines = []
    for step in range(1, 30_001):
        lines.append({"step": step, "loss": 1 / step, "images_per_second": float(step)})
        if step % 100 == 0:
            lines.append({"step": step, "val_top1": 0.9 if step == 700 else 0.5})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (empty_run.folder / "metrics.jsonl").write_text(text)
    curves = Curves(empty_run)
    found = json.loads(curves.render())
    assert found["best"] == {"step": 700, "val_top1": 0.9}
    assert (found["step"], found["images_per_second"], found["live"]) == (30_000, 30_000.0, True)
    assert sum("val_top1" in line for line in found["lines"]) == 300
    assert MAX_LINES / 2 <= len(found["lines"]) <= MAX_LINES + 300
    new = json.loads(curves.render(29_900))["lines"]  # whose validation came after its loss
    assert [line["step"] for line in new] == [29_900, *range(29_901, 30_001), 30_000]
    assert "val_top1" in new[0]


def test_curves_are_followed_as_they_are_written_and_when_they_are_written_anew(empty_run):
    curves, path = Curves(empty_run), empty_run.folder / "metrics.jsonl"

    def steps(after: int = -1) -> list[int]:
        return [line["step"] for line in json.loads(curves.render(after))["lines"]]

    assert steps() == []
    empty_run.log_metrics(step=1, loss=2.0)
    assert steps() == [1]
    with path.open("a") as file:
        file.write('{"step": 2, "loss": NaN}\n{"step": "x"}\n[1]\nno JSON\n{"step": 3, "lo')
    assert steps() == [1, 2]
    assert json.loads(curves.render(1))["lines"] == [{"step": 2, "loss": None}]
    with path.open("a") as file:
        file.write('ss": 1.0, "word": "odd"}\n')
    assert json.loads(curves.render(2))["lines"] == [{"step": 3, "loss": 1.0}]
    path.write_text(path.read_text().splitlines()[0] + "\n")  # a training that goes back
    assert steps() == [1]
    path.unlink()
    assert steps() == []


def test_the_model_tells_its_arithmetic(server, model):
    found = server.get("/v1/model").json()
    assert found["layers"] == [
        {**asdict(layer), "outputs": layer.outputs} for layer in model.spec.layers()
    ]
    assert found["classes"]["labels"] == ["defective", "functional"]
    assert found["step"] == 12
    assert found["has_run_curves"]


def test_the_reference_page_names_every_route_and_fetches_nothing(server):
    page = server.get("/docs").text
    for path in server.get("/openapi.json").json()["paths"]:
        assert path in page
    assert "<script" not in page
    assert 'src="' not in page
    assert 'href="http' not in page


def test_every_answer_is_counted(server):
    before = server.get("/metrics").text
    server.get("/v1/nothing")
    after = server.get("/metrics").text
    line = 'alexnet_requests_total{route="other",status="404"} '
    count = float(after.split(line)[1].splitlines()[0])
    assert line not in before or count == float(before.split(line)[1].splitlines()[0]) + 1
    assert "alexnet_waiting_images" in after
    assert "process_resident_memory_bytes" in after


def test_errors_have_one_form(server, photograph):
    for answer in (
        server.get("/v1/nothing"),
        server.get("/v1/predict"),
        server.post("/v1/predict?top=0", photograph),
        server.post("/v1/predict?views=3", photograph),
        server.post("/v1/predict", b""),
        server.post("/v1/predict", b"no image"),
        server.post("/v1/maps?layer=conv9", photograph),
        server.post("/v1/maps", photograph),
    ):
        assert 400 <= answer.status_code < 500
        assert reason(answer)
    assert "Did you mean" in reason(server.post("/v1/maps?layer=conv9", photograph))
