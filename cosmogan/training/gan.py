"""The training step: one Lightning module for every pair of networks and every objective."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import lightning as L
import torch
from torch import Tensor, nn

from cosmogan.checks import require_least, require_positive
from cosmogan.emulator.starts import StartMaker
from cosmogan.errors import UserError
from cosmogan.losses.base import AbstractObjective
from cosmogan.losses.feature_matching import feature_matching
from cosmogan.losses.penalties import AbstractPenalty
from cosmogan.losses.pins import StatisticPins
from cosmogan.networks.base import AbstractCritic, AbstractGenerator, count_parameters, full_precision
from cosmogan.networks.gravity_start import GravityStartGenerator
from cosmogan.seeds import derive_seed
from cosmogan.training.data import SliceBatch, SliceDataModule, StepLoader, augment
from cosmogan.training.ema import update_average
from cosmogan.transforms import AbstractTransform

# Steps between two looks at whether losses are finite: a look waits for the device.
_CHECKED_EVERY = 50


class Mocks(NamedTuple):
    """Mocks of a step: 1 + delta, network values ``(n, side, side)``, and what the critic sees of these."""

    density: Tensor
    values: Tensor
    seen: Tensor


class _Told:
    """A critic that is told the conditions of the slices it judges."""

    def __init__(self, critic: AbstractCritic, conditions: Tensor) -> None:
        self._critic, self._conditions = critic, conditions

    def __call__(self, values: Tensor) -> Tensor:
        return self._critic(values, self._conditions)

    def forward(self, values: Tensor) -> Tensor:
        # As a penalty calls it: past what is compiled.
        return self._critic.forward(values, self._conditions)

    def features(self, values: Tensor) -> Tensor:
        return self._critic.features(values, self._conditions)


class CosmoGAN(L.LightningModule):
    """A generator, a critic and the objective they play.

    Every random number of a step is derived from (seed, step, place in the batch over all processes): a resumed run
    repeats an uninterrupted one bit for bit on a CPU, and two processes of n slices do what one of 2 n does, up to
    rounding, where networks do not couple the slices of a batch. Progress counts the slices seen by all processes.

    Parameters
    ----------
    generator, critic
        The networks.
    objective
        Their losses.
    transform
        Pixel value to network value; fitted on the training slices at the start.
    penalty
        Penalty on the gradient of the critic; none if None.
    pins
        Statistics of the mocks that are held to those of the training slices; none if None.
    feature_matching
        Weight of the squared distance of mean critic features of mocks and slices in the generator's loss.
    max_slices
        Length of the training in slices seen.
    generator_lr, critic_lr
        Learning rates of Adam.
    generator_warmup
        Slices over which the generator's rate rises from zero, so that an untrained critic does not lead it astray.
    final_lr, final_penalty, final_pins
        Learning rates, penalty and pins at the end in units of those at the start, approached along a cosine.
    final_beta2
        Second of ``betas`` at the end, approached along the same cosine; unchanged if None.
    schedule_end
        Share of ``max_slices`` at which the cosines end.
    betas
        Rates of Adam, for both networks.
    n_critic_steps
        Critic steps, each on fresh slices, per generator step.
    n_microbatches
        Parts in which a batch is computed, to save memory; mocks are then made twice per step.
    max_gradient_norm
        Longer gradients of a network are shortened to this; never if None. How long they were is logged, as
        ``generator_gradient`` and ``critic_gradient``.
    average_halflife
        Slices seen after which a generator's weights count half in the average that is validated and exported.
    average_rampup
        Share of the slices seen that this half-life never exceeds, so that an early average does not hold what the
        generator was at its start; no such limit if None.
    compile
        Mode of ``torch.compile`` for both networks, or ``"none"``; ``"reduce-overhead"`` uses CUDA graphs. Gradient
        penalties, which differentiate twice, are computed without.
    regression
        Weight of the mean distance of the network values of mocks from those of the slices of the same phases in the
        generator's loss, for generators that start from a simulation; falls with the learning rate.
    turn_mocks
        Whether mocks are turned by the 8 symmetries of the square before the critic sees them, as slices are. If not,
        it sees where a generator prefers a direction.
    seed
        Seed of latents and penalties.

    Raises
    ------
    UserError
        If the parts do not fit together.

    References
    ----------
    Feature matching: Salimans et al. 2016, arXiv:1606.03498, section 3.1. Schedules of learning rate, beta2 and
    penalty: Huang et al. 2025, arXiv:2501.05441, appendix.
    """

    def __init__(
        self,
        generator: AbstractGenerator,
        critic: AbstractCritic,
        objective: AbstractObjective,
        transform: AbstractTransform,
        penalty: AbstractPenalty | None = None,
        pins: StatisticPins | None = None,
        feature_matching: float = 0.0,
        max_slices: int = 100_000,
        generator_lr: float = 2e-4,
        critic_lr: float = 2e-4,
        generator_warmup: int = 0,
        final_lr: float = 1.0,
        final_penalty: float = 1.0,
        final_pins: float = 1.0,
        final_beta2: float | None = None,
        schedule_end: float = 1.0,
        betas: tuple[float, float] = (0.0, 0.99),
        n_critic_steps: int = 1,
        n_microbatches: int = 1,
        max_gradient_norm: float | None = None,
        average_halflife: int = 5_000,
        average_rampup: float | None = None,
        compile: Literal["none", "default", "reduce-overhead", "max-autotune"] = "none",
        regression: float = 0.0,
        turn_mocks: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if penalty is not None and any(isinstance(m, nn.BatchNorm2d) for m in critic.modules()):
            raise UserError(
                "model.critic: batch normalisation couples the slices of a batch, so that a gradient penalty means "
                "nothing; set its normalisation to 'none' or model.penalty to null"
            )
        if objective.needs_energies and not critic.scores_energies:
            raise UserError(
                f"model.objective: {type(objective).__name__} needs a critic whose scores are minus an energy, and "
                f"{type(critic).__name__} has others; choose AutoencoderCritic or another objective"
            )
        if generator.n_pixels != critic.n_pixels:
            raise UserError("model: generator and critic must have the same n_pixels")
        if generator.n_conditions != critic.n_conditions:
            raise UserError(
                f"model: the generator takes {generator.n_conditions} conditions and the critic {critic.n_conditions}; "
                "give both the number of data.conditions as n_conditions"
            )
        if critic.mean_count not in (None, generator.mean_count):
            made = "no whole numbers" if generator.mean_count is None else f"{generator.mean_count:g} per pixel"
            raise UserError(
                f"model.critic.mean_count: the critic is to see particles, {critic.mean_count:g} per pixel, and mocks "
                f"of {type(generator).__name__} hold {made} of them; take SpectralPriorGenerator with the same "
                "mean_count, or set that of the critic to null"
            )
        if (critic.pairs or regression) and not generator.n_start_planes:
            what = "critic.pairs" if critic.pairs else "regression"
            raise UserError(
                f"model.{what}: {type(generator).__name__} starts from noise, so that no slice belongs to its start; "
                f"set it to {'false' if critic.pairs else '0'} or take GravityStartGenerator"
            )
        require_least(0, "", where="model", regression=regression)
        require_least(
            1,
            where="model",
            max_slices=max_slices,
            n_critic_steps=n_critic_steps,
            n_microbatches=n_microbatches,
            average_halflife=average_halflife,
        )
        require_positive("a learning rate", where="model", generator_lr=generator_lr, critic_lr=critic_lr)
        require_least(0, where="model", final_lr=final_lr, final_penalty=final_penalty, final_pins=final_pins)
        require_positive("a share", where="model", null=True, average_rampup=average_rampup)
        require_positive("a length", where="model", null=True, max_gradient_norm=max_gradient_norm)
        for name, beta in (("betas", betas[0]), ("betas", betas[1]), ("final_beta2", final_beta2)):
            if beta is not None and not 0 <= beta < 1:
                raise UserError(f"model.{name}: expected numbers of at least 0 and below 1, found {beta}")
        if not 0 < schedule_end <= 1:
            raise UserError(f"model.schedule_end: expected a share between 0 and 1, found {schedule_end}")
        self.automatic_optimization = False
        self.generator, self.critic, self.transform, self.pins = generator, critic, transform, pins
        self.average = copy.deepcopy(generator).requires_grad_(False).eval()
        self.objective, self.penalty, self.feature_matching = objective, penalty, feature_matching
        self.max_slices, self.n_critic_steps, self.seed = max_slices, n_critic_steps, seed
        self.learning_rates, self.betas, self.generator_warmup = (generator_lr, critic_lr), betas, generator_warmup
        self.final_lr, self.final_penalty, self.final_pins = final_lr, final_penalty, final_pins
        self.schedule_end = schedule_end
        self.final_beta2 = betas[1] if final_beta2 is None else final_beta2
        self.n_microbatches, self.max_gradient_norm = n_microbatches, max_gradient_norm
        self.average_halflife, self.average_rampup = average_halflife, average_rampup
        self.compile_mode, self.turn_mocks, self.regression = compile, turn_mocks, regression
        # Counted here and not from global_step, which counts two per batch when there are two optimisers.
        self.n_slices_seen = self.n_steps = self.n_slices_saved = 0
        self._calibrated_at = -1
        self.slice_metadata: dict[str, Any] = {}
        self.training_realisations: list[int] = []
        self.phases: str | None = None
        self.conditions: list[dict[str, float | str]] = []
        # The resolved configuration as YAML, where there is one; goes into checkpoint and emulator.
        self.recipe = ""
        # What its settings were before, where a run went on under others (`Resumption.stages`).
        self.stages: list[dict[str, Any]] = []
        self._latest: dict[str, Any] = {}

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
        if data.n_conditions != self.generator.n_conditions:
            raise UserError(
                f"data.conditions names {data.n_conditions} conditions, but the networks take "
                f"{self.generator.n_conditions}; set n_conditions of generator and critic"
            )
        if data.phases == "random" and (self.critic.pairs or self.regression):
            what = "critic.pairs" if self.critic.pairs else "regression"
            raise UserError(f"model.{what}: compares slices with starts of the same phases, and data.phases is random")
        self.slice_metadata = data.metadata.to_dict() | {"quantity": "density", "mean_count": None}
        self.training_realisations = data.training_realisations
        self.phases = data.phases if self.generator.n_start_planes else None
        self.conditions = data.conditions.to_list() if data.conditions else []
        # A CUDA device fits in a second what takes a core a minute; others may lack the float64 that fits need.
        root = self.trainer.strategy.root_device
        device = root if root.type == "cuda" else torch.device("cpu")
        training = data.training.to(device)
        with torch.no_grad():
            for part in (self.transform, self.generator, self.critic):
                part.to(device)
            self.transform.fit(training)
            self.generator.prepare(training, transform=self.transform, metadata=data.metadata, seed=self.seed)
            self.critic.prepare(training, metadata=data.metadata)
            if isinstance(self.generator, GravityStartGenerator):
                maker = StartMaker(self.generator, data.metadata)
                maker.tabulate()
                data.make_starts(maker)
                if data.phases == "same":
                    self.generator.require_whole()
            self.average = copy.deepcopy(self.generator).requires_grad_(False).eval()
            if isinstance(self.average, GravityStartGenerator):
                self.average.starts = data.training_starts
            if self.pins is not None:
                self.pins.to(device)
                partners = self.phases == "same"
                self.pins.prepare(
                    training, transform=self.transform, side=self.generator.training_side, partners=partners
                )
        if self.compile_mode != "none":
            self.generator.compile(mode=self.compile_mode)
            self.critic.compile(mode=self.compile_mode)

    def on_train_start(self) -> None:
        """Let the loader continue where the count of steps says, also in the middle of an epoch."""
        cast(StepLoader, self.trainer.train_dataloader).step = self.n_steps

    def training_step(self, batch: SliceBatch, batch_idx: int) -> None:
        """Do one critic step and, every ``n_critic_steps``, one generator step on the same mocks."""
        step, seed = self.n_steps, derive_seed(self.seed, self.n_steps)
        generator_optimizer, critic_optimizer = cast(list[Any], self.optimizers())
        self._set_rates(generator_optimizer, critic_optimizer)
        generator_turn = (step + 1) % self.n_critic_steps == 0
        side = self.critic.patch_pixels
        real_values = self.transform(batch.density)
        beside = self.start_values(batch.starts) if self.critic.pairs and batch.starts is not None else None
        real = self.critic.shown(batch.density, real_values, beside)[..., :side, :side]
        latents = self._latents(batch, seed)
        parts = [slice(int(p[0]), int(p[-1]) + 1) for p in torch.arange(len(real)).chunk(self.n_microbatches)]
        shares = [(part.stop - part.start) / len(real) for part in parts]
        # One part: the critic's mocks are those of the generator's step too.
        kept: Mocks | None = None
        logs: dict[str, Tensor] = {}

        def add(name: str, value: Tensor, share: float) -> None:
            logs[name] = logs.get(name, 0.0) + share * value.detach()

        # Critic step.
        critic_optimizer.zero_grad()
        for part, share in zip(parts, shares, strict=True):
            with torch.set_grad_enabled(generator_turn and len(parts) == 1):
                kept = self._mocks(latents[part], batch, part, seed, beside)
            critic, fake = self._critic_of(batch, part), kept.seen.detach()
            real_scores, fake_scores = critic(real[part]), critic(fake)
            critic_loss = self.objective.critic_loss(real_scores, fake_scores)
            loss = critic_loss
            if self.penalty is not None:
                random = derive_seed(seed, 2) // 2 + batch.first + part.start
                penalty = self.penalty(critic, real[part], fake, step=step, seed=random)
                if penalty is not None:
                    loss = loss + self._scheduled(self.final_penalty) * penalty
                    add("penalty", penalty, share)
            self.manual_backward(share * loss)
            add("critic_loss", critic_loss, share)
            add("real_score", real_scores.mean(), share)
            add("fake_score", fake_scores.mean(), share)
        logs |= self._step(critic_optimizer, self.critic)
        self.n_steps += 1
        self.n_slices_seen += batch.total

        # Generator step.
        if generator_turn:
            self.critic.requires_grad_(False)
            generator_optimizer.zero_grad()
            for part, share in zip(parts, shares, strict=True):
                mocks = kept if len(parts) == 1 and kept else self._mocks(latents[part], batch, part, seed, beside)
                critic = self._critic_of(batch, part)
                fake_scores = critic(mocks.seen)
                with torch.no_grad():
                    real_scores = critic(real[part]) if self.objective.pairs else fake_scores.detach()
                generator_loss = self.objective.generator_loss(real_scores, fake_scores)
                loss = generator_loss
                if self.pins is not None:
                    partners = (batch.density[part], real_values[part]) if self.phases == "same" else None
                    pinned = self.pins(mocks.density, mocks.values, partners)
                    loss = loss + self._scheduled(self.final_pins) * pinned
                    add("pins", pinned, share)
                if self.regression:
                    distance = (mocks.values - real_values[part]).abs().mean()
                    loss = loss + self.regression * self._scheduled(self.final_lr) * distance
                    add("regression", distance, share)
                if self.feature_matching:
                    matched = feature_matching(critic, real[part], mocks.seen)
                    loss = loss + self.feature_matching * matched
                    add("feature_matching", matched, share)
                self.manual_backward(share * loss)
                add("generator_loss", generator_loss, share)
            logs |= self._step(generator_optimizer, self.generator)
            self.critic.requires_grad_(True)
            halflife = float(self.average_halflife)
            if self.average_rampup is not None:
                halflife = min(halflife, self.average_rampup * self.n_slices_seen)
            decay = 0.5 ** (self.n_critic_steps * batch.total / halflife)
            update_average(self.average, self.generator, decay=decay)
        if step % _CHECKED_EVERY == 0:
            finite = all(bool(torch.isfinite(value)) for value in logs.values())
            # All processes stop together, lest the others wait for the one that does.
            if not self.trainer.strategy.reduce_boolean_decision(finite):
                raise UserError(self._divergence("losses"))
        # What this step has not computed, such as a lazy penalty, keeps its value in the logs.
        self._latest.update(logs)
        self.log_dict(self._latest, batch_size=len(real))
        self.log("generator_rate", generator_optimizer.param_groups[0]["lr"], batch_size=len(real))
        self._log_place(len(real))

    def _critic_of(self, batch: SliceBatch, part: slice) -> AbstractCritic:
        """Return the critic for one part of a batch."""
        return (
            self.critic
            if batch.conditions is None
            else cast(AbstractCritic, _Told(self.critic, batch.conditions[part]))
        )

    def _latents(self, batch: SliceBatch, seed: int) -> Tensor:
        """Return the latents of this process's slices: noise of each drawn with its own seed, behind its start."""
        random = torch.Generator(self.device)
        latents = torch.empty(len(batch.density), *self.generator.training_latent_shape, device=self.device)
        n_start = self.generator.n_start_planes
        if n_start:
            assert batch.starts is not None
            latents[:, :n_start] = batch.starts
        for slot, latent in enumerate(latents, start=batch.first):
            # Seeds have 63 bits.
            random.manual_seed((seed + slot) % 2**63)
            latent[n_start:].normal_(generator=random)
        return latents

    def start_values(self, starts: Tensor) -> Tensor:
        """Return the network values of starts ``(n, 3, side, side)``, shape ``(n, side, side)``."""
        assert isinstance(self.generator, GravityStartGenerator)
        with full_precision(self.device.type):
            return self.transform(self.generator.start_density(starts))

    def _mocks(self, latent: Tensor, batch: SliceBatch, part: slice, seed: int, beside: Tensor | None = None) -> Mocks:
        """Return the mocks of one part of a batch."""
        made = self.generator(latent, None if batch.conditions is None else batch.conditions[part])
        with full_precision(self.device.type):
            if self.generator.emits_density:
                density, values = made, self.transform(made)
            else:
                # Only the pins look at the density of a generator that makes network values.
                density, values = (made if self.pins is None else self.transform.inverse(made)), made
            # A periodic field has no preferred origin: roll it before the critic's patch is cut.
            side = self.critic.patch_pixels
            place = {"first": batch.first + part.start, "total": batch.total}
            if beside is not None:
                # In the place and orientation of the real one.
                shown = self.critic.shown(density, values, beside[part])
                return Mocks(density, values, shown[..., :side, :side])
            shown = self.critic.shown(density, values)
            seen = augment(shown, seed=derive_seed(seed, 1), turn=self.turn_mocks, **place)[..., :side, :side]
        return Mocks(density, values, seen)

    def _step(self, optimizer: Any, network: nn.Module) -> dict[str, Tensor]:
        """Step; return how long the gradient was before it was shortened, for the logs."""
        logs = {}
        if self.max_gradient_norm is not None:
            norm = nn.utils.clip_grad_norm_(network.parameters(), self.max_gradient_norm)
            logs["critic_gradient" if network is self.critic else "generator_gradient"] = norm
        optimizer.step()
        return logs

    def _scheduled(self, final: float) -> float:
        """Return the share of 1 that is left of a schedule that ends at ``final``."""
        progress = min(1.0, self.n_slices_seen / (self.schedule_end * self.max_slices))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    def _set_rates(self, *optimizers: Any) -> None:
        share = self._scheduled(self.final_lr)
        rise = min(1.0, self.n_slices_seen / self.generator_warmup) if self.generator_warmup else 1.0
        beta2 = self.final_beta2 + (self.betas[1] - self.final_beta2) * self._scheduled(0.0)
        for optimizer, rate, factor in zip(optimizers, self.learning_rates, (rise * share, share), strict=True):
            for group in optimizer.param_groups:
                group["lr"], group["betas"] = rate * factor, (self.betas[0], beta2)

    def _divergence(self, what: str) -> str:
        last = Path(self.trainer.default_root_dir) / "last.ckpt"
        kept = f"The last good checkpoint is {last}" if last.exists() else "There is no checkpoint yet"
        return (
            f"training diverged before {self.n_slices_seen} slices: {what} are no longer finite. {kept}; lower "
            "model.generator_lr and model.critic_lr or raise the weight of model.penalty"
        )

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
        self._calibrate()

    def _calibrate(self) -> None:
        """Make the averaged generator ready for use, once per step, and refuse weights that nobody should save."""
        if self._calibrated_at != self.n_steps:
            if not all(torch.isfinite(parameter).all() for parameter in self.parameters()):
                raise UserError(self._divergence("weights"))
            self.average.calibrate(seed=self.seed)
            self._calibrated_at = self.n_steps

    def validation_step(self, batch: int, batch_idx: int) -> None:
        """Only note the place: the physics callback compares whole sets of slices."""
        self._log_place(1)

    def _log_place(self, batch_size: int) -> None:
        # Lightning takes this as the place of the row; in float32 it would be exact up to 17 million slices only.
        self.log("step", torch.tensor(self.n_slices_seen, dtype=torch.float64), batch_size=batch_size)

    @torch.no_grad()
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add, as text, what `cosmogan export` needs beside the weights; and what the next row of the logs may need."""
        # Between validations, when a signal ends a run; the checkpoint refers to these very tensors.
        self._calibrate()
        self.n_slices_saved = self.n_slices_seen
        checkpoint["latest"] = {name: float(value) for name, value in self._latest.items()}
        checkpoint["cosmogan"] = json.dumps(
            {
                "generator": {"name": type(self.generator).__name__, "settings": self.average.settings()},
                "transform": {"name": type(self.transform).__name__, "settings": self.transform.settings()},
                "metadata": self.slice_metadata,
                "training": {
                    "n_slices_seen": self.n_slices_seen,
                    "n_steps": self.n_steps,
                    "realisations": self.training_realisations,
                    "conditions": self.conditions,
                    **({"phases": self.phases} if self.phases else {}),
                    "objective": type(self.objective).__name__,
                    "n_parameters": count_parameters(self.generator),
                    "recipe": self.recipe,
                    "stages": self.stages,
                },
            }
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the count of slices and steps, and the latest values of the logs."""
        self._latest = dict(checkpoint.get("latest", {}))
        training = json.loads(checkpoint["cosmogan"])["training"]
        self.n_slices_seen, self.n_steps = training["n_slices_seen"], training["n_steps"]
        self.n_slices_saved = self.n_slices_seen
