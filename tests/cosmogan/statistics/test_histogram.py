import bisect
import math

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from cosmogan.slices import SliceMetadata
from cosmogan.statistics.histogram import Histogram, Tail, histogram, jensen_shannon, kl_divergence, wasserstein

# Sums of some hundred float64 numbers.
FLOAT64 = 1e-12
# Riemann sums of smooth functions on 4000 points over +-12 sigma.
INTEGRAL = 1e-6


def expect_divergence(p: np.ndarray, q: np.ndarray, expected: float) -> None:
    assert kl_divergence(p, q) == pytest.approx(expected, rel=INTEGRAL, abs=FLOAT64)


def gaussian(mean: float, sigma: float) -> np.ndarray:
    x = np.linspace(-12, 12, 4001)
    return np.exp(-0.5 * ((x - mean) / sigma) ** 2)


class TestHistogram:
    def test_equals_a_loop_over_pixels(self) -> None:
        fields = torch.randn(4, 9, 9, generator=torch.Generator().manual_seed(0)).exp()
        edges = [0.1, 0.5, 1.0, 3.0]
        expected = np.zeros((4, 5))
        for i, image in enumerate(fields.tolist()):
            for pixel in np.ravel(image):
                expected[i, bisect.bisect_right(edges, pixel)] += 1 / 81
        np.testing.assert_allclose(histogram(fields, torch.tensor(edges)).numpy(), expected, rtol=FLOAT64)

    def test_nothing_is_lost(self) -> None:
        fields = torch.tensor([[[0.0, -1.0], [1e30, 5.0]]])
        shares = histogram(fields, torch.tensor([1.0, 10.0]))
        assert shares.tolist() == [[0.5, 0.25, 0.25]]

    def test_lower_edges_are_inclusive(self) -> None:
        assert histogram(torch.tensor([[[1.0, 2.0]]]), torch.tensor([1.0, 2.0])).tolist() == [[0.0, 0.5, 0.5]]

    def test_slices_do_not_know_each_other(self) -> None:
        fields = torch.rand(6, 8, 8, generator=torch.Generator().manual_seed(1))
        edges = torch.linspace(0.1, 0.9, 5)
        whole = histogram(fields, edges)
        assert torch.equal(torch.cat([histogram(part, edges) for part in fields.split([2, 1, 3])]), whole)
        assert torch.equal(histogram(fields.flip(0), edges), whole.flip(0))
        assert torch.equal(histogram(fields.roll(3, 2).transpose(1, 2), edges), whole)

    def test_no_pixels(self) -> None:
        with pytest.raises(ValueError, match="pixels"):
            histogram(torch.zeros(2, 0, 0), torch.tensor([1.0]))


class TestDivergences:
    def test_two_coins(self) -> None:
        p, q = np.array([0.5, 0.5]), np.array([0.9, 0.1])
        # 0.5 ln(0.5/0.9) + 0.5 ln(0.5/0.1) = 0.5 ln(25/9)
        expect_divergence(p, q, 0.5 * math.log(25 / 9))
        expect_divergence(q, p, 0.9 * math.log(1.8) + 0.1 * math.log(0.2))

    def test_two_gaussians(self) -> None:
        # ln(s2/s1) + (s1^2 + (m1 - m2)^2) / (2 s2^2) - 1/2
        expected = math.log(1.5) + (1 + 0.5**2) / (2 * 1.5**2) - 0.5
        expect_divergence(gaussian(0.5, 1.0), gaussian(0.0, 1.5), expected)
        with pytest.raises(AssertionError):
            expect_divergence(gaussian(0.5, 1.0), gaussian(0.0, 1.5), 1.05 * expected)
        with pytest.raises(AssertionError):
            expect_divergence(gaussian(0.5 * 1.05, 1.0), gaussian(0.0, 1.5), expected)

    def test_equal_shares_are_at_no_distance(self) -> None:
        p = gaussian(0.0, 1.0)
        assert kl_divergence(p, 7 * p) == pytest.approx(0, abs=FLOAT64)
        assert jensen_shannon(p, p) == 0

    def test_empty_bins(self) -> None:
        p, q = np.array([0.5, 0.5, 0.0]), np.array([1.0, 0.0, 0.0])
        assert kl_divergence(q, p) == pytest.approx(math.log(2))
        assert kl_divergence(p, q) == pytest.approx(0.5 * math.log(0.5) + 0.5 * math.log(0.5 / 1e-12))

    def test_jensen_shannon_by_hand(self) -> None:
        p, q = np.array([1.0, 0.0]), np.array([0.5, 0.5])
        # The middle is (3/4, 1/4).
        expected = 0.5 * math.log(4 / 3) + 0.5 * (0.5 * math.log(2 / 3) + 0.5 * math.log(2))
        assert jensen_shannon(p, q) == pytest.approx(expected)
        assert jensen_shannon(q, p) == pytest.approx(expected)
        assert jensen_shannon(np.array([1.0, 0]), np.array([0, 1.0])) == pytest.approx(math.log(2))

    @pytest.mark.parametrize("bad", [[-0.1, 1.1], [0.0, 0.0], [np.nan, 1.0]])
    def test_refuses_what_is_no_distribution(self, bad: list[float]) -> None:
        with pytest.raises(ValueError, match="q"):
            kl_divergence(np.array([0.5, 0.5]), np.array(bad))

    def test_refuses_other_bins(self) -> None:
        with pytest.raises(ValueError, match="same bins"):
            kl_divergence(np.ones(3), np.ones(4))


