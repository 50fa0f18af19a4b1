"""The run as a user sees it: files, units, seeds, interruption and resumption."""

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from cosmogan.errors import UserError
from cosmogan.slices import check_slices, read_slices
from cosmogan.units import RODRIGUEZ2018
from data_tools.simulation import realisations
from data_tools.simulation.linear import linear_power
from data_tools.simulation.simulate import parse_seeds, simulate
from data_tools.slicing.slicing import slice_snapshots
from data_tools.snapshots import open_snapshot

# The variance of a field of 32^3 modes scatters by 1 per cent; 5 per cent of the box changes it by 6.
VARIANCE_TOLERANCE = 0.03


@pytest.fixture
def power_law(monkeypatch: pytest.MonkeyPatch) -> None:
    """A spectrum that costs nothing, instead of CAMB's."""
    monkeypatch.setattr(realisations, "linear_power", lambda cosmology, k_max: lambda k: 30 / k)


def run(out: Path, **changes) -> list[Path]:
    values = {"box_size": "350 Mpc/h", "particles": 8, "steps": 2, "device": "cpu"}
    return simulate(out=str(out), **(values | changes))


def load(path: Path) -> np.ndarray:
    return np.concatenate(list(open_snapshot(path).positions()))


@pytest.mark.parametrize("box_size", ["500 Mpc", "350 Mpc/h", "350000 kpc/h"])
def test_box_size_is_read_with_its_unit(power_law, tmp_path: Path, box_size: str):
    [path] = run(tmp_path, box_size=box_size)
    header = open_snapshot(path).header
    assert header.box_size == 350.0
    assert header.cosmology == RODRIGUEZ2018
    assert header.n_particles == 512
    positions = load(path)
    assert positions.dtype == np.float32
    assert 0 <= positions.min() < 50
    assert 300 < positions.max() < 350


def test_snapshot_is_what_gadget_readers_expect(power_law, tmp_path: Path):
    [path] = run(tmp_path, redshift=1.0)
    assert path.name == "snapshot_350Mpch_seed0001.hdf5"
    with h5py.File(path) as handle:
        header = dict(handle["Header"].attrs)
        assert handle["PartType1/Coordinates"].shape == (512, 3)
        assert handle["Units"].attrs["UnitLength_in_cm"] == 3.085678e24
    assert header["NumPart_Total"].tolist() == [0, 512, 0, 0, 0, 0]
    assert header["NumPart_ThisFile"].tolist() == [0, 512, 0, 0, 0, 0]
    assert header["NumFilesPerSnapshot"] == 1
    assert (header["Redshift"], header["Time"]) == (1.0, 0.5)
    assert (header["Omega0"], header["HubbleParam"], header["sigma8"]) == (0.276, 0.7, 0.811)


def initial_variance(monkeypatch: pytest.MonkeyPatch, out: Path, box_size: str) -> float:
    """Variance of the linear overdensity that a simulation starts from, at redshift 0."""
    fields = []
    right = realisations.evolve

    def spy(field, *arguments, **options):
        fields.append(field)
        return right(field, *arguments, **options)

    monkeypatch.setattr(realisations, "evolve", spy)
    run(out, box_size=box_size, particles=32, steps=1, mesh=32)
    return float(fields[0].astype(float).var())


def test_initial_field_belongs_to_the_box_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    n, box = 32, 350.0
    k_1d = 2 * np.pi / box * np.arange(-n // 2 + 1, n // 2)
    k = np.sqrt(k_1d[:, None, None] ** 2 + k_1d[:, None] ** 2 + k_1d**2).ravel()
    expected = linear_power(RODRIGUEZ2018, 1.0)(k[k > 0]).sum() / box**3
    found = initial_variance(monkeypatch, tmp_path / "a", "500 Mpc")
    assert found == pytest.approx(expected, rel=VARIANCE_TOLERANCE)
    # The same code in a box that is 5 per cent off, or 500 Mpc/h, must not pass.
    for name, wrong in (("b", "525 Mpc"), ("c", "475 Mpc"), ("d", "500 Mpc/h")):
        off = initial_variance(monkeypatch, tmp_path / name, wrong)
        assert off != pytest.approx(expected, rel=VARIANCE_TOLERANCE)


def test_a_seed_gives_the_same_particles(power_law, tmp_path: Path):
    first, second = run(tmp_path / "a", seeds="1:2")
    [again] = run(tmp_path / "b", seeds="2")
    assert np.array_equal(load(second), load(again))
    assert not np.array_equal(load(first), load(second))


def test_the_lattice_is_shifted_with_the_seed(power_law, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(realisations, "gaussian_field", lambda *a, n_grid, **k: np.zeros((n_grid,) * 3, np.float32))
    spacing = 350 / 8
    phases = [np.unique(np.round(load(path) % spacing, 2), axis=0) for path in run(tmp_path, seeds="1:3")]
    # An undisturbed lattice stays one, and each seed has it elsewhere.
    assert all(len(phase) == 1 for phase in phases)
    assert np.abs(phases[0] - phases[1]).min() > 0.1
    assert np.abs(phases[1] - phases[2]).min() > 0.1


def count_runs(monkeypatch: pytest.MonkeyPatch, interrupt_at: int | None = None) -> list[int]:
    """List the seeds that are simulated; stop at one of them as Ctrl-C does."""
    seeds: list[int] = []
    right = realisations.run_seed

    def counted(parameters, power, seed, **options):
        seeds.append(seed)
        if seed == interrupt_at:
            raise KeyboardInterrupt
        return right(parameters, power, seed, **options)

    monkeypatch.setattr(realisations, "run_seed", counted)
    return seeds


@pytest.mark.parametrize("options", [{}, {"slice_pixels": 4}], ids=["snapshots", "slices"])
def test_an_interrupted_run_resumes(power_law, monkeypatch, tmp_path: Path, capsys, options: dict):
    out = tmp_path / "out"
    expected = run(tmp_path / "whole", seeds="1:3", **options)
    with monkeypatch.context() as patch:
        count_runs(patch, interrupt_at=2)
        with pytest.raises(KeyboardInterrupt):
            run(out, seeds="1:3", **options)
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".part"]
    assert not out.is_file()
    assert not list(out.glob("*seed0002*"))

    seeds = count_runs(monkeypatch)
    found = run(out, seeds="1:3", **options)
    assert seeds == [2, 3]
    assert "skipped: seed 1; simulating 2, 3" in capsys.readouterr().err
    if options:
        assert np.array_equal(read_slices(found[0]).slices, read_slices(expected[0]).slices)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]
    else:
        assert all(np.array_equal(load(a), load(b)) for a, b in zip(found, expected, strict=True))
    run(out, seeds="1:3", **options)
    assert seeds == [2, 3]


