"""What headers of real files say, leave out or say in other words: units, scalings, counts, redshifts."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

import h5py
import numpy as np
import pytest

from cosmogan.errors import UserError
from cosmogan.slices import read_slices
from data_tools.slicing.slicing import slice_snapshots
from data_tools.snapshots import Slab, SnapshotHeader, detect, open_snapshot
from data_tools.snapshots.base import AbstractSnapshotFormat
from data_tools.snapshots.header import Options
from tests.data_tools.snapshots.gadget_files import binary_header, record, write_binary, write_hdf5
from tests.data_tools.snapshots.swift_files import write_swift

N = 512
KPC, MPC = 3.085678e21, 3.085678e24
# 1e10 Msun/h per (Mpc/h)^3.
CRITICAL_DENSITY = 27.7536627


@pytest.fixture
def lattice() -> np.ndarray:
    """Positions all over a box of side 1."""
    axis = (np.arange(8) + 0.5) / 8
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3).astype(np.float32)


def mass(box: float, *, omega_m: float = 0.3) -> float:
    """Mass of each particle, 1e10 Msun/h, that makes up a box in Mpc/h."""
    return omega_m * CRITICAL_DENSITY * box**3 / N


def table(value: float) -> np.ndarray:
    return np.array([0, value, 0, 0, 0, 0])


def read(path: Path, **options: Any) -> np.ndarray:
    return np.concatenate(list(open_snapshot(path, **options).positions()))


@pytest.mark.parametrize(
    ("in_file", "box"), [(3000.0, 3.0), (3000.0, 3000.0), (20_000.0, 20_000.0), (20_000.0, 20.0), (8000.0, 8.0)]
)
def test_masses_decide_the_unit_that_the_header_does_not_say(tmp_path: Path, lattice, in_file: float, box: float):
    path = tmp_path / "snap.hdf5"
    write_hdf5(path, lattice * in_file, BoxSize=in_file, MassTable=table(mass(box)))
    header = open_snapshot(path).header
    assert header.box_size == box
    assert "by the masses, which make Omega_m 0.3" in header.unit_source
    np.testing.assert_allclose(read(path), lattice * box, rtol=1e-6)
    # As a data set of masses, too.
    write_hdf5(path, lattice * in_file, BoxSize=in_file)
    with h5py.File(path, "r+") as handle:
        handle["PartType1/Masses"] = np.full(N, mass(box), np.float32)
    assert open_snapshot(path).header.box_size == box
    # In a binary.
    write_binary(tmp_path / "snap", lattice * in_file, n_total=N, box_size=in_file, masses=np.full(N, mass(box)))
    assert open_snapshot(tmp_path / "snap").header.box_size == box


@pytest.mark.parametrize("masses", [None, table(0.0), table(mass(200.0))])
def test_a_unit_that_masses_do_not_decide_is_asked_for(tmp_path: Path, lattice, masses):
    path = tmp_path / "snap.hdf5"
    write_hdf5(path, lattice * 3000, BoxSize=3000.0, MassTable=masses)
    with pytest.raises(UserError, match=r"3000 Mpc/h or 3 Mpc/h, and its masses do not decide.*--length-unit"):
        open_snapshot(path)
    assert open_snapshot(path, length_unit="kpc/h").header.box_size == 3.0


@pytest.mark.parametrize(("in_file", "box"), [(100.0, 100.0), (205_000.0, 205.0)])
def test_a_box_of_one_possible_size_needs_no_masses(tmp_path: Path, lattice, in_file: float, box: float):
    path = tmp_path / "snap.hdf5"
    # In another unit of mass than is usual: no unit of length makes a universe of them.
    for masses in (None, table(mass(box) * 1e10)):
        write_hdf5(path, lattice * in_file, BoxSize=in_file, MassTable=masses)
        assert open_snapshot(path).header.box_size == box


@pytest.mark.parametrize("omega_m", [0.15, 0.25])
def test_masses_in_another_unit_are_not_taken_for_the_usual_one(tmp_path: Path, lattice, omega_m: float):
    path = tmp_path / "snap.hdf5"
    # In Msun/h, a box of 8 Mpc/h holds ten times what 8000 Mpc/h would in the usual unit; no Omega_m to compare with.
    masses = table(mass(8.0, omega_m=omega_m) * 1e10)
    write_hdf5(path, lattice * 8000, BoxSize=8000.0, Omega0=None, MassTable=masses)
    with pytest.raises(UserError, match="its masses do not decide"):
        open_snapshot(path)


def test_positions_in_units_of_the_box_are_asked_about(tmp_path: Path, lattice):
    path = tmp_path / "snap.hdf5"
    write_hdf5(path, lattice, BoxSize=1.0)
    with pytest.raises(UserError, match=r"BoxSize is 1 without a unit.*--box-size '350 Mpc/h'"):
        open_snapshot(path)
    np.testing.assert_allclose(read(path, box_size="350 Mpc/h"), lattice * 350, rtol=1e-6)
    # Masses that make a universe of it are another matter.
    write_hdf5(path, lattice, BoxSize=1.0, MassTable=table(mass(1.0)))
    assert open_snapshot(path).header.box_size == 1.0


def test_a_stated_unit_is_held_against_the_masses(tmp_path: Path, lattice):
    path = tmp_path / "snap.hdf5"
    write_hdf5(path, lattice * 3000, BoxSize=3000.0, unit_in_cm=KPC, MassTable=table(mass(3000.0)))
    with pytest.raises(
        UserError, match=r"unit of length of 0.001 Mpc/h, .* Omega_m 3e\+08, and in 1 Mpc/h they make 0.3;"
    ):
        open_snapshot(path)
    assert open_snapshot(path, length_unit="Mpc/h").header.box_size == 3000.0
    # Masses in Msun/h, or of a part of the matter, say nothing.
    for factor in (1e10, 1e-2):
        write_hdf5(path, lattice * 3000, BoxSize=3000.0, unit_in_cm=KPC, MassTable=table(mass(3.0) * factor))
        assert open_snapshot(path).header.box_size == 3.0


@pytest.mark.parametrize("group", ["Header", "Units"])
def test_two_units_in_one_file_are_refused(tmp_path: Path, lattice, group: str):
    path = tmp_path / "snap.hdf5"
    write_hdf5(path, lattice * 3000, BoxSize=3000.0, unit_in_cm=KPC)
    with h5py.File(path, "r+") as handle:
        handle.require_group(group).attrs["UnitLength_in_cm"] = MPC
    with pytest.raises(UserError, match=rf"(?=.*3.08568e\+21 cm)(?=.*3.08568e\+24 cm).*of /{group}"):
        open_snapshot(path)
    assert open_snapshot(path, length_unit="kpc/h").header.box_size == 3.0


@pytest.mark.parametrize("divided", [True, False])
def test_gizmo_divides_its_units_by_h(tmp_path: Path, lattice, divided: bool):
    path = tmp_path / "snap.hdf5"
    unit = KPC / 0.7 if divided else KPC
    names = {"Omega0": None, "Omega_Matter": 0.31, "HubbleParam": 0.7, "UnitLength_In_CGS": unit}
    write_hdf5(path, lattice * 8000, BoxSize=8000.0, **names)
    header = open_snapshot(path).header
    assert (header.box_size, header.unit_source) == (8.0, "stated in the file")
    assert header.cosmology.omega_m == 0.31


@pytest.mark.parametrize(
    ("attributes", "box"),
    [
        ({"a_scaling": 1.0, "h_scaling": -1.0, "to_cgs": MPC}, 100.0),
        ({"a_scaling": 1.0, "h_scaling": 0.0, "to_cgs": MPC}, 68.0),
        ({"a-scale-exponent": 1.0, "h-scale-exponent": 0.0}, 68.0),
        ({"aexp-scale-exponent": 1.0, "h-scale-exponent": -1.0, "CGSConversionFactor": MPC}, 100.0),
        # As some write what they do not know.
        ({"to_cgs": 0.0}, 100.0),
    ],
)
def test_scalings_of_the_data_set_count_beside_the_header(tmp_path: Path, lattice, attributes, box: float):
    path = tmp_path / "snap.hdf5"
    write_hdf5(path, lattice * 100, unit_in_cm=MPC)
    with h5py.File(path, "r+") as handle:
        handle["PartType1/Coordinates"].attrs.update(attributes)
    assert open_snapshot(path).header.box_size == pytest.approx(box, rel=1e-12)
    np.testing.assert_allclose(read(path), lattice * box, rtol=1e-5)


@pytest.mark.parametrize(("in_file", "box"), [(100.0, 68.0), (8000.0, 5.44), (8000.0, 5440.0)])
def test_lengths_free_of_h_whose_unit_is_not_stated(tmp_path: Path, lattice, in_file: float, box: float):
    path = tmp_path / "snap.hdf5"
    write_hdf5(path, lattice * in_file, BoxSize=in_file, MassTable=table(mass(box)))
    with h5py.File(path, "r+") as handle:
        handle["PartType1/Coordinates"].attrs["h-scale-exponent"] = 0.0
    np.testing.assert_allclose(read(path), lattice * box, rtol=1e-5)
    with h5py.File(path, "r+") as handle:
        del handle["Header"].attrs["HubbleParam"]
    with pytest.raises(UserError, match="is free of h, and the header does not say h"):
        open_snapshot(path)


def test_scalings_are_those_of_the_first_file_that_has_the_type(tmp_path: Path, lattice):
    for i, part in enumerate((lattice[:0], lattice)):
        write_hdf5(tmp_path / f"snap.{i}.hdf5", part * 100, n_total=N, n_files=2, unit_in_cm=MPC)
    with h5py.File(tmp_path / "snap.0.hdf5", "r+") as handle:
        del handle["PartType1"]
    with h5py.File(tmp_path / "snap.1.hdf5", "r+") as handle:
        handle["PartType1/Coordinates"].attrs["h_scaling"] = 0.0
    np.testing.assert_allclose(read(tmp_path / "snap.0.hdf5"), lattice * 68, rtol=1e-5)


def test_types_of_different_scalings_are_not_mixed(tmp_path: Path, lattice):
    path = tmp_path / "snap.hdf5"
    n = np.array([N, N], np.uint32)
    write_hdf5(path, lattice * 100, unit_in_cm=MPC, NumPart_ThisFile=n, NumPart_Total=n, MassTable=np.ones(2))
    with h5py.File(path, "r+") as handle:
        handle["PartType0/Coordinates"] = lattice * 100
        handle["PartType1/Coordinates"].attrs["h_scaling"] = 0.0
    with pytest.raises(UserError, match=r"of 1 Mpc/h for type 0 and of 0.68 Mpc/h for type 1; .*--length-unit"):
        open_snapshot(path, types="all-matter")
    assert open_snapshot(path, types="all-matter", length_unit="Mpc/h").header.n_particles == 2 * N


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"h-scale exponent": -1.0}, 100.0),
        ({"Conversion factor to CGS (not including cosmological corrections)": MPC}, 70.0),
        (
            {"Conversion factor to CGS (not including cosmological corrections)": KPC},
            "/Units states .* one of 3.08568e",
        ),
        ({"Value stored as physical": [1]}, "is not comoving"),
        ({"a-scale exponent": 0.0}, "is not comoving .power 0"),
    ],
)
def test_scalings_of_swift(tmp_path: Path, lattice, attributes, expected: float | str):
    path = tmp_path / "snap.hdf5"
    write_swift(path, lattice * 100)
    with h5py.File(path, "r+") as handle:
        handle["PartType1/Coordinates"].attrs.update(attributes)
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            open_snapshot(path)
    else:
        assert open_snapshot(path).header.box_size == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"to_cgs": KPC}, r"states a unit of length of 3.08568e\+24 cm and /PartType1/Coordinates one of 3.08568e\+21"),
        ({"a_scaling": 0.0}, "is not comoving .power 0"),
        ({"Value stored as physical": 1}, "is not comoving .'Value stored as physical' is set"),
        ({"h_scaling": 2.0}, "has the power 2 of h"),
    ],
)
def test_scalings_that_contradict_are_refused(tmp_path: Path, lattice, attributes, expected: str):
    path = tmp_path / "snap.hdf5"
    write_hdf5(path, lattice * 100, unit_in_cm=MPC)
    with h5py.File(path, "r+") as handle:
        handle["PartType1/Coordinates"].attrs.update(attributes)
    with pytest.raises(UserError, match=expected):
        open_snapshot(path)
    assert open_snapshot(path, length_unit="Mpc/h").header.box_size == 100.0


@pytest.mark.parametrize(
    "header",
    [
        {
            "NumPart_Total": np.array([0, N, *[0] * 6], np.uint64),
            "NumPart_Total_HighWord": np.zeros(6, np.uint32),
        },
        {"NumPart_Total": np.array([0, N], np.uint32), "NumPart_Total_HighWord": np.zeros(6, np.uint32)},
        {"NumPart_ThisFile": np.array([0, N], np.int32), "MassTable": np.array([0.0, 0.5])},
        {"NumPart_ThisFile": np.array([0, N], float), "NumPart_Total": np.array([0, N], float)},
        {"NumPart_Total": np.zeros(6, np.uint32)},
        {"NumPart_Total": np.zeros(6, np.uint32), "NumFilesPerSnapshot": 0},
    ],
    ids=["eight and six", "two and six", "two types", "floats", "totals of zero", "no number of files"],
)
def test_lists_of_types_of_any_length(tmp_path: Path, lattice, header: dict[str, Any]):
    path = tmp_path / "snap.hdf5"
    write_hdf5(path, lattice * 100, unit_in_cm=MPC, **header)
    snapshot = open_snapshot(path)
    assert snapshot.header.n_particles == N
    np.testing.assert_allclose(read(path), lattice * 100, rtol=1e-6)


@pytest.mark.parametrize("total", [np.array([0, N + 0.5]), np.array([0, -N]), np.zeros((2, 3), int)])
def test_counts_that_are_no_whole_numbers_are_refused(tmp_path: Path, lattice, total: np.ndarray):
    write_hdf5(tmp_path / "snap.hdf5", lattice, NumPart_Total=total)
    with pytest.raises(UserError, match="expected a count per particle type") as error:
        open_snapshot(tmp_path / "snap.hdf5")
    assert "\n" not in str(error.value)


def test_binary_totals_of_zero_are_those_of_the_file(tmp_path: Path, lattice):
    write_binary(tmp_path / "snap", lattice * 100, n_total=0, n_files=0, masses=np.full(N, mass(100.0)))
    assert open_snapshot(tmp_path / "snap").header.n_particles == N
    np.testing.assert_allclose(read(tmp_path / "snap"), lattice * 100, rtol=1e-6)


def test_the_high_word_of_n_genic_is_no_other_type(tmp_path: Path):
    n = 3 * 2**32 + 77
    for name, omega_m, expected in (("right", 0.3, n), ("other", 0.2, 77)):
        header = binary_header(
            "<",
            n_this_file=(0, 5),
            n_total=(0, 77, 3),
            mass_table=(0.0, omega_m * CRITICAL_DENSITY * 1e9 / n),
            redshift=0.0,
            n_files=1,
            box_size=1000.0,
        )
        (tmp_path / name).write_bytes(record(header, "<") + record(b"0" * 60, "<"))
        assert open_snapshot(tmp_path / name, length_unit="Mpc/h").header.n_particles == expected


def write_gadget4(path: Path, positions: np.ndarray, *, n_types: int, order: str, version: int, **header: Any) -> None:
    """Write GADGET-4's own binary: gas of mass 7 at the origin before the dark matter."""
    n_this_file = [3, len(positions), *[0] * (n_types - 2)]
    n_total = [header.get("n_total_gas", 3), header.get("n_total", len(positions)), *[0] * (n_types - 2)]
    masses = [7.0, header["mass"], *[0.0] * (n_types - 2)]
    raw = struct.pack(f"{order}{n_types}q{n_types}q{n_types}d", *n_this_file, *n_total, *masses)
    raw += struct.pack(f"{order}3d", 0.5, 1.0, header["box_size"])
    raw += struct.pack(f"{order}i4x2q", header.get("n_files", 1), 0, 0)
    everything = np.concatenate([np.zeros((3, 3)), positions])
    blocks = {b"HEAD": raw, b"POS ": everything.astype(order + "f4").tobytes(), b"VEL ": b"\0" * everything.size * 4}
    with open(path, "wb") as stream:
        for name, data in blocks.items():
            if version == 2:
                stream.write(record(name + struct.pack(order + "i", len(data) + 8), order))
            stream.write(record(data, order))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("n_types", [6, 8])
