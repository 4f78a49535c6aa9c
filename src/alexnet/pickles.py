"""Pickles of NumPy arrays and plain values, read without running what is in them.

A pickle is a program. Python's own unpickler reads it here with three restrictions: only steps
that make containers, text, numbers or calls are taken; no name that a pickle asks for is looked
up, but stands for a function of this project; and every size is compared with the bytes that are
there before memory is taken.
"""

import io
import math
import pickle
import pickletools
import re
import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.bounds import MAX_OPCODES
from alexnet.errors import AlexNetError, DataError

# Numbers, short text, and what `np.save` makes of a dictionary: an array of one object.
SIMPLE_DTYPE = re.compile(r"[<>|=]?(?:[biufc]\d{1,2}|[SU][1-9]\d{0,3}|O8?)")

NOT_NEEDED = frozenset((  # steps that make no container, text, number or call
    *("EMPTY_SET", "ADDITEMS", "FROZENSET", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"),
    *("NEXT_BUFFER", "READONLY_BUFFER"),
))  # fmt: skip


@dataclass(slots=True)
class _DType:
    """A type of numbers; its order of bytes comes after it."""

    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class _Name:
    """A name that a pickle asks for, the one thing in it that can be called."""

    stands_for: Any


KEYS = (str, bytes, int, float, type(None), _Name)  # of dictionaries: what is quick to hash


class _Dispatch(dict[int, Callable[[Any], None]]):
    """The steps that are taken, by opcode; no more than `MAX_OPCODES` of them."""

    left = MAX_OPCODES

    def __getitem__(self, code: int) -> Callable[[Any], None]:
        self.left -= 1
        if self.left < 0:
            raise DataError(f"It has more than {MAX_OPCODES:,} steps.")
        return super().__getitem__(code)

    def __missing__(self, code: int) -> Callable[[Any], None]:
        name = next(step.name for step in pickletools.opcodes if ord(step.code) == code)
        raise DataError(f"It has a step {name}, which no file of arrays needs: not run.")


class ArrayUnpickler(pickle._Unpickler):
    """Python's unpickler, for pickles that lie one after the other and hold only arrays.

    Text of Python 2 becomes ``bytes``. `names` says what other names than NumPy's stand for,
    ``"module.name"`` to a function or a value; objects of other classes in the `packages` of
    another program come as empty dictionaries.
    """

    read: Callable[[int], bytes]  # of `pickle._Unpickler`, whose types are not published
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    stack: list[Any]

    def __init__(
        self,
        data: bytes,
        names: Mapping[str, Any] | None = None,
        packages: Collection[str] = (),
    ) -> None:
        self._file = io.BytesIO(data)
        super().__init__(self._file, encoding="bytes")
        self.dispatch = _Dispatch(_FUNCTIONS)  # type: ignore[misc]
        self._left = 2 * len(data)  # bytes that may be copied: an array's, once as text
        self._names = {**self._numpy_names(), **(names or {})}
        self._packages = packages

    @property
    def position(self) -> int:
        """Where the pickle that was read last ends, in bytes."""
        return self._file.tell()

    def load(self) -> Any:
        """Return the next pickle's value, or raise DataError where it asks for anything else."""
        self.memo: dict[int, Any] = {}
        try:
            return super().load()
        except AlexNetError:
            raise
        except RecursionError:
            raise DataError("It is nested too deeply.") from None
        except Exception as error:  # a damaged pickle raises nearly every type
            raise DataError(f"It is no whole pickle ({type(error).__name__}).") from None

    def find_class(self, module: str, name: str) -> _Name:
        """Return a name, with what it stands for; nothing is imported."""
        if f"{module}.{name}" in self._names:
            return _Name(self._names[f"{module}.{name}"])
        if module.split(".")[0] in self._packages:
            return _Name(lambda *arguments: {})
        text = f"{module}.{name}"[:80]
        raise DataError(f"It asks for {text}, which it does not need: not run.")

    def persistent_load(self, pid: Any) -> Any:
        """Refuse what is outside of the pickle."""
        raise DataError("It refers to something outside of it.")

    def _numpy_names(self) -> Mapping[str, Callable[..., Any]]:
        made: dict[str, Callable[..., Any]] = {
            "multiarray._reconstruct": lambda *arguments: np.empty(0, np.uint8),
            "multiarray.scalar": _make_scalar,
            "numeric._frombuffer": _make_from_buffer,
        }
        return {
            "numpy.ndarray": lambda *arguments: np.empty(0, np.uint8),
            "numpy.dtype": _make_dtype,
            "_codecs.encode": self._encode,
            **{f"numpy.{core}.{name}": made[name] for core in ("core", "_core") for name in made},
        }

    def _encode(self, text: Any, encoding: Any = "latin1") -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "ascii", "utf-8"):
            raise DataError("It has text in a form that no array needs.")
        self._count_copied(len(text))
        return text.encode(encoding)

    def _count_copied(self, count: int) -> None:
        """See that what is copied, each time anew, stays within what the pickle holds."""
        self._left -= count
        if self._left < 0:
            raise DataError("It makes more of itself than it holds.")

    def _load_bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(size))  # what is there; Python's own takes `size` bytes first

    def _load_stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise DataError("It asks for a name that is no text.")
        self.append(self.find_class(module, name))

    def _load_reduce(self) -> None:
        arguments = self.stack.pop()
        self._call(self.stack.pop(), arguments)

    def _instantiate(self, called: Any, arguments: list[Any]) -> None:
        """Call what the steps INST and OBJ of Python's unpickler found."""
        self._call(called, tuple(arguments))

    def _call(self, called: Any, arguments: Any) -> None:
        """Call a name; text or an array as arguments would become an object for every byte."""
        if not isinstance(called, _Name) or type(arguments) is not tuple:
            raise DataError("It calls something that is no name.")
        self.append(called.stands_for(*arguments))

    def _load_build(self) -> None:
        """Give an array its numbers, and a type of numbers its order of bytes."""
        state, made = self.stack.pop(), self.stack[-1]
        if type(made) is np.ndarray:
            _, shape, kind, fortran, raw = state
            if type(raw) is list and shape == () and len(raw) == 1:
                self.stack[-1] = raw[0]  # of an array of one object, that object
                return
            sizes = _checked_shape(shape, kind, raw)
            self._count_copied(len(raw))
            made.__setstate__((1, sizes, kind.dtype, bool(fortran), raw))  # type: ignore[arg-type]
        elif isinstance(made, _DType):
            if state[1] in (">", b">"):
                made.dtype = made.dtype.newbyteorder(">")
        elif made is not None and type(made) is not dict:  # whose own attributes are not needed
            raise DataError("It gives a state to something that has none.")

    def _load_dict(self) -> None:
        pairs = self.pop_mark()
        self.append({})
        self._set_items(pairs)

    def _load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def _load_setitems(self) -> None:
        self._set_items(self.pop_mark())

    def _set_items(self, pairs: list[Any]) -> None:
        if type(self.stack[-1]) is not dict:
            raise DataError("It sets an entry of something that is no dictionary.")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, KEYS):  # a pair of the same pair of ... takes forever to hash
                raise DataError(f"It has a key of type {type(key).__name__}.")
            self.stack[-1][key] = value


