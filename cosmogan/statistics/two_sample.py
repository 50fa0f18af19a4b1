"""Two-sample test by a classifier: a small network learns to tell mocks from simulations, and is asked about new ones.

Lopez-Paz & Oquab 2017 (arXiv:1610.06545): where two samples have the same distribution, no classifier does better than
chance on slices it was not trained on. The number is the area under the ROC curve (AUC), which needs no threshold and
no equal numbers of slices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtri
from scipy.stats import t as student_t
from torch import nn

# Steps of training at most: some differences show after a thousand only, and a minute or two on one CPU core is what
# they take. Training ends earlier where the held-out boxes have not been told better for so many steps.
N_STEPS, _PATIENCE = 1500, 500
# The network sees tiles of this many pixels along a side, or the whole slice where that is smaller; what differs on
# larger scales only is left to the other statistics.
TILE = 64
# Tiles of each of the two kinds in a step.
_BATCH = 32
_WIDTH = 8
_LEARNING_RATE, _WEIGHT_DECAY = 3e-3, 1e-2
# Share of the training slices that only decides which state of the network is kept, and how often it is asked.
_HELD_OUT, _CHECK_EVERY = 0.25, 50
# Steps over which the rate rises.
_WARMUP = 50
# Slices of either kind from which the scale of the input is taken.
_N_FITTED = 64
# In units of the mean density; keeps the logarithm of empty pixels finite.
_LOG_OFFSET = 0.05
# Added to variances of feature maps of order one before the logarithm, so that constant slices are harmless.
_TINY = 1e-6
# Probabilities below this are all "more than 37 sigmas".
_SMALLEST_P = 1e-300


@dataclass(frozen=True, kw_only=True)
class AucEstimate:
    """Area under the ROC curve, from samples whose members may come in groups that resemble each other.

    Parameters
    ----------
    auc
        Probability that a random mock scores higher than a random slice of the simulation: 0.5 for chance, 1 for full
        separation.
    error
        One standard deviation, at least that of independent slices without any difference.
    sigmas
        Significance of ``auc - 0.5``, as the number of standard deviations of a Gaussian with the same one-sided
        probability: an error from few groups is itself uncertain, for which Student's t allows. None where a sample is
        a single group, of which no scatter is known.
    """

    auc: float
    error: float
    sigmas: float | None


def area_under_curve(mocks: np.ndarray, simulations: np.ndarray) -> float:
    """Return the probability that a mock scores higher than a simulated slice, ties counted half (Mann-Whitney).

    Parameters
    ----------
    mocks, simulations
        Scores, shapes ``(n,)`` and ``(m,)``, finite.

    Raises
    ------
    ValueError
        If a sample is empty or holds NaN.

    Examples
    --------
    >>> area_under_curve(np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0]))
    0.75
    """
    return float(_placements(mocks, simulations).mean())


def estimate_auc(
    mocks: np.ndarray, simulations: np.ndarray, *, mock_groups: np.ndarray, simulation_groups: np.ndarray
) -> AucEstimate:
    r"""Return the area under the curve with an error that knows of groups, such as slices of one simulated box.

    Clustered form of DeLong's variance (Obuchowski 1997, Biometrics 53, 567): with placements
    :math:`V_i`, the share of the other sample that scores lower, the variance is, summed over the two samples,
    :math:`g / (g - 1) \sum_\mathrm{groups} (\sum_i V_i - \mathrm{AUC})^2 / n^2`.

    Parameters
    ----------
    mocks, simulations
        Scores, shapes ``(n,)`` and ``(m,)``.
    mock_groups, simulation_groups
        A label per score; scores of different labels are independent.

    Raises
    ------
    ValueError
        As `area_under_curve`.
    """
    n, m = len(mocks), len(simulations)
    above = _placements(mocks, simulations)
    auc = float(above.mean())
    below = 1 - _placements(simulations, mocks)
    # Half of the Mann-Whitney variance without a difference, (n + m + 1) / (12 n m), for either sample.
    parts = [
        (max(_variance_of_mean(values - auc, labels), 1 / (12 * len(values))), len(np.unique(labels)) - 1)
        for values, labels in ((above, mock_groups), (below, simulation_groups))
    ]
    variance = sum(part for part, _ in parts) + 1 / (12 * n * m)
    error = math.sqrt(variance)
    if min(freedom for _, freedom in parts) == 0:
        return AucEstimate(auc=auc, error=error, sigmas=None)
    # Welch-Satterthwaite degrees of freedom.
    freedom = variance**2 / sum(part**2 / freedom for part, freedom in parts)
    tail = max(float(student_t.sf(abs(auc - 0.5) / error, freedom)), _SMALLEST_P)
    return AucEstimate(auc=auc, error=error, sigmas=float(np.copysign(-ndtri(tail), auc - 0.5)))


class _PeriodicConvolution(nn.Conv2d):
    """A 3 x 3 convolution of periodic maps; torch's own ``padding_mode="circular"`` takes half as long again."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return maps of the same side, or half of it, of maps ``(n, channels, side, side)`` of even side."""
        # With a stride of 2 no place is asked for the far neighbour of the last pixel.
        far = self.stride[0] == 1 or maps.shape[-1] % 2 == 1
        for dim in (2, 3):
            last, first = maps.narrow(dim, maps.shape[dim] - 1, 1), maps.narrow(dim, 0, 1)
            maps = torch.cat([last, maps, first] if far else [last, maps], dim)
        return super().forward(maps)


