"""Sentences that a reader of a comparison's numbers must know."""

from __future__ import annotations

import math

import numpy as np

from cosmogan.slices import SliceReader
from cosmogan.statistics.measurement import Measurement
from cosmogan.validation.comparison import InputFile, StatisticComparison

# A mean of 1 + delta this far from 1 is more than cosmic variance of the thinnest useful set of slices.
_MEAN_TOLERANCE = 0.1


def notes_on_files(
    mocks: InputFile,
    mocks_measured: Measurement,
    reference: InputFile,
    reference_measured: Measurement,
    floor: InputFile | None,
) -> tuple[str, ...]:
    """Return what is odd about two files, or about comparing them.

    Parameters
    ----------
    mocks, mocks_measured, reference, reference_measured
        Either file and what one pass over it found.
    floor
        Further simulations, from which the floor was taken.
    """
    notes = []
    if mocks.sha256 == reference.sha256:
        notes.append("Mocks and reference are the same file, byte for byte: differences are zero by construction.")
    n = reference.n_realisations
    if floor is not None and floor.n_realisations > n:
        notes.append(
            f"The reference has {n} realisation{'' if n == 1 else 's'}: floor and errors are taken from the "
            f"{floor.n_realisations} realisations in {floor.path}."
        )
    elif n == 1:
        notes.append(
            "The reference holds a single realisation, so there is no simulation-against-simulation floor and its "
            "error is that of independent slices, which is too small; add realisations, or give more simulations of "
            "the same box with --floor."
        )
    elif n < 4:
        notes.append(
            f"The reference holds {n} realisations, so its errors and the floor are themselves uncertain by about "
            f"{'70%' if n == 2 else 'half'}; more simulations of the same box can be given with --floor."
        )
    if floor is not None and floor.n_realisations <= n:
        notes.append(f"{floor.path} has no more realisations than the reference and is not used for the floor.")
    for name, file, measured in (("mocks", mocks, mocks_measured), ("reference", reference, reference_measured)):
        if file.n_slices == 1:
            notes.append(f"There is a single slice in the {name}: no error of its mean is known.")
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
        notes += _doubts(name, file)
        if not file.metadata.periodic:
            notes.append(
                f"Slices of the {name} are cut from a larger box and not periodic: P(k) is biased by some percent."
            )
    if floor is not None:
        notes += _doubts("floor", floor)
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


def _doubts(name: str, file: InputFile) -> list[str]:
    """Return what a file says against itself, such as that a part of its box is empty."""
    doubt = file.provenance.get("not_trustworthy")
    return [f"The file of the {name} says of itself: {str(doubt).rstrip('.')}."] if doubt else []


def notes_on_coherence(entry: StatisticComparison) -> tuple[str, ...]:
    """Return a warning if different slices of the mocks are alike.

    Parameters
    ----------
    entry
        The comparison of power spectra.
    """
    coherence = entry.coherence
    if coherence is None or not coherence.alike:
        return ()
    return (
        f"Different slices of the mocks are alike: their coherence is {coherence.mocks_median:.2g} where that of the "
        f"reference is {coherence.reference_median:.2g}. Did the generator collapse, or were slices written twice?",
    )


def notes_on_forecast(entry: StatisticComparison) -> tuple[str, ...]:
    """Return why the errors of a fit to P(k) cannot be given, if they cannot.

    Parameters
    ----------
    entry
        The comparison of power spectra.
    """
    return () if entry.forecast is None or not entry.forecast.note else (entry.forecast.note,)


def notes_on_training(training: SliceReader, reference: SliceReader) -> tuple[str, ...]:
    """Return a warning if the reference may hold simulations that the mocks were learnt from.

    Parameters
    ----------
    training, reference
        Open slice files.
    """
    shared = np.intersect1d(training.realisation, reference.realisation)
    if not len(shared):
        return ()
    return (
        f"{training.path} and {reference.path} both hold realisation {', '.join(map(str, shared[:5]))}"
        f"{', ...' if len(shared) > 5 else ''}: if these are the same simulations, the mocks know the test.",
    )
