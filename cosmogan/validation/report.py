"""Write comparisons down: JSON with every number, figures, one HTML page, and a table for the terminal."""

from __future__ import annotations

import json
import math
import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from cosmogan.errors import UserError
from cosmogan.validation.comparison import Comparison, InputFile, StatisticComparison, Summary
from cosmogan.validation.correlation import CorrelationComparison
from cosmogan.validation.figures import draw_coherence, draw_correlation, draw_slices, draw_statistic
from cosmogan.validation.page import render_page
from cosmogan.validation.verdict import judge
from cosmogan.validation.wording import box_title, judged_range, number, percent, short_box, thirds_text

REPORT_FORMAT = "cosmogan-report"
REPORT_VERSION = 1
_PACKAGES = ("cosmogan", "torch", "numpy", "scipy", "h5py", "matplotlib")
# Correlations are noisy at the second decimal; more than these would only swell the file.
_CORRELATION_DECIMALS = 5


def require_report_folder(out: Path | str, *, overwrite: bool = False) -> None:
    """Refuse a folder that a report must not replace.

    Parameters
    ----------
    out
        Folder to write.
    overwrite
        Whether an earlier report may be replaced; nothing else ever is.

    Raises
    ------
    UserError
        If ``out`` is a file, holds a report and ``overwrite`` is false, or holds anything but a report.
    """
    out = Path(out)
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out}: is a file; expected the name of a folder for the report")
    held = sorted(path.name for path in out.iterdir())
    foreign = [name for name in held if name not in ("report.json", "index.html") and not name.endswith(".png")]
    if foreign or (held and "report.json" not in held):
        name = (foreign or held)[0]
        raise UserError(f"{out}: holds {name}, which is not part of a report; choose another or a new folder")
    if held and not overwrite:
        raise UserError(f"{out}: holds a report already; choose another folder or add --overwrite")


def write_report(
    comparisons: Sequence[Comparison], out: Path | str, *, overwrite: bool = False, threshold: float = 0.05
) -> Path:
    """Write ``report.json``, ``index.html`` and the figures; the folder appears only when all of it is there.

    Parameters
    ----------
    comparisons
        One per pair of files, side by side in the report.
    out
        Folder to write.
    overwrite
        Whether an earlier report may be replaced.
    threshold
        Relative difference that passes even where the simulation agrees better with itself; see `judge`.

    Returns
    -------
        Path of ``index.html``.

    Raises
    ------
    UserError
        As `require_report_folder`, or if the folder cannot be written.
    ValueError
        If there are no comparisons.
    """
    if not comparisons:
        raise ValueError("comparisons: expected at least one")
    out = Path(out)
    require_report_folder(out, overwrite=overwrite)
    figures: dict[str, bytes] = {}
    names: list[dict[str, str]] = []
    for place, comparison in enumerate(comparisons, start=1):
        label = f"{place}_{short_box(comparison)}".replace(" ", "").replace("/", "-per-")
        own = {"slices": f"slices_{label}.png"}
        figures[own["slices"]] = draw_slices(comparison)
        for entry in comparison.statistics:
            own[entry.statistic.name] = f"{entry.statistic.name}_{label}.png"
            figures[own[entry.statistic.name]] = draw_statistic(comparison, entry)
            if entry.coherence is not None:
                name = f"{entry.statistic.name}_coherence"
                own[name] = f"{name}_{label}.png"
                figures[own[name]] = draw_coherence(comparison, entry, entry.coherence)
            if entry.correlation is not None:
                name = f"{entry.statistic.name}_correlation"
                own[name] = f"{name}_{label}.png"
                figures[own[name]] = draw_correlation(comparison, entry, entry.correlation)
        names.append(own)
    record = to_record(comparisons, threshold=threshold) | {"figures": names}
    page = render_page(comparisons, record, figures, threshold=threshold)
    partial = out.with_name(out.name + ".part")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, png in figures.items():
            (partial / name).write_bytes(png)
        (partial / "report.json").write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        (partial / "index.html").write_text(page, encoding="utf-8")
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    except OSError as error:
        raise UserError(f"{out}: the report cannot be written ({error.strerror or error})") from None
    return out / "index.html"


def to_record(comparisons: Sequence[Comparison], *, threshold: float = 0.05) -> dict[str, Any]:
    """Return everything in the comparisons as plain JSON values; NaN and infinity become None.

    Parameters
    ----------
    comparisons
        One per pair of files.
    threshold
        As for `write_report`.
    """
    record = {
        "format": REPORT_FORMAT,
        "format_version": REPORT_VERSION,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "software": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
        "threshold": threshold,
        "errors": "one standard deviation of the mean",
        "comparisons": [
            {
                "title": box_title(comparison),
                "mocks": _file_record(comparison.mocks),
                "reference": _file_record(comparison.reference),
                "notes": list(comparison.notes),
                "statistics": {
                    entry.statistic.name: _statistic_record(comparison, entry, threshold)
                    for entry in comparison.statistics
                },
            }
            for comparison in comparisons
        ],
    }
    plain: dict[str, Any] = _plain(record)
    return plain


