"""Whatever a file holds: an RGB image or one type of error."""

import contextlib
import io
import json
import os
import random
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet.data import decode
from alexnet.data.prepare import Options, prepare
from alexnet.data.sources import open_elpv, open_source
from alexnet.errors import ImageError


def photograph() -> Image.Image:
    """Return a real photograph, coloured by its own gradients so that channels differ."""
    grey = np.asarray(Image.open(io.BytesIO(open_elpv().splits["train"][0].read())).convert("L"))
    return Image.fromarray(np.stack([grey, np.roll(grey, 5, 0), np.roll(grey, 9, 1)], -1))


def saved(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "WEBP", "TIFF", "JPEG", "PPM"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_formats_and_modes_become_rgb(kind, mode):
    image = photograph().convert(mode)
    opened = decode.inspect_image(saved(image, kind)).image
    assert (opened.mode, opened.size) == ("RGB", (300, 300))
    difference = np.abs(np.asarray(opened, int) - np.asarray(image.convert("RGB"), int))
    assert difference.mean() < (12 if kind in ("GIF", "WEBP", "JPEG") else 0.01)


@pytest.mark.parametrize("mode", ["P", "PA", "RGBA", "LA", "1", "CMYK"])
def test_modes_that_are_not_rgb(mode):
    kind = {"CMYK": "TIFF", "PA": "TIFF"}.get(mode, "PNG")
    source = photograph().convert("P" if mode == "PA" else mode)
    assert decode.inspect_image(saved(source, kind)).image.mode == "RGB"


def test_16_bits_are_scaled_not_clipped():
    deep = np.asarray(photograph().convert("L")).astype(np.uint16) * 257
    opened = np.asarray(decode.inspect_image(saved(Image.fromarray(deep), "PNG")).image)
    assert np.abs(opened[..., 0].astype(int) - deep // 257).max() <= 1


def test_exif_orientation_is_honoured_or_not():
    image = photograph()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    data = saved(image, "JPEG", exif=exif, quality=95)
    upright = decode.inspect_image(data).image
    as_stored = decode.inspect_image(data, exif=False).image
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
            decode.inspect_image(data)


BOMB = """
import resource, sys, time
from alexnet.data.decode import inspect_image
from alexnet.errors import ImageError
inspect_image(open(sys.argv[2], "rb").read()).image  # what a first image costs is not the bomb's
data = open(sys.argv[1], "rb").read()
before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
try:
    inspect_image(data).image
except ImageError as error:
    seconds = time.process_time() - begun
    print(seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, error)
"""


def png_bomb(side: int) -> bytes:
    """Return a PNG of white pixels, one bit each: some hundred kilobytes for a gigapixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + check

    header = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    rows = zlib.compress(bytes(side * (side // 8 + 1)), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path):
    """Scenario 17: under 50 MB and 50 ms; the time is doubled for a busy machine."""
    bomb, small = tmp_path / "bomb.png", tmp_path / "small.png"
    bomb.write_bytes(png_bomb(30_000))
    small.write_bytes(saved(photograph(), "PNG"))
    assert bomb.stat().st_size < 150_000
    done = subprocess.run(
        [sys.executable, "-c", BOMB, bomb, small], capture_output=True, text=True, check=True
    )
    seconds, megabytes, *message = done.stdout.split()
    assert float(seconds) < 0.1
    assert float(megabytes) < 50
    assert "more pixels" in " ".join(message)


def test_the_limit_is_ours_whatever_the_program_around_has_set(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ImageError, match="more pixels"):
        decode.inspect_image(png_bomb(14_000))


def animation(kind: str) -> bytes:
    frames = [photograph().resize((40, 40)).rotate(90 * turn) for turn in range(3)]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[decode.ORIENTATION] = orientation
    return saved(photograph(), "JPEG", exif=exif)


def zoo() -> dict[str, tuple[bytes, str | None]]:
    """Return files by name, each with what the report should say of it.

    ``None`` where there is nothing to say, and a reason in capitals where it is left out.
    """
    image = photograph()
    jpeg, png = saved(image, "JPEG"), saved(image, "PNG")
    deep = np.asarray(image.convert("L")).astype(np.uint16) * 257
    palette = image.convert("P")
    return {
        "plain.jpg": (jpeg, None),
        "progressive.jpg": (saved(image, "JPEG", progressive=True), None),
        "grey.JPEG": (saved(image.convert("L"), "JPEG"), None),
        "profile.jpg": (saved(image, "JPEG", icc_profile=b"\0" * 500), None),
        "tail.jpg": (jpeg + b"behind the end" * 50, None),
        "cmyk.JPEG": (saved(image.convert("CMYK"), "JPEG"), "CMYK made RGB"),
        "png.JPEG": (png, "PNG under the name of a .jpeg"),
        "jpeg.png": (jpeg, "JPEG under the name of a .png"),
        "deep.png": (saved(Image.fromarray(deep), "PNG"), "16 bits made 8"),
        "alpha.png": (saved(image.convert("RGBA"), "PNG"), "transparency dropped"),
        "grey_alpha.png": (saved(image.convert("LA"), "PNG"), "transparency dropped"),
        "palette.png": (saved(palette, "PNG", transparency=3), "transparency dropped"),
        "animated.gif": (animation("GIF"), "the first frame of an animation"),
        "animated.webp": (animation("WEBP"), "the first frame of an animation"),
        "bilevel.png": (saved(image.convert("1"), "PNG"), None),
        "dot.png": (saved(image.resize((1, 1)), "PNG"), None),
        "thread.png": (saved(image.resize((1, 20_000)), "PNG"), None),
        "ribbon.png": (saved(image.resize((20_000, 1)), "PNG"), None),
        "plain.webp": (saved(image, "WEBP"), None),
        "cmyk.tiff": (saved(image.convert("CMYK"), "TIFF"), "CMYK made RGB"),
        "lab.tiff": (saved(image.convert("LAB"), "TIFF"), None),
        "float.tiff": (saved(image.convert("F"), "TIFF"), "real numbers of 0-255 made 8 bits"),
        "deep.tiff": (saved(Image.fromarray(deep), "TIFF"), "16 bits made 8"),
        "still.gif": (saved(image, "GIF"), None),
        "bitmap.bmp": (saved(image, "BMP"), None),
        "map.ppm": (saved(image, "PPM"), None),
        "picture.tiff": (saved(image, "TIFF"), None),
        **{f"exif{n}.jpg": (turned(n), f"EXIF orientation {n}") for n in range(2, 9)},
        "empty.jpg": (b"", "THE FILE IS EMPTY"),
        "text.jpg": (b"<html>404</html>", "NOT AN IMAGE OF A KNOWN FORMAT"),
        "half.jpg": (jpeg[: len(jpeg) // 2], "CANNOT BE DECODED"),
        "half.png": (png[: len(png) // 2], "CANNOT BE DECODED"),
        "header.jpg": (jpeg[:60], "IT "),
        "marker.jpg": (b"\xff\xd8\xff", "IT IS NOT"),
        "bomb.png": (png_bomb(20_000), "MORE PIXELS"),
    }


def test_the_zoo_is_decoded_or_left_out_with_its_reason_and_no_neighbour_is_lost(tmp_path):
    """Scenario 16, through a whole preparation."""
    animals = zoo()
    assert len(animals) >= 40
    for split in ("train", "test"):
        for label in ("a", "b"):
            folder = tmp_path / "zoo" / split / label
            folder.mkdir(parents=True)
            for name, (data, _) in animals.items():
                (folder / name).write_bytes(data)
    manifest = prepare(open_source(tmp_path / "zoo"), tmp_path / "out", Options(size=48))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    out = {Path(one["image"]).name: one["reason"] for one in report["skipped"]}
    repaired = {Path(one["image"]).name: one["reason"] for one in report["repaired"]}
    for name, (_, expected) in animals.items():
        if expected is None:
            assert name not in out, out[name]
            assert name not in repaired, repaired[name]
        elif expected.isupper():
            assert expected in out[name].upper()
        else:
            assert expected in repaired[name]
            assert name not in out
    kept = len(animals) - len(out)
    assert manifest.counts == {"train": 2 * kept, "test": 2 * kept}
    assert len(report["skipped"]) == 4 * len(out) == manifest.skipped


def mutated(whole: bytes, other: bytes, draws: random.Random) -> bytes:
    """Change bytes, cut, or splice: what disks, networks and malice do."""
    data = bytearray(whole)
    kind = draws.randrange(4)
    if kind == 0:
        for _ in range(draws.randint(1, 8)):
            data[draws.randrange(len(data))] = draws.randrange(256)
    elif kind == 1:
        del data[draws.randrange(len(data)) :]
    elif kind == 2:
        at = draws.randrange(len(data))
        data[at : at + draws.randrange(200)] = other[at : at + draws.randrange(200)]
    else:  # in the headers, where sizes and tables are
        for _ in range(draws.randint(1, 4)):
            data[draws.randrange(min(620, len(data)))] = draws.choice((0, 1, 127, 128, 255))
    return bytes(data)


@pytest.mark.parametrize("count", [2_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_mutated_files_are_images_or_image_errors(count):
    """The long form: ``ALEXNET_FUZZ=100000 ALEXNET_PHOTOGRAPHS=DIR pytest -k mutated -n 0``."""
    draws = random.Random(0)
    if folder := os.environ.get("ALEXNET_PHOTOGRAPHS"):
        files = [file.read_bytes() for file in sorted(Path(folder).iterdir())]
    else:
        small = photograph().resize((64, 64))
        files = [
            saved(small, "JPEG"), saved(small, "JPEG", subsampling=0, progressive=True),
            saved(small.convert("L"), "JPEG"), saved(small.convert("CMYK"), "JPEG"),
            saved(small, "PNG"), saved(small, "WEBP"), saved(small, "GIF"), turned(6)[:4000],
        ]  # fmt: skip
    out = np.empty((64, 64, 3), np.uint8)
    decoded = 0
    for _ in range(int(os.environ.get("ALEXNET_FUZZ", count))):
        data = mutated(draws.choice(files), draws.choice(files), draws)
        try:
            image = decode.inspect_image(data).image
        except ImageError:
            pass
        else:
            decoded += 1
            assert (image.mode, decode.resize_and_crop(image, 16).size) == ("RGB", (16, 16))
        with contextlib.suppress(ImageError):
            assert decode.decode_jpeg(data, out).shape == (64, 64, 3)
    assert decoded


def test_square_is_a_central_crop_and_never_a_warp():
    wide = np.zeros((100, 300, 3), np.uint8)
    wide[:, 100:200] = 200
    assert (np.asarray(decode.resize_and_crop(Image.fromarray(wide), 50)) == 200).all()


def test_scaling_down_averages_areas():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    small = np.asarray(decode.resize_and_crop(Image.fromarray(pixels), 16))
    expected = pixels.reshape(16, 4, 16, 4, 3).mean((1, 3))
    assert np.abs(small - expected).max() <= 1


def test_both_jpeg_decoders_agree_bit_for_bit(monkeypatch):
    data = decode.encode_jpeg(np.asarray(photograph()), 95)
    fast = decode.decode_jpeg(data)
    assert decode.simplejpeg is not None
    monkeypatch.setattr(decode, "simplejpeg", None)
    assert np.array_equal(fast, decode.decode_jpeg(data))


@pytest.mark.parametrize("turned", [1, 6])
def test_heic_is_read_upright_where_its_library_is_there(tmp_path, monkeypatch, turned):
    heif = pytest.importorskip("pillow_heif")
    image = photograph()
    wide = image.resize((300, 200))
    exif = Image.Exif()
    exif[decode.ORIENTATION] = turned
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        image.save(tmp_path / folder / "0.png")
        heif.from_pillow(wide).save(tmp_path / folder / "1.HEIC", exif=exif.tobytes())
    data = (tmp_path / "a" / "1.HEIC").read_bytes()
    opened = decode.inspect_image(data)
    expected = wide if turned == 1 else wide.transpose(Image.Transpose.ROTATE_270)
    assert (opened.format, opened.image.size) == ("HEIF", expected.size)
    difference = np.asarray(opened.image, int) - np.asarray(expected, int)
    assert np.abs(difference).mean() < 8
    with pytest.raises(ImageError, match="announces more pixels"):
        decode.inspect_image(data, max_pixels=1000)
    with pytest.raises(ImageError):
        decode.inspect_image(data, formats=("JPEG", "PNG"))
    assert sum(map(len, open_source(tmp_path).splits.values())) == 4
    monkeypatch.setattr("alexnet.data.archives.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    source = open_source(tmp_path)
    assert sum(map(len, source.splits.values())) == 2
    assert list(source.passed_over) == ["ends in .heic (pip install 'alexnet[heic]' reads it)"]
    with pytest.raises(ImageError, match="It is a HEIF file"):
        decode.inspect_image(data)
