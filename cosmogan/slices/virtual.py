"""Virtual data sets, whose parts are other files: HDF5 takes zeros for a part that it cannot open, without an error."""

from __future__ import annotations

from pathlib import Path

import h5py

from cosmogan.errors import UserError
from cosmogan.hdf5 import open_file, parts_of, require_filters

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
    """Return a sentence per part of a virtual data set that is not there or too short."""
    problems = []
    for part in parts_of(dataset, path):
        try:
            with open_file(part.file) as handle:
                held = handle[part.dataset]
                require_filters(held, part.file)
                found = held.shape
        except KeyError:
            problems.append(f"{path}: its part {part.file} has no data set {part.dataset}")
        except UserError as error:
            problems.append(str(error))
        except OSError:
            problems.append(
                f"{path}: its part {part.file} is missing or damaged; bring it back or write the slices again"
            )
        else:
            if expected := part.shape_problem(found):
                problems.append(
                    f"{path}: its part {part.file} holds {part.dataset} of shape {found}; expected {expected}. "
                    "Bring the right one back or write the slices again"
                )
    return problems


def part_of(dataset: h5py.Dataset, path: Path, number: int) -> str | None:
    """Return the file that holds a slice of a virtual data set; None for another data set."""
    for part in parts_of(dataset, path):
        if part.first[0] <= number <= part.last[0]:
            return part.file.name if part.file.parent == path.absolute().parent else str(part.file)
    return None
