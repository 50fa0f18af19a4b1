"""Linear theory: the power spectrum from CAMB, growth factors, and the Gaussian field a simulation starts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import fft
from scipy.integrate import solve_ivp

from cosmogan.errors import UserError
from cosmogan.units import Cosmology

# The growth equations start here, deep in matter domination; both growth factors are known there in closed form.
_A_START = 1e-4
# Smoothing radius of sigma8, Mpc/h.
_SIGMA8_RADIUS = 8.0
_K_MIN = 1e-4
# sigma8 converges to 1e-4 once k * 8 Mpc/h is beyond 100.
_K_MAX_SIGMA8 = 15.0

PowerSpectrum = Callable[[np.ndarray], np.ndarray]


def expansion(a: float, cosmology: Cosmology) -> float:
    """Return ``H(a) / H0`` of a flat universe of matter and a cosmological constant."""
    omega_m = _require(cosmology, "omega_m")
    return float(np.sqrt(omega_m / a**3 + 1 - omega_m))


@dataclass(frozen=True)
class Growth:
    """Growth factors of first and second order, normalised to ``first(1) == 1``.

    With ``Q = a^3 H / H0`` and ``T = Q d/da`` they solve ``T T D1 = 3/2 omega_m a D1`` and
    ``T T D2 = 3/2 omega_m a (D2 - D1^2)`` (Tassev et al. 2013, arXiv:1301.0322, appendix A); in an Einstein-de Sitter
    universe ``D2 = -3/7 D1^2``.

    Parameters
    ----------
    first, second
        ``D1`` and ``D2`` as functions of the scale factor.
    """

    first: Callable[[float], float]
    second: Callable[[float], float]


def compute_growth(cosmology: Cosmology, a_max: float = 1.0) -> Growth:
    """Integrate the growth equations up to ``a_max`` (at least today).

    Raises
    ------
    UserError
        If the cosmology lacks ``omega_m`` or has dark energy other than a cosmological constant.
    """
    omega_m = _require(cosmology, "omega_m")
    if cosmology.w0 not in (None, -1.0):
        raise UserError(f"cosmology: w0 is {cosmology.w0}; the simulation knows a cosmological constant (w0 = -1) only")

    def derivative(log_a: float, state: np.ndarray) -> list[float]:
        a = np.exp(log_a)
        d1, t1, d2, t2 = state
        per_log_a = a / (a**3 * expansion(a, cosmology))
        source = 1.5 * omega_m * a
        return [t1 * per_log_a, source * d1 * per_log_a, t2 * per_log_a, source * (d2 - d1**2) * per_log_a]

    # Matter domination: D1 = a and D2 = -3/7 a^2, with Q = a^3 E.
    q = _A_START**3 * expansion(_A_START, cosmology)
    start = [_A_START, q, -3 / 7 * _A_START**2, -6 / 7 * _A_START * q]
    span = (np.log(_A_START), np.log(max(a_max, 1.0)) + 1e-9)
    solution = solve_ivp(derivative, span, start, method="DOP853", rtol=1e-9, atol=1e-18, dense_output=True).sol
    assert solution is not None
    today = solution(0.0)[0]
    return Growth(
        first=lambda a: float(solution(np.log(a))[0] / today),
        second=lambda a: float(solution(np.log(a))[2] / today**2),
    )


def linear_power(cosmology: Cosmology, k_max: float) -> PowerSpectrum:
    """Compute the linear matter power spectrum at redshift 0 with CAMB, scaled to the cosmology's sigma8.

    Parameters
    ----------
    cosmology
        All of ``omega_m``, ``omega_b``, ``h``, ``sigma8``, ``n_s``; neutrinos are massless.
    k_max
        Largest wave number that will be asked for, h/Mpc.

    Returns
    -------
        Function of the wave number in h/Mpc that gives P(k) in (Mpc/h)^3, and a `UserError` for wave numbers above
        ``k_max`` or below 1e-4 h/Mpc (5e-5 / h where that is more).

    Raises
    ------
    UserError
        If CAMB is not installed or a parameter is missing.
    """
    try:
        import camb
    except ImportError:
        raise UserError(
            "the initial power spectrum comes from CAMB, which is not installed; run: pip install 'cosmogan[sim]'"
        ) from None
    omega_m, omega_b, h, n_s = (_require(cosmology, name) for name in ("omega_m", "omega_b", "h", "n_s"))
    if omega_b >= omega_m:
        raise UserError(f"cosmology: omega_b ({omega_b}) must be below omega_m ({omega_m})")
    k_max = max(1.01 * k_max, _K_MAX_SIGMA8)
    parameters = camb.CAMBparams()
    parameters.set_cosmology(H0=100 * h, ombh2=omega_b * h**2, omch2=(omega_m - omega_b) * h**2, mnu=0.0, omk=0.0)
    parameters.InitPower.set_params(ns=n_s)
    # CAMB's kmax is in 1/Mpc.
    parameters.set_matter_power(redshifts=[0.0], kmax=1.1 * k_max * h)
    parameters.WantCls = False
    results = camb.get_results(parameters)
    # CAMB's own table begins at a fixed k in 1/Mpc; asked for less, it returns next to nothing without a word.
    k_min = max(_K_MIN, 1.001 * float(results.get_matter_transfer_data().transfer_data[0].min()))
    k, _, power = results.get_matter_power_spectrum(minkh=k_min, maxkh=k_max, npoints=1000)
    scale = (_require(cosmology, "sigma8") / sigma_top_hat(k, power[0], _SIGMA8_RADIUS)) ** 2
    log_k, log_power = np.log(k), np.log(scale * power[0])

    def spectrum(wavenumber: np.ndarray) -> np.ndarray:
        if len(outside := wavenumber[(wavenumber < k_min) | (wavenumber > k_max)]):
            raise UserError(
                f"the linear power spectrum is known for {k_min:.3g} <= k <= {k_max:.4g} h/Mpc, and asked for at "
                f"{outside[0]:.4g}; choose a smaller box or fewer particles"
            )
        # Linear in log-log: 1000 points leave an error below 1e-4.
        return np.exp(np.interp(np.log(wavenumber), log_k, log_power))

    return spectrum


def sigma_top_hat(k: np.ndarray, power: np.ndarray, radius: float) -> float:
    """Return the rms overdensity in spheres.

    Parameters
    ----------
    k, power
        Shape ``(n,)``: wave number in h/Mpc and P(k) in (Mpc/h)^3.
    radius
        Radius of the spheres, Mpc/h.
    """
    x = k * radius
    window = 3 * (np.sin(x) - x * np.cos(x)) / x**3
    return float(np.sqrt(np.trapezoid(k**3 * power * window**2 / (2 * np.pi**2), np.log(k))))


def gaussian_field(power: PowerSpectrum, *, n_grid: int, box_size: float, seed: int) -> np.ndarray:
    """Draw the linear overdensity of one realisation.

    White noise is drawn on the grid on the CPU, so that a seed gives the same field on every device.

    Parameters
    ----------
    power
        P(k) in (Mpc/h)^3 of k in h/Mpc.
    n_grid
        Grid points along a side; even.
    box_size
        Side of the box, Mpc/h.
    seed
        Seed of the noise.

    Returns
    -------
        Overdensity at the redshift of ``power``, shape ``(n_grid, n_grid, n_grid)``, float32, without Nyquist modes.
    """
    noise = np.random.default_rng(seed).standard_normal((n_grid,) * 3, dtype=np.float32)
    modes = fft.rfftn(noise, workers=-1)
    k_1d = 2 * np.pi / box_size * np.fft.fftfreq(n_grid, 1 / n_grid)
    k_half = np.abs(k_1d[: n_grid // 2 + 1])
    plane = k_1d[:, None] ** 2 + k_half[None, :] ** 2
    # Plane by plane, so that no float64 grid is held. <|noise_k|^2> = N^3 and <|delta_k|^2> = P N^6 / V.
    for i, k_x in enumerate(k_1d):
        k = np.sqrt(k_x**2 + plane)
        if i == 0:
            k[0, 0] = k_half[1]
        modes[i] *= np.sqrt(power(k) * n_grid**3 / box_size**3).astype(np.float32)
    modes[0, 0, 0] = 0
    # The derivative of a Nyquist mode is undefined on the grid.
    half = n_grid // 2
    modes[half], modes[:, half], modes[:, :, half] = 0, 0, 0
    field: np.ndarray = fft.irfftn(modes, s=noise.shape, workers=-1, overwrite_x=True)
    return field


def _require(cosmology: Cosmology, name: str) -> float:
    value: float | None = getattr(cosmology, name)
    if value is None:
        raise UserError(f"cosmology: {name} is unknown and the simulation needs it")
    return value
