"""Emulators that start from boxes: slice i of a seed alone, labels, fewer slices of a box, boxes of simulations."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from cosmogan import Emulator
from cosmogan.cli import main
from cosmogan.emulator.onnx import write_onnx
from cosmogan.emulator.starts import BoxStarts, MockBoxes, StartMaker, box_seed, make_boxes, neighbours
from cosmogan.errors import UserError
from cosmogan.networks.gravity_start import GravityStartGenerator
from cosmogan.slices import SliceMetadata, SliceReader
from cosmogan.transforms import LogTransform
from cosmogan.units import RODRIGUEZ2018, Cosmology
from data_tools.simulation import realisations
from data_tools.simulation.simulate import simulate

SIDE, PARTICLES = 8, 8
PER_BOX = 3 * SIDE
METADATA = SliceMetadata(box_size=70.0, n_pixels=SIDE, thickness=70 / SIDE, smoothing=1.0, cosmology=RODRIGUEZ2018)


def power(wavenumber: np.ndarray) -> np.ndarray:
    return 30 / wavenumber


def generator() -> GravityStartGenerator:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made = GravityStartGenerator(
            SIDE, start_particles=PARTICLES, start_steps=2, width=4, smoothing=1.0, mean_count=1.0
        )
    with torch.no_grad():
        made.network.leave.weight.normal_(std=0.2, generator=torch.Generator().manual_seed(2))
        made.linear_wavenumber.copy_(torch.logspace(-2, 1, len(made.linear_wavenumber)))
        made.linear_power.copy_(torch.from_numpy(power(made.linear_wavenumber.numpy())))
    return made


@pytest.fixture
def emulator() -> Emulator:
    training = {"realisations": [1, 2], "phases": "same", "n_slices_seen": 5}
    return Emulator(generator(), LogTransform(), metadata=METADATA, training=training)


@pytest.fixture
def saved(emulator: Emulator, tmp_path: Path) -> Path:
    emulator.save(tmp_path / "e.safetensors")
    return tmp_path / "e.safetensors"


@pytest.fixture
def simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(realisations, "linear_power", lambda cosmology, k_max: power)
    [path] = simulate(
        box_size="70 Mpc/h",
        particles=PARTICLES,
        seeds="7,3",
        steps=2,
        mesh=PARTICLES,
        slice_pixels=SIDE,
        smoothing=1.0,
        out=str(tmp_path / "simulated.h5"),
        device="cpu",
    )
    return path


def test_a_slice_depends_on_seed_and_number_only(emulator: Emulator):
    whole = emulator.sample(2 * PER_BOX + 5, seed=4)
    numbers = [PER_BOX + 3, 2, 2 * PER_BOX + 4, 3]
    assert np.array_equal(emulator.sample(indices=numbers, seed=4), whole[numbers])
    assert np.array_equal(emulator.sample(5, first=PER_BOX - 2, seed=4), whole[PER_BOX - 2 : PER_BOX + 3])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert np.array_equal(emulator.sample(2 * PER_BOX + 5, seed=4), whole)
    finally:
        torch.set_num_threads(threads)
    assert not np.array_equal(emulator.sample(1, seed=5), whole[:1])


def test_a_start_is_the_slab_with_its_periodic_neighbours():
    counts = torch.arange(2 * 3 * 4).reshape(2, 3, 4, 1, 1).to(torch.int16)
    found = neighbours(counts, torch.tensor([[1, 2, 0], [0, 1, 3]])).flatten(1)
    assert found.tolist() == [[20, 23, 21], [7, 6, 4]]
    starts = BoxStarts(counts)
    assert len(starts) == 24
    assert starts.take(np.array([20])).flatten().tolist() == [20, 23, 21]


def test_boxes_are_no_simulations_that_people_make():
    seeds = {box_seed(seed, box) for seed in range(20) for box in range(20)}
    assert len(seeds) == 400
    assert min(seeds) >= 2**31


def test_mocks_of_a_seed_are_whole_boxes(emulator: Emulator):
    counts = torch.stack([emulator.boxes.maker.counts(box_seed(0, box)) for box in range(2)])
    # As many particles along each axis.
    assert counts.sum((2, 3, 4)).unique().tolist() == [PARTICLES**3]
    taken = torch.cat([emulator.boxes.take(range(box * PER_BOX, (box + 1) * PER_BOX), 0) for box in range(2)])
    assert torch.equal(taken[:, 0], counts.reshape(-1, SIDE, SIDE).float())


def test_the_file_says_which_box_and_slab(saved: Path, tmp_path: Path):
    assert main(["generate", str(saved), "-n", "30", "--out", str(tmp_path / "m.h5")]) == 0
    with SliceReader(tmp_path / "m.h5") as reader:
        assert reader.realisation.tolist() == [0] * 24 + [1] * 6
        assert reader.axis.tolist() == [0] * 8 + [1] * 8 + [2] * 8 + [0] * 6
        np.testing.assert_allclose(reader.position[:9], [8.75 * i for i in range(8)] + [0.0])
        assert reader.provenance["slices_per_box"] == PER_BOX
        assert reader.provenance["start"] == "COLA, 8^3 particles, mesh 8^3, 2 steps"
        whole = reader.density(0, 30)
    # Shards begin at a box, and are its slices.
    words = ["generate", str(saved), "-n", "30", "--shards", "2", "--out", str(tmp_path / "s.h5")]
    assert main(words) == 0
    with SliceReader(tmp_path / "s.h5") as reader:
        assert np.array_equal(reader.density(0, 30), whole)
        assert reader.realisation.tolist() == [0] * 24 + [1] * 6
    with h5py.File(tmp_path / "s_00000-of-00002.h5") as file:
        assert len(file["slices"]) == 24
    compressed = ["generate", str(saved), "-n", "30", "--compression", "gzip", "--out", str(tmp_path / "c.h5")]
    assert main(compressed) == 0
    with SliceReader(tmp_path / "c.h5") as reader:
        assert reader.axis.tolist() == [0] * 8 + [1] * 8 + [2] * 8 + [0] * 6


def test_fewer_slices_of_a_box_are_spread_over_it(emulator: Emulator):
    few = emulator.spread(6)
    box, axis, position = few.labels(range(8))
    assert box.tolist() == [0] * 6 + [1] * 2
    assert axis.tolist() == [0, 0, 1, 1, 2, 2, 0, 0]
    assert position.tolist() == [0, 35, 0, 35, 0, 35, 0, 35]
    # The same slabs as in a run of whole boxes, but for the noise that goes with their numbers.
    start = emulator.boxes.take([PER_BOX + 4], 0)
    assert torch.equal(few.boxes.take([7], 0), start)
    assert few.provenance["slices_per_box"] == 6


def test_mocks_like_simulations_are_those_boxes(saved: Path, simulated: Path, tmp_path: Path):
    out = tmp_path / "like.h5"
    assert main(["generate", str(saved), "--like", str(simulated), "--out", str(out)]) == 0
    with SliceReader(out) as mocks, SliceReader(simulated) as reader:
        for name in ("realisation", "axis", "position"):
            assert np.array_equal(getattr(mocks, name), getattr(reader, name)), name
        truth, made = reader.density(0, 48), mocks.density(0, 48)
    # Simulated with the steps and the mesh of the start.
    copied = Emulator(generator(), LogTransform(), metadata=METADATA)
    with torch.no_grad():
        copied.generator.network.leave.weight.zero_()
    np.testing.assert_allclose(copied.like(simulated).sample(48), truth, rtol=1e-3, atol=1e-4)
    assert not np.allclose(made, truth)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["-n", "49"], "the simulations to be like have 48 slices; expected no more, found 49"),
        (["-n", "9", "--slices-per-box", "25"], "slices_per_box: expected 1 to 24"),
        (["-n", "9", "--slices-per-box", "0"], "slices_per_box: expected 1 to 24"),
    ],
)
def test_what_boxes_have_not_is_refused(
    words: list[str], sentence: str, saved: Path, simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    like = ["--like", str(simulated)] if words == ["-n", "49"] else []
    assert main(["generate", str(saved), *words, *like, "--out", str(tmp_path / "m.h5")]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "m.h5").exists()


def test_a_number_is_needed_where_there_is_no_end_of_boxes(saved: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["generate", str(saved), "--out", "m.h5"]) == 2
    assert "-n: expected the number of slices" in capsys.readouterr().err


def test_other_files_are_not_to_be_like(emulator: Emulator, simulated: Path, tmp_path: Path):
    emulator_of_more = Emulator(GravityStartGenerator(SIDE, start_particles=16), LogTransform(), metadata=METADATA)
    with pytest.raises(UserError, match=r"simulated with 8\^3 particles in 70 Mpc/h; .* have 16\^3"):
        emulator_of_more.like(simulated)
    main(["merge", str(simulated), "--out", str(tmp_path / "merged.h5")])
    with h5py.File(simulated, "r+") as file:
        file["axis"][3] = 2
    with pytest.raises(UserError, match="does not hold all 24 slabs of each realisation in the order"):
        emulator.like(simulated)
    with h5py.File(simulated, "r+") as file:
        del file["provenance"].attrs["parameters"]
    with pytest.raises(UserError, match="does not say how its slices were simulated"):
        emulator.like(simulated)


def test_emulators_of_noise_have_no_boxes(spectral: Emulator, tmp_path: Path):
    with pytest.raises(UserError, match="start from noise and are independent already"):
        spectral.spread(4)
    with pytest.raises(UserError, match="starts from noise, which no simulation has"):
        spectral.like(tmp_path / "any.h5")
    assert spectral.labels(range(3)) is None


def test_onnx_holds_no_simulation(emulator: Emulator, tmp_path: Path):
    with pytest.raises(UserError, match="starts from simulations, which no ONNX file can hold"):
        write_onnx(emulator, tmp_path / "e.onnx")


def test_a_start_needs_slabs_that_fill_the_box():
    thick = SliceMetadata(box_size=70.0, n_pixels=SIDE, thickness=4.0, cosmology=RODRIGUEZ2018)
    with pytest.raises(UserError, match=r"slabs that fill its box of 70 Mpc/h, and slices 4 Mpc/h thick do not"):
        StartMaker(generator(), thick)


def test_a_start_needs_a_power_spectrum_and_a_cosmology():
    without = GravityStartGenerator(SIDE, start_particles=PARTICLES)
    with pytest.raises(UserError, match="holds no linear power spectrum"):
        StartMaker(without, METADATA).counts(1)
    unknown = SliceMetadata(box_size=70.0, n_pixels=SIDE, thickness=70 / SIDE, cosmology=Cosmology(omega_m=0.3))
    with pytest.raises(UserError, match="is unknown and the simulation needs it"):
        StartMaker(without, unknown).tabulate()


def test_the_table_of_the_power_spectrum_is_cambs():
    maker = StartMaker(generator(), METADATA)
    maker.tabulate()
    table = maker._generator.linear_wavenumber.numpy(), maker._generator.linear_power.numpy()
    from data_tools.simulation.linear import linear_power

    k = np.geomspace(2 * np.pi / 70, np.sqrt(3) * np.pi * PARTICLES / 70, 57)
    wanted = linear_power(RODRIGUEZ2018, 2.0)(k)
    np.testing.assert_allclose(np.exp(np.interp(np.log(k), *map(np.log, table))), wanted, rtol=2e-4)


def test_boxes_in_parallel_are_those_one_by_one():
    maker = StartMaker(generator(), METADATA)
    assert torch.equal(make_boxes(maker, [1, 2, 3]), torch.stack([maker.counts(seed) for seed in (1, 2, 3)]))


def test_boxes_are_kept_while_their_slices_are_made(monkeypatch: pytest.MonkeyPatch):
    maker, made = StartMaker(generator(), METADATA), []
    whole = maker.counts
    monkeypatch.setattr(maker, "counts", lambda seed: made.append(seed) or whole(seed))
    boxes = MockBoxes(maker)
    for number in range(PER_BOX):
        boxes.take([number], 0)
    assert made == [box_seed(0, 0)]
