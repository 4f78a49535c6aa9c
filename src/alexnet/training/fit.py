"""One training from a prepared data set to a tested network: when to log, validate, save, stop.

`fit` is a generator of what happens, so that a screen, a test or a notebook can watch it without
the loop knowing them.
"""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial

from alexnet.data.shards import PreparedData
from alexnet.errors import DivergedError
from alexnet.evaluation import summary
from alexnet.recipes import Recipe
from alexnet.training.board import Board
from alexnet.training.checkpoint import Writer, clear_leftovers
from alexnet.training.distributed import DistributedContext
from alexnet.training.events import Event, Notice, Progressed, Stopped, Tested, Validated
from alexnet.training.execution import AUTO, Execution
from alexnet.training.feed import shares
from alexnet.training.memory import MicroBatch
from alexnet.training.optimizer import Rates, count_plateaus, learning_rates_at
from alexnet.training.randomness import Order
from alexnet.training.run import Run
from alexnet.training.trainee import TrainState, restored
from alexnet.training.trainer import LocalBatch, Step, rehearse, train
from alexnet.training.watch import Damage, Stopwatch, Waits, judged
from alexnet.training.watchdog import Watchdog, watched

ALONE, PLAIN = DistributedContext(), Execution()
WAIT_STEPS = 200  # after which too much waiting for images is remarked on
TOO_LONG = 0.1  # share of the time
TRAFFIC_STEPS = 20  # after which what the processes send each other is told
MOST_REFUSED = 10  # losses in a row that may be refused
STUCK_STEPS = 2000  # after which a loss that is still that of guessing is remarked on


def fit(
    run: Run, data: PreparedData, ranks: DistributedContext = ALONE, execution: Execution = PLAIN
) -> Iterator[Event]:
    """Train a run from its newest checkpoint, or from its initial weights, to its end.

    Parameters
    ----------
    run
        Its folder must be the same for every process; rank 0 alone writes there.
    data
        What it trains on.
    ranks
        This process among those of the training.
    execution
        How they share the work, and when they stop.

    Yields
    ------
    Event
        Each update, validation and notice; last a `Tested` or a `Stopped`.

    Raises
    ------
    TrainingError
        When the loss is no number any more, or memory does not do.
    RunError
        When the run has checkpoints and none of them is good, or another process trains it.
    """
    with contextlib.ExitStack() as stack:
        if ranks.first:
            stack.enter_context(run.locked())
            clear_leftovers(run.checkpoints)
        watchdog = stack.enter_context(watched(ranks, execution.timeout, run.folder))
        with asked_to_stop(execution.max_time) as asked:
            trainee, start, complaint = restored(run, data, ranks, execution)
            yield from (Notice(f"{text}; an older one is used.") for text in start.passed_over)
            if complaint:
                yield Notice(complaint)
            order = Order.of(run.config.recipe, len(data.splits["train"]))
            total = _total(run.config.recipe, order)
            if start.step:
                yield Notice(f"Going on after step {start.step:,} of {total:,}.")
            if ranks.first:
                run.forget_after(start.step)
            if start.step < total:
                steps = _train(trainee, order, start.step, total, execution, asked, watchdog)
                if stopped := (yield from steps):
                    yield stopped
                    return
        split = data.held_out  # everything is saved: a signal may end the test at once
        result = trainee.test(split, run.config.recipe.test_crops, watchdog.progressed)
        if ranks.first:
            run.write_json("test.json", {"split": split.name, **summary(result)})
        yield Tested(split.name, result)


def _total(recipe: Recipe, order: Order) -> int:
    planned = order.steps(recipe.epochs)
    return min(planned, recipe.max_steps or planned)


