"""Training loops that take turns in one process, a few steps each, so that what else the machine does meets all alike.

For `training.py`: the engine of `cosmogan fit`, the same training as a plain loop of torch, and a foreign program.
"""

import copy
import csv
import importlib
import io
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning as L
import numpy as np
import torch
import yaml
from jsonargparse import ArgumentParser
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

from cosmogan.losses.relativistic import Relativistic
from cosmogan.training.callbacks.progress import SliceProgress
from cosmogan.training.data import SliceDataModule, StepLoader
from cosmogan.training.fit import find_recipe
from cosmogan.training.gan import CosmoGAN
from cosmogan.training.log import run_loggers

# Longer than any benchmark, so that no schedule, validation or end comes in between.
_ENDLESS = 10**9
Loop = Callable[["Turn"], None]


class Turn:
    """What a loop calls after each of its steps; blocks while others have their turn."""

    def __init__(self, relay: "Relay", name: str) -> None:
        self._relay, self._name, self._steps = relay, name, 0

    def step(self) -> bool:
        """Return whether to go on."""
        self._steps += 1
        return self._steps % self._relay.steps_per_turn > 0 or self._relay.pass_on(self._name)


class Relay:
    """Loops in threads of their own, of which one runs at a time.

    Parameters
    ----------
    loops
        By name; each trains, calling ``turn.step()`` after each step, until that returns False.
    n_turns
        Measured turns of each loop; one more before them is not measured.
    steps_per_turn
        Steps from one loop to the next.
    device
        Where they train. On a CPU processor time is measured, which other programs on the machine disturb little; on
        a GPU the time that passes.
    """

    def __init__(self, loops: dict[str, Loop], *, n_turns: int, steps_per_turn: int, device: str = "cpu") -> None:
        self.loops, self.n_turns, self.steps_per_turn, self.device = loops, n_turns, steps_per_turn, device
        self._order = list(loops)
        self._place, self._began = threading.Condition(), 0.0
        self._active: str | None = None
        self._failure: BaseException | None = None
        self._seconds: dict[str, list[float]] = {name: [] for name in loops}

    def run(self) -> dict[str, list[float]]:
        """Return the seconds per step of each turn of each loop."""
        threads = [threading.Thread(target=self._train, args=(name,), daemon=True) for name in self._order]
        for thread in threads:
            thread.start()
        with self._place:
            self._activate(self._order[0])
        for thread in threads:
            thread.join()
        if self._failure is not None:
            raise self._failure
        return {name: seconds[1:] for name, seconds in self._seconds.items()}

    def pass_on(self, name: str) -> bool:
        """Note the turn of a loop and let the next one run; return, when it is its turn again, whether to go on."""
        self._seconds[name].append((self._now() - self._began) / self.steps_per_turn)
        if len(self._seconds[name]) > self.n_turns:
            return False
        with self._place:
            self._activate(self._after(name))
            self._wait(name)
        return self._failure is None

    def _train(self, name: str) -> None:
        try:
            with self._place:
                self._wait(name)
            if self._failure is None:
                self.loops[name](Turn(self, name))
        except BaseException as failure:
            self._failure = self._failure or failure
        with self._place:
            self._activate(self._after(name))

    def _after(self, name: str) -> str:
        return self._order[(self._order.index(name) + 1) % len(self._order)]

    def _activate(self, name: str) -> None:
        self._active = name
        self._place.notify_all()

    def _wait(self, name: str) -> None:
        self._place.wait_for(lambda: self._active == name or self._failure is not None)
        self._began = self._now()

    def _now(self) -> float:
        if self.device == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()


@lru_cache
def slices(path: str, batch_size: int, constant: bool = False) -> SliceDataModule:
    """Return the data of a run; ``constant``: one batch again and again, neither drawn nor turned."""
    kind = _OneBatch if constant else SliceDataModule
    return kind(path, batch_size=batch_size, slices_per_epoch=_ENDLESS, augment=not constant)


class _OneBatch(SliceDataModule):
    def train_dataloader(self) -> StepLoader:
        loader = super().train_dataloader()
        batch = loader.batch(0)
        loader.batch = lambda step: batch  # type: ignore[method-assign]
        return loader


