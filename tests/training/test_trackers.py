"""Curves in the libraries that people have, each read back from what it wrote, offline."""

import json
import os
import struct
import subprocess
import sys
from importlib.util import find_spec

import pytest

from alexnet.errors import MissingExtraError, TrainingError
from alexnet.training.trackers import check_installed, open_tracker

LOSSES = [3.0, 2.5, 2.0]


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    told = {"recipe": {"lr": 0.01, "epochs": 3}, "spec": {"name": "single", "convs": []}}
    (folder / "config.json").write_text(json.dumps(told))
    return folder


def write(name, folder):
    """Log two steps, and one of a training that goes on."""
    for done, steps in ((0, (1, 2)), (2, (3,))):
        tracker = open_tracker(name, folder, done)
        for step in steps:
            tracker.add(step, loss=LOSSES[step - 1], lr=0.01)
        tracker.close()
        assert not tracker.take_complaint()


def test_tensorboard_is_the_default_and_goes_on_where_it_was(run):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write("tensorboard", run)
    found = EventAccumulator(str(run))
    found.Reload()
    assert [(one.step, one.value) for one in found.Scalars("loss")] == [(1, 3), (2, 2.5), (3, 2)]


@pytest.mark.skipif(not find_spec("mlflow"), reason="the extra mlflow is not installed")
@pytest.mark.slow  # mlflow takes some seconds to be imported
@pytest.mark.filterwarnings("ignore")  # mlflow's and SQLAlchemy's own
def test_mlflow_has_one_run_with_all_steps(run, tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"  # as where no server is named, but not in "."
    monkeypatch.setitem(os.environ, "MLFLOW_TRACKING_URI", uri)
    write("mlflow", run)
    from mlflow import MlflowClient

    client = MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'alexnet'")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == "run"
    assert found.data.params["recipe.lr"] == "0.01"
    history = client.get_metric_history(found.info.run_id, "loss")
    assert [(one.step, one.value) for one in history] == [(1, 3), (2, 2.5), (3, 2)]


@pytest.mark.skipif(not find_spec("wandb"), reason="the extra wandb is not installed")
@pytest.mark.slow  # wandb starts a process of its own
def test_wandb_writes_into_the_runs_folder_offline(run, monkeypatch):
    monkeypatch.setitem(os.environ, "WANDB_MODE", "offline")
    write("wandb", run)
    from wandb.proto import wandb_internal_pb2

    found = []
    for file in sorted((run / "wandb").glob("offline-run-*/run-*.wandb")):
        for data in records(file.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(data)
            items = {"/".join(i.nested_key) or i.key: i.value_json for i in record.history.item}
            if "loss" in items:
                found.append((int(items["_step"]), float(items["loss"])))
    assert found == [(1, 3), (2, 2.5), (3, 2)]


def records(data):
    """Yield what lies in a file of wandb: LevelDB's log, here of whole records in one block."""
    at = 7
    while at < len(data):
        _, size, kind = struct.unpack_from("<IHB", data, at)
        assert kind == 1
        yield data[at + 7 : at + 7 + size]
        at += 7 + size


@pytest.mark.skipif(not find_spec("trackio"), reason="the extra trackio is not installed")
@pytest.mark.slow  # trackio takes some seconds to be imported
def test_trackio_keeps_one_run_with_all_steps(run, tmp_path):
    """In a process of its own: it takes its folder from the environment when it is imported."""
    code = (
        "import sys; from pathlib import Path; from tests.training.test_trackers import write\n"
        "write('trackio', Path(sys.argv[1]))\n"
        "import trackio; (run,) = trackio.Api().runs('alexnet')\n"
        "from trackio.sqlite_storage import SQLiteStorage\n"
        "logs = SQLiteStorage.get_logs('alexnet', run.name)\n"
        "print('FOUND', [(one['step'], one['loss']) for one in logs])\n"
    )
    env = os.environ | {"TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    told = subprocess.run(
        [sys.executable, "-c", code, str(run)], capture_output=True, text=True, env=env, timeout=120
    )
    assert "FOUND [(1, 3.0), (2, 2.5), (3, 2.0)]" in told.stdout, told.stderr


def test_a_library_that_is_missing_or_fails_is_a_sentence(run, monkeypatch):
    monkeypatch.setattr("alexnet.training.trackers.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="wandb"):
        check_installed("wandb")
    check_installed("tensorboard")
    monkeypatch.setattr("alexnet.training.trackers.find_spec", lambda name: True)
    monkeypatch.setitem(sys.modules, "wandb", None)  # as where its import fails
    with pytest.raises(TrainingError, match="wandb cannot be opened"):
        open_tracker("wandb", run, 0)