def _train(
    trainee: TrainState,
    order: Order,
    done: int,
    total: int,
    execution: Execution,
    asked: Callable[[], int],
    watchdog: Watchdog,
) -> Generator[Event, None, Stopped | None]:
    """Take the steps; return why they stopped early, if they did."""
    run, recipe, ranks = trainee.run, trainee.run.config.recipe, trainee.ranks
    damage, waits = Damage(recipe.max_corrupt * order.images), Waits()
    feed = shares(trainee, order, done, damage, waits)
    micro = MicroBatch(None if execution.micro_batch == AUTO else execution.micro_batch)
    feed = _rehearsed(trainee, feed, micro, execution)
    planned = order.steps(recipe.epochs)
    steps = train(
        trainee.layout.replica,
        trainee.optimizer,
        feed,
        recipe,
        partial(_rates, recipe, planned, trainee.history.errors),
        done=done,
        total=total,
        kind=trainee.kind,
        judge=partial(judged, trainee.history, recipe.spike),
        micro=micro,
    )
    clock = Stopwatch()
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(Writer(run.checkpoints))
        board = stack.enter_context(Board(run.folder, done)) if ranks.first else None
        trainee.layout.activations.sent = 0.0
        for step in steps:
            watchdog.progressed()
            writer.check()
            epoch = step.number / order.steps_per_epoch
            speed = clock.lap(recipe.batch_size)
            yield from damage.news()
            yield from _remarks(trainee, step.number - done, waits, micro)
            if step.refused:
                yield _refused(trainee, order, step)
            yield Progressed(step, total, epoch, recipe.batch_size, speed)
            if board and (step.number % recipe.log_every == 0 or step.number == total):
                _log(run, board, step, epoch, speed)
            before = (step.number - 1) / order.steps_per_epoch
            best = False
            if epoch // recipe.validate_every > before // recipe.validate_every:
                validated = _validated(trainee, board, step.number, epoch, watchdog)
                best = trainee.history.best == step.number
                yield validated
                clock.restart()
            stop = ranks.most(asked())
            last = step.number == total
            if stop or best or last or step.number % recipe.checkpoint_every == 0:
                trainee.save(step.number, writer)
                clock.restart()
            if stop and not last:
                writer.wait()
                return Stopped(step.number, stop)
        writer.wait()
    return None


def _rehearsed(
    trainee: TrainState, feed: Iterator[LocalBatch], micro: MicroBatch, execution: Execution
) -> Iterator[LocalBatch]:
    """See how many images fit before the first step, where it cannot be taken twice."""
    ranks, replica = trainee.ranks, trainee.layout.replica
    micro.fixed = ranks.ranks > 1
    if execution.layout != "data" or not (ranks.ranks > 1 or execution.micro_batch == AUTO):
        yield from feed
        return
    first = next(feed)
    micro.fixed = False
    rehearse(replica, first, micro, trainee.run.config.recipe, trainee.kind)
    if ranks.most(int(micro.size is not None)):
        micro.size = -ranks.most(-micro.of(len(first.labels)))
    micro.fixed = ranks.ranks > 1
    yield first
    yield from feed


def _remarks(trainee: TrainState, taken: int, waits: Waits, micro: MicroBatch) -> Iterator[Notice]:
    """Yield what is worth a remark after so many steps."""
    if news := micro.news():
        yield Notice(news)
    if taken == TRAFFIC_STEPS and trainee.ranks.ranks > 1:
        layout = trainee.layout
        sent = layout.activations.sent / taken + layout.gradients
        yield Notice(
            f"Each of {trainee.ranks.ranks} processes sends {sent / 1e6:,.1f} MB a step; "
            f"with data parallelism it is {layout.in_data / 1e6:,.1f} MB."
        )
    if taken == WAIT_STEPS and waits.share() > TOO_LONG:
        yield Notice(
            f"The network waits for images {waits.share():.0%} of the time. Data prepared "
            "with --raw needs no decoding."
        )
    losses = trainee.history.losses
    if taken == STUCK_STEPS and _stuck(losses, len(trainee.data.classes)):
        yield Notice(STUCK)


