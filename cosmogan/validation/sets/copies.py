"""Whether mocks are copies: of each other, or of the slices that the emulator was trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from cosmogan.errors import UserError
from cosmogan.slices import AXIS_NOT_APPLICABLE, SliceMetadata, SliceReader
from cosmogan.statistics.copies import (
    ORIENTATIONS,
    SMALLEST_SIDE,
    Neighbours,
    Waves,
    flatten,
    gather_modes,
    nearest,
    slice_hashes,
)
from cosmogan.statistics.similarity import unrelated
from cosmogan.validation.score import SampleComparison, Score

# Slices of each set between which neighbours are looked for: 53 MB of waves each.
_MOST_SLICES = 4096
# Pixels read at a time: 16 slices of 256 x 256, about 50 MB with hashes and transforms.
_PIXELS_AT_A_TIME = 2**20
# Slabs of one box resemble each other by right; from here on they are the same slab.
_SAME = 0.99
# A slice is a copy if chance makes one slice in as many so similar; with fewer reference slices chance is unknown.
_CHANCE, _ENOUGH = 1e-6, 20
# And not below this: mocks of another spectrum or sparser than the reference move chance by some hundredths.
_LEAST = 0.25
# Copies named in a note.
_N_NAMED = 4


@dataclass(frozen=True, eq=False, kw_only=True)
class _Sample:
    """Slices of a file between which neighbours are looked for, and hashes of all of its slices (or none)."""

    reader: SliceReader
    chosen: np.ndarray
    waves: Waves
    hashes: np.ndarray

    @property
    def labels(self) -> dict[str, np.ndarray]:
        return {name: getattr(self.reader, name)[self.chosen] for name in ("realisation", "axis", "position")}


def applies(metadata: SliceMetadata) -> bool:
    """Return whether slices have waves enough to tell a copy from another slice."""
    return metadata.n_pixels >= SMALLEST_SIDE


def compare_copies(
    mocks: SliceReader,
    reference: SliceReader,
    *,
    training: SliceReader | None,
    seed: int,
    n_slices: int = _MOST_SLICES,
    device: torch.device | str = "cpu",
) -> tuple[SampleComparison, ...]:
    """Look for mocks that are copies, shifted, rotated, mirrored, or slightly changed.

    ``"copies"``: the share of mocks with a copy among the mocks. A mock counts if another one is more similar to it
    than chance allows, judged by the most similar slice of another realisation for each slice of the reference.
    Slabs of one realisation (with axis and position) may resemble each other and count from a similarity of 0.99.
    ``"memorisation"``, with a training file: the share of mocks with a copy among the training slices, judged by the
    training slice most similar to each slice of the reference, which must be held out. Both shares are 0 for perfect
    mocks. Copies to the last bit are looked for in whole files, similar slices among ``n_slices`` of each file.

    Parameters
    ----------
    mocks, reference
        Open slice files of the same geometry; counts are turned into 1 + delta. At least
        `cosmogan.statistics.copies.SMALLEST_SIDE` pixels along a side.
    training
        The slices that the emulator was trained on, if known.
    seed
        Seed of the draws of slices.
    n_slices
        Slices of each file that are compared for similarity at most.
    device
        Device to compute on.

    Returns
    -------
        One comparison, or two with training slices.

    Raises
    ------
    UserError
        If the training slices differ in geometry from the mocks, or a file is damaged.
    ValueError
        If slices are too small.
    """
    if training is not None:
        _require_same_geometry(mocks, training)
    ours = _collect(mocks, n_slices, seed, device, hashed=True)
    theirs = _collect(reference, n_slices, seed + 1, device, hashed=False)
    among = _among_mocks(ours, theirs)
    if training is None:
        return (among,)
    return among, _of_training(ours, theirs, _collect(training, n_slices, seed + 2, device, hashed=True))


def _require_same_geometry(mocks: SliceReader, training: SliceReader) -> None:
    one, other = (replace(r.metadata, quantity="density", mean_count=None) for r in (mocks, training))
    clauses = one.differences(other)
    if clauses:
        raise UserError(
            f"{mocks.path} cannot have been learnt from {training.path}: {'; '.join(clauses)}. "
            "Name the file that the emulator was trained on"
        )


def _collect(reader: SliceReader, n_slices: int, seed: int, device: torch.device | str, *, hashed: bool) -> _Sample:
    n_pixels = reader.metadata.n_pixels
    n_chosen = min(n_slices, reader.n_slices)
    chosen = np.sort(np.random.default_rng(seed).choice(reader.n_slices, n_chosen, replace=False))
    if not n_chosen:
        raise UserError(f"{reader.path}: /slices is empty; expected at least one slice")
    # Filled in place: small results kept between large temporaries would leave holes of a gigabyte in the heap.
    hashes = np.zeros(reader.n_slices if hashed else 0, np.uint64)
    power = torch.zeros(n_chosen, device=device)
    modes = torch.zeros(n_chosen, 0, device=device)
    n_gathered, step = 0, max(1, _PIXELS_AT_A_TIME // n_pixels**2)
    for start in range(0, reader.n_slices, step):
        inside = chosen[(chosen >= start) & (chosen < start + step)] - start
        if not (hashed or len(inside)):
            continue
        density = reader.density(start, min(start + step, reader.n_slices))
        if hashed:
            hashes[start : start + step] = slice_hashes(density)
        if len(inside):
            gathered, variance = gather_modes(torch.from_numpy(density[inside]).to(device))
            if not n_gathered:
                modes = torch.zeros(n_chosen, gathered.shape[1], dtype=gathered.dtype, device=device)
            modes[n_gathered : n_gathered + len(inside)] = gathered
            power[n_gathered : n_gathered + len(inside)] = variance
            n_gathered += len(inside)
    return _Sample(reader=reader, chosen=chosen, waves=flatten(modes, power, n_pixels), hashes=hashes)


def _among_mocks(ours: _Sample, theirs: _Sample) -> SampleComparison:
    labels = ours.labels
    different = ~np.eye(len(ours.chosen), dtype=bool)
    slab = (labels["axis"] != AXIS_NOT_APPLICABLE) & np.isfinite(labels["position"])
    one_box = (labels["realisation"][:, None] == labels["realisation"]) & slab[:, None] & slab
    allowed = (different & ~one_box) | _unrelated(ours)
    within = different & ~allowed
    found = nearest(ours.waves, ours.waves, allowed)
    expected_allowed = _unrelated(theirs)
    expected = nearest(theirs.waves, theirs.waves, expected_allowed)
    limit = _chance_limit(expected.similarity, _n_candidates(allowed) / _n_candidates(expected_allowed))
    similar = found.similarity > limit
    if within.any():
        boxed = nearest(ours.waves, ours.waves, within)
        better = boxed.similarity >= _SAME
        similar |= better
        found = Neighbours(
            *(np.where(better if a.ndim == 1 else better[:, None], a, b) for a, b in _fields(boxed, found))
        )
    exact_in_file = _repeated(ours.hashes)
    n_realisations = len(np.unique(theirs.reader.realisation))
    score = _score(
        "copies",
        "Mocks with a copy among the mocks",
        similar | exact_in_file[ours.chosen],
        expected.similarity > _chance_limit(expected.similarity, 1.0),
        has_floor=n_realisations > 1,
        measurable=len(ours.chosen) > 1,
    )
    notes = _copies_notes(ours, ours, found, similar, "mock")
    if exact_in_file.any():
        notes += (
            f"{int(exact_in_file.sum())} of all {ours.reader.n_slices} mocks have an exact copy in their file, up to "
            f"shift, rotation and mirror image (first: slice {int(np.argmax(exact_in_file))}).",
        )
    if n_realisations == 1:
        notes += (
            "The reference holds a single realisation: chance is judged from its own distant slabs, and there is no "
            "floor for copies.",
        )
    where = "another realisation" if n_realisations > 1 else "another axis or a quarter of the box away"
    return SampleComparison(
        name="copies",
        title="Copies among the mocks",
        scores=(score,),
        quantity="similarity to the most similar slice",
        distributions={"mocks": _known(found.similarity), "simulation": _known(expected.similarity)},
        explanation=(
            f"For each of {_sampled(ours)} mocks the most similar other mock, for each of {_sampled(theirs)} slices of "
            f"the reference the most similar one of {where}: correlation of flattened long waves at the best shift, "
            f"rotation and mirror image, 1 for copies. {_limit_text(limit)}"
        ),
        notes=notes,
    )


def _of_training(ours: _Sample, theirs: _Sample, training: _Sample) -> SampleComparison:
    found = nearest(ours.waves, training.waves)
    expected = nearest(theirs.waves, training.waves)
    leaked = expected.similarity >= _SAME
    limit = _chance_limit(expected.similarity[~leaked], 1.0)
    similar = found.similarity > limit
    exact_in_file = np.isin(ours.hashes, training.hashes)
    score = _score(
        "memorisation",
        "Mocks with a copy among the training slices",
        similar | exact_in_file[ours.chosen],
        expected.similarity[~leaked] > limit,
        has_floor=not leaked.all(),
        measurable=len(ours.chosen) > 0,
    )
    notes = _copies_notes(ours, training, found, similar, "training slice")
    if exact_in_file.any():
        notes += (
            f"{int(exact_in_file.sum())} of all {ours.reader.n_slices} mocks are exact copies of training slices, up "
            f"to shift, rotation and mirror image (first: slice {int(np.argmax(exact_in_file))}).",
        )
    if leaked.any():
        notes += (
            f"{int(leaked.sum())} of {len(leaked)} slices of the reference are training slices: the reference is not "
            "held out, and no statistic of this report tests what the emulator has not seen.",
        )
    return SampleComparison(
        name="memorisation",
        title="Memorised training slices",
        scores=(score,),
        quantity="similarity to the most similar training slice",
        distributions={"mocks": _known(found.similarity), "simulation": _known(expected.similarity)},
        explanation=(
            f"For each of {_sampled(ours)} mocks and of {_sampled(theirs)} slices of the reference the most similar of "
            f"{_sampled(training)} training slices: correlation of flattened long waves at the best shift, rotation "
            f"and mirror image, 1 for copies. {_limit_text(limit)}"
        ),
        notes=notes,
    )


def _chance_limit(similarity: np.ndarray, candidates_ratio: float) -> float:
    """Return the similarity to the nearest neighbour that chance exceeds for one slice in a million.

    The largest of many similarities follows a Gumbel distribution, here with the median and the quartiles of the
    reference, so that a few copies in the reference itself do not spoil it; with more candidates it moves by its width
    times the logarithm of their ratio. At least 0.25 and at most 0.99.
    """
    known = _known(similarity)
    if len(known) < _ENOUGH:
        return _SAME
    low, middle, high = np.quantile(known, [0.25, 0.5, 0.75])
    width = (high - low) / math.log(math.log(4) / math.log(4 / 3))
    mode = middle + width * math.log(math.log(2))
    limit = mode + width * (math.log(max(candidates_ratio, 1.0)) - math.log(_CHANCE))
    return float(min(max(limit, _LEAST), _SAME))


def _score(
    name: str, title: str, copied: np.ndarray, expected: np.ndarray, *, has_floor: bool, measurable: bool
) -> Score:
    """Return the share of copies, and how sure it is that it exceeds that of the reference."""
    n, n_expected = len(copied), len(expected)
    share = float(copied.mean()) if measurable else math.nan
    floor = float(expected.mean()) if n_expected else 0.0
    # The rule of succession: a reference without copies might have shown one more. Copies come in twos, which doubles
    # the variance.
    chance = (expected.sum() + 1) / (n_expected + 2)
    error = math.sqrt(2 * chance * (1 - chance) * (1 / n + 1 / max(n_expected, 1))) if measurable else math.nan
    return Score(
        name=name,
        title=title,
        value=share,
        floor=floor if has_floor else None,
        sigmas=float((share - floor) / error) if measurable else None,
        units="relative",
    )


def _copies_notes(
    ours: _Sample, others: _Sample, found: Neighbours, similar: np.ndarray, other_name: str
) -> tuple[str, ...]:
    if not similar.any():
        return ()
    named: list[str] = []
    seen: set[object] = set()
    for row in np.flatnonzero(similar)[np.argsort(-found.similarity[similar], kind="stable")]:
        one, other = int(ours.chosen[row]), int(others.chosen[found.index[row]])
        pair = frozenset((one, other)) if ours is others else (one, other)
        if pair not in seen and len(named) < _N_NAMED:
            turn = _turn_text(found, row)
            named.append(f"{one} like {other_name} {other} ({turn}; similarity {found.similarity[row]:.3f})")
        seen.add(pair)
    more = "" if len(seen) == len(named) else " and others"
    return (
        f"{int(similar.sum())} of {len(similar)} mocks are more similar to a {other_name} than chance allows: "
        f"{', '.join(named)}{more}.",
    )


def _turn_text(found: Neighbours, row: int) -> str:
    orientation = ORIENTATIONS[found.orientation[row]]
    words = [name.replace("_", " ") for name, value in orientation._asdict().items() if value]
    rows, columns = found.shift[row]
    return " + ".join([*words, f"shift by {rows} and {columns} pixels"])


def _repeated(hashes: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    return counts[inverse] > 1


def _fields(one: Neighbours, other: Neighbours) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(getattr(one, name), getattr(other, name)) for name in ("index", "similarity", "orientation", "shift")]


def _limit_text(limit: float) -> str:
    return f"Mocks beyond {limit:.2f} count as copies: chance goes so far for one slice in a million at most."


def _unrelated(sample: _Sample) -> np.ndarray:
    number = np.arange(len(sample.chosen))
    return unrelated(number[:, None], number, **sample.labels, box_size=sample.reader.metadata.box_size)


def _n_candidates(allowed: np.ndarray) -> float:
    return max(float(allowed.sum(1).mean()), 1.0)


def _known(similarity: np.ndarray) -> np.ndarray:
    return similarity[np.isfinite(similarity)]


def _sampled(sample: _Sample) -> str:
    n, total = len(sample.chosen), sample.reader.n_slices
    return f"{n}" if n == total else f"{n} (drawn from {total})"
