"""Whatever a file holds: an RGB image or one type of error."""

import io
import random

import numpy as np
import pytest
from PIL import Image

from alexnet.data import decode
from alexnet.data.sources import elpv
from alexnet.errors import ImageError


def photograph() -> Image.Image:
    """Return a real photograph, coloured by its own gradients so that channels differ."""
    grey = np.asarray(Image.open(io.BytesIO(elpv().splits["train"][0].read())).convert("L"))
    return Image.fromarray(np.stack([grey, np.roll(grey, 5, 0), np.roll(grey, 9, 1)], -1))


def saved(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "WEBP", "TIFF", "JPEG", "PPM"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_formats_and_modes_become_rgb(kind, mode):
    image = photograph().convert(mode)
    opened = decode.open_image(saved(image, kind))
    assert (opened.mode, opened.size) == ("RGB", (300, 300))
    difference = np.abs(np.asarray(opened, int) - np.asarray(image.convert("RGB"), int))
    assert difference.mean() < (12 if kind in ("GIF", "WEBP", "JPEG") else 0.01)


@pytest.mark.parametrize("mode", ["P", "PA", "RGBA", "LA", "1", "CMYK"])
def test_modes_that_are_not_rgb(mode):
    kind = {"CMYK": "TIFF", "PA": "TIFF"}.get(mode, "PNG")
    source = photograph().convert("P" if mode == "PA" else mode)
    assert decode.open_image(saved(source, kind)).mode == "RGB"


def test_16_bits_are_scaled_not_clipped():
    deep = np.asarray(photograph().convert("L")).astype(np.uint16) * 257
    opened = np.asarray(decode.open_image(saved(Image.fromarray(deep), "PNG")))
    assert np.abs(opened[..., 0].astype(int) - deep // 257).max() <= 1


def test_exif_orientation_is_honoured_or_not():
    image = photograph()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    data = saved(image, "JPEG", exif=exif, quality=95)
    upright = decode.open_image(data)
    as_stored = decode.open_image(data, exif=False)
    assert np.array_equal(np.asarray(upright), np.rot90(np.asarray(as_stored), -1))


def test_what_is_no_image_is_an_image_error():
    whole = saved(photograph(), "JPEG")
    for data, reason in [
        (b"", "empty"),
        (b"hello", "known format"),
        (whole[: len(whole) // 2], "cannot be decoded"),
        (saved(photograph(), "PNG")[:500], "cannot be decoded"),
    ]:
        with pytest.raises(ImageError, match=reason):
            decode.open_image(data)


def test_a_decompression_bomb_is_refused_before_it_is_decoded():
    header = bytearray(saved(Image.new("L", (8, 8)), "BMP"))
    header[18:26] = (60_000).to_bytes(4, "little") * 2  # 3.6 gigapixels
    with pytest.raises(ImageError, match="more pixels"):
        decode.open_image(bytes(header))


def test_mutated_files_are_images_or_image_errors():
    draws = random.Random(0)
    for kind in ("JPEG", "PNG"):
        whole = saved(photograph().resize((64, 64)), kind)
        for _ in range(300):
            data = bytearray(whole)
            for _ in range(draws.randint(1, 8)):
                data[draws.randrange(len(data))] = draws.randrange(256)
            try:
                image = decode.open_image(bytes(data))
            except ImageError:
                continue
            assert image.mode == "RGB"


def test_square_is_a_central_crop_and_never_a_warp():
    wide = np.zeros((100, 300, 3), np.uint8)
    wide[:, 100:200] = 200
    assert (np.asarray(decode.square(Image.fromarray(wide), 50)) == 200).all()


def test_scaling_down_averages_areas():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    small = np.asarray(decode.square(Image.fromarray(pixels), 16))
    expected = pixels.reshape(16, 4, 16, 4, 3).mean((1, 3))
    assert np.abs(small - expected).max() <= 1


def test_both_jpeg_decoders_agree_bit_for_bit(monkeypatch):
    data = decode.to_jpeg(np.asarray(photograph()), 95)
    fast = decode.decode_jpeg(data)
    assert decode.simplejpeg is not None
    monkeypatch.setattr(decode, "simplejpeg", None)
    assert np.array_equal(fast, decode.decode_jpeg(data))
