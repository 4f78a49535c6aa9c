"""``alexnet explain``."""

import json as json_format
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from alexnet.cli.common import Json, RunFolder, Threads, find_files, load_predictor
from alexnet.errors import ConfigError, ImageError


def explain(
    run: RunFolder,
    *images: str,
    method: str = "all",
    class_: Annotated[str | None, Parameter(name="--class")] = None,
    layer: str | None = None,
    out: Path | None = None,
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
    form
        png, svg or both.
    """
    if not images:
        raise ConfigError("No image was named.", "Example: alexnet explain RUN photograph.jpg")
    files = [file for name in images for file in find_files(name)]

    import numpy as np

    from alexnet.explain import METHODS, explain_all
    from alexnet.explain.drawing import draw_explanation, draw_strip
    from alexnet.figures.style import drawing_style, save
    from alexnet.files import atomic_write, translate_os_error

    predictor = load_predictor(run, threads)
    out = out or run / "explanations"
    with translate_os_error(out):
        out.mkdir(parents=True, exist_ok=True)
    names = list(METHODS) if method == "all" else method.split(",")
    results: list[dict[str, Any]] = []
    refused = 0
    for number, file in enumerate(files):
        stem = f"{number:03}-{file.stem}" if len(files) > 1 else file.stem
        start = time.perf_counter()
        try:
            found = explain_all(predictor, file, names, label=class_, layer=layer)
        except ImageError as error:
            refused += 1
            print(f"alexnet: {error}", file=sys.stderr)
            results.append({"path": str(file), "error": str(error)})
            continue
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
        results.append({
            "path": str(file), "label": found[0].label, "name": found[0].name,
            "probability": found[0].probability, "box": found[0].box, "seconds": seconds,
            "methods": [
                {
                    "method": one.method, "peak": one.peak, "sum": float(one.map.sum()),
                    "lowest": float(one.map.min()), "highest": float(one.map.max()),
                }
                for one in found
            ],
            "files": [str(path) for path in written],
        })  # fmt: skip
        if not json:
            print(f"{file}: {found[0].name}, {found[0].probability:.1%}")
            for one in found:
                print(f"  {one.method:22} strongest at {one.peak[0]:.0f}, {one.peak[1]:.0f}")
            print(f"  {written[-1]}")
    if json:
        print(json_format.dumps({"images": results}))
    return 1 if refused else 0
