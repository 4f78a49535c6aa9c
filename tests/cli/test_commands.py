"""The real command line: what it prints, and the line it prints when something is wrong."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import alexnet
from alexnet.cli import main
from alexnet.cli.common import _photographs as photographs_named
from alexnet.cli.common import parse_duration
from alexnet.cli.console import Console
from alexnet.cli.figures import name_file
from alexnet.cli.train import TrainRequest, check_size, open_run, prepared_size
from alexnet.errors import ConfigError
from alexnet.variants import network_named
from tests.conftest import QUICK, damaged


def test_help_names_every_command_and_every_command_has_an_example(command):
    whole = command("--help")
    assert whole.returncode == 0
    for name in (
        "summary",
        "prepare",
        "train",
        "evaluate",
        "predict",
        "explain",
        "visualise",
        "compare",
        "features",
        "figures",
        "bench",
        "doctor",
    ):
        assert name in whole.stdout
        one = command(name, "--help")
        assert one.returncode == 0
        assert f"Example: alexnet {name}" in one.stdout


@pytest.mark.parametrize(
    ("asked", "unwanted"),
    [
        ("from alexnet.cli.main import run; run(['--help'])", ("torch", "numpy", "PIL")),
        (
            "from alexnet import predictor; from alexnet.network import build;"
            "from alexnet.variants import network_named; build(network_named('cifar_quick'), None)",
            ("sympy", "pyarrow"),
        ),
    ],
)
def test_what_takes_long_to_import_is_imported_where_it_is_needed(environment, asked, unwanted):
    import subprocess
    import sys

    asked += f"; import sys; sys.exit(bool(set({unwanted}) & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", asked], env=environment, check=False, capture_output=True
    )
    assert done.returncode == 0


def test_summary_as_json_and_as_text(command):
    found = json.loads(command("summary", "single", "--json").stdout)
    assert (found["parameters"], found["neurons"]) == (62_378_344, 659_272)
    assert found["neurons_with_input"] == 813_859
    assert [layer["name"] for layer in found["layers"] if layer["parameters"]] == [
        "conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8",
    ]  # fmt: skip
    text = command("summary", "single").stdout
    assert "(11x11x3)x96+96" in text
    assert "62,378,344 parameters" in text


def test_prepare_prints_what_it_made(command, photographs, tmp_path):
    done = command("prepare", photographs, tmp_path / "out", "--size", 48)
    assert done.returncode == 0, done.stderr
    assert "2 classes, images: 12 test, 36 train" in done.stdout
    assert "classes: defective, functional" in done.stdout


def test_training_prints_the_test_with_its_class_names(trained):
    log = (trained / "console.log").read_text()
    assert "ten views: top-1" in log
    assert "defective" in log
    assert "functional" in log


@pytest.mark.parametrize("views", [1, 10])
def test_evaluate_as_json(command, trained, views):
    done = command("evaluate", trained, "--views", views, "--json")
    found = json.loads(done.stdout)
    assert found["views"] == views
    assert found["images"] == 12
    assert found["majority"] == 0.5
    assert found["classes"] == ["defective", "functional"]
    assert 0 <= found["top1"] <= found["top5"] == 1
    if views == 10:
        assert found | {"step": 12} == json.loads((trained / "test.json").read_text())


def test_evaluate_matches_classes_by_name(command, trained, photographs, tmp_path):
    """Without its first class the labels of the folder shift; the result must not."""
    shutil.copytree(photographs / "test" / "functional", tmp_path / "data/train/functional")
    shutil.copytree(photographs / "test" / "functional", tmp_path / "data/test/functional")
    shutil.copytree(photographs / "test" / "defective", tmp_path / "data/train/defective")
    part = json.loads(command("evaluate", trained, tmp_path / "data", "--json").stdout)
    whole = json.loads(command("evaluate", trained, "--json").stdout)
    assert part["confusion"][1] == whole["confusion"][1]
    assert part["confusion"][0] == [0, 0]


def test_what_exists_is_no_pattern_whatever_it_is_called(photographs, tmp_path):
    """Brackets are in the names that browsers give a second download."""
    one = next(photographs.rglob("*.png"))
    data = shutil.copytree(photographs, tmp_path / "photographs [2024]")
    lone, archive = tmp_path / "cell[1].png", tmp_path / "cells[1].zip"
    shutil.copy(one, lone)
    archive.write_bytes(b"")
    assert photographs_named([str(data)]) == []
    assert photographs_named([str(archive)]) == []
    assert photographs_named([str(lone)]) == [lone]
    assert photographs_named([str(tmp_path / "*.png")]) == [lone]


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("functional", "functional"), ("St. Bernard", "St. Bernard"), (12, "12"),
        (Path("a/b.npy"), "b"), ("a/b", "a_b-07f4401c"), ("a_b", "a_b"), ("a:b", "a_b-3041a608"),
    ],
)  # fmt: skip
def test_pictures_of_two_goals_have_two_names(value, name):
    assert name_file(value) == name


def test_predict_files_folders_and_patterns(command, trained, photographs, tmp_path):
    folder = photographs / "test" / "defective"
    files = sorted(folder.iterdir())
    by_file = json.loads(command("predict", trained, *files, "--json").stdout)
    by_folder = json.loads(command("predict", trained, folder, "--json").stdout)
    by_pattern = json.loads(command("predict", trained, f"{folder}/*.png", "--json").stdout)
    assert by_file == by_folder == by_pattern
    assert len(by_file["images"]) == len(files) == 6
    ranked = by_file["images"][0]["predictions"]
    assert sum(place["probability"] for place in ranked) == pytest.approx(1, rel=1e-5)
    text = command("predict", trained, files[0], "--top", 1).stdout
    assert ranked[0]["name"] in text
    assert ("defective" in text) != ("functional" in text)


def test_several_runs_are_asked_together(command, trained, photographs, tmp_path):
    """A run beside itself is itself; weights are fitted on what is not tested."""
    alone = json.loads(command("evaluate", trained, "--views", 1, "--json").stdout)
    both = json.loads(
        command("evaluate", trained, trained, "--views", 1, "--fit-on", "train", "--json").stdout
    )
    assert both.pop("weights") == [0.5, 0.5]
    assert both == alone
    refused = command("evaluate", trained, trained, "--fit-on", "test")
    assert refused.returncode == 1
    assert "cannot be fitted on 'test'" in refused.stderr
    assert "not tested: train." in refused.stderr
    photograph = next((photographs / "test" / "defective").iterdir())
    one = json.loads(command("predict", trained, photograph, "--json").stdout)
    two = json.loads(
        command("predict", trained, trained, photograph, "--weights", "1,3", "--json").stdout
    )
    chances = [
        [place["probability"] for place in found["images"][0]["predictions"]]
        for found in (one, two)
    ]
    assert chances[0] == pytest.approx(chances[1], rel=1e-6)


def test_predict_turns_photographs_upright(command, trained, photographs, tmp_path):
    upright = Image.open(sorted((photographs / "test" / "defective").iterdir())[0]).convert("RGB")
    upright.save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    one, two = json.loads(command("predict", trained, tmp_path, "--json").stdout)["images"]
    assert one["predictions"] == two["predictions"]


def test_the_python_interface_says_the_same(command, trained, photographs):
    file = sorted((photographs / "test" / "defective").iterdir())[0]
    model = alexnet.load(trained)
    printed = json.loads(command("predict", trained, file, "--json").stdout)
    for ours, theirs in zip(model.predict(file), printed["images"][0]["predictions"], strict=True):
        assert ours.name == theirs["name"]
        assert ours.probability == pytest.approx(theirs["probability"], rel=1e-4)
    assert model.predict(file.read_bytes()) == model.predict(str(file))
    assert alexnet.build("paper", num_classes=10).spec.num_classes == 10


def test_figures_are_pictures(command, trained):
    done = command("figures", trained)
    assert done.returncode == 0, done.stderr
    for name in ("curves", "filters", "predictions"):
        with Image.open(trained / "figures" / f"{name}.png") as image:
            assert min(image.size) >= 100
            assert len(image.convert("RGB").getcolors(1 << 20)) > 10


def test_doctor_says_what_there_is(command):
    done = command("doctor")
    assert done.returncode == 0, done.stderr
    for word in ("torch", "device", "threads", "bfloat16", "cache", "simplejpeg", "matplotlib"):
        assert word in done.stdout


@pytest.fixture
def nothing(tmp_path):
    (tmp_path / "nothing").mkdir()
    return tmp_path / "nothing"


@pytest.fixture
def one_class(photographs, tmp_path):
    shutil.copytree(photographs / "train" / "defective", tmp_path / "one" / "defective")
    return tmp_path / "one"


@pytest.fixture
def no_training_image(photographs, tmp_path):
    shutil.copytree(photographs, tmp_path / "data")
    shutil.copytree(photographs / "test" / "defective", tmp_path / "data" / "test" / "burnt")
    return tmp_path / "data"


@pytest.fixture
def other_classes(photographs, tmp_path):
    for name in ("cat", "dog"):
        shutil.copytree(photographs / "train" / "defective", tmp_path / "pets" / name)
    return tmp_path / "pets"


@pytest.fixture
def no_image(tmp_path):
    (tmp_path / "letter.jpg").write_text("Dear reader,")
    return tmp_path / "letter.jpg"


@pytest.fixture
def no_checkpoint(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "fresh", symlinks=True)
    shutil.rmtree(tmp_path / "fresh" / "checkpoints")
    return tmp_path / "fresh"


def changed_copy(trained, folder, file, change):
    """Copy a run whose JSON file `change` has changed."""
    shutil.copytree(trained, folder, symlinks=True)
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(change(content)))
    return folder


@pytest.fixture
def moved(trained, tmp_path):
    return changed_copy(
        trained, tmp_path / "moved", "config.json", lambda c: c | {"data": "/nowhere/data"}
    )


@pytest.fixture
def newer(trained, tmp_path):
    def change(config):
        config["recipe"]["ema"] = 0.9
        config["made_with"]["alexnet"] = "9.0"
        return config

    return changed_copy(trained, tmp_path / "newer", "config.json", change)


@pytest.fixture
def of_another_network(trained, tmp_path):
    def change(config):
        config["spec"]["dense"][0]["units"] = 32
        return config

    return changed_copy(trained, tmp_path / "other", "config.json", change)


@pytest.fixture
def odd_test(trained, tmp_path):
    return changed_copy(trained, tmp_path / "odd", "test.json", lambda test: test | {"top1": "x"})


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("train", "no/such/folder"), 1, "There is no folder 'no/such/folder'"),
        (("train", "elvp"), 1, "Did you mean 'elpv'?"),
        (("train", "{nothing}"), 1, "No images were found"),
        (("train", "{one_class}"), 1, "has one class only, 'defective'"),
        (("train", "{no_training_image}"), 1, "Class 'burnt' of"),
        (("train", "elpv", "--network", "papr"), 1, "Did you mean 'paper'?"),
        (("train", "elpv", "--recipe", "fats"), 1, "Did you mean 'fast'?"),
        (("train", "elpv", "--set", "momentun=1"), 1, "Did you mean 'momentum'?"),
        (("train", "elpv", "--set", "momentum"), 1, "has no value"),
        (("train", "elpv", "--lr", "-1"), 1, "lr is -1.0. It must be above 0"),
        (("train", "elpv", "--lr", "fast"), 2, "float"),
        (("train", "elpv", "--batch-size", "100000000000000"), 1, "batch_size is 100000000000000."),
        (("train", "elpv", "--max-time", "nan"), 1, "'nan' is no duration"),
        (("claims", "lrn", "--budget", "soon", "--data", "nowhere"), 1, "'soon' is no duration"),
        (("claims", "lrn", "--epochs-factor", "0"), 1, "0 times the epochs cannot be trained"),
        (("train", "elpv", "--max-time", "30m1h"), 1, "Write it like 90s, 30m, 4h or 1h30m."),
        (("train", "elpv", "--timeout", "1e300"), 1, "timeout is 1e+300. It must be 1 to"),
        (("train", "elpv", "--set", "network.fc6.units=-1"), 1, "units is -1."),
        (("train", "elpv", "--set", "network.fc6.name=conv1"), 1, "have the same number"),
        (("launch", "--processes", "-1", "train"), 1, "--processes is -1. Give 1 to"),
        (("train", "elpv", "--epoch", "3"), 2, "--epochs"),
        (("evaluate", "{nothing}"), 1, "has no config.json"),
        (("evaluate", "no/such/run"), 1, "does not exist"),
        (("evaluate", "{no_checkpoint}"), 1, "has no checkpoint yet"),
        (("evaluate", "{trained}", "{other_classes}"), 1, "has a class 'cat' that the run was not"),
        (("evaluate", "{trained}", "--views", "3"), 2, "views"),
        (("evaluate", "{trained}", "--split", "vall"), 1, "The data has no split 'vall'."),
        (("evaluate", "{moved}"), 1, "is not in '/nowhere/data' any more. Name where it is now"),
        (("train", "--out", "{moved}"), 1, "is not in '/nowhere/data' any more."),
        (("evaluate", "{newer}"), 1, "alexnet 9.0 made it and this is"),
        (("evaluate", "{of_another_network}"), 1, "The weights are of another network (size"),
        (("figures", "{odd_test}", "--only", "confusion"), 1, "test.json' cannot be read: Summary"),
        (("predict", "{trained}", "{no_image}"), 1, "It is not an image of a known format"),
        (("predict", "{trained}", "missing.jpg"), 1, "There is no file 'missing.jpg'"),
        (("predict", "{trained}", "{nothing}"), 1, "has no images"),
        (("predict", "{trained}", "nowhere/*.jpg"), 1, "No file matches"),
        (("predict", "{trained}"), 1, "No image was named"),
        (("summary", "papr"), 1, "Did you mean 'paper'?"),
        (("summary", "single", "--set", "image=50"), 1, "The smallest it takes is 67 pixels"),
        (("evaluate", "{trained}", "--threads", "0"), 1, "0 threads cannot"),
        (("evaluate", "{trained}", "--threads", "1000000"), 1, "Give 1 to 1024."),
        (("bench", "--rounds", "0"), 1, "--rounds is 0"),
        (("bench", "trian"), 1, "Did you mean 'train'?"),
        (("bench", "--plot", "bench.pdf"), 1, "Name a .png or .svg file"),
        (("bench", "--plot", "nowhere/bench.png"), 1, "'nowhere/bench.png' cannot be written"),
        (("bench", "roofline", "--plot", "bench.png"), 1, "roofline is a table"),
        (("bench", "lrn", "--network", "torchvision"), 1, "has no LRN after conv1"),
        (("predct",), 2, "predict"),
        (("visualise", "{trained}", "--class", "0", "--layer", "conv1"), 1, "Leave out --layer"),
        (("visualise", "{trained}", "--layer", "conv1", "--caricature"), 1, "Give --photograph."),
        (
            ("visualise", "{trained}", "--layer", "conv1", "--unit", "1", "--diversity", "nan"),
            1,
            "A diversity of nan cannot be. Give 0 or more.",
        ),
        (("compare", "{trained}", "{trained}", "--count", "2"), 1, "compared on 3 images or more"),
        (("compare", "{trained}", "{trained}", "{no_image}"), 1, "There are 1 images of"),
        (
            ("evaluate", "{trained}", "{trained}", "--weights", "1,1", "--fit-on", "train"),
            1,
            "--weights and --fit-on both weigh the networks. Give one.",
        ),
        (("explain", "{trained}", "{no_image}", "--boxes", "b.csv"), 1, "--boxes is for --check."),
        (("explain", "{trained}", "{no_image}", "--check", "--fool", "pgd"), 1, "are two things"),
    ],
)
def test_what_is_wrong_is_one_line_that_says_what_to_do(
    command, request, arguments, status, told, tmp_path
):
    def filled(argument):
        if argument[0] == "{":
            return request.getfixturevalue(argument[1:-1])
        return argument

    done = command(*map(filled, arguments), cwd=tmp_path)
    assert done.returncode == status, done.stdout + done.stderr
    assert told in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr
    if status == 1:
        lines = done.stderr.strip().splitlines()  # what was done on the way, then what is wrong
        assert [line.startswith("alexnet: ") for line in lines].count(True) == 1
        assert lines[-1].startswith("alexnet: ")


def test_boxes_that_belong_to_no_photograph_are_no_boxes(command, trained, photographs, tmp_path):
    image = next((photographs / "test").rglob("*.png"))
    (tmp_path / "boxes.csv").write_text(f"{image.name},0,0,9,9\n")  # its path is longer
    done = command("explain", trained, image, "--check", "--boxes", tmp_path / "boxes.csv")
    assert done.returncode == 1
    assert "has a box for none of the photographs. Its paths are written as on the" in done.stderr


def test_debug_adds_the_traceback(command):
    assert "Traceback" in command("summary", "papr", "--debug").stderr


def test_one_bad_image_does_not_lose_the_others(command, trained, photographs, no_image):
    good = sorted((photographs / "test" / "defective").iterdir())[0]
    done = command("predict", trained, no_image, good, "--json")
    assert done.returncode == 1
    bad, other = json.loads(done.stdout)["images"]
    assert "not an image" in bad["error"]
    assert other["predictions"]


def test_images_that_cannot_be_decoded_are_named_counted_and_left_out(
    command, photographs, tmp_path
):
    shutil.copytree(photographs, tmp_path / "data")
    (tmp_path / "data" / "train" / "defective" / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    done = command("prepare", tmp_path / "data", tmp_path / "out", "--size", 32)
    assert done.returncode == 0
    assert "Skipped: It is not an image of a known format: 1 image.\n" in done.stdout
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["skipped"] == [
        {
            "split": "train",
            "image": "train/defective/torn.jpg",
            "reason": "It is not an image of a known format.",
        }
    ]


def test_a_run_whose_training_images_changed_says_so(
    photographs, tmp_path, environment, monkeypatch
):
    monkeypatch.setenv("ALEXNET_CACHE", environment["ALEXNET_CACHE"])
    shutil.copytree(photographs, tmp_path / "data")
    request = TrainRequest(out=tmp_path / "run", network="cifar_quick")

    def said() -> list[str]:
        lines: list[str] = []
        open_run(str(tmp_path / "data"), request, Console(lines.append))
        return lines

    changed = "The training images are not those that this run has begun with."
    assert changed not in said() + said()
    files = sorted((tmp_path / "data" / "train" / "defective").iterdir())
    shutil.copy(files[0], files[1])
    assert changed in said()


def test_on_a_terminal_there_is_a_live_bar(environment, photographs, tmp_path):
    """A real terminal on standard error, as a person has it."""
    import os
    import pty
    import subprocess
    import sys

    ours, theirs = pty.openpty()
    arguments = ("train", photographs, "--out", tmp_path / "run", *QUICK, "--max-steps", "6")
    process = subprocess.Popen(
        [sys.executable, "-m", "alexnet", *map(str, arguments)],
        env={**environment, "TERM": "xterm"}, stderr=theirs, stdout=subprocess.PIPE,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end was closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"images/s" in shown
    assert b"loss" in shown
    assert b"ten views: top-1" in said


@pytest.mark.parametrize(
    ("image", "size"),
    [(227, 256), (224, 256), (67, 76), (112, 126), (300, 338), (32, 32), (24, 32)],
)
def test_images_are_prepared_at_a_size_in_proportion_to_the_networks(image, size):
    spec = network_named("cifar_quick" if image < 63 else "single")
    assert prepared_size(replace(spec, image_size=image)) == size
    check_size(size, replace(spec, image_size=image))


@pytest.mark.parametrize(("network", "told"), [("cifar_quick", "sees 32"), ("single", "sees 227")])
def test_data_prepared_at_a_size_that_does_not_fit_is_refused(command, prepared, network, told):
    done = command("train", prepared.root, "--network", network)
    assert done.returncode == 1
    assert f"The data was prepared at 64 pixels and network '{network}' {told}" in done.stderr


def test_verify_names_the_damage_and_fails(command, prepared, tmp_path):
    whole = command("prepare", "--verify", prepared.root)
    assert (whole.returncode, whole.stdout) == (0, f"{prepared.root}: all is well.\n")
    damaged(prepared, tmp_path / "data", [7])
    done = command("prepare", "--verify", tmp_path / "data")
    assert done.returncode == 1
    assert "(row 7 of train-00000.arrow)" in done.stdout
    assert done.stdout.endswith("1 files are damaged.\n")
    assert command("prepare", "--verify", tmp_path).returncode == 1


def test_prepare_needs_a_folder_and_a_cluster_that_is_there(command, photographs, tmp_path):
    done = command("prepare", photographs)
    assert (done.returncode, done.stdout) == (1, "")
    assert "No folder to make was named" in done.stderr
    done = command("prepare", photographs, tmp_path / "out", "--cluster", "tcp://127.0.0.1:9")
    assert done.returncode == 1
    assert "There is no Dask scheduler at 'tcp://127.0.0.1:9'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_written_is_a_sentence(command, photographs, tmp_path):
    (tmp_path / "file").write_text("")
    done = command("prepare", photographs, tmp_path / "file" / "data", "--size", "16")
    assert done.returncode == 1
    assert done.stderr.startswith("alexnet: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("source", "split", "images", "said"),
    [
        ("train", "all", 36, True),  # class folders, and no split
        ("val alone", "val", 12, True),
        ("one class", "all", 6, True),
        (".", "test", 12, False),  # what holds something out is tested on that, as ever
    ],
)
def test_an_evaluation_takes_all_there_is(
    trained, photographs, tmp_path, capsys, monkeypatch, source, split, images, said
):
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    if source == "val alone":
        shutil.copytree(photographs / "test", tmp_path / source / "val")
    elif source == "one class":
        shutil.copytree(photographs / "test/functional", tmp_path / source / "functional")
    root = tmp_path if " " in source else photographs
    asked = ["evaluate", str(trained), str(root / source), "--views", "1", "--json"]
    assert main.run(asked) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert (result["split"], result["images"]) == (split, images)
    assert (f"has no test split: all its {images} images are taken" in err) == said


def test_the_split_that_is_tested_can_be_chosen(
    trained, photographs, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    without = ["evaluate", str(trained), str(photographs / "train"), "--views", "1", "--json"]
    assert main.run([*without, "--split", "test"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 8  # a quarter of 18 and of 18
    tested = {}
    for split in ("train", "test", "held-out", "all"):
        asked = ["evaluate", str(trained), "--split", split, "--views", "1", "--json"]
        assert main.run(asked) == 0
        tested[split] = json.loads(capsys.readouterr().out)["images"]
    assert tested == {"train": 36, "test": 12, "held-out": 12, "all": 48}


@pytest.mark.parametrize("form", ["evaluate", "predict", "export", "features"])
def test_a_damaged_checkpoint_is_named_by_whoever_takes_an_older_one(
    trained, photographs, tmp_path, caplog, form
):
    run = tmp_path / "run"
    shutil.copytree(trained, run, symlinks=True)
    newest = max((run / "checkpoints").glob("step-*"))
    shutil.copytree(newest, newest.with_name("step-00000099"))
    (newest.with_name("step-00000099") / "weights.safetensors").write_bytes(b"")
    image = next((photographs / "test/defective").iterdir())
    more = {
        "evaluate": ["--views", "1"],
        "predict": [str(image), "--views", "1"],
        "export": [str(tmp_path / "x"), "--to", "safetensors"],
        "features": ["--layers", "fc64", "--out", str(tmp_path / "stored")],
    }
    assert main.run([form, str(run), *more[form]]) == 0
    assert "step-00000099 is damaged (the checksum of weights" in caplog.text
    assert f"step 12 of the run {str(run)!r} is used." in caplog.text


def test_names_are_escaped_where_the_output_has_no_letters_for_them(environment, trained, tmp_path):
    run = tmp_path / "run"
    changed_copy(trained, run, "config.json", lambda c: c | {"classes": ["Füße", "\udcff"]})
    Image.new("RGB", (64, 64)).save(tmp_path / "Füße.png")
    asked = [sys.executable, "-m", "alexnet", "predict", str(run), str(tmp_path / "Füße.png")]
    done = subprocess.run(
        asked, env=environment | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert r"F\xfc\xdfe" in done.stdout
    assert r"\udcff" in done.stdout


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_output_takes_all(environment, closed):
    asked = f"{sys.executable} -m alexnet summary {closed}"
    done = subprocess.run(asked, shell=True, env=environment, capture_output=True, check=False)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1.5h", 5400), ("1h30m", 5400), ("9m30s", 570), ("2d12h", 216000)],
)
def test_a_duration_is_read_as_it_is_written(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "1h-5m", "1..5h", "1m30", "-1", "inf", "1h1h"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ConfigError, match="is no duration"):
        parse_duration(text)
