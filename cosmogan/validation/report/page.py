"""The report as one HTML page that needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader

from cosmogan.validation.comparison import Comparison, StatisticComparison, by_reference
from cosmogan.validation.report.figures import Drawing
from cosmogan.validation.report.page_tables import (
    bins_table,
    closeness_table,
    details_table,
    files_table,
    paper_table,
    rows_table,
    scores_table,
    short_name,
)
from cosmogan.validation.sets.coherence import CoherenceComparison
from cosmogan.validation.sets.correlation import CorrelationComparison
from cosmogan.validation.sets.forecast import PARAMETERS, ForecastComparison
from cosmogan.validation.thresholds import Thresholds
from cosmogan.validation.verdict import judge_all, worst_outcome
from cosmogan.validation.wording import box_title, judged_range, number

_WHERE = (
    "Where the difference lies: each row is a test of its own, so that one of ten has p of 0.1 or less by chance; "
    "learnt from the boxes that the networks learned from, asked about the others"
)


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
        Record as written to ``report.json``.
    figures
        Figures by name, for each box.
    thresholds
        Thresholds that the mocks are judged by.
    """
    environment = Environment(
        loader=PackageLoader("cosmogan.validation.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    groups = by_reference(comparisons)
    return environment.get_template("report.html").render(
        title="Mock slices against simulation",
        version=record["software"]["cosmogan"],
        date=record["date"].replace("T", " ").replace("+00:00", " UTC"),
        n_columns=min(2, len(groups)),
        verdicts=[_overall(comparison, thresholds) for group in groups for comparison in group],
        scores=scores_table(groups, thresholds),
        significance=f"{thresholds.significance:g}",
        judged=[
            f"{box_title(group[0])}, {entry.statistic.title}: {judged_range(group[0], entry)}"
            for group in groups
            for entry in group[0].statistics
        ],
        boxes=[_box(group, drawn, thresholds) for group, drawn in zip(groups, figures, strict=True)],
        software=", ".join(f"{name} {version}" for name, version in record["software"].items()),
    )


def _overall(comparison: Comparison, thresholds: Thresholds) -> tuple[str, str]:
    """Return the worst outcome and a sentence."""
    verdicts = list(judge_all(comparison, thresholds).values())
    n = sum(verdict.passed for verdict in verdicts)
    return worst_outcome(verdicts), f"{comparison.name}, {box_title(comparison)}, {n} of {len(verdicts)} pass"


def _box(group: Sequence[Comparison], drawn: Mapping[str, Drawing], thresholds: Thresholds) -> dict[str, Any]:
    """Return what the page says of one box."""
    first, several = group[0], len(group) > 1
    return {
        "title": box_title(first),
        "comparisons": [
            {
                "several": f"{comparison.name}: " if several else "",
                "files": f"Files: {short_name(comparison.mocks)} against {short_name(comparison.reference)}",
                "files_table": files_table(comparison),
                "notes": comparison.notes,
                "details": details_table(comparison, thresholds),
                "closeness": closeness_table(comparison),
            }
            for comparison in group
        ],
        "slices": _figure(
            drawn["slices"], "Slices of the simulation (above) and mocks (below) in one colour scale, drawn at random."
        ),
        "statistics": [_statistic(group, entry, drawn) for entry in first.statistics],
        "samples": [
            _sample(group, name, drawn)
            for name in dict.fromkeys(sample.name for comparison in group for sample in comparison.samples)
        ],
        "paper": None
        if "rodriguez2018" not in drawn
        else {
            "figure": _figure(drawn["rodriguez2018"], "The panels of the paper, arXiv:1801.09070, for these slices."),
            "table": paper_table(group),
            "pixels": first.metadata.n_pixels,
        },
    }


def _statistic(group: Sequence[Comparison], entry: StatisticComparison, drawn: Mapping[str, Drawing]) -> dict[str, Any]:
    name, several = entry.statistic.name, len(group) > 1
    own = [next(e for e in comparison.statistics if e.statistic.name == name) for comparison in group]
    figures = [_figure(drawn[name], _caption(entry))]
    for place, one in enumerate(own):
        if one.correlation is not None:
            drawing = drawn[f"{name}_correlation{f'_{place}' if several else ''}"]
            figures.append(_figure(drawing, _correlation_caption(one.correlation) + _forecast_caption(one.forecast)))
    if entry.coherence is not None:
        figures.append(_figure(drawn[f"{name}_coherence"], _coherence_caption(entry.coherence)))
    tables = [bins_table(comparison, one, named=several) for comparison, one in zip(group, own, strict=True)]
    return {"title": entry.statistic.title, "figures": figures, "tables": tables}


def _sample(group: Sequence[Comparison], name: str, drawn: Mapping[str, Drawing]) -> dict[str, Any]:
    held = [(c, sample) for c in group for sample in c.samples if sample.name == name]
    first = held[0][1]
    notes = [(f"{c.name}: " if len(group) > 1 else "") + note for c, sample in held for note in sample.notes]
    tables = [
        (_WHERE if len(group) == 1 else f"{c.name}: {_WHERE[0].lower()}{_WHERE[1:]}", rows_table(sample))
        for c, sample in held
        if sample.rows
    ]
    return {"title": first.title, "figure": _figure(drawn[name], first.explanation), "notes": notes, "tables": tables}


def _figure(drawing: Drawing, caption: str) -> tuple[str, str]:
    """Return a PNG in base64, and its caption."""
    return base64.b64encode(drawing.png).decode("ascii"), caption


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


def _forecast_caption(forecast: ForecastComparison | None) -> str:
    if forecast is None or forecast.note:
        return "" if forecast is None else f" {forecast.note}"
    found = (
        f"{number(ratio, figures=3)}{'' if np.isnan(error) else f' ± {error:.2g}'} for the {name}"
        for name, ratio, error in zip(PARAMETERS, forecast.ratio, forecast.error, strict=True)
    )
    return (
        f" An amplitude and a slope of P fitted together from {forecast.k_low:.3g} to {forecast.k_high:.3g} h/Mpc, "
        f"about {forecast.pivot:.2g} h/Mpc, with these covariances in {forecast.n_bins} bins: error with that of the "
        f"mocks over error with that of the simulation, {', '.join(found)} (Fisher matrices, same mean P)."
    )


def _coherence_caption(coherence: CoherenceComparison) -> str:
    return (
        "Coherence of different slices, half a file apart: their cross power over their power, 0 if they are "
        f"independent and 1 for copies. Median over judged bins {number(coherence.mocks_median, figures=2)} for "
        f"{coherence.mocks_n_pairs:,} pairs of mocks, {number(coherence.reference_median, figures=2)} for "
        f"{coherence.reference_n_pairs:,} of the simulation. Bands: one standard deviation."
    )
