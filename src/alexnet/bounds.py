"""Files from strangers: what they may hold at most, and the checks before memory is taken for one.

Every reader of a foreign file keeps its limits here and asks here: pickles, PyTorch's archives,
protobuf (Caffe, ONNX), the headers of safetensors, JSON, Parquet and images. Nothing of a file is
run, and no size in it is believed before it is compared with the file's.
"""

import json
import math
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alexnet.errors import AlexNetError, MissingExtraError, RunError

MAX_PIXELS = 178_956_970  # of an image: Pillow's own limit, a gibibyte of RGBA at three quarters
MAX_IMAGE_BYTES = 1 << 28  # of one compressed image, unpacked: no photograph has more
MAX_LINKED = 1 << 22  # files that links in an archive lead to, all together
MAX_FILE = 4 << 30  # bytes; AlexNet's weights are 250 MB, 750 MB with an optimiser's
MAX_MEAN = 1 << 28  # bytes of a mean image's file
MAX_LIST = 64 << 20  # bytes of a configuration, names of classes, or the names of tensors
MAX_TEXT = 1 << 20  # bytes of a .prototxt
MAX_ROWS = 2 << 30  # bytes of a group of rows of Parquet, unpacked; writers aim at 128 MB
MAX_IMAGE = 1024  # pixels on a side of what a network sees, of its windows and strides
MAX_SIDE = 2048  # pixels on a side of a mean or of prepared images
MAX_LAYERS = 100  # with weights
MAX_VALUES = 2_000_000  # of JSON; of 22,000 classes each is named twice
MAX_FIELDS = 200_000  # of a protobuf message, those inside of others included
MAX_DEPTH = 12  # of protobuf messages in each other
MAX_OPCODES = 5_000_000  # of one pickle; a batch of CIFAR takes 60,000

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # protobuf's wire types
WIDTHS = {FIXED64: 8, FIXED32: 4}  # bytes


class FormatError(ValueError):
    """Bytes that are not the message they should be."""


@contextmanager
def explain_damage(path: Path | str, fix: str = "", *, importing: bool = True) -> Iterator[None]:
    """Turn whatever a stranger's file raises while it is understood into a sentence.

    Where nothing is imported, the file is this project's own JSON, and a KeyError is an entry that
    it lacks.
    """
    refused = f"{str(path)!r} cannot be {'imported' if importing else 'used'}"
    try:
        yield
    except FileNotFoundError:
        raise RunError(f"There is no file {str(path)!r}.", fix) from None
    except OSError as error:
        raise RunError(f"{str(path)!r} cannot be read ({error.strerror or error}).", fix) from None
    except MissingExtraError:
        raise
    except AlexNetError as error:
        raise RunError(f"{refused}: {error.what[:1000]}", error.fix or fix) from None
    except RecursionError:
        raise RunError(f"{str(path)!r} is nested too deeply.", fix) from None
    except MemoryError:
        raise RunError(f"{str(path)!r} asks for more memory than there is.", fix) from None
    except Exception as error:  # zipfile, safetensors and PyTorch have some of no common base
        if not importing:
            lacks = isinstance(error, KeyError)
            what = f"{str(path)!r} has no {error}." if lacks else f"{refused}: {str(error)[:300]}"
            raise RunError(what, fix) from None
        kind = "" if isinstance(error, FormatError) else f"{type(error).__name__}: "
        said = f"{kind}{str(error)[:200]}"
        raise RunError(
            f"{str(path)!r} is damaged or of another format ({said}).",
            fix or "Download it again, or say what it is with --as.",
        ) from None


def read_bytes(path: Path, most: int = MAX_FILE) -> bytes:
    """Read a file whole, unless it is larger than any of its kind."""
    size = path.stat().st_size
    if size > most:
        raise RunError(f"It has {size:,} bytes.", f"At most {most:,} are read.")
    return path.read_bytes()


def check_shape(name: str, shape: Sequence[int], count: int) -> None:
    """See that an array's declared shape is that of the `count` numbers that are there."""
    wanted = math.prod(shape[:8])
    if len(shape) > 8 or min(shape, default=0) < 0 or wanted != count:
        raise RunError(
            f"{name!r} has {count:,} numbers in the file; its shape {tuple(shape[:8])} wants "
            f"{wanted:,}."
        )


def check_message(data: bytes, descriptor: Any) -> None:
    """See that a protobuf message is whole and has no more fields than any file of weights.

    The library makes an object of every message inside of a message, some forty times the bytes
    that an empty one takes. `descriptor` is the message's type of `google.protobuf`; what that
    does not name is passed over.
    """
    _count_fields(data, 0, len(data), descriptor, MAX_FIELDS, MAX_DEPTH)


