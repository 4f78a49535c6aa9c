"""Every claim of the paper, at a scale, in the order of a report."""

from collections.abc import Iterable

from alexnet.claims.architecture import (
    depth,
    normalisation,
    normalisation_as_printed,
    overlap,
    relu,
    towers,
)
from alexnet.claims.checks import checks
from alexnet.claims.claim import Check, Claim
from alexnet.claims.scale import SMALL, Scale
from alexnet.claims.training import augmentation, beginnings, colour, dropout
from alexnet.errors import ConfigError, did_you_mean


def claims_at(scale: Scale = SMALL) -> tuple[Claim, ...]:
    """Return every claim that is trained for, in the order of a report."""
    parts = (
        (relu(scale),),
        normalisation(scale),
        normalisation_as_printed(scale),
        (overlap(scale),),
        dropout(scale),
        augmentation(scale),
        colour(scale),
        depth(scale),
        towers(scale),
        beginnings(scale),
    )
    return tuple(claim for part in parts for claim in part)


def everything(scale: Scale = SMALL) -> tuple[Claim | Check, ...]:
    """Return every claim: those that are trained for, and the arithmetic."""
    return *claims_at(scale), *checks()


def chosen(claims: Iterable[Claim | Check], names: Iterable[str]) -> tuple[Claim | Check, ...]:
    """Return the claims, or groups of claims, of some names; all where there is none.

    Raises
    ------
    ConfigError
        When there is no such claim, with the nearest name.
    """
    claims, names = tuple(claims), tuple(names)
    known = dict.fromkeys(name for claim in claims for name in (claim.group, claim.name))
    for name in names:
        if name not in known:
            raise ConfigError(f"No claim is called {name!r}.", did_you_mean(name, known))
    return tuple(c for c in claims if not names or c.group in names or c.name in names)
