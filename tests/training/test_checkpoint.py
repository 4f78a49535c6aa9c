"""A checkpoint is whole or passed over, and runs nothing."""

import os
import pickle
import random
import shutil

import pytest
import torch

from alexnet import files
from alexnet.errors import AlexNetError, RunError
from alexnet.training import checkpoint
from alexnet.training.checkpoint import load_newest, save_checkpoint

WEIGHTS = {"fc8.weight": torch.arange(6.0).reshape(2, 3)}


def save(folder, step, **more):
    return save_checkpoint(folder, step, {"fc8.weight": WEIGHTS["fc8.weight"] + step}, more)


def test_what_is_saved_is_loaded(tmp_path):
    save(tmp_path, 7, errors=[0.5])
    found = load_newest(tmp_path)
    assert (found.step, found.state) == (7, {"errors": [0.5]})
    assert torch.equal(found.weights["fc8.weight"], WEIGHTS["fc8.weight"] + 7)
    assert (tmp_path / "latest").resolve().name == "step-00000007"


def test_only_the_newest_are_kept(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step)
    assert [path.name for path in checkpoint.checkpoint_folders(tmp_path)] == [
        "step-00000002",
        "step-00000003",
    ]


def test_no_checkpoint_is_none(tmp_path):
    assert load_newest(tmp_path / "checkpoints") is None


def test_any_cut_or_flipped_bit_is_noticed_and_the_one_before_is_used(tmp_path):
    draws = random.Random(0)
    for step in (1, 2):
        save(tmp_path / "good", step)
    for _ in range(200):
        shutil.rmtree(tmp_path / "bad", ignore_errors=True)
        shutil.copytree(tmp_path / "good", tmp_path / "bad", symlinks=True)
        name = draws.choice(["weights.safetensors", "state.pt"])
        file = tmp_path / "bad" / "step-00000002" / name
        data = bytearray(file.read_bytes())
        if draws.random() < 0.5:
            del data[draws.randrange(len(data)) :]
        else:
            data[draws.randrange(len(data))] ^= 1 << draws.randrange(8)
        file.write_bytes(data)
        found = load_newest(tmp_path / "bad")
        assert found.step == 1
        assert "step-00000002 is damaged" in found.passed_over[0]


def test_when_all_are_broken_it_says_so(tmp_path):
    (save(tmp_path, 1) / "state.pt").write_bytes(b"")
    with pytest.raises(RunError, match=r"No checkpoint in .* can be loaded"):
        load_newest(tmp_path)


class Payload:
    def __reduce__(self):
        return (os.mkdir, ("executed",))


def test_a_state_that_would_run_code_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / "run", 1)
    with (path / "state.pt").open("wb") as file:
        pickle.dump(Payload(), file)
    sums = {name: files.sha256(path / name) for name in ("weights.safetensors", "state.pt")}
    (path / "checksums.json").write_text(checkpoint.json.dumps(sums))
    with pytest.raises(RunError):
        load_newest(tmp_path / "run")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(("call", "times"), [("sync", 5), ("sha256", 2)])
def test_a_failure_at_any_point_leaves_the_one_before(tmp_path, monkeypatch, call, times):
    save(tmp_path, 1)
    real = getattr(checkpoint, call)
    for fail_at in range(1, times + 1):
        calls = []

        def failing(path, calls=calls, fail_at=fail_at):
            calls.append(path)
            if len(calls) == fail_at:
                raise KeyboardInterrupt
            return real(path)

        monkeypatch.setattr(checkpoint, call, failing)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 2)
        monkeypatch.setattr(checkpoint, call, real)
        assert load_newest(tmp_path).step == (2 if (call, fail_at) == ("sync", 5) else 1)
        assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("small_disk", [64], indirect=True)
def test_a_full_disk_is_a_sentence_and_the_one_before_stays(small_disk):
    save(small_disk, 1)
    large = torch.zeros(100_000)
    for weights, state in (({"fc6.weight": large}, {}), (WEIGHTS, {"velocity": large})):
        with pytest.raises(AlexNetError, match=r"The disk is full: .* MB are free"):
            save_checkpoint(small_disk, 2, weights, state)
    assert load_newest(small_disk).step == 1
    assert not list(small_disk.glob(".*.part"))
