"""Figures of a comparison: each statistic above its ratio, and slices side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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

from cosmogan.validation.comparison import Comparison, StatisticComparison
from cosmogan.validation.wording import box_title, short_box

# Colours that stay apart for colour-blind readers (Okabe & Ito), and dashes that do in grey.
_SIMULATION = "#0b3c5d"
_MOCKS: tuple[tuple[str, Any], ...] = (
    ("#d55e00", "--"),
    ("#009e73", "-."),
    ("#cc79a7", (0, (1, 1))),
    ("#e69f00", (0, (5, 1, 1, 1, 1, 1))),
    ("#56b4e9", (0, (8, 2))),
)
_FLOOR = "0.86"
# Not dict[str, object]: matplotlib's stubs list every key.
STYLE: dict[Any, Any] = {
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


@dataclass(frozen=True)
class Drawing:
    """A figure, for the page and for a paper.

    Parameters
    ----------
    png, pdf
        The files.
    """

    png: bytes
    pdf: bytes


def draw_statistic(comparisons: Sequence[Comparison], name: str) -> Drawing:
    """Draw mocks and reference with bands of one standard deviation, and below their relative difference.

    Parameters
    ----------
    comparisons
        Comparisons of one or several sets of mocks with the same reference.
    name
        Name of the statistic.
    """
    entries = [entry for c in comparisons for entry in c.statistics if entry.statistic.name == name]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 5.0), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[1.9, 1])
        draw_means(top, comparisons, entries)
        draw_ratio(bottom, entries)
        top.set_title(f"{box_title(comparisons[0])}, z = {comparisons[0].metadata.redshift:g}")
        return drawing(figure)


def draw_slices(comparisons: Sequence[Comparison]) -> Drawing:
    """Draw slices of the reference above slices of the mocks in one logarithmic colour scale.

    Parameters
    ----------
    comparisons
        Comparisons as for `draw_statistic`.
    """
    first = comparisons[0]
    rows = [("simulation", first.reference_shown), *((c.name, c.mocks_shown) for c in comparisons)]
    positive = first.reference_shown[first.reference_shown > 0]
    low, high = np.percentile(positive, [1, 99.9]) if positive.size else (0.1, 1.0)
    # At most four decades, so that voids and filaments keep their contrast; a range of zero width has no scale.
    low = max(low, high * 1e-4)
    norm = LogNorm(low, high if high > low else 2 * low)
    n_columns = max(len(images) for _, images in rows)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.4 * n_columns + 0.8, 1.4 * len(rows) + 0.35), layout="constrained")
        axes = figure.subplots(len(rows), n_columns, squeeze=False)
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
            bar = figure.colorbar(image, ax=axes, label=r"$1 + \delta$", shrink=0.9, pad=0.01, extend="both")
            if high < _SHORT_RANGE * low:
                mark_short_range(bar.ax.yaxis)
        figure.suptitle(f"{box_title(first)}: each panel {short_box(first)} wide", fontsize=9.5)
        return drawing(figure)


def draw_coherence(comparisons: Sequence[Comparison], name: str) -> Drawing:
    """Draw how much different slices are alike, mocks and simulation, with bands of one standard deviation.

    Parameters
    ----------
    comparisons
        Comparisons as for `draw_statistic`.
    name
        Name of the statistic beside which the coherence was measured.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 2.9), layout="constrained")
        axes = figure.subplots()
        axes.axhline(0, color="0.45", linewidth=0.7)
        largest = _COHERENCE_LEAST
        for place, comparison in enumerate(comparisons):
            (entry,) = (e for e in comparison.statistics if e.statistic.name == name)
            coherence = entry.coherence
            if coherence is None:
                continue
            curves: list[tuple[str, int, np.ndarray, np.ndarray, str, Any]] = [
                (comparison.name, coherence.mocks_n_pairs, coherence.mocks, coherence.mocks_error, *_mocks_style(place))
            ]
            if place == 0:
                values, error = coherence.reference, coherence.reference_error
                curves.insert(0, ("simulation", coherence.reference_n_pairs, values, error, _SIMULATION, "-"))
            for label, n_pairs, values, error, colour, dashes in curves:
                drawn = entry.judged & np.isfinite(entry.x) & np.isfinite(values)
                x, y, half_width = entry.x[drawn], values[drawn], np.nan_to_num(error[drawn])
                axes.fill_between(x, y - half_width, y + half_width, color=colour, alpha=0.22, linewidth=0)
                axes.plot(x, y, linestyle=dashes, color=colour, linewidth=1.4, label=f"{label}, {n_pairs:,} pairs")
                largest = max([largest, *np.abs(y)])
            if entry.statistic.log_x:
                axes.set_xscale("log")
                mark_short_range(axes.xaxis)
            axes.set_xlabel(axis_label(entry.statistic.x_label, entry.statistic.x_units))
        axes.set_ylim(-1.15 * largest, 1.15 * largest)
        axes.set_ylabel("coherence of different slices")
        axes.legend(loc="best")
        axes.set_title(f"{box_title(comparisons[0])}, z = {comparisons[0].metadata.redshift:g}")
        return drawing(figure)


