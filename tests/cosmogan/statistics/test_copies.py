import itertools

import numpy as np
import pytest
import torch

from cosmogan.statistics import copies
from cosmogan.statistics.copies import ORIENTATIONS, Waves, flatten, gather_modes, nearest, slice_hashes

# float32 transforms.
FLOAT32 = 1e-5
# A copy with 5% of its rms replaced by that of another slice has lost 1 - 1 / sqrt(1 + 0.05^2) = 1.2e-3.
BLEND = 0.05


def fields(n_slices: int, n_pixels: int, seed: int = 0) -> torch.Tensor:
    """Lognormal slices with more power on large scales."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.fft.rfft2(torch.randn(n_slices, n_pixels, n_pixels, generator=generator))
    wave = torch.fft.fftfreq(n_pixels, 1 / n_pixels)[:, None].square() + torch.arange(n_pixels // 2 + 1).square()
    smooth = torch.fft.irfft2(noise / (1 + wave).sqrt(), s=(n_pixels, n_pixels))
    return torch.exp(1.2 * smooth / smooth.std())


def waves(slices: torch.Tensor) -> Waves:
    return flatten(*gather_modes(slices), slices.shape[-1])


def different(n_slices: int) -> np.ndarray:
    return ~np.eye(n_slices, dtype=bool)


@pytest.mark.parametrize("n_pixels", [16, 17, 64, 100])
@pytest.mark.parametrize("orientation", range(8))
def test_a_turned_and_shifted_copy_is_found_with_its_turn(n_pixels: int, orientation: int) -> None:
    originals = fields(12, n_pixels)
    copied = torch.roll(ORIENTATIONS[orientation].apply(originals[:4]), (n_pixels // 3, -5), (-2, -1))
    both = torch.cat([originals, copied])
    found = nearest(waves(both), waves(both), different(16), n_candidates=1)
    assert found.index[12:].tolist() == [0, 1, 2, 3]
    assert found.index[:4].tolist() == [12, 13, 14, 15]
    np.testing.assert_allclose(found.similarity[12:], 1, atol=FLOAT32)
    for row in range(12, 16):
        turned = ORIENTATIONS[found.orientation[row]].apply(both[found.index[row]])
        assert torch.equal(torch.roll(turned, tuple(found.shift[row]), (-2, -1)), both[row])
    # Twin: a blend is a near copy.
    blend = torch.cat([originals, copied + BLEND * copied.std() * fields(4, n_pixels, 9) / originals.std()])
    assert (nearest(waves(blend), waves(blend), different(16)).similarity[12:] < 1 - 10 * FLOAT32).all()


def test_the_eight_orientations_are_the_symmetries_of_the_square() -> None:
    field = fields(1, 16)
    turns = {tuple(orientation.apply(field).flatten().tolist()) for orientation in ORIENTATIONS}
    rotations = {
        tuple(torch.rot90(side, number, (1, 2)).flatten().tolist())
        for side, number in itertools.product((field, field.flip(1)), range(4))
    }
    assert len(turns) == 8
    assert turns == rotations


def slow_similarities(queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Largest correlation over all orientations and shifts, pair by pair, from the definition."""
    n = queries.shape[-1]
    wave = np.fft.fftfreq(n, 1 / n)
    length = wave[:, None] ** 2 + wave**2
    cut = np.minimum(32, n // 2)

    def flattened(slices: np.ndarray) -> list[np.ndarray]:
        field = [2 * x / (x + 1) - 1 for x in slices]
        modes = [np.fft.fft2(x - x.mean()) for x in field]
        power = np.mean([np.abs(m) ** 2 for m in modes], axis=0)
        white = 0.01 * n**2 * np.mean([x.var() for x in field])
        ring = np.zeros((n, n))
        for value in np.unique(length):
            ring[length == value] = power[length == value].mean()
        kept = (length > 0) & (length < cut**2)
        return [np.fft.ifft2(np.where(kept, m / np.sqrt(ring + white), 0)).real for m in modes]

    result = np.zeros((len(queries), len(candidates)))
    for (i, a), (j, b) in itertools.product(enumerate(flattened(queries)), enumerate(flattened(candidates))):
        for side, number in itertools.product((b, b.T), range(4)):
            turned = np.rot90(side, number)
            for shift in itertools.product(range(n), repeat=2):
                moved = np.roll(turned, shift, (0, 1))
                result[i, j] = max(result[i, j], (a * moved).sum() / np.sqrt((a**2).sum() * (b**2).sum()))
    return result


@pytest.mark.parametrize("n_pixels", [16, 17])
def test_all_candidates_by_brute_force(n_pixels: int) -> None:
    queries, candidates = fields(3, n_pixels, 1), fields(4, n_pixels, 2)
    expected = slow_similarities(queries.double().numpy(), candidates.double().numpy())
    found = nearest(waves(queries), waves(candidates), n_candidates=100)
    np.testing.assert_array_equal(found.index, expected.argmax(1))
    np.testing.assert_allclose(found.similarity, expected.max(1), rtol=1e-4)
    one = nearest(waves(queries), waves(candidates), np.arange(4) == np.zeros((3, 1)), n_candidates=100)
    np.testing.assert_allclose(one.similarity, expected[:, 0], rtol=1e-4)
    # Twin: 5% off.
    assert not np.allclose(1.05 * found.similarity, expected.max(1), rtol=0.04)


def test_shifts_turns_and_batches_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, candidates = fields(10, 32, 1), fields(12, 32, 2)
    expected = nearest(waves(queries), waves(candidates))
    for move in (lambda s: s.roll((3, -7), (1, 2)), lambda s: s.transpose(1, 2), lambda s: s.flip(1)):
        found = nearest(waves(move(queries)), waves(candidates))
        np.testing.assert_array_equal(found.index, expected.index)
        np.testing.assert_allclose(found.similarity, expected.similarity, rtol=1e-4)
    monkeypatch.setattr(copies, "_QUERIES", 3)
    monkeypatch.setattr(copies, "_CELLS", 2 * 32**2)
    found = nearest(waves(queries), waves(candidates))
    np.testing.assert_array_equal(found.index, expected.index)
    np.testing.assert_allclose(found.similarity, expected.similarity, rtol=1e-5)


def test_copies_with_ten_percent_noise_are_recalled() -> None:
    slices = fields(200, 64)
    generator = torch.Generator().manual_seed(1)
    order = torch.randperm(200, generator=generator)
    factor = 1 + 0.1 * torch.randn(slices.shape, generator=generator)
    noisy = ORIENTATIONS[3].apply(slices[order] * factor.clamp(min=0)).roll((11, 6), (1, 2))
    found = nearest(waves(noisy), waves(slices))
    np.testing.assert_array_equal(found.index, order.numpy())
    assert found.similarity.min() > 0.95
    # Twin: others resemble nothing.
    assert nearest(waves(fields(200, 64, 5)), waves(slices)).similarity.max() < 0.25


def test_chance_does_not_depend_on_the_spectrum() -> None:
    generator = torch.Generator().manual_seed(0)
    white = torch.exp(torch.randn(100, 64, 64, generator=generator))
    medians = [np.median(nearest(waves(s), waves(s), different(100)).similarity) for s in (white, fields(100, 64))]
    assert medians[0] == pytest.approx(medians[1], rel=0.15)


def test_constant_slices_resemble_nothing() -> None:
    slices = fields(4, 16)
    slices[1:3] = 0.3
    found = nearest(waves(slices), waves(slices), different(4))
    assert (found.similarity[1:3] == 0).all()
    assert np.isfinite(found.similarity).all()


def test_nothing_allowed() -> None:
    slices = waves(fields(3, 16))
    allowed = different(3)
    allowed[1] = False
    found = nearest(slices, slices, allowed)
    assert found.index[1] == -1
    assert np.isnan(found.similarity[1])
    assert (found.index[[0, 2]] >= 0).all()


@pytest.mark.parametrize("orientation", range(8))
def test_hashes_of_turned_copies_are_equal(orientation: int) -> None:
    slices = fields(3, 16)
    turned = ORIENTATIONS[orientation].apply(slices).roll((3, 9), (1, 2))
    np.testing.assert_array_equal(slice_hashes(turned.numpy()), slice_hashes(slices.numpy()))


def test_hashes_of_anything_else_differ() -> None:
    one = fields(1, 16).numpy()
    shuffled = np.random.default_rng(0).permutation(one.ravel()).reshape(one.shape)
    swapped = one.copy()
    swapped[0, 3, 4], swapped[0, 9, 9] = one[0, 9, 9], one[0, 3, 4]
    last_bit = one.copy()
    last_bit[0, 0, 0] = np.nextafter(one[0, 0, 0], np.float32(2))
    hashes = slice_hashes(np.concatenate([one, shuffled, swapped, last_bit, one.repeat(2, 0)[:1] * np.float32(1.05)]))
    assert len(set(hashes.tolist())) == 5
    assert slice_hashes(np.full((1, 16, 16), -0.0)) == slice_hashes(np.zeros((1, 16, 16)))


def test_refuses() -> None:
    with pytest.raises(ValueError, match="n >= 16"):
        gather_modes(torch.ones(1, 15, 15))
    with pytest.raises(ValueError, match="expected 16 pixels"):
        nearest(waves(fields(1, 16)), waves(fields(1, 32)))
