"""Nearest neighbours are the exact ones, whatever the vectors, within bounded memory."""

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from alexnet.errors import ConfigError, DataError
from alexnet.features import Neighbours, search


def brute(vectors, queries, count):
    """Every distance in float64, by SciPy; of equal ones the earlier vector."""
    distances = cdist(queries.astype(np.float64), vectors.astype(np.float64))
    order = np.argsort(distances, 1, kind="stable")[:, :count]
    return np.take_along_axis(distances, order, 1), order


def cases():
    draws = np.random.default_rng(5)
    plain = draws.standard_normal((700, 40), np.float32)
    yield "normal", plain, draws.standard_normal((9, 40), np.float32)
    yield "rectified", np.maximum(plain, 0), np.maximum(plain[:300:7] + 0.1, 0)
    yield "far from zero", plain / 8 + 4096, plain[:20] / 8 + 4096
    yield "two far clouds", np.where(np.arange(700)[:, None] % 2, plain, plain + 1e4), plain[:9]
    yield "one much longer", np.vstack([plain, plain[:1] * 1e6]), plain[:9]
    yield "tiny", plain * np.float32(1e-30), plain[:9] * np.float32(1e-30)
    yield "all equal", np.ones((700, 40), np.float32), plain[:3]
    yield "all zero", np.zeros((700, 40), np.float32), np.zeros((3, 40), np.float32)
    yield "integers, many ties", np.round(plain[:, :3]), np.round(plain[:50, :3])


CASES = list(cases())


@pytest.mark.parametrize(("vectors", "queries"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
@pytest.mark.parametrize("chunk", [1 << 10, 1 << 14, 1 << 25])
def test_neighbours_and_distances_are_those_of_float64(vectors, queries, chunk, monkeypatch):
    monkeypatch.setattr(search, "CHUNK", chunk)
    monkeypatch.setattr(search, "BLOCK", 4)
    distances, indices = Neighbours(vectors).nearest(queries, 7)
    wanted, order = brute(vectors, queries, 7)
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_allclose(distances, wanted, rtol=1e-12, atol=0)


def test_float32_products_alone_would_get_it_wrong():
    """The case that the bounds are for: the plain formula picks other vectors."""
    vectors, queries = CASES[2][1:]
    squares = (queries**2).sum(1)[:, None] + (vectors**2).sum(1) - 2 * queries @ vectors.T
    _, order = brute(vectors, queries, 7)
    assert (np.argsort(squares, 1)[:, :7] != order).any()


def test_neighbours_equal_a_tree_of_scipy():
    draws = np.random.default_rng(6)
    vectors, queries = draws.random((5000, 8), np.float32), draws.random((200, 8), np.float32)
    distances, indices = Neighbours(vectors).nearest(queries, 6)
    wanted, order = cKDTree(vectors.astype(np.float64)).query(queries.astype(np.float64), 6)
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_allclose(distances, wanted, rtol=1e-12)


def test_maps_are_flattened_and_fewer_vectors_than_asked_for_are_all_returned():
    vectors = np.arange(24, dtype=np.float32).reshape(3, 2, 2, 2)
    distances, indices = Neighbours(vectors).nearest(vectors[1:2], 9)
    assert indices.tolist() == [[1, 0, 2]]
    np.testing.assert_allclose(distances, [[0, 8 * 8**0.5, 8 * 8**0.5]])


def test_what_cannot_be_searched_is_refused_by_number():
    vectors = np.zeros((90, 4), np.float32)
    vectors[71, 2] = np.nan
    with pytest.raises(DataError, match="Vector 71 has a number that is not finite"):
        Neighbours(vectors).nearest(vectors[:1])
    with pytest.raises(DataError, match="Query 1 has"):
        Neighbours(vectors[:50]).nearest(vectors[70:72])
    with pytest.raises(ConfigError, match="Queries of 3 numbers"):
        Neighbours(vectors[:50]).nearest(vectors[:1, :3])
    with pytest.raises(ConfigError, match="no vectors"):
        Neighbours(vectors[:0])
