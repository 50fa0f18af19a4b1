"""Writing slice files piece by piece."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from cosmogan.errors import UserError
from cosmogan.hdf5 import open_file
from cosmogan.slices.layout import (
    AXIS_NOT_APPLICABLE,
    CHECKSUM_SIZE,
    CHECKSUMS,
    CONDITION_DTYPE,
    DTYPES,
    FORMAT,
    FORMAT_VERSION,
    LABELS,
    checksums,
    value_problem,
)
from cosmogan.slices.metadata import SliceMetadata
from cosmogan.slices.reader import SliceSet
from cosmogan.text import os_reason
from cosmogan.units import RODRIGUEZ2018


class SliceWriter:
    """Write a slice file piece by piece; the final name appears only when all of it is there.

    Use as a context manager. The data go to ``<name>.part``, which an exception removes and a kill leaves behind; the
    next writer of the same name starts over.

    Parameters
    ----------
    path
        File to write.
    metadata
        Metadata of the slices.
    n_slices
        Total number, if known: the images are then stored contiguously and a writer that delivers another number
        fails. Otherwise one slice per chunk.
    provenance
        Command, versions, seeds: anything that h5py stores as an attribute.
    conditions
        Names of parameters that come with each slice, such as ``"Omega_m"``, and their units, empty for none.
    overwrite
        Whether an existing file may be replaced.
    dtype
        Type of the stored pixels where the quantity leaves a choice: ``"float32"`` or ``"float16"`` for densities.
    compression
        ``"gzip"`` or ``"lzf"``: one compressed slice per chunk.
    with_checksums
        Whether the file holds the SHA-256 of each slice.

    Raises
    ------
    UserError
        If the file exists and may not be replaced, or cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        metadata: SliceMetadata,
        *,
        n_slices: int | None = None,
        provenance: Mapping[str, Any] | None = None,
        conditions: Mapping[str, str] | None = None,
        overwrite: bool = False,
        dtype: str | None = None,
        compression: str | None = None,
        with_checksums: bool = False,
    ) -> None:
        self.path = Path(path)
        self.partial = self.path.with_name(self.path.name + ".part")
        self.metadata = metadata
        self.dtype = stored_dtype(metadata, dtype)
        self.n_slices = n_slices
        self._with_checksums = with_checksums
        self.n_written = 0
        self._conditions = dict(conditions or {})
        for name in self._conditions:
            if not name.isidentifier():
                raise UserError(f"{self.path}: condition {name!r}: expected a name of letters, digits and underscores")
        require_absent(self.path, overwrite=overwrite)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open_file(self.partial, "w")
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({os_reason(error)})") from None
        write_head(
            self._file,
            metadata,
            n_slices=n_slices,
            provenance=provenance or {},
            conditions=self._conditions,
            with_checksums=with_checksums,
        )
        side = metadata.n_pixels
        storage: dict[str, Any] = {"compression": compression, "chunks": (1, side, side)} if compression else {}
        if n_slices is None:
            storage |= {"maxshape": (None, side, side), "chunks": (1, side, side)}
        self._file.create_dataset("slices", (n_slices or 0, side, side), self.dtype, **storage)

    def append(
        self,
        slices: np.ndarray,
        *,
        realisation: int | np.ndarray,
        axis: int | np.ndarray = AXIS_NOT_APPLICABLE,
        position: float | np.ndarray = math.nan,
        conditions: Mapping[str, float | np.ndarray] | None = None,
    ) -> None:
        """Add slices after those already written.

        Parameters
        ----------
        slices
            Shape ``(n, n_pixels, n_pixels)``, in the file's quantity; counts must fit uint16.
        realisation, axis, position
            Labels, one per slice or one for all.
        conditions
            Parameters by name, one value per slice or one for all; exactly those announced to the constructor.

        Raises
        ------
        UserError
            If a value cannot be stored, there are more slices than announced, or the disk is full.
        """
        expected = (self.metadata.n_pixels, self.metadata.n_pixels)
        if slices.ndim != 3 or slices.shape[1:] != expected:
            raise UserError(
                f"{self.path}: expected slices of shape (n, {expected[0]}, {expected[1]}), got {slices.shape}"
            )
        stored = as_stored(slices, self.dtype, self.path)
        columns = self._checked(conditions or {})
        start, stop = self.n_written, self.n_written + len(slices)
        if self.n_slices is not None and stop > self.n_slices:
            raise UserError(f"{self.path}: {self.n_slices} slices were announced and more are being written")
        try:
            if self.n_slices is None:
                for name in ("slices", *LABELS, *columns, *([CHECKSUMS] if self._with_checksums else [])):
                    self._file[name].resize(stop, axis=0)
            self._file["slices"][start:stop] = stored
            if self._with_checksums:
                self._file[CHECKSUMS][start:stop] = checksums(stored)
            labels = {"realisation": realisation, "axis": axis, "position": position}
            for name, values in (labels | columns).items():
                self._file[name][start:stop] = values
            self._file.flush()
        except OSError as error:
            raise UserError(f"{self.path}: writing slices {start}:{stop} failed ({os_reason(error)})") from None
        self.n_written = stop

    def record(self, **provenance: Any) -> None:
        """Add to the provenance what is known only after reading.

        Raises
        ------
        UserError
            If it cannot be written.
        """
        try:
            self._file["provenance"].attrs.update(provenance)
        except OSError as error:
            raise UserError(f"{self.path}: writing the provenance failed ({os_reason(error)})") from None

    def _checked(self, conditions: Mapping[str, float | np.ndarray]) -> dict[str, float | np.ndarray]:
        """Return the conditions of some slices by the place of their data sets."""
        if set(conditions) != set(self._conditions):
            raise UserError(
                f"{self.path}: slices come with conditions {sorted(conditions)}; expected {sorted(self._conditions)}"
            )
        for name, values in conditions.items():
            if not np.isfinite(values).all():
                raise UserError(f"{self.path}: condition {name} is not finite; expected a number for every slice")
        return {f"conditions/{name}": values for name, values in conditions.items()}

    def __enter__(self) -> SliceWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        complete = kind is None and self.n_slices in (None, self.n_written)
        try:
            self._file.close()
        except (OSError, RuntimeError) as error:
            self.partial.unlink(missing_ok=True)
            if kind is None:
                raise UserError(f"{self.path}: could not be completed ({os_reason(error)})") from None
            return
        if not complete:
            self.partial.unlink(missing_ok=True)
            if kind is None:
                raise UserError(f"{self.path}: {self.n_slices} slices were announced and {self.n_written} written")
            return
        os.replace(self.partial, self.path)


