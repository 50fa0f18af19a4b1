"""Variety: whether different mocks resemble each other as much as different simulated slices do."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from cosmogan.slices import SliceMetadata, SliceReader
from cosmogan.statistics.accumulator import Accumulator
from cosmogan.statistics.similarity import (
    SMALLEST_SIDE,
    coarsened,
    draw_pairs,
    error_of_pair_mean,
    jackknife_error_of_pair_mean,
    structural_similarity,
    units_of_slices,
    unrelated,
)
from cosmogan.validation.score import SampleComparison, Score

# Slices that pairs are drawn from: 67 MB once coarsened.
_MOST_SLICES = 1024
# Pixels of either half of the pairs handled at a time.
_PIXELS_AT_A_TIME = 2**18
# Below this many realisations a half of them holds a single one, whose own distant pairs then make its floor.
_ENOUGH_REALISATIONS = 4
# Halves are made of at most so many groups of realisations: as good as all of them, in little memory.
_MOST_GROUPS = 16
# What deserves a sentence: a shift this large, in units of the scatter of pairs, and as sure as that.
_LARGE, _SURE = 0.3, 4.0


@dataclass(frozen=True, eq=False, kw_only=True)
class _Pairs:
    """Similarity of pairs, with their slices, all of shape ``(n_pairs,)``, and labels of the slices, from 0."""

    values: np.ndarray
    first: np.ndarray
    second: np.ndarray
    realisation: np.ndarray
    unit: np.ndarray

    @property
    def mean(self) -> float:
        return float(self.values.mean()) if len(self.values) else math.nan

    @property
    def scatter(self) -> float:
        """Standard deviation of pairs; NaN where there is none to compare with."""
        scatter = float(self.values.std()) if len(self.values) > 1 else 0.0
        return scatter if scatter > 0 else math.nan

    @property
    def error(self) -> float:
        """Of the mean."""
        return self._error(self.values)

    @property
    def relative_error_of_scatter(self) -> float:
        return 0.5 * self._error((self.values - self.mean) ** 2) / self.scatter**2

    def _error(self, values: np.ndarray) -> float:
        """Between realisations where there are three, at least that between slices or parts of a box."""
        jackknife = jackknife_error_of_pair_mean(values, self.realisation[self.first], self.realisation[self.second])
        return float(np.fmax(error_of_pair_mean(values, self.unit[self.first], self.unit[self.second]), jackknife))


def applies(metadata: SliceMetadata) -> bool:
    """Return whether slices have the pixels that a structural similarity needs."""
    return metadata.n_pixels >= SMALLEST_SIDE


def compare_diversity(
    mocks: SliceReader,
    reference: SliceReader,
    *,
    seed: int,
    n_pairs: int = 1000,
    device: torch.device | str = "cpu",
) -> SampleComparison:
    """Compare the structural similarity of pairs of mocks with that of pairs of simulated slices.

    ``"diversity"`` is the difference of the two mean similarities, taken positive, over the scatter of pairs of the
    reference: mocks that resemble each other too much lack variety. ``"similarity_scatter"`` is the relative difference
    of the scatter of pairs, taken positive: noise in place of structure makes all pairs equally unlike. Means and
    scatters, not a distance of distributions, because their errors are known although pairs share slices, and because
    a few nearly equal pairs, as of a generator with some templates, move them more than they move the distribution.

    Parameters
    ----------
    mocks, reference
        Open slice files of the same geometry; counts are turned into 1 + delta. At least
        `cosmogan.statistics.similarity.SMALLEST_SIDE` pixels along a side.
    seed
        Seed of the draw of slices and pairs.
    n_pairs
        Pairs of each set at most.
    device
        Device to compute on.

    Returns
    -------
        Two scores, NaN where one of the files has no two unrelated slices.

    Raises
    ------
    UserError
        If a file is damaged.
    ValueError
        If slices are too small.
    """
    ours = _measure(mocks, seed, n_pairs, device)
    theirs, floor = _measure_reference(reference, seed, n_pairs, device)
    difference = ours.mean - theirs.mean
    error = math.hypot(ours.error, theirs.error)
    wider = (ours.scatter if ours.scatter > 0 else 0.0) / theirs.scatter - 1 if len(ours.values) else math.nan
    wider_error = math.hypot(np.nan_to_num(ours.relative_error_of_scatter), theirs.relative_error_of_scatter)
    scores = (
        Score(
            name="diversity",
            title="Mean similarity of pairs (MS-SSIM)",
            value=abs(difference) / theirs.scatter,
            floor=None if floor is None else floor[0] / theirs.scatter,
            sigmas=_sigmas(difference, error),
            units="scatter of pairs",
        ),
        Score(
            name="similarity_scatter",
            title="Scatter of that similarity",
            value=abs(wider),
            floor=None if floor is None else floor[1],
            sigmas=_sigmas(wider, wider_error),
            units="relative",
        ),
    )
    return SampleComparison(
        name="diversity",
        title="Diversity (MS-SSIM of pairs)",
        scores=scores,
        quantity="MS-SSIM of two different slices",
        distributions={"mocks": ours.values, "simulation": theirs.values},
        explanation=(
            f"Multi-scale structural similarity of {len(ours.values)} pairs of different mocks and of "
            f"{len(theirs.values)} pairs of simulated slices {_where(reference)}, drawn from {len(ours.unit)} and "
            f"{len(theirs.unit)} slices; 1 for equal slices, about 0.5 for independent ones. A distribution right of "
            "the simulation's means too little variety, a narrower one that structure is missing."
        ),
        notes=_notes(ours, theirs, difference, scores, reference),
    )


def _measure(reader: SliceReader, seed: int, n_pairs: int, device: torch.device | str) -> _Pairs:
    chosen, allowed, _ = _sample(reader, seed)
    pairs = draw_pairs(len(chosen), n_pairs, allowed, seed=seed)
    return _evaluate(reader, chosen, *pairs, device)


def _measure_reference(
    reader: SliceReader, seed: int, n_pairs: int, device: torch.device | str
) -> tuple[_Pairs, tuple[float, float] | None]:
    """Return pairs across realisations, and the rms differences between halves of the realisations."""
    chosen, allowed, within = _sample(reader, seed + 1)
    first, second = draw_pairs(len(chosen), n_pairs, allowed, seed=seed)
    n_across, realisations = len(first), np.unique(reader.realisation[chosen])
    if 1 < len(realisations) < _ENOUGH_REALISATIONS:
        more = draw_pairs(len(chosen), n_pairs // 2, within, seed=seed)
        first, second = np.append(first, more[0]), np.append(second, more[1])
    all_pairs = _evaluate(reader, chosen, first, second, device)
    across = replace(all_pairs, values=all_pairs.values[:n_across], first=first[:n_across], second=second[:n_across])
    return across, _floor(all_pairs, len(realisations), seed)


def _floor(pairs: _Pairs, n_realisations: int, seed: int) -> tuple[float, float] | None:
    """Return the rms differences of the mean, and relative ones of the scatter, between halves of realisations."""
    n_groups = min(n_realisations, _MOST_GROUPS)
    # The splits are those of every other statistic.
    marks = Accumulator(n_groups)
    marks.update(np.eye(n_groups), np.arange(n_groups))
    differences = []
    first, second = pairs.realisation[pairs.first] % n_groups, pairs.realisation[pairs.second] % n_groups
    for half in marks.halves(seed=seed)[0] > 0:
        inside = pairs.values[half[first] & half[second]]
        outside = pairs.values[~half[first] & ~half[second]]
        if min(len(inside), len(outside)) > 1 and outside.std() > 0:
            differences.append((inside.mean() - outside.mean(), inside.std() / outside.std() - 1))
    if not differences:
        return None
    mean, scatter = np.sqrt(np.mean(np.square(differences), axis=0))
    return float(mean), float(scatter)


def _sigmas(difference: float, error: float) -> float | None:
    return abs(difference) / error if math.isfinite(difference) and error > 0 else None


def _sample(reader: SliceReader, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return indices of some slices and which pairs of them are unrelated: in the file, and within realisations."""
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(reader.n_slices, min(_MOST_SLICES, reader.n_slices), replace=False))
    number, realisation = np.arange(len(chosen)), reader.realisation[chosen]

    def unrelated_as(labels: np.ndarray) -> np.ndarray:
        return unrelated(
            number[:, None],
            number,
            realisation=labels,
            axis=reader.axis[chosen],
            position=reader.position[chosen],
            box_size=reader.metadata.box_size,
        )

    same = realisation[:, None] == realisation
    return chosen, unrelated_as(realisation), same & unrelated_as(np.zeros_like(realisation))


