"""Protocol buffers without their library: the few fields that are named, within stated bounds.

A file of weights nests its messages a few levels deep and holds some hundred fields and a lot of
numbers. One that declares more is refused before it costs memory or time, and what a schema does
not name is passed over. Numbers come as arrays, packed or one by one.
"""

import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Scalar = Literal["int", "float", "text", "bytes", "floats", "doubles"]
Schema = Mapping[int, "tuple[str, Scalar | Schema]"]  # field number -> name and kind
Message = dict[str, list[Any]]  # every field may come several times

Token = tuple[str, str]  # of a text: its kind, and itself

MOST_FIELDS = 200_000  # in a whole file, those that are passed over included
MOST_DEPTH = 12
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # wire types
SIZES = {"floats": 4, "doubles": 8}  # bytes of a number
TYPES = {"floats": "<f4", "doubles": "<f8"}


class FormatError(ValueError):
    """Bytes, or a text, that are not the message they should be."""


def one(message: Message, name: str, default: Any = None) -> Any:
    """Return a field's value: the last one given, as the format asks, or `default`."""
    return message[name][-1] if message.get(name) else default


def numbers(message: Message, name: str) -> NDArray[Any]:
    """Return a field of kind ``floats`` or ``doubles`` as one float32 array, dense."""
    parts = message.get(name, [])
    joined = parts[0] if len(parts) == 1 else np.concatenate(parts or [np.empty(0, "<f4")])
    return np.ascontiguousarray(joined, np.float32)


def decode(data: bytes | bytearray | memoryview, schema: Schema) -> Message:
    """Decode a message from the wire.

    Raises
    ------
    FormatError
        When it is cut short, damaged, or has more fields than any file of weights.
    """
    return _Wire().message(memoryview(data), schema, 0)


def top_fields(data: bytes | bytearray | memoryview, most: int = 64) -> Iterator[tuple[int, int]]:
    """Yield number and wire type of the first fields of a message, to see whose it is."""
    view, at, wire = memoryview(data), 0, _Wire()
    while at < len(view) and most:
        number, kind, at = wire.key(view, at)
        yield number, kind
        at, most = wire.end(view, at, kind), most - 1


class _Wire:
    def __init__(self) -> None:
        self.left = MOST_FIELDS

    def message(self, data: memoryview, schema: Schema, depth: int) -> Message:
        if depth > MOST_DEPTH:
            raise FormatError("it is nested too deeply")
        found: Message = {}
        at = 0
        while at < len(data):
            number, wire, start = self.key(data, at)
            end = self.end(data, start, wire)
            if number in schema:
                name, kind = schema[number]
                if wire in (FIXED32, FIXED64) and kind in SIZES:
                    values, end = _run(data, at, start, SIZES[str(kind)], TYPES[str(kind)], wire)
                    found.setdefault(name, []).append(values)
                else:
                    value = self.value(data, start, end, wire, kind, depth)
                    found.setdefault(name, []).extend(value)
            at = end
        return found

    def key(self, data: memoryview, at: int) -> tuple[int, int, int]:
        self.left -= 1
        if self.left < 0:
            raise FormatError(f"it has more than {MOST_FIELDS:,} fields")
        key, at = varint(data, at)
        if not key >> 3:
            raise FormatError(f"there is no field at byte {at - 1:,}")
        return key >> 3, key & 7, at

    def end(self, data: memoryview, at: int, wire: int) -> int:
        """Return where a field's value ends, for lengths where it begins plus the length."""
        if wire == VARINT:
            return varint(data, at)[1]
        if wire == LENGTH:
            length, at = varint(data, at)
            end = at + length
        elif wire in (FIXED32, FIXED64):
            end = at + (4 if wire == FIXED32 else 8)
        else:
            raise FormatError(f"byte {at - 1:,} begins no field that is known")
        if end > len(data):
            raise FormatError(f"a field wants {end - at:,} bytes where {len(data) - at:,} are left")
        return end

    def value(
        self, data: memoryview, start: int, end: int, wire: int, kind: Scalar | Schema, depth: int
    ) -> list[Any]:
        if wire == LENGTH:
            content = data[varint(data, start)[1] : end]
            return self.content(content, kind, depth)
        if kind == "int" and wire == VARINT:
            return [_signed(varint(data, start)[0])]
        if kind == "float" and wire == FIXED32:
            return [struct.unpack("<f", data[start:end])[0]]
        raise FormatError(f"the field before byte {end:,} is of another type than it should be")

    def content(self, data: memoryview, kind: Scalar | Schema, depth: int) -> list[Any]:
        """Read what is between the bounds of a field with a length."""
        if not isinstance(kind, str):
            return [self.message(data, kind, depth + 1)]
        if kind == "bytes":
            return [data]
        if kind == "text":
            return [bytes(data).decode("utf-8", "replace")]
        if kind == "int":
            return list(self.packed(data))
        size = SIZES.get(kind, 4)
        if len(data) % size:
            raise FormatError(f"{len(data):,} bytes are no whole count of numbers")
        values = np.frombuffer(data, TYPES.get(kind, "<f4"))
        return [values] if kind in SIZES else values[:1000].tolist()

    def packed(self, data: memoryview) -> Iterator[int]:
        at = 0
        while at < len(data):
            self.left -= 1
            if self.left < 0:
                raise FormatError(f"it has more than {MOST_FIELDS:,} whole numbers")
            value, at = varint(data, at)
            yield _signed(value)


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return a whole number of up to 64 bits, 7 to a byte, and where it ends."""
    value = 0
    for place in range(10):
        if at + place >= len(data):
            raise FormatError("it is cut short")
        byte = data[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at + place + 1
    raise FormatError(f"the number at byte {at:,} does not end")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _run(
    data: memoryview, at: int, start: int, size: int, kind: str, wire: int
) -> tuple[NDArray[Any], int]:
    """Read numbers that come one by one, each behind the same key: the whole run at once."""
    if (size == 4) != (wire == FIXED32):
        raise FormatError(f"the numbers at byte {at:,} are of another type than they should be")
    key, record = np.frombuffer(data[at:start], np.uint8), start - at + size
    rows = np.frombuffer(data[at:], np.uint8)
    rows = rows[: len(rows) // record * record].reshape(-1, record)
    count, look = 0, 64  # further and further, so that many short runs take no longer than one
    while count < len(rows):
        same = (rows[count : count + look, : len(key)] == key).all(axis=1)
        count += len(same) if same.all() else int(same.argmin())
        if not same.all():
            break
        look *= 2
    values = np.ascontiguousarray(rows[:count, len(key) :]).view(kind)[:, 0]
    return values, at + count * record


_TOKEN = re.compile(
    r"""\s+|\#[^\n]*|(?P<name>[A-Za-z_][\w.]*)|(?P<mark>[{}:;,<>\[\]])
    |(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)[fF]?
    |"(?P<text>(?:[^"\\\n]|\\.)*)"|'(?P<other>(?:[^'\\\n]|\\.)*)'""",
    re.VERBOSE,
)


