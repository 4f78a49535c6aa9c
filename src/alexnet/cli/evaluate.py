"""``alexnet evaluate``."""

import json as json_format
from typing import Literal

from alexnet.cli.common import (
    CliPrecision,
    Json,
    MemberWeights,
    RunFolder,
    Threads,
    load_predictor,
    open_data,
    open_split,
    parse_weights,
    split_runs,
)
from alexnet.errors import ConfigError


def evaluate(
    run: RunFolder,
    *more: str,
    data: str | None = None,
    weights: MemberWeights = None,
    fit_on: str | None = None,
    split: str = "held-out",
    views: Literal[1, 9, 10] = 10,
    precision: CliPrecision | None = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Test a trained run on held-out images, or on all images of a source without splits.

    Example: `alexnet evaluate runs/elpv --views 1`, or `alexnet evaluate runs/elpv photographs/`

    Of several runs, `alexnet evaluate runs/a runs/b`, the class probabilities are averaged.

    Parameters
    ----------
    more
        Further runs; last, what `--data` takes.
    data
        A prepared data set or any source; by default the run's own. Classes are matched by name.
    fit_on
        A split, such as val or train, on whose images the weights of several runs are fitted, as
        the entries of 2012 were combined. Never the one that is tested.
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
    from alexnet.predictor import Ensemble, ask_together, quantize

    runs, left = split_runs(run, more)
    if len(left) > 1 or (left and data):
        raise ConfigError(f"{left[0]!r} is no run.", "Name runs first, and one set of images last.")
    if weights and fit_on:
        raise ConfigError("--weights and --fit-on both weigh the networks.", "Give one.")
    named = left[0] if left else data
    predictors = [load_predictor(one, threads, precision) for one in runs]
    prepared, images = open_split(run, predictors[0], named, split)
    if precision == "int8":
        has_own = "train" in prepared.splits
        predictors = [
            quantize(one, prepared if has_own else open_data(folder, one, None))
            for folder, one in zip(runs, predictors, strict=True)
        ]
    together = ask_together(predictors, parse_weights(weights))
    if fit_on:
        free = prepared.splits.keys() - ({images.name} if split != "all" else prepared.splits)
        if fit_on not in free or not isinstance(together, Ensemble):
            raise ConfigError(
                f"Weights cannot be fitted on {fit_on!r}.",
                "Name several runs, and a split of their data that is not tested: "
                f"{', '.join(sorted(free)) or 'there is none'}.",
            )
        together = together.fit(prepared, prepared.splits[fit_on])
    weighted = [round(one, 4) for one in together.weights] if isinstance(together, Ensemble) else []
    result = together.evaluate(prepared, crops=views, split=images)
    if json:
        told = {"weights": weighted} if weighted else {}
        print(json_format.dumps({"split": images.name, **summarize(result), **told}))
        return
    if weighted:
        print(f"{len(runs)} networks, weights {', '.join(f'{one:g}' for one in weighted)}")
    print(format_evaluation(images.name, result))
