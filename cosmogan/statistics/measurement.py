"""Measure several statistics of a slice file in one pass, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cosmogan.errors import UserError
from cosmogan.slices import SliceReader
from cosmogan.statistics.accumulator import Accumulator
from cosmogan.statistics.base import AbstractStatistic

# Pixels handled at a time: 64 slices of 256 x 256, about 130 MB with the float64 transforms.
_PIXELS_AT_A_TIME = 2**22


@dataclass(frozen=True, eq=False, kw_only=True)
class Measurement:
    """What one pass over a slice file found.

    Parameters
    ----------
    accumulators
        Accumulators by name of the statistic.
    mean_density
        Mean of 1 + delta over all slices; near 1 for slices that sample the box.
    n_constant
        Slices in which all pixels are equal.
    first_constant
        Index of the first of them, or None.
    """

    accumulators: dict[str, Accumulator]
    mean_density: float
    n_constant: int
    first_constant: int | None


def measure(
    reader: SliceReader, statistics: Sequence[AbstractStatistic], *, device: torch.device | str = "cpu"
) -> Measurement:
    """Measure all slices of a file.

    Parameters
    ----------
    reader
        An open slice file; counts are turned into 1 + delta.
    statistics
        Statistics to measure; their names must differ.
    device
        Device to compute on.

    Raises
    ------
    UserError
        If the file has no slices or holds NaN, infinite or negative values.
    ValueError
        If two statistics have the same name.
    """
    metadata = reader.metadata
    if reader.n_slices == 0:
        raise UserError(f"{reader.path}: /slices is empty; expected at least one slice")
    accumulators = {s.name: Accumulator(len(s.edges(metadata)) - 1) for s in statistics}
    if len(accumulators) != len(statistics):
        raise ValueError(f"statistics: expected different names, got {[s.name for s in statistics]}")
    total, constant = 0.0, []
    step = max(1, _PIXELS_AT_A_TIME // metadata.n_pixels**2)
    for start in range(0, reader.n_slices, step):
        stop = min(start + step, reader.n_slices)
        density = reader.density(start, stop)
        _require_densities(density, reader, start)
        total += float(density.sum(dtype=np.float64))
        constant += (start + np.flatnonzero(np.ptp(density, axis=(1, 2)) == 0)).tolist()
        fields = torch.from_numpy(density).to(device)
        for statistic in statistics:
            values = statistic.per_slice(fields, metadata)
            accumulators[statistic.name].update(values, reader.realisation[start:stop])
    return Measurement(
        accumulators=accumulators,
        mean_density=total / (reader.n_slices * metadata.n_pixels**2),
        n_constant=len(constant),
        first_constant=constant[0] if constant else None,
    )


def _require_densities(density: np.ndarray, reader: SliceReader, start: int) -> None:
    for bad, kind, hint in (
        (~np.isfinite(density), "NaN or infinite", "Was the file written to the end?"),
        (density < 0, "negative", "Was the inverse transform skipped?"),
    ):
        if bad.any():
            first = start + int(np.argmax(bad.any(axis=(1, 2))))
            raise UserError(
                f"{reader.path}: /slices holds {kind} values ({int(bad.sum())} in slices {start} to "
                f"{start + len(density) - 1}, first at slice {first}); densities are 1 + delta >= 0. {hint}"
            )