def format_table(comparisons: Sequence[Comparison], *, threshold: float = 0.05) -> str:
    """Return a table for the terminal, one row per box and statistic.

    Beside each number of the mocks against the simulation stands the same number of the simulation against itself.

    Parameters
    ----------
    comparisons
        One per pair of files.
    threshold
        As for `write_report`.
    """
    medians = ("median", "by thirds of range", "largest")
    head = ("box", "statistic", *medians, "in 5%", "in 20%", *medians, "verdict")
    rows: list[tuple[str, ...]] = [head]
    for comparison in comparisons:
        for entry in comparison.statistics:
            s, floor = entry.summary, entry.floor_summary
            rows.append(
                (
                    f"{short_box(comparison)}, {comparison.metadata.n_pixels}²",
                    entry.statistic.title,
                    percent(s.median),
                    thirds_text(s),
                    percent(s.maximum),
                    f"{s.within_5_percent}/{s.n_bins}",
                    f"{s.within_20_percent}/{s.n_bins}",
                    "-" if floor is None else percent(floor.median),
                    thirds_text(floor),
                    "-" if floor is None else percent(floor.maximum),
                    judge(entry, threshold=threshold).text,
                )
            )
            for name, value in s.distances.items():
                itself = "-" if floor is None else number(floor.distances[name], figures=2)
                rows.append(("", f"  {name}", number(value, figures=2), "", "", "", "", itself, "", "", ""))
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    left = (0, 1, 10)

    def line(row: tuple[str, ...]) -> str:
        cells = [c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        return "  ".join(cells).rstrip()

    between = sum(widths[:2]) + 4
    heading = "mocks/simulation - 1".center(sum(widths[2:7]) + 8) + "  " + "itself".center(sum(widths[7:10]) + 4)
    lines = [(" " * between + heading).rstrip(), *(line(row) for row in rows), ""]
    lines.append(
        "itself: half of the simulation's realisations against the other half, rms over splits. Divergences D in nats."
    )
    lines.append(
        "Indented numbers do not enter the verdict; correlation, variance and coherence are of P(k) of single slices."
    )
    for comparison in comparisons:
        title = box_title(comparison)
        lines += [f"{title}: {e.statistic.title}, {judged_range(comparison, e)}." for e in comparison.statistics]
        lines += [f"{title}: {note}" for note in comparison.notes]
    return "\n".join(lines)


def _file_record(file: InputFile) -> dict[str, Any]:
    return asdict(file) | {"metadata": file.metadata.to_dict()}


def _summary_record(summary: Summary | None) -> dict[str, Any] | None:
    return None if summary is None else asdict(summary)


def _statistic_record(comparison: Comparison, entry: StatisticComparison, threshold: float) -> dict[str, Any]:
    statistic = entry.statistic
    h = comparison.metadata.cosmology.h
    record: dict[str, Any] = {
        "title": statistic.title,
        "x_units": statistic.x_units,
        "y_units": statistic.y_units,
        "edges": entry.edges,
        "x": entry.x,
    }
    if statistic.x_units == "h/Mpc" and h is not None:
        record |= {"x_in_inverse_Mpc": entry.x * h}
    floor = entry.floor
    return record | {
        "n_modes": entry.n_modes,
        "judged": entry.judged,
        "judged_range": judged_range(comparison, entry),
        "mocks": entry.mocks,
        "reference": entry.reference,
        "mocks_scatter": entry.mocks_scatter,
        "reference_scatter": entry.reference_scatter,
        "mocks_error": entry.mocks_error,
        "mocks_error_from": entry.mocks_error_from,
        "reference_error": entry.reference_error,
        "reference_error_from": entry.reference_error_from,
        "ratio": entry.ratio,
        "sigmas": entry.sigmas,
        "floor": floor,
        "ratio_over_floor": None if floor is None else entry.ratio / np.where(floor > 0, floor, np.nan),
        "floor_n_splits": entry.n_splits,
        "floor_full_over_half": entry.full_over_half,
        "summary": _summary_record(entry.summary),
        "floor_summary": _summary_record(entry.floor_summary),
        "correlation": None if entry.correlation is None else _correlation_record(entry.correlation),
        "coherence": None if entry.coherence is None else asdict(entry.coherence),
        "verdict": asdict(judge(entry, threshold=threshold)),
    }


def _correlation_record(correlation: CorrelationComparison) -> dict[str, Any]:
    record = asdict(correlation)
    return record | {name: np.round(record[name], _CORRELATION_DECIMALS) for name in ("mocks", "reference")}


def _plain(value: Any) -> Any:
    """Return JSON values: lists for arrays, None for NaN and infinity, text for what JSON does not know."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
