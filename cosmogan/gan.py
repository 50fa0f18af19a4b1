"""The training step: one Lightning module for every pair of networks and every objective."""

from __future__ import annotations

import copy
import json
import math
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor, nn

from cosmogan.data import SliceBatch, SliceDataModule, augment, derive_seed
from cosmogan.ema import update_average
from cosmogan.errors import UserError
from cosmogan.losses.base import AbstractObjective
from cosmogan.losses.pins import StatisticPins
from cosmogan.networks.base import AbstractCritic, AbstractGenerator, count_parameters
from cosmogan.transforms import AbstractTransform


class CosmoGAN(L.LightningModule):
    """A generator, a critic and the objective they play.

    Every random number of a step is derived from (seed, step, rank), so that a resumed run repeats an uninterrupted one
    bit for bit on a CPU. Progress is counted in slices seen, over all processes.

    Parameters
    ----------
    generator, critic
        The networks.
    objective
        Their losses.
    transform
        Pixel value to network value; fitted on the training slices at the start.
    pins
        Statistics of the mocks that are held to those of the training slices; none if None.
    max_slices
        Length of the training in slices seen.
    generator_lr, critic_lr
        Learning rates of Adam.
    generator_warmup
        Slices over which the generator's rate rises from zero, so that an untrained critic does not lead it astray.
    final_lr
        Share of the learning rates that is left at the end, approached along a cosine.
    betas
        Of Adam, for both networks.
    n_critic_steps
        Critic steps, each on fresh slices, per generator step.
    average_halflife
        Slices seen after which a generator's weights count half in the average that is validated and exported.
    seed
        Of latents and penalties.

    Raises
    ------
    UserError
        If the parts do not fit together.
    """

    def __init__(
        self,
        generator: AbstractGenerator,
        critic: AbstractCritic,
        objective: AbstractObjective,
        transform: AbstractTransform,
        pins: StatisticPins | None = None,
        max_slices: int = 100_000,
        generator_lr: float = 2e-4,
        critic_lr: float = 2e-4,
        generator_warmup: int = 0,
        final_lr: float = 1.0,
        betas: tuple[float, float] = (0.0, 0.99),
        n_critic_steps: int = 1,
        average_halflife: int = 5_000,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if objective.penalises_gradient and any(isinstance(m, nn.BatchNorm2d) for m in critic.modules()):
            raise UserError(
                "model.critic: batch normalisation couples the slices of a batch, so that a gradient penalty means "
                "nothing; set its normalisation to 'none' or choose an objective without penalty"
            )
        if generator.n_pixels != critic.n_pixels:
            raise UserError("model: generator and critic must have the same n_pixels")
        for name, value in (("max_slices", max_slices), ("n_critic_steps", n_critic_steps)):
            if value < 1:
                raise UserError(f"model.{name}: expected at least 1, found {value}")
        self.automatic_optimization = False
        self.generator, self.critic, self.transform, self.pins = generator, critic, transform, pins
        self.average = copy.deepcopy(generator).requires_grad_(False).eval()
        self.objective = objective
        self.max_slices, self.n_critic_steps, self.seed = max_slices, n_critic_steps, seed
        self.learning_rates, self.final_lr, self.betas = (generator_lr, critic_lr), final_lr, betas
        self.generator_warmup = generator_warmup
        self.average_halflife = average_halflife
        # Counted here and not from global_step, which counts two per batch when there are two optimisers.
        self.n_slices_seen = self.n_steps = 0
        self.slice_metadata: dict[str, Any] = {}
        self.training_realisations: list[int] = []
        # The resolved configuration as YAML, where there is one; goes into checkpoint and emulator.
        self.recipe = ""

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Return Adam for the generator and for the critic."""
        generator_lr, critic_lr = self.learning_rates
        return [
            torch.optim.Adam(self.generator.parameters(), lr=generator_lr, betas=self.betas),
            torch.optim.Adam(self.critic.parameters(), lr=critic_lr, betas=self.betas),
        ]

    def setup(self, stage: str) -> None:
        """Fit what is fitted, not learnt, on the training slices."""
        data: SliceDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        self.slice_metadata = data.metadata.to_dict() | {"quantity": "density", "mean_count": None}
        self.training_realisations = data.training_realisations
        with torch.no_grad():
            self.transform.fit(data.training)
            self.generator.prepare(data.training, transform=self.transform, metadata=data.metadata, seed=self.seed)
            self.average = copy.deepcopy(self.generator).requires_grad_(False).eval()
            if self.pins is not None:
                side = self.generator.training_latent_shape[-1] if self.generator.emits_density else data.n_pixels
                self.pins.prepare(data.training, transform=self.transform, side=side)

    def training_step(self, batch: SliceBatch, batch_idx: int) -> None:
        """Do one critic step and, every ``n_critic_steps``, one generator step on the same mocks."""
        step = self.n_steps
        seed = derive_seed(self.seed, step, self.global_rank)
        generator_optimizer, critic_optimizer = cast(list[Any], self.optimizers())
        self._set_learning_rates(generator_optimizer, critic_optimizer)
        generator_turn = (step + 1) % self.n_critic_steps == 0
        side = self.critic.patch_pixels
        real = self.transform(batch.density)[:, :side, :side]
        with torch.set_grad_enabled(generator_turn):
            density, values = self._mocks(len(real), seed)
            # A periodic field has no preferred origin: roll it before the critic's patch is cut.
            fake = augment(values, seed=derive_seed(seed, 1))[:, :side, :side]

        # Critic step.
        real_scores, fake_scores = self.critic(real), self.critic(fake.detach())
        critic_loss = self.objective.critic_loss(real_scores, fake_scores)
        critic_optimizer.zero_grad()
        penalty = self.objective.penalty(self.critic, real, fake.detach(), step=step, seed=derive_seed(seed, 2))
        self.manual_backward(critic_loss if penalty is None else critic_loss + penalty)
        critic_optimizer.step()
        self.n_steps += 1
        self.n_slices_seen += len(real) * self.trainer.world_size
        logs = {"critic_loss": critic_loss, "real_score": real_scores.mean(), "fake_score": fake_scores.mean()}
        if penalty is not None:
            self.log("penalty", penalty.detach(), batch_size=len(real))

        # Generator step.
        if generator_turn:
            self.critic.requires_grad_(False)
            with torch.no_grad():
                real_scores = self.critic(real)
            generator_loss = self.objective.generator_loss(real_scores, self.critic(fake))
            loss = generator_loss
            if self.pins is not None:
                pinned = self.pins(density, values)
                loss = loss + pinned
                logs["pins"] = pinned
            generator_optimizer.zero_grad()
            self.manual_backward(loss)
            generator_optimizer.step()
            self.critic.requires_grad_(True)
            n_between = self.n_critic_steps * len(real) * self.trainer.world_size
            update_average(self.average, self.generator, decay=0.5 ** (n_between / self.average_halflife))
            logs["generator_loss"] = generator_loss
        self.log_dict({name: value.detach() for name, value in logs.items()}, batch_size=len(real))
        self.log("n_slices_seen", float(self.n_slices_seen), batch_size=len(real))

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stop when enough slices have been seen."""
        if self.n_slices_seen >= self.max_slices:
            self.trainer.should_stop = True

    @torch.no_grad()
    def on_validation_epoch_start(self) -> None:
        """Make the averaged generator ready for use, and so for the checkpoint that follows.

        Raises
        ------
        UserError
            If training has diverged; the checkpoints written before stay as they are.
        """
        if not all(torch.isfinite(parameter).all() for parameter in self.parameters()):
            raise UserError(
                f"training diverged before {self.n_slices_seen} slices: weights are no longer finite. The last good "
                "checkpoint is kept; lower model.generator_lr and model.critic_lr or raise the objective's penalty"
            )
        self.average.calibrate(seed=self.seed)

    def validation_step(self, batch: int, batch_idx: int) -> None:
        """Do nothing: the physics callback compares whole sets of slices."""

    def _mocks(self, n_slices: int, seed: int) -> tuple[Tensor, Tensor]:
        """Return 1 + delta and network values of mocks, shape ``(n_slices, side, side)`` each."""
        random = torch.Generator().manual_seed(seed)
        latent = torch.randn(n_slices, *self.generator.training_latent_shape, generator=random).to(self.device)
        made = self.generator(latent)
        if self.generator.emits_density:
            return made, self.transform(made)
        # Only the pins look at the density of a generator that makes network values.
        return (made if self.pins is None else self.transform.inverse(made)), made

    def _set_learning_rates(self, *optimizers: Any) -> None:
        progress = min(1.0, self.n_slices_seen / self.max_slices)
        share = self.final_lr + (1 - self.final_lr) * 0.5 * (1 + math.cos(math.pi * progress))
        rise = min(1.0, self.n_slices_seen / self.generator_warmup) if self.generator_warmup else 1.0
        for optimizer, rate, factor in zip(optimizers, self.learning_rates, (rise * share, share), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add, as text, what `cosmogan export` needs beside the weights."""
        checkpoint["cosmogan"] = json.dumps(
            {
                "generator": {"name": type(self.generator).__name__, "settings": self.average.settings()},
                "transform": {"name": type(self.transform).__name__, "settings": self.transform.settings()},
                "metadata": self.slice_metadata,
                "training": {
                    "n_slices_seen": self.n_slices_seen,
                    "n_steps": self.n_steps,
                    "realisations": self.training_realisations,
                    "objective": type(self.objective).__name__,
                    "n_parameters": count_parameters(self.generator),
                    "recipe": self.recipe,
                },
            }
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the count of slices and steps."""
        training = json.loads(checkpoint["cosmogan"])["training"]
        self.n_slices_seen, self.n_steps = training["n_slices_seen"], training["n_steps"]
