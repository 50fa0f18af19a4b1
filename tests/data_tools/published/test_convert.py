import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from cosmogan.cli import main
from cosmogan.errors import UserError
from cosmogan.slices import SliceSet, check_slices, read_slices
from cosmogan.units import RODRIGUEZ2018
from data_tools.files.arrays import Hdf5Array, NpyArray
from data_tools.published import detect
from data_tools.published.base import AbstractFormat, Contents, PublishedFile, Realisation, Request, cube
from data_tools.published.convert import convert
from tests.data_tools.published import published_files as files

# float32 resolves 6e-8; a density is at most three roundings from its float64 value.
DENSITY_ROUNDING = 3e-7
PLAIN = {"box_size": "100 Mpc/h", "redshift": 0.0}
# A shape (n, n, n) may be a stack of n slices as well.
CUBE = PLAIN | {"layout": "cubes"}
FIELD = files.density(np.random.default_rng(0), 8, 8, 8)
STACK = PLAIN | {"thickness": "2 Mpc/h", "periodic": False}


def converted(*inputs: Path, **options) -> SliceSet:
    """Convert, check and read back."""
    out = inputs[0].parent / "slices.h5"
    convert([str(path) for path in inputs], out=str(out), overwrite=True, **options)
    assert check_slices(out) == []
    return read_slices(out)


