"""Two processes on one machine: they stay in step, do what one does with twice the batch, and resume exactly.

Run as a program this file is the work of one process.
"""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import nn

from cosmogan.emulator.export import load_checkpoint
from cosmogan.losses.penalties import ZeroCentred
from cosmogan.losses.pins import StatisticPins
from cosmogan.losses.relativistic import Relativistic
from cosmogan.networks.base import AbstractGenerator
from cosmogan.networks.dcgan import DCGANCritic
from cosmogan.slices import write_example
from cosmogan.training.data import SliceDataModule
from cosmogan.training.fit import fit
from cosmogan.training.gan import CosmoGAN
from cosmogan.training.interruption import Interrupted
from cosmogan.transforms import LogTransform
from tests.cosmogan.training.recipes import PINNED, ROOT, recipe, shorten_fits

RECIPE = recipe(
    PINNED, data="batch_size: 2, slices_per_epoch: 24", trainer="accelerator: cpu, devices: 2", max_slices=120
)
N_STEPS = 6
# Sums over slices in another order, through 6 steps of Adam, which magnifies rounding of the smallest gradients.
ROUNDING = 2e-5


class LinearGenerator(AbstractGenerator):
    """One convolution: nothing couples the slices of a batch."""

    def __init__(self, n_pixels: int) -> None:
        super().__init__(n_pixels)
        self.layer = nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return (1, self.n_pixels, self.n_pixels)

    def forward(self, latent: torch.Tensor, conditions: torch.Tensor | None = None) -> torch.Tensor:
        return self.layer(latent).squeeze(1)

    def settings(self) -> dict:
        return {"n_pixels": self.n_pixels}


def train_uncoupled(folder: Path, *, devices: int, batch_size: int) -> CosmoGAN:
    """Train networks that do not couple slices, with everything else that the recipe has."""
    L.seed_everything(0)
    module = CosmoGAN(
        LinearGenerator(16),
        DCGANCritic(16, width=4, normalisation="none"),
        Relativistic(),
        LogTransform(),
        ZeroCentred(1.0, every=2),
        StatisticPins(),
        max_slices=4 * N_STEPS,
        n_critic_steps=2,
        max_gradient_norm=1.0,
    )
    trainer = L.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=devices,
        strategy="ddp_find_unused_parameters_true" if devices > 1 else "auto",
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = SliceDataModule(str(folder / "slices.h5"), batch_size=batch_size, slices_per_epoch=4 * N_STEPS)
    trainer.fit(module, datamodule=data)
    return module


def work(folder: Path, rank: int) -> None:
    """Do all that the tests need, in one of two processes."""
    torch.save(train_uncoupled(folder, devices=2, batch_size=2).state_dict(), folder / f"uncoupled-{rank}.pt")

    def keep_state(module: CosmoGAN) -> None:
        torch.save(module.state_dict(), folder / f"{out}-{rank}.pt")

    def raise_signal(module: CosmoGAN, *_: object) -> None:
        if (out, rank, module.n_steps) == ("cut", 1, 13):
            os.kill(os.getpid(), signal.SIGTERM)

    shorten_fits()
    CosmoGAN.on_fit_end = keep_state
    CosmoGAN.on_train_batch_start = raise_signal
    words = ["--config", str(folder / "recipe.yaml"), "--data.path", str(folder / "slices.h5")]
    out = "whole"
    fit([*words, "--out", str(folder / out)])
    out = "cut"
    try:
        fit([*words, "--out", str(folder / out), "--resume"])
    except Interrupted as stop:
        (folder / f"code-{rank}").write_text(str(stop.code))
    out = "resumed"
    fit([*words, "--out", str(folder / "cut"), "--resume"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes have left."""
    folder = tmp_path_factory.mktemp("processes")
    write_example(folder / "slices.h5", n_realisations=3, n_slices=8)
    (folder / "recipe.yaml").write_text(RECIPE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.cosmogan.training.test_two_processes", str(folder), str(rank)],
            cwd=ROOT,
            env=environment | {"LOCAL_RANK": str(rank), "NODE_RANK": "0"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors[0][-2000:] + errors[1][-2000:]
    (folder / "stderr").write_text(errors[0])
    return folder


def states(folder: Path, name: str) -> list[dict[str, torch.Tensor]]:
    return [torch.load(folder / f"{name}-{rank}.pt", weights_only=True) for rank in range(2)]


def assert_close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float = 0.0) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("name", ["uncoupled", "whole", "resumed"])
def test_processes_stay_in_step(folder: Path, name: str):
    one, other = states(folder, name)
    assert_close(one, other)
    for part in ("generator.", "critic.", "average.", "pins.running_"):
        assert any(key.startswith(part) for key in one), part


def test_two_processes_of_n_slices_are_one_of_2n(folder: Path):
    alone = train_uncoupled(folder, devices=1, batch_size=4).state_dict()
    together = states(folder, "uncoupled")[0]
    assert_close(alone, together, ROUNDING)
    # Twin: another batch is another result.
    other = train_uncoupled(folder, devices=1, batch_size=2).state_dict()
    with pytest.raises(AssertionError):
        assert_close(other, together, ROUNDING)


def test_a_signal_to_one_process_stops_both_and_the_run_resumes(folder: Path):
    assert [(folder / f"code-{rank}").read_text() for rank in range(2)] == [str(128 + signal.SIGTERM), "0"]
    assert "stopped by a signal to another process after 80 of 120 slices" in (folder / "stderr").read_text()
    assert_close(states(folder, "resumed")[0], states(folder, "whole")[0])
    whole, resumed = (load_checkpoint(folder / out / "last.ckpt") for out in ("whole", "cut"))
    torch.testing.assert_close(resumed["optimizer_states"], whole["optimizer_states"], rtol=0, atol=0)
    assert (folder / "cut" / "metrics.csv").read_bytes() == (folder / "whole" / "metrics.csv").read_bytes()


if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]))
