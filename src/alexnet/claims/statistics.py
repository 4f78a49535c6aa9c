"""What paired runs say about a claim: mean difference, 95 % interval, and a verdict.

Two runs of one seed see the same images in the same order and begin with the same weights, as far
as their networks allow; so what is compared is the difference inside each pair, and what the seed
does to both cancels out.

Student's t is computed here, in a dozen lines: a grid that ran for hours is judged where it ran,
with no package more than the runs needed. SciPy is the tests' oracle.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
FEWEST_SEEDS = 2  # one pair has no spread, so it has no interval either


class Verdict(StrEnum):
    """What a claim comes to. The rules are those of `judged`, and were there before any run."""

    HOLDS = "holds"
    DIRECTION = "holds in direction only"
    NOT_SEEN = "not seen at this scale"
    REVERSED = "reversed"
    TOO_FEW = "not enough seeds"


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run gave.

    Attributes
    ----------
    value : float
        The measure.
    capped : bool
        The run was stopped before the measure was reached: the true value is `value` or more.
        Only measures that wait for something (epochs until 25 % training error) can be.
    """

    value: float
    capped: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two arms of a claim, over the seeds for which both have a number.

    Attributes
    ----------
    pairs : tuple of (int, Measured, Measured)
        Seed, what the paper compares with, what the paper recommends.
    means : (float, float)
        Of both arms; geometric where `ratio`. NaN without pairs.
    effect : float
        The mean of ``first - second``; where `ratio`, the geometric mean of ``first / second``.
        NaN without pairs.
    interval : (float, float)
        Where the true effect lies with 95 % confidence. A side about which runs that were stopped
        leave nothing to say is infinite (0 below, for a ratio); both are NaN with fewer than two
        pairs.
    ratio : bool
        Whether the effect is a quotient.
    capped : (int, int)
        How many values of each arm are stopped runs: the effect is then a bound, see `bound`.
    left_out : tuple of int
        Seeds of which one arm has no run, or a run without a number (one that diverged).
    verdict : Verdict
    """

    pairs: tuple[tuple[int, Measured, Measured], ...]
    means: tuple[float, float]
    effect: float
    interval: tuple[float, float]
    ratio: bool
    capped: tuple[int, int]
    left_out: tuple[int, ...]
    verdict: Verdict

    @property
    def seeds(self) -> int:
        """How many pairs there are."""
        return len(self.pairs)

    @property
    def bound(self) -> Literal["", "at least", "at most", "unknown"]:
        """What the true effect is, seen from `effect`: the same, more, less, or anything."""
        first, second = self.capped
        if first and second:
            return "unknown"
        return "at least" if first else "at most" if second else ""


def compare(
    first: Mapping[int, Measured],
    second: Mapping[int, Measured],
    *,
    ratio: bool = False,
    enough: float | None = None,
) -> Comparison:
    """Compare two arms by the seeds that both have.

    Parameters
    ----------
    first, second : mapping of int to Measured
        By seed. The order says what is claimed: `first` gives the larger values (the error without
        normalisation, the epochs that tanh needs).
    ratio : bool
        Compare by ``first / second``, on logarithms; a value must be above 0 to count.
    enough : float, optional
        The effect from which on the claim holds in size too (see `judged`).

    Notes
    -----
    Where some of `first` are stopped runs, their values are put in as they stand. Each difference
    is then the true one or less; so is their mean, and the interval's lower end is a lower end for
    the true effect. Its upper end would not be, and is infinite. For stopped runs of `second` it
    is the other way round, and with both nothing is known on either side.

    Examples
    --------
    >>> without = {0: Measured(0.20), 1: Measured(0.22), 2: Measured(0.21)}
    >>> with_it = {0: Measured(0.18), 1: Measured(0.19), 2: Measured(0.19)}
    >>> found = compare(without, with_it, enough=0.02)
    >>> round(found.effect, 4), [round(end, 4) for end in found.interval], found.verdict.value
    (0.0233, [0.009, 0.0377], 'holds')
    """
    pairs = tuple(
        (seed, first[seed], second[seed])
        for seed in sorted(first.keys() & second.keys())
        if _counts(first[seed], ratio) and _counts(second[seed], ratio)
    )
    scale, back = (np.log, np.exp) if ratio else (np.asarray, np.asarray)
    values = scale(np.array([(a.value, b.value) for _, a, b in pairs], float).reshape(-1, 2))
    capped = (sum(a.capped for _, a, _ in pairs), sum(b.capped for _, _, b in pairs))
    means = values.mean(0) if pairs else np.full(2, math.nan)
    differences = values[:, 0] - values[:, 1]
    mean = float(differences.mean()) if pairs else math.nan
    low, high = interval(differences)
    if len(pairs) >= FEWEST_SEEDS:
        low, high = (-math.inf if capped[1] else low), (math.inf if capped[0] else high)
    return Comparison(
        pairs=pairs,
        means=(float(back(means[0])), float(back(means[1]))),
        effect=float(back(mean)),
        interval=(float(back(low)), float(back(high))),
        ratio=ratio,
        capped=capped,
        left_out=tuple(sorted((first.keys() | second.keys()) - {seed for seed, _, _ in pairs})),
        verdict=judged(mean, low, high, None if enough is None else float(scale(enough))),
    )


def _counts(measured: Measured, ratio: bool) -> bool:
    return math.isfinite(measured.value) and (measured.value > 0 or not ratio)


def judged(mean: float, low: float, high: float, enough: float | None) -> Verdict:
    """Return the verdict on an effect whose sign is positive where it is as claimed.

    - *not enough seeds*: fewer than two pairs, so that there is no interval.
    - *holds*: the whole interval is above 0, and the mean effect is `enough` or more.
    - *holds in direction only*: the whole interval is above 0, the mean effect below `enough`.
    - *reversed*: the whole interval is below 0.
    - *not seen at this scale*: the interval holds 0. That is no proof that there is no effect: the
      interval says how large one may still be.

    Where there is no effect at all, 5 in 100 intervals miss 0 by chance: half of them say that the
    claim holds, half *reversed*. `mean`, `low`, `high` and `enough` are logarithms for a ratio.
    """
    if math.isnan(low):
        return Verdict.TOO_FEW
    if low > 0:
        large = enough is None or mean >= enough
        return Verdict.HOLDS if large else Verdict.DIRECTION
    return Verdict.REVERSED if high < 0 else Verdict.NOT_SEEN


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % interval of the mean by Student's t; NaN for fewer than two values."""
    if len(values) < FEWEST_SEEDS:
        return math.nan, math.nan
    mean = float(values.mean())
    reach = t_quantile(len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return mean - reach, mean + reach


def t_quantile(degrees: int, confidence: float = CONFIDENCE) -> float:
    """Return the t within which Student's distribution has `confidence` of its mass, both sides.

    Bisection on the angle ``atan(t / sqrt(degrees))``, to the last bit.

    Examples
    --------
    >>> [round(t_quantile(degrees), 3) for degrees in (1, 2, 4)]
    [12.706, 4.303, 2.776]
    """
    low, high = 0.0, math.pi / 2
    while low < (middle := (low + high) / 2) < high:
        if _mass_within(middle, degrees) < confidence:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan(low)


def _mass_within(angle: float, degrees: int) -> float:
    """Return P(|T| < sqrt(degrees) tan(angle)): Abramowitz and Stegun 26.7.3 and 26.7.4."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term, series = (cosine if odd else 1.0), 0.0
    for k in range(1 + odd, degrees, 2):
        series += term
        term *= cosine**2 * k / (k + 1)
    return 2 / math.pi * (angle + sine * series) if odd else sine * series
