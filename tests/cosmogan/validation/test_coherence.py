from pathlib import Path

import numpy as np
import pytest

from cosmogan.slices import read_slices, write_example
from cosmogan.statistics.power_spectrum import PowerSpectrum
from cosmogan.validation.compare import compare
from cosmogan.validation.comparison import Comparison
from cosmogan.validation.sets.coherence import CoherenceComparison
from cosmogan.validation.thresholds import load_thresholds
from cosmogan.validation.verdict import judge_score
from tests.cosmogan.validation.test_compare import write_like

# Densities are stored in float32.
FLOAT32 = 1e-5
ALIKE = "Different slices of the mocks are alike"


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    write_example(tmp_path / "reference.h5", n_slices=60, seed=1)
    return tmp_path / "reference.h5"


def from_templates(tmp_path: Path, n_templates: int) -> Path:
    """240 slices drawn from so many different ones."""
    path = tmp_path / "drawn.h5"
    write_example(path, n_slices=60, seed=2)
    slices = read_slices(path).slices
    return write_like(path, path, slices[np.random.default_rng(0).integers(0, n_templates, len(slices))])


def power_only(mocks: Path, reference: Path) -> tuple[Comparison, CoherenceComparison]:
    comparison = compare(mocks, reference, statistics=[PowerSpectrum()], n_bootstrap=50)
    coherence = comparison.statistics[0].coherence
    assert coherence is not None
    return comparison, coherence


def test_a_collapsed_generator_is_found(tmp_path: Path, reference: Path) -> None:
    comparison, coherence = power_only(from_templates(tmp_path, 1), reference)
    np.testing.assert_allclose(coherence.mocks, 1, rtol=FLOAT32)
    assert coherence.alike
    assert any(ALIKE in note for note in comparison.notes)
    score = coherence.score()
    assert score.value == pytest.approx(1 - coherence.reference_median, rel=FLOAT32)
    assert judge_score(score, load_thresholds()).outcome == "fail"


def test_so_is_one_that_draws_from_five_slices(tmp_path: Path, reference: Path) -> None:
    comparison, coherence = power_only(from_templates(tmp_path, 5), reference)
    # One pair in five is a pair of copies; 120 pairs have 24 of them, give or take five.
    assert coherence.mocks_median == pytest.approx(0.2, abs=0.1)
    assert coherence.alike
    assert any(ALIKE in note for note in comparison.notes)


def test_independent_slices_are_not_alike(tmp_path: Path, reference: Path) -> None:
    write_example(tmp_path / "mocks.h5", n_slices=60, seed=3)
    comparison, coherence = power_only(tmp_path / "mocks.h5", reference)
    assert (coherence.mocks_n_pairs, coherence.reference_n_pairs) == (120, 120)
    for values, error in (
        (coherence.mocks, coherence.mocks_error),
        (coherence.reference, coherence.reference_error),
    ):
        assert (np.abs(values) < 4.5 * error).all()
    assert abs(coherence.mocks_median) < 0.05
    assert not coherence.alike
    assert not any(ALIKE in note for note in comparison.notes)
    assert coherence.score().floor == abs(coherence.reference_median)
    assert judge_score(coherence.score(), load_thresholds()).passed


def test_unknown_for_a_single_slice(tmp_path: Path, reference: Path) -> None:
    write_example(tmp_path / "one.h5", n_realisations=1, n_slices=1)
    entry = compare(tmp_path / "one.h5", reference, statistics=[PowerSpectrum()], n_bootstrap=10).statistics[0]
    assert entry.coherence is None
    assert len(entry.scores) == 2
    # Two slices make one pair: a number without an error, which says something only if they are copies.
    two = tmp_path / "two.h5"
    write_example(two, n_realisations=1, n_slices=2)
    for path, alike in ((two, False), (write_like(tmp_path / "copy.h5", two, read_slices(two).slices[[0, 0]]), True)):
        _, coherence = power_only(path, reference)
        assert np.isfinite(coherence.mocks_median)
        assert np.isnan(coherence.mocks_error).all()
        assert coherence.alike == alike
    # A reference of one pair does not know how far pairs scatter.
    assert not power_only(tmp_path / "copy.h5", two)[1].alike
