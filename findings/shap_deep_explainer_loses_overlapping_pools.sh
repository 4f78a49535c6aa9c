#!/usr/bin/env bash
# shap 0.51.0 (with torch 2.13.0, captum 0.9.0, numpy 2.4.6, Python 3.11): `DeepExplainer` of a
# PyTorch network is wrong where max pools overlap, as all three of AlexNet's do.
#
# It is DeepLIFT: what it gives to the pixels adds up to the difference between the outputs for the
# image and for the baseline. Max pools are among the layers that it has a rule for, so one would
# expect that of any max pool, as of Captum's DeepLIFT, whose rule is of the same form.
#
# Seen: the rule sends what a window is worth back by `max_unpool2d`, which writes where it should
# add: of two windows that share their largest pixel one is lost. In float64, two pools of 2/2 (or
# 3/3) add up to twelve digits; of 3/2, and of 3/1, the sums are off by as much as they are large.
# Captum's add up for all four. By default shap compares the sums with the outputs and raises an
# error, but by an absolute 0.01: a network with outputs of some thousandths, such as one that gives
# probabilities of many classes, passes with attributions that are as wrong.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.13.0 shap==0.51.0 captum==0.9.0
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PY'
import captum.attr
import shap
import torch
from torch import nn

draws = torch.Generator().manual_seed(0)
images = torch.randn(4, 3, 31, 31, generator=draws, dtype=torch.float64)
grey = torch.zeros_like(images)


def make(size, stride, scale=1.0):
    """Return a network of two convolutions and two max pools, and one output."""
    torch.manual_seed(0)
    pools = [nn.MaxPool2d(size, stride) for _ in range(2)]
    net = nn.Sequential(
        nn.Conv2d(3, 8, 5), nn.ReLU(), pools[0], nn.Conv2d(8, 8, 3), nn.ReLU(), pools[1],
        nn.Flatten(), nn.LazyLinear(1),
    ).double().eval()
    net(images)
    with torch.no_grad():
        net[-1].weight *= scale
    return net


def errors(net):
    """Return how far both are from adding up, over the mean difference to be explained."""
    with torch.no_grad():
        wanted = (net(images) - net(grey))[:, 0]
    theirs = shap.DeepExplainer(net, grey[:1]).shap_values(images, check_additivity=False)
    others = captum.attr.DeepLift(net).attribute(images, grey).detach()
    sums = [one.flatten(1).sum(1) for one in (torch.from_numpy(theirs), others)]
    return [float((one - wanted).abs().mean() / wanted.abs().mean()) for one in sums]


for size, stride in ((2, 2), (3, 3), (3, 2), (3, 1)):
    found, other = errors(make(size, stride))
    print(f"pools {size}/{stride}: shap {found:.0e}, Captum {other:.0e} of the difference missing")
    assert other < 1e-9
    assert found > 0.3 if stride < size else found < 1e-9

for scale, wanted in ((1.0, "an error"), (0.01, "attributions")):
    net = make(3, 2, scale)
    try:
        shap.DeepExplainer(net, grey[:1]).shap_values(images)
        found = "attributions"
    except AssertionError:
        found = "an error"
    print(f"3/2, outputs times {scale:g}, checked by shap: {found}, off by {errors(net)[0]:.0%}")
    assert found == wanted
PY
