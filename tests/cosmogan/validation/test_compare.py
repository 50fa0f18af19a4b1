import math
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import pytest
import torch

from cosmogan.errors import UserError
from cosmogan.slices import SliceMetadata, SliceSet, read_slices, write_example, write_slices
from cosmogan.statistics.accumulator import Accumulator
from cosmogan.statistics.base import AbstractStatistic
from cosmogan.statistics.power_spectrum import PowerSpectrum
from cosmogan.validation.compare import compare
from cosmogan.validation.comparison import StatisticComparison
from cosmogan.validation.means import compare_statistic
from cosmogan.validation.summary import split_in_thirds, summarise
from cosmogan.validation.thresholds import Thresholds
from cosmogan.validation.verdict import judge

# Densities are stored in float32.
FLOAT32 = 1e-5
# The floor is an rms over some 10,000 draws that are partly independent; a wrong factor would be sqrt(2).
MANY_DRAWS = 0.1


def asked(threshold: float) -> Thresholds:
    return Thresholds(significance=3.0, largest={"power_spectrum": threshold, "fake": threshold})


def write_like(path: Path, source: Path, density: np.ndarray | None = None, **changes: object) -> Path:
    """Write the slices of ``source`` again with other pixels or other metadata."""
    held = read_slices(source)
    metadata = replace(held.metadata, **changes)  # type: ignore[arg-type]
    slices = held.slices if density is None else density.astype(np.float32)
    write_slices(path, replace(held, slices=slices, metadata=metadata), overwrite=True)
    return path


def amplified(path: Path, source: Path, factor: float) -> Path:
    """Write slices whose P(k) is ``factor`` times that of ``source``."""
    density = read_slices(source).slices.astype(np.float64)
    # The mean is taken up so that no pixel turns negative.
    return write_like(path, source, density * np.sqrt(factor))


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    write_example(tmp_path / "reference.h5", seed=1)
    return tmp_path / "reference.h5"


@pytest.fixture
def mocks(tmp_path: Path) -> Path:
    write_example(tmp_path / "mocks.h5", seed=2)
    return tmp_path / "mocks.h5"


def expect_equal(entry: StatisticComparison) -> None:
    assert entry.summary.n_bins > 0
    assert entry.summary.maximum < FLOAT32


def test_a_file_equals_itself_and_says_so(reference: Path) -> None:
    comparison = compare(reference, reference, n_bootstrap=10)
    for entry in comparison.statistics:
        expect_equal(entry)
        assert judge(entry, asked(0.0)).passed
    assert any("same file" in note for note in comparison.notes)


@pytest.mark.parametrize("factor", [1.05, 0.95])
def test_five_percent_in_power_is_seen(tmp_path: Path, reference: Path, factor: float) -> None:
    comparison = compare(amplified(tmp_path / "louder.h5", reference, factor), reference, n_bootstrap=10)
    entry = comparison.statistics[0]
    np.testing.assert_allclose(entry.ratio, factor - 1, rtol=1e3 * FLOAT32)
    assert entry.summary.median == pytest.approx(0.05, rel=1e3 * FLOAT32)
    with pytest.raises(AssertionError):
        expect_equal(entry)


def test_counts_compare_with_densities(tmp_path: Path) -> None:
    counts = tmp_path / "counts.h5"
    metadata = write_example(counts, quantity="counts")
    density = read_slices(counts).slices / metadata.mean_count
    path = write_like(tmp_path / "density.h5", counts, density, quantity="density", mean_count=None)
    for one, other in ((counts, path), (path, counts)):
        expect_equal(compare(one, other, n_bootstrap=10).statistics[0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"box_size": 350.0}, ["box_size", "350 Mpc/h", "70 Mpc/h"]),
        ({"thickness": 9.0}, ["thickness", "9 Mpc/h", "4.375 Mpc/h"]),
        ({"smoothing": 1.0}, ["smoothing", "1 pixels", "0 pixels"]),
        ({"redshift": 0.5}, ["redshift", "0.5", "0"]),
        ({"periodic": False}, ["periodic", "False", "True"]),
        ({"box_size": 350.0, "redshift": 1.0}, ["box_size", "redshift"]),
    ],
)
def test_refuses_what_differs(tmp_path: Path, reference: Path, changes: dict[str, object], words: list[str]) -> None:
    other = write_like(tmp_path / "other.h5", reference, **changes)
    with pytest.raises(UserError, match="cannot be compared") as refusal:
        compare(other, reference)
    assert all(word in str(refusal.value) for word in [*words, "other.h5", "reference.h5"])


