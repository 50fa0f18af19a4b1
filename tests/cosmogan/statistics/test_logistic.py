"""The logistic classifier finds differences of means and of scatter, and none where there is none."""

import numpy as np
import pytest
from scipy.stats import norm

from cosmogan.statistics.logistic import fit_logistic
from cosmogan.statistics.two_sample import area_under_curve


def drawn(n: int, *, mean: float = 0.0, scatter: float = 1.0, seed: int = 0) -> np.ndarray:
    numbers = np.random.default_rng(seed).standard_normal((n, 6))
    numbers[:, 2] = mean + scatter * numbers[:, 2]
    # Of another size: numbers are standardised.
    numbers[:, 4] *= 1e6
    return numbers


def test_a_difference_of_means_is_found_as_well_as_can_be():
    classifier = fit_logistic([drawn(3000, mean=1.0, seed=1), drawn(3000, seed=2)])
    auc = area_under_curve(classifier.scores(drawn(3000, mean=1.0, seed=3)), classifier.scores(drawn(3000, seed=4)))
    # No classifier does better than one that knows the shift.
    assert auc == pytest.approx(norm.cdf(1 / np.sqrt(2)), abs=0.015)


def test_a_difference_of_scatter_is_found():
    classifier = fit_logistic([drawn(3000, scatter=2.0, seed=1), drawn(3000, seed=2)])
    scores = [classifier.scores(drawn(3000, scatter=scatter, seed=5)) for scatter in (2.0, 1.0)]
    assert area_under_curve(*scores) > 0.65


def test_likes_are_not_told_apart():
    classifier = fit_logistic([drawn(500, seed=1), drawn(500, seed=2)])
    scores = [classifier.scores(drawn(3000, seed=seed)) for seed in (3, 4)]
    assert area_under_curve(*scores) == pytest.approx(0.5, abs=0.03)


def test_classes_count_the_same_however_many_members_they_have():
    classifier = fit_logistic([drawn(4000, mean=1.0, seed=1), drawn(400, seed=2)])
    # Half-way between the means the odds are even.
    half = drawn(4000, mean=0.5, seed=3)
    assert np.median(classifier.scores(half)) == pytest.approx(0, abs=0.15)


def test_several_classes_have_probabilities():
    classes = [drawn(800, mean=mean, seed=seed) for seed, mean in enumerate((-3.0, 0.0, 3.0))]
    found = fit_logistic(classes).log_probabilities(drawn(200, mean=3.0, seed=9))
    np.testing.assert_allclose(np.exp(found).sum(1), 1)
    assert (found.argmax(1) == 2).mean() > 0.85


@pytest.mark.parametrize("bad", [np.empty((0, 6)), np.full((3, 6), np.nan)])
def test_nothing_can_be_learnt_from_nothing(bad: np.ndarray):
    with pytest.raises(ValueError, match="members of each class, and finite numbers"):
        fit_logistic([drawn(5), bad])
