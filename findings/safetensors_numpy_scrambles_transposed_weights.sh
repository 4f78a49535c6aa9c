#!/usr/bin/env bash
# safetensors 0.8.0 (with numpy 2.4.6, Python 3.11): `safetensors.numpy.save_file` writes a
# transposed array in the wrong order.
#
# Weights come from TensorFlow as (height, width, in, out) and are transposed for PyTorch to (out,
# in, height, width). NumPy's transpose is a view: only the strides change. One would expect
# `safetensors.numpy` to copy such an array into order, as `np.save` does and as version 0.7.0 did,
# or to refuse it, as `safetensors.torch` does for a tensor that is not contiguous.
#
# Seen: the transposed shape is written with the bytes in the order of memory, without an error or
# a warning. The file loads, has the right names, shapes and types, and even the right set of
# values: its mean, its spread and its histogram are right, each filter is wrong. Of a slice with a
# step, what lies between is written too, and so much the less of the slice. (Reported to its
# authors as a fault that is new in 0.8.0; 0.8.0 is the newest as of this writing.)
#
# Output:
#                                        0.7.0     0.8.0
#   HWIO transposed to OIHW              right     wrong
#   fully connected, transposed          right     wrong
#   every second filter                  right     wrong
#   transposed, np.ascontiguousarray     right     right
#   same values, sorted (HWIO to OIHW, 0.8.0): True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat > roundtrip.py <<'PY'
import json

import numpy as np
from safetensors.numpy import load_file, save_file

rng = np.random.default_rng(0)
conv1 = rng.normal(size=(11, 11, 3, 96)).astype(np.float32)  # as TensorFlow has it
fc8 = rng.normal(size=(64, 10)).astype(np.float32)
arrays = {
    "HWIO transposed to OIHW": conv1.transpose(3, 2, 0, 1),
    "fully connected, transposed": fc8.T,
    "every second filter": rng.normal(size=(96, 5)).astype(np.float32)[::2],
    "transposed, np.ascontiguousarray": np.ascontiguousarray(fc8.T),
}
results = {}
for name, array in arrays.items():
    save_file({"weight": array}, "weights.safetensors")
    loaded = load_file("weights.safetensors")["weight"]
    assert loaded.shape == array.shape and loaded.dtype == array.dtype
    results[name] = np.array_equal(loaded, array)
    if name.startswith("HWIO"):
        results["sorted"] = np.array_equal(np.sort(loaded, None), np.sort(array, None))
print(json.dumps(results))
PY
for version in 0.7.0 0.8.0; do
  python3 -m venv "venv-$version"
  "venv-$version/bin/pip" install --quiet numpy==2.4.6 "safetensors==$version"
  "venv-$version/bin/python" roundtrip.py > "$version.json"
done
"venv-0.8.0/bin/python" - <<'PY'
import json

old, new = (json.load(open(f"{version}.json")) for version in ("0.7.0", "0.8.0"))
print(f"{'':<36} 0.7.0     0.8.0")
for name in (names := [name for name in new if name != "sorted"]):
    print(f"{name:<36} {'right' if old[name] else 'wrong':<9} {'right' if new[name] else 'wrong'}")
print("same values, sorted (HWIO to OIHW, 0.8.0):", new["sorted"])
assert all(old.values())
assert [new[name] for name in names] == [False, False, False, True] and new["sorted"]
PY
