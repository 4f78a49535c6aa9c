"""The same small networks as for the features."""

from tests.features.conftest import large, paper, quick

__all__ = ["large", "paper", "quick"]
