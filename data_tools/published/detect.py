"""Find out which published format a file has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cosmogan.errors import UserError
from cosmogan.hdf5 import signature_offset
from data_tools.files.arrays import NpyArray, npz_shapes, open_hdf5, require_file
from data_tools.published.base import AbstractFormat, Contents, PublishedFile, Request
from data_tools.published.camels import CamelsFormat
from data_tools.published.cosmoflow import CosmoFlowFormat
from data_tools.published.crops import CosmoganFormat, CosmoganPytorchFormat
from data_tools.published.feder import FederFormat
from data_tools.published.plain import PlainFormat
from data_tools.published.quijote import QuijoteFormat
from data_tools.published.three_d_cosmo import ThreeDCosmoFormat

# In the order in which they are asked.
FORMATS: tuple[AbstractFormat, ...] = (
    ThreeDCosmoFormat(),
    CamelsFormat(),
    CosmoFlowFormat(),
    QuijoteFormat(),
    FederFormat(),
    CosmoganPytorchFormat(),
    CosmoganFormat(),
    PlainFormat(),
)
_KINDS = {b"\x93NUMPY": "npy", b"PK\x03\x04": "npz", b"PK\x05\x06": "npz"}


def open_published(path: Path, format_name: str | None, request: Request) -> PublishedFile:
    """Open a file of any known format.

    Parameters
    ----------
    path
        The file.
    format_name
        Its format; None to find out.
    request
        What the user says about it.

    Raises
    ------
    UserError
        If it is damaged, of an unknown format, or something about it must be given.
    """
    contents = look(path)
    form = next(
        (form for form in FORMATS if form.name == format_name or (not format_name and form.recognises(path, contents))),
        None,
    )
    if form is None:
        raise UserError(f"format {format_name!r}: expected one of {', '.join(form.name for form in FORMATS)}")
    try:
        _require_meaning(form, request)
        return _overruled(form.open(path, contents, request), request)
    except UserError as error:
        text = str(error)
        raise UserError(text if str(path) in text else f"{path}: {text}") from None


def _require_meaning(form: AbstractFormat, request: Request) -> None:
    """Refuse options without meaning for the format."""
    for option in sorted({name for other in FORMATS for name in other.options} - set(form.options)):
        if getattr(request, option) is not None:
            formats = " and ".join(other.name for other in FORMATS if option in other.options)
            raise UserError(
                f"--{option.replace('_', '-')} has no meaning for a file of format {form.name}, only for {formats}; "
                "leave it out or say --format"
            )


def _overruled(file: PublishedFile, request: Request) -> PublishedFile:
    """Return the file with what the user says in place of what the format says, where both do."""
    names = ("quantity", "redshift", "scale", "mean", "assignment", "periodic", "smoothed")
    said = {name: getattr(request, name) for name in names if getattr(request, name) is not None}
    return replace(file, asked=request.quantity is not None, **said)


def look(path: Path) -> Contents:
    """Return what a file shows at first sight.

    Raises
    ------
    UserError
        If it is neither an ``.npy``, ``.npz`` nor HDF5 file, or damaged, or belongs to another command.
    """
    require_file(path)
    with open(path, "rb") as stream:
        head = stream.read(8)
    kind = next((kind for magic, kind in _KINDS.items() if head.startswith(magic)), None)
    if signature_offset(path) is not None:
        kind = "hdf5"
    if kind == "npy":
        return Contents(kind="npy", shape=NpyArray(path).shape)
    if kind == "npz":
        return Contents(kind="npz", names=tuple(npz_shapes(path)))
    if kind is None:
        raise UserError(
            f"{path}: is neither an .npy, .npz nor HDF5 file; particles become slices with `cosmogan slice`"
        )
    with open_hdf5(path) as handle:
        try:
            names, own = tuple(handle), handle.attrs.get("format")
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            raise UserError(f"{path}: is a damaged HDF5 file ({str(error).splitlines()[0]})") from None
    if own == "cosmogan-slices":
        raise UserError(f"{path}: is a slice file already")
    if "Header" in names:
        raise UserError(f"{path}: looks like a snapshot of particles; `cosmogan slice` reads those")
    return Contents(kind="hdf5", names=names)
