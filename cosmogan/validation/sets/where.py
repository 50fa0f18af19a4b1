"""Where mocks differ: a logistic classifier of summary statistics, by octave of k, by threshold, and of all together.

What a network calls different it does not explain. Here each row is a test of its own with a classifier that sees one
octave, or all waves up to its end, or one threshold of the density; learnt from half of the boxes and asked about the
others, with the p-value of exchanging whole boxes (`cosmogan.statistics.exchange`, arXiv:2507.17026).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from cosmogan.slices import SliceMetadata
from cosmogan.statistics.exchange import exchange_test
from cosmogan.statistics.logistic import fit_logistic
from cosmogan.statistics.summary_vector import (
    THRESHOLDS,
    filtered_features,
    octaves,
    power_features,
    threshold_features,
)
from cosmogan.validation.score import Row

ALL = "all summary statistics"
# Share of the pixels that must lie on either side of a threshold.
_LEAST_SHARE = 1e-4

# 1 + delta of some slices -> their numbers, shape (n, n_features); and these of mocks and of simulations.
Features = Callable[[np.ndarray], np.ndarray]
Numbers = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Halves:
    """Slices to learn from and others to be asked about, 1 + delta, of mocks and of simulations, and their boxes."""

    learned: tuple[np.ndarray, np.ndarray]
    asked: tuple[np.ndarray, np.ndarray]
    boxes: tuple[np.ndarray, np.ndarray]


def tell_apart(halves: Halves, learned: Numbers, asked: Numbers, *, what: str, seed: int) -> Row:
    """Learn from the numbers of one half and ask about those of the other; return AUC and p-value."""
    classifier = fit_logistic(list(learned))
    scores = [classifier.scores(each) for each in asked]
    found = exchange_test(*scores, mock_groups=halves.boxes[0], simulation_groups=halves.boxes[1], seed=seed)
    return Row(what=what, auc=found.auc, p=found.p)


def locate(halves: Halves, metadata: SliceMetadata, *, seed: int) -> tuple[Row, ...]:
    """Return a row for all statistics together, for each octave, for all waves up to its end, and for each threshold.

    Parameters
    ----------
    halves
        Slices of half of the boxes, and of the others.
    metadata
        Metadata of the slices.
    seed
        Seed of the orders of boxes, where there are too many.
    """
    bands = octaves(metadata)
    parts: dict[str, Features] = {
        f"k from {low:.3g} to {high:.3g} h/Mpc": partial(filtered_features, metadata=metadata, low=low, high=high)
        for low, high in bands
    }
    # All up to the end of the lowest octave is that octave.
    parts |= {
        f"k up to {high:.3g} h/Mpc": partial(filtered_features, metadata=metadata, low=0.0, high=high)
        for _, high in bands[1:]
    }
    parts |= {
        f"1 + delta above {threshold:g}": partial(threshold_features, threshold=threshold)
        for threshold in THRESHOLDS
        if _LEAST_SHARE < float((halves.learned[1] > threshold).mean()) < 1 - _LEAST_SHARE
    }
    rows, every = [], [[power_features(each)] for each in (*halves.learned, *halves.asked)]
    for what, features in parts.items():
        numbers = [features(each) for each in (*halves.learned, *halves.asked)]
        for known, new in zip(every, numbers, strict=True):
            known.append(new)
        rows.append(tell_apart(halves, (numbers[0], numbers[1]), (numbers[2], numbers[3]), what=what, seed=seed))
    whole = [np.concatenate(known, 1) for known in every]
    together = tell_apart(halves, (whole[0], whole[1]), (whole[2], whole[3]), what=ALL, seed=seed)
    return (together, *rows)
