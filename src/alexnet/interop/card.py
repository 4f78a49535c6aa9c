"""A model card, made from what a run knows about itself."""

import html
import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from alexnet.recipes import RECIPES
from alexnet.training.run import RunConfig

PAPER = (
    "Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural "
    "Networks, NIPS 2012"
)
SHOWN_CLASSES = 50  # in the table; the configuration has them all
IMPORTED = "imported"  # what a run's record calls the file that its weights came from


def model_card(config: RunConfig, step: int, test: Mapping[str, Any] | None) -> str:
    """Return ``README.md`` of a model folder: data, recipe, metrics, limits, how to use.

    Parameters
    ----------
    config : RunConfig
        What the run was asked to do.
    step : int
        Updates that its weights have seen.
    test : mapping or None
        The run's ``test.json``, if it was tested.
    """
    parts = [
        _front_matter(config, test),
        _introduction(config, step),
        _usage(),
        _data(config),
        _training(config, step),
        _results(test),
        _limits(config, test),
    ]
    return "\n".join(parts)


def _front_matter(config: RunConfig, test: Mapping[str, Any] | None) -> str:
    """Return the block that the hub reads; JSON is YAML, and quotes what needs it."""
    entries: dict[str, Any] = {
        "library_name": "alexnet",
        "pipeline_tag": "image-classification",
        "tags": ["alexnet", "image-classification", "pytorch", "safetensors"],
    }
    if test:
        dataset = {"name": config.data, "type": config.data, "split": test["split"]}
        metrics = [
            {"type": "accuracy", "value": test["top1"], "name": f"top-1, {test['views']} views"}
        ]
        result = {"task": {"type": "image-classification"}, "dataset": dataset, "metrics": metrics}
        entries["model-index"] = [{"name": f"AlexNet {config.spec.name}", "results": [result]}]
    lines = [f"{key}: {json.dumps(value)}" for key, value in entries.items()]
    return "\n".join(["---", *lines, "---", ""])


def _introduction(config: RunConfig, step: int) -> str:
    spec, imported = config.spec, config.made_with.get(IMPORTED)
    origin = _plain(f"from {imported}" if imported else f"trained on {config.data}")
    return (
        f"# AlexNet `{_plain(spec.name)}`, {origin}\n\n"
        f"The network of 2012 ({PAPER}) in its form `{_plain(spec.name)}`: {spec.image_size}-pixel "
        f"images, {spec.parameters:,} parameters, {spec.num_classes} classes. "
        f"Weights after {step:,} updates, as safetensors; nothing here can run code.\n"
    )


def _usage() -> str:
    return (
        "## Use\n\n```python\nimport alexnet\n\n"
        'model = alexnet.from_pretrained("THIS_FOLDER_OR_REPOSITORY")\n'
        'for place in model.predict("photograph.jpg"):\n'
        '    print(f"{place.probability:.3f} {place.name}")\n```\n\n'
        "`config.json` says how an image becomes pixels (`preprocessing`); "
        "`statistics.safetensors` holds the training set's mean image.\n"
    )


def _data(config: RunConfig) -> str:
    if config.made_with.get(IMPORTED):
        return (
            f"## Data\n\nThe file did not say. {len(config.classes)} classes: {_names(config)}.\n"
        )
    return (
        f"## Data\n\n{_plain(config.data)}, prepared at {config.data_size} pixels, fingerprint "
        f"`{_plain(config.data_fingerprint[:16])}`. {len(config.classes)} classes: "
        f"{_names(config)}.\n"
    )


def _names(config: RunConfig) -> str:
    more = ", …" if len(config.classes) > SHOWN_CLASSES else ""
    return ", ".join(map(_plain, config.classes[:SHOWN_CLASSES])) + more


def _training(config: RunConfig, step: int) -> str:
    if origin := config.made_with.get(IMPORTED):
        return (
            f"## Training\n\nNone here: the weights are those of {_plain(origin)}. How they were "
            "made, this card does not know.\n"
        )
    recipe, named = config.recipe, RECIPES.get(config.recipe.name)
    changed = [
        f"`{field.name}` {getattr(recipe, field.name)}"
        for field in fields(recipe)
        if named and getattr(recipe, field.name) != getattr(named, field.name)
    ]
    versions = ", ".join(
        f"{_plain(name)} {_plain(value)}" for name, value in config.made_with.items() if value
    )
    return (
        f"## Training\n\nRecipe `{_plain(recipe.name)}`"
        f"{', with ' + ', '.join(changed) if changed else ''}: batch {recipe.batch_size}, rate "
        f"{recipe.lr}, momentum {recipe.momentum}, weight decay {recipe.weight_decay}, schedule "
        f"{recipe.schedule}, seed {recipe.seed}, {step:,} updates. Versions: "
        f"{versions or 'unknown'}.\n"
    )


def _results(test: Mapping[str, Any] | None) -> str:
    if not test:
        return "## Results\n\nThe run was not tested.\n"
    rows = [
        f"| {_plain(row['name'])} | {row['images']} | {_share(row['top1'])} |"
        for row in test["by_class"][:SHOWN_CLASSES]
    ]
    return (
        f"## Results\n\nOn the {test['images']} images of the split `{_plain(test['split'])}`, "
        f"{test['views']} views each: top-1 {test['top1']:.3f}, top-5 {test['top5']:.3f}. Always "
        f"naming the largest class would score {test['majority']:.3f}.\n\n"
        "| class | images | named first |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def _limits(config: RunConfig, test: Mapping[str, Any] | None) -> str:
    measured = "measured on one split of the same data" if test else "not measured"
    seed = (
        "" if config.made_with.get(IMPORTED) else f", from one training (seed {config.recipe.seed})"
    )
    return (
        f"## Limits\n\nEvery image is given one of the {len(config.classes)} classes, also one "
        f"that shows none of them. The accuracy is {measured}{seed}; on other cameras, places or "
        "years it may be lower, and by class it differs as the table says. Probabilities are not "
        "calibrated. The licence of weights depends on that of the data: whoever publishes them "
        "states it.\n"
    )


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _plain(text: object) -> str:
    """Return text that is neither Markdown nor HTML, on one line."""
    escaped = html.escape(" ".join(str(text).split()), quote=False)
    return "".join(f"\\{letter}" if letter in "\\`*_[]|#" else letter for letter in escaped)
