"""The tables of the report's page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np

from cosmogan.units import format_length
from cosmogan.validation.closeness import Closeness, closeness
from cosmogan.validation.comparison import Comparison, InputFile, StatisticComparison
from cosmogan.validation.report.paper import paper_rows
from cosmogan.validation.thresholds import Thresholds
from cosmogan.validation.verdict import Verdict, judge_all, mean_excess
from cosmogan.validation.wording import box_title, in_units, number, percent, thirds_text

# Rows of the table of bins; the JSON has all of them.
_MOST_ROWS = 40


def scores_table(groups: Sequence[Sequence[Comparison]], thresholds: Thresholds) -> str:
    """Return what is judged as a table: a row each, the boxes side by side, candidates ranked within a box.

    Parameters
    ----------
    groups
        Comparisons of each box.
    thresholds
        What is asked of the mocks.
    """
    judged = [sorted(((c, judge_all(c, thresholds)) for c in group), key=_rank) for group in groups]
    names = dict.fromkeys(name for group in judged for _, verdicts in group for name in verdicts)
    top = "".join(f'<th class="text" colspan="{len(group)}">{escape(box_title(group[0][0]))}</th>' for group in judged)
    second = "".join(f"<th>{escape(c.name)} (itself)</th>" for group in judged for c, _ in group)
    head = (
        f'<tr><th></th><th></th>{top}</tr><tr><th class="text">Difference to the simulation</th><th>asked</th>'
        f"{second}</tr>"
    )
    rows = []
    for name in names:
        one = next(verdicts[name] for group in judged for _, verdicts in group if name in verdicts)
        cells = []
        for group in judged:
            cells += [_outcome_cell(verdicts.get(name)) for _, verdicts in group]
        rows.append(
            f'<tr><td class="text">{escape(one.title)}</td><td>{in_units(one.threshold, one.units)}</td>'
            f"{''.join(cells)}</tr>"
        )
    excess = "".join(f"<td>{number(_rank(pair), figures=2)}</td>" for group in judged for pair in group)
    rows.append(f'<tr class="aside"><td class="text">times asked or itself, mean</td><td></td>{excess}</tr>')
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


def _rank(pair: tuple[Comparison, dict[str, Verdict]]) -> float:
    return mean_excess(list(pair[1].values()))


def _outcome_cell(verdict: Verdict | None) -> str:
    if verdict is None:
        return "<td>-</td>"
    # Colour is not all that tells a failure.
    mark = {"pass": "", "fail": " ✗", "inconclusive": " ?"}[verdict.outcome]
    return f'<td class="{verdict.outcome}" title="{escape(verdict.text)}">{escape(verdict.cell)}{mark}</td>'


def details_table(comparison: Comparison, thresholds: Thresholds) -> str:
    """Return the differences of one set of mocks with medians, thirds and the reason of each verdict.

    Parameters
    ----------
    comparison
        Of these mocks.
    thresholds
        What is asked of them.
    """
    verdicts = judge_all(comparison, thresholds)
    rows = []

    def add(verdict: Verdict, title: str, cells: Sequence[str]) -> None:
        rows.append(
            f'<tr><td class="text">{escape(title)}</td>'
            f'<td class="verdict {verdict.outcome}">{escape(verdict.text)}</td>'
            + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
            + "</tr>"
        )

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
            rows.append(
                f'<tr class="aside"><td class="text">{escape(name)}</td><td></td><td>{number(value, figures=2)}</td>'
                f"<td></td><td></td><td></td><td>{itself}</td><td></td><td></td></tr>"
            )
    scores = [score for entry in comparison.statistics for score in entry.scores]
    scores += [score for sample in comparison.samples for score in sample.scores]
    for score in scores:
        floor_text = "-" if score.floor is None else in_units(score.floor, score.units)
        add(
            verdicts[score.name],
            score.title,
            [in_units(score.value, score.units), "", "", "", floor_text, "", ""],
        )
    medians = "<th>median</th><th>by thirds</th><th>largest</th>"
    head = (
        '<tr><th></th><th></th><th colspan="4">mocks / simulation − 1</th><th colspan="3">simulation / itself − 1</th>'
        f'</tr><tr><th class="text">Statistic</th><th class="text">Verdict</th>{medians}<th>bins in 5%, 20%</th>'
        f"{medians}</tr>"
    )
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


def closeness_table(comparison: Comparison) -> str:
    """Return the differences over all bins: to the reference and, where they are known, to the training slices.

    Parameters
    ----------
    comparison
        Of one set of mocks.
    """
    reference = closeness(comparison.statistics, n_slices=comparison.reference.n_slices)
    training: dict[str, Closeness] = {}
    sources, columns = "", "<th>bins</th><th>median</th><th>largest</th><th>itself</th>"
    if comparison.training is not None:
        training = closeness(comparison.training_statistics, n_slices=comparison.training.n_slices)
        sources = '<th colspan="4">mean of the training slices</th>'
    rows = []
    for name, one in reference.items():
        known = _closeness_cells(training[name]) if training else []
        chi2 = number(one.chi2, figures=2)
        cells = (*known, *_closeness_cells(one), percent(one.within), chi2)
        # What counts appears under the pointer; a paragraph below the table says it, too.
        title = f'<td class="text" title="{escape(one.bins)}">{escape(one.title)}</td>'
        rows.append(f"<tr>{title}{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>")
    head = (
        f'<tr><th></th>{sources}<th colspan="6">reference</th></tr><tr><th class="text">Mocks / simulation − 1</th>'
        f"{columns if training else ''}{columns}<th>bins within 2σ</th><th>χ² per bin</th></tr>"
    )
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


def _closeness_cells(one: Closeness) -> list[str]:
    itself = f"{percent(one.floor_median)}, {percent(one.floor_maximum)}"
    return [str(one.n_bins), percent(one.median), percent(one.maximum), itself]


def paper_table(group: Sequence[Comparison]) -> str:
    """Return the paper's headline numbers beside those of the mocks.

    Parameters
    ----------
    group
        Comparisons of one of the paper's boxes.
    """
    head = _row(["", "Rodriguez et al. 2018", *(c.name for c in group)], "th")
    rows = "".join(_row([row.what, row.paper, *row.ours]) for row in paper_rows(group))
    pixels = group[0].metadata.n_pixels
    return (
        f'<div class="scroll"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'
        '<p class="soft">The paper: 256² pixels, ten boxes, unit of k not stated. '
        f"Here: {pixels}² pixels, judged bins only.</p>"
    )


def files_table(comparison: Comparison) -> str:
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
    body = "".join(
        f'<tr><th class="text">{escape(name)}</th>'
        f'<td class="wrap">{escape(a)}</td><td class="wrap">{escape(b)}</td></tr>'
        for name, a, b in rows
    )
    head = '<tr><th></th><th class="text">mocks</th><th class="text">simulation</th></tr>'
    return (
        f"<details><summary>Files: {escape(_short(comparison.mocks))} against "
        f'{escape(_short(comparison.reference))}</summary><div class="scroll"><table><thead>{head}</thead>'
        f"<tbody>{body}</tbody></table></div></details>"
    )


def _short(file: InputFile) -> str:
    name = file.path.replace("\\", "/").rsplit("/", 1)[-1]
    n = file.n_realisations
    return f"{name} ({file.n_slices:,} slices, {n} realisation{'' if n == 1 else 's'})"


def _pixels(file: InputFile) -> str:
    metadata = file.metadata
    mean = "" if metadata.mean_count is None else f", mean {metadata.mean_count:g}"
    return f"{metadata.quantity}{mean}, {metadata.assignment}"


def bins_table(comparison: Comparison, entry: StatisticComparison, *, named: bool) -> str:
    """Return the numbers of a statistic per bin.

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
        rows.append(_row(cells))
    units = f", {statistic.y_units}" if statistic.y_units else ""
    whose = f"{comparison.name}: n" if named else "N"
    more = " (a selection; all are in report.json)" if thinned else ""
    return (
        f"<details><summary>{escape(whose)}umbers per bin{escape(units)}{more}</summary>"
        f'<div class="scroll"><table><thead>{_row(head, "th")}</thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def _row(cells: Iterable[str], tag: str = "td") -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"
