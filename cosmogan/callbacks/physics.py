"""Judge the averaged generator on held-out slices while it trains; the checkpoint is chosen by this score."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from cosmogan.data import SliceDataModule
from cosmogan.emulator import latents
from cosmogan.gan import CosmoGAN
from cosmogan.slices import SliceMetadata
from cosmogan.statistics.base import AbstractStatistic
from cosmogan.statistics.histogram import Histogram
from cosmogan.statistics.minkowski import EulerCharacteristic
from cosmogan.statistics.peaks import Peaks
from cosmogan.statistics.power_spectrum import PowerSpectrum

_BATCH = 64
_N_SHOWN = 4
# Mocks of training-time validation; far from the seeds that people use.
_SEED = 2**31 - 2


class PhysicsValidation(L.Callback):
    """Compare P(k), pixel histogram, peaks and Euler characteristic of mocks with those of the validation realisations.

    Logs ``power_spectrum_error``, ``histogram_error``, ``peaks_error`` and ``euler_characteristic_error``, each the
    median of ``|mocks / held-out - 1|`` over the bins that count. Checkpoints are chosen by ``score``: the same medians
    in units of the scatter that realisations have among themselves, averaged over the statistics. P(k) of a box of
    100 Mpc scatters by 15 per cent, its Euler characteristic by a few: significance counts.
    Draws mocks beside real slices and P(k) with its ratio into ``samples/`` of the run folder and into TensorBoard.

    Parameters
    ----------
    n_mocks
        Mocks per validation.
    draw
        Whether to draw.
    """

    def __init__(self, n_mocks: int = 512, draw: bool = True) -> None:
        self.n_mocks, self.draw = n_mocks, draw
        # Logarithmic rings: the median over linear ones would be blind to large scales.
        self.statistics: list[AbstractStatistic] = [PowerSpectrum("log"), Histogram(), Peaks(), EulerCharacteristic()]
        self._reference: dict[str, np.ndarray] = {}
        self._sigma: dict[str, np.ndarray] = {}

    def on_validation_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Make mocks, compare, log and draw."""
        assert isinstance(module, CosmoGAN)
        data: SliceDataModule = trainer.datamodule  # type: ignore[attr-defined]
        metadata = data.metadata
        if not self._reference:
            self._measure_data(data, module.device)
        mocks = self._mocks(module)
        measured = {name: values.mean(0) for name, values in self._measure(mocks, metadata, module.device).items()}
        errors, significances = {}, []
        for statistic in self.statistics:
            reference = self._reference[statistic.name]
            judged = statistic.judged(metadata, reference)
            difference = np.abs(measured[statistic.name] - reference)[judged]
            errors[f"{statistic.name}_error"] = float(np.median(difference / np.abs(reference[judged])))
            significances.append(np.median(difference / self._sigma[statistic.name][judged]))
        # Every process makes the same mocks, so there is nothing to reduce.
        module.log_dict(errors, rank_zero_only=True)
        module.log("score", float(np.mean(significances)))
        if self.draw and trainer.is_global_zero and not trainer.sanity_checking:
            self._draw(trainer, module, mocks, measured["power_spectrum"])

    def _measure_data(self, data: SliceDataModule, device: torch.device) -> None:
        """Measure the held-out slices, and how far the mean of as many realisations scatters."""
        held_out = self._measure(data.validation, data.metadata, device)
        training = self._measure(data.training, data.metadata, device)
        labels = np.unique(data.training_label)
        for name, values in held_out.items():
            self._reference[name] = values.mean(0)
            # Slices of one box resemble each other, so the scatter of independent slices is a lower limit.
            variance = values.var(0) / len(values)
            if len(labels) > 1:
                means = np.stack([training[name][data.training_label == label].mean(0) for label in labels])
                variance = np.maximum(variance, means.var(0, ddof=1) / len(data.validation_realisations))
            # A bin that happens not to vary must not decide alone: no error is below a part in a thousand.
            self._sigma[name] = np.sqrt(np.maximum(variance, 1e-6 * self._reference[name] ** 2))

    def _mocks(self, module: CosmoGAN) -> Tensor:
        blocks = []
        for start in range(0, self.n_mocks, _BATCH):
            index = range(start, min(start + _BATCH, self.n_mocks))
            latent = torch.from_numpy(latents(index, module.average.latent_shape, seed=_SEED)).to(module.device)
            made = module.average(latent)
            blocks.append(made if module.average.emits_density else module.transform.inverse(made))
        return torch.cat(blocks)

    def _measure(self, density: Tensor, metadata: SliceMetadata, device: torch.device) -> dict[str, np.ndarray]:
        """Return each statistic of each slice, shape ``(n_slices, n_bins)``."""
        values: dict[str, list[np.ndarray]] = {s.name: [] for s in self.statistics}
        for block in density.split(_BATCH):
            for statistic in self.statistics:
                values[statistic.name].append(statistic.per_slice(block.to(device), metadata).cpu().numpy())
        return {name: np.concatenate(parts) for name, parts in values.items()}

    def _draw(self, trainer: L.Trainer, module: CosmoGAN, mocks: Tensor, power: np.ndarray) -> None:
        data: SliceDataModule = trainer.datamodule  # type: ignore[attr-defined]
        statistic = self.statistics[0]
        k, reference = statistic.centres(data.metadata), self._reference[statistic.name]
        figure = Figure(figsize=(13, 5.2), layout="constrained")
        grid = figure.add_gridspec(2, _N_SHOWN + 2, width_ratios=[1] * _N_SHOWN + [0.15, 1.7])
        real = data.validation[:: max(1, len(data.validation) // _N_SHOWN)]
        low, high = np.quantile(data.validation[:64].numpy(), [0.02, 0.998])
        for row, (name, images) in enumerate((("simulation, held out", real), ("mocks", mocks))):
            for column in range(min(_N_SHOWN, len(images))):
                axes = figure.add_subplot(grid[row, column])
                pixels = images[column].cpu().numpy()
                axes.imshow(np.log(np.maximum(pixels, low)), vmin=np.log(low), vmax=np.log(high), cmap="magma")
                axes.set(xticks=[], yticks=[])
                if column == 0:
                    axes.set_ylabel(name)
        upper = figure.add_subplot(grid[0, -1])
        upper.loglog(k, reference, label="simulation, held out", color="0.3")
        upper.loglog(k, power, label="mocks", color="tab:orange")
        upper.set_ylabel("P(k) [(Mpc/h)$^2$]")
        upper.legend(frameon=False)
        lower = figure.add_subplot(grid[1, -1], sharex=upper)
        lower.semilogx(k, power / reference, color="tab:orange")
        lower.axhline(1, color="0.3", lw=0.8)
        lower.set(xlabel="k [h/Mpc]", ylabel="mocks / simulation", ylim=(0.5, 1.5))
        figure.suptitle(f"{module.n_slices_seen:,} slices seen")
        folder = Path(trainer.default_root_dir) / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / f"{module.n_slices_seen:09d}.png", dpi=80)
        for logger in trainer.loggers:
            if isinstance(logger, L.pytorch.loggers.TensorBoardLogger):
                logger.experiment.add_figure("samples", figure, module.n_slices_seen)
