"""Images on the disk -> what the network sees of each batch in this process."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.data.augment import augment, augment_fused, pca_shift
from alexnet.data.loader import train_batches
from alexnet.device import CopyStream
from alexnet.training.monitor import CorruptionTracker, DataTimer
from alexnet.training.randomness import Order, make_generator, sample_params
from alexnet.training.state import TrainState
from alexnet.training.trainer import IGNORE_INDEX, LocalBatch


def local_batches(
    state: TrainState,
    order: Order,
    done: int,
    progress_at: Callable[[int], float],
    corruption: CorruptionTracker,
    timer: DataTimer,
) -> Iterator[LocalBatch]:
    """Yield this process's part of each batch, from the step after `done` on, without end.

    What is random of a step is drawn for the whole batch, of which each process takes its part:
    an image is cropped and coloured the same whichever process has it. A part without images
    has one that counts for nothing, and so have all but the largest where they must be even.
    """
    spec, recipe, part = state.run.config.spec, state.run.config.recipe, state.layout.part
    device, split = state.device, state.data.train
    zooms = recipe.crop_area is not None and device.is_cpu  # slower compiled
    fuses = recipe.compile and not zooms and not augment_fused(state.normalise, device.torch)
    transform = device.compile(augment, state.dtype)[0] if fuses else augment
    stream = CopyStream(device)
    batches = train_batches(split, order.batches(done, part), order.replacements)
    for step, batch in enumerate(timer.time(batches), start=done + 1):
        corruption.count(batch)
        images, labels = stream.copy(batch.images, batch.labels)
        batch_size = len(order.indices(step - 1))
        first, stop = part.range(batch_size)
        params = sample_params(
            batch_size,
            state.data.manifest.size,
            spec.image_size,
            make_generator(recipe.seed, step),
            mirror=recipe.mirror,
            centred=recipe.crop == "centre",
            crop_area=recipe.crop_area,
        ).of(first, stop)
        shift = None
        if recipe.pca_jitter and progress_at(step + 1) <= recipe.pca_jitter_until:
            statistics = state.data.statistics
            shift = pca_shift(params.noise, statistics, recipe.pca_jitter, recipe.pca_axes)
            shift = device.to_device(shift)
        pixels = transform(
            images, params.to(device.torch), shift, state.normalise, recipe.pca_jitter_divisor,
            spec.image_size, state.dtype,
        )  # fmt: skip
        room = -(-batch_size // part.ranks) if state.layout.even else max(1, stop - first)
        yield LocalBatch(*pad(pixels, labels, room), first, batch_size)


def pad(pixels: Tensor, labels: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Fill a batch up to `length` with images that count for nothing.

    ``(N, 3, size, size)`` and ``(N,)`` to ``(length, 3, size, size)``, channels-last, and
    ``(length,)``.
    """
    if missing := length - len(labels):
        pixels = F.pad(pixels, (0, 0, 0, 0, 0, 0, 0, missing))
        labels = F.pad(labels, (0, missing), value=IGNORE_INDEX)
    return pixels.contiguous(memory_format=torch.channels_last), labels
