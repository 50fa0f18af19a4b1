r"""A p-value for a classifier's verdict, exact whatever the classifier: whole boxes exchange their labels.

A classifier that has never seen the boxes it is asked about gives each of their slices a score. If mocks and
simulations are alike, it makes no difference which of these boxes are called mocks: each way to give out the labels was
as likely as the one that came out. The p-value is the share of all ways whose AUC is at least that of the true one. So
it holds for any number of boxes and any classifier, however it was trained or stopped; a bad classifier costs power
only. (Permutation form of the conformal classifier test, arXiv:2507.17026; groups are boxes, because slices of one box
resemble each other.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from scipy.stats import rankdata

# Ways to give out the labels that are gone through one by one; of more, as many are drawn.
_MOST_ORDERS = 100_000


@dataclass(frozen=True, kw_only=True)
class ExchangeTest:
    """What exchanging the labels of whole boxes says of a classifier's scores.

    Parameters
    ----------
    auc
        Probability that a random mock scores higher than a random simulated slice, ties counted half.
    p
        Share of the ways to give out the labels, the true one among them, whose AUC is at least as large.
    n_orders
        Ways to give out the labels. No p can be below ``1 / n_orders``.
    n_drawn
        Number of them that were looked at: all, or that many random ones where they are too many.
    """

    auc: float
    p: float
    n_orders: int
    n_drawn: int

    @property
    def least_p(self) -> float:
        """Smallest p-value that so many boxes, and so many draws, allow."""
        return 1 / min(self.n_orders, self.n_drawn)


def exchange_test(
    mocks: np.ndarray,
    simulations: np.ndarray,
    *,
    mock_groups: np.ndarray,
    simulation_groups: np.ndarray,
    seed: int = 0,
) -> ExchangeTest:
    r"""Test whether scores tell mocks from simulations, by exchanging the labels of whole boxes.

    With mid-ranks :math:`r_i` of all N scores together, summed over the slices of each box, the AUC of any way to call
    boxes with n slices in all mocks is :math:`(\sum_\mathrm{mocks} r_i - n (n + 1) / 2) / (n (N - n))`, so that no way
    needs another look at the slices.

    Parameters
    ----------
    mocks, simulations
        Scores of a classifier that has not learned from these slices, high for mocks: shapes ``(n,)`` and ``(m,)``.
    mock_groups, simulation_groups
        Label of the box of each slice, shapes ``(n,)`` and ``(m,)``.
    seed
        Seed of the random ways to give out the labels, where there are more than 100,000.

    Raises
    ------
    ValueError
        If a sample is empty or holds NaN.
    """
    pooled = np.concatenate([mocks, simulations])
    if not (len(mocks) and len(simulations)) or np.isnan(pooled).any():
        raise ValueError("expected two samples of numbers, got an empty one or NaN")
    labels = [np.unique(groups, return_inverse=True)[1] for groups in (mock_groups, simulation_groups)]
    n_mocks = int(labels[0].max()) + 1
    boxes = np.concatenate([labels[0], labels[1] + n_mocks])
    sizes = np.bincount(boxes)
    # In halves, which are whole numbers: the same AUC must be the same number.
    ranks = np.bincount(boxes, 2 * rankdata(pooled))
    orders = _orders(len(sizes), n_mocks, seed)
    total, n = len(boxes), sizes[orders].sum(1)
    auc = (ranks[orders].sum(1) / 2 - n * (n + 1) / 2) / (n * (total - n))
    # Equal up to rounding is equal.
    p = float((auc >= auc[0] - 1e-12).mean())
    return ExchangeTest(auc=float(auc[0]), p=p, n_orders=math.comb(len(sizes), n_mocks), n_drawn=len(orders))


@lru_cache(maxsize=4)
def _orders(n_boxes: int, n_mocks: int, seed: int) -> np.ndarray:
    """Return which boxes are called mocks, shape ``(n_orders, n_mocks)``; the first row is the true one."""
    if math.comb(n_boxes, n_mocks) <= _MOST_ORDERS:
        # In the order of `combinations`, the first is 0, 1, ...: the mocks.
        orders = np.array(list(combinations(range(n_boxes), n_mocks)))
    else:
        rng = np.random.default_rng(seed)
        drawn = np.argsort(rng.random((_MOST_ORDERS - 1, n_boxes)), axis=1)[:, :n_mocks]
        orders = np.concatenate([np.arange(n_mocks)[None], drawn])
    orders.flags.writeable = False
    return orders
