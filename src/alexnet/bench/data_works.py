"""What is measured of the data path: preparing photographs, and loading them for training.

Everything runs with freed memory kept in the process, the peers too.
"""

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from alexnet.bench.works import Setting, Work
from alexnet.data.archives import folder_places, is_image
from alexnet.data.decode import decode_jpeg, examined, square
from alexnet.data.listing import Listing, read_file
from alexnet.data.loader import evaluation_batches
from alexnet.data.options import Options
from alexnet.data.shard_work import Task, make_shard
from alexnet.data.shards import Shard, Split
from alexnet.errors import DataError

LOADED = 8192  # images of a round
OPENED = 1024  # images of a round of the ImageFolder peer, at most
CROP = 227  # pixels, of the ImageFolder peer


def photographs(setting: Setting) -> Listing:
    """Return the photographs that the benchmark was given.

    Raises
    ------
    DataError
        When it was given none, or the folder holds none.
    """
    if setting.images is None:
        raise DataError("No photographs to measure with were named.", "Add --images FOLDER.")
    found = [(place, 0) for place in folder_places(setting.images) if is_image(place)]
    if not found:
        raise DataError(f"{str(setting.images)!r} has no images.", "Name a folder of JPEG files.")
    return Listing.of(read_file, found)


def taken(listing: Listing, images: int) -> Listing:
    """Return so many images of a listing, from its start again where it ends."""
    return listing.take(np.resize(np.arange(len(listing)), images))


def prepare_work(setting: Setting) -> Work:
    """Return the preparation of photographs on one core, from the files to a written shard.

    ``decode+resize`` is the same decoder and resampler alone: nothing encoded, summed or written.
    ``pillow`` is the usual script: open, convert, resize, crop, save.
    """
    items = taken(photographs(setting), Options().shard_images)
    scratch = setting.scratch

    def ours() -> None:
        make_shard(Task(scratch / "prepare-00000.arrow", items, Options(), ""))

    def decode_and_resize() -> None:
        for item in items:
            np.asarray(square(examined(item.read()).image, 256))

    def pillow() -> None:
        for item in items:
            with Image.open(Path(items.files[0], item.path)) as file:
                image = _resized(file.convert("RGB"))
            left, top = (image.width - 256) // 2, (image.height - 256) // 2
            image = image.crop((left, top, left + 256, top + 256))
            image.save(scratch / "pillow.jpg", quality=95)

    timed = {"ours": ours, "decode+resize": decode_and_resize, "pillow": pillow}
    return Work({}, timed, len(items), "images/s a core")


def loader_work(setting: Setting) -> Work:
    """Return the loading of training batches, decoded 256x256 images, over all cores.

    ``libjpeg-turbo`` decodes the same bytes in one thread, times the cores. ``imagefolder`` is
    PyTorch's DataLoader over the original files, with as many worker processes.
    """
    items = taken(photographs(setting), LOADED)
    shard = setting.scratch / "loader-00000.arrow"
    notes = make_shard(Task(shard, items, Options(), ""))
    about = Shard(shard.name, notes["images"], notes["bytes"], notes["sha256"])
    split = Split("loader", setting.scratch, (about,), 256, raw=False)
    cores = os.cpu_count() or 1
    encoded = [split[number].image for number in range(0, len(split), cores)]
    files = [Path(items.files[0], item.path) for item in items[:OPENED]]
    peer = DataLoader(
        ImageFolderLike(files), setting.batch_size, num_workers=cores, persistent_workers=True
    )

    # Each goes through all images once and leaves nothing at work for the next one to suffer from.
    def ours() -> None:
        for _ in evaluation_batches(split, setting.batch_size):
            pass

    def bare() -> None:
        for data in encoded:
            decode_jpeg(data)

    def imagefolder() -> None:
        for _ in peer:
            pass

    timed = {"ours": ours, "libjpeg-turbo": bare, "imagefolder": imagefolder}
    amounts = {"libjpeg-turbo": len(encoded) * cores, "imagefolder": len(files)}
    return Work({}, timed, len(split), "images/s", amounts)


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