@lru_cache
def _fitted(recipe: str, path: str, changes: tuple[tuple[str, Any], ...]) -> CosmoGAN:
    """Build the model of a recipe for the slices of a file, with what is fitted to them."""
    data = slices(path, 1)
    settings = yaml.safe_load(find_recipe(recipe).read_text())["model"]
    for name, value in (("generator.n_pixels", data.n_pixels), ("critic.n_pixels", data.n_pixels), *changes):
        part, argument = name.split(".")
        settings[part].setdefault("init_args", {})[argument] = value
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(CosmoGAN, "model")
    module: CosmoGAN = parser.instantiate_classes(parser.parse_object({"model": settings}))["model"]
    module.max_slices = _ENDLESS
    with torch.no_grad():
        module.transform.fit(data.training)
        module.generator.prepare(data.training, transform=module.transform, metadata=data.metadata, seed=0)
        if module.pins is not None:
            side = module.generator.training_side
            module.pins.prepare(data.training, transform=module.transform, side=side)
    return module


def model(recipe: str, path: str, **changes: Any) -> CosmoGAN:
    """Return a new model of a recipe; changes are named ``part__argument``."""
    module = copy.deepcopy(
        _fitted(recipe, path, tuple((name.replace("__", "."), value) for name, value in changes.items()))
    )
    # Once is enough: fits are no part of a step.
    module.generator.prepare = lambda *given, **settings: None  # type: ignore[method-assign]
    return module


def engine(
    module: CosmoGAN, data: SliceDataModule, folder: Path, *, device: str = "cpu", precision: str = "32-true"
) -> Loop:
    """Return the loop of `cosmogan fit`: Lightning with our loader, augmentation, average, progress and logs."""

    class Clock(L.Callback):
        def __init__(self, turn: Turn) -> None:
            self.turn = turn

        def on_train_batch_end(self, trainer: L.Trainer, *given: Any) -> None:
            trainer.should_stop = not self.turn.step()

    def loop(turn: Turn) -> None:
        trainer = L.Trainer(
            accelerator=device,
            devices=1,
            precision=precision,  # type: ignore[arg-type]
            max_epochs=-1,
            num_sanity_val_steps=0,
            limit_val_batches=0,
            # Fifty times as often as by default, so that short turns have rows of metrics.csv and TensorBoard too.
            log_every_n_steps=1,
            logger=run_loggers(folder, None, n_slices_seen=0),
            callbacks=[SliceProgress(), Clock(turn)],
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
        )
        # A shallow copy: a data module belongs to one trainer.
        trainer.fit(module, datamodule=copy.copy(data))

    return loop


