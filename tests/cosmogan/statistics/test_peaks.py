import numpy as np
import pytest
import torch
from scipy.ndimage import maximum_filter, minimum_filter

from cosmogan.slices import SliceMetadata
from cosmogan.statistics.peaks import Peaks, Voids, find_peaks

METADATA = SliceMetadata(box_size=100.0, n_pixels=32, thickness=1.0)


def fields(n: int = 6) -> torch.Tensor:
    return torch.exp(torch.randn(n, 32, 32, generator=torch.Generator().manual_seed(0)))


def test_peaks_are_those_of_scipy():
    slices = fields()
    expected = [maximum_filter(s, 5, mode="wrap") == s for s in slices.numpy()]
    np.testing.assert_array_equal(find_peaks(slices).numpy(), expected)


def test_voids_are_those_of_scipy():
    slices = fields()
    expected = np.stack([minimum_filter(s, 5, mode="wrap") == s for s in slices.numpy()])
    np.testing.assert_array_equal(Voids().find(slices).numpy(), expected)
    # In float64, as the bins are.
    depths = [np.histogram(s[m].double(), Voids().edges(METADATA))[0] for s, m in zip(slices, expected, strict=True)]
    np.testing.assert_array_equal(Voids().per_slice(slices, METADATA).numpy(), depths)
    # Twin: voids 5% deeper are another histogram.
    assert not torch.equal(Voids().per_slice(slices / 1.05, METADATA), Voids().per_slice(slices, METADATA))


def test_a_lattice_of_holes():
    slices = torch.ones(1, 32, 32) + 0.1 * fields(1)
    slices[0, ::8, ::8] = 0.05
    counts, edges = Voids().per_slice(slices, METADATA)[0], Voids().edges(METADATA)
    assert counts[(edges[:-1] <= 0.05) & (edges[1:] > 0.05)] == 16
    assert counts[edges[1:] < 0.9].sum() == 16


def test_a_lattice_of_spikes():
    slices = torch.full((1, 32, 32), 0.5)
    slices[0, ::8, ::8] = 20.0
    counts = Peaks().per_slice(slices, METADATA)[0]
    edges = Peaks().edges(METADATA)
    (bin_of_spikes,) = np.flatnonzero((edges[:-1] <= 20.0) & (edges[1:] > 20.0))
    assert counts[bin_of_spikes] == 16
    # Twin: spikes five per cent of a bin's width higher than its edge lie in the next bin.
    slices[0, ::8, ::8] = edges[bin_of_spikes + 1] * 1.001
    assert Peaks().per_slice(slices, METADATA)[0][bin_of_spikes] == 0


def test_of_two_equal_neighbours_one_counts():
    slices = torch.rand(1, 16, 16)
    slices[0, 4, 4] = slices[0, 4, 5] = 9.0
    # Across the periodic edge as well.
    slices[0, 10, 15] = slices[0, 10, 0] = 7.0
    found = find_peaks(slices)
    assert found[0, 4, 4:6].sum() == 1
    assert found[0, 10, [15, 0]].sum() == 1


@pytest.mark.parametrize("side", [5, 6, 11])
def test_of_plateaus_the_first_pixel_counts(side):
    # Few different values: most windows hold equal pixels, some nothing else.
    slices = torch.randint(0, 3, (20, side, side), generator=torch.Generator().manual_seed(0)).float()
    slices[0] = 1.0
    expected = np.zeros(slices.shape, dtype=bool)
    window = [(y, x) for y in range(-2, 3) for x in range(-2, 3)]
    for number, image in enumerate(slices.numpy()):
        for row, column in np.ndindex(side, side):
            around = [image[(row + y) % side, (column + x) % side] for y, x in window]
            # Row by row; the pixel itself stands in the middle of the window.
            expected[number, row, column] = np.argmax(around) == window.index((0, 0))
    np.testing.assert_array_equal(find_peaks(slices).numpy(), expected)


@pytest.mark.parametrize(
    "move",
    [lambda s: s.roll((3, 7), (1, 2)), lambda s: s.transpose(1, 2), lambda s: s.flip(1)],
    ids=["roll", "t", "flip"],
)
def test_symmetries_do_not_matter(move):
    for statistic in (Peaks(), Voids()):
        one, other = (statistic.per_slice(s, METADATA) for s in (fields(), move(fields())))
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_every_peak_is_in_one_bin_and_small_slices_are_refused():
    assert Peaks().per_slice(fields(), METADATA).sum() == find_peaks(fields()).sum()
    assert Voids().per_slice(fields(), METADATA).sum() == find_peaks(-fields()).sum()
    with pytest.raises(ValueError, match="at least 5 pixels"):
        find_peaks(torch.zeros(1, 4, 4))
