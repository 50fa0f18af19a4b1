"""Plain words when a training goes wrong: it falls apart, collapse, an overfitted critic, one that cannot tell."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cosmogan.checks import require_least
from cosmogan.emulator.starts import BoxStarts
from cosmogan.files import replaced
from cosmogan.networks.base import full_precision
from cosmogan.statistics.cross_spectrum import are_alike
from cosmogan.statistics.two_sample import area_under_curve
from cosmogan.training.callbacks.checkpoints import BestCheckpoints
from cosmogan.training.callbacks.physics import CROSS_POWER, Measured, PhysicsValidation
from cosmogan.training.callbacks.shares import measure_shared
from cosmogan.training.data import SliceDataModule, augment
from cosmogan.training.gan import CosmoGAN

# ln P(k) of mocks that are not copies scatters by 0.86 to 1.12 of what simulated slices do (lognormal, copula, other
# simulations; boxes of 100 and 500 Mpc), copies not at all.
_MONOTONOUS = 0.5
# Before mocks have this share of the power they are no slices yet, and alike because they are empty.
_EMPTY = 0.1
# P(k) and pixel shares of one held-out realisation differ from those of the others by up to 0.35 (500 Mpc) and 0.54
# (100 Mpc) of their scatter between slices; so may the scores of a critic that has nothing by heart.
_OVERFITTED = 1.0
# With 256 slices of either kind, chance alone is within this of 1/2 in 95 of 100 validations.
_UNDECIDED = 0.05
# A critic that ranks this share of pairs rightly has learnt something; one that has not by the middle never will.
_TELLS, _MIDDLE = 0.6, 0.5
# The score of a training that went on well was once 3.0 times its best before; that of one that fell apart 3.2 and, at
# the next validation, 11 times (100 Mpc, 128 x 128 pixels).
_APART = 4.0
# Or the critic, which once ranked fewer than the first share of pairs rightly, ranks all of them, and the score is
# worse: of a training that fell apart from 0.56 to 1, its score 2.8 times the best (100 Mpc, 64 x 64 pixels). In short
# ones that went on well the critic got from 0.72 to 1, the score no worse.
_NEARLY_EVEN, _ALL, _WORSE = 0.75, 0.99, 1.5
# Validations in a row before an alarm is raised: that scores agree at one happens to any training.
_PATIENCE = {"undecided": 3}
# Of the places where the critic looks, the same at every validation.
_SEED = 2**31 - 3


@dataclass(frozen=True)
class Variety:
    """How different mocks are from each other, medians over the rings of P(k) that count.

    Parameters
    ----------
    coherence
        Cross power of different mocks over their P(k), beyond that of held-out slices: 0 if independent, 1 for copies.
    error
        Scatter of the coherence in one ring, if mocks are as independent as held-out slices.
    scatter
        Standard deviation of ln P(k) between mocks over that between held-out slices: 0 for copies.
    power
        P(k) of mocks over that of held-out slices.
    """

    coherence: float
    error: float
    scatter: float
    power: float

    @property
    def alike(self) -> bool:
        """Whether mocks have structure in common."""
        return are_alike(self.coherence, self.error)

    @property
    def monotonous(self) -> bool:
        """Whether mocks hardly differ in P(k)."""
        return self.scatter < _MONOTONOUS


def measure_variety(mocks: Measured, held_out: Measured, judged: np.ndarray) -> Variety:
    """Compare how much mocks differ among themselves with how much held-out slices do.

    Parameters
    ----------
    mocks, held_out
        Values that `PhysicsValidation` measured.
    judged
        Rings that count, bool, shape ``(n_bins,)``.

    Returns
    -------
        NaN where there are no two slices to compare, or mocks are no numbers.
    """
    n_mocks, n_held_out = len(mocks["power_spectrum"]), len(held_out["power_spectrum"])
    if min(n_mocks, n_held_out) < 2 or not np.isfinite(mocks["power_spectrum"][:, judged]).all():
        return Variety(coherence=math.nan, error=math.nan, scatter=math.nan, power=math.nan)
    coherence, error, scatter, means = [], [], [], []
    for measured in (mocks, held_out):
        power, cross = measured["power_spectrum"][:, judged], measured[CROSS_POWER][:, judged]
        mean = np.maximum(power.mean(0), np.finfo(float).tiny)
        means.append(mean)
        coherence.append(np.nanmean(cross, 0) / mean)
        error.append(np.nanstd(cross, 0) / mean)
        # A slice without any structure has no logarithm.
        scatter.append(np.log(np.maximum(power, np.finfo(float).tiny)).std(0))
    # Copies would make the mocks' own error large.
    expected = error[1] * np.sqrt(1 / n_mocks + 1 / n_held_out)
    return Variety(
        coherence=float(np.median(coherence[0] - coherence[1])),
        error=float(np.median(expected)),
        scatter=float(np.median(scatter[0] / scatter[1])),
        power=float(np.median(means[0] / means[1])),
    )


def measure_gap(training: np.ndarray, held_out: np.ndarray) -> float:
    """Return by how much a critic prefers training slices to held-out ones, in units of their scatter.

    Parameters
    ----------
    training, held_out
        Scores, shape ``(n,)`` each.
    """
    difference, scatter = training.mean() - held_out.mean(), np.sqrt(0.5 * (training.var() + held_out.var()))
    with np.errstate(divide="ignore"):
        return float(difference / scatter) if difference else 0.0


class Findings(NamedTuple):
    """What a validation found: variety, gap, separation and the lowest since any, its score and the best one before."""

    variety: Variety
    gap: float
    separation: float
    closest: float
    score: float
    best: float


def _sentence(kind: str, streak: int, found: Findings, *, penalised: bool) -> str:
    """Return what is wrong and what to change; ``penalised`` is whether the recipe has a penalty to raise or lower."""
    variety = found.variety
    penalty = "raise the weight of model.penalty" if penalised else "give model.penalty (ZeroCentred)"
    since = f" for {streak} validations" if streak > 1 else ""
    if kind == "score":
        return (
            f"the score is not a number{since}: mocks hold infinite or undefined pixels, and no checkpoint is kept as "
            "one of the best; lower model.generator_lr, or choose another transform"
        )
    if kind == "apart":
        told = f"; the critic ranks {found.separation:.0%} of the pairs rightly, and ranked {found.closest:.0%}"
        return (
            f"the training fell apart{since}: the score is {found.score:.3g} and was {found.best:.3g} before, as "
            f"best.ckpt has it{told if found.separation > found.closest else ''}; start over and lower "
            f"model.generator_lr, {penalty}, or set model.max_gradient_norm or limit of the generator "
            "(SpectralPriorGenerator)"
        )
    if kind == "collapse":
        how = (
            f"different mocks are {variety.coherence:.0%} coherent, beyond what held-out slices are"
            if variety.alike
            else f"ln P(k) of mocks scatters by {variety.scatter:.0%} of what it does between held-out slices"
        )
        return (
            f"mode collapse{since}: {how}; lower model.generator_lr, {penalty}, or take a critic that sees the variety "
            "of a batch (PatchCritic)"
        )
    if kind == "overfitted":
        return (
            f"the critic is overfitted{since}: it scores training slices above held-out ones by {found.gap:.1f} times "
            f"their scatter; train on more realisations, keep data.augment on, {penalty}, or narrow the critic"
        )
    weaker = ", or lower the weight of model.penalty" if penalised else ""
    return (
        f"the critic cannot tell mocks from slices{since}: it ranks {found.separation:.0%} of the pairs rightly, and "
        "chance would 50%; training is done if the scores in metrics.csv are good enough; if not, raise "
        f"model.critic_lr or lower model.generator_lr, widen the critic{weaker}"
    )


def _best_score(trainer: L.Trainer) -> float:
    """Return the best score that a checkpoint is kept of; checkpoints are written after this validation."""
    kept = (c.best_model_score for c in trainer.callbacks if isinstance(c, BestCheckpoints))  # type: ignore[attr-defined]
    return min((float(score) for score in kept if score is not None), default=math.inf)


class Alarms(L.Callback):
    """Say in a sentence what goes wrong and what to change, on standard error and in ``alarms.txt`` of the run folder.

    Each validation logs ``coherence`` and ``variety`` of the mocks (see `Variety`), ``critic_gap``, by how much the
    critic prefers training slices to held-out ones in units of their scatter, and ``critic_separation``, the share of
    pairs of a training slice and a mock in which the slice has the higher score. Stands after a `PhysicsValidation` in
    the list of callbacks.

    Parameters
    ----------
    n_scored
        Slices of each kind that the critic scores per validation.
    """

    def __init__(self, n_scored: int = 256) -> None:
        require_least(2, where="alarms", n_scored=n_scored)
        self.n_scored = n_scored
        # Lowest separation since the critic first told mocks from slices; None before.
        self._closest: float | None = None
        # Validations in a row with a reason for an alarm, by kind.
        self._streaks: dict[str, int] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return how little the critic told slices from mocks since it first did, and how long alarms had reason."""
        return {"closest": self._closest, "streaks": self._streaks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._streaks = state_dict["streaks"]
        # Checkpoints of before 27 November 2026 know only whether it has.
        self._closest = state_dict.get("closest", 1.0 if state_dict.get("has_told") else None)

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Forget alarms beyond the checkpoint that the run continues from."""
        assert isinstance(module, CosmoGAN)
        path = Path(trainer.default_root_dir) / "alarms.txt"
        if trainer.is_global_zero and path.exists():
            places = [(line, line.split(" ")[0]) for line in path.read_text().splitlines(keepends=True)]
            # A line without an end was cut by a kill; one without a place is of somebody else.
            kept = [
                line
                for line, place in places
                if line.endswith("\n") and not (place.isdecimal() and int(place) > module.n_slices_seen)
            ]
            with replaced(path) as beside:
                beside.write_text("".join(kept))

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Measure, log and warn."""
        assert isinstance(module, CosmoGAN)
        if trainer.sanity_checking:
            return
        (validation,) = (c for c in trainer.callbacks if isinstance(c, PhysicsValidation))  # type: ignore[attr-defined]
        data: SliceDataModule = trainer.datamodule  # type: ignore[attr-defined]
        spectrum = validation.spectrum
        judged = spectrum.judged(data.metadata, validation.held_out[spectrum.name].mean(0))
        variety = measure_variety(validation.mocks, validation.held_out, judged)
        told = self._score(trainer, module, data, validation)
        gap = measure_gap(told["training"], told["held_out"])
        finite = np.isfinite(told["training"]).all() and np.isfinite(told["mocks"]).all()
        separation = area_under_curve(told["training"], told["mocks"]) if finite else 0.0
        values = {"coherence": variety.coherence, "variety": variety.scatter}
        values |= {"critic_gap": gap, "critic_separation": separation}
        module.log_dict(values, rank_zero_only=True)

        if self._closest is not None or separation > _TELLS:
            self._closest = min(separation, 1.0 if self._closest is None else self._closest)
        has_told, closest = self._closest is not None, 1.0 if self._closest is None else self._closest
        # Of networks that have just begun, little can be said.
        late = module.n_slices_seen > _MIDDLE * module.max_slices
        score, best = float(trainer.callback_metrics["score"]), _best_score(trainer)
        lost = separation > _ALL and closest < _NEARLY_EVEN and score > _WORSE * best
        reasons = {
            "score": not np.isfinite(score),
            "apart": np.isfinite(score) and (score > _APART * best or lost),
            "collapse": (variety.alike or variety.monotonous) and (late or variety.power > _EMPTY),
            "overfitted": gap > _OVERFITTED,
            "undecided": (late or has_told) and abs(separation - 0.5) < _UNDECIDED,
        }
        self._streaks = {kind: self._streaks.get(kind, 0) + 1 for kind, found in reasons.items() if found}
        for kind, streak in self._streaks.items():
            turn, between = divmod(streak, _PATIENCE.get(kind, 1))
            # For the first, second, fourth, eighth ... time, lest a long run says the same a hundred times.
            if trainer.is_global_zero and turn and not between and turn & (turn - 1) == 0:
                penalised = module.penalty is not None
                found = Findings(variety, gap, separation, closest, score, best)
                self._raise(trainer, module, _sentence(kind, streak, found, penalised=penalised))

    def _raise(self, trainer: L.Trainer, module: CosmoGAN, sentence: str) -> None:
        # Above the progress bar, if there is one.
        tqdm.write(f"alarm at {module.n_slices_seen:,} slices: {sentence}", file=sys.stderr)
        with (Path(trainer.default_root_dir) / "alarms.txt").open("a") as file:
            file.write(f"{module.n_slices_seen} slices: {sentence}\n")

    def _score(
        self, trainer: L.Trainer, module: CosmoGAN, data: SliceDataModule, validation: PhysicsValidation
    ) -> dict[str, np.ndarray]:
        """Return the critic's scores of training slices, held-out slices and mocks, as it sees them while it trains."""
        side = module.critic.patch_pixels

        def score(values: Tensor, conditions: Tensor | None) -> Tensor:
            told = None if conditions is None or not module.critic.n_conditions else conditions.to(module.device)
            with full_precision(module.device.type):
                # Not compiled again for another mode.
                return module.critic.forward(values[..., :side, :side], told)[:, None]

        def shown(density: Tensor, starts: Tensor | None) -> Tensor:
            beside = module.start_values(starts) if starts is not None else None
            return module.critic.shown(density, module.transform(density), beside)

        def turned(values: Tensor, numbers: Sequence[int], turn: bool) -> Tensor:
            return augment(values, seed=_SEED, first=numbers[0], total=self.n_scored, turn=turn)

        def score_real(density: Tensor, conditions: Tensor | None, starts: BoxStarts | None) -> np.ndarray:
            # Neighbours in a file resemble each other, batches of the training do not.
            order = torch.from_numpy(np.random.default_rng(_SEED).permutation(len(density))[: self.n_scored])

            def measure(numbers: Sequence[int]) -> Tensor:
                some = order[numbers[0] : numbers[-1] + 1]
                start = starts.take(some.numpy()).to(module.device) if module.critic.pairs and starts else None
                values = shown(density[some].to(module.device), start)
                seen = turned(values, numbers, True) if data.augment else values
                return score(seen, None if conditions is None else conditions[some])

            return measure_scores(len(order), measure)

        def score_mocks(numbers: Sequence[int]) -> Tensor:
            density = validation.make_mocks(module, data, numbers)
            conditions = data.validation_conditions
            told = None if conditions is None else conditions[torch.tensor(numbers) % len(conditions)]
            start = validation.mock_starts(data, numbers) if module.critic.pairs else None
            seen = shown(density, None if start is None else start.to(module.device))
            return score(turned(seen, numbers, module.turn_mocks), told)

        def measure_scores(n_slices: int, measure: Any) -> np.ndarray:
            return measure_shared(trainer, n_slices, 1, measure, block=data.batch_size, device=module.device)[:, 0]

        return {
            "training": score_real(data.training, data.training_conditions, data.training_starts),
            "held_out": score_real(data.validation, data.validation_conditions, data.validation_starts),
            "mocks": measure_scores(min(self.n_scored, validation.n_mocks), score_mocks),
        }
