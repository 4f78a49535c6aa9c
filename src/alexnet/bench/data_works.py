"""What is measured of the data path: preparing photographs, and loading them for training.

Everything runs with freed memory kept in the process, the peers too.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from alexnet.bench.contender import Contender, Setting, Timed, Work
from alexnet.data.archives import is_image, list_folder, read_file
from alexnet.data.decode import decode_jpeg, inspect_image, resize_and_crop
from alexnet.data.loader import evaluation_batches
from alexnet.data.prepare import Options, ShardTask, make_shard
from alexnet.data.samples import SampleIndex
from alexnet.data.shards import ShardInfo, Split
from alexnet.errors import DataError

LOADED = 8192  # images of a round
OPENED = 1024  # images of a round of the ImageFolder peer, at most
CROP = 227  # pixels, of the ImageFolder peer


def photographs(setting: Setting) -> SampleIndex:
    """Return the photographs that the benchmark was given.

    Raises
    ------
    DataError
        When it was given none, or the folder holds none.
    """
    if setting.images is None:
        raise DataError("No photographs to measure with were named.", "Add --images FOLDER.")
    found = [(place, 0) for place in list_folder(setting.images) if is_image(place)]
    if not found:
        raise DataError(f"{str(setting.images)!r} has no images.", "Name a folder of JPEG files.")
    return SampleIndex.of(read_file, found)


def taken(samples: SampleIndex, images: int) -> SampleIndex:
    """Return so many of some images, from its start again where it ends."""
    return samples.take(np.resize(np.arange(len(samples)), images))


def prepare_work(setting: Setting) -> Work:
    """Return the preparation of photographs on one core, from the files to a written shard.

    ``decode+resize`` is the same decoder and resampler alone: nothing encoded, summed or written.
    ``pillow`` is the usual script: open, convert, resize, crop, save.
    """
    makers = {"ours": our_shard, "decode+resize": decoded_and_resized, "pillow": pillow}
    return _work(setting, "images/s a core", makers)


def loader_work(setting: Setting) -> Work:
    """Return the loading of training batches, decoded 256x256 images, over all cores.

    ``libjpeg-turbo`` decodes the same bytes in one thread, times the cores. ``imagefolder`` is
    PyTorch's DataLoader over the original files, with as many worker processes.
    """
    makers = {"ours": our_loader, "libjpeg-turbo": bare_decoder, "imagefolder": imagefolder}
    return _work(setting, "images/s", makers)


def _work(setting: Setting, unit: str, makers: Mapping[str, Callable[[Setting], Timed]]) -> Work:
    contenders = (Contender(name, make, keeps_memory=True) for name, make in makers.items())
    return Work(setting=setting, unit=unit, contenders=tuple(contenders))


def our_shard(setting: Setting) -> Timed:
    """Return one task of `alexnet prepare`."""
    items = taken(photographs(setting), Options().shard_images)
    task = ShardTask(setting.scratch / "prepare-00000.arrow", items, Options())
    return Timed(lambda: make_shard(task), len(items))


def decoded_and_resized(setting: Setting) -> Timed:
    """Return our decoder and resampler alone."""
    items = taken(photographs(setting), Options().shard_images)

    def run() -> None:
        for item in items:
            np.asarray(resize_and_crop(inspect_image(item.read()).image, 256))

    return Timed(run, len(items))


def pillow(setting: Setting) -> Timed:
    """Return the usual script."""
    items = taken(photographs(setting), Options().shard_images)

    def run() -> None:
        for item in items:
            with Image.open(Path(items.files[0], item.path)) as file:
                image = _resized(file.convert("RGB"))
            left, top = (image.width - 256) // 2, (image.height - 256) // 2
            image = image.crop((left, top, left + 256, top + 256))
            image.save(setting.scratch / "pillow.jpg", quality=95)

    return Timed(run, len(items))


def our_loader(setting: Setting) -> Timed:
    """Return our batches, once through all images."""
    split = loaded(setting)

    def run() -> None:
        for _ in evaluation_batches(split, setting.batch_size):
            pass

    return Timed(run, len(split))


def bare_decoder(setting: Setting) -> Timed:
    """Return the decoder alone, in one thread, as if every core had one like it."""
    split, cores = loaded(setting), os.cpu_count() or 1
    encoded = [split[number].image for number in range(0, len(split), cores)]

    def run() -> None:
        for data in encoded:
            decode_jpeg(data)

    return Timed(run, len(encoded) * cores)


def imagefolder(setting: Setting) -> Timed:
    """Return PyTorch's loader, once through at most `OPENED` images."""
    items = taken(photographs(setting), OPENED)
    files = [Path(items.files[0], item.path) for item in items]
    cores = os.cpu_count() or 1
    loader = DataLoader(
        ImageFolderLike(files), setting.batch_size, num_workers=cores, persistent_workers=True
    )

    def run() -> None:
        for _ in loader:
            pass

    return Timed(run, len(files))


def loaded(setting: Setting) -> Split:
    """Return the photographs prepared, `LOADED` of them; the first who asks prepares them."""
    samples = taken(photographs(setting), LOADED)
    task = ShardTask(setting.scratch / "loader-00000.arrow", samples, Options())
    made = task.read_metadata()[1] if task.is_done() else make_shard(task)
    info = ShardInfo(task.shard.name, made["images"], made["bytes"], made["sha256"])
    return Split("loader", setting.scratch, (info,), 256, raw=False)


def _resized(image: Image.Image) -> Image.Image:
    scale = 256 / min(image.size)
    size = (max(256, round(image.width * scale)), max(256, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BILINEAR)


class ImageFolderLike(Dataset[Tensor]):
    """The usual training data set: a file is opened, resized, cropped, mirrored, normalised."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files
        self.mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
        self.stdev = torch.tensor([0.229, 0.224, 0.225])[:, None, None]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.files[index]) as file:
            image = _resized(file.convert("RGB"))
        top = int(torch.randint(image.height - CROP + 1, ()))
        left = int(torch.randint(image.width - CROP + 1, ()))
        image = image.crop((left, top, left + CROP, top + CROP))
        if torch.rand(()) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        return (pixels.float() / 255 - self.mean) / self.stdev
