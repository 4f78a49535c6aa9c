"""A run's folder: what it was asked to do, what it has done, and how another run begins with it.

RUN/  config.json  metrics.jsonl  statistics.safetensors  events.out.tfevents...
      checkpoints/step-00001234/  console.log  test.json
"""

import contextlib
import json
import logging
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from alexnet import __version__
from alexnet.config import differences, from_json
from alexnet.data.statistics import Statistics
from alexnet.device import Device, Precision
from alexnet.errors import ConfigError, DataError, RunError
from alexnet.evaluation import Summary
from alexnet.files import atomic_write, lock, sha256, translate_os_error, write_json
from alexnet.network import build
from alexnet.predictor import Predictor, assemble
from alexnet.recipes import Recipe
from alexnet.spec import Spec
from alexnet.training.checkpoint import (
    WEIGHTS,
    Checkpoint,
    checkpoint_folder,
    checkpoint_folders,
    load_newest,
    save_checkpoint,
)

FREE_TO_CHANGE = frozenset(
    f"recipe.{name}"
    for name in (
        *("epochs", "max_steps", "threads", "checkpoint_every", "log_every", "test_crops"),
        *("on_nan", "spike", "max_corrupt"),
    )
) | {"data", "initial_weights.path"}  # places; what is there is known by its hash


