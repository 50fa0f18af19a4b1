"""Growth factors, the spectrum from CAMB and the field drawn from it."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad

from cosmogan.errors import UserError
from cosmogan.units import RODRIGUEZ2018, Cosmology
from data_tools.simulation.linear import compute_growth, expansion, gaussian_field, linear_power, sigma_top_hat

# The integrator's relative tolerance is 1e-9 and it starts 1e-4 of D away from the pure growing mode.
GROWTH_TOLERANCE = 1e-4
# Five sigma of the mean of |delta_k|^2 / P over the 32^3 / 2 independent modes.
FIELD_TOLERANCE = 5 * np.sqrt(2 / 32**3)
# The table has 1000 points and is interpolated; see `linear_power`.
SIGMA8_TOLERANCE = 1e-3


def off(value: float, expected: float) -> float:
    return abs(value / expected - 1)


def test_growth_in_einstein_de_sitter_is_known():
    growth = compute_growth(Cosmology(omega_m=1.0))
    for a in (0.1, 0.5, 1.0):
        assert off(growth.first(a), a) < GROWTH_TOLERANCE
        assert off(growth.second(a), -3 / 7 * a**2) < GROWTH_TOLERANCE


@pytest.mark.parametrize("omega_m", [0.2, 0.276, 0.4])
def test_first_order_growth_is_heaths_integral(omega_m: float):
    cosmology = Cosmology(omega_m=omega_m)

    def heath(a: float) -> float:
        return expansion(a, cosmology) * quad(lambda x: (x * expansion(x, cosmology)) ** -3, 0, a)[0]

    growth = compute_growth(cosmology)
    expected = heath(0.1) / heath(1.0)
    assert off(growth.first(0.1), expected) < GROWTH_TOLERANCE
    # 5 per cent in the matter density must show.
    other = compute_growth(Cosmology(omega_m=1.05 * omega_m)).first(0.1)
    assert off(other, expected) > 10 * GROWTH_TOLERANCE


def test_second_order_growth_departs_from_einstein_de_sitter():
    growth = compute_growth(RODRIGUEZ2018)
    # Bouchet et al. 1995: D2 = -3/7 D1^2 omega_m^(-1/143), to about a tenth of its departure.
    expected = -3 / 7 * RODRIGUEZ2018.omega_m ** (-1 / 143)
    assert growth.second(1.0) == pytest.approx(expected, rel=1e-3)
    assert growth.second(1.0) != pytest.approx(-3 / 7, rel=5e-3)


def test_dark_energy_that_is_not_constant_is_refused():
    with pytest.raises(UserError, match="w0"):
        compute_growth(Cosmology(omega_m=0.3, w0=-0.9))


def test_camb_spectrum_has_the_sigma8_asked_for():
    power = linear_power(RODRIGUEZ2018, 10.0)
    k = np.geomspace(1e-4, 15, 20_000)
    sigma8 = sigma_top_hat(k, power(k), 8.0)
    assert off(sigma8, 0.811) < SIGMA8_TOLERANCE
    assert off(1.05 * sigma8, 0.811) > SIGMA8_TOLERANCE
    # The peak of a LCDM spectrum lies at the horizon at equality, near 0.015 h/Mpc.
    assert 0.01 < k[np.argmax(power(k))] < 0.02


def test_low_h_has_power_at_the_largest_scales():
    power = linear_power(replace(RODRIGUEZ2018, h=0.4), 1.0)
    k = np.array([1.3e-4, 2.6e-4])
    # Above the horizon at equality P ~ k^n_s, to a per cent.
    low, high = power(k)
    assert high / low == pytest.approx(2**RODRIGUEZ2018.n_s, rel=0.02)


@pytest.mark.parametrize("k", [[0.1, 20.0], [[5e-5, 0.1]]])
def test_wave_numbers_outside_the_table_are_refused(k: list):
    power = linear_power(RODRIGUEZ2018, 10.0)
    with pytest.raises(UserError, match=r"known for 0\.0001 <= k <= 15 h/Mpc"):
        power(np.array(k))


def test_missing_camb_is_one_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "camb", None)
    with pytest.raises(UserError, match=r"pip install 'cosmogan\[sim\]'"):
        linear_power(RODRIGUEZ2018, 1.0)


def mode_ratio(field: np.ndarray, box_size: float, power) -> float:
    """Mean of |delta_k|^2 over its expectation, all modes below Nyquist alike."""
    n = len(field)
    k_1d = 2 * np.pi / box_size * np.fft.fftfreq(n, 1 / n)
    k = np.sqrt(k_1d[:, None, None] ** 2 + k_1d[:, None] ** 2 + k_1d**2)
    inside = np.ones((n, n, n), bool)
    inside[0, 0, 0] = False
    for axis in range(3):
        inside &= np.abs(np.moveaxis(np.broadcast_to(k_1d, (n, n, n)), 2, axis)) < np.pi * n / box_size * 0.999
    modes = np.abs(np.fft.fftn(field)) ** 2 * box_size**3 / n**6
    return float(np.mean(modes[inside] / power(k[inside])))


def test_field_has_the_spectrum_and_the_box_asked_for():
    def power(k: np.ndarray) -> np.ndarray:
        return 1e3 / (1 + (k / 0.1) ** 2)

    field = gaussian_field(power, n_grid=32, box_size=350.0, seed=3)
    assert field.dtype == np.float32
    assert abs(mode_ratio(field, 350.0, power) - 1) < FIELD_TOLERANCE
    # A box 5 per cent too large or too small is noticed.
    for wrong in (350.0 / 1.05, 350.0 * 1.05):
        assert abs(mode_ratio(field, wrong, power) - 1) > FIELD_TOLERANCE


def test_field_is_a_function_of_the_seed():
    first, again, other = (gaussian_field(lambda k: 1 / k, n_grid=8, box_size=10.0, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.3
