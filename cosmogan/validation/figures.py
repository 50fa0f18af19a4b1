"""Figures of a comparison: each statistic above its ratio, and slices side by side."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter
from numpy.typing import ArrayLike

from cosmogan.validation.coherence import CoherenceComparison
from cosmogan.validation.comparison import Comparison, StatisticComparison
from cosmogan.validation.correlation import CorrelationComparison
from cosmogan.validation.wording import box_title, short_box

# Two colours that stay apart for colour-blind readers and in grey (Okabe & Ito).
_SIMULATION = "#0b3c5d"
_MOCKS = "#d55e00"
_FLOOR = "0.86"
# Not dict[str, object]: matplotlib's stubs list every key.
_STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "savefig.dpi": 200,
}
# Logarithmic axes that span less than this have few powers of ten to label.
_SHORT_RANGE = 50
# Differences of correlations smaller than this are not blown up.
_CORRELATION_LEAST = 0.1
_COHERENCE_LEAST = 0.05
# The ratio panel shows at least the first, all judged bins up to the second, and at most the third.
_RATIO_LEAST, _RATIO_WHOLE, _RATIO_MOST = 0.12, 0.8, 1.05


def axis_label(label: str, units: str) -> str:
    r"""Return a label for matplotlib with its units, such as ``$P(k)$ [$(\mathrm{Mpc}/h)^2$]``."""
    if not units:
        return label
    typeset = {"h/Mpc": r"$h\,\mathrm{Mpc}^{-1}$", "(Mpc/h)^2": r"$(\mathrm{Mpc}/h)^2$"}
    typeset |= {"(Mpc/h)^4": r"$(\mathrm{Mpc}/h)^4$"}
    return f"{label} [{typeset.get(units, units)}]"


def draw_statistic(comparison: Comparison, entry: StatisticComparison) -> bytes:
    """Draw mocks and reference with bands of one standard deviation, and below their relative difference.

    Returns
    -------
        A PNG image.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.6, 5.0), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[1.9, 1])
        _draw_means(top, comparison, entry)
        _draw_ratio(bottom, entry)
        top.set_title(f"{box_title(comparison)}, z = {comparison.metadata.redshift:g}")
        return _png(figure)


def draw_slices(comparison: Comparison) -> bytes:
    """Draw slices of the reference above slices of the mocks in one logarithmic colour scale.

    Returns
    -------
        A PNG image.
    """
    rows = (("simulation", comparison.reference_shown), ("mocks", comparison.mocks_shown))
    positive = comparison.reference_shown[comparison.reference_shown > 0]
    low, high = np.percentile(positive, [1, 99.9]) if positive.size else (0.1, 1.0)
    # At most four decades, so that voids and filaments keep their contrast; a range of zero width has no scale.
    low = max(low, high * 1e-4)
    norm = LogNorm(low, high if high > low else 2 * low)
    n_columns = max(len(images) for _, images in rows)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(1.4 * n_columns + 0.8, 3.15), layout="constrained")
        axes = figure.subplots(2, n_columns, squeeze=False)
        for axis in axes.flat:
            axis.set_axis_off()
        image = None
        for row, (label, images) in zip(axes, rows, strict=True):
            for axis, density in zip(row, images, strict=False):
                axis.set_axis_on()
                axis.set(xticks=[], yticks=[])
                # Empty pixels are below any logarithmic scale: drawn in its lowest colour.
                image = axis.imshow(np.maximum(density, low), norm=norm, cmap="magma", interpolation="nearest")
            row[0].set_ylabel(label)
        if image is not None:
            figure.colorbar(image, ax=axes, label=r"$1 + \delta$", shrink=0.9, pad=0.01, extend="both")
        figure.suptitle(f"{box_title(comparison)}: each panel {short_box(comparison)} wide", fontsize=9.5)
        return _png(figure)


