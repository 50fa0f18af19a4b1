"""Least squares: scores are drawn to labels."""

from __future__ import annotations

from torch import Tensor

from cosmogan.errors import UserError
from cosmogan.losses.base import AbstractObjective


class LeastSquares(AbstractObjective):
    """Half the squared distance of scores to labels; the best critic is ``(b p + a q) / (p + q)``.

    Parameters
    ----------
    a
        Label of fake slices for the critic.
    b
        Label of real slices for the critic.
    c
        Label that the generator wants for its slices; -1, 1 and 0 for a, b and c minimise Pearson's chi squared between
        p + q and 2 q.

    Raises
    ------
    UserError
        If ``a`` is not below ``b`` and ``c``.

    References
    ----------
    Mao et al. 2017, arXiv:1611.04076, eqs. 2, 8 and 9.
    """

    def __init__(self, a: float = 0.0, b: float = 1.0, c: float = 1.0) -> None:
        if not a < min(b, c):
            raise UserError(
                f"model.objective: the label a of fake slices must be below b and c, so that real slices score higher; "
                f"found a = {a}, b = {b}, c = {c}"
            )
        self.a, self.b, self.c = a, b, c

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the distance to b and a; ``(b - a)^2 / 4`` for a critic that cannot tell."""
        return 0.5 * ((real - self.b).square().mean() + (fake - self.a).square().mean())

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the distance to c."""
        return 0.5 * (fake - self.c).square().mean()
