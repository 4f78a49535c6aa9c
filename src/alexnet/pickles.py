"""Pickles of NumPy arrays and plain values, read without running what is in them.

A pickle is a program. Of all that it may call, the ones here can only make arrays and text.
"""

import io
import pickle
from collections.abc import Callable
from typing import Any

from alexnet.errors import DataError

_ARRAYS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("_codecs", "encode"),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) not in _ARRAYS:
            raise DataError(f"It asks for {module}.{name}, which no array needs: not run.")
        return super().find_class(module, name)  # type: ignore[no-any-return]


def load_arrays(data: bytes) -> Any:
    """Return the value of a pickle of containers, text, numbers and NumPy arrays.

    Text of Python 2 becomes ``bytes``.

    Raises
    ------
    DataError
        When it is damaged or asks for anything else; none of it has been run then.
    """
    try:
        return _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle raises nearly every type
        raise DataError(f"It is no whole pickle ({type(error).__name__}).") from None
