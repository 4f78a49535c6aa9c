"""A run goes on where it stopped, as if it had not, and refuses to become another one."""

import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from alexnet.cli.train import TrainRequest, open_run
from alexnet.data.shards import open_prepared
from alexnet.errors import RunError
from alexnet.figures import draw_curves
from alexnet.files import sha256
from alexnet.interop.model_folder import write
from alexnet.recipes import LayerDecay, Recipe
from alexnet.training.checkpoint import Checkpoint, save_checkpoint
from alexnet.training.fit import fit
from alexnet.training.monitor import Notice
from alexnet.training.run import FREE_TO_CHANGE, Run
from alexnet.variants import SINGLE, with_dropout
from tests.conftest import QUICK, damaged

STEPS = 60


def losses(run: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line.get("loss", line.get("val_top1"))) for line in lines]


def weights(run: Path) -> str:
    newest = max((run / "checkpoints").glob("step-*"))
    return sha256(newest / "weights.safetensors")


def training(photographs, run, *more):
    arguments = ("train", photographs, "--out", run, *QUICK, "--max-steps", STEPS, *more)
    return [sys.executable, "-m", "alexnet", *map(str, arguments)]


@pytest.fixture(scope="module")
def undisturbed(photographs, tmp_path_factory, environment):
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    subprocess.run(training(photographs, run), env=environment, check=True, capture_output=True)
    return run


def started(photographs, run, environment, until):
    """Start a training and return it once its metrics have `until` lines."""
    process = subprocess.Popen(
        training(photographs, run, "--checkpoint-every", 5),
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        metrics = run / "metrics.jsonl"
        if metrics.exists() and len(metrics.read_text().splitlines()) >= until:
            break
        time.sleep(0.005)
    return process


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_asked_to_stop_it_saves_that_step_and_goes_on(
    photographs, undisturbed, tmp_path, environment, sent, status
):
    run = tmp_path / "run"
    process = started(photographs, run, environment, 12)
    process.send_signal(sent)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == status
    assert "Stopped and saved after step" in output
    last = losses(run)[-1][0]
    assert (run / "checkpoints" / f"step-{last:08}").is_dir()
    subprocess.run(training(photographs, run), env=environment, check=True, capture_output=True)
    assert losses(run) == losses(undisturbed)
    assert weights(run) == weights(undisturbed)


def test_a_compiled_run_in_bfloat16_goes_on_bit_for_bit(photographs, tmp_path, environment):
    """The fast path: the compiler's own random numbers for dropout, and reduced precision."""
    fast = ("--set", "compile=yes", "--set", "precision=bf16")
    for run, stops in ((tmp_path / "whole", (18,)), (tmp_path / "parts", (6, 12, 18))):
        for steps in stops:
            asked = [*training(photographs, run, *fast), "--set", f"max_steps={steps}"]
            subprocess.run(asked, env=environment, check=True, capture_output=True)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")


def test_a_finished_run_only_tests_again(undisturbed, command):
    before = weights(undisturbed)
    done = command("train", "--out", undisturbed)
    assert done.returncode == 0, done.stderr
    assert "ten views: top-1" in done.stdout
    assert "step 1/" not in done.stdout
    assert weights(undisturbed) == before


def test_more_epochs_extend_a_run(trained, command, tmp_path):
    shutil.copytree(trained, tmp_path / "run", symlinks=True)
    done = command("train", "--out", tmp_path / "run", "--max-steps", 15)
    assert done.returncode == 0, done.stderr
    assert "Going on after step 12 of 15" in done.stdout
    assert [step for step, _ in losses(tmp_path / "run")][-1] == 15


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--lr", "0.5"), "recipe.lr: 0.001 in the run, 0.5 now"),
        (("--seed", "3"), "recipe.seed: 0 in the run, 3 now"),
        (("--batch-size", "7"), "recipe.batch_size: 12 in the run, 7 now"),
        (("--network", "cifar_local"), "spec.image_size: 32 in the run, 24 now"),
        (("elpv",), "data_fingerprint"),
    ],
)
def test_a_run_that_was_begun_otherwise_is_refused_with_the_difference(
    trained, command, flags, told
):
    done = command("train", *flags, "--out", trained)
    assert done.returncode == 1
    assert told in done.stderr
    assert "was begun otherwise" in done.stderr


