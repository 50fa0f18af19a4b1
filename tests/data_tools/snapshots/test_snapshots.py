"""Snapshots of every format: what they say, what they hold, and what is refused."""

import itertools
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest

from cosmogan.errors import UserError
from cosmogan.units import RODRIGUEZ2018
from data_tools.snapshots import AbstractSnapshot, Slab, open_snapshot
from data_tools.snapshots.gadget_hdf5 import write_gadget_hdf5
from tests.data_tools.snapshots.gadget_files import binary_header, record, write_binary, write_hdf5

N = 50


@pytest.fixture
def positions() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 100, (N, 3)).astype(np.float32)


def gather(snapshot: AbstractSnapshot, chunk: int = 7) -> np.ndarray:
    return np.concatenate(list(snapshot.positions(chunk)))


def gather_masses(snapshot: AbstractSnapshot, chunk: int = 7) -> np.ndarray:
    return np.concatenate([masses for _, masses in snapshot.particles(chunk, weights=True) if masses is not None])


def test_own_snapshots_come_back_as_they_were(tmp_path: Path, positions: np.ndarray):
    path = tmp_path / "own.hdf5"
    write_gadget_hdf5(
        path, positions, box_size=100.0, redshift=0.5, cosmology=RODRIGUEZ2018, seed=7, attributes={"code": "test"}
    )
    snapshot = open_snapshot(path)
    assert np.array_equal(gather(snapshot), positions)
    header = snapshot.header
    assert (header.box_size, header.redshift, header.n_particles, header.seed) == (100.0, 0.5, N, 7)
    assert header.cosmology == RODRIGUEZ2018
    assert header.unit_source == "stated in the file"
    assert [file.name for file in tmp_path.iterdir()] == ["own.hdf5"]
    with h5py.File(path) as handle:
        # Particle mass times number is the matter in the box, 1e10 Msun/h.
        mass = handle["Header"].attrs["MassTable"][1] * N
    assert mass == pytest.approx(0.276 * 27.7536627 * 100**3)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_positions_do_not_depend_on_the_chunk(tmp_path: Path, positions: np.ndarray, chunk: int):
    write_hdf5(tmp_path / "snap.hdf5", positions)
    snapshot = open_snapshot(tmp_path / "snap.hdf5")
    assert max(map(len, snapshot.positions(chunk))) == min(chunk, N)
    assert np.array_equal(gather(snapshot, chunk), positions)


@pytest.mark.parametrize(
    ("box", "unit_in_cm", "asked", "expected"),
    [
        (100.0, None, None, 100.0),
        (205_000.0, None, None, 205.0),
        (25000.0, 3.085678e21, None, 25.0),
        (25000.0, 3.08568e21, None, 25.0),
        (100.0, 3.085678e24, None, 100.0),
        # What the user says beats a guess, and the file's own statement beats the size of its box.
        (8000.0, None, "kpc/h", 8.0),
        (8000.0, 3.085678e21, None, 8.0),
    ],
)
def test_unit_of_length(tmp_path: Path, positions, box, unit_in_cm, asked, expected):
    write_hdf5(tmp_path / "snap.hdf5", positions * (box / 100), BoxSize=box, unit_in_cm=unit_in_cm)
    snapshot = open_snapshot(tmp_path / "snap.hdf5", length_unit=asked)
    assert snapshot.header.box_size == expected
    np.testing.assert_allclose(gather(snapshot), positions * (expected / 100), rtol=1e-6)


@pytest.mark.parametrize(("box", "asked"), [(100.0, "kpc/h"), (1e6, "Mpc/h")])
def test_a_box_that_no_unit_makes_is_refused(tmp_path: Path, positions, box, asked):
    write_hdf5(tmp_path / "snap.hdf5", positions * (box / 100), BoxSize=box)
    with pytest.raises(UserError, match=r"snap\.hdf5: the box would be .* Mpc/h wide"):
        open_snapshot(tmp_path / "snap.hdf5", length_unit=asked)


