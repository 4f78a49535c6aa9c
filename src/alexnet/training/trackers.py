"""Where the curves of a training go besides its folder: TensorBoard, or another library's runs."""

import contextlib
import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from alexnet.errors import MissingExtraError, TrainingError
from alexnet.files import translate_os_error

TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]
PROJECT = "alexnet"  # the project, or experiment, that runs are gathered in


class Tracker(Protocol):
    """Takes the numbers of a training."""

    def take_complaint(self) -> str:
        """Return why it takes no more of them, once."""

    def add(self, step: int, **numbers: float) -> None:
        """Add a point to each curve."""

    def close(self) -> None:
        """Write what is buffered, and end."""


def check_installed(name: TrackerName) -> None:
    """Raise MissingExtraError where a tracker's library is not there.

    TensorBoard, the default, is optional: without it nothing is written.
    """
    if name != "tensorboard" and find_spec(name) is None:
        raise MissingExtraError(name, name, f"Logging to {name}")


def open_tracker(name: TrackerName, folder: Path, done: int) -> Tracker:
    """Open a tracker for a run's folder, which has its ``config.json``, after `done` steps.

    A training that goes on adds to the run it had there. Points after `done` are of steps that a
    stopped run is about to take again: TensorBoard forgets the old ones, wandb keeps them, the
    others have both. Where each library sends its numbers is its own business: ``WANDB_MODE``,
    ``MLFLOW_TRACKING_URI``, ``TRACKIO_DIR``.
    """
    check_installed(name)
    if name == "tensorboard":
        return TensorBoard(folder, done)
    try:
        return _Guarded(name, _LIBRARIES[name](folder))
    except Exception as error:  # of any library: no login, no server
        raise TrainingError(f"{name} cannot be opened: {error}"[:500]) from None


def _describe(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return a name of this very run, the same whenever it goes on, and its configuration."""
    file = folder.resolve() / "config.json"
    begun = f"{file} {file.stat().st_mtime_ns}"
    name = f"{folder.resolve().name}-{hashlib.sha256(begun.encode()).hexdigest()[:8]}"
    return name, json.loads(file.read_text())


class TensorBoard:
    """Writes into the run's folder; without TensorBoard installed it writes nothing."""

    def __init__(self, folder: Path, done: int) -> None:
        self._writer: Any = None
        self._folder = folder
        with contextlib.suppress(ImportError), translate_os_error(folder):
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder), purge_step=done + 1)  # type: ignore[no-untyped-call]

    def take_complaint(self) -> str:
        """Return nothing: a full disk ends the training, as it does for checkpoints."""
        return ""

    def add(self, step: int, **numbers: float) -> None:
        """Add a point to each curve."""
        with translate_os_error(self._folder):
            for name, number in numbers.items() if self._writer else ():
                self._writer.add_scalar(name, number, step)

    def close(self) -> None:
        """Write what is buffered, and end."""
        if self._writer:
            with translate_os_error(self._folder):
                self._writer.close()


class _Guarded:
    """A tracker that may fail, as one with a server does, without ending the training."""

    def __init__(self, name: str, tracker: "Wandb | Mlflow | Trackio") -> None:
        self._name, self._tracker, self._complaint = name, tracker, ""
        self._failed = False

    def take_complaint(self) -> str:
        """Return why it failed, once."""
        complaint, self._complaint = self._complaint, ""
        return complaint

    def add(self, step: int, **numbers: float) -> None:
        """Add a point to each curve, unless it has failed before."""
        if self._failed:
            return
        try:
            self._tracker.add(step, **numbers)
        except Exception as error:
            self._failed = True
            self._complaint = f"{self._name} takes no more numbers ({str(error)[:300]})."

    def close(self) -> None:
        """End, as well as it can."""
        with contextlib.suppress(Exception):
            self._tracker.close()


class Wandb:
    """Weights & Biases; its files lie in the run's folder, below ``wandb``."""

    def __init__(self, folder: Path) -> None:
        import wandb

        name, config = _describe(folder)
        self._run = wandb.init(
            project=PROJECT, id=name, name=folder.name, dir=folder, config=config, resume="allow"
        )

    def add(self, step: int, **numbers: float) -> None:
        """Add a point to each curve."""
        self._run.log(numbers, step=step)

    def close(self) -> None:
        """Send what is buffered, and end."""
        self._run.finish()


class Mlflow:
    """MLflow, by its client, which keeps no run of the process."""

    def __init__(self, folder: Path) -> None:
        from mlflow import MlflowClient

        name, config = _describe(folder)
        self._client = MlflowClient()
        known = self._client.get_experiment_by_name(PROJECT)
        experiment = known.experiment_id if known else self._client.create_experiment(PROJECT)
        found = self._client.search_runs([experiment], f"tags.alexnet_run = '{name}'")
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        tags = {"alexnet_run": name}
        self._id = self._client.create_run(experiment, run_name=folder.name, tags=tags).info.run_id
        for key in ("recipe", "spec"):
            for setting, value in config.get(key, {}).items():
                if not isinstance(value, list | dict):
                    self._client.log_param(self._id, f"{key}.{setting}", value)

    def add(self, step: int, **numbers: float) -> None:
        """Add a point to each curve."""
        for name, number in numbers.items():
            self._client.log_metric(self._id, name, number, step=step)

    def close(self) -> None:
        """End the run."""
        self._client.set_terminated(self._id)


class Trackio:
    """Hugging Face's trackio, into its own folder."""

    def __init__(self, folder: Path) -> None:
        import trackio

        name, config = _describe(folder)
        self._run = trackio.init(PROJECT, name=name, config=config, resume="allow", embed=False)

    def add(self, step: int, **numbers: float) -> None:
        """Add a point to each curve."""
        self._run.log(numbers, step=step)

    def close(self) -> None:
        """Write what is buffered, and end."""
        self._run.finish()


_LIBRARIES: dict[str, type[Wandb | Mlflow | Trackio]] = {
    "wandb": Wandb,
    "mlflow": Mlflow,
    "trackio": Trackio,
}