def test_binaries_of_gadget4(tmp_path: Path, lattice, n_types: int, order: str, version: int):
    for i, part in enumerate(np.array_split(lattice * 8000, 2)):
        write_gadget4(
            tmp_path / f"snap.{i}",
            part,
            n_types=n_types,
            order=order,
            version=version,
            mass=mass(8.0),
            box_size=8000.0,
            n_total=N,
            n_total_gas=6,
            n_files=2,
        )
    snapshot = open_snapshot(tmp_path / "snap.1")
    header = snapshot.header
    assert (header.box_size, header.redshift, header.n_particles) == (8.0, 1.0, N)
    assert header.cosmology.omega_m is None
    np.testing.assert_allclose(read(tmp_path / "snap.0"), lattice * 8, rtol=1e-6)
    found = np.concatenate([masses for _, masses in snapshot.particles(weights=True) if masses is not None])
    np.testing.assert_allclose(found, mass(8.0))
    assert list(snapshot.n_per_type.items()) == [(0, 6), (1, N)]


def test_a_binary_of_gadget4_may_be_damaged(tmp_path: Path, lattice):
    path = tmp_path / "snap"
    form: dict[str, Any] = {"n_types": 6, "order": "<", "version": 1, "mass": mass(8.0), "box_size": 8000.0}
    write_gadget4(path, lattice * 8000, **form, n_total=N - 1)
    with pytest.raises(UserError, match=r"its header is damaged: it announces \[3, 512, 0"):
        open_snapshot(path)
    write_gadget4(path, lattice * 8000, **form)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="cut short in its positions"):
        read(path)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("length", [512, 264])