def draw_sample(comparisons: Sequence[Comparison], name: str) -> Drawing:
    """Draw the distributions that a test of sets of slices found.

    Parameters
    ----------
    comparisons
        Comparisons as for `draw_statistic`.
    name
        Name of the test.
    """
    samples = [(c, sample) for c in comparisons for sample in c.samples if sample.name == name]
    several = len(samples) > 1
    held = np.concatenate([values for _, sample in samples for values in sample.distributions.values()])
    held = held[np.isfinite(held)]
    # Twenty to sixty bins over all but the outermost values, which are counted in the last bins.
    low, high = np.percentile(held, [0.1, 99.9]) if len(held) else (0.0, 1.0)
    high = high if high > low else low + 1
    edges = np.linspace(low, high, int(np.clip(np.sqrt(len(held) / max(len(samples), 1)), 20, 60)) + 1)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 2.9), layout="constrained")
        axes = figure.subplots()
        n_drawn = 0
        for place, (comparison, sample) in enumerate(samples):
            for label, values in sample.distributions.items():
                ours = label.startswith("mocks")
                if several and not ours and place > 0:
                    continue
                colour, dashes = _mocks_style(n_drawn) if ours else (_SIMULATION, "-")
                n_drawn += ours
                shown = label.replace("mocks", comparison.name, 1) if ours else label
                inside = np.clip(values[np.isfinite(values)], low, high)
                share = np.histogram(inside, edges)[0] / max(len(inside), 1)
                axes.stairs(
                    share, edges, color=colour, linestyle=dashes, linewidth=1.4, label=f"{shown}, {len(inside):,}"
                )
        axes.set(xlabel=samples[0][1].quantity, ylabel="share per bin")
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
        axes.legend(loc="best")
        axes.set_title(f"{box_title(comparisons[0])}, z = {comparisons[0].metadata.redshift:g}")
        return drawing(figure)


def draw_means(axes: Axes, comparisons: Sequence[Comparison], entries: Sequence[StatisticComparison]) -> None:
    """Draw the means of the simulation and of each set of mocks into axes.

    Parameters
    ----------
    axes
        Axes to draw into.
    comparisons, entries
        Comparisons of one or several sets of mocks with the same reference, and the statistic in each.
    """
    statistic, first = entries[0].statistic, entries[0]
    curves: list[tuple[str, int, np.ndarray, np.ndarray, str, Any]] = [
        ("simulation", comparisons[0].reference.n_slices, first.reference, first.reference_error, _SIMULATION, "-")
    ]
    for place, (comparison, entry) in enumerate(zip(comparisons, entries, strict=True)):
        n_slices = comparison.mocks.n_slices
        curves.append((comparison.name, n_slices, entry.mocks, entry.mocks_error, *_mocks_style(place)))
    for name, n_slices, mean, error, colour, dashes in curves:
        drawn = np.isfinite(first.x) & np.isfinite(mean) & ((mean > 0) | (not statistic.log_y))
        x, y, half_width = first.x[drawn], mean[drawn], np.nan_to_num(error[drawn])
        label = f"{name}, {n_slices:,} slices"
        if statistic.discrete:
            _draw_points(axes, x, y, half_width, colour=colour, open_=colour != _SIMULATION, label=label)
            continue
        low = np.maximum(y - half_width, 0.02 * y) if statistic.log_y else y - half_width
        axes.fill_between(x, low, y + half_width, color=colour, alpha=0.22, linewidth=0)
        axes.plot(x, y, linestyle=dashes, color=colour, linewidth=1.4, label=label)
    short = False
    if statistic.log_x:
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        # Panels share this axis.
        short = low > 0 and high < _SHORT_RANGE * low
        if short:
            mark_short_range(axes.xaxis)
    if statistic.log_y:
        axes.set_yscale("log")
        # Bands reach far down where a mean is of the size of its error; the means decide what is shown.
        shown = np.concatenate([first.reference, first.mocks])
        shown = shown[np.isfinite(shown) & (shown > 0) & np.isfinite(np.tile(first.x, 2))]
        if len(shown):
            axes.set_ylim(0.4 * shown.min(), 2.5 * shown.max())
    axes.set_ylabel(axis_label(statistic.y_label, statistic.y_units))
    axes.legend(loc="best")
    h = comparisons[0].metadata.cosmology.h
    if statistic.x_units == "h/Mpc" and h is not None:
        axes.tick_params(axis="x", which="both", top=False)

        def to_inverse_mpc(k: ArrayLike) -> np.ndarray:
            return np.asarray(k) * h

        def from_inverse_mpc(k: ArrayLike) -> np.ndarray:
            return np.asarray(k) / h

        second = axes.secondary_xaxis("top", functions=(to_inverse_mpc, from_inverse_mpc))
        low, high = axes.get_xlim()
        # Less than two decades may hold one power of ten only, and matplotlib then labels all that is between.
        if short or (statistic.log_x and high < 100 * low):
            mark_short_range(second.xaxis)
        second.set_xlabel(rf"{statistic.x_label} [$\mathrm{{Mpc}}^{{-1}}$]")