class TestWasserstein:
    # Samples inside a bin lie on no straight line: bins of a tenth of the width of the distributions.
    BINS = 0.01

    def test_equals_that_of_the_samples(self) -> None:
        rng = np.random.default_rng(0)
        edges = np.linspace(-8, 8, 161)
        # Shifted, wider, and both: the cumulative distributions cross.
        for other in (rng.normal(0.5, 1, 20000), rng.normal(0, 1.4, 20000), rng.normal(0.3, 0.6, 20000)):
            one = rng.normal(0, 1, 20000)
            shares = [np.histogram(samples, edges)[0] for samples in (one, other)]
            expected = wasserstein_distance(one, other)
            assert wasserstein(*shares, edges) == pytest.approx(expected, rel=self.BINS)
            assert wasserstein(*shares[::-1], edges) == pytest.approx(expected, rel=self.BINS)
            assert wasserstein(*shares, 1.05 * edges) != pytest.approx(expected, rel=self.BINS)

    def test_by_hand(self) -> None:
        edges = np.array([0.0, 1.0, 3.0, np.inf])
        # From the middle of the second bin to its end; from bin to bin; a crossing in the middle of the second bin.
        assert wasserstein(np.array([0, 1, 0]), np.array([0, 0, 1]), edges) == pytest.approx(1.0)
        assert wasserstein(np.array([4, 0, 0]), np.array([0, 2, 0]), edges) == pytest.approx(1.5)
        p, q = np.array([0.5, 0.0, 0.5]), np.array([0.0, 1.0, 0.0])
        assert wasserstein(p, q, edges) == pytest.approx(0.5 * 0.5 + 2 * 0.5 * 0.5 * 1.0)
        assert wasserstein(p, p, edges) == 0

    def test_refuses_other_bins(self) -> None:
        with pytest.raises(ValueError, match="expected 2 bins"):
            wasserstein(np.ones(3), np.ones(2), np.arange(3.0))


class TestStatistic:
    metadata = SliceMetadata(box_size=70.0, n_pixels=8, thickness=1.0)

    def test_covers_zero_to_infinity(self) -> None:
        statistic = Histogram()
        edges = statistic.edges(self.metadata)
        assert edges[0] == 0
        assert edges[-1] == np.inf
        fields = torch.tensor([0.0, 1e-3, 1.0, 1e9]).reshape(1, 2, 2)
        shares = statistic.per_slice(fields, self.metadata)
        assert shares.shape == (1, len(edges) - 1)
        assert (float(shares[0, 0]), float(shares[0, -1]), float(shares.sum())) == (0.5, 0.25, 1.0)
        centres = statistic.centres(self.metadata)
        assert np.isnan(centres[[0, -1]]).all()
        assert np.isfinite(centres[1:-1]).all()

    def test_distances_tell_the_two_directions_apart(self) -> None:
        mocks, reference = np.array([0.9, 0.1, 0.0]), np.array([0.5, 0.5, 0.0])
        distances = Histogram(low=1.0, high=3.0, per_decade=1).distances(mocks, reference)
        assert distances["D(reference||mocks), nats"] == pytest.approx(0.5 * math.log(25 / 9))
        assert distances["D(mocks||reference), nats"] == pytest.approx(kl_divergence(mocks, reference))
        # 0.4 of the pixels from the middle of 1 to 3 to that of 0 to 1.
        assert distances["Wasserstein-1, 1 + delta"] == pytest.approx(0.4 * 1.5)

    @pytest.mark.parametrize("arguments", [{"low": 0.0}, {"low": 2.0, "high": 1.0}, {"per_decade": 0}])
    def test_refuses(self, arguments: dict[str, float]) -> None:
        with pytest.raises(ValueError, match="low"):
            Histogram(**arguments)


