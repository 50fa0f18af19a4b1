from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import cosmogan.validation.sets.two_sample as two_sample
from cosmogan.errors import UserError
from cosmogan.slices import AXIS_NOT_APPLICABLE, SliceMetadata, SliceReader, SliceSet, write_example, write_slices
from cosmogan.validation.compare import compare, compare_candidates
from cosmogan.validation.score import SampleComparison
from tests.cosmogan.statistics.test_two_sample import CLEAR, N_STEPS, lognormal

METADATA = SliceMetadata(box_size=100.0, n_pixels=16, thickness=6.25)


def write_boxes(path: Path, density: np.ndarray, n_realisations: int, *, cut: bool = True) -> Path:
    """Slices of equal boxes; not cut from any where a generator made them."""
    n = len(density) // n_realisations
    index = np.arange(len(density))
    axis = index % n // (n // 2) if cut else np.full(len(density), AXIS_NOT_APPLICABLE)
    position = index % (n // 2) * METADATA.thickness if cut else np.full(len(density), np.nan)
    write_slices(path, SliceSet(density, index // n, axis, position, METADATA), overwrite=True)
    return path


def run(mocks: Path, reference: Path, **options: Any) -> SampleComparison:
    with SliceReader(mocks) as ours, SliceReader(reference) as theirs:
        return two_sample.compare_two_sample(ours, theirs, n_steps=N_STEPS, **options)


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    return write_boxes(tmp_path / "reference.h5", lognormal(400, 1), 8)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Groups that each training saw; the networks stay as they begin."""
    seen: list[dict[str, Any]] = []
    train: Callable[..., Any] = two_sample.train_classifier

    def recorded(mocks: np.ndarray, simulations: np.ndarray, **options: Any) -> Any:
        seen.append(options)
        return train(mocks, simulations, **options | {"n_steps": 1})

    monkeypatch.setattr(two_sample, "train_classifier", recorded)
    return seen


def test_a_difference_is_found(tmp_path: Path, reference: Path) -> None:
    mocks = write_boxes(tmp_path / "mocks.h5", lognormal(400, 2, amplitude=1.2), 1, cut=False)
    result = run(mocks, reference)
    (score,) = result.scores
    assert score.value > CLEAR - 0.5
    assert score.sigmas is not None
    assert score.sigmas > 4
    assert score.floor is not None
    assert 0 < score.floor < 0.1
    assert result.notes == ()
    # Of all ways to call four of eight boxes mocks, no other tells as much.
    assert (result.p_value, result.n_orders) == (1 / 70, 70)
    assert {name: len(values) for name, values in result.distributions.items()} == {"mocks": 200, "simulation": 200}
    assert np.median(result.distributions["mocks"]) > np.median(result.distributions["simulation"])
    for words in ("200 mocks", "200 slices of 4 realisations", "16 x 16 pixels", f"{score.value + 0.5:.3f}"):
        assert words in result.explanation


def test_perfect_mocks_are_not_told_apart(tmp_path: Path, reference: Path) -> None:
    result = run(write_boxes(tmp_path / "mocks.h5", lognormal(400, 2), 1, cut=False), reference)
    (score,) = result.scores
    assert 0 <= score.value < 0.1
    assert result.p_value is not None
    assert result.p_value > 0.01
    assert "taken as 4 boxes" in result.explanation
    assert score.sigmas is not None
    assert abs(score.sigmas) < 3


def test_boxes_that_differ_among_themselves_are_no_difference(tmp_path: Path) -> None:
    # Boxes whose amplitude scatters by a tenth, as the smaller of the paper's does: mocks of the same family.
    rng = np.random.default_rng(0)
    files = [
        write_boxes(
            tmp_path / f"{seed}.h5",
            np.concatenate([lognormal(48, 100 * seed + i, amplitude=1 + 0.1 * rng.normal()) for i in range(8)]),
            8,
        )
        for seed in (1, 2)
    ]
    result = run(*files)
    (score,) = result.scores
    assert score.sigmas is not None
    assert abs(score.sigmas) < 3
    assert result.p_value is not None
    assert result.p_value > 0.01
    # Between boxes the network finds far more than chance between slices allows.
    assert score.floor is not None
    assert score.floor > 0.05


def test_whole_realisations_are_split(tmp_path: Path, reference: Path, trainings: list[dict[str, Any]]) -> None:
    mocks = write_boxes(tmp_path / "mocks.h5", lognormal(400, 2), 8)
    result = run(mocks, reference)
    assert len(trainings) == 3
    assert len({training["seed"] for training in trainings}) == 3
    for training in trainings:
        # Equal labels, such as boxes of the same initial conditions, are on the same side in both files.
        assert set(training["mock_groups"]) == set(training["simulation_groups"])
        assert len(set(training["simulation_groups"])) == 4
        assert len(training["simulation_groups"]) == 200
    assert len(result.distributions["simulation"]) == 200


def test_candidates_are_judged_as_if_alone(tmp_path: Path, reference: Path, trainings: list[dict[str, Any]]) -> None:
    mocks = {name: write_boxes(tmp_path / f"{name}.h5", lognormal(160, seed), 8) for seed, name in enumerate("ab", 5)}
    found = compare_candidates(mocks, reference, statistics=[], sets=False, two_sample=True)
    assert len(trainings) == 6
    alone = compare(mocks["b"], reference, statistics=[], two_sample=True).samples[-1]
    together = found[1].samples[-1]
    assert (together.scores, together.p_value) == (alone.scores, alone.p_value)


def test_slices_of_a_generator_are_independent(
    tmp_path: Path, reference: Path, trainings: list[dict[str, Any]]
) -> None:
    run(write_boxes(tmp_path / "mocks.h5", lognormal(100, 2), 1, cut=False), reference)
    assert len(set(trainings[0]["mock_groups"])) == 50


def test_long_files_are_sampled(
    tmp_path: Path, reference: Path, trainings: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(two_sample, "_MAX_SLICES", 80)
    mocks = write_boxes(tmp_path / "mocks.h5", lognormal(100, 2), 1, cut=False)
    result = run(mocks, reference)
    assert len(trainings[0]["mock_groups"]) + len(result.distributions["mocks"]) == 80
    assert len(trainings[0]["simulation_groups"]) + len(result.distributions["simulation"]) == 80


def test_a_single_realisation_is_said(tmp_path: Path, trainings: list[dict[str, Any]]) -> None:
    reference = write_boxes(tmp_path / "reference.h5", lognormal(64, 1), 1)
    mocks = write_boxes(tmp_path / "mocks.h5", lognormal(64, 2), 1, cut=False)
    result = run(mocks, reference)
    assert len(trainings[0]["simulation_groups"]) == 32
    assert result.p_value == 0.5 or result.p_value == 1
    assert "p cannot be below 0.5" in result.notes[0]
    assert (result.scores[0].floor, result.scores[0].sigmas) == (None, None)
    assert "single realisation of the reference (it learned from slabs of the same box)" in result.notes[1]
    assert "±" not in result.explanation


@pytest.mark.parametrize(
    ("n_realisations", "words"),
    [(2, "asks about a single realisation of the reference:"), (4, "asks about 2 realisations")],
)
def test_few_realisations_are_said(
    tmp_path: Path, n_realisations: int, words: str, trainings: list[dict[str, Any]]
) -> None:
    reference = write_boxes(tmp_path / "reference.h5", lognormal(64, 1), n_realisations)
    mocks = write_boxes(tmp_path / "mocks.h5", lognormal(64, 2), 1, cut=False)
    result = run(mocks, reference)
    assert "p cannot be below" in result.notes[0]
    assert words in result.notes[1]
    assert result.scores[0].sigmas is None
    assert (result.scores[0].floor is None) == (n_realisations < 4)
    assert len(trainings) == 3


def test_few_slices_are_no_number(tmp_path: Path, reference: Path) -> None:
    result = run(write_boxes(tmp_path / "mocks.h5", lognormal(8, 2), 1, cut=False), reference)
    assert np.isnan(result.scores[0].value)
    assert "needs 8 slices to learn from" in result.notes[0]
    assert "of 8 mocks 4 and 4" in result.notes[0]


def test_counts_against_densities_are_said(tmp_path: Path, reference: Path, trainings: list[dict[str, Any]]) -> None:
    write_example(tmp_path / "counts.h5", n_slices=8, quantity="counts")
    result = run(tmp_path / "counts.h5", reference)
    assert any("whole numbers" in note for note in result.notes)


@pytest.mark.parametrize("bad", [np.nan, -1.0, np.inf])
def test_refuses_values_that_no_density_has(tmp_path: Path, reference: Path, bad: float) -> None:
    write_example(tmp_path / "bad.h5")
    with h5py.File(tmp_path / "bad.h5", "r+") as handle:
        handle["slices"][3, 0, 0] = bad
    with pytest.raises(UserError, match=r"bad\.h5: /slices holds NaN, infinite or negative"):
        run(tmp_path / "bad.h5", reference)
