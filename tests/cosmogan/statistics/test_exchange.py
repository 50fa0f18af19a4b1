"""The p-value of exchanged boxes: known answers, its size, and what it can see."""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import binom

from cosmogan.statistics.exchange import ExchangeTest, exchange_test
from cosmogan.statistics.two_sample import area_under_curve

# Chance that an honest number of rejections lies outside what is allowed; some dozen such checks are made.
UNLIKELY = 1e-4


def scores(rng: np.random.Generator, n_boxes: int, n_slices: int, *, own: float, shift: float = 0.0) -> np.ndarray:
    """Scores of slices: what a box has of its own, and what each slice has."""
    boxes = own * rng.standard_normal((n_boxes, 1)) + rng.standard_normal((n_boxes, n_slices))
    return (boxes + shift).ravel()


def judged(mocks: np.ndarray, simulations: np.ndarray, n_slices: int) -> ExchangeTest:
    groups = [np.arange(len(values)) // n_slices for values in (mocks, simulations)]
    return exchange_test(mocks, simulations, mock_groups=groups[0], simulation_groups=groups[1])


def test_every_order_is_counted():
    mocks, simulations = np.array([5.0, 6.0, 3.0, 9.0]), np.array([1.0, 4.0, 2.0, 2.0, 0.0, 3.0])
    found = judged(mocks, simulations, 2)
    boxes = np.concatenate([mocks, simulations]).reshape(-1, 2)
    by_hand = []
    for chosen in combinations(range(5), 2):
        rest = [box for box in range(5) if box not in chosen]
        by_hand.append(area_under_curve(boxes[list(chosen)].ravel(), boxes[rest].ravel()))
    assert found.n_orders == found.n_drawn == 10
    assert found.auc == pytest.approx(by_hand[0], abs=1e-12)
    assert found.p == np.mean(np.array(by_hand) >= by_hand[0] - 1e-9) == found.least_p == 0.1


def test_boxes_of_different_sizes():
    rng = np.random.default_rng(1)
    mocks, simulations = rng.standard_normal(7), rng.standard_normal(9)
    mock_groups, simulation_groups = np.array([0, 0, 1, 1, 1, 1, 4]), np.array([3, 3, 3, 7, 7, 8, 8, 8, 8])
    found = exchange_test(mocks, simulations, mock_groups=mock_groups, simulation_groups=simulation_groups)
    boxes = [mocks[mock_groups == one] for one in (0, 1, 4)]
    boxes += [simulations[simulation_groups == one] for one in (3, 7, 8)]
    by_hand = []
    for chosen in combinations(range(6), 3):
        ours = np.concatenate([boxes[box] for box in chosen])
        theirs = np.concatenate([boxes[box] for box in range(6) if box not in chosen])
        by_hand.append(area_under_curve(ours, theirs))
    assert found.auc == pytest.approx(by_hand[0], abs=1e-12)
    assert found.p == np.mean(np.array(by_hand) >= by_hand[0] - 1e-9)


def test_ties_are_no_evidence():
    assert judged(np.ones(8), np.ones(8), 2).p == 1.0


def test_many_boxes_are_drawn_and_not_counted():
    rng = np.random.default_rng(3)
    found = judged(scores(rng, 20, 4, own=1, shift=2.0), scores(rng, 20, 4, own=1), 4)
    assert found.n_orders == math.comb(40, 20)
    assert found.n_drawn == 100_000
    assert found.p < 1e-3


@pytest.mark.parametrize("n_boxes", [3, 4, 8])
def test_its_size_is_the_level(n_boxes: int):
    """Without a difference a test at a level rejects that often, and never more; here with boxes that differ much."""
    n_draws = 400
    rng = np.random.default_rng(100 * n_boxes)
    found = [judged(scores(rng, n_boxes, 3, own=1.0), scores(rng, n_boxes, 3, own=1.0), 3).p for _ in range(n_draws)]
    n_orders = math.comb(2 * n_boxes, n_boxes)
    for level in (0.05, 0.25):
        # The largest p at which the number of orders lets a test reject.
        attainable = math.floor(level * n_orders + 1e-9) / n_orders
        rejected = int((np.array(found) <= level + 1e-9).sum())
        low, high = binom.ppf([UNLIKELY, 1 - UNLIKELY], n_draws, attainable)
        assert low <= rejected <= high
    # Slices in place of boxes would reject far more often: the boxes are what is exchanged.
    rng = np.random.default_rng(100 * n_boxes)
    slices = [judged(scores(rng, n_boxes, 3, own=1.0), scores(rng, n_boxes, 3, own=1.0), 1).p for _ in range(60)]
    assert (np.array(slices) <= 0.05).mean() > 1.5 * 0.05


def test_mocks_without_boxes_keep_the_level_nearly():
    """Mocks from noise share nothing within a group, so that their groups scatter less than boxes do.

    Then labels are not quite exchangeable though the slices are alike; with as many groups as boxes the size stays
    near the level. Of draws like these, 0.050 of 3,000 were rejected at 8 + 8 boxes, where boxes give 0.054; at 4 + 4
    boxes 0.039 of 4,000 (0.040; 70 orders attain 0.043) and at 3 + 3 boxes 0.047 (0.047; 20 orders attain 0.05).
    """
    rng = np.random.default_rng(5)
    n_draws, level = 300, 0.05
    found = []
    for _ in range(n_draws):
        # The same spread of slices, all of it between the slices of a group.
        mocks = math.sqrt(2.0) * rng.standard_normal(24)
        found.append(judged(mocks, scores(rng, 8, 3, own=1.0), 3).p)
    rejected = int((np.array(found) <= level).sum())
    low, high = binom.ppf([UNLIKELY, 1 - UNLIKELY], n_draws, [0.8 * level, 1.4 * level])
    assert low <= rejected <= high


def test_power_grows_with_the_difference():
    rng = np.random.default_rng(6)
    shares = [
        np.mean(
            [judged(scores(rng, 8, 4, own=0.5, shift=d), scores(rng, 8, 4, own=0.5), 4).p < 0.05 for _ in range(40)]
        )
        for d in (0.0, 0.5, 1.5)
    ]
    assert shares[0] < 0.2 < shares[1] < shares[2]
    assert shares[2] > 0.9


@pytest.mark.parametrize("values", [[], [np.nan]])
def test_what_is_no_sample_is_refused(values: list[float]):
    with pytest.raises(ValueError, match="expected two samples of numbers"):
        exchange_test(np.array(values), np.ones(2), mock_groups=np.arange(len(values)), simulation_groups=np.arange(2))
