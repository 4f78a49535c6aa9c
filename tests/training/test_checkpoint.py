"""A checkpoint is whole or passed over, and runs nothing."""

import builtins
import io
import itertools
import json
import os
import pickle
import random
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch

from alexnet import files
from alexnet.errors import AlexNetError, RunError
from alexnet.training import checkpoint
from alexnet.training.checkpoint import (
    Checkpoint,
    CheckpointWriter,
    clear_leftovers,
    load_newest,
    save_checkpoint,
)

WEIGHTS = {"fc8.weight": torch.arange(6.0).reshape(2, 3)}


VELOCITY = {"fc8.weight": torch.ones(2, 3)}
FILES = ("weights.safetensors", "velocity.safetensors", "state.json", "checksums.json")


def save(folder, step, best=None, **state):
    weights = {"fc8.weight": WEIGHTS["fc8.weight"] + step}
    return save_checkpoint(folder, Checkpoint(step, weights, VELOCITY, state), best=best)


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


def test_the_best_is_kept_beside_the_newest(tmp_path):
    for step in (1, 2, 3, 4):
        save(tmp_path, step, best=1)
    kept = [path.name for path in checkpoint.checkpoint_folders(tmp_path)]
    assert kept == ["step-00000001", "step-00000003", "step-00000004"]
    assert (tmp_path / "best").resolve().name == "step-00000001"
    save(tmp_path, 5, best=5)
    assert (tmp_path / "best").resolve().name == "step-00000005"
    assert not (tmp_path / "step-00000001").exists()


def test_any_cut_or_flipped_bit_is_noticed_and_the_one_before_is_used(tmp_path):
    """Scenario 8; `ALEXNET_MUTATIONS=1000` is the long form."""
    draws = random.Random(0)
    for step in (1, 2):
        save(tmp_path / "good", step, errors=[0.5, 0.25])
    for _ in range(int(os.environ.get("ALEXNET_MUTATIONS", "200"))):
        shutil.rmtree(tmp_path / "bad", ignore_errors=True)
        shutil.copytree(tmp_path / "good", tmp_path / "bad", symlinks=True)
        file = tmp_path / "bad" / "step-00000002" / draws.choice(FILES)
        data = bytearray(file.read_bytes())
        if draws.random() < 0.5:
            del data[draws.randrange(len(data)) :]
        else:
            data[draws.randrange(len(data))] ^= 1 << draws.randrange(8)
        file.write_bytes(data)
        found = load_newest(tmp_path / "bad")
        assert found.step == 1
        assert "step-00000002 is damaged" in found.skipped[0]


def test_when_all_are_broken_it_says_so(tmp_path):
    (save(tmp_path, 1) / "state.json").write_bytes(b"")
    with pytest.raises(RunError, match=r"No checkpoint in .* can be loaded"):
        load_newest(tmp_path)


