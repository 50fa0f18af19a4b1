"""Whatever ends a run, it goes on to the bits of the uninterrupted one.

Run as a program this file trains one run to its end and kills others at given places.
"""

import json
import os
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from cosmogan import files
from cosmogan.cli import main
from cosmogan.emulator.card import model_card
from cosmogan.emulator.emulator import Emulator
from cosmogan.emulator.export import export_checkpoint, load_checkpoint
from cosmogan.errors import UserError
from cosmogan.slices import write_example
from cosmogan.training.fit import fit
from cosmogan.training.gan import CosmoGAN
from cosmogan.training.interruption import Interrupted
from tests.cosmogan.training.recipes import PINNED, ROOT, recipe, shorten_fits

# Six steps between two validations.
RECIPE = recipe(
    PINNED,
    max_slices=96,
    generator_warmup=40,
    final_lr=0.1,
    final_penalty=0.5,
    trainer="accelerator: cpu, log_every_n_steps: 5",
)
PLACES = ("step", "validation", "writing")


def words(folder: Path, run: str, *more: str) -> list[str]:
    recipe, data = str(folder / "recipe.yaml"), str(folder / "slices.h5")
    return ["--config", recipe, "--data.path", data, "--out", str(folder / run), *more]


def kill_at(place: str) -> None:
    """Have this process killed in its third pass."""

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if place == "step":
        take_step = CosmoGAN._step

        def half_a_step(self: CosmoGAN, optimizer: object, network: torch.nn.Module) -> dict[str, torch.Tensor]:
            logs = take_step(self, optimizer, network)
            if self.n_steps == 14:
                die()
            return logs

        CosmoGAN._step = half_a_step
    if place == "validation":
        validate = CosmoGAN.validation_step

        def half_a_validation(self: CosmoGAN, batch: int, batch_idx: int) -> None:
            validate(self, batch, batch_idx)
            if self.n_steps == 18:
                die()

        CosmoGAN.validation_step = half_a_validation
    if place == "writing":
        written = []

        def half_a_file(descriptor: int) -> None:
            if os.readlink(f"/proc/self/fd/{descriptor}").endswith("/last.ckpt.part"):
                written.append(os.fstat(descriptor).st_size)
                if len(written) == 3:
                    os.ftruncate(descriptor, written[-1] // 2)
                    die()

        files.os = types.SimpleNamespace(fsync=half_a_file, replace=os.replace)


def work(folder: Path, n_threads: int) -> None:
    """Train each run in a process of its own; forked, because imports take longer than the training."""
    shorten_fits()
    for place in ("whole", *PLACES):
        child = os.fork()
        if child == 0:
            torch.set_num_threads(n_threads)
            kill_at(place)
            fit(words(folder, place))
            os._exit(0)
        result = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert result == (0 if place == "whole" else -signal.SIGKILL), (place, result)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whole run and three that were killed."""
    folder = tmp_path_factory.mktemp("resume")
    write_example(folder / "slices.h5", n_realisations=3, n_slices=8)
    (folder / "recipe.yaml").write_text(RECIPE)
    command = [sys.executable, "-m", "tests.cosmogan.training.test_resume", str(folder), str(torch.get_num_threads())]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300, stderr=subprocess.DEVNULL)
    return folder


def record(checkpoint: Path) -> dict:
    return json.loads(load_checkpoint(checkpoint)["cosmogan"])["training"]


def n_steps(checkpoint: Path) -> int:
    return record(checkpoint)["n_steps"]


def assert_same(run: Path, whole: Path) -> None:
    """Weights, averages, running means, optimisers and logs are equal bit by bit."""
    for name in ("last.ckpt", "best.ckpt"):
        one, other = load_checkpoint(run / name), load_checkpoint(whole / name)
        assert one["state_dict"].keys() == other["state_dict"].keys()
        for key, value in other["state_dict"].items():
            torch.testing.assert_close(one["state_dict"][key], value, rtol=0, atol=0, msg=f"{name}: {key}")
        torch.testing.assert_close(one["optimizer_states"], other["optimizer_states"], rtol=0, atol=0)
        # The recipe holds the name of the run folder.
        assert record(run / name) | {"recipe": ""} == record(whole / name) | {"recipe": ""}
    assert (run / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


@pytest.mark.parametrize("place", PLACES)
def test_kill_dash_nine(folder: Path, place: str):
    last = folder / place / "last.ckpt"
    assert n_steps(last) == 12
    assert (folder / place / "last.ckpt.part").exists() == (place == "writing")
    fit(words(folder, place, "--resume"))
    assert n_steps(last) == 24
    assert_same(folder / place, folder / "whole")


def test_another_seed_is_another_run(folder: Path):
    fit(words(folder, "other", "--model.seed", "1"))
    with pytest.raises(AssertionError):
        assert_same(folder / "other", folder / "whole")


def strike(monkeypatch: pytest.MonkeyPatch, number: signal.Signals, *, step: int) -> None:
    """Send a signal to this process between the critic's and the generator's part of a step, counted from 1."""
    take_step = CosmoGAN._step

    def half_a_step(self: CosmoGAN, optimizer: object, network: torch.nn.Module) -> dict[str, torch.Tensor]:
        logs = take_step(self, optimizer, network)
        if self.n_steps == step - 1 and network is self.critic:
            os.kill(os.getpid(), number)
        return logs

    monkeypatch.setattr(CosmoGAN, "_step", half_a_step)


# In the middle of a pass; in its last step, whose validation comes first; in the first step of the next.
@pytest.mark.parametrize(
    ("step", "stops_at"),
    [(15, 15), pytest.param(12, 12, marks=pytest.mark.slow), pytest.param(13, 13, marks=pytest.mark.slow)],
)
def test_slurm_requeues_a_job_that_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, step: int, stops_at: int
):
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/requeued\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    alone = {"NTASKS": "1", "NTASKS_PER_NODE": "1", "NNODES": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in {**alone, "JOB_ID": "4711", "JOB_NAME": "fit"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    run, handler = f"requeued-{step}", signal.getsignal(signal.SIGUSR1)
    with monkeypatch.context() as patch, pytest.raises(Interrupted) as stopped:
        strike(patch, signal.SIGUSR1, step=step)
        fit(words(folder, run, "--resume"))
    assert stopped.value.code == 128 + signal.SIGUSR1
    assert signal.getsignal(signal.SIGUSR1) == handler
    assert (tmp_path / "requeued").read_text() == "requeue 4711\n"
    assert f"stopped by SIGUSR1 after {4 * stops_at} of 96 slices" in capsys.readouterr().err
    assert n_steps(folder / run / "last.ckpt") == stops_at
    assert not list((folder / run).glob("hpc_ckpt*"))
    # The same command, as SLURM runs it.
    assert fit(words(folder, run, "--resume")) == folder / run / "best.ckpt"
    assert_same(folder / run, folder / "whole")
    # Once more, and nothing is left to do.
    assert fit(words(folder, run, "--resume")) == folder / run / "best.ckpt"
    assert "complete: 96 of 96 slices; raise --model.max_slices to train longer" in capsys.readouterr().err


def test_a_job_that_cannot_be_requeued_says_so(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("PATH", str(tmp_path))
    strike(monkeypatch, signal.SIGUSR1, step=2)
    with pytest.raises(SystemExit):
        main(["fit", *words(tmp_path, "run", f"--config={folder}/recipe.yaml", f"--data.path={folder}/slices.h5")[4:]])
    assert "job 4711 could not be put back into the queue" in capsys.readouterr().err


def test_what_cannot_go_on_is_refused(folder: Path, tmp_path: Path):
    whole = folder / "whole"
    with pytest.raises(UserError, match="has seen 96 slices, all that"):
        fit(words(folder, "whole", "--ckpt_path", "last"))
    broken = tmp_path / "run" / "last.ckpt"
    broken.parent.mkdir()
    broken.write_bytes((whole / "last.ckpt").read_bytes()[:5000])
    more = ("--model.max_slices", "192")
    for start in (("--resume",), ("--ckpt_path", "last"), ("--ckpt_path", str(broken))):
        with pytest.raises(UserError, match=r"last[.]ckpt: .*is damaged"):
            fit([*words(folder, "whole")[:4], "--out", str(broken.parent), *start, *more])
    with pytest.raises(UserError, match=r"none[.]ckpt: no such checkpoint"):
        fit(words(folder, "new", "--ckpt_path", str(folder / "none.ckpt"), *more))
    # Other slices under the same recipe.
    write_example(tmp_path / "slices.h5", n_realisations=3, n_slices=8, n_pixels=32)
    with pytest.raises(UserError, match="n_pixels is 32, and was 16"):
        fit(words(folder, "whole", "--ckpt_path", "last", "--data.path", str(tmp_path / "slices.h5"), *more))
    # Of a complete run too.
    with pytest.raises(UserError, match="n_pixels is 32, and was 16"):
        fit(words(folder, "whole", "--resume", "--data.path", str(tmp_path / "slices.h5")))
    # Weights of another network under the recipe's name.
    content = torch.load(whole / "last.ckpt", weights_only=True)
    content["state_dict"] = {k: v.repeat(2) if v.ndim == 1 else v for k, v in content["state_dict"].items()}
    torch.save(content, tmp_path / "odd.ckpt")
    with pytest.raises(UserError, match=r"odd[.]ckpt: holds other networks than the recipe"):
        fit(words(folder, "odd", "--ckpt_path", str(tmp_path / "odd.ckpt"), *more))


def test_a_run_goes_on_under_other_settings_and_says_so(folder: Path, tmp_path: Path, capsys):
    # A first stage ends where it is told to.
    fit(words(folder, "first", "--trainer.max_epochs", "2"))
    first = folder / "first" / "last.ckpt"
    assert record(first)["n_slices_seen"] == 48
    start, others = ("--ckpt_path", str(first)), ("--model.max_gradient_norm", "0.5", "--model.penalty", "null")
    go_on = (*start, *others, "--model.max_slices", "72")
    with pytest.raises(UserError, match=r"model[.]critic_lr: is 0[.]001 here and was 0[.]0002 .*--allow-changes"):
        fit(words(folder, "second", *start, "--model.critic_lr", "1e-3"))
    # One that was not set before is another one too, and so is one that is no longer there.
    with pytest.raises(UserError, match=r"model[.]max_gradient_norm: is 0[.]5 here and was null"):
        fit(words(folder, "second", *start, "--model.max_gradient_norm", "0.5"))
    with pytest.raises(UserError, match=r"model[.]penalty[.]class_path: is null here and was ZeroCentred"):
        fit(words(folder, "second", *start, "--model.penalty", "null"))
    with pytest.raises(UserError, match="allow_changes: expected true or false, found maybe"):
        fit(words(folder, "second", *go_on, "--allow-changes=maybe"))
    with pytest.raises(UserError, match="--allow-changes: there is nothing to continue from; add --ckpt_path FILE"):
        fit(words(folder, "second", *others, "--allow-changes"))
    with pytest.raises(UserError, match=r"last[.]ckpt: holds other networks than the recipe"):
        width = "--model.generator.init_args.width"
        fit(words(folder, "third", *start, "--allow-changes", "--model.max_slices", "72", width, "8"))
    fit(words(folder, "second", *go_on, "--allow-changes"))
    second = folder / "second" / "last.ckpt"
    (stage,) = record(second)["stages"]
    assert stage["until"] == 48
    others_before = {name: was for name, was in stage["settings"].items() if ".penalty." not in name}
    assert others_before == {"model.max_gradient_norm": None, "model.max_slices": 96}
    assert stage["settings"]["model.penalty.class_path"] == "ZeroCentred"
    told = "until 48 slices model.penalty.class_path: ZeroCentred, "
    assert told in capsys.readouterr().err
    # Whoever goes on from there needs no leave and what was before stays on record; a longer run is a stage as well.
    fit(words(folder, "second", "--resume", *others, "--model.max_slices", "96"))
    assert record(second)["stages"] == [stage, {"until": 72, "settings": {"model.max_slices": 72}}]
    export_checkpoint(str(second), out=str(tmp_path / "emulator.safetensors"))
    card = model_card(Emulator.load(tmp_path / "emulator.safetensors"))
    assert f"- Other settings before: {told}" in card
    assert "; until 72 slices model.max_slices: 72." in card


def test_overwriting_leaves_no_checkpoint_to_go_on_from(folder: Path, monkeypatch: pytest.MonkeyPatch):
    fit(words(folder, "again", "--model.max_slices", "24"))
    assert (folder / "again" / "last.ckpt").exists()

    def fail(*_: object) -> None:
        raise RuntimeError("killed")

    monkeypatch.setattr(CosmoGAN, "_step", fail)
    with pytest.raises(RuntimeError, match="killed"):
        fit(words(folder, "again", "--model.max_slices", "24", "--overwrite"))
    assert not list((folder / "again").rglob("*.ckpt"))


def test_bfloat16_trains_resumes_and_becomes_an_emulator(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    more = ("--trainer.precision", "bf16-mixed", "--model.max_slices", "48")
    seen = []
    convolve = torch.nn.functional.conv2d

    def note(*arguments: Any, **options: Any) -> torch.Tensor:
        made = convolve(*arguments, **options)
        seen.append(made.dtype)
        return made

    monkeypatch.setattr(torch.nn.functional, "conv2d", note)
    fit(words(folder, "bfloat16", *more))
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        strike(patch, signal.SIGTERM, step=9)
        fit(words(folder, "bfloat16-cut", *more))
    fit(words(folder, "bfloat16-cut", *more, "--resume"))
    assert_same(folder / "bfloat16-cut", folder / "bfloat16")
    weights = load_checkpoint(folder / "bfloat16" / "last.ckpt")["state_dict"]
    assert torch.bfloat16 in seen
    assert {value.dtype for value in weights.values() if value.is_floating_point()} <= {torch.float32, torch.float64}
    emulator = tmp_path / "e.safetensors"
    export_checkpoint(str(folder / "bfloat16" / "best.ckpt"), out=str(emulator))
    assert main(["generate", str(emulator), "-n", "3", "--out", str(tmp_path / "mocks.h5")]) == 0
    assert main(["check", str(tmp_path / "mocks.h5")]) == 0


if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]))
