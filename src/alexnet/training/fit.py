"""One training from a prepared data set to a tested network: when to log, validate, save, stop.

`fit` is a generator of what happens, so that a screen, a test or a notebook can watch it without
the loop knowing them.
"""

import contextlib
import math
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from alexnet import machine
from alexnet.data.augment import Normaliser, colour_shift, crops, draw, normaliser
from alexnet.data.loader import evaluation_batches, training_batches
from alexnet.data.order import Order
from alexnet.data.shards import PreparedData, Split
from alexnet.evaluation import Evaluation, evaluate, probabilities, summary
from alexnet.network import AlexNet, build
from alexnet.recipes import Recipe
from alexnet.training.board import Board
from alexnet.training.checkpoint import Checkpoint, save_checkpoint
from alexnet.training.events import Event, Notice, Progressed, Stopped, Tested, Validated
from alexnet.training.optimizer import Rates, count_plateaus, make_optimizer, rates_at
from alexnet.training.run import Run
from alexnet.training.trainer import Step, step_seed, train
from alexnet.training.watch import Damage, Stopwatch, Waits

EVALUATION_BATCH = 64  # images; ten views of each are taken one after another
WAIT_STEPS = 200  # after which too much waiting for images is remarked on
TOO_LONG = 0.1  # share of the time
STUCK_STEPS = 2000  # after which a loss that is still that of guessing is remarked on


@dataclass(frozen=True, slots=True)
class Trainee:
    """A network in training, and what it needs to be saved and tested."""

    run: Run
    data: PreparedData
    network: AlexNet
    optimizer: torch.optim.SGD
    normalise: Normaliser
    device: torch.device
    kind: torch.dtype  # of the matrix products
    errors: list[float]  # of every validation so far; the plateau schedule is a function of them

    def save(self, step: int) -> None:
        """Write a checkpoint of this moment."""
        state = {"optimizer": self.optimizer.state_dict(), "errors": self.errors}
        save_checkpoint(self.run.checkpoints, step, self.network.state_dict(), state)

    def test(self, split: Split, views: int) -> Evaluation:
        """Test the network as it is now."""
        self.network.eval()
        predict = partial(
            probabilities,
            self.network,
            normalise=self.normalise,
            size=self.run.config.spec.image,
            count=views,
            kind=self.kind,
        )
        batches = evaluation_batches(split, EVALUATION_BATCH)
        result = evaluate(predict, batches, self.data.classes, views=views, device=self.device)
        self.network.train()
        return result


def fit(run: Run, data: PreparedData) -> Iterator[Event]:
    """Train a run from its newest checkpoint, or from its initial weights, to its end.

    Yields
    ------
    Event
        Each update, validation and notice; last a `Tested` or a `Stopped`.

    Raises
    ------
    TrainingError
        When the loss is no number any more.
    RunError
        When the run has checkpoints and none of them is good.
    """
    recipe = run.config.recipe
    order = training_order(recipe, len(data.splits["train"]))
    planned = order.steps(recipe.epochs)
    total = min(planned, recipe.max_steps or planned)
    trainee, start = _restored(run, data)
    yield from (Notice(f"{text}; an older one is used.") for text in start.passed_over)
    if start.step:
        yield Notice(f"Going on after step {start.step:,} of {total:,}.")
    run.forget_after(start.step)
    if start.step < total:
        stopped = yield from _train(trainee, order, start.step, total)
        if stopped:
            yield stopped
            return
    split = data.held_out
    result = trainee.test(split, views=10)
    run.write_json("test.json", {"split": split.name, **summary(result)})
    yield Tested(split.name, result)


def training_order(recipe: Recipe, images: int) -> Order:
    """Return the order in which a recipe takes the training images."""
    return Order(images, recipe.batch_size, recipe.seed, recipe.last_batch)


def _restored(run: Run, data: PreparedData) -> tuple[Trainee, Checkpoint]:
    """Return the network as the newest checkpoint has it, or with its initial weights."""
    spec, recipe = run.config.spec, run.config.recipe
    device = machine.best_device()
    machine.keep_freed_memory()
    machine.use_threads(recipe.threads)
    start = run.newest() or Checkpoint(0, {}, {})
    network = build(spec, seed=None if start.step else recipe.seed)
    if start.step:
        network.load_state_dict(start.weights)
    network = machine.placed(network, device)
    optimizer = make_optimizer(network, recipe)
    if start.step:
        optimizer.load_state_dict(start.state["optimizer"])
    trainee = Trainee(
        run,
        data,
        network,
        optimizer,
        normaliser(spec.pixels, data.statistics, spec.image, device),
        device,
        machine.chosen_type(recipe.precision, device),
        list(start.state.get("errors", [])),
    )
    return trainee, start


