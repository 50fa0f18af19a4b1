from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cosmogan.errors import UserError
from cosmogan.slices import SliceReader, read_slices, write_example, write_slices
from cosmogan.validation.score import SampleComparison
from cosmogan.validation.sets.partners import compare_partners

# Densities are stored in float32.
FLOAT32 = 1e-5


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    write_example(tmp_path / "reference.h5", n_pixels=32, n_slices=40, seed=1)
    return tmp_path / "reference.h5"


def partners(tmp_path: Path, reference: Path, density: np.ndarray, **labels: np.ndarray) -> SampleComparison:
    held = replace(read_slices(reference), slices=density.astype(np.float32), **labels)  # type: ignore[arg-type]
    write_slices(tmp_path / "mocks.h5", held, overwrite=True)
    with SliceReader(tmp_path / "mocks.h5") as mocks, SliceReader(reference) as simulation:
        return compare_partners(mocks, simulation)


def test_amplitudes_do_not_matter(tmp_path: Path, reference: Path) -> None:
    found = partners(tmp_path, reference, 1 + 0.5 * (read_slices(reference).slices - 1))
    assert found.scores[0].value == pytest.approx(0, abs=FLOAT32)
    # Opposite phases: r = -1.
    slices = read_slices(reference).slices
    opposite = partners(tmp_path, reference, slices.max() - slices)
    assert opposite.scores[0].value == pytest.approx(2, abs=FLOAT32)


def test_noise_takes_coherence_away(tmp_path: Path, reference: Path) -> None:
    slices = read_slices(reference).slices.astype(np.float64)
    noise = np.random.default_rng(0).normal(size=slices.shape)
    # White slices and noise of variances s^2 and n^2 in s + n: r = s / sqrt(s^2 + n^2) at every k.
    scale = slices.std(axis=(1, 2), keepdims=True)
    mixed = slices + 0.75 * scale * noise
    found = partners(tmp_path, reference, mixed - mixed.min())
    expected = 1 - 1 / np.hypot(1, 0.75)
    assert found.scores[0].value == pytest.approx(expected, abs=0.02)
    # 5% in r, whose distance from 1 is expected.
    with pytest.raises(AssertionError):
        assert 1 - 0.95 * (1 - found.scores[0].value) == pytest.approx(expected, abs=0.02)
    assert len(found.distributions) == 3
    assert found.scores[0].sigmas is not None
    assert found.scores[0].sigmas > 10


def test_others_are_refused(tmp_path: Path, reference: Path) -> None:
    held = read_slices(reference)
    with pytest.raises(UserError, match=r"not partners: slice 0 has realisation"):
        partners(tmp_path, reference, held.slices, realisation=held.realisation[::-1].copy())
    write_example(tmp_path / "more.h5", n_pixels=32, n_slices=41)
    with (
        SliceReader(tmp_path / "more.h5") as mocks,
        SliceReader(reference) as simulation,
        pytest.raises(UserError, match="come in pairs"),
    ):
        compare_partners(mocks, simulation)
