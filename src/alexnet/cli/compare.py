"""``alexnet compare``."""

import json as json_format
from pathlib import Path
from typing import Literal

from alexnet.cli.common import Json, RunFolder, Threads, find_images, load_predictor
from alexnet.errors import ConfigError

LEAST = 3  # images: of two there is one distance, which correlates with nothing


def compare(
    run: RunFolder,
    other: Path,
    *data: str,
    layers: str | None = None,
    split: str = "held-out",
    count: int = 1000,
    degrees: float = 10.0,
    out: Path | None = None,
    form: Literal["png", "svg", "both"] = "png",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Say how alike two runs are: layer by layer, in their answers and in their weights.

    Example: `alexnet compare runs/one runs/two`

    Into the folder go a picture of layers against layers, and for either run the dissimilarities
    of all pairs of images as rsatoolbox takes them: `rdms-1.npy`, (layers, pairs), and
    `rdms-1.json`.

    Parameters
    ----------
    other
        Another run.
    data
        As for `alexnet features`; by default the first run's own.
    layers
        Names with commas between; by default what each layer with weights hands on.
    split
        Of a data set: train, val, test, held-out or all.
    count
        Images at most, evenly spread over the split: every pair of them is compared.
    degrees
        Of visual angle that the network's view spans, for receptive fields in degrees.
    out
        A folder for what is made; by default the first run's `compared-OTHER`.
    form
        png, svg or both.
    """
    if count < LEAST:
        raise ConfigError(
            f"--count is {count}.", f"Networks are compared on {LEAST} images or more."
        )

    import tempfile
    from dataclasses import asdict

    import numpy as np

    from alexnet.cli.console import Console
    from alexnet.explain.compare import compare as compare_runs
    from alexnet.explain.compare import describe_rdms
    from alexnet.explain.drawing import draw_comparison
    from alexnet.features import SampledSplit
    from alexnet.figures.style import drawing_style, save
    from alexnet.files import translate_os_error

    both = [load_predictor(folder, threads) for folder in (run, other)]
    images, _ = find_images(run, both[0], data, split)
    again = images
    if both[0].resize_to != both[1].resize_to:
        again, _ = find_images(run, both[1], data, split)
    if len(images) < LEAST:
        raise ConfigError(
            f"There are {len(images)} images of {images.name!r}.",
            f"Networks are compared on {LEAST} or more.",
        )
    images, again = SampledSplit(images, count), SampledSplit(again, count)
    out = out or run / f"compared-{other.resolve().name}"
    with translate_os_error(out):
        out.mkdir(parents=True, exist_ok=True)
    with (
        translate_os_error(out),
        tempfile.TemporaryDirectory(dir=out) as folder,
        Console() as console,
    ):
        names = layers.split(",") if layers else ()
        found = compare_runs(
            both[0], both[1], (images, again), Path(folder), layers=names, report=console.extracted
        )
        with drawing_style():
            files = list(save(draw_comparison(found, run.name, other.name), out, "layers", form))
        for number, (predictor, known, rdm) in enumerate(
            zip(both, found.layers, found.rdms, strict=True), 1
        ):
            files += [out / f"rdms-{number}.npy", out / f"rdms-{number}.json"]
            np.save(files[-2], rdm)
            about = describe_rdms(predictor, known, degrees)
            about["pattern_descriptors"] = {"image": [images.path(i) for i in range(len(images))]}
            files[-1].write_text(json_format.dumps(about, indent=1) + "\n", encoding="utf-8")
    if json:
        numbers = {key: value for key, value in asdict(found).items() if key != "rdms"}
        numbers |= {"cka": found.cka.tolist(), "rsa": found.rsa.tolist(), "images": len(images)}
        print(json_format.dumps({**numbers, "files": [str(path) for path in files]}))
        return
    print(f"{'layer':10} {'CKA':>6} {'RSA':>6}  weights' distance")
    for name in found.layers[0]:
        if name in found.layers[1]:
            at = found.layers[0].index(name), found.layers[1].index(name)
            print(f"{name:10} {found.cka[at]:6.3f} {found.rsa[at]:6.3f}")
    for name, distance in found.weights.items():
        print(f"{name:10} {'':13}  {distance:.3f}")
    if found.agreement is not None:
        print(f"{found.agreement:.1%} of {len(images):,} images are put in the same class by both")
    print(files[0])
