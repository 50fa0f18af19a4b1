import math

import numpy as np
import pytest
import torch

from cosmogan.slices import SliceMetadata
from cosmogan.statistics.bispectrum import (
    SMALLEST_SIDE,
    EquilateralBispectrum,
    IsoscelesBispectrum,
    bispectrum,
    triangle_rings,
)
from cosmogan.statistics.power_spectrum import radial_bins

BOX = 100.0
BOTH = [EquilateralBispectrum(), IsoscelesBispectrum()]
# Sums in float64 in another order.
FLOAT64 = 1e-9
# Means over the slices of a test; all are compared with their own scatter.
SIGMAS = 4.5
# Three times the error of the weighted mean of all triangles.
TOGETHER = 0.025
FIVE_PERCENT = 1.05


def triangles(n_pixels: int) -> tuple[np.ndarray, np.ndarray]:
    legs, thirds = zip(*(statistic.rings(n_pixels) for statistic in BOTH), strict=True)
    return np.concatenate(legs), np.concatenate(thirds)


def closed(n_pixels: int, leg: np.ndarray, third: np.ndarray) -> np.ndarray:
    """All closed triangles of two rings by trial, shape ``(n_triangles, 3, 2)``: the slow way."""
    reach = range(-n_pixels // 2, n_pixels // 2 + 1)
    vectors = [(a, b) for a in reach for b in reach]

    def inside(ring: np.ndarray) -> set[tuple[int, int]]:
        return {(a, b) for a, b in vectors if ring[0] ** 2 <= a * a + b * b < ring[1] ** 2}

    legs, last = inside(leg), inside(third)
    return np.array(
        [(k, q, (-k[0] - q[0], -k[1] - q[1])) for k in legs for q in legs if (-k[0] - q[0], -k[1] - q[1]) in last]
    )


def slow_bispectrum(delta: np.ndarray, leg: np.ndarray, third: np.ndarray) -> float:
    """One slice, transformed by a sum over pixels."""
    n = len(delta)
    wave = np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n)
    modes = wave @ delta @ wave
    corners = closed(n, leg, third)
    products = modes[corners[..., 0] % n, corners[..., 1] % n].prod(1)
    return BOX**4 / n**6 * float(products.mean().real)


def noise(n_slices: int, n_pixels: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n_slices, n_pixels, n_pixels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("n_pixels", [15, 16, 32])
def test_equals_a_sum_over_triangles(n_pixels: int) -> None:
    delta = noise(2, n_pixels).exp()
    # One flat triangle besides, whose third side is the longest.
    legs, thirds = triangles(n_pixels)
    legs, thirds = np.append(legs, [[1, 2]], 0), np.append(thirds, [[2, 4]], 0)
    found = bispectrum(delta, BOX, legs, thirds)
    expected = [[slow_bispectrum(one, *rings) for rings in zip(legs, thirds, strict=True)] for one in delta.numpy()]
    np.testing.assert_allclose(found.numpy(), expected, rtol=FLOAT64)


def expect_mean(values: torch.Tensor, expected: float | torch.Tensor) -> None:
    error = values.std(0) / math.sqrt(len(values))
    assert ((values.mean(0) - expected).abs() < SIGMAS * error).all()


def expect_one(ratio: torch.Tensor) -> None:
    """All triangles together, weighted by how well each is known: to better than a per cent in these tests."""
    weight = 1 / ratio.var(0)
    assert float((ratio.mean(0) * weight).sum() / weight.sum()) == pytest.approx(1.0, abs=TOGETHER)


def test_a_gaussian_field_has_none_and_its_scatter_is_known() -> None:
    n, sigma, n_slices = 32, 1.3, 3000
    values = bispectrum(sigma * noise(n_slices, n), BOX, *triangles(n))
    expect_mean(values, 0.0)
    # Wick: of n closed triangles, 6 orders of equilateral ones and 2 of isosceles ones are alike.
    counts = torch.tensor([len(closed(n, *rings)) for rings in zip(*triangles(n), strict=True)])
    orders = torch.tensor([6 if (a == b).all() else 2 for a, b in zip(*triangles(n), strict=True)])
    power = sigma**2 * (BOX / n) ** 2
    expected = orders * power**3 * BOX**2 / counts
    # The variance of a variance of heavy tails, from 3000 slices.
    torch.testing.assert_close(values.var(0), expected.double(), rtol=0.15, atol=0)
    with pytest.raises(AssertionError):
        expect_mean(bispectrum(noise(n_slices, n).exp(), BOX, *triangles(n)), 0.0)


def test_skewed_white_noise() -> None:
    # Exponential distribution: third central moment 2. Unbiased at every triangle, in any box.
    n = 32
    draws = torch.from_numpy(np.random.default_rng(1).exponential(size=(6000, n, n)) - 1)
    values = bispectrum(draws, BOX, *triangles(n)) / (2 * (BOX / n) ** 4)
    expect_mean(values, 1.0)
    expect_one(values)
    for wrong in (FIVE_PERCENT, 1 / FIVE_PERCENT):
        with pytest.raises(AssertionError):
            expect_one(values * wrong)


def coloured(n_slices: int, n: int) -> tuple[torch.Tensor, np.ndarray]:
    """Gaussian field and its power at each mode of the plane; none from a third of the pixels on."""
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(n, 1 / n), np.fft.fftfreq(n, 1 / n)))
    power = np.where((k > 0) & (k < n / 3), 1 / (1 + k) ** 1.5, 0.0)
    modes = torch.fft.fft2(noise(n_slices, n, seed=2)) * torch.from_numpy(np.sqrt(power))
    return torch.fft.ifft2(modes).real, power * (BOX / n) ** 2


