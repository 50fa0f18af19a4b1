"""Errors of a fit from the covariance of mocks over those from the covariance of simulations: right values."""

import numpy as np
import pytest

from cosmogan.slices import SliceMetadata
from cosmogan.statistics.accumulator import Accumulator
from cosmogan.statistics.power_spectrum import PowerSpectrum
from cosmogan.validation.sets.forecast import ForecastComparison, compare_forecasts

METADATA = SliceMetadata(box_size=350.0, n_pixels=32, thickness=5.0)
STATISTIC = PowerSpectrum()
EDGES, K = STATISTIC.edges(METADATA), STATISTIC.centres(METADATA)
N_MODES = STATISTIC.n_modes(METADATA)
BOXES, PER_BOX = 16, 60


def spectra(seed: int, scatter: float = 0.2, boxes: int = BOXES, common: float = 0.0) -> Accumulator:
    """P(k) of slices, a power law with independent scatter per ring and some that all rings of a slice share."""
    random = np.random.default_rng(seed)
    shape = (boxes * PER_BOX, len(K))
    relative = scatter * random.standard_normal(shape) + common * random.standard_normal((shape[0], 1))
    power = K**-1.5 * (1 + relative)
    sums = Accumulator(len(K))
    sums.update(power, np.repeat(np.arange(boxes), PER_BOX))
    return sums


def compared(mocks: Accumulator, reference: Accumulator) -> ForecastComparison:
    return compare_forecasts(
        mocks, reference, np.ones(len(K), bool), edges=EDGES, wavenumbers=K, n_modes=N_MODES, seed=0
    )


def test_likes_give_the_same_errors():
    found = compared(spectra(1), spectra(2))
    assert found.ratio == pytest.approx((1, 1), abs=0.08)
    assert abs(found.ratio[0] - 1) < 4 * found.error[0]
    assert 0 < found.floor[0] < 0.15
    assert found.note == ""


def test_four_times_the_variance_is_twice_the_error():
    found = compared(spectra(1, scatter=0.4), spectra(2, scatter=0.2))
    assert found.ratio == pytest.approx((2, 2), rel=0.08)


def test_scatter_that_rings_share_widens_the_amplitude_only():
    found = compared(spectra(1, common=0.1), spectra(2))
    assert found.ratio[0] > 1.3
    assert found.ratio[1] == pytest.approx(1, abs=0.1)


def test_the_error_of_the_amplitude_is_that_of_a_mean():
    # Rings of equal scatter s, averaged to bins by modes: with free slope the error is at least that of the best mean.
    found = compared(spectra(1), spectra(2))
    best = 0.2 / np.sqrt((N_MODES.sum() ** 2) / (N_MODES**2).sum())
    assert best < found.reference[0] < 0.2


def test_few_slices_give_a_sentence_and_no_number():
    found = compared(spectra(1, boxes=1), spectra(2))
    assert np.isnan(found.ratio).all()
    assert found.note.startswith("The covariance matrix of P(k) in ")
    assert "slices for the errors of a fit; there are 60 mocks and 960 simulated ones" in found.note


def test_copies_have_no_covariance():
    sums = Accumulator(len(K))
    sums.update(np.tile(K**-1.5, (960, 1)), np.repeat(np.arange(16), 60))
    found = compared(sums, spectra(2))
    assert np.isnan(found.ratio).all()
    assert "has no inverse" in found.note
