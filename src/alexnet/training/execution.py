"""How a training is carried out: what changes its speed and its end, never its result."""

from dataclasses import dataclass
from typing import Literal

from alexnet.errors import ConfigError

AUTO = -1  # of `Execution.micro_batch`: find the largest that fits before the first step


@dataclass(frozen=True, kw_only=True, slots=True)
class Execution:
    """How a training is carried out; nothing of it is kept in the run.

    Results differ by the rounding of sums alone, whatever is chosen here.

    Raises
    ------
    ConfigError
        When a value cannot work.
    """

    layout: Literal["data", "towers", "hybrid"] = "data"  # how several processes share the work:
    # by images; by towers, as the two GPUs of 2012 did; convolutions by images and
    # fully-connected layers by units ("one weird trick")
    micro_batch: int | None = None  # images a process takes at once, gradients being added up to
    # the recipe's batch; None: its whole share; `AUTO`
    max_time: float | None = None  # seconds after which the training saves and stops
    timeout: float = 600.0  # seconds without progress after which processes give each other up

    def __post_init__(self) -> None:
        size = self.micro_batch
        if size is not None and size != AUTO and size < 1:
            raise ConfigError(f"A micro-batch of {size} images is none.", "Give 1 or more.")
        if self.max_time is not None and self.max_time <= 0:
            raise ConfigError(f"A time of {self.max_time:g} s is none.", "Give one above 0.")
        if self.timeout < 1:
            raise ConfigError(f"A timeout of {self.timeout:g} s is too short.", "Give 1 s or more.")
