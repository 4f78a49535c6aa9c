"""The claims that are arithmetic: what the paper counts, and why halving is an ensemble."""

import itertools
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from alexnet.claims.claim import Check, CheckRow
from alexnet.spec import Spec
from alexnet.variants import AS_RUN, PAPER, SINGLE, with_input

HIDDEN = 10  # units of the ensemble that is enumerated: 1,024 networks
RANDOM_NETWORKS = 20
TOLERANCE = 1e-12  # of float64 sums over a thousand networks


def make_checks() -> tuple[Check, ...]:
    """Return every check, computed."""
    return check_counts(), check_halving()


# Parameters of each layer of the network with one tower, worked out by hand.
ONE_TOWER = {
    "conv1": 34_944, "conv2": 614_656, "conv3": 885_120, "conv4": 1_327_488, "conv5": 884_992,
    "fc6": 37_752_832, "fc7": 16_781_312, "fc8": 4_097_000,
}  # fmt: skip

# Neurons of each layer as the paper's Figure 2 writes them.
FIGURE_2 = {
    "input": 150_528, "conv1": 253_440, "conv2": 186_624, "conv3": 64_896, "conv4": 64_896,
    "conv5": 43_264, "fc6": 4_096, "fc7": 4_096, "fc8": 1_000,
}  # fmt: skip
SLIPS = {
    "input": "224x224x3; with the 227 that the other sizes need it is 154,587.",
    "conv1": "55x48x96, a slip: 55x55x96 is 290,400.",
}


def check_counts() -> Check:
    """Sections 2 to 4, and '224 or 227?' (facts 1c)."""
    plain = (224 - 11) / 4 + 1
    forms = {"227": "227 pixels", "224-overhang": "3 over the edge, the source of 2012",
             "224-padded": "2 around, as torchvision"}  # fmt: skip
    readings = {text: with_input(SINGLE, form) for form, text in forms.items()}  # type: ignore[arg-type]
    rows = [
        _compare_rounded("parameters, two towers", "60 million", PAPER.parameters, 6e7),
        _compare("parameters, one tower", 62_378_344, SINGLE.parameters),
        _compare_rounded("neurons, the input not counted", "650,000", PAPER.neurons, 6.5e5),
        _compare("neurons and input of 227 pixels", 813_859, PAPER.neurons + PAPER.inputs),
        *(_compare(f"parameters of {layer.name}, one tower", ONE_TOWER[layer.name],
                   layer.parameters)
          for layer in SINGLE.layers() if layer.parameters),
        *(_compare(f"neurons of {layer.name}", FIGURE_2[layer.name], layer.outputs,
                   SLIPS.get(layer.name, ""))
          for layer in PAPER.layers() if layer.kind != "pool"),
        CheckRow("places of 11 pixels every 4 on 224, nothing padded", "55", f"{plain:g}",
                 plain == 55, "No whole number: 54 fit."),
        *(_compare(f"conv1's side{text}", 55, _conv1_size(spec))
          for text, spec in (*((f": {text}", spec) for text, spec in readings.items()),
                             (", as run", AS_RUN))),
        _compare("crops and mirror images of 224 from 256", 2_048, 2 * (256 - 224 + 1) ** 2,
                 "33 places a side, not 32."),
    ]  # fmt: skip
    return Check(
        name="counts",
        section="2, 3.5, 4, 4.1",
        sentence="The network has 60 million parameters and 650,000 neurons, and takes images of "
        "224 pixels.",
        rows=tuple(rows),
    )


def _compare(what: str, stated: int, ours: int, note: str = "") -> CheckRow:
    """Return a line that agrees where both are the same whole number."""
    return CheckRow(what, f"{stated:,}", f"{ours:,}", ours == stated, note)


def _compare_rounded(what: str, stated: str, ours: int, near: float) -> CheckRow:
    """Return a line that agrees where ours is within 2 % of a round number."""
    return CheckRow(what, stated, f"{ours:,}", abs(ours / near - 1) < 0.02)


def _conv1_size(spec: Spec) -> int:
    """Return the side of conv1's output, by which 55 comes from 224 in three readings of it."""
    return next(layer.size for layer in spec.layers() if layer.name == "conv1")


def check_halving() -> Check:
    """Section 4.2: multiplying by a half is the geometric mean of all thinned networks.

    True to the last bit for one hidden layer under a softmax: its logits are linear in the mask.
    With two hidden layers it is an approximation, and how good is shown as well.
    """
    one = max(measure_halving(layers=1, seed=seed) for seed in range(RANDOM_NETWORKS))
    two = fmean(measure_halving(layers=2, seed=seed) for seed in range(RANDOM_NETWORKS))
    return Check(
        name="dropout-identity",
        section="4.2",
        sentence="With all units and outputs times 0.5, a network with one hidden layer gives the "
        "geometric mean of the predictions of all its thinned networks.",
        rows=(
            CheckRow(
                f"one hidden layer of {HIDDEN} units, all {2**HIDDEN:,} thinned networks of "
                f"{RANDOM_NETWORKS} random ones: largest difference of a probability",
                "0", f"{one:.1e}", one < TOLERANCE, "float64",
            ),
            CheckRow(
                f"two hidden layers of {HIDDEN // 2} units: the same, mean of {RANDOM_NETWORKS}",
                "a reasonable approximation", f"{two:.1e}", TOLERANCE < two < 0.1,
                "Not exact, as the paper says.",
            ),
        ),
    )  # fmt: skip


def measure_halving(layers: int, seed: int, classes: int = 4) -> float:
    """Return how far halving is from the geometric mean of all thinned networks, in float64.

    A random network of `layers` hidden layers with `HIDDEN` ReLUs together, on one input: each of
    its ``2**HIDDEN`` networks is computed, and the logarithms of their probabilities are averaged.
    """
    draws = np.random.default_rng(seed)
    units = HIDDEN // layers
    sizes = [6, *[units] * layers, classes]
    weights = [draws.standard_normal((b, a)) for a, b in itertools.pairwise(sizes)]
    x = draws.standard_normal(6)

    def logits(kept: NDArray[np.float64]) -> NDArray[np.float64]:
        out = np.broadcast_to(x, (len(kept), 6))  # kept: (networks, HIDDEN) factors
        for layer, weight in enumerate(weights[:-1]):
            factors = kept[:, layer * units : (layer + 1) * units]
            out = np.maximum(out @ weight.T, 0) * factors
        return out @ weights[-1].T  # (networks, classes)

    masks = np.array([*itertools.product((0.0, 1.0), repeat=HIDDEN)])
    geometric = np.exp(_log_softmax(logits(masks)).mean(0))
    halved = np.exp(_log_softmax(logits(np.full((1, HIDDEN), 0.5)))[0])
    return float(np.abs(geometric / geometric.sum() - halved).max())


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(1, keepdims=True)
    out: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return out
