import math
from pathlib import Path

import numpy as np
import pytest
import torch
from closeness import expect_close

from cosmogan.errors import UserError
from cosmogan.slices import SliceReader, read_slices, write_example
from cosmogan.statistics import cross_spectrum
from cosmogan.statistics.cross_spectrum import cross_power_spectrum, distant_pairs, measure_pairs
from cosmogan.statistics.power_spectrum import PowerSpectrum, power_spectrum, radial_bins

BOX = 100.0
# Sums in float64 in another order.
FLOAT64 = 1e-10
# 2000 pairs know a mean and its variance to a few per cent in every ring, all rings together to half a per cent.
SIGMAS, TOGETHER = 4.5, 0.02
# 8000 pairs know the variance in a ring to 1.7%.
SINGLE_RING = 0.08
# The reader's densities are float32; of a sum of products of either sign, relative to the largest.
DENSITY, DENSITY_OF_SIGNED = 1e-6, 1e-5
FIVE_PERCENT = 1.05


def noise(n_slices: int, n_pixels: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_slices, n_pixels, n_pixels, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("n_pixels", [15, 16])
@pytest.mark.parametrize("sign", [1.0, -1.0, 0.3])
def test_of_a_slice_with_itself(n_pixels: int, sign: float) -> None:
    delta = noise(3, n_pixels)
    expected = sign * power_spectrum(delta, BOX)
    torch.testing.assert_close(cross_power_spectrum(delta, sign * delta, BOX), expected, rtol=FLOAT64, atol=0)
    assert not torch.allclose(cross_power_spectrum(delta, sign * FIVE_PERCENT * delta, BOX), expected, rtol=0.04)


@pytest.mark.parametrize("n_pixels", [15, 16])
def test_equals_a_sum_over_pixels(n_pixels: int) -> None:
    first, second = noise(1, n_pixels, 1), noise(1, n_pixels, 2)
    wave = np.exp(-2j * np.pi * np.outer(np.arange(n_pixels), np.arange(n_pixels)) / n_pixels)
    a, b = (wave @ field[0].numpy() @ wave for field in (first, second))
    rings: dict[int, list[float]] = {}
    for i in range(n_pixels):
        for j in range(n_pixels):
            # Squared lengths are whole numbers, so that roots of squares are exact.
            length = math.isqrt(min(i, n_pixels - i) ** 2 + min(j, n_pixels - j) ** 2)
            rings.setdefault(length, []).append((a[i, j] * b[i, j].conjugate()).real)
    expected = [BOX**2 / n_pixels**4 * np.mean(rings[ring]) for ring in range(1, n_pixels // 2)]
    expect_close(cross_power_spectrum(first, second, BOX)[0], expected, FLOAT64, scale=np.abs(expected).max())


def expect_coherence(first: torch.Tensor, second: torch.Tensor, expected: float) -> None:
    ratio = cross_power_spectrum(first, second, BOX) / (BOX / first.shape[-1]) ** 2
    error = ratio.std(0) / math.sqrt(len(ratio))
    assert ((ratio.mean(0) - expected).abs() < SIGMAS * error).all()
    weight = 1 / error**2
    assert float((ratio.mean(0) * weight).sum() / weight.sum()) == pytest.approx(expected, abs=TOGETHER)


def test_independent_slices_have_none() -> None:
    first, second = noise(2000, 16, 1), noise(2000, 16, 2)
    expect_coherence(first, second, 0.0)


def expect_scatter_of_independent(ratio: torch.Tensor) -> None:
    """Half of the variance of P(k): 1 / n_plane where that is 2 / n_plane."""
    variance = ratio.var(0) * radial_bins(16).n_plane
    assert float(variance.mean()) == pytest.approx(1, abs=TOGETHER)
    torch.testing.assert_close(variance, torch.ones_like(variance), rtol=SINGLE_RING, atol=0)


def test_scatter_of_independent_slices() -> None:
    ratio = cross_power_spectrum(noise(8000, 16, 1), noise(8000, 16, 2), BOX) / (BOX / 16) ** 2
    expect_scatter_of_independent(ratio)
    for wrong in (FIVE_PERCENT, 1 / FIVE_PERCENT):
        with pytest.raises(AssertionError):
            expect_scatter_of_independent(ratio * wrong**0.5)


@pytest.mark.parametrize("shared", [0.9, 0.2, -0.6])
def test_partly_shared_structure(shared: float) -> None:
    first, own = noise(2000, 16, 1), noise(2000, 16, 2)
    second = shared * first + math.sqrt(1 - shared**2) * own
    expect_coherence(first, second, shared)
    for wrong in (shared + 0.05, shared - 0.05):
        with pytest.raises(AssertionError):
            expect_coherence(first, second, wrong)


def test_phase_decides_the_sign() -> None:
    x = 2 * torch.pi * torch.arange(16, dtype=torch.float64) / 16
    first, ring = torch.cos(3 * x).expand(1, 16, 16), 2
    power = power_spectrum(first, BOX)[0, ring]
    for phase in (0.0, 0.7, math.pi / 2, math.pi, 4.0):
        found = cross_power_spectrum(first, torch.cos(3 * x + phase).expand(1, 16, 16), BOX)
        torch.testing.assert_close(found[0, ring], math.cos(phase) * power, rtol=0, atol=FLOAT64 * float(power))
        # Twin: a phase off by a twentieth of a radian, which a whole wave in phase does not show to first order.
        wrong = math.cos(phase + 0.05) * power
        assert abs(float(found[0, ring] - wrong)) > 1e-3 * float(power)


def test_order_place_and_batches_do_not_matter() -> None:
    first, second = noise(4, 24, 1).exp(), noise(4, 24, 2).exp()
    found = cross_power_spectrum(first, second, BOX)
    close = {"rtol": 1e-8, "atol": FLOAT64 * float(found.abs().max())}
    torch.testing.assert_close(cross_power_spectrum(second, first, BOX), found, **close)
    for move in (lambda s: s.roll((5, -9), (1, 2)), lambda s: s.transpose(1, 2), lambda s: s.flip(1)):
        torch.testing.assert_close(cross_power_spectrum(move(first), move(second), BOX), found, **close)
    # Twin: one of them alone moved is another pair.
    assert not torch.allclose(cross_power_spectrum(first.roll(3, 1), second, BOX), found, rtol=0.05)
    torch.testing.assert_close(cross_power_spectrum(first[1:2], second[1:2], BOX)[0], found[1], **close)


@pytest.mark.parametrize("n_slices", [0, 1, 2, 7, 24])
def test_every_slice_is_in_one_pair_half_a_file_away(n_slices: int) -> None:
    first, second = distant_pairs(n_slices)
    assert (second - first == n_slices // 2).all()
    assert sorted([*first, *second]) == list(range(n_slices - n_slices % 2))


def test_a_file_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = write_example(tmp_path / "a.h5", n_realisations=5, n_slices=5, quantity="counts")
    delta = torch.from_numpy(read_slices(tmp_path / "a.h5").slices.astype(np.float64)) / metadata.mean_count - 1
    # Five pairs at a time: 12 do not divide evenly.
    monkeypatch.setattr(cross_spectrum, "_PIXELS_AT_A_TIME", 5 * 16**2)
    with SliceReader(tmp_path / "a.h5") as reader:
        found = measure_pairs(reader, PowerSpectrum())
        label = reader.realisation
    cross, power = np.split(found.mean(), 2)
    expected = cross_power_spectrum(delta[:12], delta[12:24], metadata.box_size)
    mean = expected.mean(0)
    expect_close(cross, mean, DENSITY_OF_SIGNED, scale=mean.abs().max())
    expect_close(power, power_spectrum(delta[:24], metadata.box_size).mean(0), DENSITY)
    assert found.n_slices == 12
    assert found.realisations.tolist() == sorted(set(label[:12].tolist()))


def test_refuses(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="second: expected the shape of first"):
        cross_power_spectrum(noise(2, 16), noise(1, 16), BOX)
    with pytest.raises(ValueError, match="box_size"):
        cross_power_spectrum(noise(2, 16), noise(2, 16), -1.0)
    with pytest.raises(ValueError, match="n_slices"):
        distant_pairs(-1)
    write_example(tmp_path / "one.h5", n_realisations=1, n_slices=1)
    with SliceReader(tmp_path / "one.h5") as reader, pytest.raises(UserError, match="at least two slices"):
        measure_pairs(reader, PowerSpectrum())
