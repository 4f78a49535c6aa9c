"""Pickles of NumPy arrays and plain values, read without running what is in them.

A pickle is a program. Here its steps are read one by one and taken only if they make containers,
text, numbers or arrays. No name that it asks for is looked up and nothing of it is called: what a
name stands for is said by the reader of a kind of file, and is a function of this project.
"""

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.errors import AlexNetError, DataError

MOST_STEPS = 5_000_000  # of one pickle; a batch of CIFAR takes 60,000
SIMPLE = re.compile(r"[<>|=]?(?:[biufc]\d{1,2}|[SU]\d{1,4})")  # types of numbers and short text
KEYS = (str, bytes, int, float, bool, type(None))  # of dictionaries: what is quick to compare

Meaning = Callable[..., Any]


@dataclass(slots=True)
class Record:
    """An object of another program's class: the class's name, and its state."""

    kind: str
    state: Any = None


@dataclass(frozen=True, slots=True)
class _Name:
    """A name that a pickle asks for, and what it stands for here."""

    text: str
    meaning: Meaning


@dataclass(slots=True)
class _Type:
    """A type of numbers; its order of bytes comes after it."""

    kind: np.dtype[Any]


@dataclass(slots=True)
class _Array:
    """An array before its state has come, and where it was noted until then."""

    noted: list[int] = field(default_factory=list)


def load_arrays(data: bytes) -> Any:
    """Return the value of a pickle of containers, text, numbers and NumPy arrays.

    Text of Python 2 becomes ``bytes``.

    Raises
    ------
    DataError
        When it is damaged or asks for anything else; none of it has been run then.
    """
    return Reader(data).load()


def _new_array(*arguments: Any) -> _Array:
    return _Array()


def _type(text: Any, *arguments: Any) -> _Type:
    name = text.decode("latin-1") if isinstance(text, bytes) else text
    if not isinstance(name, str) or not SIMPLE.fullmatch(name):
        told = repr(name[:40]) if isinstance(name, str) else "unknown"
        raise DataError(f"It has an array of type {told}: not read.")
    return _Type(np.dtype(name))


def _scalar(kind: Any, raw: Any = b"") -> Any:
    if not isinstance(kind, _Type) or not isinstance(raw, bytes) or len(raw) != kind.kind.itemsize:
        raise DataError("It has a number of no known type.")
    return np.frombuffer(raw, kind.kind)[0]


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "ascii", "utf-8"):
        raise DataError("It has text in a form that no array needs.")
    return text.encode(encoding)


def _from_buffer(content: Any, kind: Any, shape: Any, order: Any) -> NDArray[Any]:
    return _array((1, shape, kind, order == "F", bytes(content)))


NUMPY: Mapping[str, Meaning] = {
    "numpy.ndarray": _new_array,
    "numpy.dtype": _type,
    "numpy.core.multiarray._reconstruct": _new_array,
    "numpy._core.multiarray._reconstruct": _new_array,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy._core.numeric._frombuffer": _from_buffer,
    "_codecs.encode": _encode,
}


