"""What the paper counts, and the identity behind dropout's halves."""

import itertools
import math

import numpy as np
import pytest
import torch

from alexnet.claims.checks import HIDDEN, check_counts, check_halving, measure_halving


def test_every_count_agrees_but_for_the_slips_of_the_paper():
    """Facts 1b and 1c: the input of 224, conv1's neurons in Figure 2, 54 places, 33 crops."""
    disagreeing = {row.what for row in check_counts().rows if not row.agrees}
    assert disagreeing == {
        "neurons of input",
        "neurons of conv1",
        "places of 11 pixels every 4 on 224, nothing padded",
        "crops and mirror images of 224 from 256",
    }


def test_halving_is_the_geometric_mean_for_one_hidden_layer_and_not_for_two():
    check = check_halving()
    assert check.agrees
    exact, approximate = check.rows
    assert float(exact.ours) < 1e-12
    assert 1e-4 < float(approximate.ours) < 0.1


def test_the_ensemble_is_that_of_a_slow_loop_over_the_projects_own_dropout():
    """A network of PyTorch with the dropout of 2012, thinned by hand, one mask after another."""
    from alexnet.layers import Dropout

    draws = np.random.default_rng(3)
    first, second = draws.standard_normal((HIDDEN, 6)), draws.standard_normal((4, HIDDEN))
    x = torch.from_numpy(draws.standard_normal(6))
    hidden = (torch.from_numpy(first) @ x).relu()
    logs = []
    for mask in itertools.product((0.0, 1.0), repeat=HIDDEN):
        kept = hidden * torch.tensor(mask, dtype=torch.float64)
        logs.append((torch.from_numpy(second) @ kept).log_softmax(0))
    geometric = torch.stack(logs).mean(0).exp()
    geometric = geometric / geometric.sum()
    dropout = Dropout(0.5, "2012").eval()
    halved = (torch.from_numpy(second) @ dropout(hidden[None])[0]).softmax(0)
    torch.testing.assert_close(halved, geometric, rtol=1e-12, atol=0)
    assert measure_halving(layers=1, seed=3) == pytest.approx(0, abs=1e-12)
    assert not math.isclose(float(halved[0]), float(logs[0].exp()[0]), rel_tol=1e-3)
