"""What a trained network's weights are worth to another data set with few images a class.

    python benchmarks/fine_tuning.py RUN DATA --out RESULT.json [--images 10] [--seeds 5]

The same network is trained on so many images of each class of DATA, drawn by the seed: from
scratch, from the weights of RUN, and from these with the convolutions frozen; with the same
recipe, steps and seeds. Each of the three has its learning rate chosen out of the same ones, by
its mean top-1 on DATA's val split over the seeds; what is compared is top-1 on its test split, in
pairs of a seed. RUN's test error plays no part. Needs scipy, for Student's t.
"""

import argparse
import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import t as student

from alexnet.data.prepare import Options, prepare
from alexnet.data.samples import Source
from alexnet.data.shards import PreparedData, open_prepared
from alexnet.data.sources import open_source
from alexnet.recipes import FAST, Recipe
from alexnet.training.checkpoint import Checkpoint
from alexnet.training.fit import fit
from alexnet.training.monitor import Tested, Validated
from alexnet.training.run import Pretrained, Run, RunConfig, software_versions

ARMS = ("scratch", "fine-tuned", "frozen")


def few(source: Source, images: int, seed: int) -> Source:
    """Return a source with so many training images of each class, drawn by the seed."""
    draws = np.random.default_rng(seed)
    train = source.splits["train"]
    chosen = [
        draws.choice(np.flatnonzero(train.labels == label), images, replace=False)
        for label in range(len(source.classes))
    ]
    return replace(source, splits={**source.splits, "train": train.take(np.concatenate(chosen))})


def trained(
    arm: str, first: Pretrained, data: PreparedData, recipe: Recipe, folder: Path
) -> dict[str, float]:
    """Train one network; return its top-1 on the val split, one view, and on test, ten views."""
    begin, start = None, data.statistics
    if arm != "scratch":
        weights = first.weights_for(first.config.spec, data.classes, recipe.seed)
        begin = Checkpoint(0, weights)
        start = first.statistics_for(data.statistics)
    config = RunConfig(
        spec=replace(first.config.spec, num_classes=len(data.classes)),
        recipe=recipe,
        classes=data.classes,
        data=str(data.root),
        data_fingerprint=data.manifest.fingerprint,
        data_size=data.manifest.size,
        initial_weights=None if arm == "scratch" else first.origin,
        made_with=software_versions(),
    )
    events = list(fit(Run.start(folder, config, start, first=begin), data))
    return {
        "val": next(e.result.top1 for e in reversed(events) if isinstance(e, Validated)),
        "test": next(e.result.top1 for e in events if isinstance(e, Tested)),
    }


def mean(rows: list[dict], arm: str, lr: float) -> float:
    """Return an arm's mean top-1 on the val split at a rate."""
    return statistics.mean(row["val"] for row in rows if (row["arm"], row["lr"]) == (arm, lr))


def compared(rows: list[dict], rates: dict[str, float], arm: str) -> dict[str, object]:
    """Return how much better an arm is than scratch on the test split, in pairs of a seed."""
    scores = {
        name: {r["seed"]: r["test"] for r in rows if (r["arm"], r["lr"]) == (name, rates[name])}
        for name in ("scratch", arm)
    }
    apart = [score - scores["scratch"][seed] for seed, score in scores[arm].items()]
    half = student.ppf(0.975, len(apart) - 1) * statistics.stdev(apart) / len(apart) ** 0.5
    middle = statistics.mean(apart)
    return {
        "scratch": list(scores["scratch"].values()),
        arm: list(scores[arm].values()),
        "mean_difference": middle,
        "interval_95": [middle - half, middle + half],
    }


def main() -> None:
    """Train all, write JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=10, help="of each class, to train on")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.0003, 0.001, 0.003, 0.01])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=20)
    parser.add_argument("--freeze", default="conv1-conv3")
    parser.add_argument("--arms", nargs="+", default=ARMS, choices=ARMS)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--folder", type=Path, help="where runs are kept; by default nowhere")
    asked = parser.parse_args()
    if asked.seeds < 2:
        parser.error("one seed has no interval; give --seeds 2 or more")
    first, source = Pretrained.from_run(Run.open(asked.run)), open_source(asked.data)
    options = Options(size=first.config.data_size)
    plan = FAST.with_(
        epochs=asked.epochs, batch_size=asked.batch_size, validate_every=asked.epochs,
        precision="fp32", compile=False, threads=asked.threads,
    )  # fmt: skip
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        for seed in range(asked.seeds):
            root = folder / f"data-{seed}"
            prepare(few(source, asked.images, seed), root, options, workers=1)
            data = open_prepared(root)
            for arm in asked.arms:
                for lr in asked.rates:
                    freeze = (asked.freeze,) if arm == "frozen" else ()
                    recipe = plan.with_(seed=seed, lr=lr, freeze=freeze)
                    name = f"{arm}-{lr:g}-{seed}"
                    row = {"arm": arm, "lr": lr, "seed": seed}
                    row |= trained(arm, first, data, recipe, folder / name)
                    rows.append(row)
                    print(json.dumps(row), flush=True)
    rates = {
        arm: max(asked.rates, key=lambda lr, arm=arm: mean(rows, arm, lr)) for arm in asked.arms
    }
    result = {
        "network": first.config.spec.name,
        "weights_sha256": first.origin.sha256,
        "images_a_class": asked.images,
        "classes": len(source.classes),
        "steps": asked.epochs * asked.images * len(source.classes) // asked.batch_size,
        "rates_chosen_on_val": rates,
        "better_than_scratch": {
            arm: compared(rows, rates, arm) for arm in asked.arms if arm != "scratch"
        },
        "all": rows,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    asked.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