def test_unit_follows_from_the_box_asked_for(tmp_path: Path, positions: np.ndarray):
    write_hdf5(tmp_path / "snap.hdf5", positions * 80, BoxSize=8000.0)
    assert open_snapshot(tmp_path / "snap.hdf5", box_size="8 Mpc/h").header.length_unit == 1e-3
    # 100 Mpc is 68 Mpc/h with the h of the file.
    write_hdf5(tmp_path / "free.hdf5", positions * 0.5, BoxSize=0.0)
    assert open_snapshot(tmp_path / "free.hdf5", box_size="100 Mpc", length_unit="Mpc/h").header.box_size == 68.0
    # What a message asks for helps.
    write_hdf5(tmp_path / "bad.hdf5", positions, BoxSize=-5.0)
    with pytest.raises(UserError, match="Give --box-size"):
        open_snapshot(tmp_path / "bad.hdf5")
    with pytest.raises(UserError, match="--length-unit"):
        open_snapshot(tmp_path / "bad.hdf5", box_size="100 Mpc/h")
    snapshot = open_snapshot(tmp_path / "bad.hdf5", box_size="100 Mpc/h", length_unit="Mpc/h")
    assert np.array_equal(gather(snapshot), positions)


def test_several_hdf5_files_are_one_snapshot(tmp_path: Path, positions: np.ndarray):
    for i, part in enumerate(np.array_split(positions, 3)):
        write_hdf5(tmp_path / f"snap_004.{i}.hdf5", part, n_total=N, n_files=3)
    for name in ("snap_004.0.hdf5", "snap_004.2.hdf5", "snap_004"):
        assert np.array_equal(gather(open_snapshot(tmp_path / name)), positions)


def test_high_word_of_the_particle_number_counts(tmp_path: Path, positions: np.ndarray):
    write_hdf5(tmp_path / "snap.hdf5", positions, NumPart_Total_HighWord=np.array([0, 1, 0, 0, 0, 0], np.uint32))
    assert open_snapshot(tmp_path / "snap.hdf5").header.n_particles == 2**32 + N


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("ids", ["u4", "u8"])
@pytest.mark.parametrize("mass_block", [False, True])
def test_binary_formats(tmp_path: Path, positions: np.ndarray, order, version, dtype, ids, mass_block):
    gas, masses = positions[:5] / 2, np.linspace(1, 2, N, dtype=np.float32)
    form = {"order": order, "version": version, "dtype": dtype, "ids": ids, "masses": masses if mass_block else None}
    write_binary(tmp_path / "snap", positions, n_total=N, gas=gas, **form)
    snapshot = open_snapshot(tmp_path / "snap")
    found = gather(snapshot)
    assert np.array_equal(found, positions)
    assert found.dtype == np.dtype(dtype)
    assert np.array_equal(gather_masses(snapshot), masses if mass_block else np.full(N, 0.5))
    header = snapshot.header
    assert (header.box_size, header.redshift, header.n_particles) == (100.0, 0.0, N)
    assert (header.cosmology.omega_m, header.cosmology.h) == (0.3, 0.68)
    # The other type lies before it in every block.
    snapshot = open_snapshot(tmp_path / "snap", particle_type=0)
    assert np.array_equal(gather(snapshot), gas)
    assert gather_masses(snapshot).tolist() == [1, 2, 3, 4, 5]


def test_records_beyond_four_gigabytes(tmp_path: Path, positions: np.ndarray):
    # Lengths of records are 32-bit: 400 million gas particles, a hole in the file, wrap around.
    n_gas, path = 400_000_000, tmp_path / "snap"
    n_all = n_gas + N
    header = binary_header(
        "<",
        n_this_file=(n_gas, N),
        n_total=(n_gas, N),
        mass_table=(1.0, 0.0),
        redshift=0.0,
        n_files=1,
        box_size=100.0,
    )
    with open(path, "wb") as stream:
        stream.write(record(header, "<"))
        for data, size in ((positions.tobytes(), 12), (positions.tobytes(), 12), (b"", 8)):
            length = struct.pack("<I", size * n_all % 2**32)
            stream.write(length)
            stream.seek(size * n_all - len(data), 1)
            stream.write(data + length)
        stream.write(record(np.arange(1, N + 1, dtype="<f4").tobytes(), "<"))
    snapshot = open_snapshot(path)
    assert np.array_equal(gather(snapshot), positions)
    assert np.array_equal(gather_masses(snapshot), np.arange(1, N + 1))


