import numpy as np
import pytest
import torch
from scipy.ndimage import correlate

from cosmogan.statistics.similarity import (
    coarsened,
    draw_pairs,
    error_of_pair_mean,
    jackknife_error_of_pair_mean,
    structural_similarity,
    units_of_slices,
    unrelated,
)

# float32 convolutions.
FLOAT32 = 1e-4
WEIGHTS = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])


def fields(n_slices: int, n_pixels: int, seed: int = 0) -> torch.Tensor:
    return torch.exp(torch.randn(n_slices, n_pixels, n_pixels, generator=torch.Generator().manual_seed(seed)))


def slow_similarity(first: np.ndarray, second: np.ndarray, n_scales: int) -> float:
    """MS-SSIM of one pair from its definition, with scipy."""
    x = np.arange(-5, 6)
    window = np.exp(-(x**2) / (2 * 1.5**2))
    window = np.outer(window, window) / window.sum() ** 2
    a, b = ((s - 1) / (s + 1) for s in (first, second))
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    weights = WEIGHTS[:n_scales] / WEIGHTS[:n_scales].sum()
    result = 1.0
    for scale in range(n_scales):
        means = [correlate(s, window, mode="mirror") for s in (a, b, a * a, b * b, a * b)]
        contrast = (2 * (means[4] - means[0] * means[1]) + c2) / (
            means[2] - means[0] ** 2 + means[3] - means[1] ** 2 + c2
        )
        if scale < n_scales - 1:
            term = contrast[5:-5, 5:-5].mean()
        else:
            term = (contrast * (2 * means[0] * means[1] + c1) / (means[0] ** 2 + means[1] ** 2 + c1)).mean()
        result *= ((1 + term) / 2) ** weights[scale]
        half = 2 * (len(a) // 2)
        a, b = (s[:half, :half].reshape(half // 2, 2, half // 2, 2).mean((1, 3)) for s in (a, b))
    return result


@pytest.mark.parametrize(("n_pixels", "n_scales"), [(16, 2), (43, 2), (44, 3), (64, 3), (99, 4), (128, 4), (176, 5)])
def test_equals_the_definition(n_pixels: int, n_scales: int) -> None:
    first, second = fields(2, n_pixels, 1), fields(2, n_pixels, 2)
    second[1] = first[1] * (1 + 0.3 * second[1])
    found = structural_similarity(first, second)
    expected = [
        slow_similarity(a, b, n_scales) for a, b in zip(first.double().numpy(), second.double().numpy(), strict=True)
    ]
    np.testing.assert_allclose(found.numpy(), expected, rtol=FLOAT32)
    assert not np.allclose(found.numpy() * 1.05, expected, rtol=0.04)


def test_equal_slices_and_independent_ones() -> None:
    first, second = fields(8, 64, 1), fields(8, 64, 2)
    torch.testing.assert_close(structural_similarity(first, first), torch.ones(8).double(), rtol=0, atol=FLOAT32)
    independent = structural_similarity(first, second)
    assert (independent - 0.5).abs().max() < 0.1
    torch.testing.assert_close(structural_similarity(second, first), independent, rtol=FLOAT32, atol=0)
    for move in (lambda s: s.transpose(1, 2), lambda s: s.flip(1)):
        torch.testing.assert_close(structural_similarity(move(first), move(second)), independent, rtol=1e-3, atol=0)
    # Twin: the place matters.
    assert (structural_similarity(first, first.roll(9, 1)) < 0.7).all()


@pytest.mark.parametrize(("n_pixels", "expected"), [(16, 16), (128, 128), (129, 64), (256, 128), (300, 100)])
def test_large_slices_become_smaller(n_pixels: int, expected: int) -> None:
    slices = fields(2, n_pixels)
    found = coarsened(slices)
    assert found.shape == (2, expected, expected)
    block = n_pixels // expected
    torch.testing.assert_close(found[0, 1, 2], slices[0, block : 2 * block, 2 * block : 3 * block].mean())


def test_refuses_slices_smaller_than_the_window() -> None:
    with pytest.raises(ValueError, match="at least 16 pixels"):
        structural_similarity(torch.ones(1, 15, 15), torch.ones(1, 15, 15))
    with pytest.raises(ValueError, match="n_pairs"):
        structural_similarity(torch.ones(1, 16, 16), torch.ones(2, 16, 16))


def relation(realisation: list[int], axis: list[int], position: list[float]) -> list[list[bool]]:
    number = np.arange(len(realisation))
    labels = {"realisation": np.array(realisation), "axis": np.array(axis, np.uint8), "position": np.array(position)}
    return unrelated(number[:, None], number, **labels, box_size=100.0).tolist()


def test_which_slices_are_unrelated() -> None:
    no, yes = False, True
    # Several realisations: only across, wherever they lie.
    assert relation([1, 1, 2], [0, 2, 0], [0.0, 60.0, 0.0]) == [[no, no, yes], [no, no, yes], [yes, yes, no]]
    # One: another axis, or a quarter of the periodic box.
    assert relation([4, 4, 4], [0, 0, 1], [0.0, 24.0, 0.0]) == [[no, no, yes], [no, no, yes], [yes, yes, no]]
    assert relation([4, 4], [0, 0], [0.0, 26.0]) == [[no, yes], [yes, no]]
    assert relation([4, 4], [0, 0], [1.0, 80.0]) == [[no, no], [no, no]]
    # Those of a generator: any.
    assert relation([4, 4], [255, 255], [np.nan, np.nan]) == [[no, yes], [yes, no]]


def test_pairs_are_drawn_once_and_by_seed() -> None:
    allowed = np.ones((30, 30), dtype=bool)
    first, second = draw_pairs(30, 100, allowed, seed=3)
    assert len({*zip(first.tolist(), second.tolist(), strict=True)}) == 100
    assert (first < second).all()
    np.testing.assert_array_equal(draw_pairs(30, 100, allowed, seed=3), (first, second))
    assert not np.array_equal(draw_pairs(30, 100, allowed, seed=4), (first, second))
    assert len(draw_pairs(30, 1000, allowed, seed=3)[0]) == 30 * 29 // 2
    assert len(draw_pairs(30, 1000, ~allowed, seed=3)[0]) == 0


# 400 draws know a standard deviation to 1 / sqrt(800) = 3.5%.
SCATTER_KNOWN = 0.12


def test_error_of_pairs_that_share_slices() -> None:
    rng = np.random.default_rng(0)
    first, second = draw_pairs(60, 400, np.ones((60, 60), dtype=bool), seed=0)
    own, pair = rng.normal(size=(400, 60)), rng.normal(size=(400, 400))
    values = own[:, first] + own[:, second] + pair
    estimates = [error_of_pair_mean(row, first, second) for row in values]
    truth = values.mean(1).std()
    assert np.sqrt(np.mean(np.square(estimates))) == pytest.approx(truth, rel=SCATTER_KNOWN)
    # Twin: pairs taken as independent.
    assert (values.std(1) / 20).mean() < 0.5 * truth
    # Without anything shared they are.
    independent = [error_of_pair_mean(row, first, second) for row in pair]
    assert np.sqrt(np.mean(np.square(independent))) == pytest.approx(0.05, rel=0.2)
    assert np.isnan(error_of_pair_mean(np.ones(1), np.zeros(1, int), np.ones(1, int)))


def test_error_of_pairs_of_slabs_that_resemble_each_other() -> None:
    rng = np.random.default_rng(0)
    unit = np.arange(300) // 10
    first, second = draw_pairs(300, 600, unit[:, None] != unit, seed=0)
    own, pair = rng.normal(size=(400, 30))[:, unit], rng.normal(size=(400, 600))
    values = own[:, first] + own[:, second] + pair
    truth = values.mean(1).std()
    estimates = [error_of_pair_mean(row, unit[first], unit[second]) for row in values]
    assert np.sqrt(np.mean(np.square(estimates))) == pytest.approx(truth, rel=SCATTER_KNOWN)
    # Twin: slabs taken as independent.
    assert error_of_pair_mean(values[0], first, second) < 0.7 * truth


def test_units_are_quarters_of_a_box_or_single_slices() -> None:
    position = np.array([0.0, 20.0, 30.0, 0.0, 0.0, np.nan, np.nan])
    axis = np.array([0, 0, 0, 1, 0, 255, 255], np.uint8)
    unit = units_of_slices(realisation=np.array([1, 1, 1, 1, 2, 2, 2]), axis=axis, position=position, box_size=100.0)
    assert unit[0] == unit[1]
    assert len(set(unit.tolist())) == 6
    assert sorted(set(unit.tolist())) == list(range(6))


def test_error_between_realisations() -> None:
    rng = np.random.default_rng(0)
    first, second = np.triu_indices(5, 1)
    own = rng.normal(size=(2000, 5))
    values = own[:, first] + own[:, second]
    estimates = [jackknife_error_of_pair_mean(row, first, second) for row in values]
    # Two of each, of variance 1 / 5.
    assert np.sqrt(np.mean(np.square(estimates))) == pytest.approx(2 / np.sqrt(5), rel=SCATTER_KNOWN / 2)
    assert values.mean(1).std() == pytest.approx(2 / np.sqrt(5), rel=SCATTER_KNOWN / 2)
    two = np.zeros(4, int), np.ones(4, int)
    assert np.isnan(jackknife_error_of_pair_mean(np.arange(4.0), *two))
