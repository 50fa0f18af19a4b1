"""Numbers per slice: right values on slices that are known."""

import numpy as np
import pytest

from cosmogan.slices import SliceMetadata
from cosmogan.statistics.summary_vector import (
    LOG_OFFSET,
    filtered_features,
    octaves,
    power_features,
    threshold_features,
)

SIDE = 32
METADATA = SliceMetadata(box_size=64.0, n_pixels=SIDE, thickness=2.0)


def wave(number: int, amplitude: float = 0.1) -> np.ndarray:
    """A slice whose ln(1 + delta + .05) is a wave with so many periods along a side."""
    phase = 2 * np.pi * number * np.arange(SIDE) / SIDE
    field = np.broadcast_to(amplitude * np.cos(phase), (1, SIDE, SIDE))
    return np.exp(field) - LOG_OFFSET


def test_octaves_cover_the_plane_from_the_fundamental_mode():
    found = octaves(METADATA)
    assert found[-1] == pytest.approx((METADATA.nyquist / 2, METADATA.nyquist))
    assert [one[1] for one in found[:-1]] == pytest.approx([one[0] for one in found[1:]])
    assert found[0][0] < METADATA.fundamental < found[0][1]
    assert len(found) == 4


def test_a_wave_shows_in_its_octave_only():
    # Three periods: between an eighth and a quarter of the Nyquist wave number, 16 periods.
    slices = wave(3)
    power = [filtered_features(slices, METADATA, low, high)[0, 0] for low, high in octaves(METADATA)]
    assert power[1] == pytest.approx(np.log(0.1**2 / 2), abs=1e-3)
    assert max(power[0], *power[2:]) < np.log(1e-8)
    assert filtered_features(slices, METADATA, 0, METADATA.nyquist)[0, 0] == pytest.approx(power[1], abs=1e-4)


def test_the_shape_of_a_wave_is_known():
    features = filtered_features(wave(4), METADATA, 0, METADATA.nyquist)[0]
    assert features[1] == pytest.approx(0, abs=1e-3)
    assert features[2] == pytest.approx(1.5, abs=1e-3)
    # Differences of neighbours along one axis are a wave too, with the fourth moment 3/2 and half of the squares 0.
    assert features[3] == pytest.approx(np.log(1.5), abs=1e-3)
    assert features[4:6] == pytest.approx([-np.sqrt(2), np.sqrt(2)], abs=1e-3)
    assert features[6:].tolist() == sorted(features[6:].tolist())


def test_what_lies_above_a_threshold_is_counted():
    slices = np.full((2, SIDE, SIDE), 0.5)
    # A square of 4 x 4, across the edge; and one pixel alone.
    slices[0, -2:, 5:9] = slices[0, :2, 5:9] = 3.0
    slices[1, 7, 7] = 3.0
    found = threshold_features(slices, 1.0) * SIDE**2
    np.testing.assert_allclose(found, [[16, 16, 0], [1, 4, 1]])


def test_power_is_that_of_white_noise_in_every_ring():
    noise = 1 + 0.01 * np.random.default_rng(0).standard_normal((400, SIDE, SIDE))
    found = power_features(noise)
    n_rings = found.shape[1] // 2
    means = np.exp(found).mean(0)
    np.testing.assert_allclose(means[:n_rings], 0.01**2, rtol=0.12)
    # Of the logarithm: divided by (1 + .05) squared.
    np.testing.assert_allclose(means[n_rings:], (0.01 / 1.05) ** 2, rtol=0.12)
    # Slices that were turned or rolled have the same.
    np.testing.assert_allclose(power_features(np.roll(noise[:3, ::-1], 5, 2).swapaxes(1, 2)), found[:3], rtol=1e-6)