class Reader:
    """Reads pickles that lie one after the other in `data`.

    Parameters
    ----------
    data : bytes
        Nobody vouches for it.
    names : mapping
        What the names that may be asked for stand for: ``"module.name"`` to a function.
    programs : collection of str
        Modules of another program, whose classes' objects come as `Record`.
    persistent : callable, optional
        What an identity of something outside of the pickle stands for.
    """

    def __init__(
        self,
        data: bytes,
        names: Mapping[str, Meaning] = NUMPY,
        programs: Collection[str] = (),
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        self._file, self._bytes, self._copied = io.BytesIO(data), len(data), 0
        self._names, self._programs, self._persistent = names, programs, persistent
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._notes: dict[int, Any] = {}

    def load(self) -> Any:
        """Return the next pickle's value.

        Raises
        ------
        DataError
            When it is damaged, or asks for a name that it may not; none of it has been run then.
        """
        self._stack, self._marks, self._notes = [], [], {}
        try:
            for number, (step, argument, _) in enumerate(pickletools.genops(self._file)):
                if number > MOST_STEPS:
                    raise DataError(f"It has more than {MOST_STEPS:,} steps.")
                if step.name == "STOP":
                    return self._stack.pop()
                self._take(step.name, argument)
        except AlexNetError:
            raise
        except RecursionError:
            raise DataError("It is nested too deeply.") from None
        except Exception as error:  # a damaged pickle raises nearly every type
            raise DataError(f"It is no whole pickle ({type(error).__name__}).") from None
        raise DataError("It is no whole pickle.")

    def _take(self, step: str, argument: Any) -> None:
        """Take one step, named as in `pickletools`."""
        stack = self._stack
        if step in _AS_THEY_ARE:
            stack.append(bytes(argument) if step == "BYTEARRAY8" else argument)
        elif step in _OLD_TEXT:
            stack.append(argument.encode("latin-1"))
        elif step in _MADE:
            stack.append(_MADE[step]())
        elif step in ("MARK", "POP", "POP_MARK", "DUP"):
            self._move(step)
        elif step in _GATHERED:
            self._gather(step)
        elif step in _NOTED or step in _RECALLED:
            self._note(step, argument)
        elif step in _CALLS:
            self._call(step, argument)
        elif step != "FRAME" and not (step == "PROTO" and argument <= pickle.HIGHEST_PROTOCOL):
            raise DataError(f"It has a step {step}, which no file of arrays needs: not run.")

    def _move(self, step: str) -> None:
        if step == "MARK":
            self._marks.append(len(self._stack))
        elif step == "DUP":
            self._stack.append(self._stack[-1])
        elif step == "POP_MARK" or (self._marks and self._marks[-1] == len(self._stack)):
            self._since_mark()
        else:
            self._stack.pop()

    def _since_mark(self) -> list[Any]:
        at = self._marks.pop()
        taken = self._stack[at:]
        del self._stack[at:]
        return taken

    def _gather(self, step: str) -> None:
        """Put what lies on the stack into a container."""
        stack = self._stack
        if step in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(step[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif step in ("TUPLE", "LIST"):
            taken = self._since_mark()
            stack.append(tuple(taken) if step == "TUPLE" else taken)
        elif step == "DICT":
            taken = self._since_mark()
            stack.append({})
            self._put(taken)
        elif step in ("APPEND", "APPENDS"):
            taken = self._since_mark() if step == "APPENDS" else [stack.pop()]
            if type(stack[-1]) is not list:
                raise DataError("It adds to something that is no list.")
            stack[-1].extend(taken)
        elif step == "SETITEMS":
            self._put(self._since_mark())
        else:
            value = stack.pop()
            self._put([stack.pop(), value])

    def _put(self, pairs: list[Any]) -> None:
        if type(self._stack[-1]) is not dict:
            raise DataError("It sets an entry of something that is no dictionary.")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, KEYS):
                raise DataError(f"It has a key of type {type(key).__name__}.")
            self._stack[-1][key] = value

    def _note(self, step: str, argument: Any) -> None:
        """Remember what is on top of the stack under a number, or put it there again."""
        if step in _RECALLED:
            self._stack.append(self._notes[int(argument)])
            return
        number = len(self._notes) if step == "MEMOIZE" else int(argument)
        top = self._stack[-1]
        self._notes[number] = top
        if isinstance(top, _Array):
            top.noted.append(number)

    def _call(self, step: str, argument: Any) -> None:
        """Do what stands in for a call."""
        stack = self._stack
        if step == "GLOBAL":
            stack.append(self._named(argument.replace(" ", ".", 1)))
        elif step == "STACK_GLOBAL":
            name, module = stack.pop(), stack.pop()
            if not isinstance(name, str) or not isinstance(module, str):
                raise DataError("It asks for a name that is no text.")
            stack.append(self._named(f"{module}.{name}"))
        elif step in ("PERSID", "BINPERSID"):
            if self._persistent is None:
                raise DataError("It refers to something outside of it.")
            stack.append(self._persistent(argument if step == "PERSID" else stack.pop()))
        elif step == "BUILD":
            state = stack.pop()
            stack[-1] = self._built(stack[-1], state)
        else:
            if step in ("INST", "OBJ"):
                taken = self._since_mark()
                called = self._named(argument.replace(" ", ".", 1)) if argument else taken.pop(0)
                arguments = tuple(taken)
            else:
                arguments, called = stack.pop(), stack.pop()
            if not isinstance(called, _Name) or type(arguments) is not tuple:
                raise DataError("It calls something that is no name.")
            stack.append(called.meaning(*arguments))
            self._count(stack[-1])

    def _count(self, made: Any) -> None:
        """See that what is copied, each time anew, stays within what the pickle holds."""
        self._copied += len(made) if isinstance(made, bytes) else 0
        if self._copied > self._bytes:
            raise DataError("It makes more of itself than it holds.")

    def _named(self, text: str) -> _Name:
        if text in self._names:
            return _Name(text, self._names[text])
        if text.rpartition(".")[0] in self._programs:
            return _Name(text, lambda *arguments: Record(text))
        raise DataError(f"It asks for {text[:80]}, which it does not need: not run.")

    def _built(self, made: Any, state: Any) -> Any:
        """Give an object its state."""
        if isinstance(made, _Array):
            array = _array(state)
            for number in made.noted:
                self._notes[number] = array
            return array
        if isinstance(made, _Type):
            if state[1] in (">", b">"):
                made.kind = made.kind.newbyteorder(">")
        elif isinstance(made, Record):
            made.state = state
        elif type(made) is not dict:  # a dictionary's own attributes are not needed
            raise DataError("It gives a state to something that has none.")
        return made


def _array(state: Any) -> NDArray[Any]:
    """Return an array of a state: version, shape, type, order of axes, bytes."""
    _, shape, kind, fortran, raw = state
    if not isinstance(kind, _Type) or not isinstance(raw, bytes):
        raise DataError("It has an array of objects: not read.")
    sizes = [int(size) for size in shape]
    size = kind.kind.itemsize
    if len(sizes) > 32 or min(sizes, default=1) < 0 or math.prod(sizes) * size != len(raw):
        raise DataError(f"It has an array of {sizes[:32]} with {len(raw):,} bytes.")
    flat = np.frombuffer(raw, kind.kind)
    return flat.reshape(sizes, order="F" if fortran else "C")


_AS_THEY_ARE = frozenset((
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
))  # fmt: skip
_OLD_TEXT = frozenset(("STRING", "BINSTRING", "SHORT_BINSTRING"))
_MADE: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict,
}  # fmt: skip
_GATHERED = frozenset((
    *("TUPLE1", "TUPLE2", "TUPLE3", "TUPLE", "LIST", "DICT"),
    *("APPEND", "APPENDS", "SETITEM", "SETITEMS"),
))  # fmt: skip
_NOTED = frozenset(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"))
_RECALLED = frozenset(("GET", "BINGET", "LONG_BINGET"))
_CALLS = frozenset((
    *("GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "INST", "OBJ", "BUILD"),
    *("PERSID", "BINPERSID"),
))  # fmt: skip
