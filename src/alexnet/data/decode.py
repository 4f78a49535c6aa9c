"""Bytes -> uint8 RGB, or an error that says why not.

Whatever an image is handed over as, and with or without the extra `fast`, the pixels are the same.
"""

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from alexnet.bounds import MAX_PIXELS
from alexnet.errors import ImageError, TooManyPixelsError, UnknownFormatError

try:
    import simplejpeg  # the extra `fast`: libjpeg-turbo without Pillow's overhead
except ImportError:
    simplejpeg = None

Pixels = NDArray[np.uint8]
ImageLike = str | Path | bytes | BinaryIO | Image.Image | NDArray[np.uint8] | NDArray[np.uint16]

ORIENTATION = 0x0112  # the EXIF tag
HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis"}  # AVIF has others
START_OF_SCAN = b"\xff\xda"  # the marker of a JPEG behind which its pixels begin
ORIENTATION_MARKS = (b"Exif\0\0", b"Orientation")  # in a JPEG that may be turned: EXIF, XMP
SAME_RGB = {"YCbCr", "Gray"}  # colour spaces that both decoders turn into the same RGB


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image, and what had to be done to make RGB of it."""

    image: Image.Image  # mode RGB
    format: str  # of the file, as Pillow names it: JPEG, PNG, ...
    repairs: tuple[str, ...] = ()


def to_rgb(image: ImageLike) -> Image.Image:
    """Return an image in mode RGB, upright; the same pixels in whatever form it is given.

    That is a file of any format that Pillow reads, its content or an image of any mode, converted
    as `inspect_image` says; or an array of uint8 or uint16: ``(H, W)`` or ``(H, W, 1)``, grey, or
    ``(H, W, 3)`` or ``(H, W, 4)``, RGB or RGBA. What cannot be read is an `ImageError`.
    """
    if isinstance(image, str | Path):
        try:
            return inspect_image(Path(image).read_bytes()).image
        except ImageError as error:
            raise ImageError(f"{str(image)!r} is not usable: {error}") from None
        except OSError as error:
            raise ImageError(f"{str(image)!r} cannot be read ({error.strerror}).") from None
    if isinstance(image, np.ndarray):
        image = _from_array(image)
    if isinstance(image, Image.Image):
        with _translate_pillow_errors():
            return _as_rgb(image, exif=True, max_pixels=MAX_PIXELS).image
    data = image.read() if hasattr(image, "read") else image
    if not isinstance(data, bytes | bytearray | memoryview):
        raise ImageError(f"It is no image but a {type(image).__name__}, or opened as text.")
    return inspect_image(bytes(data)).image


def _from_array(pixels: NDArray[Any]) -> Image.Image:
    """Return an array as a Pillow image; of 16-bit colours the upper 8 bits, as Pillow does."""
    shape = pixels.shape[:2] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels.shape
    channels = {2: 1, 3: shape[-1]}.get(len(shape), 0)
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if pixels.dtype not in (np.uint8, np.uint16) or channels not in (1, 3, 4) or not pixels.size:
        raise ImageError(
            f"An array of {pixels.dtype} {pixels.shape} is no image.",
            "Give uint8 or uint16 of (height, width), or with 3 or 4 channels last.",
        )
    if pixels.dtype == np.uint16 and channels > 1:
        pixels = (pixels >> 8).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels.reshape(shape)))


def inspect_image(
    data: bytes,
    *,
    exif: bool = True,
    formats: tuple[str, ...] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Decoded:
    """Decode an image file of any format that Pillow reads, and say what it took.

    With `exif` it is turned upright as its orientation in EXIF or XMP says. `formats` are Pillow's
    names of those that are read, JPEG among them; by default all. Grey, palette, CMYK and 16-bit
    images become RGB, transparency is dropped, of an animation the first frame is taken, colour
    profiles are ignored. Grey of 32 bits has no range of its own: one of 0-1 (real numbers), 0-255
    or 0-65535 is told from the numbers; another is an `ImageError`.

    So are bytes that are no image (`UnknownFormatError`), are cut short, or announce more than
    `max_pixels` (`TooManyPixelsError`), which is found out before any is decoded.
    """
    if not data:
        raise UnknownFormatError("The file is empty.")
    if not (exif and _may_be_turned(data)):
        pixels = _decode_turbo(data, max_pixels=max_pixels)
        if pixels is not None:
            return Decoded(Image.fromarray(pixels), "JPEG")
    with _translate_pillow_errors():
        brands = {data[at : at + 4] for at in range(8, 40, 4)} if data[4:8] == b"ftyp" else set()
        if formats is None and brands & HEIF_BRANDS:
            return _decode_heif(data, max_pixels)
        with Image.open(io.BytesIO(data), formats=formats) as image:
            return _as_rgb(image, exif, max_pixels)


def _decode_heif(data: bytes, max_pixels: int) -> Decoded:
    """Decode what telephones write; it is upright already, whatever its EXIF says."""
    try:
        import pillow_heif
    except ImportError:
        raise UnknownFormatError(
            "It is a HEIF file.", "pip install 'alexnet[heic]' reads them."
        ) from None
    file = pillow_heif.open_heif(io.BytesIO(data))
    if file.size[0] * file.size[1] > max_pixels:
        raise Image.DecompressionBombError
    return Decoded(_as_rgb(file.to_pillow(), False, max_pixels).image, "HEIF")


@contextlib.contextmanager
def _translate_pillow_errors() -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata and large images; errors remain
            yield
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise UnknownFormatError("It is not an image of a known format.") from None
    except Image.DecompressionBombError:
        raise TooManyPixelsError("It announces more pixels than any photograph has.") from None
    except Exception as error:  # Pillow's decoders raise nearly every type on broken files
        raise ImageError(f"It cannot be decoded ({str(error) or type(error).__name__}).") from None


def _as_rgb(image: Image.Image, exif: bool, max_pixels: int) -> Decoded:
    if image.width * image.height > max_pixels:
        raise Image.DecompressionBombError
    form, mode = image.format or "", image.mode
    repairs = []
    # Frames are not counted: a GIF of 20 MB can have a million, each of which would be looked at.
    if getattr(image, "is_animated", False) and form != "MPO":  # MPO: a JPEG with its preview
        repairs.append("the first frame of an animation")
    turned = image.getexif().get(ORIENTATION, 1) if exif else 1
    if turned != 1:
        image = ImageOps.exif_transpose(image)
        repairs.append(f"turned upright (EXIF orientation {turned})")
    if mode.startswith("I;16"):  # Pillow would clip instead of scaling
        image = _scale(image, 1 / 257)
        repairs.append("16 bits made 8")
    elif mode in ("I", "F"):
        image, repair = _scale_range(image)
        repairs.append(repair)
    elif mode == "CMYK":
        repairs.append("CMYK made RGB")
    elif mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        repairs.append("transparency dropped")
    return Decoded(image.convert("RGB"), "JPEG" if form == "MPO" else form, tuple(repairs))


def _may_be_turned(data: bytes) -> bool:
    """Whether anything before a JPEG's scan may hold an orientation, however far behind."""
    at, marker = 2, data[2:4]
    while marker[:1] == b"\xff" and marker not in (START_OF_SCAN, b"\xff\xff"):
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
        marker = data[at : at + 2]
    return marker != START_OF_SCAN or any(data.find(mark, 0, at) >= 0 for mark in ORIENTATION_MARKS)


