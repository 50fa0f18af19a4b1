"""Particles to slices: every particle counted once, in the right place, in the right quantity."""

import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cosmogan.errors import UserError
from cosmogan.slices import check_slices, read_slices
from cosmogan.units import RODRIGUEZ2018
from data_tools.slicing import slicing
from data_tools.slicing.slicing import SlabCounter, slice_snapshots
from data_tools.snapshots.gadget_hdf5 import write_gadget_hdf5
from tests.data_tools.snapshots.gadget_files import write_hdf5

BOX = 100.0
# Float32 slices.
FLOAT32_TOLERANCE = 1e-6
# Pixels and slabs: a shared cube, a shared cube with deeper slabs, separate grids.
GEOMETRIES = [(8, 8), (8, 4), (8, 2), (8, 5), (5, 8)]


def random_positions(n: int = 2000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, BOX, (n, 3)).astype(np.float32)


def counted(positions: np.ndarray, pixels: int, slabs: int) -> list[np.ndarray]:
    counter = SlabCounter(box_size=BOX, pixels=pixels, slabs=slabs)
    for block in np.array_split(positions, 3):
        counter.add(block)
    return [counter.counts(axis) for axis in range(3)]


def write_own(path: Path, positions: np.ndarray, seed: int = 1, **changes) -> str:
    values = {"box_size": BOX, "redshift": 0.0, "cosmology": RODRIGUEZ2018, "seed": seed, "attributes": {}}
    write_gadget_hdf5(path, positions, **(values | changes))
    return str(path)


@pytest.mark.parametrize(("pixels", "slabs"), GEOMETRIES)
def test_counts_agree_with_a_histogram(pixels: int, slabs: int):
    positions = random_positions()
    for axis, counts in enumerate(counted(positions, pixels, slabs)):
        bins = [slabs if i == axis else pixels for i in range(3)]
        expected, _ = np.histogramdd(positions.astype(float), bins, range=[(0, BOX)] * 3)
        assert np.array_equal(counts, np.moveaxis(expected, axis, 0))


@pytest.mark.parametrize(("pixels", "slabs"), GEOMETRIES)
def test_every_particle_counts_once_along_every_axis(pixels: int, slabs: int):
    edge = np.array([0.0, BOX, np.nextafter(np.float32(BOX), 0), -1e-6, -1e-30, 1.5 * BOX, BOX / 2], np.float32)
    positions = np.stack(np.meshgrid(edge, edge, edge), -1).reshape(-1, 3)
    for counts in counted(positions, pixels, slabs):
        assert counts.sum() == len(positions)


@pytest.mark.parametrize(
    ("x", "cell"),
    [(0.0, 0), (BOX, 0), (float(np.nextafter(np.float32(BOX), 0)), 7), (-1e-6, 7), (12.5, 1), (112.5, 1), (-12.5, 7)],
)
def test_the_box_is_periodic(x: float, cell: int):
    positions = np.array([[x, 1.0, 30.0]], np.float32)
    along_x, along_y, along_z = counted(positions, 8, 8)
    assert along_x[cell, 0, 2] == 1
    assert along_y[0, cell, 2] == 1
    assert along_z[2, cell, 0] == 1


@pytest.mark.parametrize(("pixels", "slabs"), GEOMETRIES)
def test_moving_by_a_pixel_rolls_the_slices(pixels: int, slabs: int):
    # Pixel centres move to pixel centres, so that rounding cannot move a particle into another cell.
    cells = np.random.default_rng(3).integers(0, 40, (500, 3))
    positions = (cells + 0.5) * (BOX / 40)
    before = counted(positions, pixels, slabs)
    after = counted(positions + np.array([0, BOX / pixels, 0]), pixels, slabs)
    assert np.array_equal(np.roll(before[0], 1, axis=1), after[0])
    assert np.array_equal(np.roll(before[2], 1, axis=2), after[2])
    if pixels == slabs:
        assert np.array_equal(np.roll(before[1], 1, axis=0), after[1])


