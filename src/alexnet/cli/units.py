"""``alexnet features exciting`` and ``receptive-fields``: what single units see and like."""

import glob
import json as json_format
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet.cli.predict import named
from alexnet.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from alexnet.features import NamedImages
    from alexnet.predictor import Predictor
    from alexnet.spec import Spec


def exciting(
    run: Path,
    *data: str,
    layer: str,
    units: str,
    count: int = 9,
    split: str = "held-out",
    out: Path | None = None,
    threads: int | None = None,
    json: bool = False,
) -> None:
    """Find the images, and the places in them, that excite units of a layer most.

    Example: `alexnet features exciting runs/elpv --layer conv5 --units 0-15 --out patches`

    Parameters
    ----------
    run
        The folder that `alexnet train --out` made.
    data
        As for `alexnet features`.
    layer
        Its name.
    units
        Maps, or units where the layer is fully connected: 3,7 or 0-15.
    count
        How many images for each unit; of an image the strongest place.
    split
        As for `alexnet features`.
    out
        A folder for what the units saw, as PNG files: unit-0003-1.png is the most exciting.
    threads
        Processor threads; by default all.
    json
        Print one JSON object and nothing else.
    """
    from dataclasses import asdict

    from PIL import Image

    from alexnet.features import patch, receptive_field
    from alexnet.features import top_activating as find_exciting

    model = model_of(run, threads)
    images, _ = images_of(run, model, data, split)
    ranked = find_exciting(model, images, layer, _numbers(units), count)
    field = receptive_field(model.spec, layer)
    found: dict[int, list[dict[str, Any]]] = {unit: [] for unit in ranked}
    for unit, places in ranked.items():
        for rank, place in enumerate(places, 1):
            box = field.box_in(model.resize_to, place.row, place.column)
            found[unit].append({**asdict(place), "name": images.path(place.image), "box": [*box]})
            if out is not None:
                out.mkdir(parents=True, exist_ok=True)
                pixels = patch(model, images, layer, place)
                Image.fromarray(pixels).save(out / f"unit-{unit:04}-{rank}.png")
    if json:
        print(json_format.dumps({"layer": layer, "split": images.name, "units": found}))
        return
    print("activation  left, top, right, bottom in the prepared image  its name")
    for unit, lines in found.items():
        print(f"{layer}, unit {unit}")
        for line in lines:
            print(f"{line['activation']:10.4f}  {line['box']}  {line['name']}")


def receptive_fields(
    network: str,
    *,
    layer: str | None = None,
    unit: tuple[int, int] | None = None,
    json: bool = False,
) -> None:
    """List a network's layers: their shapes, and which pixels their units see.

    Example: `alexnet features receptive-fields single --layer conv5 --unit 6 6`

    Parameters
    ----------
    network
        One of the named networks, or the folder of a run.
    layer
        One of its layers alone.
    unit
        Row and column of a unit of that layer, for the pixels that it sees.
    json
        Print one JSON object and nothing else.
    """
    from alexnet.features import layer_shapes, receptive_field

    if unit and not layer:
        raise ConfigError("A --unit is a layer's.", "Give --layer.")
    spec = _spec(network)
    shapes = layer_shapes(spec)
    found: list[dict[str, Any]] = []
    for name in [layer] if layer else shapes:
        field = receptive_field(spec, name)
        about = {"size": field.size, "stride": field.stride, "start": field.start}
        box = {"box": field.box(*unit)} if unit else {}
        found.append({"layer": name, "shape": shapes[name], **about, **box})
    if json:
        print(json_format.dumps({"network": spec.name, "image": spec.image_size, "layers": found}))
        return
    print(f"{'layer':16} {'outputs':>12} {'sees':>9} {'stride':>6} {'from':>5}  (pixels)")
    for row in found:
        sees = f"{row['size']}x{row['size']}"
        print(
            f"{row['layer']:16} {by(row['shape']):>12} {sees:>9} {row['stride']:6} {row['start']:5}"
        )
        if unit:
            left, top, right, bottom = row["box"]
            print(
                f"Row {unit[0]}, column {unit[1]} sees columns {left} to {right - 1} and rows "
                f"{top} to {bottom - 1}."
            )


def model_of(run: Path, threads: int | None) -> "Predictor":
    """Load a run, for a number of processor threads."""
    from alexnet import device as devices
    from alexnet.api import load

    devices.keep_freed_memory()
    devices.use_threads(threads)
    return load(run)


def images_of(
    run: Path, model: "Predictor", data: Sequence[str], split: str
) -> tuple["NamedImages", tuple[str, ...]]:
    """Return the images that arguments mean, and the classes of their labels."""
    from alexnet.cli.run_data import data_for
    from alexnet.features import Joined, Photographs

    if data and (files := _photographs(data)):
        return Photographs(model, files), ()
    prepared = data_for(run, model, data[0] if data else None)
    model.check_size(prepared)
    if split == "held-out":
        return prepared.held_out, prepared.classes
    if split == "all":
        return Joined(list(prepared.splits.values())), prepared.classes
    if split not in prepared.splits:
        known = (*prepared.splits, "held-out", "all")
        raise ConfigError(f"The data has no split {split!r}.", did_you_mean(split, known))
    return prepared.splits[split], prepared.classes


def _photographs(data: Sequence[str]) -> list[Path]:
    """Return the photographs that arguments mean; none where they are one data set."""
    from alexnet.data.archives import IMAGE_SUFFIXES
    from alexnet.data.shards import is_prepared

    if len(data) == 1 and not glob.has_magic(data[0]):
        path = Path(data[0])
        inside = path.iterdir() if path.is_dir() and not is_prepared(path) else (path,)
        if not any(file.suffix.lower() in IMAGE_SUFFIXES for file in inside if file.is_file()):
            return []
    return [file for name in data for file in named(name)]


def _spec(network: str) -> "Spec":
    """Return a named network, or that of a run."""
    from alexnet.training.run import Run
    from alexnet.variants import network_named

    return Run.open(network).config.spec if Path(network).is_dir() else network_named(network)


def _numbers(text: str) -> list[int]:
    """Read ``3,7`` or ``0-15``."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        try:
            found += range(int(first), int(last if dash else first) + 1)
        except ValueError:
            raise ConfigError(f"--units is {text!r}.", "Write 3,7 or 0-15.") from None
    return found


def by(shape: Sequence[int]) -> str:
    """Write a shape: 256x13x13."""
    return "x".join(map(str, shape))
