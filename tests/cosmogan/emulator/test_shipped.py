"""Whatever ships: weights that load and make sensible slices, a card that tells all it has to."""

import importlib
import math
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import cosmogan.emulator.weights
from cosmogan import Emulator
from cosmogan.cli import main
from cosmogan.emulator import file as emulator_file
from cosmogan.emulator.card import headline, model_card
from cosmogan.emulator.file import checksum, find_emulator, read_emulator_file, shipped_emulators
from cosmogan.emulator.inspection import emulators
from cosmogan.emulator.shipped import Shipped
from cosmogan.errors import UserError
from cosmogan.slices import AXIS_NOT_APPLICABLE, SliceSet, write_slices
from cosmogan.statistics.power_spectrum import PowerSpectrum

LARGEST_FILE = 8_000_000
# Means of single slices scatter by 7% at 500 Mpc and by 32% at 100 Mpc, and so do those of simulations: 64 slices say
# little, 4096 of them 0.5%.
MEAN_WITHIN, MANY_SLICES, SIGMAS = 0.02, 4096, 5.0
SECTIONS = ["What it makes", "How to use it", "When to trust it", "When not to trust it", "How it was trained"]
JUDGED_SECTIONS = [*SECTIONS, "Scores", "Licence"]

shipped_names = pytest.mark.parametrize(
    "name",
    shipped_emulators() or [pytest.param("", marks=pytest.mark.skip(reason="no emulator ships with this version yet"))],
)


def power_is_expected(slices: np.ndarray, emulator: Emulator) -> bool:
    """Say whether P(k) at a few k lies in the range that the record of the emulator tells for so many mocks."""
    told = emulator.training["shipped"]["check"]
    assert len(slices) == told["n_slices"]
    power = PowerSpectrum().per_slice(torch.from_numpy(slices), emulator.metadata).mean(0).numpy()[told["bins"]]
    return bool(np.all(np.abs(power - told["power"]) <= told["reach"]))


def strings(tree: Any) -> list[str]:
    """All texts in nested dictionaries and lists."""
    if isinstance(tree, dict):
        tree = list(tree.values())
    return (
        [text for part in tree for text in strings(part)] if isinstance(tree, list) else [tree] * isinstance(tree, str)
    )


def headings(card: str) -> list[str]:
    """Headings of the sections of a card, in order."""
    return [line.removeprefix("## ") for line in card.splitlines() if line.startswith("## ")]


@shipped_names
def test_weights_are_small_and_whole(name: str) -> None:
    path = find_emulator(name)
    assert path.stat().st_size < LARGEST_FILE
    record, tensors = read_emulator_file(path)
    assert record["sha256"] == checksum(record, tensors)
    # Where files were on the machine of the training is nobody's business.
    assert not any(Path(text).is_absolute() for text in strings(yaml.safe_load(record["training"]["recipe"])))


@shipped_names
def test_its_name_says_what_it_makes(name: str) -> None:
    emulator = Emulator.load(name)
    metadata = emulator.metadata
    assert metadata.cosmology.h is not None
    kind = "box" if emulator.boxes is None else "gravity"
    assert name == f"{kind}{metadata.box_size / metadata.cosmology.h:.0f}-{metadata.n_pixels}"


@shipped_names
def test_slices_are_sensible(name: str) -> None:
    emulator = Emulator.load(name)
    # Of few boxes, slices far from each other.
    slices = (emulator if emulator.boxes is None else emulator.spread(16)).sample(64, seed=2**31)
    assert np.isfinite(slices).all()
    assert slices.min() >= 0
    # A slice without matter anywhere is none.
    assert (slices.max((1, 2)) > 1).all()
    error = float(slices.mean((1, 2)).std()) / math.sqrt(len(slices))
    told = emulator.training["shipped"]["check"]["mean_density"]
    assert told == pytest.approx(1, abs=MEAN_WITHIN)
    assert slices.mean(dtype=np.float64) == pytest.approx(told, abs=SIGMAS * error)
    assert power_is_expected(slices, emulator)
    assert not power_is_expected(1 + 2 * (slices - 1), emulator)


def class_paths(tree: Any) -> list[str]:
    """All classes that a recipe names."""
    if isinstance(tree, dict):
        found = [tree["class_path"]] if "class_path" in tree else []
        return found + [path for part in tree.values() for path in class_paths(part)]
    return [path for part in tree for path in class_paths(part)] if isinstance(tree, list) else []