@pytest.mark.parametrize("ids", [None, "u4"])
@pytest.mark.parametrize("version", [1, 2])
def test_binary_file_without_masses_is_refused_only_where_they_are_asked_for(tmp_path, positions, ids, version):
    # L-PICOLA writes no numbers and no masses of particles.
    path = tmp_path / "snap"
    write_binary(path, positions, n_total=N, ids=ids, version=version)
    raw = bytearray(path.read_bytes())
    place = raw.index(struct.pack("<d", 0.5))
    raw[place : place + 8] = bytes(8)
    path.write_bytes(raw)
    assert np.array_equal(gather(open_snapshot(path)), positions)
    with pytest.raises(UserError, match="holds no masses"):
        gather_masses(open_snapshot(path))


def test_several_binary_files_are_one_snapshot(tmp_path: Path, positions: np.ndarray):
    for i, part in enumerate(np.array_split(positions, 2)):
        write_binary(tmp_path / f"snapshot_z0p000.{i}", part, n_total=N, n_files=2)
    for name in ("snapshot_z0p000.0", "snapshot_z0p000.1", "snapshot_z0p000"):
        assert np.array_equal(gather(open_snapshot(tmp_path / name)), positions)


def test_rounding_redshift_is_zero(tmp_path: Path, positions: np.ndarray):
    write_hdf5(tmp_path / "snap.hdf5", positions, Redshift=2.2e-16)
    assert open_snapshot(tmp_path / "snap.hdf5").header.redshift == 0.0


def test_masses_in_hdf5(tmp_path: Path, positions: np.ndarray):
    path, masses = tmp_path / "snap.hdf5", np.linspace(1, 2, N)
    write_hdf5(path, positions, MassTable=[0, 0.25, 0, 0, 0, 0])
    assert np.array_equal(gather_masses(open_snapshot(path)), np.full(N, 0.25))
    write_hdf5(path, positions, MassTable=[0.25, 0, 0, 0, 0, 0])
    with pytest.raises(UserError, match="holds no masses"):
        gather_masses(open_snapshot(path))
    with h5py.File(path, "r+") as handle:
        handle["PartType1/Masses"] = masses
    assert np.array_equal(gather_masses(open_snapshot(path)), masses)
    with h5py.File(path, "r+") as handle:
        handle["PartType1/Masses"][3] = 0
    with pytest.raises(UserError, match="masses that are not positive"):
        gather_masses(open_snapshot(path))


def test_any_particle_type(tmp_path: Path, positions: np.ndarray):
    path, stars = tmp_path / "snap.hdf5", positions[:20] / 3
    counts = np.array([0, N, 0, 0, 20, 0], np.uint32)
    write_hdf5(path, positions, NumPart_ThisFile=counts, NumPart_Total=counts)
    with h5py.File(path, "r+") as handle:
        handle["PartType4/Coordinates"] = stars
    assert np.array_equal(gather(open_snapshot(path, particle_type=4)), stars)
    with pytest.raises(UserError, match=r"no gas .*--particle-type 1 \(50 dark matter.*, 4 \(20 star particles\)"):
        open_snapshot(path, particle_type=0)
    with pytest.raises(UserError, match="particle_type 9: expected 0 to 6"):
        open_snapshot(path, particle_type=9)


def test_gadget4_keeps_parameters_apart(tmp_path: Path, positions: np.ndarray):
    path, counts = tmp_path / "snap.hdf5", np.array([0, N], np.uint64)
    header = {"Omega0": None, "HubbleParam": None, "NumPart_ThisFile": counts, "NumPart_Total": counts}
    write_hdf5(path, positions, unit_in_cm=3.08568e24, **header)
    with h5py.File(path, "r+") as handle:
        handle["Parameters"].attrs.update({"Omega0": 0.31, "OmegaBaryon": 0.05, "HubbleParam": 0.67})
    snapshot = open_snapshot(path)
    assert snapshot.header.cosmology.known() == {"omega_m": 0.31, "omega_b": 0.05, "h": 0.67}
    assert snapshot.header.box_size == 100.0
    assert np.array_equal(gather(snapshot), positions)


