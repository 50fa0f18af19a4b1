"""Valid snapshots of every kind are read as what they are, or refused for a reason that they give.

The cases are functions of their number (`valid_snapshots.draw`), so that one that fails can be made again.
"""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cosmogan.errors import UserError
from cosmogan.slices import read_slices
from data_tools.slicing.slicing import slice_snapshots
from data_tools.snapshots import open_snapshot
from tests.data_tools.snapshots.valid_snapshots import Case, draw, write

# Sentences that a snapshot may be refused with, by what it lacks.
ALLOWED = {"unit": r"without a unit, .* masses do not decide.* --length-unit"}
# Of the box: float32 positions of a box of 1, twice rounded, and products with the unit.
ROUNDING = 1e-6
PIXELS = 4


def compare(case: Case, folder: Path, *, wrong: float = 1.0) -> str:
    """Read a case and compare it with the truth; return ``"equal"`` or the reason of a refusal."""
    name, truth = write(case, folder)
    try:
        snapshot = open_snapshot(name, **case.options)
        low_high = snapshot.mass_range()
        by_mass = low_high is not None and low_high[1] > 1.001 * low_high[0]
        blocks = list(snapshot.particles(100, weights=by_mass))
    except UserError as error:
        for tag in case.tags:
            if re.search(ALLOWED[tag], str(error)):
                return tag
        raise
    assert snapshot.header.box_size == pytest.approx(case.box * wrong, rel=1e-9)
    assert snapshot.header.redshift == pytest.approx(case.redshift, abs=1e-9)
    found = np.concatenate([positions for positions, _ in blocks]).astype(np.float64)
    # Several types come file by file and type by type, as they are written here.
    apart = (found - truth.positions * wrong + case.box / 2) % case.box - case.box / 2
    assert np.abs(apart).max() < ROUNDING * case.box
    assert found.min() >= -ROUNDING * case.box
    assert found.max() <= (1 + ROUNDING) * case.box
    assert by_mass == (np.ptp(truth.masses) > 0.01 and case.masses not in ("none", "odd"))
    if by_mass:
        masses = np.concatenate([masses for _, masses in blocks if masses is not None])
        np.testing.assert_allclose(masses / masses.mean(), truth.masses, rtol=1e-5)
    if case.seed % 4 == 0:
        weights = truth.masses if by_mass else np.ones(len(truth.masses))
        out = folder / "slices.h5"
        slice_snapshots([name], out=str(out), pixels=PIXELS, slabs=2, axes="z", **case.options)
        bins = [np.linspace(0, case.box, n + 1) for n in (PIXELS, PIXELS, 2)]
        grid, _ = np.histogramdd(truth.positions, bins, weights=weights)
        expected = np.moveaxis(grid / grid.mean(), 2, 0) * wrong
        np.testing.assert_allclose(read_slices(out).slices, expected, rtol=1e-5)
    return "equal"


def run(seeds: range, folder: Path) -> Counter[str]:
    found: Counter[str] = Counter()
    for seed in seeds:
        (folder / str(seed)).mkdir()
        case = draw(seed)
        try:
            found[compare(case, folder / str(seed))] += 1
        except (UserError, AssertionError) as error:
            raise AssertionError(f"{case}: {error}") from error
    return found


def test_a_hundred_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    found = run(range(100), tmp_path)
    assert found.total() == 100
    assert found["equal"] >= 85


@pytest.mark.slow
def test_two_thousand_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    found = run(range(100, 2100), tmp_path)
    with capsys.disabled():
        print(dict(found))
    assert found.total() == 2000
    assert found["equal"] >= 1700


def test_a_truth_that_is_five_per_cent_off_is_noticed(tmp_path: Path):
    noticed = 0
    for seed in range(12):
        (tmp_path / str(seed)).mkdir()
        if draw(seed).tags:
            continue
        with pytest.raises(AssertionError):
            compare(draw(seed), tmp_path / str(seed), wrong=1.05)
        noticed += 1
    assert noticed >= 8


def test_cases_are_of_all_kinds():
    cases = [draw(seed) for seed in range(2100)]
    for name in ("kind", "box", "unit", "said", "masses", "n_files", "wrap", "dtype", "lists"):
        assert len({getattr(case, name) for case in cases}) >= 3 or name in ("n_files", "lists")
    for name in ("gas", "empty", "float_counts", "user_block", "link", "packed", "scale_factor_only"):
        assert 20 < sum(getattr(case, name) for case in cases) < 2000
