import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, label

from cosmogan.slices import SliceMetadata
from cosmogan.statistics.minkowski import BoundaryLength, EulerCharacteristic, minkowski_functionals

HALF = torch.tensor([0.5])
METADATA = SliceMetadata(box_size=100.0, n_pixels=64, thickness=1.0)
STATISTICS = [BoundaryLength(), EulerCharacteristic()]
# Circles of 15 pixels' radius: their rim is one pixel wide.
RIM = 0.02
FIVE_PERCENT = 1.05


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


def slow_functionals(image: np.ndarray) -> list[int]:
    """Area, boundary and Euler characteristic from sets of faces, edges and corners."""
    n = len(image)
    faces = {(int(i), int(j)) for i, j in np.argwhere(image)}
    # Doubled coordinates on the torus: faces at odd places, corners at even ones, edges at one of each.
    cells = {
        ((2 * i + 1 + a) % (2 * n), (2 * j + 1 + b) % (2 * n)) for i, j in faces for a in (-1, 0, 1) for b in (-1, 0, 1)
    }
    boundary = sum(
        ((i + a) % n, (j + b) % n) not in faces for i, j in faces for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1))
    )
    return [len(faces), boundary, sum((-1) ** (x % 2 + y % 2) for x, y in cells)]


@pytest.mark.parametrize("density", [0.05, 0.4, 0.9])
def test_equals_a_count_of_cells(density: float):
    image = np.random.default_rng(3).random((12, 12)) < density
    assert functionals(image) == slow_functionals(image)
    # Twin: one pixel of 144 more is seen.
    other = image.copy()
    other[0, 0] = not other[0, 0]
    assert functionals(other) != slow_functionals(image)


def test_every_threshold_is_that_of_its_own_image():
    fields, thresholds = torch.exp(gaussian_field(2, 2.0)), torch.tensor([0.3, 1.0, 2.5])
    found = minkowski_functionals(fields, thresholds)
    for number, threshold in enumerate(thresholds):
        torch.testing.assert_close(found[..., number], minkowski_functionals(fields, threshold[None])[..., 0])
    # A pixel equal to a threshold is not above it.
    assert minkowski_functionals(torch.ones(1, 4, 4), torch.ones(1)).abs().sum() == 0


@pytest.mark.parametrize("bad", [[1.0, 0.5], [1.0, 1.0], list(range(256))])
def test_thresholds_increase(bad: list[float]):
    with pytest.raises(ValueError, match="increasing"):
        minkowski_functionals(torch.ones(1, 4, 4), torch.tensor(bad))


def expect_disc(fields: torch.Tensor, *, radius: float):
    """One disc of density 5 in a background of 0.01; box 100 Mpc/h, radius in Mpc/h."""
    values = [statistic.per_slice(fields, METADATA)[0] for statistic in STATISTICS]
    inside = STATISTICS[0].centres(METADATA) < 5
    assert all((value[~inside] == 0).all() for value in values)
    boundary, euler = (value[inside] for value in values)
    np.testing.assert_allclose(boundary, 4 / np.pi * 2 * np.pi * radius / 100**2, rtol=RIM)
    assert (euler == 1).all()


@pytest.mark.parametrize("wrong", [1.0, FIVE_PERCENT, 1 / FIVE_PERCENT])
def test_units_of_a_disc(wrong: float):
    pixel, radius = 100 / 64, 25.0
    x = (np.arange(64) - 31.5) * pixel
    disc = np.where(np.hypot(x[:, None], x) < radius, 5.0, 0.01)
    fields = torch.from_numpy(disc)[None]
    if wrong == 1.0:
        expect_disc(fields, radius=radius)
    else:
        with pytest.raises(AssertionError):
            expect_disc(fields, radius=radius * wrong)


def test_what_is_judged():
    reference = np.array([1.0, 0.3, 0.03, 0.003, 0.0])
    expected = {"boundary_length": 2, "euler_characteristic": 2}
    for statistic in STATISTICS:
        for curve in (reference, -reference):
            judged = statistic.judged(METADATA, curve)
            assert judged.sum() == expected[statistic.name]
            assert judged[0]


@pytest.mark.parametrize("statistic", STATISTICS, ids=lambda s: s.name)
@pytest.mark.parametrize("move", [lambda s: s.roll((3, 7), (1, 2)), lambda s: s.transpose(1, 2)], ids=["roll", "t"])
def test_symmetries_do_not_matter(statistic, move):
    fields = torch.exp(gaussian_field(4, 2.0))
    one, other = (statistic.per_slice(f, METADATA) for f in (fields, move(fields)))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    # Twin: another smoothing is another curve.
    assert not torch.allclose(statistic.per_slice(torch.exp(gaussian_field(4, 2.1)), METADATA), one)
