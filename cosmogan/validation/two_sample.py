"""Two-sample test: a network learns on half of the realisations and is asked about the other half."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from cosmogan.errors import UserError
from cosmogan.slices import AXIS_NOT_APPLICABLE, SliceReader
from cosmogan.statistics.two_sample import N_STEPS, area_under_curve, estimate_auc, hold_out, train_classifier
from cosmogan.validation.score import SampleComparison, Score

NAME, TITLE = "two_sample", "Two-sample test by a network"
QUANTITY = "score of the network (logit), high for mocks"
# Slices of either file that take part: all that a network of this size can use, in half a gigabyte each.
_MAX_SLICES, _MAX_PIXELS = 4096, 2**27
# Fewer slices teach a network nothing.
_MIN_SLICES = 16
# Fewer test realisations than this do not know their own scatter well.
_FEW = 4
# Ways to take the test realisations as two halves, of which the floor is the rms.
_N_SPLITS = 50
_SIGMAS = 3.0


@dataclass(frozen=True, eq=False)
class _Sample:
    density: np.ndarray
    groups: np.ndarray
    training: np.ndarray

    @property
    def n_groups(self) -> int:
        return len(np.unique(self.groups))

    def half(self, training: bool) -> tuple[np.ndarray, np.ndarray]:
        chosen = self.training == training
        return self.density[chosen], self.groups[chosen]


def compare_two_sample(
    mocks: SliceReader,
    reference: SliceReader,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    n_steps: int = N_STEPS,
) -> SampleComparison:
    """Train a network to tell two files apart and ask it about slices of realisations that it has not seen.

    Slabs of one box resemble each other, so whole realisations of the reference go to one half or the other; a network
    that only knows its training boxes by heart then gains nothing. Slices that are cut from no box (axis 255), as a
    generator writes them, are independent of each other.

    Parameters
    ----------
    mocks
        Slices to be judged.
    reference
        Slices of simulations, best of eight realisations or more; of the same metadata as the mocks.
    seed
        Of the split, the slices that take part, the network and its training.
    device
        Where to compute.
    n_steps
        Steps of training; two trainings where the reference has four realisations or more, one otherwise.

    Returns
    -------
        With one score, AUC - 0.5: the excess over chance of the probability that the network gives a random mock a
        higher score than a random simulated slice. Values below chance count as 0. The floor is the typical deviation
        of the AUC from 0.5, either way, for a network that learned to tell one quarter of the realisations from another
        and is asked about the rest, taken as two halves.

    Raises
    ------
    UserError
        If a slice holds values that no density has.
    """
    if min(mocks.n_slices, reference.n_slices) < _MIN_SLICES:
        note = (
            f"The two-sample test needs {_MIN_SLICES} slices of either kind: {mocks.n_slices} and {reference.n_slices}."
        )
        return SampleComparison(name=NAME, title=TITLE, scores=(_score(np.nan),), quantity=QUANTITY, notes=(note,))
    ours, theirs = _draw(mocks, seed, independent=True), _draw(reference, seed, independent=False)
    (our_density, our_groups), (their_density, their_groups) = ours.half(True), theirs.half(True)
    network = train_classifier(
        our_density,
        their_density,
        mock_groups=our_groups,
        simulation_groups=their_groups,
        seed=seed,
        n_steps=n_steps,
        device=device,
    )
    (our_test, our_test_groups), (their_test, their_test_groups) = ours.half(False), theirs.half(False)
    our_scores, their_scores = network.scores(our_test), network.scores(their_test)
    estimate = estimate_auc(our_scores, their_scores, mock_groups=our_test_groups, simulation_groups=their_test_groups)
    floor = _floor(theirs, seed=seed, n_steps=n_steps, device=device)
    n_test = len(np.unique(their_test_groups))
    explanation = (
        f"A network of {sum(p.numel() for p in network.parameters()):,} parameters learned to tell "
        f"{len(our_density):,} mocks from {_described(their_density, their_groups)}, by "
        f"{network.n_slices_seen:,} views of {network.tile} x {network.tile} pixels, and was asked about "
        f"{len(our_test):,} other mocks and {_described(their_test, their_test_groups)}. A mock gets the higher score "
        f"with probability {estimate.auc:.3f} ± {estimate.error:.3f} (AUC; 0.5 is chance, 1 full distinction)."
    )
    if floor is not None:
        explanation += f" Simulations against simulations, learned and asked alike: 0.5 ± {floor:.3f}."
    notes = []
    if theirs.n_groups == 1:
        notes.append(
            "The reference of the two-sample test is a single realisation: the network learned and was asked on slabs "
            "of one box, so that what is peculiar to this box counts against the mocks too; no floor and no sigmas."
        )
    elif n_test == 1:
        notes.append(
            "The two-sample test asks about a single realisation, whose peculiarities count as differences; give the "
            "reference at least eight realisations for an error bar and a floor."
        )
    elif n_test < _FEW:
        notes.append(
            f"The two-sample test asks about {n_test} realisations, too few to know their own scatter: its sigmas are "
            "small whatever the AUC; give the reference at least eight realisations."
        )
    if estimate.sigmas is not None and estimate.sigmas < -_SIGMAS:
        notes.append(
            f"The network of the two-sample test does worse than chance, AUC = {estimate.auc:.3f}: training and test "
            "realisations differ more than their scatter says."
        )
    return SampleComparison(
        name=NAME,
        title=TITLE,
        scores=(_score(max(estimate.auc - 0.5, 0.0), floor=floor, sigmas=estimate.sigmas),),
        quantity=QUANTITY,
        distributions={"mocks": our_scores, "simulation": their_scores},
        explanation=explanation,
        notes=tuple(notes),
    )


def _draw(reader: SliceReader, seed: int, *, independent: bool) -> _Sample:
    """Read the slices that take part and split them; the same labels of realisations are split in the same way."""
    rng = np.random.default_rng(seed)
    limit = min(_MAX_SLICES, max(_MIN_SLICES, _MAX_PIXELS // reader.metadata.n_pixels**2))
    if reader.n_slices <= limit:
        chosen = np.arange(reader.n_slices)
        density = reader.density()
    else:
        chosen = np.sort(rng.choice(reader.n_slices, limit, replace=False))
        density = np.concatenate([reader.density(int(i), int(i) + 1) for i in chosen])
    if not (density.min() >= 0 and density.max() < np.inf):
        raise UserError(
            f"{reader.path}: /slices holds NaN, infinite or negative values; densities are 1 + delta >= 0. "
            f"`cosmogan check {reader.path}` says where"
        )
    groups, axis = reader.realisation[chosen].astype(np.int64), reader.axis[chosen]
    if independent and (axis == AXIS_NOT_APPLICABLE).all():
        groups = chosen
    if len(np.unique(groups)) > 1:
        training = hold_out(groups, 0.5, np.random.default_rng(seed))
    else:
        # One box: of each axis the near half, so that only slabs at its two faces have neighbours in the other half.
        training = np.zeros(len(chosen), bool)
        order = np.lexsort((reader.position[chosen], axis))
        for part in np.unique(axis):
            along = order[axis[order] == part]
            training[along[: len(along) // 2]] = True
    return _Sample(density, groups, training)


def _floor(sample: _Sample, *, seed: int, n_steps: int, device: torch.device | str) -> float | None:
    """Return how far from 0.5 the AUC is where there is nothing to find; None for fewer than four realisations."""
    (density, groups), (test, test_groups) = sample.half(True), sample.half(False)
    rng = np.random.default_rng(seed)
    if min(len(np.unique(groups)), len(np.unique(test_groups))) < 2:
        return None
    first = hold_out(groups, 0.5, rng)
    network = train_classifier(
        density[first],
        density[~first],
        mock_groups=groups[first],
        simulation_groups=groups[~first],
        seed=seed,
        n_steps=n_steps,
        device=device,
    )
    scores = network.scores(test)
    halves = [hold_out(test_groups, 0.5, rng) for _ in range(_N_SPLITS)]
    return float(np.sqrt(np.mean([(area_under_curve(scores[half], scores[~half]) - 0.5) ** 2 for half in halves])))


def _score(value: float, *, floor: float | None = None, sigmas: float | None = None) -> Score:
    return Score(name=NAME, title=TITLE, value=value, floor=floor, sigmas=sigmas, units="AUC - 0.5")


def _described(density: np.ndarray, groups: np.ndarray) -> str:
    n = len(np.unique(groups))
    return f"{len(density):,} slices of {n} realisation{'' if n == 1 else 's'}"
