"""A model folder, as repositories of the Hugging Face hub are: written, read, sent and fetched.

DIR/  config.json  model.safetensors  statistics.safetensors  README.md

What is read here comes from strangers. It is JSON and safetensors, never a pickle; sizes, shapes
and checksums are compared with what the configuration says before anything is built.
"""

import html
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import torch

from alexnet import __version__
from alexnet.bounds import MAX_LAYERS, MAX_LIST, explain_damage, parse_json, read_bytes
from alexnet.config import from_json
from alexnet.data.statistics import Statistics
from alexnet.errors import RunError, import_extra
from alexnet.files import atomic_write, sha256, translate_os_error, write_json
from alexnet.interop.export import describe_preprocessing
from alexnet.interop.weights import find_shapes, read_safetensors, write_safetensors
from alexnet.predictor import Predictor
from alexnet.recipes import RECIPES
from alexnet.training.checkpoint import Checkpoint
from alexnet.training.run import Run, RunConfig

CONFIG, WEIGHTS, STATISTICS, CARD = (
    "config.json", "model.safetensors", "statistics.safetensors", "README.md",
)  # fmt: skip
FORMAT = 1
AGAIN = "Export or download the model folder again."
IMPORTED = "imported"  # what a run's record calls the file that its weights came from
SHOWN_CLASSES = 50  # in the card; the configuration has them all
FETCHED = ["*.json", "*.safetensors", "*.md"]  # of a repository: nothing that could run


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
    """
    opened, folder = Run.open(run), Path(folder)
    checkpoint, statistics = opened.load_weights(), opened.load_statistics()
    kept = ("alexnet", "torch", "python", "commit", IMPORTED)
    first = opened.config.initial_weights
    config = replace(
        opened.config,
        data=Path(opened.config.data).name,
        initial_weights=first and replace(first, path=Path(first.path).name),
        made_with={key: opened.config.made_with.get(key, "") for key in kept},
    )
    model = config.predictor(checkpoint, statistics, device=torch.device("cpu"))
    test = opened.read_test(checkpoint.step)
    with translate_os_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / WEIGHTS, checkpoint.weights, {"format": "pt"})
    statistics.save(folder / STATISTICS)
    content = {
        "model_type": "alexnet",
        "architectures": ["AlexNet"],
        "format": FORMAT,
        "alexnet_version": __version__,
        "id2label": {str(label): name for label, name in enumerate(config.classes)},
        "step": checkpoint.step,
        "preprocessing": describe_preprocessing(model),
        "run": asdict(config),
        "test": test,
        "checksums": {name: sha256(folder / name) for name in (WEIGHTS, STATISTICS)},
    }
    with atomic_write(folder / CARD) as temporary:
        temporary.write_text(write_card(config, checkpoint.step, test), encoding="utf-8")
    write_json(folder / CONFIG, content)
    return folder


def write_card(config: RunConfig, step: int, test: Mapping[str, Any] | None) -> str:
    """Return the model card, ``README.md``: data, recipe, metrics, limits, how to use.

    `step` is how many updates its weights have seen, `test` the run's ``test.json``.
    """
    front_matter: dict[str, Any] = {
        "library_name": "alexnet",
        "pipeline_tag": "image-classification",
        "tags": ["alexnet", "image-classification", "pytorch", "safetensors"],
    }
    if test:
        metric = {
            "type": "accuracy",
            "value": test["top1"],
            "name": f"top-1, {test['views']} views",
        }
        result = {
            "task": {"type": "image-classification"},
            "dataset": {"name": config.data, "type": config.data, "split": test["split"]},
            "metrics": [metric],
        }
        index = {"name": f"AlexNet {config.spec.name}", "results": [result]}
        front_matter["model-index"] = [index]
    recipe, named = config.recipe, RECIPES.get(config.recipe.name)
    names = [field.name for field in fields(recipe)] if named else []
    changed = [name for name in names if getattr(recipe, name) != getattr(named, name)]
    environment = jinja2.Environment(
        trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {
        "json": json.dumps,  # which is YAML, and quotes what needs it
        "plain": _escape,
        "share": lambda value: "–" if value is None else f"{value:.3f}",
        "thousands": "{:,}".format,
    }
    text = resources.files("alexnet.interop").joinpath("card.md.jinja").read_text("utf-8")
    return environment.from_string(text).render(
        front_matter=front_matter,
        config=config,
        spec=config.spec,
        recipe=recipe,
        origin=config.made_with.get(IMPORTED),
        first=config.initial_weights,
        changed=[f"`{name}` {getattr(recipe, name)}" for name in changed],
        versions=[f"{_escape(k)} {_escape(v)}" for k, v in config.made_with.items() if v],
        step=step,
        test=test,
        shown=SHOWN_CLASSES,
    )


def _escape(text: object) -> str:
    """Return text that is neither Markdown nor HTML, on one line."""
    escaped = html.escape(" ".join(str(text).split()), quote=False)
    return "".join(f"\\{letter}" if letter in "\\`*_[]|#" else letter for letter in escaped)


def read(folder: str | Path) -> ModelFolder:
    """Read a model folder that nobody vouches for."""
    folder = Path(folder)
    path = folder / CONFIG
    with explain_damage(path, AGAIN, importing=False):
        content = parse_json(read_bytes(path, MAX_LIST))
        if not isinstance(content, dict) or content.get("model_type") != "alexnet":
            raise RunError("its model_type is not 'alexnet'.")
        if content.get("format") != FORMAT:
            raise RunError(f"its format is {content.get('format')!r}; {FORMAT} is known here.")
        spec = content["run"]["spec"]  # counted before an object is made for every layer
        if len(spec["convs"]) + len(spec["dense"]) > MAX_LAYERS:
            raise RunError(f"its network has more than {MAX_LAYERS} layers.")
        config = from_json(RunConfig, content["run"])
        side = config.data_size
        if side < config.spec.image_size:
            raise RunError("its images are smaller than its network's input.")
        shapes = find_shapes(config.spec)
        labels = {str(label): name for label, name in enumerate(config.classes)}
        if content["id2label"] != labels or len(labels) != config.spec.num_classes:
            raise RunError("id2label, the run's classes and the network's do not agree.")
        step = from_json(int, content["step"])
        if step < 0:
            raise RunError(f"its step is {step}.")
        checksums = from_json(dict[str, str], content.get("checksums", {}))
        if unknown := sorted(checksums.keys() - {WEIGHTS, STATISTICS}):
            raise RunError(f"it has a checksum of {unknown[0]!r}, which is unknown.")
    for name, wanted in checksums.items():
        with explain_damage(folder / name, AGAIN, importing=False):
            if sha256(folder / name) != wanted:
                raise RunError(f"its checksum is not the one in {CONFIG}.")
    weights = read_safetensors(folder / WEIGHTS, shapes)
    measured = read_safetensors(
        folder / STATISTICS,
        {"mean_image": (3, side, side), "colour_stdevs": (3,), "colour_eigenvectors": (3, 3)},
    )
    statistics = Statistics(**{name: tensor.numpy() for name, tensor in measured.items()})
    test = content.get("test")
    return ModelFolder(
        config, Checkpoint(step, weights), statistics, test if isinstance(test, dict) else None
    )


def from_pretrained(where: str | Path, *, revision: str | None = None) -> Predictor:
    """Load a model folder, or a repository ``user/name`` of the Hugging Face hub of that form.

    `revision` is a branch, tag or commit of the repository. What is neither, cannot be fetched, or
    is not what its configuration says is a `RunError`.
    """
    found = read(fetch(where, revision))
    return found.config.predictor(found.checkpoint, found.statistics)


def to_run(where: str | Path, out: str | Path) -> Run:
    """Make a run's folder of a model folder, for every command that takes a run."""
    out = Path(out)
    if (out / "config.json").exists():
        raise RunError(f"{str(out)!r} is already a run.", "Choose another --out.")
    found = read(fetch(where))
    run = Run.start(out, found.config, found.statistics, first=found.checkpoint)
    if found.test:
        run.write_json("test.json", found.test)
    return run