class Payload:
    """Code of another's, in the ways that pickles call it."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


def signed(path):
    """Give a checkpoint the checksums of what it holds, as its forger would."""
    sums = {name: files.sha256(path / name) for name in FILES[:3]}
    (path / "checksums.json").write_text(json.dumps(sums))


def pickles():
    made = "executed"
    calls = [
        (os.mkdir, made), (os.system, f"mkdir {made}"), (eval, f"__import__('os').mkdir('{made}')"),
        (exec, f"open('{made}', 'w')"), (subprocess.getoutput, f"mkdir {made}"),
        (os.popen, f"mkdir {made}"), (builtins.open, made, "w"),
    ]  # fmt: skip
    for call, *arguments in calls:
        bare = io.BytesIO()
        pickle.dump(Payload(call, *arguments), bare)
        torched = io.BytesIO()
        torch.save({"fc8.weight": Payload(call, *arguments)}, torched)
        yield from (bare.getvalue(), torched.getvalue())


def lying_tensors():
    """Files whose header promises what the file does not hold."""
    for entry in (
        {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 1 << 40]},
        {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 24]},
        {"dtype": "F32", "shape": [2, 3], "data_offsets": [-24, 0]},
        {"dtype": "F32", "shape": [2, 3], "data_offsets": [24, 0]},
        {"dtype": "CODE", "shape": [2, 3], "data_offsets": [0, 24]},
    ):
        header = json.dumps({"fc8.weight": entry}).encode()
        yield len(header).to_bytes(8, "little") + header + bytes(24)
    yield (1 << 60).to_bytes(8, "little") + b"{}"
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 28))
    yield bomb.getvalue()


@pytest.mark.parametrize("name", ["weights.safetensors", "velocity.safetensors"])
def test_a_malicious_checkpoint_is_refused_and_runs_nothing(tmp_path, monkeypatch, name):
    """Scenario 9: 21 payloads in either file, with checksums that are right."""
    monkeypatch.chdir(tmp_path)
    payloads = [*pickles(), *lying_tensors()]
    assert len(payloads) >= 20
    for payload in payloads:
        path = save(tmp_path / "run", 1)
        (path / name).write_bytes(payload)
        signed(path)
        with pytest.raises(RunError, match=r"can be loaded"):
            load_newest(tmp_path / "run")
        assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("text", ["[" * 100_000, "3", '{"step": ' + "9" * (1 << 25) + "}"])
def test_a_state_that_is_a_bomb_is_refused(tmp_path, text):
    path = save(tmp_path, 1)
    (path / "state.json").write_text(text)
    signed(path)
    with pytest.raises(RunError):
        load_newest(tmp_path)


POINTS = ("mkdir", "_write_tensors", "write_text", "fsync", "sha256", "rename", "replace", "rmtree")


def killed_at(folder, point):
    """Save in a process that dies at its call number `point` of any that touches the disk."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    calls = itertools.count(1)

    def deadly(real):
        def call(*arguments, **more):
            if next(calls) == point:
                os._exit(9)
            return real(*arguments, **more)

        return call

    for owner in (Path, checkpoint, shutil):
        for name in POINTS:
            if hasattr(owner, name):
                setattr(owner, name, deadly(getattr(owner, name)))
    try:
        save(folder, 3)
    finally:
        os._exit(0)


def test_killed_at_any_point_of_writing_it_leaves_a_checkpoint_that_loads(tmp_path):
    """Scenario 2: after every single call that changes the disk or waits for it."""
    for point in itertools.count(1):
        folder = tmp_path / str(point)
        for step in (1, 2):
            save(folder, step)
        done = killed_at(folder, point) == 0
        found = load_newest(folder)
        assert found.step in (2, 3)
        assert not found.skipped
        clear_leftovers(folder)
        assert not list(folder.glob(".*.part"))
        assert save(folder, 4).is_dir()
        if done:
            break
    assert point > 15  # so many there are


@pytest.mark.parametrize("small_disk", [64], indirect=True)
def test_a_full_disk_is_a_sentence_and_the_one_before_stays(small_disk):
    """Scenario 7: whatever file it is that no longer fits."""
    save(small_disk, 1)
    large = {"fc6.weight": torch.zeros(100_000)}
    for full in (
        Checkpoint(2, large),
        Checkpoint(2, WEIGHTS, large),
        Checkpoint(2, WEIGHTS, {}, {"errors": [0.5] * 100_000}),
    ):
        with pytest.raises(AlexNetError, match=r"The disk is full: .* MB are free"):
            save_checkpoint(small_disk, full)
        assert load_newest(small_disk).step == 1
        assert not list(small_disk.glob(".*.part"))


def test_a_writer_writes_beside_and_tells_of_a_failure_later(tmp_path):
    with CheckpointWriter(tmp_path / "run") as writer:
        writer.save(lambda: Checkpoint(1, dict(WEIGHTS)))
        writer.wait()
        assert load_newest(tmp_path / "run").step == 1
        (tmp_path / "run" / "step-00000002").write_text("a file in the way")
        writer.save(lambda: Checkpoint(2, dict(WEIGHTS)))
        with pytest.raises(OSError, match="step-00000002"):
            writer.wait()
        writer.save(lambda: Checkpoint(3, dict(WEIGHTS)))
    assert load_newest(tmp_path / "run").step == 3


def test_a_failure_is_told_at_the_latest_when_the_writer_ends(tmp_path):
    (tmp_path / "run").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="run"), CheckpointWriter(tmp_path / "run") as writer:
        writer.save(lambda: Checkpoint(1, dict(WEIGHTS)))