class Plain:
    """The same training as one writes it without a framework: same networks, losses, optimiser, average, augmentation.

    Parameters
    ----------
    module
        Whose parts are trained.
    density
        Training slices, 1 + delta, shape ``(n, side, side)``.
    batch_size
        Slices per step.
    device
        Where to train.
    """

    def __init__(self, module: CosmoGAN, density: Tensor, batch_size: int, *, device: str = "cpu") -> None:
        self.module, self.density, self.batch_size = module.to(device), density.to(device), batch_size
        self.optimizers = [
            torch.optim.Adam(network.parameters(), lr=rate, betas=module.betas)
            for network, rate in zip((module.generator, module.critic), module.learning_rates, strict=True)
        ]
        decay = 0.5 ** (batch_size / module.average_halflife)
        self.average = AveragedModel(module.generator, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        self.n_steps = 0

    def __call__(self, turn: Turn) -> None:
        """Train."""
        log = csv.writer(io.StringIO())
        while True:
            for index in torch.randperm(len(self.density)).split(self.batch_size):
                if len(index) < self.batch_size:
                    continue
                log.writerow([loss.item() for loss in self.step(self.density[index])])
                if not turn.step():
                    return

    def step(self, density: Tensor) -> tuple[Tensor, Tensor]:
        """Train the critic, then the generator; return their losses."""
        module, (generator_optimizer, critic_optimizer) = self.module, self.optimizers
        side = module.critic.patch_pixels
        real = module.transform(turned(density))[:, :side, :side]
        latent = torch.randn(len(real), *module.generator.training_latent_shape, device=real.device)
        made = module.generator(latent)
        values = module.transform(made) if module.generator.emits_density else made
        fake = turned(values)[:, :side, :side]

        critic_loss = module.objective.critic_loss(module.critic(real), module.critic(fake.detach()))
        if module.penalty is not None:
            penalty = module.penalty(module.critic, real, fake.detach(), step=self.n_steps, seed=self.n_steps)
            critic_loss = critic_loss if penalty is None else critic_loss + penalty
        critic_optimizer.zero_grad()
        critic_loss.backward()
        critic_optimizer.step()

        module.critic.requires_grad_(False)
        fake_scores = real_scores = module.critic(fake)
        if isinstance(module.objective, Relativistic):
            with torch.no_grad():
                real_scores = module.critic(real)
        generator_loss = module.objective.generator_loss(real_scores, fake_scores)
        if module.pins is not None:
            generator_loss = generator_loss + module.pins(made, values)
        generator_optimizer.zero_grad()
        generator_loss.backward()
        generator_optimizer.step()
        module.critic.requires_grad_(True)
        self.average.update_parameters(module.generator)
        self.n_steps += 1
        return critic_loss.detach(), generator_loss.detach()


def turned(slices: Tensor) -> Tensor:
    """Roll and turn each slice."""
    side = slices.shape[-1]
    places = []
    for one in slices:
        down, right, turn = (int(torch.randint(n, ())) for n in (side, side, 8))
        rolled = torch.rot90(torch.roll(one, (down, right), (0, 1)), turn % 4)
        places.append(rolled.T if turn >= 4 else rolled)
    return torch.stack(places)


class Public:
    """The 2D program of https://github.com/vmos1/cosmogan_pytorch, its own loop and networks, from a checkout.

    Parameters
    ----------
    folder
        The prepared ``code/1_basic_GAN/1_main_code/DDP_new_loss`` of the checkout; see the README beside this file.
    values
        Network values of the training slices, shape ``(n, 128, 128)``: the size its networks are made for.
    batch_size
        Slices per step.
    out
        Folder that it may write to.
    device
        Where to train.
    bare
        Whether to switch off what it does beyond adversarial training: terms of its loss, detection of anomalies, and
        all but one of the mocks that it judges at every step.
    """

    def __init__(
        self, folder: Path, values: Tensor, batch_size: int, out: Path, *, bare: bool, device: str = "cpu"
    ) -> None:
        self.main = _import_main(folder)
        self.values, self.bare = values.unsqueeze(1), bare
        (out / "images").mkdir(parents=True)
        (out / "models").mkdir()
        self.settings = yaml.safe_load((folder / "config_2dgan.yaml").read_text())["parameters"]
        self.settings |= {
            "image_size": values.shape[-1],
            "batch_size": batch_size,
            "save_dir": str(out),
            "device": torch.device(device),
            "mode": "fresh",
            "epochs": 1,
            "ngpu": 0,
            "world_rank": 0,
            "multi-gpu": False,
            "distributed": False,
        }
        if bare:
            self.settings |= {"lambda_spec_mean": 0.0, "lambda_spec_var": 0.0, "lambda_fm": 0.0, "op_size": 1}

    def __call__(self, turn: Turn) -> None:
        """Train, with the set-up of its main block."""
        import pandas as pd

        main, settings = self.main, self.settings
        networks = main.f_init_GAN(settings)
        names = ("netG", "netD", "criterion", "optimizerD", "optimizerG")
        with torch.no_grad():
            radius, index = main.f_get_rad(self.values.numpy())
            mean, scatter = main.f_torch_image_spectrum(main.f_invtransform(self.values), 1, radius, index)
            histogram = main.f_compute_hist(self.values, bins=settings["bns"])
        noise = torch.randn(settings["op_size"], 1, 1, settings["nz"], device=settings["device"])
        batches = DataLoader(
            TensorDataset(self.values), batch_size=settings["batch_size"], shuffle=True, drop_last=True
        )
        # Its functions find the networks among the globals of their module, one copy of which serves all loops.
        globals_ = dict(zip(names, networks, strict=True)) | {"gdict": settings}
        main.f_train_loop(
            _Batches(batches, turn, main, globals_, anomalies=not self.bare),
            pd.DataFrame(),
            settings,
            noise,
            mean,
            scatter,
            histogram,
            radius,
            index,
        )


class _Batches:
    """Batches of a loader without end; sets what is global before each step and takes it back afterwards."""

    def __init__(
        self, loader: DataLoader, turn: Turn, main: ModuleType, globals_: dict[str, Any], *, anomalies: bool
    ) -> None:
        self._loader, self._turn, self._main = loader, turn, main
        self._globals, self._anomalies = globals_, anomalies

    def __len__(self) -> int:
        return _ENDLESS

    def __iter__(self) -> Iterator[Any]:
        while True:
            for batch in self._loader:
                vars(self._main).update(self._globals)
                torch.autograd.set_detect_anomaly(self._anomalies)
                yield batch
                torch.autograd.set_detect_anomaly(False)
                if not self._turn.step():
                    return


@lru_cache(maxsize=1)
def _import_main(folder: Path) -> ModuleType:
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("main")
    finally:
        sys.path.remove(str(folder))


def spread(seconds: list[float]) -> tuple[float, float, float]:
    """Return median, smallest and largest."""
    return float(np.median(seconds)), min(seconds), max(seconds)