def parse_text(text: str, schema: Schema, words: Mapping[str, int]) -> Message:
    """Parse a message in its text form, a ``.prototxt``, into what `decode` gives.

    Parameters
    ----------
    text : str
        As people write it.
    schema : Schema
        The fields that are wanted; others are passed over.
    words : mapping
        The number of each word that may stand for one: ``MAX: 0``.

    Raises
    ------
    FormatError
        When the text is no such message.
    """
    tokens, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            line = text.count("\n", 0, at) + 1
            raise FormatError(f"line {line} has {text[at : at + 20]!r}, which no prototxt has")
        if match.lastgroup:
            tokens.append((match.lastgroup, match[match.lastgroup]))
        at = match.end()
        if len(tokens) > MOST_FIELDS:
            raise FormatError(f"it has more than {MOST_FIELDS:,} words")
    found, rest = _block(tokens, 0, schema, words, 0)
    if rest < len(tokens):
        raise FormatError("it closes a bracket that was never opened")
    return found


def _block(
    tokens: list[Token], at: int, schema: Schema | None, words: Mapping[str, int], depth: int
) -> tuple[Message, int]:
    """Parse ``name: value`` and ``name { ... }`` up to the closing bracket or the end."""
    if depth > MOST_DEPTH:
        raise FormatError("it is nested too deeply")
    by_name = dict((schema or {}).values())
    found: Message = {}
    while at < len(tokens):
        kind, name = tokens[at]
        if tokens[at] == ("mark", "}"):
            return found, at
        if kind == "mark":
            at += 1
            continue
        if kind != "name":
            raise FormatError(f"{name!r} stands where a name should")
        at += 1 + (_at(tokens, at + 1) == ("mark", ":"))
        wanted = by_name.get(name)
        if _at(tokens, at) == ("mark", "{"):
            inner = None if isinstance(wanted, str) else wanted
            value: Any
            value, at = _block(tokens, at + 1, inner, words, depth + 1)
            wanted = inner
        elif wanted is not None:
            value = _word(_at(tokens, at), wanted, name, words)
        if wanted is not None:
            found.setdefault(name, []).append(value)
        at += 1
    if depth:
        raise FormatError("it ends before all brackets are closed")
    return found, at


def _at(tokens: list[Token], at: int) -> Token:
    if at >= len(tokens):
        raise FormatError("it ends where a value should be")
    return tokens[at]


def _word(token: Token, kind: Scalar | Schema, name: str, words: Mapping[str, int]) -> Any:
    group, text = token
    if kind == "text" and group in ("text", "other", "name"):
        return text
    if kind == "int" and group == "name":
        if text not in words:
            raise FormatError(f"{name} is {text!r}, which is unknown")
        return words[text]
    if group == "number" and kind in ("int", "float"):
        try:
            return int(text) if kind == "int" else float(text)
        except ValueError:
            pass
    if group == "number" and kind == "floats":
        return np.array([float(text)], np.float32)
    raise FormatError(f"{name} is {text!r}")
