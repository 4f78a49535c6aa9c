"""How often a network is right: top-1 and top-5, one view or several, by class."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from alexnet.data.loader import Batch

Probabilities = Callable[[Tensor], Tensor]
VIEWS = {1: "one view", 9: "nine views", 10: "ten views"}  # of an image, as people call them


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a network got right, in whole numbers of images."""

    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]  # [true class][class ranked first]
    in_top5: int  # images whose class is among the five ranked first
    crops: int

    @property
    def images(self) -> int:
        """How many images were tested."""
        return sum(map(sum, self.confusion))

    @property
    def top1(self) -> float:
        """Share of images whose class is ranked first, 0 to 1."""
        return sum(row[i] for i, row in enumerate(self.confusion)) / max(1, self.images)

    @property
    def top5(self) -> float:
        """Share of images whose class is among the first five, 0 to 1."""
        return self.in_top5 / max(1, self.images)

    @property
    def majority(self) -> float:
        """Share of the largest class: what always naming it would score."""
        return max(map(sum, self.confusion)) / max(1, self.images)

    def added(self, over_processes: Callable[[Tensor], Tensor]) -> Self:
        """Return the result of all processes, of which each tested some of the images.

        `over_processes` sums a tensor over them; the counts are whole numbers, so the sum is exact.
        """
        counts = over_processes(torch.tensor([*map(list, self.confusion)], dtype=torch.int64))
        in_top5 = over_processes(torch.tensor([self.in_top5], dtype=torch.int64))
        rows = tuple(map(tuple, counts.tolist()))
        return replace(self, confusion=rows, in_top5=int(in_top5))

    def by_class(self) -> list[tuple[str, int, float]]:
        """Return each class's name, its images, and the share of them ranked first."""
        return [
            (name, sum(row), row[i] / sum(row) if sum(row) else float("nan"))
            for i, (name, row) in enumerate(zip(self.classes, self.confusion, strict=True))
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassSummary:
    """A class in a `Summary`."""

    name: str
    images: int
    top1: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What `summarize` returns, as a file of it is checked, with the split and the weights."""

    split: str
    step: int | None = None  # of the weights; None in files of before 2026-11-30
    top1: float
    top5: float
    majority: float
    images: int
    views: int
    classes: tuple[str, ...]
    by_class: tuple[ClassSummary, ...]
    confusion: tuple[tuple[int, ...], ...]


def summarize(result: Evaluation) -> dict[str, object]:
    """Return an evaluation as plain numbers, for JSON."""
    return {
        "top1": result.top1,
        "top5": result.top5,
        "majority": result.majority,
        "images": result.images,
        "views": result.crops,
        "classes": list(result.classes),
        "by_class": [
            {"name": name, "images": images, "top1": None if math.isnan(share) else share}
            for name, images, share in result.by_class()
        ],
        "confusion": [list(row) for row in result.confusion],
    }


def rank_classes(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Return probabilities, the highest first, and the numbers of their classes.

    Of equal ones the class that comes first is first, as for `Tensor.argmax`. `Tensor.topk` and a
    plain `Tensor.sort` take equals in any order, and a network that is sure of itself has many: a
    probability below 1e-45 is 0 in float32.

    Parameters
    ----------
    probabilities : Tensor
        ``(..., classes)``.
    """
    return probabilities.sort(dim=-1, descending=True, stable=True)


def evaluate(
    predict: Probabilities,
    batches: Iterable[Batch],
    classes: tuple[str, ...],
    *,
    crops: int,
) -> Evaluation:
    """Count what `predict`, which maps images to probabilities, gets right over all batches.

    Counters are whole numbers; no image is counted twice and none is left out.
    """
    confusion = torch.zeros(len(classes), len(classes), dtype=torch.int64)
    in_top5 = 0
    for batch in batches:
        ranked = rank_classes(predict(batch.images))[1][:, :5].cpu()
        labels = batch.labels
        confusion.index_put_((labels, ranked[:, 0]), torch.ones_like(labels), accumulate=True)
        in_top5 += int((ranked == labels[:, None]).sum())
    return Evaluation(classes, tuple(map(tuple, confusion.tolist())), in_top5, crops)
