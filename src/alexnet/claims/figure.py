"""Figure 1 as a picture, from the results of `alexnet claims relu`."""

from collections.abc import Iterator
from pathlib import Path

from alexnet.claims.results import FILE, read
from alexnet.errors import RunError
from alexnet.figures.curves import Curve, draw_activations
from alexnet.figures.style import ImageFormat, drawing_style, save
from alexnet.files import translate_os_error

ARMS = {"relu/tanh": "tanh", "relu/ReLU": "ReLU"}  # what results call them, and the picture


def draw(folder: Path, form: ImageFormat = "both") -> Iterator[Path]:
    """Draw Figure 1 into the ``figures`` of a folder of results; yield the paths.

    Raises
    ------
    RunError
        When the folder has no finished run of either network.
    MissingExtraError
        When matplotlib is not installed.
    """
    curves = {shown: curves_of(folder, arm) for arm, shown in ARMS.items()}
    if not all(curves.values()):
        raise RunError(
            f"{str(folder)!r} has no runs of Figure 1's networks.",
            f"Make them with: alexnet claims relu --out {folder}",
        )
    pictures = folder / "figures"
    with drawing_style(), translate_os_error(pictures):
        pictures.mkdir(exist_ok=True)
        yield from list(save(draw_activations(curves), pictures, "figure-1", form))


def curves_of(folder: Path, arm: str) -> list[Curve]:
    """Return the training error by epoch of each compared run of an arm."""
    runs = [result for result in read(folder / FILE) if arm in result.arms]
    return [[(point.epoch, point.train_error) for point in run.curve] for run in runs if run.curve]
