"""Ranges of numbers that users give, each refused with the same sentence wherever it is asked for."""

from __future__ import annotations

import math

from cosmogan.errors import UserError

# Seeds are stored as realisations, 32 bits with a sign.
LARGEST_SEED = 2**31 - 1


def require_least(least: float, what: str = "", *, where: str = "", **numbers: float) -> None:
    """Refuse numbers below the least, and those that are not finite.

    Parameters
    ----------
    least
        Least number that is accepted.
    what
        Noun after it, such as ``"mocks"``.
    where
        Place of the settings in a recipe, such as ``"model.pins"``.
    numbers
        Numbers by the name that the user gave them.

    Raises
    ------
    UserError
        If one is out of the range.

    Examples
    --------
    >>> require_least(1, "critic step", where="model.penalty", every=0)
    Traceback (most recent call last):
    cosmogan.errors.UserError: model.penalty.every: expected at least 1 critic step, found 0
    """
    for name, number in numbers.items():
        if not least <= number < math.inf:
            raise UserError(f"{_place(where, name)}: expected at least {f'{least} {what}'.strip()}, found {number}")


def require_positive(what: str = "a number", *, where: str = "", null: bool = False, **numbers: float | None) -> None:
    """Refuse numbers that are not above 0, or not finite.

    Parameters
    ----------
    what
        Noun for them with its article, such as ``"a learning rate"``.
    where
        Place of the settings in a recipe.
    null
        Whether None is accepted, for what is switched off.
    numbers
        Numbers by the name that the user gave them.

    Raises
    ------
    UserError
        If one is out of the range.

    Examples
    --------
    >>> require_positive("a length", where="model", null=True, max_gradient_norm=-1.0)
    Traceback (most recent call last):
    cosmogan.errors.UserError: model.max_gradient_norm: expected a length above 0 or null, found -1.0
    """
    for name, number in numbers.items():
        if not (null and number is None) and not 0 < (number or 0) < math.inf:
            raise UserError(f"{_place(where, name)}: expected {what} above 0{' or null' * null}, found {number}")


def require_seed(seed: int) -> None:
    """Refuse a seed that a slice file cannot hold.

    Raises
    ------
    UserError
        If it is negative or above `LARGEST_SEED`.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise UserError(f"seed: expected 0 to {LARGEST_SEED}, found {seed}")


def _place(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
