"""Spearman's correlation, with ties: many places of a map, and many units, are exactly 0."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Matrix = NDArray[np.float64]


def rank(values: ArrayLike) -> Matrix:
    """Return the ranks of some numbers, from 1; of equals each has the mean of their places.

    Ranks by place alone would let two maps that are 0 almost everywhere agree on the order of those
    zeros: of two that have nothing in common, nine tenths of them 0, the correlation is .7.

    Examples
    --------
    >>> rank([0.5, 0.0, 0.0, 0.7])
    array([3. , 1.5, 1.5, 4. ])
    """
    _, place, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def correlate_ranks(ones: ArrayLike, others: ArrayLike) -> Matrix:
    """Return Spearman's correlation of each row of `ones` with each of `others`, ``(A, B)``.

    0 where all numbers of a row are equal.
    """
    both = []
    for rows in (np.asarray(ones), np.asarray(others)):
        ranks = np.array([rank(row) for row in rows])
        ranks -= ranks.mean(1, keepdims=True)
        lengths = np.linalg.norm(ranks, axis=1, keepdims=True)
        both.append(ranks / np.where(lengths == 0, 1, lengths))
    correlated: Matrix = both[0] @ both[1].T
    return correlated
