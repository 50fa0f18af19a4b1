from pathlib import Path

import numpy as np
import pytest

from cosmogan.errors import UserError
from cosmogan.slices import SliceMetadata, SliceReader, SliceSet, write_slices
from cosmogan.validation.score import SampleComparison
from cosmogan.validation.sets import copies
from cosmogan.validation.sets.copies import compare_copies

METADATA = SliceMetadata(box_size=100.0, n_pixels=32, thickness=1.0)
SURE, UNSURE = 8.0, 2.0


def fields(n_slices: int, seed: int, n_pixels: int = 32) -> np.ndarray:
    """Lognormal slices with more power on large scales."""
    rng = np.random.default_rng(seed)
    wave = np.fft.fftfreq(n_pixels, 1 / n_pixels)
    length = np.sqrt(1 + wave[:, None] ** 2 + wave**2)
    smooth = np.fft.ifft2(np.fft.fft2(rng.normal(size=(n_slices, n_pixels, n_pixels))) / length).real
    return np.exp(1.2 * smooth / smooth.std() - 0.72).astype(np.float32)


def turned(slices: np.ndarray, seed: int, noise: float = 0.0) -> np.ndarray:
    """Each slice rotated, mirrored, shifted, and with noise in every pixel."""
    rng = np.random.default_rng(seed)
    moved = [
        np.roll(np.rot90(s.T if rng.random() < 0.5 else s, rng.integers(4)), rng.integers(len(s), size=2), (0, 1))
        for s in slices
    ]
    return (np.stack(moved) * np.maximum(1 + noise * rng.normal(size=slices.shape), 0)).astype(np.float32)


def write(
    path: Path,
    slices: np.ndarray,
    *,
    n_realisations: int = 1,
    slabs: bool = False,
    metadata: SliceMetadata = METADATA,
) -> Path:
    """Write slices in the order of realisations; slabs lie along axis 0, side by side."""
    each = len(slices) // n_realisations
    labels = np.arange(len(slices)) // each, np.full(len(slices), 0 if slabs else 255, np.uint8)
    position = np.arange(len(slices)) % each * (100.0 / each) if slabs else np.full(len(slices), np.nan)
    write_slices(path, SliceSet(slices, *labels, position, metadata), overwrite=True)
    return path


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("copies") / "reference.h5", fields(160, 1), n_realisations=8)


def run(mocks: Path, reference: Path, training: Path | None = None, **options: int) -> tuple[SampleComparison, ...]:
    readers = [SliceReader(path) for path in (mocks, reference, training) if path is not None]
    last = readers[2] if training is not None else None
    return compare_copies(readers[0], readers[1], training=last, **({"seed": 0} | options))


def test_independent_mocks_are_no_copies(tmp_path: Path, reference: Path) -> None:
    mocks = write(tmp_path / "mocks.h5", fields(200, 2))
    training = write(tmp_path / "training.h5", fields(200, 3))
    for comparison in run(mocks, reference, training):
        (score,) = comparison.scores
        assert (score.value, score.floor, score.sigmas) == (0, 0, 0)
        assert comparison.notes == ()
        assert {name: len(values) for name, values in comparison.distributions.items()} == {
            "mocks": 200,
            "simulation": 160,
        }


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_five_per_cent_copies_of_each_other(tmp_path: Path, reference: Path, noise: float) -> None:
    slices = fields(200, 2)
    slices[190:] = turned(slices[:10], 4, noise)
    (comparison,) = run(write(tmp_path / "mocks.h5", slices), reference)
    (score,) = comparison.scores
    assert score.name == "copies"
    assert score.value == 0.1
    assert score.sigmas > SURE
    assert "20 of 200 mocks are more similar to a mock than chance allows" in comparison.notes[0]
    assert any("20 of all 200 mocks have an exact copy" in note for note in comparison.notes) == (noise == 0)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_five_per_cent_of_the_training_slices(tmp_path: Path, reference: Path, noise: float) -> None:
    slices, seen = fields(200, 2), fields(200, 3)
    slices[100:110] = turned(seen[50:60], 4, noise)
    among, memorised = run(write(tmp_path / "a.h5", slices), reference, write(tmp_path / "b.h5", seen))
    assert among.scores[0].value == 0
    (score,) = memorised.scores
    assert score.name == "memorisation"
    assert (score.value, score.floor) == (0.05, 0)
    assert score.sigmas > SURE / 2
    assert "like training slice 5" in memorised.notes[0]
    assert any("10 of all 200 mocks are exact copies" in note for note in memorised.notes) == (noise == 0)