def fetch(where: str | Path, revision: str | None = None) -> Path:
    """Return a model folder on this disk: itself, or the hub's, fetched once and kept."""
    if Path(where).is_dir():
        return Path(where)
    if str(where).count("/") != 1 or str(where).startswith((".", "/", "~")):
        raise RunError(
            f"There is no folder {str(where)!r}.", "Name a model folder, or a repository user/name."
        )
    with _hub_client(str(where)) as client:
        found = client.snapshot_download(str(where), revision=revision, allow_patterns=FETCHED)
        return Path(found)


def upload(folder: Path, repo_id: str, *, private: bool = False) -> str:
    """Make the repository where there is none, send a folder to it, return its address.

    The account is the one that ``hf auth login`` or the variable ``HF_TOKEN`` set.
    """
    with _hub_client(repo_id) as client:
        api = client.HfApi()
        address = str(api.create_repo(repo_id, private=private, exist_ok=True))
        message = "Upload with alexnet"
        api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message)
    return address


def push_to_hub(run: str | Path, repo_id: str, *, private: bool = False) -> str:
    """Send a trained run to the Hugging Face hub as a model folder; return its address."""
    with tempfile.TemporaryDirectory() as temporary:
        return upload(write(run, temporary), repo_id, private=private)


@contextmanager
def _hub_client(repo_id: str) -> Iterator[Any]:
    """Give the hub's client, and turn what it raises, which has many bases, into a sentence."""
    client = import_extra("huggingface_hub", "hub", "The Hugging Face hub")
    try:
        yield client
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else repr(error)
        raise RunError(
            f"The repository {repo_id!r} cannot be reached ({reason}).",
            "See that its name is right, that you may use it (hf auth login), and the network.",
        ) from error
