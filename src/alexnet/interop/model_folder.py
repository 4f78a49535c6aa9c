"""A model folder, as repositories of the Hugging Face hub are: written, read, sent and fetched.

DIR/  config.json  model.safetensors  statistics.safetensors  README.md

What is read here comes from strangers. It is JSON and safetensors, never a pickle; sizes, shapes
and checksums are compared with what the configuration says before anything is built.
"""

import json
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from alexnet.config import from_json
from alexnet.data.statistics import Statistics
from alexnet.errors import AlexNetError, RunError
from alexnet.files import atomic_write, sha256, translate_os_error
from alexnet.interop import hub
from alexnet.interop.card import IMPORTED, model_card
from alexnet.interop.deployment import preprocessing
from alexnet.interop.weights import read_safetensors, write_safetensors
from alexnet.network import AlexNet
from alexnet.predictor import Predictor
from alexnet.training.checkpoint import Checkpoint, save_checkpoint
from alexnet.training.run import Run, RunConfig
from alexnet.version import __version__

CONFIG, WEIGHTS, STATISTICS, CARD = (
    "config.json", "model.safetensors", "statistics.safetensors", "README.md",
)  # fmt: skip
FORMAT = 1
LARGEST_CONFIG = 64 << 20  # bytes; a hundred thousand classes take 15 MB
MOST_LAYERS = 100


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """What a model folder holds."""

    config: RunConfig
    checkpoint: Checkpoint
    statistics: Statistics
    test: dict[str, Any] | None  # how the run was tested, if it was


