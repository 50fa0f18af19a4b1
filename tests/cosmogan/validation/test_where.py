"""Where mocks differ: damage of an octave shows there, damage of voids by its threshold, and nothing in likes."""

import numpy as np

from cosmogan.slices import SliceMetadata
from cosmogan.statistics.summary_vector import octaves
from cosmogan.validation.sets.where import ALL, Halves, locate

SIDE, PER_BOX = 32, 24
METADATA = SliceMetadata(box_size=64.0, n_pixels=SIDE, thickness=2.0)
BANDS = octaves(METADATA)


def boxes(n: int, seed: int, factor: float = 1.0, octave: int | None = None) -> np.ndarray:
    """Lognormal slices, in boxes whose amplitudes differ; waves of one octave times a factor."""
    random = np.random.default_rng(seed)
    amplitude = np.repeat(random.normal(1, 0.03, n), PER_BOX)[:, None, None]
    k_1d = 2 * np.pi / METADATA.box_size * np.fft.fftfreq(SIDE, 1 / SIDE)
    k = np.hypot(k_1d[:, None], np.abs(k_1d[: SIDE // 2 + 1]))
    modes = np.fft.rfft2(random.standard_normal((n * PER_BOX, SIDE, SIDE))) / (1 + 10 * k)
    if octave is not None:
        low, high = BANDS[octave]
        modes[:, (k >= low) & (k <= high)] *= factor
    field = amplitude * np.fft.irfft2(modes, s=(SIDE, SIDE))
    return np.exp(field / 0.15).astype(np.float32)


def found(mocks: tuple[np.ndarray, np.ndarray]) -> dict[str, tuple[float, float]]:
    groups = np.repeat(np.arange(8), PER_BOX)
    halves = Halves((mocks[0], boxes(8, 3)), (mocks[1], boxes(8, 4)), (groups, groups + 8))
    return {row.what: (row.auc, row.p) for row in locate(halves, METADATA, seed=0)}


def test_likes_differ_nowhere():
    rows = found((boxes(8, 1), boxes(8, 2)))
    assert next(iter(rows)) == ALL
    # Of so many rows one in a hundred is below .01 by chance, and rows have much in common.
    assert min(p for _, p in rows.values()) > 0.003
    assert rows[ALL][0] < 0.6


def test_more_power_in_an_octave_shows_in_it():
    rows = found((boxes(8, 1, 1.3, 2), boxes(8, 2, 1.3, 2)))
    names = [f"k from {low:.3g} to {high:.3g} h/Mpc" for low, high in BANDS]
    auc = [rows[name][0] for name in names]
    assert auc[2] > 0.9
    assert max(auc[0], auc[1], auc[3]) < 0.62
    assert rows[names[2]][1] < 0.001
    # All waves up to the end of the octave below know nothing of it.
    assert rows[f"k up to {BANDS[1][1]:.3g} h/Mpc"][0] < 0.62
    assert rows[f"k up to {BANDS[2][1]:.3g} h/Mpc"][0] > 0.7
    assert rows[ALL][0] > 0.9


def test_filled_voids_show_by_their_threshold():
    filled = [np.maximum(boxes(8, seed), np.float32(0.25)) for seed in (1, 2)]
    rows = found((filled[0], filled[1]))
    assert rows["1 + delta above 0.2"][0] > 0.95
    assert rows["1 + delta above 5"][0] < 0.62
