"""Scenario 28 at full size: every network as ONNX, on ONNX Runtime, against itself.

``PYTHONPATH=src:. python benchmarks/export_parity.py PHOTOGRAPHS OUT.json``, PHOTOGRAPHS being
any source that ``alexnet prepare`` takes, with 500 images in one of its splits. Weights are drawn
so that logits spread as a trained network's do (`tests.interop.conftest.lively_weights`).
"""

import json
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.data.loader import evaluation_batches
from alexnet.data.prepare import Options, open_or_prepare
from alexnet.data.statistics import Statistics
from alexnet.interop.export import build_onnx, measure_parity, run_onnx
from alexnet.network import build
from alexnet.predictor import Predictor
from alexnet.spec import Spec
from alexnet.training.checkpoint import Checkpoint
from alexnet.variants import NETWORKS
from tests.interop.conftest import CPU, config_of, lively_weights

IMAGES, PREPARED, MARGIN = 500, 256, 8


def main(where: str, out: Path) -> None:
    """Measure every network and both kinds of input; write what was found after each."""
    data = open_or_prepare(where, Options(size=PREPARED), say=print)
    split = max(data.splits.values(), key=len)
    photographs = next(evaluation_batches(split, IMAGES)).images
    found = []
    for name, spec in NETWORKS.items():
        images, statistics = resized(spec, photographs, data.statistics)
        model = lively(spec, images, statistics)
        for kind in ("pixels", "images"):
            with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
                start = time.perf_counter()
                proto = build_onnx(model, kind)
                Path(file.name).write_bytes(proto.SerializeToString())
                seconds = time.perf_counter() - start
                parity = measure_parity(model, run_onnx(Path(file.name), kind), kind, images, where)
                size = Path(file.name).stat().st_size
            row = {"network": name, "input": kind, **asdict(parity), "source": split.name}
            row |= {"holds": parity.holds, "nodes": len(proto.graph.node), "bytes": size}
            found.append({**row, "export_seconds": round(seconds, 1)})
            print(json.dumps(found[-1]), flush=True)
            out.write_text(json.dumps(found, indent=1) + "\n")


def resized(spec: Spec, photographs: Tensor, measured: Statistics) -> tuple[Tensor, Statistics]:
    """Return the photographs at the size that a network is prepared for."""
    if spec.image_size > 100:
        return photographs, measured
    side = (spec.image_size + MARGIN, spec.image_size + MARGIN)
    small = F.interpolate(photographs.permute(0, 3, 1, 2).float(), side, mode="area")
    mean = F.interpolate(torch.from_numpy(measured.mean_image)[None], side, mode="area")[0]
    images = small.round().permute(0, 2, 3, 1).to(torch.uint8).contiguous()
    return images, replace(measured, mean_image=mean.numpy())


def lively(spec: Spec, images: Tensor, statistics: Statistics) -> Predictor:
    """Return the full-size network with weights that carry the signal to the end."""
    config = config_of(spec, images.shape[1])
    blank = Checkpoint(0, build(spec, seed=None).state_dict(), {})
    first = config.predictor(blank, statistics, device=CPU)
    at = (images.shape[1] - spec.image_size) // 2
    crops = (
        images[:32, at : at + spec.image_size, at : at + spec.image_size]
        .permute(0, 3, 1, 2)
        .float()
    )
    weights = lively_weights(spec, first.normalise(crops))
    return config.predictor(Checkpoint(1, weights, {}), statistics, device=CPU)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
