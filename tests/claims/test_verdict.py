"""The statistics against SciPy, and against what they promise, in thousands of simulated grids."""

import math

import numpy as np
import pytest
from scipy import stats

from alexnet.claims.verdict import (
    Measurement,
    Verdict,
    compare,
    confidence_interval,
    decide_verdict,
    t_quantile,
)


def arm(values, censored=()):
    return {seed: Measurement(float(v), seed in censored) for seed, v in enumerate(values)}


@pytest.fixture
def errors():
    """Return the test errors of two arms over 7 seeds: a seed moves both."""
    random = np.random.default_rng(3)
    by_seed = random.normal(0.2, 0.02, 7)
    return by_seed + random.normal(0.015, 0.004, 7), by_seed


@pytest.mark.parametrize(
    ("degrees", "table"),
    [(1, 12.7062), (2, 4.30265), (4, 2.77645), (10, 2.22814), (30, 2.04227)],
)
def test_t_quantile_is_that_of_the_tables(degrees, table):
    """Student's distribution has 0.975 of its mass below these, as printed tables give them."""
    assert t_quantile(degrees) == pytest.approx(table, rel=3e-6)
    assert t_quantile(degrees, 0.95) == t_quantile(degrees)


def test_t_quantile_of_one_and_two_degrees_has_a_closed_form():
    for confidence in (0.5, 0.95, 0.999):
        cauchy = math.tan(math.pi / 2 * confidence)
        assert t_quantile(1, confidence) == pytest.approx(cauchy, rel=1e-12)
        two = confidence * math.sqrt(2 / (1 - confidence**2))
        assert t_quantile(2, confidence) == pytest.approx(two, rel=1e-12)


def test_t_quantile_is_scipys():
    for degrees in (*range(1, 31), 99, 1000):
        for confidence in (0.5, 0.95, 0.999):
            expected = stats.t.ppf((1 + confidence) / 2, degrees)
            assert t_quantile(degrees, confidence) == pytest.approx(expected, rel=1e-12)


def test_interval_of_differences_is_scipys_paired_t_interval(errors):
    first, second = errors
    found = compare(arm(first), arm(second))
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert found.interval == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert found.effect == pytest.approx((first - second).mean(), rel=1e-12)
    assert found.means == pytest.approx((first.mean(), second.mean()), rel=1e-12)
    assert found.seeds == 7


def test_interval_of_a_ratio_is_scipys_on_logarithms(errors):
    first, second = errors
    found = compare(arm(first), arm(second), ratio=True)
    expected = stats.ttest_rel(np.log(first), np.log(second)).confidence_interval(0.95)
    assert found.interval == pytest.approx(np.exp((expected.low, expected.high)), rel=1e-12)
    assert found.effect == pytest.approx(stats.gmean(first / second), rel=1e-12)
    assert found.means == pytest.approx((stats.gmean(first), stats.gmean(second)), rel=1e-12)


def test_pairs_are_matched_by_seed_not_by_order():
    first = {2: Measurement(0.32), 0: Measurement(0.30), 1: Measurement(0.31)}
    second = {0: Measurement(0.20), 1: Measurement(0.21), 2: Measurement(0.22)}
    found = compare(first, second)
    assert [seed for seed, _, _ in found.pairs] == [0, 1, 2]
    assert found.effect == pytest.approx(0.1)
    assert found.interval == (-math.inf, math.inf)  # no pair differs from the others


def test_seeds_without_a_number_in_both_arms_are_left_out_and_named():
    first = arm([0.30, 0.31, math.nan, 0.33, 0.34])
    second = arm([0.20, 0.215, 0.22, math.inf])
    found = compare(first, second)
    assert found.seeds == 2
    assert found.left_out == (2, 3, 4)
    assert compare(arm([0.0, 2.0]), arm([1.0, 1.0]), ratio=True).left_out == (0,)


