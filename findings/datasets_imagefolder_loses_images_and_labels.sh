#!/usr/bin/env bash
# datasets 5.2.0 (with Pillow 13.0.0, Python 3.11): `load_dataset("imagefolder")` of class folders
# loses all other images when a single one is called like a split, and all labels when a single one
# lies a folder deeper.
#
# Four images in cat/ and dog/ make one split of four, labelled by their folder. One would expect a
# photograph more to be a photograph more: one called dog/my-test.png to be a dog, and one in
# cat/kittens/ to be a cat, as torchvision's ImageFolder has it, or a kitten.
#
# Seen: words for splits (train, test, valid, dev, eval ... between separators) are looked for in
# every file's name and every folder's; once any is found, only files that have one are loaded. So the
# one called my-test is all of the data set, as a split `test`, without labels, and a class folder
# `pest_test` hides every other class. With an image a folder deeper the column `label` is gone,
# since labels are made where all images are as deep as each other and there are two or more folders;
# where all are two folders deep the inner one is the label. Of none of it there is a warning.
# `drop_labels=False` brings labels back, by the innermost folder; `data_files` brings images back.
#
# Output:
#   cat/1 cat/2 dog/1 dog/2            train: 4, labels cat dog
#   ... and dog/my-test                test: 1, no labels
#   ... and pest_test/1                test: 1, no labels
#   ... and dog/mytest                 train: 5, labels cat dog
#   ... and cat/kittens/1              train: 5, no labels
#   the same with drop_labels=False    train: 5, labels cat dog kittens
#   cat/a/1 cat/b/1 dog/c/1            train: 3, labels a b c
#   warnings                           0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0 Pillow==13.0.0 numpy==2.4.6 pyarrow==26.0.1
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/cache" "$folder/venv/bin/python" - <<'PY'
import logging
import tempfile
import warnings
from pathlib import Path

import numpy as np
from datasets import disable_progress_bars, load_dataset
from PIL import Image

disable_progress_bars()
told: list[str] = []


class Collector(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        told.append(record.getMessage())


collector = Collector(level=logging.WARNING)
for name in (None, "datasets"):
    logging.getLogger(name).addHandler(collector)


def load(names: list[str], **options: bool) -> str:
    root = Path(tempfile.mkdtemp(dir="."))
    for number, name in enumerate(names):
        path = root / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 10 * number, np.uint8)).save(path)
    found = []
    for split, data in load_dataset("imagefolder", data_dir=str(root), **options).items():
        label = data.features.get("label")
        labels = f"labels {' '.join(label.names)}" if label else "no labels"
        found.append(f"{split}: {data.num_rows}, {labels}")
    return "; ".join(found)


four = ["cat/1", "cat/2", "dog/1", "dog/2"]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    seen = {
        "cat/1 cat/2 dog/1 dog/2": load(four),
        "... and dog/my-test": load([*four, "dog/my-test"]),
        "... and pest_test/1": load([*four, "pest_test/1"]),
        "... and dog/mytest": load([*four, "dog/mytest"]),
        "... and cat/kittens/1": load([*four, "cat/kittens/1"]),
        "the same with drop_labels=False": load([*four, "cat/kittens/1"], drop_labels=False),
        "cat/a/1 cat/b/1 dog/c/1": load(["cat/a/1", "cat/b/1", "dog/c/1"]),
    }
for name, result in seen.items():
    print(f"{name:34} {result}")
about = [
    text
    for text in (*told, *(str(w.message) for w in caught))
    if any(word in text.lower() for word in ("label", "image", "file", "split"))
]
print(f"{'warnings':34} {len(about)}")
assert not about, about
assert list(seen.values()) == [
    "train: 4, labels cat dog",
    "test: 1, no labels",
    "test: 1, no labels",
    "train: 5, labels cat dog",
    "train: 5, no labels",
    "train: 5, labels cat dog kittens",
    "train: 3, labels a b c",
]
PY
