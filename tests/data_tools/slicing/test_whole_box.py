"""What slices stand for: the whole periodic box, all matter by mass, one realisation each; or a sentence."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from cosmogan.cli import main
from cosmogan.errors import UserError
from cosmogan.slices import check_slices, read_provenance, read_slices
from cosmogan.validation.compare import compare
from data_tools.simulation.simulate import simulate
from data_tools.slicing.slicing import slice_snapshots
from data_tools.snapshots import open_snapshot
from tests.data_tools.snapshots.gadget_files import binary_header, record, write_binary, write_hdf5
from tests.data_tools.snapshots.swift_files import H, write_swift

BOX = 100.0
# Float32 slices.
FLOAT32_TOLERANCE = 1e-5
HEAVY = 8.0


def uniform(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, BOX, (n, 3)).astype(np.float32)


def density(positions: np.ndarray, masses: np.ndarray | None = None, *, pixels: int = 8, axis: int = 2) -> np.ndarray:
    """Mass in cells over its mean, by numpy."""
    cells = np.histogramdd(positions.astype(float) % BOX, (pixels,) * 3, range=[(0, BOX)] * 3, weights=masses)[0]
    return np.moveaxis(cells / cells.mean(), axis, 0)


def cut(snapshot: Path | list[Path], out: Path, **options) -> np.ndarray:
    paths = snapshot if isinstance(snapshot, list) else [snapshot]
    written = slice_snapshots([str(path) for path in paths], out=str(out), **({"pixels": 8, "axes": "z"} | options))
    assert check_slices(written) == []
    return read_slices(written).slices


def sphere(positions: np.ndarray) -> np.ndarray:
    return np.linalg.norm(positions - BOX / 2, axis=1) < BOX / 2


def without_a_file(positions: np.ndarray) -> np.ndarray:
    """All but one of 16 files, of particles that are sorted along a curve that fills the box."""
    return ~((positions[:, :2] < BOX / 2).all(axis=1) & (positions[:, 2] < BOX / 4))


PARTS = {
    "slab of a tenth": lambda x: x[:, 2] < BOX / 10,
    "slab of nine tenths": lambda x: x[:, 2] < 0.9 * BOX,
    "slab across the boundary": lambda x: np.abs(x[:, 0] - BOX / 2) > 0.1 * BOX,
    "octant of a light cone": lambda x: np.linalg.norm(x, axis=1) < BOX,
    "sphere": sphere,
    "a file of sixteen missing": without_a_file,
    "cube inside": lambda x: (np.abs(x - BOX / 2) < 0.4 * BOX).all(axis=1),
    "hole": lambda x: (np.abs(x - BOX / 2) > 0.3 * BOX).any(axis=1),
}


@pytest.mark.parametrize("n", [3000, 40_000, 300_000])
@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_a_box_is_refused(tmp_path: Path, part: str, n: int):
    everything = uniform(n)
    path = tmp_path / "snap.hdf5"
    write_hdf5(path, everything[PARTS[part](everything)])
    if n == 3000 and part in ("a file of sixteen missing", "sphere", "octant of a light cone"):
        pytest.skip("too few particles for a part of this shape")
    with pytest.raises(UserError, match=r"snap\.hdf5: [\d.]+% of the volume is empty: .* add --allow-partial$"):
        cut(path, tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()


@pytest.mark.parametrize("n", [9, 30, 900, 5000])
def test_a_halo_is_no_box(tmp_path: Path, n: int):
    write_hdf5(tmp_path / "snap.hdf5", 30 + uniform(n) / 100)
    with pytest.raises(UserError, match=r"(9\d|100)(\.\d+)?% of the volume is empty"):
        cut(tmp_path / "snap.hdf5", tmp_path / "out.h5")


def lattice(side: int, *, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    """Particles on a lattice, displaced along waves of the box by ``shift`` of their distance."""
    q = (np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3) + 0.25) / side
    rng = np.random.default_rng(seed)
    moved = q.copy()
    for wave in rng.integers(-2, 3, (12, 3)):
        moved += shift / side * rng.normal(size=3) * np.sin(2 * np.pi * (q @ wave + rng.random()))[:, None]
    return (moved % 1 * BOX).astype(np.float32)


@pytest.mark.parametrize("side", [3, 4, 8, 10, 13, 16, 20, 33, 64])
def test_a_lattice_fills_the_box(tmp_path: Path, side: int):
    write_hdf5(tmp_path / "snap.hdf5", lattice(side))
    cut(tmp_path / "snap.hdf5", tmp_path / "out.h5")


@pytest.mark.parametrize("processes", [1, 2])
def test_a_box_of_many_particles_is_sampled(tmp_path: Path, processes: int):
    """More particles than are looked at, sorted in planes: the same verdict from any number of processes."""
    positions = np.concatenate([lattice(102), lattice(102, shift=0.3)])
    for name, kept in (("whole", positions), ("part", positions[positions[:, 0] < 0.97 * BOX])):
        for i, part in enumerate(np.array_split(kept, 2)):
            write_hdf5(tmp_path / f"{name}.{i}.hdf5", part, n_total=len(kept), n_files=2)
    cut(tmp_path / "whole.0.hdf5", tmp_path / "whole.h5", processes=processes)
    with pytest.raises(UserError, match=r"(2\.[5-9]\d*|3)% of the volume is empty"):
        cut(tmp_path / "part.0.hdf5", tmp_path / "part.h5", processes=processes)
    cut(tmp_path / "part.0.hdf5", tmp_path / "part.h5", processes=processes, allow_partial=True)
    doubt = read_provenance(tmp_path / "part.h5")["not_trustworthy"]
    assert doubt == "2.98% of the volume of part.0.hdf5 is empty (--allow-partial)"


def test_simulations_fill_their_box_and_are_told_apart(tmp_path: Path):
    """Voids at redshift 0 in a box of 10 Mpc/h; the same phases with other steps and another mesh."""
    common = {"box_size": "10 Mpc/h", "particles": 32, "device": "cpu"}
    paths = simulate(**common, seeds="1:2", steps=8, out=str(tmp_path / "runs"))
    same = simulate(**common, seeds="1", steps=6, mesh=32, out=str(tmp_path / "other"))
    assert len(cut(paths, tmp_path / "out.h5")) == 16
    with pytest.raises(UserError, match="both realisation 1 by the seeds in their headers"):
        cut([paths[0], same[0]], tmp_path / "no.h5")
    with pytest.raises(
        UserError, match=r"same initial conditions: .* correlate by (0\.9|1\.0).* one realisation; leave"
    ):
        cut([paths[0], same[0]], tmp_path / "no.h5", realisation=[1, 2])
    cut([paths[0], same[0]], tmp_path / "one.h5", realisation=[7, 7])
    assert set(read_slices(tmp_path / "one.h5").realisation) == {7}
    cut([paths[0], paths[1], same[0]], tmp_path / "two.h5", realisation=[1, 2, 3], allow_same_phases=True)
    doubt = read_provenance(tmp_path / "two.h5")["not_trustworthy"]
    assert doubt == f"{paths[0].name} and {same[0].name} have the same initial conditions"


@pytest.mark.parametrize("side", [20, 25, 50])
@pytest.mark.parametrize("shift", [0.01, 0.1, 0.5])
def test_lattices_of_independent_runs_are_not_the_same_phases(tmp_path: Path, side: int, shift: float):
    """Planes of a lattice fall into the cells of all runs alike; that is not what makes two runs one."""
    for seed in range(3):
        write_hdf5(tmp_path / f"{seed}.hdf5", lattice(side, shift=shift, seed=seed))
    cut([tmp_path / f"{seed}.hdf5" for seed in range(3)], tmp_path / "out.h5")
    assert "not_trustworthy" not in read_provenance(tmp_path / "out.h5")


def test_a_copy_is_found_however_few_particles_there_are(tmp_path: Path):
    for name in "ab":
        write_hdf5(tmp_path / f"{name}.hdf5", uniform(60))
    with pytest.raises(UserError, match=r"a\.hdf5 and .*b\.hdf5 grew from the same initial conditions"):
        cut([tmp_path / "a.hdf5", tmp_path / "b.hdf5"], tmp_path / "out.h5")


def test_unequal_masses_count_by_mass(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A zoom of two resolutions: eight light particles for each heavy one make the same density."""
    rng = np.random.default_rng(1)
    heavy, light = uniform(40_000), uniform(320_000, seed=1)
    heavy, light = heavy[~sphere(heavy)], light[sphere(light)]
    positions, masses = np.concatenate([heavy, light]), np.r_[np.full(len(heavy), HEAVY), np.ones(len(light))]
    order = rng.permutation(len(positions))
    positions, masses = positions[order], masses[order].astype(np.float32)
    path = tmp_path / "snap.hdf5"
    write_hdf5(path, positions)
    with h5py.File(path, "r+") as handle:
        handle["PartType1/Masses"] = masses
    found = cut(path, tmp_path / "out.h5", pixels=4)
    assert "particles count by mass (masses in snap.hdf5 differ, as 1 and 8)" in capsys.readouterr().err
    np.testing.assert_allclose(found, density(positions, masses, pixels=4), rtol=FLOAT32_TOLERANCE)
    assert np.abs(found - 1).max() < 0.15
    assert read_provenance(tmp_path / "out.h5")["weights"] == "mass"
    by_number = cut(path, tmp_path / "number.h5", pixels=4, weights="number")
    assert np.ptp(by_number) > 1
    with pytest.raises(UserError, match=r"counts with masses are not whole numbers; use quantity density$"):
        cut(path, tmp_path / "counts.h5", quantity="counts")


