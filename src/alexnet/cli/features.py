"""``alexnet features``: what a network makes of images, stored, searched and traced to pixels."""

import json as json_format
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import cyclopts

from alexnet.cli.predict import named
from alexnet.cli.units import by, exciting, images_of, model_of, receptive_fields
from alexnet.errors import ConfigError

if TYPE_CHECKING:
    from alexnet.features import Stored


def extract(
    run: Path,
    *data: str,
    layers: str,
    out: Path,
    split: str = "held-out",
    form: Literal["arrays", "parquet"] = "arrays",
    pool: Literal["none", "mean", "max"] = "none",
    threads: int | None = None,
    json: bool = False,
) -> None:
    """Store what layers put out for images: an array a layer, with the images' names and labels.

    Example: `alexnet features runs/elpv --layers conv5,relu7 --out elpv-features`

    Killed, the same command goes on where it was. Answers about them come
    from `alexnet features nearest`, `exciting` and `receptive-fields`.

    Parameters
    ----------
    run
        The folder that `alexnet train --out` made.
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
    threads
        Processor threads; by default all.
    json
        Print one JSON object and nothing else.
    """
    from dataclasses import asdict

    from alexnet.cli.screen import Screen
    from alexnet.features import describe
    from alexnet.features import extract as extract_features

    model = model_of(run, threads)
    images, classes = images_of(run, model, data, split)
    names = [name.strip() for name in layers.split(",") if name.strip()]
    about = describe(model, images, names, classes=classes, form=form, pool=pool)
    shapes = ", ".join(f"{name} {by(shape)}" for name, shape in about.layers.items())
    print(
        f"{about.images:,} images of {about.split}, {shapes}: {about.bytes / 1e6:,.1f} MB"
        f"{' before compression' if form == 'parquet' else ''} in {out}",
        file=sys.stderr,
    )
    with Screen() as screen:
        stored = extract_features(
            model, images, names, out, classes=classes, form=form, pool=pool,
            report=screen.extracted,
        )  # fmt: skip
    if json:
        print(json_format.dumps({"path": str(out), **asdict(stored.about)}))
    else:
        print(f"{out}: {len(stored):,} images, {shapes}")


def nearest(
    run: Path,
    stored: Path,
    *images: str,
    layer: str | None = None,
    count: int = 6,
    threads: int | None = None,
    json: bool = False,
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
    threads
        Processor threads; by default all.
    json
        Print one JSON object and nothing else.
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
    files = [file for name in images for file in named(name)]
    if not files:
        raise ConfigError("No image was named.", "Example: features nearest RUN STORED photo.jpg")
    model = model_of(run, threads)
    pixels = torch.from_numpy(np.stack([model.load_pixels(file) for file in files]))
    distances, indices = nearest_stored(model, opened, pixels, layer, count)
    found = {
        str(file): [
            {
                "image": image,
                "name": opened.names[image],
                "class": _class(opened, image),
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


def _class(stored: "Stored", image: int) -> str | None:
    """Return the class of a stored image; none where it is not known."""
    label = int(stored.labels[image])
    return stored.about.classes[label] if 0 <= label < len(stored.about.classes) else None


features = cyclopts.App(name="features", help_format="markdown")
features.default(extract)
features.command(nearest)
features.command(exciting)
features.command(receptive_fields)
