"""Refit of a trained generator: field filter, and point transform, from what its mocks lack.

The network's fields do not depend on either, so they are computed once; to see what other tables would give then takes
no network, and a derivative in every entry of the tables can be afforded.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy import optimize
from torch import Tensor
from tqdm import tqdm

from cosmogan.statistics.power_spectrum import power_spectrum
from cosmogan.transforms import interpolate

if TYPE_CHECKING:
    from cosmogan.networks.field import AbstractFieldGenerator

# Pixels, and least number, of the mocks that derivatives are taken on. Their noise is the same on both sides of a
# difference, but 32 mocks of 70 Mpc/h (one slice in a hundred has an eighth of all power) led the steps astray.
_DERIVATIVE_PIXELS, _DERIVATIVE_MAPS = 2**21, 256
# Knots of the filter's changes, over ln k up to Nyquist; those of the point transform's are the generator's.
_N_FILTER = 24
# Step of the differences, and how large a change of ln of table and filter is expected to be.
_DIFFERENCE, _EXPECTED = 0.05, 0.3
# Bins of the pixel distribution per decade, and shares of pixels below and above which it is not fitted. What tables
# cannot mend, such as deeper voids, would cost them what they can.
_BINS_PER_DECADE, _LOWEST_SHARE, _HIGHEST_SHARE = 20, 2e-5, 1e-5
# Pixels that a bin should hold in all mocks to count, and a share of them below which it is as good as empty.
_LEAST_PIXELS, _EMPTY = 100, 0.1
# In units of the mean density; keeps the logarithm of empty pixels finite.
_LOG_OFFSET = 0.05
# Relative errors that count as one, added in squares to the scatter of the mocks. With 1% for P(k) waves of 1 to 2% are
# left at 350 Mpc/h.
_PIXEL_TOLERANCE, _POWER_TOLERANCE = 0.01, 0.002
# Tables tried at most, and the share of the misfit that a trial must gain.
_TRIALS, _SETTLED = 14, 0.01


class _Maps(NamedTuple):
    """Fields of the network, before the filter, and the noise of their rounding, in batches."""

    fields: list[Tensor]
    rounding: list[Tensor]

    def first(self, n_batches: int) -> _Maps:
        return _Maps(self.fields[:n_batches], self.rounding[:n_batches])


class Refit:
    """A least-squares fit of ln P(k) and ln of the pixel distribution of mocks to those of the training slices.

    Parameters
    ----------
    generator
        Network in evaluation mode, with the statistics of its training slices; changed by `run`.
    n_maps
        Mocks to fit with.
    seed
        Seed of their latents.
    power_only
        Fit P(k) alone, by the filter, and leave the point transform as it is.
    """

    def __init__(self, generator: AbstractFieldGenerator, *, n_maps: int, seed: int, power_only: bool = False) -> None:
        self.generator = generator
        knots = generator.refit_knots
        self.n_table = 0 if power_only else len(knots)
        fields, rounding = [], []
        for latent, conditions in tqdm(generator.drawn(n_maps, seed=seed), unit="batch", desc="refit", disable=None):
            fields.append(generator.corrected_in_pieces(latent, conditions))
            rounding.append(generator.rounding_noise(latent).clone())
        self.maps = _Maps(fields, rounding)
        side = generator.n_pixels
        self.few = self.maps.first(-(-max(_DERIVATIVE_MAPS, _DERIVATIVE_PIXELS // side**2) // len(fields[0])))
        self.bins = generator.bins(fields[0].device)
        self.fitted = self.bins.centres / side <= 0.5
        self.start = generator.point_table.clone(), generator.field_log_power.clone()
        self.table = _hats(generator.point_places.double(), knots)
        knots = torch.linspace(math.log(1 / side), math.log(0.5), _N_FILTER, dtype=torch.float64)
        self.filter = _hats(torch.log(generator.prior_wavenumber.double().clamp_min(1e-9)), knots)
        # Target: share of the pixels in equal bins of ln(1 + delta), those that hold any.
        probability, quantiles = generator.target_probability, generator.target_log_quantiles
        known = quantiles[(probability > _LOWEST_SHARE) & (1 - probability > _HIGHEST_SHARE)]
        n_bins = max(1, round(float(known[-1] - known[0]) * _BINS_PER_DECADE / math.log(10)))
        edges = np.linspace(float(known[0]), float(known[-1]), n_bins + 1)
        shares = np.diff(np.interp(edges, quantiles.cpu().numpy(), probability.cpu().numpy()))
        self.edges, self.shares = (torch.from_numpy(each).to(probability.device) for each in (edges, shares))
        # Bins of the pixel distribution that are fitted.
        self.held = self.shares * n_maps * side**2 > _LEAST_PIXELS
        if power_only:
            self.held = torch.zeros_like(self.held)

    def run(self) -> None:
        """Take the generator to the tables that fit best, calibrated on the same mocks."""
        start = np.zeros(self.n_table + _N_FILTER)
        begun, scatter = self._look(start, self.maps)
        tolerance = np.full(len(begun), _POWER_TOLERANCE)
        tolerance[: int(self.held.sum())] = _PIXEL_TOLERANCE
        error = np.hypot(scatter, tolerance)

        # The expected change is a prior: tables are not bent where the slices do not ask for it.
        def misfit(change: np.ndarray) -> np.ndarray:
            residual = self._look(change, self.maps)[0] if change.any() else begun
            return np.concatenate([residual / error, change / _EXPECTED])

        def slope(change: np.ndarray) -> np.ndarray:
            return np.concatenate([self._derivative(change) / error[:, None], np.eye(len(change)) / _EXPECTED])

        found = optimize.least_squares(misfit, start, jac=slope, method="lm", ftol=_SETTLED, max_nfev=_TRIALS)
        self._set_tables(found.x)
        self.generator.normalise(self._filtered(self.maps))

    def _derivative(self, change: np.ndarray) -> np.ndarray:
        """Return the derivative of the residuals in the changes, shape ``(n_residuals, n_changes)``."""
        self._set_tables(change)
        # The same for all entries of the point transform.
        filtered = self._filtered(self.few)
        here, _ = self._measured(filtered, self.few)
        columns = []
        for place in range(len(change)):
            moved = change.copy()
            moved[place] += _DIFFERENCE
            self._set_tables(moved)
            there, _ = self._measured(filtered if place < self.n_table else self._filtered(self.few), self.few)
            columns.append((there - here) / _DIFFERENCE)
        return np.stack(columns, 1)

    def _look(self, change: np.ndarray, maps: _Maps) -> tuple[np.ndarray, np.ndarray]:
        """Return what `_measured` finds with tables so changed."""
        self._set_tables(change)
        return self._measured(self._filtered(maps), maps)

    def _set_tables(self, change: np.ndarray) -> None:
        """Change the point transform by the first entries and the filter by the others."""
        table, filtered = self.start
        entries = torch.from_numpy(change).to(self.edges)
        # Increasing, whatever is tried.
        transform = table + (self.table[:, : self.n_table] @ entries[: self.n_table]).to(table)
        self.generator.point_table.copy_(torch.cummax(transform, 0).values)
        self.generator.field_log_power.copy_(filtered + (self.filter @ entries[self.n_table :]).to(filtered))

    def _filtered(self, maps: _Maps) -> list[Tensor]:
        return [self.generator.filtered("field", field) for field in maps.fields]

    def _measured(self, filtered: list[Tensor], maps: _Maps) -> tuple[np.ndarray, np.ndarray]:
        """Calibrate; return ln(mocks / target), distribution before P(k), and the scatter of both."""
        generator = self.generator
        measured = []
        for field, rounding in zip(generator.normalise(filtered), maps.rounding, strict=True):
            mocks = generator.to_density(field, rounding)
            pixels = self._counts(mocks)[self.held] / (mocks.numel() * self.shares[self.held])
            power = power_spectrum(mocks - 1, generator.n_pixels, bins=self.bins).mean(0, dtype=torch.float64)
            parts = [pixels, (power / generator.target_power)[self.fitted]]
            if generator.target_log_power is not None:
                power = power_spectrum(log_density(mocks), generator.n_pixels, bins=self.bins).mean(
                    0, dtype=torch.float64
                )
                parts.append((power / generator.target_log_power)[self.fitted])
            measured.append(torch.cat(parts))
        blocks = torch.stack(measured).cpu().numpy()
        mean = np.maximum(blocks.mean(0), _EMPTY)
        return np.log(mean), blocks.std(0) / mean / math.sqrt(len(blocks))

    def _counts(self, mocks: Tensor) -> Tensor:
        """Return the number of pixels in the bins of ln(1 + delta)."""
        place = torch.bucketize(torch.log(mocks.flatten().clamp_min(1e-6)), self.edges.float())
        return torch.bincount(place, minlength=len(self.edges) + 1)[1:-1].double()


def log_density(density: Tensor) -> Tensor:
    """Return ln(1 + delta + .05), in which voids count as much as peaks."""
    return torch.log(density + _LOG_OFFSET)


def _hats(places: Tensor, knots: Tensor) -> Tensor:
    """Return what linear interpolation between knots takes from each, ``(n_places, n_knots)``; constant outside."""
    knots = knots.to(places)
    columns = [interpolate(places.clamp(knots[0], knots[-1]), knots, unit) for unit in torch.eye(len(knots)).to(knots)]
    return torch.stack(columns, 1)
