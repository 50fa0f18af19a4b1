"""The paper's case within a budget: what is planned, what is done again, what is refused; all of it at toy size."""

import functools
import importlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from cosmogan.emulator.emulator import Emulator
from cosmogan.errors import UserError
from cosmogan.networks.spectral_prior import SpectralPriorGenerator
from cosmogan.slices import SliceReader, read_slices
from cosmogan.units import RODRIGUEZ2018
from data_tools.published.convert import convert
from data_tools.simulation.linear import gaussian_field, linear_power
from data_tools.simulation.realisations import run_seed
from data_tools.slicing.slabs import SlabCounter, append_slabs
from data_tools.slicing.slicing import SliceWriter

FOLDER = Path(__file__).parents[2] / "benchmarks" / "emulators" / "reference"
# CAMB's table of 1000 points and ours of 900, both linear in log-log, each off by up to 5e-4.
_TABLE = 1.5e-3
# Transforms in float32 of the same noise, relative to the rms of the field.
_FIELD = 1e-5
# Sums of 81 float32 products against scipy's in float64.
_SMOOTHED = 2e-6


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    former = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(sys, "path", [str(FOLDER), str(FOLDER.parent), *sys.path])
    yield importlib.import_module
    signal.signal(signal.SIGTERM, former)


@pytest.fixture
def budget(load: Any) -> ModuleType:
    return load("budget")


@pytest.fixture
def run(load: Any) -> ModuleType:
    return load("run")


@pytest.fixture
def simulations(load: Any) -> ModuleType:
    return load("simulations")


def test_all_realisations_where_there_is_time(budget: ModuleType) -> None:
    wanted = budget.Realisations(32, 16)
    seconds = {"box500": 3.0, "box100": 6.0}
    assert budget.plan_realisations(seconds, wanted, left=1600, budget=1680) == wanted
    # 5% more than their share of the time: not all of them any more.
    most = budget.SIMULATION_SHARE * 1680 / (48 * 9.0) * 1.05
    fewer = budget.plan_realisations({b: s * most for b, s in seconds.items()}, wanted, left=1600, budget=1680)
    assert fewer.total < 48


def test_fewer_realisations_keep_the_shares(budget: ModuleType) -> None:
    """Time for 24 of 48: two thirds of them to learn from."""
    planned = budget.plan_realisations({"box100": 10.0}, budget.Realisations(32, 16), left=540, budget=540)
    assert (planned.training, planned.test, planned.validation) == (16, 8, 4)
    assert planned.total * 10.0 <= budget.SIMULATION_SHARE * 540


def test_too_little_time_is_refused_and_rehearsed(budget: ModuleType) -> None:
    wanted = budget.Realisations(32, 16)
    with pytest.raises(UserError, match=r"--minutes 2: simulations take box100 60 s each .* give --minutes 12 or more"):
        budget.plan_realisations({"box100": 60.0}, wanted, left=120, budget=120)
    # What the sentence asks for is enough.
    assert budget.plan_realisations({"box100": 60.0}, wanted, left=720, budget=720).total >= 5
    least = budget.plan_realisations({"box100": 60.0}, wanted, left=120, budget=120, rehearsal=True)
    assert (least.training, least.test) == (3, 2)


def test_trainings_share_what_scores_and_simulations_leave(budget: ModuleType) -> None:
    """Each takes what it is given: together all the free time, and the same for each box."""
    left, waiting, given = 1000.0, ["ours", "ours", "rodriguez2018", "rodriguez2018"], []
    for recipe in list(waiting):
        own = ["ours", "rodriguez2018"]
        given.append(budget.training_seconds(left, 1000, simulations=0, recipe=recipe, waiting=waiting, own=own))
        left, waiting = left - given[-1], waiting[1:]
    assert sum(given) == pytest.approx(1000 * (1 - budget.SCORING_SHARE))
    assert given[0] == pytest.approx(given[1])
    assert given[2] == pytest.approx(given[3])
    assert given[0] / given[2] == pytest.approx(budget.SHARES["ours"] / budget.SHARES["rodriguez2018"])
    alone = budget.training_seconds(1000, 1000, simulations=200, recipe="rodriguez2018", waiting=own[1:], own=own[1:])
    assert alone == pytest.approx(1000 * (1 - budget.SCORING_SHARE) - 200)
    assert budget.training_seconds(100, 1000, simulations=0, recipe="ours", waiting=["ours"], own=["ours"]) == 0