def another(value):
    """Return a value of the same kind that is not the same."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value / 2 if isinstance(value, float) else value + 1
        case str():
            others = {
                **{"one-cycle": "milestones", "run-on": "short", "fp32": "bf16"},
                **{"random": "centre", "stdevs": "eigenvalues"},
            }
            return others.get(value, f"{value}x")
        case tuple():
            return (*value, 0.5)
        case _:
            return 0.5


@pytest.mark.parametrize("name", [field.name for field in fields(Recipe)])
def test_every_setting_that_changes_the_result_is_refused_on_going_on(trained, tmp_path, name):
    """Scenario 10; those that do not change what was done are free."""
    run = Run.open(trained)
    changed = copy.copy(run.config.recipe)
    of_layers = {"freeze": ("conv1",), "weight_decays": (LayerDecay(name="conv1", decay=0.5),)}
    value = of_layers.get(name) or another(getattr(changed, name))
    object.__setattr__(changed, name, value)  # past what it may be
    config = replace(run.config, recipe=changed)
    shutil.copytree(trained, tmp_path / "run", symlinks=True)
    if f"recipe.{name}" in FREE_TO_CHANGE:
        assert Run.start(tmp_path / "run", config, run.load_statistics())
        return
    with pytest.raises(RunError, match=rf"begun otherwise \(recipe\.{name}: .* in the run, .* now"):
        Run.start(tmp_path / "run", config, run.load_statistics())
    Run.start(tmp_path / "run", config, run.load_statistics(), override=True)
    assert getattr(Run.open(tmp_path / "run").config.recipe, name) == getattr(changed, name)


def test_a_network_that_takes_no_such_weights_leaves_the_run_as_it_was(trained, tmp_path):
    """With --override; a rate or a dropout rate go on."""
    run = Run.open(shutil.copytree(trained, tmp_path / "run", symlinks=True))
    before, spec = (run.folder / "config.json").read_bytes(), run.config.spec
    for other in (
        replace(run.config, classes=("a", "b", "c"), spec=replace(spec, num_classes=3)),
        replace(run.config, spec=spec.with_layers(spec.dense[0].name, units=7)),
        replace(run.config, spec=SINGLE),
    ):
        with pytest.raises(RunError, match=r"cannot go on like this: The weights are of another"):
            Run.start(run.folder, other, run.load_statistics(), override=True)
        assert (run.folder / "config.json").read_bytes() == before
    assert run.predictor().classes == ("defective", "functional")
    other = replace(run.config, spec=with_dropout(spec, rate=0.25))
    Run.start(run.folder, other, run.load_statistics(), override=True)
    assert Run.open(run.folder).config.spec.dropout.rate == 0.25


def test_a_folder_with_a_configuration_is_whole(trained, tmp_path, monkeypatch):
    """Killed before it has one, it is begun again; what else lies there is not mixed in."""
    run = Run.open(trained)
    first = Checkpoint(3, run.load_weights().weights)

    def begin():
        return Run.start(tmp_path / "run", run.config, run.load_statistics(), first=first)

    with monkeypatch.context() as killed:
        killed.setattr(Run, "write_json", lambda *_: sys.exit("killed"))
        with pytest.raises(SystemExit):
            begin()
    assert not (tmp_path / "run" / "config.json").exists()
    other = {name: one + 1 for name, one in first.weights.items()}
    save_checkpoint(tmp_path / "run" / "checkpoints", Checkpoint(3, other))  # of another file
    assert torch.equal(begin().load_weights().weights["fc10.bias"], first.weights["fc10.bias"])
    (tmp_path / "run" / "config.json").unlink()
    save_checkpoint(tmp_path / "run" / "checkpoints", Checkpoint(4, other))
    with pytest.raises(RunError, match=r"has checkpoints and no config\.json"):
        begin()


def test_classes_that_change_their_names_are_said(trained, photographs, tmp_path):
    shutil.copytree(trained, tmp_path / "run", symlinks=True)
    for file in photographs.rglob("*.png"):
        label = {"defective": "broken", "functional": "whole"}[file.parent.name]
        folder = tmp_path / "data" / file.parent.parent.name / label
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder)
    said = []
    console = SimpleNamespace(say=said.append, prepared=lambda *_: None, fetched=lambda *_: None)
    open_run(str(tmp_path / "data"), TrainRequest(out=tmp_path / "run", override=True), console)
    renamed = (
        "Classes are called otherwise from now on: 'defective' 'broken', 'functional' 'whole'."
    )
    assert renamed in said


def test_a_difference_of_a_thousand_classes_is_told_in_a_line(trained):
    run = Run.open(trained)
    other = replace(run.config, classes=tuple(f"class {number}" for number in range(1000)))
    with pytest.raises(RunError, match=r"classes: \('defective', 'functional'\) in the") as told:
        Run.start(trained, other, run.load_statistics())
    assert len(str(told.value)) < 600
    assert f"--from {trained} begins with its weights" in str(told.value)


def test_before_its_first_checkpoint_a_run_may_be_begun_otherwise(trained, tmp_path):
    run = Run.open(trained)
    Run.start(tmp_path / "run", run.config, run.load_statistics())
    other = replace(run.config, recipe=run.config.recipe.with_(lr=0.5))
    assert Run.start(tmp_path / "run", other, run.load_statistics()).config == other


def test_a_second_training_writes_nothing_into_a_run_that_is_held(trained, tmp_path):
    """Before its first checkpoint too: the classes of `predict` would be the other's."""
    run = Run.open(trained)
    held = Run.start(tmp_path / "run", run.config, run.load_statistics())
    before = {file: file.read_bytes() for file in held.folder.iterdir()}
    other = replace(run.config, classes=("cat", "dog"))
    with held.lock():
        with pytest.raises(RunError, match=rf"by another process \(process {os.getpid()} on"):
            Run.start(tmp_path / "run", other, run.load_statistics())
        assert {f: f.read_bytes() for f in held.folder.iterdir() if f.name[0] != "."} == before
    Run.start(tmp_path / "run", other, run.load_statistics())
    with pytest.raises(RunError, match=r"begun the run .* otherwise \(classes: "):
        next(fit(held, open_prepared(run.config.data)))


