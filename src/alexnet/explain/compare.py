"""How alike two networks are: their answers to the same images, their layers, their weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet.errors import ConfigError, did_you_mean
from alexnet.explain.ranks import correlate_ranks
from alexnet.features import (
    NamedImages,
    extract,
    layer_names,
    receptive_field,
)
from alexnet.network import AlexNet
from alexnet.predictor import Predictor

READ_BYTES = 32 << 20  # bytes of a layer that are read at a time

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NetworkComparison:
    """Two networks beside each other, on the same images."""

    layers: tuple[tuple[str, ...], tuple[str, ...]]  # of either, first to last
    cka: Matrix  # (layers, layers): linear centred kernel alignment, 0 to 1
    rsa: Matrix  # (layers, layers): Spearman's correlation of the dissimilarities, -1 to 1
    rdms: tuple[NDArray[np.float32], NDArray[np.float32]]  # (layers, pairs) of either
    agreement: float | None  # share of images that both put in one class; None: other classes
    weights: dict[str, float]  # by layer of one shape, |A - B| / |A|


def compare(
    one: Predictor, other: Predictor, images: tuple[NamedImages, NamedImages], folder: Path,
    *, layers: Sequence[str] = (), report: Callable[[int, int], None] = lambda done, total: None,
) -> NetworkComparison:  # fmt: skip
    """Compare two networks on the same images, of which each has its own preparation.

    Raises `ConfigError` when neither has such a layer.

    Parameters
    ----------
    one, other : Predictor
        Trained runs.
    images : tuple of NamedImages
        The same images for either, at its size.
    folder : Path
        Where activations are kept meanwhile: about 1 MB an image for networks of 2012.
    layers : sequence of str
        Names of layers of either; by default what each convolution and each fully-connected layer
        hands on (`stages`).
    report : callable
        Called with the images done and all, twice the images' number.
    """
    known = {name for predictor in (one, other) for name in layer_names(predictor.spec)}
    for name in layers:
        if name not in known:
            raise ConfigError(f"Neither network has a layer {name!r}.", did_you_mean(name, known))
    grams, rdms, names = [], [], []
    predicted: list[NDArray[np.int64]] = []
    for number, (predictor, split) in enumerate(zip((one, other), images, strict=True)):
        own = layer_names(predictor.spec)
        wanted = [name for name in own if name in layers] or stages(predictor)
        kept = list(dict.fromkeys([*wanted, own[-1]]))
        before = number * len(split)

        def told(done: int, total: int, before: int = before) -> None:
            report(before + done, 2 * total)

        stored = extract(predictor, split, kept, folder / str(number), report=told)
        products = {name: multiply_rows(stored.array(name)) for name in wanted}
        grams.append([centre(gram) for gram, _ in products.values()])
        rdms.append(np.stack([find_rdm(*pair) for pair in products.values()]).astype(np.float32))
        names.append(tuple(wanted))
        predicted.append(stored.array(own[-1]).argmax(1))
    return NetworkComparison(
        (names[0], names[1]),
        np.array([[align(a, b) for b in grams[1]] for a in grams[0]]),
        correlate_ranks(*rdms),
        (rdms[0], rdms[1]),
        float((predicted[0] == predicted[1]).mean()) if one.classes == other.classes else None,
        compare_weights(one.network, other.network),
    )


def stages(predictor: Predictor) -> list[str]:
    """Return what each convolution and each fully-connected layer hands on: pool1, … relu7, fc8."""
    names = layer_names(predictor.spec)
    spec = predictor.spec
    starts = [
        names.index(name) for name in [x.name for x in spec.convs] + [x.name for x in spec.dense]
    ]
    return [names[after - 1] for after in (*starts[1:], len(names) - 1)] + [names[-1]]


def multiply_rows(activations: NDArray[np.float32]) -> tuple[Matrix, Matrix]:
    """Return the products of all images' activations with each other, ``(N, N)``, and their sums.

    `activations` are a layer's, ``(N, *shape)``, and may be memory-mapped: they are read in parts.
    Divided by the numbers of a layer, so that layers of any size have one scale. In float64: all
    images share most of an untrained layer's activations, and what tells them apart is what is left
    once that is taken off.
    """
    rows = activations.reshape(len(activations), -1)
    gram, sums = np.zeros((len(rows), len(rows))), np.zeros(len(rows))
    width = max(1, READ_BYTES // (8 * len(rows)))
    for first in range(0, rows.shape[1], width):
        part = rows[:, first : first + width].astype(np.float64)
        gram += part @ part.T
        sums += part.sum(1)
    return gram / rows.shape[1], sums / rows.shape[1]


def centre(gram: Matrix) -> Matrix:
    """Take the mean image's activations off, given products alone."""
    mean = gram.mean(0)
    return gram - mean - mean[:, None] + mean.mean()


def align(one: Matrix, other: Matrix) -> float:
    """Return linear CKA of two centred matrices of products (Kornblith and others, 2019)."""
    size = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float((one * other).sum() / size) if size else 0.0


def find_rdm(gram: Matrix, means: Matrix) -> Matrix:
    """Return 1 less Pearson's correlation of every pair of images, ``(N (N - 1) / 2,)``.

    Pairs are in the order of `scipy.spatial.distance.pdist`, which rsatoolbox takes.
    """
    covariance = gram - np.outer(means, means)
    deviation = np.sqrt(np.maximum(covariance.diagonal(), 1e-30))
    return (1 - covariance / np.outer(deviation, deviation))[np.triu_indices(len(gram), 1)]


def compare_weights(one: AlexNet, other: AlexNet) -> dict[str, float]:
    """Return by layer how far the weights of two networks are apart, as a share of the first's."""
    others = dict(other.named_parameters())
    return {
        name.removesuffix(".weight"): float(
            (weight.detach() - others[name].detach()).norm() / weight.detach().norm()
        )
        for name, weight in one.named_parameters()
        if name.endswith(".weight") and name in others and others[name].shape == weight.shape
    }


def describe_rdms(predictor: Predictor, layers: Sequence[str], degrees: float) -> dict[str, object]:
    """Return what `rsatoolbox.rdm.RDMs` takes beside the dissimilarities, as JSON.

    The receptive fields are in degrees of visual angle, where the network's view spans `degrees`.
    """
    fields = [receptive_field(predictor.spec, name) for name in layers]
    pixel = degrees / predictor.spec.image_size
    return {
        "dissimilarity_measure": "correlation",
        "descriptors": {"network": predictor.spec.name, "degrees": degrees},
        "rdm_descriptors": {
            "layer": [*layers],
            "receptive_field_degrees": [round(field.size * pixel, 4) for field in fields],
        },
    }
