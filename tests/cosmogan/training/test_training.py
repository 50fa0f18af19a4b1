"""The training engine on toys: it learns, it resumes exactly, what it writes can be used."""

import csv
import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch

from cosmogan.emulator.emulator import Emulator
from cosmogan.emulator.export import export_checkpoint, load_checkpoint
from cosmogan.errors import UserError
from cosmogan.losses.non_saturating import NonSaturating
from cosmogan.losses.penalties import GradientNorm
from cosmogan.losses.wasserstein import Wasserstein
from cosmogan.networks.dcgan import DCGANCritic, DCGANGenerator
from cosmogan.networks.smoothing import gaussian_kernel, smooth
from cosmogan.slices import read_slices, write_example, write_slices
from cosmogan.training.callbacks.alarms import Findings, Variety, _sentence
from cosmogan.training.data import SliceDataModule
from cosmogan.training.ema import update_average
from cosmogan.training.fit import fit
from cosmogan.training.gan import CosmoGAN
from cosmogan.training.interruption import Unstarted
from cosmogan.training.run_folder import Resumption
from cosmogan.transforms import LogTransform
from tests.cosmogan.training.recipes import PINNED, recipe

RECIPE = recipe(PINNED, max_slices=120, generator_warmup=40, final_lr=0.1)


@pytest.fixture
def example(tmp_path: Path) -> Path:
    path = tmp_path / "slices.h5"
    write_example(path, n_realisations=3, n_slices=8)
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(checkpoint)["state_dict"]


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=0, msg=name)


def words(recipe: Path, example: Path, out: Path, *more: str) -> list[str]:
    return ["--config", str(recipe), "--data.path", str(example), "--out", str(out), *more]


def test_a_run_leaves_what_it_promises(tmp_path: Path, recipe: Path, example: Path):
    best = fit(words(recipe, example, tmp_path / "run", "--validation.draw", "true"))
    assert best == tmp_path / "run" / "best.ckpt"
    assert (tmp_path / "run" / "config.yaml").exists()
    assert len(list((tmp_path / "run" / "samples").glob("*.png"))) == 5
    assert list((tmp_path / "run").glob("events.out.tfevents*"))
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    scores = [float(row["score"]) for row in rows if row["score"]]
    assert len(scores) == 5
    record = json.loads(load_checkpoint(best)["cosmogan"])
    assert record["training"]["realisations"] == [0, 1]
    assert "max_slices: 120" in record["training"]["recipe"]
    # The checkpoint is the one of the best score, not the last.
    assert record["training"]["n_slices_seen"] == 24 * (1 + int(np.argmin(scores)))


@pytest.mark.parametrize(
    ("objective", "penalty", "normalisation"),
    [(NonSaturating(), None, "batch"), (Wasserstein(), GradientNorm(), "none")],
    ids=["nonsaturating", "wgan"],
)
def test_the_papers_networks_train_and_become_an_emulator(
    tmp_path: Path, example: Path, objective, penalty, normalisation: str
):
    torch.manual_seed(0)
    module = CosmoGAN(
        DCGANGenerator(16, latent_size=8, width=4, bounded=False),
        DCGANCritic(16, width=4, normalisation=normalisation),
        objective,
        LogTransform(),
        penalty,
        max_slices=48,
        n_critic_steps=2,
    )
    before = {k: v.clone() for k, v in module.state_dict().items()}
    trainer = L.Trainer(
        default_root_dir=tmp_path, accelerator="cpu", max_epochs=-1, logger=False, enable_progress_bar=False
    )
    trainer.fit(module, datamodule=SliceDataModule(str(example), batch_size=4, slices_per_epoch=24))
    assert (module.n_slices_seen, module.n_steps) == (48, 12)
    moved = {k for k, v in module.state_dict().items() if not torch.equal(v, before[k])}
    for part in ("generator.layers", "critic.layers", "average.layers", "transform.scale"):
        assert any(name.startswith(part) for name in moved), part
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    export_checkpoint(str(tmp_path / "a.ckpt"), out=str(tmp_path / "a.safetensors"))
    slices = Emulator.load(tmp_path / "a.safetensors").sample(3, seed=1)
    assert slices.shape == (3, 16, 16)
    assert (slices >= 0).all()


