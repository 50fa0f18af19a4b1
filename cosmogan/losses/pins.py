"""Pins: hold P(k), its scatter and isotropy, pixel distribution and mean density of mocks where slices have them."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn

from cosmogan.checks import require_least, require_positive
from cosmogan.errors import UserError
from cosmogan.networks.base import full_precision
from cosmogan.statistics.power_spectrum import power_spectrum, radial_bins
from cosmogan.transforms import AbstractTransform, interpolate

# Tail probabilities at which the distribution is held, on either side, and the centre.
_TAILS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.25)
# Width of the soft step, in standard deviations of the network values.
_SOFTNESS = 0.05
# Pixels compared with all levels at a time on a CPU: what they need stays in its cache.
_PIXELS_AT_A_TIME = 2**15
# Smallest variance, in units of the squared mean: rounding may leave less than nothing.
_LEAST_VARIANCE = 1e-12
# Marks what slices of the same phases have.
_PARTNERS = "partners_"


class StatisticPins(nn.Module):
    """Squared log ratios of running means of the mocks' statistics to those of the training slices.

    Single batches scatter by more than the bias that a critic introduces, so the deviation is measured on running means
    and only its gradient is taken through the current batch. Where several processes train, the running means are over
    the slices of all and each process has the gradient of its own, which their average completes.

    Parameters
    ----------
    power
        Weight of the power spectrum of the density, averaged over ln k.
    distribution
        Weight of the soft cumulative distribution of the network values.
    mean
        Weight of the mean density.
    variance
        Weight of the variance of P(k) from slice to slice, averaged over ln k.
    values_power
        Weight of the power spectrum of the network values, averaged over k: the texture of voids and filaments, which
        P(k) of the density, made by the peaks, does not know.
    isotropy
        Weight of the power's dependence on direction, averaged over ln k: quadrants with k_x k_y > 0 against those
        with k_x k_y < 0, and |k_x| > |k_y| against |k_x| < |k_y|. Slices that are turned at random show none on
        average, and a critic that sees turned mocks cannot see it in theirs.
    memory
        Slices over which the running means reach back.
    warmup
        Slices over which the weights rise from zero, counted over all processes.

    Raises
    ------
    UserError
        If a weight or ``warmup`` is negative, all weights are zero or ``memory`` is not positive.
    """

    levels: Tensor
    running_mean: Tensor
    target_power: Tensor
    target_variance: Tensor
    n_slices_seen: Tensor
    ring: Tensor
    shares: Tensor

    def __init__(
        self,
        power: float = 0.3,
        distribution: float = 0.1,
        mean: float = 1.0,
        variance: float = 0.0,
        values_power: float = 0.0,
        isotropy: float = 0.0,
        memory: int = 1000,
        warmup: int = 0,
    ) -> None:
        super().__init__()
        self.weights = {
            "power": power,
            "distribution": distribution,
            "mean": mean,
            "variance": variance,
            "values_power": values_power,
            "isotropy": isotropy,
        }
        require_least(0, "", where="model.pins", **self.weights, warmup=warmup)
        if not any(self.weights.values()):
            raise UserError("model.pins: all weights are zero; set model.pins to null for none")
        require_positive("a number of slices", where="model.pins", memory=memory)
        self.memory, self.warmup = memory, warmup

    def prepare(self, density: Tensor, *, transform: AbstractTransform, side: int, partners: bool = False) -> None:
        """Measure the training slices.

        Parameters
        ----------
        density
            1 + delta, shape ``(n, n_pixels, n_pixels)``.
        transform
            The fitted pixel transform.
        side
            Side in pixels of the fields that will be pinned; P(k) is taken over to their wave numbers.
        partners
            Whether `forward` will be told slices of the same phases.

        Raises
        ------
        UserError
            If the variance of P(k) is to be pinned and ``side`` is another than that of the slices.
        """
        n_pixels = density.shape[-1]
        bins = radial_bins(n_pixels).to(density.device)
        power = square = torch.zeros(bins.n_bins, dtype=torch.float64, device=density.device)
        for block in density.split(128):
            each = power_spectrum(block - 1, n_pixels, bins=bins)
            power, square = power + each.sum(0) / len(density), square + each.square().sum(0) / len(density)
        targets = {"mean": power.new_ones(1)}
        starts = {}
        if self.weights["variance"]:
            if side != n_pixels:
                raise UserError(
                    "model.pins.variance: the scatter of P(k) depends on the size of a slice, and training slices have "
                    f"{n_pixels} pixels along a side, but the generator makes {side} in training; set the weight to 0"
                )
            targets["variance"] = _variance(power, square)
            starts["square"] = square
        values = transform(density[:: max(1, len(density) // 512)])
        targets["power"] = _at_side(power, side, n_pixels=n_pixels)
        if self.weights["values_power"]:
            power_of_values = power_spectrum(values - values.mean(), n_pixels, bins=bins).mean(0).double()
            targets["values_power"] = starts["values_power"] = _at_side(power_of_values, side, n_pixels=n_pixels)
        if self.weights["isotropy"]:
            starts["directions"] = targets["power"].expand(4, -1)
        probabilities = torch.tensor([*_TAILS, 0.5, *(1 - p for p in reversed(_TAILS))], device=values.device)
        ordered = values.flatten().sort().values
        self.register_buffer("levels", ordered[(probabilities * (len(ordered) - 1)).long()].clone())
        targets["distribution"] = self._tails(values)
        for name, target in targets.items():
            self.register_buffer(f"target_{name}", target.double().clone())
        for name in ("power", "distribution", "mean"):
            starts[name] = targets[name]
        for name, start in starts.items():
            self.register_buffer(f"running_{name}", start.double().clone())
        if partners:
            for name in ("power", "distribution", "mean", "values_power"):
                if self.weights[name]:
                    self.register_buffer(f"running_{_PARTNERS}{name}", starts[name].double().clone())
        # Made only where they are used, so that checkpoints of runs without them still fit.
        if self.warmup:
            self.register_buffer("n_slices_seen", torch.zeros((), dtype=torch.int64, device=density.device))
        ring, shares = _rings(side)
        self.register_buffer("ring", ring.to(density.device), persistent=False)
        self.register_buffer("shares", shares.to(density.device), persistent=False)

    def forward(self, density: Tensor, values: Tensor, partners: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return the penalty, a scalar, and update the running means.

        With partners mocks are held to the running means of these instead of those of all training slices: what slices
        of the same phases have more or less than the average, mocks should have too.

        Parameters
        ----------
        density, values
            1 + delta and network values of mocks, shape ``(n, side, side)``; as many in every process.
        partners
            The same of slices of the same phases; exactly if `prepare` was told that there would be some.

        Raises
        ------
        UserError
            If the running means have been converted to a lower precision.
        """
        if self.running_mean.dtype != torch.float64:
            raise UserError(
                f"trainer.precision: the running means of model.pins need float64 and are {self.running_mean.dtype}; "
                "use bf16-mixed or 32-true"
            )
        with full_precision(density.device.type):
            moments = self._moments(_at_least_float32(density), _at_least_float32(values))
            if partners is not None:
                with torch.no_grad():
                    others = self._moments(*map(_at_least_float32, partners))
                pinned = {
                    name: value for name, value in others.items() if f"running_{_PARTNERS}{name}" in self._buffers
                }
                moments |= {_PARTNERS + name: value for name, value in pinned.items()}
            rise = (self.n_slices_seen / self.warmup).clamp(max=1.0) if self.warmup else 1.0
            deviations = self._deviations(self._update(moments, n_slices=len(density)))
            total = sum((self.weights[name] * terms for name, terms in deviations.items()), density.new_zeros(()))
            return (rise * total).float()

    def _moments(self, density: Tensor, values: Tensor) -> dict[str, Tensor]:
        """Return means over the batch, float64, of which the pinned statistics are functions."""
        moments = {}
        if self.weights["mean"]:
            moments["mean"] = density.mean(dtype=torch.float64).view(1)
        if self.weights["distribution"]:
            moments["distribution"] = self._tails(values)
        if self.weights["power"] or self.weights["variance"] or self.weights["isotropy"]:
            moments |= self._power_moments(density)
        if self.weights["values_power"]:
            squares = _squares(values).mean(0, dtype=torch.float64)
            moments["values_power"] = self._over_rings(squares * self.shares[:1])[0]
        return moments

    def _power_moments(self, density: Tensor) -> dict[str, Tensor]:
        """Return means over the batch of P(k), of its square and of P(k) by direction, where they are needed."""
        squares = _squares(density - 1)
        moments = {}
        rows = self.shares if self.weights["isotropy"] else self.shares[:1]
        power = self._over_rings(squares.mean(0, dtype=torch.float64) * rows)
        moments["power"] = power[0]
        if self.weights["isotropy"]:
            moments["directions"] = power[1:]
        if self.weights["variance"]:
            moments["square"] = self._over_rings(squares * self.shares[0]).square().mean(0)
        return moments

    def _over_rings(self, weighted: Tensor) -> Tensor:
        """Return sums over rings, shape ``(n, n_bins)``, of weighted modes of the half plane, ``(n, n_half_plane)``."""
        n_bins = len(self.target_power)
        return weighted.new_zeros(len(weighted), n_bins + 1).index_add(1, self.ring, weighted)[:, :n_bins]

    def _tails(self, values: Tensor) -> Tensor:
        """Return the smaller of the two tail probabilities at each level, shape ``(n_levels,)``, float64."""
        rises = torch.arange(len(self.levels), device=values.device) > len(self.levels) // 2
        steepness = torch.where(rises, 1.0, -1.0).unsqueeze(1) / _SOFTNESS
        pixels = values.flatten()
        blocks = pixels.split(_PIXELS_AT_A_TIME) if pixels.device.type == "cpu" else (pixels,)
        sums = [
            torch.sigmoid((block - self.levels.unsqueeze(1)) * steepness).sum(1, dtype=torch.float64)
            for block in blocks
        ]
        return torch.stack(sums).sum(0) / len(pixels)

    def _update(self, moments: dict[str, Tensor], *, n_slices: int) -> dict[str, Tensor]:
        """Take the slices of all processes into the running means; return these with the gradient of the own batch."""
        together = torch.cat([moment.detach().flatten() for moment in moments.values()])
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(together)
            together /= distributed.get_world_size()
            n_slices *= distributed.get_world_size()
        if self.warmup:
            self.n_slices_seen += n_slices
        decay = 0.5 ** (n_slices / self.memory)
        running = {}
        parts = together.split([moment.numel() for moment in moments.values()])
        for (name, moment), part in zip(moments.items(), parts, strict=True):
            buffer = getattr(self, f"running_{name}")
            buffer.mul_(decay).add_(part.view_as(moment), alpha=1 - decay)
            # Value: the running mean; gradient: as if the batch were all of it.
            running[name] = buffer + (moment - moment.detach())
        return running

    def _deviations(self, running: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the mean squared log ratio of each pinned statistic."""
        ratios = {
            name: running[name] / running.get(_PARTNERS + name, getattr(self, f"target_{name}"))
            for name in ("power", "distribution", "mean", "values_power")
            if self.weights[name]
        }
        if self.weights["variance"]:
            ratios["variance"] = _variance(running["power"], running["square"]) / self.target_variance
        if self.weights["isotropy"]:
            ratios["isotropy"] = running["directions"][::2] / running["directions"][1::2]
        squares = {name: torch.log(ratio).square() for name, ratio in ratios.items()}
        # Linear rings are dense at high k; equal weight per logarithmic interval keeps the large scales.
        n_bins = len(self.target_power)
        weight = 1 / torch.arange(1, n_bins + 1, dtype=torch.float64, device=self.target_power.device)
        for name in squares.keys() & {"power", "variance", "isotropy"}:
            squares[name] = squares[name] * weight * (n_bins / weight.sum())
        return {name: terms.mean() for name, terms in squares.items()}


def _squares(fields: Tensor) -> Tensor:
    """Return the squared modes of the half plane in units of pixels squared, ``(n, n_half_plane)``."""
    modes = torch.fft.rfft2(fields)
    return ((modes.real.square() + modes.imag.square()) / fields.shape[-1] ** 2).flatten(1)


def _at_side(power: Tensor, side: int, *, n_pixels: int) -> Tensor:
    """Take P(k) of slices of ``n_pixels`` over to the wave numbers of fields of ``side``."""
    if side == n_pixels:
        return power
    wanted, known = radial_bins(side).centres / side, radial_bins(n_pixels).centres / n_pixels
    return torch.exp(interpolate(wanted.to(power.device), known.to(power.device), torch.log(power)))


def _rings(side: int) -> tuple[Tensor, Tensor]:
    """Return the ring of each mode of the half plane of ``rfft2`` and what it counts in means over rings.

    Returns
    -------
        Ring, shape ``(n_half_plane,)``, the number of rings for a mode in none. Shares, shape ``(5, n_half_plane)``,
        float64: the number of modes of the plane that it stands for over that of its ring, in all directions and in the
        four sets k_x k_y > 0, k_x k_y < 0, |k_x| > |k_y| and |k_x| < |k_y|; zero outside a set.
    """
    bins = radial_bins(side)
    row = torch.fft.fftfreq(side, 1 / side, dtype=torch.float64).unsqueeze(1)
    column = torch.arange(side // 2 + 1, dtype=torch.float64)
    longer = (row.abs() - column).flatten()
    product = (row * column).flatten()
    sets = torch.stack([torch.ones_like(product), product > 0, product < 0, longer > 0, longer < 0]).double()
    counts = (sets * bins.weight).new_zeros(5, bins.n_bins + 1).index_add(1, bins.index, sets * bins.weight)
    return bins.index, sets * bins.weight / counts[:, bins.index].clamp_min(1)


def _variance(mean: Tensor, mean_square: Tensor) -> Tensor:
    return (mean_square - mean.square()).clamp_min(_LEAST_VARIANCE * mean.square())


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
