"""Mass assignment in whole numbers: known weights, an independent evaluation, exact sums, bits in any order."""

import numpy as np
import pytest

from cosmogan.errors import UserError
from data_tools.slicing.assignment import ASSIGNMENTS, assign, compiled_loops, weight_bits

BOX = 100.0
# Weights are rounded to 2^-20 along each side.
WEIGHT_TOLERANCE = 2e-6
# Sums of some hundred float32 numbers.
FLOAT32_TOLERANCE = 1e-5
# Widths of the clouds in pixels, and their profiles as functions of the distance to the centre of a pixel.
PROFILES = {
    "NGP": lambda d: ((d >= -0.5) & (d < 0.5)).astype(float),
    "CIC": lambda d: np.maximum(0, 1 - np.abs(d)),
    "TSC": lambda d: np.where(np.abs(d) < 0.5, 0.75 - d**2, 0.5 * np.maximum(0, 1.5 - np.abs(d)) ** 2),
}


def random_positions(n: int = 300, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, BOX, (n, 3))


def assigned(
    positions: np.ndarray, scheme: str, masses: np.ndarray | None = None, *, pixels=8, slabs=5, compiled=True, bits=None
) -> dict[int, np.ndarray]:
    grids = {axis: np.zeros((slabs, pixels, pixels), np.int64) for axis in range(3)}
    rows = {axis: np.arange(slabs) for axis in range(3)}
    bits = weight_bits(scheme, len(positions)) if bits is None else bits
    assign(grids, rows, positions, masses, assignment=scheme, bits=bits, box_size=BOX, compiled=compiled)
    return grids


def evaluated(positions: np.ndarray, profile, masses: np.ndarray, axis: int, pixels=8, slabs=5) -> np.ndarray:
    """The profile at the distance from every pixel's centre to every particle, around the box."""
    first, second = (other for other in range(3) if other != axis)
    grid = np.zeros((slabs, pixels, pixels))
    for position, mass in zip(positions, masses, strict=True):
        offset = position[:, None] * (pixels / BOX) - (np.arange(pixels) + 0.5)
        weight = profile((offset + pixels / 2) % pixels - pixels / 2)
        grid[int(position[axis] * (slabs / BOX))] += mass * np.outer(weight[first], weight[second])
    return grid


@pytest.mark.parametrize("scheme", ASSIGNMENTS)
@pytest.mark.parametrize("weighted", [False, True])
def test_weights_agree_with_their_definition(scheme: str, weighted: bool):
    positions = random_positions()
    masses = np.random.default_rng(1).uniform(0.1, 3, len(positions)) if weighted else np.ones(len(positions))
    bits = weight_bits(scheme, len(positions))
    # Many units of the grid, so that rounding does not show; few enough to have room.
    unit = 2.0 ** (50 - 2 * bits)
    grids = assigned(positions, scheme, unit * masses if weighted else None)
    for axis, grid in grids.items():
        found = grid / (4.0**bits * (unit if weighted else 1))
        expected = evaluated(positions, PROFILES[scheme], masses, axis)
        scale = expected.max()
        assert np.abs(found - expected).max() < WEIGHT_TOLERANCE * scale
        assert np.abs(1.05 * found - expected).max() > WEIGHT_TOLERANCE * scale


@pytest.mark.parametrize(
    ("scheme", "place", "expected"),
    [
        ("CIC", 3.5, {3: 1.0}),
        ("CIC", 3.0, {2: 0.5, 3: 0.5}),
        ("CIC", 0.25, {7: 0.25, 0: 0.75}),
        ("CIC", 7.75, {7: 0.75, 0: 0.25}),
        ("TSC", 3.5, {2: 0.125, 3: 0.75, 4: 0.125}),
        ("TSC", 3.0, {2: 0.5, 3: 0.5}),
        ("TSC", 0.5, {7: 0.125, 0: 0.75, 1: 0.125}),
    ],
)
def test_one_particle(scheme: str, place: float, expected: dict[int, float]):
    position = np.array([[1.0, place * BOX / 8, 0.5 * BOX / 8]])
    along = assigned(position, scheme)[0][0] / 4.0 ** weight_bits(scheme, 1)
    profile = along.sum(axis=1)
    assert {i: profile[i] for i in range(8) if profile[i]} == pytest.approx(expected, abs=WEIGHT_TOLERANCE)


