"""Whether an exported network is the network: both run on the same images, side by side."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.data.augment import iter_crops
from alexnet.data.loader import evaluation_batches
from alexnet.data.shards import open_prepared
from alexnet.errors import AlexNetError, DataError
from alexnet.interop.deployment import IMAGES, InputKind
from alexnet.predictor import Predictor

BATCHES = (1, 2, 7, 64)

# Two programs add the same float32 terms in another order. A sum of n = 9216 terms, fc6's, is off
# by about sqrt(n) * 2**-24 = 6e-6 of its size; eight layers of that stay below the limits. A wrong
# constant, crop or order of channels does not: the tests plant each.
LOGITS_WITHIN = 1e-4  # of the image's largest logit
PROBABILITIES_WITHIN = 1e-5
TIE = 1e-5  # of the largest logit: classes nearer than this may change places

Runner = Callable[[Tensor], tuple[Tensor, Tensor]]  # a batch to logits and probabilities


@dataclass(frozen=True, slots=True)
class Parity:
    """How far an exported network is from its original."""

    images: int
    source: str  # of the images
    batches: tuple[int, ...]  # sizes they were given in
    logits: float  # largest difference, as a share of the image's largest logit
    probabilities: float  # largest difference
    top5: int  # images with the same five first classes in the same order, ties aside

    @property
    def holds(self) -> bool:
        """Whether the two are the same network, within what float32 allows."""
        return (
            self.logits <= LOGITS_WITHIN
            and self.probabilities <= PROBABILITIES_WITHIN
            and self.top5 == self.images
        )


def check_images(model: Predictor, data: str, count: int) -> tuple[Tensor, str]:
    """Return ``(N, prepared, prepared, 3)`` uint8 images to compare on, and where they are from.

    The run's held-out photographs where its prepared data is still there; else soft coloured
    shapes, the same on every machine.
    """
    try:
        prepared = open_prepared(Path(data))
        if prepared.manifest.size == model.resize_to:
            batch = next(evaluation_batches(prepared.held_out, count))
            return batch.images, f"held-out images of {prepared.manifest.name}"
    except (DataError, StopIteration):
        pass
    return generated_images(model.resize_to, count), "generated images"


def generated_images(side: int, count: int) -> Tensor:
    """Return `count` images of soft coloured shapes, ``(count, side, side, 3)`` uint8."""
    draws = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 8, 8, generator=draws) * 255
    smooth = F.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 255)
    return smooth.permute(0, 2, 3, 1).to(torch.uint8).contiguous()


@torch.inference_mode()
def measure(
    model: Predictor,
    run: Runner,
    kind: InputKind,
    images: Tensor,
    source: str,
    batches: tuple[int, ...] = BATCHES,
) -> Parity:
    """Run the network and its exported form on the same images and compare them.

    The network gets its pixels from the project's own preprocessing, in either kind of input.

    Parameters
    ----------
    model : Predictor
        On the processor; run in float32.
    run : callable
        The exported form: one batch to logits and probabilities, ``(N, classes)``.
    kind : str
        What `run` takes: ``"pixels"`` or ``"images"``.
    images : Tensor
        ``(N, prepared, prepared, 3)`` uint8.
    source : str
        Where the images are from, for the report.
    batches : tuple of int
        Sizes of the batches, taken in turn until no image is left.
    """
    logits = probabilities = 0.0
    same = 0
    for batch in _in_turn(images, batches):
        pixels = model.normalise(next(iter_crops(batch, model.spec.image_size, 1)))
        wanted = model.network(pixels)
        found, chances = run(batch if kind == IMAGES else pixels)
        size = wanted.abs().amax(1).clamp(min=1e-6)  # (N,)
        off = ((found - wanted).abs().amax(1) / size).nan_to_num(nan=torch.inf)
        apart = (chances - wanted.softmax(1)).abs().nan_to_num(nan=torch.inf)
        logits = max(logits, off.max().item())
        probabilities = max(probabilities, apart.max().item())
        same += int(_ranked_alike(wanted, found, size).sum())
    return Parity(len(images), source, batches, logits, probabilities, same)


def _in_turn(images: Tensor, sizes: tuple[int, ...]) -> Iterator[Tensor]:
    start = 0
    for size in cycle(sizes):
        if start >= len(images):
            return
        yield images[start : start + size]
        start += size


def _ranked_alike(wanted: Tensor, found: Tensor, size: Tensor) -> Tensor:
    """Return which rows, ``(N,)`` bool, name the same five first classes, ties aside."""
    best = wanted.topk(min(5, wanted.shape[1])).values
    chosen = wanted.gather(1, found.topk(best.shape[1]).indices)  # what the original gives them
    return ((best - chosen).abs() <= TIE * size[:, None]).all(1)


def require(parity: Parity, what: str) -> None:
    """Refuse an exported form that is not the network.

    Raises
    ------
    AlexNetError
        With what was measured and what is allowed.
    """
    if not parity.holds:
        raise AlexNetError(
            f"The {what} is not the network: on {parity.images} images its logits are off by "
            f"{parity.logits:.1e} of the largest (at most {LOGITS_WITHIN:.0e}), its probabilities "
            f"by {parity.probabilities:.1e} (at most {PROBABILITIES_WITHIN:.0e}), and "
            f"{parity.top5} name the same five classes. No file was kept.",
            "Try another version of torch or onnxruntime, and report it: it is a defect.",
        )
