"""Figures and headline numbers of Rodriguez et al. 2018 (arXiv:1801.09070) beside ours, for the paper's two boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from cosmogan.validation.comparison import Comparison, StatisticComparison
from cosmogan.validation.report.figures import STYLE, Drawing, axis_label, draw_means, draw_ratio, drawing
from cosmogan.validation.report.matrices import draw_matrix, judged_span
from cosmogan.validation.wording import box_title, number, percent

# Boxes of the paper, comoving Mpc/h, and what their sides may differ by in rounding.
_BOX_500, _BOX_100, _ROUNDING = 350.0, 70.0, 1e-3


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """One headline number of the paper.

    Parameters
    ----------
    what
        The statistic and its range.
    paper
        Number that the paper reports.
    ours
        Number of each set of mocks, in their order.
    """

    what: str
    paper: str
    ours: tuple[str, ...]


def is_of_the_paper(comparison: Comparison) -> bool:
    """Return whether a box is one of the paper's: 350 or 70 Mpc/h on a side."""
    side = comparison.metadata.box_size
    return any(math.isclose(side, box, rel_tol=_ROUNDING) for box in (_BOX_500, _BOX_100))


def paper_rows(group: Sequence[Comparison]) -> list[PaperRow]:
    """Return the paper's headline numbers for a box beside those of the mocks.

    The paper does not state the unit of its k, so a range in k is read both ways.

    Parameters
    ----------
    group
        Comparisons of one of the paper's boxes.
    """
    if math.isclose(group[0].metadata.box_size, _BOX_100, rel_tol=_ROUNDING):
        return [PaperRow(what="P(k), all k", paper="about 20%", ours=tuple(_power(c, 0, math.inf) for c in group))]
    rows = []
    h = group[0].metadata.cosmology.h
    for unit, factor in (("h/Mpc", 1.0), *([("1/Mpc", 1 / h)] if h is not None else [])):
        low, high = 0.06 * factor, 0.4 * factor
        inside = tuple(_power(c, low, high) for c in group)
        outside = tuple(_power(c, low, high, outside=True) for c in group)
        rows.append(PaperRow(what=f"P(k), k of 0.06 to 0.4 {unit}", paper="1 to 2%", ours=inside))
        rows.append(PaperRow(what="P(k), other k", paper="up to 15%, worse at k > 0.8", ours=outside))
    large = tuple(_large_scales(c) for c in group)
    rows.append(PaperRow(what="correlations of P(k), large scales", paper="20% off", ours=large))
    return rows


def draw_paper(group: Sequence[Comparison]) -> Drawing:
    """Draw the paper's panels: histogram, peaks, P(k) with its ratio, correlation matrices of the first mocks.

    Parameters
    ----------
    group
        Comparisons of one box with the same reference.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.0, 6.4), layout="constrained")
        axes = figure.subplots(2, 3)
        for panel, name in zip(axes[0], ("histogram", "peaks", "power_spectrum"), strict=True):
            kept = [entry for c in group if (entry := _entry(c, name)) is not None]
            if len(kept) == len(group):
                draw_means(panel, group, kept)
                statistic = kept[0].statistic
                panel.set_title(statistic.title)
                panel.set_xlabel(axis_label(statistic.x_label, statistic.x_units))
            else:
                panel.set_axis_off()
        power = [entry for c in group if (entry := _entry(c, "power_spectrum")) is not None]
        if power:
            draw_ratio(axes[1][0], power)
        correlation = power[0].correlation if power else None
        for panel, title, which in ((axes[1][1], "simulation", "reference"), (axes[1][2], group[0].name, "mocks")):
            if correlation is None:
                panel.set_axis_off()
                continue
            span, edges, blank = judged_span(power[0])
            matrix = np.where(blank, np.nan, getattr(correlation, which)[span, span])
            image = draw_matrix(panel, power[0].statistic, edges, matrix, most=1.0)
            panel.set_title(f"correlation of P(k), {title}")
            panel.set_ylabel(axis_label(power[0].statistic.x_label, power[0].statistic.x_units))
            if which == "mocks":
                figure.colorbar(image, ax=axes[1][1:], shrink=0.8, pad=0.01)
        figure.suptitle(f"{box_title(group[0])}, z = {group[0].metadata.redshift:g}", fontsize=10)
        return drawing(figure)


def _entry(comparison: Comparison, name: str) -> StatisticComparison | None:
    return next((entry for entry in comparison.statistics if entry.statistic.name == name), None)


def _power(comparison: Comparison, low: float, high: float, *, outside: bool = False) -> str:
    entry = _entry(comparison, "power_spectrum")
    if entry is None:
        return "-"
    inside = (entry.x >= low) & (entry.x <= high)
    chosen = entry.judged & (~inside if outside else inside)
    size = np.abs(entry.ratio[chosen])
    if not len(size):
        return "no such k"
    return f"median {percent(float(np.median(size)))}, largest {percent(float(size.max()))}"


def _large_scales(comparison: Comparison) -> str:
    """Return the rms difference of correlations among bins of the lower third of the judged range in ln k."""
    entry = _entry(comparison, "power_spectrum")
    if entry is None or entry.correlation is None:
        return "-"
    high = entry.summary.thirds[0].x_high
    chosen = entry.judged & (entry.edges[1:] <= high)
    difference = (entry.correlation.mocks - entry.correlation.reference)[np.ix_(chosen, chosen)]
    apart = difference[~np.eye(len(difference), dtype=bool)]
    return f"{number(float(np.sqrt(np.mean(apart**2))), figures=2)} rms of correlations" if len(apart) else "-"