def draw_correlation(comparison: Comparison, entry: StatisticComparison, correlation: CorrelationComparison) -> bytes:
    """Draw the correlation matrices of the judged bins: mocks, simulation, and their difference.

    Returns
    -------
        A PNG image.
    """
    statistic = entry.statistic
    chosen = np.flatnonzero(entry.judged)
    # From the first judged bin to the last, so that edges stay in order; bins between that do not count are blank.
    span = slice(chosen[0], chosen[-1] + 1) if len(chosen) else slice(0, len(entry.judged))
    edges = entry.edges[span.start : span.stop + 1]
    blank = ~np.logical_and.outer(entry.judged[span], entry.judged[span])
    mocks, reference = (np.where(blank, np.nan, m[span, span]) for m in (correlation.mocks, correlation.reference))
    difference = mocks - reference
    seen = np.abs(difference[np.isfinite(difference)])
    limit = max(_CORRELATION_LEAST, float(np.percentile(seen, 99))) if len(seen) else 1.0
    panels = (
        (f"mocks, {comparison.mocks.n_slices:,} slices", mocks, 1.0),
        (f"simulation, {comparison.reference.n_slices:,} slices", reference, 1.0),
        ("mocks − simulation", difference, limit),
    )
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.6, 3.0), layout="constrained")
        axes = figure.subplots(1, 3, sharex=True, sharey=True)
        images = []
        for axis, (title, matrix, most) in zip(axes, panels, strict=True):
            images.append(axis.pcolormesh(edges, edges, matrix, vmin=-most, vmax=most, cmap="RdBu_r"))
            if statistic.log_x:
                axis.set(xscale="log", yscale="log")
                _mark_short_range(axis.xaxis)
                _mark_short_range(axis.yaxis)
            axis.set(title=title, xlabel=axis_label(statistic.x_label, statistic.x_units), box_aspect=1)
            axis.set_facecolor("0.8")
        axes[0].set_ylabel(axis_label(statistic.x_label, statistic.x_units))
        figure.colorbar(images[0], ax=axes[:2], shrink=0.8, pad=0.01)
        figure.colorbar(images[2], ax=axes[2], shrink=0.8, pad=0.02, extend="both")
        figure.suptitle(f"{box_title(comparison)}: correlation of {statistic.y_label} between slices", fontsize=9.5)
        return _png(figure)


def draw_coherence(comparison: Comparison, entry: StatisticComparison, coherence: CoherenceComparison) -> bytes:
    """Draw how much different slices are alike, mocks and simulation, with bands of one standard deviation.

    Returns
    -------
        A PNG image.
    """
    statistic = entry.statistic
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.6, 2.9), layout="constrained")
        axes = figure.subplots()
        axes.axhline(0, color="0.45", linewidth=0.7)
        largest = _COHERENCE_LEAST
        for name, n_pairs, values, error, colour, dashes in (
            (
                "simulation",
                coherence.reference_n_pairs,
                coherence.reference,
                coherence.reference_error,
                _SIMULATION,
                "-",
            ),
            ("mocks", coherence.mocks_n_pairs, coherence.mocks, coherence.mocks_error, _MOCKS, "--"),
        ):
            drawn = entry.judged & np.isfinite(entry.x) & np.isfinite(values)
            x, y, half_width = entry.x[drawn], values[drawn], np.nan_to_num(error[drawn])
            axes.fill_between(x, y - half_width, y + half_width, color=colour, alpha=0.22, linewidth=0)
            axes.plot(x, y, dashes, color=colour, linewidth=1.4, label=f"{name}, {n_pairs:,} pairs")
            largest = max([largest, *np.abs(y)])
        axes.set_ylim(-1.15 * largest, 1.15 * largest)
        if statistic.log_x:
            axes.set_xscale("log")
            _mark_short_range(axes.xaxis)
        axes.set(xlabel=axis_label(statistic.x_label, statistic.x_units), ylabel="coherence of different slices")
        axes.legend(loc="best")
        axes.set_title(f"{box_title(comparison)}, z = {comparison.metadata.redshift:g}")
        return _png(figure)


