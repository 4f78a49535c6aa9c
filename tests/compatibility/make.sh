#!/usr/bin/env bash
# Make in a new folder what a user of this version has on disk. Run it from a clean checkout:
#
#     bash tests/compatibility/make.sh tests/compatibility/YYYY-MM-DD
#
# settings.txt is written by hand: every name that --set takes, with a value. The work is done in
# /tmp/alexnet-old, so that no path in what is kept says where it was made.
set -euo pipefail

out=$(realpath -m "$1")
here=/tmp/alexnet-old
settings=$(realpath "${2:-$out/settings.txt}")
export PYTHONPATH="$PWD/src" OMP_NUM_THREADS=1 ALEXNET_CACHE=/tmp/alexnet-old/cache
python=${PYTHON:-python3}
alexnet() { "$python" -m alexnet "$@"; }
rm -rf $here
mkdir -p $here "$out"
cd $here
cp "$settings" settings.txt

"$python" - <<'PYTHON'
"""Photographs: two shades of a class's colour and noise; one in grey, one broken."""

from pathlib import Path

import numpy as np
from PIL import Image

random = np.random.default_rng(2012)
for label, name in enumerate(("blue", "green", "red")):
    for split, count in {"train": 8, "val": 2, "test": 4}.items():
        folder = Path("photographs", split, name)
        folder.mkdir(parents=True)
        for number in range(count):
            shade = np.linspace(*random.uniform(60, 200, 2), 26)[None, :, None] * np.ones((20, 1, 3))
            shade[..., 2 - label] += 50
            pixels = np.clip(shade + random.integers(0, 9, (20, 26, 1)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
Image.open("photographs/train/red/0.png").convert("L").save("photographs/train/red/0.png")
Path("photographs/train/blue/9.png").write_bytes(b"no image")
PYTHON

# 1. A prepared data set of JPEGs; one of raw pixels; and that one killed after two of three shards.
alexnet prepare photographs data --size 32
alexnet prepare photographs raw --size 16 --raw
"$python" - <<'PYTHON'
import os

from alexnet.data.options import Options
from alexnet.data.prepare import prepare
from alexnet.data.sources import open_source

made = []


def killed(progress):
    made.append(progress)
    if len(made) == 2:
        os._exit(0)


prepare(open_source("photographs"), "half", Options(size=16, raw=True), workers=1, report=killed)
PYTHON

# 2. A finished run; one that was stopped every few steps, and how it ends undisturbed; one in which
# every setting has a value of its own. The weights are so large that the losses differ from step to
# step by far more than machines do.
network=(--network cifar_quick --set network.image=24)
for layer in conv1:4:0.01 conv2:4:0.1 conv3:4:0.1; do
    IFS=: read -r name maps std <<< $layer
    network+=(--set network.$name.maps=$maps --set network.$name.std=$std)
done
network+=(--set network.fc64.units=8 --set network.fc64.std=0.2 --set network.output_std=0.2)
machine=(--batch-size 8 --no-compile --precision fp32 --threads 1 --set log_every=1)
alexnet train data --recipe cifar "${network[@]}" "${machine[@]}" --lr 0.0005 --epochs 4 \
    --out run
plan=(--recipe paper "${network[@]}" "${machine[@]}" --lr 0.0005 --epochs 6
    --set network.dropout.rate=0.5 --set validate_every=0.5 --set patience=2 --out)
alexnet train data "${plan[@]}" whole
until [ -e stopped/checkpoints/step-00000009 ]; do
    status=0
    alexnet train data "${plan[@]}" stopped --max-time 0.001s || status=$?
    [ $status = 75 ]
done
mapfile -t changes < <(sed 's/^/--set=/' settings.txt)
alexnet train data --network as_run --recipe as_run "${changes[@]}" --out named

# 3. A fine-tuned run, stopped after its checkpoint of step 4, and how it ends after 8 steps.
tune=(--from run --recipe fast "${machine[@]}" --lr 0.0005 --freeze conv1,conv2 --epochs 4 --out)
alexnet train data "${tune[@]}" tuned --max-steps 4
alexnet train data "${tune[@]}" tuned-whole --max-steps 8

# 4. Results of claims, of every kind of network that they have.
claims=(lrn overlap pca depth init)
alexnet claims "${claims[@]}" --data data --seeds 1 --workers 1 --out claims

# 5. Exports; torchvision's form is left out, as it is for the full-size network alone: 230 MB.
mkdir exports
alexnet export run exports/run.safetensors --to safetensors
alexnet export named exports/named.safetensors --to safetensors
alexnet export run exports/run.onnx --to onnx
alexnet export run exports/folder --to huggingface

# 6. Features.
alexnet features run data --layers conv3,relu64 --out arrays --threads 1
alexnet features run data --layers fc64 --pool mean --form parquet --split all --out parquet

"$python" - <<'PYTHON'
"""What comes out now, for what reads these files later."""

import json
import subprocess
import sys
from pathlib import Path


def told(*arguments):
    command = [sys.executable, "-m", "alexnet", *arguments, "--json"]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def lines(run):
    found = [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in found]


photographs = [f"photographs/test/{name}/0.png" for name in ("blue", "green", "red")]
expected = {
    "metrics": {run: lines(run) for run in ("run", "whole", "named", "tuned-whole")},
    "evaluate": {run: told("evaluate", run, "data") for run in ("run", "named", "whole")},
    "predict": {run: told("predict", run, *photographs) for run in ("run", "named", "tuned")},
    "nearest": {
        "arrays": told("features", "nearest", "run", "arrays", *photographs, "--layer", "relu64"),
        "parquet": told("features", "nearest", "run", "parquet", *photographs),
    },
}
Path("expected.json").write_text(json.dumps(expected, indent=1) + "\n")
PYTHON

# Left out: what names the machine, what nothing reads, and older checkpoints. PyTorch's exporter
# writes into every ONNX node which lines of which files it came from.
"$python" - <<'PYTHON'
import onnx

model = onnx.load("exports/run.onnx")
for part in (*model.graph.node, *model.graph.value_info, model.graph):
    del part.metadata_props[:]
onnx.save(model, "exports/run.onnx")
PYTHON
rm -rf whole tuned-whole cache claims/runs claims/report.* */.lock */events.out.tfevents.*
for run in run stopped named tuned; do
    latest=$(readlink $run/checkpoints/latest)
    find $run/checkpoints -name 'step-*' ! -name "$latest" -prune -exec rm -r {} +
    find $run/checkpoints -xtype l -delete
done
cp -r . "$out"
