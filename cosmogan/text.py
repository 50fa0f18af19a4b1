"""Words of messages: reasons, kinds, ranges, times and sizes as people read them."""

from __future__ import annotations

import os
from collections.abc import Iterable

# Types in plain words.
KINDS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "tuple": "a list"}


def plain_message(message: str) -> str:
    """Return a parser's message as one sentence without line breaks."""
    return " ".join(message.split()).rstrip(".")


def os_reason(error: BaseException) -> str:
    """Return the operating system's reason, without HDF5's dump of handles."""
    number = getattr(error, "errno", None)
    if number:
        return os.strerror(number)
    text = str(error)
    for reason in ("No space left on device", "Permission denied", "Disk quota exceeded", "unable to lock file"):
        if reason in text:
            return reason
    return text.splitlines()[0] if text else type(error).__name__


def ranges(numbers: Iterable[int]) -> str:
    """Return whole numbers in order, neighbours joined.

    Examples
    --------
    >>> ranges([7, 0, 1, 2, 5, 8])
    '0-2, 5, 7-8'
    """
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def duration(seconds: float) -> str:
    """Return a time with two or three digits.

    Examples
    --------
    >>> duration(0.0123), duration(75), duration(7300)
    ('12 ms', '75 s', '2.0 h')
    """
    for limit, unit, name in ((1, 1e-3, "ms"), (120, 1, "s"), (7200, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.{1 if seconds / unit < 10 else 0}f} {name}"
    return f"{seconds / 86400:.1f} days"


def decimal_bytes(n_bytes: float) -> str:
    """Return the size of a file or of memory as disks and batch jobs count it.

    Examples
    --------
    >>> decimal_bytes(4_830_000_000), decimal_bytes(12_345_678)
    ('4.83 GB', '12.35 MB')
    """
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.4g} MB"


def binary_bytes(n_bytes: int) -> str:
    """Return the size of memory as the system's tools print it.

    Examples
    --------
    >>> binary_bytes(5 * 2**20)
    '5 MiB'
    """
    return f"{n_bytes / 2**20:,.0f} MiB" if n_bytes < 10 * 2**30 else f"{n_bytes / 2**30:,.1f} GiB"
