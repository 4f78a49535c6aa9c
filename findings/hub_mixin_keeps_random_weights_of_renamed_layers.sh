#!/usr/bin/env bash
# huggingface_hub 2.4.0 (with torch 2.13.0, safetensors 0.8.0, Python 3.11):
# `PyTorchModelHubMixin.from_pretrained` loads what it finds and says nothing of the rest.
#
# A class is saved with `save_pretrained`; a later version of it has another name for its last
# layer. One would expect `from_pretrained` to do as `load_state_dict` does, and raise for the
# missing and the unexpected names, or at least to name them in a warning, as transformers does.
#
# Seen: no error, no warning, nothing of it in the log. The layers with a known name are loaded; the
# renamed layer keeps its random initial weights, which are others at each load. `strict=False` is
# the default of the protected `_from_pretrained`; `from_pretrained` has no such argument in its
# signature, yet `strict=True` may be given to it, and then it raises. A layer of another shape
# raises in either case.
#
# Output:
#   conv1 is the saved one: True
#   last layer is the saved one: False
#   last layer is the same in two loads: False
#   warnings and log lines about names: 0
#   `strict` in the signature: False
#   with strict=True: RuntimeError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 safetensors==0.8.0 \
  huggingface_hub==2.4.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import inspect
import logging
import warnings

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import nn

lines: list[str] = []


class Collector(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        lines.append(record.getMessage())


for name in (None, "huggingface_hub"):
    logging.getLogger(name).addHandler(Collector())
    logging.getLogger(name).setLevel(logging.DEBUG)


class Saved(nn.Module, PyTorchModelHubMixin):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 11, 4)
        self.fc8 = nn.Linear(8, classes)


class Renamed(nn.Module, PyTorchModelHubMixin):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 11, 4)
        self.classifier = nn.Linear(8, classes)


saved = Saved(classes=10)
saved.save_pretrained("model")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    first, second = (Renamed.from_pretrained("model") for _ in range(2))
told = [
    text
    for text in (*lines, *(str(w.message) for w in caught))
    if "fc8" in text or "classifier" in text
]
kept = torch.equal(first.conv1.weight, saved.conv1.weight)
found = torch.equal(first.classifier.weight, saved.fc8.weight)
repeated = torch.equal(first.classifier.weight, second.classifier.weight)
shown = "strict" in inspect.signature(Renamed.from_pretrained).parameters
try:
    Renamed.from_pretrained("model", strict=True)
    strict = "no error"
except RuntimeError:
    strict = "RuntimeError"
print("conv1 is the saved one:", kept)
print("last layer is the saved one:", found)
print("last layer is the same in two loads:", repeated)
print("warnings and log lines about names:", len(told))
print("`strict` in the signature:", shown)
print("with strict=True:", strict)
assert (kept, found, repeated, len(told), shown, strict) == (
    True,
    False,
    False,
    0,
    False,
    "RuntimeError",
)
PY
