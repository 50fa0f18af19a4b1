"""Logs of a run that survive its interruptions; their x axis is slices seen."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from cosmogan.errors import UserError
from cosmogan.files import replaced

# Digits that tell any two float32 numbers.
_DIGITS = 9
_PLACE = "step"


class MetricsFile(Logger):
    """Rows of ``metrics.csv`` in the run folder, each on its way to the disk as soon as it is logged.

    A resumed run continues with the file: rows beyond the slices that its checkpoint has seen are dropped, so that in
    the end the file is that of an uninterrupted run, byte for byte. (Lightning's own logger deletes the file.) Columns
    stand in the order in which they first held something; a new one is added after the others, and the file written
    again beside the old one before it takes its place.

    Parameters
    ----------
    folder
        Run folder.
    n_slices_seen
        Slices seen by the checkpoint that the run continues from; 0 for a new run, which replaces the file.
    """

    def __init__(self, folder: str | Path, *, n_slices_seen: int = 0) -> None:
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self._n_slices_seen = n_slices_seen
        self._columns: list[str] = []

    @property
    def name(self) -> str:
        """No name: rows go into the run folder itself."""
        return ""

    @property
    def version(self) -> str:
        """No version."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, *arguments: Any, **values: Any) -> None:
        """Do nothing: the settings are in ``config.yaml``."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write one row.

        Parameters
        ----------
        metrics
            Numbers by name.
        step
            Slices seen.

        Raises
        ------
        UserError
            If the file of the run to continue with is of another program.
        """
        if not self._columns:
            self._begin()
        row = {name: f"{float(value):.{_DIGITS}g}" for name, value in metrics.items()} | {_PLACE: str(step or 0)}
        # Sorted, because the order within a row depends on what was logged when.
        new = sorted(row.keys() - set(self._columns))
        if new:
            self._columns += new
            self._rewrite(_read(self.path)[1])
        with self.path.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow([row.get(name, "") for name in self._columns])

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: object) -> None:
        """See to it that rows are as safe as the checkpoint they belong to."""
        if self._columns:
            with self.path.open("a") as file:
                os.fsync(file.fileno())

    def _begin(self) -> None:
        """Make the file what it was when the checkpoint was written."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        columns, rows = _read(self.path) if self._n_slices_seen and self.path.exists() else ([_PLACE], [])
        if columns[:1] != [_PLACE]:
            raise UserError(
                f"{self.path}: expected the first column to be '{_PLACE}' (slices seen), found {columns[:1]}; this is "
                "the file of another program: move it away to continue"
            )
        rows = [row for row in rows if int(row[_PLACE]) <= self._n_slices_seen]
        # Columns that first held something beyond the checkpoint come back in their time.
        self._columns = [name for name in columns if name == _PLACE or any(row[name] for row in rows)]
        self._rewrite(rows)

    def _rewrite(self, rows: Sequence[Mapping[str, str]]) -> None:
        with replaced(self.path, durable=True) as beside, beside.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns, restval="", extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return columns and whole rows; a last line without an end was cut by a kill."""
    lines = path.read_text().splitlines(keepends=True)
    reader = csv.DictReader((line for line in lines if line.endswith("\n")), restval="")
    return list(reader.fieldnames or []), list(reader)


def run_loggers(out: str | Path, named: bool | Logger | Sequence[Logger] | None, *, n_slices_seen: int) -> list[Logger]:
    """Return the loggers of a run: always `MetricsFile`, and TensorBoard unless others are named.

    Parameters
    ----------
    out
        Run folder.
    named
        Value of ``trainer.logger`` in the recipe; False for none but the file.
    n_slices_seen
        Slices seen by the checkpoint that the run continues from; 0 for a new run.
    """
    if named is None or named is True:
        # Events of an earlier run in this folder, or of what is now done again, are hidden.
        purge = n_slices_seen + 1 if n_slices_seen else 0
        others: list[Logger] = [TensorBoardLogger(out, name="", version="", purge_step=purge)]
    elif named is False:
        others = []
    else:
        others = [named] if isinstance(named, Logger) else list(named)
    return [MetricsFile(out, n_slices_seen=n_slices_seen), *others]
