"""``alexnet explain``."""

import json as json_format
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from alexnet.cli.common import Json, RunFolder, Threads, find_files, load_predictor
from alexnet.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from alexnet.figures.style import ImageFormat
    from alexnet.predictor import Predictor


def explain(
    run: RunFolder,
    *images: str,
    method: str = "all",
    class_: Annotated[str | None, Parameter(name="--class")] = None,
    layer: str | None = None,
    out: Path | None = None,
    check: bool = False,
    boxes: Path | None = None,
    fool: Literal["fgsm", "pgd"] | None = None,
    epsilon: int = 4,
    form: Literal["png", "svg", "both"] = "png",
    threads: Threads = None,
    json: Json = False,
) -> int:
    """Show which pixels of photographs decide for a class.

    Example: `alexnet explain runs/elpv photograph.jpg --method grad-cam`

    Parameters
    ----------
    images
        Files, folders of them, or patterns.
    method
        all (default), in one strip; or some, with commas between: saliency, smoothgrad,
        integrated-gradients, guided-backprop, deconvolution, grad-cam, guided-grad-cam, layercam,
        occlusion, ablation. Each map is also stored as .npy, at the size of the network's view.
    class_
        The class in question; by default the most probable.
    layer
        That grad-cam and layercam look at; by default the last convolution's activation.
    out
        A folder for what is made; by default the run's `explanations`.
    check
        Instead, check the methods on the photographs: deletion and insertion, and how much of a map
        is left when the network's weights are redrawn.
    boxes
        For --check, the pointing game: a CSV file of path, left, top, right, bottom, in pixels of
        the photographs as they are named here.
    fool
        Instead, change each photograph so that the network errs: by one step of the gradient's
        sign, or by projected gradient descent; towards --class where one is given.
    epsilon
        For --fool: by how many grey levels a pixel may change.
    form
        png, svg or both.
    """
    if not images:
        raise ConfigError("No image was named.", "Example: alexnet explain RUN photograph.jpg")
    if boxes and not check:
        raise ConfigError("--boxes is for --check.", "Give both.")
    if check and fool:
        raise ConfigError("--check and --fool are two things.", "Give one.")
    files = [file for name in images for file in find_files(name)]

    from alexnet.explain import METHODS
    from alexnet.files import translate_os_error

    predictor = load_predictor(run, threads)
    out = out or run / "explanations"
    with translate_os_error(out):
        out.mkdir(parents=True, exist_ok=True)
    names = list(METHODS) if method == "all" else method.split(",")
    if check:
        result = _check(predictor, files, names, boxes, out, form, quiet=json)
        if json:
            print(json_format.dumps(result))
        return 0
    results: list[dict[str, Any]] = []
    for number, file in enumerate(files):
        stem = f"{number:03}-{file.stem}" if len(files) > 1 else file.stem
        try:
            if fool:
                found = _fool(predictor, file, fool, epsilon, class_, out / stem)
            else:
                found = _explain(predictor, file, names, class_, layer, out, stem, form)
        except ImageError as error:
            print(f"alexnet: {error}", file=sys.stderr)
            found = {"error": str(error)}
        results.append({"path": str(file), **found})
        if not json and "error" not in found:
            print(
                "\n".join([f"{file}: {found['name']}, {found['probability']:.1%}", *found["lines"]])
            )
    if json:
        shown = [{k: v for k, v in one.items() if k != "lines"} for one in results]
        print(json_format.dumps({"images": shown}))
    return 1 if any("error" in one for one in results) else 0


def _explain(
    predictor: "Predictor", file: Path, names: list[str], label: str | None, layer: str | None,
    out: Path, stem: str, form: "ImageFormat",
) -> dict[str, Any]:  # fmt: skip
    """Write a photograph's maps and their picture; return the numbers."""
    import numpy as np

    from alexnet.explain import explain_all
    from alexnet.explain.drawing import draw_explanation, draw_strip
    from alexnet.figures.style import drawing_style, save
    from alexnet.files import atomic_write

    start = time.perf_counter()
    found = explain_all(predictor, file, names, label=label, layer=layer)
    seconds = time.perf_counter() - start
    written = []
    for one in found:
        written.append(out / f"{stem}-{one.method}.npy")
        with atomic_write(written[-1]) as temporary, temporary.open("wb") as opened:
            np.save(opened, one.map)
    with drawing_style():
        if len(found) == 1:
            written += save(draw_explanation(found[0]), out, f"{stem}-{names[0]}", form)
        else:
            written += save(draw_strip(found), out, stem, form)
    methods = [
        {
            "method": one.method, "peak": one.peak, "sum": float(one.map.sum()),
            "lowest": float(one.map.min()), "highest": float(one.map.max()),
        }
        for one in found
    ]  # fmt: skip
    lines = [
        f"  {one.method:22} strongest at {one.peak[0]:.0f}, {one.peak[1]:.0f}" for one in found
    ]
    return {
        "label": found[0].label, "name": found[0].name, "probability": found[0].probability,
        "box": found[0].box, "seconds": seconds, "methods": methods,
        "files": [str(path) for path in written], "lines": [*lines, f"  {written[-1]}"],
    }  # fmt: skip


