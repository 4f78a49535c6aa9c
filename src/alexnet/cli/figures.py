"""``alexnet figures`` and ``alexnet visualise``: pictures of a run, and of its units."""

import re
import zlib
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from alexnet.cli.common import (
    RunData,
    RunFolder,
    Threads,
    find_images,
    load_predictor,
    open_data,
    parse_units,
)
from alexnet.errors import ConfigError


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
    from alexnet.figures import draw_all
    from alexnet.training.run import Run

    if (run / RESULTS).is_file():
        for path in save_figure_1(run, form):
            print(path)
        return
    predictor = load_predictor(run, threads)
    prepared = open_data(run, predictor, data)
    names = only.split(",") if only else None
    with Console() as console:
        for path in draw_all(
            Run.open(run), predictor, prepared, names=names, seed=seed, form=form,
            report=console.extracted,
        ):  # fmt: skip
            console.say(str(path))


def visualise(
    run: RunFolder,
    *data: str,
    layer: str | None = None,
    unit: int | None = None,
    channel: int | None = None,
    class_: Annotated[str | None, Parameter(name="--class")] = None,
    direction: Path | None = None,
    photograph: Path | None = None,
    caricature: bool = False,
    deconvnet: bool = False,
    units: str | None = None,
    split: str = "train",
    count: int = 1,
    diversity: float = 0.0,
    steps: int = 256,
    seed: int = 0,
    out: Path | None = None,
    threads: Threads = None,
) -> None:
    """Show what excites a unit, a channel, a class or a whole layer most.

    Example: `alexnet visualise runs/elpv --layer conv5 --unit 12`, or `--class functional`

    With a layer alone it makes a sheet of all its units, and goes on where it was stopped.

    Parameters
    ----------
    data
        For --deconvnet: as for `alexnet features`; by default the run's own.
    layer
        Its name: conv1 to conv5, fc6, ...; `alexnet features receptive-fields RUN` lists all.
    unit
        A unit of that layer; of a channel that in the middle of the image.
    channel
        A whole channel of it, at every place.
    class_
        A class, by the last layer's outputs.
    direction
        A .npy file of one number a channel of the layer.
    photograph
        An image to begin with. With a layer alone: DeepDream, more of all that the layer finds.
    caricature
        Of the photograph: more of what the layer finds in it, and no more of anything else.
    deconvnet
        The nine patches of images that excite each unit most, beside what the deconvnet of Zeiler
        and Fergus makes of them.
    units
        For a sheet: some units of the layer, 3,7 or 0-15; by default all.
    split
        For --deconvnet: of a data set, train, val, test, held-out or all.
    count
        How many images, each from another noise.
    diversity
        How much they are kept from being alike, such as 0.1.
    steps
        Of the ascent.
    seed
        Of the noise.
    out
        A folder; by default the run's `visualised`.
    """
    from PIL import Image

    from alexnet.cli.console import Console
    from alexnet.data.decode import Pixels
    from alexnet.explain.attribution import find_class
    from alexnet.explain.optimise import Ascent
    from alexnet.explain.sheets import lay_out_sheet, make_tiles, project_patches
    from alexnet.features.extraction import checksum
    from alexnet.files import atomic_write, translate_os_error
    from alexnet.training.run import Run

    goals = {"unit": unit, "channel": channel, "class": class_, "direction": direction}
    named = [name for name, value in goals.items() if value is not None]
    _check_goals(named, layer, caricature and photograph is None)
    predictor = load_predictor(run, threads).in_float32
    if class_ is not None:
        layer, unit = predictor.spec.output_name, find_class(predictor, class_)
    assert layer is not None
    ascent = Ascent(
        predictor, Run.open(run).load_statistics(), layer,
        count=count, steps=steps, diversity=diversity, photograph=photograph,
    )  # fmt: skip
    numbers = parse_units(units) if units else list(range(ascent.channels))
    out = out or run / "visualised"
    scores: tuple[float, ...] = ()
    with translate_os_error(out), Console() as console:
        out.mkdir(parents=True, exist_ok=True)
        if deconvnet:
            images, _ = find_images(run, predictor, data, split)
            numbers = numbers if unit is None else [unit]
            tiles = [tile for _, tile in project_patches(predictor, images, layer, numbers)]
            name = f"{layer}-deconvnet"
            picture = lay_out_sheet(tiles, max(1, round((len(tiles) / 2) ** 0.5)), gap=8)
        elif named or photograph:
            objective = ascent.choose(unit, channel, direction, caricature=caricature)
            found = ascent.run(objective, seed)
            goal = named[0] if named else "caricature" if caricature else "dream"
            value = goals.get(goal)
            name = f"{layer}-{goal}" + (f"-{name_file(value)}" if value is not None else "")
            picture, scores = lay_out_sheet(found.images, count), found.scores
        else:
            name = f"{layer}-units-{predictor.step}-{seed}-{steps}"
            name += f"-{count}-{diversity:g}" if count > 1 else ""
            kept = out / f"{name}-{checksum(predictor)[:12]}"  # other weights have the same step
            kept.mkdir(exist_ok=True)

            def make(number: int) -> Pixels:
                found = ascent.run(ascent.choose(number), seed + number)
                return lay_out_sheet(found.images, count)

            tiles = make_tiles(kept, numbers, make, console.drawn)
            picture = lay_out_sheet(tiles, max(1, round(len(tiles) ** 0.5)))
        with atomic_write(out / f"{name}.png") as temporary:
            Image.fromarray(picture).save(temporary, "PNG")
        raised = f": {', '.join(f'{score:.4g}' for score in scores)}" if scores else ""
        console.say(f"{out / name}.png{raised}")


def _check_goals(named: list[str], layer: str | None, is_of_nothing: bool) -> None:
    """See that it is clear what to visualise."""
    if len(named) > 1 or (layer is None and named != ["class"]):
        raise ConfigError(
            "It is not clear what to visualise.",
            "Give --class, or --layer with at most one of --unit, --channel and --direction.",
        )
    if named == ["class"] and layer is not None:
        raise ConfigError("A class is of the last layer.", "Leave out --layer, or --class.")
    if is_of_nothing:
        raise ConfigError("A caricature is of a photograph.", "Give --photograph.")


def name_file(value: object) -> str:
    """Return the part of a picture's name that says what it is of, a word of its own for each."""
    if isinstance(value, Path):
        return value.stem
    text = str(value)
    plain = re.sub(r"[^\w .,=()+-]", "_", text)[:100]
    return plain if plain == text else f"{plain}-{zlib.crc32(text.encode()):08x}"
