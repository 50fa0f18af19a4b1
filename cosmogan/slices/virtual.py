"""Virtual data sets, whose parts are other files: HDF5 takes zeros for a part that it cannot open, without an error."""

from __future__ import annotations

from pathlib import Path

import h5py

from cosmogan.errors import UserError

# Files that a process may have open besides the parts.
_OTHER_FILES = 256


def allow_parts(dataset: object, path: Path) -> None:
    """Let this process open all parts of a data set, if it is a virtual one.

    Raises
    ------
    UserError
        If it may not open so many files.
    """
    if not isinstance(dataset, h5py.Dataset) or not dataset.is_virtual:
        return
    # Not on every system, and needed for nothing else.
    import resource

    n_parts = len({source.file_name for source in dataset.virtual_sources()})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = n_parts + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise UserError(
            f"{path}: has {n_parts} parts, and this process may open {hard} files; "
            "make one file of the parts with `cosmogan merge`, or raise `ulimit -n`"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def missing_parts(dataset: h5py.Dataset, path: Path) -> list[str]:
    """Return a sentence per file of a virtual data set that is not there or too short."""
    if not dataset.is_virtual:
        return []
    problems = []
    for source in dataset.virtual_sources():
        part = path if source.file_name == "." else path.parent / source.file_name
        if source.src_space.get_select_type() == h5py.h5s.SEL_HYPERSLABS:
            needed = tuple(last + 1 for last in source.src_space.get_select_bounds()[1])
        else:
            first, last = source.vspace.get_select_bounds()
            needed = tuple(b - a + 1 for a, b in zip(first, last, strict=True))
        try:
            with h5py.File(part, "r") as handle:
                found = handle[source.dset_name].shape
        except KeyError:
            problems.append(f"{path}: its part {part} has no data set {source.dset_name}")
        except OSError:
            problems.append(f"{path}: its part {part} is missing or damaged; bring it back or write the slices again")
        else:
            if len(found) != len(needed) or any(have < want for have, want in zip(found, needed, strict=True)):
                problems.append(
                    f"{path}: its part {part} holds {source.dset_name} of shape {found}; expected {needed}. "
                    "Bring the right one back or write the slices again"
                )
    return problems


def part_of(dataset: h5py.Dataset, number: int) -> str | None:
    """Return the file that holds a slice of a virtual data set; None for another data set."""
    for source in dataset.virtual_sources() if dataset.is_virtual else ():
        first, last = source.vspace.get_select_bounds()
        if first[0] <= number <= last[0]:
            return str(source.file_name)
    return None
