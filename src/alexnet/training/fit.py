"""One training from a prepared data set to a tested network: when to log, validate, save, stop.

`fit` is a generator of what happens, so that a console, a test or a notebook can watch it without
the loop knowing them.
"""

import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import astuple, dataclass, field
from functools import partial
from itertools import chain
from typing import Any

from alexnet.config import require, require_whole
from alexnet.data.shards import PreparedData
from alexnet.errors import DivergedError
from alexnet.evaluation import summarize
from alexnet.recipes import MAX_BATCH
from alexnet.training import monitor
from alexnet.training.budget import PLANS_A_SAVE, SLACK, Budget, Plan
from alexnet.training.checkpoint import CheckpointWriter, clear_leftovers
from alexnet.training.distributed import DistributedContext
from alexnet.training.input_pipeline import local_batches
from alexnet.training.layout import LayoutName
from alexnet.training.optimizer import Rates, count_reductions, learning_rates_at
from alexnet.training.randomness import Order
from alexnet.training.run import Run
from alexnet.training.state import TrainState, restore
from alexnet.training.trackers import Tracker, TrackerName, open_tracker
from alexnet.training.trainer import LocalBatch, MicroBatch, Step, probe_batch_size, train

MAX_SECONDS = 10 * 366 * 86400  # of a training or a timeout
AUTO = -1  # of `Execution.micro_batch`: find the largest that fits before the first step
WAIT_STEPS = 200  # after which too much waiting for images is remarked on
MAX_WAITING = 0.1  # share of the time
TRAFFIC_STEPS = 20  # after which it is reported what the processes send each other
MAX_REFUSED = 10  # losses in a row, of which the last ends the training
STUCK_STEPS = 2000  # after which a loss that is still that of guessing is remarked on
STUCK = (
    "The loss is still that of guessing. What has helped: biases of 1 in conv2, conv4, conv5, fc6 "
    "and fc7; standard deviations of 0.03 in conv3 to conv5; pixels of 0-255 less the mean; "
    "another rate (--set lr=...)."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Execution:
    """How a training is carried out; nothing of it is kept in the run.

    Results differ by the rounding of sums alone, whatever is chosen here. A value that cannot work
    is a `ConfigError`.
    """

    layout: LayoutName = "data"  # how several processes share the work: by images; by towers, as
    # the two GPUs of 2012 did; convolutions by images and fully-connected layers by units ("one
    # weird trick")
    micro_batch: int | None = None  # images a process takes at once, gradients being added up to
    # the recipe's batch; None: its whole share; `AUTO`
    max_time: float | None = None  # seconds after which the training saves and stops
    budget: float | None = None  # seconds that it may take from `begun` on, the test included: as
    # many epochs are trained as fit, and the schedule is laid into them
    begun: float = field(default_factory=time.monotonic)
    timeout: float = 600.0  # seconds without progress after which processes give each other up
    tracker: TrackerName = "tensorboard"  # where the curves go besides ``metrics.jsonl``

    def __post_init__(self) -> None:
        if self.micro_batch != AUTO:
            require_whole(self, ["micro_batch"], 1, MAX_BATCH)
        most = f"{MAX_SECONDS:,} seconds"
        limits = ("max_time", "budget")
        require(self, limits, f"above 0, at most {most}", lambda time: 0 < time <= MAX_SECONDS)
        require(self, ["timeout"], f"1 to {most}", lambda time: 1 <= time <= MAX_SECONDS)


ALONE, PLAIN = DistributedContext(), Execution()


def fit(
    run: Run,
    data: PreparedData,
    context: DistributedContext = ALONE,
    execution: Execution = PLAIN,
) -> Iterator[monitor.Event]:
    """Train a run from its newest checkpoint, or from its initial weights, to its end.

    Yields each update, validation and notice; last a `Tested` or a `Stopped`. The run's folder must
    be the same for every process; rank 0 alone writes there.

    Raises `TrainingError` when the loss is no number any more, or memory does not do; `RunError`
    when the run has checkpoints and none of them is good, or another process trains it.
    """
    with contextlib.ExitStack() as stack:
        if context.is_main:
            stack.enter_context(run.lock())
            run.check_is_as_begun()
            clear_leftovers(run.checkpoints)
        watchdog = monitor.Watchdog(context, execution.timeout, run.folder)
        stack.enter_context(watchdog.watch())
        with catch_signals(execution.max_time) as stop_signal:
            state, start, complaint = restore(run, data, context, execution.layout)
            yield from (monitor.Notice(f"{text}; an older one is used.") for text in start.skipped)
            if complaint:
                yield monitor.Notice(complaint)
            recipe = run.config.recipe
            training = _Training(state, execution, watchdog, start.step)
            if start.step:
                yield monitor.Notice(f"Going on after step {start.step:,} of {training.total:,}.")
                before = start.state.get("machine", state.machine)
                if before != state.machine and start.step < training.total:
                    yield monitor.Notice(
                        f"It was trained on {before} and goes on with {state.machine}: sums are "
                        "rounded otherwise, so it is not bit for bit the undisturbed run."
                    )
            if context.is_main:
                run.drop_metrics_after(start.step)
                if start.step < training.total:
                    run.drop_test()
            if start.step < training.total and (
                stopped := (yield from training.take_steps(stop_signal))
            ):
                yield stopped
                return
        split = data.held_out  # everything is saved: a signal may end the test at once
        result = state.test(split, recipe.test_crops, watchdog.progressed)
        if context.is_main:
            about = {"split": split.name, "step": max(start.step, training.total)}
            run.write_json("test.json", about | summarize(result))
        yield monitor.Tested(split.name, result)


class _Training:
    """The steps of a training, and what is done between them."""

    def __init__(
        self, state: TrainState, execution: Execution, watchdog: monitor.Watchdog, done: int
    ) -> None:
        self.state, self.execution, self.watchdog, self.done = state, execution, watchdog, done
        self.run, self.recipe, self.context = state.run, state.run.config.recipe, state.context
        self.order = Order.of(self.recipe, len(state.data.train))
        history, seconds = state.history, execution.budget
        self.plan = Plan(self.order.steps(self.recipe.epochs))
        if history.plan:  # of a budget, kept by a run that goes on without one
            self.plan = Plan(*history.plan)
        self.budget = Budget(seconds, execution.begun, history.spent) if seconds else None
        if self.budget and self.budget.spent >= self.budget.seconds * (1 - SLACK):
            self.plan = self.plan.with_total(done, done)
        self.corruption = monitor.CorruptionTracker(self.recipe.max_corrupt * self.order.images)
        self.timer = monitor.DataTimer()
        self.micro = MicroBatch(None if execution.micro_batch == AUTO else execution.micro_batch)
        self.planned = 0  # times
        self.tracker: Tracker | None = None  # of the process that writes

    @property
    def total(self) -> int:
        """The last step, by the plan of now."""
        return min(self.plan.total, self.recipe.max_steps or self.plan.total)

    def take_steps(
        self, stop_signal: Callable[[], int]
    ) -> Generator[monitor.Event, None, monitor.Stopped | None]:
        """Take the steps; return why they stopped early, if they did."""
        state, recipe, order = self.state, self.recipe, self.order
        batches = local_batches(
            state, order, self.done, self._progress_at, self.corruption, self.timer
        )
        steps = train(
            state.layout.replica,
            state.optimizer,
            self._probe_memory(batches),
            recipe,
            self._rates,
            done=self.done,
            total=sys.maxsize,  # the plan may change
            dtype=state.dtype,
            check_loss=partial(monitor.check_loss, state.history, recipe.spike),
            micro=self.micro,
        )
        clock = monitor.Stopwatch()
        with contextlib.ExitStack() as stack:
            writer = stack.enter_context(CheckpointWriter(self.run.checkpoints))
            if self.context.is_main:
                self.tracker = open_tracker(self.execution.tracker, self.run.folder, self.done)
                stack.callback(self.tracker.close)
            state.layout.activations.sent = 0.0
            for step in steps:
                self.watchdog.progressed()
                writer.check()
                epoch = step.number / order.steps_per_epoch
                speed = clock.lap(recipe.batch_size)
                planned = yield from self._plan_again(step.number)
                last = step.number >= self.total
                yield from self.corruption.report()
                yield from self._remarks(step.number - self.done)
                if step.refused:
                    yield self._refuse(step)
                yield monitor.Progressed(step, self.total, epoch, recipe.batch_size, speed)
                if step.number % recipe.log_every == 0 or last:
                    self._log(step, epoch, speed)
                before = (step.number - 1) / order.steps_per_epoch
                best = False
                if epoch // recipe.validate_every > before // recipe.validate_every:
                    validated = self._validate(step.number, epoch)
                    best = state.history.best == step.number
                    yield validated
                    clock.restart()
                stop = self.context.all_reduce_max(stop_signal())
                due = planned or step.number % recipe.checkpoint_every == 0
                if stop or best or last or due:
                    if self.budget:
                        state.history.spent = self.budget.now_spent()
                    state.save(step.number, writer)
                    clock.restart()
                if last:
                    break
                if stop:
                    writer.wait()
                    return monitor.Stopped(step.number, stop)
            writer.wait()
        return None

    def _plan_again(self, step: int) -> Generator[monitor.Notice, None, bool]:
        """Lay the schedule into what is left of the budget; return whether it is time to save."""
        budget, taken, history = self.budget, step - self.done, self.state.history
        if not budget or not self.context.all_reduce_max(int(budget.is_due(taken))):
            return False
        if not budget.reserved:
            crops = self.recipe.test_crops
            budget.reserved = self.state.estimate_test_seconds(self.state.data.held_out, crops)
        fit = step + budget.count_steps_left(taken)
        total = min(self.order.steps(self.recipe.epochs), fit)
        self.plan = self.plan.with_total(-self.context.all_reduce_max(-max(step, total)), step)
        history.plan = astuple(self.plan)
        self.planned += 1
        text = budget.describe(
            self.plan, self.recipe.batch_size, self.order.steps_per_epoch, self.recipe.epochs
        )
        if text:
            yield monitor.Notice(text)
        return self.planned % PLANS_A_SAVE == 0

    def _rates(self, step: int) -> Rates:
        recipe = self.recipe
        reductions = count_reductions(
            self.state.history.errors, recipe.patience, recipe.max_reductions
        )
        return learning_rates_at(recipe, self._progress_at(step), reductions)

    def _progress_at(self, step: int) -> float:
        return self.plan.progress_at(step)

    def _probe_memory(self, batches: Iterator[LocalBatch]) -> Iterator[LocalBatch]:
        """See how many images fit before the first step, where it cannot be taken twice."""
        context, micro, layout = self.context, self.micro, self.state.layout
        several = context.world_size > 1
        if self.execution.layout == "data" and (several or self.execution.micro_batch == AUTO):
            first = next(batches)
            probe_batch_size(layout.replica, first, micro, self.recipe, self.state.dtype)
            if context.all_reduce_max(int(micro.size is not None)):
                micro.size = -context.all_reduce_max(-micro.of(len(first.labels)))
            batches = chain([first], batches)
        micro.fixed = several
        yield from batches

    def _remarks(self, taken: int) -> Iterator[monitor.Notice]:
        """Yield what is worth a remark after so many steps."""
        if report := self.micro.take_report():
            yield monitor.Notice(report)
        if self.tracker and (complaint := self.tracker.take_complaint()):
            yield monitor.Notice(f"{complaint} metrics.jsonl has them all.")
        if taken == TRAFFIC_STEPS and self.context.world_size > 1:
            layout = self.state.layout
            sent = layout.activations.sent / taken + layout.gradients
            yield monitor.Notice(
                f"Each of {self.context.world_size} processes sends {sent / 1e6:,.1f} MB a step; "
                f"with data parallelism it is {layout.in_data / 1e6:,.1f} MB."
            )
        if taken == WAIT_STEPS and (waiting := self.timer.waiting()) > MAX_WAITING:
            yield monitor.Notice(
                f"The network waits for images {waiting:.0%} of the time. Data prepared "
                "with --raw needs no decoding."
            )
        if taken == STUCK_STEPS:
            losses, guessing = self.state.history.losses, math.log(len(self.state.data.classes))
            if sum(losses) / len(losses) > 0.99 * guessing:
                yield monitor.Notice(STUCK)

    def _refuse(self, step: Step) -> monitor.Notice:
        """Write down the images of a refused batch; go on, or end with a `DivergedError`."""
        history = self.state.history
        history.refused += 1
        name = f"refused-{step.number:08}.json"
        if self.context.is_main:
            split = self.state.data.train
            images = [split.describe(int(index)) for index in self.order.indices(step.number - 1)]
            self.run.write_json(name, {"loss": repr(step.loss), "images": images})
        what = f"The loss {step.refused} at step {step.number}, at a learning rate of {step.lr:g}"
        stops = self.recipe.on_nan == "stop"
        if stops or history.refused >= MAX_REFUSED:
            leave_out = " --set on_nan=skip leaves such a batch out." if stops else ""
            raise DivergedError(
                f"{what}; the images of its batch are named in {str(self.run.folder / name)!r}.",
                "Train again into another --out at a lower rate (--lr). Pixels that are not 0-255 "
                f"less the mean, and weights too large at the start, do this as well.{leave_out}",
            )
        return monitor.Notice(
            f"{what}; this batch is left out, its images are named beside the metrics."
        )

    def _log(self, step: Step, epoch: float, speed: float | None) -> None:
        if not self.tracker:
            return
        loss = step.loss if math.isfinite(step.loss) else None  # JSON has no name for the others
        rate = {} if speed is None else {"images_per_second": round(speed, 1)}
        self.run.log_metrics(
            step=step.number,
            epoch=round(epoch, 4),
            loss=loss,
            train_top1=step.correct / step.images,
            lr=step.lr,
            **rate,
        )
        if loss is not None:
            self.tracker.add(step.number, loss=loss, lr=step.lr, **rate)

    def _validate(self, step: int, epoch: float) -> monitor.Validated:
        split, history = self.state.data.validation, self.state.history
        result = self.state.test(split, 1, self.watchdog.progressed)
        error = 1 - result.top1
        if error < min(history.errors, default=math.inf):
            history.best = step
        history.errors.append(error)
        if self.tracker:
            scores = {"val_top1": result.top1, "val_top5": result.top5}
            self.run.log_metrics(step=step, epoch=round(epoch, 4), **scores)
            self.tracker.add(step, **scores)
        return monitor.Validated(step, epoch, split.name, result, 1 - min(history.errors))


@contextlib.contextmanager
def catch_signals(max_time: float | None = None) -> Iterator[Callable[[], int]]:
    """Give a function that returns the SIGINT, SIGTERM or SIGUSR1 received in the block, or 0.

    Also SIGUSR1 when `max_time` seconds have passed. The first signal lets the step end and be
    saved; a second SIGINT interrupts at once.
    """
    received, begun = [0], time.monotonic()

    def remember(number: int, frame: object) -> None:
        received[0] = number
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def stop_signal() -> int:
        late = max_time is not None and time.monotonic() - begun > max_time
        return received[0] or (int(signal.SIGUSR1) if late else 0)

    with handle_signals((signal.SIGINT, signal.SIGTERM, signal.SIGUSR1), remember):
        yield stop_signal


@contextlib.contextmanager
def handle_signals(
    numbers: Sequence[signal.Signals], handler: Callable[[int, Any], None]
) -> Iterator[None]:
    """Handle signals within the block; outside the main thread there are none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, handled in zip(numbers, before, strict=True):
            signal.signal(number, handled)
