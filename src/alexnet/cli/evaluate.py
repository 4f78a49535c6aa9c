"""``alexnet evaluate``."""

import json as json_format
from typing import Literal

from alexnet.cli.common import (
    CliPrecision,
    Json,
    RunFolder,
    Threads,
    load_predictor,
    open_data,
    open_split,
)


def evaluate(
    run: RunFolder,
    data: str | None = None,
    *,
    split: str = "held-out",
    views: Literal[1, 9, 10] = 10,
    precision: CliPrecision | None = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Test a trained run on held-out images, or on all images of a source without splits.

    Example: `alexnet evaluate runs/elpv --views 1`, or `alexnet evaluate runs/elpv photographs/`

    Parameters
    ----------
    data
        A prepared data set or any source; by default the run's own. Classes are matched by name.
    split
        held-out: its test split, its val split where it has no test, and all of a source without
        splits. Or train, val, test, where of a source without splits a quarter is test, or all.
    views
        10: corners, centre and their mirror images, probabilities averaged, as the paper tested;
        9: a grid of three by three places, as the CIFAR-10 networks of 2012; 1: the centre.
    precision
        Of the matrix products: fp32, bf16 where it is fast, or int8 on the processor, whose
        scales 256 training images of the data fix, or of the run where the data has none; by
        default as the run was trained.
    """
    from alexnet.cli.console import format_evaluation
    from alexnet.evaluation import summarize
    from alexnet.predictor import quantize

    predictor = load_predictor(run, threads, precision)
    prepared, images = open_split(run, predictor, data, split)
    if precision == "int8":
        has_own = "train" in prepared.splits
        predictor = quantize(predictor, prepared if has_own else open_data(run, predictor, None))
    result = predictor.evaluate(prepared, crops=views, split=images)
    if json:
        print(json_format.dumps({"split": images.name, **summarize(result)}))
    else:
        print(format_evaluation(images.name, result))