class TestTail:
    metadata = SliceMetadata(box_size=70.0, n_pixels=64, thickness=1.0)
    # Share of pixels between two thresholds a tenth of a decade apart, where the clipped density lies between them.
    SHARE = 1e-3

    def fields(self) -> torch.Tensor:
        """Lognormal with mean 1 and a long tail."""
        draws = torch.randn(40, 64, 64, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        return (1.5 * draws - 0.5 * 1.5**2).exp().float()

    def test_equals_a_count(self) -> None:
        fields = self.fields()
        shares = Tail().per_slice(fields, self.metadata)
        for threshold, share in zip(Tail().centres(self.metadata), shares.T, strict=True):
            expected = [np.count_nonzero(one >= threshold) / 64**2 for one in fields.double().numpy()]
            np.testing.assert_allclose(share.numpy(), expected, rtol=FLOAT64)
        # Twin: densities 5% higher have another tail.
        assert (Tail().per_slice(1.05 * fields, self.metadata) > shares).any()

    def test_is_the_histogram_summed_from_above(self) -> None:
        shares = Histogram().per_slice(self.fields(), self.metadata)
        tail = Tail().per_slice(self.fields(), self.metadata)
        np.testing.assert_allclose(tail, shares.flip(1).cumsum(1).flip(1)[:, -tail.shape[1] :], rtol=FLOAT64)
        histogram_edges, edges = Histogram().edges(self.metadata), Tail().edges(self.metadata)
        thresholds = Tail().centres(self.metadata)
        np.testing.assert_allclose(thresholds, histogram_edges[-len(thresholds) - 1 : -1], rtol=FLOAT64)
        assert ((edges[:-1] < thresholds) & (thresholds < edges[1:])).all()

    def test_a_pixel_on_a_threshold_is_above_and_the_densest_counts(self) -> None:
        fields = torch.zeros(1, 64, 64)
        fields[0, 0, :3] = torch.tensor([10.0, 9.99, 1e9])
        counts = 64**2 * Tail().per_slice(fields, self.metadata)[0]
        thresholds = Tail().centres(self.metadata)
        assert [float(counts[np.isclose(thresholds, t)]) for t in (1.0, 10.0, 1e4)] == [3, 2, 1]

    def test_clipping_the_densest_pixels_is_a_difference_of_100_percent(self) -> None:
        fields = self.fields()
        top = float(np.quantile(fields.numpy(), 1 - self.SHARE))
        reference, mocks = (Tail().per_slice(f, self.metadata).mean(0).numpy() for f in (fields, fields.clamp(max=top)))
        judged, thresholds = Tail().judged(self.metadata, reference), Tail().centres(self.metadata)
        above = judged & (thresholds > top)
        # Most of the upper third of the judged range, in the logarithm: the median there is 100%.
        position = np.log(thresholds[judged])
        upper = position > position[0] + np.ptp(position) * 2 / 3
        assert np.median(np.abs(mocks[judged] / reference[judged] - 1)[upper]) == 1
        assert (mocks[above] == 0).all()
        assert (mocks[thresholds <= top] == reference[thresholds <= top]).all()
        # The histogram's distances hardly see it.
        shares = [Histogram().per_slice(f, self.metadata).mean(0).numpy() for f in (fields, fields.clamp(max=top))]
        assert jensen_shannon(*shares) < self.SHARE

    def test_judges_down_to_a_pixel_in_ten_slices(self) -> None:
        fields = torch.ones(20, 64, 64)
        fields[0, 0, 0], fields[1, 0, 0], fields[0, 1, 0] = 500.0, 500.0, 5000.0
        reference = Tail().per_slice(fields, self.metadata).mean(0).numpy()
        thresholds = Tail().centres(self.metadata)
        assert thresholds[Tail().judged(self.metadata, reference)].max() == pytest.approx(10**2.6)
        with pytest.raises(ValueError, match="low"):
            Tail(low=2.0, high=1.0)
