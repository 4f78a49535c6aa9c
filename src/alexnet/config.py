"""Frozen dataclasses as JSON and back, changed field by field from text, and what checks them."""

import math
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from functools import cache
from numbers import Integral, Real
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from alexnet.errors import ConfigError, did_you_mean
from alexnet.old_names import renamed

T = TypeVar("T")


def require(
    value: Any,
    names: Iterable[str],
    what: str,
    holds: Callable[[float], bool] = lambda number: True,
) -> None:
    """See that fields of a value are finite numbers that can be; for its ``__post_init__``.

    A field is a number, a tuple of numbers, or None, which passes. Where `holds` says that a finite
    number is not `what` it must be, which ends the sentence "It must be", a `ConfigError` does.
    """
    for name in names:
        given = getattr(value, name)
        for number in given if isinstance(given, tuple) else (given,):
            finite = isinstance(number, Integral) or (
                isinstance(number, Real) and math.isfinite(number)
            )
            if number is not None and not (finite and holds(number)):
                raise ConfigError(f"{name} is {given!r}.", f"It must be {what}.")


def require_whole(value: Any, names: Iterable[str], low: int, high: int) -> None:
    """See that fields of a value are whole numbers from `low` to `high`, as `require` does."""
    require(
        value,
        names,
        f"a whole number, {low} to {high}",
        lambda number: isinstance(number, Integral) and low <= number <= high,
    )


def require_choices(value: Any) -> None:
    """See that fields that have a few choices hold one of them; for ``__post_init__``."""
    for name, options in _find_choices(type(value)).items():  # type: ignore[arg-type]
        if (given := getattr(value, name)) not in options:
            raise ConfigError(f"{name} is {given!r}.", f"It must be one of {options}.")


@cache
def _find_choices(kind: type) -> dict[str, tuple[Any, ...]]:
    """Return the choices of each field of a class whose type is a `Literal`."""
    hints = get_type_hints(kind)
    return {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal}


def from_json(kind: type[T], data: Any) -> T:
    """Rebuild a value from what `dataclasses.asdict` and JSON made of it.

    An unknown field, or a value of the wrong type, is a `ConfigError`.
    """
    return _rebuilt(kind, data, kind.__name__)  # type: ignore[no-any-return]


def _rebuilt(kind: Any, data: Any, where: str) -> Any:
    options = get_args(kind)
    if is_dataclass(kind):
        return _rebuilt_fields(kind, data, where)
    if get_origin(kind) is Literal:
        if data in options:
            return data
        raise ConfigError(f"{where} is {data!r}.", f"It must be one of {options}.")
    if get_origin(kind) in (Union, types.UnionType):
        return _first_that_fits(options, data, where)
    if get_origin(kind) is dict and isinstance(data, Mapping):
        return {key: _rebuilt(options[1], value, f"{where}.{key}") for key, value in data.items()}
    if get_origin(kind) is tuple and isinstance(data, list | tuple):
        kinds = [options[0]] * len(data) if options[-1] is ... else options
        if len(kinds) == len(data):
            parts = zip(kinds, data, strict=True)
            return tuple(_rebuilt(k, d, f"{where}[{i}]") for i, (k, d) in enumerate(parts))
    if kind is float and type(data) is int:
        return float(data)
    if isinstance(kind, type) and type(data) is kind:
        return data
    raise ConfigError(f"{where} is {data!r}.", f"It should be {_spelled(kind)}.")


def _rebuilt_fields(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where} is {data!r}.", "It should be an object.")
    hints = get_type_hints(kind)
    data = dict(renamed(kind, name, value) for name, value in data.items())
    for name in data:
        if name not in hints:
            raise ConfigError(f"{where} has no field {name!r}.", did_you_mean(name, hints))
    values = {k: _rebuilt(hints[k], v, f"{where}.{k}") for k, v in data.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"{where} is incomplete ({error}).") from None
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.what}", error.fix) from None


def _first_that_fits(options: tuple[Any, ...], data: Any, where: str) -> Any:
    for option in options:
        try:
            return _rebuilt(option, data, where)
        except ConfigError:
            continue
    names = " or ".join(map(_spelled, options))
    raise ConfigError(f"{where} is {data!r}.", f"It should be {names}.")


def _spelled(kind: Any) -> str:
    return "none" if kind is types.NoneType else str(getattr(kind, "__name__", kind))


def with_setting(value: T, path: str, text: str) -> T:
    """Return a copy of a value with one field, named by a dotted path, read from text.

    Members of a tuple are named by their own ``name``: ``conv1.norm.k``. A field that is not there,
    or a text that does not fit, is a `ConfigError`.
    """
    given, _, rest = path.partition(".")
    name, data = renamed(type(value), given, None if rest else _parsed(text))
    known = [field.name for field in fields(value)]  # type: ignore[arg-type]
    if name in known:
        kind = get_type_hints(type(value))[name]
        if not rest:
            return replace(value, **{name: _rebuilt(kind, data, name)})  # type: ignore[type-var]
        inner = getattr(value, name)
        if not is_dataclass(inner):
            raise ConfigError(f"{name} is {inner!r} and has no {rest!r}.")
        return replace(value, **{name: with_setting(inner, rest, text)})  # type: ignore[type-var]
    for field in known:
        members = getattr(value, field)
        if isinstance(members, tuple) and name in [getattr(m, "name", None) for m in members]:
            changed = tuple(with_setting(m, rest, text) if m.name == name else m for m in members)
            return replace(value, **{field: changed})  # type: ignore[type-var]
    raise ConfigError(f"No setting is called {name!r}.", did_you_mean(name, known))


def _parsed(text: str) -> Any:
    words = {"true": True, "yes": True, "false": False, "no": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    if "," in text:
        return [_parsed(part) for part in text.split(",") if part]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def differences(old: Any, new: Any) -> dict[str, tuple[Any, Any]]:
    """Return the fields in which two values of one type differ, by dotted path."""
    before, after = _flat(asdict(old)), _flat(asdict(new))
    return {
        path: (before.get(path), after.get(path))
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    }


def _flat(data: Any, path: str = "") -> dict[str, Any]:
    if isinstance(data, Mapping):
        pairs = [(str(key), value) for key, value in data.items()]
    elif isinstance(data, list | tuple) and any(isinstance(item, Mapping) for item in data):
        pairs = [(str(item.get("name", i)), item) for i, item in enumerate(data)]
    else:
        return {path: data}
    found: dict[str, Any] = {}
    for name, value in pairs:
        found |= _flat(value, f"{path}.{name}" if path else name)
    return found
