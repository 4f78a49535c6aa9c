#!/usr/bin/env bash
# torch 2.13.0 with onnxscript 0.7.2 and onnx 1.23.2 (Python 3.11): an exported ONNX file holds the
# stack traces of its making.
#
# One network with the same weights is exported from two folders by `torch.onnx.export(dynamo=True,
# verbose=False)`. One would expect an ONNX file to hold the graph and the weights, and the two
# files to be the same byte for byte.
#
# Seen: the metadata of each node has the Python stack that led to it, with the absolute paths of
# the network's source and of the installed PyTorch, the lines of source, the graph's node as text
# and the modules' names. The two files differ, and so does a hash of them; `export` has no
# argument to leave this out. Of a small network most of the file is such text; a local response
# normalisation, nine nodes, has the trace nine times. With the nodes' metadata cleared both are
# the same, half the size or less, and still valid. `torch.export.save` keeps the same traces in
# its .pt2.
#
# Output (the share varies a little with the length of the paths):
#   same bytes from two folders: False
#   nodes: 14, of which hold the absolute path of the source: 14
#   share of the file that is nodes' metadata: 58%
#   same bytes without nodes' metadata: True
#   .pt2 holds the absolute path of the source: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 onnx==1.23.2 onnxscript==0.7.2
cd "$folder"
mkdir one another
cat > one/export.py <<'PY'
import zipfile
from pathlib import Path

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 5, 2)
        self.norm1 = nn.LocalResponseNorm(5)
        self.pool1 = nn.MaxPool2d(3, 2)
        self.fc8 = nn.Linear(8 * 4 * 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc8(self.pool1(self.norm1(torch.relu(self.conv1(x)))).flatten(1))


torch.manual_seed(0)
net, pixels = Net().eval(), (torch.zeros(1, 3, 21, 21),)
torch.onnx.export(net, pixels, "net.onnx", dynamo=True, external_data=False, verbose=False)
torch.export.save(torch.export.export(net, pixels), "net.pt2")
source = str(Path(__file__).resolve()).encode()
archive = zipfile.ZipFile("net.pt2")
assert any(source in archive.read(name) for name in archive.namelist())
PY
cp one/export.py another/export.py
for place in one another; do
  (cd "$place" && "$folder/venv/bin/python" -W ignore export.py 2> log || { cat log >&2; exit 1; })
done
"$folder/venv/bin/python" - <<'PY'
from pathlib import Path

import onnx

places = [Path("one").resolve(), Path("another").resolve()]
written = [(place / "net.onnx").read_bytes() for place in places]
print("same bytes from two folders:", same := written[0] == written[1])
model = onnx.load_from_string(written[0])
traced = sum(
    str(places[0] / "export.py").encode() in node.SerializeToString() for node in model.graph.node
)
print(f"nodes: {len(model.graph.node)}, of which hold the absolute path of the source: {traced}")
bare = []
for data in written:
    stripped = onnx.load_from_string(data)
    for node in stripped.graph.node:
        node.ClearField("metadata_props")
    onnx.checker.check_model(stripped, full_check=True)
    bare.append(stripped.SerializeToString(deterministic=True))
share = 1 - len(bare[0]) / len(written[0])
print(f"share of the file that is nodes' metadata: {share:.0%}")
print("same bytes without nodes' metadata:", clean := bare[0] == bare[1])
print(".pt2 holds the absolute path of the source: True")  # export.py asserts it
assert not same and clean and traced == len(model.graph.node) and share > 0.5
PY
