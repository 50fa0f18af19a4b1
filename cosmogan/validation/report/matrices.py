"""Figures of correlation matrices."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from cosmogan.statistics.base import AbstractStatistic
from cosmogan.validation.comparison import Comparison, StatisticComparison
from cosmogan.validation.report.figures import STYLE, Drawing, axis_label, drawing, mark_short_range
from cosmogan.validation.sets.correlation import CorrelationComparison
from cosmogan.validation.wording import box_title

# Differences of correlations smaller than this are not blown up.
_CORRELATION_LEAST = 0.1


def draw_correlation(comparison: Comparison, entry: StatisticComparison, correlation: CorrelationComparison) -> Drawing:
    """Draw the correlation matrices of the judged bins: mocks, simulation, and their difference.

    Parameters
    ----------
    comparison, entry, correlation
        The comparison, the statistic in it, and its correlations.
    """
    span, edges, blank = judged_span(entry)
    mocks, reference = (np.where(blank, np.nan, m[span, span]) for m in (correlation.mocks, correlation.reference))
    difference = mocks - reference
    seen = np.abs(difference[np.isfinite(difference)])
    limit = max(_CORRELATION_LEAST, float(np.percentile(seen, 99))) if len(seen) else 1.0
    panels = (
        (f"{comparison.name}, {comparison.mocks.n_slices:,} slices", mocks, 1.0),
        (f"simulation, {comparison.reference.n_slices:,} slices", reference, 1.0),
        (f"{comparison.name} − simulation", difference, limit),
    )
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 3.0), layout="constrained")
        axes = figure.subplots(1, 3, sharex=True, sharey=True)
        images = []
        for axis, (title, matrix, most) in zip(axes, panels, strict=True):
            images.append(draw_matrix(axis, entry.statistic, edges, matrix, most=most))
            axis.set_title(title)
        figure.colorbar(images[0], ax=axes[:2], shrink=0.8, pad=0.01, label="correlation")
        figure.colorbar(images[2], ax=axes[2], shrink=0.8, pad=0.02, extend="both", label="difference")
        figure.suptitle(
            f"{box_title(comparison)}: correlation of {entry.statistic.y_label} between slices", fontsize=9.5
        )
        return drawing(figure)


def judged_span(entry: StatisticComparison) -> tuple[slice, np.ndarray, np.ndarray]:
    """Return where the judged bins of a matrix lie.

    Parameters
    ----------
    entry
        The statistic.

    Returns
    -------
        The span from the first judged bin to the last, so that edges stay in order; its edges; and which elements of
        the matrix do not count because of bins between, bool.
    """
    chosen = np.flatnonzero(entry.judged)
    span = slice(chosen[0], chosen[-1] + 1) if len(chosen) else slice(0, len(entry.judged))
    return span, entry.edges[span.start : span.stop + 1], ~np.logical_and.outer(entry.judged[span], entry.judged[span])


def draw_matrix(
    axes: Axes, statistic: AbstractStatistic, edges: np.ndarray, matrix: np.ndarray, *, most: float
) -> QuadMesh:
    """Draw a matrix over the bins of a statistic into axes, grey where it is NaN, in colours from -most to most."""
    image = axes.pcolormesh(edges, edges, matrix, vmin=-most, vmax=most, cmap="RdBu_r")
    label = axis_label(statistic.x_label, statistic.x_units)
    if statistic.log_x:
        axes.set(xscale="log", yscale="log")
        mark_short_range(axes.xaxis)
        mark_short_range(axes.yaxis)
    axes.set(xlabel=label, box_aspect=1)
    axes.set_facecolor("0.8")
    return image
