"""The file of an emulator: one safetensors file with a record, a checksum over both, and where files are found."""

from __future__ import annotations

import difflib
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any, TypeVar

import h5py
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from cosmogan.errors import UserError
from cosmogan.files import written
from cosmogan.slices import require_absent

FORMAT = "cosmogan-emulator"
FORMAT_VERSION = 1
_SHIPPED = Path(__file__).with_name("weights")
SUFFIX = ".safetensors"
# Name of the header's entry.
_ENTRY = "cosmogan"

_Part = TypeVar("_Part", bound=nn.Module)


def read_emulator_file(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the record and the tensors of an emulator file.

    Raises
    ------
    UserError
        If the file is damaged, does not have the checksum it was written with, or is something else.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as handle:
            header = (handle.metadata() or {}).get(_ENTRY)
            tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: {_what_it_is(path, error)}") from None
    if header is None:
        raise UserError(f"{path}: is a safetensors file but not an emulator written by `cosmogan export`")
    try:
        record = json.loads(header)
        found = (record["format"], record["format_version"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: the emulator's record cannot be read ({error!r}); the file is damaged") from None
    if found != (FORMAT, FORMAT_VERSION):
        raise UserError(f"{path}: format {found[0]} {found[1]}; this cosmogan reads {FORMAT} {FORMAT_VERSION}")
    # Files of before there were checksums have none.
    if "sha256" in record and record["sha256"] != checksum(record, tensors):
        raise UserError(
            f"{path}: weights or record are not those that were written (their SHA-256 differs from the header's); "
            "copy or export the emulator again"
        )
    return record, tensors


def _what_it_is(path: Path, error: Exception) -> str:
    """Say what a file is that safetensors cannot read."""
    if h5py.is_hdf5(path):
        return "is a slice file (HDF5); an emulator file was expected"
    if zipfile.is_zipfile(path):
        return "is not a safetensors file; it looks like a checkpoint, turn it into an emulator with `cosmogan export`"
    return f"is not a safetensors file or is damaged ({error})"


def write_emulator_file(path: Path, record: dict[str, Any], tensors: dict[str, Tensor], *, overwrite: bool) -> None:
    """Write an emulator file; it appears under its name when it is whole.

    Raises
    ------
    UserError
        If the file exists and may not be replaced, or cannot be written.
    """
    require_absent(path, overwrite=overwrite)
    record = {"format": FORMAT, "format_version": FORMAT_VERSION} | record
    record["sha256"] = checksum(record, tensors)
    with written(path, SafetensorError) as beside:
        # `save_file` would make it unreadable to others, whatever the umask.
        beside.write_bytes(save(tensors, metadata={_ENTRY: json.dumps(record)}))


def checksum(record: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 of a record, less its own checksum, and of the names, types, shapes and bytes of tensors."""
    rest = {name: value for name, value in record.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def shipped_emulators() -> list[str]:
    """Return the names of the emulators that ship with the package."""
    return sorted(path.name.removesuffix(SUFFIX) for path in _SHIPPED.glob(f"*{SUFFIX}"))


def find_emulator(name_or_path: str | Path) -> Path:
    """Return the file of an emulator given by path or by the name of a shipped one.

    Raises
    ------
    UserError
        If there is neither; the message names the nearest one.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    shipped = _SHIPPED / f"{name_or_path}{SUFFIX}"
    if path.name == str(name_or_path) and shipped.is_file():
        return shipped
    if path.is_dir():
        raise UserError(f"{path}: is a folder; expected an emulator file")
    names = shipped_emulators()
    files = sorted(str(path.with_name(file.name)) for file in path.parent.glob(f"*{SUFFIX}"))
    nearest = difflib.get_close_matches(str(name_or_path), names + files, n=1)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    known = f"shipped emulators: {', '.join(names)}" if names else "no emulator ships with this version yet"
    raise UserError(
        f"{name_or_path}: no such emulator file; {hint}{known}. `cosmogan fit` and `cosmogan export` make one"
    )


def build_part(base: type[_Part], record: dict[str, Any]) -> _Part:
    """Build a known network or transform by name; a file can never make us import anything.

    Parameters
    ----------
    base
        Class that it must be a subclass of.
    record
        Name of the class and arguments of its constructor.

    Raises
    ------
    UserError
        If no imported subclass has the name.
    """
    known = {kind.__name__: kind for kind in _descendants(base)}
    if record["name"] not in known:
        raise UserError(
            f"needs {record['name']}, which is not among {', '.join(sorted(known))}; "
            "import the module that defines it first"
        )
    return known[record["name"]](**record["settings"])


def _descendants(base: type[_Part]) -> list[type[_Part]]:
    direct = base.__subclasses__()
    return direct + [kind for child in direct for kind in _descendants(child)]
