"""The tables of the report's page, as plain cells; `report.html` makes a page of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from cosmogan.units import format_length
from cosmogan.validation.closeness import Closeness, closeness
from cosmogan.validation.comparison import Comparison, InputFile, StatisticComparison
from cosmogan.validation.report.paper import paper_rows
from cosmogan.validation.score import SampleComparison
from cosmogan.validation.thresholds import Thresholds
from cosmogan.validation.verdict import Verdict, judge_all, mean_excess
from cosmogan.validation.wording import box_title, in_units, number, percent, thirds_text

# Rows of the table of bins; the JSON has all of them.
_MOST_ROWS = 40


class Cell(NamedTuple):
    """One cell: its text, classes of the style sheet, what a pointer shows, and how many columns it spans."""

    text: str
    style: str = ""
    title: str = ""
    span: int = 1
    heading: bool = False


class Row(NamedTuple):
    """Cells side by side, and a class of the style sheet for all of them."""

    cells: list[Cell]
    style: str = ""


class Table(NamedTuple):
    """Rows of the head and of the body."""

    head: list[Row]
    body: list[Row]


def _head(*cells: str | Cell) -> Row:
    return Row([Cell(*((cell,) if isinstance(cell, str) else cell))._replace(heading=True) for cell in cells])


def _cells(texts: Iterable[str]) -> list[Cell]:
    return [Cell(text) for text in texts]


def scores_table(groups: Sequence[Sequence[Comparison]], thresholds: Thresholds) -> Table:
    """Return what is judged as a table: a row each, the boxes side by side, candidates ranked within a box.

    Parameters
    ----------
    groups
        Comparisons of each box.
    thresholds
        Thresholds that the mocks are judged by.
    """
    judged = [sorted(((c, judge_all(c, thresholds)) for c in group), key=_rank) for group in groups]
    names = dict.fromkeys(name for group in judged for _, verdicts in group for name in verdicts)
    tops = [Cell(box_title(group[0][0]), "text", span=len(group)) for group in judged]
    seconds = [f"{c.name} (itself)" for group in judged for c, _ in group]
    head = [_head("", "", *tops), _head(Cell("Difference to the simulation", "text"), "asked", *seconds)]
    rows = []
    for name in names:
        one = next(verdicts[name] for group in judged for _, verdicts in group if name in verdicts)
        found = [_outcome_cell(verdicts.get(name)) for group in judged for _, verdicts in group]
        rows.append(Row([Cell(one.title, "text"), Cell(in_units(one.threshold, one.units)), *found]))
    excess = _cells(number(_rank(pair), figures=2) for group in judged for pair in group)
    rows.append(Row([Cell("times asked or itself, mean", "text"), Cell(""), *excess], "aside"))
    return Table(head, rows)


def _rank(pair: tuple[Comparison, dict[str, Verdict]]) -> float:
    return mean_excess(list(pair[1].values()))


def _outcome_cell(verdict: Verdict | None) -> Cell:
    if verdict is None:
        return Cell("-")
    # Colour is not all that tells a failure.
    mark = {"pass": "", "fail": " ✗", "inconclusive": " ?"}[verdict.outcome]
    return Cell(verdict.cell + mark, verdict.outcome, verdict.text)


def details_table(comparison: Comparison, thresholds: Thresholds) -> Table:
    """Return the differences of one set of mocks with medians, thirds and the reason of each verdict.

    Parameters
    ----------
    comparison
        Comparison of these mocks.
    thresholds
        Thresholds that they are judged by.
    """
    verdicts = judge_all(comparison, thresholds)
    rows = []

    def add(verdict: Verdict, title: str, cells: Sequence[str]) -> None:
        rows.append(Row([Cell(title, "text"), Cell(verdict.text, f"verdict {verdict.outcome}"), *_cells(cells)]))

    for entry in comparison.statistics:
        s, floor = entry.summary, entry.floor_summary
        cells = [
            percent(s.median),
            thirds_text(s),
            percent(s.maximum),
            f"{s.within_5_percent}, {s.within_20_percent} of {s.n_bins}",
            "-" if floor is None else percent(floor.median),
            thirds_text(floor),
            "-" if floor is None else percent(floor.maximum),
        ]
        add(verdicts[entry.statistic.name], entry.statistic.title, cells)
        for name, value in s.distances.items():
            itself = "-" if floor is None else number(floor.distances[name], figures=2)
            cells = ["", number(value, figures=2), "", "", "", itself, "", ""]
            rows.append(Row([Cell(name, "text"), *_cells(cells)], "aside"))
    scores = [score for entry in comparison.statistics for score in entry.scores]
    scores += [score for sample in comparison.samples for score in sample.scores]
    for score in scores:
        floor_text = "-" if score.floor is None else in_units(score.floor, score.units)
        add(
            verdicts[score.name],
            score.title,
            [in_units(score.value, score.units), "", "", "", floor_text, "", ""],
        )
    medians = ("median", "by thirds", "largest")
    tops = (Cell("mocks / simulation − 1", span=4), Cell("simulation / itself − 1", span=3))
    names = (Cell("Statistic", "text"), Cell("Verdict", "text"))
    return Table([_head("", "", *tops), _head(*names, *medians, "bins in 5%, 20%", *medians)], rows)


def closeness_table(comparison: Comparison) -> Table:
    """Return the differences over all bins: to the reference and, where they are known, to the training slices.

    Parameters
    ----------
    comparison
        Comparison of one set of mocks.
    """
    reference = closeness(comparison.statistics, n_slices=comparison.reference.n_slices)
    training: dict[str, Closeness] = {}
    if comparison.training is not None:
        training = closeness(comparison.training_statistics, n_slices=comparison.training.n_slices)
    rows = []
    for name, one in reference.items():
        known = _closeness_cells(training[name]) if training else []
        cells = [*known, *_closeness_cells(one), percent(one.within), number(one.chi2, figures=2)]
        # What counts appears under the pointer; a paragraph below the table says it, too.
        rows.append(Row([Cell(one.title, "text", one.bins), *_cells(cells)]))
    sources = [Cell("mean of the training slices", span=4)] if comparison.training is not None else []
    columns = ("bins", "median", "largest", "itself")
    head = [
        _head("", *sources, Cell("reference", span=6)),
        _head(
            Cell("Mocks / simulation − 1", "text"),
            *(columns if training else ()),
            *columns,
            "bins within 2σ",
            "χ² per bin",
        ),
    ]
    return Table(head, rows)


def _closeness_cells(one: Closeness) -> list[str]:
    itself = f"{percent(one.floor_median)}, {percent(one.floor_maximum)}"
    return [str(one.n_bins), percent(one.median), percent(one.maximum), itself]


def rows_table(sample: SampleComparison) -> Table:
    """Return by which part of what there is to see mocks are told from simulations.

    Parameters
    ----------
    sample
        Comparison with rows.
    """
    head = _head(Cell("A logistic classifier that sees", "text"), "AUC", "p")
    rows = [Row([Cell(row.what, "text"), Cell(f"{row.auc:.3f}"), Cell(f"{row.p:.2g}")]) for row in sample.rows]
    return Table([head], rows)


def paper_table(group: Sequence[Comparison]) -> Table:
    """Return the paper's headline numbers beside those of the mocks.

    Parameters
    ----------
    group
        Comparisons of one of the paper's boxes.
    """
    head = _head("", "Rodriguez et al. 2018", *(c.name for c in group))
    return Table([head], [Row(_cells([row.what, row.paper, *row.ours])) for row in paper_rows(group)])


def files_table(comparison: Comparison) -> Table:
    """Return what the two files of a comparison are."""
    rows: list[tuple[str, str, str]] = []

    def both(name: str, text: Any) -> None:
        rows.append((name, text(comparison.mocks), text(comparison.reference)))

    both("file", lambda f: f.path)
    both("slices", lambda f: f"{f.n_slices:,}")
    both("realisations", lambda f: str(f.n_realisations))
    both("pixels", _pixels)
    both("thickness", lambda f: format_length(f.metadata.thickness, f.metadata.cosmology.h))
    both("smoothing", lambda f: f"{f.metadata.smoothing:g} pixels")
    both("mean of 1 + δ", lambda f: f"{f.mean_density:.4f}")
    both("cosmology", lambda f: ", ".join(f"{k} {v:g}" for k, v in f.metadata.cosmology.known().items()) or "unknown")
    both("provenance", lambda f: ", ".join(f"{k}: {v}" for k, v in f.provenance.items()) or "unknown")
    both("sha256", lambda f: f"{f.sha256[:16]}… ({f.n_bytes / 1e6:,.1f} MB)")
    body = [Row([Cell(name, "text", heading=True), Cell(a, "wrap"), Cell(b, "wrap")]) for name, a, b in rows]
    return Table([_head("", Cell("mocks", "text"), Cell("simulation", "text"))], body)


def short_name(file: InputFile) -> str:
    """Return the name of a file without its folders, and how much it holds."""
    name = file.path.replace("\\", "/").rsplit("/", 1)[-1]
    n = file.n_realisations
    return f"{name} ({file.n_slices:,} slices, {n} realisation{'' if n == 1 else 's'})"


def _pixels(file: InputFile) -> str:
    metadata = file.metadata
    mean = "" if metadata.mean_count is None else f", mean {metadata.mean_count:g}"
    return f"{metadata.quantity}{mean}, {metadata.assignment}"


def bins_table(comparison: Comparison, entry: StatisticComparison, *, named: bool) -> tuple[str, Table]:
    """Return a line on the numbers of a statistic per bin, and these.

    Parameters
    ----------
    comparison, entry
        The comparison and the statistic in it.
    named
        Whether to say whose numbers these are.
    """
    statistic, h = entry.statistic, comparison.metadata.cosmology.h
    in_wavenumber = statistic.x_units == "h/Mpc"
    head = ["k, h/Mpc", "k, 1/Mpc"] if in_wavenumber and h is not None else ["bin from", "to"]
    head += ["simulation", "mocks", "difference", "error", "sigmas", "itself"]
    picks = np.flatnonzero(np.isfinite(entry.reference))
    thinned = len(picks) > _MOST_ROWS
    if thinned:
        # Nearly equal steps of the logarithm, because bins are dense at large k.
        picks = picks[np.unique(np.rint(np.geomspace(1, len(picks), _MOST_ROWS)).astype(int)) - 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.hypot(entry.mocks_error, entry.reference_error) / entry.reference
    rows = []
    for i in picks:
        if in_wavenumber and h is not None:
            cells = [number(entry.x[i]), number(entry.x[i] * h)]
        else:
            cells = [number(entry.edges[i]), number(entry.edges[i + 1])]
        cells += [
            number(entry.reference[i]),
            number(entry.mocks[i]),
            percent(entry.ratio[i]),
            percent(error[i]),
            number(round(entry.sigmas[i], 1)),
            "-" if entry.floor is None else percent(entry.floor[i]),
        ]
        rows.append(Row(_cells(cells)))
    units = f", {statistic.y_units}" if statistic.y_units else ""
    whose = f"{comparison.name}: n" if named else "N"
    more = " (a selection; all are in report.json)" if thinned else ""
    return f"{whose}umbers per bin{units}{more}", Table([_head(*head)], rows)
