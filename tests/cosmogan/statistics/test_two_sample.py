import numpy as np
import pytest
import torch

from cosmogan.statistics.two_sample import (
    SliceClassifier,
    area_under_curve,
    estimate_auc,
    hold_out,
    random_tiles,
    train_classifier,
)

FLOAT64 = 1e-12
# float32 sums in another order.
FLOAT32 = 1e-5
# Slices of 16 x 16 pixels need few steps; the default is for those of 64 x 64.
N_STEPS = 40
# AUC that the tests call a clear difference.
CLEAR = 0.9


def lognormal(n: int, seed: int, *, amplitude: float = 1.0, n_pixels: int = 16) -> np.ndarray:
    """Exponential of Gaussian fields with most power on large scales."""
    rng = np.random.default_rng(seed)
    k = np.hypot(*np.meshgrid(*2 * [np.fft.fftfreq(n_pixels, 1 / n_pixels)]))
    weight = np.exp(-0.3 * k)
    field = np.fft.ifft2(np.fft.fft2(rng.normal(size=(n, n_pixels, n_pixels))) * weight / np.sqrt(np.mean(weight**2)))
    return np.exp(amplitude * field.real - amplitude**2 / 2).astype(np.float32)


def random_phases(density: np.ndarray, seed: int) -> np.ndarray:
    """The same Fourier amplitudes and the same histogram of each slice with phases of white noise."""
    noise = np.fft.fft2(np.random.default_rng(seed).normal(size=density.shape))
    field = np.fft.ifft2(np.abs(np.fft.fft2(density)) * noise / np.abs(noise)).real
    ranks = field.reshape(len(field), -1).argsort(1).argsort(1)
    return np.take_along_axis(np.sort(density.reshape(len(density), -1), 1), ranks, 1).reshape(density.shape)


def held_out_auc(mocks: np.ndarray, simulations: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """AUC and its error for a network trained on the first halves and asked about the second."""
    n, m = len(mocks) // 2, len(simulations) // 2
    groups = np.arange(len(mocks)), np.arange(len(simulations))
    network = train_classifier(
        mocks[:n],
        simulations[:m],
        mock_groups=groups[0][:n],
        simulation_groups=groups[1][:m],
        seed=seed,
        n_steps=N_STEPS,
    )
    estimate = estimate_auc(
        network.scores(mocks[n:]),
        network.scores(simulations[m:]),
        mock_groups=groups[0][n:],
        simulation_groups=groups[1][m:],
    )
    return estimate.auc, estimate.error


def test_auc_is_that_of_all_pairs():
    rng = np.random.default_rng(0)
    # Integers, so that many scores are equal.
    mocks, simulations = rng.integers(0, 9, 40).astype(float), rng.integers(0, 8, 31).astype(float)
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a in mocks for b in simulations]
    assert area_under_curve(mocks, simulations) == pytest.approx(np.mean(wins), rel=FLOAT64)
    assert area_under_curve(simulations, mocks) == pytest.approx(1 - np.mean(wins), rel=FLOAT64)
    # Twin: ties that count as won are another number.
    assert area_under_curve(mocks, simulations) != pytest.approx(np.mean(np.ceil(wins)), rel=0.05)


