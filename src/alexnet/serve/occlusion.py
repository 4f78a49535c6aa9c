"""Which part of a picture decides: the class's probability as a grey square covers each part.

This is the occlusion experiment of Zeiler and Fergus (2014) on a grid.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

GRID = 11  # positions along a side: 121 forwards in all
CHUNK = 11  # covered images that are asked for at once, so that others get their turn between


@dataclass(frozen=True, slots=True)
class Squares:
    """The grey squares over a view, in its pixels."""

    view: int  # side of the view
    size: int  # side of a square
    stride: int  # from one to the next
    offset: int  # of the view in the prepared image

    @classmethod
    def over(cls, prepared: int, view: int) -> "Squares":
        """Return squares of a quarter of the view, spread evenly from edge to edge."""
        size = max(1, view // 4)
        return cls(view, size, max(1, (view - size) // (GRID - 1)), (prepared - view) // 2)

    @property
    def places(self) -> list[tuple[int, int]]:
        """Top and left of each square in the view, row by row."""
        steps = [step * self.stride for step in range(GRID)]
        return [(top, left) for top in steps for left in steps]

    def covered(self, image: Tensor, mean: Tensor) -> list[Tensor]:
        """Return an image once with each square covered.

        Parameters
        ----------
        image : Tensor
            ``(prepared, prepared, 3)`` uint8.
        mean : Tensor
            ``(3,)`` uint8, the colour of the squares: what the network takes for nothing.
        """
        copies = []
        for top, left in self.places:
            copy = image.clone()
            y, x = top + self.offset, left + self.offset
            copy[y : y + self.size, x : x + self.size] = mean
            copies.append(copy)
        return copies


def rows(probabilities: list[Tensor], label: int) -> list[list[float]]:
    """Return the probability of a class for each place, by row."""
    values = torch.stack(probabilities)[:, label].reshape(GRID, GRID)
    return [[round(value, 6) for value in row] for row in values.tolist()]
