"""The scoreboard in benchmarks/accuracy: what it says of numbers, and the way from slices to a shipped emulator."""

import importlib
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from cosmogan import Emulator
from cosmogan.emulator.card import model_card
from cosmogan.errors import UserError
from cosmogan.files import file_sha256
from cosmogan.networks.spectral_prior.generator import SpectralPriorGenerator
from cosmogan.slices import read_slices, write_example, write_slices
from cosmogan.transforms import GaussianisingTransform
from tests.cosmogan.conftest import untrained

FOLDER = Path(__file__).parents[2] / "benchmarks" / "emulators"


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("scoreboard_page")


@pytest.fixture
def ship(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("ship")


def rows(power: float, *, peaks: float = 0.01, within: float = 1.0, auc: float | None = 0.1) -> dict[str, Any]:
    """What is measured of a candidate, by its largest differences."""
    found: dict[str, Any] = {
        name: {
            "title": name,
            "bins": "",
            "training": {"median": size / 2, "largest": size},
            "test": {"median": size / 2, "within": within, "chi2": 1.0},
        }
        for name, size in (("power_spectrum", power), ("peaks", peaks), ("voids", peaks))
    }
    found["memorisation"] = {
        "title": "copies",
        "units": "relative",
        "test": {"value": 0.0, "floor": 0.0, "outcome": "pass"},
    }
    if auc is not None:
        found["two_sample"] = {"title": "AUC", "units": "", "test": {"value": auc, "floor": 0.02, "outcome": "fail"}}
    return found


def record(side: int = 500, **ours: Any) -> dict[str, Any]:
    candidates = {
        "lognormal": {"n_slices": 5000, "rows": rows(0.02, peaks=0.3, auc=0.5)},
        "copula": {"n_slices": 5000, "rows": rows(0.02, peaks=0.06, auc=0.5)},
        "ours": {"n_slices": 5000, "rows": rows(**ours), "sampling_seconds": 0.002},
    }
    slices = {"n_slices": 192, "realisations": [1, 2], "sha256": "0" * 64}
    return {
        "name": f"box{side}-64",
        "date": "2026-01-01",
        "box": {
            "length": f"{side} Mpc",
            "side_Mpc": side,
            "n_pixels": 64,
            "thickness": 5.0,
            "smoothing": 1.0,
            "redshift": 0.0,
            "h": 0.7,
            "k_F": 0.018,
            "k_Nyquist": 0.57,
        },
        "command": "python scoreboard.py",
        "training": slices,
        "test": slices,
        "machine": "a processor, 1 thread",
        "simulation": {"particles": 128, "seconds": 19.2, "n_slices": 192, "seconds_per_slice": 0.1},
        "floor": {"sets": [8, 8], "rows": rows(0.015, peaks=0.04)},
        "simulations": {"rows": rows(0.01)},
        "candidates": candidates,
    }


def test_what_misses_a_bar_is_bold_and_named(page: ModuleType) -> None:
    good, bad = record(power=0.029), record(power=0.031, within=0.89, auc=0.16)
    assert page.misses(good, "ours") == []
    missed = "; ".join(page.misses(bad, "ours"))
    assert "P(k), largest of all bins 3.1%, asked ≤ 3.0% (training mean)" in missed
    assert "P(k), bins within 2σ 89%, asked ≥ 90% (test)" in missed
    assert "0.66, asked ≤ 0.65" in missed
    assert "| P(k), largest of all bins | ≤ 3.0% | 1.5% | 2.0% | 2.0% | 2.9% |" in page.render([good])
    assert "| P(k), largest of all bins | ≤ 3.0% | 1.5% | 2.0% | 2.0% | **3.1%** |" in page.render([bad])
    assert f"**ours** meets {page.n_asked(good, 'ours')} of {page.n_asked(good, 'ours')} bars." in page.render([good])


def test_what_simulations_miss_is_said(page: ModuleType) -> None:
    usual, odd = record(power=0.01), record(power=0.01)
    odd["simulations"]["rows"] = rows(0.01, within=0.62)
    assert "The training slices themselves miss" not in page.render([usual])
    assert "The training slices themselves miss, as mocks: P(k), bins within 2σ 62%, asked ≥ 90%" in page.render([odd])


def test_each_box_has_its_bars(page: ModuleType) -> None:
    assert page.misses(record(power=0.045), "ours") != []
    assert page.misses(record(side=100, power=0.045), "ours") == []
    assert page.misses(record(side=100, power=0.051), "ours") != []
    assert page.misses(record(side=200, power=9.0), "ours") == []


def test_the_size_of_the_paper_has_bars_of_its_own(page: ModuleType) -> None:
    for side, bar in ((500, 0.015), (100, 0.03)):
        for power, n_missed in ((0.99 * bar, 0), (1.01 * bar, 1)):
            full = record(side=side, power=power)
            full["box"]["n_pixels"] = 256
            assert len(page.misses(full, "ours")) == n_missed


def test_a_part_of_the_training_slices_will_do_if_it_is_said(page: ModuleType, tmp_path: Path) -> None:
    scoreboard = importlib.import_module("scoreboard")
    emulator = untrained(SpectralPriorGenerator(16, width=8), GaussianisingTransform())
    emulator.training["realisations"] = [1, 2, 3]
    emulator.save(tmp_path / "e.safetensors")
    training, test = ({"file": f, "realisations": r} for f, r in (("training.h5", [1, 2]), ("test.h5", [7])))
    with pytest.raises(UserError, match=r"realisations \[3\], which training.h5 does not hold; --part-of-training"):
        scoreboard.require_learnt(tmp_path / "e.safetensors", training, test)
    scoreboard.require_learnt(tmp_path / "e.safetensors", training, test, part=True)
    assert training["learnt"] == [1, 2, 3]
    held = record(power=0.01)
    held["training"] = held["training"] | {"learnt": [1, 2, 3]}
    assert "192 slices of 2 realisations, a part of the 3 that emulators learnt from" in page.render([held])
    # Nothing of what it learnt from; what it learnt from as its test.
    for own, other in (([8], [7]), ([1], [2])):
        with pytest.raises(UserError):
            scoreboard.require_learnt(
                tmp_path / "e.safetensors", training | {"realisations": own}, test | {"realisations": other}, part=True
            )


def test_cost_is_that_of_a_reference_run(ship: ModuleType) -> None:
    results = FOLDER / "reference" / "results.json"
    trained, simulated = ship.reference_cost(results, 65536)
    assert trained.startswith("Training: 2 min of wall time for 65,536 slices seen")
    assert "3.1 s of wall time per realisation of 512³ particles" in simulated
    with pytest.raises(UserError, match="knows no training that saw 7 slices"):
        ship.reference_cost(results, 7)


def test_a_number_that_is_not_there_is_not_met(page: ModuleType) -> None:
    known, unknown = record(power=0.01), record(power=0.01, auc=None)
    assert page.n_asked(unknown, "ours") == page.n_asked(known, "ours") - 1
    assert any("AUC" in title for title in page.not_measured(unknown, "ours"))
    assert not any("AUC" in title for title in page.not_measured(known, "ours"))


def test_copies_of_training_slices_are_a_miss(page: ModuleType, ship: ModuleType) -> None:
    copying = record(power=0.01)
    copying["candidates"]["ours"]["rows"]["memorisation"]["test"] = {"value": 0.05, "floor": 0.0, "outcome": "fail"}
    assert page.misses(copying, "ours") == ["mocks with a copy among the training slices: 5.0%"]
    told = "Mocks with a copy among the training slices:"
    assert ship.memorisation(copying["candidates"]["ours"]["rows"]) == (
        f"{told} 5.0%, of the test slices 0.0%; that misses its bar."
    )
    assert ship.memorisation(rows(0.01)) == f"{told} 0.0%, of the test slices 0.0%."
    assert "**5.0%**" in page.render([copying])


def test_baselines_are_to_be_beaten(page: ModuleType) -> None:
    # P(k) is theirs by construction; 0.03 is within the floor of peaks, 0.05 is better than either, 0.07 than one.
    for peaks, expected in ((0.03, []), (0.05, []), (0.07, ["copula"]), (0.4, ["lognormal", "copula"])):
        worse = page.beaten_by_baselines(record(power=0.05, peaks=peaks), "ours")
        assert [name for name in ("lognormal", "copula") if any(name in text for text in worse)] == expected
        assert not any("power" in text for text in worse)
        said = page.render([record(power=0.05, peaks=peaks)])
        assert [name for name in ("lognormal", "copula") if f"As good or better, {name}: peaks" in said] == expected
        assert ("it beats the baselines" in said) == (expected == [])


def test_times_stand_beside_each_other(page: ModuleType) -> None:
    text = page.render([record(power=0.01)])
    assert "ours 2 ms; simulation 100 ms (192 slices of one run of 128³ particles, 19 s" in text
    assert "times faster: ours 50." in text


def test_recipes_do_not_tell_where_files_were(ship: ModuleType) -> None:
    recipe = {
        "data": {"path": "/home/somebody/train.h5", "n": 4},
        "betas": [0.0, "/a/b"],
        "class": "cosmogan.training.gan",
    }
    expected = {"data": {"path": "train.h5", "n": 4}, "betas": [0.0, "b"], "class": "cosmogan.training.gan"}
    assert ship.without_places(recipe) == expected


def test_wall_time_is_that_of_the_events_without_pauses(ship: ModuleType, tmp_path: Path) -> None:
    # Version records are written at the time of the test, so the events lie in its future.
    start = time.time() + 1000.0
    for session, (begin, steps) in enumerate(((start, (0, 100, 200)), (start + 9000.0, (200, 300, 400)))):
        writer = SummaryWriter(str(tmp_path), filename_suffix=str(session))
        for place, step in enumerate(steps):
            writer.add_scalar("loss", 1.0, step, walltime=begin + 60.0 * place)
        writer.close()
    assert ship.training_seconds(tmp_path, 400) == pytest.approx(240.0)
    assert ship.training_seconds(tmp_path, math.inf) == pytest.approx(240.0)
    assert ship.training_seconds(tmp_path, 300) == pytest.approx(180.0)
    with pytest.raises(ship.UserError, match="holds no TensorBoard events"):
        ship.training_seconds(tmp_path / "none", 300)


def written(path: Path, n_realisations: int, first: int, seed: int) -> Path:
    write_example(path, n_realisations=n_realisations, n_slices=24, seed=seed)
    held = read_slices(path)
    # Of the geometry of the emulator below.
    metadata = replace(held.metadata, thickness=1.1, smoothing=1.0)
    write_slices(path, replace(held, realisation=held.realisation + first, metadata=metadata), overwrite=True)
    return path


@pytest.mark.slow
def test_from_slices_to_a_shipped_emulator(
    tmp_path: Path, ship: ModuleType, dcgan: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, test = (written(tmp_path / f"{first}.h5", 4, first, seed=first) for first in (1, 101))
    dcgan.training |= {"realisations": [1, 2, 3], "recipe": f"data:\n  path: {training}\n"}
    dcgan.save(tmp_path / "ours.safetensors")

    def scoreboard(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(FOLDER / "scoreboard.py"), "box100-16", "--out", str(tmp_path), "-n", "60"]
        command += ["--training", str(training), "--test", str(test), "--bootstrap", "20", "--two-sample", *words]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    ours = ("--candidates", f"ours={tmp_path / 'ours.safetensors'}")
    first = scoreboard(*ours)
    assert first.returncode == 0, first.stderr
    path = tmp_path / "scoreboard" / "box100-16.json"
    measured = json.loads(path.read_text())
    assert list(measured["candidates"]) == ["lognormal", "copula", "ours"]
    assert "## box100-16" in (tmp_path / "scoreboard.md").read_text()
    assert str(tmp_path) not in (tmp_path / "scoreboard.md").read_text()
    # Nothing is made or measured again.
    again = scoreboard(*ours)
    assert "mocks are there" in first.stdout
    assert "mocks are there" not in again.stdout
    assert json.loads(path.read_text())["candidates"] == measured["candidates"]
    # An emulator that has seen the test is refused.
    dcgan.training["realisations"] = [1, 102]
    dcgan.save(tmp_path / "cheat.safetensors")
    refused = scoreboard("--candidates", f"cheat={tmp_path / 'cheat.safetensors'}")
    assert refused.returncode == 1
    assert "was trained on realisations [102]" in refused.stderr

    monkeypatch.setattr(ship, "LEAST_MOCKS", 60)
    where = {"judged": path, "runs": [], "folder": tmp_path / "out", "notes": ["Trained in two parts."]}
    out, card = ship.ship("box100-16", tmp_path / "ours.safetensors", **where)
    assert "- Trained in two parts.\n" in card.read_text(encoding="utf-8")
    emulator = Emulator.load(out)
    assert card.read_text() == model_card(emulator)
    assert "data:\n  path: 1.h5" in emulator.training["recipe"]
    assert "realisations 1-4; 4 chose the checkpoint only" in card.read_text()
    before, after = (Emulator.load(p).sample(4, seed=1) for p in (tmp_path / "ours.safetensors", out))
    np.testing.assert_array_equal(before, after)


def test_only_what_was_judged_ships(
    ship: ModuleType, dcgan: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dcgan.save(tmp_path / "ours.safetensors")
    judged = tmp_path / "box500-64.json"
    where = {"judged": judged, "runs": [], "folder": tmp_path / "out"}
    with pytest.raises(ship.UserError, match=r"run scoreboard\.py box500-64 first"):
        ship.ship("box500-64", tmp_path / "ours.safetensors", **where)
    held = record(power=0.01)
    for candidate in held["candidates"].values():
        candidate["source_sha256"] = "0"
    judged.write_text(json.dumps(held))
    with pytest.raises(ship.UserError, match="has no candidate that is this emulator"):
        ship.ship("box500-64", tmp_path / "ours.safetensors", **where)
    held["candidates"]["ours"] |= {"source_sha256": file_sha256(tmp_path / "ours.safetensors"), "n_slices": 100}
    judged.write_text(json.dumps(held))
    with pytest.raises(ship.UserError, match="judged by 100 mocks"):
        ship.ship("box500-64", tmp_path / "ours.safetensors", **where)
    monkeypatch.setattr(ship, "LARGEST_FILE", 1000)
    with pytest.raises(ship.UserError, match=r"MB; at most 0\.0 MB may ship"):
        ship.ship("box500-64", tmp_path / "ours.safetensors", **where)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def dcgan() -> Emulator:
    from cosmogan.networks.dcgan import DCGANGenerator
    from cosmogan.transforms import LogTransform

    return untrained(DCGANGenerator(16, latent_size=10, width=4, bounded=False), LogTransform())