@pytest.mark.parametrize("where", ["table", "data set", "nowhere", "zeros"])
def test_equal_masses_are_counted(tmp_path: Path, where: str):
    path, positions = tmp_path / "snap.hdf5", uniform(2000)
    write_hdf5(path, positions, MassTable=np.array([0, 2.5 * (where == "table"), 0, 0, 0, 0]))
    with h5py.File(path, "r+") as handle:
        if where in ("data set", "zeros"):
            handle["PartType1/Masses"] = np.full(2000, 2.5 * (where == "data set"), np.float32)
    counts = cut(path, tmp_path / "out.h5", quantity="counts")
    assert np.array_equal(counts, density(positions) * 2000 / 512)
    assert read_provenance(tmp_path / "out.h5")["weights"] == "number"


def test_masses_of_the_last_file_differ(tmp_path: Path):
    positions = uniform(3000)
    for i, part in enumerate(np.array_split(positions, 3)):
        write_hdf5(tmp_path / f"snap.{i}.hdf5", part, n_total=3000, n_files=3)
        with h5py.File(tmp_path / f"snap.{i}.hdf5", "r+") as handle:
            handle["PartType1/Masses"] = np.where(np.arange(1000) == 999, HEAVY if i == 2 else 1.0, 1.0)
    masses = np.ones(3000)
    masses[-1] = HEAVY
    found = cut(tmp_path / "snap.0.hdf5", tmp_path / "out.h5")
    np.testing.assert_allclose(found, density(positions, masses), rtol=FLOAT32_TOLERANCE)


