"""``alexnet import``, and every command that takes a run on what it made."""

import gzip
import io
import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from alexnet.cli.main import run as run_command
from alexnet.errors import RunError
from alexnet.interop.imports import detect_format, import_file
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
    assert not (run / "figures" / "curves.png").exists()
    status, _, said = here("figures", run, "--data", photographs, "--only", "curves")
    assert status == 1
    assert "has no curves: it has taken no step that was logged." in said
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


def test_hidden_files_in_a_folder_are_passed_over_and_one_that_is_named_is_not(
    imported, here, photographs, tmp_path
):
    """As macOS leaves them beside photographs, in every folder that is named."""
    run, folder = imported[0], tmp_path / ".data" / "photographs"
    (folder / ".cache").mkdir(parents=True)
    shutil.copy(next((photographs / "test").rglob("*.*")), folder / "a.png")
    for name in ("._a.png", ".cache/b.png"):
        (folder / name).write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    status, said, complaint = here("predict", run, folder, "--json")
    assert [Path(one["path"]).name for one in json.loads(said)["images"]] == ["a.png"], complaint
    assert status == 0
    out = tmp_path / "features"
    status, _, said = here("features", run, folder, "--layers", "fc7", "--out", out)
    assert (status, "1 of 1 images" in said) == (0, True), said
    status, _, said = here("predict", run, folder / "._a.png")
    assert status == 1
    assert "not an image of a known format" in said


def test_without_data_of_its_own_it_says_what_to_name(imported, here):
    for name in ("evaluate", "figures"):
        status, _, said = here(name, imported[0])
        assert status == 1
        assert "was imported (caffe: net.caffemodel) and has no data of its own" in said


def zipped(*names) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return out.getvalue()


def npy() -> bytes:
    out = io.BytesIO()
    np.save(out, np.zeros((2, 3)))
    return out.getvalue()


OTHERS = {
    "It is empty.": b"",
    "It is a pointer of Git LFS. Fetch": b"version https://git-lfs.github.com/spec/v1\n",
    "It is a web page. Download": b"\xef\xbb\xbf\n <!doctype HTML><p>Sign in",
    "It is JSON, which has no weights": b'{\n "weight_map": {}}',
    "It is a description of layers": b'# AlexNet\n\nname: "AlexNet"\nlayer {\n}\n',
    "It is the state of Caffe's solver": b"\x08\xd0\xbb\x1b\x12\x1eit_450000.caffemodel\x1a\0",
    "It is an array of NumPy": npy(),
    "It is a file of MATLAB": b"MATLAB 5.0 MAT-file",
    "It is TensorFlow Lite": b"\x1c\0\0\0TFL3",
    "It is an archive. Unpack": gzip.compress(b"x"),
    "It is an image": b"\xff\xd8\xff\xe0",
    "It is a TorchScript program. In Python: m = torch.jit": zipped(
        "net/data.pkl", "net/constants.pkl"
    ),
    "It is a program of torch.export": zipped("a/archive_format", "a/models/model.json"),
    "It is a zip with 'alexnet.pth' in it": zipped("models/alexnet.pth"),
    "It is a zip, not of torch.save or cut short": zipped("a/data.pkl")[:-9],
}


@pytest.mark.parametrize("sentence", OTHERS)
@pytest.mark.parametrize("form", [None, "onnx"])
def test_other_files_are_named_with_the_way_out(sentence, form, tmp_path):
    """Whatever they are said to be."""
    (tmp_path / "file").write_bytes(OTHERS[sentence])
    with pytest.raises(
        RunError, match=re.escape(f"'{tmp_path}/file' cannot be imported: {sentence}")
    ):
        import_file(tmp_path / "file", tmp_path / "run", form=form)
    assert not (tmp_path / "run").exists()


def test_no_weights_are_taken_for_another_file(tmp_path):
    """Names and lengths of any number stand first in files of weights."""
    for length in range(1, 127):
        for name in ("alexnet", "net", "layers", "input"):
            text = name.ljust(length, "x")[:length].encode()
            (tmp_path / "net").write_bytes(b"\n" + bytes([length]) + text)
            assert detect_format(tmp_path / "net") == "caffe"
    for spaces in range(60):
        header = b"{}".ljust(40 + spaces)
        (tmp_path / "net").write_bytes(len(header).to_bytes(8, "little") + header)
        assert detect_format(tmp_path / "net") == "torchvision"


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
