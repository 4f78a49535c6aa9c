"""What int8 costs in accuracy: ``python benchmarks/int8_accuracy.py RUN DATA``, DATA prepared."""

import json
import sys
from itertools import product

import torch

from alexnet.api import load
from alexnet.data.loader import evaluation_batches, sample_evenly
from alexnet.data.shards import open_prepared
from alexnet.device import describe_processor
from alexnet.predictor import quantize


def main() -> None:
    run, data = sys.argv[1], open_prepared(sys.argv[2])
    cpu = torch.device("cpu")
    train = data.splits["train"]
    float32 = load(run, device=cpu, precision="fp32")
    models = {
        "float32": float32,
        "bfloat16": load(run, device=cpu, precision="bf16"),
        **{
            f"int8, {count} images": quantize(float32, sample_evenly(train, count))
            for count in (32, 256)
        },
        "int8, 256 other images": quantize(float32, sample_evenly(train, 512)[1::2]),
    }
    for views, (split, images) in product((1, 10), data.splits.items()):
        if split == "train":
            continue
        batches = list(evaluation_batches(images, batch_size=64))
        labels = torch.cat([batch.labels for batch in batches])
        chances = {
            name: torch.cat([model.probabilities(batch.images, views) for batch in batches])
            for name, model in models.items()
        }
        first = {name: table.argmax(1) for name, table in chances.items()}
        for name, ranked in first.items():
            difference = (chances[name] - chances["float32"]).abs()
            row = {
                "split": split,
                "images": len(labels),
                "views": views,
                "type": name,
                "right": int((ranked == labels).sum()),
                "top1": round((ranked == labels).double().mean().item(), 4),
                "changed": int((ranked != first["float32"]).sum()),
                "largest_difference": round(difference.max().item(), 4),
                "mean_difference": round(difference.mean().item(), 5),
            }
            print(json.dumps(row), flush=True)
    print(json.dumps({"machine": describe_processor(), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