def write_types(path: Path, types: dict[int, tuple[np.ndarray, np.ndarray | float | None]]) -> None:
    """Write types of particles with their masses: of each, of all in the header, or none."""
    counts, table = np.zeros(6, np.uint32), np.zeros(6)
    for kind, (positions, masses) in types.items():
        counts[kind], table[kind] = len(positions), masses if isinstance(masses, float) else 0
    write_hdf5(path, types[1][0], NumPart_ThisFile=counts, NumPart_Total=counts, MassTable=table)
    with h5py.File(path, "r+") as handle:
        for kind, (positions, masses) in types.items():
            if kind != 1:
                handle[f"PartType{kind}/Coordinates"] = positions
            if isinstance(masses, np.ndarray):
                handle[f"PartType{kind}/Masses"] = masses


def test_matter_of_another_type_fills_the_hole(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    light, heavy = uniform(320_000), uniform(40_000, seed=1)
    light, heavy = light[~sphere(light)], heavy[sphere(heavy)]
    tracers = uniform(500, seed=2)
    path = tmp_path / "snap.hdf5"
    write_types(path, {1: (light, 1.0), 2: (heavy, np.full(len(heavy), HEAVY, np.float32)), 3: (tracers, None)})
    hint = r"Matter of other types \(type-2 \(type 2\), type-3 \(type 3\)\) counts with --types all-matter"
    with pytest.raises(UserError, match=rf"4\d(\.\d)?% of the volume is empty.* {hint}"):
        cut(path, tmp_path / "out.h5")
    assert "% type-2 (type 2), not used" in capsys.readouterr().err
    positions, masses = np.concatenate([light, heavy]), np.r_[np.ones(len(light)), np.full(len(heavy), HEAVY)]
    found = cut(path, tmp_path / "out.h5", types="all-matter", pixels=4)
    np.testing.assert_allclose(found, density(positions, masses, pixels=4), rtol=FLOAT32_TOLERANCE)
    assert np.abs(found - 1).max() < 0.2
    provenance = read_provenance(tmp_path / "out.h5")
    assert provenance["particle_type"] == "1,2"
    share = 100 * len(light) / masses.sum()
    assert provenance["matter"] == f"of the mass {share:.3g}% dark matter (type 1); {100 - share:.3g}% type-2 (type 2)"


def test_all_matter_of_a_run_with_gas(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    gas, dark, stars = uniform(3000), uniform(3000, seed=1), 20 + uniform(200, seed=2) / 50
    gas_masses = np.random.default_rng(3).uniform(0.1, 0.3, 3000).astype(np.float32)
    star_masses = np.full(200, 0.25, np.float32)
    path = tmp_path / "snap.hdf5"
    write_types(path, {0: (gas, gas_masses), 1: (dark, 1.0), 4: (stars, star_masses)})
    positions = np.concatenate([gas, dark, stars])
    masses = np.concatenate([gas_masses, np.ones(3000), star_masses])
    expected = density(positions, masses)
    sets = {}
    for processes in (1, 2):
        found = cut(path, tmp_path / f"{processes}.h5", types="all-matter", processes=processes)
        np.testing.assert_allclose(found, expected, rtol=FLOAT32_TOLERANCE)
        sets[processes] = (tmp_path / f"{processes}.h5").read_bytes()
    assert sets[1] == sets[2]
    np.testing.assert_allclose(cut(path, tmp_path / "dark.h5"), density(dark), rtol=FLOAT32_TOLERANCE)
    said = "of the mass 16.3% gas (type 0), not used; 82.3% dark matter (type 1); 1.37% star (type 4), not used\n"
    assert f"{said}matter of the types not used is left out; --types all-matter" in capsys.readouterr().err
    some = cut(path, tmp_path / "some.h5", types="0,1")
    np.testing.assert_allclose(some, density(positions[:6000], masses[:6000]), rtol=FLOAT32_TOLERANCE)
    with pytest.raises(UserError, match="% of the volume is empty"):
        cut(path, tmp_path / "stars.h5", particle_type=4)


def test_black_holes_of_swift_have_dynamical_masses(tmp_path: Path):
    dark, holes = uniform(3000), uniform(100, seed=1)
    write_types(tmp_path / "snap.hdf5", {1: (dark, 1.0), 5: (holes, None)})
    with h5py.File(tmp_path / "snap.hdf5", "r+") as handle:
        handle["PartType5/DynamicalMasses"] = np.full(100, HEAVY)
    expected = density(np.concatenate([dark, holes]), np.r_[np.ones(3000), np.full(100, HEAVY)])
    found = cut(tmp_path / "snap.hdf5", tmp_path / "out.h5", types="all-matter")
    np.testing.assert_allclose(found, expected, rtol=FLOAT32_TOLERANCE)


def test_all_matter_of_swift(tmp_path: Path):
    positions, masses = uniform(4000), np.random.default_rng(5).uniform(1, 3, 4000).astype(np.float32)
    order = write_swift(tmp_path / "snap.hdf5", positions, n_files=3, masses=masses)
    expected = density(positions[order], masses[order])
    found = cut(tmp_path / "snap.hdf5", tmp_path / "out.h5", types="all-matter")
    np.testing.assert_allclose(found, expected, rtol=FLOAT32_TOLERANCE)
    assert read_slices(tmp_path / "out.h5").metadata.box_size == pytest.approx(BOX * H)


@pytest.mark.parametrize("version", [1, 2])
def test_masses_of_gadget_binaries(tmp_path: Path, version: int):
    gas, dark = uniform(700), uniform(2000, seed=1)
    masses = np.random.default_rng(2).uniform(1, 5, 2000).astype(np.float32)
    write_binary(tmp_path / "snap", dark, n_total=2000, gas=gas, masses=masses, version=version)
    np.testing.assert_allclose(
        cut(tmp_path / "snap", tmp_path / "dark.h5"), density(dark, masses), rtol=FLOAT32_TOLERANCE
    )
    # Gas weighs 1, 2, ...
    both = density(np.concatenate([gas, dark]), np.concatenate([1.0 + np.arange(700), masses]))
    found = cut(tmp_path / "snap", tmp_path / "all.h5", types="all-matter")
    np.testing.assert_allclose(found, both, rtol=FLOAT32_TOLERANCE)


def test_binary_without_masses_is_counted(tmp_path: Path):
    positions = uniform(2000)
    counts = {"n_this_file": (0, 2000), "n_total": (0, 2000), "mass_table": (0.0, 0.0)}
    header = binary_header("<", **counts, redshift=0.0, n_files=1, box_size=BOX)
    (tmp_path / "snap").write_bytes(record(header, "<") + record(positions.tobytes(), "<"))
    np.testing.assert_allclose(cut(tmp_path / "snap", tmp_path / "out.h5"), density(positions), rtol=FLOAT32_TOLERANCE)
    assert read_provenance(tmp_path / "out.h5")["weights_because"] == "masses unknown"
    for options in ({"weights": "mass"}, {"types": "all-matter"}):
        with pytest.raises(UserError, match="snap: holds no masses"):
            cut(tmp_path / "snap", tmp_path / "no.h5", **options)


def drifted(n: int, reach: float) -> np.ndarray:
    """Particles that moved on by up to ``reach`` and were not wrapped."""
    rng = np.random.default_rng(4)
    return (rng.uniform(0, BOX, (n, 3)) + rng.uniform(-reach, reach, (n, 3))).astype(np.float32)


MOVED = {
    "centred on zero": lambda: uniform(20_000) - BOX / 2,
    "another origin": lambda: uniform(20_000) + 0.3 * BOX,
    "0.1% outside": lambda: drifted(20_000, 0.002 * BOX),
    "0.9% outside": lambda: drifted(20_000, 0.018 * BOX),
    "many particles": lambda: drifted(600_000, 0.009 * BOX),
    "far": lambda: drifted(20_000, 0.045 * BOX),
}


@pytest.mark.parametrize("moved", MOVED)
def test_positions_outside_are_wrapped(tmp_path: Path, moved: str, capsys: pytest.CaptureFixture[str]):
    positions = MOVED[moved]()
    for i, part in enumerate(np.array_split(positions, 2)):
        write_hdf5(tmp_path / f"snap.{i}.hdf5", part, n_total=len(positions), n_files=2)
    found = cut(tmp_path / "snap.0.hdf5", tmp_path / "out.h5", axes="xyz")
    for axis in range(3):
        np.testing.assert_allclose(
            found[8 * axis : 8 * axis + 8], density(positions, axis=axis), rtol=FLOAT32_TOLERANCE, atol=2e-2
        )
    assert found.mean() == pytest.approx(1, rel=FLOAT32_TOLERANCE)
    outside = 100 * ((positions < 0) | (positions > BOX)).any(axis=1).mean()
    said = capsys.readouterr().err.split("% of the particles lie outside [0, 100]")[0].split()[-1]
    assert float(said) == pytest.approx(outside, rel=0.1)
    blocks = np.concatenate(list(open_snapshot(tmp_path / "snap.0.hdf5").positions()))
    assert blocks.min() >= 0
    assert blocks.max() <= BOX


@pytest.mark.parametrize("n", [600, 5000, 300_000])
@pytest.mark.parametrize(("factor", "way_out"), [(1.01, "--box-size$"), (1.05, "--box-size$"), (1.3, "--box-size$")])
def test_a_larger_box_is_not_folded(tmp_path: Path, factor: float, way_out: str, n: int):
    for name, origin in (("corner", 0.0), ("centre", -0.5)):
        write_hdf5(tmp_path / f"{name}.hdf5", (uniform(n) + origin * BOX) * np.float32(factor))
        with pytest.raises(UserError, match=rf"reach from .*, but the box is 100 Mpc/h wide; .*{way_out}") as error:
            cut(tmp_path / f"{name}.hdf5", tmp_path / "out.h5")
        assert "unit" not in str(error.value)


@pytest.mark.parametrize(
    ("factor", "unit"), [(1000.0, "0.001 Mpc/h and not 1"), (1 / 0.68, "0.68 Mpc/h and not 1"), (0.001, "1000 Mpc/h")]
)
def test_a_unit_is_blamed_where_another_would_fit(tmp_path: Path, factor: float, unit: str):
    write_hdf5(tmp_path / "snap.hdf5", uniform(5000) * np.float32(factor))
    with pytest.raises(UserError, match=f"fill it if their unit of length were {unit}.* --length-unit"):
        cut(tmp_path / "snap.hdf5", tmp_path / "out.h5")


def write_wrong(folder: Path, kind: str) -> tuple[list[str], list[str]]:
    """Write wrong inputs; return their names and further words."""
    path = folder / "snap.hdf5"
    everything = uniform(4000)
    if kind == "slab":
        write_hdf5(path, everything[everything[:, 2] < BOX / 10])
    if kind == "larger box":
        write_hdf5(path, everything * np.float32(1.05))
    if kind == "copies":
        write_hdf5(path, everything)
        write_hdf5(folder / "again.hdf5", everything[::-1])
        return [str(path), str(folder / "again.hdf5")], []
    return [str(path)], ["--axes", "z", "--box-size", "100 Mpc/h"]


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("slab", "90% of the volume is empty"),
        ("larger box", "but the box is 100 Mpc/h wide"),
        ("copies", "grew from the same initial conditions"),
    ],
)
def test_wrong_inputs_are_one_sentence_of_the_command(
    tmp_path: Path, kind: str, sentence: str, capsys: pytest.CaptureFixture[str]
):
    names, more = write_wrong(tmp_path, kind)
    words = ["slice", *names, "--pixels", "8", "--out", str(tmp_path / "out.h5"), *more]
    assert main(words) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("cosmogan slice: ")
    assert sentence in last
    assert not (tmp_path / "out.h5").exists()


def test_a_part_that_is_allowed_says_so_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    names, more = write_wrong(tmp_path, "slab")
    out = str(tmp_path / "out.h5")
    assert main(["slice", *names, "--pixels", "8", "--out", out, *more, "--allow-partial"]) == 0
    doubt = "90% of the volume of snap.hdf5 is empty (--allow-partial)"
    assert doubt in capsys.readouterr().err
    assert main(["check", out]) == 0
    assert f"says of itself: {doubt}" in capsys.readouterr().out
    assert main(["info", out]) == 0
    assert f"warning       {doubt}" in capsys.readouterr().out
    merged = str(tmp_path / "merged.h5")
    write_hdf5(tmp_path / "whole.hdf5", uniform(4000, seed=9))
    cut(tmp_path / "whole.hdf5", tmp_path / "whole.h5", realisation=[1])
    assert main(["merge", str(tmp_path / "whole.h5"), out, "--out", merged]) == 0
    assert read_provenance(merged)["not_trustworthy"] == doubt
    notes = compare(str(tmp_path / "whole.h5"), out, sets=False).notes
    assert f"The file of the reference says of itself: {doubt}." in notes
