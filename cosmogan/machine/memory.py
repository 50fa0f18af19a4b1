"""Memory that a process may count on: that of the machine, within the limits of its batch job."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Limit, use, and the entry of memory.stat for what the kernel gives back when asked, in version 2 and 1 of cgroups.
_GROUP_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def memory_limit(root: Path = Path("/")) -> int:
    """Return the bytes that all processes of this batch job, or machine, may take together: the same at any time.

    Parameters
    ----------
    root
        Folder with what Linux says of itself, ``proc`` and ``sys``.
    """
    return min([_physical(), *(limit for limit, _ in _groups(root))])


def available_memory(root: Path = Path("/")) -> int:
    """Return the bytes that this process may still take now before the system or its batch job ends it.

    Parameters
    ----------
    root
        Folder as in `memory_limit`.
    """
    meminfo = root / "proc/meminfo"
    # Where there is none: not Linux, all memory of the machine.
    free = _entry(meminfo, "MemAvailable:") * 1024 if meminfo.is_file() else _physical()
    return max(0, min([_physical(), free, *(limit - used for limit, used in _groups(root))]))


def _physical() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _groups(root: Path) -> Iterator[tuple[int, int]]:
    """Iterate over limit and use of control groups; limits are set on that of the process or on one above it."""
    own = root / "proc/self/cgroup"
    for line in own.read_text().splitlines() if own.is_file() else ():
        _, controllers, group = line.split(":", 2)
        top = root / "sys/fs/cgroup" / ("memory" if "memory" in controllers.split(",") else "")
        for folder in (top / group.lstrip("/"), *(top / group.lstrip("/")).parents):
            for limit, use, reclaimable in _GROUP_FILES:
                most = _number(folder / limit)
                if most is not None:
                    used = (_number(folder / use) or 0) - _entry(folder / "memory.stat", reclaimable)
                    yield most, max(0, used)


def _number(path: Path) -> int | None:
    """Return the number in a file; None where there is no such file, or no limit in it."""
    text = path.read_text().strip() if path.is_file() else ""
    return int(text) if text.isdigit() else None


def _entry(path: Path, name: str) -> int:
    """Return an entry of a file with a name and a number per line; 0 where it is missing."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((int(line.split()[1]) for line in lines if line.split()[0] == name), 0)