_FUNCTIONS: dict[int, Callable[[Any], None]] = {
    **{
        ord(step.code): pickle._Unpickler.dispatch[ord(step.code)]
        for step in pickletools.opcodes
        if step.proto <= 5 and step.name not in NOT_NEEDED
    },
    pickle.BUILD[0]: ArrayUnpickler._load_build,
    pickle.BYTEARRAY8[0]: ArrayUnpickler._load_bytearray8,
    pickle.DICT[0]: ArrayUnpickler._load_dict,
    pickle.NEWOBJ[0]: ArrayUnpickler._load_reduce,
    pickle.REDUCE[0]: ArrayUnpickler._load_reduce,
    pickle.SETITEM[0]: ArrayUnpickler._load_setitem,
    pickle.SETITEMS[0]: ArrayUnpickler._load_setitems,
    pickle.STACK_GLOBAL[0]: ArrayUnpickler._load_stack_global,
}


def load_arrays(data: bytes) -> Any:
    """Return the value of a pickle of containers, text, numbers and NumPy arrays.

    One that is damaged or asks for anything else is a `DataError`; none of it has been run then.
    """
    return ArrayUnpickler(data).load()


def _make_dtype(text: Any, *arguments: Any) -> _DType:
    name = text.decode("latin-1") if isinstance(text, bytes) else text
    if not isinstance(name, str) or not SIMPLE_DTYPE.fullmatch(name):
        told = repr(name[:40]) if isinstance(name, str) else "unknown"
        raise DataError(f"It has an array of type {told}: not read.")
    return _DType(np.dtype(name))


def _make_scalar(kind: Any, raw: Any = b"") -> Any:
    return np.frombuffer(raw, kind.dtype).reshape(_checked_shape((1,), kind, raw))[0]


def _make_from_buffer(raw: Any, kind: Any, shape: Any, order: Any) -> NDArray[Any]:
    sizes = _checked_shape(shape, kind, raw)
    return np.frombuffer(raw, kind.dtype).reshape(sizes, order="F" if order == "F" else "C")


def _checked_shape(shape: Any, kind: Any, raw: Any) -> tuple[int, ...]:
    """Return the shape of an array, whose numbers must be the bytes that are there."""
    if not isinstance(kind, _DType) or kind.dtype.hasobject or not isinstance(raw, bytes):
        raise DataError("It has an array of objects: not read.")
    sizes = tuple(int(size) for size in shape[:33])
    size = kind.dtype.itemsize
    if len(sizes) > 32 or min(sizes, default=1) < 0 or math.prod(sizes) * size != len(raw):
        raise DataError(f"It has an array of {sizes[:32]} with {len(raw):,} bytes.")
    return sizes
