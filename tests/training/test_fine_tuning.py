"""A training that begins with another's weights, some of them frozen."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from alexnet.api import load
from alexnet.cli import main
from alexnet.data.loader import evaluation_batches
from alexnet.data.shards import open_prepared
from alexnet.data.statistics import Statistics
from alexnet.errors import ConfigError, RunError
from alexnet.files import sha256
from alexnet.interop.model_folder import write
from alexnet.network import build, freeze
from alexnet.training.checkpoint import Checkpoint
from alexnet.training.distributed import DistributedContext
from alexnet.training.fit import fit
from alexnet.training.run import Pretrained, Run
from alexnet.training.state import restore
from alexnet.variants import CIFAR_QUICK, SINGLE

FLAGS = (
    *("--batch-size", "12", "--no-compile", "--precision", "fp32", "--threads", "1"),
    *("--lr", "0.001", "--set", "log_every=1", "--set", "crop_area=none"),
)


@pytest.fixture(scope="module")
def others(photographs, tmp_path_factory):
    """Return the photographs in three classes, darker, so that their mean image is another."""
    from PIL import Image

    root = tmp_path_factory.mktemp("others")
    for number, file in enumerate(sorted(photographs.rglob("*.png"))):
        folder = root / file.parent.parent.name / f"class{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        with Image.open(file) as image:
            image.point(lambda value: value // 3).save(folder / file.name)
    return root


@pytest.fixture(scope="module")
def tuned(trained, others, tmp_path_factory, command):
    """Return a run on the three classes, from the weights of `trained`, conv1-conv3 frozen."""
    run = tmp_path_factory.mktemp("tuned") / "run"
    asked = ("--from", trained, "--freeze", "conv1-conv3", "--max-steps", 6)
    done = command("train", others, "--out", run, *FLAGS, *asked)
    assert done.returncode == 0, done.stderr
    assert f"weights  of {trained}" in done.stdout
    assert "frozen   conv1, conv2, conv3" in done.stdout
    assert "The classes are others, so fc10 is drawn anew." in done.stdout
    return run


def newest(run: Path) -> Path:
    return max((run / "checkpoints").glob("step-*"))


def test_frozen_layers_stay_bit_for_bit_and_the_others_learn(trained, tuned):
    before = load_file(newest(trained) / "weights.safetensors")
    after = load_file(newest(tuned) / "weights.safetensors")
    assert list(after) == list(before)  # the checkpoint is whole
    kept = {name for name in after if name[:4] == "conv"}
    assert len(kept) == 6
    assert all(torch.equal(after[name], before[name]) for name in kept)
    assert after["fc10.weight"].shape == (3, 64)
    assert not torch.equal(after["fc64.weight"], before["fc64.weight"])
    assert set(load_file(newest(tuned) / "velocity.safetensors")) == after.keys() - kept


def test_the_last_layer_of_other_classes_is_that_of_the_seed(trained, tuned):
    pretrained, config = Pretrained.from_run(Run.open(trained)), Run.open(tuned).config
    one, same, other = (
        pretrained.weights_for(config.spec, config.classes, seed)["fc10.weight"]
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.std().item() == pytest.approx(config.spec.output_std, rel=0.2)


def test_the_same_classes_keep_the_last_layer_and_another_order_does_not(trained):
    pretrained = Pretrained.from_run(Run.open(trained))
    spec, classes = pretrained.config.spec, pretrained.config.classes
    kept = pretrained.weights_for(spec, classes, 0)
    assert all(torch.equal(kept[name], tensor) for name, tensor in pretrained.weights.items())
    turned = pretrained.weights_for(spec, classes[::-1], 0)
    assert not torch.equal(turned["fc10.weight"], kept["fc10.weight"])


def test_where_the_weights_are_from_is_recorded(trained, tuned):
    first = Run.open(tuned).config.initial_weights
    assert first.path == str(trained)
    assert first.sha256 == sha256(newest(trained) / "weights.safetensors")


def test_the_mean_image_is_the_first_network_s_and_the_colours_are_the_data_s(trained, tuned):
    run = Run.open(tuned)
    data = open_prepared(run.config.data)
    ours, first = run.load_statistics(), Statistics.load(trained / "statistics.safetensors")
    assert np.array_equal(ours.mean_image, first.mean_image)
    assert not np.array_equal(ours.mean_image, data.statistics.mean_image)
    assert np.array_equal(ours.colour_stdevs, data.statistics.colour_stdevs)
    assert not np.array_equal(ours.colour_stdevs, first.colour_stdevs)
    state, _, _ = restore(run, data, DistributedContext(), "data")
    side = run.config.spec.image_size
    assert np.array_equal(state.normalise.mean[0].numpy(), first.mean_image[:, :side, :side])
    assert np.array_equal(state.data.statistics.colour_stdevs, data.statistics.colour_stdevs)


@pytest.mark.parametrize("compile", [False, True])
def test_validation_runs_the_fused_network_only_where_the_recipe_compiles(
    trained, compile, monkeypatch
):
    fused = []
    monkeypatch.setattr("alexnet.predictor.fuse", lambda layers: fused.append(layers) or layers)
    run = Run.open(trained)
    data = open_prepared(run.config.data)
    state, _, _ = restore(run, data, DistributedContext(), "data")
    recipe = replace(run.config.recipe, compile=compile)
    run = SimpleNamespace(config=replace(run.config, recipe=recipe))
    replace(state, run=run).test(data.held_out, 1)
    assert bool(fused) == compile


def test_before_its_first_step_it_predicts_what_the_first_network_does(trained, tmp_path):
    """Of the same classes: whatever the data's own mean, pixels and weights are those of before."""
    first, before = Run.open(trained), load(trained)
    pretrained = Pretrained.from_run(first)
    darker = replace(first.load_statistics(), mean_image=first.load_statistics().mean_image / 3)
    run = Run.start(
        tmp_path / "run",
        replace(first.config, initial_weights=pretrained.origin),
        pretrained.statistics_for(darker),
        first=Checkpoint(0, pretrained.weights_for(first.config.spec, first.config.classes, 0)),
    )
    images = next(evaluation_batches(open_prepared(first.config.data).held_out, 12)).images
    after = load(run.folder)
    assert after.step == 0
    assert torch.equal(before.probabilities(images, 10), after.probabilities(images, 10))