def test_densities_are_normalised_by_the_whole_box(tmp_path: Path):
    positions = random_positions()
    positions[:, 0] *= 0.5
    path = write_own(tmp_path / "snap.hdf5", positions)
    out = slice_snapshots([path], out=str(tmp_path / "slices.h5"), pixels=8, slabs=4, allow_partial=True)
    slices = read_slices(out)
    assert check_slices(out) == []
    for axis in range(3):
        assert slices.slices[slices.axis == axis].mean() == pytest.approx(1, rel=FLOAT32_TOLERANCE)
    # Half of the box is empty; a slice normalised by itself would hide that.
    assert slices.slices[(slices.axis == 0) & (slices.position >= 50)].max() == 0
    assert slices.position[:4].tolist() == [0, 25, 50, 75]
    assert slices.metadata.thickness == 25
    assert slices.metadata.cosmology == RODRIGUEZ2018


def test_counts_carry_their_mean(tmp_path: Path):
    path = write_own(tmp_path / "snap.hdf5", random_positions())
    out = slice_snapshots([path], out=str(tmp_path / "slices.h5"), pixels=8, slabs=4, quantity="counts")
    slices = read_slices(out)
    assert slices.slices.dtype == np.uint16
    assert slices.metadata.mean_count == 2000 / (4 * 64)
    assert slices.slices.mean() == pytest.approx(slices.metadata.mean_count)


@pytest.mark.parametrize("assignment", ["NGP", "CIC", "TSC"])
def test_every_second_slab_as_in_the_paper(tmp_path: Path, assignment: str):
    path = write_own(tmp_path / "snap.hdf5", random_positions())
    options = {"pixels": 8, "slabs": 10, "assignment": assignment}
    whole = read_slices(slice_snapshots([path], out=str(tmp_path / "whole.h5"), **options))
    half = read_slices(slice_snapshots([path], out=str(tmp_path / "half.h5"), every=2, axes="xz", **options))
    assert half.metadata == whole.metadata
    assert half.metadata.assignment == assignment
    assert half.metadata.thickness == 10
    assert half.axis.tolist() == [0] * 5 + [2] * 5
    assert half.position.tolist() == [0, 20, 40, 60, 80] * 2
    assert np.array_equal(half.slices, whole.slices[np.r_[0:10:2, 20:30:2]])
    for axis in range(3):
        assert whole.slices[whole.axis == axis].mean(dtype=float) == pytest.approx(1, rel=FLOAT32_TOLERANCE)


