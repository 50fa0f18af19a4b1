"""The smoothing that the format defines, against a slow sum over images of the slice."""

import numpy as np
import pytest

from cosmogan.slices.smoothing import gaussian_taps, smooth


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.3])
def test_a_field_is_convolved_with_the_cut_gaussian(sigma: float):
    field = np.random.default_rng(1).random((2, 12, 12))
    reach = int(4 * sigma + 0.5)
    offsets = range(-reach, reach + 1)
    weights = {(i, j): np.exp(-(i * i + j * j) / (2 * sigma**2)) for i in offsets for j in offsets}
    total = sum(weights.values())
    expected = sum(weight / total * np.roll(field, shift, (1, 2)) for shift, weight in weights.items())
    np.testing.assert_allclose(smooth(field, sigma), expected, rtol=1e-12)
    np.testing.assert_allclose(
        np.outer(gaussian_taps(sigma), gaussian_taps(sigma))[0, 0], weights[reach, reach] / total
    )


def test_no_smoothing_leaves_the_field():
    field = np.arange(9.0).reshape(1, 3, 3)
    assert smooth(field, 0) is field
    assert gaussian_taps(0).tolist() == [1]
