from pathlib import Path

import numpy as np
import pytest

from cosmogan.slices import SliceMetadata, SliceReader, SliceSet, write_slices
from cosmogan.validation.score import SampleComparison
from cosmogan.validation.sets.diversity import compare_diversity

METADATA = SliceMetadata(box_size=100.0, n_pixels=32, thickness=1.0)
SURE, UNSURE = 6.0, 3.0


def fields(n_slices: int, seed: int, contrast: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    wave = np.fft.fftfreq(32, 1 / 32)
    smooth = np.fft.ifft2(np.fft.fft2(rng.normal(size=(n_slices, 32, 32))) / (1 + wave[:, None] ** 2 + wave**2)).real
    smooth *= contrast / smooth.std()
    return np.exp(smooth - contrast**2 / 2).astype(np.float32)


def write(path: Path, slices: np.ndarray, n_realisations: int = 1, *, slabs: bool = False) -> Path:
    n, each = len(slices), max(len(slices) // n_realisations, 1)
    position = np.arange(n) % each * (100.0 / each) if slabs else np.full(n, np.nan)
    axis = np.full(n, 2 if slabs else 255, np.uint8)
    write_slices(path, SliceSet(slices, np.arange(n) // each, axis, position, METADATA), overwrite=True)
    return path


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("diversity") / "reference.h5", fields(160, 1), 8)


def run(mocks: Path, reference: Path, seed: int = 0) -> SampleComparison:
    with SliceReader(mocks) as one, SliceReader(reference) as other:
        return compare_diversity(one, other, seed=seed, n_pairs=200)


def test_mocks_as_diverse_as_the_simulation(tmp_path: Path, reference: Path) -> None:
    comparison = run(write(tmp_path / "mocks.h5", fields(200, 2)), reference)
    assert [score.name for score in comparison.scores] == ["diversity", "similarity_scatter"]
    for score in comparison.scores:
        assert score.value < 0.4
        assert 0 < score.floor < 0.4
        assert score.sigmas < UNSURE
    assert comparison.notes == ()
    assert {name: values.shape for name, values in comparison.distributions.items()} == {
        "mocks": (200,),
        "simulation": (200,),
    }


def test_score_is_the_shift_of_the_mean_in_units_of_the_scatter(tmp_path: Path, reference: Path) -> None:
    comparison = run(write(tmp_path / "mocks.h5", fields(200, 2, 0.8)), reference)
    ours, theirs = comparison.distributions["mocks"], comparison.distributions["simulation"]
    assert comparison.scores[0].value == pytest.approx(abs(ours.mean() - theirs.mean()) / theirs.std())
    assert comparison.scores[1].value == pytest.approx(abs(ours.std() / theirs.std() - 1))


def test_a_collapsed_generator(tmp_path: Path, reference: Path) -> None:
    # Ten templates, each with a little noise.
    slices = np.tile(fields(10, 2), (20, 1, 1)) * np.random.default_rng(0).uniform(0.9, 1.1, (200, 32, 32))
    comparison = run(write(tmp_path / "mocks.h5", slices.astype(np.float32)), reference)
    assert comparison.scores[0].value > 0.5
    assert comparison.scores[0].sigmas > UNSURE
    one = run(write(tmp_path / "mocks.h5", np.tile(fields(1, 2), (20, 1, 1))), reference)
    assert one.scores[0].value > 3
    assert one.scores[0].sigmas > SURE
    assert one.scores[1].value == pytest.approx(1, abs=1e-4)
    assert "resemble each other more" in one.notes[0]


def test_noise_is_not_diversity(tmp_path: Path, reference: Path) -> None:
    noise = np.exp(np.random.default_rng(2).normal(size=(200, 32, 32)) - 0.5).astype(np.float32)
    comparison = run(write(tmp_path / "mocks.h5", noise), reference)
    assert comparison.scores[1].value > 0.25
    assert comparison.scores[1].sigmas > UNSURE


@pytest.mark.parametrize("n_realisations", [2, 3])
def test_few_realisations_have_a_floor_from_their_distant_slabs(tmp_path: Path, n_realisations: int) -> None:
    reference = write(tmp_path / "reference.h5", fields(60, 1), n_realisations, slabs=True)
    assert 0 < run(write(tmp_path / "mocks.h5", fields(40, 2)), reference).scores[0].floor < 0.5


def test_many_realisations(tmp_path: Path) -> None:
    reference = write(tmp_path / "reference.h5", fields(400, 1), 400)
    assert 0 < run(write(tmp_path / "mocks.h5", fields(40, 2)), reference).scores[0].floor < 0.5


def test_reference_of_one_realisation(tmp_path: Path) -> None:
    reference = write(tmp_path / "reference.h5", fields(60, 1), slabs=True)
    comparison = run(write(tmp_path / "mocks.h5", fields(40, 2)), reference)
    assert comparison.scores[0].floor is None
    assert comparison.scores[0].value < 0.5
    assert "single realisation" in comparison.notes[0]


def test_nothing_to_pair(tmp_path: Path, reference: Path) -> None:
    comparison = run(write(tmp_path / "one.h5", fields(1, 2)), reference)
    assert np.isnan(comparison.scores[0].value)
    assert comparison.scores[0].sigmas is None
    assert "The mocks hold no two unrelated slices" in comparison.notes[0]
    assert np.isnan(run(reference, write(tmp_path / "one.h5", fields(1, 2))).scores[0].value)


def test_seed_decides(tmp_path: Path, reference: Path) -> None:
    mocks = write(tmp_path / "mocks.h5", fields(100, 2))
    values = [run(mocks, reference, seed).scores[0].value for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]