def draw_ratio(axes: Axes, entries: Sequence[StatisticComparison]) -> None:
    """Draw relative differences to the simulation into axes, over the floor and the error of the simulation.

    Parameters
    ----------
    axes
        Axes to draw into.
    entries
        Comparisons of the same statistic, of one or several sets of mocks with the same reference.
    """
    first = entries[0]
    statistic = first.statistic
    placed = np.isfinite(first.x) & ((first.x > 0) | (not statistic.log_x))
    drawn = placed & np.isfinite(first.ratio)
    x = first.x[drawn]

    def relative(error: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.nan_to_num(error / first.reference)[drawn]

    floor = np.zeros(len(x)) if first.floor is None else np.nan_to_num(first.floor[drawn])
    bands = [(relative(first.reference_error), _SIMULATION, 0.3, "error of the simulation")]
    if first.floor is not None:
        bands.insert(0, (floor, _FLOOR, 1.0, "simulation against itself"))
    for size, colour, alpha, label in bands:
        if statistic.discrete:
            width = 5.0 if colour == _FLOOR else 2.5
            axes.vlines(x, -size, size, color=colour, alpha=alpha, linewidth=width, label=label)
        else:
            axes.fill_between(x, -size, size, color=colour, alpha=alpha, linewidth=0, label=label)
    axes.axhline(0, color=_SIMULATION, linewidth=0.8)
    judged = first.judged[drawn]
    seen = [floor[judged]]
    for place, entry in enumerate(entries):
        colour, dashes = _mocks_style(place)
        ratio, error = entry.ratio[drawn], relative(entry.mocks_error)
        if statistic.discrete:
            _draw_points(axes, x, ratio, error, colour=colour, open_=True)
        else:
            axes.fill_between(x, ratio - error, ratio + error, color=colour, alpha=0.22, linewidth=0)
            axes.plot(x, ratio, linestyle=dashes, color=colour, linewidth=1.4)
        seen.append(np.abs(ratio[judged]))
    if judged.any():
        sizes = np.concatenate(seen)
        sizes = sizes[np.isfinite(sizes)]
        bulk = max(_RATIO_WHOLE, 1.15 * float(np.percentile(sizes, 95)))
        limit = float(np.clip(1.15 * sizes.max(), _RATIO_LEAST, min(bulk, _RATIO_MOST)))
        axes.set_ylim(-limit, limit)
        # Beyond the judged bins nothing is claimed.
        for place, edge in enumerate(_outer_edges(first)):
            named = "end of the judged bins" if place == 0 else None
            axes.axvline(edge, color="0.45", linewidth=0.7, linestyle=":", label=named)
    if statistic.log_x:
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        if low > 0 and high < _SHORT_RANGE * low:
            mark_short_range(axes.xaxis)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.set_ylabel("mocks / sim. − 1")
    axes.set_xlabel(axis_label(statistic.x_label, statistic.x_units))
    axes.legend(loc="best", fontsize=6.5, ncols=2)


def _draw_points(
    axes: Axes, x: np.ndarray, y: np.ndarray, error: np.ndarray, *, colour: str, open_: bool, label: str | None = None
) -> None:
    face = "none" if open_ else colour
    axes.errorbar(x, y, error, fmt="o", color=colour, markerfacecolor=face, markersize=4.5, elinewidth=1.0, label=label)


def _mocks_style(place: int) -> tuple[str, Any]:
    return _MOCKS[place % len(_MOCKS)]


def mark_short_range(axis: Axis) -> None:
    """Label an axis at 1, 2 and 5 in plain digits, where matplotlib would write powers of ten over each other."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


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


def drawing(figure: Figure) -> Drawing:
    """Return a figure as files."""
    png, pdf = BytesIO(), BytesIO()
    figure.savefig(png, format="png")
    # The layout of the first, which is half of the work.
    figure.set_layout_engine("none")
    # Without a date, so that the same numbers make the same file.
    figure.savefig(pdf, format="pdf", metadata={"CreationDate": None})
    return Drawing(png=png.getvalue(), pdf=pdf.getvalue())
