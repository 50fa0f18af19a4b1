"""Refit of the spectral prior: field filter and point transform from what the mocks of the trained network lack.

The network's fields do not depend on either, so they are computed once; to see what other tables would give then takes
no network, and a derivative in every entry of the tables can be afforded.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cosmogan.statistics.power_spectrum import power_spectrum
from cosmogan.transforms import interpolate

if TYPE_CHECKING:
    from cosmogan.networks.spectral_prior import SpectralPriorGenerator

# Pixels of the mocks that derivatives are taken on; their noise is the same on both sides of a difference.
_DERIVATIVE_PIXELS = 2**21
# Knots of the changes: of the point transform over normal values, of the filter over ln k up to Nyquist.
_TABLE_REACH, _N_TABLE, _N_FILTER = 4.3, 24, 12
# Step of the differences, and how large a change of ln of table and filter is expected to be.
_DIFFERENCE, _EXPECTED = 0.05, 0.3
# Bins of the pixel distribution per decade, and shares of pixels below and above which it is not fitted. What tables
# cannot mend, such as deeper voids, would cost them what they can.
_BINS_PER_DECADE, _LOWEST_SHARE, _HIGHEST_SHARE = 20, 2e-5, 1e-5
# Relative error up to which the fit does not care; the scatter of the mocks is added.
_TOLERANCE = 0.01
# Levenberg and Marquardt's damping at the start, tables tried, and the gain at which it ends.
_DAMPING, _TRIALS, _SETTLED = 0.01, 8, 0.01


class _Maps(NamedTuple):
    """Fields of the network, before the filter, and the noise of their rounding, in batches."""

    fields: list[Tensor]
    rounding: list[Tensor]

    def first(self, n_batches: int) -> _Maps:
        return _Maps(self.fields[:n_batches], self.rounding[:n_batches])


class SpectralRefit:
    """A least-squares fit of ln P(k) and ln of the pixel distribution of mocks to those of the training slices.

    Parameters
    ----------
    generator
        In evaluation mode, with the statistics of its training slices; changed by `run`.
    n_maps
        Mocks to fit with.
    seed
        Of their latents.
    """

    def __init__(self, generator: SpectralPriorGenerator, *, n_maps: int, seed: int) -> None:
        self.generator = generator
        fields, rounding = [], []
        for latent, conditions in tqdm(generator.drawn(n_maps, seed=seed), unit="batch", desc="refit", disable=None):
            fields.append(generator.corrected(latent, conditions))
            rounding.append(latent[:, 2:].clone())
        self.maps = _Maps(fields, rounding)
        side = generator.n_pixels
        self.few = self.maps.first(max(1, _DERIVATIVE_PIXELS // (len(fields[0]) * side**2)))
        self.bins = generator.bins(fields[0].device)
        self.fitted = self.bins.centres / side <= 0.5
        self.start = generator.log_field.clone(), generator.field_log_power.clone()
        normal = generator.normal.double()
        self.table = _hats(normal, torch.linspace(-_TABLE_REACH, _TABLE_REACH, _N_TABLE, dtype=torch.float64))
        knots = torch.linspace(math.log(1 / side), math.log(0.5), _N_FILTER, dtype=torch.float64)
        self.filter = _hats(torch.log(generator.prior_wavenumber.double().clamp_min(1e-9)), knots)
        # Target: share of the pixels in equal bins of ln(1 + delta), those that hold any.
        probability, quantiles = torch.special.ndtr(normal), generator.target_log_quantiles
        known = quantiles[(probability > _LOWEST_SHARE) & (1 - probability > _HIGHEST_SHARE)]
        n_bins = max(1, round(float(known[-1] - known[0]) * _BINS_PER_DECADE / math.log(10)))
        edges = np.linspace(float(known[0]), float(known[-1]), n_bins + 1)
        shares = np.diff(np.interp(edges, quantiles.cpu().numpy(), probability.cpu().numpy()))
        self.edges, self.shares = (torch.from_numpy(each).to(normal.device) for each in (edges, shares))
        self.held = self.shares > _HIGHEST_SHARE / _BINS_PER_DECADE

    def run(self) -> None:
        """Take the generator to the tables that fit best, calibrated on the same mocks."""
        change = torch.zeros(_N_TABLE + _N_FILTER, dtype=torch.float64, device=self.edges.device)
        residual, scatter = self._residual(change, self.maps)
        error = torch.sqrt(scatter.square() + _TOLERANCE**2)

        def badness(residual: Tensor, change: Tensor) -> float:
            # The expected change is a prior: tables are not bent where the slices do not ask for it.
            return float((residual / error).square().sum() + (change / _EXPECTED).square().sum())

        best, damping, slope = badness(residual, change), _DAMPING, None
        for _ in tqdm(range(_TRIALS), unit="trial", desc="refit", disable=None):
            if slope is None:
                slope = self._derivative(change) / error[:, None]
            curvature = slope.T @ slope + torch.eye(len(change)).to(slope) / _EXPECTED**2
            downhill = -(slope.T @ (residual / error) + change / _EXPECTED**2)
            tried = change + torch.linalg.solve(curvature + damping * curvature.diag().diag(), downhill)
            residual_there, _ = self._residual(tried, self.maps)
            badness_there = badness(residual_there, tried)
            # Also if it is no number.
            if not badness_there <= best:
                damping *= 10
                continue
            settled = badness_there > (1 - _SETTLED) * best
            change, residual, best = tried, residual_there, badness_there
            if settled:
                break
            damping, slope = damping / 10, None
        self._residual(change, self.maps)

    def _derivative(self, change: Tensor) -> Tensor:
        """Return the derivative of the residuals in the changes, shape ``(n_residuals, n_changes)``."""
        here, _ = self._residual(change, self.few)
        columns = []
        for place in range(len(change)):
            moved = change.clone()
            moved[place] += _DIFFERENCE
            columns.append((self._residual(moved, self.few)[0] - here) / _DIFFERENCE)
        return torch.stack(columns, 1)

    def _residual(self, change: Tensor, maps: _Maps) -> tuple[Tensor, Tensor]:
        """Return ln(mocks / target), distribution before P(k), with tables so changed, and the scatter of both."""
        generator = self.generator
        start, filtered_start = self.start
        table = start + (self.table @ change[:_N_TABLE]).to(start)
        # Increasing, whatever is tried.
        generator.log_field.copy_(torch.cummax(table, 0).values)
        generator.field_log_power.copy_(filtered_start + (self.filter @ change[_N_TABLE:]).to(filtered_start))
        fields = generator.normalise([generator.filtered("field", field) for field in maps.fields])
        measured = []
        for field, rounding in zip(fields, maps.rounding, strict=True):
            mocks = generator.to_density(field, rounding)
            pixels = self._counts(mocks)[self.held] / (mocks.numel() * self.shares[self.held])
            power = power_spectrum(mocks - 1, generator.n_pixels, bins=self.bins).mean(0, dtype=torch.float64)
            measured.append(torch.cat([pixels, (power / generator.target_power)[self.fitted]]))
        blocks = torch.stack(measured)
        mean = blocks.mean(0).clamp_min(1e-6)
        scatter = blocks.std(0, correction=0) / mean / math.sqrt(len(blocks))
        return torch.log(mean), scatter

    def _counts(self, mocks: Tensor) -> Tensor:
        """Return the number of pixels in the bins of ln(1 + delta)."""
        place = torch.bucketize(torch.log(mocks.flatten().clamp_min(1e-6)), self.edges.float())
        return torch.bincount(place, minlength=len(self.edges) + 1)[1:-1].double()


def _hats(places: Tensor, knots: Tensor) -> Tensor:
    """Return what linear interpolation between knots takes from each, ``(n_places, n_knots)``; constant outside."""
    knots = knots.to(places)
    columns = [interpolate(places.clamp(knots[0], knots[-1]), knots, unit) for unit in torch.eye(len(knots)).to(knots)]
    return torch.stack(columns, 1)
