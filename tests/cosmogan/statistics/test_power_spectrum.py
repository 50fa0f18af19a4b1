import cmath
import itertools
import math

import numpy as np
import pytest
import torch
from closeness import expect_close
from scipy.stats import chi2

from cosmogan.slices import SliceMetadata
from cosmogan.statistics import power_spectrum as module
from cosmogan.statistics.power_spectrum import PowerSpectrum, RadialBins, power_spectrum, radial_bins

BOX = 350.0
# float64 FFTs of up to 64 x 64: some hundred roundings of 1e-16.
FLOAT64 = 1e-11
# float32 FFTs: 1e-7 per rounding, on sums of modes of similar size.
FLOAT32 = 2e-5
# Chance of a false alarm; the seeds are fixed, so it is paid once.
RARE = 1e-5
# Standard deviations; all rings of 10,000 slices together know a variance to 0.6%.
SIGMAS = 4.0
# What a convention error of the smallest kind (a factor of h, a pixel, a mode counted twice) would exceed.
FIVE_PERCENT = 1.05


def white_noise(n_slices: int, n_pixels: int, sigma: float = 1.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return sigma * torch.randn(n_slices, n_pixels, n_pixels, generator=generator, dtype=torch.float64)


def expect_white_noise(power: torch.Tensor, bins: RadialBins, *, sigma: float, box_size: float) -> None:
    """Two-sided chi squared of each ring and of all together; P of white noise is sigma^2 (L/N)^2."""
    level = sigma**2 * (box_size / bins.n_pixels) ** 2
    freedom = bins.n_plane * len(power)
    statistic = (power / level).mean(0) * freedom
    for value, n in [*zip(statistic, freedom, strict=True), (statistic.sum(), freedom.sum())]:
        low, high = chi2.interval(1 - RARE, float(n))
        assert low < value < high


def expect_cosine(power: torch.Tensor, bins: RadialBins, *, length: int, amplitude: float, box_size: float) -> None:
    """A wave of amplitude A holds the variance A^2 / 2, all of it in the ring of its length."""
    expected = torch.zeros(bins.n_bins, dtype=torch.float64)
    expected[length - 1] = box_size**2 * amplitude**2 / 2 / bins.n_plane[length - 1]
    torch.testing.assert_close(power[0], expected, rtol=FLOAT64, atol=FLOAT64 * float(expected.max()))


def expect_parseval(power: torch.Tensor, bins: RadialBins, delta: torch.Tensor, *, box_size: float) -> None:
    variance = delta.square().mean((1, 2)) - delta.mean((1, 2)).square()
    torch.testing.assert_close((power * bins.n_plane).sum(1) / box_size**2, variance, rtol=FLOAT64, atol=0)


def slow_power_spectrum(delta: np.ndarray, box_size: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sum over pixels for every mode, one by one; P, mean k, modes of the plane, independent modes."""
    n = len(delta)
    rings: dict[int, list[tuple[float, float, tuple[int, int]]]] = {}
    for a, b in itertools.product(range(-((n - 1) // 2), n // 2 + 1), repeat=2):
        ring = math.isqrt(a * a + b * b)
        if not 1 <= ring < n // 2:
            continue
        mode = sum(
            delta[i, j] * cmath.exp(-2j * math.pi * (a * i + b * j) / n)
            for i, j in itertools.product(range(n), repeat=2)
        )
        # A wave vector and its opposite are one mode; on the Nyquist row the opposite is folded back.
        opposite = tuple((-c + n // 2) % n - n // 2 for c in (a, b))
        own = tuple((c + n // 2) % n - n // 2 for c in (a, b))
        rings.setdefault(ring, []).append((abs(mode) ** 2, math.hypot(a, b), min(own, opposite)))
    power, k, plane, independent = [], [], [], []
    for ring in sorted(rings):
        squares, lengths, names = zip(*rings[ring], strict=True)
        power.append(box_size**2 / n**4 * sum(squares) / len(squares))
        k.append(2 * math.pi / box_size * sum(lengths) / len(lengths))
        plane.append(len(names))
        independent.append(len(set(names)))
    return np.array(power), np.array(k), np.array(plane), np.array(independent)


def test_white_noise_has_its_level() -> None:
    bins = radial_bins(64)
    power = power_spectrum(white_noise(40, 64, sigma=1.7), BOX, bins=bins)
    expect_white_noise(power, bins, sigma=1.7, box_size=BOX)


@pytest.mark.parametrize("wrong", [FIVE_PERCENT, 1 / FIVE_PERCENT, 0.0])
def test_white_noise_check_rejects_a_wrong_normalisation(wrong: float) -> None:
    bins = radial_bins(64)
    power = power_spectrum(white_noise(40, 64), BOX, bins=bins)
    with pytest.raises(AssertionError):
        expect_white_noise(power * wrong, bins, sigma=1.0, box_size=BOX)


def test_white_noise_check_rejects_a_wrong_box() -> None:
    bins = radial_bins(64)
    power = power_spectrum(white_noise(40, 64), BOX * FIVE_PERCENT, bins=bins)
    with pytest.raises(AssertionError):
        expect_white_noise(power, bins, sigma=1.0, box_size=BOX)


# (3, 4) and (5, 12) lie exactly on the edge of their ring, where floating lengths would go astray.
@pytest.mark.parametrize(("a", "b", "length"), [(3, 4, 5), (-4, 3, 5), (0, 7, 7), (5, 12, 13), (15, 0, 15), (1, 1, 1)])
@pytest.mark.parametrize("n_pixels", [32, 33])
def test_cosine_lands_in_one_ring(a: int, b: int, length: int, n_pixels: int) -> None:
    x = 2 * torch.pi * torch.arange(n_pixels, dtype=torch.float64) / n_pixels
    wave = 0.3 * torch.cos(a * x[:, None] + b * x + 0.4)
    bins = radial_bins(n_pixels)
    power = power_spectrum(wave[None], BOX, bins=bins)
    expect_cosine(power, bins, length=length, amplitude=0.3, box_size=BOX)
    for wrong_power, wrong_box in ((power * FIVE_PERCENT, BOX), (power, BOX * FIVE_PERCENT), (power.roll(1, 1), BOX)):
        with pytest.raises(AssertionError):
            expect_cosine(wrong_power, bins, length=length, amplitude=0.3, box_size=wrong_box)


def test_wave_at_nyquist_is_counted_once() -> None:
    bins = radial_bins(16, to_corner=True)
    stripes = torch.ones(1, 16, 16, dtype=torch.float64)
    stripes[:, :, 1::2] = -1
    power = power_spectrum(stripes, BOX, bins=bins)
    expect_close(power[0, 7] * bins.n_plane[7], BOX**2, FLOAT64)
    expect_close((power[0] * bins.n_plane).sum(), BOX**2, FLOAT64)


@pytest.mark.parametrize("n_pixels", [4, 5, 16, 17, 64])
@pytest.mark.parametrize("binning", ["linear", "log", "rodriguez2018"])
def test_parseval(n_pixels: int, binning: str) -> None:
    delta = white_noise(3, n_pixels, seed=n_pixels) + 0.2
    bins = radial_bins(n_pixels, binning, to_corner=True)
    assert int(bins.n_plane.sum()) == n_pixels**2 - 1
    power = power_spectrum(delta, BOX, bins=bins).nan_to_num()
    expect_parseval(power, bins, delta, box_size=BOX)
    for wrong_power, wrong_box in ((power * FIVE_PERCENT, BOX), (power, BOX * FIVE_PERCENT)):
        with pytest.raises(AssertionError):
            expect_parseval(wrong_power, bins, delta, box_size=wrong_box)


@pytest.mark.parametrize("n_pixels", [15, 16])
def test_equals_a_sum_over_pixels(n_pixels: int) -> None:
    delta = white_noise(1, n_pixels, seed=3)
    expected, k, plane, independent = slow_power_spectrum(delta[0].numpy(), BOX)
    bins = radial_bins(n_pixels)
    power = power_spectrum(delta, BOX, bins=bins)
    expect_close(power[0], expected, FLOAT64)
    expect_close(bins.wavenumbers(BOX), k, FLOAT64)
    np.testing.assert_array_equal(bins.n_plane.numpy(), plane)
    np.testing.assert_array_equal(bins.n_modes.numpy(), independent)


def test_independent_modes_up_to_the_corner() -> None:
    # (N^2 - 4) / 2 pairs and three modes that are their own opposites, the mean left out.
    assert int(radial_bins(16, to_corner=True).n_modes.sum()) == (16**2 - 4) // 2 + 3
    assert int(radial_bins(15, to_corner=True).n_modes.sum()) == (15**2 - 1) // 2


def test_direction_and_place_do_not_matter() -> None:
    delta = white_noise(2, 24, seed=5).exp()
    power = power_spectrum(delta, BOX)
    turned = [torch.rot90(view, turns, (1, 2)) for turns in range(4) for view in (delta, delta.flip(1))]
    for view in [*turned, delta.transpose(1, 2), delta.roll((5, -9), (1, 2))]:
        expect_close(power_spectrum(view, BOX), power, FLOAT64)


def test_slices_do_not_know_each_other() -> None:
    delta = white_noise(6, 16, seed=6)
    whole = power_spectrum(delta, BOX)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    expect_close(power_spectrum(delta[order], BOX), whole[order], FLOAT64)
    parts = torch.cat([power_spectrum(part, BOX) for part in delta.split([1, 2, 3])])
    expect_close(parts, whole, FLOAT64)


def test_pieces_that_stay_in_cache_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    delta = white_noise(7, 16, seed=6)
    whole = power_spectrum(delta, BOX)
    # Three slices at a time: 7 do not divide evenly.
    monkeypatch.setattr(module, "_PIXELS_AT_A_TIME", 3 * 16**2)
    expect_close(power_spectrum(delta, BOX), whole, FLOAT64)


def test_gradient() -> None:
    delta = white_noise(2, 8, seed=7).requires_grad_()
    bins = radial_bins(8)
    assert torch.autograd.gradcheck(lambda x: power_spectrum(x, BOX, bins=bins), (delta,))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, FLOAT32), (torch.bfloat16, FLOAT32)])
def test_short_floats_are_summed_in_float64(dtype: torch.dtype, tolerance: float) -> None:
    delta = white_noise(2, 32, seed=8).to(dtype)
    power = power_spectrum(delta, BOX)
    assert power.dtype == torch.float64
    expect_close(power, power_spectrum(delta.double(), BOX), tolerance)


def expect_gaussian_scatter(variance: torch.Tensor, bins: RadialBins, n_slices: int) -> None:
    """Variance of P(k) of white noise of variance 1, ring by ring and, to a per cent, of all rings together."""
    # 2 P^2 over the modes of the plane.
    ratio = variance * bins.n_plane / (2 * (BOX / bins.n_pixels) ** 4)
    # The variance of n chi-squared numbers with d degrees of freedom scatters by sqrt((2 + 12 / d) / n).
    weight = n_slices / (2 + 12 / bins.n_plane)
    assert ((ratio - 1).abs() < SIGMAS / weight.sqrt()).all()
    assert abs(float((ratio * weight).sum() / weight.sum()) - 1) < SIGMAS / float(weight.sum()) ** 0.5


def test_scatter_of_gaussian_slices() -> None:
    bins, n_slices = radial_bins(16), 10_000
    variance = power_spectrum(white_noise(n_slices, 16, seed=9), BOX, bins=bins).var(0)
    expect_gaussian_scatter(variance, bins, n_slices)
    for wrong in (FIVE_PERCENT, 1 / FIVE_PERCENT):
        with pytest.raises(AssertionError):
            expect_gaussian_scatter(variance * wrong, bins, n_slices)


def test_linear_rings_are_complete() -> None:
    bins = radial_bins(256)
    assert bins.edges.tolist() == list(range(1, 129))
    assert bins.n_bins == 127
    # (1, 0) and (1, 1) with their likes: 4 + 4 modes of length 1 and sqrt(2).
    assert float(bins.n_plane[0]) == 8
    assert float(bins.n_modes[0]) == 4
    expect_close(bins.centres[0], (1 + math.sqrt(2)) / 2, FLOAT64)


def test_rodriguez2018_rings() -> None:
    bins = radial_bins(256, "rodriguez2018")
    edges = np.geomspace(1, math.sqrt(2) * 128, 50)
    expect_close(bins.edges, edges, FLOAT64)
    empty = bins.n_plane == 0
    expect_close(bins.centres[~empty], (0.5 * (edges[1:] + edges[:-1]))[~empty], FLOAT64)
    assert int(empty.sum()) == 6
    power = power_spectrum(white_noise(1, 256), BOX, bins=bins)
    assert torch.equal(power[0].isnan(), empty)


def test_log_rings_have_whole_edges_and_are_never_empty() -> None:
    bins = radial_bins(128, "log", n_bins=12)
    assert torch.equal(bins.edges, bins.edges.round())
    assert bins.n_bins == len(set(bins.edges.tolist())) - 1 <= 12
    assert float(bins.n_plane.min()) > 0
    assert (bins.edges[0], bins.edges[-1]) == (1, 64)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [((3, "linear"), "n_pixels"), ((16, "octave"), "binning")],
)
def test_bins_refuse(arguments: tuple[int, str], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        radial_bins(*arguments)


def test_number_of_bins_belongs_to_log() -> None:
    with pytest.raises(ValueError, match="n_bins"):
        radial_bins(16, "linear", n_bins=5)


@pytest.mark.parametrize(
    ("shape", "box_size", "word"),
    [
        ((1, 8, 9), BOX, "delta"),
        ((8, 8), BOX, "delta"),
        ((1, 8, 8), 0.0, "box_size"),
        ((1, 8, 8), math.nan, "box_size"),
    ],
)
def test_power_spectrum_refuses(shape: tuple[int, ...], box_size: float, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        power_spectrum(torch.zeros(shape), box_size)


def test_bins_of_other_slices_are_refused() -> None:
    with pytest.raises(ValueError, match="16 pixels"):
        power_spectrum(torch.zeros(1, 8, 8), BOX, bins=radial_bins(16))


class TestStatistic:
    metadata = SliceMetadata(box_size=BOX, n_pixels=16, thickness=2.0)

    def test_units(self) -> None:
        statistic = PowerSpectrum()
        fundamental = 2 * math.pi / BOX
        expect_close(statistic.edges(self.metadata), fundamental * np.arange(1, 9), FLOAT64)
        expect_close(statistic.centres(self.metadata)[0], fundamental * (1 + math.sqrt(2)) / 2, FLOAT64)

    def test_density_is_not_renormalised_by_the_slice(self) -> None:
        density = white_noise(2, 16, seed=10).exp().float()
        power = PowerSpectrum().per_slice(density, self.metadata)
        expect_close(PowerSpectrum().per_slice(2 * density, self.metadata), 4 * power, FLOAT64)

    def test_judged_rings_end_below_nyquist(self) -> None:
        statistic = PowerSpectrum(to_corner=True)
        edges = statistic.edges(self.metadata)
        judged = statistic.judged(self.metadata, np.ones(len(edges) - 1))
        np.testing.assert_array_equal(judged, edges[1:] <= 0.9 * math.pi * 16 / BOX)
        assert 0 < judged.sum() < len(judged)
