"""Why the network answers as it does: what decides, what excites a unit, how alike two are."""

from alexnet.explain.attribution import METHODS, Explanation, explain, explain_all

__all__ = ["METHODS", "Explanation", "explain", "explain_all"]
