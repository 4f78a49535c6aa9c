"""The suites on data: preparing photographs, and loading them for training.

Everything runs with freed memory kept in the process, the peers too.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from alexnet.bench.cases import BenchSettings, Case, Suite, TimedCall
from alexnet.data.archives import is_image, list_folder, read_file
from alexnet.data.decode import decode_jpeg, inspect_image, resize_and_crop
from alexnet.data.loader import evaluation_batches
from alexnet.data.prepare import Options, ShardTask, make_shard, prepare_image
from alexnet.data.samples import SampleIndex
from alexnet.data.shards import Split
from alexnet.errors import DataError

LOADED = 8192  # images of a round
OPENED = 1024  # images of a round of the ImageFolder peer, at most
CROP = 227  # pixels, of the ImageFolder peer
JPEGS = 256  # images decoded in a call of the limit


def make_prepare_suite(settings: BenchSettings) -> Suite:
    """Return the preparation of photographs on one core, from the files to a written shard.

    ``decode+resize`` is the same decoder and resampler alone: nothing encoded, summed or written.
    ``pillow`` is the usual script: open, convert, resize, crop, save.
    """
    cases = {"ours": time_prepare, "decode+resize": time_decode_and_resize, "pillow": time_pillow}
    return Suite(settings=settings, unit="images/s a core", cases=_keep_memory(cases))


def make_loader_suite(settings: BenchSettings) -> Suite:
    """Return the loading of training batches, decoded 256x256 images, over all cores.

    ``libjpeg-turbo`` decodes the same bytes in one thread, times the cores. ``imagefolder`` is
    PyTorch's DataLoader over the original files, with as many worker processes.
    """
    peers = {"libjpeg-turbo": time_bare_decoder, "imagefolder": time_imagefolder}
    cases = _keep_memory({"ours": time_loader, **peers})
    return Suite(settings=settings, unit="images/s", cases=cases)


def _keep_memory(cases: Mapping[str, Callable[[BenchSettings], TimedCall]]) -> tuple[Case, ...]:
    return tuple(Case(name, make, keeps_memory=True) for name, make in cases.items())


def list_photographs(settings: BenchSettings, count: int) -> SampleIndex:
    """Return so many of the photographs, from the first again; `DataError` where there are none."""
    if settings.images is None:
        raise DataError("No photographs to measure with were named.", "Add --images FOLDER.")
    found = [(place, 0) for place in list_folder(settings.images).files if is_image(place)]
    if not found:
        raise DataError(f"{str(settings.images)!r} has no images.", "Name a folder of JPEG files.")
    return SampleIndex.of(read_file, found).take(np.resize(np.arange(len(found)), count))


def time_prepare(settings: BenchSettings) -> TimedCall:
    """Return one task of `alexnet prepare`."""
    samples = list_photographs(settings, Options().shard_images)
    task = ShardTask(settings.scratch / "prepare-00000.arrow", samples, Options())
    return TimedCall(lambda: make_shard(task), len(samples))


def time_decode_and_resize(settings: BenchSettings) -> TimedCall:
    """Return our decoder and resampler alone."""
    samples = list_photographs(settings, Options().shard_images)

    def run() -> None:
        for sample in samples:
            np.asarray(resize_and_crop(inspect_image(sample.read()).image, 256))

    return TimedCall(run, len(samples))


def time_pillow(settings: BenchSettings) -> TimedCall:
    """Return the usual script."""
    samples = list_photographs(settings, Options().shard_images)

    def run() -> None:
        for sample in samples:
            with Image.open(Path(samples.files[0], sample.path)) as file:
                image = _resize_shorter_side(file.convert("RGB"))
            left, top = (image.width - 256) // 2, (image.height - 256) // 2
            image = image.crop((left, top, left + 256, top + 256))
            image.save(settings.scratch / "pillow.jpg", quality=95)

    return TimedCall(run, len(samples))


def time_loader(settings: BenchSettings) -> TimedCall:
    """Return our batches, once through all images."""
    split = open_loaded_split(settings)
    return TimedCall(lambda: _exhaust(evaluation_batches(split, settings.batch_size)), len(split))


def time_bare_decoder(settings: BenchSettings) -> TimedCall:
    """Return the decoder alone, in one thread, as if every core had one like it."""
    split, cores = open_loaded_split(settings), os.cpu_count() or 1
    encoded = [split[index].image for index in range(0, len(split), cores)]
    return TimedCall(lambda: _exhaust(map(decode_jpeg, encoded)), len(encoded) * cores)


def time_imagefolder(settings: BenchSettings) -> TimedCall:
    """Return PyTorch's loader, once through at most `OPENED` images."""
    samples = list_photographs(settings, OPENED)
    files = [Path(samples.files[0], sample.path) for sample in samples]
    loader = DataLoader(
        ImageFolderLike(files), settings.batch_size,
        num_workers=os.cpu_count() or 1, persistent_workers=True,
    )  # fmt: skip
    return TimedCall(lambda: _exhaust(loader), len(files))


def time_jpeg_decoding(settings: BenchSettings) -> TimedCall:
    """Return the decoding of photographs as they are prepared, 256x256, in one thread: a limit."""
    prepared = (prepare_image(item, Options()) for item in list_photographs(settings, JPEGS))
    encoded = [one.encoded for one in prepared if not isinstance(one, str)]
    return TimedCall(lambda: [decode_jpeg(data) for data in encoded], len(encoded))


def _exhaust(items: Iterable[object]) -> None:
    for _ in items:
        pass


def open_loaded_split(settings: BenchSettings) -> Split:
    """Return the photographs prepared, `LOADED` of them; the first who asks prepares them."""
    samples = list_photographs(settings, LOADED)
    task = ShardTask(settings.scratch / "loader-00000.arrow", samples, Options())
    made = task.read_metadata()[1] if task.is_done() else make_shard(task)
    return Split("loader", settings.scratch, (task.describe_shard(made),), 256, raw=False)


def _resize_shorter_side(image: Image.Image) -> Image.Image:
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
            image = _resize_shorter_side(file.convert("RGB"))
        top = int(torch.randint(image.height - CROP + 1, ()))
        left = int(torch.randint(image.width - CROP + 1, ()))
        image = image.crop((left, top, left + CROP, top + CROP))
        if torch.rand(()) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        return (pixels.float() / 255 - self.mean) / self.stdev
