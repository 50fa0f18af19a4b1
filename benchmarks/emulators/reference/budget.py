"""What fits into a wall-clock budget: numbers of realisations, seconds of each training, slices seen."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from cosmogan.errors import UserError

# Of the whole budget: kept for export, mocks and scores; the most that simulations may take.
SCORING_SHARE, SIMULATION_SHARE = 0.22, 0.45
# Where mocks and scores are made elsewhere, later.
EXPORT_SHARE = 0.05
# A box is of no use with fewer: two to learn from and one to choose the checkpoint by; two to see scatter in the test.
LEAST_TRAINING, LEAST_TEST = 3, 2
# Of the time that two recipes on one box have together: the paper's networks cost about as much per slice as ours, and
# their recipe ends after 300,000 slices.
SHARES = {"ours": 0.7, "rodriguez2018": 0.3}
# Measured rates are those of a minute; the schedule must end before the time does.
_CAUTION = 0.93


@dataclass(frozen=True)
class Realisations:
    """How many simulations each box gets."""

    training: int
    test: int

    @property
    def total(self) -> int:
        """Simulations of a box."""
        return self.training + self.test

    @property
    def validation(self) -> int:
        """Those of the training realisations that only choose the checkpoint: a quarter."""
        return max(1, self.training // 4)


def now() -> float:
    """Return seconds; the one clock of budgets and trainings."""
    return time.monotonic()


class Clock:
    """Seconds that are left: to this command, and to all commands that share the budget.

    Parameters
    ----------
    budget, used
        Seconds of all commands together, and those that earlier ones took.
    limit
        Seconds of this command.
    """

    def __init__(self, budget: float, *, used: float = 0.0, limit: float | None = None) -> None:
        self.budget = budget
        self._before, self._start = used, now()
        self._limit = budget if limit is None else limit

    @property
    def used(self) -> float:
        """Seconds of all commands so far."""
        return self._before + now() - self._start

    @property
    def left(self) -> float:
        """Seconds left to all commands."""
        return self.budget - self.used

    @property
    def left_now(self) -> float:
        """Seconds left to this command."""
        return min(self.left, self._limit - (now() - self._start))


def plan_realisations(
    seconds: Mapping[str, float],
    wanted: Realisations,
    *,
    left: float,
    budget: float,
    rehearsal: bool = False,
    scoring: float = SCORING_SHARE,
) -> Realisations:
    """Return the realisations of each box, as many as asked for or as fit.

    Parameters
    ----------
    seconds
        Of one simulation with its slices, by box.
    wanted
        Of each box.
    left, budget
        Seconds left of the whole budget.
    rehearsal
        Take the least, and take it even where it does not fit.
    scoring
        Share of the whole budget that is kept for export, mocks and scores.

    Raises
    ------
    UserError
        If not even the least fits.
    """
    least = Realisations(LEAST_TRAINING, LEAST_TEST)
    if rehearsal:
        return least
    one = sum(seconds.values())
    affordable = min(SIMULATION_SHARE * budget, left * (1 - scoring))
    if one * wanted.total <= affordable:
        return wanted
    if one * least.total > affordable:
        each = ", ".join(f"{name} {value:.3g} s" for name, value in seconds.items())
        raise UserError(
            f"--minutes {budget / 60:g}: simulations take {each} each and {least.total} of each box are the least, "
            f"which is more than the {affordable:.0f} s that they may have; give --minutes "
            f"{one * least.total / SIMULATION_SHARE / 60 + 1:.0f} or more, or one of --boxes"
        )
    total = int(affordable / one)
    test = max(LEAST_TEST, round(total * wanted.test / wanted.total))
    return Realisations(max(LEAST_TRAINING, total - test), test)


def training_seconds(
    left: float,
    budget: float,
    *,
    simulations: float,
    recipe: str,
    waiting: list[str],
    own: list[str],
    scoring: float = SCORING_SHARE,
) -> float:
    """Return the seconds that a training may have.

    Parameters
    ----------
    left, budget
        Seconds left of the whole budget.
    simulations
        Seconds of simulations still to run.
    recipe
        Of this training.
    waiting
        Recipes of the trainings that are not done, this one among them, over all boxes.
    own
        All recipes that were asked for.
    scoring
        As of `plan_realisations`.
    """
    free = left - scoring * budget - simulations
    shares = {name: SHARES[name] if len(own) > 1 else 1.0 for name in own}
    return max(0.0, free * shares[recipe] / sum(shares[name] for name in waiting))


def slices_to_see(
    seen: int,
    seconds: float,
    *,
    rate: float,
    validation: float,
    per_pass: int,
    batch_size: int,
    most: int | None = None,
) -> int:
    """Return the length of a training that fits, in slices seen.

    Parameters
    ----------
    seen
        Slices seen already.
    seconds
        That are left to the training.
    rate
        Slices per second between validations.
    validation
        Seconds of a validation.
    per_pass
        Slices between two validations.
    batch_size
        Slices of a step.
    most
        Never more than this.
    """
    per_slice = 1 / rate + validation / per_pass
    more = int(_CAUTION * max(0.0, seconds) / per_slice) // batch_size * batch_size
    # Behind the last pass comes a validation; a part of a pass would go unjudged.
    whole = (seen + more) // per_pass * per_pass
    more = whole - seen if whole > seen else more
    return seen + more if most is None else max(seen, min(seen + more, most))
