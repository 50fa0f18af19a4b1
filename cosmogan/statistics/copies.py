"""Copies among slices, whatever their shift, rotation and mirror image: nearest neighbours and exact duplicates."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from cosmogan.statistics.similarity import bounded

# Slices with fewer pixels along a side have too few waves to tell them apart.
SMALLEST_SIDE = 16
# Waves below this number in every direction: those of 64 pixels along a side. Fingerprints take the longer half.
_CUT, _FINGERPRINT_CUT = 32, 16
# Waves in which noise of 10% of the rms in every pixel would win are not raised to the weight of the others.
_NOISE = 0.1
# Candidates per slice that are compared in full.
N_CANDIDATES = 8
# Query slices handled at a time: 16 maps of 64 x 64 for each; and cells of the full maps of the best candidates.
_QUERIES, _CELLS = 32, 2**20


class Orientation(NamedTuple):
    """One of the eight symmetries of the square: transpose first, then mirror."""

    transpose: bool
    flip_rows: bool
    flip_columns: bool

    def apply(self, fields: torch.Tensor) -> torch.Tensor:
        """Return fields of shape ``(..., n_pixels, n_pixels)`` in this orientation."""
        if self.transpose:
            fields = fields.transpose(-1, -2)
        dims = [dim for dim, flip in ((-2, self.flip_rows), (-1, self.flip_columns)) if flip]
        return fields.flip(dims) if dims else fields


# The first four have different patterns of amplitudes; each of the last four is one of them rotated by 180 degrees.
ORIENTATIONS = tuple(
    Orientation(transpose, rows != half, half)
    for half, transpose, rows in itertools.product((False, True), (False, True), (False, True))
)


@dataclass(frozen=True, eq=False)
class Waves:
    """Long waves of a set of slices, flattened: all that is compared of them.

    Parameters
    ----------
    n_pixels
        Side of the slices they come from.
    modes
        Fourier modes on half of the plane, each slice of unit power, shape ``(n_slices, n_modes)``, complex64; zero
        for a constant slice.
    fingerprint
        Amplitudes less their mean, of unit norm, shape ``(n_slices, n_fingerprint)``, float32: equal for all shifts of
        a slice, and permuted by rotations and mirrors.
    """

    n_pixels: int
    modes: torch.Tensor
    fingerprint: torch.Tensor

    def __len__(self) -> int:
        return len(self.modes)


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The most similar candidate of each query slice; arrays of shape ``(n_queries,)`` unless said otherwise.

    The query is about ``torch.roll(ORIENTATIONS[orientation].apply(candidate), shift, (-2, -1))``.

    Parameters
    ----------
    index
        Index of the candidate; -1 where none was allowed.
    similarity
        Correlation coefficient of the flattened waves, 1 for copies; NaN where none was allowed.
    orientation
        Index into `ORIENTATIONS`.
    shift
        Pixels along rows and columns, shape ``(n_queries, 2)``.
    """

    index: np.ndarray
    similarity: np.ndarray
    orientation: np.ndarray
    shift: np.ndarray


