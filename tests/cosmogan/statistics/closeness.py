"""One comparison for all tests of statistics, whose tolerance proves itself."""

from typing import Any

import numpy as np
import pytest

FIVE_PERCENT = 1.05


def expect_close(found: Any, expected: Any, tolerance: float, *, scale: Any = None) -> None:
    """Compare arrays or tensors; a result five per cent off, up or down, must be refused.

    Parameters
    ----------
    found, expected
        Same shape, finite.
    tolerance
        Largest difference relative to ``scale``, for each number.
    scale
        The size of the expected numbers themselves if not given.
    """
    found, expected = np.asarray(found), np.asarray(expected)
    _compare(found, expected, tolerance, scale)
    for wrong in (FIVE_PERCENT, 1 / FIVE_PERCENT):
        with pytest.raises(AssertionError):
            _compare(wrong * found, expected, tolerance, scale)


def _compare(found: np.ndarray, expected: np.ndarray, tolerance: float, scale: Any) -> None:
    assert found.shape == expected.shape
    allowed = tolerance * np.abs(expected if scale is None else np.asarray(scale))
    difference = np.abs(found - expected)
    # NaN is not within anything.
    assert np.all(difference <= allowed), f"differs by up to {np.max(difference)}, allowed {np.min(allowed)}"