class SliceClassifier(nn.Module):
    """Tells mocks from simulations: four periodic convolutions, moments of all their maps, two linear layers.

    Mean, logarithm of the variance and largest value of the input and of every feature map at every scale reach the
    decision, so that a difference in power, histogram or highest peak shows before any training, which sharpens what
    the network sees. Shifting a slice changes nothing but by which pixels the strides begin. A tile of a larger slice
    is taken as periodic, for mocks and simulations alike.

    Attributes
    ----------
    tile
        Side in pixels of what the network sees at a time.
    n_slices_seen
        Number of tiles that it was trained on.
    """

    location: torch.Tensor
    scale: torch.Tensor

    def __init__(self, tile: int) -> None:
        super().__init__()
        self.tile = tile
        self.n_slices_seen = 0
        self.register_buffer("location", torch.zeros(2, 1, 1))
        self.register_buffer("scale", torch.ones(2, 1, 1))
        channels = [2, _WIDTH, 2 * _WIDTH, 4 * _WIDTH, 4 * _WIDTH]
        self.stages = nn.ModuleList(
            nn.Sequential(
                _PeriodicConvolution(channels[i], channels[i + 1], 3, stride=1 if i == 0 else 2),
                nn.BatchNorm2d(channels[i + 1]),
                nn.ReLU(),
            )
            for i in range(4)
        )
        n_moments = 3 * sum(channels)
        self.head = nn.Sequential(
            nn.BatchNorm1d(n_moments), nn.Linear(n_moments, 8 * _WIDTH), nn.ReLU(), nn.Linear(8 * _WIDTH, 1)
        )

    def fit_input(self, density: torch.Tensor) -> None:
        """Take the scale of the input from training slices, 1 + delta of any shape."""
        for i, values in enumerate(_input_channels(density.double())):
            self.location[i] = values.mean()
            self.scale[i] = values.std().clamp_min(1e-6)

    def forward(self, density: torch.Tensor) -> torch.Tensor:
        """Return logits ``(n,)``, high for mocks, of 1 + delta of shape ``(n, tile, tile)``."""
        maps = (torch.stack(_input_channels(density), 1) - self.location) / self.scale
        moments = []
        for stage in (nn.Identity(), *self.stages):
            maps = stage(maps)
            # In one row: reductions over two dimensions at once take twice as long.
            pixels = maps.flatten(2)
            mean = pixels.mean(2)
            square = torch.linalg.vecdot(pixels, pixels) / pixels.shape[2]
            variance = (square - mean.square()).clamp_min(0)
            moments += [mean, torch.log(variance + _TINY), pixels.amax(2)]
        return self.head(torch.cat(moments, 1)).squeeze(1)

    @torch.no_grad()
    def scores(self, density: np.ndarray) -> np.ndarray:
        """Return a score per slice, high for mocks: the mean logit of the tiles that cover it.

        Parameters
        ----------
        density
            1 + delta, shape ``(n_slices, n_pixels, n_pixels)``, float32.

        Returns
        -------
            Shape ``(n_slices,)``, float64.
        """
        self.eval()
        n_pixels = density.shape[-1]
        n_tiles = math.ceil(n_pixels / self.tile)
        starts = np.arange(n_tiles) * n_pixels // n_tiles
        total = np.zeros(len(density))
        for row in starts:
            for column in starts:
                for start in range(0, len(density), 2 * _BATCH):
                    block = density[start : start + 2 * _BATCH]
                    tiles = np.take(block, np.arange(row, row + self.tile) % n_pixels, axis=1)
                    tiles = np.take(tiles, np.arange(column, column + self.tile) % n_pixels, axis=2)
                    total[start : start + len(block)] += self(_to(tiles, self.location.device)).cpu().double().numpy()
        return total / n_tiles**2


