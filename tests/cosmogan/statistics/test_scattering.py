import math

import numpy as np
import pytest
import torch

from cosmogan.slices import SliceMetadata
from cosmogan.statistics import scattering as module
from cosmogan.statistics.scattering import (
    SMALLEST_SIDE,
    SMALLEST_SIDE_OF_PAIRS,
    ScatteringElongation,
    ScatteringFirst,
    ScatteringSecond,
    scale_pairs,
    scale_wavenumbers,
    scattering,
)

ALL = [ScatteringFirst(), ScatteringSecond(), ScatteringElongation()]
# The moduli are averaged over coarser grids than pixels; single slices.
SAMPLING = 0.005
# Sums in float64, and transforms in float32.
FLOAT64, FLOAT32 = 1e-10, 1e-6
# The error of the mean over the slices of a test, below 0.3%.
TOGETHER = 0.01
FIVE_PERCENT = 1.05


def noise(n_slices: int, n_pixels: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n_slices, n_pixels, n_pixels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def wavelet(n: int, centre: float, orientation: int) -> np.ndarray:
    """From the formula, mode by mode: the slow way."""
    found = np.zeros((n, n))
    direction = np.exp(1j * np.pi * orientation / 4)
    for row, y in enumerate(np.fft.fftfreq(n, 1 / n)):
        for column, x in enumerate(np.fft.fftfreq(n, 1 / n)):
            k, along = np.hypot(x, y), (complex(x, y) * direction.conjugate()).real
            if centre / 2 < k < 2 * centre and along > 0:
                found[row, column] = np.sqrt(6.4) * np.cos(np.pi / 2 * np.log2(k / centre)) * (along / k) ** 3
    return found


def slow_scattering(fields: np.ndarray) -> dict[str, np.ndarray]:
    """Every field at full resolution, all orientations one by one."""
    n = fields.shape[-1]
    bank = [[wavelet(n, centre, turn) for turn in range(4)] for centre in scale_wavenumbers(n)]
    first = np.zeros((len(fields), len(bank), 4))
    pairs = scale_pairs(n)
    second = np.zeros((len(fields), len(pairs), 4, 4))
    for number, field in enumerate(fields):
        for scale, turned in enumerate(bank):
            for one, filter_one in enumerate(turned):
                modulus = np.abs(np.fft.ifft2(np.fft.fft2(field) * filter_one))
                first[number, scale, one] = modulus.mean()
                for coarse in range(scale + 1, len(bank)):
                    for other, filter_other in enumerate(bank[coarse]):
                        inner = np.abs(np.fft.ifft2(np.fft.fft2(modulus) * filter_other))
                        second[number, pairs.index((scale, coarse)), one, other] = inner.mean()
    turn = np.arange(4)
    return {
        "first": first.mean(2),
        "second": second.mean((2, 3)),
        "parallel": second[:, :, turn, turn].mean(2),
        "perpendicular": second[:, :, turn, turn - 2].mean(2),
    }


@pytest.mark.parametrize("n_pixels", [16, 33, 48])
def test_equals_a_loop_at_full_resolution(n_pixels: int) -> None:
    fields = noise(2, n_pixels).exp()
    found, expected = scattering(fields), slow_scattering(fields.numpy())
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(found, name).numpy(), values, rtol=SAMPLING)
        # The finest scale is taken at all pixels.
        if name == "first":
            np.testing.assert_allclose(found.first[:, 0].numpy(), values[:, 0], rtol=FLOAT64)
        with pytest.raises(AssertionError):
            np.testing.assert_allclose(getattr(found, name).numpy(), FIVE_PERCENT * values, rtol=SAMPLING)


@pytest.mark.parametrize(("rows", "columns"), [(0, 8), (8, 0), (5, 5), (-6, 6), (0, 5)])
def test_a_wave(rows: int, columns: int) -> None:
    n, amplitude = 64, 0.3
    x = 2 * torch.pi * torch.arange(n, dtype=torch.float64) / n
    found = scattering(7 + amplitude * torch.cos(rows * x[:, None] + columns * x)[None])
    # Half of the amplitude at either of two opposite modes. Along two orientations and between, or half way.
    octaves = np.log2(np.hypot(rows, columns) / scale_wavenumbers(n))
    band = np.where(np.abs(octaves) < 1, np.cos(np.pi / 2 * octaves), 0)
    expected = math.sqrt(32 / 5) * amplitude / 2 * band * (1 + 2 * math.sqrt(0.5) ** 3) / 4
    np.testing.assert_allclose(found.first[0].numpy(), expected, rtol=FLOAT64, atol=FLOAT64)
    # Its modulus is constant.
    assert float(found.second.abs().max()) < FLOAT64
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(found.first[0].numpy(), FIVE_PERCENT * expected, rtol=SAMPLING, atol=FLOAT64)