def test_a_run_whose_critic_sees_particles_goes_on_to_the_same_bits(tmp_path: Path, recipe: Path):
    write_example(tmp_path / "counts.h5", n_realisations=3, n_slices=8, quantity="counts")
    counts = read_slices(tmp_path / "counts.h5")
    density = smooth(torch.from_numpy(counts.slices / np.float32(8)), gaussian_kernel(0.8)).numpy()
    metadata = replace(counts.metadata, quantity="density", mean_count=None, smoothing=0.8)
    smoothed = replace(counts, slices=density, metadata=metadata)
    write_slices(tmp_path / "smoothed.h5", smoothed, provenance={"command": "test"})
    eight = [f"--model.{part}.init_args.mean_count=8" for part in ("generator", "critic")]
    whole, parts = (words(recipe, tmp_path / "smoothed.h5", tmp_path / run, *eight) for run in ("whole", "parts"))
    fit(whole)
    fit([*parts, "--trainer.max_epochs=2"])
    fit([*parts, "--resume"])
    assert_same(weights(tmp_path / "parts" / "last.ckpt"), weights(tmp_path / "whole" / "last.ckpt"))
    # The costs of a dry run are of both planes, too.
    fit([*words(recipe, tmp_path / "smoothed.h5", tmp_path / "dry", *eight), "--dry-run"])


def test_batch_normalisation_under_a_gradient_penalty_is_refused():
    with pytest.raises(UserError, match="batch normalisation"):
        CosmoGAN(DCGANGenerator(16), DCGANCritic(16), Wasserstein(), LogTransform(), GradientNorm())


def test_the_average_halves_its_distance_in_a_half_life():
    average, current = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(average.weight)
    torch.nn.init.ones_(current.weight)
    for _ in range(10):
        update_average(average, current, decay=0.5 ** (16 / 160))
    assert average.weight.item() == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--model.critic_rl", "1"], "model.critic_rl: there is no such setting; did you mean model.critic_lr?"),
        (["--model.max_slices", "many"], "model.max_slices: expected a whole number, found many"),
        (["--data.n_validation", "3"], "realisations found: 3"),
        (
            ["--model.critic.init_args.pach", "8"],
            "model.critic.init_args.pach: there is no such .* did you mean patch?",
        ),
        (["--model.penalty.class_path", "R1"], "there is no R1; expected one of GradientNorm, ZeroCentred"),
        (["--trainer.precision", "fp8"], "trainer.precision: expected 32-true or bf16-mixed, found fp8"),
        (["--trainer.precision", "16-mixed"], "trainer.precision: expected 32-true or bf16-mixed, found 16-mixed"),
        (["--trainer.accelerator", "abacus"], "trainer: You selected an invalid accelerator .* Available names are"),
        (["--trainer.devices", "none"], "trainer: `devices` .* should be an int"),
        (["--data.batch_size", "17"], "data.batch_size: 17 is more than the 16 training"),
        (["--ckpt_path", "last"], "last.ckpt: no such checkpoint"),
        (["--model.critic.init_args.patch", "12"], "patch: the critic needs"),
        (["--config", "demo/box250"], "demo/box500"),
        (["--model.objective", "Wasserstien"], "model.objective.class_path: there is no Wasserstien; .* Wasserstein"),
        (["--model.generator_lr", "-1"], "model.generator_lr: expected a learning rate above 0, found -1"),
        (["--model.betas", "[0.5, 1]"], "model.betas: expected numbers of at least 0 and below 1, found 1"),
    ],
)
def test_bad_words_to_fit(tmp_path: Path, recipe: Path, example: Path, more: list[str], expected: str):
    with pytest.raises(UserError, match=expected):
        fit(words(recipe, example, tmp_path / "run", *more))
    assert not list((tmp_path).glob("run/*.ckpt"))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("class_path: ZeroCentred, ", "", "model.penalty: expected class_path, one of GradientNorm, ZeroCentred"),
        ("max_slices", "max_slice", "model.max_slice: there is no such setting; did you mean model.max_slices?"),
        ("gamma: 1.0, ", "", "model.penalty.init_args.gamma: is missing"),
        ("trainer:", "trainer: [", ": this is not YAML: "),
        ("trainer:", "trainr:", "trainr.accelerator: there is no such setting; did you mean trainer.accelerator?"),
    ],
)
def test_bad_recipes(tmp_path: Path, recipe: Path, example: Path, old: str, new: str, expected: str):
    recipe.write_text(RECIPE.replace(old, new))
    with pytest.raises(UserError, match=re.escape(expected)):
        fit(words(recipe, example, tmp_path / "run"))