def train_classifier(
    mocks: np.ndarray,
    simulations: np.ndarray,
    *,
    mock_groups: np.ndarray,
    simulation_groups: np.ndarray,
    seed: int,
    n_steps: int = N_STEPS,
    device: torch.device | str = "cpu",
) -> SliceClassifier:
    """Train a network to tell two sets of slices apart.

    Steps hold as many mocks as simulations, tiles of random place and orientation. A quarter of the groups of either
    set is held out; the state that does best on them is returned, and training ends early when it tells them
    apart without a mistake, or no better for 500 steps. The global random generators are left as they were.

    Parameters
    ----------
    mocks, simulations
        1 + delta, shapes ``(n, n_pixels, n_pixels)`` and ``(m, n_pixels, n_pixels)``, float32, two or
        more of each.
    mock_groups, simulation_groups
        A label per slice; those of one label resemble each other.
    seed
        Seed of weights, batches and what is held out.
    n_steps
        Steps of 64 tiles, at most.
    device
        Device to compute on.

    Raises
    ------
    ValueError
        If a set has fewer than two slices.
    """
    if min(len(mocks), len(simulations)) < 2:
        raise ValueError(f"expected at least two slices of each kind, got {len(mocks)} and {len(simulations)}")
    rng = np.random.default_rng(seed)
    held = [hold_out(groups, _HELD_OUT, rng) for groups in (mock_groups, simulation_groups)]
    shown = [np.flatnonzero(~mask) for mask in held]
    checks = [values[mask] for values, mask in zip((mocks, simulations), held, strict=True)]
    # `torch.manual_seed` would seed CUDA too, whose state is not forked here.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = SliceClassifier(min(TILE, mocks.shape[-1]))
    samples = [values[index[:_N_FITTED]] for values, index in zip((mocks, simulations), shown, strict=True)]
    network.fit_input(torch.from_numpy(np.concatenate(samples)))
    network.to(device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1 / _WARMUP, total_iters=_WARMUP)
    batches = [_endless(len(index), rng) for index in shown]
    loss_of = nn.functional.binary_cross_entropy_with_logits
    truth = torch.cat([torch.ones(_BATCH), torch.zeros(_BATCH)]).to(device)
    best, best_state, best_step = 0.0, {}, 0
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        for step in range(1, n_steps + 1):
            network.train()
            tiles = [
                random_tiles(values, index[next(picks)], network.tile, rng)
                for values, index, picks in zip((mocks, simulations), shown, batches, strict=True)
            ]
            optimiser.zero_grad()
            loss_of(network(_to(np.concatenate(tiles), device)), truth).backward()
            optimiser.step()
            schedule.step()
            network.n_slices_seen += 2 * _BATCH
            if step % _CHECK_EVERY == 0 or step == n_steps:
                ours, theirs = (network.scores(values) for values in checks)
                auc = area_under_curve(ours, theirs)
                if auc >= best:
                    best, best_step = auc, step
                    best_state = {name: value.clone() for name, value in network.state_dict().items()}
                if auc == 1 or step - best_step >= _PATIENCE:
                    break
    network.load_state_dict(best_state)
    return network


def hold_out(groups: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Choose a share of the groups, rounded down, at least one and not all; of a single group, slices.

    Parameters
    ----------
    groups
        A label per slice, shape ``(n,)``, at least two slices.
    share
        Share between 0 and 1.
    rng
        Generator of the choice.

    Returns
    -------
        Bool, shape ``(n,)``.
    """
    labels = np.unique(groups)
    if len(labels) == 1:
        groups = labels = np.arange(len(groups))
    n = min(max(1, int(share * len(labels))), len(labels) - 1)
    return np.isin(groups, rng.permutation(labels)[:n])


def random_tiles(density: np.ndarray, picks: np.ndarray, tile: int, rng: np.random.Generator) -> np.ndarray:
    """Cut a tile from each picked slice, at a random place and in a random one of the eight orientations.

    Parameters
    ----------
    density
        Shape ``(n, n_pixels, n_pixels)``, periodic.
    picks
        Indices of slices, shape ``(n_tiles,)``.
    tile
        Side in pixels; the result is a shifted slice where it equals ``n_pixels``.
    rng
        Generator of places and orientations.

    Returns
    -------
        Shape ``(n_tiles, tile, tile)``.
    """
    n_pixels = density.shape[-1]
    rows, columns = (
        rng.integers(0, n_pixels, (len(picks), 1)) + rng.choice([-1, 1], (len(picks), 1)) * np.arange(tile)
        for _ in range(2)
    )
    tiles = density[picks[:, None, None], rows[:, :, None] % n_pixels, columns[:, None, :] % n_pixels]
    turned = rng.random(len(picks)) < 0.5
    tiles[turned] = tiles[turned].swapaxes(1, 2)
    return tiles


def _placements(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return for each value the share of the others that is lower, ties counted half."""
    if not (len(values) and len(others)) or np.isnan(values).any() or np.isnan(others).any():
        raise ValueError(f"expected two samples of numbers, got {len(values)} and {len(others)} scores, or NaN")
    ordered = np.sort(others)
    lower, upper = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    return (lower + upper) / (2 * len(others))


def _variance_of_mean(deviations: np.ndarray, groups: np.ndarray) -> float:
    labels, place = np.unique(groups, return_inverse=True)
    if len(labels) == 1:
        return 0.0
    sums = np.bincount(place, deviations)
    return float((sums**2).sum() / len(deviations) ** 2 * len(labels) / (len(labels) - 1))


def _input_channels(density: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # The logarithm shows voids and filaments, the root what is left of the highest peaks.
    return torch.log(density + _LOG_OFFSET), torch.sqrt(density)


def _endless(n: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield batches of indices below n, each index once before any comes again."""
    queue = np.empty(0, int)
    while True:
        while len(queue) < _BATCH:
            queue = np.concatenate([queue, rng.permutation(n)])
        yield queue[:_BATCH]
        queue = queue[_BATCH:]


def _to(density: np.ndarray, device: torch.device | str) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(density, np.float32)).to(device)
