"""Names and types of what a slice file holds, and what its values may be."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

FORMAT = "cosmogan-slices"
FORMAT_VERSION = 1
AXIS_NOT_APPLICABLE = 255
# Types of stored pixels by quantity, the usual one first.
DTYPES: dict[str, tuple[np.dtype[Any], ...]] = {
    "counts": (np.dtype("<u2"),),
    "density": (np.dtype("<f4"), np.dtype("<f2")),
}
LABELS: dict[str, np.dtype[Any]] = {
    "realisation": np.dtype(np.int32),
    "axis": np.dtype(np.uint8),
    "position": np.dtype(np.float32),
}
CONDITION_DTYPE = np.dtype(np.float64)
CHECKSUMS = "sha256"
CHECKSUM_SIZE = 32


def checksums(block: np.ndarray) -> np.ndarray:
    """Return the SHA-256 of the bytes of each slice as they are stored, uint8, shape ``(n, 32)``."""
    digests = b"".join(hashlib.sha256(np.ascontiguousarray(one).data).digest() for one in block)
    return np.frombuffer(digests, np.uint8).reshape(len(block), CHECKSUM_SIZE)


def value_problem(block: np.ndarray, *, offset: int = 0) -> str | None:
    """Return a clause on the first kind of bad value in a block of slices, or None."""
    if block.dtype.kind == "u":
        return None
    for bad, name in ((~np.isfinite(block), "NaN or infinite"), (block < 0, "negative")):
        if bad.any():
            first = offset + int(np.argmax(bad.any(axis=(1, 2))))
            return f"{int(bad.sum())} {name} values (first at slice {first})"
    return None
