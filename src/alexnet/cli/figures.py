"""``alexnet figures``."""

from pathlib import Path
from typing import Literal


def figures(
    run: Path,
    *,
    data: str | None = None,
    only: str | None = None,
    form: Literal["png", "svg", "both"] = "both",
    seed: int = 0,
    threads: int | None = None,
) -> None:
    """Draw a run's curves, Figure 3, Figure 4 and the confusion matrix; of claims, Figure 1.

    Example: `alexnet figures runs/elpv`, or `alexnet figures claims`

    Parameters
    ----------
    run
        The folder that `alexnet train --out` made, or for Figure 1 that `alexnet claims --out`
        made; the pictures go into its `figures`.
    data
        A prepared data set or any source; by default the run's own.
    only
        Some of them, with commas between: curves, filters (Figure 3), predictions (Figure 4,
        left), neighbours (Figure 4, right), confusion. For neighbours, features of all training
        images are stored in the run's `features`, once.
    form
        png, svg or both.
    seed
        Of the choice of photographs.
    threads
        Processor threads; by default all.
    """
    from alexnet import device as devices
    from alexnet.api import load
    from alexnet.claims.plots import draw_figure_1
    from alexnet.claims.results import FILE as RESULTS
    from alexnet.cli.run_data import data_for
    from alexnet.cli.screen import Screen
    from alexnet.figures import NAMES, draw_all
    from alexnet.training.run import Run

    if (run / RESULTS).is_file():
        for path in draw_figure_1(run, form):
            print(path)
        return
    devices.keep_freed_memory()
    devices.use_threads(threads)
    model = load(run)
    prepared = data_for(run, model, data)
    names = only.split(",") if only else NAMES
    with Screen() as screen:
        for path in draw_all(
            Run.open(run), model, prepared, names=names, seed=seed, form=form,
            report=screen.extracted,
        ):  # fmt: skip
            screen.say(str(path))
