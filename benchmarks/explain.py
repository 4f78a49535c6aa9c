"""What looking inside costs, and whether ascent exceeds the best training patch.

    python benchmarks/explain.py RUN PHOTOGRAPH [--threads 2] [--units 10]

Prints, in one process: seconds (with one thread those of the processor, which other work beside
hardly changes) of each method and of a prediction from one view, occlusion against
121 forwards (the page's grey square), and for some units of conv5 the optimised activation over
that of the best patch of all training images.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

import alexnet
from alexnet.data.shards import open_prepared
from alexnet.explain import METHODS, explain
from alexnet.explain import attribution as methods
from alexnet.explain.attribution import attribute, make_question
from alexnet.explain.checks import correlate_maps
from alexnet.explain.optimise import Ascent
from alexnet.features import top_activating
from alexnet.serve.images import OcclusionGrid
from alexnet.training.run import Run


def median_seconds(work: Callable[[], object], repeats: int = 5) -> float:
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    work()
    seconds = []
    for _ in range(repeats):
        start = clock()
        work()
        seconds.append(clock() - start)
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("photograph")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--units", type=int, default=10)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    model = alexnet.load(asked.run, precision="fp32")
    photograph = asked.photograph
    prediction = median_seconds(lambda: model.predict(photograph, crops=1))
    print(f"{model.spec.parameters:,} parameters, {asked.threads} threads")
    print(f"prediction, one view     {1000 * prediction:8.1f} ms")
    for name in METHODS:
        quick = name in ("saliency", "grad-cam", "layercam", "guided-backprop", "deconvolution")
        seconds = median_seconds(partial(explain, model, photograph, name), 5 if quick else 2)
        print(f"{name:24} {1000 * seconds:8.1f} ms, {seconds / prediction:5.1f} predictions")

    prepared = torch.from_numpy(model.load_pixels(photograph))
    grid = OcclusionGrid.over(model.resize_to, model.spec.image_size)
    mean = model.normalise.mean.mean((0, 2, 3)).round().byte().cpu()

    def cover_each() -> None:  # as the page asks: a row of eleven at a time
        covered = grid.cover(prepared, mean)
        for first in range(0, 121, 11):
            model.probabilities(torch.stack(covered[first : first + 11]))

    question = make_question(model, prepared, 0)
    today = median_seconds(cover_each)
    ours = median_seconds(lambda: attribute(model, question, "occlusion"))
    few = attribute(model, question, "occlusion")
    methods.COVERED = 11  # smaller squares too
    alike = correlate_maps(few, attribute(model, question, "occlusion"))
    print(f"121 squares {today:.2f} s, occlusion {ours:.2f} s: {today / ours:.2f} times as fast; "
          f"rank correlation with the map of 121 squares {alike:.3f}")  # fmt: skip
    if not asked.units:
        return
    run = Run.open(asked.run)
    split = open_prepared(run.config.data).splits["train"]
    best = top_activating(model, split, "conv5", range(asked.units), 1)
    ascent = Ascent(model, run.load_statistics(), "conv5")
    ratios = []
    for unit in range(asked.units):
        start = time.perf_counter()
        (score,) = ascent.run(ascent.choose(unit), unit).scores
        seconds = time.perf_counter() - start
        ratios.append(score / best[unit][0].activation)
        print(f"conv5 unit {unit}: {score:.1f} in {seconds:.1f} s, best of {len(split):,} training "
              f"images {best[unit][0].activation:.2f}: {ratios[-1]:.1f} times")  # fmt: skip
    print(f"at least 5 times in {np.sum(np.array(ratios) >= 5)} of {len(ratios)} units")


if __name__ == "__main__":
    main()
