"""Reading slice files, in pieces or whole."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cosmogan.errors import UserError
from cosmogan.hdf5 import open_file, require_filters
from cosmogan.slices.layout import (
    CHECKSUM_SIZE,
    CHECKSUMS,
    CONDITION_DTYPE,
    DTYPES,
    FORMAT,
    FORMAT_VERSION,
    LABELS,
    checksums,
)
from cosmogan.slices.metadata import SliceMetadata
from cosmogan.slices.virtual import allow_parts, missing_parts, part_of
from cosmogan.text import os_reason
from cosmogan.units import Cosmology

# Slices read at a time when a whole file is streamed: 64 MB at 256 x 256 float32.
_BLOCK = 256
_DAMAGED = (
    "{path}: slice {number} is not what was written: its SHA-256 differs from that in /"
    + CHECKSUMS
    + "; copy or write the file again"
)


@dataclass(frozen=True)
class SliceSet:
    """Slices in memory with their labels.

    Parameters
    ----------
    slices
        Shape ``(n, n_pixels, n_pixels)``, in the file's quantity.
    realisation
        Shape ``(n,)``: the simulation (or emulator seed) each slice comes from.
    axis
        Shape ``(n,)``: 0, 1, 2, the axis the slab is normal to; 255 = not applicable.
    position
        Shape ``(n,)``: lower edge of the slab along its axis, Mpc/h; NaN = not applicable.
    metadata
        Metadata of the slices.
    conditions
        Parameters of the simulation each slice comes from, by name, each of shape ``(n,)``; empty where the file has
        none.
    condition_units
        Their units; no entry for dimensionless ones.
    """

    slices: np.ndarray
    realisation: np.ndarray
    axis: np.ndarray
    position: np.ndarray
    metadata: SliceMetadata
    conditions: Mapping[str, np.ndarray] = field(default_factory=dict)
    condition_units: Mapping[str, str] = field(default_factory=dict)


def density_from_counts(counts: np.ndarray, mean_count: float) -> np.ndarray:
    """Return 1 + delta, float32, of particle counts with the given mean over the whole box."""
    return (counts / np.float32(mean_count)).astype(np.float32)


class SliceReader:
    """A slice file opened for reading; use as a context manager.

    Its labels are arrays of length ``n_slices``: `realisation`, `axis`, `position`, and `conditions` by name;
    `checksums` are SHA-256 of the stored slices, shape ``(n_slices, 32)``, or None. The HDF5 handle is opened in the
    process that reads first and is not pickled.

    Parameters
    ----------
    path
        A slice file.

    Raises
    ------
    UserError
        If the file is missing, is not a slice file, or its head does not say what a pixel is.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: h5py.File | None = None
        handle = self._open()
        self.metadata = _read_metadata(handle, self.path)
        self.n_slices = _check_layout(handle, self.metadata, self.path)
        self.realisation: np.ndarray = handle["realisation"][:]
        self.axis: np.ndarray = handle["axis"][:]
        self.position: np.ndarray = handle["position"][:]
        self.conditions, self.condition_units = _read_conditions(handle, self.n_slices, self.path)
        self.checksums = _read_checksums(handle, self.n_slices, self.path)
        self.dtype: np.dtype[Any] = handle["slices"].dtype
        self.provenance: dict[str, Any] = _plain(handle["provenance"].attrs) if "provenance" in handle else {}

    def _open(self) -> h5py.File:
        if self._file is None:
            self._file = _open_hdf5(self.path)
            allow_parts(_member(self._file, "slices"), self.path)
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}

    def __enter__(self) -> SliceReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self.n_slices

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return slices ``start:stop`` in the file's quantity, shape ``(stop - start, n_pixels, n_pixels)``.

        Counts are uint16 and densities float32.

        Raises
        ------
        UserError
            If the file is damaged.
        """
        block = self.stored(start, stop)
        return block.astype(np.float32) if block.dtype.kind == "f" and block.dtype != np.float32 else block

    def stored(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return slices ``start:stop`` in the type in which they are stored; densities may be float16.

        Raises
        ------
        UserError
            If the file is damaged.
        """
        try:
            block: np.ndarray = self._open()["slices"][start:stop]
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"{self.path}: /slices {start}:{stop} cannot be read ({error}); the file is damaged"
            ) from None
        return block

    def damage(self, start: int, stored: np.ndarray) -> str | None:
        """Return a sentence on the first of some stored slices that differs from its checksum; None for good ones."""
        if self.checksums is None:
            return None
        same = (checksums(stored) == self.checksums[start : start + len(stored)]).all(1)
        if same.all():
            return None
        number = start + int(np.argmin(same))
        part = part_of(self._open()["slices"], self.path, number)
        return _DAMAGED.format(path=self.path, number=number if part is None else f"{number}, of {part},")

    def density(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return slices ``start:stop`` as 1 + delta, float32, whatever the file's quantity."""
        block = self.read(start, stop)
        if self.metadata.mean_count is None:
            return block
        return density_from_counts(block, self.metadata.mean_count)

    def blocks(self, size: int = _BLOCK) -> Iterator[tuple[int, np.ndarray]]:
        """Iterate over ``(start, slices)`` in bounded memory, in the file's quantity."""
        for start in range(0, self.n_slices, size):
            yield start, self.read(start, min(start + size, self.n_slices))


def read_provenance(path: str | Path) -> dict[str, Any]:
    """Return the provenance of a slice file, without a look at its slices or at the parts that it may consist of.

    Raises
    ------
    UserError
        If the file cannot be read.
    """
    with _open_hdf5(Path(path)) as handle:
        group = _member(handle, "provenance")
        return _plain(group.attrs) if isinstance(group, h5py.Group) else {}


def read_slices(path: str | Path) -> SliceSet:
    """Read a whole slice file into memory.

    Raises
    ------
    UserError
        As `SliceReader`.
    """
    with SliceReader(path) as reader:
        return SliceSet(
            reader.read(),
            reader.realisation,
            reader.axis,
            reader.position,
            reader.metadata,
            reader.conditions,
            reader.condition_units,
        )


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in attributes.items()}


