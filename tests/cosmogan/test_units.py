import math

import pytest

from cosmogan.errors import UserError
from cosmogan.units import (
    RODRIGUEZ2018,
    Cosmology,
    format_length,
    fundamental_wavenumber,
    nyquist_wavenumber,
    parse_length,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("500 Mpc", 350.0), ("100 Mpc", 70.0), ("350 Mpc/h", 350.0), ("70000 kpc/h", 70.0), ("0.5Gpc", 350.0)],
)
def test_lengths_become_mpc_over_h(text: str, expected: float):
    assert parse_length(text, h=0.7) == expected


@pytest.mark.parametrize("text", ["500", "Mpc", "-3 Mpc", "0 Mpc", "5 m", "1e400 Mpc", "", "5 Mpc/h/h", "nan Mpc"])
def test_a_length_without_unit_or_sense_is_refused(text: str):
    with pytest.raises(UserError, match="positive number with its unit"):
        parse_length(text, h=0.7)


def test_mpc_need_h():
    with pytest.raises(UserError, match="Hubble constant"):
        parse_length("500 Mpc")


def test_wavenumbers_of_the_paper():
    # Fundamental and Nyquist of 256 pixels over 350 Mpc/h, h/Mpc.
    assert math.isclose(fundamental_wavenumber(350.0), 0.01795, rel_tol=1e-3)
    assert math.isclose(nyquist_wavenumber(350.0, 256), 2.298, rel_tol=1e-3)


def test_format_gives_both_units():
    assert format_length(70.0, RODRIGUEZ2018.h) == "70 Mpc/h (100 Mpc)"


@pytest.mark.parametrize("values", [{"omega_m": -0.1}, {"h": 0.0}, {"sigma8": float("nan")}, {"omega_m": 1.5}])
def test_impossible_cosmologies_are_refused(values: dict[str, float]):
    with pytest.raises(UserError, match="cosmology"):
        Cosmology(**values)


@pytest.mark.parametrize("wrong", [{"h": 70.0}, {"sigma8": 81.0}, {"n_s": 96.0}])
def test_parameters_in_other_units_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match="cosmology: expected"):
        Cosmology(**wrong)