@pytest.mark.parametrize("dtype", ["u4", "u8"])
def test_integer_coordinates_of_gadget4(tmp_path: Path, positions: np.ndarray, dtype: str):
    path = tmp_path / "snap.hdf5"
    write_hdf5(path, positions * 1000, BoxSize=1e5)
    scale = 2.0 ** (8 * np.dtype(dtype).itemsize) / 100
    with h5py.File(path, "r+") as handle:
        del handle["PartType1/Coordinates"]
        handle["PartType1/IntCoordinates"] = (positions.astype(float) * scale).astype(dtype)
    np.testing.assert_allclose(gather(open_snapshot(path)), positions, atol=100 / 2.0**32)


def test_unit_of_the_data_set_counts_where_the_header_has_none(tmp_path: Path, positions: np.ndarray):
    # BoxSize alone would not tell kpc/h from Mpc/h.
    path = tmp_path / "snap.hdf5"
    write_hdf5(path, positions * 80, BoxSize=8000.0)
    with h5py.File(path, "r+") as handle:
        handle["PartType1/Coordinates"].attrs.update({"to_cgs": 3.085678e21, "h_scaling": -1.0, "a_scaling": 1.0})
    header = open_snapshot(path).header
    assert (header.box_size, header.unit_source) == (8.0, "stated in the file")


def test_unit_that_is_neither_kpc_nor_mpc_is_asked_for(tmp_path: Path, positions: np.ndarray):
    path = tmp_path / "snap.hdf5"
    write_hdf5(path, positions, unit_in_cm=3.2e24)
    with pytest.raises(UserError, match=r"neither kpc .* --length-unit"):
        open_snapshot(path)
    assert open_snapshot(path, length_unit="1.5 Mpc/h").header.box_size == 150.0


def test_redshift_that_contradicts_the_scale_factor_is_refused(tmp_path: Path, positions: np.ndarray):
    path = tmp_path / "snap.hdf5"
    write_hdf5(path, positions, Time=0.5)
    with pytest.raises(UserError, match=r"contradicts itself: Redshift is 0 and .* 0\.5"):
        open_snapshot(path)
    assert open_snapshot(path, redshift=1.0).header.redshift == 1.0
    write_hdf5(path, positions, Time=0.5, Redshift=1.0)
    assert open_snapshot(path).header.redshift == 1.0
    write_hdf5(path, positions, Redshift=None)
    assert open_snapshot(path, redshift=0.5).header.redshift == 0.5


def plugin_filter(name: str) -> dict:
    return dict(getattr(pytest.importorskip("hdf5plugin"), name)())


@pytest.mark.parametrize("name", ["gzip", "lzf", "Blosc", "Zstd"])
def test_compressed_files(tmp_path: Path, positions: np.ndarray, name: str):
    path = tmp_path / "snap.hdf5"
    write_hdf5(path, positions)
    with h5py.File(path, "r+") as handle:
        del handle["PartType1/Coordinates"]
        how = {"compression": name, "shuffle": True} if name.islower() else plugin_filter(name)
        handle.create_dataset("PartType1/Coordinates", data=positions, chunks=(13, 3), **how)
    assert np.array_equal(gather(open_snapshot(path)), positions)


def test_unknown_filter_is_named(tmp_path: Path, positions: np.ndarray):
    path = tmp_path / "snap.hdf5"
    write_hdf5(path, positions)
    with h5py.File(path, "r+") as handle:
        del handle["PartType1/Coordinates"]
        handle.create_dataset("PartType1/Coordinates", data=positions, compression="gzip")
    # Number, length of the name, flags, number of parameters and the name itself, as HDF5 stores them.
    form = ("<HHHH", 8, 1, 1)
    deflate, unknown = (struct.pack(form[0], number, *form[1:]) + b"deflate" for number in (1, 32099))
    raw = path.read_bytes()
    assert raw.count(deflate) == 1
    path.write_bytes(raw.replace(deflate, unknown))
    with pytest.raises(UserError, match=r"filter 32099 \(deflate\); .*hdf5plugin"):
        gather(open_snapshot(path))


