"""How large a difference may be: the file of thresholds that a verdict is measured against."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import yaml

from cosmogan.errors import UserError
from cosmogan.settings_file import read_settings
from cosmogan.statistics.listed import STATISTICS

_SIGNIFICANCE = "significance"
# Stood in earlier copies of thresholds.yaml, where nothing was judged by it.
_RETIRED = "area"


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What is asked of mocks.

    Parameters
    ----------
    significance
        Standard deviations that a difference must have to count.
    largest
        Difference always allowed, by name of a statistic or score.
    """

    significance: float
    largest: Mapping[str, float]

    def of(self, name: str) -> float:
        """Return the difference always allowed in a statistic; 0 for one that the file does not name."""
        return self.largest.get(name, 0.0)


def load_thresholds(path: str | Path | None = None) -> Thresholds:
    """Read thresholds from a YAML file of names and numbers.

    Parameters
    ----------
    path
        A file that replaces some of those of the statistics and of ``thresholds.yaml`` beside this module; None for
        these.

    Raises
    ------
    UserError
        If the file cannot be read, names something unknown, or holds anything but numbers >= 0.
    """
    shipped = files("cosmogan.validation").joinpath("thresholds.yaml").read_text(encoding="utf-8")
    values = {kind.name: kind.threshold for kind in STATISTICS} | yaml.safe_load(shipped)
    if path is not None:
        values |= _read(Path(path), known=list(values))
    significance = values.pop(_SIGNIFICANCE)
    return Thresholds(significance=significance, largest=values)


def _read(path: Path, *, known: list[str]) -> dict[str, float]:
    held = read_settings(path, expected="lines such as 'power_spectrum: 0.03'")
    held.pop(_RETIRED, None)
    for name, value in held.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise UserError(f"{path}: {name} is not a threshold; {hint}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise UserError(f"{path}: {name}: expected a number >= 0, found {value!r}")
    return {name: float(value) for name, value in held.items()}