def _draw_means(axes: Axes, comparison: Comparison, entry: StatisticComparison) -> None:
    statistic = entry.statistic
    for name, file, mean, error, colour, dashes in (
        ("simulation", comparison.reference, entry.reference, entry.reference_error, _SIMULATION, "-"),
        ("mocks", comparison.mocks, entry.mocks, entry.mocks_error, _MOCKS, "--"),
    ):
        drawn = np.isfinite(entry.x) & np.isfinite(mean) & ((mean > 0) | (not statistic.log_y))
        x, y, half_width = entry.x[drawn], mean[drawn], np.nan_to_num(error[drawn])
        low = np.maximum(y - half_width, 0.02 * y) if statistic.log_y else y - half_width
        axes.fill_between(x, low, y + half_width, color=colour, alpha=0.22, linewidth=0)
        axes.plot(x, y, dashes, color=colour, linewidth=1.4, label=f"{name}, {file.n_slices:,} slices")
    if entry.floor is not None:
        # The band lies in the panel below, where curves leave no room for its name.
        axes.fill_between([], [], [], color=_FLOOR, linewidth=0, label="below: simulation against itself (halves)")
    short = False
    if statistic.log_x:
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        # Panels share this axis.
        short = low > 0 and high < _SHORT_RANGE * low
        if short:
            _mark_short_range(axes.xaxis)
    if statistic.log_y:
        axes.set_yscale("log")
        # Bands reach far down where a mean is of the size of its error; the means decide what is shown.
        shown = np.concatenate([entry.reference, entry.mocks])
        shown = shown[np.isfinite(shown) & (shown > 0) & np.isfinite(np.tile(entry.x, 2))]
        if len(shown):
            axes.set_ylim(0.4 * shown.min(), 2.5 * shown.max())
    axes.set_ylabel(axis_label(statistic.y_label, statistic.y_units))
    axes.legend(loc="best")
    h = comparison.metadata.cosmology.h
    if statistic.x_units == "h/Mpc" and h is not None:
        axes.tick_params(axis="x", which="both", top=False)

        def to_inverse_mpc(k: ArrayLike) -> np.ndarray:
            return np.asarray(k) * h

        def from_inverse_mpc(k: ArrayLike) -> np.ndarray:
            return np.asarray(k) / h

        second = axes.secondary_xaxis("top", functions=(to_inverse_mpc, from_inverse_mpc))
        if short:
            _mark_short_range(second.xaxis)
        second.set_xlabel(rf"{statistic.x_label} [$\mathrm{{Mpc}}^{{-1}}$]")


def _mark_short_range(axis: Axis) -> None:
    """Label 1, 2 and 5 in plain digits, where matplotlib would write powers of ten over each other."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _draw_ratio(axes: Axes, entry: StatisticComparison) -> None:
    statistic = entry.statistic
    drawn = np.isfinite(entry.x) & np.isfinite(entry.ratio)
    if statistic.log_x:
        drawn &= entry.x > 0
    x, ratio = entry.x[drawn], entry.ratio[drawn]
    with np.errstate(divide="ignore", invalid="ignore"):
        mock_error = np.nan_to_num(entry.mocks_error / entry.reference)[drawn]
        reference_error = np.nan_to_num(entry.reference_error / entry.reference)[drawn]
    floor = np.zeros(len(x)) if entry.floor is None else np.nan_to_num(entry.floor[drawn])
    if entry.floor is not None:
        axes.fill_between(x, -floor, floor, color=_FLOOR, linewidth=0)
    axes.fill_between(x, -reference_error, reference_error, color=_SIMULATION, alpha=0.3, linewidth=0)
    axes.fill_between(x, ratio - mock_error, ratio + mock_error, color=_MOCKS, alpha=0.22, linewidth=0)
    axes.plot(x, ratio, "--", color=_MOCKS, linewidth=1.4)
    axes.axhline(0, color=_SIMULATION, linewidth=0.8)
    judged = entry.judged[drawn]
    if judged.any():
        seen = np.abs(np.concatenate([ratio[judged], floor[judged]]))
        bulk = max(_RATIO_WHOLE, 1.15 * float(np.percentile(seen, 95)))
        limit = float(np.clip(1.15 * seen.max(), _RATIO_LEAST, min(bulk, _RATIO_MOST)))
        axes.set_ylim(-limit, limit)
        # Beyond the judged bins nothing is claimed.
        for edge in _outer_edges(entry):
            axes.axvline(edge, color="0.45", linewidth=0.7, linestyle=":")
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.set_ylabel("mocks / sim. − 1")
    axes.set_xlabel(axis_label(statistic.x_label, statistic.x_units))


def _outer_edges(entry: StatisticComparison) -> list[float]:
    """Return the ends of the judged range that lie inside the drawn one."""
    inside = np.flatnonzero(entry.judged)
    placed = np.flatnonzero(np.isfinite(entry.x) & np.isfinite(entry.reference))
    edges = []
    if inside[0] > placed[0]:
        edges.append(float(entry.edges[inside[0]]))
    if inside[-1] < placed[-1]:
        edges.append(float(entry.edges[inside[-1] + 1]))
    return edges


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