def _open_hdf5(path: Path) -> h5py.File:
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.is_dir():
        raise UserError(f"{path}: is a folder; expected a slice file (HDF5)")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: no permission to read it")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: is empty; expected a slice file (HDF5)")
    try:
        return open_file(path)
    except BlockingIOError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except OSError as error:
        if "truncated" in str(error):
            raise UserError(f"{path}: is cut short; copy or write it again") from None
        if path.suffix == ".safetensors":
            raise UserError(f"{path}: is an emulator, not a slice file; make one with `cosmogan generate`") from None
        raise UserError(f"{path}: is not an HDF5 file or is damaged ({os_reason(error)})") from None


def _read_metadata(handle: h5py.File, path: Path) -> SliceMetadata:
    attributes = _plain(handle.attrs)
    if attributes.get("format") != FORMAT:
        raise UserError(
            f"{path}: attribute 'format' is {attributes.get('format')!r}; expected {FORMAT!r}. "
            "Particles become slices with `cosmogan slice`"
        )
    if attributes.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path}: format_version is {attributes.get('format_version')}; this cosmogan reads {FORMAT_VERSION}"
        )
    if "box_size" not in attributes or attributes.get("box_size_units") != "Mpc/h":
        raise UserError(
            f"{path}: no box size in Mpc/h (box_size {attributes.get('box_size')}, "
            f"box_size_units {attributes.get('box_size_units')!r}). Set both on '/': "
            "h5py.File(path, 'r+').attrs.update(box_size=350.0, box_size_units='Mpc/h')"
        )
    values = {}
    for spec in fields(SliceMetadata):
        if spec.name in attributes:
            values[spec.name] = attributes[spec.name]
    for name in ("n_pixels", "thickness", "redshift", "quantity", "smoothing", "assignment", "periodic"):
        if name not in values:
            raise UserError(f"{path}: attribute {name!r} of '/' is missing; docs/slice-format.md says what each holds")
    known = _plain(handle["cosmology"].attrs) if "cosmology" in handle else {}
    try:
        for name in ("box_size", "thickness", "redshift", "smoothing"):
            values[name] = float(values[name])
        values["n_pixels"] = int(values["n_pixels"])
        values["periodic"] = bool(values["periodic"])
        cosmology = Cosmology(**{name: float(known[name]) for name in Cosmology.names() if name in known})
        return SliceMetadata(**values, cosmology=cosmology)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: an attribute of '/' has the wrong type ({error})") from None


