"""``alexnet evaluate``."""

import json as json_format
from typing import Literal

from alexnet.cli.common import CliPrecision, Json, RunFolder, Threads, load_predictor, open_data


def evaluate(
    run: RunFolder,
    data: str | None = None,
    *,
    views: Literal[1, 9, 10] = 10,
    precision: CliPrecision | None = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Test a trained run on held-out images.

    Example: `alexnet evaluate runs/elpv --views 1`

    Parameters
    ----------
    data
        A prepared data set or any source; by default the run's own. Its test split is used, or
        its val split where it has no test. Classes are matched by name.
    views
        10: corners, centre and their mirror images, probabilities averaged, as the paper tested;
        9: a grid of three by three places, as the CIFAR-10 networks of 2012; 1: the centre.
    precision
        Of the matrix products: fp32, bf16 where it is fast, or int8 on the processor, whose
        scales 256 of the data's training images fix; by default as the run was trained.
    """
    from alexnet.cli.console import format_evaluation
    from alexnet.evaluation import summarize
    from alexnet.predictor import quantize

    predictor = load_predictor(run, threads, precision)
    prepared = open_data(run, predictor, data)
    if precision == "int8":
        predictor = quantize(predictor, prepared)
    result = predictor.evaluate(prepared, crops=views)
    if json:
        print(json_format.dumps({"split": prepared.held_out.name, **summarize(result)}))
    else:
        print(format_evaluation(prepared.held_out.name, result))
