#!/usr/bin/env bash
# datasets 5.2.0 (with Pillow 13.0.0, Python 3.11): `Dataset.map` stores an image that was changed in
# place as the file it was opened from, without the change.
#
# A column knows its photograph by path. A function makes it smaller by `thumbnail`, or paints over a
# part of it by `paste`, and returns it. One would expect what is returned to be what is stored, as it
# is with `resize` and `crop`, which make a new image.
#
# Seen: an image that Pillow opened from a path still says so after it was changed, and of such an
# image the path alone is kept. The next reader opens the original: in full size, with what was
# painted over. No warning; within the function everything looks right. An image whose file came as
# bytes does keep the change (as JPEG of quality 75), so the same function behaves in both ways.
# `image.copy()` before the change is enough.
#
# Output:
#                     returned, stored
#   resize            100 x 66, 100 x 66
#   crop              50 x 50, 50 x 50
#   thumbnail         100 x 67, 600 x 400
#   thumbnail, copied 100 x 67, 100 x 67
#   thumbnail, bytes  100 x 67, 100 x 67
#   paste             red, not red
#   paste, copied     red, red
#   warnings          0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0 Pillow==13.0.0 numpy==2.4.6 pyarrow==26.0.1
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/cache" "$folder/venv/bin/python" - <<'PY'
import warnings
from pathlib import Path

import numpy as np
from datasets import Dataset, Features, Image, disable_progress_bars
from PIL import Image as Pillow

disable_progress_bars()
noise = np.random.default_rng(0).integers(0, 255, (400, 600, 3), dtype=np.uint8)
Pillow.fromarray(noise).save("photograph.jpg")
RED = (255, 0, 0)


def thumbnail(image):
    image.thumbnail((100, 100))
    return image


def paste(image):
    image.paste(RED, (0, 0, 300, 400))
    return image


def make(given):
    return Dataset.from_dict({"image": [given]}, features=Features({"image": Image()}))


def size(image):
    return f"{image.width} x {image.height}"


def colour(image):
    red = np.abs(np.subtract(image.convert("RGB").getpixel((50, 50)), RED)).max() < 8
    return "red" if red else "not red"


by_path = make("photograph.jpg")
by_bytes = make({"bytes": Path("photograph.jpg").read_bytes(), "path": None})
cases = {
    "resize": (by_path, lambda image: image.resize((100, 66)), size),
    "crop": (by_path, lambda image: image.crop((0, 0, 50, 50)), size),
    "thumbnail": (by_path, thumbnail, size),
    "thumbnail, copied": (by_path, lambda image: thumbnail(image.copy()), size),
    "thumbnail, bytes": (by_bytes, thumbnail, size),
    "paste": (by_path, paste, colour),
    "paste, copied": (by_path, lambda image: paste(image.copy()), colour),
}
seen = []
print(f"{'':17} returned, stored")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for name, (data, change, measure) in cases.items():
        returned = []

        def step(row, change=change, measure=measure, returned=returned):
            image = change(row["image"])
            returned.append(measure(image))
            return {"image": image}

        stored = measure(data.map(step, load_from_cache_file=False)[0]["image"])
        seen.append(f"{returned[-1]}, {stored}")
        print(f"{name:17} {seen[-1]}")
about = [str(w.message) for w in caught if "image" in str(w.message).lower()]
print(f"{'warnings':17} {len(about)}")
assert not about, about
assert seen == [
    "100 x 66, 100 x 66",
    "50 x 50, 50 x 50",
    "100 x 67, 600 x 400",
    "100 x 67, 100 x 67",
    "100 x 67, 100 x 67",
    "red, not red",
    "red, red",
]
PY
