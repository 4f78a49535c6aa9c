"""``alexnet figures``."""

from pathlib import Path
from typing import Literal

from alexnet.cli.common import RunData, Threads, load_predictor, open_data


def figures(
    run: Path,
    *,
    data: RunData = None,
    only: str | None = None,
    form: Literal["png", "svg", "both"] = "both",
    seed: int = 0,
    threads: Threads = None,
) -> None:
    """Draw a run's curves, Figure 3, Figure 4 and the confusion matrix; of claims, Figure 1.

    Example: `alexnet figures runs/elpv`, or `alexnet figures claims`

    Parameters
    ----------
    run
        The folder that `alexnet train --out` made, or for Figure 1 that `alexnet claims --out`
        made; the pictures go into its `figures`.
    only
        Some of them, with commas between: curves, filters (Figure 3), predictions (Figure 4,
        left), neighbours (Figure 4, right), confusion. For neighbours, features of all training
        images are stored in the run's `features`, once.
    form
        png, svg or both.
    seed
        Of the choice of photographs.
    """
    from alexnet.claims.claim import FILE as RESULTS
    from alexnet.claims.plots import save_figure_1
    from alexnet.cli.console import Console
    from alexnet.figures import FIGURES, draw_all
    from alexnet.training.run import Run

    if (run / RESULTS).is_file():
        for path in save_figure_1(run, form):
            print(path)
        return
    predictor = load_predictor(run, threads)
    prepared = open_data(run, predictor, data)
    names = only.split(",") if only else FIGURES
    with Console() as console:
        for path in draw_all(
            Run.open(run), predictor, prepared, names=names, seed=seed, form=form,
            report=console.extracted,
        ):  # fmt: skip
            console.say(str(path))
