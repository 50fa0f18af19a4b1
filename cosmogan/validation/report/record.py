"""A comparison as plain JSON values: every number, its units and the versions of the software."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np

from cosmogan.validation.closeness import closeness
from cosmogan.validation.comparison import Comparison, InputFile, StatisticComparison
from cosmogan.validation.score import SampleComparison
from cosmogan.validation.sets.correlation import CorrelationComparison
from cosmogan.validation.summary import Summary
from cosmogan.validation.thresholds import Thresholds
from cosmogan.validation.verdict import Verdict, judge_all, mean_excess, worst_outcome
from cosmogan.validation.wording import box_title, judged_range

REPORT_FORMAT = "cosmogan-report"
REPORT_VERSION = 2
_PACKAGES = ("cosmogan", "torch", "numpy", "scipy", "h5py", "matplotlib")
# Correlations are noisy at the second decimal; more than these would only swell the file.
_CORRELATION_DECIMALS = 5


def to_record(comparisons: Sequence[Comparison], thresholds: Thresholds) -> dict[str, Any]:
    """Return everything in the comparisons as plain JSON values; NaN and infinity become None.

    Parameters
    ----------
    comparisons
        One per set of mocks and box.
    thresholds
        Thresholds that the mocks are judged by.
    """
    record = {
        "format": REPORT_FORMAT,
        "format_version": REPORT_VERSION,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "software": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
        "thresholds": {"significance": thresholds.significance} | dict(thresholds.largest),
        "errors": "one standard deviation of the mean",
        "comparisons": [_comparison_record(comparison, thresholds) for comparison in comparisons],
    }
    plain: dict[str, Any] = _plain(record)
    return plain


def _file_record(file: InputFile) -> dict[str, Any]:
    return asdict(file) | {"metadata": file.metadata.to_dict()}


def _summary_record(summary: Summary | None) -> dict[str, Any] | None:
    return None if summary is None else asdict(summary)


def _comparison_record(comparison: Comparison, thresholds: Thresholds) -> dict[str, Any]:
    verdicts = judge_all(comparison, thresholds)
    return {
        "candidate": comparison.name,
        "title": box_title(comparison),
        "mocks": _file_record(comparison.mocks),
        "reference": _file_record(comparison.reference),
        "floor_file": None if comparison.floor_file is None else _file_record(comparison.floor_file),
        "training": None if comparison.training is None else _file_record(comparison.training),
        "notes": list(comparison.notes),
        "verdict": worst_outcome(list(verdicts.values())),
        "mean_excess": mean_excess(list(verdicts.values())),
        "verdicts": {name: _verdict_record(verdict) for name, verdict in verdicts.items()},
        "statistics": {entry.statistic.name: _statistic_record(comparison, entry) for entry in comparison.statistics},
        "closeness": _closeness_record(comparison),
        "samples": {sample.name: _sample_record(sample) for sample in comparison.samples},
    }


def _closeness_record(comparison: Comparison) -> dict[str, Any]:
    record = {"reference": closeness(comparison.statistics, n_slices=comparison.reference.n_slices)}
    if comparison.training is not None:
        record["training"] = closeness(comparison.training_statistics, n_slices=comparison.training.n_slices)
    return {against: {name: asdict(one) for name, one in found.items()} for against, found in record.items()}


def _verdict_record(verdict: Verdict) -> dict[str, Any]:
    return asdict(verdict) | {"text": verdict.text, "excess": verdict.excess}


def _sample_record(sample: SampleComparison) -> dict[str, Any]:
    return asdict(sample)


def _statistic_record(comparison: Comparison, entry: StatisticComparison) -> dict[str, Any]:
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
        "floor_sets": entry.floor_sets,
        "summary": _summary_record(entry.summary),
        "floor_summary": _summary_record(entry.floor_summary),
        "correlation": None if entry.correlation is None else _correlation_record(entry.correlation),
        "coherence": None if entry.coherence is None else asdict(entry.coherence),
        "forecast": None if entry.forecast is None else asdict(entry.forecast),
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
