"""What a training remembers; with the weights and their velocity, all of its state."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

REMEMBERED = 200  # losses, of which the median tells what is usual


@dataclass(slots=True)
class History:
    """What a training remembers of its past."""

    errors: list[float] = field(default_factory=list)  # of every validation: the plateau
    # schedule is a function of them
    losses: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    refused: int = 0  # steps in a row that were not made
    best: int | None = None  # step of the validation with the lowest error

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Self:
        """Return the history that `state` wrote, or an empty one of an empty state."""
        if not state:
            return cls()
        losses = deque(state["losses"], maxlen=REMEMBERED)
        return cls(list(state["errors"]), losses, state["refused"], state["best"])

    def state(self) -> dict[str, Any]:
        """Return a copy that JSON can hold."""
        return {
            "errors": list(self.errors),
            "losses": list(self.losses),
            "refused": self.refused,
            "best": self.best,
        }
