"""``alexnet figures``."""

from pathlib import Path


def figures(run: Path, *, data: str | None = None, seed: int = 0) -> None:
    """Draw a run's curves, the filters of conv1 (Figure 3) and predictions (Figure 4).

    Example: `alexnet figures runs/elpv`

    Parameters
    ----------
    run
        The folder that `alexnet train --out` made; the pictures go into its `figures`.
    data
        Held-out photographs for the predictions; by default the run's own data.
    seed
        Of the choice of photographs.
    """
    from alexnet.cli.evaluate import data_of
    from alexnet.data.cache import ready
    from alexnet.data.options import Options
    from alexnet.figures import draw_all
    from alexnet.prediction import load
    from alexnet.training.run import Run

    opened = Run.open(run)
    model = load(run)
    config = opened.config
    prepared = ready(data_of(config, data), Options(size=model.prepared), seed=config.recipe.seed)
    for path in draw_all(opened, model, prepared, seed):
        print(path)