def test_no_verdict_from_one_seed_or_none():
    one, none = compare(arm([0.9]), arm([0.1])), compare({}, arm([0.1]))
    assert (one.verdict, none.verdict) == (Verdict.TOO_FEW, Verdict.TOO_FEW)
    assert one.effect == pytest.approx(0.8)
    assert math.isnan(one.interval[0])
    assert math.isnan(none.effect)


def test_verdicts_are_those_of_the_written_rule():
    assert decide_verdict(1.5, 0.5, 2.5, min_effect=None) is Verdict.HOLDS
    assert decide_verdict(1.5, 0.5, 2.5, min_effect=1.5) is Verdict.HOLDS
    assert decide_verdict(1.5, 0.5, 2.5, min_effect=1.6) is Verdict.DIRECTION
    assert decide_verdict(1.5, -0.1, 3.1, min_effect=1.0) is Verdict.NOT_SEEN
    assert decide_verdict(0.0, 0.0, 0.0, min_effect=None) is Verdict.NOT_SEEN
    assert decide_verdict(-1.5, -2.9, -0.1, min_effect=1.0) is Verdict.REVERSED
    assert decide_verdict(1.5, math.nan, math.nan, min_effect=1.0) is Verdict.TOO_FEW


def test_a_small_interval_about_nothing_is_a_verdict_of_its_own():
    """Not so a wide one, which could hide the effect; nor one that leaves nothing out."""
    assert decide_verdict(0.1, -0.3, 0.5, None, relevant=1.4) is Verdict.NO_LARGER
    assert decide_verdict(0.1, -1.5, 1.7, None, relevant=1.4) is Verdict.NOT_SEEN
    assert decide_verdict(-0.6, -1.5, 0.3, None, relevant=1.4) is Verdict.NOT_SEEN
    assert decide_verdict(0.3, 0.1, 0.5, None, relevant=1.4) is Verdict.HOLDS
    assert decide_verdict(0.1, -0.3, math.inf, None, relevant=1.4) is Verdict.NOT_SEEN
    ratios = compare(arm([1.0, 1.1, 1.2]), arm([1.1, 1.1, 1.1]), ratio=True, relevant=1.5)
    assert ratios.verdict is Verdict.NO_LARGER
    assert ratios.largest == pytest.approx(1 / ratios.interval[0])  # farther from 1 than the other


def test_half_of_the_interval_is_the_smallest_effect_that_is_seen(errors):
    """An effect of that size, with the same spread, has an interval that begins at 0."""
    first, second = errors
    found = compare(arm(first), arm(second))
    moved = compare(arm(first - found.effect + found.half_width), arm(second))
    assert moved.interval[0] == pytest.approx(0, abs=1e-12)
    ratio = compare(arm(first), arm(second), ratio=True)
    moved = compare(arm(first / ratio.effect * ratio.half_width), arm(second), ratio=True)
    assert moved.interval[0] == pytest.approx(1, rel=1e-12)
    assert math.isinf(compare(arm([4, 6], {0}), arm([1, 2])).half_width)
    for ratio in (False, True):  # the same, open below
        open_below = compare(arm([4, 5, 4.5]), arm([8, 7, 8], {0}), ratio=ratio)
        assert math.isinf(open_below.half_width)
        assert math.isfinite(open_below.interval[1])


@pytest.mark.parametrize(
    ("first", "second", "ratio"),
    [
        ([16, 16], [12, 12], True),  # passes until converged, tested every second pass
        ([0, 0, 0, 0], [0, 0, 0, 0], False),  # units that are never active
        ([0.4, 0.5, 0.6], [0.3, 0.4, 0.5], False),  # alike but for the last bit
    ],
)
def test_pairs_that_differ_by_the_same_number_have_no_spread_to_judge_by(first, second, ratio):
    found = compare(arm(first), arm(second), ratio=ratio, min_effect=None, relevant=10)
    assert found.verdict is Verdict.NOT_SEEN
    assert found.is_unlimited
    assert math.isinf(found.half_width)
    assert not compare(arm([*first, 17]), arm([*second, 11]), ratio=False).is_unlimited


