"""Every option of Lightning's Trainer is honoured or refused, and no run names a file that is not there."""

import inspect
import json
from pathlib import Path

import lightning as L
import pytest

from cosmogan.cli import main
from cosmogan.emulator.export import load_checkpoint
from cosmogan.slices import write_example
from cosmogan.training.callbacks.checkpoints import BestCheckpoints
from cosmogan.training.trainer_options import HONOURED, INSTEAD
from tests.cosmogan.training.recipes import DCGAN, recipe

RECIPE = recipe(DCGAN, objective="{class_path: NonSaturating}", max_slices=72)
# A value other than the default of each option that is refused.
OTHER = {
    "accumulate_grad_batches": "2",
    "barebones": "true",
    "check_val_every_n_epoch": "2",
    "default_root_dir": "elsewhere",
    "enable_checkpointing": "false",
    "enable_progress_bar": "true",
    "fast_dev_run": "true",
    "gradient_clip_algorithm": "value",
    "gradient_clip_val": "1.0",
    "limit_predict_batches": "2",
    "limit_test_batches": "2",
    "limit_train_batches": "2",
    "limit_val_batches": "0",
    "max_steps": "10",
    "min_epochs": "9",
    "min_steps": "90",
    "model_registry": "m",
    "num_sanity_val_steps": "2",
    "overfit_batches": "2",
    "reload_dataloaders_every_n_epochs": "1",
    "use_distributed_sampler": "false",
    "val_check_interval": "2",
}
# And of those that are honoured; those that decide where and with what a run computes have tests of their own.
HONOURED_OTHER = {
    "benchmark": "true",
    "callbacks": "lightning.pytorch.callbacks.LearningRateMonitor",
    "detect_anomaly": "true",
    "deterministic": "true",
    "devices": "1",
    "enable_autolog_hparams": "false",
    "enable_model_summary": "true",
    "inference_mode": "false",
    "log_every_n_steps": "1",
    "max_epochs": "2",
    "max_time": "00:01:00:00",
    "precision": "bf16-mixed",
    "profiler": "simple",
}


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    write_example(tmp_path / "slices.h5", n_realisations=3, n_slices=8)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    data, out = str(tmp_path / "slices.h5"), str(tmp_path / "run")
    return ["fit", "--config", str(tmp_path / "recipe.yaml"), "--data.path", data, "--out", out]


def seen(checkpoint: Path) -> int:
    return json.loads(load_checkpoint(checkpoint)["cosmogan"])["training"]["n_slices_seen"]


def test_each_option_is_honoured_or_refused():
    options = set(inspect.signature(L.Trainer).parameters)
    assert HONOURED | INSTEAD.keys() == options
    assert not HONOURED & INSTEAD.keys()
    assert OTHER.keys() == INSTEAD.keys()


@pytest.mark.parametrize("option", INSTEAD)
def test_what_is_refused_names_what_to_use(option: str, words: list[str], tmp_path: Path, capsys):
    assert main([*words, f"--trainer.{option}", OTHER[option]]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"cosmogan fit: trainer.{option}: is not an option of this command; {INSTEAD[option]}")
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", HONOURED_OTHER)
def test_a_run_with_what_is_honoured_ends_with_its_checkpoints(option: str, words: list[str], tmp_path: Path, capsys):
    assert main([*words, f"--trainer.{option}", HONOURED_OTHER[option]]) == 0
    best = Path(capsys.readouterr().out.splitlines()[-1])
    assert best == tmp_path / "run" / "best.ckpt"
    assert seen(best) <= seen(tmp_path / "run" / "last.ckpt") == (48 if option == "max_epochs" else 72)


def test_a_dry_run_plans_the_steps_that_passes_leave(words: list[str], capsys):
    assert main([*words, "--trainer.max_epochs", "2", "--dry-run"]) == 0
    assert "12 of 4 slices: 48 slices seen" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("callback", "instead"),
    [
        ("EMAWeightAveraging", "--model.average_halflife"),
        ("StochasticWeightAveraging --trainer.callbacks.init_args.swa_lrs 0.1", "--model.average_halflife"),
        ("LearningRateFinder", "--model.generator_lr"),
        ("BatchSizeFinder", "--data.batch_size"),
    ],
)
def test_callbacks_for_one_optimiser_are_refused(callback: str, instead: str, words: list[str], capsys):
    assert main([*words, *f"--trainer.callbacks lightning.pytorch.callbacks.{callback}".split()]) == 2
    said = capsys.readouterr().err
    assert f"{callback.split()[0]} is for one optimiser" in said
    assert instead in said


def test_a_run_that_time_ends_keeps_what_it_has_and_resumes(words: list[str], tmp_path: Path, capsys):
    long = [*words, "--model.max_slices", "1000000", "--trainer.max_time", "00:00:00:01"]
    assert main([*long, "--data.slices_per_epoch", "1000000"]) == 0
    said = capsys.readouterr()
    last = tmp_path / "run" / "last.ckpt"
    kept = Path(said.out.splitlines()[-1])
    assert kept.exists()
    assert 0 < seen(last) < 1_000_000
    assert seen(kept) == seen(last)


def test_a_run_without_a_score_names_the_last_checkpoint(words: list[str], tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr(BestCheckpoints, "check_monitor_top_k", lambda *_: False)
    assert main(words) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == str(tmp_path / "run" / "last.ckpt")
    assert "no validation gave a score" in said.err
    assert seen(tmp_path / "run" / "last.ckpt") == 72


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("data:", "seed_everything: 010\ndata:", "line 2, column 18: 010 is 8 to YAML and 10 to people"),
        ("max_slices: 72", "max_slices: 1:30", "1:30 is a number in base 60 to YAML"),
        ("accelerator: cpu", "accelerator: cpu, devices: 1:2", "1:2 is a number in base 60 to YAML"),
    ],
)
def test_numbers_that_yaml_reads_otherwise_are_refused(
    old: str, new: str, expected: str, words: list[str], tmp_path: Path, capsys
):
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace(old, new))
    assert main(words) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("word", ["--seed_everything=010", "--trainer.devices=1:2", "--data.batch_size 04"])
def test_the_command_line_refuses_them_too(word: str, words: list[str], capsys):
    assert main([*words, *word.split()]) == 2
    assert "to YAML" in capsys.readouterr().err
