"""``alexnet features``: what a network makes of images, stored, searched and traced to pixels."""

import json as json_format
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cyclopts

from alexnet.cli.common import (
    Json,
    RunFolder,
    Threads,
    find_files,
    find_images,
    load_predictor,
    parse_units,
)
from alexnet.errors import ConfigError

if TYPE_CHECKING:
    from alexnet.features import StoredFeatures
    from alexnet.spec import Spec


def extract(
    run: RunFolder,
    *data: str,
    layers: str,
    out: Path,
    split: str = "held-out",
    form: Literal["arrays", "parquet"] = "arrays",
    pool: Literal["none", "mean", "max"] = "none",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Store what layers put out for images: an array a layer, with the images' names and labels.

    Example: `alexnet features runs/elpv --layers conv5,relu7 --out elpv-features`

    Killed, the same command goes on where it was. Answers about them come
    from `alexnet features nearest`, `exciting` and `receptive-fields`.

    Parameters
    ----------
    data
        A prepared data set or any source, by default the run's own; or photographs: files, a
        folder of them, or patterns.
    layers
        Names with commas between: conv1 is before the activation, relu1 after it, then norm1,
        pool1, as the network has them; fc7, relu7, fc8. `alexnet features
        receptive-fields RUN` lists all.
    out
        A new folder for them.
    split
        Of a data set: train, val or test; held-out, its test split or its val split where it has
        no test; or all.
    form
        arrays: a .npy file a layer, float32, to be memory-mapped. parquet: a column a layer.
    pool
        mean or max: keep one number of each map instead of all its places.
    """
    from dataclasses import asdict

    from alexnet.cli.console import Console
    from alexnet.features import describe
    from alexnet.features import extract as extract_features

    predictor = load_predictor(run, threads)
    images, classes = find_images(run, predictor, data, split)
    names = [name.strip() for name in layers.split(",") if name.strip()]
    about = describe(predictor, images, names, classes=classes, form=form, pool=pool)
    shapes = ", ".join(f"{name} {format_shape(shape)}" for name, shape in about.layers.items())
    print(
        f"{about.images:,} images of {about.split}, {shapes}: {about.bytes / 1e6:,.1f} MB"
        f"{' before compression' if form == 'parquet' else ''} in {out}",
        file=sys.stderr,
    )
    with Console() as console:
        stored = extract_features(
            predictor, images, names, out, classes=classes, form=form, pool=pool,
            report=console.extracted,
        )  # fmt: skip
    if json:
        print(json_format.dumps({"path": str(out), **asdict(stored.about)}))
    else:
        print(f"{out}: {len(stored):,} images, {shapes}")


def nearest(
    run: RunFolder,
    stored: Path,
    *images: str,
    layer: str | None = None,
    count: int = 6,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Find the stored images most like photographs, by Euclidean distance in a layer.

    Example: `alexnet features nearest runs/elpv elpv-features photograph.jpg --layer relu7`

    Parameters
    ----------
    run
        The run whose features were stored.
    stored
        The folder that `alexnet features --out` made.
    images
        Files, folders of them, or patterns.
    layer
        In which images are compared; needed where several are stored.
    count
        How many to find for each.
    """
    import numpy as np
    import torch

    from alexnet.features import find_nearest as nearest_stored
    from alexnet.features import open_stored

    opened = open_stored(stored)
    if layer is None:
        if len(opened.layers) > 1:
            raise ConfigError(
                f"{str(stored)!r} has several layers.", f"Give --layer: {', '.join(opened.layers)}."
            )
        layer = opened.layers[0]
    files = [file for name in images for file in find_files(name)]
    if not files:
        raise ConfigError("No image was named.", "Example: features nearest RUN STORED photo.jpg")
    predictor = load_predictor(run, threads)
    pixels = torch.from_numpy(np.stack([predictor.load_pixels(file) for file in files]))
    distances, indices = nearest_stored(predictor, opened, pixels, layer, count)
    found = {
        str(file): [
            {
                "image": image,
                "name": opened.names[image],
                "class": _class_of(opened, image),
                "distance": far,
            }
            for image, far in zip(*row, strict=True)
        ]
        for file, row in zip(
            files, zip(indices.tolist(), distances.tolist(), strict=True), strict=True
        )
    }
    if json:
        listed = [{"path": path, "nearest": places} for path, places in found.items()]
        print(json_format.dumps({"layer": layer, "images": listed}))
        return
    for path, places in found.items():
        print(path)
        for place in places:
            print(f"  {place['distance']:12.4f}  {place['name']}  {place['class'] or ''}".rstrip())


def _class_of(stored: "StoredFeatures", image: int) -> str | None:
    """Return the class of a stored image; none where it is not known."""
    label = int(stored.labels[image])
    return stored.about.classes[label] if 0 <= label < len(stored.about.classes) else None


def find_exciting(
    run: RunFolder,
    *data: str,
    layer: str,
    units: str,
    count: int = 9,
    split: str = "held-out",
    out: Path | None = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Find the images, and the places in them, that excite units of a layer most.

    Example: `alexnet features exciting runs/elpv --layer conv5 --units 0-15 --out patches`

    Parameters
    ----------
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
    """
    from dataclasses import asdict

    from PIL import Image

    from alexnet.features import patch, receptive_field, top_activating

    predictor = load_predictor(run, threads)
    images, _ = find_images(run, predictor, data, split)
    ranked = top_activating(predictor, images, layer, parse_units(units), count)
    field = receptive_field(predictor.spec, layer)
    found: dict[int, list[dict[str, Any]]] = {unit: [] for unit in ranked}
    for unit, places in ranked.items():
        for rank, place in enumerate(places, 1):
            box = field.box_in(predictor.resize_to, place.row, place.column)
            found[unit].append({**asdict(place), "name": images.path(place.image), "box": [*box]})
            if out is not None:
                out.mkdir(parents=True, exist_ok=True)
                pixels = patch(predictor, images, layer, place)
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
    json: Json = False,
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
    """
    from alexnet.features import layer_shapes, receptive_field

    if unit and not layer:
        raise ConfigError("A --unit is a layer's.", "Give --layer.")
    spec = _spec_of(network)
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
        shape, sees = format_shape(row["shape"]), f"{row['size']}x{row['size']}"
        print(f"{row['layer']:16} {shape:>12} {sees:>9} {row['stride']:6} {row['start']:5}")
        if unit:
            left, top, right, bottom = row["box"]
            print(
                f"Row {unit[0]}, column {unit[1]} sees columns {left} to {right - 1} and rows "
                f"{top} to {bottom - 1}."
            )


def _spec_of(network: str) -> "Spec":
    """Return a named network, or that of a run."""
    from alexnet.training.run import Run
    from alexnet.variants import network_named

    return Run.open(network).config.spec if Path(network).is_dir() else network_named(network)


def format_shape(shape: Sequence[int]) -> str:
    """Write a shape: 256x13x13."""
    return "x".join(map(str, shape))


features_app = cyclopts.App(name="features", help_format="markdown")
features_app.default(extract)
features_app.command(nearest)
features_app.command(find_exciting, name="exciting")
features_app.command(receptive_fields)
