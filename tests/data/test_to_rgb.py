"""One image gives the same pixels in whatever form it is handed over."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from alexnet.data.decode import to_rgb
from alexnet.errors import ImageError
from tests.data.test_decode import photograph, saved


def deep_png(pixels: np.ndarray) -> bytes:
    """Return ``(H, W, 3)`` or ``(H, W, 4)`` uint16 as a PNG of 16 bits: Pillow writes none."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(name: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    head = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )  # fmt: skip


def transparent(mode: str) -> Image.Image:
    """Return the photograph half of which cannot be seen."""
    image = photograph().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image.convert(mode)


def oriented(number: int) -> dict[str, Image.Exif]:
    exif = Image.Exif()
    exif[0x0112] = number
    return {"exif": exif}


DEEP = np.random.default_rng(0).integers(0, 2**16, (40, 50, 4)).astype(np.uint16)
palette = photograph().convert("P")
ZOO = {
    "jpeg": saved(photograph(), "JPEG", quality=90),
    "jpeg, every pixel's colour": saved(photograph(), "JPEG", subsampling=0),
    "grey jpeg": saved(photograph().convert("L"), "JPEG"),
    "cmyk jpeg": saved(photograph().convert("CMYK"), "JPEG"),
    "cmyk tiff": saved(photograph().convert("CMYK"), "TIFF"),
    **{f"jpeg, turned {n}": saved(photograph(), "JPEG", **oriented(n)) for n in range(1, 9)},
    **{f"png, turned {n}": saved(photograph(), "PNG", **oriented(n)) for n in (3, 6)},
    "webp, turned": saved(photograph(), "WEBP", **oriented(8)),
    "16-bit grey, turned": saved(Image.fromarray(DEEP[..., 0]), "PNG", **oriented(6)),
    "rgba": saved(transparent("RGBA"), "PNG"),
    "la": saved(transparent("LA"), "PNG"),
    "palette": saved(palette, "PNG"),
    "palette with a transparent colour": saved(palette, "PNG", transparency=3),
    "palette with transparencies": saved(palette, "PNG", transparency=bytes(range(256))),
    "rgb with a transparent colour": saved(photograph(), "PNG", transparency=(1, 2, 3)),
    "black and white": saved(photograph().convert("1"), "PNG"),
    "gif": saved(photograph(), "GIF"),
    "16-bit grey": saved(Image.fromarray(DEEP[..., 0]), "PNG"),
    "16-bit grey tiff": saved(Image.fromarray(DEEP[..., 0]), "TIFF"),
    "16-bit grey, high byte first": saved(Image.fromarray(DEEP[..., 0].astype(">u2")), "TIFF"),
    "16-bit rgb": deep_png(DEEP[..., :3]),
    "16-bit rgba": deep_png(DEEP),
}


@pytest.mark.parametrize("name", ZOO)
def test_a_file_in_every_form(name, tmp_path):
    path = tmp_path / "image"
    path.write_bytes(ZOO[name])
    loaded = Image.open(io.BytesIO(ZOO[name]))
    loaded.load()
    with path.open("rb") as file, Image.open(path) as lazy, path.open("rb", buffering=0) as raw:
        forms = {
            "str": str(path), "Path": path, "bytes": ZOO[name], "bytearray": bytearray(ZOO[name]),
            "file": file, "raw file": raw, "BytesIO": io.BytesIO(ZOO[name]),
            "memoryview": memoryview(ZOO[name]), "lazy": lazy, "loaded": loaded,
            "copy": loaded.copy(),
        }  # fmt: skip
        found = {form: to_rgb(image) for form, image in forms.items()}
    first = np.asarray(found["bytes"])
    assert first.std() > 5
    for form, image in found.items():
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), first), form


@pytest.mark.parametrize(
    "name",
    [
        *("jpeg", "grey jpeg", "rgba", "gif", "16-bit grey", "16-bit grey tiff"),
        "16-bit grey, high byte first",
    ],
)
def test_arrays_are_the_images_that_they_are_of(name):
    image = Image.open(io.BytesIO(ZOO[name]))
    image = image.convert("RGB") if image.mode == "P" else image
    array, wanted = np.asarray(image), np.asarray(to_rgb(ZOO[name]))
    assert array.dtype.itemsize == (2 if "16" in name else 1)
    assert np.array_equal(np.asarray(to_rgb(array)), wanted)
    assert np.array_equal(np.asarray(to_rgb(array[:, ::-1])), wanted[:, ::-1])  # no row is whole
    if array.ndim == 2:
        assert np.array_equal(np.asarray(to_rgb(array[..., None])), wanted)


@pytest.mark.parametrize("channels", [3, 4])
def test_arrays_of_16_bit_colours_are_their_files(channels):
    array = DEEP[..., :channels]
    wanted = np.asarray(to_rgb(deep_png(array)))
    assert np.array_equal(np.asarray(to_rgb(array)), wanted)
    assert np.array_equal(np.asarray(to_rgb(array.astype(">u2"))), wanted)
    assert np.array_equal(wanted, array[..., :3] // 256)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0, 3), (4,), (2, 2, 2), (2, 2, 5), (1, 2, 2, 3)])
def test_arrays_that_are_no_image_are_refused(shape):
    with pytest.raises(ImageError, match=r"array of uint8 \(.*is no image.*height, width"):
        to_rgb(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("dtype", [np.float32, np.int16, bool, np.int64])
def test_arrays_of_other_types_are_refused(dtype):
    with pytest.raises(ImageError, match=f"array of {np.dtype(dtype)} "):
        to_rgb(np.zeros((4, 4, 3), dtype))


def test_what_is_no_image_is_refused(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    with pytest.raises(ImageError, match=r"notes.txt' is not usable: .*known format"):
        to_rgb(text)
    with pytest.raises(ImageError, match=r"absent.jpg' cannot be read \(No such file"):
        to_rgb(tmp_path / "absent.jpg")
    with text.open(encoding="utf-8") as file, pytest.raises(ImageError, match="opened as text"):
        to_rgb(file)
    with pytest.raises(ImageError, match="no image but a int"):
        to_rgb(7)


def test_a_picture_that_is_cut_short_is_refused_when_it_is_needed():
    data = saved(photograph(), "PNG")
    lazy = Image.open(io.BytesIO(data[: len(data) // 2]))
    with pytest.raises(ImageError, match="cannot be decoded"):
        to_rgb(lazy)


def test_the_image_that_is_given_is_left_as_it_is():
    image = Image.open(io.BytesIO(ZOO["jpeg, turned 6"]))
    size = image.size
    to_rgb(image)
    assert image.size == size
    assert image.getexif()[0x0112] == 6