def coloured(n_slices: int, n: int) -> tuple[torch.Tensor, np.ndarray]:
    """Gaussian fields and the variance that each mode of the plane adds."""
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(n, 1 / n), np.fft.fftfreq(n, 1 / n)))
    power = 1 / (1 + k) ** 1.5
    modes = torch.fft.fft2(noise(n_slices, n, seed=2)) * torch.from_numpy(np.sqrt(power))
    return torch.fft.ifft2(modes).real, power / n**2


def test_gaussian_fields_of_given_power() -> None:
    n = 32
    fields, variance = coloured(3000, n)
    found = scattering(fields.float()).first.mean(0).numpy()
    # The modulus of a circular complex Gaussian number; only a half plane passes, so that it is circular.
    in_band = [[(variance * wavelet(n, c, turn) ** 2).sum() for turn in range(4)] for c in scale_wavenumbers(n)]
    expected = np.sqrt(np.pi / 4 * np.array(in_band)).mean(1)
    np.testing.assert_allclose(found, expected, rtol=TOGETHER)
    for wrong in (FIVE_PERCENT, 1 / FIVE_PERCENT):
        with pytest.raises(AssertionError):
            np.testing.assert_allclose(found * wrong, expected, rtol=TOGETHER)


def test_squares_of_wavelets_know_no_direction_and_add_up() -> None:
    n = 64
    centres = scale_wavenumbers(n)
    line = np.fft.fftfreq(n, 1 / n)
    k = np.hypot(line[:, None], line)
    total = np.zeros((n, n))
    for centre in centres:
        size = n
        squares = (module._wavelets(size, float(centre), torch.device("cpu"), torch.float64) ** 2).mean(0).numpy()
        # Either of two opposite modes passes half of the wavelets.
        both = squares + np.roll(squares[::-1, ::-1], (1, 1), (0, 1))
        octaves = np.abs(np.log2(np.where(k > 0, k, 1e9) / centre))
        radial = np.where(octaves < 1, np.cos(np.pi / 2 * np.minimum(octaves, 1)), 0)
        inside = k < n / 2
        np.testing.assert_allclose(both[inside], 2 * radial[inside] ** 2, atol=FLOAT64)
        total += both
    covered = (k >= centres[-1]) & (k <= centres[0])
    np.testing.assert_allclose(total[covered], 2, rtol=FLOAT64)


def filaments(n_slices: int, n: int) -> np.ndarray:
    """Thin rings at random places: filaments in all directions."""
    rng = np.random.default_rng(3)
    field = np.zeros((n_slices, n, n))
    for image in field:
        for _ in range(8):
            y, x = ((np.arange(n) - place + n / 2) % n - n / 2 for place in rng.uniform(0, n, size=2))
            image += np.exp(-0.5 * ((np.hypot(y[:, None], x) - rng.uniform(8, 20)) / 1.2) ** 2)
    return field


def test_filaments_are_not_a_gaussian_field_of_their_power() -> None:
    n = 64
    field = filaments(30, n)
    # Phases of white noise: real fields with the power of each mode kept.
    phases = np.angle(np.fft.rfft2(noise(30, n, seed=4).numpy()))
    gaussian = np.fft.irfft2(np.abs(np.fft.rfft2(field)) * np.exp(1j * phases), s=(n, n))
    again = np.fft.irfft2(np.abs(np.fft.rfft2(field)) * np.exp(1j * phases[::-1]), s=(n, n))
    measured = [scattering(torch.from_numpy(f)) for f in (field, gaussian, again)]
    web, blobs, others = (ScatteringElongation().choose(m, metadata(n)).mean(0) for m in measured)
    assert (web > 1.1 * blobs).all()
    web_spread, spread, other_spread = (ScatteringSecond().choose(m, metadata(n)).mean(0) for m in measured)
    assert ((web_spread / spread).log().abs() > 0.15).all()
    # Structure of the thickness of a ring is gathered on rings: more so the larger the scale.
    assert (web_spread / spread).argmax() == scale_pairs(n).index((0, 3))
    # Twin: Gaussian fields with other phases pass neither.
    assert (others < 1.1 * blobs).all()
    assert ((other_spread / spread).log().abs() < 0.15).all()


