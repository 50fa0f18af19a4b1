"""The slice file, version 1: the one format that N-body slices and mock slices share.

Layout (HDF5): attributes on ``/`` say what a pixel is (`SliceMetadata`), ``/cosmology`` and ``/provenance`` are groups
of attributes, ``/slices`` holds the images, ``/realisation``, ``/axis``, ``/position`` one label per slice and
``/conditions``, where there is one, parameters of the simulation per slice. Written by `SliceWriter`, read by
`SliceReader`, checked by `check_slices`, and by nothing else.
"""

from cosmogan.slices.check import check_slices, describe_slices, pixel_problem
from cosmogan.slices.layout import AXIS_NOT_APPLICABLE, FORMAT, FORMAT_VERSION
from cosmogan.slices.metadata import ASSIGNMENTS, SliceMetadata
from cosmogan.slices.reader import SliceReader, SliceSet, density_from_counts, read_provenance, read_slices
from cosmogan.slices.writer import SliceWriter, require_absent, write_example, write_slices

__all__ = [
    "ASSIGNMENTS",
    "AXIS_NOT_APPLICABLE",
    "FORMAT",
    "FORMAT_VERSION",
    "SliceMetadata",
    "SliceReader",
    "SliceSet",
    "SliceWriter",
    "check_slices",
    "density_from_counts",
    "describe_slices",
    "pixel_problem",
    "read_provenance",
    "read_slices",
    "require_absent",
    "write_example",
    "write_slices",
]