def test_one_chance_pair_is_no_alarm(tmp_path: Path, reference: Path) -> None:
    slices = fields(200, 2)
    slices[199] = turned(slices[:1], 4)[0]
    (comparison,) = run(write(tmp_path / "mocks.h5", slices), reference)
    assert comparison.scores[0].value == 0.01
    assert 0 < comparison.scores[0].sigmas < UNSURE


def blended(slices: np.ndarray) -> np.ndarray:
    """Slabs that share most of their structure with their neighbours, as those of one box do."""
    return 0.6 * slices + 0.4 * np.roll(slices, 1, 0)


def test_neighbouring_slabs_are_no_copies_but_equal_ones_are(tmp_path: Path, reference: Path) -> None:
    slabs = np.concatenate([blended(fields(60, 2)), blended(fields(60, 3))])
    path = write(tmp_path / "slabs.h5", slabs, n_realisations=2, slabs=True)
    (comparison,) = run(path, reference)
    assert comparison.scores[0].value == 0
    # Twin: without axis and position they count as independent, and are not.
    assert run(write(tmp_path / "unknown.h5", slabs, n_realisations=2), reference)[0].scores[0].value > 0.5
    slabs[3:6] = turned(slabs[40:43], 5)
    (comparison,) = run(write(tmp_path / "slabs.h5", slabs, n_realisations=2, slabs=True), reference)
    assert comparison.scores[0].value == pytest.approx(6 / 120)


def test_reference_of_one_realisation(tmp_path: Path) -> None:
    reference = write(tmp_path / "reference.h5", blended(fields(120, 1)), slabs=True)
    slices = fields(100, 2)
    slices[90:] = turned(slices[:10], 4)
    (comparison,) = run(write(tmp_path / "mocks.h5", slices), reference)
    (score,) = comparison.scores
    assert (score.value, score.floor) == (0.2, None)
    assert score.sigmas > SURE / 2
    assert "single realisation" in comparison.notes[-1]


def test_reference_that_was_trained_on(tmp_path: Path, reference: Path) -> None:
    mocks = write(tmp_path / "mocks.h5", fields(100, 2))
    memorised = run(mocks, reference, reference)[1]
    assert "160 of 160 slices of the reference are training slices" in memorised.notes[0]
    assert memorised.scores[0].value == 0
    assert memorised.scores[0].floor is None


def test_exact_copies_are_found_in_files_longer_than_the_sample(
    tmp_path: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slices = fields(300, 2)
    slices[150:] = turned(slices[:150], 4)
    # Blocks that do not divide evenly, some without a chosen slice.
    monkeypatch.setattr(copies, "_PIXELS_AT_A_TIME", 7 * 32**2)
    (comparison,) = run(write(tmp_path / "mocks.h5", slices), reference, n_slices=40)
    assert comparison.scores[0].value == 1
    assert "40 (drawn from 300)" in comparison.explanation
    assert "300 of all 300 mocks have an exact copy" in comparison.notes[-1]


def test_deterministic_whatever_the_blocks(tmp_path: Path, reference: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mocks = write(tmp_path / "mocks.h5", fields(60, 2))
    first = run(mocks, reference, n_slices=50)[0].distributions
    monkeypatch.setattr(copies, "_PIXELS_AT_A_TIME", 7 * 32**2)
    second, other = (run(mocks, reference, n_slices=50, seed=s)[0].distributions for s in (0, 1))
    for name, values in first.items():
        np.testing.assert_allclose(second[name], values, rtol=1e-5)
        assert not np.allclose(other[name], values, rtol=1e-3)


def test_few_slices(tmp_path: Path, reference: Path) -> None:
    (score,) = run(write(tmp_path / "one.h5", fields(1, 2)), reference)[0].scores
    assert np.isnan(score.value)
    assert score.sigmas is None
    # A reference too small to know what chance does: only copies count.
    small = write(tmp_path / "small.h5", fields(4, 1), n_realisations=2)
    slices = fields(20, 2)
    slices[19] = slices[0].T
    assert run(write(tmp_path / "mocks.h5", slices), small)[0].scores[0].value == 0.1


def test_constant_mocks_are_copies_of_each_other(tmp_path: Path, reference: Path) -> None:
    slices = fields(100, 2)
    slices[:10] = 0.25
    assert run(write(tmp_path / "mocks.h5", slices), reference)[0].scores[0].value == 0.1


def test_training_slices_of_another_box_are_refused(tmp_path: Path, reference: Path) -> None:
    other = SliceMetadata(box_size=350.0, n_pixels=32, thickness=1.0)
    training = write(tmp_path / "training.h5", fields(4, 1), metadata=other)
    with pytest.raises(UserError, match=r"cannot have been learnt from .*box_size 100 Mpc/h against 350 Mpc/h"):
        run(reference, reference, training)