def test_binaries_of_other_headers_are_named(tmp_path: Path, order: str, length: int, version: int):
    label = record(b"HEAD" + struct.pack(order + "i", length + 8), order) if version == 2 else b""
    (tmp_path / "snap").write_bytes(label + record(b"\0" * length, order) + record(b"0" * 60, order))
    with pytest.raises(UserError, match=rf"its header has {length} bytes, where that of a GADGET-1 .* has 256.*HDF5"):
        open_snapshot(tmp_path / "snap")


def test_half_precision_is_kept_and_not_computed_in(tmp_path: Path, lattice):
    half = (lattice * 900).astype(np.float16)
    path = tmp_path / "snap.hdf5"
    write_hdf5(path, half, BoxSize=900.0, unit_in_cm=MPC)
    np.testing.assert_array_equal(read(path), half.astype(np.float32))
    with h5py.File(path, "r+") as handle:
        handle["PartType1/Coordinates"].attrs["h_scaling"] = 0.0
    # Beside: the product in half precision is off by up to a part in 2,000.
    np.testing.assert_allclose(read(path), half.astype(np.float64) * 0.68, rtol=2e-7)


def test_half_precision_masses_are_not_computed_in(tmp_path: Path, lattice):
    path = tmp_path / "snap.hdf5"
    masses = np.random.default_rng(0).uniform(1, 2, N).astype(np.float16)
    write_hdf5(path, lattice * 100, unit_in_cm=MPC)
    with h5py.File(path, "r+") as handle:
        handle["PartType1/Masses"] = masses
    blocks = [block for _, block in open_snapshot(path).particles(weights=True) if block is not None]
    assert blocks[0].dtype == np.float32
    np.testing.assert_array_equal(np.concatenate(blocks), masses.astype(np.float32))


