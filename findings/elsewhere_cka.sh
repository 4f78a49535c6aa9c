#!/usr/bin/env bash
# The table "Likeness of layers" of docs/elsewhere.md: what linear CKA is in each library. Python
# 3.11, x86-64; versions below.
#
# Expected: the value of Kornblith and others (2019), or the unbiased one of Song and others (2012)
# that Nguyen and others (2021) add up over batches; whatever the layers' scale, whatever all images
# have in common, whatever the order of the images; and 1 of a network with itself.
#
# Asked for, of 256 images in four batches of 64, activations of 400 and 300 units after a ReLU:
#   itself     a layer with itself
#   related    two layers that share 40 directions: 0.723, unbiased 0.564
#   small      the same two with all activations a thousandth of theirs
#   shared     the same two with one vector added to all images that has 98.8 % of the squares, as
#              in relu7 of an untrained AlexNet, and with one that has 99.9 %
#   unrelated  two layers of 4,096 units that have nothing in common: 0.941, unbiased 0
#   mixed      a layer with itself, but for the last 64 images, which have nothing in common
#   dead       a layer with one whose units are all 0
#   shuffled   a network with itself, from a loader with shuffle=True
#
# Seen, by library: EXPECTED below. What was not expected:
#   simtorch     divides the sum over batches by the number of layers: 4 batches, 1 layer, 4.000
#   torch_cka    given one loader opens it twice: shuffled, the networks see other images, and a
#                network is 0.00 like itself; float32 without centring loses what images share
#   cka_pytorch  adds 1e-4 to the product of the norms: small activations are 0.000 like anything
#   ckatorch     of all batches the last one counts
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.13.0 torchmetrics==1.9.0 \
    matplotlib==3.11.2 seaborn==0.13.2 tqdm==4.70.1 pyyaml==6.0.3 safetensors==0.8.0 \
    rsatoolbox==0.3.2 repsim==0.1.5
# Some ask for torchvision, which nothing here uses.
"$folder/venv/bin/pip" install --quiet --no-deps torch-cka==0.21 ckatorch==1.0.3 \
    cka-pytorch==1.1.3 simtorch==0.2.1 lightning==2.6.6 pytorch-lightning==2.6.6 \
    lightning-utilities==0.15.3
cd "$folder"
export PYTHONWARNINGS=ignore TQDM_DISABLE=1 MPLBACKEND=agg
cat > cka.py <<'PY'
import sys

import numpy as np

IMAGES, BATCH = 256, 64


def activations(shared=0, unrelated=False, units=(400, 300)):
    draws = np.random.default_rng(0)
    known = draws.normal(size=(IMAGES, 40))
    both = []
    for width in units:
        own = draws.normal(size=(IMAGES, width))
        common = 0 if unrelated else known @ draws.normal(size=(40, width)) / 6
        vector = shared * np.abs(draws.normal(size=width))
        both.append((np.maximum(common + own, 0) + vector).astype(np.float32))
    return both


def networks(x, y, shuffle):
    """Return two networks whose layer `out` gives the rows of x and of y, and a loader."""
    import torch
    from torch.utils.data import DataLoader

    class Table(torch.nn.Module):
        def __init__(self, rows):
            super().__init__()
            self.rows = torch.nn.Parameter(torch.from_numpy(rows), requires_grad=False)
            self.out = torch.nn.Identity()

        def forward(self, image):
            return self.out(self.rows[image.long()])

    class Labelled(torch.utils.data.Dataset):
        def __len__(self):
            return IMAGES

        def __getitem__(self, image):
            return torch.tensor(float(image)), 0

    order = torch.Generator().manual_seed(0)
    loader = DataLoader(Labelled(), BATCH, shuffle=shuffle, generator=order)
    return Table(x), Table(y), loader


def definition(x, y, shuffle):
    x, y = (rows - rows.mean(0) for rows in (x.astype(float), y.astype(float)))
    one, other = x @ x.T, y @ y.T
    with np.errstate(invalid="ignore"):
        return (one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum())


def unbiased(x, y, shuffle):
    def hsic(one, other):
        one, other = (kernel - np.diag(kernel.diagonal()) for kernel in (one, other))
        n, both = len(one), one @ other
        middle = one.sum() * other.sum() / (n - 1) / (n - 2)
        return both.trace() + middle - 2 * both.sum() / (n - 2)

    one, other = (rows @ rows.T for rows in (x.astype(float), y.astype(float)))
    with np.errstate(invalid="ignore"):
        return hsic(one, other) / np.sqrt(hsic(one, one) * hsic(other, other))


def rsatoolbox(x, y, shuffle):
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm, compare

    one, other = (calc_rdm(Dataset(rows), method="euclidean") for rows in (x, y))
    return compare(one, other, method="cosine_cov")[0, 0]


def repsim(x, y, shuffle):
    import repsim

    return repsim.cka([x, y], kernel_type="linear")[0, 1]


