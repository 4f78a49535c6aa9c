"""A claim together with what its runs gave: what pages and pictures are made of."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from alexnet.claims.claim import Arm, Claim, Result, by_seed, values_of
from alexnet.claims.statistics import Comparison, Measured, compare
from alexnet.config import differences


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A claim, its comparison, and the runs of both arms by seed."""

    claim: Claim
    comparison: Comparison
    first: dict[int, Result]
    second: dict[int, Result]
    tried: tuple[tuple[str, float, Measured], ...]  # arm, learning rate, what it gave: the choice

    @property
    def runs(self) -> tuple[Result, ...]:
        """The runs of both arms; one that is both is there once."""
        both = (*self.first.values(), *self.second.values())
        return tuple({run.key: run for run in both}.values())


def found(claim: Claim, results: Sequence[Result]) -> Finding:
    """Return what the results say about a claim."""
    return Finding(
        claim=claim,
        comparison=compare(
            values_of(claim, claim.first, results),
            values_of(claim, claim.second, results),
            ratio=claim.ratio,
            enough=claim.enough,
        ),
        first=by_seed(claim.first, results),
        second=by_seed(claim.second, results),
        tried=tuple(
            (arm.name, rate, measured)
            for arm in (claim.first, claim.second)
            for rate, measured in rates_tried(claim, arm, results)
        ),
    )


def rates_tried(claim: Claim, arm: Arm, results: Iterable[Result]) -> list[tuple[float, Measured]]:
    """Return what each learning rate of an arm's grid gave, with the seed that chooses."""
    name = claim.measure_of(arm)
    tried = {}
    recipes = [arm.trial(rate) for rate in arm.rates]
    for run in results:
        if run.spec == arm.spec and run.recipe in recipes:
            value = run.measures.get(name, float("nan"))
            tried[run.recipe.lr] = Measured(value, capped=name in run.capped)
    return sorted(tried.items())


def changes(claim: Claim) -> list[tuple[str, str, str]]:
    """Return what differs between the arms, with both values: fields by their paths.

    A part that one arm lacks (the norm of a layer) is one row, with all its fields.
    """
    rows = []
    if claim.first.measure != claim.second.measure:
        rows.append(("measure", claim.measure_of(claim.first), claim.measure_of(claim.second)))
    for kind, old, new in (
        ("spec", claim.first.spec, claim.second.spec),
        ("recipe", claim.first.recipe, claim.second.recipe),
    ):
        parts: dict[str, dict[str, tuple[Any, Any]]] = {}
        for path, both in differences(old, new).items():
            part, _, field = path.rpartition(".")
            if field not in ("name", "seed"):
                parts.setdefault(part, {})[path] = both
        for part, fields in sorted(parts.items()):
            rows += _rows(kind, part, fields)
    return rows


def _rows(kind: str, part: str, fields: dict[str, tuple[Any, Any]]) -> list[tuple[str, str, str]]:
    """Return one row for a part that is there or not, else a row for each of its fields."""
    before, after = zip(*fields.values(), strict=True)
    if part and len(fields) > 1 and not (any(map(_there, before)) and any(map(_there, after))):
        names = [path.rpartition(".")[2] for path in fields]
        return [(f"{kind}.{part}", _whole(names, before), _whole(names, after))]
    return [(f"{kind}.{path}", _shown(old), _shown(new)) for path, (old, new) in fields.items()]


def _there(value: object) -> bool:
    return value is not None


def _whole(names: Sequence[str], values: Sequence[object]) -> str:
    """Return all fields of a part as one text."""
    there = [(n, v) for n, v in zip(names, values, strict=True) if v is not None]
    return ", ".join(f"{name} {_shown(value)}" for name, value in there) or "none"


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value)) or "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