def test_the_result_is_a_run_like_any_other(tuned, capsys):
    assert main.run(["evaluate", str(tuned), "--threads", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result | {"step": 6} == json.loads((tuned / "test.json").read_text())
    data = open_prepared(Run.open(tuned).config.data)
    image = next(evaluation_batches(data.held_out, 1)).images[0].numpy()
    assert {place.label for place in load(tuned).predict(image)} == {"class0", "class1", "class2"}


def test_a_model_folder_is_begun_from_and_the_folder_s_place_stays_at_home(
    trained, tuned, tmp_path
):
    folder, run = write(trained, tmp_path / "model"), tmp_path / "run"
    asked = ("--from", folder, "--freeze", "conv1-conv3", "--max-steps", 6)
    words = ("train", Run.open(tuned).config.data, "--out", run, *FLAGS, *asked)
    assert main.run([*map(str, words)]) == 0
    ours, others = (sha256(newest(each) / "weights.safetensors") for each in (run, tuned))
    assert ours == others
    exported = json.loads((write(run, tmp_path / "again") / "config.json").read_text())
    assert exported["run"]["initial_weights"]["path"] == "model"
    card = (tmp_path / "again" / "README.md").read_text()
    assert "fine-tuned on" in card
    assert "It began with the weights of `model` (sha256 `" in card
    assert "began with" not in (folder / "README.md").read_text()


def going_on(others, run, *more):
    arguments = ("train", others, "--out", run, *FLAGS, "--max-steps", 30, *more)
    return [sys.executable, "-m", "alexnet", *map(str, arguments)]


def test_killed_it_goes_on_bit_for_bit_without_the_first_run(
    trained, others, tmp_path, environment
):
    """SIGKILL, once when only the copy of step 0 is there; dropout, momentum and decay are on."""
    shutil.copytree(trained, tmp_path / "first", symlinks=True)
    begin = ("--from", tmp_path / "first", "--freeze", "conv1-conv2", "--checkpoint-every", 5)
    subprocess.run(
        going_on(others, tmp_path / "whole", *begin), env=environment, check=True,
        capture_output=True,
    )  # fmt: skip
    run, draws = tmp_path / "run", random.Random(0)
    for kill, step in enumerate((0, 10)):
        process = subprocess.Popen(
            going_on(others, run, *begin), env=environment, stdout=subprocess.DEVNULL
        )
        wanted = run / "checkpoints" / f"step-{step:08}" if kill else run / "config.json"
        deadline = time.monotonic() + 60
        while not wanted.exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(draws.uniform(0, 0.05) if kill else 0)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        if not kill:
            assert newest(run).name == "step-00000000"
            shutil.rmtree(tmp_path / "first")  # the same command goes on, without it
    subprocess.run(going_on(others, run), env=environment, check=True, capture_output=True)
    assert sha256(newest(run) / "weights.safetensors") == sha256(
        newest(tmp_path / "whole") / "weights.safetensors"
    )
    lines = [
        (each / "metrics.jsonl").read_text().splitlines() for each in (run, tmp_path / "whole")
    ]
    losses = [[json.loads(line).get("loss") for line in each] for each in lines]
    assert losses[0] == losses[1]


def test_a_run_that_lost_its_first_weights_says_so(tuned, tmp_path):
    shutil.copytree(tuned, tmp_path / "run", symlinks=True)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    run = Run.open(tmp_path / "run")
    with pytest.raises(RunError, match=r"lost the weights .* to begin with\. Give --from again"):
        list(fit(run, open_prepared(run.config.data)))


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--freeze", "conv11"), "has no layer 'conv11'. Did you mean 'conv1'?"),
        (("--freeze", "conv3-conv1"), "'conv3-conv1' is no range of layers"),
        (("--freeze", "conv1-fc10"), "Every layer is frozen: there is nothing to learn"),
        (("--network", "single"), "--network and --from both say what the network is"),
        (("--from", "nowhere"), "There is no folder 'nowhere' to begin from"),
        (
            ("--set", "network.conv1.out_channels=16"),
            "are of another network (size mismatch for conv2",
        ),
        (("{prepared}",), "prepared at 64 pixels"),
    ],
)
def test_what_cannot_be_begun_is_a_sentence_and_leaves_nothing(
    trained, prepared, tmp_path, capsys, flags, told
):
    begin = () if "--from" in flags else ("--from", trained)
    data = () if flags == ("{prepared}",) else (Run.open(trained).config.data,)
    flags = [flag.format(prepared=prepared.root) for flag in flags]
    words = ("train", *data, *flags, "--out", tmp_path / "run", *begin)
    assert main.run([*map(str, words)]) == 1
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_begun_run_keeps_its_first_weights_whatever_is_asked(tuned, trained, tmp_path):
    shutil.copytree(tuned, tmp_path / "run", symlinks=True)
    run = Run.open(tuned)
    origin = replace(run.config.initial_weights, sha256="0" * 64)
    other = replace(run.config, initial_weights=origin)
    with pytest.raises(RunError, match=r"begun otherwise \(initial_weights\.sha256"):
        Run.start(tmp_path / "run", other, run.load_statistics())
    went_on = Run.start(
        tmp_path / "run", other, run.load_statistics(), first=Checkpoint(0, {}), override=True
    )
    assert went_on.config.initial_weights == run.config.initial_weights
    assert newest(tmp_path / "run").name == "step-00000006"
    elsewhere = replace(run.config, initial_weights=replace(run.config.initial_weights, path="/x"))
    assert Run.start(tmp_path / "run", elsewhere, run.load_statistics())  # it may have moved


