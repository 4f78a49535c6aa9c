"""What can happen in a training, for a screen, a test or a notebook to watch."""

import signal
from dataclasses import dataclass

from alexnet.evaluation import Evaluation
from alexnet.training.trainer import Step

AGAIN = 75  # EX_TEMPFAIL of sysexits.h: start the same again; no library uses it for a crash


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the user should know."""

    text: str
    own: bool = False  # whether it is this process's, which others know nothing of


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
    """The training is over and the network was tested with all its views."""

    split: str
    result: Evaluation


@dataclass(frozen=True, slots=True)
class Stopped:
    """The training was asked to stop; everything up to `step` is saved."""

    step: int
    signal: int  # SIGUSR1 where the time was up

    @property
    def status(self) -> int:
        """The exit status: 130 or 143 as the signal asked, 75 where it is to be started again."""
        return AGAIN if self.signal == signal.SIGUSR1 else 128 + self.signal


Event = Notice | Progressed | Validated | Tested | Stopped
