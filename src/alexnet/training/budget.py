"""A training that ends at a given time: the schedule is laid into the steps that fit.

How fast a machine is shows only on it, and may change while it trains; so the first steps are
timed, and the plan is laid anew every now and then over what time is left.
"""

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Self

TIMED_STEPS = 10  # before the first plan; the first of all, in which the network is compiled, apart
PLANS = 20  # at about this many moments the plan is laid again
PLANS_A_SAVE = 4  # each so many, a checkpoint is written
SLACK = 0.02  # share of the time that is left for what nobody foresees
SAID_AGAIN = 0.15  # change of the number of steps that is worth another line


@dataclass(frozen=True, slots=True)
class Plan:
    """Which part of the schedule each step is at: a straight line from `step` to the last step."""

    total: int  # steps
    step: int = 0  # after which the line begins
    progress: float = 0.0  # of the schedule there, 0 to 1

    def progress_at(self, step: int) -> float:
        """Return the fraction of the schedule, 0 to 1, at a step counted from 1."""
        left = max(1, self.total - self.step)
        return self.progress + (1 - self.progress) * (step - 1 - self.step) / left

    def with_total(self, total: int, done: int) -> Self:
        """Return the plan that goes on after `done` steps from where the schedule is then."""
        return type(self)(total, done, self.progress_at(done + 1))


@dataclass(slots=True)
class Budget:
    """The time that a training may take, the test at its end included, and what is left of it."""

    seconds: float
    begun: float  # on the clock of `time.monotonic`
    spent: float = 0.0  # seconds, by earlier processes of the same run
    reserved: float = 0.0  # seconds for the test
    _marks: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=5))
    _said: int = 0  # steps of the plan that was reported last

    def now_spent(self) -> float:
        """Return the seconds spent up to now."""
        return self.spent + time.monotonic() - self.begun

    def is_due(self, taken: int) -> bool:
        """Whether to plan (again) after so many steps of this process."""
        if not self._marks:
            if taken == 1:
                self._marks.append((time.monotonic(), taken))
            return False
        if len(self._marks) == 1:
            return taken > TIMED_STEPS
        return time.monotonic() - self._marks[-1][0] > self.seconds / PLANS

    def count_steps_left(self, taken: int) -> int:
        """Return how many more steps fit, by the time that the last ones took."""
        self._marks.append((time.monotonic(), taken))
        left = self.seconds * (1 - SLACK) - self.reserved - self.now_spent()
        return max(0, int(left / self.seconds_a_step()))

    def seconds_a_step(self) -> float:
        """Return what the last steps took, with the validations and checkpoints between them."""
        (then, before), (now, taken) = self._marks[0], self._marks[-1]
        return (now - then) / (taken - before)

    def describe(self, plan: Plan, images_a_step: int, steps_an_epoch: float, epochs: float) -> str:
        """Return a sentence on a plan, or nothing where it is much as the last one."""
        if self._said and abs(plan.total - self._said) < SAID_AGAIN * self._said:
            return ""
        first, self._said = not self._said, plan.total
        rate, fit = images_a_step / self.seconds_a_step(), plan.total / steps_an_epoch
        if not first:
            return f"It trains {rate:,.0f} images a second now: {fit:.1f} epochs fit."
        whole = epochs * steps_an_epoch * self.seconds_a_step() / 60
        fits = "they fit" if fit >= epochs else f"{fit:.1f} fit"
        given = f"{self.seconds / 60:.0f} minutes" if self.seconds >= 120 else f"{self.seconds:g} s"
        return (
            f"This machine trains {rate:,.0f} images a second; {epochs:g} epochs would take "
            f"{whole:,.0f} minutes; {fits} into {given}, the test included."
        )
