"""The report as one HTML page that needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

from cosmogan.validation.comparison import Comparison, StatisticComparison, by_reference
from cosmogan.validation.report.figures import Drawing
from cosmogan.validation.report.page_tables import (
    bins_table,
    closeness_table,
    details_table,
    files_table,
    paper_table,
    scores_table,
)
from cosmogan.validation.sets.coherence import CoherenceComparison
from cosmogan.validation.sets.correlation import CorrelationComparison
from cosmogan.validation.thresholds import Thresholds
from cosmogan.validation.verdict import judge_all, worst_outcome
from cosmogan.validation.wording import box_title, judged_range, number


def render_page(
    comparisons: Sequence[Comparison],
    record: Mapping[str, Any],
    figures: Sequence[Mapping[str, Drawing]],
    thresholds: Thresholds,
) -> str:
    """Return the page, figures inlined.

    Parameters
    ----------
    comparisons
        One per set of mocks and box.
    record
        As written to ``report.json``.
    figures
        By name, for each box.
    thresholds
        What is asked of the mocks.
    """
    template = Template(files("cosmogan.validation.report").joinpath("report.html").read_text(encoding="utf-8"))
    software = ", ".join(f"{name} {version}" for name, version in record["software"].items())
    groups = by_reference(comparisons)
    boxes = [_box(group, drawn, thresholds) for group, drawn in zip(groups, figures, strict=True)]
    return template.substitute(
        title="Mock slices against simulation",
        version=record["software"]["cosmogan"],
        date=record["date"].replace("T", " ").replace("+00:00", " UTC"),
        n_columns=str(min(2, len(groups))),
        verdicts=_overall(groups, thresholds),
        summary=scores_table(groups, thresholds),
        reading=_reading(groups, thresholds),
        pairs="\n".join(boxes),
        software=escape(f"Made with {software}. All numbers: report.json beside this page."),
    )


def _overall(groups: Sequence[Sequence[Comparison]], thresholds: Thresholds) -> str:
    lines = []
    for comparison in (c for group in groups for c in group):
        verdicts = list(judge_all(comparison, thresholds).values())
        outcome = worst_outcome(verdicts)
        n = sum(verdict.passed for verdict in verdicts)
        lines.append(
            f'<li><span class="{outcome}">{outcome}</span>: {escape(comparison.name)}, '
            f"{escape(box_title(comparison))}, {n} of {len(verdicts)} pass</li>"
        )
    return f'<ul class="verdicts">{"".join(lines)}</ul>'


def _reading(groups: Sequence[Sequence[Comparison]], thresholds: Thresholds) -> str:
    judged = "".join(
        f"<li>{escape(box_title(g[0]))}, {escape(e.statistic.title)}: {escape(judged_range(g[0], e))}</li>"
        for g in groups
        for e in g[0].statistics
    )
    return (
        '<p class="soft">Differences are absolute. For a statistic with a range, such as P(k), the number is the '
        "median over one third of it in ln x: lower, middle or upper, whichever exceeds most what is allowed. In "
        "brackets stands “itself”, the same number between disjoint sets of the simulation's realisations: what two "
        "simulation runs disagree by. A number passes if it is at most what is asked or at most that, or fewer than "
        f"{thresholds.significance:g} standard deviations (σ) beyond what perfect mocks would show against so few "
        "simulations; more realisations make a harder test. Inconclusive: nobody knows how far simulations scatter. "
        "The last row is the mean over rows of the number over the larger of asked and itself; mocks that compete "
        "stand in its order.</p>"
        f'<details><summary>Judged bins</summary><ul class="soft">{judged}</ul></details>'
    )


def _box(group: Sequence[Comparison], drawn: Mapping[str, Drawing], thresholds: Thresholds) -> str:
    first = group[0]
    parts = [f"<section><h2>{escape(box_title(first))}</h2>"]
    for comparison in group:
        several = f"{comparison.name}: " if len(group) > 1 else ""
        parts.append(files_table(comparison))
        if comparison.notes:
            items = "".join(f"<li>{escape(several + note)}</li>" for note in comparison.notes)
            parts.append(f'<ul class="notes">{items}</ul>')
        parts.append(
            f"<details><summary>{escape(several)}{'d' if several else 'D'}ifferences in numbers</summary>"
            f'<div class="scroll">{details_table(comparison, thresholds)}</div></details>'
        )
        parts.append(
            f"<details><summary>{escape(several)}{'c' if several else 'C'}loseness over all bins</summary>"
            f'<div class="scroll">{closeness_table(comparison)}</div><p class="soft">Not judged. Of the histogram the '
            "bins from the 0.01th to the 99.99th percentile of the simulation count, of peaks and voids those with "
            "500 of them, of other statistics the judged ones. Itself: median and largest of what disjoint sets of "
            "its realisations differ by.</p></details>"
        )
    slices = "Slices of the simulation (above) and mocks (below) in one colour scale, drawn at random."
    parts.append(_figure(drawn["slices"], slices))
    for entry in first.statistics:
        name = entry.statistic.name
        parts.append(f"<h3>{escape(entry.statistic.title)}</h3>")
        parts.append(_figure(drawn[name], _caption(entry)))
        for place, comparison in enumerate(group):
            (own,) = (e for e in comparison.statistics if e.statistic.name == name)
            if own.correlation is not None:
                drawing = drawn[f"{name}_correlation{f'_{place}' if len(group) > 1 else ''}"]
                parts.append(_figure(drawing, _correlation_caption(own.correlation)))
        if entry.coherence is not None:
            parts.append(_figure(drawn[f"{name}_coherence"], _coherence_caption(entry.coherence)))
        for comparison in group:
            (own,) = (e for e in comparison.statistics if e.statistic.name == name)
            parts.append(bins_table(comparison, own, named=len(group) > 1))
    for name in dict.fromkeys(sample.name for comparison in group for sample in comparison.samples):
        held = [(c, sample) for c in group for sample in c.samples if sample.name == name]
        parts.append(f"<h3>{escape(held[0][1].title)}</h3>")
        parts.append(_figure(drawn[name], held[0][1].explanation))
        notes = [(f"{c.name}: " if len(group) > 1 else "") + note for c, sample in held for note in sample.notes]
        if notes:
            parts.append('<ul class="notes">' + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>")
    if "rodriguez2018" in drawn:
        parts.append("<h3>As in Rodriguez et al. 2018</h3>")
        parts.append(_figure(drawn["rodriguez2018"], "The panels of the paper, arXiv:1801.09070, for these slices."))
        parts.append(paper_table(group))
    parts.append("</section>")
    return "\n".join(parts)


def _figure(drawing: Drawing, caption: str) -> str:
    data = base64.b64encode(drawing.png).decode("ascii")
    text = escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'


def _caption(entry: StatisticComparison) -> str:
    sources = {
        "realisations": "between realisations",
        "reference": "from the realisations of the reference",
        "floor": "from the simulations given for the floor",
        "slices": "between slices, taken as independent",
    }
    text = (
        f"Bands: one standard deviation of the mean ({sources[entry.reference_error_from]} for the simulation, "
        f"{sources[entry.mocks_error_from]} for the mocks)."
    )
    if entry.floor is not None:
        first, second = entry.floor_sets
        text += f" Grey: the simulation against itself, {first} against {second} realisations."
    if entry.judged.any() and not entry.judged[np.isfinite(entry.x) & np.isfinite(entry.reference)].all():
        text += " Dotted: end of the judged bins."
    # Bins without a place on the axis are not lost.
    for i in np.flatnonzero(~np.isfinite(entry.x) & np.isfinite(entry.reference)):
        low, high = entry.edges[i], entry.edges[i + 1]
        where = f"from {low:g} on" if np.isinf(high) else f"below {high:g}"
        text += f" Not drawn, {where}: simulation {entry.reference[i]:.3g}, mocks {entry.mocks[i]:.3g}."
    return text


def _correlation_caption(correlation: CorrelationComparison) -> str:
    def beside(value: float, floor: float) -> str:
        return number(value, figures=2) + ("" if np.isnan(floor) else f" (simulation with itself {floor:.2g})")

    return (
        "Correlation between slices of P at one k with P at another: mocks, simulation, difference. Elements off the "
        f"diagonal differ by {beside(correlation.rms_difference, correlation.rms_floor)}, rms. Variance of P between "
        f"slices, median ratio of mocks to simulation − 1: {beside(correlation.variance, correlation.variance_floor)}."
        " Grey: does not vary."
    )


def _coherence_caption(coherence: CoherenceComparison) -> str:
    return (
        "Coherence of different slices, half a file apart: their cross power over their power, 0 if they are "
        f"independent and 1 for copies. Median over judged bins {number(coherence.mocks_median, figures=2)} for "
        f"{coherence.mocks_n_pairs:,} pairs of mocks, {number(coherence.reference_median, figures=2)} for "
        f"{coherence.reference_n_pairs:,} of the simulation. Bands: one standard deviation."
    )