def test_data_that_were_never_written_are_not_zeros(tmp_path: Path, positions: np.ndarray):
    path = tmp_path / "snap.hdf5"
    for chunks, sentence in ((None, "never written"), ((10, 3), "1 of its 5 chunks")):
        write_hdf5(path, positions)
        with h5py.File(path, "r+") as handle:
            del handle["PartType1/Coordinates"]
            data = handle.create_dataset("PartType1/Coordinates", (N, 3), "f4", chunks=chunks)
            if chunks:
                data[:10] = positions[:10]
        with pytest.raises(UserError, match=sentence):
            gather(open_snapshot(path))


def write_virtual(path: Path, parts: list[np.ndarray], *, n_mapped: int = N) -> None:
    write_hdf5(path, np.concatenate(parts))
    with h5py.File(path, "r+") as handle:
        layout, start = h5py.VirtualLayout((N, 3), "f4"), 0
        for i, part in enumerate(parts):
            name = path.with_name(f"part{i}.h5")
            with h5py.File(name, "w") as file:
                file["x"] = part
            n = min(len(part), n_mapped - start)
            layout[start : start + n] = h5py.VirtualSource(name.name, "x", part.shape)[:n]
            start += n
        del handle["PartType1/Coordinates"]
        handle.create_virtual_dataset("PartType1/Coordinates", layout)


def test_virtual_data_sets_are_complete_or_refused(tmp_path: Path, positions: np.ndarray):
    # HDF5 itself reads zeros in place of what it does not find.
    path, part, parts = tmp_path / "snap.hdf5", tmp_path / "part1.h5", np.array_split(positions, 3)
    write_virtual(path, parts)
    assert np.array_equal(gather(open_snapshot(path)), positions)
    raw = part.read_bytes()
    part.write_bytes(raw[:1000])
    with pytest.raises(UserError, match=r"part1\.h5: is cut short"):
        gather(open_snapshot(path))
    with h5py.File(part, "w") as file:
        file["x"] = parts[1][:-1]
    with pytest.raises(UserError, match=r"part1\.h5: holds \(16, 3\) as x; snap\.hdf5 refers to more there"):
        gather(open_snapshot(path))
    with h5py.File(part, "w") as file:
        file["y"] = parts[1]
    with pytest.raises(UserError, match=r"part1\.h5: holds nothing as x"):
        gather(open_snapshot(path))
    part.unlink()
    with pytest.raises(UserError, match=r"part1\.h5: no such file; snap\.hdf5 refers to it"):
        gather(open_snapshot(path))
    write_virtual(path, parts, n_mapped=N - 1)
    with pytest.raises(UserError, match="147 of its 150 numbers"):
        gather(open_snapshot(path))


def test_files_are_shared_out(tmp_path: Path, positions: np.ndarray):
    for i, part in enumerate(np.array_split(positions, 3)):
        write_hdf5(tmp_path / f"snap.{i}.hdf5", part, n_total=N, n_files=3)
    snapshot = open_snapshot(tmp_path / "snap")
    parts = [np.concatenate(list(snapshot.positions(files=[file]))) for file in reversed(snapshot.files)]
    assert np.array_equal(np.concatenate(parts[::-1]), positions)


def test_slab_of_any_format(tmp_path: Path, positions: np.ndarray):
    write_binary(tmp_path / "snap", positions * 1000, n_total=N, box_size=1e5, masses=np.arange(1.0, N + 1))
    found = list(open_snapshot(tmp_path / "snap").particles(7, weights=True, slab=Slab(1, 95.0, 110.0)))
    inside = (positions[:, 1] >= 95) | (positions[:, 1] < 10)
    np.testing.assert_allclose(np.concatenate([p for p, _ in found]), positions[inside], rtol=1e-6)
    assert np.array_equal(np.concatenate([m for _, m in found]), np.flatnonzero(inside) + 1)