def _train(
    trainee: Trainee, order: Order, done: int, total: int
) -> Generator[Event, None, Stopped | None]:
    """Take the steps; return why they stopped early, if they did."""
    run, recipe, data = trainee.run, trainee.run.config.recipe, trainee.data
    forward: Callable[[Tensor], Tensor] = trainee.network
    if recipe.compile:
        forward, complaint = machine.compile_or_not(forward, trainee.device)
        if complaint:
            yield Notice(complaint)
    planned = order.steps(recipe.epochs)
    damage, waits = Damage(recipe.max_damaged * order.images), Waits()
    steps = train(
        forward,
        trainee.optimizer,
        _pixels(trainee, order, done, damage, waits),
        recipe,
        partial(_rates, recipe, planned, trainee.errors),
        done=done,
        total=total,
        kind=trainee.kind,
    )
    trainee.network.train()
    recent: deque[float] = deque(maxlen=200)
    clock = Stopwatch()
    with asked_to_stop() as asked, Board(run.folder, done) as board:
        for step in steps:
            epoch = step.number / order.steps_an_epoch
            speed = clock.lap(recipe.batch_size)
            recent.append(step.loss)
            yield from damage.news()
            if step.number - done == WAIT_STEPS and waits.share() > TOO_LONG:
                yield Notice(
                    f"The network waits for images {waits.share():.0%} of the time. Data prepared "
                    "with --raw needs no decoding."
                )
            yield Progressed(step, total, epoch, recipe.batch_size, speed)
            if step.number % recipe.log_every == 0 or step.number == total:
                _log(run, board, step, epoch, speed)
            if step.number == STUCK_STEPS and _stuck(recent, len(data.classes)):
                yield Notice(STUCK)
            before = (step.number - 1) / order.steps_an_epoch
            if epoch // recipe.validate_every > before // recipe.validate_every:
                yield _validated(trainee, board, step.number, epoch)
                clock.restart()
            stop = asked()
            if stop or step.number == total or step.number % recipe.checkpoint_every == 0:
                trainee.save(step.number)
                clock.restart()
            if stop:
                return Stopped(step.number, stop)
    return None


STUCK = (
    "The loss is still that of guessing. What has helped: biases of 1 in conv2, conv4, conv5, fc6 "
    "and fc7; standard deviations of 0.03 in conv3 to conv5; pixels of 0-255 less the mean; "
    "another rate (--set lr=...)."
)


def _stuck(losses: Sequence[float], classes: int) -> bool:
    """Whether the mean loss is within a hundredth of that of equal probabilities."""
    return sum(losses) / len(losses) > 0.99 * math.log(classes)


def _log(run: Run, board: Board, step: Step, epoch: float, speed: float) -> None:
    run.log(
        step=step.number,
        epoch=round(epoch, 4),
        loss=step.loss,
        train_top1=step.correct / step.images,
        lr=step.lr,
        images_per_second=round(speed, 1),
    )
    board.add(step.number, loss=step.loss, lr=step.lr, images_per_second=speed)


def _validated(trainee: Trainee, board: Board, step: int, epoch: float) -> Validated:
    split = trainee.data.validation
    result = trainee.test(split, views=1)
    trainee.errors.append(1 - result.top1)
    trainee.run.log(step=step, epoch=round(epoch, 4), val_top1=result.top1, val_top5=result.top5)
    board.add(step, val_top1=result.top1, val_top5=result.top5)
    return Validated(step, epoch, split.name, result, 1 - min(trainee.errors))


def _rates(recipe: Recipe, planned: int, errors: Sequence[float], step: int) -> Rates:
    plateaus = count_plateaus(errors, recipe.patience, recipe.max_drops)
    return rates_at(recipe, (step - 1) / planned, plateaus)


def _pixels(
    trainee: Trainee, order: Order, done: int, damage: Damage, waits: Waits
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield what the network sees and the labels, from the step after `done` on."""
    spec, recipe = trainee.run.config.spec, trainee.run.config.recipe
    statistics, planned = trainee.data.statistics, order.steps(recipe.epochs)
    batches = waits.timed(training_batches(trainee.data.splits["train"], order, done))
    for step, batch in enumerate(batches, start=done + 1):
        damage.count(batch)
        draws = draw(
            len(batch.labels),
            batch.images.shape[1],
            spec.image,
            torch.Generator().manual_seed(step_seed(recipe.seed, step)),
            mirror=recipe.mirror,
            crop_area=recipe.crop_area,
        )
        images = batch.images.to(trainee.device, non_blocking=True)
        pixels = crops(images, draws, spec.image)
        noisy = recipe.colour_noise > 0 and step <= recipe.colour_noise_until * planned
        if noisy:
            shift = colour_shift(draws.noise, statistics, recipe.colour_noise)
            pixels = pixels + shift.to(trainee.device)
        pixels = trainee.normalise(pixels)
        if noisy and recipe.colour_noise_divisor != 1:
            pixels = pixels / recipe.colour_noise_divisor
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        yield pixels, batch.labels.to(trainee.device)


@contextlib.contextmanager
def asked_to_stop() -> Iterator[Callable[[], int]]:
    """Give a function that returns the SIGINT or SIGTERM received in the block, or 0.

    The first one lets the step end and be saved; a second SIGINT interrupts at once.
    """
    received = [0]

    def remember(number: int, frame: object) -> None:
        received[0] = number
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():  # no signals there
        yield lambda: 0
        return
    handled = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, remember) for number in handled]
    try:
        yield lambda: received[0]
    finally:
        for number, handler in zip(handled, before, strict=True):
            signal.signal(number, handler)
