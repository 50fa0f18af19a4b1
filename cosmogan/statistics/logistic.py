"""A ridge-penalised logistic classifier of a few dozen numbers per slice: the second opinion beside a network.

It sees differences of means at once, which a small network takes thousands of steps to find, and nothing that is not in
its numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize
from scipy.special import log_softmax

# Of the mean square of standardised weights in the loss.
_RIDGE = 1e-2
# Standard deviations at which a number that no slice has had before is cut.
_FARTHEST = 6.0
_LEAST_SCALE = 1e-9
# Where the search for the weights ends: the odds of slices no longer change.
_MOST_STEPS, _SETTLED = 200, 1e-7


@dataclass(frozen=True, eq=False)
class Logistic:
    """Log-probabilities of classes, linear in standardised numbers and their squares.

    Parameters
    ----------
    location, scale
        Mean and standard deviation of the numbers, shape ``(n_features,)``.
    weights
        Shape ``(n_classes, 1 + 2 n_features)``.
    """

    location: np.ndarray
    scale: np.ndarray
    weights: np.ndarray

    def log_probabilities(self, features: np.ndarray) -> np.ndarray:
        """Return the logarithm of the probability of each class, shape ``(n, n_classes)``."""
        found: np.ndarray = log_softmax(_design(features, self.location, self.scale) @ self.weights.T, axis=1)
        return found

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Return the logarithm of the odds of the first class against the second, shape ``(n,)``."""
        logarithms = self.log_probabilities(features)
        return logarithms[:, 0] - logarithms[:, 1]


def fit_logistic(classes: list[np.ndarray]) -> Logistic:
    """Learn to tell classes apart; each counts the same, however many members it has.

    Parameters
    ----------
    classes
        Numbers of the members of each class, shape ``(n_i, n_features)``, finite.

    Raises
    ------
    ValueError
        If a class is empty or a number is not finite.
    """
    if min(map(len, classes)) == 0 or not all(np.isfinite(each).all() for each in classes):
        raise ValueError("expected members of each class, and finite numbers")
    pooled = np.concatenate(classes)
    location, scale = pooled.mean(0), np.maximum(pooled.std(0), _LEAST_SCALE)
    design = _design(pooled, location, scale)
    label = np.repeat(np.arange(len(classes)), [len(each) for each in classes])
    share = np.concatenate([np.full(len(each), 1 / (len(classes) * len(each))) for each in classes])
    shape = (len(classes), design.shape[1])
    truth = np.eye(len(classes))[label]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(shape)
        logarithms = log_softmax(design @ weights.T, axis=1)
        # The constant is free.
        held = weights.copy()
        held[:, 0] = 0
        value = -float(share @ logarithms[np.arange(len(label)), label]) + _RIDGE * float((held**2).mean())
        slope = ((np.exp(logarithms) - truth) * share[:, None]).T @ design + 2 * _RIDGE * held / held.size
        return value, slope.ravel()

    found = optimize.minimize(
        loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options={"maxiter": _MOST_STEPS, "ftol": _SETTLED}
    )
    return Logistic(location, scale, found.x.reshape(shape))


def _design(features: np.ndarray, location: np.ndarray, scale: np.ndarray) -> np.ndarray:
    standard = np.clip((features - location) / scale, -_FARTHEST, _FARTHEST)
    return np.column_stack([np.ones(len(standard)), standard, standard**2 - 1])
