"""Files that appear whole or not at all, and what identifies them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cosmogan.errors import UserError
from cosmogan.text import decimal_bytes, os_reason


@contextlib.contextmanager
def replaced(path: Path, *, durable: bool = False, partial: str | None = None) -> Iterator[Path]:
    """Give a name beside a file to write to; what is written takes the file's place when the block ends well.

    Whatever interrupts the block, the file is the former or the new one. Errors pass through.

    Parameters
    ----------
    path
        Name of the finished file.
    durable
        Whether its content must be on the disk before it takes the name.
    partial
        Name in the same folder for the meantime; that of the file and ``.part`` by default.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replaced(Path(folder, "a.txt")) as beside:
    ...         _ = beside.write_text("whole")
    ...     os.listdir(folder)
    ['a.txt']
    """
    beside = path.with_name(partial or f"{path.name}.part")
    try:
        yield beside
        if durable:
            with beside.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def written(path: Path, *also: type[Exception], partial: str | None = None) -> Iterator[Path]:
    """Make the folder of a file and do as `replaced`; errors of writing become sentences.

    Parameters
    ----------
    path
        Name of the finished file.
    also
        Errors of writing beside ``OSError``.
    partial
        Name as in `replaced`.

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    kinds: tuple[type[Exception], ...] = (OSError, *also)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path, partial=partial) as beside:
            yield beside
    except kinds as error:
        raise UserError(f"{path}: cannot be written ({os_reason(error)})") from None


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def require_room(path: Path, needed: int) -> None:
    """Refuse an output that its disk cannot take, before hours of computing.

    Parameters
    ----------
    path
        File or folder to write; a part of it that an earlier run left (``.part``) counts as room.
    needed
        Bytes of the output.

    Raises
    ------
    UserError
        If nothing can be written there, or the disk is too small.
    """
    folder = path if path.is_dir() else next(place for place in path.absolute().parents if place.exists())
    try:
        # A folder that cannot be written to has no room either, which is not what is wrong with it.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({os_reason(error)}); no file can be made in {folder}") from None
    part = path.with_name(f"{path.name}.part")
    free = shutil.disk_usage(folder).free + (part.stat().st_blocks * 512 if part.exists() else 0)
    if needed > free:
        raise UserError(
            f"{path}: needs {decimal_bytes(needed)} and {decimal_bytes(free)} are free in {folder}; "
            "make fewer or write elsewhere"
        )
