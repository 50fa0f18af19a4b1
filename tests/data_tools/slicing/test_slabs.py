"""Slabs in passes, every n-th of them, by mass: the same slices as all at once."""

import numpy as np
import pytest

from cosmogan.errors import UserError
from data_tools.slicing.slabs import SlabCounter, number_kept, plan_passes

BOX = 100.0
N = 2000
# Equal masses are whole numbers of the unit, so that only the unit differs from a count.
MASS_TOLERANCE = 1e-12


def random_positions(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, BOX, (N, 3)).astype(np.float32)


def counted(masses: np.ndarray | None = None, positions: np.ndarray | None = None, **options) -> SlabCounter:
    values = {"box_size": BOX, "pixels": 8, "slabs": 12, "n_particles": N}
    counter = SlabCounter(**(values | options))
    counter.add(random_positions() if positions is None else positions, masses)
    return counter


@pytest.mark.parametrize("every", [1, 2, 5])
@pytest.mark.parametrize("n_passes", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("axes", [[0, 1, 2], [1], [0, 2]])
def test_passes_hold_every_slab_once_in_order(every: int, n_passes: int, axes: list[int]):
    n_kept = number_kept(12, every)
    n_slabs = len(axes) * n_kept
    passes = plan_passes(axes, n_kept, slab_bytes=10, memory=10 * -(-n_slabs // n_passes))
    slabs = [(axis, slab) for ranges in passes for axis, (start, stop) in ranges.items() for slab in range(start, stop)]
    assert slabs == [(axis, slab) for axis in axes for slab in range(n_kept)]
    most = max(sum(stop - start for start, stop in ranges.values()) for ranges in passes)
    assert most <= max(1, -(-n_slabs // n_passes))


@pytest.mark.parametrize("scheme", ["NGP", "CIC"])
@pytest.mark.parametrize(("pixels", "slabs", "every"), [(8, 12, 2), (8, 12, 5), (8, 8, 2), (8, 4, 2), (8, 8, 1)])
def test_parts_agree_with_the_whole(scheme: str, pixels: int, slabs: int, every: int):
    whole = counted(pixels=pixels, slabs=slabs, assignment=scheme)
    n_kept = number_kept(slabs, every)
    for ranges in plan_passes([0, 1, 2], n_kept, slab_bytes=1, memory=4):
        part = counted(pixels=pixels, slabs=slabs, every=every, assignment=scheme, ranges=ranges)
        assert part.total == whole.total
        for axis, (start, stop) in ranges.items():
            expected = whole.counts(axis)[::every][start:stop]
            assert len(expected) == stop - start
            assert np.array_equal(part.counts(axis), expected)
    kept = counted(pixels=pixels, slabs=slabs, every=every, assignment=scheme)
    for axis in range(3):
        assert np.array_equal(kept.counts(axis), whole.counts(axis)[::every])
        assert np.array_equal(kept.counts(axis, 1, 2), whole.counts(axis)[every : 2 * every : every])


@pytest.mark.parametrize("scheme", ["NGP", "CIC", "TSC"])
def test_equal_masses_are_a_count(scheme: str):
    count = counted(assignment=scheme)
    weighted = counted(np.full(N, 7.3e-3), assignment=scheme, mass_unit=7.3e-3)
    for axis in range(3):
        np.testing.assert_allclose(
            weighted.counts(axis) / weighted.mean, count.counts(axis) / count.mean, rtol=0, atol=1e3 * MASS_TOLERANCE
        )


def test_masses_agree_with_a_weighted_histogram():
    masses = np.random.default_rng(1).lognormal(size=N)
    positions = random_positions()
    counter = counted(masses, mass_unit=1.0)
    assert counter.total / 2.0**counter._mass_bits == pytest.approx(masses.sum(), rel=MASS_TOLERANCE)
    for axis in range(3):
        bins = [12 if i == axis else 8 for i in range(3)]
        expected, _ = np.histogramdd(positions.astype(float), bins, range=[(0, BOX)] * 3, weights=masses)
        expected = np.moveaxis(expected, axis, 0) / (masses.sum() / (12 * 64))
        found = counter.counts(axis) / counter.mean
        np.testing.assert_allclose(found, expected, rtol=0, atol=MASS_TOLERANCE * expected.max())
        assert np.abs(1.05 * found - expected).max() > MASS_TOLERANCE * expected.max()


@pytest.mark.parametrize("heavy", [1e5, 1e12, 1e30])
def test_masses_without_room_are_refused(heavy: float):
    masses = np.ones(N)
    masses[-20:] = heavy * 1024
    with pytest.raises(UserError, match="masses exceed"):
        counted(masses, mass_unit=1.0)


def test_more_particles_than_there_is_room_for_are_refused():
    counter = counted(assignment="CIC")
    counter.grow(1, 2**62 - counter.total)
    with pytest.raises(UserError, match="more particles come"):
        counter.grow(1, 1)
