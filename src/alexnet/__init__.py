"""AlexNet (Krizhevsky, Sutskever, Hinton 2012), complete.

>>> import alexnet
>>> alexnet.spec("single").parameters
62378344
"""

from typing import TYPE_CHECKING, Any

from alexnet.version import __version__

__all__ = ["__version__", "build", "load", "spec"]

if TYPE_CHECKING:
    from alexnet.api import build, load, spec


def __getattr__(name: str) -> Any:
    """Load a public name at its first use, so that importing the package loads no torch."""
    if name in __all__:
        import importlib

        return getattr(importlib.import_module("alexnet.api"), name)
    raise AttributeError(f"module 'alexnet' has no attribute {name!r}")
