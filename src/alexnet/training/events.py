"""What can happen in a training, for a screen, a test or a notebook to watch."""

from dataclasses import dataclass

from alexnet.evaluation import Evaluation
from alexnet.training.trainer import Step


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the user should know."""

    text: str


@dataclass(frozen=True, slots=True)
class Progressed:
    """An update was made."""

    step: Step
    total: int  # steps planned
    epoch: float  # passes over the training images so far
    images_per_step: int
    images_per_second: float


@dataclass(frozen=True, slots=True)
class Validated:
    """The network was tested on the split that is watched."""

    step: int
    epoch: float
    split: str
    result: Evaluation
    best: float  # top-1 of the best validation so far


@dataclass(frozen=True, slots=True)
class Tested:
    """The training is over and the network was tested with ten views."""

    split: str
    result: Evaluation


@dataclass(frozen=True, slots=True)
class Stopped:
    """The training was asked to stop; everything up to `step` is saved."""

    step: int
    signal: int


Event = Notice | Progressed | Validated | Tested | Stopped