def test_planted_quadratic_coupling() -> None:
    n, f = 32, 1e-3
    delta, power = coloured(4000, n)
    # Equal and opposite couplings of the same field: what a Gaussian field has by chance drops out.
    up, down = (bispectrum(delta + sign * f * delta**2, BOX, *triangles(n)) for sign in (1, -1))
    expected = []
    for rings in zip(*triangles(n), strict=True):
        corners = closed(n, *rings)
        p = power[corners[..., 0] % n, corners[..., 1] % n]
        expected.append(2 * f * np.mean(p[:, 0] * p[:, 1] + p[:, 1] * p[:, 2] + p[:, 2] * p[:, 0]))
    values = 0.5 * (up - down) / torch.tensor(expected)
    expect_mean(values, 1.0)
    expect_one(values)
    for wrong in (FIVE_PERCENT, 1 / FIVE_PERCENT):
        with pytest.raises(AssertionError):
            expect_one(values * wrong)


def test_scales_with_units_and_amplitude() -> None:
    delta, rings = noise(2, 16).exp(), triangles(16)
    values = bispectrum(delta, BOX, *rings)
    torch.testing.assert_close(bispectrum(delta, 2 * BOX, *rings), 16 * values)
    torch.testing.assert_close(bispectrum(-3 * delta, BOX, *rings), -27 * values)
    # The mean is no wave.
    torch.testing.assert_close(bispectrum(delta + 5, BOX, *rings), values)


def test_one_closed_triangle() -> None:
    # Three waves that close, each of amplitude a / 2 at two opposite vectors.
    n, a = 24, 0.2
    x = 2 * torch.pi * torch.arange(n, dtype=torch.float64) / n
    waves = [torch.cos(i * x[:, None] + j * x) for i, j in ((5, 0), (-3, 4), (-2, -4))]
    leg = np.array([[4, 6]])
    found = bispectrum(a * sum(waves)[None], BOX, leg, leg)  # type: ignore[index]
    # Two directions, six orders.
    expected = BOX**4 * (a / 2) ** 3 * 12 / len(closed(n, leg[0], leg[0]))
    torch.testing.assert_close(float(found), expected, rtol=FLOAT64, atol=0)
    # Out of phase by a quarter turn there is none.
    shifted = a * (waves[0] + waves[1] + torch.sin(-2 * x[:, None] - 4 * x))
    assert abs(float(bispectrum(shifted[None], BOX, leg, leg))) < FLOAT64 * expected


@pytest.mark.parametrize(
    "move",
    [lambda s: s.roll((3, 7), (1, 2)), lambda s: s.transpose(1, 2), lambda s: s.flip(1), lambda s: s.rot90(1, (1, 2))],
    ids=["roll", "t", "flip", "turn"],
)
def test_symmetries_do_not_matter(move) -> None:
    delta = noise(3, 32).exp()
    one, other = (bispectrum(d, BOX, *triangles(32)) for d in (delta, move(delta)))
    torch.testing.assert_close(one, other, rtol=1e-7, atol=FLOAT64 * float(one.abs().max()))
    torch.testing.assert_close(bispectrum(delta[1:2], BOX, *triangles(32))[0], one[1])


def test_statistics_and_their_places() -> None:
    metadata = SliceMetadata(box_size=BOX, n_pixels=48, thickness=1.0)
    fields = noise(2, 48).exp()
    rings = triangle_rings(48)
    assert rings.tolist() == [1, 2, 3, 4, 6, 8, 11, 16]
    for statistic in BOTH:
        values, k, edges = statistic.per_slice(fields, metadata), statistic.centres(metadata), statistic.edges(metadata)
        assert values.shape == (2, len(k)) == (2, len(edges) - 1)
        assert values.isfinite().all()
        assert ((edges[:-1] < k) & (k < edges[1:])).all()
        torch.testing.assert_close(values, bispectrum(fields - 1, BOX, *statistic.rings(48)), rtol=FLOAT64, atol=0)
    assert EquilateralBispectrum().centres(metadata)[0] == pytest.approx(
        float(radial_bins(48).wavenumbers(BOX)[0]), rel=FLOAT64
    )
    assert len(IsoscelesBispectrum().edges(metadata)) == len(rings) - 2


def test_refuses() -> None:
    ring = np.array([[1, 2]])
    with pytest.raises(ValueError, match="a third of the pixels"):
        bispectrum(noise(1, 16), BOX, np.array([[4, 6]]), ring)
    with pytest.raises(ValueError, match="box_size"):
        bispectrum(noise(1, 16), 0.0, ring, ring)
    with pytest.raises(ValueError, match="shape"):
        bispectrum(noise(1, 16)[0], BOX, ring, ring)
    with pytest.raises(ValueError, match="at least 6"):
        triangle_rings(5)
    with pytest.raises(ValueError, match="at least 12"):
        IsoscelesBispectrum().rings(SMALLEST_SIDE - 1)
    assert len(IsoscelesBispectrum().rings(SMALLEST_SIDE)[0]) == 1
    # No three vectors of length 1 close.
    assert bispectrum(noise(1, 16), BOX, ring, np.array([[4, 5]])).isnan().all()