def slabs(cube: np.ndarray, depth: int = 1) -> np.ndarray:
    """Sums over slabs of a cube normal to each axis, by plain loops."""
    n = len(cube)
    slices = []
    for axis in range(3):
        for slab in range(n // depth):
            planes = [np.take(cube, slab * depth + i, axis=axis).astype(np.float64) for i in range(depth)]
            slices.append(sum(planes))
    return np.array(slices)


def npy(folder: Path, values: np.ndarray, name: str = "array.npy") -> Path:
    np.save(folder / name, values)
    return folder / name


def test_three_d_cosmo_counts_stay_counts(tmp_path: Path):
    paths = [files.write_three_d_cosmo(tmp_path, number=number) for number in (0, 12)]
    read = converted(*paths)
    cubes = []
    for path in paths:
        with h5py.File(path) as handle:
            cubes.append(handle["data"][:])
    np.testing.assert_array_equal(read.slices, np.concatenate([slabs(cube) for cube in cubes]))
    assert read.slices.dtype == np.uint16
    meta = read.metadata
    assert (meta.box_size, meta.thickness, meta.redshift, meta.quantity) == (350.0, 350 / 8, 0.0, "counts")
    assert meta.mean_count == 64.0
    assert meta.cosmology == RODRIGUEZ2018
    assert meta.assignment == "NGP"
    np.testing.assert_array_equal(read.realisation, np.repeat([0, 12], 24))
    np.testing.assert_array_equal(read.axis, np.tile(np.repeat([0, 1, 2], 8), 2))
    np.testing.assert_array_equal(read.position[:8], np.arange(8) * 350 / 8)


def test_the_small_box_is_of_seventy(tmp_path: Path):
    read = converted(files.write_three_d_cosmo(tmp_path, box=70, mean=8))
    assert (read.metadata.box_size, read.metadata.mean_count) == (70.0, 8.0)


@pytest.mark.parametrize("box", [500, 100])
def test_a_box_in_mpc_is_asked_for(tmp_path: Path, box: int):
    path = files.write_three_d_cosmo(tmp_path, box=box)
    with pytest.raises(UserError, match="--box-size"):
        converted(path)
    # 500 Mpc at the h of the paper.
    assert converted(path, box_size=f"{box} Mpc").metadata.box_size == 0.7 * box


def test_camels_maps_carry_their_parameters(tmp_path: Path):
    path = files.write_camels_maps(tmp_path)
    read = converted(path)
    maps = np.load(path).reshape(3, 15, 8, 8).astype(np.float64)
    expected = (maps / maps.mean(axis=(1, 2, 3), keepdims=True)).reshape(45, 8, 8)
    np.testing.assert_allclose(read.slices, expected, rtol=DENSITY_ROUNDING)
    # Twin: a mean 5% off is seen.
    assert not np.allclose(read.slices, expected * 1.05, rtol=0.01)
    np.testing.assert_array_equal(read.realisation, np.arange(45) // 15)
    table = np.loadtxt(tmp_path / "params_LH_IllustrisTNG.txt")
    assert tuple(read.conditions) == tuple(sorted(files.CAMELS_COLUMNS))
    for column, name in enumerate(files.CAMELS_COLUMNS):
        np.testing.assert_array_equal(read.conditions[name], table[np.arange(45) // 15, column])
    meta = read.metadata
    assert (meta.box_size, meta.thickness, meta.redshift, meta.quantity) == (25.0, 5.0, 0.0, "density")
    assert meta.cosmology.h == 0.6711
    # They differ between slices, so they are none of the file's.
    assert meta.cosmology.omega_m is None
    assert meta.cosmology.sigma8 is None
    assert np.unique(read.axis).tolist() == [255]
    assert np.isnan(read.position).all()


def test_camels_grids_are_selected_by_simulation(tmp_path: Path):
    path = files.write_camels_grids(tmp_path)
    read = converted(path, select="1:3")
    grids = np.load(path).astype(np.float64)[1:]
    expected = np.concatenate([slabs(grid / grid.mean()) for grid in grids])
    np.testing.assert_allclose(read.slices, expected, rtol=DENSITY_ROUNDING)
    np.testing.assert_array_equal(read.realisation, np.repeat([1, 2], 24))
    table = np.loadtxt(tmp_path / "params_LH_SIMBA.txt")
    np.testing.assert_array_equal(read.conditions["sigma8"], np.repeat(table[1:, 1], 24))
    assert (read.metadata.box_size, read.metadata.redshift) == (25.0, 0.5)
    # One simulation shares its parameters with itself.
    alone = converted(path, select=":1")
    assert alone.metadata.cosmology.omega_m == table[0, 0]
    np.testing.assert_array_equal(alone.conditions["Omega_m"], np.full(24, table[0, 0]))


def test_grids_are_as_their_names_say(tmp_path: Path):
    for path in (files.write_camels_grids(tmp_path), files.write_quijote(tmp_path)):
        with pytest.raises(UserError, match="its name says 16"):
            converted(path.rename(path.with_name(path.name.replace("_8_", "_16_"))))


def test_camels_n_body_has_two_parameters(tmp_path: Path):
    read = converted(files.write_camels_maps(tmp_path, suite="Nbody_IllustrisTNG"))
    assert set(read.conditions) == {"Omega_m", "sigma8"}


def test_camels_tables_are_checked(tmp_path: Path):
    path = files.write_camels_maps(tmp_path)
    table = tmp_path / "params_LH_IllustrisTNG.txt"
    rows = np.loadtxt(table)
    np.savetxt(table, rows[:2])
    with pytest.raises(UserError, match="has 2 rows; expected 3"):
        converted(path)
    rows[:, 0] = 0.9
    np.savetxt(table, rows)
    with pytest.raises(UserError, match="parameters another's"):
        converted(path)
    assert len(converted(path, quantity="mass").slices) == 45
    table.unlink()
    with pytest.raises(UserError, match="--params none"):
        converted(path)
    assert converted(path, params="none").conditions == {}


def test_camels_logarithms_and_other_fields_are_refused(tmp_path: Path):
    path = files.write_camels_maps(tmp_path)
    np.save(path, np.log10(np.load(path)))
    with pytest.raises(UserError, match="logarithm"):
        converted(path)
    with pytest.raises(UserError, match="no density"):
        converted(path.rename(tmp_path / "Maps_T_IllustrisTNG_LH_z=0.00.npy"))


@pytest.mark.parametrize(("redshift", "which"), [(0.0, 0), (1.5, 2)])
def test_cosmoflow_redshifts_are_chosen(tmp_path: Path, redshift: float, which: int):
    path = files.write_cosmoflow(tmp_path)
    read = converted(path, redshift=redshift)
    with h5py.File(path) as handle:
        np.testing.assert_array_equal(read.slices, slabs(handle["full"][..., which]))
    meta = read.metadata
    assert (meta.redshift, meta.box_size, meta.thickness, meta.mean_count) == (redshift, 8.0, 1.0, 1.0)
    # Eight voxels are a crop of the box of 512.
    assert not meta.periodic
    assert meta.cosmology.known() == {"omega_m": 0.309, "sigma8": 0.82, "n_s": 0.96, "h": 0.67}
    assert np.unique(read.realisation).tolist() == [16305120]


def test_cosmoflow_asks_which_redshift(tmp_path: Path):
    path = files.write_cosmoflow(tmp_path)
    for options in ({}, {"redshift": 0.7}):
        with pytest.raises(UserError, match=r"0, 0\.5, 1\.5, 3"):
            converted(path, **options)


def test_cosmoflow_names_of_parameters_are_words(tmp_path: Path):
    path = files.write_cosmoflow(tmp_path)
    with h5py.File(path, "r+") as handle:
        handle["namePar"][1] = b"sig/ma8"
    with pytest.raises(UserError, match="sig/ma8"):
        converted(path, redshift=0.0)


def test_universes_of_different_cosmology_share_a_file(tmp_path: Path):
    paths = [files.write_cosmoflow(tmp_path, number=number, omega_m=0.2 + 0.1 * number) for number in (1, 2)]
    read = converted(*paths, redshift=0.0)
    assert read.metadata.cosmology.known() == {"sigma8": 0.82, "n_s": 0.96, "h": 0.67}
    np.testing.assert_array_equal(read.conditions["Omega_m"], np.repeat([0.2 + 0.1, 0.2 + 0.2], 24))


@pytest.mark.parametrize("stored", ["delta", "density"])
def test_quijote_delta_or_density_is_told_from_the_values(
    tmp_path: Path, stored: str, capsys: pytest.CaptureFixture[str]
):
    path = files.write_quijote(tmp_path, number=7, stored=stored)
    read = converted(path)
    expected = slabs(np.load(path).astype(np.float64) + (stored == "delta"))
    # delta near -1 keeps the absolute rounding of 1.
    np.testing.assert_allclose(read.slices, expected, rtol=DENSITY_ROUNDING, atol=DENSITY_ROUNDING)
    assert f"values are {stored}, detected" in capsys.readouterr().err
    meta = read.metadata
    assert (meta.box_size, meta.redshift, meta.assignment) == (1000.0, 0.5, "PCS")
    assert meta.cosmology.omega_m == 0.3175
    assert np.unique(read.realisation).tolist() == [7]


def test_quijote_latin_hypercube_takes_its_row(tmp_path: Path):
    table = np.random.default_rng(0).uniform([0.2, 0.03, 0.5, 0.8, 0.6], [0.5, 0.07, 0.9, 1.2, 1.0], (10, 5))
    paths = [files.write_quijote(tmp_path, number=number, simulations="latin_hypercube") for number in (3, 8)]
    with pytest.raises(UserError, match="latin_hypercube_params"):
        converted(paths[0])
    np.savetxt(tmp_path / "latin_hypercube_params.txt", table)
    read = converted(*paths)
    for column, name in enumerate(("Omega_m", "Omega_b", "h", "n_s", "sigma8")):
        np.testing.assert_array_equal(read.conditions[name], np.repeat(table[[3, 8], column], 24))


def test_feder_cubes_are_labelled_by_seed(tmp_path: Path):
    path = files.write_feder(tmp_path)
    read = converted(path)
    with h5py.File(path) as handle:
        np.testing.assert_array_equal(read.slices[24:], slabs(handle["seed2"][:]))
    np.testing.assert_array_equal(read.realisation, np.repeat([1, 2], 24))
    assert (read.metadata.box_size, read.metadata.redshift, read.metadata.mean_count) == (512.0, 0.0, 1.0)


def test_cosmogan_pytorch_counts_and_scaled_are_the_same(tmp_path: Path):
    plain = converted(files.write_cosmogan_pytorch(tmp_path))
    scaled = converted(files.write_cosmogan_pytorch(tmp_path, scaled=True))
    assert plain.metadata.quantity == "counts"
    # The inverse 4 (1 + s) / (1 - s) of values near 1 loses the digits of 1 - s: counts of some 10 keep 14 of them.
    np.testing.assert_allclose(scaled.slices, plain.slices, rtol=DENSITY_ROUNDING, atol=1e-6)
    assert (plain.metadata.mean_count, plain.metadata.box_size, plain.metadata.thickness) == (1.0, 8.0, 1.0)
    assert not plain.metadata.periodic
    assert plain.metadata.cosmology.known() == {"omega_m": 0.3, "sigma8": 0.8, "h": 0.7}


def test_cosmogan_maps_have_to_be_explained(tmp_path: Path):
    path = files.write_cosmogan(tmp_path, a=5.0)
    with pytest.raises(UserError, match="convergence"):
        converted(path)
    read = converted(path, scale=5.0, **(STACK | {"periodic": True}))
    field = files.density(np.random.default_rng(5), 12, 8, 8)
    # 1 - s of float32 s keeps some six digits where the density is moderate, and fewer at peaks.
    np.testing.assert_allclose(read.slices, field, rtol=1e-5, atol=1e-5)
    other = converted(path, scale=5.25, **(STACK | {"periodic": True}), mean=1.0)
    assert not np.allclose(other.slices, field, rtol=0.01)


@pytest.mark.parametrize("name", ["cube.npy", "cube.npz", "cube.h5"])
def test_plain_cubes_of_every_container(tmp_path: Path, name: str):
    read = converted(files.write_plain_cube(tmp_path, name=name), cosmology="omega_m=0.3, h=0.5", **CUBE)
    cube = files.density(np.random.default_rng(6), 8, 8, 8)
    np.testing.assert_allclose(read.slices, slabs(cube), rtol=DENSITY_ROUNDING)
    assert read.metadata.cosmology.known() == {"omega_m": 0.3, "h": 0.5}


@pytest.mark.parametrize(
    "dtype",
    ["<i2", ">i2", "<u4", ">i8", "<f4", ">f4", "<f8", ">f8", "<f2"],
    ids=lambda dtype: dtype.replace(">", "big_"),
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_types_and_orders_of_bytes_make_no_difference(tmp_path: Path, dtype: str, order: str):
    cube = files.counts(np.random.default_rng(0), 8, 2)
    read = converted(npy(tmp_path, np.asarray(cube, dtype, order=order)), **CUBE)
    np.testing.assert_array_equal(read.slices, slabs(cube))


def test_half_precision_of_delta_is_kept(tmp_path: Path):
    delta = (FIELD - 1).astype(np.float16)
    delta[0, 0, 0] -= np.float16(delta.mean(dtype=np.float64) * delta.size)
    read = converted(npy(tmp_path, delta), quantity="delta", **CUBE)
    expected = slabs(delta.astype(np.float64) + 1)
    np.testing.assert_allclose(read.slices, expected / expected.mean(), rtol=DENSITY_ROUNDING, atol=DENSITY_ROUNDING)


def test_slabs_sum_counts_and_average_densities(tmp_path: Path):
    cube = files.counts(np.random.default_rng(0), 8, 5)
    path = npy(tmp_path, cube)
    counted = converted(path, slabs=4, **CUBE)
    np.testing.assert_array_equal(counted.slices, slabs(cube, depth=2))
    assert (counted.metadata.mean_count, counted.metadata.thickness) == (10.0, 25.0)
    np.testing.assert_array_equal(counted.position[:4], [0.0, 25.0, 50.0, 75.0])
    density = converted(path, slabs=4, store="density", **CUBE)
    np.testing.assert_allclose(density.slices, slabs(cube, depth=2) / 10, rtol=DENSITY_ROUNDING)
    with pytest.raises(UserError, match="does not divide"):
        converted(path, slabs=3, **CUBE)


def smooth(slices: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian by sums of rolled copies, cut at 4 sigma."""
    offsets = np.arange(-int(4 * sigma + 0.5), int(4 * sigma + 0.5) + 1)
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    weights /= weights.sum()
    for axis in (1, 2):
        slices = sum(w * np.roll(slices, offset, axis=axis) for w, offset in zip(weights, offsets, strict=True))
    return slices


def test_smoothing_is_that_of_the_slice_format(tmp_path: Path):
    cube = files.counts(np.random.default_rng(0), 16, 5)
    path = npy(tmp_path, cube)
    read = converted(path, smoothing=1.3, **CUBE)
    # Sums of some 100 float32 products.
    np.testing.assert_allclose(read.slices, smooth(slabs(cube) / 5, 1.3), rtol=3e-6, atol=1e-6)
    assert (read.metadata.smoothing, read.metadata.quantity) == (1.3, "density")
    with pytest.raises(UserError, match="smoothed counts"):
        converted(path, smoothing=1.3, store="counts", **CUBE)
    already = converted(path, smoothing=3.0, smoothed=4.0, **CUBE)
    assert already.metadata.smoothing == 5.0


def test_stacks_of_slices_keep_their_realisations(tmp_path: Path):
    stack = files.density(np.random.default_rng(1), 12, 8, 8).astype(np.float32)
    with pytest.raises(UserError, match="--quantity"):
        converted(npy(tmp_path, stack[:4]), **STACK)
    read = converted(npy(tmp_path, stack), quantity="density", slices_per_realisation=4, realisation=[5, 6, 9], **STACK)
    np.testing.assert_array_equal(read.slices, stack)
    np.testing.assert_array_equal(read.realisation, np.repeat([5, 6, 9], 4))
    channel = converted(npy(tmp_path, stack[:, None]), **STACK)
    np.testing.assert_array_equal(channel.slices, stack)
    assert not channel.metadata.periodic


def test_as_many_slices_as_pixels_are_asked_about(tmp_path: Path):
    path = files.write_plain_cube(tmp_path)
    with pytest.raises(UserError, match="--layout cubes or --layout slices"):
        converted(path, **PLAIN)
    assert len(converted(path, **CUBE).slices) == 24
    assert len(converted(path, layout="slices", **STACK).slices) == 8


@pytest.mark.parametrize(
    ("values", "quantity"),
    [
        (FIELD, "density"),
        (FIELD - 1, "delta"),
        (files.counts(np.random.default_rng(0), 8, 3), "counts"),
        (files.counts(np.random.default_rng(0), 8, 3).astype(np.float32), "counts"),
    ],
)
def test_clear_values_are_recognised(tmp_path: Path, values: np.ndarray, quantity: str, capsys):
    read = converted(npy(tmp_path, values), **CUBE)
    assert f"values are {quantity}, detected" in capsys.readouterr().err
    mean = 3 if quantity == "counts" else 1
    assert read.slices.mean(dtype=np.float64) == pytest.approx(mean, rel=DENSITY_ROUNDING)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(FIELD * 1.05, id="mean 5% off"),
        pytest.param(FIELD - 1.05, id="delta 5% off"),
        pytest.param(FIELD * 4e11, id="mass"),
        pytest.param(2 * FIELD / (FIELD + 4) - 1, id="scaled"),
        pytest.param(np.log10(FIELD * 1e3), id="logarithm of mass"),
        pytest.param(np.log(FIELD), id="logarithm"),
        pytest.param(np.log1p(files.counts(np.random.default_rng(0), 8, 3)), id="logarithm of counts"),
        pytest.param((FIELD - 1) / FIELD.std(), id="standardised"),
        pytest.param(FIELD / FIELD.max(), id="maximum 1"),
    ],
)
def test_values_in_doubt_are_asked_for(tmp_path: Path, values: np.ndarray):
    with pytest.raises(UserError, match=r"--quantity|logarithm"):
        converted(npy(tmp_path, values), **CUBE)


def test_the_user_decides_what_values_are(tmp_path: Path):
    for values, options in (
        (FIELD * 4e11, {"quantity": "mass"}),
        (2 * FIELD / (FIELD + 4) - 1, {"quantity": "scaled", "scale": 4.0}),
        (FIELD * 1.002, {"quantity": "density"}),
    ):
        read = converted(npy(tmp_path, values), **CUBE, **options)
        np.testing.assert_allclose(read.slices, slabs(FIELD), rtol=2e-6)
    for wrong in ("counts", "delta"):
        with pytest.raises(UserError):
            converted(npy(tmp_path, FIELD), quantity=wrong, **CUBE)


def test_counts_beyond_uint16_become_densities_when_asked(tmp_path: Path):
    cube = np.full((4, 4, 4), 7)
    cube[1, 2, 3] = 70_000
    path = npy(tmp_path, cube)
    with pytest.raises(UserError, match="--store density"):
        converted(path, **CUBE)
    assert not (tmp_path / "slices.h5").exists()
    read = converted(path, store="density", **CUBE)
    np.testing.assert_allclose(read.slices, slabs(cube) / cube.mean(), rtol=DENSITY_ROUNDING)


def test_counts_of_different_means_do_not_share_a_file(tmp_path: Path):
    rng = np.random.default_rng(0)
    paths = [npy(tmp_path, files.counts(rng, 8, mean), f"{mean}.npy") for mean in (20, 21)]
    with pytest.raises(UserError, match="--store density"):
        converted(*paths, **CUBE)
    read = converted(*paths, store="density", **CUBE)
    assert read.slices[24:].mean(dtype=np.float64) == pytest.approx(1, rel=DENSITY_ROUNDING)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"box_size": None}, "--box-size"),
        ({"redshift": None}, "--redshift"),
        ({"box_size": "500 Mpc"}, "Hubble"),
        ({"quantity": "overdensity"}, "expected one of counts"),
        ({"format": "gadget"}, "3dcosmo"),
        ({"select": "2:4"}, "holds realisations 0:1"),
        ({"realisation": [1, 2]}, "2 numbers for 1"),
        ({"cosmology": "Omega_m=0.3"}, "omega_m"),
        ({"memory": "1 B"}, "--memory"),
        ({"periodic": False, "smoothing": 1.0}, "not periodic|are not"),
        ({"layout": "slices"}, "--periodic"),
    ],
)
def test_what_is_missing_or_wrong_is_said(tmp_path: Path, options: dict, expected: str):
    with pytest.raises(UserError, match=expected):
        converted(files.write_plain_cube(tmp_path), **(CUBE | options))
    assert not (tmp_path / "slices.h5").exists()


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path):
    one = files.write_three_d_cosmo(tmp_path)
    with pytest.raises(UserError, match=r"box_size 350\.0 against 70\.0"):
        converted(one, files.write_three_d_cosmo(tmp_path, box=70))
    with pytest.raises(UserError, match="both realisation 0"):
        converted(one, one)


@pytest.mark.parametrize("order", ["C", "F"])
def test_pieces_do_not_show(tmp_path: Path, order: str):
    path = npy(tmp_path, np.asarray(files.density(np.random.default_rng(2), 32, 32, 32), np.float32, order=order))
    whole = converted(path, smoothing=1.0, slabs=16, **CUBE)
    # Room for some slices of 32^2 pixels only.
    pieces = converted(path, smoothing=1.0, slabs=16, memory="200 kB", **CUBE)
    np.testing.assert_array_equal(pieces.slices, whole.slices)
    np.testing.assert_array_equal(pieces.position, whole.position)


def test_memory_is_that_of_the_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    side, budget = 96, 2e6
    path = tmp_path / "array.npy"
    cube = np.lib.format.open_memmap(path, "w+", np.float64, (side, side, side))
    for plane in range(side):
        cube[plane] = np.random.default_rng(plane).poisson(3, (side, side))
    del cube
    monkeypatch.setattr("data_tools.published.slabs._PIECE", 2**18)
    monkeypatch.setattr("data_tools.published.quantity._PIECE", 2**18)
    largest = 0
    read = NpyArray._read

    def spy(self: NpyArray, index) -> np.ndarray:
        nonlocal largest
        part = read(self, index)
        largest = max(largest, part.nbytes)
        return part

    monkeypatch.setattr(NpyArray, "_read", spy)
    tracemalloc.start()
    convert([str(path)], out=str(tmp_path / "slices.h5"), memory=f"{budget} B", **CUBE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert largest <= 2**18
    # The cube has 7.1 MB: the block and one piece of the file as read, and as float64, on top of what Python needs.
    assert peak < 4e6
    assert path.stat().st_size > 7e6


def test_convert_makes_the_same_slices_as_slice(tmp_path: Path):
    from data_tools.slicing.slicing import slice_snapshots
    from tests.data_tools.snapshots.gadget_files import write_hdf5

    positions = np.random.default_rng(0).random((5000, 3)) * 100.0
    write_hdf5(tmp_path / "snapshot.hdf5", positions.astype(np.float32))
    cells = np.floor(positions.astype(np.float32).astype(np.float64) * 16 / 100).astype(int) % 16
    cube = np.zeros((16, 16, 16), np.int32)
    np.add.at(cube, tuple(cells.T), 1)
    for options in ({"slabs": 8, "smoothing": 1.0}, {"slabs": 16}):
        slice_snapshots(
            [str(tmp_path / "snapshot.hdf5")], out=str(tmp_path / "a.h5"), pixels=16, overwrite=True, **options
        )
        sliced = read_slices(tmp_path / "a.h5")
        ours = converted(npy(tmp_path, cube), store="density", **CUBE, **options)
        np.testing.assert_allclose(ours.slices, sliced.slices, rtol=DENSITY_ROUNDING, atol=DENSITY_ROUNDING)
        np.testing.assert_array_equal(ours.axis, sliced.axis)
        np.testing.assert_allclose(ours.position, sliced.position, rtol=1e-6)


WRITERS: list[Callable[[Path], Path]] = [files.write_feder, files.write_camels_grids, files.write_quijote]


@pytest.mark.parametrize("write", WRITERS)
def test_realisations_can_be_numbered(tmp_path: Path, write: Callable[[Path], Path]):
    path = write(tmp_path)
    n = {files.write_feder: 2, files.write_camels_grids: 3}.get(write, 1)
    read = converted(path, realisation=[100 + i for i in range(n)])
    assert np.unique(read.realisation).tolist() == [100 + i for i in range(n)]


@pytest.mark.parametrize(
    ("write", "options", "expected"),
    [
        (files.write_quijote, {"layout": "cubes"}, "--layout has no meaning"),
        (files.write_three_d_cosmo, {"params": "none"}, "--params has no meaning"),
        (files.write_camels_maps, {"dataset": "data"}, "--dataset has no meaning"),
        (files.write_quijote, {"scale": 4.0}, "--scale has no meaning"),
        (files.write_camels_maps, {"slabs": 5}, "--slabs is for cubes"),
        (files.write_quijote, {"thickness": "30 Mpc/h"}, "does not divide"),
        (files.write_quijote, {"thickness": "500 Mpc/h", "slabs": 2}, "same thing"),
    ],
)
def test_options_without_effect_are_refused(tmp_path: Path, write, options: dict, expected: str):
    with pytest.raises(UserError, match=expected):
        converted(write(tmp_path), **options)


def test_what_is_published_can_be_overruled(tmp_path: Path):
    read = converted(
        files.write_quijote(tmp_path),
        **{"box_size": "500 Mpc/h", "thickness": "250 Mpc/h", "redshift": 1.0, "assignment": "TSC", "smoothed": 2.0},
        cosmology="omega_m=0.25",
    )
    meta = read.metadata
    assert (meta.box_size, meta.thickness, meta.redshift, meta.assignment) == (500.0, 250.0, 1.0, "TSC")
    assert (meta.smoothing, meta.cosmology.omega_m, meta.cosmology.h) == (2.0, 0.25, 0.6711)
    assert len(read.slices) == 6
    # A length without /h is in the user's h, where there is one.
    one = files.write_quijote(tmp_path)
    assert converted(one, box_size="1000 Mpc", cosmology="h=0.5").metadata.box_size == 500.0
    assert converted(one, box_size="1000 Mpc").metadata.box_size == 671.1


@pytest.mark.parametrize(
    "name",
    ["df_m_8_CIC_z=0.0.5.npy", "df_m_8_CIC_z=..npy", "Maps_Mtot_SIMBA_LH_z=1.1.1.npy", "Om0.3.1_Sg0.8_H70.npy"],
)
def test_names_with_odd_numbers_are_plain(tmp_path: Path, name: str):
    with pytest.raises(UserError, match="--layout"):
        converted(npy(tmp_path, FIELD, name))


def test_the_command_line_converts(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = files.write_plain_cube(tmp_path)
    out = str(tmp_path / "slices.h5")
    words = ["convert", str(path), "--out", out, "--box-size", "100 Mpc/h", "--periodic", "true", "--layout", "cubes"]
    assert main(words) == 2
    assert "--redshift" in capsys.readouterr().err
    assert main([*words, "--redshift", "0"]) == 0
    assert capsys.readouterr().out.strip() == out
    assert check_slices(out) == []


def test_large_floats_are_not_taken_for_counts(tmp_path: Path):
    # Beyond 2^24 every float32 is a whole number: masses, not particles.
    masses = (3e9 * np.random.default_rng(0).lognormal(size=(8, 8, 8))).astype(np.float32)
    np.save(tmp_path / "mass.npy", masses)
    with pytest.raises(UserError, match=r"mass\.npy.*say what the values are"):
        convert([str(tmp_path / "mass.npy")], out=str(tmp_path / "out.h5"), smoothing=1.0, **CUBE)
    assert not (tmp_path / "out.h5").exists()


def test_columns_of_camels_tables_are_those_of_their_first_line(tmp_path: Path):
    path = files.write_camels_maps(tmp_path)
    table = tmp_path / "params_LH_IllustrisTNG.txt"
    rows = np.loadtxt(table)
    # As Ramses orders them, with a column of names in front and one of seeds behind.
    lines = ["# Name Omega_m sigma_8 ASN1 ASN2 AAGN1 AAGN2 seed"]
    lines += [" ".join([f"LH_{i}", *map(repr, row.tolist()), str(45_000 + i)]) for i, row in enumerate(rows)]
    table.write_text("\n".join(lines))
    read = converted(path)
    assert set(read.conditions) == set(files.CAMELS_COLUMNS)
    for name, column in (("sigma8", 1), ("A_SN1", 2), ("A_SN2", 3), ("A_AGN1", 4), ("A_AGN2", 5)):
        np.testing.assert_array_equal(read.conditions[name][::15], rows[:, column])
    # Without its first line, and in a number that is not known, it is asked for.
    table.write_text("\n".join(line.rsplit(" ", 3)[0] for line in lines[1:]))
    with pytest.raises(UserError, match=r"has 4 columns and no line of names.*--columns"):
        converted(path)
    read = converted(path, columns="Omega_m,sigma8,Wind,Jet")
    np.testing.assert_array_equal(read.conditions["Wind"][::15], rows[:, 2])
    with pytest.raises(UserError, match=r"has 4 columns and --columns names 2 .Omega_m, sigma8."):
        converted(path, columns="Omega_m sigma8")


def test_camels_sets_have_their_own_box_and_cosmology(tmp_path: Path):
    path = files.write_camels_maps(tmp_path, field="Mcdm")
    table = tmp_path / "params_LH_IllustrisTNG.txt"
    six = np.loadtxt(table)
    rng = np.random.default_rng(4)
    h, omega_b = rng.uniform(0.47, 0.87, (3, 1)), rng.uniform(0.029, 0.069, (3, 1))
    rows = np.hstack([six, omega_b, h, np.full((3, 1), 0.96), rng.random((3, 19))])
    np.savetxt(tmp_path / "params_SB28_IllustrisTNG.txt", rows)
    maps = np.load(path).astype(np.float64).reshape(3, 15, 8, 8)
    maps *= (1 - omega_b / six[:, :1])[:, :, None, None]
    path = tmp_path / "Maps_Mcdm_IllustrisTNG_SB28_z=0.00.npy"
    np.save(path, maps.reshape(45, 8, 8).astype(np.float32))
    read = converted(path)
    np.testing.assert_array_equal(read.conditions["h"][::15], h[:, 0])
    np.testing.assert_array_equal(read.conditions["Omega_b"][::15], omega_b[:, 0])
    assert "A_SN1" not in read.conditions
    assert {"WindEnergyIn1e51erg", "QuasarThresholdPower"} <= set(read.conditions)
    # What differs between slices is none of the file's; what all share is.
    assert read.metadata.cosmology.known() == {"n_s": 0.96}
    assert read.metadata.box_size == 25.0
    # Seven columns of Astrid: the baryons of each row, not those of the latin hypercube.
    path = path.rename(tmp_path / "Maps_Mcdm_Astrid_SB7_z=0.00.npy")
    np.savetxt(tmp_path / "params_SB7_Astrid.txt", rows[:, :7])
    read = converted(path)
    np.testing.assert_array_equal(read.conditions["Omega_b"][::15], omega_b[:, 0])
    assert read.metadata.cosmology.h == 0.6711
    for name, box in (("IllustrisTNG_SB35", 50.0), ("IllustrisTNG_L50n512_CV", 50.0), ("SIMBA_L25n256_LH", 25.0)):
        path = path.rename(tmp_path / f"Maps_Mcdm_{name}_z=0.00.npy")
        assert converted(path, params="none").metadata.box_size == box
    path = path.rename(tmp_path / "Maps_Mcdm_SIMBA_SB99_z=0.00.npy")
    with pytest.raises(UserError, match="does not say its box size"):
        converted(path, params="none")


def write_packed(path: Path, stored: np.ndarray, **attributes: Any) -> Path:
    with h5py.File(path, "w") as handle:
        handle["group/inner/field"] = stored
        for name, value in attributes.items():
            handle["group/inner/field"].attrs[name] = value
    return path


def test_packed_numbers_are_unpacked(tmp_path: Path):
    density = files.density(np.random.default_rng(1), 8, 8, 8)
    scale = density.max() / 60_000
    stored = np.rint(density / scale).astype(np.uint16)
    path = write_packed(tmp_path / "p.h5", stored, scale_factor=np.float32(scale), add_offset=0.0)
    read = converted(path, quantity="mass", **CUBE)
    expected = stored * float(np.float32(scale))
    np.testing.assert_allclose(read.slices, slabs(expected / expected.mean()), rtol=1e-5)
    # Beside: taken for counts, a packed density has another deviation.
    signed = stored.view(np.int16)
    path = write_packed(tmp_path / "s.h5", signed, scale_factor=scale, _Unsigned="true")
    np.testing.assert_allclose(converted(path, quantity="mass", **CUBE).slices, read.slices, rtol=1e-5)
    path = write_packed(tmp_path / "o.h5", stored.astype(np.int32) - 7, scale_factor=scale, add_offset=7 * scale)
    np.testing.assert_allclose(converted(path, quantity="mass", **CUBE).slices, read.slices, rtol=1e-5)


def test_packed_numbers_are_unpacked_in_double_precision_and_are_no_counts(tmp_path: Path):
    rng = np.random.default_rng(2)
    stored = rng.integers(0, 2000, (8, 8, 8)).astype(np.float32)
    # 1 + 1e-6 keeps a digit of its end in float32.
    scale = 1 + 1e-6
    path = write_packed(tmp_path / "f.h5", stored, scale_factor=scale, add_offset=np.float64(1e-3))
    values = stored.astype(np.float64) * scale + 1e-3
    np.testing.assert_array_equal(Hdf5Array(path, "group/inner/field").read((slice(None),)), values)
    # Multiples of 3 are whole, and still a density in steps of 3.
    path = write_packed(tmp_path / "w.h5", stored.astype(np.uint16), scale_factor=np.float32(3))
    with pytest.raises(UserError, match=r"scaled by the file's attributes.*--quantity"):
        converted(path, **CUBE)
    assert converted(path, quantity="counts", store="density", **CUBE).metadata.quantity == "density"


I2, F4 = np.int16, np.float32


@pytest.mark.parametrize(
    ("stored", "attributes", "expected"),
    [
        (F4(1e20), {"_FillValue": F4(1e20)}, r"2 of 512 .*first at .1, 2, 3., stored as 1e\+20, by its _FillValue"),
        (F4(1e20), {"_FillValue": 1e20}, "2 of 512 .*by its _FillValue"),
        (F4(np.nan), {"_FillValue": F4(np.nan)}, "2 of 512 .*stored as nan, by its _FillValue"),
        (F4(-9), {"missing_value": np.array([7, -9], F4)}, "2 of 512 .*stored as -9, by its missing_value"),
        (F4(1e30), {"valid_max": F4(1e10)}, "2 of 512 .*by its valid_max"),
        (F4(1e30), {"valid_range": np.array([0, 1e10], F4)}, "2 of 512 .*by its valid_range"),
        (I2(-1), {"_FillValue": I2(-1), "scale_factor": 0.5}, "2 of 512 .*stored as -1, by its _FillValue"),
        # As unsigned numbers, -1 is 65535, and -6 the upper bound 65530.
        (
            I2(-1),
            {"_FillValue": I2(-1), "_Unsigned": "true", "scale_factor": 0.5},
            "stored as 65535, by its _FillValue",
        ),
        (I2(-1), {"valid_range": np.array([0, -6], I2), "_Unsigned": "true"}, "stored as 65535, by its valid_range"),
        # Numbers of real type beside packed integers are in the unit of the values, unless they can be stored.
        (I2(900), {"valid_max": 90.0, "scale_factor": 0.5}, "stored as 900, by its valid_max"),
        (
            I2(900),
            {"missing_value": 450.5, "scale_factor": 0.5, "add_offset": 0.5},
            "stored as 900, by its missing_value",
        ),
        (I2(-999), {"missing_value": -999.0, "scale_factor": 0.5}, "stored as -999, by its missing_value"),
        # float64 does not hold this number.
        (np.int64(2**62 + 1), {"_FillValue": np.int64(2**62 + 1)}, "2 of 512 .*by its _FillValue"),
        (F4(1), {"valid_range": F4([0.0])}, r"valid_range is \[0.0\]; expected two numbers"),
        (F4(1), {"scale_factor": 0.0}, "scale_factor and add_offset are 0 and 0; expected"),
        (F4(1), {"scale_factor": "two"}, r"scale_factor is \['two'\]; expected one number"),
        (F4(1), {"_FillValue": F4([1, 2])}, r"_FillValue is \[1.0, 2.0\]; expected one number"),
    ],
)
def test_missing_values_are_refused(tmp_path: Path, stored: Any, attributes: dict[str, Any], expected: str):
    # Whole numbers that none of the attributes is about.
    field = np.random.default_rng(1).integers(10, 100, (8, 8, 8)).astype(stored.dtype)
    field[1, 2, 3] = field[6, 0, 0] = stored
    with pytest.raises(UserError, match=expected):
        converted(write_packed(tmp_path / "m.h5", field, **attributes), quantity="mass", **CUBE)


def test_attributes_of_missing_values_that_none_has_do_not_matter(tmp_path: Path):
    field = np.random.default_rng(1).integers(10, 100, (8, 8, 8)).astype(np.int16)
    path = write_packed(tmp_path / "m.h5", field, _FillValue=I2(-1), missing_value=-999.9, valid_range=I2([0, 500]))
    np.testing.assert_array_equal(converted(path, **CUBE).slices, slabs(field))


@pytest.mark.parametrize(
    ("dtype", "fill"),
    [("f4", 9.969209968386869e36), ("f8", 9.969209968386869e36), ("i4", -2147483647), ("i8", -9223372036854775806)],
)
@pytest.mark.parametrize("mark", ["file", "variable", "neither"])
def test_the_default_fill_of_netcdf_is_a_missing_value(tmp_path: Path, dtype: str, fill: float, mark: str):
    field = np.random.default_rng(1).integers(1, 100, (8, 8, 8)).astype(dtype)
    field[0, 0, 0] = fill
    path = write_packed(tmp_path / "n.nc", field, **({"_Netcdf4Dimid": 0} if mark == "variable" else {}))
    if mark == "file":
        with h5py.File(path, "r+") as handle:
            handle.attrs["_NCProperties"] = "version=2,netcdf=4.9.2,hdf5=1.14.3"
    expected = (
        "1 of 512 values are missing.*by its default fill of netCDF"
        if mark != "neither"
        else "expected one above 0|stands for no value"
    )
    with pytest.raises(UserError, match=expected):
        converted(path, quantity="mass", **CUBE)


@pytest.mark.parametrize("fill", [1e20, 9.969209968386869e36])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_fill_values_without_attributes_are_noticed(tmp_path: Path, fill: float, dtype: str):
    masked = np.ma.array(FIELD.astype(dtype))
    masked[3, 1, 2] = np.ma.masked
    path = npy(tmp_path, masked.filled(fill))
    with pytest.raises(UserError, match=r"1 values are .*first in plane 3.*stands for no value"):
        converted(path, quantity="mass", **CUBE)


def test_arrays_in_groups_are_found_or_named(tmp_path: Path):
    cube = files.counts(np.random.default_rng(0), 8, 8)
    path = write_packed(tmp_path / "g.h5", cube)
    assert len(converted(path, **CUBE).slices) == 24
    with h5py.File(path, "r+") as handle:
        handle["group/other"] = cube
        handle["positions"] = np.ones((5, 3))
    with pytest.raises(UserError, match=r"2 arrays .* meant: group/inner/field \(8, 8, 8\), group/other .*--dataset"):
        converted(path, **CUBE)
    assert len(converted(path, dataset="group/other", **CUBE).slices) == 24
    with pytest.raises(UserError, match=r"no data set 'other'; it holds group/inner/field \(8, 8, 8\), group/other"):
        converted(path, dataset="other", **CUBE)
    with h5py.File(tmp_path / "h.h5", "w") as handle:
        handle["a/positions"] = np.ones((5, 3))
    with pytest.raises(UserError, match=r"no array of 3 or 4 dimensions, but a/positions \(5, 3\)"):
        converted(tmp_path / "h.h5", **CUBE)
    np.savez(tmp_path / "h.npz", k=np.ones(3), power=np.ones((3, 2)))
    with pytest.raises(UserError, match=r"no array of 3 or 4 dimensions, but k \(3,\), power \(3, 2\)"):
        converted(tmp_path / "h.npz", **CUBE)


@pytest.mark.parametrize(("high", "expected"), [(2, "zeros and ones only"), (1, "holds 0 everywhere")])
def test_masks_and_constants_are_asked_about(tmp_path: Path, high: int, expected: str):
    mask = np.random.default_rng(0).integers(0, high, (8, 8, 8))
    with pytest.raises(UserError, match=f"{expected}.*--quantity"):
        converted(npy(tmp_path, mask), **CUBE)
    if high == 2:
        assert converted(npy(tmp_path, mask), quantity="counts", **CUBE).metadata.quantity == "counts"


def write_table(folder: Path, name: str, rows: np.ndarray, *lines: str, labels: bool = False) -> None:
    words = [" ".join([f"SIM_{i}"] * labels + [repr(float(value)) for value in row]) for i, row in enumerate(rows)]
    (folder / name).write_text("\n".join([*lines, *words]))


@pytest.mark.parametrize(
    ("name", "n_columns", "labels", "seeds", "named"),
    [
        ("IllustrisTNG_LH", 6, True, True, "A_AGN2"),
        ("SIMBA_CV", 6, False, True, "A_AGN2"),
        ("IllustrisTNG_SB28", 28, True, True, "QuasarThresholdPower"),
        ("IllustrisTNG_L50n512_SB35", 35, True, True, "SofteningComovingType01"),
        ("Astrid_SB7", 7, True, True, "Omega_b"),
        ("Astrid_LH", 6, True, True, "A_AGN2"),
        ("Ramses_SB5", 6, False, False, "A_AGN2"),
        # The first columns of a table of other quantities; Omega_b where no set of that suite has it; a column that is
        # no seed; a suite of which no table is known; a set that suite has not.
        ("IllustrisTNG_SB28", 6, False, False, None),
        ("Astrid_LH", 7, False, False, None),
        ("IllustrisTNG_SB28", 29, False, False, None),
        ("CROCODILE_SB26", 26, True, False, None),
        ("SIMBA_SB28", 28, False, False, None),
    ],
)
def test_tables_without_names_are_known_by_suite_set_and_columns(
    tmp_path: Path, name: str, n_columns: int, labels: bool, seeds: bool, named: str | None
):
    path = files.write_camels_maps(tmp_path)
    path = path.rename(tmp_path / f"Maps_Mtot_{name}_z=0.00.npy")
    rng = np.random.default_rng(5)
    rows = np.hstack([files.camels_table(3), rng.uniform(0.5, 0.9, (3, 30))])[:, :n_columns]
    # Omega_b, where it is one.
    rows[:, 6:7] /= 10
    if seeds:
        # Of 5 simulations and 5 times one seed, and of real ones: all are whole numbers.
        rows = np.hstack([rows, [[1], [1], [45000]]])
    write_table(tmp_path, "table.txt", rows, labels=labels)
    options = {"params": str(tmp_path / "table.txt"), "quantity": "mass"}
    if named is None:
        with pytest.raises(UserError, match=f"has {n_columns} columns and no line of names.*--columns"):
            converted(path, **options)
        return
    read = converted(path, **options)
    assert len(read.conditions) == n_columns
    np.testing.assert_array_equal(read.conditions[named][::15], rows[:, n_columns - 1])
    # The numbers of the larger sets are not these factors; Ramses has both parameters of supernovae first.
    assert ("A_SN2" in read.conditions) == (n_columns < 28)
    if n_columns < 28:
        np.testing.assert_array_equal(read.conditions["A_SN2"][::15], rows[:, 3 if "Ramses" in name else 4])


def test_the_first_line_of_a_table_counts_or_is_asked_about(tmp_path: Path):
    path = files.write_camels_maps(tmp_path)
    rows = files.camels_table(3)
    names = "Omega_m sigma_8 ASN1 ASN2 AAGN1 AAGN2"
    # Prose is no line of names, though it has as many words as there are columns; names of simulations need none.
    write_table(
        tmp_path, "t.txt", rows, "# six numbers for each simulation here", f"# {names}", "# of Ramses", labels=True
    )
    read = converted(path, params=str(tmp_path / "t.txt"))
    np.testing.assert_array_equal(read.conditions["A_SN2"][::15], rows[:, 3])
    # Known by suite and set, and yet its own names are others in number.
    write_table(tmp_path, "t.txt", rows, f"# {names} seed")
    with pytest.raises(UserError, match=r"has 6 columns and its line of names names 7 .*--columns"):
        converted(path, params=str(tmp_path / "t.txt"))
    # H0 in km/s/Mpc is 100 h, in a set that otherwise shares h.
    h = np.array([[47.0], [67.11], [0.87]])
    write_table(tmp_path, "t.txt", np.hstack([rows[:, :2], h]), "Omega_matter sigma8 H0")
    read = converted(path, params=str(tmp_path / "t.txt"))
    np.testing.assert_array_equal(read.conditions["h"][::15], [47 / 100, 67.11 / 100, 0.87])
    assert read.metadata.cosmology.h is None
    (tmp_path / "t.txt").write_text("# Omega_m sigma8\n0.3 0_8\n0.3 0.8\n0.3 0.8")
    with pytest.raises(UserError, match="row 0 holds '0_8'"):
        converted(path, params=str(tmp_path / "t.txt"))
    write_table(tmp_path, "t.txt", rows[:, [0, 1]], "Omega_m Omega_b")
    with pytest.raises(UserError, match=r"row 0: Omega_b is .*baryons are a part of matter"):
        converted(path, params=str(tmp_path / "t.txt"))


def test_astrid_s_baryons_are_never_those_of_the_latin_hypercube(tmp_path: Path):
    path = files.write_camels_maps(tmp_path, field="Mcdm")
    rows = files.camels_table(3)
    omega_b = np.array([[0.01], [0.05], [0.09]])
    rows[:, 0] = 0.1
    maps = files.density(np.random.default_rng(1), 3, 15, 8, 8) * (0.1 - omega_b)[:, :, None, None]
    path = path.rename(tmp_path / "Maps_Mcdm_Astrid_SB7_z=0.00.npy")
    np.save(path, (maps * files.CRITICAL_DENSITY * 5).reshape(45, 8, 8).astype(np.float32))
    np.savetxt(tmp_path / "params_SB7_Astrid.txt", np.hstack([rows, omega_b]))
    assert converted(path).metadata.cosmology.known() == {"omega_m": 0.1, "h": 0.6711, "n_s": 0.9624}
    # Without the table, or without that column of it, Omega_b is not known.
    assert converted(path, params="none").metadata.cosmology.known() == {"h": 0.6711, "n_s": 0.9624}
    np.savetxt(tmp_path / "params_SB7_Astrid.txt", rows)
    names = "Omega_m,sigma8,A_SN1,A_AGN1,A_SN2,A_AGN2"
    assert converted(path, columns=names).metadata.cosmology.omega_b is None


def test_fields_and_suites_do_not_share_a_file(tmp_path: Path):
    paths = {}
    for field, suite in (("Mtot", "IllustrisTNG"), ("Mgas", "IllustrisTNG"), ("Mtot", "SIMBA")):
        paths[field, suite] = files.write_camels_maps(tmp_path, field=field, suite=suite)
    first, *others = paths.values()
    for other, what in zip(others, ("Mgas of IllustrisTNG", "Mtot of SIMBA"), strict=True):
        with pytest.raises(UserError, match=f"holds Mtot of IllustrisTNG against {what}"):
            converted(first, other, realisation=list(range(6)))
    n_body = [files.write_camels_maps(tmp_path, suite=f"Nbody_{suite}") for suite in ("IllustrisTNG", "SIMBA")]
    assert len(converted(*n_body, realisation=list(range(6))).slices) == 90


def test_each_latin_hypercube_of_quijote_has_its_own_table(tmp_path: Path):
    rng = np.random.default_rng(0)
    standard = rng.uniform([0.2, 0.03, 0.5, 0.8, 0.6], [0.5, 0.07, 0.9, 1.2, 1.0], (10, 5))
    np.savetxt(tmp_path / "latin_hypercube_params.txt", standard)
    path = files.write_quijote(tmp_path, number=3, simulations="latin_hypercube_nwLH")
    # The table above is that of the standard simulations.
    with pytest.raises(UserError, match=r"latin_hypercube_nwLH/latin_hypercube_params\.txt"):
        converted(path)
    own = np.hstack([standard[::-1], rng.uniform(0.01, 1, (10, 1)), np.full((10, 1), -1.1)])
    np.savetxt(path.parents[1] / "latin_hypercube_params.txt", own)
    read = converted(path)
    assert (read.conditions["M_nu"][0], read.metadata.cosmology.w0) == (own[3, 5], -1.1)
    np.testing.assert_array_equal(read.conditions["Omega_m"], own[3, 0])
    equilateral = files.write_quijote(tmp_path, number=3, simulations="latin_hypercube_EQ")
    other = np.hstack([rng.uniform(-600, 600, (10, 1)), standard[:, [0, 2, 3, 4]]])
    np.savetxt(equilateral.parents[1] / "latin_hypercube_params.txt", other)
    read = converted(equilateral)
    np.testing.assert_array_equal(read.conditions["f_NL_equilateral"], other[3, 0])
    np.testing.assert_array_equal(read.conditions["Omega_m"], standard[3, 0])
    own_folder = files.write_quijote(tmp_path, simulations="fiducial_of_mine")
    assert converted(own_folder).metadata.cosmology.known() == {}


def test_constants_of_published_runs_are_not_those_of_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = files.write_three_d_cosmo(tmp_path, box=200)
    with pytest.raises(UserError, match="--redshift"):
        converted(path, box_size="200 Mpc/h")
    with pytest.raises(UserError, match="h is unknown here"):
        converted(path, box_size="200 Mpc", redshift=1.0)
    read = converted(path, box_size="200 Mpc/h", redshift=1.0)
    assert (read.metadata.cosmology.known(), read.metadata.redshift) == ({}, 1.0)
    # Twice as coarse, 8 particles per voxel, is not the crop of 1 Mpc/h voxels that its side says.
    coarse = files.write_cosmoflow(tmp_path)
    with h5py.File(coarse, "r+") as handle:
        handle["full"][...] *= 8
    with pytest.raises(UserError, match="holds 8 particles per voxel; expected 1"):
        converted(coarse, redshift=0.0)
    assert converted(coarse, redshift=0.0, box_size="16 Mpc/h").metadata.mean_count == 8.0
    # A density that happens to be named as training arrays are.
    own = npy(tmp_path, FIELD[:, None], "full_density.npy")
    with pytest.raises(UserError, match=r"values are density.*hold counts or scaled.*--format plain"):
        converted(own)
    crops = files.write_cosmogan_pytorch(tmp_path)
    np.save(crops, 8 * np.load(crops))
    with pytest.raises(UserError, match="particles per voxel; expected 1"):
        converted(crops)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16])
def test_numbers_up_to_the_end_of_their_type_are_asked_about(tmp_path: Path, dtype: type):
    image = (FIELD / FIELD.max() * np.iinfo(dtype).max).astype(dtype)
    with pytest.raises(UserError, match=r"the largest number of type.*--quantity"):
        converted(npy(tmp_path, image), **CUBE)
    assert converted(npy(tmp_path, image), quantity="mass", **CUBE).metadata.quantity == "density"
    assert converted(npy(tmp_path, image - (image > 0)), **CUBE).metadata.quantity == "counts"


def test_cubes_taken_for_whole_boxes_are_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = files.write_plain_cube(tmp_path)
    converted(path, **CUBE)
    assert "whole periodic boxes; or say --periodic false" in capsys.readouterr().err
    converted(path, periodic=False, **CUBE)
    assert "whole periodic boxes" not in capsys.readouterr().err


def test_a_format_is_one_class_and_its_line_in_the_tuple(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class MineFormat(AbstractFormat):
        name = "mine"
        options = ("columns",)

        def recognises(self, path: Path, contents: Contents) -> bool:
            return path.name.startswith("mine")

        def open(self, path: Path, contents: Contents, request: Request) -> PublishedFile:
            conditions = {str(request.columns): 1.5}
            one = Realisation(values=cube(NpyArray(path)), conditions=conditions)
            return PublishedFile(
                path=path, format_name=self.name, layout="cubes", box_size=7.0, redshift=2.0, realisations=(one,)
            )

    monkeypatch.setattr(detect, "FORMATS", (MineFormat(), *detect.FORMATS))
    path = npy(tmp_path, FIELD, "mine.npy")
    read = converted(path, columns="wind")
    assert (read.metadata.box_size, read.metadata.redshift, read.conditions["wind"][0]) == (7.0, 2.0, 1.5)
    with pytest.raises(
        UserError, match="--params has no meaning for a file of format mine, only for camels and quijote"
    ):
        converted(path, params="none")


MASS = ["--quantity", "mass", "--layout", "cubes"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        # Tables of parameters.
        (["Maps_Mtot_IllustrisTNG_SB28_z=0.00.npy", "--params", "six.txt"], "6 columns and no line of names"),
        (["Maps_Mtot_IllustrisTNG_LH_z=0.00.npy", "--params", "seven.txt"], "its line of names names 7"),
        (["Maps_Mtot_IllustrisTNG_LH_z=0.00.npy", "--params", "six.txt", "--columns", "a,b"], "--columns names 2"),
        # Packed and masked values.
        (["packed.h5", "--dataset", "fill", *MASS], "1 of 512 values are missing, the first at (1, 2, 3)"),
        (["packed.h5", "--dataset", "scale", *MASS], "scale_factor and add_offset are 0 and 0"),
        (["packed.h5", "--dataset", "whole", "--layout", "cubes"], "scaled by the file's attributes"),
        # What may be several things.
        (["mask.npy"], "a cube or 8 slices; say which with --layout"),
        (["mask.npy", "--layout", "cubes"], "zeros and ones only"),
        (["packed.h5", "--layout", "cubes"], "4 arrays that may be meant: "),
        (["packed.h5", "--layout", "cubes", "--dataset", "no"], "group/inner (8, 8, 8)"),
        (["constant.npy", "--layout", "cubes"], "holds 2.5 everywhere"),
    ],
)
def test_the_command_line_refuses_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
):
    for name in ("SB28", "LH"):
        files.write_camels_maps(tmp_path).rename(tmp_path / f"Maps_Mtot_IllustrisTNG_{name}_z=0.00.npy")
    write_table(tmp_path, "six.txt", files.camels_table(3))
    write_table(tmp_path, "seven.txt", files.camels_table(3), "# Omega_m sigma_8 A B C D seed")
    npy(tmp_path, (FIELD > 1).astype(np.uint8), "mask.npy")
    npy(tmp_path, np.full((8, 8, 8), 2.5), "constant.npy")
    with h5py.File(tmp_path / "packed.h5", "w") as handle:
        for name, attributes in {
            "fill": {"_FillValue": 7},
            "scale": {"scale_factor": 0.0},
            "whole": {"scale_factor": 2.0},
            "group/inner": {},
        }.items():
            handle[name] = np.arange(8, 520, dtype=np.int16).reshape(8, 8, 8)
            handle[name].attrs.update(attributes)
        handle["fill"][1, 2, 3] = 7
    paths = [str(tmp_path / word) if (tmp_path / word).exists() else word for word in words]
    options = [] if "Maps" in words[0] else ["--box-size", "100 Mpc/h", "--redshift", "0"]
    assert main(["convert", *paths, "--out", str(tmp_path / "slices.h5"), *options]) == 2
    said = capsys.readouterr().err
    assert expected in said
    # A refusal is not wrapped into another one.
    assert not re.search("Traceback|cannot be read", said)
    assert said.strip().count("\n") == 0
    assert not (tmp_path / "slices.h5").exists()
