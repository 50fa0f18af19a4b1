import numpy as np
import pytest
import torch

from cosmogan import Emulator
from cosmogan.errors import UserError
from cosmogan.networks.spectral_prior.generator import SpectralPriorGenerator
from cosmogan.statistics.power_spectrum import power_spectrum, radial_bins

# Mean power of 400 slices: the rings' median is known to 1%.
POWER_TOLERANCE = 0.04


def test_larger_slices_have_pixels_of_the_same_size(spectral: Emulator):
    larger = spectral.resized(48)
    assert larger.metadata.box_size == 210.0
    assert larger.metadata.pixel_size == spectral.metadata.pixel_size
    assert larger.sample(2).shape == (2, 48, 48)
    # The one it came from is as it was.
    assert spectral.sample(2).shape == (2, 16, 16)
    by_box = spectral.resized(box_size=210.0 * (1 + 1e-9))
    assert by_box.metadata == larger.metadata
    np.testing.assert_array_equal(by_box.sample(2), larger.sample(2))
    assert spectral.resized(16).metadata == spectral.metadata
    assert spectral.resized() is spectral
    assert larger.resized(16).warning == ""


def test_what_is_longer_than_the_training_box_is_named(spectral: Emulator):
    larger = spectral.resized(32)
    assert spectral.warning == ""
    assert "longer than the trained box of 70 Mpc/h (100 Mpc), k < 0.08976 h/Mpc" in larger.warning
    assert larger.provenance["not_trustworthy"] == larger.warning
    assert larger.provenance["trained_box_size"] == 70.0
    assert larger.warning in larger.card


def test_larger_slices_are_periodic_and_have_no_places(spectral: Emulator):
    """Shifting the latents by 8 pixels across the edge shifts the slice: no pixel knows where it is."""
    larger = spectral.resized(32)
    latent = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 2, 32, 32), dtype=np.float32))
    shifted = larger.density(latent.roll((8, 24), (2, 3)))
    expected = larger.density(latent).roll((8, 24), (1, 2))
    # Convolutions and Fourier transforms in float32.
    torch.testing.assert_close(shifted, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(shifted, larger.density(latent), rtol=0.05)


def test_power_on_common_scales_is_that_of_the_trained_size(spectral: Emulator):
    """Of the larger slices, the modes that the trained size has too: those of the slice folded onto it."""
    with torch.no_grad():
        # A spectrum with a slope, and no network: the prior's part of the claim is exact.
        spectral.generator.prior_log_power.copy_(-3 * torch.linspace(0, 1, 16))
        spectral.generator.network.leave.weight.zero_()
        spectral.generator.network.leave.bias.zero_()
        spectral.generator.log_field.copy_(0.5 * spectral.generator.normal)
    own, bins = torch.from_numpy(spectral.sample(1600, seed=1)) - 1, radial_bins(16)
    larger = torch.from_numpy(spectral.resized(32).sample(1600, seed=2)) - 1
    folded = larger.unflatten(2, (2, 16)).unflatten(1, (2, 16)).sum((1, 3)) / 2
    expected, found = (power_spectrum(f, 70.0, bins=bins).mean(0) for f in (own, folded))
    assert float((found / expected).median()) == pytest.approx(1, abs=POWER_TOLERANCE)
    # Twin: pixels 5% larger would show.
    assert float((found * 1.05 / expected).median()) != pytest.approx(1, abs=POWER_TOLERANCE)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"n_pixels": 20}, r"n_pixels 20: expected a multiple of 8 pixels; 16 pixels, 70 Mpc/h .*24 pixels, 105 Mpc/h"),
        ({"n_pixels": 8}, "smaller than the slices of the training, 16 pixels"),
        ({"n_pixels": 0}, "smaller"),
        ({"n_pixels": -16}, "smaller"),
        ({"box_size": 100.0}, r"box_size 100 Mpc/h \(142.857 Mpc\), 22.8571 pixels: expected a multiple of 8"),
        ({"box_size": -1.0}, "expected a length in Mpc/h above 0"),
        ({"box_size": float("nan")}, "expected a length in Mpc/h above 0"),
        ({"n_pixels": 32, "box_size": 140.0}, "expected one of them"),
    ],
)
def test_impossible_sizes_are_refused(spectral: Emulator, size, message: str):
    with pytest.raises(UserError, match=message):
        spectral.resized(**size)


def test_networks_of_one_size_say_so(dcgan: Emulator):
    assert dcgan.resized(16) is dcgan
    with pytest.raises(UserError, match="n_pixels 32: this network makes slices of one size only, 16 pixels, 70 Mpc/h"):
        dcgan.resized(32)


def test_a_resized_emulator_is_not_saved(spectral: Emulator, tmp_path):
    with pytest.raises(UserError, match="at its own size"):
        spectral.resized(32).save(tmp_path / "e.safetensors")


def test_memory_that_is_not_there_is_named(spectral: Emulator, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match=r"n_pixels 1048576: computing a slice needs .* GB of memory and this process"):
        spectral.resized(2**20)
    # Where the estimate is wrong, the allocator has the last word.
    monkeypatch.setattr(SpectralPriorGenerator, "bytes_per_pixel", 1e-12)
    larger = spectral.resized(2**20)
    with pytest.raises(UserError, match="1 slices of 1048576 x 1048576 pixels do not fit into the memory"):
        larger.sample(1)
    # Four terabytes that are not written to.
    latent = torch.zeros(1, 1, 1, 1).expand(1, 2, 2**20, 2**20)
    with pytest.raises(UserError, match="need more memory than cpu has"):
        larger.density(latent)


def test_blocks_of_large_slices_stay_small(spectral: Emulator):
    assert [spectral.resized(n).block_size for n in (64, 128, 256, 1024)] == [16, 4, 1, 1]