def test_a_file_of_several_may_hold_none_of_the_type(tmp_path: Path, lattice):
    for i, part in enumerate((lattice, lattice[:0])):
        write_hdf5(tmp_path / f"snap.{i}.hdf5", part * 100, n_total=N, n_files=2, unit_in_cm=MPC)
    with h5py.File(tmp_path / "snap.1.hdf5", "r+") as handle:
        for name in list(handle["PartType1"]):
            del handle["PartType1"][name]
    np.testing.assert_allclose(read(tmp_path / "snap.0.hdf5"), lattice * 100, rtol=1e-6)


def test_scalings_count_where_the_named_file_holds_no_particles(tmp_path: Path, lattice):
    for i, part in enumerate((lattice, lattice[:0])):
        path = tmp_path / f"snap.{i}.hdf5"
        write_hdf5(path, part * 100, n_total=N, n_files=2, unit_in_cm=MPC)
        with h5py.File(path, "r+") as handle:
            if len(part):
                handle["PartType1/Coordinates"].attrs.update({"a_scaling": 1.0, "h_scaling": 0.0})
            else:
                del handle["PartType1"]
    for name in ("snap.0.hdf5", "snap.1.hdf5"):
        assert open_snapshot(tmp_path / name).header.box_size == pytest.approx(68.0, rel=1e-12)