def _fool(
    predictor: "Predictor", file: Path, method: Literal["fgsm", "pgd"], epsilon: int,
    label: str | None, stem: Path,
) -> dict[str, Any]:  # fmt: skip
    """Write the changed view, and what was added; return what the network makes of either."""
    import numpy as np
    from PIL import Image

    from alexnet.data.imagenet import describe_classes
    from alexnet.explain.adversarial import fool
    from alexnet.explain.attribution import find_class
    from alexnet.files import atomic_write

    target = None if label is None else find_class(predictor, label)
    found = fool(predictor, predictor.load_pixels(file), method, epsilon=epsilon, target=target)
    added = (127.5 + found.change * (127 / epsilon)).astype(np.uint8)  # so that it can be seen
    strip = np.concatenate([found.before, added, found.after], 1)
    paths = [stem.with_name(f"{stem.name}-{what}.png") for what in ("fooled", "fooling")]
    for path, pixels in zip(paths, (found.after, strip), strict=True):
        with atomic_write(path) as temporary:
            Image.fromarray(pixels).save(temporary, "PNG")
    names = describe_classes(predictor.classes)
    before, after = (int(chances.argmax()) for chances in found.probabilities)
    chances = [float(found.probabilities[0][before]), float(found.probabilities[1][after])]
    most, mean = int(np.abs(found.change).max()), float(np.abs(found.change).mean())
    return {
        "name": names[before], "probability": chances[0], "fooled_name": names[after],
        "fooled_probability": chances[1], "largest_change": most, "mean_change": mean,
        "files": [str(path) for path in paths],
        "lines": [
            f"  changed by {most} of 255 grey levels at most, {mean:.2f} on average: "
            f"{names[after]}, {chances[1]:.1%}",
            f"  {paths[1]}",
        ],
    }  # fmt: skip


def _check(
    predictor: "Predictor", files: list[Path], names: list[str], boxes: Path | None, out: Path,
    form: "ImageFormat", *, quiet: bool,
) -> dict[str, Any]:  # fmt: skip
    """Check methods on photographs; print a table unless `quiet`, and return it."""
    import csv
    from dataclasses import asdict

    from alexnet.cli.console import Console
    from alexnet.explain.checks import CONTROLS, run_checks
    from alexnet.explain.drawing import draw_checks
    from alexnet.figures.style import drawing_style, save

    known: dict[str, tuple[float, float, float, float]] = {}
    try:
        for path, *edges in csv.reader(boxes.read_text("utf-8").splitlines()) if boxes else ():
            left, top, right, bottom = map(float, edges)
            known[path] = (left, top, right, bottom)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{str(boxes)!r} cannot be read ({error}).", "Its lines are PATH,LEFT,TOP,RIGHT,BOTTOM."
        ) from None
    if boxes and not any(str(file) in known for file in files):
        raise ConfigError(
            f"{str(boxes)!r} has a box for none of the photographs.",
            f"Its paths are written as on the command line: {str(files[0])!r}.",
        )
    with Console() as console:
        found = run_checks(
            predictor, files, names, [known.get(str(file)) for file in files], console.drawn
        )
    with drawing_style():
        pictures = [str(path) for path in save(draw_checks(found), out, "checks", form)]
    controls = [one for one in found if one.method in CONTROLS]
    rows = [
        {
            **asdict(one),
            "passes_order": one.passes_order(controls),
            "passes_sanity": one.passes_sanity,
        }
        for one in found
    ]
    if not quiet:
        print(f"{'method':22} deletion insertion  order  likeness sanity  pointing")
        for one in found:
            order = "" if one in controls else "passes" if one.passes_order(controls) else "fails"
            redrawn = f"{one.likeness:7.2f}" if one.sanity else f"{'':7}"
            sanity = "" if one in controls else "passes" if one.passes_sanity else "fails"
            pointing = "" if one.pointing is None else f"{one.pointing:.0%}"
            print(
                f"{one.method:22} {one.deletion:8.3f} {one.insertion:9.3f}  {order:6} {redrawn}"
                f"  {sanity:6}  {pointing}".rstrip()
            )
        print(pictures[0])
    return {"images": len(files), "checks": rows, "files": pictures}
