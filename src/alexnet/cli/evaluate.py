"""``alexnet evaluate``."""

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from alexnet.cli.precision import Precision, model_at
from alexnet.cli.run_data import data_for

if TYPE_CHECKING:
    pass


def evaluate(
    run: Path,
    data: str | None = None,
    *,
    views: Literal[1, 9, 10] = 10,
    precision: Precision | None = None,
    threads: int | None = None,
    json: bool = False,
) -> None:
    """Test a trained run on held-out images.

    Example: `alexnet evaluate runs/elpv --views 1`

    Parameters
    ----------
    run
        The folder that `alexnet train --out` made.
    data
        A prepared data set or any source; by default the run's own. Its test split is used, or
        its val split where it has no test. Classes are matched by name.
    views
        10: corners, centre and their mirror images, probabilities averaged, as the paper tested;
        9: a grid of three by three places, as the CIFAR-10 networks of 2012; 1: the centre.
    precision
        Of the matrix products: fp32, bf16 where it is fast, or int8 on the processor, whose
        scales 256 of the data's training images fix; by default as the run was trained.
    threads
        Processor threads; by default all.
    json
        Print one JSON object and nothing else.
    """
    from alexnet import device as devices
    from alexnet.cli.screen import tested
    from alexnet.evaluation import summary
    from alexnet.predictor import quantize

    devices.keep_freed_memory()
    devices.use_threads(threads)
    model = model_at(run, precision)
    prepared = data_for(run, model, data)
    if precision == "int8":
        model = quantize(model, prepared)
    result = model.evaluate(prepared, crops=views)
    if json:
        print(json_format.dumps({"split": prepared.held_out.name, **summary(result)}))
    else:
        print(tested(prepared.held_out.name, result))
