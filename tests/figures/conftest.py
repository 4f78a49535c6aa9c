"""The same small networks as for the features."""

from tests.features.conftest import paper, quick

__all__ = ["paper", "quick"]