def _member(group: h5py.Group, name: str) -> object:
    """Return what a name in a file stands for; None where it is missing or its link leads nowhere or in circles."""
    try:
        return group.get(name)
    except (KeyError, OSError, RuntimeError):
        return None


def _check_layout(handle: h5py.File, metadata: SliceMetadata, path: Path) -> int:
    """Return the number of slices, or raise if a data set is missing or has the wrong type or shape."""
    for name in ("slices", *LABELS):
        if not isinstance(_member(handle, name), h5py.Dataset):
            raise UserError(f"{path}: data set /{name} is missing")
    for name in ("slices", *LABELS):
        require_filters(handle[name], path)
    slices = handle["slices"]
    side, dtypes = metadata.n_pixels, DTYPES[metadata.quantity]
    if slices.ndim != 3 or slices.shape[1:] != (side, side):
        raise UserError(f"{path}: /slices has shape {slices.shape}; expected (n, {side}, {side})")
    if slices.dtype not in dtypes:
        expected = " or ".join(map(str, dtypes))
        raise UserError(f"{path}: /slices is {slices.dtype}; expected {expected} for quantity {metadata.quantity!r}")
    problems = missing_parts(slices, path)
    if problems:
        others = f" ({len(problems) - 1} more of its parts are not right)" if len(problems) > 1 else ""
        raise UserError(problems[0] + others)
    for name, label_dtype in LABELS.items():
        if handle[name].shape != (len(slices),) or handle[name].dtype != label_dtype:
            raise UserError(
                f"{path}: /{name} is {handle[name].dtype} {handle[name].shape}; "
                f"expected {label_dtype} ({len(slices)},), one per slice"
            )
    return len(slices)


def _read_checksums(handle: h5py.File, n_slices: int, path: Path) -> np.ndarray | None:
    """Return the checksums of the slices, where the file has them."""
    if CHECKSUMS not in list(handle):
        return None
    dataset = _member(handle, CHECKSUMS)
    expected = (n_slices, CHECKSUM_SIZE)
    if not isinstance(dataset, h5py.Dataset) or dataset.shape != expected or dataset.dtype != np.uint8:
        raise UserError(f"{path}: /{CHECKSUMS} is not a data set of uint8 {expected}, one row per slice")
    values: np.ndarray = dataset[:]
    return values


def _read_conditions(handle: h5py.File, n_slices: int, path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the parameters per slice and their units; files without any have no group."""
    if "conditions" not in list(handle):
        return {}, {}
    group = _member(handle, "conditions")
    if not isinstance(group, h5py.Group):
        raise UserError(f"{path}: /conditions is not a group; docs/slice-format.md says what it holds")
    values: dict[str, np.ndarray] = {}
    units: dict[str, str] = {}
    for name in group:
        dataset = _member(group, name)
        if not isinstance(dataset, h5py.Dataset):
            raise UserError(f"{path}: /conditions/{name} is not a data set")
        if dataset.shape != (n_slices,) or dataset.dtype != CONDITION_DTYPE:
            raise UserError(
                f"{path}: /conditions/{name} is {dataset.dtype} {dataset.shape}; "
                f"expected {CONDITION_DTYPE} ({n_slices},), one per slice"
            )
        values[name] = dataset[:]
        if dataset.attrs.get("units", ""):
            units[name] = str(dataset.attrs["units"])
    return values, units