def test_every_particle_is_in_one_slab():
    # At edges, a rounding error outside of the box, and at its very end.
    edges = np.linspace(0, 70, 8)
    x = np.concatenate([edges, np.nextafter(edges, -1), np.nextafter(edges, 100), [-1e-17, -1e-5, 70.0007]])
    positions = np.stack([x * 0, x, x * 0], axis=1)
    slabs = [Slab(1, low, high) for low, high in itertools.pairwise(edges)]
    assert (sum(slab.contains(positions, 70.0).astype(int) for slab in slabs) == 1).all()
    assert Slab(1, 65.0, 75.0).contains(positions, 70.0).tolist() == [(y - 65) % 70 < 10 for y in x]


def test_particles_that_fill_a_corner_of_the_box_are_refused(tmp_path: Path):
    few = np.random.default_rng(0).uniform(0, 1, (2000, 3)).astype(np.float32)
    write_hdf5(tmp_path / "snap.hdf5", few, BoxSize=100.0)
    with pytest.raises(UserError, match=r"reach from .* to 0.99.* slices need particles all over"):
        gather(open_snapshot(tmp_path / "snap.hdf5"), 100)


def damage_hdf5(path: Path, positions: np.ndarray, damage: str) -> None:
    changes = {
        "box zero": {"BoxSize": 0.0},
        "box missing": {"BoxSize": None},
        "box negative": {"BoxSize": -5.0},
        "box not a cube": {"BoxSize": [100.0, 100.0, 50.0]},
        "unit unclear": {"BoxSize": 8000.0},
        "redshift missing": {"Redshift": None},
        "redshift NaN": {"Redshift": np.nan},
        "counts missing": {"NumPart_ThisFile": None},
        "total differs": {"n_total": N + 1},
        "no dark matter": {"n_total": 0, "NumPart_ThisFile": np.zeros(6, np.int32)},
        "sibling missing": {"n_files": 2},
    }
    if damage == "NaN":
        positions = positions.copy()
        positions[20, 1] = np.nan
    if damage == "outside":
        positions = positions.copy()
        positions[20, 1] = 101.0
    write_hdf5(path, positions, **changes.get(damage, {}))
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-300])
    if damage == "empty":
        path.write_bytes(b"")
    if damage == "text":
        path.write_text("# x y z\n1 2 3\n")
    if damage in ("no header", "no positions", "short positions"):
        with h5py.File(path, "r+") as handle:
            if damage == "no header":
                del handle["Header"]
            else:
                del handle["PartType1/Coordinates"]
                if damage == "short positions":
                    handle["PartType1/Coordinates"] = positions[:-1]


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("empty", "is empty"),
        ("text", "neither an HDF5 file nor a GADGET binary"),
        ("truncated", "cut short|not a readable HDF5"),
        ("no header", "no group /Header"),
        ("no positions", "Coordinates is missing"),
        ("short positions", r"shape \(50, 3\)"),
        ("box zero", "no usable BoxSize; give it with --box-size"),
        ("box missing", "no usable BoxSize; give it with --box-size"),
        ("box negative", "BoxSize is -5"),
        ("box not a cube", "expected a cube"),
        ("unit unclear", "--length-unit"),
        ("redshift missing", "does not say its redshift; give it with --redshift"),
        ("redshift NaN", "Redshift is nan"),
        ("counts missing", "NumPart_ThisFile"),
        ("total differs", "announces 51 particles and the files hold 50"),
        ("no dark matter", "no dark matter"),
        ("sibling missing", "no such file; the snapshot snap.0.hdf5 consists of 2 files"),
        ("NaN", "positions of 1 particles are NaN or infinite"),
        ("outside", "to 101 along y, .* but the box is 100 Mpc/h wide; if the box is another"),
    ],
)
def test_bad_hdf5_is_one_sentence(tmp_path: Path, positions: np.ndarray, damage: str, sentence: str):
    path = tmp_path / "snap.0.hdf5"
    damage_hdf5(path, positions, damage)
    with pytest.raises(UserError, match=sentence) as error:
        gather(open_snapshot(path))
    assert "snap." in str(error.value)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda raw: raw[:100], "cut short in its header"),
        (lambda raw: raw[:600], "cut short in its positions"),
        (lambda raw: raw[:264] + struct.pack("<I", 12 * N + 4) + raw[268:], "bytes; expected 600"),
        (lambda raw: raw[:260] + struct.pack("<I", 255) + raw[264:], "header record is damaged"),
        (lambda raw: raw[: 268 + 12 * N] + struct.pack("<I", 5) + raw[272 + 12 * N :], "two lengths"),
    ],
    ids=["header cut", "positions cut", "length", "header length", "end of record"],
)
def test_bad_binary_is_one_sentence(tmp_path: Path, positions: np.ndarray, damage, sentence: str):
    path = tmp_path / "snapshot.0"
    write_binary(path, positions, n_total=N)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=sentence) as error:
        gather(open_snapshot(path))
    assert "snapshot.0" in str(error.value)


