"""Compare the statistics of mock slices with those of a simulation, and the simulation with itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from cosmogan.errors import UserError
from cosmogan.files import file_sha256
from cosmogan.slices import AXIS_NOT_APPLICABLE, SliceMetadata, SliceReader
from cosmogan.statistics.accumulator import Accumulator
from cosmogan.statistics.base import AbstractStatistic
from cosmogan.statistics.cross_spectrum import measure_pairs
from cosmogan.statistics.listed import default_statistics
from cosmogan.statistics.measurement import Measurement, measure
from cosmogan.statistics.power_spectrum import PowerSpectrum
from cosmogan.validation.comparison import Comparison, InputFile, StatisticComparison
from cosmogan.validation.means import compare_statistic
from cosmogan.validation.notes import notes_on_coherence, notes_on_files, notes_on_forecast, notes_on_training
from cosmogan.validation.score import SampleComparison
from cosmogan.validation.sets import copies, diversity
from cosmogan.validation.sets.coherence import compare_coherence
from cosmogan.validation.sets.partners import compare_partners
from cosmogan.validation.sets.two_sample import compare_two_sample

# Slices of each file shown in the report.
_N_SHOWN = 4


def compare(
    mocks: Path | str,
    reference: Path | str,
    *,
    training: Path | str | None = None,
    floor: Path | str | None = None,
    statistics: Sequence[AbstractStatistic] | None = None,
    sets: bool = True,
    two_sample: bool = False,
    paired: bool = False,
    n_bootstrap: int = 200,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Comparison:
    """Compare mocks with a simulation; see `compare_candidates`."""
    (comparison,) = compare_candidates(
        {"mocks": mocks},
        reference,
        training=training,
        floor=floor,
        statistics=statistics,
        sets=sets,
        two_sample=two_sample,
        paired=paired,
        n_bootstrap=n_bootstrap,
        seed=seed,
        device=device,
    )
    return comparison


def compare_candidates(
    candidates: Mapping[str, Path | str],
    reference: Path | str,
    *,
    training: Path | str | None = None,
    floor: Path | str | None = None,
    statistics: Sequence[AbstractStatistic] | None = None,
    sets: bool = True,
    two_sample: bool = False,
    paired: bool = False,
    n_bootstrap: int = 200,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[Comparison, ...]:
    """Compare several sets of mocks with one simulation, each file read in bounded memory.

    Parameters
    ----------
    candidates
        Slice files to be judged, by the name they have in the report.
    reference
        Slice file of a simulation, best with several realisations.
    training
        Slice file that the mocks were learnt from, to look for copies of its slices and to compare with its means.
    floor
        Slice file of further simulations of the same kind. If it has more realisations than the reference, the floor
        and the errors are taken from it.
    statistics
        Statistics to measure; `default_statistics` if not given.
    sets
        Whether to look at the mocks as a set: variety, copies.
    two_sample
        Whether to train a network to tell mocks from simulation; takes minutes.
    paired
        Whether slice i of the mocks was made from the initial conditions of slice i of the reference: then their
        coherence is compared too.
    n_bootstrap
        Draws of realisations for the errors.
    seed
        Seed of the draws and of the slices shown.
    device
        Device to compute on.

    Returns
    -------
        One comparison per candidate, in their order.

    Raises
    ------
    UserError
        If a file is missing, empty, or holds values that no density has; if all its slices are constant; or if two
        files differ in box size, pixels, thickness, redshift, smoothing or periodicity.
    """
    if n_bootstrap < 2:
        raise UserError(f"bootstrap: expected at least 2 draws, got {n_bootstrap}")
    with ExitStack() as stack:
        simulation = stack.enter_context(SliceReader(reference))
        others = {name: stack.enter_context(SliceReader(path)) for name, path in candidates.items()}
        further = None if floor is None else stack.enter_context(SliceReader(floor))
        learnt = None if training is None else stack.enter_context(SliceReader(training))
        if learnt is not None and learnt.path.resolve() == simulation.path.resolve():
            raise UserError(
                f"{learnt.path}: is given for training and as the reference; compare with simulations that the mocks "
                "were not learnt from"
            )
        # Before the work, not after it.
        for reader in (*others.values(), *(extra for extra in (further, learnt) if extra is not None)):
            _require_comparable(reader, simulation)
        metadata = _as_density(simulation.metadata)
        chosen = default_statistics(metadata) if statistics is None else tuple(statistics)
        theirs = _measure(simulation, chosen, device)
        itself = None if further is None else _measure(further, chosen, device)
        known = None if learnt is None else _measure(learnt, chosen, device)
        comparisons: list[Comparison] = []
        for name, reader in others.items():
            comparison = _compare(
                name,
                _measure(reader, chosen, device),
                theirs,
                itself,
                metadata,
                chosen,
                training=known,
                sets=sets,
                paired=paired,
                n_bootstrap=n_bootstrap,
                seed=seed,
                device=device,
            )
            if two_sample:
                tested = compare_two_sample(reader, simulation, seed=seed, device=device)
                comparison = replace(comparison, samples=(*comparison.samples, tested))
            comparisons.append(comparison)
        return tuple(comparisons)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Set:
    """A slice file, and what was measured of it."""

    reader: SliceReader
    file: InputFile
    measured: Measurement
    pairs: Accumulator | None

    @property
    def independent(self) -> bool:
        """Whether no slice was cut from a box that it shares with others."""
        return bool((self.reader.axis == AXIS_NOT_APPLICABLE).all())


def _compare(
    name: str,
    ours: _Set,
    theirs: _Set,
    itself: _Set | None,
    metadata: SliceMetadata,
    statistics: Sequence[AbstractStatistic],
    *,
    training: _Set | None,
    sets: bool,
    paired: bool,
    n_bootstrap: int,
    seed: int,
    device: torch.device | str,
) -> Comparison:
    notes = notes_on_files(
        ours.file, ours.measured, theirs.file, theirs.measured, None if itself is None else itself.file
    )
    if training is not None:
        notes += notes_on_training(training.reader, theirs.reader)
    entries: list[StatisticComparison] = []
    for statistic in statistics:
        entry = compare_statistic(
            statistic,
            ours.measured.accumulators[statistic.name],
            theirs.measured.accumulators[statistic.name],
            metadata,
            floor=None if itself is None else itself.measured.accumulators[statistic.name],
            independent=ours.independent,
            n_bootstrap=n_bootstrap,
            seed=seed,
        )
        if isinstance(statistic, PowerSpectrum) and ours.pairs is not None and theirs.pairs is not None:
            coherence = compare_coherence(ours.pairs, theirs.pairs, entry.judged, n_bootstrap=n_bootstrap, seed=seed)
            entry = replace(entry, coherence=coherence)
            notes += notes_on_coherence(entry)
        notes += notes_on_forecast(entry)
        entries.append(entry)
    against_training = (
        ()
        if training is None
        else tuple(
            compare_statistic(
                statistic,
                ours.measured.accumulators[statistic.name],
                training.measured.accumulators[statistic.name],
                metadata,
                independent=ours.independent,
                n_bootstrap=n_bootstrap,
                seed=seed,
            )
            for statistic in statistics
        )
    )
    samples: list[SampleComparison] = []
    if sets and diversity.applies(metadata):
        samples.append(diversity.compare_diversity(ours.reader, theirs.reader, seed=seed, device=device))
    if sets and copies.applies(metadata):
        learnt = None if training is None else training.reader
        samples += copies.compare_copies(ours.reader, theirs.reader, training=learnt, seed=seed, device=device)
    if paired:
        samples.append(compare_partners(ours.reader, theirs.reader, device=device))
    return Comparison(
        name=name,
        mocks=ours.file,
        reference=theirs.file,
        floor_file=None if itself is None else itself.file,
        training=None if training is None else training.file,
        metadata=metadata,
        statistics=tuple(entries),
        training_statistics=against_training,
        samples=tuple(samples),
        notes=notes,
        mocks_shown=_some_slices(ours.reader, seed),
        reference_shown=_some_slices(theirs.reader, seed),
    )


def differences(one: SliceReader, other: SliceReader) -> list[str]:
    """Return in words what keeps two slice files from being compared, such as another box size; nothing if nothing.

    Counts are divided by their mean on reading, so they compare with densities.

    Parameters
    ----------
    one, other
        Open slice files.
    """
    return _as_density(one.metadata).differences(_as_density(other.metadata))


def _as_density(metadata: SliceMetadata) -> SliceMetadata:
    return replace(metadata, quantity="density", mean_count=None)


def _require_comparable(mocks: SliceReader, reference: SliceReader) -> None:
    clauses = differences(mocks, reference)
    if clauses:
        raise UserError(
            f"{mocks.path} and {reference.path} cannot be compared: {'; '.join(clauses)}. "
            "Make both with the same settings, or compare with another file"
        )


def _measure(reader: SliceReader, statistics: Sequence[AbstractStatistic], device: torch.device | str) -> _Set:
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
    spectra = [statistic for statistic in statistics if isinstance(statistic, PowerSpectrum)]
    pairs = measure_pairs(reader, spectra[0], device=device) if spectra and reader.n_slices > 1 else None
    return _Set(reader=reader, file=_input_file(reader, measured), measured=measured, pairs=pairs)


def _input_file(reader: SliceReader, measured: Measurement) -> InputFile:
    return InputFile(
        path=str(reader.path),
        n_bytes=reader.path.stat().st_size,
        sha256=file_sha256(reader.path),
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
