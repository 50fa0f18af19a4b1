"""The paper's bounded map."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from cosmogan.transforms.base import AbstractTransform


class Rodriguez2018Transform(AbstractTransform):
    """The paper's map ``s(x) = 2 x / (x + a) - 1`` to [-1, 1).

    Parameters
    ----------
    a
        Pixel value that maps to zero, in units of the mean density; 4 particles in the paper's codes, i.e. 4 / 16.4 at
        500 Mpc and 4 / 2.05 at 100 Mpc.

    References
    ----------
    Rodriguez et al. 2018, arXiv:1801.09070.
    """

    # Largest s that float32 tells from 1 by ten steps; keeps the inverse finite.
    _LARGEST = 1 - 1e-6

    def __init__(self, a: float) -> None:
        super().__init__()
        if not a > 0:
            raise ValueError(f"a must be positive, got {a}")
        self.a = a

    def fit(self, density: Tensor) -> None:
        """Do nothing: the paper's map has no fitted state."""

    def forward(self, density: Tensor) -> Tensor:
        """Return values in [-1, 1)."""
        return 2 * density / (density + self.a) - 1

    def inverse(self, values: Tensor) -> Tensor:
        """Return 1 + delta; values are clamped to [-1, 1)."""
        bounded = values.clamp(-1, self._LARGEST)
        return self.a * (1 + bounded) / (1 - bounded)

    def settings(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {"a": self.a}
