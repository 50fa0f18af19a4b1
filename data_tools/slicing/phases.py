"""Whether two snapshots grew from the same initial conditions, by their coarse densities."""

from __future__ import annotations

import numpy as np

from data_tools.snapshots import Coverage

# Of coarse densities. Independent runs in 3 to 1000 Mpc/h reach 0.08, the same phases with other steps and mesh 0.996,
# and other particles of one run still 0.6 where there are 4 in a cell of 6 Mpc/h.
SAME_PHASES = 0.4


class Phases:
    """The snapshots of a run, compared by what is not common to all particles on a lattice."""

    def __init__(self) -> None:
        self._seen: list[np.ndarray] = []

    def add(self, coverage: Coverage) -> dict[int, float]:
        """Remember a snapshot, and return the numbers of those before it that share its phases, with the correlation.

        Parameters
        ----------
        coverage
            Where its particles are.
        """
        fluctuation = _fluctuation(coverage.grid)
        found = [float((fluctuation * other).sum()) for other in self._seen]
        self._seen.append(fluctuation)
        return {number: correlation for number, correlation in enumerate(found) if correlation > SAME_PHASES}


def _fluctuation(grid: np.ndarray) -> np.ndarray:
    """Return what a lattice does not explain, normalised to a sum of squares of 1; zeros if that is nothing.

    Planes of a lattice fall into the cells of all realisations alike, which is a product of three profiles.
    """
    n = max(1, grid.sum())
    x, y, z = (grid.sum(axis=axes) / n for axes in ((1, 2), (0, 2), (0, 1)))
    rest = grid - n * x[:, None, None] * y[:, None] * z
    norm = np.sqrt((rest**2).sum())
    return rest / norm if norm > 0 else rest
