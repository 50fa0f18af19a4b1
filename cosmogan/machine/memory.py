"""Memory that a process may count on: what is free on the machine, within the limits of its batch job."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Limit, use, and the entry of memory.stat for what the kernel gives back when asked, in version 2 and 1 of cgroups.
_GROUP_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_memory(root: Path = Path("/")) -> int:
    """Return the bytes that this process may still take before the system or its batch job ends it.

    Parameters
    ----------
    root
        Folder with what Linux says of itself, ``proc`` and ``sys``.
    """
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    try:
        meminfo = dict(line.split(":") for line in (root / "proc/meminfo").read_text().splitlines())
        found.append(int(meminfo["MemAvailable"].split()[0]) * 1024)
        found += _left_by_groups(root)
    except (OSError, KeyError, ValueError):
        # Not Linux: all memory of the machine.
        pass
    return max(0, min(found))


def _left_by_groups(root: Path) -> Iterator[int]:
    """Iterate over what control groups leave; limits are set on that of the process or on one above it."""
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        top = root / "sys/fs/cgroup" / ("memory" if "memory" in controllers.split(",") else "")
        for folder in (top / group.lstrip("/"), *(top / group.lstrip("/")).parents):
            for limit, used, reclaimable in _GROUP_FILES:
                most = _number(folder / limit)
                if most is not None:
                    yield most - max(0, (_number(folder / used) or 0) - _entry(folder / "memory.stat", reclaimable))


def _number(path: Path) -> int | None:
    """Return the number in a file; None where there is no such file, or no limit in it."""
    text = path.read_text().strip() if path.is_file() else ""
    return int(text) if text.isdigit() else None


def _entry(path: Path, name: str) -> int:
    """Return an entry of a file with a name and a number per line; 0 where it is missing."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((int(line.split()[1]) for line in lines if line.split()[0] == name), 0)
