"""Does an explanation explain? Deletion and insertion, the pointing game, and the sanity check."""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data.decode import ImageLike
from alexnet.explain.attribution import Explanation, explain_all, find_class, make_question
from alexnet.explain.ranks import correlate_ranks
from alexnet.network import init_layer
from alexnet.predictor import Predictor
from alexnet.spec import Conv, Dense

CURVE_STEPS = 20  # in which the pixels go, or come
BLUR = 0.05  # standard deviation of the picture that insertion begins with, as a share of a side
CONTROLS = ("edges", "blobs")  # maps that know nothing of the network
ALIKE = 0.5  # mean rank correlation under which a map depends on the weights; our choice

Map = NDArray[np.float32]
PhotographBox = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class MethodCheck:
    """What a method's maps passed, each a mean over images."""

    method: str
    deletion: float  # mean probability as the strongest pixels go first: low is good
    insertion: float  # as they come first: high is good
    pointing: float | None  # share of images whose strongest pixel lies in the box; None: no boxes
    sanity: dict[str, float]  # by layer, the map's rank correlation with the trained network's
    # after that layer and all above it were redrawn; last to first

    def passes_order(self, controls: "Sequence[MethodCheck]") -> bool:
        """Whether both curves are better than those of every control."""
        return all(
            self.deletion < one.deletion and self.insertion > one.insertion for one in controls
        )

    @property
    def likeness(self) -> float:
        """The mean of `sanity` over the layers; 0 for a control."""
        return float(np.mean([*self.sanity.values()])) if self.sanity else 0.0

    @property
    def passes_sanity(self) -> bool:
        """Whether the map becomes another one as trained weights go."""
        return self.likeness < ALIKE