def test_a_ratio_is_held_against_min_effect_on_its_own_scale():
    tanh, relu = arm([20, 22, 21]), arm([5, 5.2, 5.1])  # 4.1 times
    assert compare(tanh, relu, ratio=True, min_effect=3).verdict is Verdict.HOLDS
    assert compare(tanh, relu, ratio=True, min_effect=6).verdict is Verdict.DIRECTION
    assert compare(relu, tanh, ratio=True, min_effect=3).verdict is Verdict.REVERSED


def test_stopped_runs_give_a_bound_and_an_open_interval():
    tanh, relu = [40.0, 31.0, 40.0], [5.0, 5.2, 5.1]
    closed = compare(arm(tanh), arm(relu), ratio=True)
    found = compare(arm(tanh, censored={0, 2}), arm(relu), ratio=True, min_effect=3)
    assert found.bound == "at least"
    assert found.censored == (2, 0)
    assert found.effect == closed.effect
    assert found.interval == (closed.interval[0], math.inf)
    assert found.verdict is Verdict.HOLDS
    slow = compare(arm(relu), arm(tanh, censored={0, 2}), ratio=True)
    assert slow.bound == "at most"
    assert slow.interval == (0, pytest.approx(1 / closed.interval[0]))
    assert slow.verdict is Verdict.REVERSED


def test_stopped_runs_in_both_arms_say_nothing():
    found = compare(arm([40.0, 30.0], {0}), arm([10.0, 40.0], {1}))
    assert found.bound == "unknown"
    assert found.interval == (-math.inf, math.inf)
    assert found.verdict is Verdict.NOT_SEEN


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_interval_covers_the_true_effect_in_95_of_100_grids(seeds):
    random, grids, effect = np.random.default_rng(seeds), 4000, 0.014
    differences = effect + random.normal(0, 0.01, (grids, seeds))
    ends = np.array([confidence_interval(row) for row in differences])
    covered = np.mean((ends[:, 0] <= effect) & (effect <= ends[:, 1]))
    assert covered == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / grids))


def test_where_there_is_no_effect_5_in_100_grids_say_that_there_is_one():
    random, grids = np.random.default_rng(0), 4000
    by_seed = random.normal(0.2, 0.05, (grids, 1, 4))
    arms = by_seed + random.normal(0, 0.01, (grids, 2, 4))
    verdicts = [compare(arm(first), arm(second)).verdict for first, second in arms]
    spread = 4 * math.sqrt(0.025 * 0.975 / grids)
    for false in (Verdict.HOLDS, Verdict.REVERSED):
        assert verdicts.count(false) / grids == pytest.approx(0.025, abs=spread)


def test_pairing_takes_out_what_a_seed_does_to_both_arms():
    """Five seeds that move the error by 5 points, and an effect of 1: seen by pairs alone."""
    random, grids, seen, unpaired = np.random.default_rng(1), 300, 0, 0
    for _ in range(grids):
        second = random.normal(0.2, 0.05, 5)
        first = second + random.normal(0.01, 0.003, 5)
        seen += compare(arm(first), arm(second)).verdict is Verdict.HOLDS
        unpaired += stats.ttest_ind(first, second).pvalue < 0.05
    assert seen > 0.9 * grids
    assert unpaired < 0.1 * grids


def test_lower_end_with_stopped_runs_is_below_the_true_ratio_in_97_of_100_grids():
    """Tanh needs 6 times the epochs, and half of its runs are stopped before they are there."""
    random, grids, cap = np.random.default_rng(2), 3000, 30.0
    above = 0
    for _ in range(grids):
        relu = np.exp(random.normal(np.log(5), 0.15, 4))
        tanh = np.exp(random.normal(np.log(30), 0.25, 4))
        censored = set(np.flatnonzero(tanh > cap).tolist())
        found = compare(arm(np.minimum(tanh, cap), censored), arm(relu), ratio=True)
        above += found.interval[0] > 6
    assert above / grids < 0.025 + 4 * math.sqrt(0.025 * 0.975 / grids)