@pytest.mark.parametrize(("assignment", "slabs"), [("NGP", 40), ("CIC", 40), ("TSC", 16)])
def test_little_memory_means_several_passes(
    tmp_path: Path, assignment: str, slabs: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    path = write_own(tmp_path / "snap.hdf5", random_positions())
    options = {"pixels": 16, "slabs": slabs, "assignment": assignment, "smoothing": 1.0}
    slice_snapshots([path], out=str(tmp_path / "once.h5"), **options)
    assert "are read" not in capsys.readouterr().err
    monkeypatch.setattr(slicing, "_BYTES_PROCESS", 0)
    slice_snapshots([path], out=str(tmp_path / "often.h5"), memory="20 kB", **options)
    assert re.search(r"snapshots are read \d+ times", capsys.readouterr().err)
    assert (tmp_path / "often.h5").read_bytes() == (tmp_path / "once.h5").read_bytes()


def test_masses_weigh(tmp_path: Path):
    positions = random_positions()
    masses = np.random.default_rng(1).uniform(1, 5, len(positions)).astype(np.float32)
    path = tmp_path / "snap.hdf5"
    write_hdf5(path, positions)
    with h5py.File(path, "r+") as handle:
        handle["PartType1/Masses"] = masses
    slices = read_slices(slice_snapshots([str(path)], out=str(tmp_path / "out.h5"), pixels=8, slabs=4, weights="mass"))
    expected, _ = np.histogramdd(positions.astype(float), (4, 8, 8), range=[(0, BOX)] * 3, weights=masses)
    expected /= masses.sum(dtype=float) / 256
    np.testing.assert_allclose(slices.slices[:4], expected, rtol=FLOAT32_TOLERANCE)
    options = {"pixels": 8, "slabs": 4, "weights": "number"}
    by_number = read_slices(slice_snapshots([str(path)], out=str(tmp_path / "number.h5"), **options))
    assert np.abs(by_number.slices[:4] - expected).max() > 0.05


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_smoothing_is_that_of_scipy(tmp_path: Path, sigma: float):
    path = write_own(tmp_path / "snap.hdf5", random_positions())
    raw = read_slices(slice_snapshots([path], out=str(tmp_path / "raw.h5"), pixels=16, slabs=4)).slices
    smooth = read_slices(slice_snapshots([path], out=str(tmp_path / "smooth.h5"), pixels=16, slabs=4, smoothing=sigma))
    assert smooth.metadata.smoothing == sigma

    def difference(width: float) -> float:
        expected = [gaussian_filter(image.astype(float), width, mode="wrap", truncate=4) for image in raw]
        return float(np.abs(smooth.slices - expected).max())

    assert difference(sigma) < 1e-5
    assert difference(1.05 * sigma) > 1e-3


def test_slices_of_several_snapshots_are_labelled(tmp_path: Path):
    paths = [write_own(tmp_path / f"s{seed}.hdf5", random_positions(seed=seed), seed) for seed in (4, 2)]
    slices = read_slices(slice_snapshots(paths, out=str(tmp_path / "out.h5"), pixels=8, slabs=4))
    assert slices.realisation.tolist() == [4] * 12 + [2] * 12
    assert slices.axis.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [0] * 4 + [1] * 4 + [2] * 4
    expected = counted(random_positions(seed=2), 8, 4)[1] / (2000 / 256)
    np.testing.assert_allclose(slices.slices[16:20], expected, rtol=FLOAT32_TOLERANCE)
    again = slice_snapshots(paths, out=str(tmp_path / "named.h5"), pixels=8, slabs=4, realisation=[10, 11])
    assert set(read_slices(again).realisation) == {10, 11}


def test_snapshots_without_seeds_are_numbered(tmp_path: Path):
    for i in range(2):
        write_hdf5(tmp_path / f"s{i}.hdf5", random_positions(seed=i))
    paths = [str(tmp_path / f"s{i}.hdf5") for i in range(2)]
    assert set(read_slices(slice_snapshots(paths, out=str(tmp_path / "out.h5"), pixels=4)).realisation) == {0, 1}


@pytest.mark.parametrize("thickness", ["25 Mpc/h", "35.714286 Mpc", "25000 kpc/h"])
def test_thickness_gives_the_number_of_slabs(tmp_path: Path, thickness: str):
    path = write_own(tmp_path / "snap.hdf5", random_positions())
    out = slice_snapshots([path], out=str(tmp_path / "slices.h5"), pixels=8, thickness=thickness)
    assert read_slices(out).metadata.thickness == 25.0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"thickness": "30 Mpc/h"}, "nearest are .*slabs 3.* or .*slabs 4"),
        ({"thickness": "25"}, "with its unit"),
        ({"thickness": "25 Mpc/h", "slabs": 4}, "give one of them"),
        ({"slabs": 0}, "slabs must be at least 1"),
        ({"quantity": "counts", "smoothing": 1.0}, "smoothed counts are not whole numbers"),
        ({"quantity": "mass"}, "quantity must be"),
        ({"smoothing": -1.0}, "smoothing: expected at least 0 pixels"),
        ({"realisation": [1, 2]}, "2 numbers for 1 snapshots"),
        ({"assignment": "PCS"}, "expected one of NGP, CIC, TSC"),
        ({"assignment": "CIC", "quantity": "counts"}, "counts with assignment CIC are not whole numbers"),
        ({"weights": "mass", "quantity": "counts"}, "counts with masses are not whole numbers; use quantity density$"),
        ({"weights": "charge"}, "expected 'auto', 'number' or 'mass'"),
        ({"types": "all"}, "expected 'all-matter' or numbers"),
        ({"types": "0,1", "particle_type": 4}, "give one of them"),
        ({"axes": "xw"}, "some of the letters x, y and z"),
        ({"axes": "xx"}, "some of the letters x, y and z"),
        ({"axes": ""}, "some of the letters x, y and z"),
        ({"every": 0}, "every must lie between 1 and the number of slabs"),
        ({"every": 9}, "every must lie between 1 and the number of slabs"),
        ({"processes": 0}, "processes must be at least 1"),
        ({"memory": "2"}, "expected a number with its unit"),
        ({"memory": "2 apples"}, "expected a number with its unit"),
        ({"memory": "1 kB"}, "too little for one slab .* expected at least '0.4 GB'"),
    ],
)
def test_bad_options_are_one_sentence(tmp_path: Path, options: dict, sentence: str):
    path = write_own(tmp_path / "snap.hdf5", random_positions(50))
    with pytest.raises(UserError, match=sentence):
        slice_snapshots([path], out=str(tmp_path / "out.h5"), **({"pixels": 8} | options))
    assert not (tmp_path / "out.h5").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"box_size": 105.0}, "box size .* 100 against 105"),
        ({"redshift": 0.5}, "redshift 0 against 0.5"),
        ({"cosmology": type(RODRIGUEZ2018)(omega_m=0.3, h=0.7)}, "omega_m 0.276 against 0.3"),
    ],
)
def test_different_simulations_are_not_mixed(tmp_path: Path, changes: dict, sentence: str):
    first = write_own(tmp_path / "a.hdf5", random_positions(50))
    second = write_own(tmp_path / "b.hdf5", random_positions(50), 2, **changes)
    with pytest.raises(UserError, match=sentence) as error:
        slice_snapshots([first, second], out=str(tmp_path / "out.h5"), pixels=8)
    assert "a.hdf5" in str(error.value)
    assert "b.hdf5" in str(error.value)