@pytest.mark.parametrize("scheme", ASSIGNMENTS)
@pytest.mark.parametrize("compiled", [False, True])
def test_mass_is_exact_even_at_the_edges(scheme: str, compiled: bool):
    edge = np.array([0.0, BOX, np.nextafter(np.float32(BOX), 0), -1e-6, -1e-30, 1.5 * BOX, BOX / 2, BOX / 16])
    positions = np.stack(np.meshgrid(edge, edge, edge), -1).reshape(-1, 3).astype(np.float32)
    positions = np.concatenate([positions, random_positions().astype(np.float32)])
    for grid in assigned(positions, scheme, compiled=compiled).values():
        assert int(grid.sum()) == len(positions) << 2 * weight_bits(scheme, len(positions))
        assert grid.min() >= 0


@pytest.mark.parametrize("scheme", ASSIGNMENTS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8"])
def test_compiled_loops_give_the_same_bits(scheme: str, weighted: bool, dtype: str):
    if compiled_loops() is None:
        pytest.skip("numba is not installed")
    positions = random_positions(20000).astype(dtype)
    masses = np.random.default_rng(1).uniform(0.1, 3e6, len(positions)) if weighted else None
    plain, compiled = (assigned(positions, scheme, masses, compiled=choice) for choice in (False, True))
    for axis in range(3):
        assert np.array_equal(plain[axis], compiled[axis])
    assert not np.array_equal(plain[0], assigned(positions[1:], scheme, None if masses is None else masses[1:])[0])


@pytest.mark.parametrize("scheme", ASSIGNMENTS)
def test_sums_do_not_depend_on_the_order(scheme: str):
    positions = random_positions(5000)
    masses = np.random.default_rng(1).uniform(0.1, 3e6, len(positions))
    bits = weight_bits(scheme, len(positions))
    whole = assigned(positions, scheme, masses)
    order = np.random.default_rng(2).permutation(len(positions))
    parts = [assigned(positions[part], scheme, masses[part], bits=bits) for part in np.array_split(order, 7)]
    for axis in range(3):
        assert np.array_equal(whole[axis], sum(part[axis] for part in parts))


@pytest.mark.parametrize("scheme", ASSIGNMENTS)
def test_moving_by_a_pixel_rolls_the_slices(scheme: str):
    # Multiples of 1/64 of a pixel: exact in floating point.
    positions = np.random.default_rng(3).integers(0, 512, (500, 3)) * (BOX / 512)
    before, after = (assigned(positions + np.array([0, shift, 0]), scheme, slabs=8) for shift in (0.0, BOX / 8))
    assert np.array_equal(np.roll(before[0], 1, axis=1), after[0])
    assert np.array_equal(np.roll(before[2], 1, axis=2), after[2])
    assert np.array_equal(np.roll(before[1], 1, axis=0), after[1])


@pytest.mark.parametrize("n_particles", [1, 2**10, 512**3, 1024**3, 2**32 - 1, 10240**3])
def test_sums_of_weights_cannot_overflow(n_particles: int):
    for scheme in ASSIGNMENTS:
        assert n_particles << 2 * weight_bits(scheme, n_particles) < 2**63
    # Finer than a hundredth of a pixel however many there are.
    assert 2.0 ** -weight_bits("CIC", n_particles) < 0.01


def test_an_unknown_assignment_is_named():
    with pytest.raises(UserError, match="assignment 'PCS': expected one of NGP, CIC, TSC"):
        weight_bits("PCS", 10)


@pytest.mark.parametrize("scheme", ASSIGNMENTS)
def test_pylians_agrees(scheme: str):
    library = pytest.importorskip("MAS_library", reason="Pylians is not installed")
    positions = random_positions(3000)
    grid = assigned(positions, scheme, slabs=1)[2][0] / 4.0 ** weight_bits(scheme, len(positions))
    # Cells of Pylians are centred on whole numbers, ours half a cell further.
    shifted = np.ascontiguousarray((positions[:, :2] - 0.5 * BOX / 8) % BOX, np.float32)
    theirs = np.zeros((8, 8), np.float32)
    library.MA(shifted, theirs, np.float32(BOX), scheme, verbose=False)
    assert np.abs(grid - theirs).max() < FLOAT32_TOLERANCE * grid.max()
    assert np.abs(1.05 * grid - theirs).max() > FLOAT32_TOLERANCE * grid.max()
