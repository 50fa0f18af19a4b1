import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, label

from cosmogan.slices import SliceMetadata
from cosmogan.statistics.minkowski import EulerCharacteristic, minkowski_functionals

HALF = torch.tensor([0.5])
METADATA = SliceMetadata(box_size=100.0, n_pixels=64, thickness=1.0)


def functionals(image: np.ndarray) -> list[float]:
    """Area, boundary and Euler characteristic in pixels of one binary image."""
    field = torch.from_numpy(image.astype(np.float32))[None]
    return (image.size * minkowski_functionals(field, HALF)[0, :, 0]).round().tolist()


def blank() -> np.ndarray:
    return np.zeros((12, 12))


def test_shapes_by_hand():
    square = blank()
    square[2:5, 3:7] = 1
    assert functionals(square) == [12, 14, 1]
    ring = blank()
    ring[2:7, 2:7] = 1
    ring[3:6, 3:6] = 0
    # 25 - 9 pixels, outer boundary 20 and inner 12, one region with one hole.
    assert functionals(ring) == [16, 32, 0]
    two = blank()
    two[1, 1] = two[8, 8] = 1
    assert functionals(two) == [2, 8, 2]
    # Pixels that share a corner are one region.
    two[2, 2] = 1
    assert functionals(two) == [3, 12, 2]


def test_the_edge_of_the_slice_is_no_edge():
    square = blank()
    square[2:5, 3:7] = 1
    assert functionals(np.roll(square, (-4, -5), (0, 1))) == functionals(square)
    # A band around the torus has no ends: Euler characteristic 0.
    band = blank()
    band[3:5] = 1
    assert functionals(band) == [24, 24, 0]
    assert functionals(np.ones((12, 12))) == [144, 0, 0]


def test_euler_characteristic_counts_regions_minus_holes():
    # Inside an empty frame periodicity plays no part, and scipy counts: regions touch at corners, holes at edges only.
    rng = np.random.default_rng(0)
    for _ in range(20):
        image = np.zeros((32, 32), int)
        image[2:-2, 2:-2] = gaussian_filter(rng.normal(size=(28, 28)), 1.5) > 0.05
        regions = label(image, np.ones((3, 3)))[1]
        holes = label(1 - image)[1] - 1
        assert functionals(image)[2] == regions - holes


def gaussian_field(n_slices: int, sigma: float) -> torch.Tensor:
    rng = np.random.default_rng(1)
    fields = [gaussian_filter(f, sigma, mode="wrap") for f in rng.normal(size=(n_slices, 64, 64))]
    return torch.from_numpy(np.stack(fields) / np.std(fields))


def test_gaussian_random_field():
    # Tomita 1986; with V2 = (mu / 2 pi) nu exp(-nu^2 / 2) / sqrt(2 pi) and mu = <|grad f|^2> / 2 = 1 / (2 sigma^2).
    # Pixels instead of smooth contours shift V2 by some per cent for regions of a few pixels.
    sigma, nu = 4.0, torch.tensor([-1.5, -1.0, 1.0, 1.5])
    area, boundary, euler = minkowski_functionals(gaussian_field(400, sigma), nu).mean(0)
    torch.testing.assert_close(area, 1 - torch.special.ndtr(nu.double()), rtol=0.02, atol=0)
    mu = 1 / (2 * sigma**2)
    weight = torch.exp(-(nu.double() ** 2) / 2)
    # Mean length sqrt(mu) / pi exp(...) / ... per area, times 4 / pi for edges along the axes.
    expected = 4 / torch.pi * 0.5 * np.sqrt(mu) * weight
    torch.testing.assert_close(boundary, expected, rtol=0.03, atol=0)
    expected = mu / (2 * torch.pi) * nu.double() * weight / np.sqrt(2 * torch.pi)
    torch.testing.assert_close(euler, expected, rtol=0.1, atol=0)


@pytest.mark.parametrize("move", [lambda s: s.roll((3, 7), (1, 2)), lambda s: s.transpose(1, 2)], ids=["roll", "t"])
def test_symmetries_do_not_matter(move):
    fields = torch.exp(gaussian_field(4, 2.0))
    one, other = (EulerCharacteristic().per_slice(f, METADATA) for f in (fields, move(fields)))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    # Twin: another smoothing is another curve.
    assert not torch.allclose(EulerCharacteristic().per_slice(torch.exp(gaussian_field(4, 2.1)), METADATA), one)
