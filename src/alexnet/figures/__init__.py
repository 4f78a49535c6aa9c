"""The paper's figures, drawn from a trained run: curves, Figure 3, Figure 4, the confusion matrix.

`style` has what other pictures of the project are drawn with.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet.data.shards import PreparedData
from alexnet.errors import ConfigError, RunError, did_you_mean
from alexnet.evaluation import VIEWS, summarize
from alexnet.features.extraction import Report
from alexnet.figures.charts import draw_confusion, draw_curves
from alexnet.figures.examples import (
    draw_filters,
    draw_neighbours,
    draw_predictions,
    extract_training_features,
)
from alexnet.figures.style import ImageFormat, drawing_style, save
from alexnet.files import translate_os_error
from alexnet.predictor import Predictor
from alexnet.training.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "FIGURES", "draw_all", "draw_confusion", "draw_curves", "draw_filters", "draw_neighbours",
    "draw_predictions", "draw_test_confusion", "extract_training_features",
]  # fmt: skip

FIGURES = ("curves", "filters", "predictions", "neighbours", "confusion")


def draw_all(
    run: Run,
    predictor: Predictor,
    data: PreparedData,
    *,
    names: Iterable[str] | None = None,
    seed: int = 0,
    form: ImageFormat = "both",
    report: Report = lambda done, total: None,
) -> Iterator[Path]:
    """Draw `names` of `FIGURES` into the run's ``figures`` folder; yield the paths.

    By default all that the run has: one that was imported has no curves. `seed` is of the choice of
    images. `report` is called with the training images done and all, while their features are
    extracted. An unknown name is a `ConfigError`, and curves that there are none of a `RunError`.
    """
    lines = run.read_metrics()
    makers: dict[str, Callable[[], Figure]] = {
        "curves": lambda: draw_curves(lines),
        "filters": lambda: draw_filters(predictor),
        "predictions": lambda: draw_predictions(predictor, data, seed),
        "neighbours": lambda: draw_neighbours(
            predictor, data, extract_training_features(run.folder, predictor, data, report), seed
        ),
        "confusion": lambda: draw_test_confusion(run, predictor, data),
    }
    wanted = [n for n in FIGURES if n != "curves" or lines] if names is None else [*names]
    for name in wanted:
        if name not in makers:
            raise ConfigError(f"There is no figure {name!r}.", did_you_mean(name, makers))
        if name == "curves" and not lines:
            raise RunError(
                f"The run {str(run.folder)!r} has no curves: it has taken no step that was logged.",
                "Ask for the other figures by --only.",
            )
    folder = run.folder / "figures"
    for name in wanted:
        with drawing_style(), translate_os_error(folder):
            folder.mkdir(exist_ok=True)
            paths = list(save(makers[name](), folder, name, form))
        yield from paths


def draw_test_confusion(run: Run, predictor: Predictor, data: PreparedData) -> "Figure":
    """Draw the confusion of the run's own test; on other data, test with the centre view first."""
    own = data.manifest.fingerprint == run.config.data_fingerprint
    known = run.read_test(predictor.step) if own else None
    found: Any = known or summarize(predictor.evaluate(data, crops=1))
    views = VIEWS[found["views"]]
    title = f"{found['images']:,} held-out images, {views}: top-1 accuracy {found['top1']:.1%}"
    return draw_confusion(found["classes"], found["confusion"], title)
