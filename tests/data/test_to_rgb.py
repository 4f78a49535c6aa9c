"""One image gives the same pixels in whatever form it is handed over."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from alexnet.data import decode
from alexnet.data.decode import to_rgb
from alexnet.data.prepare import Options, prepare_image
from alexnet.data.samples import Sample
from alexnet.errors import ImageError, TooManyPixelsError
from alexnet.features import Photographs
from alexnet.serve.admission import IMAGE_FORMATS
from alexnet.serve.images import Photograph
from tests.data.test_decode import photograph, saved
from tests.interop.conftest import model_of, narrow


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


def with_segments(data: bytes, *segments: bytes) -> bytes:
    """Put segments, each a marker's last byte and its content, at the start of a JPEG."""
    made = (b"\xff" + part[:1] + struct.pack(">H", len(part) + 1) + part[1:] for part in segments)
    return data[:2] + b"".join(made) + data[2:]


def in_xmp(number: int) -> bytes:
    return (
        b"\xe1http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF>"
        b'<rdf:Description tiff:Orientation="%d"/></rdf:RDF></x:xmpmeta>' % number
    )


def profile(count: int) -> list[bytes]:
    """Return a colour profile of `count` segments of 65 kB."""
    return [b"\xe2ICC_PROFILE\0" + bytes([n + 1, count]) + bytes(65_000) for n in range(count)]


def many_bits(kind: str, most: float) -> bytes:
    """Return the photograph as a TIFF of 32-bit numbers from 0 to `most`."""
    grey = np.asarray(photograph().convert("L"), float)
    values = (grey - grey.min()) / np.ptp(grey) * most
    return saved(Image.fromarray(values.astype(kind)), "TIFF")


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
    "jpeg, turned in XMP": with_segments(saved(photograph(), "JPEG"), in_xmp(6)),
    "jpeg, turned behind a profile": with_segments(
        saved(photograph(), "JPEG"), *profile(2), b"\xe1" + oriented(8)["exif"].tobytes()
    ),
    "jpeg, a profile alone": with_segments(saved(photograph(), "JPEG"), *profile(2)),
    "jpeg, filled up": saved(photograph(), "JPEG").replace(b"\xff\xdb", b"\xff\xff\xff\xdb", 1),
    "jpeg, two pictures": saved(photograph(), "MPO", save_all=True, append_images=[photograph()]),
    **{
        f"tiff of {kind}, 0-{most:g}": many_bits(kind, most)
        for kind, most in (("i4", 255), ("i4", 65535), ("f4", 1), ("f4", 255), ("f4", 60_000))
    },
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


@pytest.fixture(scope="module")
def model():
    """Return a predictor whose images are prepared at 41 pixels."""
    return model_of(narrow("cifar_quick"))


@pytest.mark.parametrize("name", ZOO)
def test_every_door_and_both_decoders_give_the_same_pixels(name, model, tmp_path, monkeypatch):
    """Prediction, features, a preparation and the server, with the extra `fast` and without it."""
    path, size = tmp_path / "image.bin", model.resize_to
    path.write_bytes(ZOO[name])
    sample = Sample(path.name, 0, path.read_bytes)
    found = []
    assert decode.simplejpeg is not None
    for library in (decode.simplejpeg, None):
        monkeypatch.setattr(decode, "simplejpeg", library)
        found += [
            model.load_pixels(path),
            model.load_pixels(ZOO[name]),
            Photographs(model, [path]).pixels(0),
            prepare_image(sample, Options(size=size, raw=True)).pixels,
        ]
        if Image.open(io.BytesIO(ZOO[name])).format in IMAGE_FORMATS:
            found.append(Photograph.decode(ZOO[name], size, decode.MAX_PIXELS).pixels.numpy())
    assert found[0].shape == (size, size, 3)
    assert found[0].std() > 5
    assert all(np.array_equal(pixels, found[0]) for pixels in found)


@pytest.mark.parametrize("name", ["jpeg, turned in XMP", "jpeg, turned behind a profile"])
def test_an_orientation_is_found_wherever_it_stands(name):
    wide = photograph().resize((90, 60))
    plain = saved(wide, "JPEG")
    turned = (
        with_segments(plain, in_xmp(6))
        if "XMP" in name
        else with_segments(plain, *profile(2), b"\xe1" + oriented(6)["exif"].tobytes())
    )
    assert to_rgb(turned).size == (60, 90)
    assert decode.inspect_image(turned, exif=False).image.size == (90, 60)
    assert to_rgb(with_segments(plain, *profile(2), in_xmp(1))).size == (90, 60)


@pytest.mark.parametrize(
    ("kind", "most", "taken"),
    [("i4", 255, 255), ("i4", 65535, 65535), ("f4", 1, 1), ("f4", 255, 255), ("f4", 60_000, 65535)],
)
def test_numbers_of_32_bits_are_taken_for_the_range_that_they_fill(kind, most, taken):
    """Against the same rule in NumPy, to the half a step that whole numbers are cut off by."""
    values = np.asarray(Image.open(io.BytesIO(many_bits(kind, most))), float)
    found = decode.inspect_image(many_bits(kind, most))
    grey = np.asarray(found.image, float)[..., 0]
    assert np.abs(grey - values * 255 / taken).max() <= (0.501 if kind == "f4" else 1)
    assert grey.max() == round(most * 255 / taken)
    word = "real" if kind == "f4" else "whole"
    assert found.repairs == (f"32-bit {word} numbers of 0-{taken} made 8 bits",)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.int32([[0, 1_000_000]]), "whole numbers of 0 to 1e\\+06"),
        (np.int32([[-5, 200]]), "whole numbers of -5 to 200"),
        (np.float32([[-1, 1]]), "real numbers of -1 to 1"),
        (np.float32([[0, np.nan]]), "real numbers of nan to nan"),
        (np.float32([[0, np.inf]]), "real numbers of 0 to inf"),
    ],
)
def test_other_ranges_are_refused_by_name(values, told):
    for image in (Image.fromarray(values), saved(Image.fromarray(values), "TIFF")):
        with pytest.raises(ImageError, match=f"32-bit {told}.*8 or 16 bits"):
            to_rgb(image)


def test_the_limit_is_the_same_for_an_image_that_was_opened(monkeypatch):
    monkeypatch.setattr(decode, "MAX_PIXELS", 50)
    for image in (Image.new("L", (8, 8)), np.zeros((8, 8), np.uint8)):
        with pytest.raises(TooManyPixelsError):
            to_rgb(image)
    assert to_rgb(Image.new("L", (7, 7))).size == (7, 7)


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