@pytest.mark.parametrize("more", [(), ("--dry-run",)], ids=["run", "dry"])
@pytest.mark.parametrize("out", ["recipe.yaml", "recipe.yaml/run", "closed/a/run"])
def test_a_folder_that_cannot_be_written(tmp_path: Path, recipe: Path, example: Path, out: str, more: tuple[str, ...]):
    # Not even root makes anything in /proc.
    (tmp_path / "closed").symlink_to("/proc")
    with pytest.raises(UserError, match=f"{out}: cannot be written .*; choose another --out"):
        fit(words(recipe, example, tmp_path / out, *more))
    assert recipe.read_text() == RECIPE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_before_the_first_step(
    tmp_path: Path, recipe: Path, example: Path, monkeypatch, capsys, number: signal.Signals
):
    former = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    # Where Lightning has written the recipe already.
    monkeypatch.setattr(CosmoGAN, "setup", lambda *_, **__: os.kill(os.getpid(), number))
    with pytest.raises(Unstarted) as ended:
        fit(words(recipe, example, tmp_path / "run"))
    assert ended.value.code == 128 + number
    assert capsys.readouterr().err.count("interrupted; run the same command again to continue or start over") == 1
    # Neither a checkpoint nor the recipe, by which the folder would count as one in use.
    assert not [path for path in (tmp_path / "run").iterdir() if not path.name.startswith("events.")]
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == former


def test_divergence_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path, recipe: Path, example: Path, monkeypatch):
    original = CosmoGAN.training_step

    def break_at_the_tenth(self: CosmoGAN, *arguments) -> None:
        original(self, *arguments)
        if self.n_steps == 10:
            with torch.no_grad():
                next(self.critic.parameters()).fill_(float("nan"))

    monkeypatch.setattr(CosmoGAN, "training_step", break_at_the_tenth)
    with pytest.raises(
        UserError, match=r"diverged before 48 slices.* The last good checkpoint is .*run/last.ckpt; lower"
    ):
        fit(words(recipe, example, tmp_path / "run"))
    kept = load_checkpoint(tmp_path / "run" / "last.ckpt")
    assert all(torch.isfinite(v).all() for v in kept["state_dict"].values())


def test_a_run_folder_in_use_is_kept(tmp_path: Path, recipe: Path, example: Path):
    fit(words(recipe, example, tmp_path / "run"))
    with pytest.raises(UserError, match="--overwrite"):
        fit(words(recipe, example, tmp_path / "run"))
    longer = ("--ckpt_path", "last", "--model.max_slices", "240")
    for more, expected in (
        (("--model.seed", "2"), r"model.seed: is 2 here and was 0 in .*last.ckpt"),
        (("--model.critic.init_args.width", "8"), "model.critic.init_args.width: is 8 here and was 4"),
        (("--data.n_validation", "2"), "data.n_validation: is 2 here and was 1"),
        (("--data.batch_size", "8"), "data.batch_size: is 8 here and was 4"),
        (("--validation.n_mocks", "16"), "validation.n_mocks: is 16 here and was 8"),
        (("--trainer.precision", "bf16"), "trainer.precision: is bf16-mixed here and was 32-true"),
        (("--overwrite",), "give one of them"),
    ):
        with pytest.raises(UserError, match=expected):
            fit(words(recipe, example, tmp_path / "run", *longer, *more))
    with pytest.raises(UserError, match="holds a run already"):
        fit(words(recipe, example, tmp_path / "run", "--ckpt_path", str(recipe)))
    fit(words(recipe, example, tmp_path / "run", "--overwrite"))


@pytest.mark.parametrize(("one", "other"), [("null", "32"), ("bf16", "bf16-mixed"), ("32-true", "32-true")])
def test_precisions_go_by_several_names(one: str, other: str):
    former = {"recipe": f"trainer: {{precision: {one}}}", "n_slices_seen": 0}
    resumption = Resumption(Path("last.ckpt"), {"training": former})
    resumption.require_recipe(f"trainer: {{precision: {other}}}")
    changed = "32-true" if one == "bf16" else "bf16-mixed"
    with pytest.raises(UserError, match=f"trainer.precision: is {changed} here"):
        resumption.require_recipe(f"trainer: {{precision: {changed}}}")


def test_pickles_and_other_checkpoints_are_refused(tmp_path: Path):
    marker = tmp_path / "ran"

    class Trap:
        def __reduce__(self):
            return (Path.touch, (marker,))

    torch.save({"cosmogan": "{}", "state_dict": Trap()}, tmp_path / "trap.ckpt")
    with pytest.raises(UserError, match="holds code, which is never run"):
        load_checkpoint(tmp_path / "trap.ckpt")
    assert not marker.exists()
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="another program"):
        load_checkpoint(tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "none.ckpt")


@pytest.mark.parametrize("kind", ["apart", "collapse", "overfitted", "undecided"])
def test_alarms_advise_what_the_recipe_has(kind: str):
    variety = Variety(coherence=0.5, error=0.01, scatter=1.0, power=1.0)
    found = Findings(variety, gap=2.0, separation=0.5, closest=0.45, score=9.0, best=1.0)
    assert "the weight of model.penalty" in _sentence(kind, 3, found, penalised=True)
    assert "the weight of model.penalty" not in _sentence(kind, 3, found, penalised=False)