@pytest.mark.parametrize(
    "move",
    [
        lambda s: s.transpose(1, 2),
        lambda s: s.flip(1),
        lambda s: s.rot90(1, (1, 2)),
        lambda s: s.roll((5, 11), (1, 2)),
    ],
    ids=["t", "flip", "turn", "roll"],
)
def test_symmetries_do_not_matter(move) -> None:
    fields = noise(3, 64).exp()
    for statistic in ALL:
        one, other = (statistic.per_slice(s, metadata(64)) for s in (fields, move(fields)))
        torch.testing.assert_close(one, other, rtol=SAMPLING, atol=0)
        with pytest.raises(AssertionError):
            torch.testing.assert_close(one, FIVE_PERCENT * other, rtol=SAMPLING, atol=0)


def test_batches_precision_and_amplitude() -> None:
    fields = noise(5, 40).exp()
    whole = scattering(fields)
    for name, values in vars(whole).items():
        parts = torch.cat([getattr(scattering(part), name) for part in fields.split([2, 3])])
        torch.testing.assert_close(parts, values, rtol=FLOAT64, atol=0)
        torch.testing.assert_close(getattr(scattering(fields.float()), name), values, rtol=FLOAT32, atol=0)
        torch.testing.assert_close(getattr(scattering(5 - 3 * fields), name), 3 * values, rtol=FLOAT64, atol=0)


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = noise(5, 16)
    whole = scattering(fields)
    monkeypatch.setattr(module, "_PIXELS_AT_A_TIME", 2 * 16**2)
    torch.testing.assert_close(scattering(fields).second, whole.second, rtol=FLOAT64, atol=0)


def metadata(n_pixels: int) -> SliceMetadata:
    return SliceMetadata(box_size=100.0, n_pixels=n_pixels, thickness=1.0)


def test_statistics_and_their_places() -> None:
    density = noise(2, 64).exp()
    coefficients = scattering((1 + density).log())
    for statistic in ALL:
        values, x = statistic.per_slice(density, metadata(64)), statistic.centres(metadata(64))
        edges = statistic.edges(metadata(64))
        assert values.shape == (2, len(x)) == (2, len(edges) - 1)
        assert values.dtype == torch.float64
        assert ((edges[:-1] < x) & (x < edges[1:])).all()
    np.testing.assert_allclose(ALL[0].centres(metadata(64)), 2 * np.pi / 100 * np.array([2, 4, 8, 16]))
    np.testing.assert_allclose(ALL[1].centres(metadata(64)), [1.2, 1.3, 1.4, 2.3, 2.4, 3.4])
    torch.testing.assert_close(ALL[0].per_slice(density, metadata(64))[:, -1], coefficients.first[:, 0])
    torch.testing.assert_close(
        ALL[1].per_slice(density, metadata(64))[:, 4], coefficients.second[:, 4] / coefficients.first[:, 1]
    )
    torch.testing.assert_close(
        ALL[2].per_slice(density, metadata(64)), coefficients.parallel / coefficients.perpendicular
    )


def test_slices_without_structure_are_finite() -> None:
    constant = torch.full((2, 32, 32), 1.7)
    values = [statistic.per_slice(constant, metadata(32)) for statistic in ALL]
    assert [float(v.min()) for v in values] == [float(v.max()) for v in values] == [0.0, 0.0, 1.0]
    # A wave is arranged nowhere.
    wave = 1 + 0.5 * torch.cos(torch.pi / 2 * torch.arange(32.0)).expand(1, 32, 32)
    assert all(statistic.per_slice(wave, metadata(32)).isfinite().all() for statistic in ALL)


def test_the_work_is_done_once_per_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(module, "scattering", lambda fields: calls.append(1) or scattering(fields))
    fields = noise(2, 16).exp()
    before = [statistic.per_slice(fields, metadata(16)) for statistic in ALL]
    assert len(calls) == 1
    # Equal numbers in another tensor, and other numbers in the same one, are measured anew.
    torch.testing.assert_close(ALL[0].per_slice(fields.clone(), metadata(16)), before[0])
    assert len(calls) == 2
    ALL[0].per_slice(fields, metadata(16))
    fields *= 2
    assert not torch.equal(ALL[0].per_slice(fields, metadata(16)), before[0])
    assert len(calls) == 4


def test_small_slices() -> None:
    assert len(scale_wavenumbers(SMALLEST_SIDE)) == 1
    assert scattering(noise(2, SMALLEST_SIDE)).second.shape == (2, 0)
    assert scale_pairs(SMALLEST_SIDE_OF_PAIRS) == [(0, 1)]
    assert len(scale_wavenumbers(256)) == 6
    with pytest.raises(ValueError, match="at least 8 pixels"):
        scattering(noise(1, SMALLEST_SIDE - 1))
    with pytest.raises(ValueError, match="at least 16 pixels"):
        ScatteringSecond().edges(metadata(SMALLEST_SIDE_OF_PAIRS - 1))
    with pytest.raises(ValueError, match="shape"):
        scattering(noise(1, 16)[0])