def stored_dtype(metadata: SliceMetadata, name: str | None) -> np.dtype[Any]:
    """Return the type of the stored pixels; the usual one of the quantity if ``name`` is None.

    Raises
    ------
    UserError
        If the quantity is not stored as that.
    """
    allowed = DTYPES[metadata.quantity]
    for dtype in allowed:
        if name in (None, dtype.name):
            return dtype
    names = " or ".join(dtype.name for dtype in allowed)
    raise UserError(f"dtype: {metadata.quantity} are stored as {names}, found {name!r}")


def as_stored(slices: np.ndarray, dtype: np.dtype[Any], path: Path) -> np.ndarray:
    """Return slices in the type in which a file stores them.

    Raises
    ------
    UserError
        If a value cannot be stored.
    """
    problem = value_problem(slices)
    if problem is not None:
        raise UserError(f"{path}: slices to write hold {problem}")
    limit = np.iinfo(dtype).max if dtype.kind == "u" else np.finfo(dtype).max
    if slices.dtype != dtype and slices.size and slices.max() > limit:
        if dtype.kind == "u":
            raise UserError(
                f"{path}: a pixel holds {slices.max()} particles and counts are stored up to {limit}; "
                "write densities instead (--quantity density)"
            )
        raise UserError(f"{path}: a pixel holds {slices.max():g} and {dtype} ends at {limit:g}; write float32 instead")
    return slices.astype(dtype, copy=False)