def test_auc_of_known_samples():
    assert area_under_curve(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1
    assert area_under_curve(np.zeros(3), np.zeros(5)) == 0.5
    with pytest.raises(ValueError, match="two samples of numbers"):
        area_under_curve(np.array([np.nan]), np.zeros(2))
    with pytest.raises(ValueError, match="two samples of numbers"):
        area_under_curve(np.zeros(0), np.zeros(2))


def test_error_of_independent_scores_is_that_of_mann_whitney():
    rng = np.random.default_rng(1)
    n, m = 300, 500
    estimate = estimate_auc(
        rng.normal(size=n), rng.normal(size=m), mock_groups=np.arange(n), simulation_groups=np.arange(m)
    )
    # The measured error scatters by some per cent above the known one, which is its lower limit.
    assert estimate.error == pytest.approx(np.sqrt((n + m + 1) / (12 * n * m)), rel=0.1)
    assert estimate.sigmas == pytest.approx((estimate.auc - 0.5) / estimate.error, rel=0.02)


def test_errors_know_of_groups():
    # Scores of a box share an offset: eight boxes against independent mocks, as validation has it.
    rng = np.random.default_rng(2)
    groups, alone = np.repeat(np.arange(8), 50), np.arange(400)
    draws = [
        (rng.normal(size=400) * np.sqrt(2), rng.normal(size=400) + np.repeat(rng.normal(size=8), 50))
        for _ in range(300)
    ]
    known = [estimate_auc(a, b, mock_groups=alone, simulation_groups=groups) for a, b in draws]
    naive = [estimate_auc(a, b, mock_groups=alone, simulation_groups=alone) for a, b in draws]
    # 300 draws know a standard deviation to 4%.
    assert np.std([e.sigmas for e in known]) == pytest.approx(1, abs=0.15)
    scatter = np.std([e.auc for e in known])
    assert np.sqrt(np.mean([e.error**2 for e in known])) == pytest.approx(scatter, rel=0.15)
    # Twin: slices taken as independent claim many sigmas where there is nothing.
    assert np.std([e.sigmas for e in naive]) > 3


def test_sigmas_of_few_groups_allow_for_their_error():
    rng = np.random.default_rng(3)
    mocks, simulations = rng.normal(size=400) + 0.5, rng.normal(size=400)
    alone = np.arange(400)
    of_groups = [
        estimate_auc(mocks, simulations, mock_groups=alone, simulation_groups=alone % n).sigmas for n in (2, 4, 400)
    ]
    assert of_groups[0] < of_groups[1] < of_groups[2]
    assert estimate_auc(mocks, simulations, mock_groups=alone, simulation_groups=0 * alone).sigmas is None
    # Full distinction has a finite number of sigmas.
    full = estimate_auc(mocks + 100, simulations, mock_groups=alone, simulation_groups=alone)
    assert full.auc == 1
    assert 10 < full.sigmas < 40


def test_groups_are_held_out_as_a_whole():
    groups = np.repeat([3, 5, 8, 9, 11, 12, 20], 4)
    for share, n in ((0.5, 3), (0.25, 1), (0.01, 1), (0.99, 6)):
        held = hold_out(groups, share, np.random.default_rng(0))
        assert len(np.unique(groups[held])) == n
        assert not set(groups[held]) & set(groups[~held])
    assert hold_out(np.zeros(8), 0.25, np.random.default_rng(0)).sum() == 2


def test_tiles_are_parts_of_slices_in_any_orientation():
    density = np.arange(2 * 36, dtype=np.float32).reshape(2, 6, 6)
    rng = np.random.default_rng(4)
    picks = np.tile([0, 1], 100)
    whole = random_tiles(density, picks, 6, rng)
    np.testing.assert_array_equal(np.sort(whole.reshape(200, -1), 1), density.reshape(2, -1)[picks])
    # 36 places in 8 orientations: 100 draws of each slice are hardly ever the same.
    assert len(np.unique(whole.reshape(200, -1), axis=0)) > 150
    part = random_tiles(density, picks, 3, rng).astype(int)
    for axis, steps in ((1, {1, 5, 6, 30}), (2, {1, 5, 6, 30})):
        assert set(np.abs(np.diff(part, axis=axis)).ravel()) <= steps


def test_scores_do_not_depend_on_place_or_batch():
    network = SliceClassifier(16)
    slices = lognormal(70, 0)
    scores = network.scores(slices)
    np.testing.assert_allclose(network.scores(np.roll(slices, (8, 8), (1, 2))), scores, rtol=0, atol=FLOAT32)
    np.testing.assert_allclose(network.scores(slices[5:6]), scores[5:6], rtol=0, atol=FLOAT32)
    # Twin: slices 5% denser score differently.
    assert np.abs(network.scores(1.05 * slices) - scores).max() > 10 * FLOAT32


def test_a_slice_larger_than_a_tile_scores_as_its_tiles():
    network = SliceClassifier(16)
    slices = lognormal(3, 1, n_pixels=32)
    tiles = [slices[:, i : i + 16, j : j + 16] for i in (0, 16) for j in (0, 16)]
    expected = np.mean([network.scores(tile) for tile in tiles], axis=0)
    np.testing.assert_allclose(network.scores(slices), expected, rtol=0, atol=FLOAT32)
    # Tiles overlap where they do not fit.
    assert np.isfinite(network.scores(slices[:, :20, :20])).all()


def test_equal_sets_are_not_told_apart():
    auc, error = held_out_auc(lognormal(400, 1), lognormal(400, 2))
    assert abs(auc - 0.5) < 3 * error
    assert error < 0.05


def test_clear_differences_are_found_and_permuted_labels_are_not():
    simulations = lognormal(400, 1)
    for mocks in (lognormal(400, 2, amplitude=1.15), random_phases(lognormal(400, 2), 3)):
        assert held_out_auc(mocks, simulations)[0] > CLEAR
    # Twin: the same slices with labels that mean nothing.
    mixed = np.random.default_rng(0).permutation(np.concatenate([mocks, simulations]))
    auc, error = held_out_auc(mixed[:400], mixed[400:])
    assert abs(auc - 0.5) < 3 * error


def test_a_seed_is_a_network_and_global_generators_are_untouched():
    mocks, simulations = lognormal(64, 1), lognormal(64, 2)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    networks = [
        train_classifier(
            mocks, simulations, mock_groups=np.arange(64), simulation_groups=np.arange(64), seed=seed, n_steps=4
        )
        for seed in (7, 7, 8)
    ]
    first, again, other = (network.scores(mocks) for network in networks)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002


def test_refuses_single_slices():
    with pytest.raises(ValueError, match="at least two slices"):
        train_classifier(
            lognormal(1, 0), lognormal(4, 0), mock_groups=np.zeros(1), simulation_groups=np.zeros(4), seed=0
        )
