"""``alexnet import``, and every command that takes a run on what it made."""

import json

import pytest

from alexnet.cli.main import run as run_command
from tests.interop.caffe_files import alexnet, caffemodel

WIDTHS = (16, 32, 48, 48, 32, 40, 24, 2)


@pytest.fixture(scope="module")
def imported(command, photographs, tmp_path_factory):
    """Return a run made of a Caffe network whose classes are those of the photographs."""
    folder = tmp_path_factory.mktemp("imported")
    (folder / "net.caffemodel").write_bytes(caffemodel(alexnet("norm-pool", WIDTHS), "layers"))
    names = sorted(place.name for place in (photographs / "train").iterdir())
    (folder / "classes.txt").write_text("\n".join(names))
    made = command(
        "import", folder / "net.caffemodel", "--classes", folder / "classes.txt",
        "--out", folder / "run",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return folder / "run", made.stdout


def test_it_says_what_it_found(imported):
    _, said = imported
    assert "Caffe network 'AlexNet', 23 layers" in said
    assert "network: a network of its own, 227-pixel images, 90,642 parameters" in said
    assert "(11x11x3)x16+16, then relu, norm, max pool" in said
    assert "BGR, 0-255 times 1, less RGB 122.679, 116.669, 104.007" in said
    assert "mean colour of ImageNet, as no mean file was given" in said


@pytest.fixture
def here(capsys):
    """Return a function that runs a command in this process, as `main` does."""

    def run(*arguments):
        status = run_command([*map(str, arguments)])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_predict_evaluate_figures_and_export_take_it_at_once(
    imported, here, photographs, monkeypatch, tmp_path
):
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path))
    run, _ = imported
    image = next((photographs / "test").rglob("*.*"))
    status, predicted, _ = here("predict", run, image, "--json")
    places = json.loads(predicted)["images"][0]["predictions"]
    assert sum(place["probability"] for place in places) == pytest.approx(1, abs=1e-4)
    status, tested, said = here("evaluate", run, photographs, "--views", "1", "--json")
    assert json.loads(tested)["images"] == 12, said
    status, _, said = here("figures", run, "--data", photographs)
    assert status == 0, said
    folder = run.parent / "folder"
    status, _, said = here("export", run, folder, "--to", "huggingface")
    assert status == 0, said
    card = (folder / "README.md").read_text()
    assert "caffe: net.caffemodel" in card
    assert "Recipe" not in card
    status, again, said = here("import", folder, "--out", run.parent / "again", "--json")
    assert json.loads(again)["as"] == "huggingface", said
    status, once, _ = here("predict", run.parent / "again", image, "--json")
    assert json.loads(once) == json.loads(predicted)


def test_without_data_of_its_own_it_says_what_to_name(imported, here):
    for name in ("evaluate", "figures"):
        status, _, said = here(name, imported[0])
        assert status == 1
        assert "was imported (caffe: net.caffemodel) and has no data of its own" in said


def test_what_cannot_be_is_a_sentence_and_a_status(here, tmp_path):
    (tmp_path / "text").write_text("nothing")
    for arguments, sentence in (
        ([tmp_path / "text"], "Say it with --as"),
        ([tmp_path / "missing"], "There is no file"),
        ([tmp_path / "text", "--as", "caffe"], "damaged or of another format"),
        ([tmp_path / "text", "--as", "onnx", "--prototxt", tmp_path / "text"], "Leave --prototxt"),
    ):
        status, _, said = here("import", *arguments, "--out", tmp_path / "run")
        assert status == 1
        assert sentence in said
        assert said.count("\n") == 1