def test_lines_of_metrics_that_are_none_are_left_out(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run", symlinks=True)
    run = Run.open(tmp_path / "run")
    before, nan = run.read_metrics(), {"step": 13, "epoch": 4.3, "loss": None, "lr": 0.1}
    odd = [
        b"5",
        b"null",
        b"[1]",
        b'{"loss": 3}',
        b'{"step": null, "epoch": 1}',
        b'{"step": "a", "epoch": 1}',
        b"\xff",
        b"[" * 9999,
    ]
    with (run.folder / "metrics.jsonl").open("ab") as log:
        log.writelines(line + b"\n" for line in (*odd, json.dumps(nan).encode(), b'{"step": 1'))
    assert run.read_metrics() == [*before, nan]
    assert draw_curves(run.read_metrics()).axes  # a loss that was no number is no point


def test_a_run_that_goes_on_elsewhere_says_that_it_is_not_bit_for_bit(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run", symlinks=True)
    run = Run.open(tmp_path / "run")
    newest = max(run.checkpoints.glob("step-*"))
    state = json.loads((newest / "state.json").read_text())
    assert re.fullmatch(r".+ \(.+\), 1 threads", state["machine"])
    assert run.config.made_with["machine"].startswith(state["machine"])
    told = {}
    for machine in (state["machine"], "Another (AVX512), 64 threads"):
        (newest / "state.json").write_text(json.dumps(state | {"machine": machine}))
        sums = json.loads((newest / "checksums.json").read_text())
        sums["state.json"] = sha256(newest / "state.json")
        (newest / "checksums.json").write_text(json.dumps(sums))
        recipe = run.config.recipe.with_(max_steps=13)
        events = fit(
            Run(run.folder, replace(run.config, recipe=recipe)), open_prepared(run.config.data)
        )
        told[machine] = [event.text for event in islice(events, 2) if isinstance(event, Notice)]
        events.close()
    same, other = told.values()
    assert not any("bit for bit" in text for text in same)
    assert "trained on Another (AVX512), 64 threads and goes on with" in " ".join(other)


def test_override_goes_on_with_another_rate(trained, command, tmp_path):
    shutil.copytree(trained, tmp_path / "run", symlinks=True)
    flags = ("--out", tmp_path / "run", "--lr", "0.0001", "--max-steps", 14)
    assert "or give --override" in command("train", *flags).stderr
    assert (tmp_path / "run" / "test.json").is_file()
    stopped = command("train", *flags, "--override", "--max-time", "0.01s")
    assert stopped.returncode == 75, stopped.stderr
    assert not (tmp_path / "run" / "test.json").exists()  # it was of the weights before
    done = command("train", *flags)
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "run")[-1][0] == 14
    assert Run.open(tmp_path / "run").read_test(14)["images"] == 12


def test_a_test_is_of_the_weights_that_it_was_made_with(trained, tmp_path):
    """One of before 2026-11-30 does not say of which."""
    run = Run.open(shutil.copytree(trained, tmp_path / "run", symlinks=True))
    tested = run.read_test(12)
    assert tested["step"] == 12
    assert run.read_test(13) is None
    (newest,) = (run.checkpoints).glob("step-00000012")
    save_checkpoint(run.checkpoints, Checkpoint(8, run.load_weights().weights))
    (newest / "weights.safetensors").write_bytes(b"damaged")
    assert run.load_weights().step == 8
    card = (write(run.folder, tmp_path / "model") / "README.md").read_text()
    assert "The run was not tested." in card
    assert "model-index" not in card
    del tested["step"]
    run.write_json("test.json", tested)
    assert run.read_test(8) == tested


def test_the_configuration_tells_everything(trained):
    config = json.loads((trained / "config.json").read_text())
    assert config["spec"]["name"] == "cifar_quick"
    assert config["classes"] == ["defective", "functional"]
    assert config["recipe"]["seed"] == 0
    assert "--network cifar_quick" in config["made_with"]["command"]
    assert config["made_with"]["torch"]
    assert list(trained.glob("events.out.tfevents*"))


def test_without_a_compiler_it_trains_all_the_same_and_says_so(photographs, tmp_path, environment):
    asked = [
        *training(photographs, tmp_path / "run"),
        "--set",
        "compile=yes",
        "--set",
        "max_steps=3",
    ]
    bare = {
        **environment,
        "PATH": "",
        "CXX": "",
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),
    }
    done = subprocess.run(asked, env=bare, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "kernels for this processor cannot be used: steps are slower" in done.stdout
    assert losses(tmp_path / "run")[-1][0] == 3


def test_damaged_images_are_reported_and_too_many_stop_the_training(prepared, tmp_path, command):
    damaged(prepared, tmp_path / "two", [3, 20])
    settings = (*QUICK, "--max-steps", "6", "--set", "network.image_size=64")
    refused = command("train", tmp_path / "two", "--out", tmp_path / "refused", *settings)
    assert refused.returncode == 1
    assert "training images are damaged, more than --set max_corrupt" in refused.stderr
    allowed = (*settings, "--set", "max_corrupt=0.1")
    outcomes = []
    for name in ("first", "again"):
        done = command("train", tmp_path / "two", "--out", tmp_path / name, *allowed)
        assert done.returncode == 0, done.stderr
        for row in (3, 20):
            assert f"(row {row} of train-00000.arrow) is damaged: Its checksum" in done.stdout
        assert "(2 so far)" in done.stdout
        metrics = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        outcomes.append([json.loads(line).get("loss") for line in metrics])
    assert outcomes[0] == outcomes[1]  # the replacement is the same one each time
