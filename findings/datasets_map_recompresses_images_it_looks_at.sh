#!/usr/bin/env bash
# datasets 5.2.0 (with Pillow 13.0.0, pyarrow 26.0.1, Python 3.11): `Dataset.map` whose function only
# looks at a photograph replaces the stored JPEG by one of quality 75.
#
# A data set holds JPEG files as bytes, as every Parquet file of images does. `map` adds a column,
# the image's width, and returns nothing else. One would expect the image column to be carried
# over as it is, as it is when the function does not touch it: map's outputs are merged into the
# stored row.
#
# Seen: once the function has read `row["image"]`, the decoded image is encoded again, by Pillow's
# defaults, and the original bytes are gone: here a third of the size, and 6 levels of 255 away on
# the mean. No warning. Returning the row itself as it came (`lambda row: row`) keeps the bytes;
# building a new dict of it (`{**row}`) does not. `filter` keeps them, and so does a map over a
# column cast to `Image(decode=False)`. Images that the column knows by path keep their files.
#
# Output:
#   as it was stored              13,095 bytes
#   map that reads another column the same bytes
#   map that reads the width      4,585 bytes, mean difference 6.0
#   map that returns its row      the same bytes
#   map that returns {**row}      4,585 bytes, mean difference 6.0
#   filter that reads the width   the same bytes
#   map, Image(decode=False)      the same bytes
#   from a path, reads the width  the same bytes
#   warnings                      0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0 Pillow==13.0.0 numpy==2.4.6 pyarrow==26.0.1
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/cache" HF_DATASETS_DISABLE_PROGRESS_BARS=1 \
  "$folder/venv/bin/python" - <<'PY'
import io
import warnings
from pathlib import Path

import numpy as np
from datasets import Dataset, Features, Image, Value, disable_progress_bars
from PIL import Image as Pillow

disable_progress_bars()
row, column = np.mgrid[0:128, 0:160]
waves = 60 * np.sin(row / 7)[..., None] * [1, 0.5, 0.2]
waves = waves + 40 * np.cos(column / 11)[..., None] * [0.3, 1, 0.6]
grain = np.random.default_rng(0).normal(0, 12, (128, 160, 3))
pixels = np.clip(128 + waves + grain, 0, 255).astype(np.uint8)
file = io.BytesIO()
Pillow.fromarray(pixels).save(file, "JPEG", quality=95)
stored = file.getvalue()
Path("photograph.jpg").write_bytes(stored)


def make(bytes_: bytes | None, path: str | None) -> Dataset:
    kinds = Features({"image": Image(), "n": Value("int64")})
    return Dataset.from_dict({"image": [{"bytes": bytes_, "path": path}], "n": [0]}, features=kinds)


def read(data: Dataset) -> bytes:
    found = data.cast_column("image", Image(decode=False))[0]["image"]
    return found["bytes"] or Path(found["path"]).read_bytes()


def decode(data: bytes) -> np.ndarray:
    return np.asarray(Pillow.open(io.BytesIO(data)).convert("RGB")).astype(float)


def width(row: dict) -> dict:
    return {"width": row["image"].width}


data = make(stored, None)
assert read(data) == stored
print(f"{'as it was stored':29} {len(stored):,} bytes")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    cases = {
        "map that reads another column": data.map(lambda row: {"n": row["n"] + 1}),
        "map that reads the width": data.map(width),
        "map that returns its row": data.map(lambda row: row),
        "map that returns {**row}": data.map(lambda row: {**row, "n": 1}),
        "filter that reads the width": data.filter(lambda row: row["image"].width > 1),
        "map, Image(decode=False)": data.cast_column("image", Image(decode=False)).map(
            lambda row: {"size": len(row["image"]["bytes"])}
        ),
        "from a path, reads the width": make(None, "photograph.jpg").map(width),
    }
lost = []
for name, found in cases.items():
    now = read(found)
    if now == stored:
        print(f"{name:29} the same bytes")
        continue
    lost.append(name)
    away = np.abs(decode(now) - decode(stored)).mean()
    print(f"{name:29} {len(now):,} bytes, mean difference {away:.1f}")
    assert len(now) < len(stored) / 2
    assert away > 4
about = [str(w.message) for w in caught if "image" in str(w.message).lower()]
print(f"{'warnings':29} {len(about)}")
assert lost == ["map that reads the width", "map that returns {**row}"], lost
assert not about, about
PY
