"""All units of a layer on one sheet: what excites each, optimised or found in images."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from alexnet.data.decode import Pixels
from alexnet.data.loader import ImageSplit
from alexnet.explain.attribution import plain_network
from alexnet.explain.deconvnet import project
from alexnet.features import ReceptiveField, TopActivation, patch, receptive_field, top_activating
from alexnet.files import atomic_write
from alexnet.predictor import Predictor

PATCHES_A_UNIT = 9  # of a unit, as in Figure 2 of Zeiler and Fergus
TILE = 64  # pixels of a patch on a sheet
FULL_QUANTILE = 0.999  # quantile of a projection that is drawn in full


def lay_out_sheet(tiles: Sequence[Pixels] | Pixels, columns: int, gap: int = 4) -> Pixels:
    """Lay tiles ``(height, width, 3)`` uint8 of one size in rows on white."""
    height, width = (size + gap for size in tiles[0].shape[:2])
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * height + gap, columns * width + gap, 3), 255, np.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // columns * height + gap, number % columns * width + gap
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return sheet


def make_tiles(
    folder: Path, units: Sequence[int], make: Callable[[int], Pixels],
    report: Callable[[int, int], None],
) -> list[Pixels]:  # fmt: skip
    """Make a tile for each unit and keep it as a PNG; those that are there are not made again."""
    tiles = []
    for done, unit in enumerate(units, 1):
        path = folder / f"{unit:04}.png"
        if not path.is_file():
            with atomic_write(path) as temporary:
                Image.fromarray(make(unit)).save(temporary, "PNG")
        with Image.open(path) as image:
            tiles.append(np.array(image))
        report(done, len(units))
    return tiles


def project_patches(
    predictor: Predictor, split: ImageSplit, layer: str, units: Iterable[int]
) -> Iterator[tuple[int, Pixels]]:
    """Yield for each unit the patches that excite it most, beside their deconvnet projections.

    A tile has three rows and three columns of patches on the left, and the projection of each in
    the same place on the right: grey is nought, and of each the strongest pixels are full.
    """
    predictor = predictor.in_float32
    found = top_activating(predictor, split, layer, units, PATCHES_A_UNIT)
    field, network = receptive_field(predictor.spec, layer), plain_network(predictor)
    for unit, tops in found.items():
        images = torch.from_numpy(np.stack([split.pixels(top.image) for top in tops]))
        places = torch.tensor([[unit, top.row, top.column] for top in tops])
        device = predictor.device.torch
        pixels = project(network, predictor.centre_crops(images), layer, places.to(device)).cpu()
        pixels = pixels.flip(1) if predictor.normalise.bgr else pixels
        most = pixels.abs().flatten(1).quantile(FULL_QUANTILE, 1).clamp(min=1e-30)
        scaled = (pixels / most[:, None, None, None]).clamp(-1, 1)
        drawn = (127.5 * (1 + scaled)).to(torch.uint8).permute(0, 2, 3, 1).numpy()
        seen = [_fit(field, patch(predictor, split, layer, top)) for top in tops]
        back = [
            _fit(field, _cut(field, image, top)) for image, top in zip(drawn, tops, strict=True)
        ]
        halves = [lay_out_sheet(tiles, 3, gap=1) for tiles in (seen, back)]
        yield unit, np.concatenate(halves, 1)


def _cut(field: ReceptiveField, image: Pixels, top: TopActivation) -> Pixels:
    left, upper, right, lower = field.box(top.row, top.column)
    return image[upper:lower, left:right]


def _fit(field: ReceptiveField, pixels: Pixels) -> Pixels:
    """Scale a patch so that a whole receptive field is a tile; one cut by the edge is smaller."""
    whole = min(field.size, field.windows[0].inputs)
    height, width = (min(TILE, max(1, round(size * TILE / whole))) for size in pixels.shape[:2])
    tile = np.full((TILE, TILE, 3), 255, np.uint8)
    scaled = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    top, left = (TILE - height) // 2, (TILE - width) // 2
    tile[top : top + height, left : left + width] = np.array(scaled)
    return tile