def _scale(image: Image.Image, factor: float) -> Image.Image:
    """Return a grey image of 16 or 32 bits, its numbers multiplied, in 8; real ones are rounded."""
    if image.mode == "F":
        return image.point(lambda value: value * factor + 0.5).convert("L")
    return image.convert("I").point(lambda value: value * factor).convert("L")


def _scale_range(image: Image.Image) -> tuple[Image.Image, str]:
    """Return a grey image of 32 bits in 8, and in words which range its numbers were taken for."""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    kind = "real" if image.mode == "F" else "whole"
    if not 0 <= low <= high <= 65535:  # nor where one is no number
        raise ImageError(
            f"It has 32-bit {kind} numbers of {low:g} to {high:g}.",
            "Save it in 8 or 16 bits: those of 0-1, 0-255 and 0-65535 are understood.",
        )
    most = 1 if kind == "real" and high <= 1 else 255 if high <= 255 else 65535
    return _scale(image, 255 / most), f"32-bit {kind} numbers of 0-{most} made 8 bits"


def resize_and_crop(image: Image.Image, size: int) -> Image.Image:
    """Scale the shorter side to `size` and keep the central square (section 2); never a warp.

    Scaling down averages over areas, scaling up is bicubic, as in the 2012 code (facts 4).
    """
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    how = Image.Resampling.BOX if side >= size else Image.Resampling.BICUBIC
    return image.resize((size, size), how, box=(left, top, left + side, top + side))


def box_in_photograph(
    box: tuple[float, float, float, float], size: int, width: int, height: int
) -> tuple[float, float, float, float]:
    """Return where a box of the square of `resize_and_crop` lies in the image that it was made of.

    Left, top, right and bottom, in pixels.
    """
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    x0, y0, x1, y1 = (edge * side / size for edge in box)
    return left + x0, top + y0, left + x1, top + y1


def jpeg_library() -> str:
    """Return what reads and writes JPEGs here; another writes other bytes for the same pixels."""
    return "Pillow" if simplejpeg is None else "simplejpeg"


def encode_jpeg(pixels: Pixels, quality: int) -> bytes:
    """Encode ``(H, W, 3)`` uint8 RGB as JPEG, quality 1 to 100, colour at half resolution."""
    if simplejpeg is not None:
        encoded: bytes = simplejpeg.encode_jpeg(pixels, quality, "RGB", "420", fastdct=False)
        return encoded
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality, subsampling="4:2:0")
    return out.getvalue()


def decode_jpeg(data: bytes | memoryview, out: Pixels | None = None) -> Pixels:
    """Decode a JPEG of a prepared data set to ``(H, W, 3)`` uint8 RGB, in `out` if that is given.

    libjpeg-turbo through `simplejpeg` where it is installed, strictly; what it refuses is left to
    Pillow, whose verdict counts: an `ImageError`. The two agree bit for bit.
    """
    pixels = _decode_turbo(data, out)
    if pixels is not None:
        return pixels
    pixels = np.asarray(inspect_image(bytes(data), exif=False).image)
    if out is not None and pixels.shape != out.shape:
        raise ImageError(f"It has {pixels.shape[1]}x{pixels.shape[0]} pixels, not {out.shape[0]}.")
    return copy_into(out, pixels)


def copy_into(out: Pixels | None, pixels: Pixels) -> Pixels:
    """Return pixels, in `out` if that is given."""
    if out is None:
        return pixels
    out[:] = pixels
    return out


def _decode_turbo(
    data: bytes | memoryview, out: Pixels | None = None, max_pixels: int = MAX_PIXELS
) -> Pixels | None:
    """Decode by libjpeg-turbo what both decoders agree on; ``None`` for all else."""
    if simplejpeg is None or data[:3] != b"\xff\xd8\xff":
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        if space not in SAME_RGB or width * height > max_pixels:
            return None
        if out is not None and (height, width, 3) != out.shape:
            return None
        decoded: Any = simplejpeg.decode_jpeg(data, "RGB", buffer=out)
    except Exception:  # ValueError as a rule, KeyError for a sampling that it has no name for
        return None
    return decoded if out is None else out
