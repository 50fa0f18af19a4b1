"""Whether mocks are as close to the simulation as asked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cosmogan.validation.comparison import StatisticComparison, Third
from cosmogan.validation.wording import percent, x_range


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Of one statistic.

    Parameters
    ----------
    outcome
        ``"pass"``, ``"fail"``, or ``"unknown"``.
    text
        The outcome and the third of the range that decided it, with the median of `sigmas` there unless it passes.
    """

    outcome: Literal["pass", "fail", "unknown"]
    text: str

    @property
    def passed(self) -> bool:
        """Whether the outcome is a pass; unknown is none."""
        return self.outcome == "pass"


def judge(entry: StatisticComparison, *, threshold: float = 0.05) -> Verdict:
    """Pass a statistic if, in each third of the judged range, the median difference is at most what is allowed.

    Allowed is the threshold, or the floor where that is larger: the same median of the simulation against itself (half
    of its realisations against the other half). Nobody can ask mocks to be nearer to the simulation than that. Without
    finite numbers the outcome is a fail. Above the threshold, with a reference of one realisation and hence no floor,
    it is unknown.

    Parameters
    ----------
    entry
        The comparison.
    threshold
        Relative difference always allowed.
    """
    ratios, texts = [], []
    for number, third in enumerate(entry.summary.thirds):
        if third.n_bins == 0:
            continue
        floor = math.nan if entry.floor_summary is None else entry.floor_summary.thirds[number].median
        allowed = floor if floor > threshold else threshold
        excess = third.median / allowed if allowed > 0 else (math.inf if third.median > 0 else 0.0)
        ratios.append(excess if math.isfinite(third.median) else math.inf)
        where = x_range(entry, third.x_low, third.x_high)
        relation = "<=" if excess <= 1 else ">"
        text = f"{percent(third.median)} {relation} {percent(allowed)} at {where}"
        if excess > 1:
            text += _significance(entry, third)
        texts.append(text)
    if not ratios:
        return Verdict(outcome="fail", text="fail: no bins to judge")
    worst = max(ratios)
    outcome: Literal["pass", "fail", "unknown"] = "pass" if worst <= 1 else "fail"
    text = texts[ratios.index(worst)]
    if outcome == "fail" and entry.floor_summary is None and math.isfinite(worst):
        outcome = "unknown"
        text += ", no floor to compare"
    return Verdict(outcome=outcome, text=f"{outcome}: {text}")


def _significance(entry: StatisticComparison, third: Third) -> str:
    """Return the median number of sigmas in a third: few mocks can differ by much without it meaning much."""
    inside = entry.judged & (entry.edges[:-1] >= third.x_low) & (entry.edges[1:] <= third.x_high)
    sigmas = np.abs(entry.sigmas[inside])
    return f", {np.median(sigmas):.1f} sigmas" if np.isfinite(sigmas).all() else ""
