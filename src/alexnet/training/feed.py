"""Images on the disk -> what the network sees of each batch in this process."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.data.augment import Draws, colour_shift, crops, draw
from alexnet.data.loader import training_batches
from alexnet.data.order import Order
from alexnet.training.trainee import Trainee
from alexnet.training.trainer import NOTHING, Share, step_seed
from alexnet.training.watch import Damage, Waits


def shares(
    trainee: Trainee, order: Order, done: int, damage: Damage, waits: Waits
) -> Iterator[Share]:
    """Yield this process's part of each batch, from the step after `done` on, without end.

    What is random of a step is drawn for the whole batch, of which each process takes its part:
    an image is cropped and coloured the same whichever process has it. A part without images
    has one that counts for nothing, and so have all but the largest where they must be even.
    """
    spec, recipe, layout = trainee.run.config.spec, trainee.run.config.recipe, trainee.layout
    batches = training_batches(trainee.data.splits["train"], order, done, layout.part)
    for step, batch in enumerate(waits.timed(batches), start=done + 1):
        damage.count(batch)
        whole = len(order.numbers(step - 1))
        first, stop = layout.part.range(whole)
        draws = draw(
            whole,
            trainee.data.manifest.size,
            spec.image,
            torch.Generator().manual_seed(step_seed(recipe.seed, step)),
            mirror=recipe.mirror,
            centred=recipe.crop == "centre",
            crop_area=recipe.crop_area,
        ).of(first, stop)
        images = batch.images.to(trainee.device, non_blocking=True)
        noisy = recipe.colour_noise > 0 and step <= recipe.colour_noise_until * order.steps(
            recipe.epochs
        )
        pixels = _seen(trainee, images, draws, noisy=noisy)
        labels = batch.labels.to(trainee.device, non_blocking=True)
        room = -(-whole // layout.part.ranks) if layout.even else max(1, stop - first)
        yield Share(*filled(pixels, labels, room), first, whole)


def _seen(trainee: Trainee, images: Tensor, draws: Draws, *, noisy: bool) -> Tensor:
    """Cut, mirror, colour and normalise: uint8 images to the network's pixels."""
    recipe, size = trainee.run.config.recipe, trainee.run.config.spec.image
    if not len(images):
        return images.new_empty(0, 3, size, size, dtype=torch.float32)
    pixels = crops(images, draws, size)
    if noisy:
        statistics = trainee.data.statistics
        shift = colour_shift(draws.noise, statistics, recipe.colour_noise, recipe.colour_axes)
        pixels = pixels + shift.to(trainee.device)
    pixels = trainee.normalise(pixels)
    return pixels / recipe.colour_noise_divisor if noisy else pixels


def filled(pixels: Tensor, labels: Tensor, room: int) -> tuple[Tensor, Tensor]:
    """Fill the places up to `room` with images that count for nothing.

    ``(N, 3, image, image)`` and ``(N,)`` to ``(room, 3, image, image)``, channels-last, and
    ``(room,)``.
    """
    if missing := room - len(labels):
        pixels = F.pad(pixels, (0, 0, 0, 0, 0, 0, 0, missing))
        labels = F.pad(labels, (0, missing), value=NOTHING)
    return pixels.contiguous(memory_format=torch.channels_last), labels
