"""``alexnet predict``."""

import json as json_format
import sys
from typing import Literal

from alexnet.cli.common import (
    CliPrecision,
    Json,
    RunFolder,
    Threads,
    find_files,
    load_predictor,
    open_data,
)
from alexnet.errors import ConfigError, ImageError


def predict(
    run: RunFolder,
    *images: str,
    top: int = 5,
    views: Literal[1, 10] = 10,
    precision: CliPrecision | None = None,
    data: str | None = None,
    threads: Threads = None,
    json: Json = False,
) -> int:
    """Rank the classes for photographs.

    Example: `alexnet predict runs/elpv photograph.jpg folder/ '*.png'`

    Parameters
    ----------
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
    """
    if not images:
        raise ConfigError("No image was named.", "Example: alexnet predict RUN photograph.jpg")
    if top < 1:
        raise ConfigError(f"--top is {top}.", "It must be at least 1.")
    files = [file for name in images for file in find_files(name)]

    from dataclasses import asdict

    from alexnet.predictor import quantize

    predictor = load_predictor(run, threads, precision)
    if precision == "int8":
        predictor = quantize(predictor, open_data(run, predictor, data))
    results: list[dict[str, object]] = []
    refused = 0
    for file in files:
        try:
            ranked = predictor.predict(file, top=top, crops=views)
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
