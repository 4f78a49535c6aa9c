"""``alexnet predict``."""

import json as json_format
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from alexnet.cli.common import (
    CliPrecision,
    Json,
    MemberWeights,
    RunFolder,
    Threads,
    find_files,
    load_predictor,
    open_data,
    parse_weights,
    require_counts,
    split_runs,
)
from alexnet.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alexnet.predictor import Prediction, Predictor


def predict(
    run: RunFolder,
    *images: str,
    weights: MemberWeights = None,
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
        turned upright as their EXIF orientation says. Further runs before them are asked together
        with the first: class probabilities are averaged.
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
    runs, names = split_runs(run, images)
    if not names:
        raise ConfigError("No image was named.", "Example: alexnet predict RUN photograph.jpg")
    require_counts(top=top)
    files = [file for name in names for file in find_files(name)]

    from dataclasses import asdict

    from alexnet.predictor import ask_together, quantize

    predictors = [load_predictor(one, threads, precision) for one in runs]
    if precision == "int8":
        pairs = zip(runs, predictors, strict=True)
        predictors = [quantize(one, open_data(folder, one, data)) for folder, one in pairs]
    predictor = ask_together(predictors, parse_weights(weights))
    results: list[dict[str, object]] = []
    for file, ranked in _rank_each(predictor, files, top, views):
        if isinstance(ranked, ImageError):
            print(f"alexnet: {ranked}", file=sys.stderr)
            results.append({"path": str(file), "error": str(ranked)})
            continue
        predictions = [asdict(place) for place in ranked]
        results.append({"path": str(file), "predictions": predictions})
        if not json:
            print(file)
            for place in ranked:
                bar = "#" * round(30 * place.probability)
                print(f"  {place.probability:6.3f}  {place.name:24} {bar}".rstrip())
    if json:
        print(json_format.dumps({"images": results}))
    return 1 if any("error" in result for result in results) else 0


def _rank_each(
    predictor: "Predictor", files: list[Path], top: int, views: int
) -> "Iterator[tuple[Path, list[Prediction] | ImageError]]":
    """Yield each file's classes, or why it has none; some files at once where all are images."""
    from alexnet.predictor import PHOTOGRAPHS_AT_ONCE

    for start in range(0, len(files), PHOTOGRAPHS_AT_ONCE):
        some = files[start : start + PHOTOGRAPHS_AT_ONCE]
        try:
            yield from [*zip(some, predictor.predict_many(some, top=top, crops=views), strict=True)]
        except ImageError:
            for file in some:
                try:
                    yield file, predictor.predict(file, top=top, crops=views)
                except ImageError as error:
                    yield file, error
