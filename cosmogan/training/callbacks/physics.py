"""Judge the averaged generator on held-out slices while it trains; the checkpoint is chosen by this score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from matplotlib.image import imsave
from torch import Tensor

from cosmogan.checks import require_least
from cosmogan.emulator.emulator import latents
from cosmogan.networks.base import full_precision
from cosmogan.statistics.base import AbstractStatistic
from cosmogan.statistics.cross_spectrum import cross_power_spectrum
from cosmogan.statistics.histogram import Histogram
from cosmogan.statistics.minkowski import EulerCharacteristic
from cosmogan.statistics.peaks import Peaks
from cosmogan.statistics.power_spectrum import PowerSpectrum
from cosmogan.training.callbacks.figures import draw_validation
from cosmogan.training.callbacks.shares import measure_shared
from cosmogan.training.data import SliceDataModule
from cosmogan.training.gan import CosmoGAN

_BATCH = 64
# Mocks of training-time validation; far from the seeds that people use.
_SEED = 2**31 - 2
# Slices that are drawn.
_N_SHOWN = 4

# Values of each slice, shape ``(n_slices, n_bins)``, by the name of their statistic.
Measured = Mapping[str, np.ndarray]
# Name of the cross power of each slice with another one, in the rings of P(k).
CROSS_POWER = "cross_power"


class PhysicsValidation(L.Callback):
    """Compare P(k), pixel histogram, peaks and Euler characteristic of mocks with those of the validation realisations.

    Logs ``power_spectrum_error``, ``histogram_error``, ``peaks_error`` and ``euler_characteristic_error``, each the
    median of ``|mocks / held-out - 1|`` over the bins that count. Checkpoints are chosen by ``score``: the same medians
    in units of the scatter that realisations have among themselves, averaged over the statistics. P(k) of a box of
    100 Mpc scatters by 15 per cent, its Euler characteristic by a few: significance counts.
    Draws mocks beside real slices, P(k) and histogram with their ratios into ``samples/`` of the run folder and into
    TensorBoard. Mock i is the same for any number of processes, which make and measure a share of the mocks each; its
    pixels are computed in float32 whatever the precision of the training.

    Parameters
    ----------
    n_mocks
        Mocks per validation.
    keep
        Checkpoints with the best scores that are kept in ``checkpoints/`` of the run folder, beside ``best.ckpt``.
    draw
        Whether to draw.

    Attributes
    ----------
    held_out, mocks
        Values of each held-out slice and, at the last validation, of each mock; with the cross power of
        each with another one as ``CROSS_POWER``. Empty before the first validation.

    Raises
    ------
    UserError
        If a number is out of its range.
    """

    def __init__(self, n_mocks: int = 512, keep: int = 3, draw: bool = True) -> None:
        require_least(2, where="validation", n_mocks=n_mocks)
        require_least(0, where="validation", keep=keep)
        self.n_mocks, self.keep, self.draw = n_mocks, keep, draw
        # Logarithmic rings: the median over linear ones would be blind to large scales.
        self.spectrum = PowerSpectrum("log")
        self.statistics: list[AbstractStatistic] = [self.spectrum, Histogram(), Peaks(), EulerCharacteristic()]
        self.held_out: Measured = {}
        self.mocks: Measured = {}
        self._reference: dict[str, np.ndarray] = {}
        self._sigma: dict[str, np.ndarray] = {}

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Make mocks, compare, log and draw."""
        assert isinstance(module, CosmoGAN)
        data: SliceDataModule = trainer.datamodule  # type: ignore[attr-defined]
        if not self._reference:
            self._measure_data(trainer, data, module.device)
        shown: list[Tensor] = []

        def measure(numbers: Sequence[int]) -> Tensor:
            density = self.make_mocks(module, data, numbers)
            if numbers[0] == 0:
                shown.extend(density[:_N_SHOWN].cpu())
            # Mocks are independent, so the next one will do.
            return self._measure(density, density.roll(-1, 0) if len(density) > 1 else None, data)

        values = measure_shared(
            trainer, self.n_mocks, sum(self._n_bins(data)), measure, block=_BATCH, device=module.device
        )
        self.mocks = self._by_name(values, data)
        means = {statistic.name: self.mocks[statistic.name].mean(0) for statistic in self.statistics}
        errors, significances = {}, []
        for statistic in self.statistics:
            reference = self._reference[statistic.name]
            judged = statistic.judged(data.metadata, reference)
            difference = np.abs(means[statistic.name] - reference)[judged]
            errors[f"{statistic.name}_error"] = float(np.median(difference / np.abs(reference[judged])))
            significances.append(np.median(difference / self._sigma[statistic.name][judged]))
        # All processes have the same numbers, so there is nothing to reduce.
        module.log_dict(errors, rank_zero_only=True)
        score = float(np.mean(significances))
        module.log("score", score)
        if self.draw and trainer.is_global_zero and not trainer.sanity_checking:
            self._draw(trainer, module, data, shown, means, score)

    def make_mocks(self, module: CosmoGAN, data: SliceDataModule, numbers: Sequence[int]) -> Tensor:
        """Return 1 + delta of the mocks with these numbers, shape ``(len(numbers), n_pixels, n_pixels)``."""
        latent = torch.from_numpy(latents(numbers, module.average.noise_shape, seed=_SEED)).to(module.device)
        if (starts := self.mock_starts(data, numbers)) is not None:
            latent = torch.cat([starts.to(module.device), latent], 1)
        conditions = None
        if module.average.n_conditions and data.validation_conditions is not None:
            # Of one held-out slice after the other, so that means can be compared.
            chosen = torch.tensor(numbers) % len(data.validation_conditions)
            conditions = data.validation_conditions[chosen].to(module.device)
        with full_precision(module.device.type):
            made = module.average(latent, conditions)
            return made if module.average.emits_density else module.transform.inverse(made)

    @staticmethod
    def mock_starts(data: SliceDataModule, numbers: Sequence[int]) -> Tensor | None:
        """Return what these mocks start from, ``(len(numbers), 3, side, side)``: slabs in a random order; else None."""
        starts = data.validation_starts
        if starts is None:
            return None
        order = np.random.default_rng(_SEED).permutation(len(starts))
        return starts.take(order[np.array(numbers) % len(starts)])

    def _measure_data(self, trainer: L.Trainer, data: SliceDataModule, device: torch.device) -> None:
        """Measure the held-out slices, and how far the mean of as many realisations scatters."""
        n_values = sum(self._n_bins(data))

        def measure(density: Tensor) -> Measured:
            def measure_some(numbers: Sequence[int]) -> Tensor:
                # Neighbours in a file share structure, slices half a file apart do not.
                distant = (torch.tensor(numbers) + len(density) // 2) % len(density)
                other = density[distant].to(device) if len(density) > 1 else None
                return self._measure(density[numbers[0] : numbers[-1] + 1].to(device), other, data)

            values = measure_shared(trainer, len(density), n_values, measure_some, block=_BATCH, device=device)
            return self._by_name(values, data)

        self.held_out, training = measure(data.validation), measure(data.training)
        labels = np.unique(data.training_label)
        for statistic in self.statistics:
            name, values = statistic.name, self.held_out[statistic.name]
            self._reference[name] = values.mean(0)
            # Slices of one box resemble each other, so the scatter of independent slices is a lower limit.
            variance = values.var(0) / len(values)
            if len(labels) > 1:
                means = np.stack([training[name][data.training_label == label].mean(0) for label in labels])
                variance = np.maximum(variance, means.var(0, ddof=1) / len(data.validation_realisations))
            # A bin that happens not to vary must not decide alone: no error is below a part in a thousand.
            self._sigma[name] = np.sqrt(np.maximum(variance, 1e-6 * self._reference[name] ** 2))

    def _n_bins(self, data: SliceDataModule) -> list[int]:
        edges = [statistic.edges(data.metadata) for statistic in [*self.statistics, self.spectrum]]
        return [len(e) - 1 for e in edges]

    def _measure(self, density: Tensor, other: Tensor | None, data: SliceDataModule) -> Tensor:
        """Return all statistics of each slice and its cross power with another one (NaN if None), side by side."""
        values = [statistic.per_slice(density, data.metadata) for statistic in self.statistics]
        if other is None:
            cross = torch.full_like(values[0], float("nan"))
        else:
            bins = self.spectrum.bins(data.metadata).to(density.device)
            cross = cross_power_spectrum(density.double() - 1, other.double() - 1, data.metadata.box_size, bins=bins)
        return torch.cat([*values, cross], 1)

    def _by_name(self, values: np.ndarray, data: SliceDataModule) -> Measured:
        parts = np.split(values, np.cumsum(self._n_bins(data))[:-1], axis=1)
        names = [*(statistic.name for statistic in self.statistics), CROSS_POWER]
        return dict(zip(names, map(np.ascontiguousarray, parts), strict=True))

    def _draw(
        self,
        trainer: L.Trainer,
        module: CosmoGAN,
        data: SliceDataModule,
        shown: Sequence[Tensor],
        means: Measured,
        score: float,
    ) -> None:
        real = data.validation[:: max(1, len(data.validation) // _N_SHOWN)][:_N_SHOWN]
        pixels = draw_validation(
            [slice_.numpy() for slice_ in real],
            [slice_.numpy() for slice_ in shown],
            self.statistics[:2],
            data.metadata,
            reference=self._reference,
            sigma=self._sigma,
            mocks=means,
            title=f"{module.n_slices_seen:,} slices seen, score {score:.2f}",
        )
        folder = Path(trainer.default_root_dir) / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        imsave(folder / f"{module.n_slices_seen:09d}.png", pixels)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("samples", pixels, module.n_slices_seen, dataformats="HWC")
            elif isinstance(logger, WandbLogger):
                logger.log_image("samples", [pixels], step=module.n_slices_seen)