def write_head(
    file: h5py.File,
    metadata: SliceMetadata,
    *,
    n_slices: int | None,
    provenance: Mapping[str, Any],
    conditions: Mapping[str, str] | None = None,
    with_checksums: bool = False,
) -> None:
    """Write everything of a slice file but ``/slices``, with labels still to be filled in."""
    attributes = {"format": FORMAT, "format_version": FORMAT_VERSION, "box_size_units": "Mpc/h"}
    values = asdict(metadata)
    cosmology = values.pop("cosmology")
    # As a number: others' tools (netCDF4, xarray) cannot write the truth values of HDF5 back.
    values["periodic"] = np.uint8(values["periodic"])
    file.attrs.update(attributes | {name: value for name, value in values.items() if value is not None})
    file.create_group("cosmology").attrs.update({k: v for k, v in cosmology.items() if v is not None})
    file.create_group("provenance").attrs.update(dict(provenance))
    n, longest = n_slices or 0, None if n_slices is not None else (None,)
    for name, dtype in LABELS.items():
        file.create_dataset(name, (n,), dtype, maxshape=longest)
    for name, unit in (conditions or {}).items():
        dataset = file.create_dataset(f"conditions/{name}", (n,), CONDITION_DTYPE, maxshape=longest)
        if unit:
            dataset.attrs["units"] = unit
    if with_checksums:
        shape = (n, CHECKSUM_SIZE)
        file.create_dataset(CHECKSUMS, shape, np.uint8, maxshape=None if longest is None else (None, CHECKSUM_SIZE))


def write_slices(
    path: str | Path, slice_set: SliceSet, *, provenance: Mapping[str, Any] | None = None, overwrite: bool = False
) -> None:
    """Write slices held in memory to a slice file.

    Raises
    ------
    UserError
        As `SliceWriter`.
    """
    n_slices = len(slice_set.slices)
    units = {name: slice_set.condition_units.get(name, "") for name in slice_set.conditions}
    with SliceWriter(
        path, slice_set.metadata, n_slices=n_slices, provenance=provenance, conditions=units, overwrite=overwrite
    ) as writer:
        writer.append(
            slice_set.slices,
            realisation=slice_set.realisation,
            axis=slice_set.axis,
            position=slice_set.position,
            conditions=slice_set.conditions,
        )


def write_example(
    path: str | Path,
    *,
    n_realisations: int = 4,
    n_slices: int = 6,
    n_pixels: int = 16,
    box_size: float = 70.0,
    quantity: str = "density",
    seed: int = 0,
) -> SliceMetadata:
    """Write a minimal valid slice file of lognormal noise, for tests and for trying things out.

    Parameters
    ----------
    path
        File to write; an existing one is replaced.
    n_realisations, n_slices
        Number of realisations and of slices in each, spread over the three axes.
    n_pixels, box_size
        Geometry; the side of a slice in Mpc/h.
    quantity
        ``"density"`` or ``"counts"`` (of mean 8).
    seed
        Seed of the noise.

    Returns
    -------
        The metadata that were written.
    """
    rng = np.random.default_rng(seed)
    total = n_realisations * n_slices
    density = np.exp(rng.normal(size=(total, n_pixels, n_pixels)) - 0.5)
    mean_count = 8.0 if quantity == "counts" else None
    pixels = density.astype(np.float32) if mean_count is None else rng.poisson(mean_count * density).astype(np.uint16)
    thickness = box_size / n_pixels
    metadata = SliceMetadata(
        box_size=box_size,
        n_pixels=n_pixels,
        thickness=thickness,
        quantity=quantity,
        mean_count=mean_count,
        cosmology=RODRIGUEZ2018,
    )
    index = np.arange(total) % n_slices
    slice_set = SliceSet(pixels, np.arange(total) // n_slices, index % 3, index // 3 * thickness, metadata)
    write_slices(path, slice_set, provenance={"command": "write_example", "seed": seed}, overwrite=True)
    return metadata


def require_absent(path: Path, *, overwrite: bool) -> None:
    """Refuse to replace an existing file unless told to.

    Raises
    ------
    UserError
        If ``path`` exists and ``overwrite`` is false, or ``path`` is a folder.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder; expected the name of a file to write")
    if path.exists() and not overwrite:
        raise UserError(f"{path}: exists already; choose another name or add --overwrite")
