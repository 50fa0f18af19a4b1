"""SWIFT snapshots: units, distributed files, and slabs read by cells."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from cosmogan.errors import UserError
from data_tools.snapshots import Slab, open_snapshot
from data_tools.snapshots import gadget_family as family
from tests.data_tools.snapshots.swift_files import MPC_IN_CM, H, write_swift

N = 4000
BOX = 100.0


@pytest.fixture
def positions() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, BOX, (N, 3))


def in_order(positions: np.ndarray) -> np.ndarray:
    return positions[np.lexsort(positions.T)]


def gather(path: Path, **options: object) -> np.ndarray:
    return np.concatenate(list(open_snapshot(path).positions(**options)))


def test_lengths_are_free_of_h(tmp_path: Path, positions: np.ndarray):
    order = write_swift(tmp_path / "snap_0000.hdf5", positions, redshift=0.5)
    snapshot = open_snapshot(tmp_path / "snap_0000.hdf5")
    header = snapshot.header
    assert (header.box_size, header.redshift, header.n_particles) == (70.0, 0.5, N)
    assert header.unit_source == "stated in the file"
    assert header.cosmology.known() == {"omega_m": 0.3, "omega_b": 0.045, "h": H, "w0": -1.0}
    found = np.concatenate(list(snapshot.positions(999)))
    np.testing.assert_allclose(found, positions[order] * H, rtol=1e-12)


def test_units_are_those_of_the_snapshot(tmp_path: Path, positions: np.ndarray):
    write_swift(tmp_path / "kpc.hdf5", positions * 1000, box=1000 * BOX, unit_in_cm=MPC_IN_CM / 1000)
    assert open_snapshot(tmp_path / "kpc.hdf5").header.box_size == pytest.approx(70.0, rel=1e-12)
    write_swift(tmp_path / "odd.hdf5", positions, unit_in_cm=1.05 * MPC_IN_CM)
    with pytest.raises(UserError, match="neither kpc"):
        open_snapshot(tmp_path / "odd.hdf5")
    # The user's word counts more, and may be any length.
    assert open_snapshot(tmp_path / "odd.hdf5", length_unit="0.735 Mpc/h").header.box_size == 73.5


@pytest.mark.parametrize("n_files", [1, 3])
def test_distributed_files_and_their_virtual_file_are_one_snapshot(tmp_path: Path, positions, n_files: int):
    masses = np.random.default_rng(1).uniform(1, 2, N)
    path = tmp_path / "snap_0007.hdf5"
    order = write_swift(path, positions, n_files=n_files, masses=masses)
    names = [path, tmp_path / "snap_0007"]
    if n_files > 1:
        names += [tmp_path / "snap_0007.2.hdf5"]
    for name in names:
        snapshot = open_snapshot(name)
        parts = [path] if n_files == 1 else [tmp_path / f"snap_0007.{i}.hdf5" for i in range(3)]
        assert [file.resolve() for file in snapshot.files] == parts
        read = list(snapshot.particles(501, weights=True))
        np.testing.assert_allclose(np.concatenate([p for p, _ in read]), positions[order] * H, rtol=1e-12)
        np.testing.assert_allclose(np.concatenate([m for _, m in read]), masses[order], rtol=1e-6)
        # Files shared out among processes.
        some = [np.concatenate(list(snapshot.positions(files=[file]))) for file in snapshot.files]
        np.testing.assert_allclose(np.concatenate(some), positions[order] * H, rtol=1e-12)


@pytest.mark.parametrize("envelopes", [True, False])
@pytest.mark.parametrize("n_files", [1, 3])
@pytest.mark.parametrize("slab", [(0, 20, 23), (1, 0, 17.5), (2, 66, 70), (0, 68, 71), (1, -2, 1), (2, 0, 70)])
def test_slab_holds_its_particles_and_no_others(tmp_path: Path, positions, slab, n_files: int, envelopes: bool):
    path = tmp_path / "snap.hdf5"
    # Particles that left their cells since these were made, by less than a cell.
    write_swift(path, positions, n_files=n_files, envelopes=envelopes, drift=9.0)
    axis, low, high = slab
    inside = ((positions[:, axis] * H - low) % (BOX * H)) < high - low
    found = gather(path, slab=Slab(*slab))
    np.testing.assert_allclose(in_order(found), in_order(positions[inside] * H), rtol=1e-12)


def test_thin_slab_reads_only_its_cells(tmp_path: Path, positions: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "snap.hdf5"
    write_swift(path, positions, n_cells=10)
    n_read, read = 0, family.rows

    def count(data: h5py.Dataset, start: int, stop: int, path: Path) -> np.ndarray:
        nonlocal n_read
        n_read += stop - start
        return read(data, start, stop, path)

    monkeypatch.setattr(family, "rows", count)
    found = gather(path, slab=Slab(2, 0.5, 1.0))
    # One layer of cells in ten, along the axis that varies fastest.
    assert len(found) < n_read < 0.13 * N


def test_cells_that_do_not_add_up_are_not_trusted(tmp_path: Path, positions: np.ndarray):
    path, slab = tmp_path / "snap.hdf5", Slab(0, 20.0, 23.0)
    write_swift(path, positions)
    expected = in_order(gather(path, slab=slab))
    with h5py.File(path, "r+") as handle:
        handle["Cells/Counts/PartType1"][20] += 1
    np.testing.assert_array_equal(in_order(gather(path, slab=slab)), expected)
    with h5py.File(path, "r+") as handle:
        del handle["Cells"]
    np.testing.assert_array_equal(in_order(gather(path, slab=slab)), expected)


def test_missing_part_is_named(tmp_path: Path, positions: np.ndarray):
    write_swift(tmp_path / "snap.hdf5", positions, n_files=3)
    # HDF5 itself would read zeros in its place.
    (tmp_path / "snap.1.hdf5").unlink()
    for name in ("snap.hdf5", "snap.2.hdf5"):
        with pytest.raises(UserError, match=r"snap\.1\.hdf5: no such file"):
            open_snapshot(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda f: f["Cosmology"].attrs.update({"Cosmological run": [0]}), "no cosmological run"),
        (lambda f: f["Cosmology"].attrs.pop("h"), "'h' in /Cosmology is missing"),
        (lambda f: f.pop("Units"), "in /Units is missing.*--length-unit"),
        (lambda f: f["Header"].attrs.update({"BoxSize": [100.0, 100.0, 50.0]}), "expected a cube"),
        (lambda f: f["PartType1/Coordinates"].attrs.update({"a-scale exponent": [0.0]}), "not comoving"),
        (lambda f: f["Header"].attrs.update({"Scale-factor": [0.5]}), "contradicts itself"),
        (lambda f: f["Header"].attrs.pop("NumPart_ThisFile"), "NumPart_ThisFile"),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path: Path, positions: np.ndarray, change, sentence: str):
    path = tmp_path / "snap.hdf5"
    write_swift(path, positions)
    with h5py.File(path, "r+") as handle:
        change(handle)
    with pytest.raises(UserError, match=sentence) as error:
        gather(path)
    assert "snap.hdf5" in str(error.value)


def test_neutrinos_are_the_seventh_type(tmp_path: Path, positions: np.ndarray):
    order = write_swift(tmp_path / "snap.hdf5", positions, particle_type=6)
    found = np.concatenate(list(open_snapshot(tmp_path / "snap.hdf5", particle_type=6).positions()))
    np.testing.assert_allclose(found, positions[order] * H, rtol=1e-12)
    with pytest.raises(UserError, match=r"no dark matter.*--particle-type 6 \(4000 neutrino"):
        open_snapshot(tmp_path / "snap.hdf5")


def test_types_of_a_virtual_snapshot_may_lie_in_different_files(tmp_path: Path, positions: np.ndarray):
    path = tmp_path / "snap_0007.hdf5"
    write_swift(path, positions, n_files=2)
    gas = positions[:1500] * 0.99
    with h5py.File(tmp_path / "snap_0007.1.hdf5", "r+") as handle:
        handle["PartType0/Coordinates"], handle["PartType0/Masses"] = gas, np.full(1500, 0.2, np.float32)
    with h5py.File(path, "r+") as handle:
        for name, shape in (("Coordinates", (1500, 3)), ("Masses", (1500,))):
            layout = h5py.VirtualLayout(shape, handle[f"PartType1/{name}"].dtype)
            layout[:] = h5py.VirtualSource("snap_0007.1.hdf5", f"PartType0/{name}", shape)
            handle.create_virtual_dataset(f"PartType0/{name}", layout)
    for name, here in (("snap_0007.hdf5", 1500), ("snap_0007.0.hdf5", 0), ("snap_0007.1.hdf5", 1500)):
        with h5py.File(tmp_path / name, "r+") as handle:
            for count, n in (("NumPart_ThisFile", here), ("NumPart_Total", 1500)):
                handle["Header"].attrs[count] = [n, *handle["Header"].attrs[count][1:]]
    read = np.concatenate(list(open_snapshot(path, types="0,1").positions()))
    np.testing.assert_allclose(in_order(read), in_order(np.concatenate([gas, positions]) * H), rtol=1e-12)
