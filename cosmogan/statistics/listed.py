"""The statistics that a report holds, in its order: a new one is its own file, and a line here."""

from __future__ import annotations

from cosmogan.slices import SliceMetadata
from cosmogan.statistics.base import AbstractStatistic
from cosmogan.statistics.bispectrum import EquilateralBispectrum, IsoscelesBispectrum
from cosmogan.statistics.histogram import Histogram, Tail
from cosmogan.statistics.minkowski import BoundaryLength, EulerCharacteristic
from cosmogan.statistics.peaks import Peaks, Voids
from cosmogan.statistics.power_spectrum import PowerSpectrum
from cosmogan.statistics.scattering import ScatteringElongation, ScatteringFirst, ScatteringSecond

STATISTICS: tuple[type[AbstractStatistic], ...] = (
    PowerSpectrum,
    Histogram,
    Tail,
    Peaks,
    Voids,
    BoundaryLength,
    EulerCharacteristic,
    EquilateralBispectrum,
    IsoscelesBispectrum,
    ScatteringFirst,
    ScatteringSecond,
    ScatteringElongation,
)


def default_statistics(metadata: SliceMetadata) -> tuple[AbstractStatistic, ...]:
    """Return what every report holds: all statistics that say something about such slices."""
    return tuple(one for kind in STATISTICS if (one := kind()).applies(metadata))
