"""AlexNet (Krizhevsky, Sutskever, Hinton 2012), complete.

>>> from alexnet.variants import SINGLE
>>> SINGLE.parameters
62378344
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "build", "from_pretrained", "load", "push_to_hub"]

if TYPE_CHECKING:
    from alexnet.api import build, from_pretrained, load, push_to_hub


def __getattr__(name: str) -> Any:
    """Load a public name at its first use, so that importing the package loads no torch."""
    if name in __all__:
        import importlib

        return getattr(importlib.import_module("alexnet.api"), name)
    raise AttributeError(f"module 'alexnet' has no attribute {name!r}")
