import numpy as np
import pytest
import torch
import torch.multiprocessing
from closeness import expect_close

from cosmogan.statistics import accumulator as module
from cosmogan.statistics.accumulator import Accumulator

# Sums of some hundred float64 numbers in another order.
FLOAT64 = 1e-11
# Products of numbers near 10 with a scatter near 1 lose two figures.
COVARIANCE = 1e-8
# Scatter of a bootstrap of 20,000 draws: 1 / sqrt(2 * 20,000), times 5.
DRAWS, BOOTSTRAP = 20_000, 0.025


def values_of(n_slices: int, n_bins: int = 5, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 10 + rng.normal(size=(n_slices, n_bins)) @ rng.normal(size=(n_bins, n_bins))


def realisations_of(n_realisations: int, n_slices: int) -> np.ndarray:
    return np.arange(n_realisations * n_slices) % n_realisations


def filled(values: np.ndarray, labels: np.ndarray | int) -> Accumulator:
    accumulator = Accumulator(values.shape[1])
    accumulator.update(values, labels)
    return accumulator


def expect_same(one: Accumulator, other: Accumulator) -> None:
    assert one.n_slices == other.n_slices
    np.testing.assert_array_equal(one.realisations, other.realisations)
    expect_close(one.mean(), other.mean(), FLOAT64)
    expect_close(one.covariance(), other.covariance(), COVARIANCE)


def test_mean_and_covariance() -> None:
    values = values_of(200)
    accumulator = filled(values, realisations_of(4, 50))
    expect_close(accumulator.mean(), values.mean(0), FLOAT64)
    expect_close(accumulator.covariance(), np.cov(values.T), COVARIANCE)
    expect_close(accumulator.scatter(), values.std(0, ddof=1), COVARIANCE)
    assert accumulator.n_realisations == 4


def test_float32_tensors_are_summed_in_float64() -> None:
    values = torch.full((3000, 1), 0.1, dtype=torch.float32)
    accumulator = Accumulator(1)
    accumulator.update(values, 0)
    expect_close(accumulator.mean(), np.array([float(values[0, 0])]), FLOAT64)


def test_order_of_slices_does_not_matter() -> None:
    values, labels = values_of(60), realisations_of(3, 20)
    order = np.random.default_rng(1).permutation(60)
    expect_same(filled(values[order], labels[order]), filled(values, labels))


def test_too_many_realisations_share_their_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_PRODUCTS", 4)
    values, labels = values_of(60), realisations_of(20, 3)
    accumulator = filled(values[:30], labels[:30])
    accumulator.update(values[30:], labels[30:])
    assert len(accumulator._products) <= 5
    expect_close(accumulator.covariance(), np.cov(values.T), COVARIANCE)
    assert accumulator.n_realisations == 20


def test_error_of_mean_is_the_scatter_between_realisations() -> None:
    # Offsets per realisation, no scatter inside: slices tell nothing, realisations all.
    offsets = np.random.default_rng(2).normal(size=(6, 3))
    accumulator = filled(np.repeat(offsets, 10, axis=0), np.repeat(np.arange(6), 10))
    expected = offsets.std(0, ddof=1) / np.sqrt(6)
    expect_close(accumulator.error_of_mean(DRAWS, seed=0), expected, BOOTSTRAP)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(accumulator.error_of_mean_slices(), expected, rtol=BOOTSTRAP)


def test_error_of_mean_with_two_realisations() -> None:
    accumulator = filled(np.array([[1.0], [3.0]]), np.array([0, 1]))
    expect_close(accumulator.error_of_mean(DRAWS, seed=1), np.ones(1), BOOTSTRAP)


def test_one_realisation_has_no_error_and_no_halves() -> None:
    accumulator = filled(values_of(9), 3)
    assert np.isnan(accumulator.error_of_mean(50, seed=0)).all()
    first, second = accumulator.halves(seed=0)
    assert first.shape == second.shape == (0, 5)


def test_error_of_slices() -> None:
    values = values_of(400)
    expect_close(filled(values, 0).error_of_mean_slices(), values.std(0, ddof=1) / 20, COVARIANCE)


def test_bootstrap_is_reproducible_and_seeded() -> None:
    accumulator = filled(values_of(40), realisations_of(4, 10))
    one = accumulator.bootstrap_means(20, seed=1)
    np.testing.assert_array_equal(one, accumulator.bootstrap_means(20, seed=1))
    assert not np.array_equal(one, accumulator.bootstrap_means(20, seed=2))


@pytest.mark.parametrize(
    ("n", "n_splits", "size"), [(2, 1, 1), (3, 3, 1), (4, 3, 2), (5, 10, 2), (10, 126, 5), (14, 126, 7)]
)
def test_halves_are_disjoint_and_complete(n: int, n_splits: int, size: int) -> None:
    # Powers of two: the sum of a half names its members.
    accumulator = filled(2.0 ** np.arange(n)[:, None], np.arange(n))
    first, second = accumulator.halves(seed=0)
    assert len(first) == len(second) == n_splits
    members = np.rint(first[:, 0] * size).astype(int)
    others = np.rint(second[:, 0] * (n - size)).astype(int)
    np.testing.assert_array_equal(members + others, 2**n - 1)
    assert all(member.bit_count() == size for member in members.tolist())
    if n <= 10:
        assert len({frozenset((a, b)) for a, b in zip(members.tolist(), others.tolist(), strict=True)}) == n_splits


def test_realisations_of_different_size_are_weighted_by_slices() -> None:
    accumulator = filled(np.array([[1.0], [1.0], [1.0], [5.0]]), np.array([0, 0, 0, 1]))
    assert accumulator.mean()[0] == 2.0


def test_refusals() -> None:
    with pytest.raises(ValueError, match="n_bins"):
        Accumulator(0)
    with pytest.raises(ValueError, match="expected shape"):
        Accumulator(3).update(np.zeros((2, 4)), 0)
    with pytest.raises(ValueError, match="empty"):
        Accumulator(3).mean()


def test_single_slice_has_no_covariance() -> None:
    assert np.isnan(filled(np.ones((1, 2)), 0).covariance()).all()