def test_the_same_realisation_twice_is_refused(tmp_path: Path):
    path = write_own(tmp_path / "a.hdf5", random_positions(50))
    other = write_own(tmp_path / "b.hdf5", random_positions(50))
    out = str(tmp_path / "out.h5")
    with pytest.raises(UserError, match="both realisation 1"):
        slice_snapshots([path, other], out=out, pixels=8)
    with pytest.raises(UserError, match="named twice"):
        slice_snapshots([path, path], out=out, pixels=8)
    # A link is the same simulation under another name, as is another file of one snapshot.
    (tmp_path / "link.hdf5").symlink_to(path)
    with pytest.raises(UserError, match="belong to one snapshot"):
        slice_snapshots([path, str(tmp_path / "link.hdf5")], out=out, pixels=8)
    assert not (tmp_path / "out.h5").exists()


def test_a_damaged_snapshot_leaves_no_file(tmp_path: Path):
    positions = random_positions(50)
    positions[3] = np.nan
    path = write_own(tmp_path / "a.hdf5", positions)
    with pytest.raises(UserError, match="NaN"):
        slice_snapshots([path], out=str(tmp_path / "out.h5"), pixels=8)
    assert [file.name for file in tmp_path.iterdir()] == ["a.hdf5"]


def test_existing_files_are_kept(tmp_path: Path):
    path = write_own(tmp_path / "a.hdf5", random_positions(50))
    slice_snapshots([path], out=str(tmp_path / "out.h5"), pixels=8)
    with pytest.raises(UserError, match="exists already"):
        slice_snapshots([path], out=str(tmp_path / "out.h5"), pixels=4)
    slice_snapshots([path], out=str(tmp_path / "out.h5"), pixels=4, overwrite=True)
    assert read_slices(tmp_path / "out.h5").metadata.n_pixels == 4


def test_slicing_runs_without_torch():
    modules = "data_tools.slicing.slicing, data_tools.snapshots, data_tools.slicing.workers"
    code = f"import sys; sys.modules['torch'] = None; import {modules}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
