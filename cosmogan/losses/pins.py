"""Pins: hold P(k), the pixel distribution and the mean density of mocks where the training slices have them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cosmogan.statistics.power_spectrum import power_spectrum, radial_bins
from cosmogan.transforms import AbstractTransform, interpolate

# Tail probabilities at which the distribution is held, on either side, and the centre.
_TAILS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.25)
# Width of the soft step, in standard deviations of the network values.
_SOFTNESS = 0.05


class StatisticPins(nn.Module):
    """Squared log ratios of running means of the mocks' statistics to those of the training slices.

    Single batches scatter by more than the bias that a critic introduces, so the deviation is measured on running means
    and only its gradient is taken through the current batch.

    Parameters
    ----------
    power
        Weight of the power spectrum of the density, averaged over ln k.
    distribution
        Weight of the soft cumulative distribution of the network values.
    mean
        Weight of the mean density.
    memory
        Slices over which the running means reach back.
    """

    levels: Tensor

    def __init__(self, power: float = 0.3, distribution: float = 0.1, mean: float = 1.0, memory: int = 1000) -> None:
        super().__init__()
        self.weights = {"power": power, "distribution": distribution, "mean": mean}
        self.memory = memory

    def prepare(self, density: Tensor, *, transform: AbstractTransform, side: int) -> None:
        """Measure the training slices.

        Parameters
        ----------
        density
            1 + delta, shape ``(n, n_pixels, n_pixels)``.
        transform
            The fitted pixel transform.
        side
            Side in pixels of the fields that will be pinned; P(k) is taken over to their wave numbers.
        """
        n_pixels = density.shape[-1]
        bins = radial_bins(n_pixels)
        power = torch.stack([self._power(block).mean(0) for block in density.split(128)]).mean(0)
        if side != n_pixels:
            wanted, known = radial_bins(side).centres / side, bins.centres / n_pixels
            power = torch.exp(interpolate(wanted, known, torch.log(power)))
        values = transform(density[:: max(1, len(density) // 512)])
        probabilities = torch.tensor([*_TAILS, 0.5, *(1 - p for p in reversed(_TAILS))])
        ordered = values.flatten().sort().values
        self.register_buffer("levels", ordered[(probabilities * (len(ordered) - 1)).long()].clone())
        targets = {"power": power, "distribution": self._tails(values), "mean": torch.ones(1)}
        for name, target in targets.items():
            self.register_buffer(f"target_{name}", target.double().clone())
            self.register_buffer(f"running_{name}", target.double().clone())

    def forward(self, density: Tensor, values: Tensor) -> Tensor:
        """Return the penalty, a scalar, and update the running means.

        Parameters
        ----------
        density, values
            1 + delta and network values of mocks, shape ``(n, side, side)``.
        """
        decay = 0.5 ** (len(density) / self.memory)
        current = {
            "power": self._power(density).mean(0),
            "distribution": self._tails(values),
            "mean": density.double().mean().view(1),
        }
        total = density.new_zeros(())
        for name, batch in current.items():
            running, target = getattr(self, f"running_{name}"), getattr(self, f"target_{name}")
            running.mul_(decay).add_(batch.detach(), alpha=1 - decay)
            deviation = torch.log(running / target)
            # Value: the squared deviation of the running mean; gradient: as if the batch were all of it.
            through_batch = (batch - batch.detach()) / running
            terms = deviation.square() + 2 * deviation * through_batch
            if name == "power":
                # Linear rings are dense at high k; equal weight per logarithmic interval keeps the large scales.
                ring = torch.arange(1, len(terms) + 1, device=terms.device)
                terms = terms / ring * (len(terms) / (1 / ring).sum())
            total = total + self.weights[name] * terms.mean().float()
        return total

    def _power(self, density: Tensor) -> Tensor:
        side = density.shape[-1]
        return power_spectrum(density - 1, side, bins=radial_bins(side).to(density.device))

    def _tails(self, values: Tensor) -> Tensor:
        """Return the smaller of the two tail probabilities at each level, shape ``(n_levels,)``."""
        middle = len(self.levels) // 2
        scaled = (values.flatten().unsqueeze(1) - self.levels) / _SOFTNESS
        sign = torch.where(torch.arange(len(self.levels), device=values.device) <= middle, -1.0, 1.0)
        return torch.sigmoid(sign * scaled).double().mean(0)
