"""Images on the disk -> what the network sees of each batch in this process."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet import device as devices
from alexnet.data.augment import AugmentParams, augment, augment_fused, pca_shift
from alexnet.data.loader import Batch, train_batches
from alexnet.training.randomness import Order, make_generator, sample_params
from alexnet.training.trainee import TrainState
from alexnet.training.trainer import NOTHING, LocalBatch
from alexnet.training.watch import Damage, Waits


def shares(
    trainee: TrainState, order: Order, done: int, damage: Damage, waits: Waits
) -> Iterator[LocalBatch]:
    """Yield this process's part of each batch, from the step after `done` on, without end.

    What is random of a step is drawn for the whole batch, of which each process takes its part:
    an image is cropped and coloured the same whichever process has it. A part without images
    has one that counts for nothing, and so have all but the largest where they must be even.
    """
    spec, recipe, layout = trainee.run.config.spec, trainee.run.config.recipe, trainee.layout
    device = trainee.device
    zooms = recipe.crop_area is not None and device.type == "cpu"  # slower compiled
    fuses = recipe.compile and not zooms and not augment_fused(trainee.normalise, device)
    look = devices.compile_or_not(augment, device)[0] if fuses else augment
    beside = torch.cuda.Stream(device) if device.type == "cuda" else None
    batches = train_batches(
        trainee.data.splits["train"], order.batches(done, layout.part), order.replacements
    )
    for step, batch in enumerate(waits.timed(batches), start=done + 1):
        damage.count(batch)
        images, labels = copied(batch, device, beside)
        whole = len(order.indices(step - 1))
        first, stop = layout.part.range(whole)
        draws = sample_params(
            whole,
            trainee.data.manifest.size,
            spec.image_size,
            make_generator(recipe.seed, step),
            mirror=recipe.mirror,
            centred=recipe.crop == "centre",
            crop_area=recipe.crop_area,
        ).of(first, stop)
        noisy = step <= recipe.pca_jitter_until * order.steps(recipe.epochs)
        shift = _shift(trainee, draws) if noisy and recipe.pca_jitter else None
        pixels = look(
            images, draws.to(device), shift, trainee.normalise, recipe.pca_jitter_divisor,
            spec.image_size, trainee.kind,
        )  # fmt: skip
        room = -(-whole // layout.part.ranks) if layout.even else max(1, stop - first)
        yield LocalBatch(*filled(pixels, labels, room), first, whole)


def copied(
    batch: Batch, device: torch.device, beside: torch.cuda.Stream | None
) -> tuple[Tensor, Tensor]:
    """Copy a batch's images and labels to the device; to a GPU beside what it is computing.

    The loop asks for a batch while the GPU is at the last one's gradients; on a stream of its own
    the copy does not queue behind them.
    """
    if beside is None:
        return batch.images.to(device), batch.labels.to(device)
    with torch.cuda.stream(beside):
        images = batch.images.to(device, non_blocking=True)  # the loader's memory is pinned
        labels = batch.labels.to(device, non_blocking=True)
    now = torch.cuda.current_stream(device)
    now.wait_stream(beside)
    for one in (images, labels):
        one.record_stream(now)  # else the next copy could take its memory while it is read
    return images, labels


def _shift(trainee: TrainState, draws: AugmentParams) -> Tensor:
    recipe, statistics = trainee.run.config.recipe, trainee.data.statistics
    shift = pca_shift(draws.noise, statistics, recipe.pca_jitter, recipe.pca_axes)
    return devices.to_device(shift, trainee.device)


def filled(pixels: Tensor, labels: Tensor, room: int) -> tuple[Tensor, Tensor]:
    """Fill the places up to `room` with images that count for nothing.

    ``(N, 3, image, image)`` and ``(N,)`` to ``(room, 3, image, image)``, channels-last, and
    ``(room,)``.
    """
    if missing := room - len(labels):
        pixels = F.pad(pixels, (0, 0, 0, 0, 0, 0, 0, missing))
        labels = F.pad(labels, (0, missing), value=NOTHING)
    return pixels.contiguous(memory_format=torch.channels_last), labels