def test_refuses_other_pixels(tmp_path: Path, reference: Path) -> None:
    write_example(tmp_path / "fine.h5", n_pixels=32)
    with pytest.raises(UserError, match="n_pixels 32 against 16"):
        compare(tmp_path / "fine.h5", reference)


def test_refuses_a_missing_file(tmp_path: Path, reference: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.h5: no such file"):
        compare(tmp_path / "nothing.h5", reference)


@pytest.mark.parametrize("bad", [np.nan, -1.0])
def test_refuses_values_that_no_density_has(mocks: Path, reference: Path, bad: float) -> None:
    with h5py.File(mocks, "r+") as handle:
        handle["slices"][3, 0, 0] = bad
    with pytest.raises(UserError, match=r"mocks\.h5: /slices holds .* slice 3"):
        compare(mocks, reference)


def test_refuses_an_empty_file(tmp_path: Path, reference: Path) -> None:
    held = read_slices(reference)
    nothing = SliceSet(held.slices[:0], held.realisation[:0], held.axis[:0], held.position[:0], held.metadata)
    write_slices(tmp_path / "none.h5", nothing)
    for files in ((tmp_path / "none.h5", reference), (reference, tmp_path / "none.h5")):
        with pytest.raises(UserError, match=r"none\.h5: /slices is empty"):
            compare(*files)


def test_refuses_constant_slices(tmp_path: Path, reference: Path) -> None:
    flat = write_like(tmp_path / "flat.h5", reference, np.ones((24, 16, 16)))
    for files in ((flat, reference), (reference, flat)):
        with pytest.raises(UserError, match=r"flat\.h5: all 24 slices are constant"):
            compare(*files)


def test_refuses_tiny_slices(tmp_path: Path) -> None:
    write_example(tmp_path / "tiny.h5", n_pixels=2)
    with pytest.raises(UserError, match="expected at least 4"):
        compare(tmp_path / "tiny.h5", tmp_path / "tiny.h5")


def test_refuses_too_few_draws(mocks: Path, reference: Path) -> None:
    with pytest.raises(UserError, match="bootstrap"):
        compare(mocks, reference, n_bootstrap=1)


def test_notes_tell_what_a_reader_must_know(tmp_path: Path, mocks: Path, reference: Path) -> None:
    with h5py.File(mocks, "r+") as handle:
        handle["slices"][4] = 1.0
        handle["cosmology"].attrs["sigma8"] = 0.9
        handle.attrs["assignment"] = "CIC"
    louder = write_like(tmp_path / "louder.h5", mocks, 1.5 * read_slices(mocks).slices)
    notes = " ".join(compare(louder, reference, n_bootstrap=10).notes)
    for text in (
        "1 of 24 slices of the mocks are constant (first: slice 4)",
        "sigma8 differs: 0.9",
        "CIC",
        "over the mocks",
    ):
        assert text in notes
    assert "over the reference" not in notes


def single(tmp_path: Path, name: str, seed: int, n_slices: int) -> Path:
    write_example(tmp_path / name, n_realisations=1, n_slices=n_slices, seed=seed)
    return tmp_path / name


def test_one_realisation_has_no_floor(tmp_path: Path, mocks: Path) -> None:
    comparison = compare(mocks, single(tmp_path, "one.h5", 3, 12), n_bootstrap=10)
    entry = comparison.statistics[0]
    assert entry.floor is None
    assert entry.floor_summary is None
    assert entry.reference_error_from == "slices"
    assert entry.mocks_error_from == "realisations"
    assert any("single realisation" in note for note in comparison.notes)
    verdict = judge(entry, asked(0.5 * entry.summary.median))
    assert (verdict.outcome, verdict.passed) == ("inconclusive", False)
    assert "scatter of simulations unknown" in verdict.text
    assert judge(entry, asked(2 * max(third.median for third in entry.summary.thirds))).passed


def test_a_single_slice(tmp_path: Path, reference: Path) -> None:
    one = single(tmp_path, "one.h5", 3, 1)
    comparison = compare(one, reference, n_bootstrap=10)
    entry = comparison.statistics[0]
    assert np.isfinite(entry.ratio).all()
    assert any("single slice" in note for note in comparison.notes)
    # Cut from a simulation, it scatters as a box of the reference does; from a generator, nobody knows.
    assert entry.mocks_error_from == "reference"
    assert np.isfinite(entry.sigmas).all()
    held = read_slices(one)
    write_slices(one, replace(held, axis=np.full(1, 255, np.uint8)), overwrite=True)
    entry = compare(one, reference, n_bootstrap=10).statistics[0]
    assert np.isnan(entry.mocks_error).all()
    assert np.isnan(entry.sigmas).all()


def test_nothing_to_judge_is_no_pass(tmp_path: Path) -> None:
    # With 4 pixels the only ring ends at Nyquist.
    write_example(tmp_path / "coarse.h5", n_pixels=4)
    entry = compare(tmp_path / "coarse.h5", tmp_path / "coarse.h5", n_bootstrap=10).statistics[0]
    assert entry.summary.n_bins == 0
    assert judge(entry, asked(0.05)).outcome == "inconclusive"


def test_numbers_that_are_not_finite_are_no_pass() -> None:
    third = np.zeros(3, dtype=int)
    summary = summarise(np.array([np.nan, np.nan, 0.0]), np.arange(4.0), np.arange(3.0), third, {})
    assert summary.median == np.inf
    assert summary.within_20_percent == 1


def test_summary_by_hand() -> None:
    relative = np.array([0.01, -0.05, 0.2, -0.5, 9.0])
    third = np.array([0, 1, 1, 2, -1])
    summary = summarise(relative, np.arange(6.0), np.arange(5.0), third, {"D": 1.0})
    assert summary.median == pytest.approx(0.125)
    assert (summary.maximum, summary.x_of_maximum) == (0.5, 3.0)
    assert (summary.n_bins, summary.within_5_percent, summary.within_20_percent) == (4, 2, 3)
    assert summary.distances == {"D": 1.0}
    assert [part.median for part in summary.thirds] == pytest.approx([0.01, 0.125, 0.5])
    assert [(part.x_low, part.x_high, part.n_bins) for part in summary.thirds] == [(0, 1, 1), (1, 3, 2), (3, 4, 1)]


def test_thirds_are_equal_in_the_logarithm() -> None:
    x = np.array([np.nan, 1.0, 9.9, 10.1, 99.0, 101.0, 1000.0, np.nan])
    edges = np.array([0.0, 0.5, 5.0, 10.0, 50.0, 100.0, 500.0, 2000.0, np.inf])
    judged = np.array([True, True, True, True, True, True, True, True])
    np.testing.assert_array_equal(split_in_thirds(edges, x, judged, log_x=True), [0, 0, 0, 1, 1, 2, 2, 2])
    judged[[0, 3]] = False
    np.testing.assert_array_equal(split_in_thirds(edges, x, judged, log_x=True), [-1, 0, 0, -1, 1, 2, 2, 2])
    np.testing.assert_array_equal(split_in_thirds(edges, x, judged, log_x=False), [-1, 0, 0, -1, 0, 0, 2, 2])


class Fake(AbstractStatistic):
    """Numbers from elsewhere."""

    name: ClassVar[str] = "fake"
    title: ClassVar[str] = "Fake"
    x_label: ClassVar[str] = "x"
    y_label: ClassVar[str] = "y"

    def __init__(self, n_bins: int) -> None:
        self.n_bins = n_bins

    def edges(self, metadata: SliceMetadata) -> np.ndarray:
        return np.arange(1.0, self.n_bins + 2)

    def per_slice(self, fields: torch.Tensor, metadata: SliceMetadata) -> torch.Tensor:
        return fields.flatten(1)[:, : self.n_bins].double()


METADATA = SliceMetadata(box_size=70.0, n_pixels=16, thickness=1.0)


def draws(n_realisations: int, n_bins: int, *, offset: float, seed: int, factor: float = 1.0) -> Accumulator:
    """Two slices per realisation, alike: means of ``factor`` with a relative scatter between realisations."""
    accumulator = Accumulator(n_bins)
    means = factor * (1 + offset * np.random.default_rng(seed).normal(size=(n_realisations, n_bins)))
    accumulator.update(np.repeat(means, 2, axis=0), np.repeat(np.arange(n_realisations), 2))
    return accumulator


def expect_floor(entry: StatisticComparison, *, offset: float, n: int) -> None:
    """Halves of n / 2 differ by 2 s / sqrt(n)."""
    assert entry.floor is not None
    assert np.sqrt(np.mean(entry.floor**2)) == pytest.approx(2 * offset / np.sqrt(n), rel=MANY_DRAWS)


@pytest.mark.parametrize("n", [2, 8])
def test_floor_is_that_of_halves(n: int) -> None:
    n_bins, offset = 800, 0.03
    reference = draws(n, n_bins, offset=offset, seed=1)
    entry = compare_statistic(Fake(n_bins), draws(n, n_bins, offset=offset, seed=2), reference, METADATA)
    expect_floor(entry, offset=offset, n=n)
    for wrong in (np.sqrt(2) * offset, offset / np.sqrt(2)):
        with pytest.raises(AssertionError):
            expect_floor(entry, offset=wrong, n=n)
    # Two sets of n realisations differ by sqrt(2) less than halves.
    assert np.sqrt(np.mean(entry.ratio**2)) == pytest.approx(offset * np.sqrt(2 / n), rel=MANY_DRAWS)
    assert entry.floor_sets == (n // 2, n // 2)


def test_sigmas_are_fair() -> None:
    n_bins = 400
    entry = compare_statistic(
        Fake(n_bins),
        draws(20, n_bins, offset=0.03, seed=1),
        draws(20, n_bins, offset=0.03, seed=2),
        METADATA,
        n_bootstrap=400,
    )
    # Student's t with about 38 degrees of freedom has a standard deviation of 1.03.
    assert np.std(entry.sigmas) == pytest.approx(1.03, rel=MANY_DRAWS)


def test_the_floor_excuses_what_the_simulation_does_itself() -> None:
    reference = draws(2, 400, offset=0.2, seed=1)
    near = compare_statistic(Fake(400), draws(2, 400, offset=0.1, seed=2), reference, METADATA)
    far = compare_statistic(Fake(400), draws(2, 400, offset=0.1, seed=3, factor=3.0), reference, METADATA)
    assert near.summary.median > 0.05
    assert judge(near, asked(0.05)).outcome == "pass"
    assert judge(far, asked(0.05)).outcome == "fail"
    # How much it means stands beside it.
    assert f"{judge(far, asked(0.05)).sigmas:.1f} sigmas" in judge(far, asked(0.05)).text
    assert "sigmas" not in judge(near, asked(0.05)).text


def common(n_realisations: int, n_bins: int, *, scatter: float, seed: int, factor: float = 1.0) -> Accumulator:
    """Slices of boxes whose bins all go up and down together, as P(k) does."""
    accumulator = Accumulator(n_bins)
    offset = 1 + scatter * np.random.default_rng(seed).normal(size=(n_realisations, 1))
    values = factor * np.repeat(offset * np.ones(n_bins), 2, axis=0)
    accumulator.update(values, np.repeat(np.arange(n_realisations), 2))
    return accumulator


def test_honest_simulations_seldom_fail() -> None:
    outcomes = []
    for seed in range(200):
        reference = common(8, 9, scatter=0.1, seed=2 * seed)
        mocks = common(8, 9, scatter=0.1, seed=2 * seed + 1)
        outcomes.append(judge(compare_statistic(Fake(9), mocks, reference, METADATA), asked(0.03)).outcome)
    # Beyond 3 sigmas, stretched for eight realisations, lay 2 of 1000.
    assert outcomes.count("fail") <= 3
    assert "inconclusive" not in outcomes


def test_what_is_off_by_three_percent_above_a_small_floor_fails() -> None:
    reference = common(32, 9, scatter=0.03, seed=1)
    entry = compare_statistic(Fake(9), common(32, 9, scatter=0.03, seed=2), reference, METADATA)
    assert judge(entry, asked(0.03)).passed
    assert entry.floor is not None
    off = (1.03 + float(entry.floor.mean())) * reference.mean().mean() / entry.mocks.mean()
    entry = compare_statistic(Fake(9), common(32, 9, scatter=0.03, seed=2, factor=off), reference, METADATA)
    assert judge(entry, asked(0.03)).outcome == "fail"


def test_a_larger_set_of_simulations_knows_the_scatter() -> None:
    one, other, many = (common(n, 9, scatter=0.1, seed=seed) for n, seed in ((1, 1), (1, 2), (30, 3)))
    blind = compare_statistic(Fake(9), other, one, METADATA)
    assert judge(blind, asked(0.0)).outcome == "inconclusive"
    entry = compare_statistic(Fake(9), other, one, METADATA, floor=many)
    assert judge(entry, asked(0.0)).outcome == "pass"
    # One box against one box, in as many ways as there are.
    assert entry.floor_sets == (1, 1)
    assert entry.floor is not None
    np.testing.assert_allclose(entry.floor, 0.1 * math.sqrt(2), rtol=0.3)
    assert entry.mocks_error_from == entry.reference_error_from == "floor"
    np.testing.assert_allclose(entry.reference_error, 0.1, rtol=0.3)
    far = compare_statistic(Fake(9), common(1, 9, scatter=0.1, seed=2, factor=2.5), one, METADATA, floor=many)
    assert judge(far, asked(0.0)).outcome == "fail"


def test_a_generator_knows_its_error_from_slices() -> None:
    rng = np.random.default_rng(0)
    held = Accumulator(9)
    held.update(1 + 0.1 * rng.normal(size=(400, 9)), 0)
    reference = common(8, 9, scatter=0.1, seed=1)
    alone = compare_statistic(Fake(9), held, reference, METADATA, independent=True)
    assert alone.mocks_error_from == "slices"
    np.testing.assert_allclose(alone.mocks_error, 0.1 / 20, rtol=0.15)
    # Slabs of one box do not: their error is that of a box.
    boxed = compare_statistic(Fake(9), held, reference, METADATA)
    assert boxed.mocks_error_from == "reference"
    assert (boxed.mocks_error > 5 * alone.mocks_error).all()


def test_large_scales_are_not_outvoted_by_many_small_ones(tmp_path: Path) -> None:
    path = tmp_path / "reference.h5"
    write_example(path, n_pixels=64, n_slices=12)
    density = read_slices(path).slices.astype(np.float64)
    modes = np.fft.rfft2(density)
    k = np.hypot(np.fft.fftfreq(64)[:, None] * 64, np.arange(33))
    modes[:, (k > 0) & (k < 3)] *= 1.5
    changed = np.fft.irfft2(modes, s=(64, 64))
    entry = compare(write_like(tmp_path / "mocks.h5", path, changed - changed.min()), path, n_bootstrap=10).statistics[
        0
    ]
    assert entry.summary.median < 0.05
    assert entry.summary.thirds[0].median == pytest.approx(1.25, rel=1e3 * FLOAT32)
    # White noise has the same power in every realisation within some percent.
    assert judge(entry, asked(0.2)).outcome == "fail"


def test_error_is_never_below_that_of_slices() -> None:
    # Two realisations with the same mean by chance; single slices scatter.
    values = np.array([[0.5], [1.5], [0.5], [1.5]])
    accumulator = Accumulator(1)
    accumulator.update(values, np.array([0, 0, 1, 1]))
    entry = compare_statistic(Fake(1), accumulator, accumulator, METADATA)
    np.testing.assert_allclose(entry.reference_error, values.std(ddof=1) / 2)


def test_a_new_statistic_needs_nothing_else(mocks: Path, reference: Path) -> None:
    comparison = compare(mocks, reference, statistics=[PowerSpectrum("rodriguez2018"), Fake(4)], n_bootstrap=10)
    first, second = comparison.statistics
    assert first.summary.n_bins > 0
    np.testing.assert_allclose(second.mocks, read_slices(mocks).slices.reshape(24, -1)[:, :4].mean(0), rtol=FLOAT32)
    assert second.floor is not None


def test_the_same_seed_gives_the_same_numbers(mocks: Path, reference: Path) -> None:
    one, same, other = (compare(mocks, reference, n_bootstrap=20, seed=seed).statistics[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.reference_error, same.reference_error)
    np.testing.assert_array_equal(one.sigmas, same.sigmas)
    assert not np.array_equal(one.sigmas, other.sigmas)


def test_training_slices_must_not_judge(tmp_path: Path, mocks: Path, reference: Path) -> None:
    with pytest.raises(UserError, match="given for training and as the reference"):
        compare(mocks, reference, training=reference)
    # Realisations 1 to 4 in both files may be the same simulations.
    training = write_like(tmp_path / "train.h5", reference)
    noted = compare(mocks, reference, training=training, n_bootstrap=10).notes
    assert any("both hold realisation" in note for note in noted)
    held = read_slices(reference)
    write_slices(training, replace(held, realisation=held.realisation + 100), overwrite=True)
    assert not any("both hold" in n for n in compare(mocks, reference, training=training, n_bootstrap=10).notes)
