"""How boxes, numbers and ranges are written for people; the same in table, page and figures."""

from __future__ import annotations

import numpy as np

from cosmogan.validation.comparison import Comparison, StatisticComparison, Summary


def box_title(comparison: Comparison) -> str:
    """Return such as ``"500 Mpc (350 Mpc/h), 256² pixels"``; the length in Mpc only where h is known."""
    metadata = comparison.metadata
    return f"{short_box(comparison, both=True)}, {metadata.n_pixels}² pixels"


def short_box(comparison: Comparison, *, both: bool = False) -> str:
    """Return the side of the box, ``"500 Mpc"``, or ``"350 Mpc/h"`` where h is unknown."""
    metadata = comparison.metadata
    inside = f"{metadata.box_size:.6g} Mpc/h"
    h = metadata.cosmology.h
    if h is None:
        return inside
    return f"{metadata.box_size / h:.6g} Mpc" + (f" ({inside})" if both else "")


def percent(value: float) -> str:
    """Return a share as text with two or three figures, ``"-"`` for NaN.

    Examples
    --------
    >>> percent(0.0123), percent(0.4567), percent(float("nan"))
    ('1.2%', '46%', '-')
    """
    if not np.isfinite(value):
        return "-"
    return f"{value:.1%}" if abs(value) < 0.0995 else f"{value:.0%}"


def number(value: float, *, figures: int = 4) -> str:
    """Return a number with some figures, ``"-"`` for NaN or infinity.

    Examples
    --------
    >>> number(1234.567), number(0.000012345), number(float("nan"))
    ('1235', '1.234e-05', '-')
    """
    return f"{value:.{figures}g}" if np.isfinite(value) else "-"


def in_units(value: float, units: str) -> str:
    """Return a number as a score with these units is written.

    Examples
    --------
    >>> in_units(0.0412, "relative"), in_units(0.0412, "")
    ('4.1%', '0.041')
    """
    return percent(value) if units == "relative" else number(value, figures=2)


def thirds_text(summary: Summary | None) -> str:
    """Return the medians of the three thirds, such as ``"4.2 / 1.1 / 0.8%"``."""
    if summary is None:
        return "-"
    return " / ".join(percent(third.median).removesuffix("%") for third in summary.thirds) + "%"


def x_range(entry: StatisticComparison, low: float, high: float) -> str:
    """Return such as ``"0.018-0.0882 h/Mpc"``; nothing for bins without an order."""
    if entry.statistic.discrete:
        return ""
    return f"{low:.3g}-{high:.3g} {entry.statistic.x_units}".rstrip()


def judged_range(comparison: Comparison, entry: StatisticComparison) -> str:
    """Return which bins were judged, such as ``"k up to 0.9 of Nyquist: 0.0217-2.06 h/Mpc (0.0152-1.44 1/Mpc)"``."""
    text = entry.statistic.judged_text()
    chosen = np.flatnonzero(entry.judged)
    if not len(chosen):
        return f"{text}: none"
    if entry.statistic.discrete:
        return text
    x = entry.edges[[chosen[0], chosen[-1] + 1]]
    text += f": {x[0]:.3g}-{x[1]:.3g} {entry.statistic.x_units}".rstrip()
    h = comparison.metadata.cosmology.h
    if entry.statistic.x_units == "h/Mpc" and h is not None:
        # k in 1/Mpc is k in h/Mpc times h.
        text += f" ({x[0] * h:.3g}-{x[1] * h:.3g} 1/Mpc)"
    return text