def test_missing_binary_sibling_is_named(tmp_path: Path, positions: np.ndarray):
    write_binary(tmp_path / "snapshot.0", positions, n_total=2 * N, n_files=2)
    with pytest.raises(UserError, match=r"snapshot\.1: no such file"):
        open_snapshot(tmp_path / "snapshot.0")


def test_files_of_different_snapshots_are_not_mixed(tmp_path: Path, positions: np.ndarray):
    write_binary(tmp_path / "snapshot.0", positions, n_total=2 * N, n_files=2)
    write_binary(tmp_path / "snapshot.1", positions, n_total=2 * N, n_files=2, box_size=50.0)
    with pytest.raises(UserError, match="another snapshot"):
        gather(open_snapshot(tmp_path / "snapshot.0"))


def test_box_that_contradicts_the_file_is_refused(tmp_path: Path, positions: np.ndarray):
    write_hdf5(tmp_path / "snap.hdf5", positions, unit_in_cm=3.085678e24)
    with pytest.raises(UserError, match="105 Mpc/h and the header 100"):
        open_snapshot(tmp_path / "snap.hdf5", box_size="105 Mpc/h")


def test_missing_file_and_folder(tmp_path: Path):
    with pytest.raises(UserError, match="no such file"):
        open_snapshot(tmp_path / "nothing")
    with pytest.raises(UserError, match="is a folder"):
        open_snapshot(tmp_path)
    with pytest.raises(UserError, match=r"cannot be read .*too long"):
        open_snapshot(tmp_path / ("x" * 300))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError, match="symbolic link that leads nowhere or round in a circle"):
        open_snapshot(tmp_path / "loop")


def test_header_may_announce_any_number_of_files(tmp_path: Path, positions: np.ndarray):
    write_binary(tmp_path / "snapshot.0", positions, n_total=N, n_files=2**31 - 1)
    with pytest.raises(UserError, match=r"snapshot\.1: no such file"):
        open_snapshot(tmp_path / "snapshot.0")


@pytest.mark.parametrize("name", ["snap.1.hdf5", "latest.hdf5"])
def test_a_link_to_one_file_stands_for_all(tmp_path: Path, name: str):
    positions = np.random.default_rng(0).uniform(0, 100, (2, 600, 3)).astype(np.float32)
    (tmp_path / "data").mkdir()
    files = [tmp_path / "data" / f"snap.{i}.hdf5" for i in range(2)]
    for path, part in zip(files, positions, strict=True):
        write_hdf5(path, part, n_total=1200, n_files=2)
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / name
    link.symlink_to(files[1])
    np.testing.assert_array_equal(np.concatenate(list(open_snapshot(link).positions())), positions.reshape(-1, 3))
    files[0].unlink()
    with pytest.raises(UserError, match=r"data/snap\.0\.hdf5: no such file"):
        open_snapshot(link)
    # All files linked, each to a name without a number.
    for i, part in enumerate(positions):
        write_hdf5(tmp_path / f"object{'ab'[i]}", part, n_total=1200, n_files=2)
        (tmp_path / f"snap.{i}.hdf5").symlink_to(tmp_path / f"object{'ab'[i]}")
    read = np.concatenate(list(open_snapshot(tmp_path / "snap.1.hdf5").positions()))
    np.testing.assert_array_equal(read, positions.reshape(-1, 3))