def test_slices_to_see_fit_into_the_time(budget: ModuleType) -> None:
    """Whole passes with their validations; where there is no time for one, whole steps; never more than asked for."""
    settings = {"rate": 100.0, "validation": 2.0, "per_pass": 1000, "batch_size": 64}
    seen = budget.slices_to_see(1000, 130.0, **settings)
    n_passes = (seen - 1000) // 1000
    assert seen % 1000 == 0
    assert n_passes == 10
    assert n_passes * (1000 / 100.0 + 2.0) <= 130.0 < (n_passes + 1) * 12.0
    assert budget.slices_to_see(1000, 5.0, **settings) == 1000 + 64 * (int(0.93 * 5.0 / 0.012) // 64)
    assert budget.slices_to_see(1000, 0.0, **settings) == 1000
    assert budget.slices_to_see(1000, 130.0, **settings, most=3000) == 3000


def test_clock_counts_earlier_commands_and_this_one(budget: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = [50.0]
    monkeypatch.setattr(budget, "now", lambda: seconds[0])
    clock = budget.Clock(100.0, used=30.0, limit=40.0)
    assert (clock.left, clock.left_now) == (70.0, 40.0)
    seconds[0] += 35
    assert (clock.used, clock.left, clock.left_now) == (65.0, 35.0, 5.0)


def test_pace_of_rows(load: Any) -> None:
    """100 slices/s after a slow start; a validation of 3 s takes no part in it."""
    rows = [(0.0, 100, False), (5.0, 200, False), (6.0, 300, False), (7.0, 400, False), (10.5, 450, True)]
    rows += [(11.0, 500, False), (12.0, 600, False)]
    pace = load("learning").Pace(rows)
    assert pace.rate == pytest.approx(100.0)
    assert pace.validation == pytest.approx(3.0)
    assert load("learning").Pace(rows[:1]).rate is None
    assert load("learning").Pace().validation is None


def test_table_is_cambs(simulations: ModuleType) -> None:
    pytest.importorskip("camb")
    k = np.geomspace(2e-3, 44, 500)
    table = simulations.LinearPower(RODRIGUEZ2018, 44.0)(torch.from_numpy(k)).numpy()
    expected = linear_power(RODRIGUEZ2018, 45.0)(k)
    np.testing.assert_allclose(table, expected, rtol=_TABLE)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(1.05 * table, expected, rtol=_TABLE)
    with pytest.raises(UserError, match="ends at k = 45"):
        simulations.LinearPower(RODRIGUEZ2018, 46.0)


def test_field_is_that_of_the_package(simulations: ModuleType) -> None:
    power = simulations.LinearPower(RODRIGUEZ2018, 10.0)
    noise = np.random.default_rng(3).standard_normal((16,) * 3, dtype=np.float32)
    found = simulations.linear_field(power, noise, 70.0, torch.device("cpu")).numpy()
    expected = gaussian_field(lambda k: power(torch.from_numpy(k)).numpy(), n_grid=16, box_size=70.0, seed=3)
    assert np.abs(found - expected).max() < _FIELD * expected.std()
    assert np.abs(1.05 * found - expected).max() > _FIELD * expected.std()


@pytest.mark.parametrize(("slabs", "every"), [(16, 1), (16, 2), (8, 1), (4, 3)])
def test_simulations_are_those_of_the_package(simulations: ModuleType, tmp_path: Path, slabs: int, every: int) -> None:
    """Same seed: same slices, labels and metadata as particles of `run_seed` in a `SlabCounter`."""
    geometry = simulations.Geometry(particles=16, pixels=16, slabs=slabs, every=every, training=1, test=1)
    (seed,) = simulations.simulate(70.0, geometry, [5], tmp_path / "parts", torch.device("cpu"))
    simulations.join(tmp_path / "parts", [seed], tmp_path / "slices.h5")
    assert not list((tmp_path / "parts").iterdir())
    power = simulations.LinearPower(RODRIGUEZ2018, 40.0)
    parameters = simulations.parameters_of(70.0, geometry)
    device = torch.device("cpu")
    positions = run_seed(parameters, lambda k: power(torch.from_numpy(k)).numpy(), 5, device=device)
    counter = SlabCounter(box_size=70.0, pixels=16, slabs=slabs, every=every)
    counter.add(positions)
    expected = tmp_path / "expected.h5"
    with SliceWriter(expected, simulations.metadata_of(70.0, geometry), n_slices=geometry.n_slices) as writer:
        append_slabs(writer, counter, realisation=5)
    found = read_slices(tmp_path / "slices.h5").slices
    np.testing.assert_allclose(found, read_slices(expected).slices, rtol=_SMOOTHED)
    with SliceReader(tmp_path / "slices.h5") as ours, SliceReader(expected) as theirs:
        np.testing.assert_array_equal(ours.axis, theirs.axis)
        np.testing.assert_allclose(ours.position, theirs.position, rtol=1e-6)
        assert ours.provenance["seeds"] == "5"


def test_cubes_hold_the_slices(
    load: Any, simulations: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut of the cubes elsewhere, slices are those that the run wrote; `cosmogan convert` knows the cubes, too."""
    of_cubes, geometry = load("slices_of_cubes"), simulations.GEOMETRIES["toy"]
    seeds = list(simulations.simulate(70.0, geometry, [2, 10], tmp_path, torch.device("cpu"), cubes=tmp_path))
    simulations.join(tmp_path, seeds, tmp_path / "slices.h5")
    cubes = [str(tmp_path / f"32_nbody_70Mpc_{seed}.h5") for seed in (10, 2)]
    words = ["--geometry", "toy", "--out", str(tmp_path / "of_cubes.h5")]
    assert of_cubes.main([*cubes, *words]) == 0
    with SliceReader(tmp_path / "slices.h5") as ours, SliceReader(tmp_path / "of_cubes.h5") as theirs:
        assert ours.metadata == theirs.metadata
        for name in ("realisation", "axis", "position"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    expected = read_slices(tmp_path / "slices.h5").slices
    np.testing.assert_array_equal(read_slices(tmp_path / "of_cubes.h5").slices, expected)
    convert(cubes, out=str(tmp_path / "converted.h5"), smoothing=1.0)
    converted = read_slices(tmp_path / "converted.h5")
    in_order = np.argsort(converted.realisation, kind="stable")
    np.testing.assert_allclose(converted.slices[in_order], expected, rtol=_SMOOTHED)
    # Another number of particles: cut short, or of another run.
    with h5py.File(cubes[0], "r+") as file:
        file["data"][0, 0, 0] += 1
    assert of_cubes.main([*cubes, *words, "--overwrite"]) == 2
    assert "10.h5: holds 32769 particles, expected 32768; bring it again" in capsys.readouterr().err
    assert of_cubes.main([str(tmp_path / "slices.h5"), *words, "--overwrite"]) == 2
    assert "slices.h5: expected a cube of the run" in capsys.readouterr().err


def test_slices_see_a_shift(simulations: ModuleType) -> None:
    """The twin: positions moved by a twentieth of a pixel are other slices."""
    geometry = simulations.Geometry(particles=16, pixels=16, slabs=16, every=1, training=1, test=1)
    positions = torch.rand(4096, 3, generator=torch.Generator().manual_seed(0)) * 69.0
    cubes = (simulations.count(p, 70.0, 16) for p in (positions, positions + 0.2))
    one, other = ([s for *_, s in simulations.cut(cube, 70.0, geometry)] for cube in cubes)
    assert np.abs(one[0] / other[0] - 1).max() > 100 * _SMOOTHED


def toy(tmp_path: Path, *words: str) -> list[str]:
    places = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    return ["--toy", "--boxes", "box500", *places, *words]


def refusal(run: ModuleType, words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert run.main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_refusals_are_one_sentence(run: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--minutes: expected more than 0" in refusal(run, toy(tmp_path, "--minutes", "0"), capsys)
    assert "names a box twice" in refusal(run, toy(tmp_path, "--boxes", "box100", "box100"), capsys)
    assert "--realisations 2 2: expected at least 3 to train" in refusal(
        run, toy(tmp_path, "--realisations", "2", "2"), capsys
    )
    assert "is --work, too" in refusal(run, toy(tmp_path, "--out", str(tmp_path / "work")), capsys)
    assert "device: 'nowhere'" in refusal(run, toy(tmp_path, "--device", "nowhere"), capsys)
    reference = run.Reference(run.parse(toy(tmp_path)))
    reference.save()
    sentence = refusal(run, toy(tmp_path, "--mocks", "7"), capsys)
    assert "was begun with mocks 300, not 7; go on with the same settings or in another --work" in sentence
    (tmp_path / "work" / "state.json").write_text("{", encoding="utf-8")
    assert "state.json: is damaged" in refusal(run, toy(tmp_path), capsys)


def test_stages_are_done_once_and_noted(run: ModuleType, tmp_path: Path) -> None:
    """A stage that failed is done again, one that is done is not, also by another command; times add up."""
    calls: list[str] = []

    def work(found: dict[str, Any]) -> None:
        calls.append("work")
        if len(calls) == 1:
            raise run.OutOfTime
        found["answer"] = 42

    first = run.Reference(run.parse(toy(tmp_path)))
    with pytest.raises(run.OutOfTime):
        first.once("stage", work)
    first.once("stage", work)
    second = run.Reference(run.parse(toy(tmp_path)))
    second.once("stage", work)
    assert len(calls) == 2
    assert second.state["done"]["stage"]["answer"] == 42
    assert second.clock.used >= first.state["used_seconds"] > 0


def test_simulations_go_on_where_they_stopped(run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Realisations that are there are not made again; none is begun for which there is no time."""
    asked: list[list[int]] = []

    def pretend(side: float, geometry: Any, seeds: list[int], folder: Path, device: Any, **more: Any) -> Iterator[int]:
        asked.append(seeds)
        for seed in seeds:
            path = run.part(folder, seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            yield seed

    monkeypatch.setattr(run, "simulate", pretend)
    reference = run.Reference(run.parse(toy(tmp_path)))
    reference.simulate("box500", [1, 2])
    reference.simulate("box500", [1, 2, 3])
    assert asked == [[1, 2], [3]]
    # Training slices are joined and their parts gone; interrupted before the test slices are there.
    reference.state["plan"] = {"training": 3, "test": 2, "seconds_per_simulation": {"box500": 1.0}}
    reference.slices("box500", "training").touch()
    monkeypatch.setattr(run, "join", lambda folder, seeds, path: path.touch())
    reference.simulate_all("box500")
    assert asked == [[1, 2], [3], [1001, 1002]]
    reference.simulate_all("box500")
    assert len(asked) == 3
    reference.slices("box500", "test").unlink()
    reference.state["simulation"]["box500"]["seconds"] = [1000.0]
    with pytest.raises(run.OutOfTime):
        reference.simulate("box500", [4])
    assert not run.part(tmp_path / "work" / "box500-parts", 4).exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_whole_run_through_interruptions(
    run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM in the training, a command too short, then to the end: both recipes in one scoreboard, usable weights."""
    monkeypatch.setattr(SpectralPriorGenerator, "REFIT_LARGEST", 2**15)
    monkeypatch.setattr(run, "_TWO_SAMPLE", 1.0)
    two_sample = functools.partial(run.judging.compare_two_sample, n_steps=4)
    monkeypatch.setattr(run.judging, "compare_two_sample", two_sample)
    # In processor time, so that a busy machine does as much as a quiet one.
    monkeypatch.setattr(sys.modules["budget"], "now", time.process_time)
    monkeypatch.setattr(run, "now", time.process_time)
    monkeypatch.setattr(run, "_END", 1.0)
    words = toy(tmp_path, "--mocks", "64", "--minutes", "2")
    work, out = tmp_path / "work", tmp_path / "out"
    killed = threading.Event()

    def kill() -> None:
        # Behind the first validation: in the second leg of the training.
        while not killed.wait(0.05):
            if (work / "box500-ours" / "best.ckpt").exists() and "max_slices" in (work / "state.json").read_text():
                time.sleep(1.0)
                os.kill(os.getpid(), signal.SIGTERM)
                return

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with pytest.raises(SystemExit) as end:
        run.main(words)
    killed.set()
    killer.join()
    assert end.value.code == 143
    state = json.loads((out / "results.json").read_text())
    assert "train box500 ours" not in state["done"]
    (realised,) = (state["simulation"][box]["seconds"] for box in state["simulation"])
    assert len(realised) == state["plan"]["training"] + state["plan"]["test"]
    seen = run.learning.slices_seen(work / "box500-ours")
    assert seen > 0
    # A command of no length worth speaking of does nothing and says so.
    assert run.main([*words, "--this-command", "0.01"]) == 3
    # The two-sample test comes last, where time is left.
    assert run.main(words) in (0, 3)
    assert run.main([*words[:-1], "30"]) == 0
    results = json.loads((out / "results.json").read_text())
    assert results["simulation"] == state["simulation"] or results["simulation"]["box500"]["seconds"] == realised
    ours, paper = (results["done"][f"train box500 {recipe}"] for recipe in ("ours", "rodriguez2018"))
    assert ours["n_slices_seen"] >= seen
    for training in (ours, paper):
        assert training["rate"] > 0
        assert 0 < training["share_of_ceiling"]["float32"] < 1
        assert training["operations_per_second"] == training["rate"] * training["operations_per_slice"]["training"]
    assert results["used_seconds"] > state["used_seconds"]
    for recipe in ("ours", "rodriguez2018"):
        assert results["done"][f"generate box500 {recipe}"]["sampling"]["slices_per_second"] > 0
    record = json.loads((out / "box500-32.json").read_text())
    assert set(record["candidates"]) == {"ours", "rodriguez2018"}
    for held in record["candidates"].values():
        assert held["n_slices"] == 64
        assert held["rows"]["power_spectrum"]["training"]["median"] >= 0
        assert "test" in held["rows"]["power_spectrum"]
    emulator = Emulator.load(out / "box500.safetensors")
    assert emulator.training["refitted"]
    assert record["candidates"]["ours"]["source_sha256"] == results["done"]["export box500 ours"]["sha256"]
    assert not set(emulator.training["realisations"]) & set(record["test"]["realisations"])
    assert np.isfinite(emulator.sample(2, seed=1)).all()
    assert "rodriguez2018" in (out / "scoreboard.md").read_text()
    assert (out / "box500.png").read_bytes().startswith(b"\x89PNG")
    # Nothing is left to do, and nothing is done.
    done = results["done"]
    assert run.main(words) == 0
    assert json.loads((out / "results.json").read_text())["done"] == done