def gather_modes(density: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Take the long waves of slices, to be collected over a file before `flatten`.

    Waves of the `bounded` field, in which one bright peak does not outweigh all the rest.

    Parameters
    ----------
    density
        1 + delta, dimensionless, shape ``(n_slices, n_pixels, n_pixels)``.

    Returns
    -------
        Modes of shape ``(n_slices, n_modes)``, complex64, and the variance of the bounded field of each slice as power
        per mode, shape ``(n_slices,)``.

    Raises
    ------
    ValueError
        If slices are not square or have fewer than 16 pixels along a side.
    """
    if density.ndim != 3 or density.shape[1] != density.shape[2] or density.shape[1] < SMALLEST_SIDE:
        raise ValueError(
            f"density: expected shape (n_slices, n, n) with n >= {SMALLEST_SIDE}, got {tuple(density.shape)}"
        )
    n_pixels = density.shape[-1]
    field = bounded(density)
    # Without the mean, in float64: constant slices then have no waves from rounding.
    field = (field - field.double().mean((1, 2), keepdim=True)).float()
    rows, columns = (part.to(density.device) for part in torch.from_numpy(_lattice(n_pixels)).T)
    modes = torch.fft.rfft2(field)[:, rows % n_pixels, columns]
    return modes, field.double().square().sum((1, 2)).float()


def flatten(modes: torch.Tensor, power: torch.Tensor, n_pixels: int) -> Waves:
    r"""Give all long waves of a set of slices the same mean power, and take their fingerprints.

    Modes are divided by :math:`\sqrt{P(k) + 0.01 \bar P}`, with the set's own mean power P in rings of equal |k| and
    its mean over all modes of the pixel grid. Otherwise the few longest waves decide: between independent N-body slices
    the largest correlation of 192 was 0.12 +- 0.006 in a box of 350 Mpc/h and 0.23 +- 0.025 in one of 70 Mpc/h before,
    0.093 +- 0.005 and 0.103 +- 0.006 after. Chance then hardly depends on the spectrum, and a mock whose spectrum is
    wrong is not taken for a copy. The second term keeps waves quiet in which noise of 10% of the rms would win.

    Parameters
    ----------
    modes, power
        Modes and power of the whole set, from `gather_modes`; at least one slice.
    n_pixels
        Side of the slices.
    """
    lattice = _lattice(n_pixels)
    _, ring = np.unique((lattice**2).sum(1), return_inverse=True)
    ring_of_mode = torch.from_numpy(ring).to(modes.device)

    def ring_mean(values: torch.Tensor) -> torch.Tensor:
        sums = torch.zeros(int(ring.max()) + 1, dtype=torch.float64, device=modes.device)
        counts = sums.index_add(0, ring_of_mode, torch.ones_like(values, dtype=torch.float64))
        return (sums.index_add(0, ring_of_mode, values.double()) / counts)[ring_of_mode]

    spectrum = ring_mean(modes.abs().square().mean(0)) + _NOISE**2 * power.double().mean()
    modes = modes * torch.where(spectrum > 0, spectrum, 1.0).rsqrt().float()
    # Half of the plane holds half of the power.
    modes = modes / _norm(modes) / 2**0.5
    amplitude = modes.abs()
    low = torch.from_numpy(_is_low(n_pixels)).to(modes.device)
    fingerprint = (amplitude - ring_mean(amplitude.mean(0)).float())[:, low]
    return Waves(n_pixels, modes, fingerprint / _norm(fingerprint))


def nearest(
    queries: Waves, candidates: Waves, allowed: np.ndarray | None = None, *, n_candidates: int = N_CANDIDATES
) -> Neighbours:
    """Find the most similar candidate of each slice under all shifts, rotations and mirrors.

    Fingerprints pick ``n_candidates`` pairs of candidate and orientation for each query; those are correlated by FFT at
    shifts by a 64th of the side, and the best one again at shifts by single pixels. A copy has the very fingerprint of
    its original and is always found. Between slices that are no copies fingerprints say little, so the similarity is
    that of the best of the candidates that were looked at, a lower limit.

    Parameters
    ----------
    queries, candidates
        Waves from `flatten`, of slices of the same side.
    allowed
        Which candidates each query may have, bool, shape ``(n_queries, n_candidate_slices)``; all by default.
    n_candidates
        Compared in full for each query.

    Raises
    ------
    ValueError
        If the sides differ.
    """
    if queries.n_pixels != candidates.n_pixels:
        raise ValueError(f"candidates: expected {queries.n_pixels} pixels along a side, got {candidates.n_pixels}")
    n, side, device = len(queries), queries.n_pixels, queries.modes.device
    place, conjugate = (torch.from_numpy(table).to(device) for table in _turned(side))
    turned = _turned_fingerprints(candidates)
    grid = min(side, 2 * _CUT)
    index, orientation = np.full(n, -1), np.zeros(n, dtype=np.int64)
    for start in range(0, n, _QUERIES):
        rows = slice(start, min(start + _QUERIES, n))
        score = torch.stack([queries.fingerprint[rows] @ one.T for one in turned], -1)
        if allowed is not None:
            score[~torch.from_numpy(allowed[rows]).to(device)] = -torch.inf
        best, picked = score.flatten(1).topk(min(n_candidates, score[0].numel()))
        slice_number, pattern = picked // len(turned), picked % len(turned)
        similarity = []
        for half in (0, len(turned)):
            other = _oriented(candidates.modes[slice_number], place[pattern + half], conjugate[pattern + half])
            product = queries.modes[rows, None] * other.conj()
            similarity.append(_correlation_maps(product, side, grid).amax((-1, -2)))
        both = torch.stack(similarity, -1)
        both[~torch.isfinite(best)] = -torch.inf
        value, winner = both.flatten(1).max(1)
        column = (winner // 2)[:, None]
        found = torch.isfinite(value).cpu().numpy()
        turn = pattern.gather(1, column)[:, 0] + len(turned) * (winner % 2)
        index[rows] = np.where(found, slice_number.gather(1, column)[:, 0].cpu().numpy(), -1)
        orientation[rows] = turn.cpu().numpy()
    similarity_full, shift = _full_correlation(queries, candidates, index, orientation)
    return Neighbours(index, similarity_full, orientation, shift)


def slice_hashes(density: np.ndarray) -> np.ndarray:
    """Return a number per slice that shifts, rotations and mirrors do not change and nearly anything else does.

    The sum over all pixels of a 64-bit hash of the value and of those of its four periodic neighbours. Slices with the
    same number are copies of each other bit for bit, unless their pixels differ from the background only in isolated
    places, whose distances the number does not know.

    Parameters
    ----------
    density
        Shape ``(n_slices, n_pixels, n_pixels)``, float32.

    Returns
    -------
        Shape ``(n_slices,)``, uint64.

    Examples
    --------
    >>> slices = np.random.default_rng(0).random((1, 16, 16), dtype=np.float32)
    >>> bool(slice_hashes(slices) == slice_hashes(np.roll(np.rot90(slices, axes=(1, 2)), 3, axis=1)))
    True
    """
    # Adding zero makes -0 and 0 the same bits.
    value = _mixed((np.ascontiguousarray(density, dtype=np.float32) + np.float32(0)).view(np.uint32).astype(np.uint64))
    around = sum(
        (np.roll(value, step, axis) for step, axis in itertools.product((1, -1), (1, 2))), np.zeros_like(value)
    )
    return _mixed(value * np.uint64(3) + around).sum((1, 2), dtype=np.uint64)


def _mixed(value: np.ndarray) -> np.ndarray:
    # The finaliser of splitmix64 (Steele, Lea & Flood 2014).
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _norm(values: torch.Tensor) -> torch.Tensor:
    """Return the norm of each row, 1 for rows of zeros, shape ``(n, 1)``."""
    norm = values.abs().double().square().sum(1, keepdim=True).sqrt()
    return torch.where(norm > 0, norm, 1.0).float()


def _cut(n_pixels: int) -> int:
    return min(_CUT, n_pixels // 2)


def _lattice(n_pixels: int) -> np.ndarray:
    """Return the wave numbers of the half plane below the cut, 1 per box, shape ``(n_modes, 2)``, int64."""
    cut = _cut(n_pixels)
    rows, columns = np.meshgrid(np.arange(-cut + 1, cut), np.arange(cut), indexing="ij")
    half = ((columns > 0) | (rows > 0)) & (rows**2 + columns**2 < cut**2)
    return np.stack([rows[half], columns[half]], 1)


def _is_low(n_pixels: int) -> np.ndarray:
    return (_lattice(n_pixels) ** 2).sum(1) < _FINGERPRINT_CUT**2


def _turned(n_pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where each mode of a turned field lies in the original, and whether as its conjugate.

    Shape ``(8, n_modes)`` each, in the order of `ORIENTATIONS`. A mirror leaves pixel 0 where it is here.
    """
    lattice, cut = _lattice(n_pixels), _cut(n_pixels)
    number = np.full((2 * cut - 1, cut), -1)
    number[lattice[:, 0] + cut - 1, lattice[:, 1]] = np.arange(len(lattice))
    places, conjugates = [], []
    for orientation in ORIENTATIONS:
        signs = np.array([-1 if orientation.flip_rows else 1, -1 if orientation.flip_columns else 1])
        wave = lattice * signs
        if orientation.transpose:
            wave = wave[:, ::-1]
        other_half = (wave[:, 1] < 0) | ((wave[:, 1] == 0) & (wave[:, 0] < 0))
        wave = np.where(other_half[:, None], -wave, wave)
        places.append(number[wave[:, 0] + cut - 1, wave[:, 1]])
        conjugates.append(other_half)
    return np.stack(places), np.stack(conjugates)


def _turned_fingerprints(waves: Waves) -> list[torch.Tensor]:
    """Return the fingerprints in the four orientations that differ for them."""
    low = _is_low(waves.n_pixels)
    place = _turned(waves.n_pixels)[0][:4, low]
    # From a number among all modes to one among the low ones, which are closed under the symmetries.
    number = np.cumsum(low) - 1
    return [waves.fingerprint[:, torch.from_numpy(number[one]).to(waves.modes.device)] for one in place]


def _oriented(modes: torch.Tensor, place: torch.Tensor, conjugate: torch.Tensor) -> torch.Tensor:
    turned = modes.gather(-1, place.expand(modes.shape))
    return torch.where(conjugate, turned.conj(), turned)


def _correlation_maps(product: torch.Tensor, n_pixels: int, grid: int) -> torch.Tensor:
    """Return the correlation at all shifts on a grid, shape ``(..., grid, grid)``."""
    rows, columns = (part.to(product.device) for part in torch.from_numpy(_lattice(n_pixels)).T)
    plane = torch.zeros(*product.shape[:-1], grid, grid // 2 + 1, dtype=product.dtype, device=product.device)
    plane[..., rows % grid, columns] = product
    edge = columns == 0
    plane[..., -rows[edge] % grid, 0] = product[..., edge].conj()
    return torch.fft.irfft2(plane, s=(grid, grid), norm="forward")


def _full_correlation(
    queries: Waves, candidates: Waves, index: np.ndarray, orientation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return correlation and shift of the chosen pairs, over all shifts by whole pixels."""
    side, device = queries.n_pixels, queries.modes.device
    place, conjugate = _turned(side)
    similarity, shift = np.full(len(index), np.nan), np.zeros((len(index), 2), dtype=np.int64)
    paired = np.flatnonzero(index >= 0)
    step = max(1, _CELLS // side**2)
    for start in range(0, len(paired), step):
        rows = paired[start : start + step]
        turn = orientation[rows]
        other = _oriented(
            candidates.modes[torch.from_numpy(index[rows]).to(device)],
            torch.from_numpy(place[turn]).to(device),
            torch.from_numpy(conjugate[turn]).to(device),
        )
        maps = _correlation_maps(queries.modes[torch.from_numpy(rows).to(device)] * other.conj(), side, side)
        value, cell = (part.cpu().numpy() for part in maps.flatten(1).max(1))
        similarity[rows] = value
        # torch.flip is the mirror about pixel 0 moved back by one.
        flips = np.array([[o.flip_rows, o.flip_columns] for o in ORIENTATIONS])[turn]
        shift[rows] = (np.stack(np.unravel_index(cell, (side, side)), 1) + flips) % side
    return similarity, shift
