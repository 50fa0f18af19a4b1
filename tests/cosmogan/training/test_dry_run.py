"""The dry run: what it says is what the run does, and the run folder does not see it."""

import re
from pathlib import Path

import pytest

from cosmogan.cli import main
from cosmogan.losses.penalties import ZeroCentred
from cosmogan.losses.relativistic import Relativistic
from cosmogan.networks.dcgan import DCGANCritic, DCGANGenerator
from cosmogan.slices import write_example
from cosmogan.training import dry_run
from cosmogan.training.callbacks.physics import PhysicsValidation
from cosmogan.training.data import SliceDataModule
from cosmogan.training.gan import CosmoGAN
from cosmogan.transforms import LogTransform
from tests.cosmogan.training.recipes import DCGAN, recipe

RECIPE = recipe(
    DCGAN,
    validation="n_mocks: 8",
    objective="{class_path: Relativistic}",
    penalty="{class_path: ZeroCentred, init_args: {gamma: 1.0, every: 3}}",
    n_critic_steps=2,
    max_slices=96,
)


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    write_example(tmp_path / "slices.h5", n_realisations=3, n_slices=8)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    recipe, data, out = (str(tmp_path / name) for name in ("recipe.yaml", "slices.h5", "run"))
    return ["fit", "--config", recipe, "--data.path", data, "--out", out, "--dry-run"]


def test_a_dry_run_tries_everything_and_writes_nothing(words: list[str], tmp_path: Path, capsys, monkeypatch):
    steps, drawn, saved = [], [], []
    for kind, name, kept in (
        (CosmoGAN, "training_step", steps),
        (PhysicsValidation, "on_validation_epoch_end", drawn),
        (CosmoGAN, "on_save_checkpoint", saved),
    ):
        original = getattr(kind, name)

        def note(self, *arguments, original=original, kept=kept):
            kept.append(getattr(self, "n_steps", None))
            return original(self, *arguments)

        monkeypatch.setattr(kind, name, note)
    assert main(words) == 0
    # Of 6 steps: penalty at 0 and 3, generator at 1, 3 and 5; each kind warms up and is measured twice.
    assert sorted(steps) == sorted([0, 1, 2, 3] * 3)
    assert len(drawn) == 1
    assert len(saved) == 1
    text = capsys.readouterr().out
    for expected in (
        r"train +16 slices of realisations 0-1; each is seen 6 times",
        r"validate +8 slices of realisations 2",
        r"24 of 4 slices: 96 slices seen",
        r"1 in 6: critic with penalty; 2 in 6: critic and generator; 2 in 6: critic; 1 in 6: critic with pen",
        r"4 validations, one every 6 steps",
        r"precision +32-true",
        r"devices +1 x cpu",
    ):
        assert re.search(expected, text), expected
    assert not (tmp_path / "run").exists()


def test_a_dry_run_beside_a_run(words: list[str], tmp_path: Path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("")
    assert main([*words, "--model.max_slices", "1", "--trainer.devices", "2", "--resume"]) == 0
    text = capsys.readouterr().out
    assert "(in use: add --resume or --overwrite)" in text
    assert "1 of 4 slices in each of 2 processes: 8 slices seen" in text
    assert "2 x cpu; the trial ran on one of them" in text
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]
    assert main([*words, "--data.n_validation", "3"]) == 2


def test_expected_time_weighs_each_kind_by_its_share(tmp_path: Path):
    write_example(tmp_path / "slices.h5", n_realisations=3, n_slices=8)
    module = CosmoGAN(
        DCGANGenerator(16, width=4),
        DCGANCritic(16, width=4, normalisation="none"),
        Relativistic(),
        LogTransform(),
        ZeroCentred(1.0, every=4),
        max_slices=800,
    )
    plan = dry_run.Plan(module, SliceDataModule(str(tmp_path / "slices.h5"), batch_size=4), n_processes=2)
    trial = dry_run.Trial(plan)
    trial._seconds = {"critic with penalty and generator": [99.0, 7.0, 8.0], "critic and generator": [99.0, 3.0, 4.0]}
    trial._marks = {"start": 0.0, "ready": 10.0, "validation": 20.0, "end": 25.0}
    # 100 steps of (7 + 3 * 3) / 4 = 4 s, 1 validation of 5 s, start of 10 s: 415 s.
    assert "about 6.9 min in all: 100 steps of 4.0 s on average, 1 validations" in trial.time()[0]


@pytest.mark.parametrize("name", ["spectral_prior", "periodic", "dcgan", "mlp"])
def test_the_recipe_of_every_network_takes_its_steps(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_example(tmp_path / "slices.h5", n_realisations=3, n_slices=24)
    data, out = ("--data.path", str(tmp_path / "slices.h5")), ("--out", str(tmp_path / "run"))
    small = ("--validation.n_mocks", "8", "--data.batch_size", "4", "--trainer.accelerator", "cpu")
    assert main(["fit", "--config", f"networks/{name}", *data, *out, *small, "--dry-run"]) == 0
    assert "MFLOP per slice" in capsys.readouterr().out
