"""Write comparisons down: JSON with every number, figures, and one HTML page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from cosmogan.errors import UserError
from cosmogan.validation.comparison import Comparison, by_reference
from cosmogan.validation.report.figures import (
    Drawing,
    draw_coherence,
    draw_sample,
    draw_slices,
    draw_statistic,
)
from cosmogan.validation.report.matrices import draw_correlation
from cosmogan.validation.report.page import render_page
from cosmogan.validation.report.paper import draw_paper, is_of_the_paper
from cosmogan.validation.report.record import to_record
from cosmogan.validation.thresholds import Thresholds
from cosmogan.validation.wording import short_box


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
    foreign = [
        name for name in held if name not in ("report.json", "index.html") and not name.endswith((".png", ".pdf"))
    ]
    if foreign or (held and "report.json" not in held):
        name = (foreign or held)[0]
        raise UserError(f"{out}: holds {name}, which is not part of a report; choose another or a new folder")
    if held and not overwrite:
        raise UserError(f"{out}: holds a report already; choose another folder or add --overwrite")


def write_report(
    comparisons: Sequence[Comparison], out: Path | str, thresholds: Thresholds, *, overwrite: bool = False
) -> Path:
    """Write ``report.json``, ``index.html`` and the figures; the folder appears only when all of it is there.

    Figures are PNG, as on the page, and PDF for papers.

    Parameters
    ----------
    comparisons
        One per set of mocks and box; those with the same reference share their figures.
    out
        Folder to write.
    thresholds
        Thresholds that the mocks are judged by.
    overwrite
        Whether an earlier report may be replaced.

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
    figures = [_draw(group) for group in by_reference(comparisons)]
    labels = [f"{i}_{short_box(group[0])}" for i, group in enumerate(by_reference(comparisons), start=1)]
    labels = [label.replace(" ", "").replace("/", "-per-") for label in labels]
    record = to_record(comparisons, thresholds)
    record["figures"] = [
        [f"{name}_{label}.png" for name in drawn] for label, drawn in zip(labels, figures, strict=True)
    ]
    page = render_page(comparisons, record, figures, thresholds)
    partial = out.with_name(out.name + ".part")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for label, drawn in zip(labels, figures, strict=True):
            for name, drawing in drawn.items():
                (partial / f"{name}_{label}.png").write_bytes(drawing.png)
                (partial / f"{name}_{label}.pdf").write_bytes(drawing.pdf)
        (partial / "report.json").write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        (partial / "index.html").write_text(page, encoding="utf-8")
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    except OSError as error:
        raise UserError(f"{out}: the report cannot be written ({error.strerror or error})") from None
    return out / "index.html"


def _draw(group: Sequence[Comparison]) -> dict[str, Drawing]:
    """Return the figures of one box by name, in the order of the page."""
    figures = {"slices": draw_slices(group)}
    for entry in group[0].statistics:
        name = entry.statistic.name
        figures[name] = draw_statistic(group, name)
        for place, comparison in enumerate(group):
            (own,) = (e for e in comparison.statistics if e.statistic.name == name)
            if own.correlation is not None:
                suffix = f"_{place}" if len(group) > 1 else ""
                figures[f"{name}_correlation{suffix}"] = draw_correlation(comparison, own, own.correlation)
        if entry.coherence is not None:
            figures[f"{name}_coherence"] = draw_coherence(group, name)
    for name in dict.fromkeys(sample.name for comparison in group for sample in comparison.samples):
        figures[name] = draw_sample(group, name)
    if is_of_the_paper(group[0]):
        figures["rodriguez2018"] = draw_paper(group)
    return figures
