"""Two-sample test: networks learn on half of the realisations and are asked about the other half."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import rankdata

from cosmogan.errors import UserError
from cosmogan.slices import AXIS_NOT_APPLICABLE, SliceReader
from cosmogan.statistics.exchange import exchange_test
from cosmogan.statistics.two_sample import (
    N_STEPS,
    SliceClassifier,
    area_under_curve,
    estimate_auc,
    hold_out,
    train_classifier,
)
from cosmogan.validation.score import SampleComparison, Score
from cosmogan.validation.sets.where import Halves, locate

NAME, TITLE = "two_sample", "Two-sample test by a network"
QUANTITY = "mean rank of the networks' scores, high for mocks"
# Slices of either file that take part: all that a network of this size can use, in half a gigabyte each.
_MAX_SLICES, _MAX_PIXELS = 4096, 2**27
# Fewer slices teach a network nothing.
_MIN_SLICES = 8
# Trainings with other weights, batches and held-out boxes, of whose scores the ranks are averaged: the AUC of one alone
# moves by chance.
N_TRAININGS = 3
# A p-value below this is called a difference.
_LEVEL = 0.05
# Fewer test realisations than this do not know their own scatter well.
_FEW = 4
# Ways to take the test realisations as two halves, of which the floor is the rms.
_N_SPLITS = 50
_SIGMAS = 3.0


@dataclass(frozen=True, eq=False)
class _Slices:
    """1 + delta, shape ``(n, n_pixels, n_pixels)``, and a label of each: those of one label resemble each other."""

    density: np.ndarray
    groups: np.ndarray

    @property
    def n_groups(self) -> int:
        return len(np.unique(self.groups))

    def __len__(self) -> int:
        return len(self.groups)

    def __str__(self) -> str:
        return f"{len(self):,} slices of {self.n_groups} realisation{'' if self.n_groups == 1 else 's'}"


def compare_two_sample(
    mocks: SliceReader,
    reference: SliceReader,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    n_steps: int = N_STEPS,
    n_trainings: int = N_TRAININGS,
) -> SampleComparison:
    """Train networks to tell two files apart and ask them about slices of realisations that they have not seen.

    Slabs of one box resemble each other, so whole realisations of the reference go to one half or the other; a network
    that only remembers its training boxes then gains nothing. Slices that are cut from no box (axis 255), as a
    generator writes them, are independent of each other; for the p-value they are put into as many groups as there are
    boxes to ask about.

    Parameters
    ----------
    mocks
        Slices to be judged.
    reference
        Slices of simulations, best of eight realisations or more; of the same metadata as the mocks.
    seed
        Seed of the split, the slices that take part, the network and its training.
    device
        Device to compute on.
    n_steps
        Steps of each training, at most; it ends where boxes held out of it are told no better.
    n_trainings
        Networks, each trained from other random numbers.

    Returns
    -------
        With one score, AUC - 0.5: the excess over chance of the probability that the networks give a random mock a
        higher score than a random simulated slice. Values below chance count as 0. The floor is the typical deviation
        of the AUC from 0.5, either way, between two halves of the simulations that are asked about. `p_value` is that
        of exchanging the labels of whole boxes (`cosmogan.statistics.exchange`).

    Raises
    ------
    UserError
        If a slice holds values that no density has.
    """
    training, test = _draw(mocks, seed, independent=True)
    reference_training, reference_test = _draw(reference, seed, independent=False)
    if min(len(part) for part in (training, test, reference_training, reference_test)) < _MIN_SLICES:
        note = (
            f"The two-sample test needs {_MIN_SLICES} slices to learn from and {_MIN_SLICES} others to be asked about: "
            f"of {mocks.n_slices} mocks {len(training)} and {len(test)}, of {reference.n_slices} slices of the "
            f"reference {len(reference_training)} and {len(reference_test)}."
        )
        return SampleComparison(name=NAME, title=TITLE, scores=(_score(np.nan),), quantity=QUANTITY, notes=(note,))
    networks = [
        _train(training, reference_training, seed=seed + number, n_steps=n_steps, device=device)
        for number in range(n_trainings)
    ]
    ours = [network.scores(test.density) for network in networks]
    theirs = [network.scores(reference_test.density) for network in networks]
    # One score per slice: the mean rank among all that were asked about.
    ranks = np.mean([rankdata(np.concatenate(pair)) for pair in zip(ours, theirs, strict=True)], axis=0)
    scores, reference_scores = np.split(ranks / len(ranks), [len(test)])
    estimate = estimate_auc(scores, reference_scores, mock_groups=test.groups, simulation_groups=reference_test.groups)
    halves = _halves(training, test, reference_training, reference_test)
    boxes, alone = halves.boxes[0], test.n_groups == len(test)
    exchanged = exchange_test(
        scores, reference_scores, mock_groups=boxes, simulation_groups=reference_test.groups, seed=seed
    )
    floor = _floor(reference_scores, reference_test.groups, seed)
    # Without a scatter between realisations, that between slices would claim too much.
    error = "" if estimate.sigmas is None else f" ± {estimate.error:.3f}"
    steps = sorted(network.n_slices_seen for network in networks)
    explanation = (
        f"{n_trainings} networks of {sum(p.numel() for p in networks[0].parameters()):,} parameters learned to tell "
        f"{len(training):,} mocks from {reference_training}, by {steps[0]:,} to {steps[-1]:,} views of "
        f"{networks[0].tile} x {networks[0].tile} pixels, and were asked about {len(test):,} other mocks and "
        f"{reference_test}. By the mean rank of their scores a mock stands higher with probability "
        f"{exchanged.auc:.3f}{error} (AUC; 0.5 is chance, 1 full distinction). Of the "
        f"{exchanged.n_orders:,} ways to call that many boxes mocks, a share of p = {exchanged.p:.3g} has so large an "
        "AUC."
    )
    rows = locate(halves, reference.metadata, seed=seed)
    most = max(rows[1:], key=lambda row: row.auc)
    explanation += (
        f" A logistic classifier of {rows[0].what}, learnt from the same slices: {rows[0].auc:.3f}, "
        f"p = {rows[0].p:.3g}; by parts most by {most.what}: {most.auc:.3f}, p = {most.p:.3g}."
    )
    if exchanged.n_drawn < exchanged.n_orders:
        explanation += f" ({exchanged.n_drawn:,} of them were tried.)"
    if alone:
        explanation += f" The mocks are independent slices, taken as {reference_test.n_groups} boxes."
    if floor is not None:
        explanation += f" Halves of these simulations against each other: 0.5 ± {floor:.3f}."
    notes = []
    if exchanged.least_p > _LEVEL * (1 - 1e-9):
        notes.append(
            f"The two-sample test asks about so few boxes that p cannot be below {exchanged.least_p:.2g}, however "
            "different the mocks are; eight realisations or more of the reference, and of mocks that are cut from "
            "boxes, can show a difference at p = 0.015."
        )
    for name, reader, part in (("mocks", mocks, test), ("reference", reference, reference_test)):
        if part.n_groups == 1:
            one_box = len(np.unique(reader.realisation)) == 1
            which = " (it learned from slabs of the same box)" if one_box else ""
            effect = "raises the AUC" if one_box else "moves the AUC either way"
            notes.append(
                f"The two-sample test asks about a single realisation of the {name}{which}: what is peculiar to it "
                f"{effect} by an unknown amount, so there is no error bar. Eight realisations or more make it a test."
            )
        elif part.n_groups < _FEW:
            notes.append(
                f"The two-sample test asks about {part.n_groups} realisations of the {name}, too few to trust "
                f"its sigmas: fewer than {_SIGMAS:g} are not given. Eight realisations or more make it a test."
            )
    if reference.metadata.quantity != mocks.metadata.quantity:
        notes.append(
            f"The mocks are {mocks.metadata.quantity}, the reference is {reference.metadata.quantity}: that counts are "
            "whole numbers may be what the network of the two-sample test sees."
        )
    if estimate.sigmas is not None and estimate.sigmas < -_SIGMAS:
        notes.append(
            f"The network of the two-sample test does worse than chance, AUC = {estimate.auc:.3f}: training and test "
            "realisations differ more than their scatter says."
        )
    # Few realisations allow for so wide a scatter that insignificance would say nothing for the mocks.
    few = min(test.n_groups, reference_test.n_groups) < _FEW
    sigmas = None if few and (estimate.sigmas or 0.0) < _SIGMAS else estimate.sigmas
    return SampleComparison(
        name=NAME,
        title=TITLE,
        scores=(_score(max(estimate.auc - 0.5, 0.0), floor=floor, sigmas=sigmas),),
        quantity=QUANTITY,
        distributions={"mocks": scores, "simulation": reference_scores},
        p_value=exchanged.p,
        n_orders=exchanged.n_orders,
        rows=rows,
        explanation=explanation,
        notes=tuple(notes),
    )


def draw_halves(mocks: SliceReader, reference: SliceReader, *, seed: int = 0) -> Halves:
    """Read the slices that a two-sample test learns from and asks about, as `compare_two_sample` does."""
    return _halves(*_draw(mocks, seed, independent=True), *_draw(reference, seed, independent=False))


def _halves(training: _Slices, test: _Slices, reference_training: _Slices, reference_test: _Slices) -> Halves:
    # Independent slices are put into as many groups as there are boxes to ask about.
    alone = test.n_groups == len(test)
    boxes = np.arange(len(test)) * reference_test.n_groups // len(test) if alone else test.groups
    return Halves(
        (training.density, reference_training.density),
        (test.density, reference_test.density),
        (boxes, reference_test.groups),
    )


def _draw(reader: SliceReader, seed: int, *, independent: bool) -> tuple[_Slices, _Slices]:
    """Read the slices that take part, those to learn from and those to be asked about.

    The same labels of realisations are split in the same way, so that boxes of the same initial conditions in both
    files are on the same side.
    """
    limit = min(_MAX_SLICES, max(4 * _MIN_SLICES, _MAX_PIXELS // reader.metadata.n_pixels**2))
    chosen = np.arange(reader.n_slices)
    if len(chosen) > limit:
        chosen = np.sort(np.random.default_rng(seed).choice(len(chosen), limit, replace=False))
    axis, groups = reader.axis[chosen], reader.realisation[chosen].astype(np.int64)
    if independent and (axis == AXIS_NOT_APPLICABLE).all():
        groups = chosen
    if len(np.unique(groups)) > 1:
        learned = hold_out(groups, 0.5, np.random.default_rng(seed))
    else:
        # One box: of each axis the near half, so that only slabs at its two faces have neighbours in the other half.
        learned = np.zeros(len(chosen), bool)
        order = np.lexsort((reader.position[chosen], axis))
        for part in np.unique(axis):
            along = order[axis[order] == part]
            learned[along[: len(along) // 2]] = True
    return _read(reader, chosen[learned], groups[learned]), _read(reader, chosen[~learned], groups[~learned])


def _read(reader: SliceReader, chosen: np.ndarray, groups: np.ndarray) -> _Slices:
    density = np.empty((len(chosen), reader.metadata.n_pixels, reader.metadata.n_pixels), np.float32)
    for place, index in enumerate(chosen.tolist()):
        density[place] = reader.density(index, index + 1)[0]
    if density.size and not (density.min() >= 0 and density.max() < np.inf):
        raise UserError(
            f"{reader.path}: /slices holds NaN, infinite or negative values; densities are 1 + delta >= 0. "
            f"`cosmogan check {reader.path}` says where"
        )
    return _Slices(density, groups)


def _train(
    mocks: _Slices, simulations: _Slices, *, seed: int, n_steps: int, device: torch.device | str
) -> SliceClassifier:
    return train_classifier(
        mocks.density,
        simulations.density,
        mock_groups=mocks.groups,
        simulation_groups=simulations.groups,
        seed=seed,
        n_steps=n_steps,
        device=device,
    )


def _floor(scores: np.ndarray, groups: np.ndarray, seed: int) -> float | None:
    """Return how far from 0.5 the AUC of halves of the simulations is; None for a single realisation."""
    if len(np.unique(groups)) < 2:
        return None
    rng = np.random.default_rng(seed)
    splits = [hold_out(groups, 0.5, rng) for _ in range(_N_SPLITS)]
    return float(np.sqrt(np.mean([(area_under_curve(scores[half], scores[~half]) - 0.5) ** 2 for half in splits])))


def _score(value: float, *, floor: float | None = None, sigmas: float | None = None) -> Score:
    return Score(name=NAME, title=TITLE, value=value, floor=floor, sigmas=sigmas, units="AUC - 0.5")
