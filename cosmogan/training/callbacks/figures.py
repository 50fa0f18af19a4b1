"""What a validation looks like: mocks beside slices of simulations, and statistics with their ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from cosmogan.slices import SliceMetadata
from cosmogan.statistics.base import AbstractStatistic
from cosmogan.validation.report.figures import STYLE, axis_label, mark_short_range

_SIMULATION, _MOCKS = "#0b3c5d", "#d55e00"
# Logarithmic axes that span less than this have few powers of ten to label.
_SHORT_RANGE = 50
# Ratio panels show at least the first and at most the second.
_RATIO_LEAST, _RATIO_MOST = 0.2, 1.0


def draw_validation(
    real: Sequence[np.ndarray],
    mocks_shown: Sequence[np.ndarray],
    statistics: Sequence[AbstractStatistic],
    metadata: SliceMetadata,
    *,
    reference: Mapping[str, np.ndarray],
    sigma: Mapping[str, np.ndarray],
    mocks: Mapping[str, np.ndarray],
    title: str,
) -> np.ndarray:
    """Draw held-out slices above mocks and, to their right, the means of statistics above their ratios.

    Parameters
    ----------
    real, mocks_shown
        1 + delta of some slices, shape ``(n_pixels, n_pixels)`` each.
    statistics
        Statistics to draw.
    metadata
        Metadata of the slices.
    reference, sigma, mocks
        Means of the held-out slices, their errors and means of the mocks by the name of the statistic, shape
        ``(n_bins,)``.
    title
        Above it all.

    Returns
    -------
        Pixels, shape ``(height, width, 3)``, 0 to 255.
    """
    with matplotlib.rc_context(STYLE):
        n_columns = max(len(real), len(mocks_shown))
        # Places by hand, in inches: an automatic layout draws everything three times.
        images, panel, height = 1.52 * n_columns, 3.4, 4.0
        width = images + 1.3 + panel * len(statistics)
        figure = Figure(figsize=(width, height), dpi=100)
        canvas = FigureCanvasAgg(figure)
        vertical = {"bottom": 0.5 / height, "top": 1 - 0.5 / height}
        figure.suptitle(title, fontsize=10)

        # Slices, in one scale, which is that of the held-out ones.
        positive = np.concatenate([image[image > 0] for image in real])
        low, high = np.percentile(positive, [1, 99.9]) if len(positive) else (0.1, 1.0)
        low = max(low, 1e-4 * high)
        norm = LogNorm(low, high if high > low else 2 * low)
        grid = {"left": 0.3 / width, "right": (0.3 + images) / width, "wspace": 0.05, "hspace": 0.05}
        axes = figure.subplots(2, n_columns, squeeze=False, gridspec_kw=grid | vertical)
        for row, (name, shown) in zip(axes, (("held out", real), ("mocks", mocks_shown)), strict=True):
            for axis in row:
                axis.set(xticks=[], yticks=[])
            for axis, image in zip(row, shown, strict=False):
                # Empty pixels are below any logarithmic scale: drawn in its lowest colour.
                drawn = axis.imshow(np.maximum(image, low), norm=norm, cmap="magma", interpolation="nearest")
            row[0].set_ylabel(name)
        beside = figure.add_axes(((0.4 + images) / width, vertical["bottom"], 0.12 / width, 1 - 1 / height))
        bar = figure.colorbar(drawn, cax=beside, label=r"$1 + \delta$", extend="both")
        if high < _SHORT_RANGE * low:
            mark_short_range(bar.ax.yaxis)

        # Statistics.
        grid = {"left": (images + 1.9) / width, "right": 1 - 0.1 / width, "wspace": 0.28, "hspace": 0.05}
        panels = figure.subplots(
            2, len(statistics), sharex="col", height_ratios=[1.9, 1], squeeze=False, gridspec_kw=grid | vertical
        )
        for statistic, top, bottom in zip(statistics, *panels, strict=True):
            name = statistic.name
            _draw_statistic(top, bottom, statistic, metadata, reference[name], sigma[name], mocks[name])
        panels[0, 0].legend(loc="best")
        panels[1, 0].set_ylabel("mocks / held out − 1")
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def _draw_statistic(
    top: Axes,
    bottom: Axes,
    statistic: AbstractStatistic,
    metadata: SliceMetadata,
    reference: np.ndarray,
    sigma: np.ndarray,
    mocks: np.ndarray,
) -> None:
    x = statistic.centres(metadata)
    drawn = np.isfinite(x) & statistic.judged(metadata, reference)
    x, reference, sigma, mocks = x[drawn], reference[drawn], sigma[drawn], mocks[drawn]
    ratio, error = mocks / reference - 1, sigma / np.abs(reference)
    low = np.maximum(reference - sigma, 0.02 * reference) if statistic.log_y else reference - sigma
    top.fill_between(x, low, reference + sigma, color=_SIMULATION, alpha=0.25, linewidth=0)
    top.plot(x, reference, color=_SIMULATION, linewidth=1.4, label="held out, with its error")
    # A logarithmic axis has no place for bins that mocks leave empty.
    top.plot(x, np.where((mocks > 0) | (not statistic.log_y), mocks, np.nan), "--", color=_MOCKS, label="mocks")
    if statistic.log_y:
        top.set_yscale("log")
        top.set_ylim(0.3 * reference.min(), 3 * reference.max())
    if statistic.log_x:
        top.set_xscale("log")
        if x.max() < _SHORT_RANGE * x.min():
            mark_short_range(bottom.xaxis)
    top.set_title(statistic.title, fontsize=9.5)
    top.set_ylabel(axis_label(statistic.y_label, statistic.y_units))
    bottom.fill_between(x, -error, error, color=_SIMULATION, alpha=0.25, linewidth=0)
    bottom.axhline(0, color=_SIMULATION, linewidth=0.8)
    bottom.plot(x, ratio, "--", color=_MOCKS)
    seen = np.abs(ratio[np.isfinite(ratio)])
    limit = float(np.clip(1.15 * seen.max(initial=0), _RATIO_LEAST, _RATIO_MOST))
    bottom.set_ylim(-limit, limit)
    bottom.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    bottom.set_xlabel(axis_label(statistic.x_label, statistic.x_units))
