"""The report as one HTML page that needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

from cosmogan.units import format_length
from cosmogan.validation.coherence import CoherenceComparison
from cosmogan.validation.comparison import Comparison, InputFile, StatisticComparison
from cosmogan.validation.correlation import CorrelationComparison
from cosmogan.validation.verdict import judge
from cosmogan.validation.wording import box_title, judged_range, number, percent, thirds_text

# Rows of the table of bins; the JSON has all of them.
_MOST_ROWS = 40


def render_page(
    comparisons: Sequence[Comparison],
    record: Mapping[str, Any],
    figures: Mapping[str, bytes],
    *,
    threshold: float,
) -> str:
    """Return the page, figures inlined.

    Parameters
    ----------
    comparisons
        One per pair of files.
    record
        As written to ``report.json``, with the file names of the figures.
    figures
        PNG images by file name.
    threshold
        As for `judge`.
    """
    template = Template(files("cosmogan.validation").joinpath("report.html").read_text(encoding="utf-8"))
    software = ", ".join(f"{name} {version}" for name, version in record["software"].items())
    pairs = [
        _pair(comparison, names, figures) for comparison, names in zip(comparisons, record["figures"], strict=True)
    ]
    return template.substitute(
        title="Mock slices against simulation",
        version=record["software"]["cosmogan"],
        date=record["date"].replace("T", " ").replace("+00:00", " UTC"),
        n_columns=str(min(2, len(comparisons))),
        summary=_summary_table(comparisons, threshold),
        reading=_reading(comparisons, threshold),
        pairs="\n".join(pairs),
        software=escape(f"Made with {software}. All numbers: report.json beside this page."),
    )


def _summary_table(comparisons: Sequence[Comparison], threshold: float) -> str:
    rows = []
    for comparison in comparisons:
        rows.append(f'<tr class="box"><th class="text" colspan="9">{escape(box_title(comparison))}</th></tr>')
        for entry in comparison.statistics:
            s, floor = entry.summary, entry.floor_summary
            verdict = judge(entry, threshold=threshold)
            cells = [
                percent(s.median),
                thirds_text(s),
                percent(s.maximum),
                f"{s.within_5_percent}, {s.within_20_percent} of {s.n_bins}",
                "-" if floor is None else percent(floor.median),
                thirds_text(floor),
                "-" if floor is None else percent(floor.maximum),
            ]
            rows.append(
                f'<tr><td class="text">{escape(entry.statistic.title)}</td>'
                f'<td class="verdict {verdict.outcome}">{escape(verdict.text)}</td>'
                + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
                + "</tr>"
            )
            units = entry.statistic.distance_units
            for name, value in s.distances.items():
                text = f"{name}, {units}" if units else name
                ours = number(value, figures=2)
                itself = "-" if floor is None else number(floor.distances[name], figures=2)
                rows.append(
                    f'<tr class="aside"><td class="text">{escape(text)}</td><td></td><td>{ours}</td>'
                    f"<td></td><td></td><td></td><td>{itself}</td><td></td><td></td></tr>"
                )
    medians = "<th>median</th><th>by thirds</th><th>largest</th>"
    head = (
        '<tr><th></th><th></th><th colspan="4">mocks / simulation − 1</th><th colspan="3">simulation / itself − 1</th>'
        f'</tr><tr><th class="text">Statistic</th><th class="text">Verdict</th>{medians}<th>bins in 5%, 20%</th>'
        f"{medians}</tr>"
    )
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


def _reading(comparisons: Sequence[Comparison], threshold: float) -> str:
    ranges = {judged_range(c, e): f"{e.statistic.title}, {box_title(c)}" for c in comparisons for e in c.statistics}
    judged = "".join(f"<li>{escape(where)}: {escape(text)}</li>" for text, where in ranges.items())
    return (
        '<p class="soft">Medians and largest values are of the absolute difference over the judged bins; the thirds '
        "are of their range in ln x: large, middle and small scales of a power spectrum. “Simulation / itself” is half "
        "of the simulation's realisations against the other half, rms over splits: what two simulation runs of half "
        "the size disagree by. Perfect mocks without noise of their own would show half of it. A statistic passes when "
        f"in every third its median is at most {percent(threshold)} or at most the simulation's own median there; "
        "sigmas beside a failure say how much it means. Numbers in grey below a row do not enter its verdict.</p>"
        f'<details><summary>Judged bins</summary><ul class="soft">{judged}</ul></details>'
    )


def _pair(comparison: Comparison, names: Mapping[str, str], figures: Mapping[str, bytes]) -> str:
    parts = [f"<section><h2>{escape(box_title(comparison))}</h2>", _inputs(comparison)]
    if comparison.notes:
        parts.append('<ul class="notes">' + "".join(f"<li>{escape(note)}</li>" for note in comparison.notes) + "</ul>")
    slices = "Slices of the simulation (above) and mocks (below) in one colour scale, drawn at random."
    parts.append(_figure(figures[names["slices"]], slices))
    for entry in comparison.statistics:
        parts.append(f"<h3>{escape(entry.statistic.title)}</h3>")
        parts.append(_figure(figures[names[entry.statistic.name]], _caption(entry)))
        if entry.correlation is not None:
            png = figures[names[f"{entry.statistic.name}_correlation"]]
            parts.append(_figure(png, _correlation_caption(entry.correlation)))
        if entry.coherence is not None:
            png = figures[names[f"{entry.statistic.name}_coherence"]]
            parts.append(_figure(png, _coherence_caption(entry.coherence)))
        parts.append(_bins_table(comparison, entry))
    parts.append("</section>")
    return "\n".join(parts)


def _figure(png: bytes, caption: str) -> str:
    data = base64.b64encode(png).decode("ascii")
    text = escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'


def _caption(entry: StatisticComparison) -> str:
    sources = {"realisations": "between realisations", "slices": "between slices, taken as independent"}
    text = (
        f"Bands: one standard deviation of the mean ({sources[entry.reference_error_from]} for the simulation, "
        f"{sources[entry.mocks_error_from]} for the mocks)."
    )
    if entry.floor is not None:
        text += " Grey: the simulation against itself."
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


def _inputs(comparison: Comparison) -> str:
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


def _bins_table(comparison: Comparison, entry: StatisticComparison) -> str:
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
    more = " (a selection; all are in report.json)" if thinned else ""
    return (
        f"<details><summary>Numbers per bin{escape(units)}{more}</summary>"
        f'<div class="scroll"><table><thead>{_row(head, "th")}</thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def _row(cells: Iterable[str], tag: str = "td") -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"