def _evaluate(
    reader: SliceReader, chosen: np.ndarray, first: np.ndarray, second: np.ndarray, device: torch.device | str
) -> _Pairs:
    slices = torch.cat(
        [coarsened(torch.from_numpy(reader.density(int(i), int(i) + 1)).to(device)) for i in chosen]
        or [torch.zeros(0, reader.metadata.n_pixels, reader.metadata.n_pixels)]
    )
    step = max(1, _PIXELS_AT_A_TIME // slices.shape[-1] ** 2)
    values = [
        structural_similarity(slices[first[start : start + step]], slices[second[start : start + step]]).cpu().numpy()
        for start in range(0, len(first), step)
    ]
    return _Pairs(
        values=np.concatenate([*values, np.zeros(0)]),
        first=first,
        second=second,
        realisation=np.unique(reader.realisation[chosen], return_inverse=True)[1],
        unit=units_of_slices(
            realisation=reader.realisation[chosen],
            axis=reader.axis[chosen],
            position=reader.position[chosen],
            box_size=reader.metadata.box_size,
        ),
    )


def _where(reference: SliceReader) -> str:
    if len(np.unique(reference.realisation)) > 1:
        return "of different realisations"
    return "of one realisation, along different axes or at least a quarter of the box apart"


def _notes(
    ours: _Pairs, theirs: _Pairs, difference: float, scores: tuple[Score, ...], reference: SliceReader
) -> tuple[str, ...]:
    notes = []
    for name, pairs in (("mocks", ours), ("reference", theirs)):
        if not len(pairs.values):
            notes.append(f"The {name} hold no two unrelated slices, so their diversity is unknown.")
    if len(np.unique(reference.realisation)) == 1:
        notes.append("The reference holds a single realisation, so the floor of the diversity is unknown.")
    mean = scores[0]
    if mean.value > _LARGE and mean.sigmas is not None and mean.sigmas > _SURE:
        more, hint = (
            ("more", "Does the generator lack variety, or is its contrast too low?")
            if difference > 0
            else ("less", "Is the contrast of the mocks too high?")
        )
        notes.append(
            f"Different mocks resemble each other {more} than simulated slices do: mean MS-SSIM {ours.mean:.3f} "
            f"against {theirs.mean:.3f} +- {theirs.scatter:.3f} (scatter of pairs). {hint}"
        )
    return tuple(notes)
