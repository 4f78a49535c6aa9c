"""What older versions left on the disk still opens, and goes on as it would have.

A folder a version, named by the day and made by ``make.sh`` there; everything goes through the
command line and the public functions, so that the code behind may change.
"""

import json
import shutil
import sys
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import alexnet

VERSIONS = sorted(path.parent for path in Path(__file__).parent.glob("*/expected.json"))
PHOTOGRAPHS = [f"photographs/test/{name}/0.png" for name in ("blue", "green", "red")]
NEAR = 1e-4  # machines and numbers of threads add up in different orders


@pytest.fixture(params=VERSIONS, ids=lambda folder: folder.name)
def old(request, tmp_path, monkeypatch):
    """Return a copy of what a version left, which is the working folder."""
    folder = tmp_path / "old"
    shutil.copytree(request.param, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def cli(monkeypatch, capsys):
    """Return a function that runs a command line here: status, standard output, the other one."""
    main = entry_points(group="console_scripts")["alexnet"].load()

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["alexnet", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return end.value.code, said.out, said.err

    return run


@pytest.fixture
def told(cli):
    """Return a function that runs a command with ``--json`` and returns what it says."""

    def run(*arguments):
        status, out, error = cli(*arguments, "--json")
        assert status == 0, error
        return json.loads(out)

    return run


def expected(old):
    return json.loads((old / "expected.json").read_text())


def settings(old):
    return [f"--set={line}" for line in (old / "settings.txt").read_text().splitlines()]


def losses(lines):
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def validations(lines):
    return {line["step"]: line["val_top1"] for line in lines if "val_top1" in line}


def metrics(run):
    return [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]


def assert_same(found, wanted):
    """Assert that two values of JSON are the same, numbers nearly so."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            assert_same(found[key], value)
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other)
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=NEAR, abs=NEAR)
    else:
        assert found == wanted


def test_prepared_data_are_whole_and_taken_for_what_they_are(old, cli):
    before = {file.name: file.read_bytes() for file in (old / "data").iterdir()}
    for name in ("data", "raw"):
        assert cli("prepare", "--verify", name)[0] == 0
    assert cli("prepare", "photographs", "data", "--size", "32")[0] == 0
    assert {file.name: file.read_bytes() for file in (old / "data").iterdir()} == before
    status, _, error = cli("prepare", "photographs", "data", "--size", "24")
    assert status == 1
    assert "another prepared data set" in error


def test_a_killed_preparation_goes_on_to_the_same_bytes(old, cli):
    made = {path: path.stat().st_mtime_ns for path in Path("half").glob("*.arrow")}
    assert len(made) == 2
    assert cli("prepare", "photographs", "half", "--size", "16", "--raw", "--workers", "1")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert {path.name for path in Path("half").iterdir()} == {
        path.name for path in Path("raw").iterdir()
    }
    for file in Path("raw").iterdir():
        if file.suffix == ".arrow":
            assert (old / "half" / file.name).read_bytes() == file.read_bytes()
    was, now = (json.loads(Path(name, "report.json").read_text()) for name in ("raw", "half"))
    assert now.items() >= was.items()  # it lists more kinds than in 2026-11-26
    half, raw = (json.loads(Path(name, "dataset.json").read_text()) for name in ("half", "raw"))
    for manifest in (half, raw):  # the statistics' last bits are the machine's
        manifest.pop("checksums")
    assert half.items() >= raw.items()  # and what the source was, which 2026-11-26 did not write
    half, raw = (load_file(Path(name, "statistics.safetensors")) for name in ("half", "raw"))
    assert half.keys() == raw.keys()
    for name, values in raw.items():
        np.testing.assert_allclose(half[name], values, rtol=1e-5, atol=1e-5)
    assert cli("prepare", "--verify", "half")[0] == 0


def test_runs_are_tested_as_they_were(old, told):
    for run in ("run", "named"):
        assert_same(told("evaluate", run, "data"), expected(old)["evaluate"][run])


def test_runs_predict_as_they_did(old, told):
    for run, wanted in expected(old)["predict"].items():
        assert_same(told("predict", run, *PHOTOGRAPHS), wanted)
    wanted = expected(old)["predict"]["run"]["images"]
    for model in (alexnet.load("run"), alexnet.from_pretrained("exports/folder")):
        for photograph, answer in zip(PHOTOGRAPHS, wanted, strict=True):
            places = model.predict(Path(photograph))
            assert [place.name for place in places] == [p["name"] for p in answer["predictions"]]
            assert_same(
                [place.probability for place in places],
                [place["probability"] for place in answer["predictions"]],
            )


def test_a_stopped_run_goes_on_to_the_same_end(old, cli, told):
    wanted = expected(old)["metrics"]["whole"]
    before = losses(metrics("stopped"))
    assert 0 < len(before) < len(losses(wanted))
    status, _, error = cli("train", "data", "--out", "stopped")
    assert status == 0, error
    assert losses(metrics("stopped")) == pytest.approx(losses(wanted), rel=NEAR)
    assert validations(metrics("stopped")) == pytest.approx(validations(wanted))
    assert_same(told("evaluate", "stopped", "data"), expected(old)["evaluate"]["whole"])


def test_every_setting_of_a_run_is_known_by_its_name(old, cli):
    """Said again, all settings are those of the run: nothing was begun otherwise."""
    command = ("train", "data", "--network", "as_run", "--recipe", "as_run", *settings(old))
    status, _, error = cli(*command, "--out", "named")
    assert status == 0, error
    for other in ("colour_axes=stdevs", "network.conv1.norm.alpha_over_n=0.0001"):
        status, _, error = cli(*command, f"--set={other}", "--out", "named")
        assert status == 1
        assert "was begun otherwise" in error


def test_the_same_settings_train_the_same_run(old, cli):
    command = ("train", "data", "--network", "as_run", "--recipe", "as_run", *settings(old))
    status, _, error = cli(*command, "--out", "again")
    assert status == 0, error
    wanted = losses(expected(old)["metrics"]["named"])
    assert losses(metrics("again")) == pytest.approx(wanted, rel=NEAR)


def test_a_training_begins_with_the_weights_of_an_old_run(old, cli):
    wanted = losses(expected(old)["metrics"]["tuned-whole"])
    tuning = ("--recipe", "fast", "--freeze", "conv1,conv2", "--epochs", "4", "--batch-size", "8")
    machine = ("--no-compile", "--precision", "fp32", "--threads", "1", "--set", "log_every=1")
    for start, out in (("run", "new"), ("exports/folder", "of-folder")):
        command = ("train", "data", "--from", start, *tuning, *machine, "--lr", "0.0005")
        status, _, error = cli(*command, "--out", out, "--max-steps", "4")
        assert status == 0, error
        first = {step: loss for step, loss in wanted.items() if step <= 4}
        assert losses(metrics(out)) == pytest.approx(first, rel=NEAR)


def test_a_fine_tuned_run_goes_on(old, cli):
    wanted = losses(expected(old)["metrics"]["tuned-whole"])
    assert len(losses(metrics("tuned"))) < len(wanted)
    status, _, error = cli("train", "data", "--out", "tuned", "--max-steps", "8")
    assert status == 0, error
    assert losses(metrics("tuned")) == pytest.approx(wanted, rel=NEAR)


@pytest.mark.parametrize("form", ["run.safetensors", "named.safetensors", "run.onnx", "folder"])
def test_exports_are_imported(old, told, form):
    run = "named" if form.startswith("named") else "run"
    more = []
    if form == "run.safetensors":  # the weights alone; the mean image is given beside them
        np.save("mean.npy", load_file("run/statistics.safetensors")["mean_image"])
        more = ["--mean", "mean.npy"]
    made = told("import", f"exports/{form}", "--out", "imported", *more)
    assert made["parameters"] > 0
    tested = told("evaluate", "imported", "data")
    assert_same(tested, expected(old)["evaluate"][run])
    found = told("predict", "imported", *PHOTOGRAPHS)["images"]
    assert_same(found, expected(old)["predict"][run]["images"])


def test_features_are_searched(old, told):
    for stored, wanted in expected(old)["nearest"].items():
        layer = ("--layer", wanted["layer"])
        assert_same(told("features", "nearest", "run", stored, *PHOTOGRAPHS, *layer), wanted)


def test_features_that_are_there_are_not_made_again(old, cli):
    for form, more in (
        ("arrays", ("--layers", "conv3,relu64")),
        ("parquet", ("--layers", "fc64", "--pool", "mean", "--split", "all")),
    ):
        before = {path: path.stat().st_mtime_ns for path in Path(form).glob("[!.]*")}
        status, _, error = cli("features", "run", "data", "--form", form, "--out", form, *more)
        assert status == 0, error
        assert {path: path.stat().st_mtime_ns for path in Path(form).glob("[!.]*")} == before


def test_results_of_claims_are_those_of_the_same_runs_today(old, cli):
    file = old / "claims" / "results.jsonl"
    before = file.read_bytes()
    lines = before.splitlines(keepends=True)
    names = ("lrn", "overlap", "pca", "depth", "init")
    command = ("claims", *names, "--data", "data", "--seeds", "1", "--out", "claims")
    status, out, error = cli(*command, "--json")
    assert status == 0, error
    assert ": 0 runs, 0 images to train on" in error
    assert file.read_bytes() == before
    for claim in json.loads(out)["claims"]:
        assert claim["seeds"] == 1
        assert None not in claim["means"]
    assert (old / "claims" / "report.md").is_file()
    left = [line for line in lines if b'"pca/no colour noise"' not in line]
    assert len(left) == len(lines) - 1
    file.write_bytes(b"".join(left))
    status, out, error = cli("claims", "pca", *command[len(names) + 1 :], "--dry-run")
    assert status == 0, error
    assert ": 1 runs, " in out + error
