"""What paired runs say about a claim: mean difference, 95 % interval, and the verdict.

Two runs of one seed see the same images in the same order and begin with the same weights, as far
as their networks allow. So differences are taken inside each pair, where what the seed does to
both runs cancels out.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from alexnet.errors import import_extra

CONFIDENCE = 0.95
MIN_SEEDS = 2  # one pair has no spread, so it has no interval either
SAME = 1e-9  # differences of measures with six digits that are no farther apart are the same


class Verdict(StrEnum):
    """What a claim comes to; `decide_verdict` has the rules."""

    HOLDS = "holds"
    DIRECTION = "holds in direction only"
    NO_LARGER = "no effect larger than x"
    NOT_SEEN = "not seen at this scale"
    REVERSED = "reversed"
    TOO_FEW = "not enough seeds"


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one run gave."""

    value: float
    censored: bool = False  # right-censored: the run was stopped first, so the true value is larger


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two arms of a claim, over the seeds for which both have a number."""

    pairs: tuple[tuple[int, Measurement, Measurement], ...]  # seed, first arm, second arm
    means: tuple[float, float]  # of both arms; geometric where `ratio`. NaN without pairs
    effect: float  # the mean of first - second, or geometric mean of first / second. NaN without
    interval: tuple[float, float]  # where the true effect lies with 95 % confidence. A side about
    # which censored runs leave nothing to say is infinite (0 below, for a ratio); both are NaN
    # with fewer than two pairs
    ratio: bool  # whether the effect is a quotient
    censored: tuple[int, int]  # how many values of each arm are: the effect is then a bound
    left_out: tuple[int, ...]  # seeds without a finite measure in both arms
    verdict: Verdict

    @property
    def seeds(self) -> int:
        """How many pairs there are."""
        return len(self.pairs)

    @property
    def is_open_below(self) -> bool:
        """Whether nothing is known of how small the true effect may be."""
        return self.interval[0] == (0 if self.ratio else -math.inf)

    @property
    def is_unlimited(self) -> bool:
        """Whether nothing is known of the true effect at all."""
        return self.is_open_below and math.isinf(self.interval[1])

    @property
    def half_width(self) -> float:
        """The smallest effect that these pairs could have shown: half of the interval.

        A quotient where the effect is one. Infinite where a side is open, NaN without an interval.
        """
        low, high = self.interval
        if self.ratio:
            return math.sqrt(high / low) if low else math.inf
        return (high - low) / 2

    @property
    def largest(self) -> float:
        """The largest effect, of either sign, that the interval leaves possible."""
        low, high = self.interval
        return max(1 / low if low else math.inf, high) if self.ratio else max(-low, high)

    @property
    def bound(self) -> Literal["", "at least", "at most", "unknown"]:
        """What the true effect is, seen from `effect`: the same, more, less, or anything."""
        first, second = self.censored
        if first and second:
            return "unknown"
        return "at least" if first else "at most" if second else ""


def compare(
    first: Mapping[int, Measurement],
    second: Mapping[int, Measurement],
    *,
    ratio: bool = False,
    min_effect: float | None = None,
    relevant: float | None = None,
) -> Comparison:
    """Compare two arms by the seeds that both have.

    Raises `MissingExtraError` when SciPy is not installed.

    Parameters
    ----------
    first, second : mapping of int to Measurement
        By seed. The order says what is claimed: `first` gives the larger values (the error without
        normalisation, the epochs that tanh needs).
    ratio : bool
        Compare by ``first / second``, on logarithms; a value must be above 0 to count.
    min_effect : float, optional
        The minimum effect at which the claim holds in size too (see `decide_verdict`).
    relevant : float, optional
        The smallest effect that would matter (see `decide_verdict`).

    Notes
    -----
    Where some of `first` are censored, their values are put in as they stand. Each difference is
    then the true one or less; so is their mean, and the interval's lower end is a lower end for
    the true effect. Its upper end would not be, and is infinite. For censored runs of `second` it
    is the other way round, and with both nothing is known on either side.

    Examples
    --------
    >>> without = {0: Measurement(0.20), 1: Measurement(0.22), 2: Measurement(0.21)}
    >>> with_it = {0: Measurement(0.18), 1: Measurement(0.19), 2: Measurement(0.19)}
    >>> found = compare(without, with_it, min_effect=0.02)
    >>> round(found.effect, 4), [round(end, 4) for end in found.interval], found.verdict.value
    (0.0233, [0.009, 0.0377], 'holds')
    """
    pairs = tuple(
        (seed, first[seed], second[seed])
        for seed in sorted(first.keys() & second.keys())
        if _is_usable(first[seed], ratio) and _is_usable(second[seed], ratio)
    )
    scale, back = (np.log, np.exp) if ratio else (np.asarray, np.asarray)
    values = scale(np.array([(a.value, b.value) for _, a, b in pairs], float).reshape(-1, 2))
    censored = (sum(a.censored for _, a, _ in pairs), sum(b.censored for _, _, b in pairs))
    means = values.mean(0) if pairs else np.full(2, math.nan)
    differences = values[:, 0] - values[:, 1]
    mean = float(differences.mean()) if pairs else math.nan
    low, high = confidence_interval(differences)
    if len(pairs) >= MIN_SEEDS:
        low, high = (-math.inf if censored[1] else low), (math.inf if censored[0] else high)
    least, matters = (None if x is None else float(scale(x)) for x in (min_effect, relevant))
    return Comparison(
        pairs=pairs,
        means=(float(back(means[0])), float(back(means[1]))),
        effect=float(back(mean)),
        interval=(float(back(low)), float(back(high))),
        ratio=ratio,
        censored=censored,
        left_out=tuple(sorted((first.keys() | second.keys()) - {seed for seed, _, _ in pairs})),
        verdict=decide_verdict(mean, low, high, least, matters),
    )


def _is_usable(measurement: Measurement, ratio: bool) -> bool:
    return math.isfinite(measurement.value) and (measurement.value > 0 or not ratio)


def decide_verdict(
    mean: float, low: float, high: float, min_effect: float | None, relevant: float | None = None
) -> Verdict:
    """Return the verdict on an effect whose sign is positive where it is as claimed.

    - *not enough seeds*: fewer than two pairs, so that there is no interval.
    - *holds*: the whole interval is above 0, and the mean effect is `min_effect` or more.
    - *holds in direction only*: the whole interval is above 0, the mean effect below `min_effect`.
    - *reversed*: the whole interval is below 0.
    - *no effect larger than x*: the interval holds 0, and neither of its ends reaches `relevant`,
      the effect that the paper has or that would matter. x is the farther end: here the effect is
      that small or absent.
    - *not seen at this scale*: the interval holds 0 and reaches farther: these runs could not tell.
      So it is where all pairs differ by the same number (see `confidence_interval`).

    Where there is no effect at all, 5 in 100 intervals miss 0 by chance: half of them say that the
    claim holds, half *reversed*. All numbers are logarithms for a ratio.
    """
    if math.isnan(low):
        return Verdict.TOO_FEW
    if low > 0:
        large = min_effect is None or mean >= min_effect
        return Verdict.HOLDS if large else Verdict.DIRECTION
    if high < 0:
        return Verdict.REVERSED
    small = relevant is not None and max(-low, high) < relevant
    return Verdict.NO_LARGER if small else Verdict.NOT_SEEN


def confidence_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % interval of the mean by Student's t; NaN for fewer than two values.

    Values that are all the same have an interval without ends: passes are counted in steps, and
    units are whole, so that two pairs are often alike by chance, and show no spread to judge by.
    """
    if len(values) < MIN_SEEDS:
        return math.nan, math.nan
    if np.ptp(values) <= SAME:
        return -math.inf, math.inf
    mean = float(values.mean())
    reach = t_quantile(len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return mean - reach, mean + reach


def t_quantile(degrees: int, confidence: float = CONFIDENCE) -> float:
    """Return the t within which Student's distribution has `confidence` of its mass, both sides.

    Examples
    --------
    >>> [round(t_quantile(degrees), 3) for degrees in (1, 2, 4)]
    [12.706, 4.303, 2.776]
    """
    special = import_extra("scipy.special", "claims", "Judging claims")
    return float(special.stdtrit(degrees, (1 + confidence) / 2))