def ckatorch_base(x, y, shuffle):
    import torch
    from ckatorch.core import cka_base

    return cka_base(torch.from_numpy(x), torch.from_numpy(y))


def ckatorch(x, y, shuffle):
    """Its networks' layers are (batch, images, units), and its batches name their arguments."""
    import torch
    from ckatorch import CKA

    one, two, loader = networks(x, y, shuffle)
    for network in (one, two):
        network.out = torch.nn.Unflatten(0, (1, BATCH))
    found = CKA(one, two, layers=["out"], first_name="one", second_name="two")

    class Named(torch.utils.data.Dataset):
        def __len__(self):
            return IMAGES

        def __getitem__(self, image):
            return {"image": torch.tensor(float(image))}

    loader = torch.utils.data.DataLoader(Named(), BATCH, shuffle=shuffle)
    return found(loader, epochs=1)[0, 0]


def torch_cka(x, y, shuffle):
    from torch_cka import CKA

    one, two, loader = networks(x, y, shuffle)
    found = CKA(one, two, model1_layers=["out"], model2_layers=["out"])
    found.compare(loader)
    return found.export()["CKA"][0, 0]


def cka_pytorch(x, y, shuffle):
    from cka_pytorch import CKACalculator

    one, two, loader = networks(x, y, shuffle)
    found = CKACalculator(one, two, model1_layers=["out"], model2_layers=["out"], verbose=False)
    return found.calculate_cka_matrix(loader, num_epochs=1)[0, 0]


def simtorch(x, y, shuffle):
    from simtorch.model import SimilarityModel
    from simtorch.similarity import CKA

    one, two, loader = networks(x, y, shuffle)
    models = [SimilarityModel(network, layers_to_include=["out"]) for network in (one, two)]
    return CKA(*models).compute(loader)[0, 0]


def ask(cka):
    def value(x, y, shuffle=False):
        try:
            return float(cka(x, y, shuffle))
        except (AssertionError, ValueError) as error:
            assert "NANs" in str(error), error
            return None

    def write(found):
        return "refused" if found is None else f"{abs(found):.3f}" if found == found else "NaN"

    x, y = activations()
    related = value(x, y)
    mixed = x.copy()
    mixed[-BATCH:] = activations(unrelated=True)[0][::-1][:BATCH]
    shared = [value(*activations(shared)) for shared in (7, 30)]
    numbers = (
        value(x, x), related, value(1e-3 * x, 1e-3 * y), *shared,
        value(*activations(unrelated=True, units=(4096, 4096))), value(x, mixed),
        value(x, np.zeros_like(x)), value(x, x, shuffle=True),
    )  # fmt: skip
    # Of float32 without centring only that it is off is kept: by how much, the processor decides.
    off = [one is None or abs(one - related) > 0.01 for one in shared]
    return [*map(write, numbers)], off


# itself, related, small, unrelated, mixed, dead, shuffled; whether what is shared changes the value
EXPECTED = {
    "definition": (1.0, 0.723, 0.723, 0.941, 0.806, "NaN", 1.0, "no, no"),
    "unbiased": (1.0, 0.564, 0.564, 0.0, 0.690, "NaN", 1.0, "no, no"),
    "rsatoolbox": (1.0, 0.723, 0.723, 0.941, 0.806, 0.0, 1.0, "no, no"),
    "repsim": (1.0, 0.723, 0.723, 0.941, 0.806, 0.0, 1.0, "no, no"),
    "ckatorch_base": (1.0, 0.723, 0.723, 0.941, 0.806, "NaN", 1.0, "no, no"),
    "ckatorch": (1.0, 0.565, 0.565, 0.0, 0.024, "refused", 1.0, "no, no"),
    "torch_cka": (1.0, 0.564, 0.564, 0.0, 0.862, "refused", 0.0, "yes, yes"),
    "cka_pytorch": (1.0, 0.564, 0.0, 0.0, 0.862, 0.0, 1.0, "yes, yes"),
    "simtorch": (4.0, 3.457, 3.457, 3.935, 3.791, "NaN", 4.0, "no, no"),
}


def agrees(found, expected):
    if isinstance(expected, str) or found in ("NaN", "refused"):
        return found == expected
    return abs(float(found) - expected) < 0.03


name = sys.argv[1]
found, off = ask(globals()[name])
print(f"{name:14}", *(f"{cell:8}" for cell in found), flush=True)
told = [*found[:3], *found[5:], ", ".join("yes" if one else "no" for one in off)]
assert all(map(agrees, told, EXPECTED[name])), f"{told}, expected {EXPECTED[name]}"
PY
echo "library        itself   related  small    shared   shared   unrelated mixed   dead     shuffled"
failed=0
for library in definition unbiased rsatoolbox repsim ckatorch_base ckatorch torch_cka cka_pytorch \
    simtorch; do
    "$folder/venv/bin/python" cka.py "$library" 2>"$library.log" || { tail -n 1 "$library.log"; failed=1; }
done
exit $failed
