"""The command line of features: what it stores, finds and refuses."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

import alexnet
from alexnet.cli.main import run
from alexnet.features import open_stored


@pytest.fixture(scope="module")
def stored(command, trained, tmp_path_factory):
    """Return the features of all images of the short run, and what the command said of them."""
    out = tmp_path_factory.mktemp("features") / "out"
    done = command(
        "features", trained, "--layers", "pool3,relu64", "--out", out, "--split", "all", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert "48 images of" in done.stderr
    return out, json.loads(done.stdout)


def test_features_of_a_data_set_are_arrays_with_names_and_labels(stored):
    out, said = stored
    assert (said["layers"], said["images"]) == ({"pool3": [64, 4, 4], "relu64": [64]}, 48)
    opened = open_stored(out)
    assert opened.array("relu64").shape == (48, 64)
    with (out / "images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["class"] for row in rows} == {"defective", "functional"}
    assert sorted({row["name"].split("/")[0] for row in rows}) == ["test", "train"]
    assert all(row["class"] in row["name"] for row in rows)


def test_features_of_photographs_are_those_of_the_network(trained, photographs, tmp_path):
    folder = photographs / "test" / "defective"
    out = tmp_path / "out"
    asked = ["features", str(trained), str(folder), "--layers", "fc10", "--out", str(out)]
    assert run([*asked, "--form", "parquet"]) == 0
    opened = open_stored(out)
    assert opened.names == [str(file) for file in sorted(folder.iterdir())]
    model = alexnet.load(trained)
    logits = opened.array("fc10")
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    for file, row in zip(opened.names, shifted / shifted.sum(1, keepdims=True), strict=True):
        ranked = {place.label: place.probability for place in model.predict(file, crops=1)}
        found = dict(zip(model.classes, row, strict=True))
        assert found == pytest.approx(ranked, rel=1e-4)


def test_the_nearest_image_to_a_stored_photograph_is_itself(trained, stored, photographs, capsys):
    out, _ = stored
    file = sorted((photographs / "train" / "functional").iterdir())[3]
    asked = ["features", "nearest", str(trained), str(out), str(file)]
    assert run([*asked, "--layer", "relu64", "--count", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["images"][0]["nearest"]
    assert len(found) == 3
    assert file.name in found[0]["name"]
    assert found[0]["class"] == "functional"
    assert found[0]["distance"] <= found[1]["distance"] <= found[2]["distance"]
    assert run([*asked, "--layer", "relu64"]) == 0
    assert found[0]["name"] in capsys.readouterr().out
    assert run(asked) == 1
    assert "Give --layer: pool3, relu64" in capsys.readouterr().err


def test_features_of_other_weights_are_not_searched(trained, stored, photographs, tmp_path, capsys):
    out = shutil.copytree(stored[0], tmp_path / "copy")
    about = json.loads((out / "features.json").read_text())
    (out / "features.json").write_text(json.dumps({**about, "weights": "of another run"}))
    assert run(
        ["features", "nearest", str(trained), str(out), str(photographs), "--layer", "relu64"]
    )
    assert "those of other weights" in capsys.readouterr().err


def test_exciting_patches_are_written_as_pictures(trained, tmp_path, capsys):
    asked = ["features", "exciting", str(trained), "--layer", "conv2", "--units", "0-1,5"]
    assert run([*asked, "--count", "2", "--out", str(tmp_path / "patches"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["units"]) == ["0", "1", "5"]
    best = found["units"]["5"][0]
    left, top, right, bottom = best["box"]
    with Image.open(tmp_path / "patches" / "unit-0005-1.png") as picture:
        assert picture.size == (right - left, bottom - top)
    assert run(asked) == 0
    assert best["name"] in capsys.readouterr().out


def test_receptive_fields_of_a_network_and_of_a_run(trained, capsys):
    assert run(["features", "receptive-fields", "single", "--json"]) == 0
    by_layer = {row["layer"]: row for row in json.loads(capsys.readouterr().out)["layers"]}
    assert (by_layer["pool5"]["size"], by_layer["pool5"]["stride"]) == (195, 32)
    asked = ["features", "receptive-fields", str(trained), "--layer", "conv1", "--unit", "0", "1"]
    assert run(asked) == 0
    assert "Row 0, column 1 sees columns 0 to 3 and rows 0 to 2." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--layers", "conv9"), "has no layer 'conv9'. Did you mean 'conv"),
        (("--layers", ","), "No layer was named."),
        (("--layers", "conv1", "--split", "tset"), "Did you mean 'test'?"),
    ],
)
def test_what_cannot_be_extracted_is_a_sentence(trained, tmp_path, arguments, sentence, capsys):
    out = tmp_path / "out"
    assert run(["features", str(trained), *arguments, "--out", str(out)]) == 1
    assert sentence in capsys.readouterr().err
    assert not out.exists()