@shipped_names
def test_classes_of_its_recipe_are_where_it_says(name: str) -> None:
    paths = class_paths(yaml.safe_load(Emulator.load(name).training["recipe"]))
    assert len(paths) >= 5
    for path in paths:
        module, _, attribute = path.rpartition(".")
        assert isinstance(getattr(importlib.import_module(module), attribute), type), path


@pytest.mark.parametrize(
    "name",
    [pytest.param(one, marks=[] if one.endswith("-64") else pytest.mark.slow) for one in shipped_emulators()],
)
def test_its_recipe_still_runs(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", name, "--recipe"]) == 0
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(capsys.readouterr().out, encoding="utf-8")
    emulator = Emulator.load(name)
    # Three realisations, one of them held out.
    labels = np.repeat(np.arange(3), 2)
    some = SliceSet(
        emulator.sample(6, seed=1), labels, np.full(6, AXIS_NOT_APPLICABLE), np.full(6, np.nan), emulator.metadata
    )
    write_slices(tmp_path / "slices.h5", some)
    words = ["fit", "--config", str(recipe), "--data.path", str(tmp_path / "slices.h5"), "--out", str(tmp_path / "run")]
    words += ["--data.n_validation", "1", "--data.batch_size", "2", "--validation.n_mocks", "2", "--dry-run"]
    if emulator.boxes is not None:
        # These slices do not say of which simulations they are.
        words += ["--data.phases", "random", "--model.critic.init_args.pairs", "false", "--model.regression", "0"]
    assert main(words) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    side = emulator.metadata.n_pixels
    assert f"{side} x {side} pixels, {emulator.metadata.box_size:g} Mpc/h" in told
    assert not (tmp_path / "run").exists()


@shipped_names
def test_its_record_of_scores_is_whole(name: str) -> None:
    held = Emulator.load(name).training["shipped"]
    assert Shipped.from_dict(held).to_dict() == held
    for entry in held:
        with pytest.raises(UserError, match="record of its scores is that of another version"):
            Shipped.from_dict({key: value for key, value in held.items() if key != entry})
    with pytest.raises(UserError, match="record of its scores is that of another version"):
        Shipped.from_dict(held | {"rank": 1})


@shipped_names
@pytest.mark.slow
def test_the_mean_density_is_one(name: str) -> None:
    batches = Emulator.load(name).blocks(MANY_SLICES, seed=2**31)
    mean = np.concatenate([slices.mean((1, 2), dtype=np.float64) for slices in batches]).mean()
    assert mean == pytest.approx(1, abs=MEAN_WITHIN)


@shipped_names
def test_the_card_tells_all(name: str) -> None:
    emulator = Emulator.load(name)
    card = find_emulator(name).with_suffix(".md").read_text(encoding="utf-8")
    # Numbers in it come from the record alone.
    assert card == model_card(emulator)
    assert headings(card) == JUDGED_SECTIONS
    assert f"cosmogan generate {name} -n" in card
    assert f"cosmogan info {name} --recipe" in card
    assert "wall time" in card
    assert "Against test realisations" in card
    # What is bold below is named as what not to trust.
    not_to_trust = card[card.index("## When not to trust it") : card.index("## How it was trained")]
    missed = [one["title"] for one in emulator.training["shipped"]["scores"] if one["met"] is False]
    assert card.count(" | **") == len(missed)
    assert all(title.partition(",")[0].partition(" (")[0] in not_to_trust for title in missed)
    assert "MIT" in card


def shipped_record() -> dict[str, object]:
    score = {"asked": "≤ 3.0%", "simulations": "1.5%", "baselines": {"copula": "2.9%"}}
    data = {"n_slices": 10, "realisations": [1, 2, 3, 7], "not_learnt": [7], "sha256": "0" * 64}
    return {
        "name": "box100-16",
        "title": "box100-16: slices",
        "data": {"training": data, "test": data | {"realisations": [11, 12], "not_learnt": []}},
        "cost": ["Training: 3 h of wall time for 7 slices seen.", "Simulations: 1 s."],
        "judged": "1 of 2 bars met",
        "mocks": "5,000 mocks, scored 2026-01-01 by scoreboard.py",
        "scores": [
            score | {"title": "P(k), largest", "against": "training", "value": "2.5%", "met": True, "headline": True},
            score
            | {"title": "bispectrum, median", "against": "training", "value": "1%", "met": True, "headline": False},
            score
            | {"title": "P(k), median", "against": "training", "value": "1%"}
            | {"asked": "", "met": None, "headline": False},
            score | {"title": "P(k), within", "against": "test", "value": "70%", "met": False, "headline": True},
        ],
        "memorisation": "Mocks with a copy among the training slices: 0.0%.",
        "limits": ["It misses: P(k), within.", "Other boxes."],
        "licence": "MIT.",
        "check": {"mean_density": 1.0, "n_slices": 4, "bins": [0], "k": [0.1], "power": [1.0], "reach": [0.1]},
    }


@pytest.fixture
def folder(spectral: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with one emulator that was judged, and one that was not."""
    spectral.training["recipe"] = "seed: 1\n"
    spectral.save(tmp_path / "box100-8.safetensors")
    spectral.training["shipped"] = shipped_record()
    spectral.save(tmp_path / "box100-16.safetensors")
    monkeypatch.setattr(emulator_file, "_SHIPPED", tmp_path)
    return tmp_path


def test_a_card_is_composed_of_the_record(folder: Path) -> None:
    card = model_card(Emulator.load("box100-16"))
    assert headings(card) == JUDGED_SECTIONS
    assert "- k from 0.0898 to 0.646 h/Mpc (0.9 of Nyquist).\n" in card
    # One of the two bars of P(k) is missed.
    assert "- What meets all its bars below: bispectrum.\n" in card
    assert "- What misses a bar below: P(k).\n- Other boxes.\n" in card
    assert "10 of realisations 1-3, 7; 7 chose the checkpoint only (SHA-256 0000000000000000)." in card
    assert "10 of realisations 11-12, which neither trained it nor chose the checkpoint" in card
    assert "- Training: 3 h of wall time for 7 slices seen.\n" in card
    assert "Simulations: " not in card
    assert "1 of 2 bars met; 5,000 mocks, scored 2026-01-01. Bold" in card
    assert "| P(k), largest | ≤ 3.0% | 2.5% | 1.5% |" in card
    assert "| P(k), within | ≤ 3.0% | **70%** | 1.5% |" in card
    assert "P(k), median" not in card
    assert card.index("P(k), largest") < card.index("Against test realisations") < card.index("P(k), within")
    assert "is not recorded in it" not in card


def test_a_card_of_what_was_not_judged_says_so(folder: Path) -> None:
    card = model_card(Emulator.load("box100-8"))
    assert headings(card) == SECTIONS
    assert "is not recorded in it" in card
    assert "cosmogan generate box100-8.safetensors -n" in card


def test_the_list_tells_box_size_and_scores(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    emulators()
    listed = capsys.readouterr().out
    size = find_emulator("box100-16").stat().st_size / 1e6
    assert f"box100-16: 16 x 16 pixels, 70 Mpc/h (100 Mpc), {size:.1f} MB\n" in listed
    assert "1 of 2 bars met; P(k), largest 2.5% (≤ 3.0%), P(k), within 70% (≤ 3.0%)\n" in listed
    assert "box100-8: 16 x 16 pixels" in listed
    assert headline(Emulator.load("box100-8")) == ""


def test_power_beyond_the_range_is_seen(spectral: Emulator) -> None:
    slices = spectral.sample(4, seed=1)
    power = PowerSpectrum().per_slice(torch.from_numpy(slices), spectral.metadata).mean(0).numpy()[[0]]
    spectral.training["shipped"] = shipped_record()
    spectral.training["shipped"]["check"] |= {"power": power.tolist(), "reach": (0.1 * power).tolist()}
    assert power_is_expected(slices, spectral)
    # P(k) is 15% higher.
    assert not power_is_expected((1 + np.sqrt(1.15) * (slices - 1)).astype(np.float32), spectral)


def test_wheels_hold_weights_and_cards() -> None:
    root = Path(__file__).parents[3]
    held = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    patterns = held["package-data"]["cosmogan.emulator.weights"]
    assert "cosmogan.emulator.weights" in held["packages"]
    beside = [
        path for path in Path(cosmogan.emulator.weights.__file__).parent.iterdir() if path.suffix not in (".py", "")
    ]
    assert all(any(path.match(pattern) for pattern in patterns) for path in beside)
    assert {"*.safetensors", "*.md"} <= set(patterns)


@shipped_names
def test_a_folder_does_not_hide_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Such as that of its training.
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_emulator(name).suffix == emulator_file.SUFFIX
