"""Compare the statistics of mock slices with those of a simulation, and the simulation with itself."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cosmogan.errors import UserError
from cosmogan.slices import SliceMetadata, SliceReader
from cosmogan.statistics.accumulator import Accumulator
from cosmogan.statistics.base import AbstractStatistic
from cosmogan.statistics.bispectrum import SMALLEST_SIDE as SMALLEST_SIDE_OF_TRIANGLES
from cosmogan.statistics.bispectrum import EquilateralBispectrum, IsoscelesBispectrum
from cosmogan.statistics.cross_spectrum import measure_pairs
from cosmogan.statistics.histogram import Histogram
from cosmogan.statistics.measurement import Measurement, measure
from cosmogan.statistics.minkowski import BoundaryLength, EulerCharacteristic
from cosmogan.statistics.peaks import SMALLEST_SIDE as SMALLEST_SIDE_OF_PEAKS
from cosmogan.statistics.peaks import Peaks
from cosmogan.statistics.power_spectrum import PowerSpectrum
from cosmogan.validation.coherence import CoherenceComparison, compare_coherence
from cosmogan.validation.comparison import (
    Comparison,
    InputFile,
    StatisticComparison,
    rms_summary,
    split_in_thirds,
    summarise,
)
from cosmogan.validation.correlation import compare_correlations

# Slices of each file shown in the report.
_N_SHOWN = 4
# A mean of 1 + delta this far from 1 is more than cosmic variance of the thinnest useful set of slices.
_MEAN_TOLERANCE = 0.1


def compare(
    mocks: Path | str,
    reference: Path | str,
    *,
    statistics: Sequence[AbstractStatistic] | None = None,
    n_bootstrap: int = 200,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Comparison:
    """Compare two slice files, each read once in bounded memory.

    Parameters
    ----------
    mocks
        Slice file to be judged.
    reference
        Slice file of a simulation, best with several realisations.
    statistics
        What to measure; `default_statistics` if not given.
    n_bootstrap
        Draws of realisations for the errors.
    seed
        Of the draws and of the slices shown.
    device
        Where to compute.

    Raises
    ------
    UserError
        If a file is missing, empty, or holds values that no density has; if all its slices are constant; or if the two
        differ in box size, pixels, thickness, redshift, smoothing or periodicity.
    """
    if n_bootstrap < 2:
        raise UserError(f"bootstrap: expected at least 2 draws, got {n_bootstrap}")
    with SliceReader(mocks) as mock_reader, SliceReader(reference) as reference_reader:
        _require_comparable(mock_reader, reference_reader)
        metadata = _as_density(reference_reader.metadata)
        chosen = default_statistics(metadata) if statistics is None else tuple(statistics)
        mock_measured = _measure(mock_reader, chosen, device)
        reference_measured = _measure(reference_reader, chosen, device)
        mock_file = _input_file(mock_reader, mock_measured)
        reference_file = _input_file(reference_reader, reference_measured)
        notes = _notes(mock_file, mock_measured, reference_file, reference_measured)
        entries = [
            compare_statistic(
                statistic,
                mock_measured.accumulators[statistic.name],
                reference_measured.accumulators[statistic.name],
                metadata,
                n_bootstrap=n_bootstrap,
                seed=seed,
            )
            for statistic in chosen
        ]
        if min(mock_reader.n_slices, reference_reader.n_slices) > 1:
            for place, entry in enumerate(entries):
                if isinstance(entry.statistic, PowerSpectrum):
                    coherence = compare_coherence(
                        measure_pairs(mock_reader, entry.statistic, device=device),
                        measure_pairs(reference_reader, entry.statistic, device=device),
                        entry.judged,
                        n_bootstrap=n_bootstrap,
                        seed=seed,
                    )
                    entries[place] = _with_coherence(entry, coherence)
                    notes += _coherence_notes(entries[place])
        return Comparison(
            mocks=mock_file,
            reference=reference_file,
            metadata=metadata,
            statistics=tuple(entries),
            notes=notes,
            mocks_shown=_some_slices(mock_reader, seed),
            reference_shown=_some_slices(reference_reader, seed),
        )


def default_statistics(metadata: SliceMetadata) -> tuple[AbstractStatistic, ...]:
    """Return what every report holds, cheap and meaningful for counts and densities alike.

    Power spectrum, histogram, boundary length, Euler characteristic and, where slices are large enough for any, peaks
    and bispectra. Not `Area`, which is the histogram again, nor `Voids`, which are ill defined where many pixels are
    empty.
    """
    peaks = (Peaks(),) if metadata.n_pixels >= SMALLEST_SIDE_OF_PEAKS else ()
    bispectra = (
        (EquilateralBispectrum(), IsoscelesBispectrum()) if metadata.n_pixels >= SMALLEST_SIDE_OF_TRIANGLES else ()
    )
    return (PowerSpectrum(), Histogram(), *peaks, BoundaryLength(), EulerCharacteristic(), *bispectra)


def compare_statistic(
    statistic: AbstractStatistic,
    mocks: Accumulator,
    reference: Accumulator,
    metadata: SliceMetadata,
    *,
    n_bootstrap: int = 200,
    seed: int = 0,
) -> StatisticComparison:
    """Compare what was accumulated of one statistic; see `StatisticComparison` for the result.

    Parameters
    ----------
    statistic
        What was measured.
    mocks, reference
        Sums over the slices of the two files.
    metadata
        What the pixels are.
    n_bootstrap, seed
        As for `compare`.
    """
    edges, x = statistic.edges(metadata), statistic.centres(metadata)
    mock_mean, reference_mean = mocks.mean(), reference.mean()
    judged = statistic.judged(metadata, reference_mean)
    third = split_in_thirds(edges, x, judged, log_x=statistic.log_x)
    mock_error, mock_from = _error(mocks, n_bootstrap, seed)
    reference_error, reference_from = _error(reference, n_bootstrap, seed + 1)
    difference = mock_mean - reference_mean
    first, second = reference.halves(seed=seed)
    n_splits = len(first)
    n, size = reference.n_realisations, reference.n_realisations // 2
    halves = [
        summarise(_relative(a - b, reference_mean), edges, x, third, statistic.distances(a, b))
        for a, b in zip(first, second, strict=True)
    ]
    summary = summarise(
        _relative(difference, reference_mean), edges, x, third, statistic.distances(mock_mean, reference_mean)
    )
    floor_summary = rms_summary(halves) if halves else None
    correlation = None
    if statistic.correlated:
        correlation = compare_correlations(mocks, reference, judged, seed=seed)
        summary.distances.update(correlation.distances())
        if floor_summary is not None:
            floor_summary.distances.update(correlation.floor_distances())
    return StatisticComparison(
        statistic=statistic,
        edges=edges,
        x=x,
        n_modes=statistic.n_modes(metadata),
        judged=judged,
        mocks=mock_mean,
        reference=reference_mean,
        mocks_scatter=mocks.scatter(),
        reference_scatter=reference.scatter(),
        mocks_error=mock_error,
        reference_error=reference_error,
        mocks_error_from=mock_from,
        reference_error_from=reference_from,
        ratio=_relative(difference, reference_mean),
        sigmas=_relative(difference, np.hypot(mock_error, reference_error)),
        floor=np.sqrt(np.mean(_relative(first - second, reference_mean) ** 2, axis=0)) if n_splits else None,
        n_splits=n_splits,
        full_over_half=math.sqrt(size * (n - size)) / n if n_splits else math.nan,
        summary=summary,
        floor_summary=floor_summary,
        correlation=correlation,
    )


def _with_coherence(entry: StatisticComparison, coherence: CoherenceComparison) -> StatisticComparison:
    entry.summary.distances.update(coherence.distances())
    if entry.floor_summary is not None:
        entry.floor_summary.distances.update(coherence.floor_distances())
    return replace(entry, coherence=coherence)


def _coherence_notes(entry: StatisticComparison) -> tuple[str, ...]:
    coherence = entry.coherence
    if coherence is None or not coherence.alike:
        return ()
    return (
        f"Different slices of the mocks are alike: their coherence is {coherence.mocks_median:.2g} where that of the "
        f"reference is {coherence.reference_median:.2g}. Did the generator collapse, or were slices written twice?",
    )


def _relative(difference: np.ndarray, scale: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return difference / scale


def _error(accumulator: Accumulator, n_bootstrap: int, seed: int) -> tuple[np.ndarray, str]:
    slices = accumulator.error_of_mean_slices()
    if accumulator.n_realisations == 1:
        return slices, "slices"
    # Two realisations that agree in a bin by chance must not claim to know it exactly: slabs of one box resemble each
    # other, so the error of independent slices is a lower limit.
    return np.fmax(accumulator.error_of_mean(n_bootstrap, seed=seed), slices), "realisations"


def _as_density(metadata: SliceMetadata) -> SliceMetadata:
    return replace(metadata, quantity="density", mean_count=None)


def _require_comparable(mocks: SliceReader, reference: SliceReader) -> None:
    # Counts are divided by their mean on reading, so they compare with densities.
    clauses = _as_density(mocks.metadata).differences(_as_density(reference.metadata))
    if clauses:
        raise UserError(
            f"{mocks.path} and {reference.path} cannot be compared: {'; '.join(clauses)}. "
            "Make both with the same settings, or compare with another file"
        )


def _measure(reader: SliceReader, statistics: Sequence[AbstractStatistic], device: torch.device | str) -> Measurement:
    if reader.metadata.n_pixels < 4:
        raise UserError(
            f"{reader.path}: slices have {reader.metadata.n_pixels} pixels along a side; expected at least 4"
        )
    measured = measure(reader, statistics, device=device)
    if measured.n_constant == reader.n_slices:
        raise UserError(
            f"{reader.path}: all {reader.n_slices} slices are constant, so there is nothing to compare; "
            "is a part of the data missing, or did the generator collapse?"
        )
    return measured


def _input_file(reader: SliceReader, measured: Measurement) -> InputFile:
    with reader.path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return InputFile(
        path=str(reader.path),
        n_bytes=reader.path.stat().st_size,
        sha256=digest,
        metadata=reader.metadata,
        n_slices=reader.n_slices,
        n_realisations=len(np.unique(reader.realisation)),
        mean_density=measured.mean_density,
        provenance=reader.provenance,
    )


def _some_slices(reader: SliceReader, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    picks = rng.choice(reader.n_slices, size=min(_N_SHOWN, reader.n_slices), replace=False)
    return np.concatenate([reader.density(int(i), int(i) + 1) for i in np.sort(picks)])


def _notes(
    mocks: InputFile, mock_measured: Measurement, reference: InputFile, reference_measured: Measurement
) -> tuple[str, ...]:
    notes = []
    if mocks.sha256 == reference.sha256:
        notes.append("Mocks and reference are the same file, byte for byte: differences are zero by construction.")
    if reference.n_realisations == 1:
        notes.append(
            "The reference holds a single realisation, so there is no simulation-against-simulation floor and its "
            "error is that of independent slices, which is too small; add realisations to the reference."
        )
    elif reference.n_realisations < 4:
        notes.append(
            f"The reference holds {reference.n_realisations} realisations, so its errors and the floor are themselves "
            "uncertain by about half."
        )
    for name, file, measured in (("mocks", mocks, mock_measured), ("reference", reference, reference_measured)):
        if file.n_slices == 1:
            notes.append(f"The {name} are a single slice: no error of their mean is known.")
        if measured.n_constant:
            notes.append(
                f"{measured.n_constant} of {file.n_slices} slices of the {name} are constant "
                f"(first: slice {measured.first_constant})."
            )
        if abs(file.mean_density - 1) > _MEAN_TOLERANCE:
            notes.append(
                f"The mean of 1 + delta over the {name} is {file.mean_density:.3g}; expected 1 within "
                f"{_MEAN_TOLERANCE:.0%} for slices that sample the box."
            )
        if not file.metadata.periodic:
            notes.append(f"The {name} are cut from a larger box and not periodic: P(k) is biased by some percent.")
    if mocks.metadata.assignment != reference.metadata.assignment:
        notes.append(
            f"Mass assignment differs: {mocks.metadata.assignment} for the mocks, {reference.metadata.assignment} for "
            "the reference; this alone changes P(k) towards Nyquist."
        )
    ours, theirs = mocks.metadata.cosmology.known(), reference.metadata.cosmology.known()
    for name in sorted(ours.keys() & theirs.keys()):
        if not math.isclose(ours[name], theirs[name], rel_tol=1e-6):
            notes.append(f"{name} differs: {ours[name]:g} for the mocks, {theirs[name]:g} for the reference.")
    return tuple(notes)
