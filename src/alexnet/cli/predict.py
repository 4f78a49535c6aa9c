"""``alexnet predict``."""

import glob
import json as json_format
import sys
from pathlib import Path
from typing import Literal

from alexnet.cli.precision import Precision, model_at
from alexnet.cli.run_data import data_for
from alexnet.errors import ConfigError, DataError, ImageError


def predict(
    run: Path,
    *images: str,
    top: int = 5,
    views: Literal[1, 10] = 10,
    precision: Precision | None = None,
    data: str | None = None,
    threads: int | None = None,
    json: bool = False,
) -> int:
    """Rank the classes for photographs.

    Example: `alexnet predict runs/elpv photograph.jpg folder/ '*.png'`

    Parameters
    ----------
    run
        The folder that `alexnet train --out` made.
    images
        Files of any format that Pillow reads, folders of them, or patterns. Photographs are
        turned upright as their EXIF orientation says.
    top
        How many classes to show for each.
    views
        10, as the paper tested, or 1, the centre alone.
    precision
        Of the matrix products: fp32, bf16 where it is fast, or int8 on the processor; by default
        as the run was trained.
    data
        For int8: whose training images fix the scales; by default the run's own data.
    threads
        Processor threads; by default all.
    json
        Print one JSON object and nothing else.
    """
    if not images:
        raise ConfigError("No image was named.", "Example: alexnet predict RUN photograph.jpg")
    if top < 1:
        raise ConfigError(f"--top is {top}.", "It must be at least 1.")
    files = [file for name in images for file in named(name)]

    from dataclasses import asdict

    from alexnet import device as devices
    from alexnet.predictor import quantize

    devices.keep_freed_memory()
    devices.use_threads(threads)
    model = model_at(run, precision)
    if precision == "int8":
        model = quantize(model, data_for(run, model, data))
    results: list[dict[str, object]] = []
    refused = 0
    for file in files:
        try:
            ranked = model.predict(file, top=top, crops=views)
        except ImageError as error:
            refused += 1
            print(f"alexnet: {error}", file=sys.stderr)
            results.append({"path": str(file), "error": str(error)})
            continue
        results.append({
            "path": str(file),
            "predictions": [asdict(place) for place in ranked],
        })  # fmt: skip
        if not json:
            print(file)
            for place in ranked:
                bar = "#" * round(30 * place.probability)
                print(f"  {place.probability:6.3f}  {place.name:24} {bar}".rstrip())
    if json:
        print(json_format.dumps({"images": results}))
    return 1 if refused else 0


def named(name: str) -> list[Path]:
    """Return the files that an argument means: itself, those of a folder, or of a pattern."""
    path = Path(name)
    if path.is_dir():
        from alexnet.data.archives import IMAGE_SUFFIXES

        found = [
            file
            for file in sorted(path.rglob("*"))
            if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()
        ]
        if not found:
            raise DataError(f"The folder {name!r} has no images.")
        return found
    if path.exists() or not glob.has_magic(name):
        if not path.exists():
            raise DataError(f"There is no file {name!r}.", "Name an image, a folder or a pattern.")
        return [path]
    if matching := [Path(match) for match in sorted(glob.glob(name, recursive=True))]:  # noqa: PTH207 -- absolute patterns too
        return matching
    raise DataError(f"No file matches {name!r}.")