def run_checks(
    predictor: Predictor,
    images: Sequence[ImageLike],
    methods: Sequence[str],
    boxes: Sequence[PhotographBox | None] = (),
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[MethodCheck]:
    """Check methods on photographs, each for the class that the network finds most probable.

    Parameters
    ----------
    predictor : Predictor
        A trained run.
    images : sequence of str, Path, bytes, PIL.Image.Image or ndarray
        What `data.decode.to_rgb` takes.
    methods : sequence of str
        Names of `METHODS`.
    boxes : sequence of tuple
        Where the object is in each: left, top, right, bottom, in pixels of the photograph. ``None``
        where that is not known.
    report : callable
        Called with the maps done and all.

    Returns
    -------
    list of MethodCheck
        Of the methods, then of the controls: `edges`, how much the photograph itself changes from
        pixel to pixel, and `blobs`, noise as coarse as the last convolution's map.
    """
    spec = predictor.spec
    total = len(images) * (2 + len(spec.convs) + len(spec.dense))
    curves: dict[str, list[tuple[float, float]]] = {name: [] for name in (*methods, *CONTROLS)}
    hits: dict[str, list[bool]] = {name: [] for name in methods}
    trained: list[list[Explanation]] = []
    draws = np.random.default_rng(0)
    for image, box in zip_longest(images, boxes):
        found = explain_all(predictor, image, methods)
        target = find_class(predictor, found[0].label)
        prepared = torch.from_numpy(predictor.load_pixels(image))
        question = make_question(predictor, prepared, target)
        pixels = question.pixels.detach()
        maps = {one.method: one.map for one in found}
        maps |= {"edges": find_edges(pixels), "blobs": draw_blobs(pixels.shape[-1], draws)}
        for name, drawn in maps.items():
            curves[name].append(order_curves(question.probabilities, pixels, drawn, target))
        if box is not None:
            for one in found:
                hits[one.method].append(points_into(one, box))
        trained.append(found)
        report(len(trained), total)
    sanity: dict[str, dict[str, float]] = {name: {} for name in methods}
    done = len(images)
    for layer, redrawn in redraw_from_the_top(predictor):
        alike = []
        for image, found in zip(images, trained, strict=True):
            others = explain_all(redrawn, image, methods, label=found[0].label)
            pairs = zip(found, others, strict=True)
            alike.append([correlate_maps(one.map, other.map) for one, other in pairs])
            report(done := done + 1, total)
        for name, mean in zip(methods, np.mean(alike, 0).tolist(), strict=True):
            sanity[name][layer] = mean
    checks = []
    for name, both in curves.items():
        deletion, insertion = np.mean(both, 0).tolist()
        pointing = float(np.mean(hits[name])) if hits.get(name) else None
        checks.append(MethodCheck(name, deletion, insertion, pointing, sanity.get(name, {})))
    return checks


def order_curves(
    probabilities: Callable[[Tensor], Tensor], pixels: Tensor, found: Map, target: int
) -> tuple[float, float]:
    """Return the mean probability under deletion and under insertion (Petsiuk and others, 2018).

    Pixels go or come by the map, strongest first, in `CURVE_STEPS` steps. Gone is the mean image,
    zero to the network; insertion begins with the blurred photograph.
    """
    side = pixels.shape[-1]
    rank = torch.from_numpy(found.ravel().argsort()[::-1].argsort().copy()).view(side, side)
    share = torch.arange(CURVE_STEPS + 1)[:, None, None, None] / CURVE_STEPS  # (steps + 1, 1, 1, 1)
    chosen = (rank < share * side**2).to(pixels.device)
    curves = []
    for first, last in ((pixels, torch.zeros_like(pixels)), (blur(pixels), pixels)):
        chances = probabilities(torch.where(chosen, last, first))[:, target].float().cpu()
        curves.append(float(torch.trapezoid(chances) / CURVE_STEPS))
    return curves[0], curves[1]


def blur(pixels: Tensor) -> Tensor:
    """Blur ``(N, 3, side, side)`` by a Gaussian, its edge repeated."""
    deviation = BLUR * pixels.shape[-1]
    reach = int(3 * deviation)
    row = torch.arange(-reach, reach + 1, device=pixels.device) / deviation
    row = (-row.square() / 2).exp()
    row = (row / row.sum()).view(1, 1, 1, -1).expand(3, -1, -1, -1)
    across = F.conv2d(F.pad(pixels, (reach, reach, reach, reach), "replicate"), row, groups=3)
    return F.conv2d(across, row.mT, groups=3)


def find_edges(pixels: Tensor) -> Map:
    """Return how much ``(1, 3, side, side)`` pixels change to their neighbours: no network."""
    down, across = torch.gradient(pixels[0], dim=(1, 2))
    edges: Map = (down.square() + across.square()).sum(0).sqrt().cpu().numpy()
    return edges


def draw_blobs(side: int, draws: np.random.Generator) -> Map:
    """Return smooth noise, ``(side, side)``."""
    coarse = torch.from_numpy(draws.random((1, 1, 13, 13), np.float32))
    blobs: Map = F.interpolate(coarse, (side, side), mode="bicubic")[0, 0].numpy()
    return blobs


def redraw_from_the_top(predictor: Predictor) -> Iterator[tuple[str, Predictor]]:
    """Yield the network with its last layer redrawn, then its last two, … (Adebayo and others).

    Each layer is drawn as at the beginning of a training. Each network yielded is there until the
    next one is asked for.
    """
    spec, draws = predictor.spec, torch.Generator().manual_seed(0)
    network = deepcopy(predictor.network)
    layers: tuple[Conv | Dense, ...] = (*spec.convs, *spec.dense)
    drawn = {layer.name: (layer.std, layer.bias) for layer in layers}
    drawn[spec.output_name] = (spec.output_std, spec.output_bias)
    for name, (std, bias) in reversed(drawn.items()):
        init_layer(network.get_submodule(name), std, bias, draws)
        yield name, replace(predictor, network=network)


def correlate_maps(one: Map, other: Map) -> float:
    """Return Spearman's correlation of the sizes of two maps; 0 where one is the same all over."""
    return float(correlate_ranks(np.abs(one).reshape(1, -1), np.abs(other).reshape(1, -1))[0, 0])


def points_into(explanation: Explanation, box: PhotographBox) -> bool:
    """Whether the strongest place lies in a box of the photograph (Zhang and others, 2016)."""
    (x, y), (left, top, right, bottom) = explanation.peak, box
    return left <= x <= right and top <= y <= bottom
