"""The report's numbers as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from cosmogan.validation.closeness import closeness
from cosmogan.validation.comparison import Comparison, StatisticComparison, by_reference
from cosmogan.validation.score import Score
from cosmogan.validation.thresholds import Thresholds
from cosmogan.validation.verdict import Verdict, judge_all, mean_excess, worst_outcome
from cosmogan.validation.wording import box_title, in_units, judged_range, number, percent, short_box, thirds_text

_MARKS = {"pass": "", "fail": " FAIL", "inconclusive": " ?"}


def format_table(comparisons: Sequence[Comparison], thresholds: Thresholds) -> str:
    """Return a table for the terminal: a row per statistic, and where mocks compete, a column per candidate.

    Beside each number of the mocks against the simulation stands the same number of the simulation against itself.

    Parameters
    ----------
    comparisons
        One per set of mocks and box.
    thresholds
        Thresholds that the mocks are judged by.
    """
    groups = by_reference(comparisons)
    alone = [group[0] for group in groups if len(group) == 1]
    lines = _detailed(alone, thresholds) if alone else []
    for group in groups:
        if len(group) > 1:
            lines += [*([""] if lines else []), *_ranked(group, thresholds)]
    lines.append("")
    for group in groups:
        for comparison in group:
            verdicts = list(judge_all(comparison, thresholds).values())
            passed = f"{sum(verdict.passed for verdict in verdicts)} of {len(verdicts)} pass"
            lines.append(f"{comparison.name}, {box_title(comparison)}: {worst_outcome(verdicts)}, {passed}")
    lines.append(
        "itself, or in brackets: disjoint sets of the simulation's realisations against each other. Beyond that and "
        f"its threshold, a difference of {thresholds.significance:g} sigmas (σ) fails."
    )
    lines += [_training_line(comparison) for group in groups for comparison in group if comparison.training is not None]
    for group in groups:
        title = box_title(group[0])
        lines += [f"{title}: {e.statistic.title}, {judged_range(group[0], e)}." for e in group[0].statistics]
        for comparison in group:
            lines += [f"{title}, {comparison.name}: {note}" for note in comparison.notes]
    return "\n".join(lines)


def _training_line(comparison: Comparison) -> str:
    """Return in a line how far mocks are from the mean of the slices that they were learnt from."""
    assert comparison.training is not None
    found = closeness(comparison.training_statistics, n_slices=comparison.training.n_slices)
    numbers = "; ".join(f"{one.title} {percent(one.median)}, {percent(one.maximum)}" for one in found.values())
    return (
        f"{comparison.name}, {box_title(comparison)}, against the mean of its training slices (median, largest bin; "
        f"not judged): {numbers}."
    )


def _detailed(comparisons: Sequence[Comparison], thresholds: Thresholds) -> list[str]:
    medians = ("median", "by thirds of range", "largest")
    head = ("box", "statistic", *medians, "in 5%", "in 20%", *medians, "verdict")
    rows: list[tuple[str, ...]] = [head]
    for comparison in comparisons:
        verdicts = judge_all(comparison, thresholds)
        box = f"{short_box(comparison)}, {comparison.metadata.n_pixels}²"
        for entry in comparison.statistics:
            rows += _statistic_rows(box, entry, verdicts[entry.statistic.name])
            rows += [_score_row(box, score, verdicts[score.name]) for score in entry.scores]
        rows += [
            _score_row(box, score, verdicts[score.name]) for sample in comparison.samples for score in sample.scores
        ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    between = sum(widths[:2]) + 4
    heading = "mocks/simulation - 1".center(sum(widths[2:7]) + 8) + "  " + "itself".center(sum(widths[7:10]) + 4)
    return [(" " * between + heading).rstrip(), *_aligned(rows, left=(0, 1, 10))]


def _statistic_rows(box: str, entry: StatisticComparison, verdict: Verdict) -> list[tuple[str, ...]]:
    s, floor = entry.summary, entry.floor_summary
    rows: list[tuple[str, ...]] = [
        (
            box,
            entry.statistic.title,
            percent(s.median),
            thirds_text(s),
            percent(s.maximum),
            f"{s.within_5_percent}/{s.n_bins}",
            f"{s.within_20_percent}/{s.n_bins}",
            "-" if floor is None else percent(floor.median),
            thirds_text(floor),
            "-" if floor is None else percent(floor.maximum),
            verdict.text,
        )
    ]
    for name, value in s.distances.items():
        itself = "-" if floor is None else number(floor.distances[name], figures=2)
        rows.append(("", f"  {name}", number(value, figures=2), "", "", "", "", itself, "", "", ""))
    return rows


def _score_row(box: str, score: Score, verdict: Verdict) -> tuple[str, ...]:
    floor = "-" if score.floor is None else in_units(score.floor, score.units)
    return (box, score.title, in_units(score.value, score.units), "", "", "", "", floor, "", "", verdict.text)


def _ranked(group: Sequence[Comparison], thresholds: Thresholds) -> list[str]:
    judged = [(comparison, judge_all(comparison, thresholds)) for comparison in group]
    judged.sort(key=lambda pair: mean_excess(list(pair[1].values())))
    names = list(dict.fromkeys(name for _, verdicts in judged for name in verdicts))
    rows: list[tuple[str, ...]] = [(box_title(group[0]), "asked", *(c.name for c, _ in judged))]
    for name in names:
        held = [verdicts.get(name) for _, verdicts in judged]
        one = next(verdict for verdict in held if verdict is not None)
        cells = ("-" if v is None else v.cell + _MARKS[v.outcome] for v in held)
        rows.append((one.title, in_units(one.threshold, one.units), *cells))
    excesses = (number(mean_excess(list(verdicts.values())), figures=2) for _, verdicts in judged)
    rows.append(("times asked or itself, mean over rows", "", *excesses))
    return _aligned(rows, left=(0,))


def _aligned(rows: Sequence[tuple[str, ...]], *, left: tuple[int, ...]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