@pytest.mark.parametrize("name", ["Scale-factor", "ExpansionFactor", "Time"])
def test_the_scale_factor_says_the_redshift(tmp_path: Path, lattice, name: str):
    write_hdf5(tmp_path / "snap.hdf5", lattice * 100, unit_in_cm=MPC, Redshift=None, **{name: 0.25})
    assert open_snapshot(tmp_path / "snap.hdf5").header.redshift == pytest.approx(3.0)


def test_a_time_beyond_one_is_no_scale_factor(tmp_path: Path, lattice):
    write_hdf5(tmp_path / "snap.hdf5", lattice * 100, unit_in_cm=MPC, Redshift=None, Time=13.7)
    with pytest.raises(UserError, match="does not say its redshift"):
        open_snapshot(tmp_path / "snap.hdf5")


@final
class TextSnapshot(AbstractSnapshotFormat):
    """Positions as text behind a line with the box in Mpc/h and the redshift."""

    def __init__(self, path: Path, options: Options) -> None:
        self.path, self.files = path, [path]
        box, redshift = path.read_text().split("\n")[0].removeprefix("#text ").split()
        n = len(path.read_text().splitlines()) - 1
        self.header = SnapshotHeader(box_size=float(box), redshift=float(redshift), n_particles=n)

    @staticmethod
    def recognises(path: Path, head: bytes) -> bool:
        return head.startswith(b"#text ")

    def _read_file(
        self, path: Path, chunk: int, *, weights: bool, slab: Slab | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        yield np.loadtxt(path), None


def test_a_format_is_a_class_and_its_line(tmp_path: Path, lattice, monkeypatch: pytest.MonkeyPatch):
    np.savetxt(tmp_path / "snap", lattice * 100, header="text 100 0.5", comments="#")
    with pytest.raises(UserError, match="is neither an HDF5 file nor"):
        open_snapshot(tmp_path / "snap")
    monkeypatch.setattr(detect, "FORMATS", (TextSnapshot, *detect.FORMATS))
    slice_snapshots([str(tmp_path / "snap")], out=str(tmp_path / "slices.h5"), pixels=8, slabs=8)
    found = read_slices(tmp_path / "slices.h5")
    assert (found.metadata.box_size, found.metadata.redshift) == (100.0, 0.5)
    # One particle of the lattice in each pixel of each slab.
    assert np.all(np.asarray(found.slices) == 1)
