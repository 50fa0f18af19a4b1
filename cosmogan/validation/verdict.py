"""Whether mocks are as close to the simulation as asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cosmogan.validation.comparison import Comparison, StatisticComparison
from cosmogan.validation.score import Score
from cosmogan.validation.thresholds import Thresholds
from cosmogan.validation.wording import in_units, x_range

Outcome = Literal["pass", "fail", "inconclusive"]
# A candidate is ranked by how far it exceeds what is asked, statistic by statistic, but one failure is one failure.
_MOST_EXCESS = 10.0


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Of one statistic or score, decided by the third of its range that exceeds most what is allowed.

    Parameters
    ----------
    name, title
        Name and heading of what was judged.
    outcome
        ``"pass"`` if `value` is at most the larger of `threshold` and `floor`, or less than the significance away from
        what perfect mocks would show; else ``"fail"``, or ``"inconclusive"`` where nobody knows how far simulations
        scatter, or nothing could be measured.
    value, floor, sigmas
        Numbers as in `Score`; NaN where unknown.
    threshold
        Difference always allowed.
    units
        Units as in `Score`.
    where
        Part of the range that decided, such as ``"0.1-0.4 h/Mpc"``; may be empty.
    """

    name: str
    title: str
    outcome: Outcome
    value: float
    floor: float
    sigmas: float
    threshold: float
    units: str
    where: str = ""

    @property
    def passed(self) -> bool:
        """Whether the outcome is a pass; inconclusive is none."""
        return self.outcome == "pass"

    @property
    def excess(self) -> float:
        """How many times what is asked, threshold or floor, the value is."""
        allowed = max(self.threshold, self.floor) if math.isfinite(self.floor) else self.threshold
        if not math.isfinite(self.value):
            return math.inf
        return self.value / allowed if allowed > 0 else (math.inf if self.value > 0 else 0.0)

    @property
    def cell(self) -> str:
        """The value and, in brackets, the floor and the sigmas of what exceeds it, for a narrow table."""
        inside = [in_units(self.floor, self.units)] if math.isfinite(self.floor) else []
        if self.excess > 1 and math.isfinite(self.sigmas):
            inside.append(f"{max(self.sigmas, 0):.1f}σ")
        value = in_units(self.value, self.units)
        return f"{value} ({', '.join(inside)})" if inside else value

    @property
    def text(self) -> str:
        """The outcome and what decided it, in one line."""
        if math.isnan(self.value):
            return f"{self.outcome}: nothing to judge"
        from_floor = math.isfinite(self.floor) and self.floor > self.threshold
        allowed = in_units(self.floor if from_floor else self.threshold, self.units)
        relation = "<=" if self.excess <= 1 else ">"
        text = (
            f"{self.outcome}: {in_units(self.value, self.units)} {relation} {allowed}{' (floor)' if from_floor else ''}"
        )
        if self.excess > 1:
            if math.isfinite(self.sigmas):
                text += f", {max(self.sigmas, 0):.1f} sigmas"
            elif not math.isfinite(self.floor):
                text += ", scatter of simulations unknown"
        return text + (f", {self.where}" if self.where else "")


def judge(entry: StatisticComparison, thresholds: Thresholds) -> Verdict:
    """Judge the mean of a statistic, each third of its range on its own.

    Parameters
    ----------
    entry
        The comparison.
    thresholds
        Thresholds to judge by.
    """
    statistic = entry.statistic
    verdicts = []
    for number_of_third, third in enumerate(entry.summary.thirds):
        if third.n_bins == 0:
            continue
        floor = None if entry.floor_summary is None else entry.floor_summary.thirds[number_of_third].median
        score = Score(
            name=statistic.name,
            title=statistic.title,
            value=third.median,
            floor=floor,
            sigmas=third.sigmas if math.isfinite(third.sigmas) else None,
            units="relative",
        )
        verdicts.append(judge_score(score, thresholds, where=x_range(entry, third.x_low, third.x_high)))
    if not verdicts:
        return judge_score(Score(name=statistic.name, title=statistic.title, value=math.nan), thresholds)
    worst = worst_outcome(verdicts)
    return max((v for v in verdicts if v.outcome == worst), key=lambda verdict: verdict.excess)


def judge_score(score: Score, thresholds: Thresholds, *, where: str = "") -> Verdict:
    """Judge one number.

    Parameters
    ----------
    score
        The number.
    thresholds
        Thresholds to judge by.
    where
        Part of the range, as in `Verdict`.
    """
    threshold = thresholds.of(score.name)
    allowed = threshold if score.floor is None else max(threshold, score.floor)
    if math.isnan(score.value):
        outcome: Outcome = "inconclusive"
    elif score.value <= allowed:
        outcome = "pass"
    elif score.value == math.inf:
        outcome = "fail"
    elif score.sigmas is None:
        outcome = "inconclusive"
    else:
        outcome = "fail" if score.sigmas >= thresholds.significance else "pass"
    return Verdict(
        name=score.name,
        title=score.title,
        outcome=outcome,
        value=score.value,
        floor=math.nan if score.floor is None else score.floor,
        sigmas=math.nan if score.sigmas is None else score.sigmas,
        threshold=threshold,
        units=score.units,
        where=where,
    )


def judge_all(comparison: Comparison, thresholds: Thresholds) -> dict[str, Verdict]:
    """Judge everything in a comparison, by name, in the order of the report.

    Parameters
    ----------
    comparison
        Comparison of mocks with a reference.
    thresholds
        Thresholds to judge by.
    """
    verdicts = []
    for entry in comparison.statistics:
        verdicts.append(judge(entry, thresholds))
        verdicts += [judge_score(score, thresholds) for score in entry.scores]
    verdicts += [judge_score(score, thresholds) for sample in comparison.samples for score in sample.scores]
    return {verdict.name: verdict for verdict in verdicts}


def worst_outcome(verdicts: Sequence[Verdict]) -> Outcome:
    """Return fail if anything fails, else inconclusive if anything is, else pass."""
    outcomes = {verdict.outcome for verdict in verdicts}
    if "fail" in outcomes or not outcomes:
        return "fail"
    return "inconclusive" if "inconclusive" in outcomes else "pass"


def mean_excess(verdicts: Sequence[Verdict]) -> float:
    """Return the mean over verdicts of how many times what is asked the mocks differ, at most 10 each; for ranking.

    The sigmas stay out of it: they favour candidates with few mocks.
    """
    return sum(min(verdict.excess, _MOST_EXCESS) for verdict in verdicts) / len(verdicts) if verdicts else math.inf
