"""Bytes -> uint8 RGB, or an error that says why not."""

import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from alexnet.errors import ImageError

try:
    import simplejpeg  # the extra `fast`: libjpeg-turbo without Pillow's overhead
except ImportError:
    simplejpeg = None

Pixels = NDArray[np.uint8]


def open_image(data: bytes, *, exif: bool = True) -> Image.Image:
    """Decode an image file of any format that Pillow reads.

    Parameters
    ----------
    data : bytes
        The file.
    exif : bool
        Turn the image upright as its EXIF orientation says.

    Returns
    -------
    PIL.Image.Image
        Mode RGB. Grey, palette, CMYK and 16-bit images are converted, transparency is dropped,
        of an animation the first frame is taken.

    Raises
    ------
    ImageError
        When the bytes are no image, are cut short, or announce more pixels than is sane.
    """
    if not data:
        raise ImageError("The file is empty.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata and large images; errors remain
            image: Image.Image = Image.open(io.BytesIO(data))
            if exif:
                image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):  # 16 bits: Pillow would clip instead of scaling
                image = image.convert("I").point(lambda value: value / 257).convert("L")
            return image.convert("RGB")
    except UnidentifiedImageError:
        raise ImageError("It is not an image of a known format.") from None
    except Image.DecompressionBombError:
        raise ImageError("It announces more pixels than any photograph has.") from None
    except Exception as error:  # Pillow's decoders raise nearly every type on broken files
        raise ImageError(f"It cannot be decoded ({str(error) or type(error).__name__}).") from None


def square(image: Image.Image, size: int) -> Image.Image:
    """Scale the shorter side to `size` and keep the central square (section 2); never a warp.

    Scaling down averages over areas, scaling up is bicubic, as in the 2012 code (facts 4).
    """
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    how = Image.Resampling.BOX if side >= size else Image.Resampling.BICUBIC
    return image.resize((size, size), how, box=(left, top, left + side, top + side))


def to_jpeg(image: Image.Image, quality: int) -> bytes:
    """Encode as JPEG at a quality of 1 to 100, colour at full resolution from 90 up."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, subsampling=0 if quality >= 90 else 2)
    return out.getvalue()


def decode_jpeg(data: bytes) -> Pixels:
    """Decode a JPEG of a prepared data set to ``(H, W, 3)`` uint8 RGB.

    libjpeg-turbo through `simplejpeg` where it is installed, strictly; what it refuses is left
    to Pillow, whose verdict counts. The two agree bit for bit.

    Raises
    ------
    ImageError
        When Pillow cannot decode it either.
    """
    if simplejpeg is not None:
        strict: Callable[..., Any] = simplejpeg.decode_jpeg
        try:
            return np.asarray(strict(data, "RGB"), dtype=np.uint8)
        except ValueError:
            pass
    return np.asarray(open_image(data, exif=False))