def test_layers_can_be_thawed_and_more_of_them_frozen(tuned, tmp_path):
    """With --override; what was frozen begins at rest, what is frozen now loses its velocity."""
    for freeze_now, moving in (((), 10), (("conv1-fc64",), 2)):
        shutil.copytree(tuned, tmp_path / str(moving), symlinks=True)
        run = Run.open(tuned)
        recipe = run.config.recipe.with_(freeze=freeze_now, max_steps=8)
        config = replace(run.config, recipe=recipe)
        run = Run.start(tmp_path / str(moving), config, run.load_statistics(), override=True)
        assert list(fit(run, open_prepared(run.config.data)))
        assert len(load_file(newest(run.folder) / "velocity.safetensors")) == moving


def test_a_configuration_from_before_is_read_and_freezes_nothing(trained, tmp_path):
    config = json.loads((trained / "config.json").read_text())
    del config["initial_weights"], config["recipe"]["freeze"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    read = Run.open(tmp_path).config
    assert read == Run.open(trained).config
    assert (read.initial_weights, read.recipe.freeze) == (None, ())


def test_no_gradient_is_computed_below_the_last_frozen_layer():
    """conv1 to conv5 are no part of the graph; a frozen layer above passes its gradient on."""
    spec = replace(CIFAR_QUICK, num_classes=4)
    network, pixels = build(spec), torch.randn(2, 3, 32, 32)
    freeze(network, ["conv1-conv3"])
    maps = network.forward_features(pixels)
    assert not maps.requires_grad
    network.forward_head(maps).sum().backward()
    graded = {name for name, one in network.named_parameters() if one.grad is not None}
    assert graded == {"fc64.weight", "fc64.bias", "fc10.weight", "fc10.bias"}
    network = build(spec)
    freeze(network, ["fc64"])
    network(pixels).sum().backward()
    assert network.fc64.weight.grad is None
    assert network.conv1.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("names", "layers"),
    [
        (("conv1-conv5",), "conv1 conv2 conv3 conv4 conv5"),
        (("conv4-fc6", "conv1"), "conv1 conv4 conv5 fc6"),
        (("fc8", "conv2", "conv2-conv2"), "conv2 fc8"),
        ((), ""),
    ],
)
def test_names_and_ranges_stand_for_layers(names, layers):
    assert SINGLE.frozen(*names) == tuple(layers.split())


@pytest.mark.parametrize("wrong", ["conv1-", "conv1-conv2-conv3", "pool5", ""])
def test_what_is_no_layer_is_refused(wrong):
    with pytest.raises(ConfigError):
        SINGLE.frozen(wrong)
