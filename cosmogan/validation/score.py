"""One number that says how far mocks are from the simulation, and what it takes to judge it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Score:
    """A distance of mocks from a simulation: 0 for perfect mocks, larger is worse, whatever the statistic.

    Parameters
    ----------
    name
        Key in the report's JSON and in the file of thresholds.
    title
        Heading for people.
    value
        The distance; NaN where it could not be measured, which is never a pass.
    floor
        The same number of the simulation against itself (disjoint realisations); None where that is not known.
    sigmas
        Number of standard deviations, those of mocks and simulation together, by which `value` exceeds that of perfect
        mocks; None where errors are not known.
    units
        Units of `value` and `floor`; ``"relative"`` for relative differences, shown in per cent.
    """

    name: str
    title: str
    value: float
    floor: float | None = None
    sigmas: float | None = None
    units: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """How well a classifier tells mocks from simulations by a part of what there is to see.

    Parameters
    ----------
    what
        Part that it saw.
    auc
        Probability that a random mock scores higher than a random simulated slice; 0.5 for chance.
    p
        Share of the ways to exchange the labels of whole boxes with an AUC at least as large.
    """

    what: str
    auc: float
    p: float


@dataclass(frozen=True, eq=False, kw_only=True)
class SampleComparison:
    """A test of two sets of slices as sets: copies, variety, or a network that tries to tell them apart.

    Parameters
    ----------
    name
        Key in the report's JSON and start of the figure's name.
    title
        Heading for people.
    scores
        Scores that are judged.
    quantity
        Quantity that `distributions` are samples of, with units; the label of the figure's x axis.
    distributions
        Samples by what they are of, such as ``"mocks"`` and ``"simulation"``, shape ``(n,)`` each.
    explanation
        One or two sentences under the figure: what was compared with what, how many, and how to read it.
    notes
        Sentences a reader of the numbers must know, such as which slices are copies.
    p_value, n_orders
        Probability of so large a score where mocks and simulation are alike, and the number of ways to give out the
        labels of the boxes that it was counted over; None where no such test was made.
    rows
        The same by parts of what there is to see.
    """

    name: str
    title: str
    scores: tuple[Score, ...]
    quantity: str
    distributions: dict[str, np.ndarray] = field(default_factory=dict)
    explanation: str = ""
    notes: tuple[str, ...] = ()
    p_value: float | None = None
    n_orders: int | None = None
    rows: tuple[Row, ...] = ()