def _refused(trainee: TrainState, order: Order, step: Step) -> Notice:
    """Write down the images of a batch whose loss was refused; go on, or end.

    Raises
    ------
    DivergedError
        When the recipe says so, or too many in a row were refused.
    """
    run, recipe, history = trainee.run, trainee.run.config.recipe, trainee.history
    history.refused += 1
    if trainee.ranks.first:
        split = trainee.data.splits["train"]
        images = [split.where(int(number)) for number in order.indices(step.number - 1)]
        run.write_json(
            f"refused-{step.number:08}.json", {"loss": repr(step.loss), "images": images}
        )
    what = f"The loss {step.refused} at step {step.number}, at a learning rate of {step.lr:g}"
    if recipe.on_nan == "stop" or history.refused >= MOST_REFUSED:
        raise DivergedError(
            f"{what}; the images of its batch are named in "
            f"{str(run.folder / f'refused-{step.number:08}.json')!r}.",
            "Train again into another --out at a lower rate (--lr). Pixels that are not 0-255 "
            "less the mean, and weights too large at the start, do this as well. "
            "--set on_nan=skip leaves such a batch out.",
        )
    return Notice(f"{what}; this batch is left out, its images are named beside the metrics.")


STUCK = (
    "The loss is still that of guessing. What has helped: biases of 1 in conv2, conv4, conv5, fc6 "
    "and fc7; standard deviations of 0.03 in conv3 to conv5; pixels of 0-255 less the mean; "
    "another rate (--set lr=...)."
)


def _stuck(losses: Sequence[float], classes: int) -> bool:
    """Whether the mean loss is within a hundredth of that of equal probabilities."""
    return sum(losses) / len(losses) > 0.99 * math.log(classes)


def _log(run: Run, board: Board, step: Step, epoch: float, speed: float) -> None:
    loss = step.loss if math.isfinite(step.loss) else None  # JSON has no name for the others
    run.log(
        step=step.number,
        epoch=round(epoch, 4),
        loss=loss,
        train_top1=step.correct / step.images,
        lr=step.lr,
        images_per_second=round(speed, 1),
    )
    if loss is not None:
        board.add(step.number, loss=loss, lr=step.lr, images_per_second=speed)


def _validated(
    trainee: TrainState, board: Board | None, step: int, epoch: float, watchdog: Watchdog
) -> Validated:
    split, history = trainee.data.validation, trainee.history
    result = trainee.test(split, 1, watchdog.progressed)
    error = 1 - result.top1
    if error < min(history.errors, default=math.inf):
        history.best = step
    history.errors.append(error)
    if board:
        trainee.run.log(
            step=step, epoch=round(epoch, 4), val_top1=result.top1, val_top5=result.top5
        )
        board.add(step, val_top1=result.top1, val_top5=result.top5)
    return Validated(step, epoch, split.name, result, 1 - min(history.errors))


def _rates(recipe: Recipe, planned: int, errors: Sequence[float], step: int) -> Rates:
    plateaus = count_plateaus(errors, recipe.patience, recipe.max_reductions)
    return learning_rates_at(recipe, (step - 1) / planned, plateaus)


@contextlib.contextmanager
def asked_to_stop(max_time: float | None = None) -> Iterator[Callable[[], int]]:
    """Give a function that returns the SIGINT, SIGTERM or SIGUSR1 received in the block, or 0.

    Also SIGUSR1 when `max_time` seconds have passed. The first signal lets the step end and be
    saved; a second SIGINT interrupts at once.
    """
    received, begun = [0], time.monotonic()

    def remember(number: int, frame: object) -> None:
        received[0] = number
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def asked() -> int:
        late = max_time is not None and time.monotonic() - begun > max_time
        return received[0] or (int(signal.SIGUSR1) if late else 0)

    if threading.current_thread() is not threading.main_thread():  # no signals there
        yield asked
        return
    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = [signal.signal(number, remember) for number in handled]
    try:
        yield asked
    finally:
        for number, handler in zip(handled, before, strict=True):
            signal.signal(number, handler)
