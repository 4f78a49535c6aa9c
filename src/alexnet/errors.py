"""The errors a user can meet. Each is one sentence on what happened and one on what to do.

AlexNetError
├── ConfigError            a name or a setting that does not exist or cannot work
├── DataError              a source of images, or a prepared data set, that cannot be used
│   └── ImageError         one image that cannot be decoded
│       ├── UnknownFormatError   it is no image of a format that is read
│       └── TooManyPixelsError   it announces more pixels than are decoded
├── RunError               a run's folder or checkpoint that cannot be used
├── TrainingError          a training that cannot go on
│   ├── DivergedError      its loss or its weights are not finite any more
│   └── LostError          another process of the training is gone; starting again helps
└── MissingExtraError      an optional package that is not installed
"""

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

_T = TypeVar("_T")


class AlexNetError(Exception):
    """Any failure that is explained to the user in a line instead of a traceback.

    `what` happened, and to which file or setting, is a sentence; so is the `fix`, or nothing.
    """

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(" ".join(part for part in (what, fix) if part))
        self.what = what
        self.fix = fix


class ConfigError(AlexNetError, ValueError):
    """A name or a setting that does not exist or cannot work."""


class DataError(AlexNetError):
    """A source of images, or a prepared data set, that cannot be used."""


class ImageError(DataError):
    """One image that cannot be decoded."""


class UnknownFormatError(ImageError):
    """A file that is no image of a format that is read."""


class TooManyPixelsError(ImageError):
    """An image that announces more pixels than are decoded."""


class RunError(AlexNetError):
    """A run's folder or checkpoint that cannot be used."""


class TrainingError(AlexNetError):
    """A training that cannot go on."""


class DivergedError(TrainingError):
    """A training whose loss or weights are not finite any more."""


class LostError(TrainingError):
    """Another process of the training is gone; starting all again goes on."""


class MissingExtraError(AlexNetError, ImportError):
    """An optional package that is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed.",
            f"Install it with: pip install 'alexnet[{extra}]'",
        )


def import_extra(module: str, extra: str, purpose: str) -> Any:
    """Return a module of an optional package; `MissingExtraError` where that is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingExtraError(module.partition(".")[0], extra, purpose) from None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a sentence that offers the nearest known name, or all of them when none is near."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(names)}."


def find_named(what: str, table: Mapping[str, _T], name: str) -> _T:
    """Return the entry of a table; `ConfigError` with the nearest name where there is none."""
    if name not in table:
        raise ConfigError(f"No {what} is called {name!r}.", did_you_mean(name, table))
    return table[name]
