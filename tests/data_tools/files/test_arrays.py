"""Positions without a header: what the user must say, and what is refused."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from cosmogan.errors import UserError
from data_tools.snapshots import AbstractSnapshot, open_snapshot

N = 50


@pytest.fixture
def positions() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 100, (N, 3)).astype(np.float32)


def gather(snapshot: AbstractSnapshot, chunk: int = 7) -> np.ndarray:
    return np.concatenate(list(snapshot.positions(chunk)))


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_files(tmp_path: Path, positions: np.ndarray, dtype: str, order: str):
    np.save(tmp_path / "p.npy", np.asarray(positions, dtype, order=order))
    snapshot = open_snapshot(tmp_path / "p.npy", box_size="100 Mpc/h", redshift=0.5)
    found = gather(snapshot)
    assert np.array_equal(found, positions)
    assert found.dtype.isnative
    header = snapshot.header
    assert (header.box_size, header.redshift, header.n_particles) == (100.0, 0.5, N)
    assert header.unit_source == "that of --box-size"
    assert snapshot.files == [tmp_path / "p.npy"]


def test_data_set_in_hdf5(tmp_path: Path, positions: np.ndarray):
    with h5py.File(tmp_path / "any.h5", "w") as handle:
        handle.create_dataset("run/x", data=positions, compression="gzip")
    for name in ("any.h5:/run/x", "any.h5:run/x"):
        snapshot = open_snapshot(f"{tmp_path}/{name}", box_size="100 Mpc/h", redshift=0)
        assert np.array_equal(gather(snapshot), positions)
    with pytest.raises(UserError, match=r"any\.h5: has no data set /run/y"):
        open_snapshot(f"{tmp_path}/any.h5:/run/y", box_size="100 Mpc/h", redshift=0)
    with pytest.raises(UserError, match=r"give any\.h5:/name/of/the/data/set with --box-size"):
        open_snapshot(tmp_path / "any.h5", box_size="100 Mpc/h", redshift=0)


def test_unit_is_that_of_the_box_unless_said(tmp_path: Path, positions: np.ndarray):
    np.save(tmp_path / "p.npy", positions * 1000)
    for options in ({"box_size": "1e5 kpc/h"}, {"box_size": "100 Mpc/h", "length_unit": "kpc/h"}):
        snapshot = open_snapshot(tmp_path / "p.npy", redshift=0, **options)
        assert snapshot.header.box_size == 100.0
        np.testing.assert_allclose(gather(snapshot), positions, rtol=1e-6)
    with pytest.raises(UserError, match="but the box is 100 Mpc/h wide"):
        gather(open_snapshot(tmp_path / "p.npy", box_size="100 Mpc/h", redshift=0))


def test_what_is_not_said_is_asked_for(tmp_path: Path, positions: np.ndarray):
    path = tmp_path / "p.npy"
    np.save(path, positions)
    with pytest.raises(UserError, match="--box-size"):
        open_snapshot(path, redshift=0)
    with pytest.raises(UserError, match="--redshift"):
        open_snapshot(path, box_size="100 Mpc/h")
    with pytest.raises(UserError, match="h is unknown here, so give it in Mpc/h"):
        open_snapshot(path, box_size="100 Mpc", redshift=0)
    with pytest.raises(UserError, match="holds no masses"):
        list(open_snapshot(path, box_size="100 Mpc/h", redshift=0).particles(weights=True))


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.zeros((3, N)), r"shape \(3, 50\); expected positions, .* shape \(n, 3\)"),
        (np.zeros((N, 3), int), "holds int64"),
        (np.zeros((N, 3), "f2"), "holds float16"),
        (np.zeros((0, 3)), "no particles"),
        (np.array([{}]), "holds object"),
        (np.zeros((N, 3), [("x", "f4")]), "holds"),
        (np.array(1.0), r"shape \(\)"),
    ],
)
def test_arrays_of_other_things_are_refused(tmp_path: Path, array: np.ndarray, sentence: str):
    np.save(tmp_path / "p.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match=sentence):
        open_snapshot(tmp_path / "p.npy", box_size="100 Mpc/h", redshift=0)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda raw: raw[:-1], "has 727 bytes, and its header announces 728"),
        (lambda raw: raw + b"\0", "has 729 bytes, and its header announces 728"),
        (lambda raw: raw[:60], "not a readable .npy file"),
        (lambda raw: raw.replace(b"(50, 3)", b"(50, 3("), "not a readable .npy file"),
        (lambda raw: raw[:6] + b"\x09" + raw[7:], "not a readable .npy file"),
    ],
)
def test_damaged_npy_files_are_refused(tmp_path: Path, positions: np.ndarray, damage, sentence: str):
    path = tmp_path / "p.npy"
    np.save(path, positions)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=sentence) as error:
        gather(open_snapshot(path, box_size="100 Mpc/h", redshift=0))
    assert "\n" not in str(error.value)