@dataclass(frozen=True, kw_only=True, slots=True)
class InitialWeights:
    """Where a run's first weights are from; the run has a copy, its checkpoint of step 0."""

    path: str  # the run or the model folder
    sha256: str  # of the file of weights there


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """What a run is asked to do: the content of its ``config.json``."""

    spec: Spec
    recipe: Recipe
    classes: tuple[str, ...]
    data: str  # path of the prepared data set
    data_fingerprint: str
    data_size: int  # side of the prepared images, in pixels
    initial_weights: InitialWeights | None = None  # None: drawn from the seed
    made_with: dict[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if self.spec.num_classes < 1:
            raise ConfigError("A run's network needs a class.", "Give it 1 or more.")

    def predictor(
        self,
        checkpoint: Checkpoint,
        statistics: Statistics,
        *,
        device: Device | torch.device | str | None = None,
        precision: Precision | None = None,
    ) -> Predictor:
        """Return a predictor with the weights of a checkpoint."""
        return assemble(
            self.spec,
            checkpoint.weights,
            statistics,
            self.classes,
            step=checkpoint.step,
            precision=precision or self.recipe.precision,
            device=device,
        )


class Run:
    """An opened run's folder."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        self.folder = folder
        self.config = config

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / "checkpoints"

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open a run's folder; `RunError` where it is none, or its configuration cannot be read."""
        folder = Path(folder)
        path = folder / "config.json"
        try:
            config = from_json(RunConfig, json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            what = "has no config.json" if folder.is_dir() else "does not exist"
            raise RunError(
                f"The run {str(folder)!r} {what}.", f"Train one with: alexnet train --out {folder}"
            ) from None
        except (ValueError, RecursionError) as error:  # ConfigError is a ValueError
            made, what = "", getattr(error, "what", str(error))
            with contextlib.suppress(ValueError, RecursionError, TypeError, LookupError):
                made = json.loads(path.read_text(encoding="utf-8"))["made_with"]["alexnet"]
            fix = getattr(error, "fix", "")
            if made not in ("", __version__):
                fix = f"alexnet {made} made it and this is {__version__}: install that version."
            raise RunError(f"{str(path)!r} cannot be read: {what}", fix) from None
        return cls(folder, config)

    @classmethod
    def start(
        cls,
        folder: str | Path,
        config: RunConfig,
        statistics: Statistics,
        *,
        first: Checkpoint | None = None,
        override: bool = False,
    ) -> Self:
        """Make a run's folder, or go on with one that was asked to do the same.

        `statistics` are what is subtracted from its images, and their colours' axes; `first` is
        what the network begins with, by default weights drawn from the seed. With `override` a run
        goes on that was asked something else; the weights it began with, and what it subtracts,
        stay. Before its first checkpoint this is not needed. Without, such a run is a `RunError`
        with the differences; so is one that another process trains, or whose weights do not fit.
        Nothing is changed then. The configuration is written last, so that a folder that has one
        is whole.
        """
        run = cls(Path(folder), config)
        with translate_os_error(run.folder):
            run.folder.mkdir(parents=True, exist_ok=True)
        with run.lock(), translate_os_error(run.folder):
            has_config = (run.folder / "config.json").is_file()
            begun = bool(checkpoint_folders(run.checkpoints)) and (has_config or first is None)
            if first is not None and not has_config:
                run._check_strays(first.step)
            if has_config:
                old = cls.open(run.folder).config
                refused = _describe_changes(old, config)
                if refused and not override and begun:
                    raise RunError(
                        f"The run {str(folder)!r} was begun otherwise ({refused}).",
                        f"Choose another --out (--from {folder} begins with its weights), leave "
                        "these settings as they were, or give --override.",
                    )
                if begun:
                    run.config = replace(config, initial_weights=old.initial_weights)
                    if refused:
                        run._check_weights_fit()
            if not begun or not (run.folder / "statistics.safetensors").is_file():
                statistics.save(run.folder / "statistics.safetensors")
            if first is not None and not begun:
                save_checkpoint(run.checkpoints, first)
            run.write_json("config.json", asdict(run.config))
        return run

    def _check_strays(self, step: int) -> None:
        """See that a folder without a configuration has no checkpoints of something else."""
        own = checkpoint_folder(self.checkpoints, step)
        if any(folder != own for folder in checkpoint_folders(self.checkpoints)):
            raise RunError(
                f"{str(self.folder)!r} has checkpoints and no config.json.", "Choose another --out."
            )

    def _check_weights_fit(self) -> None:
        """See that the configuration's network takes the newest weights; `RunError` if not."""
        if (found := load_newest(self.checkpoints, with_state=False)) is None:
            return
        try:
            build(self.config.spec, None).load_weights(found.weights)
        except ConfigError as error:
            raise RunError(
                f"The run {str(self.folder)!r} cannot go on like this: {error.what}",
                f"Choose another --out (--from {self.folder} begins with its weights), or leave "
                "the network and the number of classes as they were.",
            ) from error

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other trainings out of the folder within the block; `RunError` where one is in."""
        refusal = RunError(
            f"The run {str(self.folder)!r} is being trained by another process.",
            "Wait for it, or choose another --out.",
        )
        with lock(self.folder / ".lock", refusal):
            yield

    def check_is_as_begun(self) -> None:
        """See that nobody has begun the folder anew since it was opened, which is a `RunError`."""
        if changed := _describe_changes(self.config, Run.open(self.folder).config):
            raise RunError(
                f"Another process has begun the run {str(self.folder)!r} otherwise ({changed}).",
                "Choose another --out.",
            )

    def find_data(self) -> str:
        """Return where the run's prepared data set lies; `DataError` where it is no more."""
        if origin := self.config.made_with.get("imported"):
            raise DataError(
                f"The run was imported ({origin}) and has no data of its own.",
                "Name some: a prepared data set, a folder of classes, or a built-in name.",
            )
        if not Path(self.config.data).exists():
            raise DataError(
                f"The data of the run {str(self.folder)!r} is not in {self.config.data!r} any "
                "more.",
                "Name where it is now, or the source that it was prepared from.",
            )
        return self.config.data

    def load_statistics(self) -> Statistics:
        """Return the statistics of the run's training data."""
        return Statistics.load(self.folder / "statistics.safetensors")

    def load_weights(self) -> Checkpoint:
        """Load the run's newest good weights; `RunError` where it has none.

        That newer ones are damaged is logged.
        """
        found = load_newest(self.checkpoints, with_state=False)
        if found is None:
            raise RunError(
                f"The run {str(self.folder)!r} has no checkpoint yet.",
                f"Train it with: alexnet train --out {self.folder}",
            )
        for broken in found.skipped:
            logging.getLogger(__name__).warning(
                "%s; step %d of the run %r is used.", broken, found.step, str(self.folder)
            )
        return found

    def predictor(
        self,
        *,
        device: Device | torch.device | str | None = None,
        precision: Precision | None = None,
    ) -> Predictor:
        """Load the run's newest good weights for prediction; `RunError` where it has none.

        It runs on the GPU where there is one, in the recipe's precision, unless others are given.
        """
        weights, statistics = self.load_weights(), self.load_statistics()
        try:
            return self.config.predictor(weights, statistics, device=device, precision=precision)
        except ConfigError as error:
            raise RunError(
                f"The run {str(self.folder)!r} cannot be used: {error.what}", error.fix
            ) from error

    def log_metrics(self, **numbers: float | None) -> None:
        """Add a line to ``metrics.jsonl``."""
        self._append("metrics.jsonl", json.dumps(numbers))

    def log_line(self, text: str) -> None:
        """Add a line to ``console.log``."""
        self._append("console.log", text)

    def _append(self, name: str, line: str) -> None:
        path = self.folder / name
        data = f"{line}\n".encode(errors="backslashreplace")  # names of files may be no text
        with translate_os_error(path), path.open("ab") as log:
            log.write(data)

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the lines of ``metrics.jsonl``: numbers by name, among them a step and an epoch.

        A line that is none, as a kill leaves the last one, is left out.
        """
        path = self.folder / "metrics.jsonl"
        lines = map(parse_metrics, path.read_bytes().splitlines() if path.is_file() else ())
        return [line for line in lines if line and isinstance(line.get("epoch"), int | float)]

    def read_test(self, step: int) -> dict[str, Any] | None:
        """Return what the test of the weights of a step wrote, `evaluation.summarize`.

        Nothing where these were not tested: newer weights, and older ones where the newest are
        damaged, have another result. A ``test.json`` that is not what a test writes is a
        `RunError`.
        """
        path = self.folder / "test.json"
        try:
            content = json.loads(path.read_bytes())
            from_json(Summary, content)
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            raise RunError(
                f"{str(path)!r} cannot be read: {error}",
                f"Delete it, and test again: alexnet train --out {self.folder}",
            ) from None
        return dict(content) if content.get("step", step) == step else None

    def drop_test(self) -> None:
        """Drop the result of weights that a training leaves behind."""
        (self.folder / "test.json").unlink(missing_ok=True)

    def drop_metrics_after(self, step: int) -> None:
        """Drop the metrics of steps that are about to be taken again."""
        kept = [line for line in self.read_metrics() if line["step"] <= step]
        with atomic_write(self.folder / "metrics.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a result beside the run's other files."""
        write_json(self.folder / name, content)


def parse_metrics(text: bytes) -> dict[str, Any] | None:
    """Return the numbers by name in a line of ``metrics.jsonl``, a step among them.

    Words in it are left out. Nothing where it is no such line, as a kill leaves the last one.
    """
    with contextlib.suppress(ValueError, RecursionError):
        line = json.loads(text)
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            return {k: value for k, value in line.items() if isinstance(value, int | float | None)}
    return None


def _describe_changes(old: RunConfig, new: RunConfig) -> str:
    """Say in which fields that must stay two configurations differ; nothing where in none."""
    return "; ".join(
        f"{name}: {_short(was)} in the run, {_short(now)} now"
        for name, (was, now) in differences(old, new).items()
        if name not in FREE_TO_CHANGE and not name.startswith("made_with")
    )


def _short(value: object) -> str:
    """Return a value as it is written, or the beginning of it: there may be 1,000 classes."""
    written = repr(value)
    return written if len(written) <= 100 else f"{written[:97]}..."


def software_versions(threads: int | None = None) -> dict[str, str]:
    """Return the versions, the commit, the command and the machine behind a run."""
    return {
        "alexnet": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{Device.best().describe_rounding(threads)}, {os.cpu_count()} cores",
        "commit": _commit(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _commit() -> str:
    try:
        asked = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A trained network, and what it was trained on."""

    config: RunConfig
    weights: dict[str, Tensor]
    statistics: Statistics
    origin: InitialWeights

    @classmethod
    def from_folder(
        cls, folder: Path, file: Path, config: RunConfig, found: Checkpoint, statistics: Statistics
    ) -> Self:
        """Return what lies in a folder, whose weights are in a file."""
        origin = InitialWeights(path=str(folder.resolve()), sha256=sha256(file))
        return cls(config, found.weights, statistics, origin)

    @classmethod
    def from_run(cls, run: Run) -> Self:
        """Return the newest good weights of a run, and what belongs to them; `RunError` if none."""
        found = run.load_weights()
        file = checkpoint_folder(run.checkpoints, found.step) / WEIGHTS
        return cls.from_folder(run.folder, file, run.config, found, run.load_statistics())

    def same_classes(self, classes: tuple[str, ...]) -> bool:
        """Whether the last layer can stay: the same names in the same order."""
        return classes == self.config.classes

    def weights_for(self, spec: Spec, classes: tuple[str, ...], seed: int) -> dict[str, Tensor]:
        """Return the weights for a network, whose number of classes may be another.

        Where the classes are not those it was trained on, in the same order, the last layer is
        drawn anew from the seed, all of it. Weights of another network are a `ConfigError`.
        """
        network = build(replace(spec, num_classes=self.config.spec.num_classes), None)
        try:
            network.load_weights(self.weights)
        except ConfigError as error:
            raise ConfigError(
                f"{self.origin.path!r} cannot be begun from: {error.what}",
                "Leave out the --set network... that changes the size of a layer.",
            ) from error
        if not self.same_classes(classes):
            network.reset_classifier(len(classes), seed=seed)
        return dict(network.state_dict())

    def statistics_for(self, data: Statistics) -> Statistics:
        """Return what a training on other data needs: the network's mean image, the data's colours.

        The first layer has learned from pixels less that mean, and its biases know no other. The
        colour noise imitates the light on the images that are shown, so its axes are theirs.
        """
        return replace(data, mean_image=self.statistics.mean_image)