def _count_fields(data: bytes, at: int, end: int, descriptor: Any, left: int, depth: int) -> int:
    """Walk the fields between two places; return how many of `left` are left."""
    if depth < 0:
        raise FormatError("it is nested too deeply")
    while at < end:
        key_at, (number, wire, start, stop) = at, next_field(data, at, end)
        left, at = left - 1, stop
        field = descriptor.fields_by_number.get(number)
        if field is not None and wire == LENGTH and field.message_type is not None:
            left = _count_fields(data, start, stop, field.message_type, left, depth - 1)
        elif field is not None and wire == LENGTH and field.cpp_type in _WHOLE_NUMBERS:
            left -= stop - start  # packed, each of a byte or more
        elif field is not None and wire in WIDTHS and field.is_repeated:
            # numbers one by one, each behind the same key: the whole run at once
            key = re.escape(data[key_at:start])
            pattern = re.compile(b"(?:%b.{%d})++" % (key, WIDTHS[wire]), re.DOTALL)
            run = pattern.match(data, stop, end)
            at = run.end() if run else stop
        if left < 0:
            raise FormatError(f"it has more than {MAX_FIELDS:,} fields")
    return left


_WHOLE_NUMBERS = frozenset((1, 2, 3, 4, 7, 8))  # C++ types of `FieldDescriptor`, bool and enum too


def next_field(data: bytes, at: int, end: int) -> tuple[int, int, int, int]:
    """Return number and wire type of the field at a place, and where its value begins and ends."""
    number, wire, start = read_key(data, at, end)
    if wire == VARINT:
        return number, wire, start, _varint(data, start, end)[1]
    if wire == LENGTH:
        size, start = _varint(data, start, end)
    elif wire in WIDTHS:
        size = WIDTHS[wire]
    else:
        raise FormatError(f"byte {at:,} begins no field that is known")
    if size > end - start:
        raise FormatError(f"a field wants {size:,} bytes where {end - start:,} are left")
    return number, wire, start, start + size


def read_key(data: bytes, at: int, end: int) -> tuple[int, int, int]:
    """Return number and wire type of the field at a place, and where its length or value begins."""
    key, start = _varint(data, at, end)
    if not key >> 3:
        raise FormatError(f"there is no field at byte {at:,}")
    return key >> 3, key & 7, start


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Return a whole number of up to 64 bits, 7 to a byte, and where it ends."""
    value = 0
    for place in range(10):
        if at + place >= end:
            raise FormatError("it is cut short")
        byte = data[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at + place + 1
    raise FormatError(f"the number at byte {at:,} does not end")


def parse_json(text: str | bytes) -> Any:
    """Parse a stranger's JSON of finite numbers and no more than `MAX_VALUES` values.

    More of them, too deep a nesting, or what is no JSON is a `ValueError`.
    """
    marks = ("[", "{", ",") if isinstance(text, str) else (b"[", b"{", b",")
    if sum(map(text.count, marks)) > MAX_VALUES:  # type: ignore[arg-type]
        raise FormatError(f"it has more than {MAX_VALUES:,} values")
    try:
        return json.loads(text, parse_constant=_parse_finite, parse_float=_parse_finite)
    except RecursionError:
        raise FormatError("it is nested too deeply") from None


def _parse_finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise FormatError(f"{text} is not finite")
    return number


def read_safetensors_header(path: Path) -> dict[str, Any]:
    """Return the JSON before the numbers of a safetensors file: tensors, and ``__metadata__``."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > min(MAX_LIST, path.stat().st_size - 8):
            raise FormatError(f"its header is said to have {size:,} bytes")
        header = parse_json(file.read(size))
    if not isinstance(header, dict):
        raise FormatError("its header is no object")
    return header


def list_stored(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Return the parts of a zip of `size` bytes, which must be as large as they lie there."""
    parts = archive.infolist()
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise RunError("Its parts are compressed, as torch.save never writes them.")
    if sum(part.file_size for part in parts) > size:
        raise RunError("Its parts are declared larger than the file.")
    return {part.filename: part for part in parts}


def check_parquet(metadata: Any) -> None:
    """See that no group of rows unpacks to more than any that a writer makes.

    `metadata` is that of `pyarrow.parquet.ParquetFile`.
    """
    sizes = (metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    if (largest := max(sizes, default=0)) > MAX_ROWS:
        raise FormatError(f"a group of its rows unpacks to {largest:,} bytes")
