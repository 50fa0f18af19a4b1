"""HDF5 files wherever they lie: file systems without locks, compression by plug-ins, parts in other files."""

from __future__ import annotations

import errno
import importlib
import math
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from cosmogan.errors import UserError

# Registered at the HDF Group, with the names people know; all of these come with hdf5plugin.
_FILTER_NAMES = {
    307: "bzip2",
    32001: "Blosc",
    32004: "LZ4",
    32008: "bitshuffle",
    32013: "ZFP",
    32015: "Zstandard",
    32017: "SZ",
    32024: "SZ3",
    32026: "Blosc2",
}
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# The signature stands at the start, or after a user block of 512 bytes or a power of two times that.
_LONGEST_USER_BLOCK = 2**26
_said: set[str] = set()


def open_file(path: str | Path, mode: str = "r", **options: Any) -> h5py.File:
    """Open an HDF5 file as `h5py.File` does, and without a lock where the file system has none.

    HDF5 locks each file that it opens, and takes a file system that cannot lock for a damaged file. Then a line on
    standard error says so, once, and the file is opened without.

    Parameters
    ----------
    path, mode, options
        As in `h5py.File`.

    Raises
    ------
    OSError
        As `h5py.File`; `BlockingIOError` where another process holds the lock.
    """
    try:
        return h5py.File(path, mode, **options)
    except OSError as error:
        if "unable to lock file" not in str(error):
            raise
        number = re.search(r"errno = (\d+)", str(error))
        # Nobody else holds a file that is made here and now.
        held = mode == "r" and number is not None and int(number[1]) in (errno.EAGAIN, errno.EWOULDBLOCK)
        if held:
            raise BlockingIOError(
                errno.EAGAIN,
                "is locked: another process writes it, or its file system has no locks (then set "
                "HDF5_USE_FILE_LOCKING=FALSE)",
            ) from None
    if "locks" not in _said:
        _said.add("locks")
        print(f"{path}: this file system has no locks; see to it that no other run writes this file", file=sys.stderr)
    return h5py.File(path, mode, locking=False, **options)


def signature_offset(path: Path) -> int | None:
    """Return where the HDF5 signature stands, after the user block if there is one; None for another file.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    with open(path, "rb") as stream:
        place = 0
        while place <= _LONGEST_USER_BLOCK:
            stream.seek(place)
            head = stream.read(len(_SIGNATURE))
            if head == _SIGNATURE:
                return place
            if len(head) < len(_SIGNATURE):
                return None
            place = 512 if place == 0 else 2 * place
    return None


def require_filters(data: h5py.Dataset, path: Path) -> None:
    """Make sure that HDF5 can undo the compression of a data set, with the filters of ``hdf5plugin`` if need be.

    Raises
    ------
    UserError
        If a filter is not installed.
    """
    properties = data.id.get_create_plist()
    for i in range(properties.get_nfilters()):
        code, _, _, label = properties.get_filter(i)
        if h5py.h5z.filter_avail(code):
            continue
        try:
            # Registers its filters with HDF5.
            importlib.import_module("hdf5plugin")
        except ImportError:
            way_out = "install its plug-in with: pip install 'cosmogan[hdf5plugin]'"
        else:
            way_out = "hdf5plugin is installed and does not know it; write the file with another compression"
        if not h5py.h5z.filter_avail(code):
            name = _FILTER_NAMES.get(code) or label.decode(errors="replace").split(";")[0] or "unknown"
            raise UserError(f"{path}: {data.name} is compressed with HDF5 filter {code} ({name}); {way_out}")


@dataclass(frozen=True)
class Part:
    """Part of a virtual data set that lies in another file, or elsewhere in its own.

    Parameters
    ----------
    file
        Where HDF5 finds it; where it would lie beside the virtual data set if it is nowhere.
    dataset
        Its place in that file.
    needed
        Least shape that the mapping asks of it; None where it takes the whole of it.
    n_points
        How many numbers of the virtual data set come from it.
    first, last
        Corners of the box of the virtual data set that it fills, both included.
    """

    file: Path
    dataset: str
    needed: tuple[int, ...] | None
    n_points: int
    first: tuple[int, ...]
    last: tuple[int, ...]

    def shape_problem(self, found: tuple[int, ...]) -> str | None:
        """Return what shape is expected if that of the data set in the file does not do; None if it does."""
        if self.needed is None:
            box = tuple(b - a + 1 for a, b in zip(self.first, self.last, strict=True))
            expected = str(box) if math.prod(box) == self.n_points else f"{self.n_points} numbers"
            return None if math.prod(found) == self.n_points else expected
        fits = len(found) == len(self.needed) and all(a >= b for a, b in zip(found, self.needed, strict=True))
        return None if fits else str(self.needed)


def parts_of(data: h5py.Dataset, path: Path) -> Iterator[Part]:
    """Iterate over the parts of a virtual data set, found as HDF5 finds them; none for another data set.

    A name is looked for under the folders of ``HDF5_VDS_PREFIX``, beside the file as it was opened, from the working
    folder, and beside the file that a link leads to, in this order. ``%b`` in a name stands for the number of a block.
    """
    for source in data.virtual_sources() if data.is_virtual else ():
        space, target = source.vspace, source.src_space
        if "%b" in source.file_name.replace("%%", "") or "%b" in source.dset_name.replace("%%", ""):
            yield from _numbered_parts(data, path, source)
            continue
        whole = target.get_select_type() != h5py.h5s.SEL_HYPERSLABS
        needed = None if whole else tuple(int(last) + 1 for last in target.get_select_bounds()[1])
        first, last = space.get_select_bounds()
        yield Part(
            _found(path, source.file_name.replace("%%", "%")),
            source.dset_name.replace("%%", "%"),
            needed,
            int(space.get_select_npoints()),
            tuple(map(int, first)),
            tuple(map(int, last)),
        )


def _numbered_parts(data: h5py.Dataset, path: Path, source: Any) -> Iterator[Part]:
    """Iterate over the blocks of a mapping without end, as far as the data set goes."""
    start, stride, count, block = source.vspace.get_regular_hyperslab()
    axis = next(i for i, n in enumerate(count) if n >= h5py.h5s.UNLIMITED or n > data.shape[i])
    for number in range(-(-(data.shape[axis] - start[axis]) // stride[axis])):
        first = list(map(int, start))
        first[axis] += number * int(stride[axis])
        sides = [int(size) * (1 if i == axis else int(n)) for i, (size, n) in enumerate(zip(block, count, strict=True))]
        last = [a + side - 1 for a, side in zip(first, sides, strict=True)]
        names = (
            name.replace("%%", "\0").replace("%b", str(number)).replace("\0", "%")
            for name in (source.file_name, source.dset_name)
        )
        file, dataset = names
        yield Part(_found(path, file), dataset, None, math.prod(sides), tuple(first), tuple(last))


def _found(path: Path, name: str) -> Path:
    """Return the file that a virtual data set of ``path`` names, where HDF5 looks for it."""
    if name == ".":
        return path
    own = path.absolute().parent
    prefixes = [one.replace("${ORIGIN}", str(own)) for one in os.environ.get("HDF5_VDS_PREFIX", "").split(":") if one]
    folders = [*map(Path, prefixes), own, Path.cwd(), path.resolve().parent]
    # Of an absolute name that leads nowhere, the last word is looked for.
    names = [Path(name), *(folder / Path(name).name for folder in folders)] if os.path.isabs(name) else []
    candidates = names or [folder / name for folder in folders]
    fallback = path.parent / name
    return next((one for one in candidates if one.is_file()), fallback)
