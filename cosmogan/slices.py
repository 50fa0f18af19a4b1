"""The slice file, version 1: the one format that N-body slices and mock slices share.

Layout (HDF5): attributes on ``/`` say what a pixel is (`SliceMetadata`), ``/cosmology`` and ``/provenance`` are groups
of attributes, ``/slices`` holds the images and ``/realisation``, ``/axis``, ``/position`` one label per slice. Written
by `SliceWriter`, read by `SliceReader`, checked by `check_slices`, and by nothing else.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from cosmogan.errors import UserError
from cosmogan.units import RODRIGUEZ2018, Cosmology, format_length, fundamental_wavenumber, nyquist_wavenumber

FORMAT = "cosmogan-slices"
FORMAT_VERSION = 1
AXIS_NOT_APPLICABLE = 255
_DTYPES: dict[str, np.dtype[Any]] = {"counts": np.dtype(np.uint16), "density": np.dtype(np.float32)}
_LABELS: dict[str, np.dtype[Any]] = {
    "realisation": np.dtype(np.int32),
    "axis": np.dtype(np.uint8),
    "position": np.dtype(np.float32),
}
_MUST_AGREE = ("box_size", "n_pixels", "thickness", "redshift", "quantity", "smoothing", "periodic")
# Slices read at a time when a whole file is streamed: 64 MB at 256 x 256 float32.
_BLOCK = 256
# Characters of one entry of the provenance that a summary shows.
_LONGEST_SHOWN = 80


@dataclass(frozen=True, kw_only=True)
class SliceMetadata:
    """What the pixels of a set of slices are.

    Parameters
    ----------
    box_size
        Comoving side of the square slice, Mpc/h.
    n_pixels
        Pixels along a side.
    thickness
        Comoving depth of a slice, Mpc/h.
    redshift
        Redshift of the snapshot.
    quantity
        ``"density"``: 1 + delta, normalised by the mean of the whole box; ``"counts"``: particles per pixel.
    mean_count
        Particles per pixel averaged over the whole box; only for counts.
    smoothing
        Sigma in pixels of the Gaussian that was applied, cut at 4 sigma, periodic; 0 for none.
    assignment
        ``"NGP"``, ``"CIC"`` or ``"TSC"``.
    periodic
        True when a slice spans the full periodic box.
    cosmology
        Parameters of the simulation, as far as known.

    Raises
    ------
    UserError
        If a value is outside its range.
    """

    box_size: float
    n_pixels: int
    thickness: float
    redshift: float = 0.0
    quantity: str = "density"
    mean_count: float | None = None
    smoothing: float = 0.0
    assignment: str = "NGP"
    periodic: bool = True
    cosmology: Cosmology = field(default_factory=Cosmology)

    def __post_init__(self) -> None:
        for name in ("box_size", "thickness"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise UserError(f"{name} must be a positive length in Mpc/h, found {value}")
        if self.n_pixels < 1:
            raise UserError(f"n_pixels must be at least 1, found {self.n_pixels}")
        if not (math.isfinite(self.redshift) and self.redshift > -1):
            raise UserError(f"redshift must be above -1, found {self.redshift}")
        if self.quantity not in _DTYPES:
            raise UserError(f"quantity must be 'density' or 'counts', found {self.quantity!r}")
        if (self.quantity == "counts") != (self.mean_count is not None):
            raise UserError("mean_count must be given for quantity='counts' and for no other")
        if self.mean_count is not None and not (math.isfinite(self.mean_count) and self.mean_count > 0):
            raise UserError(f"mean_count must be positive, found {self.mean_count}")
        if not (math.isfinite(self.smoothing) and self.smoothing >= 0):
            raise UserError(f"smoothing must be a sigma >= 0 in pixels, found {self.smoothing}")
        if self.assignment not in ("NGP", "CIC", "TSC"):
            raise UserError(f"assignment must be NGP, CIC or TSC, found {self.assignment!r}")

    @property
    def pixel_size(self) -> float:
        """Side of a pixel, Mpc/h."""
        return self.box_size / self.n_pixels

    @property
    def fundamental(self) -> float:
        """Smallest wave number of a slice, h/Mpc."""
        return fundamental_wavenumber(self.box_size)

    @property
    def nyquist(self) -> float:
        """Nyquist wave number of a slice, h/Mpc."""
        return nyquist_wavenumber(self.box_size, self.n_pixels)

    def differences(self, other: SliceMetadata) -> list[str]:
        """Return one clause for each property in which two sets of slices cannot be compared."""
        clauses = []
        for name in _MUST_AGREE:
            mine, theirs = getattr(self, name), getattr(other, name)
            close = math.isclose(mine, theirs, rel_tol=1e-6) if isinstance(mine, float) else mine == theirs
            if not close:
                clauses.append(f"{name} {_with_unit(name, mine)} against {_with_unit(name, theirs)}")
        return clauses

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings, as JSON takes them; the inverse of `from_dict`."""
        return asdict(self) | {"cosmology": self.cosmology.known()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SliceMetadata:
        """Build from the result of `to_dict`."""
        return cls(**{**values, "cosmology": Cosmology(**values["cosmology"])})


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
        What the pixels are.
    """

    slices: np.ndarray
    realisation: np.ndarray
    axis: np.ndarray
    position: np.ndarray
    metadata: SliceMetadata


def density_from_counts(counts: np.ndarray, mean_count: float) -> np.ndarray:
    """Return 1 + delta, float32, of particle counts with the given mean over the whole box."""
    return (counts / np.float32(mean_count)).astype(np.float32)


class SliceReader:
    """A slice file opened for reading; use as a context manager.

    The HDF5 handle is opened in the process that reads first and is not pickled.

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
        self.provenance: dict[str, Any] = _plain(handle["provenance"].attrs) if "provenance" in handle else {}

    def _open(self) -> h5py.File:
        if self._file is None:
            self._file = _open_hdf5(self.path)
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


def read_slices(path: str | Path) -> SliceSet:
    """Read a whole slice file into memory.

    Raises
    ------
    UserError
        As `SliceReader`.
    """
    with SliceReader(path) as reader:
        return SliceSet(reader.read(), reader.realisation, reader.axis, reader.position, reader.metadata)


class SliceWriter:
    """Write a slice file piece by piece; the final name appears only when all of it is there.

    Use as a context manager. The data go to ``<name>.part``, which an exception removes and a kill leaves behind; the
    next writer of the same name starts over.

    Parameters
    ----------
    path
        File to write.
    metadata
        What the pixels are.
    n_slices
        Total number, if known: the images are then stored contiguously and a writer that delivers another number
        fails. Otherwise one slice per chunk.
    provenance
        Command, versions, seeds: anything that h5py stores as an attribute.
    overwrite
        Whether an existing file may be replaced.

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
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self.partial = self.path.with_name(self.path.name + ".part")
        self.metadata = metadata
        self.n_slices = n_slices
        self.n_written = 0
        require_absent(self.path, overwrite=overwrite)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = h5py.File(self.partial, "w")
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({_reason(error)})") from None
        self._write_head(provenance or {})

    def _write_head(self, provenance: Mapping[str, Any]) -> None:
        attributes = {"format": FORMAT, "format_version": FORMAT_VERSION, "box_size_units": "Mpc/h"}
        values = asdict(self.metadata)
        cosmology = values.pop("cosmology")
        self._file.attrs.update(attributes | {name: value for name, value in values.items() if value is not None})
        self._file.create_group("cosmology").attrs.update({k: v for k, v in cosmology.items() if v is not None})
        self._file.create_group("provenance").attrs.update(dict(provenance))
        n, side = self.n_slices, self.metadata.n_pixels
        unlimited: dict[str, Any] = {} if n is not None else {"maxshape": (None, side, side), "chunks": (1, side, side)}
        self._file.create_dataset("slices", (n or 0, side, side), _DTYPES[self.metadata.quantity], **unlimited)
        for name, dtype in _LABELS.items():
            self._file.create_dataset(name, (n or 0,), dtype, maxshape=None if n is not None else (None,))

    def append(
        self,
        slices: np.ndarray,
        *,
        realisation: int | np.ndarray,
        axis: int | np.ndarray = AXIS_NOT_APPLICABLE,
        position: float | np.ndarray = math.nan,
    ) -> None:
        """Add slices behind those already written.

        Parameters
        ----------
        slices
            Shape ``(n, n_pixels, n_pixels)``, in the file's quantity; counts must fit uint16.
        realisation, axis, position
            Labels, one per slice or one for all.

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
        problem = _value_problem(slices)
        if problem is not None:
            raise UserError(f"{self.path}: slices to write hold {problem}")
        dtype = _DTYPES[self.metadata.quantity]
        if dtype.kind == "u" and slices.size and slices.max() > np.iinfo(dtype).max:
            raise UserError(
                f"{self.path}: a pixel holds {slices.max()} particles and counts are stored up to "
                f"{np.iinfo(dtype).max}; write densities instead (--quantity density)"
            )
        start, stop = self.n_written, self.n_written + len(slices)
        if self.n_slices is not None and stop > self.n_slices:
            raise UserError(f"{self.path}: {self.n_slices} slices were announced and more are being written")
        try:
            if self.n_slices is None:
                for name in ("slices", *_LABELS):
                    self._file[name].resize(stop, axis=0)
            self._file["slices"][start:stop] = slices.astype(dtype, copy=False)
            for name, values in (("realisation", realisation), ("axis", axis), ("position", position)):
                self._file[name][start:stop] = values
            self._file.flush()
        except OSError as error:
            raise UserError(f"{self.path}: writing slices {start}:{stop} failed ({_reason(error)})") from None
        self.n_written = stop

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
                raise UserError(f"{self.path}: could not be completed ({_reason(error)})") from None
            return
        if not complete:
            self.partial.unlink(missing_ok=True)
            if kind is None:
                raise UserError(f"{self.path}: {self.n_slices} slices were announced and {self.n_written} written")
            return
        os.replace(self.partial, self.path)


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
    with SliceWriter(path, slice_set.metadata, n_slices=n_slices, provenance=provenance, overwrite=overwrite) as writer:
        writer.append(
            slice_set.slices, realisation=slice_set.realisation, axis=slice_set.axis, position=slice_set.position
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
        Of the noise.

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


def check_slices(path: str | Path) -> list[str]:
    """Look for everything that can be wrong with a slice file, reading all of it once.

    Returns
    -------
        One sentence per problem; empty for a good file.
    """
    path = Path(path)
    try:
        reader = SliceReader(path)
    except UserError as error:
        return [str(error)]
    problems = []
    with reader:
        problems += _missing_sources(reader._open()["slices"], path)
        if reader.n_slices == 0:
            problems.append(f"{path}: /slices is empty; expected at least one slice")
        known_axis = np.isin(reader.axis, (0, 1, 2, AXIS_NOT_APPLICABLE))
        if not known_axis.all():
            problems.append(f"{path}: /axis holds {reader.axis[~known_axis][0]}; expected 0, 1, 2 or 255")
        outside = (reader.position < 0) | (reader.position >= reader.metadata.box_size)
        if reader.metadata.periodic and outside.any():
            problems.append(
                f"{path}: /position holds {reader.position[outside][0]:g}; "
                f"expected values in [0, {reader.metadata.box_size:g}) Mpc/h or NaN"
            )
        try:
            for start, block in reader.blocks():
                problem = _value_problem(block, offset=start)
                if problem is not None:
                    hint = "densities are 1 + delta >= 0; was the inverse transform skipped?"
                    problems.append(f"{path}: /slices holds {problem}; {hint}")
                    break
        except UserError as error:
            problems.append(str(error))
    return problems


def describe_slices(path: str | Path) -> str:
    """Return a summary of a slice file for people, with lengths in Mpc/h and Mpc.

    Raises
    ------
    UserError
        As `SliceReader`.
    """
    with SliceReader(path) as reader:
        meta, h = reader.metadata, reader.metadata.cosmology.h
        counts = np.unique(reader.realisation, return_counts=True)[1]
        rows = {
            "slices": f"{reader.n_slices} of {meta.n_pixels} x {meta.n_pixels} pixels",
            "box size": format_length(meta.box_size, h),
            "thickness": format_length(meta.thickness, h),
            "k range": f"{meta.fundamental:.4g} - {meta.nyquist:.4g} h/Mpc (fundamental - Nyquist)",
            "redshift": f"{meta.redshift:g}",
            "quantity": meta.quantity + ("" if meta.mean_count is None else f", mean {meta.mean_count:g} per pixel"),
            "smoothing": f"{meta.smoothing:g} pixels",
            "assignment": meta.assignment + (", periodic" if meta.periodic else ", not periodic"),
            "realisations": _count_text(counts),
            "cosmology": ", ".join(f"{k} {v:g}" for k, v in meta.cosmology.known().items()) or "unknown",
            "provenance": ", ".join(f"{k}: {_short(v)}" for k, v in reader.provenance.items()) or "unknown",
        }
    return "\n".join([f"{path}: slice file, version {FORMAT_VERSION}"] + [f"  {k:13s} {v}" for k, v in rows.items()])


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


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "..."


def _count_text(counts: np.ndarray) -> str:
    if not len(counts):
        return "none"
    low, high = counts.min(), counts.max()
    return f"{len(counts)} with {low if low == high else f'{low} to {high}'} slices each"


def _with_unit(name: str, value: object) -> str:
    unit = {"box_size": " Mpc/h", "thickness": " Mpc/h", "smoothing": " pixels"}.get(name, "")
    return f"{value:.7g}{unit}" if isinstance(value, float) else f"{value}{unit}"


def _reason(error: BaseException) -> str:
    """Return the operating system's reason, without HDF5's dump of handles."""
    number = getattr(error, "errno", None)
    if number:
        return os.strerror(number)
    text = str(error)
    for reason in ("No space left on device", "Permission denied", "Disk quota exceeded", "unable to lock file"):
        if reason in text:
            return reason
    return text.splitlines()[0] if text else type(error).__name__


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
        return h5py.File(path, "r")
    except OSError as error:
        if "truncated" in str(error):
            raise UserError(f"{path}: is cut short; copy or write it again") from None
        raise UserError(f"{path}: is not an HDF5 file or is damaged ({_reason(error)})") from None


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


def _check_layout(handle: h5py.File, metadata: SliceMetadata, path: Path) -> int:
    """Return the number of slices, or raise if a data set is missing or has the wrong type or shape."""
    for name in ("slices", *_LABELS):
        if not isinstance(handle.get(name), h5py.Dataset):
            raise UserError(f"{path}: data set /{name} is missing")
    slices = handle["slices"]
    side, dtype = metadata.n_pixels, _DTYPES[metadata.quantity]
    if slices.ndim != 3 or slices.shape[1:] != (side, side):
        raise UserError(f"{path}: /slices has shape {slices.shape}; expected (n, {side}, {side})")
    if slices.dtype != dtype:
        raise UserError(f"{path}: /slices is {slices.dtype}; expected {dtype} for quantity {metadata.quantity!r}")
    for name, label_dtype in _LABELS.items():
        if handle[name].shape != (len(slices),) or handle[name].dtype != label_dtype:
            raise UserError(
                f"{path}: /{name} is {handle[name].dtype} {handle[name].shape}; "
                f"expected {label_dtype} ({len(slices)},), one per slice"
            )
    return len(slices)


def _value_problem(block: np.ndarray, *, offset: int = 0) -> str | None:
    """Return a clause on the first kind of bad value in a block of slices, or None."""
    if block.dtype.kind == "u":
        return None
    for bad, name in ((~np.isfinite(block), "NaN or infinite"), (block < 0, "negative")):
        if bad.any():
            first = offset + int(np.argmax(bad.any(axis=(1, 2))))
            return f"{int(bad.sum())} {name} values (first at slice {first})"
    return None


def _missing_sources(dataset: h5py.Dataset, path: Path) -> list[str]:
    """Return a sentence per source of a virtual data set that is not there: HDF5 itself would return zeros."""
    if not dataset.is_virtual:
        return []
    problems = []
    for source in dataset.virtual_sources():
        name = path if source.file_name == "." else path.parent / source.file_name
        try:
            with h5py.File(name, "r") as handle:
                if source.dset_name not in handle:
                    problems.append(f"{path}: its part {name} has no data set {source.dset_name}")
        except OSError:
            problems.append(f"{path}: its part {name} is missing or damaged; bring it back or write the slices again")
    return problems
