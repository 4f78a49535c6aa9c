"""Axes of a picture: from numbers to places, and where ticks are."""

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps ``low .. high`` to ``start .. end`` in a picture's units, evenly or by logarithms."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return the place of a value."""
        low, high, here = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (here - low) / (high - low) * (self.end - self.start)

    def ticks(self, count: int = 4) -> list[float]:
        """Return round values inside the axis, about `count` of them.

        Examples
        --------
        >>> Axis(0.17, 0.24, 0, 100).ticks()
        [0.18, 0.2, 0.22, 0.24]
        >>> Axis(3, 60, 0, 100, log=True).ticks()
        [5, 10, 20, 50]
        """
        if self.log and self.high / self.low >= 4:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            found = [_tidy(step * 10.0**decade) for decade in decades for step in (1, 2, 5)]
            return [value for value in found if self.low <= value <= self.high]
        rough = (self.high - self.low) / count
        scale = 10.0 ** math.floor(math.log10(rough))
        step = next(s * scale for s in (1, 2, 5, 10) if s * scale >= rough * 0.75)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [_tidy(number * step) for number in range(first, last + 1)]


def _tidy(value: float) -> float:
    """Return a tick without the noise of binary fractions."""
    tidy = float(f"{value:.6g}")
    return int(tidy) if tidy.is_integer() else tidy


def around(values: Iterable[float], start: float, end: float, *, log: bool = False) -> Axis:
    """Return an axis that holds all finite values with a margin, also when they are one value."""
    finite = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
    low, high = min(finite, default=1.0), max(finite, default=1.0)
    if log:
        margin = max((high / low) ** 0.08, 1.05)
        return Axis(low / margin, high * margin, start, end, log)
    margin = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return Axis(low - margin, high + margin, start, end)