def write(run: str | Path, folder: str | Path) -> Path:
    """Write a trained run as a model folder; the configuration last, with the others' checksums.

    Local paths, the command and the machine stay at home: names, versions and the commit go along.

    Raises
    ------
    RunError
        When the folder is no run, or has no checkpoint that can be loaded.
    """
    opened, folder = Run.open(run), Path(folder)
    checkpoint, statistics = opened.weights(), opened.statistics()
    kept = ("alexnet", "torch", "python", "commit", IMPORTED)
    first = opened.config.initial_weights
    config = replace(
        opened.config,
        data=Path(opened.config.data).name,
        initial_weights=first and replace(first, path=Path(first.path).name),
        made_with={key: opened.config.made_with.get(key, "") for key in kept},
    )
    model = config.predictor(checkpoint, statistics, device=torch.device("cpu"))
    test = _tested(opened.folder / "test.json")
    with translate_os_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / WEIGHTS, checkpoint.weights, {"format": "pt"})
    statistics.save(folder / STATISTICS)
    _write_text(folder / CARD, model_card(config, checkpoint.step, test))
    content = {
        "model_type": "alexnet",
        "architectures": ["AlexNet"],
        "format": FORMAT,
        "alexnet_version": __version__,
        "id2label": {str(label): name for label, name in enumerate(config.classes)},
        "step": checkpoint.step,
        "preprocessing": preprocessing(model),
        "run": asdict(config),
        "test": test,
        "checksums": {name: sha256(folder / name) for name in (WEIGHTS, STATISTICS)},
    }
    _write_text(folder / CONFIG, json.dumps(content, indent=1) + "\n")
    return folder


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _tested(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunError(f"{str(path)!r} cannot be read: {error}") from None
    return dict(found)


def read(folder: str | Path) -> ModelFolder:
    """Read a model folder that nobody vouches for.

    Raises
    ------
    RunError
        When a file is missing or damaged, or is not what the configuration says.
    """
    folder = Path(folder)
    content = _read_config(folder / CONFIG)
    with _refused(folder / CONFIG):
        config = from_json(RunConfig, content["run"])
        shapes = _shapes(config)
        labels = {str(label): name for label, name in enumerate(config.classes)}
        if content["id2label"] != labels or len(labels) != config.spec.num_classes:
            raise RunError("id2label, the run's classes and the network's do not agree.")
        step = from_json(int, content["step"])
        if step < 0:
            raise RunError(f"its step is {step}.")
        checksums = from_json(dict[str, str], content.get("checksums", {}))
    for name, wanted in checksums.items():
        _check_sum(folder, name, wanted)
    side = config.data_size
    weights = read_safetensors(folder / WEIGHTS, shapes)
    measured = read_safetensors(
        folder / STATISTICS,
        {"mean_image": (3, side, side), "colour_stdevs": (3,), "colour_eigenvectors": (3, 3)},
    )
    statistics = Statistics(**{name: tensor.numpy() for name, tensor in measured.items()})
    test = content.get("test")
    return ModelFolder(
        config,
        Checkpoint(step, weights),
        statistics,
        test if isinstance(test, dict) else None,
    )


def _read_config(path: Path) -> dict[str, Any]:
    with _refused(path):
        if path.stat().st_size > LARGEST_CONFIG:
            raise RunError(f"it is larger than {LARGEST_CONFIG >> 20} MB.")
        text = path.read_text(encoding="utf-8")
        content = json.loads(text, parse_constant=_finite, parse_float=_finite)
        if not isinstance(content, dict) or content.get("model_type") != "alexnet":
            raise RunError("its model_type is not 'alexnet'.")
        if content.get("format") != FORMAT:
            raise RunError(f"its format is {content.get('format')!r}; {FORMAT} is known here.")
        spec = content["run"]["spec"]
        if len(spec["convs"]) + len(spec["dense"]) > MOST_LAYERS:
            raise RunError(f"its network has more than {MOST_LAYERS} layers.")
    return content


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not finite")
    return number


def _shapes(config: RunConfig) -> dict[str, tuple[int, ...]]:
    """Return the tensors that the network of a configuration has; none of them takes memory."""
    if config.data_size < config.spec.image_size:
        raise RunError("its images are smaller than its network's input.")
    with torch.device("meta"):
        network = AlexNet(config.spec)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def _check_sum(folder: Path, name: str, wanted: str) -> None:
    path = folder / name
    if name not in (WEIGHTS, STATISTICS):
        raise RunError(f"{str(folder / CONFIG)!r} has a checksum of {name!r}, which is unknown.")
    with _refused(path):
        if sha256(path) != wanted:
            raise RunError(f"its checksum is not the one in {CONFIG}.")


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Turn whatever a stranger's file raises while it is understood into a sentence."""
    again = "Export or download the model folder again."
    try:
        yield
    except FileNotFoundError:
        raise RunError(f"There is no file {str(path)!r}.", again) from None
    except KeyError as error:
        raise RunError(f"{str(path)!r} has no {error}.", again) from None
    except RecursionError:
        raise RunError(f"{str(path)!r} is nested too deeply.", again) from None
    except (AlexNetError, ArithmeticError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise RunError(f"{str(path)!r} cannot be used: {str(error)[:300]}", again) from None


def from_pretrained(where: str | Path, *, revision: str | None = None) -> Predictor:
    """Load a model folder, or a repository of the Hugging Face hub of that form.

    Parameters
    ----------
    where : str or Path
        A folder, or a repository's name, ``user/name``.
    revision : str, optional
        A branch, tag or commit of the repository.

    Raises
    ------
    MissingExtraError
        For a repository, without the extra ``hub``.
    RunError
        When it is neither, cannot be fetched, or is not what its configuration says.
    """
    found = read(hub.located(where, revision))
    return found.config.predictor(found.checkpoint, found.statistics)


def to_run(where: str | Path, out: str | Path, *, revision: str | None = None) -> Run:
    """Make a run's folder of a model folder, for every command that takes a run.

    Raises
    ------
    RunError
        As `from_pretrained`, and when `out` is already a run.
    """
    out = Path(out)
    if (out / "config.json").exists():
        raise RunError(f"{str(out)!r} is already a run.", "Choose another --out.")
    found = read(hub.located(where, revision))
    save_checkpoint(out / "checkpoints", found.checkpoint)
    run = Run.start(out, found.config, found.statistics)
    if found.test:
        run.write_json("test.json", found.test)
    return run


def push_to_hub(run: str | Path, repo_id: str, *, private: bool = False) -> str:
    """Send a trained run to the Hugging Face hub as a model folder; return its address.

    The account is the one that ``hf auth login`` or the variable ``HF_TOKEN`` set.

    Raises
    ------
    MissingExtraError
        Without the extra ``hub``.
    RunError
        When the folder is no run, or the hub refuses.
    """
    with tempfile.TemporaryDirectory() as temporary:
        return hub.upload(write(run, temporary), repo_id, private=private)
