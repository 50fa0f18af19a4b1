"""Parameters of a simulation that networks are told, in the numbers that networks like."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from cosmogan.errors import UserError
from cosmogan.slices import SliceReader


@dataclass(frozen=True)
class Condition:
    """A parameter and its distribution over the training slices.

    Parameters
    ----------
    name
        Name in ``/conditions`` of the slice file.
    mean, scale
        Mean and standard deviation over the training slices; networks see ``(value - mean) / scale``.
    low, high
        Range over the training slices; beyond it a network extrapolates.
    units
        Empty for a dimensionless parameter.
    """

    name: str
    mean: float
    scale: float
    low: float
    high: float
    units: str = ""


class Conditions:
    """The parameters that the networks of a run are told, in their order.

    Parameters
    ----------
    columns
        One for each parameter.
    """

    def __init__(self, columns: Sequence[Condition]) -> None:
        self.columns = tuple(columns)

    def __len__(self) -> int:
        return len(self.columns)

    def __repr__(self) -> str:
        ranges = [f"{c.name}: {c.low:g} to {c.high:g} {c.units}".strip() for c in self.columns]
        return f"Conditions({', '.join(ranges)})"

    @classmethod
    def measured(cls, reader: SliceReader, names: Sequence[str], rows: np.ndarray) -> Conditions:
        """Take mean, standard deviation and range from the slices ``rows`` of a file.

        Raises
        ------
        UserError
            If the file has no such parameter, or one that does not vary.
        """
        columns = []
        for name in names:
            if name not in reader.conditions:
                known = ", ".join(reader.conditions) or "none"
                raise UserError(f"{reader.path}: data.conditions: no {name!r} in /conditions; found: {known}")
            values = reader.conditions[name][rows]
            low, high = float(values.min()), float(values.max())
            if not low < high:
                raise UserError(
                    f"{reader.path}: data.conditions: {name!r} is {low:g} in all training slices, so that networks "
                    "cannot learn what it does; leave it out or add realisations with other values"
                )
            units = reader.condition_units.get(name, "")
            columns.append(Condition(name, float(values.mean()), float(values.std()), low, high, units))
        return cls(columns)

    def standardised(self, values: Mapping[str, np.ndarray | float]) -> Tensor:
        """Return what networks see of the parameters, float32, shape ``(n, n_conditions)``.

        Parameters
        ----------
        values
            Values by name, in the units of the file, each of shape ``(n,)`` or a number.

        Raises
        ------
        UserError
            If one is missing.
        """
        missing = [column.name for column in self.columns if column.name not in values]
        if missing:
            names = ", ".join(column.name for column in self.columns)
            raise UserError(f"conditions: no value for {missing[0]!r}; expected {names}")
        standard = [(np.atleast_1d(values[column.name]) - column.mean) / column.scale for column in self.columns]
        return torch.from_numpy(np.stack(np.broadcast_arrays(*standard), 1).astype(np.float32))

    def to_list(self) -> list[dict[str, float | str]]:
        """Return plain numbers and strings, as JSON takes them; the inverse of `from_list`."""
        return [asdict(column) for column in self.columns]

    @classmethod
    def from_list(cls, columns: Sequence[Mapping[str, float | str]]) -> Conditions:
        """Build from the result of `to_list`."""
        return cls([Condition(**column) for column in columns])  # type: ignore[arg-type]


def parse_conditions(text: str) -> dict[str, float]:
    """Return names and values of ``NAME=VALUE,NAME=VALUE``.

    Raises
    ------
    UserError
        If the text is something else.

    Examples
    --------
    >>> parse_conditions("Omega_m=0.3, sigma_8=0.8")
    {'Omega_m': 0.3, 'sigma_8': 0.8}
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not name.strip() or not math.isfinite(number) or name.strip() in found:
            raise UserError(f"--conditions: expected NAME=VALUE,NAME=VALUE with a number each, found {text!r}")
        found[name.strip()] = number
    return found
