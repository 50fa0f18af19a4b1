"""Coherence of each mock with its partner: the simulated slice with the same place in the file and the same phases."""

from __future__ import annotations

import math

import numpy as np
import torch

from cosmogan.errors import UserError
from cosmogan.slices import SliceReader
from cosmogan.statistics.cross_spectrum import cross_power_spectrum
from cosmogan.statistics.power_spectrum import PowerSpectrum, power_spectrum
from cosmogan.validation.score import SampleComparison, Score
from cosmogan.validation.summary import split_in_thirds

NAME, TITLE = "partners", "1 - coherence with partner slices"
# Pixels of either file handled at a time: 32 pairs of 256 x 256.
_PIXELS_AT_A_TIME = 2**21


def compare_partners(
    mocks: SliceReader, reference: SliceReader, *, device: torch.device | str = "cpu"
) -> SampleComparison:
    r"""Compare slice i of the mocks with slice i of the reference, where both grew from the same initial conditions.

    The coherence is :math:`r(k) = P_{ms}(k) / \sqrt{P_m(k) P_s(k)}` with means over all slices: 1 for equal phases
    whatever the amplitudes, 0 for independent ones. The distributions are of single slices, which scatter and lie a
    little lower where rings hold few modes.

    Parameters
    ----------
    mocks, reference
        Open slice files of equal length and order; counts are turned into 1 + delta.
    device
        Device to compute on.

    Returns
    -------
        With the score 1 - r, the median over the rings of the worst third of the judged range in ln k. Its sigmas
        are those of single slices: partners share their box.

    Raises
    ------
    UserError
        If the files differ in length, or in the realisation, axis or position of a slice.
    """
    _require_partners(mocks, reference)
    metadata, statistic = reference.metadata, PowerSpectrum()
    bins = statistic.bins(metadata).to(device)
    step = max(1, _PIXELS_AT_A_TIME // metadata.n_pixels**2)
    coherence, sums = np.empty((reference.n_slices, bins.n_bins)), np.zeros((3, bins.n_bins))
    for start in range(0, reference.n_slices, step):
        stop = min(start + step, reference.n_slices)
        one, other = (
            torch.from_numpy(reader.density(start, stop)).to(device).double() - 1 for reader in (mocks, reference)
        )
        cross = cross_power_spectrum(one, other, metadata.box_size, bins=bins)
        own = [power_spectrum(delta, metadata.box_size, bins=bins) for delta in (one, other)]
        coherence[start:stop] = (cross / (own[0] * own[1]).sqrt()).cpu().numpy()
        sums += torch.stack([cross, *own]).sum(1).cpu().numpy()
    edges, x = statistic.edges(metadata), statistic.centres(metadata)
    with np.errstate(invalid="ignore"):
        mean = sums[0] / np.sqrt(sums[1] * sums[2])
    third = split_in_thirds(edges, x, statistic.judged(metadata, mean), log_x=statistic.log_x)
    distributions, lacking = {}, []
    for number in range(3):
        members = np.flatnonzero(third == number)
        if len(members):
            per_slice = np.median(coherence[:, members], axis=1)
            where = f"{edges[members[0]]:.3g}-{edges[members[-1] + 1]:.3g} h/Mpc"
            distributions[f"mocks, {where}"] = per_slice
            error = float(per_slice.std(ddof=1)) / math.sqrt(len(per_slice)) if len(per_slice) > 1 else math.nan
            lacking.append((1 - float(np.median(mean[members])), error, where))
    value, error, where = max(lacking) if lacking else (math.nan, math.nan, "")
    curve = ", ".join(f"{1 - lack:.3f} at {place}" for lack, _, place in lacking)
    return SampleComparison(
        name=NAME,
        title=TITLE,
        scores=(Score(name=NAME, title=TITLE, value=value, sigmas=value / error if error > 0 else None),),
        quantity="coherence r of a slice with its partner",
        distributions=distributions,
        explanation=(
            f"Slice i of the mocks against slice i of the simulation, {reference.n_slices:,} pairs: median over rings "
            f"of r(k): {curve}. 1 for equal phases, 0 for independent ones."
        ),
    )


def _require_partners(mocks: SliceReader, reference: SliceReader) -> None:
    if mocks.n_slices != reference.n_slices:
        raise UserError(
            f"{mocks.path} has {mocks.n_slices} slices and {reference.path} has {reference.n_slices}; partners come in "
            "pairs, slice by slice. Leave --paired out for mocks without partners"
        )
    for name in ("realisation", "axis", "position"):
        ours, theirs = getattr(mocks, name), getattr(reference, name)
        # A file that does not say is taken to agree.
        unknown = (mocks.axis == 255) | (reference.axis == 255)
        different = ~unknown & ~np.isclose(ours, theirs, rtol=1e-4, atol=1e-6, equal_nan=True)
        if different.any():
            i = int(np.argmax(different))
            raise UserError(
                f"{mocks.path} and {reference.path} are not partners: slice {i} has {name} {ours[i]:g} and "
                f"{theirs[i]:g}. Leave --paired out, or put them in one order"
            )