def test_an_interrupted_write_leaves_no_file(power_law, monkeypatch, tmp_path: Path):
    right = h5py.Group.create_dataset

    def interrupted(self, name, *arguments, **options):
        right(self, name, *arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(h5py.Group, "create_dataset", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [{}, {"slice_pixels": 4}], ids=["snapshots", "slices"])
def test_files_with_other_parameters_are_kept(power_law, monkeypatch, tmp_path: Path, options: dict):
    out = tmp_path / "out"
    [path] = run(out, **options)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"made otherwise \(sigma8 0.811 instead of 0.9\)"):
        run(out, sigma8=0.9, **options)
    assert path.read_bytes() == before
    seeds = count_runs(monkeypatch)
    run(out, sigma8=0.9, overwrite=True, **options)
    assert seeds == [1]
    if not options:
        assert open_snapshot(path).header.cosmology.sigma8 == 0.9


@pytest.mark.parametrize(
    "options",
    [
        {"slice_pixels": 8, "slabs": 4, "smoothing": 1.0},
        {"slice_pixels": 8, "thickness": "70 Mpc/h", "quantity": "counts"},
    ],
)
def test_slices_are_those_of_the_snapshots(power_law, tmp_path: Path, options: dict):
    snapshots = run(tmp_path / "snapshots", seeds="3,5")
    [direct] = run(tmp_path / "direct.h5", seeds="3,5", **options)
    others = {name: value for name, value in options.items() if name != "slice_pixels"}
    via = slice_snapshots([str(p) for p in snapshots], out=str(tmp_path / "via.h5"), pixels=8, **others)
    first, second = read_slices(direct), read_slices(via)
    assert check_slices(direct) == []
    assert first.metadata == second.metadata
    for name in ("slices", "realisation", "axis", "position"):
        assert np.array_equal(getattr(first, name), getattr(second, name))


def test_provenance_tells_how_a_file_was_made(power_law, tmp_path: Path):
    [path] = run(tmp_path / "slices.h5", seeds="3,5", slice_pixels=4)
    with h5py.File(path) as handle:
        provenance = dict(handle["provenance"].attrs)
    assert provenance["seeds"] == "3,5"
    assert json.loads(provenance["parameters"])["cosmology"]["sigma8"] == 0.811


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"box_size": "350"}, "with its unit"),
        ({"particles": 7}, "particles must be even"),
        ({"mesh": 6}, "mesh must be even and not below particles"),
        ({"steps": 0}, "steps: expected at least 1, found 0"),
        ({"redshift": 9.0}, "redshift must lie"),
        ({"seeds": "1-4"}, "expected whole numbers"),
        ({"seeds": "4:1"}, "range '4:1' is empty"),
        ({"seeds": "1,1"}, "occurs twice"),
        ({"seeds": ""}, "expected whole numbers"),
        ({"device": "abacus"}, "device: 'abacus'"),
        ({"omega_m": 1.2}, "omega_m must not exceed 1"),
        ({"omega_b": -0.1}, "omega_b must be positive"),
        ({"slabs": 4}, "give slice_pixels"),
        ({"slice_pixels": 4, "quantity": "counts", "smoothing": 1.0}, "smoothed counts"),
        ({"slice_pixels": 4, "thickness": "100 Mpc/h"}, "does not divide"),
    ],
)
def test_bad_parameters_are_one_sentence(power_law, tmp_path: Path, changes: dict, sentence: str):
    with pytest.raises(UserError, match=sentence):
        run(tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_noticed_beforehand(power_law, monkeypatch, tmp_path: Path):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    seeds = count_runs(monkeypatch)
    with pytest.raises(UserError, match=r"needs .* MB and 0\.001 MB are free in"):
        run(tmp_path)
    assert seeds == []


def test_cost_is_told_before_the_start(power_law, tmp_path: Path, capsys):
    run(tmp_path, seeds="1:2")
    text = capsys.readouterr().err
    assert "simulating 2 x 8^3 particles in 350 Mpc/h (500 Mpc), 2 steps" in text
    assert re.search(r"about 0\.4 GB of memory and about \d+(\.\d)? m?s\n", text)


def test_default_steps_depend_on_the_box(power_law, tmp_path: Path):
    for box_size, steps in (("500 Mpc", 15), ("100 Mpc", 30)):
        [path] = run(tmp_path / str(steps), box_size=box_size, steps=None)
        with h5py.File(path) as handle:
            assert json.loads(handle["Provenance"].attrs["parameters"])["steps"] == steps


def test_seeds_are_read():
    assert parse_seeds("1:4") == [1, 2, 3, 4]
    assert parse_seeds("3") == [3]
    assert parse_seeds("1,4, 7") == [1, 4, 7]
